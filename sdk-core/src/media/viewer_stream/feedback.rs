//! What a viewer says about its stream, and what it gets sent again.

use super::{PacketizationMode, SendBuffer, ViewerStream, for_each_payload};
use crate::media::resend::{Resend, Segment};
use crate::media::srtp::{OpenError, SealError};
use crate::media::video_stream::{Sources, VideoStream};
use crate::wire::rtcp::{self, Packet, ReportBlock};
use crate::wire::rtp::{self, HeaderFields};
use std::time::{Duration, Instant};

/// What a viewer's RTCP packet asked for, beyond what was done at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RtcpFacts {
    /// Bytes of the compound packet, opened where it lies: for what else is in it.
    pub len: usize,
    /// It lost a picture (PLI) or joins (FIR), or lost packets that are no longer held.
    pub keyframe_wanted: bool,
    /// So many lost packets were sealed again.
    pub resent: u32,
    /// The viewer's own sources are gone (BYE). Its session may go on.
    pub goodbye: bool,
    /// In bits per second, by the viewer's own estimate (REMB).
    pub max_bitrate: Option<u64>,
}

/// What there is to answer with, and what came of it.
struct Answer<'a> {
    now: Instant,
    sources: &'a dyn Sources,
    channel: Option<u16>,
    out: &'a mut SendBuffer,
    facts: RtcpFacts,
}

impl ViewerStream {
    /// Opens a datagram with RTCP where it lies, and seals the packets that it says were lost again
    /// into `out`.
    pub fn handle_rtcp(
        &mut self,
        now: Instant,
        datagram: &mut [u8],
        sources: &dyn Sources,
        channel: Option<u16>,
        out: &mut SendBuffer,
    ) -> Result<RtcpFacts, OpenError> {
        let len = self.receiver.open_rtcp(datagram)?.len();
        let compound = datagram.get(..len).unwrap_or_default();
        let ssrc = self.config.ssrc;
        let facts = RtcpFacts { len, ..RtcpFacts::default() };
        let mut answer = Answer { now, sources, channel, out, facts };
        answer.out.start_group();
        for packet in rtcp::packets(compound) {
            match packet {
                Packet::SenderReport { reports, .. } | Packet::ReceiverReport { reports, .. } => {
                    for block in reports.filter(|block| block.ssrc == ssrc) {
                        self.on_report_block(now, &block);
                    }
                }
                Packet::Nack { media_ssrc, lost } if media_ssrc == ssrc => {
                    self.stats.nacks += 1;
                    lost.for_each(|sequence| self.on_lost(sequence, &mut answer));
                }
                Packet::PictureLoss { media_ssrc } if media_ssrc == ssrc => {
                    self.stats.plis += 1;
                    answer.facts.keyframe_wanted |= !self.crossed_a_keyframe(now);
                }
                Packet::FullIntraRequests(requests) => {
                    for (_, number) in requests.filter(|&(media_ssrc, _)| media_ssrc == ssrc) {
                        self.on_fir(now, number, &mut answer.facts);
                    }
                }
                Packet::MaxBitrate { bits_per_second, .. } => {
                    self.bandwidth.on_max_bitrate(bits_per_second);
                    answer.facts.max_bitrate = Some(bits_per_second);
                }
                Packet::TransportFeedback(feedback) => {
                    self.bandwidth.on_transport_feedback(now, &feedback);
                    let missing = feedback.arrivals().filter(|packet| packet.delta.is_none());
                    for packet in missing.take(MAX_UNASKED) {
                        self.on_missing(packet.sequence, &mut answer);
                    }
                }
                Packet::Goodbye(_) => answer.facts.goodbye = true,
                _ => (),
            }
        }
        answer.out.start_group();
        Ok(answer.facts)
    }

    fn on_report_block(&mut self, now: Instant, block: &ReportBlock) {
        self.stats.fraction_lost = block.fraction_lost;
        self.stats.lost_packets = block.cumulative_lost;
        self.bandwidth.on_report(now, block.fraction_lost);
        self.stats.jitter = Duration::from_micros(u64::from(block.jitter) * 100 / 9);
        if let Some(rtt) = self.reports.round_trip(now, block) {
            self.stats.rtt = Some(rtt);
        }
    }

    /// A request is repeated under its number until the picture comes (RFC 5104 4.3.1.2).
    fn on_fir(&mut self, now: Instant, number: u8, facts: &mut RtcpFacts) {
        if self.last_fir.replace(number) != Some(number) {
            self.stats.firs += 1;
            facts.keyframe_wanted |= !self.crossed_a_keyframe(now);
        }
    }

    /// Whether what the viewer says now was said before it could have the last keyframe.
    fn crossed_a_keyframe(&self, now: Instant) -> bool {
        let rtt = self.stats.rtt.unwrap_or_default().min(MAX_RTT);
        self.last_keyframe.is_some_and(|sent| now < sent + rtt)
    }

    fn on_lost(&mut self, sequence: u16, answer: &mut Answer<'_>) {
        self.stats.nacked_packets += 1;
        let Some((segment, sequence)) = self.sent.find(sequence) else { return };
        match self.held(&segment, answer) {
            Some(stream) => self.send_again(stream, &segment, sequence, answer),
            // The viewer cannot repair its picture any more.
            None => answer.facts.keyframe_wanted = true,
        }
    }

    /// A packet did not arrive that the viewer has not asked for again: the request may have been
    /// lost as well. And that a packet is lost that was sent again, a viewer that does not know its
    /// round trip notices after 100 ms, when its picture stands still already.
    ///
    /// Only with RTX, where each copy has a number of its own.
    fn on_missing(&mut self, number: u16, answer: &mut Answer<'_>) {
        if self.rtx.is_none() {
            return;
        }
        let found = match self.resends.take_lost(number) {
            Some(sequence) => self.sent.find(sequence),
            // Where it was asked for, that has been answered, or was too much.
            None => self.sent.find_transport(number).filter(|found| !self.resends.has(found.1)),
        };
        if let Some((segment, sequence)) = found
            && let Some(stream) = self.held(&segment, answer)
        {
            self.send_again(stream, &segment, sequence, answer);
        }
    }

    /// Where the segment's packets lie, if they still do and are of use.
    fn held<'a>(&self, segment: &Segment, answer: &Answer<'a>) -> Option<&'a VideoStream> {
        let source = answer.sources.video(segment.train.source);
        let is_of_use = self.age(answer.now, segment) < RESEND_WITHIN;
        source.filter(|stream| is_of_use && stream.holds(&segment.train))
    }

    /// Seals a packet again, unless it was only just, or it is too much.
    fn send_again(
        &mut self,
        stream: &VideoStream,
        segment: &Segment,
        sequence: u64,
        answer: &mut Answer<'_>,
    ) {
        if self.resend_allowance == 0 {
            self.stats.resends_withheld += 1;
            return;
        }
        let rtt = self.stats.rtt.unwrap_or(UNKNOWN_RTT).clamp(MIN_RTT, MAX_RTT);
        let is_late = self.age(answer.now, segment) > rtt + LATE;
        // A copy is lost as easily as the first packet was, and a further round comes too late.
        let copies = match self.resends.may_resend(answer.now, sequence, rtt) {
            Resend::No => 0,
            Resend::First if !is_late => 1,
            Resend::First | Resend::Repeat => 1 + usize::from(self.rtx.is_some()),
        };
        for _ in 0..copies {
            self.send_copy(stream, segment, sequence, answer);
        }
    }

    /// How long ago the segment went out first: less than a minute.
    fn age(&self, now: Instant, segment: &Segment) -> Duration {
        let now = rtp::abs_send_time(now.saturating_duration_since(self.started));
        let ticks = now.wrapping_sub(segment.abs_send_time) & 0xff_ffff;
        Duration::from_micros((u64::from(ticks) * 1_000_000) >> 18)
    }

    fn send_copy(
        &mut self,
        stream: &VideoStream,
        segment: &Segment,
        sequence: u64,
        answer: &mut Answer<'_>,
    ) {
        let Answer { now, channel, out, facts, .. } = answer;
        let place = (sequence - segment.first_sequence) as u32;
        let mark = out.mark();
        if self.resend(*now, segment, place, stream, *channel, out).is_err() {
            out.rewind(mark);
            return;
        }
        let bytes = out.bytes_since(mark);
        self.resend_allowance = self.resend_allowance.saturating_sub(bytes);
        let counted = self.config.extensions.transport_cc.is_some();
        let number = match self.rtx {
            Some(_) => counted.then(|| self.next_transport_sequence.wrapping_sub(1)),
            None => {
                self.bandwidth.on_sent_again(segment.transport_sequence.wrapping_add(place as u16));
                None
            }
        };
        if let Some(number) = number {
            self.resends.on_resent(sequence, number);
        }
        self.bandwidth.on_sent(*now, number, bytes);
        self.stats.resent_packets += 1;
        facts.resent += 1;
    }

    /// Without RTX the same packet goes out again under the same packet index, that is, with the
    /// same keystream or nonce. That gives nothing away only if not one byte is another: header,
    /// extensions and payload come from the segment and the history, which do not change, so the
    /// bytes sealed are those that were sealed before, and so is what comes out.
    fn resend(
        &mut self,
        now: Instant,
        segment: &Segment,
        place: u32,
        stream: &VideoStream,
        channel: Option<u16>,
        out: &mut SendBuffer,
    ) -> Result<(), SealError> {
        let train = match self.config.packetization_mode {
            // Straight to the packet: one train of one packet.
            PacketizationMode::NonInterleaved => {
                let first_packet = segment.train.first_packet + u64::from(place);
                crate::media::Train { first_packet, packets: 1, ..segment.train }
            }
            PacketizationMode::SingleNal => segment.train,
        };
        let mut skip = match self.config.packetization_mode {
            PacketizationMode::NonInterleaved => 0,
            PacketizationMode::SingleNal => place,
        };
        let mut found = None;
        for_each_payload(self.config.packetization_mode, stream, &train, |payload| {
            if skip == 0 {
                found = Some(payload);
            }
            skip = skip.wrapping_sub(1);
            found.is_none()
        });
        let payload = found.ok_or(SealError::Malformed)?;
        let Some(rtx) = &mut self.rtx else {
            return self.seal_packet(segment, place, &payload, stream, channel, out);
        };

        // RFC 4588 4: a new packet of another source, the original sequence number before the
        // payload.
        let sequence = rtx.next_sequence;
        let original = (segment.first_sequence + u64::from(place)) as u16;
        let fields = HeaderFields {
            marker: payload.marker().unwrap_or(place + 1 == segment.packets),
            sequence: sequence as u16,
            timestamp: segment.timestamp,
            abs_send_time: rtp::abs_send_time(now.saturating_duration_since(self.started)),
            transport_sequence: self.next_transport_sequence,
        };
        // Counted even if sealing fails: no index is ever used for two packets.
        rtx.next_sequence += 1;
        self.next_transport_sequence = self.next_transport_sequence.wrapping_add(1);
        let open = out.open(channel);
        out.write(&rtx.header.fill(&fields)[..rtx.header.len()]);
        out.write(&original.to_be_bytes());
        payload.write(stream, out);
        out.write_zeros(self.sender.rtp_overhead());
        self.sender.seal_rtp(out.body_mut(open), rtx.header.len(), rtx.ssrc, sequence)?;
        out.close(open);
        Ok(())
    }
}

/// Later no player waits for the packet any more.
const RESEND_WITHIN: Duration = Duration::from_secs(4);
/// By then the viewer has asked in vain, or its feedback has told of the loss in vain.
const LATE: Duration = Duration::from_millis(60);
/// Missing packets of one feedback that are looked at. Where there are more, the way was gone, and
/// the viewer asks.
const MAX_UNASKED: usize = 64;
/// What a packet sent again may take to arrive before it is asked for again.
const UNKNOWN_RTT: Duration = Duration::from_millis(50);
const MIN_RTT: Duration = Duration::from_millis(5);
const MAX_RTT: Duration = Duration::from_millis(500);
