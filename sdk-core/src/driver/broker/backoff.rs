//! Pauses between attempts to connect: full jitter, so that cameras whose broker was gone do not
//! all come back in the same instant.

use std::time::Duration;

const BASE: Duration = Duration::from_millis(500);
const CAP: Duration = Duration::from_secs(30);

pub(super) struct Backoff {
    random: u64,
    attempt: u32,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Backoff {
        Backoff { random: seed, attempt: 0 }
    }

    /// Somewhere between nothing and 0.5 s, then 1 s, 2 s, … 30 s.
    pub(super) fn next_pause(&mut self) -> Duration {
        let longest = BASE.saturating_mul(1 << self.attempt.min(10)).min(CAP);
        self.attempt = self.attempt.saturating_add(1);
        let millis = longest.as_millis() as u64;
        Duration::from_millis(self.random() % (millis + 1))
    }

    /// A connection was good for a while: begin with short pauses again. Still never with none,
    /// since what broke it may have broken all the others.
    pub(super) fn reset(&mut self) {
        self.attempt = 0;
    }

    /// SplitMix64: enough to spread pauses, and played again from its seed.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_cap_and_fill_their_range() {
        let longest = |attempt| {
            let pause = |seed| {
                let mut backoff = Backoff { random: seed, attempt };
                backoff.next_pause().as_millis()
            };
            let pauses: Vec<u128> = (0..2000).map(|i| pause(i * 7919)).collect();
            let mean = pauses.iter().sum::<u128>() / 2000;
            (mean, pauses.into_iter().max().unwrap())
        };
        for (attempt, limit) in [(0, 500), (1, 1000), (3, 4000), (6, 30_000), (99, 30_000)] {
            let (mean, max) = longest(attempt);
            assert!(max <= limit && max > limit * 98 / 100, "{attempt}: {max}");
            assert!(mean > limit * 45 / 100 && mean < limit * 55 / 100, "{attempt}: {mean}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_pauses_and_another_does_not() {
        let pauses = |seed| {
            let mut backoff = Backoff::new(seed);
            (0..8).map(|_| backoff.next_pause()).collect::<Vec<_>>()
        };
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
    }

    #[test]
    fn a_good_connection_makes_pauses_short_again() {
        let mut backoff = Backoff::new(3);
        for _ in 0..20 {
            backoff.next_pause();
        }
        backoff.reset();
        assert!(backoff.next_pause() <= BASE);
    }
}
