//! Pauses between attempts to connect: full jitter, so that nodes whose broker was gone do not all
//! come back in the same instant.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(15);

pub(super) struct Backoff {
    seed: u64,
    attempt: u32,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Backoff {
        Backoff { seed, attempt: 0 }
    }

    /// Somewhere between nothing and 0.5 s, then 1 s, 2 s, … 15 s.
    pub(super) fn next_pause(&mut self) -> Duration {
        let range = SHORTEST.saturating_mul(1 << self.attempt.min(10)).min(LONGEST);
        self.attempt = self.attempt.saturating_add(1);
        range.mul_f64(self.fraction())
    }

    /// The connection was good for a while: begin with short pauses again.
    pub(super) fn reset(&mut self) {
        self.attempt = 0;
    }

    /// From 0 to 1, by a linear congruential generator (Knuth's MMIX): enough to spread pauses.
    fn fraction(&mut self) -> f64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 40) as f64 / (1u64 << 24) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_fill_a_range_that_grows_to_its_bound() {
        for (attempt, range) in [(0, 500), (1, 1000), (4, 8000), (5, 15_000), (99, 15_000)] {
            let pauses: Vec<u128> = (0..1000)
                .map(|n| {
                    Backoff { seed: 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(n), attempt }
                        .next_pause()
                        .as_millis()
                })
                .collect();
            let (mean, most) = (pauses.iter().sum::<u128>() / 1000, pauses.iter().max().copied());
            assert!((range * 45 / 100..range * 55 / 100).contains(&mean), "{attempt}: {mean}");
            assert!(most > Some(range * 95 / 100) && most <= Some(range), "{attempt}: {most:?}");
        }
    }

    #[test]
    fn a_good_connection_makes_them_short_again() {
        let mut backoff = Backoff::new(7);
        let longest = (0..20).map(|_| backoff.next_pause()).max();
        assert!(longest > Some(SHORTEST));
        backoff.reset();
        assert!(backoff.next_pause() <= SHORTEST);
    }
}
