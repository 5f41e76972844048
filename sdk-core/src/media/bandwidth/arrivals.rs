//! What arrived at the viewer, and when: how much the path delivers, and how much it can.

use std::time::Duration;

/// The last packets that arrived; of fixed size. Times are on the viewer's clock.
pub(super) struct Arrivals {
    ring: Box<[Arrived; CAPACITY]>,
    len: usize,
    next: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Arrived {
    pub(super) at: Duration,
    pub(super) bytes: u32,
    /// It waited longer than a link of the estimated rate would make it wait.
    pub(super) late: bool,
}

impl Arrivals {
    pub(super) fn new() -> Arrivals {
        let none = Arrived { at: Duration::ZERO, bytes: 0, late: false };
        Arrivals { ring: Box::new([none; CAPACITY]), len: 0, next: 0 }
    }

    pub(super) fn push(&mut self, arrived: Arrived) {
        self.ring[self.next] = arrived;
        self.next = (self.next + 1) % CAPACITY;
        self.len = (self.len + 1).min(CAPACITY);
    }

    /// Bits per second that arrived in the last half second.
    pub(super) fn delivered(&self) -> Option<f64> {
        let newest = self.newest().next()?.at;
        let (mut bits, mut span, mut packets) = (0.0, Duration::ZERO, 0);
        for arrived in self.newest() {
            span = newest.saturating_sub(arrived.at);
            if span >= WINDOW {
                span = WINDOW;
                break;
            }
            bits += bits_of(arrived);
            packets += 1;
        }
        // Too little says nothing: one frame that came at once would look like a fast link.
        (packets >= 8 && span >= MIN_WINDOW).then(|| bits / span.as_secs_f64())
    }

    /// Bits per second of the bottleneck, measured while a queue stood before it: then packets
    /// come out of it just as fast as it can.
    pub(super) fn bottleneck(&self) -> Option<f64> {
        let newest = self.newest().next()?.at;
        let (mut bits, mut first, mut first_bits, mut packets) = (0.0, newest, 0.0, 0);
        for arrived in self.newest().take_while(|a| newest.saturating_sub(a.at) <= BUSY_WINDOW) {
            if !arrived.late {
                break;
            }
            (first, first_bits) = (arrived.at, bits_of(arrived));
            bits += first_bits;
            packets += 1;
        }
        let span = newest.saturating_sub(first);
        // From the first one on; how long it took itself is not known.
        bits -= first_bits;
        (packets >= 4 && span >= MIN_BUSY).then(|| bits / span.as_secs_f64())
    }

    fn newest(&self) -> impl Iterator<Item = &Arrived> {
        (1..=self.len).map(|back| &self.ring[(self.next + CAPACITY - back) % CAPACITY])
    }
}

fn bits_of(arrived: &Arrived) -> f64 {
    8.0 * f64::from(arrived.bytes)
}

/// How fast the bottleneck lets bursts through: a frame goes out at one moment, and comes apart on
/// the way by just the time that the slowest link takes for each packet. The median over the last
/// bursts; each of them is at the mercy of the path's jitter.
#[derive(Debug, Default)]
pub(super) struct BurstRates {
    rates: heapless::Deque<f64, BURSTS>,
}

impl BurstRates {
    /// Notes a burst: its bytes without the first packet's, and how long they came behind it.
    pub(super) fn on_burst(&mut self, packets: u32, bytes: u32, spread: Duration) {
        if packets < MIN_BURST {
            return;
        }
        if self.rates.is_full() {
            self.rates.pop_front();
        }
        let spread = spread.max(Duration::from_millis(1));
        let _ = self.rates.push_back(8.0 * f64::from(bytes) / spread.as_secs_f64());
    }

    pub(super) fn median(&self) -> Option<f64> {
        let mut sorted: heapless::Vec<f64, BURSTS> = self.rates.iter().copied().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        (sorted.len() > BURSTS / 2).then(|| sorted[sorted.len() / 2])
    }
}

const CAPACITY: usize = 256;
const WINDOW: Duration = Duration::from_millis(500);
const MIN_WINDOW: Duration = Duration::from_millis(200);
const BUSY_WINDOW: Duration = Duration::from_millis(200);
const MIN_BUSY: Duration = Duration::from_millis(10);
const BURSTS: usize = 9;
const MIN_BURST: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_is_delivered_and_what_could_be() {
        let mut arrivals = Arrivals::new();
        // Ten frames of 5000 bytes, 33 ms apart: 1.2 Mbit/s, each within 10 ms.
        for frame in 0..30 {
            for packet in 0..4 {
                let at = frame * 33 * MS + packet * 10 * MS / 4;
                arrivals.push(Arrived { at, bytes: 1250, late: false });
            }
        }
        let delivered = arrivals.delivered().unwrap();
        assert!((1.1e6..1.35e6).contains(&delivered), "{delivered}");
        assert_eq!(arrivals.bottleneck(), None, "nothing waited");
        let start = 30 * 33 * MS;
        for packet in 0..40 {
            arrivals.push(Arrived { at: start + packet * 10 * MS, bytes: 1250, late: packet > 0 });
        }
        let bottleneck = arrivals.bottleneck().unwrap();
        assert!((0.99e6..1.06e6).contains(&bottleneck), "{bottleneck}");
    }

    #[test]
    fn bursts_tell_the_rate_once_there_are_enough() {
        let mut bursts = BurstRates::default();
        for _ in 0..5 {
            bursts.on_burst(4, 3750, 30 * MS);
            bursts.on_burst(2, 1250, MS);
            assert!(bursts.median().is_none_or(|rate| rate == 1e6));
        }
        assert_eq!(bursts.median(), Some(1e6));
        (0..5).for_each(|_| bursts.on_burst(4, 3750, 10 * MS));
        assert_eq!(bursts.median(), Some(3e6));
    }
}
