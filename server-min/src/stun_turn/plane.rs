//! The data plane: sockets, one thread, and datagrams by the batch.
//!
//! A wake-up reads a batch from each socket that has one, lets the core decide about each datagram,
//! and writes all that follows with as few system calls as the kernel allows. Nothing is allocated,
//! locked or copied for a payload.

mod receive;
mod send;
mod server;
mod shard;
mod sys;

pub use server::{AllocationInfo, Relayed, TurnCounters, TurnHandle, TurnObserver, TurnServer};
