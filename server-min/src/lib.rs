//! STUN, TURN, MQTT broker and session API in one small binary.

pub mod clock;
pub mod config;
mod counters;
pub mod http;
pub mod logger;
pub mod mqtt;
pub mod nodes;
pub mod placement;
pub mod regions;
pub mod server;
pub mod session;
pub mod stun_turn;
pub mod tls;
