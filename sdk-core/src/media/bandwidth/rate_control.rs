//! The delay-based estimate: additive or multiplicative increase, decrease to what the bottleneck
//! was seen to carry (draft-ietf-rmcat-gcc-02 5.5).

use super::trendline::Usage;
use std::time::{Duration, Instant};

/// All rates in bits per second.
pub(super) struct RateControl {
    rate: f64,
    state: State,
    updated: Option<Instant>,
    /// What the link carried when it was full the last times.
    link: Option<f64>,
    /// When the rate last grew by what bursts promised.
    leapt: Option<Instant>,
    /// Bursts promised too much: a shaper lets them through faster than what follows.
    no_leap_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Growing,
    /// A queue stands that is to empty. It does as long as `least` falls.
    Draining {
        decreased: Instant,
        progress: Instant,
        least: f64,
        most: f64,
    },
}

/// What feedback said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub(super) usage: Usage,
    /// Milliseconds beyond the expected delay, and how many of these are no more than jitter.
    pub(super) excess: f64,
    pub(super) normal_excess: f64,
    pub(super) delivered: Option<f64>,
    pub(super) bottleneck: Option<f64>,
    pub(super) bursts: Option<f64>,
    pub(super) rtt: Duration,
}

/// What is to be done about it elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// We send less, but the delay stays: it is not our queue.
    NotOurQueue,
}

impl RateControl {
    pub(super) fn new(rate: f64) -> RateControl {
        RateControl {
            rate,
            state: State::Growing,
            updated: None,
            link: None,
            leapt: None,
            no_leap_until: None,
        }
    }

    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    pub(super) fn set_rate(&mut self, rate: f64) {
        self.rate = rate.clamp(MIN_RATE, MAX_RATE);
    }

    /// What bursts promise of the link, if they are believed.
    pub(super) fn promised(&self, now: Instant, bursts: Option<f64>) -> Option<f64> {
        let is_believed = self.no_leap_until.is_none_or(|until| now >= until);
        bursts.filter(|_| is_believed).map(|bursts| LEAP_TO * bursts)
    }

    /// Grows to what was promised, at once.
    pub(super) fn leap(&mut self, now: Instant, to: f64) {
        if to > self.rate && !self.is_draining() {
            self.leapt = Some(now);
            self.set_rate(to);
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.state != State::Growing
    }

    pub(super) fn update(&mut self, now: Instant, measured: &Measured) -> Verdict {
        let since = self.updated.replace(now).map(|at| now.saturating_duration_since(at));
        match &mut self.state {
            State::Growing if measured.usage == Usage::Over => self.decrease(now, measured),
            State::Growing => {
                if measured.usage == Usage::Normal && measured.excess <= measured.normal_excess {
                    self.increase(now, since.unwrap_or_default().min(MAX_STEP), measured);
                }
            }
            State::Draining { decreased, progress, least, most } => {
                if measured.excess <= measured.normal_excess {
                    self.state = State::Growing;
                } else if measured.excess > *most + 20.0
                    && now >= *decreased + measured.rtt + REACTION
                    || measured.bottleneck.is_some_and(|carried| carried < 0.7 * self.rate)
                {
                    // It did not suffice, or was measured when there was little to go by.
                    self.decrease(now, measured);
                } else if measured.excess < 0.8 * *least {
                    (*progress, *least) = (now, measured.excess);
                } else if now >= *progress + PATIENCE {
                    self.state = State::Growing;
                    return Verdict::NotOurQueue;
                }
            }
        }
        Verdict::Fine
    }

    fn decrease(&mut self, now: Instant, measured: &Measured) {
        if let Some(carried) = measured.bottleneck.or(measured.delivered) {
            if self.leapt.is_some_and(|at| now < at + LEAP_DOUBT)
                && measured.bursts.is_some_and(|bursts| carried < LEAP_TRUTH * bursts)
            {
                self.no_leap_until = Some(now + LEAP_PAUSE);
            }
            self.link = Some(match self.link {
                Some(link) if (link - carried).abs() < 0.2 * link => 0.7 * link + 0.3 * carried,
                _ => carried,
            });
            self.set_rate(self.rate.min(DECREASE_TO * carried));
        }
        let excess = measured.excess;
        self.state = State::Draining { decreased: now, progress: now, least: excess, most: excess };
    }

    fn increase(&mut self, now: Instant, since: Duration, measured: &Measured) {
        let Some(delivered) = measured.delivered else { return };
        if self.link.is_some_and(|link| self.rate > 1.1 * link) {
            self.link = None;
        }
        let since = since.as_secs_f64();
        let may_leap = self.no_leap_until.is_none_or(|until| now >= until);
        let grown = if may_leap && measured.bursts.is_some_and(|b| self.rate < LEAP_TO * b) {
            self.leapt = Some(now);
            self.rate * exp(LEAP * since)
        } else if self.link.is_some_and(|link| self.rate > 0.85 * link) {
            // One packet more in each round trip.
            let response = (measured.rtt + REACTION).as_secs_f64();
            self.rate + (PACKET_BITS / response).max(4000.0) * since
        } else {
            self.rate * exp(GROWTH * since)
        };
        // An encoder that sends less than it may proves nothing about the rest.
        let proven = HEADROOM * delivered + 10_000.0;
        self.set_rate(grown.min(proven).max(self.rate));
    }
}

/// eˣ for the little that a rate grows by in a step ([`MAX_STEP`]). Not `f64::powf`: that is libm's,
/// whose last bits are not the same on all systems, and nothing else here needs libm.
fn exp(x: f64) -> f64 {
    1.0 + x * (1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0)))
}

/// As much of what the bottleneck carried is what is sent from then on.
const DECREASE_TO: f64 = 0.9;
/// 8 % a second: the natural logarithm of 1.08.
const GROWTH: f64 = 0.076_961_041_136_128_4;
/// While bursts come through at a much higher rate than the estimate: of 1.6.
const LEAP: f64 = 0.470_003_629_245_735_6;
/// The part of the bursts' rate that is believed.
const LEAP_TO: f64 = 0.8;
/// Bursts that come through at more than the bottleneck's rate by this say nothing about it.
const LEAP_TRUTH: f64 = 0.85;
const LEAP_DOUBT: Duration = Duration::from_secs(2);
const LEAP_PAUSE: Duration = Duration::from_secs(30);
/// The estimate is at most that much above what arrives.
pub(super) const HEADROOM: f64 = 1.5;
const PACKET_BITS: f64 = 8.0 * 1200.0;
/// What the viewer's feedback and the encoder take to follow.
const REACTION: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_millis(1500);
const MAX_STEP: Duration = Duration::from_millis(300);
pub(super) const MIN_RATE: f64 = 50_000.0;
pub(super) const MAX_RATE: f64 = 100_000_000.0;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs a moment to count from")]
mod tests {
    use super::*;

    fn fine(delivered: f64) -> Measured {
        Measured {
            usage: Usage::Normal,
            excess: 0.0,
            normal_excess: 15.0,
            delivered: Some(delivered),
            bottleneck: None,
            bursts: None,
            rtt: Duration::from_millis(50),
        }
    }

    #[test]
    fn growth_is_what_it_says() {
        for step in 0..=30 {
            let since = f64::from(step) / 100.0;
            for (ln, factor) in [(GROWTH, 1.08_f64), (LEAP, 1.6)] {
                assert!((exp(ln * since) / factor.powf(since) - 1.0).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn growth_stops_at_half_again_of_what_is_delivered() {
        let (mut now, mut control) = (Instant::now(), RateControl::new(1e6));
        for _ in 0..600 {
            now += Duration::from_millis(100);
            control.update(now, &fine(1e6));
        }
        assert_eq!(control.rate(), 1.51e6);
        control.update(now, &fine(2e5));
        assert_eq!(control.rate(), 1.51e6, "and it does not fall when less is sent");
    }

    #[test]
    fn overuse_goes_to_what_the_bottleneck_carries_and_waits_for_the_queue() {
        let (mut now, mut control) = (Instant::now(), RateControl::new(4e6));
        let over =
            Measured { usage: Usage::Over, excess: 80.0, bottleneck: Some(1e6), ..fine(3e6) };
        assert_eq!(control.update(now, &over), Verdict::Fine);
        assert_eq!(control.rate(), 0.9e6);
        for excess in [75.0, 50.0, 30.0, 20.0] {
            now += Duration::from_millis(100);
            control.update(now, &Measured { excess, ..over });
            assert!(control.is_draining());
        }
        control.update(now, &fine(1e6));
        assert!(!control.is_draining());
        let before = control.rate();
        now += Duration::from_millis(100);
        control.update(now, &fine(1e6));
        assert!(control.rate() > before && control.rate() < before * 1.02, "near the link's rate");
    }

    #[test]
    fn a_delay_that_stays_is_not_our_queue_and_costs_one_decrease() {
        let (mut now, mut control) = (Instant::now(), RateControl::new(2e6));
        let route = Measured { usage: Usage::Over, excess: 90.0, ..fine(1.9e6) };
        let mut verdicts = Vec::new();
        for _ in 0..17 {
            verdicts.push(control.update(now, &route));
            now += Duration::from_millis(100);
        }
        assert!(verdicts.contains(&Verdict::NotOurQueue));
        assert!(control.rate() > 1.5e6, "{}", control.rate());
    }

    #[test]
    fn bursts_that_promise_too_much_are_not_believed_again() {
        let (mut now, mut control) = (Instant::now(), RateControl::new(1e6));
        let promising = Measured { bursts: Some(50e6), ..fine(3e6) };
        now += Duration::from_millis(100);
        control.update(now, &promising);
        now += Duration::from_millis(100);
        control.update(now, &promising);
        let leapt = control.rate();
        assert!(leapt > 1.04e6, "{leapt}");
        control.update(now, &Measured { usage: Usage::Over, excess: 60.0, ..promising });
        control.update(now, &promising);
        let before = control.rate();
        now += Duration::from_millis(100);
        control.update(now, &promising);
        assert!(control.rate() < before * 1.02);
    }
}
