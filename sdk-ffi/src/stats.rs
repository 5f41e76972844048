//! Statistics: `p2p_get_stats`.

use crate::boundary::enter;
use crate::callbacks::{p2p_path_t, path_number};
use crate::handle::{self, p2p_agent_t};
use crate::layout::{self, Versioned};
use crate::status::{Error, p2p_status_t};
use crate::stream::codec_number;
use sdk_core::stats::{CandidateType, Snapshot, StreamStats, ViewerStats};
use std::ffi::c_char;
use std::mem::size_of;
use std::time::Duration;

/// Room for an app's id or a stream's name with its zero byte, in bytes.
pub const P2P_NAME_SIZE: usize = 72;
/// Room for a session id with its zero byte, in bytes.
pub const P2P_SESSION_ID_SIZE: usize = 40;

/// What srtp_profile may be; the numbers are those of IANA's registry of DTLS-SRTP protection
/// profiles.
pub const P2P_SRTP_AES128_CM_HMAC_SHA1_80: u32 = 1;
pub const P2P_SRTP_AEAD_AES_128_GCM: u32 = 7;

/// The agent as a whole. Start from P2P_STATS_INIT. A later version may add fields at the end.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct p2p_stats_t {
    /// sizeof(p2p_stats_t), set by P2P_STATS_INIT.
    pub struct_size: usize,
    /// Since p2p_init(). 0 if the agent has not counted anything yet.
    pub uptime_ms: u64,
    /// System calls that were to send something to viewers or to their STUN and TURN servers.
    pub sends: u64,
    /// Datagrams that were sent with them.
    pub datagrams: u64,
    /// Datagrams that the system had no room for, or refused; also when ICE tries what cannot be
    /// reached.
    pub send_errors: u64,
    /// Memory held beside that of viewers and streams: by capacity.
    pub memory_bytes: u64,
    /// 1: the link to the broker is up. Otherwise 0.
    pub signaling_up: u32,
    /// How often that link came up again after the first time.
    pub signaling_reconnects: u32,
    /// Viewers there are, also beyond the array's room. Those that are being connected count.
    pub viewers: u32,
    /// Streams there are, also beyond the array's room.
    pub streams: u32,
    /// Frames of the microphone that were taken, and those that were not: P2P_ERR_QUEUE_FULL.
    pub audio_frames: u64,
    pub audio_refused: u64,
    /// From p2p_push_frame() to when the frame's last packet was handed to the system, for each frame
    /// and viewer, in microseconds: half of them took no longer than this, likewise 95 % and 99 %, and
    /// the longest. With the time that a large frame is spread over so that the viewer's network is
    /// not flooded. Of the last half minute to minute; 0: nothing was sent.
    pub push_to_wire_p50_us: u32,
    pub push_to_wire_p95_us: u32,
    pub push_to_wire_p99_us: u32,
    pub push_to_wire_max_us: u32,
}

/// One viewer, from its offer until it is gone. Start the array's first element from
/// P2P_VIEWER_STATS_INIT. A later version may add fields at the end.
///
/// Times are in milliseconds since the viewer's offer; -1: not yet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct p2p_viewer_stats_t {
    /// sizeof(p2p_viewer_stats_t), set by P2P_VIEWER_STATS_INIT.
    pub struct_size: usize,
    /// When the offer was taken, by this device's clock, in milliseconds since 1970.
    pub offer_unix_ms: u64,
    /// When it was connected, likewise. 0: not yet.
    pub connected_unix_ms: u64,
    /// Frames sent, without those sent again; likewise the next three.
    pub frames: u64,
    pub packets: u64,
    /// RTP payloads.
    pub media_bytes: u64,
    /// UDP payloads of all that carried media: with headers, tags, reports and what was sent again.
    pub wire_bytes: u64,
    /// Bit rate of the media over the last second.
    pub media_bps: u64,
    /// Bit rate of wire_bytes over the last second.
    pub wire_bps: u64,
    /// What the encoder may make for this viewer alone, by congestion control, in bits per second.
    /// 0: not known.
    pub target_bps: u64,
    /// Requests of the viewer for lost packets (NACK), and the packets they named.
    pub nacks: u64,
    pub nacked_packets: u64,
    /// Packets that were sent again.
    pub resent_packets: u64,
    /// Packets that were not sent again, since congestion control had no room for them.
    pub resends_withheld: u64,
    /// Requests of the viewer for a keyframe: a picture was lost (PLI), or it starts (FIR).
    pub plis: u64,
    pub firs: u64,
    /// Frames it was not sent, by reason. More waited than its network takes in time:
    pub dropped_queue_full: u64,
    /// Too many waited for a path, or for the relay to open a channel.
    pub dropped_no_route: u64,
    /// They refer to a picture that this viewer does not have.
    pub dropped_awaiting_keyframe: u64,
    /// The stream's history did not hold them any more.
    pub dropped_too_old: u64,
    /// A slice was too long for a viewer that takes packetization-mode 0 only.
    pub dropped_too_large: u64,
    /// The session's key was used for all packets it is good for.
    pub dropped_key_worn_out: u64,
    /// Memory held for this viewer: by capacity, without what ICE and DTLS keep to themselves.
    pub memory_bytes: u64,
    /// Packets lost, as the viewer counts. Negative when there were more duplicates than losses.
    pub lost_packets: i64,
    /// Lost between the viewer's last two reports, of 1000.
    pub loss_permille: u32,
    /// 0: not known yet.
    pub round_trip_us: u32,
    /// By the viewer's last report (RFC 3550 6.4.1).
    pub jitter_us: u32,
    /// One of P2P_SRTP_… 0: not agreed on yet.
    pub srtp_profile: u32,
    /// When the answer was handed to the broker's link.
    pub answer_ms: i32,
    /// When a check found a path (ICE).
    pub ice_ms: i32,
    /// When the handshake was done (DTLS): the viewer is connected.
    pub dtls_ms: i32,
    /// When the last packet of its first frame was sent.
    pub first_frame_ms: i32,
    /// P2P_PATH_NONE: not connected yet.
    pub path: p2p_path_t,
    /// The path's two ends, as kinds of candidates: the camera's and the viewer's.
    pub local_candidate: p2p_path_t,
    pub remote_candidate: p2p_path_t,
    /// Always 0.
    pub reserved: u32,
    /// As in the events.
    pub session_id: [c_char; P2P_SESSION_ID_SIZE],
    pub app_id: [c_char; P2P_NAME_SIZE],
    /// The name of the stream it watches.
    pub stream: [c_char; P2P_NAME_SIZE],
    /// Packets of the microphone that it was sent, and their RTP payloads.
    pub audio_packets: u64,
    pub audio_bytes: u64,
    /// Of these, lost, as the viewer counts; see lost_packets.
    pub audio_lost: i64,
    /// Packets that came of what it says.
    pub talkback_packets: u64,
    /// Of these, missing when they should have been heard: on_talkback said so.
    pub talkback_lost: u64,
    /// Of those that came, too late to be heard.
    pub talkback_late: u64,
    /// How long the jitter buffer holds a packet that comes quickly, and how unevenly packets come
    /// (RFC 3550 A.8).
    pub talkback_delay_us: u32,
    pub talkback_jitter_us: u32,
    /// Messages taken for sending on its data channels, and their bytes; likewise those that came.
    pub data_sent_messages: u64,
    pub data_sent_bytes: u64,
    pub data_received_messages: u64,
    pub data_received_bytes: u64,
    /// What waits to be sent to it, of P2P_MAX_BUFFERED_DATA.
    pub data_buffered_bytes: u64,
    /// Data channels that are open or being opened.
    pub data_channels: u32,
    /// Always 0.
    pub data_reserved: u32,
}

/// One stream. Start the array's first element from P2P_STREAM_STATS_INIT. A later version may add
/// fields at the end.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct p2p_stream_stats_t {
    /// sizeof(p2p_stream_stats_t), set by P2P_STREAM_STATS_INIT.
    pub struct_size: usize,
    /// Frames that were pushed and taken, and their bytes.
    pub frames: u64,
    pub bytes: u64,
    /// Keyframes among them.
    pub keyframes: u64,
    /// Bit rate over the last second.
    pub bitrate_bps: u64,
    /// Frames not taken, by reason. P2P_ERR_QUEUE_FULL:
    pub refused_queue_full: u64,
    /// They refer to a frame that was not taken.
    pub refused_awaiting_keyframe: u64,
    /// Larger than the stream's history: its bitrate is set too low.
    pub refused_too_large: u64,
    /// A keyframe without SPS and PPS, and none came before it.
    pub refused_no_parameter_sets: u64,
    /// Not Annex-B, or of too many NAL units.
    pub refused_malformed: u64,
    /// How often on_keyframe_request was called, or would have been.
    pub keyframe_requests: u64,
    /// Memory of the history, which all its viewers share.
    pub memory_bytes: u64,
    /// Frames taken in the last second.
    pub frame_rate_fps: u32,
    /// Viewers that watch it or are being connected.
    pub viewers: u32,
    /// One of P2P_CODEC_…
    pub codec: i32,
    /// Always 0.
    pub reserved: u32,
    pub name: [c_char; P2P_NAME_SIZE],
}

// SAFETY: integers, enums that have a zero, and arrays of them; no padding at the end
// (tests/abi.rs). C's own values are never read: these structs only go out.
unsafe impl Versioned for p2p_stats_t {
    const NAME: &'static str = "p2p_stats_t";
    const SIZES: &'static [usize] = &[size_of::<p2p_stats_t>()];
}

// SAFETY: as above.
unsafe impl Versioned for p2p_viewer_stats_t {
    const NAME: &'static str = "p2p_viewer_stats_t";
    const SIZES: &'static [usize] = &[size_of::<p2p_viewer_stats_t>()];
}

// SAFETY: as above.
unsafe impl Versioned for p2p_stream_stats_t {
    const NAME: &'static str = "p2p_stream_stats_t";
    const SIZES: &'static [usize] = &[size_of::<p2p_stream_stats_t>()];
}

/// What the agent counted, all of one moment: at most a second old, and inside on_event that of the
/// event. Never waits for the agent; may be called as often as you like, also inside on_event and
/// on_keyframe_request. Nothing has to be freed. A viewer that is gone is not in it any more.
///
/// stats, viewers and streams may each be NULL; an array's count is then NULL or 0. Before the call a
/// count is the array's room in elements, afterwards how many were filled: the first ones, if there
/// are more than fit. struct_size is read from stats and from the first element of each array with
/// room, and set in each element that is filled. On an error nothing was written.
///
/// # Safety
/// `stats` is NULL or points to a p2p_stats_t whose struct_size is true; `viewers` and `streams` are
/// NULL or point to as many elements as their count says, of the size that the first one's struct_size
/// says; the counts are NULL or point to a readable and writable size_t.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn p2p_get_stats(
    agent: *mut p2p_agent_t,
    stats: *mut p2p_stats_t,
    viewers: *mut p2p_viewer_stats_t,
    viewer_count: *mut usize,
    streams: *mut p2p_stream_stats_t,
    stream_count: *mut usize,
) -> p2p_status_t {
    enter(|| {
        let call = handle::agent(agent)?;
        // SAFETY: promised by the caller, here and below.
        let (stats, viewers, streams) = unsafe {
            (
                layout::Place::of(stats, 1, "stats")?,
                Array::of(viewers, viewer_count, "viewers", "viewer_count")?,
                Array::of(streams, stream_count, "streams", "stream_count")?,
            )
        };
        let snapshot = call.camera().stats();
        // SAFETY: as above.
        unsafe {
            if let Some(stats) = stats {
                stats.write(0, p2p_stats_t::of(&snapshot));
            }
            viewers.fill(snapshot.viewers.iter().map(p2p_viewer_stats_t::of));
            streams.fill(snapshot.streams.iter().map(p2p_stream_stats_t::of));
        }
        Ok(())
    })
}

/// The caller's array, and its count.
struct Array<T> {
    place: Option<layout::Place<T>>,
    count: *mut usize,
}

impl<T: Versioned> Array<T> {
    /// # Safety
    /// As for the array and the count of `p2p_get_stats`.
    unsafe fn of(
        first: *mut T,
        count: *mut usize,
        name: &str,
        count_name: &str,
    ) -> Result<Array<T>, Error> {
        if count.is_null() && !first.is_null() {
            let why = format!("{count_name} is NULL: expected the room in {name}, in elements");
            return Err(Error::argument(why));
        }
        // SAFETY: promised by the caller.
        let room = if count.is_null() { 0 } else { unsafe { count.read_unaligned() } };
        if first.is_null() && room > 0 {
            let why = format!("{name} is NULL, but {count_name} says that it has room for {room}");
            return Err(Error::argument(why));
        }
        let first = if room == 0 { std::ptr::null_mut() } else { first };
        // SAFETY: promised by the caller.
        Ok(Array { place: unsafe { layout::Place::of(first, room, name)? }, count })
    }

    /// # Safety
    /// The caller's promise still holds.
    unsafe fn fill(self, values: impl Iterator<Item = T>) {
        let mut filled = 0;
        if let Some(place) = self.place {
            for value in values.take(place.room()) {
                // SAFETY: there is room for it; the rest is promised by the caller.
                unsafe { place.write(filled, value) };
                filled += 1;
            }
        }
        if !self.count.is_null() {
            // SAFETY: promised by the caller.
            unsafe { self.count.write_unaligned(filled) };
        }
    }
}

impl p2p_stats_t {
    fn of(snapshot: &Snapshot) -> p2p_stats_t {
        let agent = &snapshot.agent;
        p2p_stats_t {
            struct_size: 0,
            uptime_ms: millis(agent.uptime),
            sends: agent.sends,
            datagrams: agent.datagrams,
            send_errors: agent.send_errors,
            memory_bytes: agent.held_bytes,
            signaling_up: agent.signaling_up.into(),
            signaling_reconnects: agent.signaling_reconnects,
            viewers: snapshot.viewers.len() as u32,
            streams: snapshot.streams.len() as u32,
            audio_frames: agent.audio_packets,
            audio_refused: agent.audio_refused,
            push_to_wire_p50_us: micros(agent.push_to_wire.p50),
            push_to_wire_p95_us: micros(agent.push_to_wire.p95),
            push_to_wire_p99_us: micros(agent.push_to_wire.p99),
            push_to_wire_max_us: micros(agent.push_to_wire.max),
        }
    }
}

impl p2p_viewer_stats_t {
    fn of(viewer: &ViewerStats) -> p2p_viewer_stats_t {
        let times = &viewer.timeline;
        let kind = |of: Option<CandidateType>| of.map_or(p2p_path_t::P2P_PATH_NONE, kind_number);
        p2p_viewer_stats_t {
            struct_size: 0,
            offer_unix_ms: millis(times.offer_unix),
            connected_unix_ms: times.dtls.map_or(0, |dtls| millis(times.offer_unix + dtls)),
            frames: viewer.frames,
            packets: viewer.packets,
            media_bytes: viewer.media_bytes,
            wire_bytes: viewer.wire_bytes,
            media_bps: viewer.media_bps,
            wire_bps: viewer.wire_bps,
            target_bps: viewer.target_bps,
            nacks: viewer.nacks,
            nacked_packets: viewer.nacked_packets,
            resent_packets: viewer.resent_packets,
            resends_withheld: viewer.resends_withheld,
            plis: viewer.plis,
            firs: viewer.firs,
            dropped_queue_full: viewer.drops.queue_full,
            dropped_no_route: viewer.drops.no_route,
            dropped_awaiting_keyframe: viewer.drops.awaiting_keyframe,
            dropped_too_old: viewer.drops.too_old,
            dropped_too_large: viewer.drops.too_large,
            dropped_key_worn_out: viewer.drops.key_worn_out,
            memory_bytes: viewer.held_bytes,
            lost_packets: viewer.lost_packets.into(),
            loss_permille: u32::from(viewer.fraction_lost) * 1000 / 256,
            round_trip_us: viewer.rtt.map_or(0, micros),
            jitter_us: micros(viewer.jitter),
            srtp_profile: viewer.srtp_profile.map_or(0, u32::from),
            answer_ms: moment(times.answer),
            ice_ms: moment(times.ice),
            dtls_ms: moment(times.dtls),
            first_frame_ms: moment(times.first_frame),
            path: viewer.path.map_or(p2p_path_t::P2P_PATH_NONE, path_number),
            local_candidate: kind(viewer.local_candidate),
            remote_candidate: kind(viewer.remote_candidate),
            reserved: 0,
            session_id: chars(&viewer.session.to_string()),
            app_id: chars(&viewer.app),
            stream: chars(&viewer.stream_name),
            audio_packets: viewer.audio.packets,
            audio_bytes: viewer.audio.bytes,
            audio_lost: viewer.audio.lost_packets.into(),
            talkback_packets: viewer.talkback.packets,
            talkback_lost: viewer.talkback.lost,
            talkback_late: viewer.talkback.late,
            talkback_delay_us: micros(viewer.talkback.delay),
            talkback_jitter_us: micros(viewer.talkback.jitter),
            data_sent_messages: viewer.data.sent_messages,
            data_sent_bytes: viewer.data.sent_bytes,
            data_received_messages: viewer.data.received_messages,
            data_received_bytes: viewer.data.received_bytes,
            data_buffered_bytes: viewer.data.buffered_bytes,
            data_channels: viewer.data.channels,
            data_reserved: 0,
        }
    }
}

impl p2p_stream_stats_t {
    fn of(stream: &StreamStats) -> p2p_stream_stats_t {
        p2p_stream_stats_t {
            struct_size: 0,
            frames: stream.frames,
            bytes: stream.bytes,
            keyframes: stream.keyframes,
            bitrate_bps: stream.bps,
            refused_queue_full: stream.refused.queue_full,
            refused_awaiting_keyframe: stream.refused.awaiting_keyframe,
            refused_too_large: stream.refused.too_large,
            refused_no_parameter_sets: stream.refused.no_parameter_sets,
            refused_malformed: stream.refused.malformed,
            keyframe_requests: stream.keyframe_requests,
            memory_bytes: stream.history_bytes,
            frame_rate_fps: u32::try_from(stream.frame_rate).unwrap_or(u32::MAX),
            viewers: stream.viewers,
            codec: codec_number(stream.codec),
            reserved: 0,
            name: chars(&stream.name),
        }
    }
}

fn kind_number(kind: CandidateType) -> p2p_path_t {
    match kind {
        CandidateType::Host => p2p_path_t::P2P_PATH_HOST,
        CandidateType::ServerReflexive => p2p_path_t::P2P_PATH_SRFLX,
        CandidateType::PeerReflexive => p2p_path_t::P2P_PATH_PRFLX,
        CandidateType::Relayed => p2p_path_t::P2P_PATH_RELAY,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

fn moment(since_offer: Option<Duration>) -> i32 {
    since_offer.map_or(-1, |at| i32::try_from(at.as_millis()).unwrap_or(i32::MAX))
}

/// With a zero byte behind it, and cut if that would not fit.
fn chars<const N: usize>(text: &str) -> [c_char; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().take(N - 1).zip(text.bytes()) {
        *to = from as c_char;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_always_end() {
        assert_eq!(chars::<4>("ab"), [b'a' as c_char, b'b' as c_char, 0, 0]);
        assert_eq!(chars::<3>("abcdef")[2], 0);
        const { assert!(P2P_NAME_SIZE > 64 && P2P_SESSION_ID_SIZE > 36) };
    }
}
