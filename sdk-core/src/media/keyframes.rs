//! When to ask the encoder for a keyframe: viewers may all ask at once and again, and each keyframe
//! costs as much as ten other frames.

use std::time::{Duration, Instant};

/// At most one request per interval and stream; one that comes too early is kept, and dropped if a
/// keyframe comes by itself meanwhile. While none comes, the request is repeated.
#[derive(Debug, Clone)]
pub struct KeyframeGovernor {
    interval: Duration,
    wanted: bool,
    last_asked: Option<Instant>,
}

impl KeyframeGovernor {
    pub fn new(interval: Duration) -> KeyframeGovernor {
        KeyframeGovernor { interval, wanted: false, last_asked: None }
    }

    /// A viewer starts, or lost a picture. True if the encoder is to be asked now.
    #[must_use]
    pub fn on_wanted(&mut self, now: Instant) -> bool {
        self.wanted = true;
        self.handle_timeout(now)
    }

    /// A keyframe was pushed: whoever waited is served.
    pub fn on_keyframe(&mut self) {
        self.wanted = false;
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.last_asked.filter(|_| self.wanted).map(|asked| asked + self.interval)
    }

    /// True if the encoder is to be asked now.
    #[must_use]
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let due = self.last_asked.is_none_or(|asked| now >= asked + self.interval);
        let ask = self.wanted && due;
        if ask {
            self.last_asked = Some(now);
        }
        ask
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs a moment to count from")]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(500);

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn many_requests_are_one() {
        let start = Instant::now();
        let mut governor = KeyframeGovernor::new(INTERVAL);
        assert!(governor.on_wanted(start), "the first at once");
        assert_eq!((1..500).filter(|&ms| governor.on_wanted(at(start, ms))).count(), 0);
        governor.on_keyframe();
        assert_eq!(governor.poll_timeout(), None, "all are served");
        assert!(!governor.handle_timeout(at(start, 600)));
    }

    #[test]
    fn one_that_comes_too_early_is_kept() {
        let start = Instant::now();
        let mut governor = KeyframeGovernor::new(INTERVAL);
        assert!(governor.on_wanted(start));
        governor.on_keyframe();
        assert!(!governor.on_wanted(at(start, 100)));
        assert_eq!(governor.poll_timeout(), Some(at(start, 500)));
        assert!(!governor.handle_timeout(at(start, 499)));
        assert!(governor.handle_timeout(at(start, 500)));
    }

    #[test]
    fn an_encoder_that_does_not_answer_is_asked_again() {
        let start = Instant::now();
        let mut governor = KeyframeGovernor::new(INTERVAL);
        assert!(governor.on_wanted(start));
        for repeat in 1..5 {
            assert_eq!(governor.poll_timeout(), Some(at(start, repeat * 500)));
            assert!(governor.handle_timeout(at(start, repeat * 500)));
        }
    }
}
