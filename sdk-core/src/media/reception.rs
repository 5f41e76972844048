//! What is told to a source about its packets: how many were lost, and how unevenly they came
//! (RFC 3550 6.4.1, A.1, A.3 and A.8).

use super::reports::middle_of_ntp;
use crate::wire::rtcp::ReportBlock;
use std::time::{Duration, Instant};

/// One source, from its first packet on.
#[derive(Debug)]
pub struct Reception {
    ssrc: u32,
    /// Of its timestamps, in Hz.
    clock_rate: u32,
    started: Instant,
    first: u64,
    highest: u64,
    received: u64,
    /// Expected and received when the last report was made.
    reported: (u64, u64),
    /// Ticks of the arrival's time less the timestamp, of the last packet.
    transit: u32,
    /// In ticks, times 16.
    jitter: u32,
    /// The last sender report's time, and when it came.
    sender_report: Option<(u32, Instant)>,
}

impl Reception {
    /// With the first packet, which counts as received.
    pub fn new(
        now: Instant,
        ssrc: u32,
        clock_rate: u32,
        sequence: u16,
        timestamp: u32,
    ) -> Reception {
        // One cycle up, so that the packets before the first one have numbers too.
        let first = 0x1_0000 | u64::from(sequence);
        Reception {
            ssrc,
            clock_rate,
            started: now,
            first,
            highest: first,
            received: 1,
            reported: (0, 0),
            transit: 0_u32.wrapping_sub(timestamp),
            jitter: 0,
            sender_report: None,
        }
    }

    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    pub fn on_packet(&mut self, now: Instant, sequence: u16, timestamp: u32) {
        let index = extended(self.highest, sequence);
        // RFC 3550 A.1 waits for a second one before it believes such a jump. Here the packet is
        // authentic, so the source did begin anew: the count goes on from there.
        if index.abs_diff(self.highest) > MAX_JUMP {
            *self = Reception {
                sender_report: self.sender_report,
                ..Reception::new(now, self.ssrc, self.clock_rate, sequence, timestamp)
            };
            return;
        }
        self.received += 1;
        self.highest = self.highest.max(index);
        let ticks = ticks(now.saturating_duration_since(self.started), self.clock_rate);
        let transit = ticks.wrapping_sub(timestamp);
        let difference = (transit.wrapping_sub(self.transit) as i32).unsigned_abs();
        self.transit = transit;
        // Rounded as in A.8. A source whose clock jumps says nothing about the way.
        if difference < self.clock_rate {
            self.jitter = self.jitter - ((self.jitter + 8) >> 4) + difference;
        }
    }

    pub fn on_sender_report(&mut self, now: Instant, ntp: u64) {
        self.sender_report = Some((middle_of_ntp(ntp), now));
    }

    /// How unevenly its packets came.
    pub fn jitter(&self) -> Duration {
        let micros = u64::from(self.jitter >> 4) * 1_000_000 / u64::from(self.clock_rate);
        Duration::from_micros(micros)
    }

    /// What to say now. The next one counts from here.
    pub fn report(&mut self, now: Instant) -> ReportBlock {
        let expected = self.highest.saturating_sub(self.first) + 1;
        let (expected_before, received_before) = self.reported;
        self.reported = (expected, self.received);
        let expected_now = expected.saturating_sub(expected_before);
        let lost_now = expected_now.saturating_sub(self.received - received_before);
        let fraction = (lost_now * 256).checked_div(expected_now).unwrap_or(0);
        let lost = expected as i64 - self.received as i64;
        let held = |at: Instant| now.saturating_duration_since(at).as_micros() * 65_536 / 1_000_000;
        ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: fraction.min(255) as u8,
            cumulative_lost: lost.clamp(i32::MIN.into(), i32::MAX.into()) as i32,
            // The cycles we began with are no one's business.
            highest_sequence: (self.highest - 0x1_0000) as u32,
            jitter: self.jitter >> 4,
            last_sender_report: self.sender_report.map_or(0, |(middle, _)| middle),
            delay_since_last_sender_report: self
                .sender_report
                .map_or(0, |(_, at)| u32::try_from(held(at)).unwrap_or(u32::MAX)),
        }
    }
}

/// The number nearest to `highest` that ends with these 16 bits.
pub(super) fn extended(highest: u64, sequence: u16) -> u64 {
    let step = i64::from(sequence.wrapping_sub(highest as u16) as i16);
    highest.saturating_add_signed(step)
}

fn ticks(time: Duration, rate: u32) -> u32 {
    (time.as_micros() * u128::from(rate) / 1_000_000) as u32
}

/// RFC 3550 A.1: MAX_DROPOUT.
const MAX_JUMP: u64 = 3000;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs a moment to count from")]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Every 20 ms a packet of 160 ticks; `late` says how long each one took, `None` that it was lost.
    fn receive(
        from: u16,
        packets: u32,
        late: impl Fn(u32) -> Option<Duration>,
    ) -> (Reception, Instant) {
        let start = Instant::now();
        let mut reception = Reception::new(start, 7, 8000, from, 5000);
        for n in 1..packets {
            let Some(late) = late(n) else { continue };
            let at = start + 20 * MS * n + late;
            reception.on_packet(at, from.wrapping_add(n as u16), 5000 + 160 * n);
        }
        (reception, start + 20 * MS * packets)
    }

    #[test]
    fn losses_are_counted_over_the_wrap() {
        let (mut reception, now) =
            receive(0xfff0, 100, |n| (n % 10 != 5).then_some(Duration::ZERO));
        let block = reception.report(now);
        assert_eq!((block.ssrc, block.cumulative_lost, block.fraction_lost), (7, 10, 25));
        assert_eq!(block.highest_sequence, 0xfff0 + 99);
        assert_eq!((block.jitter, block.last_sender_report), (0, 0));
        let again = reception.report(now);
        assert_eq!((again.cumulative_lost, again.fraction_lost), (10, 0), "nothing new");
    }

    #[test]
    fn jitter_is_the_mean_difference_of_transit_times() {
        // Each second packet 10 ms late: 80 ticks from one to the next.
        let (mut reception, now) = receive(1, 400, |n| Some(n % 2 * 10 * MS));
        assert!((75..=80).contains(&reception.report(now).jitter), "{reception:?}");
        assert!((9 * MS..=10 * MS).contains(&reception.jitter()));
    }

    #[test]
    fn what_comes_before_the_first_packet_and_twice_is_no_loss() {
        let (mut reception, now) = receive(0, 10, |_| Some(Duration::ZERO));
        reception.on_packet(now, 0xffff, 4840);
        reception.on_packet(now, 9, 5000 + 9 * 160);
        assert_eq!(reception.report(now).cumulative_lost, -2);
        assert_eq!(reception.report(now).highest_sequence, 9);
    }

    #[test]
    fn a_source_that_begins_anew_is_counted_anew() {
        let (mut reception, now) = receive(0, 10, |_| Some(Duration::ZERO));
        reception.on_packet(now, 30_000, 77);
        let block = reception.report(now);
        assert_eq!((block.cumulative_lost, block.highest_sequence), (0, 30_000));
    }

    #[test]
    fn the_sender_can_tell_the_round_trip() {
        let (mut reception, now) = receive(0, 10, |_| Some(Duration::ZERO));
        reception.on_sender_report(now, 0x1122_3344_5566_7788);
        let block = reception.report(now + 500 * MS);
        assert_eq!(
            (block.last_sender_report, block.delay_since_last_sender_report),
            (0x3344_5566, 0x8000)
        );
    }
}
