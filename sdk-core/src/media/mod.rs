//! The hot path: from an encoder's access unit to sealed packets for each viewer.
//!
//! ```text
//! frame ─→ VideoStream::push ─→ Train (once per stream; payloads in the history)
//!                                 │
//!                                 ├─→ PacedStream ─→ ViewerStream::seal_part ─→ SendBuffer ─→ one GSO send
//!                                 ├─→ PacedStream ─→ …
//! RTCP ──→ ViewerStream::handle_rtcp ─┬→ lost packets again, from the same history
//!                                     └→ Bandwidth ─→ Pacer, and the encoder's target
//! ```
//!
//! Per packet nothing is allocated and nothing is locked: payloads are copied once into the
//! stream's history, and once more into the buffer where each viewer's copy is sealed.

pub mod bandwidth;
pub mod frame_clock;
pub mod history;
pub mod keyframes;
pub mod paced_stream;
pub mod pacer;
mod packetizer;
mod parameter_sets;
mod reports;
mod resend;
pub mod send_buffer;
mod single_nals;
pub mod srtp;
pub mod video_stream;
pub mod viewer_stream;

pub use bandwidth::Bandwidth;
pub use frame_clock::FrameClock;
pub use keyframes::KeyframeGovernor;
pub use paced_stream::PacedStream;
pub use pacer::Pacer;
pub use send_buffer::{Run, SendBuffer};
pub use srtp::{SrtpKeys, SrtpProfile};
pub use video_stream::{FrameError, Sources, Train, VideoConfig, VideoStream};
pub use viewer_stream::{
    DropReason, PacketizationMode, Part, RtcpFacts, Rtx, Sealed, ViewerConfig, ViewerStats,
    ViewerStream,
};
