//! How long to wait for an acknowledgement (RFC 9260 §6.3.1).

use std::time::Duration;

pub(super) struct Rto {
    smoothed: Option<Duration>,
    variation: Duration,
    /// After each expiry twice as much.
    current: Duration,
}

/// Before there is a measurement. The RFC's second is for the Internet's longest paths; browsers wait
/// as long as this.
const INITIAL: Duration = Duration::from_millis(500);
/// More than the 200 ms that the other side may take to acknowledge a single packet.
const MIN: Duration = Duration::from_millis(400);
/// The RFC lets it grow to a minute, for want of knowing whether there is still somebody. Here ICE
/// knows, and ends a session long before; a command that waits should go out soon after an outage.
pub(super) const MAX: Duration = Duration::from_secs(4);
/// A round trip that was measured while acknowledgements came at once says nothing of those that the
/// other side will delay.
const MIN_MARGIN: Duration = Duration::from_millis(220);

impl Rto {
    pub(super) fn new() -> Rto {
        Rto { smoothed: None, variation: Duration::ZERO, current: INITIAL }
    }

    pub(super) fn get(&self) -> Duration {
        self.current
    }

    /// Of a packet that was sent once.
    pub(super) fn on_round_trip(&mut self, rtt: Duration) {
        let smoothed = match self.smoothed {
            None => {
                self.variation = rtt / 2;
                rtt
            }
            Some(smoothed) => {
                self.variation = (3 * self.variation + smoothed.abs_diff(rtt)) / 4;
                (7 * smoothed + rtt) / 8
            }
        };
        self.smoothed = Some(smoothed);
        self.settle();
    }

    /// Nothing came in time.
    pub(super) fn back_off(&mut self) {
        self.current = (2 * self.current).min(MAX);
    }

    /// What is known of the path still holds, or there is another one.
    pub(super) fn settle(&mut self) {
        self.current = match self.smoothed {
            None => INITIAL,
            Some(smoothed) => (smoothed + (4 * self.variation).max(MIN_MARGIN)).clamp(MIN, MAX),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_follows_the_round_trip_within_its_bounds() {
        let mut rto = Rto::new();
        assert_eq!(rto.get(), INITIAL);
        for _ in 0..50 {
            rto.on_round_trip(20 * MS);
        }
        assert_eq!(rto.get(), MIN);
        for _ in 0..50 {
            rto.on_round_trip(600 * MS);
        }
        assert!((800 * MS..900 * MS).contains(&rto.get()), "{:?}", rto.get());
        for _ in 0..50 {
            rto.on_round_trip(60_000 * MS);
        }
        assert_eq!(rto.get(), MAX);
    }

    #[test]
    fn it_doubles_until_something_comes() {
        let mut rto = Rto::new();
        rto.on_round_trip(100 * MS);
        let before = rto.get();
        rto.back_off();
        assert_eq!(rto.get(), 2 * before);
        for _ in 0..70 {
            rto.back_off();
        }
        assert_eq!(rto.get(), MAX);
        rto.settle();
        assert_eq!(rto.get(), before);
    }
}
