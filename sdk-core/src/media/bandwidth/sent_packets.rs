//! When each packet of a viewer's transport went out: what feedback about it is measured against.

use std::time::{Duration, Instant};

/// The last [`CAPACITY`] packets by their transport-wide number; of fixed size.
pub(super) struct SentPackets {
    records: Box<[Record; CAPACITY]>,
}

/// What was noted of a packet, taken out once it is known to have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SentPacket {
    /// Since the viewer started.
    pub(super) sent: Duration,
    pub(super) bytes: u32,
    /// What it would have waited behind the packets before it, and taken itself, if the link had
    /// just the estimated rate.
    pub(super) expected: Duration,
    /// It was reported as lost before.
    pub(super) was_lost: bool,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    /// Wraps every 71 minutes, which is far more than a record lives.
    sent_us: u32,
    sequence: u16,
    bytes: u16,
    /// In units of 100 µs.
    expected: u16,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Empty,
    OnTheWay,
    Lost,
}

impl SentPackets {
    pub(super) fn new() -> SentPackets {
        let empty = Record { sent_us: 0, sequence: 0, bytes: 0, expected: 0, state: State::Empty };
        SentPackets { records: Box::new([empty; CAPACITY]) }
    }

    pub(super) fn on_sent(
        &mut self,
        sequence: u16,
        sent: Duration,
        bytes: usize,
        expected: Duration,
    ) {
        self.records[place_of(sequence)] = Record {
            sent_us: sent.as_micros() as u32,
            sequence,
            bytes: u16::try_from(bytes).unwrap_or(u16::MAX),
            expected: u16::try_from(expected.as_micros() / 100).unwrap_or(u16::MAX),
            state: State::OnTheWay,
        };
    }

    /// The packet arrived. `now` is since the viewer started.
    pub(super) fn take(&mut self, sequence: u16, now: Duration) -> Option<SentPacket> {
        let record = self.find(sequence)?;
        let was_lost = record.state == State::Lost;
        record.state = State::Empty;
        let age = (now.as_micros() as u32).wrapping_sub(record.sent_us);
        Some(SentPacket {
            sent: now.checked_sub(Duration::from_micros(age.into()))?,
            bytes: record.bytes.into(),
            expected: Duration::from_micros(100 * u64::from(record.expected)),
            was_lost,
        })
    }

    /// The packet is missing. True if that is news.
    pub(super) fn on_lost(&mut self, sequence: u16) -> bool {
        self.find(sequence)
            .is_some_and(|record| std::mem::replace(&mut record.state, State::Lost) != State::Lost)
    }

    /// The packet goes out once more as it is: its arrival would say nothing about its way.
    pub(super) fn forget(&mut self, sequence: u16) {
        if let Some(record) = self.find(sequence) {
            record.state = State::Empty;
        }
    }

    fn find(&mut self, sequence: u16) -> Option<&mut Record> {
        let record = &mut self.records[place_of(sequence)];
        (record.state != State::Empty && record.sequence == sequence).then_some(record)
    }
}

/// The queue that a link of the estimated rate would have, fed by what was sent.
///
/// A burst that a link of that rate must hold back for a while is no sign of congestion; only what
/// a packet is late beyond that is. So the pacer may send a frame at once.
#[derive(Debug, Default)]
pub(super) struct ModelQueue {
    backlog_bits: f64,
    at: Option<Instant>,
}

impl ModelQueue {
    /// Adds a packet; gives its expected delay.
    pub(super) fn on_sent(&mut self, now: Instant, bytes: usize, rate: f64) -> Duration {
        if let Some(at) = self.at.replace(now) {
            let drained = now.saturating_duration_since(at).as_secs_f64() * rate;
            self.backlog_bits = (self.backlog_bits - drained).max(0.0);
        }
        self.backlog_bits += 8.0 * bytes as f64;
        Duration::from_secs_f64((self.backlog_bits / rate.max(1.0)).min(MAX_EXPECTED_SECONDS))
    }
}

fn place_of(sequence: u16) -> usize {
    usize::from(sequence) % CAPACITY
}

/// Half a second at 24 Mbit/s; 12 KiB for each viewer.
const CAPACITY: usize = 1024;
const MAX_EXPECTED_SECONDS: f64 = 5.0;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_packet_is_found_once_while_it_is_held() {
        let mut sent = SentPackets::new();
        let long_ago = Duration::from_secs(71 * 60);
        for sequence in 0..2000_u16 {
            sent.on_sent(sequence, long_ago + MS * u32::from(sequence), 1200, MS);
        }
        let now = long_ago + Duration::from_secs(3);
        assert_eq!(sent.take(2000 - CAPACITY as u16 - 1, now), None, "too old");
        let packet = sent.take(1500, now).unwrap();
        assert_eq!(packet.sent, long_ago + 1500 * MS);
        assert_eq!((packet.bytes, packet.expected, packet.was_lost), (1200, MS, false));
        assert_eq!(sent.take(1500, now), None, "once");
        assert!(sent.on_lost(1501) && !sent.on_lost(1501));
        assert!(sent.take(1501, now).unwrap().was_lost);
        sent.forget(1502);
        assert_eq!(sent.take(1502, now), None);
        assert_eq!(sent.take(40_000, now), None, "never sent");
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "virtual time needs a moment to count from")]
    fn the_model_holds_back_what_its_rate_cannot_take() {
        let now = Instant::now();
        let mut queue = ModelQueue::default();
        assert_eq!(queue.on_sent(now, 1250, 1e6), 10 * MS);
        assert_eq!(queue.on_sent(now, 1250, 1e6), 20 * MS);
        assert_eq!(queue.on_sent(now + 15 * MS, 1250, 1e6), 15 * MS);
        assert_eq!(queue.on_sent(now + 500 * MS, 1250, 1e6), 10 * MS);
    }
}
