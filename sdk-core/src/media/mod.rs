//! The hot path: from an encoder's access unit to sealed packets for each viewer.
//!
//! ```text
//! frame ─→ VideoStream::push ─→ Train (once per stream; payloads in the history)
//!                                 │
//!                                 ├─→ PacedStream ─→ ViewerStream::seal_part ─→ SendBuffer ─→ one GSO send
//!                                 ├─→ PacedStream ─→ …
//! RTCP ──→ ViewerStream::handle_rtcp ─┬→ lost packets again, from the same history
//!                                     └→ Bandwidth ─→ Pacer, and the encoder's target
//!
//! microphone ─→ AudioTimeline::place (once) ─→ AudioSender × N ───────────→ SendBuffer ─→ one send
//! RTP ─────→ Talkback ─→ JitterBuffer ─→ loudspeaker
//! ```
//!
//! Per packet nothing is allocated and nothing is locked: payloads are copied once into the
//! stream's history, and once more into the buffer where each viewer's copy is sealed.

pub mod audio;
pub mod bandwidth;
pub mod capture_clock;
pub mod frame_clock;
pub mod history;
pub mod jitter;
pub mod keyframes;
pub mod paced_stream;
pub mod pacer;
mod packetizer;
mod parameter_sets;
pub mod reception;
mod reports;
mod resend;
pub mod send_buffer;
mod single_nals;
pub mod srtp;
pub mod talkback;
pub mod video_stream;
pub mod viewer_stream;

pub use audio::{AudioConfig, AudioPacket, AudioSender, AudioTimeline};
pub use bandwidth::Bandwidth;
pub use capture_clock::{CaptureClock, Reading};
pub use frame_clock::FrameClock;
pub use keyframes::KeyframeGovernor;
pub use paced_stream::PacedStream;
pub use pacer::Pacer;
pub use send_buffer::{Run, SendBuffer};
pub use srtp::{SrtpKeys, SrtpProfile};
pub use talkback::Talkback;
pub use video_stream::{
    FrameError, Sources, Train, TrainId, VideoConfig, VideoStream, media_ticks,
};
pub use viewer_stream::{
    Companions, DropReason, PacketizationMode, Part, RtcpFacts, Rtx, Sealed, ViewerConfig,
    ViewerStats, ViewerStream,
};
