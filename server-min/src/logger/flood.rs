//! Keeps a flood of one kind of line from filling the disk: each place in the program may write so
//! many lines a second, and what is over is counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// A place in the program that logs, of a session or not: lines of sessions belong to someone who was
/// let in, and whoever searches for one wants all of them, so there may be more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Site {
    pub(super) file: &'static str,
    pub(super) line: u32,
    pub(super) of_session: bool,
}

/// Lines at once, as a multiple of those a second.
const BURST: u64 = 10;
const SESSION_FACTOR: u64 = 10;
/// Places are as many as the program has; should there be more, the rest share one.
const MAX_SITES: usize = 2048;
const REST: Site = Site { file: "", line: 0, of_session: false };

#[derive(Default)]
pub(super) struct Flood {
    sites: HashMap<Site, Bucket>,
}

struct Bucket {
    /// Thousandths of a line.
    room: u64,
    filled_at_ms: u64,
    left_out: u64,
    /// Where the lines come from, as they say it.
    target: Box<str>,
}

/// Lines that were left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) target: Box<str>,
    pub(super) line: u32,
    pub(super) count: u64,
}

impl Flood {
    /// Whether a line may be written. `per_second` 0 is no limit.
    pub(super) fn admits(
        &mut self,
        site: Site,
        target: &str,
        per_second: u32,
        now_ms: u64,
    ) -> bool {
        if per_second == 0 {
            return true;
        }
        let known = self.sites.len() < MAX_SITES || self.sites.contains_key(&site);
        let site = if known { site } else { REST };
        let factor = if site.of_session { SESSION_FACTOR } else { 1 };
        let rate = u64::from(per_second) * factor;
        let most = rate * BURST * 1000;
        let bucket = match self.sites.entry(site) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Bucket {
                room: most,
                filled_at_ms: now_ms,
                left_out: 0,
                target: target.into(),
            }),
        };
        // The clock may be set back: then what is left must do until it moves on from there.
        let since_ms = now_ms.saturating_sub(bucket.filled_at_ms);
        bucket.filled_at_ms = now_ms;
        bucket.room = bucket.room.saturating_add(since_ms.saturating_mul(rate)).min(most);
        match bucket.room.checked_sub(1000) {
            Some(room) => {
                bucket.room = room;
                true
            }
            None => {
                bucket.left_out += 1;
                false
            }
        }
    }

    /// What was left out since the last call.
    pub(super) fn take_left_out(&mut self) -> Vec<LeftOut> {
        let left_out = self.sites.iter_mut().filter(|(_, bucket)| bucket.left_out > 0);
        left_out
            .map(|(site, bucket)| LeftOut {
                target: bucket.target.clone(),
                line: site.line,
                count: std::mem::take(&mut bucket.left_out),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(line: u32, of_session: bool) -> Site {
        Site { file: "a.rs", line, of_session }
    }

    fn written(flood: &mut Flood, site: Site, lines: usize, now_ms: u64) -> usize {
        (0..lines).filter(|_| flood.admits(site, "mqtt", 10, now_ms)).count()
    }

    #[test]
    fn a_flood_is_bounded_and_counted_and_the_others_are_heard() {
        let mut flood = Flood::default();
        assert_eq!(written(&mut flood, site(1, false), 5000, 0), 100);
        assert_eq!(written(&mut flood, site(1, true), 5000, 0), 1000);
        assert_eq!(written(&mut flood, site(2, false), 50, 0), 50);
        // A second later there is room for ten; a hundred seconds later for no more than a burst.
        assert_eq!(written(&mut flood, site(1, false), 5000, 1000), 10);
        assert_eq!(written(&mut flood, site(1, false), 5000, 101_000), 100);
        let mut left_out = flood.take_left_out();
        left_out.sort_by_key(|left_out| left_out.count);
        let counts: Vec<u64> = left_out.iter().map(|left_out| left_out.count).collect();
        assert_eq!(counts, [4000, 4900 + 4990 + 4900]);
        assert_eq!((&*left_out[0].target, left_out[0].line), ("mqtt", 1));
        assert_eq!(flood.take_left_out(), []);
        // Back in time.
        assert_eq!(written(&mut flood, site(1, false), 5, 50), 0);
        assert_eq!(written(&mut flood, site(1, false), 50, 1050), 10);
    }

    #[test]
    fn places_without_end_share_one() {
        let mut flood = Flood::default();
        for line in 0..10_000 {
            flood.admits(site(line, false), "x", 10, 0);
        }
        assert_eq!(flood.sites.len(), MAX_SITES + 1);
        assert!(!flood.admits(site(20_000, false), "x", 10, 0));
        assert!(flood.admits(site(5, false), "x", 10, 0), "those that are known keep their own");
        assert!((0..1000).all(|_| flood.admits(site(20_000, false), "x", 0, 0)));
    }
}
