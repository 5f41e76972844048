//! When a viewer's packets may go out: small frames at once and whole, large ones spread over time,
//! so that no burst is longer than the path can take without a queue of its own.

use std::time::{Duration, Instant};

/// A token bucket that fills [`FACTOR`] times as fast as the estimated rate. Sizes are in bytes of
/// datagrams.
#[derive(Debug)]
pub struct Pacer {
    /// Bits per second.
    pace: f64,
    /// What is to go out in [`MAX_WAIT`], as a rate.
    bound: f64,
    /// How many bytes may go out at once when none did for a while.
    burst: f64,
    /// Negative when more went out than there was, since resends do not wait and a frame's last
    /// few packets go with the others.
    tokens: f64,
    at: Instant,
}

impl Pacer {
    pub fn new(now: Instant) -> Pacer {
        let burst = FIRST_BURST;
        Pacer { pace: FIRST_PACE, bound: FIRST_PACE, burst, tokens: burst, at: now }
    }

    /// Takes the viewer's estimate in bits per second, if there is one; and the part of it that may
    /// be used while a queue on the way has to empty.
    pub fn set_estimate(&mut self, now: Instant, estimate: Option<u32>, drain: Option<f64>) {
        self.refill(now);
        let Some(estimate) = estimate.map(f64::from) else { return };
        self.pace = drain.unwrap_or(FACTOR) * estimate;
        self.bound = self.pace.max(estimate);
        self.burst = (estimate / 8.0 * BURST.as_secs_f64()).max(LEAST_BURST);
    }

    /// How many of the `waiting` bytes of one frame may go out now: all, some, or none.
    pub fn grant(&mut self, now: Instant, waiting: usize) -> usize {
        self.refill(now);
        let wanted = waiting as f64;
        if self.tokens < self.needed(wanted) {
            return 0;
        }
        if wanted <= self.tokens + self.quantum() { waiting } else { self.tokens as usize }
    }

    pub fn on_sent(&mut self, bytes: usize) {
        self.tokens -= bytes as f64;
    }

    /// When [`Self::grant`] will give something of `waiting` bytes: never before `now`.
    pub fn next_release(&self, now: Instant, waiting: usize) -> Instant {
        let missing = (self.needed(waiting as f64) - self.tokens).max(0.0);
        let seconds = 8.0 * missing / self.pace;
        // Rounded up, so that there is enough by then.
        self.at.max(now) + Duration::from_secs_f64(seconds) + Duration::from_micros(50)
    }

    /// Whether that much would wait for longer than [`MAX_WAIT`].
    pub fn is_too_much(&self, waiting: usize) -> bool {
        8.0 * waiting as f64 > self.bound * MAX_WAIT.as_secs_f64()
    }

    /// How many bytes may go out again now. Resends go first, but not without end: a path that
    /// loses much because it is full must not get all of it twice.
    pub fn resend_allowance(&mut self, now: Instant) -> usize {
        self.refill(now);
        (self.tokens + self.pace / 8.0 * RESEND_AHEAD.as_secs_f64()).max(0.0) as usize
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.tokens = (self.tokens + elapsed.as_secs_f64() * self.pace / 8.0).min(self.burst);
    }

    /// The least that is worth a send of its own.
    fn quantum(&self) -> f64 {
        (self.pace / 8.0 * QUANTUM.as_secs_f64()).min(self.burst / 2.0)
    }

    /// How many tokens there must be before anything of `wanted` bytes goes out.
    fn needed(&self, wanted: f64) -> f64 {
        let quantum = self.quantum();
        (wanted - quantum).clamp(0.0, quantum)
    }
}

/// How much faster than the estimate packets go out: a keyframe ten times the size of the other
/// frames is through in a few frames' time.
pub const FACTOR: f64 = 2.5;
/// What may go out at once, as time at the estimate: a frame of the usual size at 20 frames a
/// second and more.
const BURST: Duration = Duration::from_millis(50);
const LEAST_BURST: f64 = 4.0 * 1200.0;
const QUANTUM: Duration = Duration::from_millis(10);
/// Before anything is known of the path: ten packets at once, then this rate.
const FIRST_BURST: f64 = 10.0 * 1200.0;
const FIRST_PACE: f64 = 16_000_000.0;
/// Longest time that frames may wait here.
pub const MAX_WAIT: Duration = Duration::from_millis(300);
const RESEND_AHEAD: Duration = Duration::from_millis(40);

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs a moment to count from")]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends `bytes`; gives each part with its time after the start.
    fn send(pacer: &mut Pacer, start: Instant, bytes: usize) -> Vec<(Duration, usize)> {
        let (mut now, mut left, mut parts) = (start, bytes, Vec::new());
        while left > 0 {
            let granted = pacer.grant(now, left);
            if granted == 0 {
                let release = pacer.next_release(now, left);
                assert!(release > now);
                now = release;
                assert!(pacer.grant(now, left) > 0, "released for nothing");
                continue;
            }
            pacer.on_sent(granted);
            left -= granted;
            parts.push((now - start, granted));
        }
        parts
    }

    #[test]
    fn frames_of_the_usual_size_go_out_whole_and_at_once() {
        let mut now = Instant::now();
        let mut pacer = Pacer::new(now);
        pacer.set_estimate(now, Some(2_000_000), None);
        for _ in 0..100 {
            now += 33 * MS;
            assert_eq!(send(&mut pacer, now, 8300), [(Duration::ZERO, 8300)]);
        }
    }

    #[test]
    fn a_large_frame_is_spread_at_the_pace() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now);
        pacer.set_estimate(now, Some(2_000_000), None);
        let parts = send(&mut pacer, now, 80_000);
        assert!(parts.len() < 16, "{parts:?}");
        assert!(parts.iter().all(|(_, bytes)| *bytes <= 18_750), "{parts:?}");
        let last = parts.last().unwrap().0;
        // All but the first burst and the last overdraft, at 5 Mbit/s.
        assert!((80 * MS..115 * MS).contains(&last), "{last:?}");
    }

    #[test]
    fn the_first_picture_starts_at_once() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now);
        assert_eq!(pacer.grant(now, 12_000), 12_000);
        let parts = send(&mut pacer, now, 40_000);
        assert!(parts[0].1 >= 12_000 && parts[0].0 == Duration::ZERO);
        assert!(parts.last().unwrap().0 < 20 * MS, "{parts:?}");
    }

    #[test]
    fn resends_take_from_what_frames_may_use_and_come_to_an_end() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now);
        pacer.set_estimate(now, Some(1_000_000), None);
        let allowance = pacer.resend_allowance(now);
        assert!(allowance > 10_000, "{allowance}");
        pacer.on_sent(allowance);
        assert_eq!(pacer.resend_allowance(now), 0);
        assert_eq!(pacer.grant(now, 1000), 0);
        assert!(pacer.next_release(now, 1000) <= now + 41 * MS);
    }

    #[test]
    fn waiting_is_bounded_in_time() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now);
        pacer.set_estimate(now, Some(1_000_000), None);
        assert!(!pacer.is_too_much(93_000) && pacer.is_too_much(94_000));
        pacer.set_estimate(now, Some(1_000_000), Some(0.5));
        assert!(!pacer.is_too_much(37_000) && pacer.is_too_much(38_000));
    }
}
