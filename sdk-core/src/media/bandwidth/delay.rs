//! The delay of each packet, and what it says: how long a queue the path holds for this viewer, and
//! whether it grows.

use super::arrivals::{Arrivals, Arrived, BurstRates};
use super::sent_packets::SentPacket;
use super::trendline::{Trendline, Usage};
use std::time::Duration;

/// Takes packets in the order in which they were sent. Times of arrival are on the viewer's clock,
/// which has nothing to do with ours: only differences of delays mean something.
pub(super) struct DelayDetector {
    base: BaseDelay,
    line: Trendline,
    group: Option<Group>,
    pub(super) arrivals: Arrivals,
    pub(super) bursts: BurstRates,
    /// Of the last packets, in milliseconds.
    last_delays: [f64; SUDDEN_PACKETS],
    last_excesses: [f64; SUDDEN_PACKETS],
    /// Of the groups, while all is normal.
    mean_excess: f64,
    deviation: f64,
    trend: Usage,
}

/// Packets sent as one burst.
struct Group {
    first_sent: Duration,
    last_sent: Duration,
    first_arrival: Duration,
    last_arrival: Duration,
    packets: u32,
    bytes_after_first: u32,
    excess: f64,
}

impl DelayDetector {
    pub(super) fn new() -> DelayDetector {
        DelayDetector {
            base: BaseDelay::default(),
            line: Trendline::new(),
            group: None,
            arrivals: Arrivals::new(),
            bursts: BurstRates::default(),
            last_delays: [0.0; SUDDEN_PACKETS],
            last_excesses: [0.0; SUDDEN_PACKETS],
            mean_excess: 0.0,
            deviation: 0.0,
            trend: Usage::Normal,
        }
    }

    pub(super) fn on_packet(&mut self, packet: &SentPacket, arrival: Duration) {
        let delay = millis(arrival) - millis(packet.sent);
        let base = self.base.on_delay(arrival, delay);
        let excess = (delay - base - millis(packet.expected)).max(0.0);
        self.last_delays.rotate_left(1);
        self.last_excesses.rotate_left(1);
        self.last_delays[SUDDEN_PACKETS - 1] = delay;
        self.last_excesses[SUDDEN_PACKETS - 1] = excess;
        let late = excess > LATE;
        self.arrivals.push(Arrived { at: arrival, bytes: packet.bytes, late });
        match &mut self.group {
            Some(group) if packet.sent < group.first_sent + BURST => {
                group.last_sent = packet.sent;
                group.last_arrival = group.last_arrival.max(arrival);
                group.packets += 1;
                group.bytes_after_first += packet.bytes;
                group.excess = excess;
            }
            _ => {
                self.close_group();
                self.group = Some(Group {
                    first_sent: packet.sent,
                    last_sent: packet.sent,
                    first_arrival: arrival,
                    last_arrival: arrival,
                    packets: 1,
                    bytes_after_first: 0,
                    excess,
                });
            }
        }
    }

    fn close_group(&mut self) {
        let Some(group) = self.group.take() else { return };
        let usage = self.line.on_group(millis(group.last_arrival), group.excess);
        // The worst since the last judgement.
        if self.trend != Usage::Over {
            self.trend = usage;
        }
        if usage == Usage::Normal && group.excess < SUDDEN {
            self.mean_excess += (group.excess - self.mean_excess) / 32.0;
            let deviation = (group.excess - self.mean_excess).abs();
            self.deviation += (deviation - self.deviation) / 32.0;
        }
        if group.last_sent == group.first_sent {
            let spread = group.last_arrival.saturating_sub(group.first_arrival);
            self.bursts.on_burst(group.packets, group.bytes_after_first, spread);
        }
    }

    /// What all packets since the last call say together.
    pub(super) fn judge(&mut self) -> Usage {
        let trend = std::mem::replace(&mut self.trend, Usage::Normal);
        let excess = self.excess();
        let sudden = SUDDEN.max(self.mean_excess + 5.0 * self.deviation);
        match trend {
            _ if excess > sudden => Usage::Over,
            Usage::Over if excess < LATE => Usage::Normal,
            usage => usage,
        }
    }

    /// How long the last packets waited beyond what is normal, in milliseconds.
    pub(super) fn excess(&self) -> f64 {
        self.last_excesses.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The same that is no more than this path's jitter.
    pub(super) fn normal_excess(&self) -> f64 {
        QUIET + self.mean_excess + 2.0 * self.deviation
    }

    /// How long a queue the last packets met, in milliseconds, their own burst in it.
    pub(super) fn queue(&self) -> f64 {
        let least = self.last_delays.iter().copied().fold(f64::INFINITY, f64::min);
        (least - self.base.get().unwrap_or(least)).max(0.0)
    }

    /// The delay that is there now is not ours and stays: measure against it from here on.
    pub(super) fn rebase(&mut self) {
        self.base = BaseDelay::default();
        self.line.restart();
        self.group = None;
        self.last_excesses = [0.0; SUDDEN_PACKETS];
    }
}

/// The delay without a queue: the least one in the last 10 to 20 seconds, so that clocks may drift
/// and routes change.
#[derive(Default)]
struct BaseDelay {
    current: Option<f64>,
    before: Option<f64>,
    since: Duration,
}

impl BaseDelay {
    fn on_delay(&mut self, arrival: Duration, delay: f64) -> f64 {
        if arrival.saturating_sub(self.since) > BASE_WINDOW {
            self.since = arrival;
            self.before = self.current.take();
        }
        self.current = Some(self.current.map_or(delay, |least| least.min(delay)));
        self.get().unwrap_or(delay)
    }

    fn get(&self) -> Option<f64> {
        match (self.current, self.before) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// What goes out within this is one group (draft-ietf-rmcat-gcc-02 5.2).
const BURST: Duration = Duration::from_millis(5);
const BASE_WINDOW: Duration = Duration::from_secs(10);
/// Milliseconds: that many packets one behind the other so late are a queue, trend or not.
const SUDDEN: f64 = 50.0;
const SUDDEN_PACKETS: usize = 3;
/// Milliseconds: a packet that late has met a queue.
const LATE: f64 = 8.0;
/// Milliseconds: what is no queue on a path without jitter.
const QUIET: f64 = 15.0;
