//! How fast one client may send: a token bucket. Who is too fast is read later, not refused.

use std::time::Duration;
use tokio::time::Instant;

pub(crate) struct Bucket {
    /// Time one packet costs; zero for no limit.
    cost: Duration,
    /// How far ahead of its average rate a client may be.
    allowance: Duration,
    /// When the client would have sent everything at exactly its average rate.
    paid_until: Instant,
}

impl Bucket {
    pub(crate) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let cost = Duration::from_secs(1) / per_second.max(1);
        Self { cost, allowance: cost * burst.max(1), paid_until: now }
    }

    pub(crate) fn unlimited() -> Self {
        Self { cost: Duration::ZERO, allowance: Duration::ZERO, paid_until: Instant::now() }
    }

    /// Takes one packet, or says when to try again.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        if self.cost.is_zero() {
            return Ok(());
        }
        let paid_until = self.paid_until.max(now) + self.cost;
        if paid_until > now + self.allowance {
            // A little later than need be, so that packets are taken in batches.
            let batch = self.cost * 8;
            return Err(now + batch.min(self.allowance).max(Duration::from_millis(1)));
        }
        self.paid_until = paid_until;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_average_rate() {
        let mut now = Instant::now();
        let mut bucket = Bucket::new(100, 20, now);
        assert_eq!((0..100).filter(|_| bucket.take(now).is_ok()).count(), 20);
        let mut taken = 0;
        let end = now + Duration::from_secs(10);
        while now < end {
            match bucket.take(now) {
                Ok(()) => taken += 1,
                Err(until) => now = until,
            }
        }
        assert!((990..=1010).contains(&taken), "{taken}");
        now += Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| bucket.take(now).is_ok()).count(), 20);
        let mut free = Bucket::unlimited();
        assert!((0..1_000_000).all(|_| free.take(now).is_ok()));
    }
}
