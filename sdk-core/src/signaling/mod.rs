//! How signals travel: order, duplicates, retries.

pub mod mailbox;
pub mod outbox;
