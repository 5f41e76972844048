//! When a source's frames were captured, on our own clock.
//!
//! A frame says when it was captured on the encoder's clock, and comes to us later: by what the
//! encoder takes, which is another time for sound than for pictures. Whoever plays both in time needs
//! the moments of capture. So the frame that came the least late of all says what the encoder's clock
//! is now; and where picture and sound have one clock, the one of them that comes sooner says it for
//! both.

use std::time::{Duration, Instant};

/// What an encoder's clock showed at a moment of ours, as far as we can tell: it may have been more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    at: Instant,
    shown: Duration,
}

impl Reading {
    /// What the encoder's clock shows at `now`.
    pub fn time_at(&self, now: Instant) -> Duration {
        match now.checked_duration_since(self.at) {
            Some(later) => self.shown.saturating_add(later),
            None => self.shown.saturating_sub(self.at.saturating_duration_since(now)),
        }
    }

    /// The better of two readings of one clock; `None` if they are too far from each other to be of
    /// one.
    pub fn common(self, other: Reading) -> Option<Reading> {
        let behind = self.behind(&other);
        let better = if behind > 0 { other } else { self };
        (behind.unsigned_abs() <= ONE_CLOCK.as_micros() as u64).then_some(better)
    }

    /// How much less this clock shows than the other, in microseconds.
    fn behind(&self, other: &Reading) -> i64 {
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        micros(other.time_at(self.at)).saturating_sub(micros(self.shown))
    }
}

/// See the module. Follows a clock that drifts, and one that is set.
#[derive(Debug, Default)]
pub struct CaptureClock {
    /// The least late frame of the present window, and of the one before it.
    best: Option<Reading>,
    before: Option<Reading>,
    since: Option<Instant>,
}

impl CaptureClock {
    /// A frame came that was captured at `timestamp`.
    pub fn on_frame(&mut self, now: Instant, timestamp: Duration) {
        let reading = Reading { at: now, shown: timestamp };
        let was_set = self.reading().is_some_and(|best| reading.common(best).is_none());
        if was_set {
            *self = CaptureClock::default();
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= WINDOW {
            self.before = self.best.take();
            self.since = Some(now);
        }
        self.best = Some(better(reading, self.best));
    }

    /// `None` before the first frame.
    pub fn reading(&self) -> Option<Reading> {
        let best = self.best.or(self.before)?;
        Some(better(best, self.before))
    }
}

fn better(one: Reading, other: Option<Reading>) -> Reading {
    other.and_then(|other| one.common(other)).unwrap_or(one)
}

/// Readings that are further apart are of different clocks: no encoder takes as long.
const ONE_CLOCK: Duration = Duration::from_secs(1);
/// How long the least late frame counts. Clocks that drift by 100 ppm are a millisecond apart then.
const WINDOW: Duration = Duration::from_secs(10);

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs a moment to count from")]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    /// Frames every 33 ms from `from` on, each pushed as late after its capture as `late` says.
    fn push(
        clock: &mut CaptureClock,
        start: Instant,
        frames: std::ops::Range<u32>,
        late: impl Fn(u32) -> Duration,
    ) {
        for n in frames {
            let captured = 33 * MS * n;
            clock.on_frame(start + captured + late(n), captured);
        }
    }

    #[test]
    fn the_least_late_frame_says_what_time_it_is() {
        let start = Instant::now();
        let mut clock = CaptureClock::default();
        assert_eq!(clock.reading(), None);
        push(&mut clock, start, 0..100, |n| 30 * MS + n % 7 * MS);
        let now = start + 10 * SECOND;
        assert_eq!(clock.reading().unwrap().time_at(now), 10 * SECOND - 30 * MS);
        assert_eq!(clock.reading().unwrap().time_at(start), Duration::ZERO, "not before its start");
    }

    #[test]
    fn sound_and_picture_of_one_clock_share_the_sooners_reading() {
        let start = Instant::now();
        let (mut video, mut audio) = (CaptureClock::default(), CaptureClock::default());
        push(&mut video, start, 0..100, |_| 30 * MS);
        push(&mut audio, start, 0..100, |_| 120 * MS);
        let (video, audio) = (video.reading().unwrap(), audio.reading().unwrap());
        let now = start + 5 * SECOND;
        assert_eq!(video.common(audio).unwrap().time_at(now), 5 * SECOND - 30 * MS);
        assert_eq!(audio.common(video).unwrap().time_at(now), 5 * SECOND - 30 * MS);
        assert_eq!(audio.time_at(now), 5 * SECOND - 120 * MS);
    }

    #[test]
    fn clocks_of_their_own_stay_apart() {
        let start = Instant::now();
        let (mut video, mut audio) = (CaptureClock::default(), CaptureClock::default());
        video.on_frame(start, 1000 * SECOND);
        audio.on_frame(start, 7 * SECOND);
        let (video, audio) = (video.reading().unwrap(), audio.reading().unwrap());
        assert_eq!((video.common(audio), audio.common(video)), (None, None));
    }

    #[test]
    fn a_clock_that_drifts_is_followed_and_one_that_is_set_too() {
        let start = Instant::now();
        let mut clock = CaptureClock::default();
        // An encoder whose clock is slow by 200 ppm: frames seem later and later.
        push(&mut clock, start, 0..3000, |n| 30 * MS + Duration::from_micros(7) * n);
        let end = start + 33 * MS * 3000;
        let error = (33 * MS * 3000).abs_diff(clock.reading().unwrap().time_at(end));
        // 30 ms, and 21 of drift, of which the last 20 seconds' may be missing.
        assert!((47 * MS - MS..=51 * MS).contains(&error), "{error:?}");
        // It is set back by an hour, and forward by one.
        for shown in [7000 * SECOND, 3400 * SECOND, 7000 * SECOND] {
            clock.on_frame(end, shown);
            assert_eq!(clock.reading().unwrap().time_at(end), shown);
        }
    }
}
