//! How much one viewer's path takes, from what the viewer says about the packets it got.
//!
//! ```text
//! sealed ─→ SentPackets, ModelQueue ┐
//! transport-wide feedback ──────────┴→ DelayDetector ─→ RateControl ┐
//!                        └ lost, arrived ────────────→ LossBound ───┼→ min ─→ estimate
//! REMB ─────────────────────────────────────────────────────────────┘
//! receiver reports, where there is no transport-wide feedback ─→ LossBound
//! ```
//!
//! Follows draft-ietf-rmcat-gcc-02 with three changes, which docs/congestion.md explains: delays are
//! judged against what a link of the estimated rate would make of the same bursts; the rate falls to
//! what the bottleneck is seen to carry; and it grows fast while bursts come through fast. Nothing
//! is allocated after the start.

mod arrivals;
mod delay;
mod loss;
mod rate_control;
mod sent_packets;
mod trendline;

use self::delay::DelayDetector;
use self::loss::LossBound;
use self::rate_control::{HEADROOM, MAX_RATE, MIN_RATE, Measured, RateControl, Verdict};
use self::sent_packets::{ModelQueue, SentPackets};
use crate::wire::rtcp::TransportFeedback;
use std::time::{Duration, Instant};

/// See the module. Rates are in bits per second of IP packets.
pub struct Bandwidth {
    started: Instant,
    start_rate: f64,
    sent: SentPackets,
    model: ModelQueue,
    sending: SendRate,
    clock: ViewerClock,
    delay: DelayDetector,
    control: RateControl,
    loss: LossBound,
    remb: Option<f64>,
    told_by: ToldBy,
    /// When the first packet went out that no feedback has followed yet.
    unanswered: Option<Instant>,
    /// The rate was lowered since nothing was heard.
    silent: bool,
}

/// The best that the viewer has offered so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum ToldBy {
    Nothing,
    Reports,
    TransportFeedback,
}

impl Bandwidth {
    /// `start_rate` is what the encoder makes before anything is known.
    pub fn new(now: Instant, start_rate: u32) -> Bandwidth {
        let start_rate = f64::from(start_rate).clamp(MIN_RATE, MAX_RATE);
        Bandwidth {
            started: now,
            start_rate,
            sent: SentPackets::new(),
            model: ModelQueue::default(),
            sending: SendRate::default(),
            clock: ViewerClock::default(),
            delay: DelayDetector::new(),
            control: RateControl::new(start_rate),
            loss: LossBound::default(),
            remb: None,
            told_by: ToldBy::Nothing,
            unanswered: None,
            silent: false,
        }
    }

    /// Heap memory.
    pub fn held_bytes(&self) -> usize {
        self.sent.held_bytes() + self.delay.arrivals.held_bytes()
    }

    /// Starts from another rate, if nothing is known yet.
    pub fn start_from(&mut self, rate: u32) {
        if self.told_by == ToldBy::Nothing {
            self.start_rate = f64::from(rate).clamp(MIN_RATE, MAX_RATE);
            self.control.set_rate(self.start_rate);
        }
    }

    /// Notes a datagram under its transport-wide number, if it has one.
    pub fn on_sent(&mut self, now: Instant, sequence: Option<u16>, datagram_len: usize) {
        let bytes = datagram_len + IP_AND_UDP;
        self.sending.on_sent(now, bytes);
        let expected = self.model.on_sent(now, bytes, self.control.rate());
        if let Some(sequence) = sequence {
            let sent = now.saturating_duration_since(self.started);
            self.sent.on_sent(sequence, sent, bytes, expected);
        }
        self.on_silence(now);
    }

    /// Notes a datagram that takes of the same path, but that the viewer gives no feedback about.
    pub fn on_other_sent(&mut self, now: Instant, datagram_len: usize) {
        let bytes = datagram_len + IP_AND_UDP;
        self.sending.on_sent(now, bytes);
        self.model.on_sent(now, bytes, self.control.rate());
    }

    /// The packet goes out a second time as it is.
    pub fn on_sent_again(&mut self, sequence: u16) {
        self.sent.forget(sequence);
    }

    pub fn on_transport_feedback(&mut self, now: Instant, feedback: &TransportFeedback<'_>) {
        let since_start = now.saturating_duration_since(self.started);
        let mut arrival = self.clock.reference(feedback.reference_time);
        let (mut arrived, mut lost, mut newest) = (0_u32, 0_u32, None);
        for packet in feedback.arrivals().take(MAX_STATUSES) {
            let Some(delta) = packet.delta else {
                lost += u32::from(self.sent.on_lost(packet.sequence));
                continue;
            };
            arrival += i64::from(delta) * 250;
            let Some(sent) = self.sent.take(packet.sequence, since_start) else { continue };
            let at = Duration::from_micros(u64::try_from(arrival).unwrap_or(0));
            self.delay.on_packet(&sent, at);
            newest = newest.max(Some(sent.sent));
            arrived += 1;
            // It was late, not lost.
            lost = lost.saturating_sub(u32::from(sent.was_lost));
        }
        if arrived + lost == 0 {
            return;
        }
        if self.told_by < ToldBy::TransportFeedback {
            // Nothing that was guessed before counts.
            self.told_by = ToldBy::TransportFeedback;
            self.loss = LossBound::default();
        }
        let silent = self.unanswered.take().is_some_and(|since| now >= since + SILENCE)
            || std::mem::take(&mut self.silent);
        let rtt = newest.map_or(DEFAULT_RTT, |sent| since_start.saturating_sub(sent));
        let measured = Measured {
            usage: self.delay.judge(),
            excess: self.delay.excess(),
            normal_excess: self.delay.normal_excess(),
            delivered: self.delay.arrivals.delivered(),
            bottleneck: self.delay.arrivals.bottleneck(),
            bursts: self.delay.bursts.median(),
            rtt,
        };
        if self.control.update(now, &measured) == Verdict::NotOurQueue {
            self.delay.rebase();
        }
        if self.control.is_draining() || silent {
            // Packets that a full queue drops, or a dead link, are answered already.
            self.loss.restart();
        } else {
            self.loss.on_feedback(now, arrived, lost, self.control.rate());
        }
    }

    /// The viewer's own estimate (draft-alvestrand-rmcat-remb-03): never more than that.
    pub fn on_max_bitrate(&mut self, bits_per_second: u64) {
        self.remb = Some((bits_per_second as f64).clamp(MIN_RATE, MAX_RATE));
    }

    /// The loss of a receiver report, of 256. Counts only where there is no better feedback.
    pub fn on_report(&mut self, now: Instant, fraction_lost: u8) {
        if self.told_by == ToldBy::TransportFeedback {
            return;
        }
        self.told_by = ToldBy::Reports;
        self.unanswered = None;
        let fraction = f64::from(fraction_lost) / 256.0;
        if fraction < 0.02 {
            let proven = HEADROOM * self.sending.rate(now);
            let rate = self.control.rate();
            self.control.set_rate((rate * 1.08).min(proven).max(rate));
        }
        self.loss.on_fraction(fraction, self.control.rate());
    }

    /// What the path takes; `None` as long as the viewer has said nothing about it.
    pub fn estimate(&self) -> Option<u32> {
        let own = match self.told_by {
            ToldBy::Nothing => self.remb?,
            _ => self.control.rate().min(self.loss.get()),
        };
        let rate = own.min(self.remb.unwrap_or(f64::INFINITY));
        Some(rate.max(MIN_RATE) as u32)
    }

    /// What the path takes beside headers and resends, once that is known, and what bursts promise
    /// of it, where they are believed.
    pub fn capacity(&self, now: Instant) -> Option<(u32, Option<u32>)> {
        let share = |rate: f64| (PAYLOAD_SHARE * rate) as u32;
        let promised = self.control.promised(now, self.delay.bursts.median());
        self.estimate().map(|estimate| (share(f64::from(estimate)), promised.map(share)))
    }

    /// More is to be sent from now on, `rate` in all. What was sent before proves little about that,
    /// so bursts are believed at once up to there, not step by step.
    pub fn expect(&mut self, now: Instant, rate: u32) {
        if self.told_by == ToldBy::Nothing {
            return self.start_from(rate);
        }
        if let Some(promised) = self.control.promised(now, self.delay.bursts.median()) {
            self.control.leap(now, promised.min(f64::from(rate)));
        }
    }

    /// What the encoder should make: the estimate without headers and a reserve for resends, and
    /// less while a queue is to empty.
    pub fn target(&self) -> Option<u32> {
        let share = PAYLOAD_SHARE * self.drain().unwrap_or(1.0);
        self.estimate().map(|rate| (f64::from(rate) * share) as u32)
    }

    /// While a queue has to empty that was too much: which part of the estimate may be sent
    /// meanwhile.
    pub fn drain(&self) -> Option<f64> {
        let share = 1.0 - ((self.delay.queue() - 60.0) / 400.0).clamp(0.0, MAX_DRAIN);
        self.control.is_draining().then_some(share)
    }

    /// How long the last packets waited on their way.
    pub fn queue_delay(&self) -> Duration {
        Duration::from_secs_f64(self.delay.queue().clamp(0.0, 60_000.0) / 1000.0)
    }

    /// A path that says nothing any more may be gone, or its queue longer than we wait: half the
    /// rate after each second.
    fn on_silence(&mut self, now: Instant) {
        let since = *self.unanswered.get_or_insert(now);
        if self.told_by == ToldBy::TransportFeedback && now >= since + SILENCE {
            self.unanswered = Some(now);
            self.silent = true;
            self.control.set_rate(self.control.rate() / 2.0);
        }
    }
}

/// Unwraps the reference times of feedback: 24 bits of 64 ms.
#[derive(Debug, Default)]
struct ViewerClock {
    last: Option<(i32, i64)>,
}

impl ViewerClock {
    /// Microseconds on the viewer's clock, from a moment that is never before the first feedback.
    fn reference(&mut self, time: i32) -> i64 {
        let (last, units) = self.last.unwrap_or((time, CLOCK_START));
        // The difference with its sign, in 24 bits.
        let units = units + i64::from(time.wrapping_sub(last) << 8 >> 8);
        self.last = Some((time, units));
        units.max(0) * 64_000
    }
}

/// What is sent, averaged over a second or so.
#[derive(Debug, Default)]
struct SendRate {
    since: Option<Instant>,
    bits: f64,
    rate: Option<f64>,
}

impl SendRate {
    fn on_sent(&mut self, now: Instant, bytes: usize) {
        self.turn(now);
        self.bits += 8.0 * bytes as f64;
    }

    fn rate(&mut self, now: Instant) -> f64 {
        self.turn(now);
        self.rate.unwrap_or(0.0)
    }

    fn turn(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let age = now.saturating_duration_since(since);
        if age >= SEND_WINDOW {
            self.rate = Some(self.bits / age.as_secs_f64());
            (self.since, self.bits) = (Some(now), 0.0);
        }
    }
}

const IP_AND_UDP: usize = 28;
/// Headers of full packets take 6 %; the rest is for resends.
const PAYLOAD_SHARE: f64 = 0.9;
/// The largest part of the estimate that is left unused so that a queue empties.
const MAX_DRAIN: f64 = 0.6;
const DEFAULT_RTT: Duration = Duration::from_millis(100);
const SILENCE: Duration = Duration::from_secs(1);
const SEND_WINDOW: Duration = Duration::from_secs(1);
/// Feedback speaks of what went out since the last one; what claims more is not looked at further.
const MAX_STATUSES: usize = 4096;
/// So that feedback that came before the first one does not lie before the clock's start.
const CLOCK_START: i64 = 1 << 20;
