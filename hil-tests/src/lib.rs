//! The whole path, tested on the real parts: `server-min` and the C camera run as processes, an
//! independent viewer on the `webrtc` crate and a real browser watch it.
//!
//! ```text
//! Lab ── server-min (process) ── the session API, MQTT, STUN, TURN
//!     └─ camera     (process) ── examples/c/camera.c with libp2pcam.a
//! Viewer: session API → Broker (MQTT) → Peer (webrtc crate) → Received (packets, frames)
//! Clip:   what the camera plays, to compare with what was received, NAL by NAL
//! ```
//!
//! Nothing here uses the device's own path: the viewer has its own HTTP, MQTT, RTP depacketiser
//! and Annex B reader, so that an error in one side cannot hide the same error in the other.

pub mod api;
pub mod broker;
pub mod browser;
pub mod channels;
pub mod chart;
pub mod clip;
pub mod clock;
pub mod codec;
pub mod conversation;
pub mod coturn;
pub mod figures;
pub mod firmware;
pub mod h264;
pub mod http;
pub mod lab;
pub mod lines;
pub mod one_by_one;
pub mod peer;
pub mod process;
pub mod received;
pub mod report;
pub mod sound;
pub mod usage;
pub mod viewer;
