//! What the encoder of a stream is asked for: as much as the weakest of its viewers can take, but
//! never less than a floor, since below it that viewer alone misses frames.

use std::time::{Duration, Instant};

/// What the viewers of a stream can take, in bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Nobody watches.
    Nobody,
    /// Somebody does, but has not said yet how the network is.
    Unknown,
    /// The least that a viewer can take of whom it is known.
    Lowest(u32),
}

impl Demand {
    /// With one more viewer, who can take `target` if that is known.
    pub fn and(self, target: Option<u32>) -> Demand {
        match (self, target) {
            (Demand::Lowest(lowest), Some(target)) => Demand::Lowest(lowest.min(target)),
            (Demand::Nobody | Demand::Unknown, Some(target)) => Demand::Lowest(target),
            (Demand::Nobody, None) => Demand::Unknown,
            (known, None) => known,
        }
    }
}

/// Tells the encoder less at once, more at most once a second, and small changes only now and then:
/// each costs an encoder some quality.
#[derive(Debug)]
pub(super) struct TargetBitrate {
    floor: u32,
    ceiling: u32,
    /// What the encoder was told last, or makes anyhow.
    told: u32,
    told_at: Option<Instant>,
}

impl TargetBitrate {
    pub(super) fn new(bitrate: u32, min: Option<u32>, max: Option<u32>) -> TargetBitrate {
        let ceiling = max.unwrap_or(bitrate).max(1);
        let floor = min.unwrap_or(bitrate / 10).min(ceiling);
        TargetBitrate { floor, ceiling, told: bitrate, told_at: None }
    }

    pub(super) fn floor(&self) -> u32 {
        self.floor
    }

    /// What to tell the encoder now, if anything.
    pub(super) fn on_demand(&mut self, now: Instant, demand: Demand) -> Option<u32> {
        let wanted = match demand {
            Demand::Unknown => return None,
            Demand::Lowest(rate) => rate.clamp(self.floor, self.ceiling),
            // A recorder may still want the pictures as good as they get. But who was never told
            // anything needs not be told that.
            Demand::Nobody if self.told_at.is_none() => return None,
            Demand::Nobody => self.ceiling,
        };
        let since = self.told_at.map(|at| now.saturating_duration_since(at));
        let waited = |least| since.is_none_or(|since| since >= least);
        let change = wanted.abs_diff(self.told);
        let is_large = u64::from(change) * 10 >= u64::from(self.told);
        // The end of the range is always reached.
        let is_end = wanted == self.floor || wanted == self.ceiling;
        let is_small = u64::from(change) * 50 < u64::from(self.told) && !is_end;
        let due = match wanted > self.told {
            true if is_large => waited(RISE_INTERVAL),
            false if is_large => true,
            _ => !is_small && waited(SMALL_INTERVAL),
        };
        if change == 0 || !due {
            return None;
        }
        self.told = wanted;
        self.told_at = Some(now);
        Some(wanted)
    }
}

const RISE_INTERVAL: Duration = Duration::from_secs(1);
const SMALL_INTERVAL: Duration = Duration::from_secs(3);

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs a moment to count from")]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_weakest_viewer_counts_down_to_the_floor() {
        let now = Instant::now();
        let mut target = TargetBitrate::new(2_000_000, Some(500_000), None);
        let demand = |targets: &[Option<u32>]| {
            targets.iter().fold(Demand::Nobody, |demand, target| demand.and(*target))
        };
        assert_eq!(target.on_demand(now, demand(&[])), None);
        assert_eq!(target.on_demand(now, demand(&[None])), None);
        assert_eq!(target.on_demand(now, demand(&[Some(3_000_000), None])), None);
        let both = demand(&[Some(3_000_000), None, Some(1_000_000)]);
        assert_eq!(target.on_demand(now, both), Some(1_000_000));
        assert_eq!(target.on_demand(now, Demand::Lowest(100_000)), Some(500_000));
        assert_eq!(target.on_demand(now + SECOND, Demand::Nobody), Some(2_000_000));
    }

    #[test]
    fn less_at_once_more_once_a_second_and_little_now_and_then() {
        let start = Instant::now();
        let mut target = TargetBitrate::new(2_000_000, None, Some(4_000_000));
        let mut tell =
            |ms, rate| target.on_demand(start + Duration::from_millis(ms), Demand::Lowest(rate));
        assert_eq!(tell(0, 1_000_000), Some(1_000_000));
        assert_eq!(tell(10, 800_000), Some(800_000), "less at once");
        assert_eq!(tell(500, 1_000_000), None);
        assert_eq!(tell(1010, 1_000_000), Some(1_000_000), "more after a second");
        assert_eq!(tell(2500, 1_050_000), None);
        assert_eq!(tell(4010, 1_050_000), Some(1_050_000), "a little after three");
        assert_eq!(tell(9000, 1_060_000), None, "and next to nothing never");
        assert_eq!(tell(9000, 9_000_000), Some(4_000_000));
    }
}
