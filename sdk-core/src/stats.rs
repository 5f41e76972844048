//! What a camera counts, as plain values: one [`Snapshot`] for the whole agent.
//!
//! The agent owns the counters and writes them into a snapshot when it is asked to
//! ([`crate::agent::Agent::write_stats`]); the driver does so at most once a second and at each event,
//! and hands the result to the firmware's threads. So nobody waits for the agent, the agent waits for
//! nobody, and a callback may look too. What is read is at most a second old.
//!
//! Everything here is of fixed size, but for the two lists, whose memory is used again.

mod latency;
mod rate;

pub use latency::{Latency, LatencyStats};
pub use rate::Rate;

use crate::event::StreamId;
use crate::wire::codec::Codec;
use crate::wire::signal::{Path, SessionId};
use std::time::Duration;

/// A name that is an identifier on the wire: at most 64 bytes.
pub type Name = heapless::String<64>;

/// The whole agent at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub agent: AgentStats,
    /// In the order in which they came. Those that are gone are not there any more.
    pub viewers: Vec<ViewerStats>,
    pub streams: Vec<StreamStats>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AgentStats {
    /// Since the camera was started. 0 until there is a first snapshot.
    pub uptime: Duration,
    /// The link to the broker is up.
    pub signaling_up: bool,
    /// How often it came up again after the first time.
    pub signaling_reconnects: u32,
    /// System calls that were to send something to viewers and their servers.
    pub sends: u64,
    /// Datagrams that were sent with them.
    pub datagrams: u64,
    /// Datagrams that the system had no room for, or refused; also when ICE tries what cannot be
    /// reached.
    pub send_errors: u64,
    /// What is held beside the viewers' and the streams' own: by capacity, in bytes.
    pub held_bytes: u64,
    /// Packets of the microphone that were taken, and those that were not: the agent was behind by a
    /// full queue.
    pub audio_packets: u64,
    pub audio_refused: u64,
    /// From a frame's push to when its last packet was handed to the kernel, for each viewer: with
    /// the time that a large frame is spread over, but without those that a viewer starts with from
    /// the past.
    pub push_to_wire: LatencyStats,
}

/// One viewer, from the offer on.
#[derive(Debug, Clone)]
pub struct ViewerStats {
    pub session: SessionId,
    pub app: Name,
    pub stream: StreamId,
    pub stream_name: Name,
    pub path: Option<Path>,
    pub local_candidate: Option<CandidateType>,
    pub remote_candidate: Option<CandidateType>,
    /// Its number in IANA's registry of DTLS-SRTP protection profiles; `None` before the handshake.
    pub srtp_profile: Option<u16>,
    pub timeline: Timeline,
    /// By the viewer's reports on the media; before the first, by the connectivity checks.
    pub rtt: Option<Duration>,
    pub jitter: Duration,
    /// Of 256, in the viewer's last report.
    pub fraction_lost: u8,
    /// As the viewer counts them. Negative when there were more duplicates than losses.
    pub lost_packets: i32,
    /// First time, without what was sent again.
    pub frames: u64,
    pub packets: u64,
    /// RTP payloads of these packets.
    pub media_bytes: u64,
    /// UDP payloads of all that carried media: with headers, tags, reports and what was sent again.
    pub wire_bytes: u64,
    /// Of `media_bytes`, in the last second.
    pub media_bps: u64,
    /// Of `wire_bytes`, in the last second.
    pub wire_bps: u64,
    /// What the encoder may make for this viewer alone, by congestion control. 0: not known.
    pub target_bps: u64,
    /// Requests for lost packets (RFC 4585 6.2.1), and the packets they named.
    pub nacks: u64,
    pub nacked_packets: u64,
    pub resent_packets: u64,
    /// Packets that were not sent again, since congestion control had no room for them.
    pub resends_withheld: u64,
    /// Requests for a keyframe.
    pub plis: u64,
    pub firs: u64,
    pub drops: Drops,
    /// Of its data channels.
    pub data: DataStats,
    /// Buffers of this viewer, by capacity. Without what ICE and DTLS keep to themselves.
    pub held_bytes: u64,
    pub audio: AudioStats,
    pub talkback: TalkbackStats,
}

/// Sound on its way to one viewer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AudioStats {
    pub packets: u64,
    /// RTP payloads of these packets.
    pub bytes: u64,
    /// As the viewer counts them. Negative when there were more duplicates than losses.
    pub lost_packets: i32,
}

/// What one viewer says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TalkbackStats {
    /// That came, in time or not.
    pub packets: u64,
    /// Told to the firmware as lost, those that came too late among them.
    pub lost: u64,
    /// Came after their time.
    pub late: u64,
    /// How long the jitter buffer holds a packet that came the fastest way.
    pub delay: Duration,
    /// How unevenly packets come (RFC 3550 A.8).
    pub jitter: Duration,
}

/// Frames that a viewer was not sent, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops {
    /// More waited than its network takes in time.
    pub queue_full: u64,
    /// Too many waited for the path, or for the relay to open a channel.
    pub no_route: u64,
    /// They refer to a picture that this viewer does not have.
    pub awaiting_keyframe: u64,
    /// The history did not hold them any more.
    pub too_old: u64,
    /// A NAL unit was too long for a viewer that takes packetization-mode 0 only.
    pub too_large: u64,
    /// The session's key was used for all packets it is good for.
    pub key_worn_out: u64,
}

/// A viewer's data channels, from the first one on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DataStats {
    /// Open ones, or being opened.
    pub channels: u32,
    /// Messages that were taken for sending, and their bytes.
    pub sent_messages: u64,
    pub sent_bytes: u64,
    /// Messages that came whole, and their bytes.
    pub received_messages: u64,
    pub received_bytes: u64,
    /// Of the send buffer in use, as [`crate::peer::data::message_cost`] counts.
    pub buffered_bytes: u64,
}

/// What an end of a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CandidateType {
    Host,
    ServerReflexive,
    PeerReflexive,
    Relayed,
}

/// When a viewer reached what, counted from its offer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeline {
    /// The wall clock when the offer was taken, since the Unix epoch.
    pub offer_unix: Duration,
    /// The first answer was handed to the broker's link.
    pub answer: Option<Duration>,
    /// The first connectivity check of the viewer's succeeded: there is a path.
    pub ice: Option<Duration>,
    /// The handshake is done and the viewer is who its offer said.
    pub dtls: Option<Duration>,
    /// The last packet of its first frame was sealed and sent.
    pub first_frame: Option<Duration>,
    /// How long ago the offer was taken.
    pub age: Duration,
}

/// One stream, as it comes from the encoder.
#[derive(Debug, Clone)]
pub struct StreamStats {
    pub id: StreamId,
    pub name: Name,
    pub codec: Codec,
    /// Access units that were taken, and their bytes.
    pub frames: u64,
    pub bytes: u64,
    /// Of these, keyframes.
    pub keyframes: u64,
    pub refused: Refused,
    /// How often the encoder was asked for a keyframe.
    pub keyframe_requests: u64,
    /// Frames in the last second.
    pub frame_rate: u64,
    /// Of `bytes`, in the last second.
    pub bps: u64,
    /// Packets kept for all viewers, by capacity.
    pub history_bytes: u64,
    /// Those that are being connected among them.
    pub viewers: u32,
}

/// Frames that a stream did not take, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refused {
    /// The agent was behind by a full queue.
    pub queue_full: u64,
    /// They refer to a frame that was refused.
    pub awaiting_keyframe: u64,
    /// More than the history may hold.
    pub too_large: u64,
    /// A keyframe without SPS and PPS, and none came before it.
    pub no_parameter_sets: u64,
    /// Not an access unit in Annex B, or one of too many units.
    pub malformed: u64,
}

impl Snapshot {
    /// Whether any of its numbers will change by themselves as time passes.
    pub fn is_lively(&self) -> bool {
        !self.viewers.is_empty() || self.streams.iter().any(|s| s.frame_rate > 0)
    }
}

impl Drops {
    pub fn total(&self) -> u64 {
        let Drops { queue_full, no_route, awaiting_keyframe, too_old, too_large, key_worn_out } =
            self;
        queue_full + no_route + awaiting_keyframe + too_old + too_large + key_worn_out
    }
}

impl Refused {
    pub fn total(&self) -> u64 {
        let Refused { queue_full, awaiting_keyframe, too_large, no_parameter_sets, malformed } =
            self;
        queue_full + awaiting_keyframe + too_large + no_parameter_sets + malformed
    }
}

/// An identifier that was checked when it came in, so that it fits.
pub fn name(id: &str) -> Name {
    Name::try_from(id).unwrap_or_default()
}
