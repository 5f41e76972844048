//! A stream as one viewer gets it: its own sequence numbers, timestamps, header and keys around
//! the payloads that all viewers share.

mod feedback;
mod part;
mod reporting;

pub use feedback::RtcpFacts;
pub use part::Part;
pub(super) use part::gop_timestamp;
pub use reporting::Companions;

use super::bandwidth::Bandwidth;
use super::history::HistoryPacket;
use super::reports::ReportSchedule;
use super::resend::{Resends, Segment, SentTrains};
use super::send_buffer::{CHANNEL_HEADER_LEN, SendBuffer};
use super::single_nals::{self, SingleNal};
use super::srtp::{SealError, SrtpKeys, SrtpReceiver, SrtpSender};
use super::video_stream::{Sources, Train, VideoStream, media_ticks};
use crate::event::StreamId;
use crate::stats::Drops;
use crate::wire::rtp::{self, ExtensionIds, HeaderFields, HeaderTemplate};
use std::time::{Duration, Instant};

/// What the answer agreed on, and random numbers of the caller.
#[derive(Debug, Clone)]
pub struct ViewerConfig {
    /// Random, and not used by another source of the session.
    pub ssrc: u32,
    pub payload_type: u8,
    /// Retransmissions as a stream of their own, when agreed on.
    pub rtx: Option<Rtx>,
    pub packetization_mode: PacketizationMode,
    pub extensions: ExtensionIds,
    /// Names the camera in reports (RFC 8834 4.9): the same for all sources of the session.
    pub cname: String,
    /// Random. The highest bit is not used, so that the first rollover is far away (RFC 3711
    /// 3.3.1: a receiver that missed the first packets could not tell it).
    pub initial_sequence: u16,
    pub initial_rtx_sequence: u16,
    /// Random.
    pub timestamp_offset: u32,
}

/// RFC 4588, SSRC-multiplexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rtx {
    /// Other than the stream's.
    pub ssrc: u32,
    pub payload_type: u8,
}

/// RFC 6184 6.2 and 6.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PacketizationMode {
    /// Each NAL unit in one packet, however large: those beyond the path's MTU go out as IP
    /// fragments, up to [`MAX_MODE_0_NAL`]; a picture with a larger one is dropped.
    SingleNal,
    #[default]
    NonInterleaved,
}

/// Longest NAL unit in bytes that goes to a viewer with packetization-mode 0.
pub const MAX_MODE_0_NAL: usize = 60_000;

/// What became of a train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealed {
    /// Sealed, as so many packets.
    Sent { packets: u32 },
    /// Left out: the viewer starts with the next keyframe.
    AwaitingKeyframe,
    /// Nothing of it was sealed, and nothing will be until the next keyframe.
    Dropped(DropReason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// The history does not hold it any more.
    TooOld,
    /// The viewer takes packetization-mode 0 only, and this NAL unit is longer than
    /// [`MAX_MODE_0_NAL`]. Smaller slices would help.
    TooLargeForMode0 { nal_bytes: usize },
    /// 2^48 packets were sealed with one key. The session must end.
    KeyWornOut,
}

/// Counted since the viewer started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ViewerStats {
    /// First time, without those sent again.
    pub packets: u64,
    /// RTP payload bytes of these.
    pub bytes: u64,
    pub frames: u64,
    pub dropped_frames: u64,
    /// By reason, those before the first keyframe among them.
    pub drops: Drops,
    /// Requests for lost packets, and the packets they named.
    pub nacks: u64,
    pub nacked_packets: u64,
    pub resent_packets: u64,
    pub plis: u64,
    pub firs: u64,
    /// Resends that would have gone beyond what congestion control lets through.
    pub resends_withheld: u64,
    pub rtt: Option<Duration>,
    /// Of 256, in the viewer's last report.
    pub fraction_lost: u8,
    /// In all, as the viewer counts.
    pub lost_packets: i32,
    pub jitter: Duration,
}

/// See the module.
pub struct ViewerStream {
    config: ViewerConfig,
    sender: SrtpSender,
    receiver: SrtpReceiver,
    header: HeaderTemplate,
    rtx: Option<RtxState>,
    gate: Gate,
    /// 48 bits, of the next packet.
    next_sequence: u64,
    next_transport_sequence: u16,
    /// What was sealed last, and what is added to its timestamps.
    source: Option<StreamId>,
    timestamp_offset: u32,
    started: Instant,
    /// The newest picture's timestamp, and when it was sealed: ties RTP's clock to the wall's.
    newest: Option<(u32, Instant)>,
    last_keyframe: Option<Instant>,
    sent: SentTrains,
    resends: Resends,
    reports: ReportSchedule,
    last_fir: Option<u8>,
    stats: ViewerStats,
    bandwidth: Bandwidth,
    /// Bytes that may go out again with the next feedback.
    resend_allowance: usize,
}

struct RtxState {
    ssrc: u32,
    header: HeaderTemplate,
    next_sequence: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// Nothing was sent yet.
    NotStarted,
    Open,
    /// A picture was dropped, so that those that refer to it are worth nothing.
    Broken,
}

impl ViewerStream {
    pub fn new(now: Instant, config: ViewerConfig, keys: &SrtpKeys) -> ViewerStream {
        let rtx = config.rtx.filter(|rtx| rtx.ssrc != config.ssrc).map(|rtx| RtxState {
            ssrc: rtx.ssrc,
            header: HeaderTemplate::new(rtx.ssrc, rtx.payload_type, &config.extensions),
            next_sequence: u64::from(config.initial_rtx_sequence & 0x7fff),
        });
        ViewerStream {
            sender: SrtpSender::new(keys),
            receiver: SrtpReceiver::new(keys),
            header: HeaderTemplate::new(config.ssrc, config.payload_type, &config.extensions),
            rtx,
            gate: Gate::NotStarted,
            next_sequence: u64::from(config.initial_sequence & 0x7fff),
            next_transport_sequence: 1,
            source: None,
            timestamp_offset: config.timestamp_offset,
            started: now,
            newest: None,
            last_keyframe: None,
            sent: SentTrains::new(),
            resends: Resends::new(),
            reports: ReportSchedule::default(),
            last_fir: None,
            stats: ViewerStats::default(),
            bandwidth: Bandwidth::new(now, DEFAULT_START_RATE),
            resend_allowance: usize::MAX,
            config,
        }
    }

    /// Whose pictures were sealed last.
    pub fn source(&self) -> Option<StreamId> {
        self.source
    }

    /// Whether nothing can be sent before a keyframe comes.
    pub fn needs_keyframe(&self) -> bool {
        self.gate != Gate::Open
    }

    /// Sends no more until the next keyframe: what was sealed could not be sent.
    pub fn skip_to_keyframe(&mut self) {
        if self.gate == Gate::Open {
            self.gate = Gate::Broken;
        }
    }

    /// Notes frames that were left out before they were sealed, since too many waited.
    pub fn on_frames_dropped(&mut self, frames: usize) {
        self.stats.dropped_frames += frames as u64;
        self.stats.drops.queue_full += frames as u64;
    }

    /// Notes frames that were left out since they follow one that was.
    pub fn on_frames_useless(&mut self, frames: usize) {
        self.stats.dropped_frames += frames as u64;
        self.stats.drops.awaiting_keyframe += frames as u64;
    }

    /// Heap memory of this viewer, by capacity.
    pub fn held_bytes(&self) -> usize {
        self.sent.held_bytes() + self.resends.held_bytes() + self.bandwidth.held_bytes()
    }

    pub fn stats(&self) -> &ViewerStats {
        &self.stats
    }

    /// What the way to this viewer takes.
    pub fn bandwidth(&self) -> &Bandwidth {
        &self.bandwidth
    }

    /// The stream's rate in bits per second: what is assumed of the way until the viewer has said
    /// something about it.
    pub fn set_start_rate(&mut self, rate: u32) {
        self.bandwidth.start_from(rate);
    }

    /// The stream makes that many bits per second from now on: see [`Bandwidth::expect`].
    pub fn expect_rate(&mut self, now: Instant, rate: u32) {
        self.bandwidth.expect(now, rate);
    }

    /// How many bytes the viewer's next feedback may have sent again.
    pub fn set_resend_allowance(&mut self, bytes: usize) {
        self.resend_allowance = bytes;
    }

    /// Opens what comes from this viewer: for its RTP (talkback).
    pub fn receiver(&mut self) -> &mut SrtpReceiver {
        &mut self.receiver
    }

    /// Seals what goes to this viewer: for other sources of the session.
    pub fn sender(&self) -> &SrtpSender {
        &self.sender
    }

    /// Notes what another source of the session sent.
    pub fn on_other_sent(&mut self, now: Instant, bytes: usize) {
        self.bandwidth.on_other_sent(now, bytes);
    }

    /// Seals all packets of a train into `out`, or none, as runs that no other train joins.
    ///
    /// With `channel` each datagram becomes TURN ChannelData. Allocates nothing once `out` has
    /// grown.
    pub fn seal_train(
        &mut self,
        now: Instant,
        sources: &dyn Sources,
        train: &Train,
        channel: Option<u16>,
        out: &mut SendBuffer,
    ) -> Sealed {
        let part = Part::all_of(train);
        self.seal_part(now, sources, &part, channel, out)
    }

    /// Seals some of a train's packets, as [`Self::seal_train`] does all of them. A train that was
    /// begun is to be gone on with until its end, without another one between.
    ///
    /// With a keyframe the viewer's stream may go on from another source: sequence numbers and
    /// timestamps go on as if it were the same.
    pub fn seal_part(
        &mut self,
        now: Instant,
        sources: &dyn Sources,
        part: &Part,
        channel: Option<u16>,
        out: &mut SendBuffer,
    ) -> Sealed {
        if part.is_first() && self.gate != Gate::Open && !part.train.keyframe {
            self.stats.dropped_frames += u64::from(self.gate == Gate::Broken);
            self.stats.drops.awaiting_keyframe += 1;
            return Sealed::AwaitingKeyframe;
        }
        match self.try_seal(now, sources, part, channel, out) {
            Ok(packets) => {
                if part.is_first() {
                    self.gate = Gate::Open;
                }
                self.stats.frames += u64::from(part.is_last());
                Sealed::Sent { packets }
            }
            Err(reason) => {
                self.gate = Gate::Broken;
                self.stats.dropped_frames += 1;
                self.stats.on_dropped(reason);
                Sealed::Dropped(reason)
            }
        }
    }

    /// Whether a train may be sealed in parts: not where each packet is a NAL unit, since these are
    /// others than the train's packets.
    pub fn takes_parts(&self) -> bool {
        self.config.packetization_mode == PacketizationMode::NonInterleaved
    }

    /// Seals the pictures since the last keyframe, so that a new viewer sees the present one at
    /// once, and gives back how many. With 0 it has to wait for a keyframe.
    ///
    /// Their timestamps are drawn together to one millisecond each before the newest: with their
    /// own, a player would show the past at its old speed and stay behind the present.
    pub fn seal_gop(
        &mut self,
        now: Instant,
        stream: &VideoStream,
        channel: Option<u16>,
        out: &mut SendBuffer,
    ) -> usize {
        if self.gate == Gate::Open {
            return 0;
        }
        let trains = stream.gop_trains();
        let Some(newest) = trains.clone().next_back() else { return 0 };
        let mut left = trains.len() as u32;
        let sealed = trains.take_while(|train| {
            left -= 1;
            let timestamp = gop_timestamp(newest.timestamp, train.timestamp, left);
            let part = Part { timestamp, ..Part::all_of(train) };
            matches!(self.seal_part(now, stream, &part, channel, out), Sealed::Sent { .. })
        });
        sealed.count()
    }

    fn try_seal(
        &mut self,
        now: Instant,
        sources: &dyn Sources,
        part: &Part,
        channel: Option<u16>,
        out: &mut SendBuffer,
    ) -> Result<u32, DropReason> {
        let train = &part.as_train();
        let stream = sources.video(train.source).ok_or(DropReason::TooOld)?;
        let timestamp_offset = self.offset_for(now, part);
        let segment = Segment {
            first_sequence: self.next_sequence,
            packets: self.packets_of(stream, train)?,
            train: *train,
            timestamp: part.timestamp.wrapping_add(timestamp_offset),
            abs_send_time: rtp::abs_send_time(now.saturating_duration_since(self.started)),
            transport_sequence: self.next_transport_sequence,
        };
        let channel_header = channel.map_or(0, |_| CHANNEL_HEADER_LEN);
        let overhead = channel_header + self.header.len() + self.sender.rtp_overhead();
        out.start_group();
        let mark = out.mark();
        out.reserve(train.bytes as usize + segment.packets as usize * overhead);
        let mut place = 0;
        let mut result = Ok(());
        for_each_payload(self.config.packetization_mode, stream, train, |payload| {
            result = self.seal_packet(&segment, place, &payload, stream, channel, out);
            place += 1;
            result.is_ok()
        });
        out.start_group();
        if result.is_err() || place != segment.packets {
            // What was sealed so far never leaves, so its packet indices may be used again.
            out.rewind(mark);
            return Err(match result {
                Err(SealError::KeyWornOut) => DropReason::KeyWornOut,
                _ => DropReason::TooOld,
            });
        }
        let payload_bytes = out.bytes_since(mark) - segment.packets as usize * overhead;
        let counted = self.config.extensions.transport_cc.is_some();
        for (place, datagram) in (0_u16..).zip(out.datagrams_since(mark)) {
            let number = counted.then(|| segment.transport_sequence.wrapping_add(place));
            self.bandwidth.on_sent(now, number, datagram.len());
        }
        self.sent.push(segment);
        self.source = Some(train.source);
        self.timestamp_offset = timestamp_offset;
        self.next_sequence += u64::from(segment.packets);
        self.next_transport_sequence =
            self.next_transport_sequence.wrapping_add(segment.packets as u16);
        self.newest = Some((segment.timestamp, now));
        if train.keyframe {
            self.last_keyframe = Some(now);
        }
        self.reports.on_media(now);
        self.stats.packets += u64::from(segment.packets);
        self.stats.bytes += payload_bytes as u64;
        Ok(segment.packets)
    }

    /// What is added to a part's timestamp. Another source's clock may be another one: then its
    /// first picture comes as much later than the last one as it is sealed later.
    fn offset_for(&self, now: Instant, part: &Part) -> u32 {
        let offset = self.timestamp_offset;
        let Some((newest, at)) = self.newest.filter(|_| self.source != Some(part.train.source))
        else {
            return offset;
        };
        let passed = media_ticks(now.saturating_duration_since(at));
        let later = part.timestamp.wrapping_add(offset).wrapping_sub(newest);
        match later {
            1.. if later <= passed.saturating_add(SAME_CLOCK_TICKS) => offset,
            _ => offset.wrapping_sub(later).wrapping_add(passed.max(LEAST_STEP_TICKS)),
        }
    }

    /// How many packets the train makes for this viewer.
    fn packets_of(&self, stream: &VideoStream, train: &Train) -> Result<u32, DropReason> {
        if !stream.holds(train) {
            return Err(DropReason::TooOld);
        }
        if self.config.packetization_mode == PacketizationMode::NonInterleaved {
            return Ok(train.packets);
        }
        let (mut packets, mut longest) = (0, 0);
        single_nals::for_each(stream, train, |nal| {
            packets += 1;
            longest = longest.max(nal.len(stream));
            true
        });
        match longest {
            0..=MAX_MODE_0_NAL => Ok(packets),
            nal_bytes => Err(DropReason::TooLargeForMode0 { nal_bytes }),
        }
    }

    /// Seals packet number `place` of a segment. The same arguments make the same bytes, whenever.
    fn seal_packet(
        &self,
        segment: &Segment,
        place: u32,
        payload: &Outgoing<'_>,
        stream: &VideoStream,
        channel: Option<u16>,
        out: &mut SendBuffer,
    ) -> Result<(), SealError> {
        let sequence = segment.first_sequence + u64::from(place);
        let fields = HeaderFields {
            marker: payload.marker().unwrap_or(place + 1 == segment.packets),
            sequence: sequence as u16,
            timestamp: segment.timestamp,
            abs_send_time: segment.abs_send_time,
            transport_sequence: segment.transport_sequence.wrapping_add(place as u16),
        };
        let open = out.open(channel);
        out.write(&self.header.fill(&fields)[..self.header.len()]);
        payload.write(stream, out);
        out.write_zeros(self.sender.rtp_overhead());
        let ssrc = self.config.ssrc;
        self.sender.seal_rtp(out.body_mut(open), self.header.len(), ssrc, sequence)?;
        out.close(open);
        Ok(())
    }
}

impl ViewerStats {
    fn on_dropped(&mut self, reason: DropReason) {
        *match reason {
            DropReason::TooOld => &mut self.drops.too_old,
            DropReason::TooLargeForMode0 { .. } => &mut self.drops.too_large,
            DropReason::KeyWornOut => &mut self.drops.key_worn_out,
        } += 1;
    }
}

/// A payload on its way to one viewer.
enum Outgoing<'a> {
    Packet(HistoryPacket<'a>),
    Nal(SingleNal<'a>),
}

impl Outgoing<'_> {
    /// Whether it ends a picture, where it knows.
    fn marker(&self) -> Option<bool> {
        match self {
            Outgoing::Packet(packet) => Some(packet.marker),
            Outgoing::Nal(_) => None,
        }
    }

    fn write(&self, stream: &VideoStream, out: &mut SendBuffer) {
        match self {
            Outgoing::Packet(packet) => out.write(packet.payload),
            Outgoing::Nal(nal) => nal.write(stream, |piece| out.write(piece)),
        }
    }
}

/// The payloads of a train in a viewer's packetization mode. `each` says whether to go on.
fn for_each_payload<'a>(
    mode: PacketizationMode,
    stream: &'a VideoStream,
    train: &Train,
    mut each: impl FnMut(Outgoing<'a>) -> bool,
) {
    match mode {
        PacketizationMode::SingleNal => {
            single_nals::for_each(stream, train, |nal| each(Outgoing::Nal(nal)));
        }
        PacketizationMode::NonInterleaved => {
            let packets = train.first_packet..train.first_packet + u64::from(train.packets);
            let _ = packets
                .map_while(|index| stream.packet(index))
                .all(|packet| each(Outgoing::Packet(packet)));
        }
    }
}

/// One millisecond: two streams may show the same moment, but two pictures are never at one time.
const LEAST_STEP_TICKS: u32 = 90;
/// One second: two streams of one clock are not further apart, even if one's encoder is slow.
const SAME_CLOCK_TICKS: u32 = 90_000;
/// Bits per second, where the caller does not say.
const DEFAULT_START_RATE: u32 = 2_000_000;
