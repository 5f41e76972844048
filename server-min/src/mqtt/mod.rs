//! The MQTT broker: 3.1.1 and 5, over TCP, TLS, WebSocket or any other byte stream, for the topics of
//! docs/signaling.md. One thread, one small task per connection, everything bounded.
//!
//! ```text
//! socket → Connection → codec → Client ─→ Router ─→ Session queue ─ wakes ─→ Connection → socket
//!          buffers,             CONNECT,  topics,   QoS, window,              one write for all
//!          timers               access    retained  offline rule              that waits
//! ```
//!
//! Everything is `!Send`: a [`Broker`] and its futures live in one [`tokio::task::LocalSet`].
//!
//! What a client may count on beyond the standard: a publish the rules refuse is answered with 0x87
//! in MQTT 5 and acknowledged and dropped in 3.1.1 (closing would make a client that resends at every
//! reconnect do so for ever); one that nobody listens to is answered with 0x10 in MQTT 5. QoS 2 is
//! taken exactly once and delivered as QoS 1. `$share`, subscription identifiers and topic aliases
//! are refused as not supported.

mod access;
mod answer;
mod broker;
mod certificate;
mod client;
mod codec;
mod config;
mod connect;
mod connection;
mod doors;
mod local;
mod message;
mod rate;
mod router;
mod session;
mod stats;
mod subscriptions;
pub(crate) mod topic;
mod websocket;

pub use access::{Authenticator, Identity, Login, PendingVerdict, Refusal, Role, Verdict};
pub(crate) use access::{Grant, may_publish, may_subscribe};
pub use broker::Broker;
pub use config::BrokerConfig;
pub use local::{LocalClient, LocalMessage, LocalSubscription, Rejected};
pub use stats::{BrokerStats, RefusalReason};
