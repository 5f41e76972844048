//! A bandwidth cap as one moment: when what was let through so far would have passed at the
//! allowed rate. (A token bucket, told as the generic cell rate algorithm of ITU-T I.371.)

use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
pub(super) struct Cap {
    /// `None`: no cap.
    ns_per_byte: Option<f64>,
    burst: Duration,
}

impl Cap {
    /// 0 bits per second is no cap.
    pub(super) fn new(bits_per_s: u64, burst_bytes: u64) -> Cap {
        let ns_per_byte = (bits_per_s > 0).then(|| 8e9 / bits_per_s as f64);
        let burst_ns = ns_per_byte.map_or(0.0, |ns| ns * burst_bytes as f64);
        Cap { ns_per_byte, burst: Duration::from_nanos(burst_ns as u64) }
    }
}

/// One direction of one allocation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter {
    passed_at: Instant,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Meter {
        Meter { passed_at: now }
    }

    /// Whether `bytes` may pass now; if so, they are counted.
    pub(super) fn take(&mut self, now: Instant, bytes: usize, cap: &Cap) -> bool {
        let Some(ns_per_byte) = cap.ns_per_byte else { return true };
        let cost = Duration::from_nanos((ns_per_byte * bytes as f64) as u64);
        let passed_at = self.passed_at.max(now) + cost;
        let fits = passed_at.saturating_duration_since(now) <= cap.burst;
        if fits {
            self.passed_at = passed_at;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn a_burst_passes_and_then_the_rate_holds() {
        let cap = Cap::new(2_000_000, 100_000);
        let start = Instant::now();
        let mut meter = Meter::new(start);
        let burst = (0..1000).filter(|_| meter.take(start, 1000, &cap)).count();
        assert_eq!(burst, 100);
        // 4 Mbit/s offered over 10 s: half of it passes.
        let passed = (1..=5000)
            .filter(|i| meter.take(start + Duration::from_millis(2 * i), 1000, &cap))
            .count();
        assert!((2499..=2501).contains(&passed), "{passed}");
        assert!(meter.take(start + Duration::from_secs(60), 100_000, &cap), "the burst is back");
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn zero_is_no_cap() {
        let (cap, now) = (Cap::new(0, 0), Instant::now());
        assert!(Meter::new(now).take(now, usize::MAX, &cap));
    }
}
