//! STUN, TURN, MQTT broker and session API in one small binary.

mod carrier;
pub mod clock;
pub mod config;
mod counters;
pub mod http;
pub mod listeners;
pub mod logger;
pub mod metrics;
pub mod mqtt;
pub mod mqtt_external;
pub mod nodes;
pub mod ops;
mod per_address;
pub mod placement;
pub mod regions;
pub mod server;
pub mod session;
pub mod start_error;
pub mod stun_turn;
pub mod tls;
