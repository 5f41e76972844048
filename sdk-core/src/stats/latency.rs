//! How long something takes: its median, and the slow ones.

use std::time::{Duration, Instant};

/// Counts by length, in steps of an eighth at most, so that it costs no memory of its own for each
/// thing counted. Forgets after a minute: what it says is of the last half minute at least, and of
/// the last minute at most.
#[derive(Debug, Clone)]
pub struct Latency {
    /// The half minute that runs, and the one before.
    halves: [Half; 2],
    /// When the present one began.
    since: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Half {
    counts: [u32; STEPS],
    max: Duration,
}

/// What was seen. Each value is that of the slowest of its share, rounded up to the next step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LatencyStats {
    pub p50: Duration,
    pub p95: Duration,
    pub p99: Duration,
    pub max: Duration,
}

const HALF: Duration = Duration::from_secs(30);
/// Of each power of two.
const PARTS: usize = 8;
const PARTS_BITS: u32 = PARTS.ilog2();
/// Up to 2³² µs: more than an hour.
const STEPS: usize = PARTS * (u32::BITS - PARTS_BITS + 1) as usize;

impl Default for Latency {
    fn default() -> Latency {
        let half = Half { counts: [0; STEPS], max: Duration::ZERO };
        Latency { halves: [half.clone(), half], since: None }
    }
}

impl Latency {
    pub fn add(&mut self, now: Instant, took: Duration) {
        self.forget(now);
        let [half, _] = &mut self.halves;
        let count = &mut half.counts[step_of(took)];
        *count = count.saturating_add(1);
        half.max = half.max.max(took);
    }

    pub fn stats(&mut self, now: Instant) -> LatencyStats {
        self.forget(now);
        let [half, before] = &self.halves;
        let counts =
            || half.counts.iter().zip(&before.counts).map(|(a, b)| u64::from(*a) + u64::from(*b));
        let (all, max) = (counts().sum::<u64>(), half.max.max(before.max));
        let share = |percent: u64| {
            let wanted = (all * percent).div_ceil(100);
            let mut seen = 0;
            let step = counts().position(|count| {
                seen += count;
                seen >= wanted && wanted > 0
            });
            step.map_or(Duration::ZERO, |step| end_of(step).min(max))
        };
        LatencyStats { p50: share(50), p95: share(95), p99: share(99), max }
    }

    fn forget(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let age = now.saturating_duration_since(since);
        if age < HALF {
            return;
        }
        self.halves.swap(0, 1);
        let stale = if age < 2 * HALF { 1 } else { 2 };
        for half in self.halves.iter_mut().take(stale) {
            half.counts.fill(0);
            half.max = Duration::ZERO;
        }
        self.since = Some(now);
    }
}

fn step_of(took: Duration) -> usize {
    let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
    // Short ones are counted exactly, others by their highest bits.
    let shift = (u32::BITS - micros.leading_zeros()).saturating_sub(PARTS_BITS + 1);
    let part = (micros >> shift) as usize;
    shift as usize * PARTS + part
}

/// The longest that is counted in this step.
fn end_of(step: usize) -> Duration {
    let shift = (step / PARTS).saturating_sub(1) as u32;
    let part = (step - shift as usize * PARTS) as u64;
    Duration::from_micros(((part + 1) << shift) - 1)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs a moment to count from")]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn each_length_falls_into_a_step_that_is_at_most_an_eighth_longer() {
        let is_close = |took: Duration| {
            let end = end_of(step_of(took));
            took <= end && end <= took + took / 8
        };
        let mut last = 0;
        for micros in 0..5000 {
            let step = step_of(micros * US);
            assert!(is_close(micros * US) && (last..=last + 1).contains(&step), "{micros} {step}");
            last = step;
        }
        for power in (12..32).map(|bit| 1u32 << bit) {
            for micros in [power - 1, power, power / 2 * 3, power + (power - 1)] {
                assert!(is_close(micros * US), "{micros}");
            }
        }
        assert_eq!(step_of(Duration::MAX), STEPS - 1);
        assert_eq!(end_of(STEPS - 1), u32::MAX * US);
    }

    #[test]
    fn shares_are_of_the_last_half_minute_to_minute() {
        let start = Instant::now();
        let mut latency = Latency::default();
        assert_eq!(latency.stats(start), LatencyStats::default());
        for n in 1..=100 {
            latency.add(start, n * US);
        }
        let stats = latency.stats(start);
        assert_eq!(
            (stats.p50, stats.max),
            (51 * US, 100 * US),
            "rounded up by less than an eighth"
        );
        assert!(stats.p95 >= 95 * US && stats.p99 <= stats.max);

        latency.add(start + HALF, 7000 * US);
        assert_eq!(latency.stats(start + HALF).max, 7000 * US);
        assert_eq!(latency.stats(start + HALF).p50, stats.p50);
        let stats = latency.stats(start + 2 * HALF);
        assert_eq!(
            (stats.p50, stats.p99),
            (7000 * US, 7000 * US),
            "the first hundred are forgotten"
        );
        assert_eq!(latency.stats(start + 5 * HALF), LatencyStats::default());
    }
}
