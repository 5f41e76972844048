//! One viewer's transport: ICE, DTLS and relays.
//!
//! Each protocol crate is named in exactly one of these files.

mod consent;
pub mod data;
pub mod dtls;
pub mod gather;
pub mod ice;
mod relays;
mod sctp;
mod transport;
pub mod turn;

pub use transport::{LocalSocket, Peer, PeerEvent, PeerSettings, Route};
