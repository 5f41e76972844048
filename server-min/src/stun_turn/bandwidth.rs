//! A bandwidth cap as one moment: when what was let through so far would have passed at the
//! allowed rate. (A token bucket, told as the generic cell rate algorithm of ITU-T I.371.) One
//! number is all there is to share, so threads share it without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How much may pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cap {
    /// `None`: no cap.
    ns_per_byte: Option<f64>,
    burst_ns: u64,
}

impl Cap {
    /// 0 bits per second is no cap.
    pub(super) fn new(bits_per_s: u64, burst_bytes: u64) -> Cap {
        let ns_per_byte = (bits_per_s > 0).then(|| 8e9 / bits_per_s as f64);
        let burst_ns = ns_per_byte.map_or(0.0, |ns| ns * burst_bytes as f64);
        Cap { ns_per_byte, burst_ns: burst_ns as u64 }
    }

    fn cost_ns(&self, bytes: usize) -> Option<u64> {
        self.ns_per_byte.map(|ns| (ns * bytes as f64) as u64)
    }
}

/// What has passed in one direction.
#[derive(Debug, Default)]
pub(super) struct Meter {
    passed_at_ns: AtomicU64,
}

impl Meter {
    /// Whether `bytes` may pass now; if so, they are counted. Time is in nanoseconds since a moment
    /// that is the same for all who share this meter.
    pub(super) fn take(&self, now_ns: u64, bytes: usize, cap: &Cap) -> bool {
        let Some(cost_ns) = cap.cost_ns(bytes) else { return true };
        let mut seen_ns = self.passed_at_ns.load(Relaxed);
        loop {
            let passed_at_ns = seen_ns.max(now_ns).saturating_add(cost_ns);
            if passed_at_ns - now_ns > cap.burst_ns {
                return false;
            }
            // The number stands for itself: nothing else is published with it.
            match self.passed_at_ns.compare_exchange_weak(seen_ns, passed_at_ns, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(other) => seen_ns = other,
            }
        }
    }

    /// Undoes a [`take`](Meter::take) that let these bytes through.
    pub(super) fn give_back(&self, bytes: usize, cap: &Cap) {
        if let Some(cost_ns) = cap.cost_ns(bytes) {
            self.passed_at_ns.fetch_sub(cost_ns, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let (cap, meter) = (Cap::new(2_000_000, 100_000), Meter::default());
        let burst = (0..1000).filter(|_| meter.take(0, 1000, &cap)).count();
        assert_eq!(burst, 100);
        // 4 Mbit/s offered over 10 s: half of it passes.
        let passed = (1..=5000).filter(|i| meter.take(2 * i * MS, 1000, &cap)).count();
        assert!((2499..=2501).contains(&passed), "{passed}");
        assert!(meter.take(60_000 * MS, 100_000, &cap), "the burst is back");
        assert!(!meter.take(60_000 * MS, 1000, &cap));
        meter.give_back(1000, &cap);
        assert!(meter.take(60_000 * MS, 1000, &cap));
        assert!(!meter.take(60_000 * MS, 1000, &cap));
    }

    #[test]
    fn zero_is_no_cap() {
        assert!(Meter::default().take(0, usize::MAX, &Cap::new(0, 0)));
    }

    #[test]
    fn threads_together_get_no_more_than_one() {
        let (cap, meter) = (Cap::new(8_000_000, 100_000), Meter::default());
        let total: usize = std::thread::scope(|scope| {
            let count = || (0..20_000u64).filter(|i| meter.take(i * 10_000, 100, &cap)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        // 0.2 s at 1 MB/s and the burst. Threads whose clocks differ must not gain by it.
        assert!((2990..=3000).contains(&total), "{total} packets of 100 bytes");
    }
}
