//! When a viewer's network is too slow for a stream, and when it is worth trying again: between a
//! stream and its fallback (`StreamConfig::fallback`), without going back and forth.

use std::time::{Duration, Instant};

/// One viewer's moves between the stream it asked for and that stream's fallback.
#[derive(Debug)]
pub(super) struct Adapt {
    is_away: bool,
    /// Since when what would move it has held without a break.
    since: Option<Instant>,
    moved: Option<Instant>,
    /// How long it stays away at the least: longer each time that coming back was in vain.
    stay: Duration,
}

/// What the viewer's network takes, in bits per second of payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capacity {
    /// By congestion control; nothing more than half as much again as what is sent can be proven.
    pub(super) estimate: u32,
    /// What bursts promise, where they are to be believed.
    pub(super) promised: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    Away,
    Back,
}

impl Adapt {
    pub(super) fn new() -> Adapt {
        Adapt { is_away: false, since: None, moved: None, stay: LEAST_STAY }
    }

    #[cfg(test)]
    fn is_away(&self) -> bool {
        self.is_away
    }

    /// The viewer asked for a stream itself: that is where it is at home now.
    pub(super) fn on_asked(&mut self) {
        *self = Adapt::new();
    }

    /// What to do now. `floor` is the least that the encoder of the stream at home makes.
    pub(super) fn on_capacity(
        &mut self,
        now: Instant,
        capacity: Capacity,
        floor: u32,
    ) -> Option<Move> {
        let best = capacity.estimate.max(capacity.promised.unwrap_or(0));
        let holds = match self.is_away {
            false => capacity.estimate < floor,
            true => f64::from(best) >= MARGIN * f64::from(floor),
        };
        if !holds {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        let patience = if self.is_away { BACK_AFTER } else { AWAY_AFTER };
        let stays = self.is_away && self.moved.is_some_and(|at| now < at + self.stay);
        if now < since + patience || stays {
            return None;
        }
        if !self.is_away {
            let in_vain = self.moved.is_some_and(|at| now < at + IN_VAIN);
            self.stay = if in_vain { (2 * self.stay).min(LONGEST_STAY) } else { LEAST_STAY };
        }
        self.is_away = !self.is_away;
        self.since = None;
        self.moved = Some(now);
        Some(if self.is_away { Move::Away } else { Move::Back })
    }
}

/// Long enough for an encoder to follow a lower target, and for a queue to empty.
const AWAY_AFTER: Duration = Duration::from_secs(2);
const BACK_AFTER: Duration = Duration::from_secs(5);
/// What the network must promise beyond the stream's least.
const MARGIN: f64 = 1.3;
/// A stream that has to be left so soon should not have been gone back to.
const IN_VAIN: Duration = Duration::from_secs(30);
const LEAST_STAY: Duration = Duration::from_secs(10);
const LONGEST_STAY: Duration = Duration::from_secs(300);

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs a moment to count from")]
mod tests {
    use super::*;

    const FLOOR: u32 = 1_000_000;

    /// Seconds of each move, with a capacity that `at` gives for each tenth of a second.
    fn moves(seconds: u32, at: impl Fn(f64, bool) -> u32) -> Vec<(u32, Move)> {
        let start = Instant::now();
        let mut adapt = Adapt::new();
        let mut moves = Vec::new();
        for tenth in 0..seconds * 10 {
            let time = f64::from(tenth) / 10.0;
            let estimate = at(time, adapt.is_away());
            let capacity = Capacity { estimate, promised: None };
            let now = start + Duration::from_millis(100) * tenth;
            moves.extend(adapt.on_capacity(now, capacity, FLOOR).map(|m| (tenth / 10, m)));
        }
        moves
    }

    #[test]
    fn a_dip_is_sat_out_and_a_slow_network_is_not() {
        let dip = |time: f64, _| if (1.0..2.5).contains(&time) { 500_000 } else { 2_000_000 };
        assert_eq!(moves(60, dip), []);
        let slow = |time: f64, _| if time >= 1.0 { 500_000 } else { 2_000_000 };
        assert_eq!(moves(60, slow), [(3, Move::Away)]);
    }

    #[test]
    fn it_comes_back_when_there_is_room_and_not_before() {
        let better = |time: f64, _| if time < 20.0 { 500_000 } else { 1_400_000 };
        assert_eq!(moves(60, better), [(2, Move::Away), (25, Move::Back)]);
        let hardly = |time: f64, _| if time < 20.0 { 500_000 } else { 1_200_000 };
        assert_eq!(moves(60, hardly), [(2, Move::Away)]);
        // Promises suffice.
        let mut adapt = Adapt::new();
        let start = Instant::now();
        let mut at = |s, promised| {
            let capacity = Capacity { estimate: 600_000, promised };
            adapt.on_capacity(start + Duration::from_secs(s), capacity, FLOOR)
        };
        assert_eq!((at(0, None), at(2, None)), (None, Some(Move::Away)));
        assert_eq!((at(10, Some(4_000_000)), at(15, Some(4_000_000))), (None, Some(Move::Back)));
    }

    #[test]
    fn coming_back_in_vain_is_tried_less_and_less_often() {
        // Good on the fallback, and too slow for the stream itself.
        let seconds = moves(900, |_, away| if away { 2_000_000 } else { 500_000 });
        let away: Vec<u32> = seconds.iter().filter(|m| m.1 == Move::Away).map(|m| m.0).collect();
        let pauses: Vec<u32> = away.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses, [12, 22, 42, 82, 162, 302]);
    }

    #[test]
    fn what_the_viewer_asks_for_itself_starts_anew() {
        let start = Instant::now();
        let mut adapt = Adapt::new();
        let capacity = Capacity { estimate: 500_000, promised: None };
        for s in [0, 2] {
            adapt.on_capacity(start + Duration::from_secs(s), capacity, FLOOR);
        }
        assert!(adapt.is_away());
        adapt.on_asked();
        assert!(!adapt.is_away());
    }
}
