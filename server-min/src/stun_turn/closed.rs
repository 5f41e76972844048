//! Sessions that have ended although their credentials are good for a while: whoever still has them
//! gets no new allocation.

use std::collections::hash_map::RandomState;
use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher as _;

/// The last [`MAX_CLOSED`] of them, by a hash that nobody outside can aim at: 64 bits are enough to
/// tell a session from so few.
#[derive(Default)]
pub(super) struct Closed {
    hasher: RandomState,
    known: HashSet<u64>,
    oldest_first: VecDeque<u64>,
}

/// A day's sessions of a large node; some 2 MB.
const MAX_CLOSED: usize = 1 << 16;

impl Closed {
    pub(super) fn insert(&mut self, session: &str) {
        let hash = self.hasher.hash_one(session);
        if !self.known.insert(hash) {
            return;
        }
        self.oldest_first.push_back(hash);
        if self.oldest_first.len() > MAX_CLOSED
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    pub(super) fn contains(&self, session: &str) -> bool {
        self.known.contains(&self.hasher.hash_one(session))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room() {
        let mut closed = Closed::default();
        for i in 0..MAX_CLOSED + 10 {
            closed.insert(&format!("s{i}"));
            closed.insert(&format!("s{i}"));
        }
        assert_eq!((closed.known.len(), closed.oldest_first.len()), (MAX_CLOSED, MAX_CLOSED));
        for (i, expected) in [(0, false), (9, false), (10, true), (MAX_CLOSED + 9, true)] {
            assert_eq!(closed.contains(&format!("s{i}")), expected, "{i}");
        }
    }
}
