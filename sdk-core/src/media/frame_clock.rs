//! Puts a stream's frames on one time line that never goes back, whatever the clock behind their
//! timestamps does: a recording that is played may be paused, wound on or back, or end and be
//! followed by another one, and an encoder's clock may be set. Viewers see a stream that goes on.
//!
//! ```text
//!   step between timestamps    against the time that passed    on the time line
//!   a little more or less      jitter, or another pace         the step, kept near what passed
//!   0                          the same picture                0
//!   much less                  a pause                         what passed
//!   much more, or back         a jump: wound, or set           what passed; a keyframe must follow
//! ```

use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct FrameClock {
    last: Option<Last>,
    /// By how much the time line is ahead of the time that passed, in nanoseconds: jitter, and
    /// frames that come faster than they were taken.
    lead: i64,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    timestamp: Duration,
    /// On the time line.
    media: Duration,
    at: Instant,
}

/// Where a frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub media: Duration,
    /// It does not follow the frame before it: it can only be shown if it is a keyframe.
    pub jumped: bool,
}

impl FrameClock {
    /// Places a frame that comes `now`. The time line starts with the first timestamp.
    pub fn place(&mut self, now: Instant, timestamp: Duration) -> Place {
        let Some(last) = self.last else {
            self.last = Some(Last { timestamp, media: timestamp, at: now });
            return Place { media: timestamp, jumped: false };
        };
        let passed = nanoseconds(now.saturating_duration_since(last.at));
        let step = nanoseconds(timestamp).saturating_sub(nanoseconds(last.timestamp));
        let jumped = step < 0 || step > passed.saturating_add(TOO_FAR);
        let paused = passed > step.saturating_add(TOO_FAR);
        let advance = match step {
            _ if jumped || paused => passed.max(LEAST_STEP),
            0 => 0,
            _ => self.keep_near(step, passed),
        };
        let media = last.media.saturating_add(Duration::from_nanos(advance.unsigned_abs()));
        self.last = Some(Last { timestamp, media, at: now });
        Place { media, jumped }
    }

    /// The step, changed as little as is needed so that the time line does not run away from the
    /// time that passes: a viewer's player would wait for the pictures, or think them all late.
    fn keep_near(&mut self, step: i64, passed: i64) -> i64 {
        // Clocks differ by up to some hundred parts in a million, which must not add up.
        let forgotten = self.lead.clamp(-passed / 1000, passed / 1000);
        let lead = self.lead - forgotten + step - passed;
        let kept = lead.clamp(-MOST_BEHIND, MOST_AHEAD);
        let advance = (step + kept - lead).max(LEAST_STEP);
        self.lead = lead + advance - step;
        advance
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// What no encoder's jitter comes up to.
const TOO_FAR: i64 = 1_000_000_000;
/// An encoder that was held up delivers what waited at once.
const MOST_AHEAD: i64 = 300_000_000;
const MOST_BEHIND: i64 = 1_000_000_000;
/// Two pictures are never at one time: one millisecond.
const LEAST_STEP: i64 = 1_000_000;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs a moment to count from")]
mod tests {
    use super::*;

    /// Pushes frames, each by its timestamp and the time it comes, in milliseconds; gives back where
    /// they lie, and which of them jumped.
    fn play(frames: impl IntoIterator<Item = (u64, u64)>) -> (Vec<u64>, Vec<usize>) {
        let start = Instant::now();
        let mut clock = FrameClock::default();
        let (mut places, mut jumps) = (Vec::new(), Vec::new());
        for (n, (timestamp, at)) in frames.into_iter().enumerate() {
            let ms = Duration::from_millis;
            let place = clock.place(start + ms(at), ms(timestamp));
            places.push(place.media.as_millis() as u64);
            jumps.extend(place.jumped.then_some(n));
        }
        (places, jumps)
    }

    #[test]
    fn a_live_encoder_keeps_its_own_times() {
        // Jitter of up to 60 ms, and a stall of half a second after which all comes at once.
        let stamps: Vec<u64> = (0..100).map(|n| 5000 + n * 33).collect();
        let arrival = |n: u64| match n {
            50..65 => 65 * 33,
            _ => n * 33 + (n * 7919) % 60,
        };
        let (places, jumps) = play(stamps.iter().zip(0..).map(|(stamp, n)| (*stamp, arrival(n))));
        assert_eq!((places, jumps), (stamps, vec![]));
    }

    #[test]
    fn a_pause_takes_as_long_as_it_takes() {
        let (places, jumps) = play([(0, 0), (33, 33), (66, 60_066), (99, 60_099)]);
        assert_eq!((places, jumps), (vec![0, 33, 60_066, 60_099], vec![]));
    }

    #[test]
    fn winding_back_and_on_goes_on_and_wants_a_keyframe() {
        let frames = [(9000, 0), (9033, 33), (100, 66), (133, 99), (70_000, 140), (70_033, 173)];
        let (places, jumps) = play(frames);
        assert_eq!(places, [9000, 9033, 9066, 9099, 9140, 9173]);
        assert_eq!(jumps, [2, 4]);
    }

    #[test]
    fn two_frames_of_one_picture_stay_together_and_two_pictures_do_not() {
        let (places, jumps) = play([(100, 0), (100, 1), (50, 1), (83, 34)]);
        assert_eq!((places, jumps), (vec![100, 100, 101, 134], vec![2]));
    }

    #[test]
    fn another_pace_is_followed_within_bounds() {
        // Twice as fast, and half as fast: what passes counts in the end.
        let (fast, jumps) = play((0..300).map(|n| (n * 66, n * 33)));
        assert!(jumps.is_empty() && fast.is_sorted_by(|a, b| a < b));
        assert!((299 * 33..299 * 33 + 310).contains(&fast[299]), "{}", fast[299]);
        let (slow, jumps) = play((0..300).map(|n| (n * 33, n * 66)));
        assert!(jumps.is_empty() && slow.is_sorted_by(|a, b| a < b));
        assert!((299 * 66 - 1030..299 * 66).contains(&slow[299]), "{}", slow[299]);
    }

    #[test]
    fn clocks_that_differ_a_little_never_make_a_step() {
        // 0.02 % off for an hour.
        let at = |n: u64| n * 33;
        let (places, jumps) = play((0..110_000).map(|n| (at(n) + at(n) / 5000, at(n))));
        assert!(jumps.is_empty());
        let last = at(109_999);
        assert_eq!(places.last(), Some(&(last + last / 5000)));
    }

    #[test]
    fn any_times_are_fine() {
        let start = Instant::now();
        let mut clock = FrameClock::default();
        let mut last = Duration::ZERO;
        for timestamp in [0, u64::MAX, 1, u64::MAX / 2, u64::MAX] {
            let media = clock.place(start, Duration::from_micros(timestamp)).media;
            assert!(media >= last);
            last = media;
        }
    }
}
