//! What the agent tells the firmware.

use crate::wire::audio::AudioCodec;
use crate::wire::dcep::ChannelInfo;
use crate::wire::signal::{ErrorCode, Path, SessionId};
use std::fmt;
use std::time::Duration;

/// Something the firmware may want to know. Delivered in order, from the agent's thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The link to the broker is up: viewers can find the camera.
    SignalingUp,
    /// The link to the broker is down; it is tried again for ever, with growing, random pauses.
    SignalingDown { reason: String },
    /// A viewer was admitted and is being connected.
    ViewerNew { session: SessionId, app: String, stream: StreamId },
    /// The viewer's media flows.
    ViewerConnected { session: SessionId, path: Path, setup_ms: u32 },
    /// The viewer is sent another stream from now on.
    ViewerStream { session: SessionId, stream: StreamId },
    /// The viewer is gone, or was not admitted.
    ViewerClosed { session: SessionId, reason: CloseReason },
    /// The next frame of this stream should be a keyframe (RFC 4585 PLI, RFC 5104 FIR, or a viewer
    /// that starts).
    KeyframeRequest { stream: StreamId },
    /// The encoder of this stream should make that much from now on, since its viewers' network
    /// takes no more, or takes more again. See docs/congestion.md for the rule.
    TargetBitrate { stream: StreamId, bits_per_second: u32 },
    /// Of a viewer's data channels. They end with the viewer, before its `ViewerClosed`.
    Data { session: SessionId, event: DataEvent },
}

impl Event {
    /// Whether it may come many times a second.
    pub fn is_frequent(&self) -> bool {
        matches!(
            self,
            Event::KeyframeRequest { .. } | Event::TargetBitrate { .. } | Event::Data { .. }
        )
    }
}

/// What happened to a viewer's data channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataEvent {
    /// The viewer takes data channels: they can be opened from now on. Messages may have so many
    /// bytes.
    Ready {
        max_message: usize,
    },
    /// The viewer has opened a channel, or has answered to the camera's.
    Opened {
        channel: u16,
        info: ChannelInfo,
    },
    Message {
        channel: u16,
        text: bool,
        bytes: Vec<u8>,
    },
    /// Nothing more comes or goes on it.
    Closed {
        channel: u16,
    },
    /// A channel that refused a message for want of room has half of it free again. From the driver,
    /// which is who refuses.
    Writable {
        channel: u16,
    },
}

/// One channel of the camera, as numbered by `start_stream`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// The camera's microphone and loudspeaker, as numbered by `start_audio`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AudioId(pub u32);

/// What a viewer says, in order and in time: a packet, or packets that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Talkback<'a> {
    pub session: SessionId,
    pub codec: AudioCodec,
    /// One packet of the codec; empty where packets are missing.
    pub data: &'a [u8],
    /// How many packets are missing here; 0 with `data`.
    pub lost: u32,
    /// Since the viewer began to talk.
    pub timestamp: Duration,
    /// How much sound it is, or would have been.
    pub duration: Duration,
}

/// Why a session ended. The text of `Display` goes into the viewer's `bye` or `error` and the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// The viewer said goodbye, with its own words.
    ViewerLeft(String),
    /// The firmware closed it (`p2p_viewer_close`, `p2p_stop_stream`, `p2p_deinit`).
    ClosedByDevice(&'static str),
    /// The session service closed it.
    ClosedByService(String),
    /// It was refused, or failed, with this error on the wire.
    Failed { code: ErrorCode, message: String },
    /// Nothing was heard from the viewer any more.
    Lost,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::ViewerLeft(words) if words.is_empty() => f.write_str("the viewer left"),
            CloseReason::ViewerLeft(words) => write!(f, "the viewer left: {words}"),
            CloseReason::ClosedByDevice(why) => write!(f, "closed by the device: {why}"),
            CloseReason::ClosedByService(why) => write!(f, "closed by the service: {why}"),
            CloseReason::Failed { code, message } => write!(f, "{message} ({code})"),
            CloseReason::Lost => f.write_str("nothing was heard from the viewer any more"),
        }
    }
}
