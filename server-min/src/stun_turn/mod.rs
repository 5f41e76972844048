//! STUN and TURN over UDP (RFC 8489, RFC 8656).
//!
//! ```text
//! listener ─→ Core::handle_client ─→ a reply, or a payload for a peer ─→ relay socket
//! relay socket ─→ Core::handle_peer ─→ a prefix for the payload ─→ listener
//! ```
//!
//! [`core`] has no socket and no clock. The data plane around it is one thread that reads and
//! writes in batches.

mod allocation;
mod answers;
mod bandwidth;
mod closed;
mod complaints;
mod config;
mod connections;
pub mod core;
mod credentials;
mod peers;
mod plane;
mod quota;
mod refusals;
mod relaying;
mod relays;
mod requests;
mod shared;
mod traffic;

pub use answers::MAX_REPLY_LEN;
pub use config::TurnConfig;
pub use connections::{ConnectionId, Direction};
pub use credentials::{password_for, session_of};
pub use peers::PeerRange;
pub use plane::{AllocationInfo, Relayed, TurnCounters, TurnHandle, TurnObserver, TurnServer};
pub use refusals::{Reason, Refused, SharedRefused};
pub use relaying::ToClient;
pub use relays::{Opened, RelayId, RelayPorts};
pub use shared::Shared;
pub use traffic::{MAX_ASKED, Traffic};
