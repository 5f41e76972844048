//! How unevenly a source's packets come: what the fastest and nearly the slowest of the last ones took.
//! The other side's clock is not ours, so only differences count.

use std::collections::VecDeque;

/// See the module. Times are in microseconds: a packet's arrival less its timestamp.
#[derive(Debug)]
pub(super) struct Arrivals {
    last: VecDeque<i64>,
    fastest: i64,
    wanted: i64,
    /// For finding the slowest; kept for its memory.
    sorted: Vec<i64>,
}

impl Arrivals {
    pub(super) fn new() -> Arrivals {
        Arrivals {
            last: VecDeque::with_capacity(WINDOW),
            fastest: 0,
            wanted: START_DELAY,
            sorted: Vec::with_capacity(WINDOW),
        }
    }

    /// Whether this one has nothing to do with those before it: no network holds a packet for so long.
    pub(super) fn is_strange(&self, transit: i64) -> bool {
        !self.last.is_empty() && transit.abs_diff(self.fastest) > MAX_STEP
    }

    /// True if this one has nothing to do with those before it: it is the first, or a clock was set.
    pub(super) fn push(&mut self, transit: i64) -> bool {
        let begins = self.last.is_empty() || self.is_strange(transit);
        if begins {
            self.last.clear();
        }
        if self.last.len() == WINDOW {
            self.last.pop_front();
        }
        self.last.push_back(transit);
        self.fastest = self.last.iter().copied().min().unwrap_or(transit);
        self.sorted.clear();
        self.sorted.extend(&self.last);
        let place = self.sorted.len() - 1 - self.sorted.len() / ALL_BUT_ONE_IN;
        let (_, slow, _) = self.sorted.select_nth_unstable(place);
        let least = if self.last.len() < FEW { START_DELAY } else { MIN_DELAY };
        self.wanted = (*slow).clamp(self.fastest + least, self.fastest + MAX_DELAY);
        begins
    }

    pub(super) fn fastest(&self) -> i64 {
        self.fastest
    }

    /// When tick 0 should be heard: as late as nearly all packets need it.
    pub(super) fn wanted(&self) -> i64 {
        self.wanted
    }

    pub(super) fn held_bytes(&self) -> usize {
        (self.last.capacity() + self.sorted.capacity()) * size_of::<i64>()
    }
}

/// With packets of 20 ms, two and a half seconds.
const WINDOW: usize = 128;
/// So few packets may be later than the delay allows.
const ALL_BUT_ONE_IN: usize = 50;
/// With fewer packets than that one does not know much.
const FEW: usize = 25;
const START_DELAY: i64 = 60_000;
/// So that a packet that overtakes another one can be waited for.
const MIN_DELAY: i64 = 30_000;
const MAX_DELAY: i64 = super::MAX_DELAY.as_micros() as i64;
pub(super) const MAX_STEP: u64 = 2_000_000;
