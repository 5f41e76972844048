//! A link with a rate, and what a viewer behind it reports: for tests of congestion control.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::time::Duration;

/// One direction of a path: a queue that drains at a rate, a delay, and what radio adds. Time
/// counts from the start of the test.
pub(crate) struct Link {
    /// Bits per second.
    pub(crate) rate: f64,
    pub(crate) delay: Duration,
    /// Longest wait; what would wait longer is dropped.
    pub(crate) buffer: Duration,
    /// Each packet is late by up to that much more, without overtaking.
    pub(crate) jitter: Duration,
    /// Part of the packets that are lost on the way.
    pub(crate) loss: f64,
    /// Bytes that pass at once after a pause, as a shaper lets them.
    pub(crate) allowance: f64,
    pub(crate) tokens: f64,
    pub(crate) backlog_bits: f64,
    pub(crate) at: Duration,
    pub(crate) last_arrival: Duration,
    pub(crate) random: u64,
    pub(crate) dropped: u32,
}

impl Link {
    pub(crate) fn new(rate: f64) -> Link {
        Link {
            rate,
            delay: Duration::from_millis(20),
            buffer: Duration::from_millis(400),
            jitter: Duration::ZERO,
            loss: 0.0,
            allowance: 0.0,
            tokens: 0.0,
            backlog_bits: 0.0,
            at: Duration::ZERO,
            last_arrival: Duration::ZERO,
            random: 0x9e37_79b9_7f4a_7c15,
            dropped: 0,
        }
    }

    /// How long a packet would wait that came now.
    pub(crate) fn queue(&mut self, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.at).as_secs_f64() * self.rate;
        self.at = self.at.max(now);
        let drained = passed.min(self.backlog_bits);
        self.backlog_bits -= drained;
        self.tokens = (self.tokens + (passed - drained)).min(8.0 * self.allowance);
        Duration::from_secs_f64(self.backlog_bits / self.rate)
    }

    /// Changes the rate. What is queued keeps the time at which it was said to arrive.
    pub(crate) fn set_rate(&mut self, now: Duration, rate: f64) {
        self.queue(now);
        self.backlog_bits *= rate / self.rate;
        self.rate = rate;
    }

    /// When a datagram arrives that is sent now, if it does.
    pub(crate) fn send(&mut self, now: Duration, datagram_len: usize) -> Option<Duration> {
        let queue = self.queue(now);
        if queue > self.buffer {
            self.dropped += 1;
            return None;
        }
        let bits = 8.0 * (datagram_len + 28) as f64;
        let free = bits.min(self.tokens);
        self.tokens -= free;
        self.backlog_bits += bits - free;
        let own = Duration::from_secs_f64(self.backlog_bits / self.rate);
        if self.random() < self.loss {
            return None;
        }
        let jitter = self.jitter.mul_f64(self.random());
        self.last_arrival = self.last_arrival.max(now + own + self.delay + jitter);
        Some(self.last_arrival)
    }

    fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % 1_000_000) as f64 / 1e6
    }
}

/// Writes transport-wide feedback as a receiver does
/// (draft-holmer-rmcat-transport-wide-cc-extensions-01 3.1).
#[derive(Default)]
pub(crate) struct FeedbackWriter {
    /// Unwrapped numbers, and when they came.
    arrived: BTreeMap<u64, Duration>,
    newest: Option<u64>,
    /// The first number that was not spoken of yet.
    next: Option<u64>,
    count: u8,
}

impl FeedbackWriter {
    pub(crate) fn on_packet(&mut self, sequence: u16, at: Duration) {
        let newest = *self.newest.get_or_insert(0x1_0000 + u64::from(sequence));
        let step = i64::from(sequence.wrapping_sub(newest as u16) as i16);
        let number = newest.saturating_add_signed(step);
        self.newest = Some(newest.max(number));
        self.arrived.insert(number, at);
    }

    /// One RTCP packet about all that came since the last one.
    pub(crate) fn write(&mut self) -> Option<Vec<u8>> {
        let (&first, _) = self.arrived.first_key_value()?;
        let (&last, _) = self.arrived.last_key_value()?;
        let base = self.next.map_or(first, |next| next.min(first));
        let units = |at: Duration| (at.as_micros() / 250) as i64;
        let reference = units(self.arrived[&first]) / 256;
        let (mut statuses, mut deltas) = (Vec::new(), Vec::new());
        let mut before = reference * 256;
        for number in base..=last {
            let Some(at) = self.arrived.get(&number) else {
                statuses.push(0);
                continue;
            };
            let delta = units(*at) - before;
            before += delta;
            if let Ok(small) = u8::try_from(delta) {
                statuses.push(1);
                deltas.push(small);
            } else {
                statuses.push(2);
                deltas.extend(i16::try_from(delta).unwrap().to_be_bytes());
            }
        }
        let mut packet = vec![0x8f, 205, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0];
        packet.extend((base as u16).to_be_bytes());
        packet.extend((statuses.len() as u16).to_be_bytes());
        packet.extend(&(reference as u32).to_be_bytes()[1..]);
        packet.push(self.count);
        for seven in statuses.chunks(7) {
            let bits = (0..7).fold(0, |bits, i| bits << 2 | seven.get(i).copied().unwrap_or(0));
            packet.extend((0xc000_u16 | bits).to_be_bytes());
        }
        packet.extend(deltas);
        packet.resize(packet.len().next_multiple_of(4), 0);
        let words = packet.len() as u16 / 4 - 1;
        packet[2..4].copy_from_slice(&words.to_be_bytes());
        self.count = self.count.wrapping_add(1);
        self.next = Some(last + 1);
        self.arrived.clear();
        Some(packet)
    }
}
