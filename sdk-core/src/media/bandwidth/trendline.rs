//! Whether a queue grows somewhere on the way: the trend of the delay over the last packet groups,
//! against a threshold that adapts to the path's own jitter (draft-ietf-rmcat-gcc-02 5.3 to 5.5; the
//! filter is the line of least squares that replaced the draft's Kalman filter in browsers).

/// What the delay says about the use of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    /// A queue empties.
    Under,
    Normal,
    /// A queue grows.
    Over,
}

/// All times in milliseconds, on any clock that goes forward.
pub(super) struct Trendline {
    /// Arrival and smoothed delay of the last groups.
    points: heapless::Deque<(f64, f64), WINDOW>,
    smoothed: f64,
    groups: u32,
    threshold: f64,
    last_arrival: Option<f64>,
    over_for: f64,
    over_groups: u32,
    last_trend: f64,
}

impl Trendline {
    pub(super) fn new() -> Trendline {
        Trendline {
            points: heapless::Deque::new(),
            smoothed: 0.0,
            groups: 0,
            threshold: FIRST_THRESHOLD,
            last_arrival: None,
            over_for: 0.0,
            over_groups: 0,
            last_trend: 0.0,
        }
    }

    /// Forgets the past: what comes is measured against another delay.
    pub(super) fn restart(&mut self) {
        *self = Trendline { threshold: self.threshold, ..Trendline::new() };
    }

    /// Notes a group that arrived with `delay`.
    pub(super) fn on_group(&mut self, arrival: f64, delay: f64) -> Usage {
        let Some(last_arrival) = self.last_arrival.replace(arrival) else {
            self.smoothed = delay;
            return Usage::Normal;
        };
        let elapsed = (arrival - last_arrival).max(0.0);
        self.groups = self.groups.saturating_add(1);
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * delay;
        if self.points.is_full() {
            self.points.pop_front();
        }
        // There is room: one was taken out if not.
        let _ = self.points.push_back((arrival, self.smoothed));
        let trend = self.slope();
        let gauge = trend * f64::from(self.groups.min(MAX_GROUPS)) * GAIN;
        let usage = self.judge(trend, gauge, elapsed);
        self.last_trend = trend;
        self.adapt(gauge.abs(), elapsed);
        usage
    }

    fn slope(&self) -> f64 {
        if !self.points.is_full() {
            return self.last_trend.min(0.0);
        }
        let count = WINDOW as f64;
        let (x, y) = self.points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0, y + p.1));
        let (x, y) = (x / count, y / count);
        let (over, under) = self.points.iter().fold((0.0, 0.0), |(over, under), p| {
            (over + (p.0 - x) * (p.1 - y), under + (p.0 - x) * (p.0 - x))
        });
        if under > 0.0 { over / under } else { 0.0 }
    }

    fn judge(&mut self, trend: f64, gauge: f64, elapsed: f64) -> Usage {
        if gauge < -self.threshold {
            self.over_for = 0.0;
            self.over_groups = 0;
            return Usage::Under;
        }
        if gauge <= self.threshold {
            self.over_for = 0.0;
            self.over_groups = 0;
            return Usage::Normal;
        }
        self.over_for += if self.over_groups == 0 { elapsed / 2.0 } else { elapsed };
        self.over_groups += 1;
        if self.over_for <= OVERUSE_TIME || self.over_groups < 2 || trend < self.last_trend {
            return Usage::Normal;
        }
        Usage::Over
    }

    fn adapt(&mut self, gauge: f64, elapsed: f64) {
        // A sudden jump is not this path's usual jitter.
        if gauge > self.threshold + MAX_STEP {
            return;
        }
        let gain = if gauge < self.threshold { GAIN_DOWN } else { GAIN_UP };
        self.threshold += gain * (gauge - self.threshold) * elapsed.min(100.0);
        self.threshold = self.threshold.clamp(6.0, 600.0);
    }
}

const WINDOW: usize = 20;
const SMOOTHING: f64 = 0.9;
const GAIN: f64 = 4.0;
const MAX_GROUPS: u32 = 60;
const FIRST_THRESHOLD: f64 = 12.5;
const OVERUSE_TIME: f64 = 10.0;
const MAX_STEP: f64 = 15.0;
const GAIN_UP: f64 = 0.0087;
const GAIN_DOWN: f64 = 0.039;

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(state: &mut u64, bound: f64) -> f64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state % 1000) as f64 / 1000.0 * bound
    }

    #[test]
    fn a_growing_queue_is_seen_and_an_emptying_one_too() {
        let mut line = Trendline::new();
        let mut usage = Vec::new();
        for group in 0..120 {
            let delay = match group {
                0..40 => 0.0,
                40..80 => f64::from(group - 40) * 2.0,
                _ => f64::from(120 - group) * 2.0,
            };
            usage.push(line.on_group(f64::from(group) * 33.0, delay));
        }
        assert!(usage[..40].iter().all(|u| *u == Usage::Normal));
        let seen = usage.iter().position(|u| *u == Usage::Over).unwrap();
        assert!((41..60).contains(&seen), "at 6 % over the rate, seen after {} groups", seen - 40);
        assert!(usage[80..].contains(&Usage::Under));
        assert!(!usage[100..].contains(&Usage::Over));
    }

    #[test]
    fn jitter_without_a_trend_is_no_overuse() {
        let (mut line, mut state, mut over) = (Trendline::new(), 42, 0);
        for group in 0..3000 {
            let delay = noise(&mut state, 30.0);
            over += u32::from(line.on_group(f64::from(group) * 33.0, delay) == Usage::Over);
        }
        assert!(over < 10, "{over} of 3000");
    }
}
