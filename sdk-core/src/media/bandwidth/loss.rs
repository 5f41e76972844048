//! The loss-based bound (draft-ietf-rmcat-gcc-02 6): it falls when more than a tenth is lost, and
//! grows again when next to nothing is. What lies between is radio, not congestion, and changes
//! nothing.

use super::rate_control::MIN_RATE;
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(super) struct LossBound {
    /// In bits per second; none while loss never was the reason to send less.
    bound: Option<f64>,
    window: Option<Instant>,
    arrived: u32,
    lost: u32,
}

impl LossBound {
    pub(super) fn get(&self) -> f64 {
        self.bound.unwrap_or(f64::INFINITY)
    }

    /// Notes what feedback said. `rate` is what the estimate would be without this bound.
    pub(super) fn on_feedback(&mut self, now: Instant, arrived: u32, lost: u32, rate: f64) {
        let start = *self.window.get_or_insert(now);
        self.arrived += arrived;
        self.lost += lost;
        let (all, age) = (self.arrived + self.lost, now.saturating_duration_since(start));
        if all == 0 {
            return;
        }
        let fraction = f64::from(self.lost) / f64::from(all);
        let clear = fraction > 0.3 && all >= 30 && age >= SHORT_WINDOW;
        if clear || (all >= 50 && age >= WINDOW) || (all >= 10 && age >= 3 * WINDOW) {
            self.on_fraction(fraction, rate);
            self.restart();
        }
    }

    /// Judges one window: the part of its packets that was lost.
    pub(super) fn on_fraction(&mut self, fraction: f64, rate: f64) {
        if fraction > 0.1 {
            let bound = self.get().min(rate) * (1.0 - 0.5 * fraction);
            self.bound = Some(bound.max(MIN_RATE));
        } else if fraction < 0.02 {
            self.bound = self.bound.map(|bound| bound * 1.25).filter(|bound| *bound < 2.0 * rate);
        }
    }

    /// What was lost up to now is another's business.
    pub(super) fn restart(&mut self) {
        (self.window, self.arrived, self.lost) = (None, 0, 0);
    }
}

/// Long enough that a random loss of 5 % hardly ever looks like 10 %.
const WINDOW: Duration = Duration::from_secs(1);
const SHORT_WINDOW: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_loss_changes_nothing_much_loss_does_and_it_comes_back() {
        let mut loss = LossBound::default();
        loss.on_fraction(0.05, 2e6);
        assert_eq!(loss.get(), f64::INFINITY);
        loss.on_fraction(0.4, 2e6);
        assert_eq!(loss.get(), 1.6e6);
        loss.on_fraction(0.05, 2e6);
        assert_eq!(loss.get(), 1.6e6);
        for _ in 0..5 {
            loss.on_fraction(0.0, 2e6);
        }
        assert_eq!(loss.get(), f64::INFINITY);
    }
}
