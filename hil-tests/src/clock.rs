//! The test side's clock. Everything else asks here.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[allow(clippy::disallowed_methods, reason = "the one place of the test side that asks the time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Unix milliseconds, for a signal's `timestamp`.
#[allow(clippy::disallowed_methods, reason = "the one place of the test side that asks the time")]
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64
}
