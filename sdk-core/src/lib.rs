//! The peer-to-peer camera agent.
//!
//! ```text
//! frame ─ push_frame ─ FrameQueue ─→ Input::Frame    ┐           ┌ Transmit batch ─→ UDP (GSO)
//! MQTT ── broker link ─────────────→ Input::Signal   ├→  Agent  →┼ Output::Signal ─→ broker link (outbox)
//! UDP ─── sockets ─────────────────→ Input::Datagram │           ├ Output::Event ──→ the firmware's callbacks
//! clock ───────────────────────────→ Input::Timeout  ┘           └ Output::Timeout → sleep
//! ```
//!
//! [`wire`] turns bytes into values and back and is all that a server needs. Everything else is
//! the camera's side (feature `device`): the sans-IO agent, and the driver that owns its sockets,
//! thread and clock.

pub mod wire;

#[cfg(feature = "device")]
pub mod agent;
#[cfg(feature = "device")]
pub mod config;
#[cfg(feature = "device")]
pub mod driver;
#[cfg(feature = "device")]
pub mod event;
#[cfg(feature = "device")]
pub mod log_scope;
#[cfg(feature = "device")]
pub mod media;
#[cfg(feature = "device")]
pub mod net;
#[cfg(feature = "device")]
pub mod peer;
#[cfg(feature = "device")]
pub mod random;
#[cfg(feature = "device")]
pub mod session;
#[cfg(feature = "device")]
pub mod signaling;
#[cfg(feature = "device")]
pub mod stats;
#[cfg(feature = "device")]
pub mod time;
