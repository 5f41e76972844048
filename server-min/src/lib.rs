//! STUN, TURN, MQTT broker and session API in one small binary.

pub mod config;
pub mod http;
pub mod mqtt;
pub mod session;
pub mod stun_turn;
