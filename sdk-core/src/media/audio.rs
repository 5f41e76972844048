//! Sound on its way to one viewer: each of the microphone's packets is one RTP packet, sealed at once.
//!
//! ```text
//! packet ─→ AudioTimeline::place (once) ─→ AudioSender × N ─ sealed ─→ SendBuffer
//! ```
//!
//! It does not wait behind pictures: it is a hundredth of their bytes, and a listener hears each
//! packet that is late. What the network loses stays lost, since it would come too late.

use super::send_buffer::SendBuffer;
use super::srtp::{SealError, SrtpSender};
use crate::stats::AudioStats;
use crate::wire::audio::AudioCodec;
use crate::wire::rtcp::{ReportBlock, SenderInfo};
use crate::wire::rtp::{ExtensionIds, HeaderFields, HeaderTemplate};
use std::time::Duration;

/// A packet with its place in RTP's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioPacket<'a> {
    pub payload: &'a [u8],
    /// In ticks of the codec's clock, before a viewer's own offset.
    pub timestamp: u32,
    /// The first one after silence (RFC 3551 §4.1).
    pub marker: bool,
}

/// A microphone's time in ticks of its codec: RTP's timestamps count samples (RFC 3550 §5.1), so they
/// follow what is in the packets, not the moments at which the firmware thinks it got them. Where
/// these say that there was silence between, it is left out of the count no more.
#[derive(Debug)]
pub struct AudioTimeline {
    codec: AudioCodec,
    /// Of the next packet, if it follows without a gap.
    next: Option<Place>,
}

/// A moment on both clocks.
#[derive(Debug, Clone, Copy)]
struct Place {
    ticks: u64,
    /// On the firmware's clock, without its jitter.
    captured: Duration,
}

impl AudioTimeline {
    pub fn new(codec: AudioCodec) -> AudioTimeline {
        AudioTimeline { codec, next: None }
    }

    /// Places a packet that was captured at `captured`. `None` if it is none of the codec.
    pub fn place<'a>(&mut self, payload: &'a [u8], captured: Duration) -> Option<AudioPacket<'a>> {
        let length = self.codec.ticks(payload)?;
        let (place, marker) = match self.next {
            None => (Place { ticks: 0, captured }, true),
            Some(next) => self.after(next, captured),
        };
        let end = place.captured + self.codec.time_of(length.into());
        self.next = Some(Place { ticks: place.ticks + u64::from(length), captured: end });
        Some(AudioPacket { payload, timestamp: place.ticks as u32, marker })
    }

    fn after(&self, next: Place, captured: Duration) -> (Place, bool) {
        match captured.checked_sub(next.captured) {
            Some(gap) if gap > SILENCE && gap <= LONGEST_SILENCE => {
                (Place { ticks: next.ticks + self.codec.ticks_of(gap), captured }, true)
            }
            // The clock was set, or the microphone was away: nobody shall wait for that long.
            Some(gap) if gap > LONGEST_SILENCE => (Place { captured, ..next }, true),
            Some(gap) => (Place { captured: next.captured + gap / SMOOTHING, ..next }, false),
            None => match next.captured - captured {
                back if back > SET_BACK => (Place { captured, ..next }, true),
                back => (Place { captured: next.captured - back / SMOOTHING, ..next }, false),
            },
        }
    }

    /// The timestamp of a moment on the firmware's clock; `None` before the first packet.
    pub fn timestamp_at(&self, captured: Duration) -> Option<u32> {
        let next = self.next?;
        let ticks = match captured.checked_sub(next.captured) {
            Some(later) => next.ticks.wrapping_add(self.codec.ticks_of(later)),
            None => next.ticks.wrapping_sub(self.codec.ticks_of(next.captured - captured)),
        };
        Some(ticks as u32)
    }
}

/// What the answer agreed on, and random numbers of the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioConfig {
    /// Random, and not used by another source of the session.
    pub ssrc: u32,
    pub payload_type: u8,
    /// Id of the extension that names the section, and the section's mid.
    pub mid: Option<(u8, String)>,
    /// Random. The highest bit is not used, as for video.
    pub initial_sequence: u16,
    /// Random.
    pub timestamp_offset: u32,
}

/// See the module.
pub struct AudioSender {
    ssrc: u32,
    timestamp_offset: u32,
    header: HeaderTemplate,
    /// 48 bits, of the next packet.
    next_sequence: u64,
    stats: AudioStats,
}

impl AudioSender {
    pub fn new(config: AudioConfig) -> AudioSender {
        let extensions = ExtensionIds { mid: config.mid, ..ExtensionIds::default() };
        AudioSender {
            ssrc: config.ssrc,
            timestamp_offset: config.timestamp_offset,
            header: HeaderTemplate::new(config.ssrc, config.payload_type, &extensions),
            next_sequence: u64::from(config.initial_sequence & 0x7fff),
            stats: AudioStats::default(),
        }
    }

    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    pub fn stats(&self) -> &AudioStats {
        &self.stats
    }

    /// Seals one packet into `out`, as a run of its own. With `channel` it becomes TURN ChannelData.
    pub fn seal(
        &mut self,
        packet: &AudioPacket<'_>,
        sender: &SrtpSender,
        channel: Option<u16>,
        out: &mut SendBuffer,
    ) -> Result<(), SealError> {
        let fields = HeaderFields {
            // What a viewer hears first always follows on silence.
            marker: packet.marker || self.stats.packets == 0,
            sequence: self.next_sequence as u16,
            timestamp: packet.timestamp.wrapping_add(self.timestamp_offset),
            ..HeaderFields::default()
        };
        let index = self.next_sequence;
        // Counted even if sealing fails: no index is ever used for two packets.
        self.next_sequence += 1;
        out.start_group();
        let mark = out.mark();
        let open = out.open(channel);
        out.write(&self.header.fill(&fields)[..self.header.len()]);
        out.write(packet.payload);
        out.write_zeros(sender.rtp_overhead());
        let sealed = sender.seal_rtp(out.body_mut(open), self.header.len(), self.ssrc, index);
        if sealed.is_err() {
            out.rewind(mark);
            return sealed;
        }
        out.close(open);
        out.start_group();
        self.stats.packets += 1;
        self.stats.bytes += packet.payload.len() as u64;
        Ok(())
    }

    /// For a sender report of the moment that is `timestamp` in the microphone's ticks and `ntp` on
    /// the wall clock.
    pub fn info(&self, ntp: u64, timestamp: u32) -> SenderInfo {
        SenderInfo {
            ntp,
            rtp_timestamp: timestamp.wrapping_add(self.timestamp_offset),
            packets: self.stats.packets as u32,
            octets: self.stats.bytes as u32,
        }
    }

    /// Notes what the viewer says about one of our sources, if it is this one.
    pub fn on_report_block(&mut self, block: &ReportBlock) {
        if block.ssrc == self.ssrc {
            self.stats.lost_packets = block.cumulative_lost;
        }
    }
}

/// A packet whose timestamp is ahead of the count by more follows on silence. Less is the jitter of
/// whoever takes the time.
const SILENCE: Duration = Duration::from_millis(40);
/// Silence that is longer than that counts as none.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
/// A clock that goes back by more was set.
const SET_BACK: Duration = Duration::from_secs(1);
/// One packet's timestamp moves the count's moment of capture by this part of its difference.
const SMOOTHING: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const PACKET: [u8; 160] = [0xff; 160];

    fn place(timeline: &mut AudioTimeline, captured: Duration) -> (u32, bool) {
        let packet = timeline.place(&PACKET, captured).unwrap();
        (packet.timestamp, packet.marker)
    }

    #[test]
    fn timestamps_count_samples_whatever_the_firmwares_clock_says() {
        let mut timeline = AudioTimeline::new(AudioCodec::Pcmu);
        for n in 0..1000_u32 {
            // Taken by a thread that is held up now and then, of a clock that is fast by 500 ppm.
            let captured =
                5000 * MS + 20 * MS * n + n * 7 % 15 * MS + Duration::from_micros(10) * n;
            assert_eq!(place(&mut timeline, captured), (160 * n, n == 0));
        }
        // The pair of both clocks has followed the drift: 10 ms by now, and half the jitter.
        let at = timeline.timestamp_at(5000 * MS + 20_000 * MS + 10 * MS + 7 * MS).unwrap();
        assert!(at.abs_diff(160_000) < 8 * 4, "{at}");
    }

    #[test]
    fn silence_is_a_gap_and_a_marker() {
        let mut timeline = AudioTimeline::new(AudioCodec::Pcma);
        assert_eq!(place(&mut timeline, Duration::ZERO), (0, true));
        assert_eq!(place(&mut timeline, 20 * MS), (160, false));
        assert_eq!(place(&mut timeline, 440 * MS), (440 * 8, true));
        assert_eq!(place(&mut timeline, 460 * MS), (460 * 8, false));
    }

    #[test]
    fn a_clock_that_was_set_leaves_the_count_as_it_is() {
        let mut timeline = AudioTimeline::new(AudioCodec::Pcma);
        place(&mut timeline, 10_000 * MS);
        for (n, captured) in [7_200_000 * MS, 5 * MS, Duration::MAX / 2].into_iter().enumerate() {
            let ticks = 160 * (n as u32 + 1);
            assert_eq!(place(&mut timeline, captured), (ticks, true));
            assert_eq!(timeline.timestamp_at(captured), Some(ticks));
        }
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        let mut timeline = AudioTimeline::new(AudioCodec::Opus);
        assert_eq!(timeline.place(b"OggS", MS), None);
        assert_eq!(timeline.timestamp_at(MS), None);
    }
}
