//! How much of something came in the last second.

use std::time::Instant;

/// Counts in slots of an eighth of a second and sums up the last eight whole ones: exactly one
/// second, which ended an eighth of a second ago at most. Costs no timer and no allocation.
#[derive(Debug, Clone)]
pub struct Rate {
    start: Instant,
    /// By slot number modulo their count. One more than are summed up: the one being filled.
    slots: [u64; SLOTS],
    /// The number of the slot being filled.
    current: u64,
}

const SLOTS: usize = 9;
const SLOT_MS: u128 = 125;

impl Rate {
    pub fn new(now: Instant) -> Rate {
        Rate { start: now, slots: [0; SLOTS], current: 0 }
    }

    pub fn add(&mut self, now: Instant, amount: u64) {
        let slot = self.slot_at(now);
        // All slots are stale after their number of slots.
        for passed in (self.current + 1..=slot).take(SLOTS) {
            self.slots[(passed % SLOTS as u64) as usize] = 0;
        }
        if slot > self.current + SLOTS as u64 {
            self.slots = [0; SLOTS];
        }
        self.current = self.current.max(slot);
        self.slots[(self.current % SLOTS as u64) as usize] += amount;
    }

    pub fn last_second(&self, now: Instant) -> u64 {
        let now = self.slot_at(now).max(self.current);
        let whole = now.saturating_sub(SLOTS as u64 - 1)..now;
        let held = (self.current + 1).saturating_sub(SLOTS as u64)..=self.current;
        whole
            .filter(|slot| held.contains(slot))
            .map(|slot| self.slots[(slot % SLOTS as u64) as usize])
            .sum()
    }

    fn slot_at(&self, now: Instant) -> u64 {
        (now.saturating_duration_since(self.start).as_millis() / SLOT_MS) as u64
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs a moment to count from")]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_last_second_is_exact_and_fades() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let at = |ms: u64| start + Duration::from_millis(ms);
        for frame in 0..100 {
            rate.add(at(20 * frame), 10);
        }
        // Frames of 1000 to 1999 ms.
        assert_eq!(rate.last_second(at(2000)), 500);
        assert_eq!(rate.last_second(at(2124)), 500);
        assert_eq!(rate.last_second(at(2125)), 430, "43 from 1140 ms on");
        assert_eq!(rate.last_second(at(2999)), 60, "6 from 1880 ms on");
        assert_eq!(rate.last_second(at(3000)), 0);
        assert_eq!(rate.last_second(at(1_000_000)), 0);
    }

    #[test]
    fn after_a_pause_of_any_length_nothing_old_is_left() {
        for pause in 1..5000 {
            let start = Instant::now();
            let mut rate = Rate::new(start);
            for ms in 0..1300 {
                rate.add(start + Duration::from_millis(ms), 1);
            }
            let again = 1299 + pause;
            rate.add(start + Duration::from_millis(again), 1000);
            let seen = again + 1000;
            // What lies in the eight whole slots before this moment.
            let first = (seen / 125).saturating_sub(8) * 125;
            let last = seen / 125 * 125;
            let old = 1300_u64.saturating_sub(first).min(1300);
            let new = if (first..last).contains(&again) { 1000 } else { 0 };
            assert_eq!(rate.last_second(start + Duration::from_millis(seen)), old + new, "{pause}");
        }
    }
}
