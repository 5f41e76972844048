//! The data plane: sockets, and threads that read and write them by the batch.
//!
//! ```text
//! UDP ──────────────────────┐                                          ┌→ relay socket → peers
//! TCP ──────────→ framing ──┼→ shard: Core::handle_client → SendQueue ─┤
//! TLS ─→ rustls ─→ framing ─┤                                          └→ replies
//! DTLS ─→ hello, rtc-dtls ──┘
//! ```
//!
//! Each [shard] is a thread with clients, allocations and sockets of its own; the kernel deals the
//! clients out among them. A wake-up reads a batch from each socket that has one, lets the core
//! decide about each message, and writes all that follows with as few system calls as the kernel
//! allows. Of UDP and TCP nothing is allocated, locked or copied for a payload, but to gather what a
//! stream writes; TLS and DTLS allocate their records.

mod admission;
mod backlog;
mod counters;
mod dtls;
mod framing;
mod gather;
mod hello;
mod links;
mod listeners;
mod observers;
mod receive;
mod relay;
mod relay_sockets;
mod send;
mod server;
mod shard;
mod sys;
mod tcp;
mod tls;

pub use counters::TurnCounters;
pub use observers::{AllocationInfo, Relayed, TurnObserver};
pub use server::{TurnHandle, TurnServer};
