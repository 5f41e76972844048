//! The time as the agent is told it.

use std::time::{Duration, Instant};

/// One moment, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic: everything that decides uses this.
    pub instant: Instant,
    /// Time since the Unix epoch by the wall clock: for timestamps, sender reports and token
    /// expiry. A camera that has just booted may think it is 1970.
    pub wall: Duration,
}

impl Now {
    /// Unix milliseconds, as signals carry them.
    pub fn unix_ms(&self) -> u64 {
        u64::try_from(self.wall.as_millis()).unwrap_or(u64::MAX)
    }

    /// The wall clock as an NTP timestamp (RFC 3550 §4): seconds since 1900 in the upper half,
    /// fractions of 2⁻³² s in the lower.
    pub fn ntp(&self) -> u64 {
        const SECONDS_FROM_1900_TO_1970: u64 = 2_208_988_800;
        let seconds = self.wall.as_secs().wrapping_add(SECONDS_FROM_1900_TO_1970);
        let fraction = (u64::from(self.wall.subsec_nanos()) << 32) / 1_000_000_000;
        (seconds << 32) | fraction
    }
}

/// The earlier of two optional moments.
pub fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn ntp_counts_from_1900() {
        let now = Now { instant: Instant::now(), wall: Duration::from_millis(1_500) };
        assert_eq!(now.ntp(), (2_208_988_801 << 32) | (1 << 31));
        assert_eq!(now.unix_ms(), 1_500);
    }
}
