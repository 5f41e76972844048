//! When a sender report is due, and what the viewer's reports say about the way to it.

use crate::wire::rtcp::ReportBlock;
use std::time::{Duration, Instant};

/// The first report goes out with the first packet, so that the viewer can tie audio to video and
/// we know the round trip soon; then one a second.
#[derive(Debug, Default)]
pub(super) struct ReportSchedule {
    next: Option<Instant>,
    /// Of the last reports: the middle of the NTP time, and when it went out.
    sent: [Option<(u32, Instant)>; 8],
    sent_count: usize,
}

impl ReportSchedule {
    pub(super) fn on_media(&mut self, now: Instant) {
        self.next.get_or_insert(now);
    }

    /// Another source begins: the viewer is to be able to tie it to the others soon.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.next = Some(now);
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn on_report(&mut self, now: Instant, ntp: u64) {
        self.sent[self.sent_count % self.sent.len()] = Some((middle_of_ntp(ntp), now));
        self.sent_count = self.sent_count.wrapping_add(1);
        self.put_off(now);
    }

    /// There was nothing to report.
    pub(super) fn put_off(&mut self, now: Instant) {
        self.next = Some(now + REPORT_INTERVAL);
    }

    /// The round trip time by RFC 3550 6.4.1, by our monotonic clock: the wall clock may be set at
    /// any time.
    pub(super) fn round_trip(&self, now: Instant, block: &ReportBlock) -> Option<Duration> {
        let &(_, sent) =
            self.sent.iter().flatten().find(|(middle, _)| *middle == block.last_sender_report)?;
        let held = u64::from(block.delay_since_last_sender_report) * 1_000_000 / 65_536;
        now.checked_duration_since(sent)?.checked_sub(Duration::from_micros(held))
    }
}

pub(super) fn middle_of_ntp(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

const REPORT_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs a moment to count from")]
mod tests {
    use super::*;

    fn block(last_sender_report: u32, delay: u32) -> ReportBlock {
        ReportBlock {
            ssrc: 0,
            fraction_lost: 0,
            cumulative_lost: 0,
            highest_sequence: 0,
            jitter: 0,
            last_sender_report,
            delay_since_last_sender_report: delay,
        }
    }

    #[test]
    fn the_first_report_comes_with_the_first_packet_then_one_a_second() {
        let start = Instant::now();
        let mut schedule = ReportSchedule::default();
        assert_eq!(schedule.next(), None);
        schedule.on_media(start);
        schedule.on_media(start + Duration::from_millis(10));
        assert_eq!(schedule.next(), Some(start));
        schedule.on_report(start, 1 << 32);
        assert_eq!(schedule.next(), Some(start + Duration::from_secs(1)));
    }

    #[test]
    fn the_round_trip_leaves_out_what_the_viewer_held_the_report() {
        let start = Instant::now();
        let mut schedule = ReportSchedule::default();
        for second in 0..20 {
            schedule.on_report(start + Duration::from_secs(second), (second + 100) << 32);
        }
        let heard = start + Duration::from_millis(19_600);
        let rtt = schedule.round_trip(heard, &block(119 << 16, 0x8000));
        assert_eq!(rtt, Some(Duration::from_millis(100)));
        assert_eq!(schedule.round_trip(heard, &block(119 << 16, 0x10000)), None, "impossible");
        assert_eq!(schedule.round_trip(heard, &block(100 << 16, 0)), None, "too long ago");
        assert_eq!(schedule.round_trip(heard, &block(0, 0)), None, "it had none");
    }
}
