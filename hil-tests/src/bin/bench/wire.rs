//! From the push of a frame to its last packet in the kernel's hands, seen from outside: the send
//! functions of this process note when which RTP timestamp went out, and the camera's timestamps
//! are those of its frames, but for an offset. For one viewer only.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the send functions saw last: timestamp and time, one entry for each call. Written by the
/// camera's thread, read by the one that pushes, long before it is written over.
static LOG: [Entry; ENTRIES] =
    [const { Entry { timestamp: AtomicU64::new(0), at: AtomicU64::new(0) } }; ENTRIES];
static WRITTEN: AtomicU64 = AtomicU64::new(0);
/// Some minutes of one viewer's.
const ENTRIES: usize = 1 << 14;

struct Entry {
    timestamp: AtomicU64,
    at: AtomicU64,
}

/// Nanoseconds of the system's monotonic clock.
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Notes a send whose first datagram begins with these bytes, if it is RTP.
pub(crate) fn on_sent(bytes: &[u8]) {
    // RFC 7983 7 and RFC 5761 4: RTP, and not RTCP.
    if let [128..=191, kind, _, _, a, b, c, d, ..] = *bytes
        && !(64..=95).contains(&(kind & 0x7f))
    {
        let at = WRITTEN.load(Ordering::Relaxed);
        let entry = &LOG[at as usize % ENTRIES];
        entry.timestamp.store(u64::from(u32::from_be_bytes([a, b, c, d])), Ordering::Relaxed);
        entry.at.store(now(), Ordering::Relaxed);
        WRITTEN.store(at + 1, Ordering::Release);
    }
}

/// Matches what was sent to what was pushed.
pub(crate) struct Wire {
    /// When which frame was pushed, by its number, of the last [`Wire::KEPT`].
    pushed: VecDeque<(u64, u64)>,
    /// First and last send of each timestamp, and how many there were.
    sent: VecDeque<Sent>,
    read: u64,
    /// The timestamp of frame 0, and how many sends have agreed on it lately.
    zero: Option<u32>,
    agreed: u32,
}

struct Sent {
    timestamp: u32,
    last: u64,
    calls: u32,
}

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OnWire {
    pub(crate) nanoseconds: u64,
    pub(crate) calls: u32,
}

impl Wire {
    const KEPT: usize = 256;
    const TICKS: u32 = 3000;

    pub(crate) fn new() -> Wire {
        Wire {
            pushed: VecDeque::with_capacity(Wire::KEPT),
            sent: VecDeque::with_capacity(Wire::KEPT),
            read: 0,
            zero: None,
            agreed: 0,
        }
    }

    /// Frame `number` is about to be pushed.
    pub(crate) fn on_push(&mut self, number: u64) {
        if self.pushed.len() == Wire::KEPT {
            self.pushed.pop_front();
        }
        self.pushed.push_back((number, now()));
    }

    /// Looks at what has been sent since the last time.
    pub(crate) fn read_log(&mut self) {
        let written = WRITTEN.load(Ordering::Acquire);
        for at in self.read.max(written.saturating_sub(ENTRIES as u64))..written {
            let entry = &LOG[at as usize % ENTRIES];
            let timestamp = entry.timestamp.load(Ordering::Relaxed) as u32;
            self.on_sent(timestamp, entry.at.load(Ordering::Relaxed));
        }
        self.read = written;
    }

    fn on_sent(&mut self, timestamp: u32, at: u64) {
        if let Some(sent) = self.sent.iter_mut().rev().find(|s| s.timestamp == timestamp) {
            sent.last = at;
            sent.calls += 1;
            return;
        }
        if self.sent.len() == Wire::KEPT {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent { timestamp, last: at, calls: 1 });
        // Nearly always it is the last frame that was pushed before; the majority is right.
        let Some((number, _)) = self.pushed.iter().rev().find(|(_, pushed)| *pushed <= at) else {
            return;
        };
        let zero = timestamp.wrapping_sub(Wire::TICKS.wrapping_mul(*number as u32));
        match self.zero {
            Some(known) if near(known, zero) => self.agreed = (self.agreed + 1).min(30),
            Some(_) if self.agreed > 0 => self.agreed -= 1,
            _ => (self.zero, self.agreed) = (Some(zero), 1),
        }
    }

    /// How long frame `number` took, if it was sent and is still known.
    pub(crate) fn of(&self, number: u64) -> Option<OnWire> {
        let timestamp = self.zero?.wrapping_add(Wire::TICKS.wrapping_mul(number as u32));
        let sent = self.sent.iter().find(|s| near(s.timestamp, timestamp))?;
        let (_, pushed) = self.pushed.iter().find(|(n, _)| *n == number)?;
        Some(OnWire { nanoseconds: sent.last.checked_sub(*pushed)?, calls: sent.calls })
    }
}

/// Timestamps of one frame differ by rounding alone.
fn near(a: u32, b: u32) -> bool {
    let distance = a.wrapping_sub(b);
    distance.min(distance.wrapping_neg()) < Wire::TICKS / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_ends_with_its_last_packet() {
        let mut wire = Wire::new();
        let mut at = 0;
        for number in 100..130u64 {
            wire.on_push(number);
            at = wire.pushed.back().unwrap().1;
            // The timestamps may be off by one or two, and begin anywhere.
            let timestamp = 0xffff_0000u32.wrapping_add(3000 * number as u32) - (number % 3) as u32;
            wire.on_sent(timestamp, at + 1000);
            if number == 120 {
                wire.on_sent(timestamp, at + 9000);
            }
        }
        assert_eq!(wire.of(129), Some(OnWire { nanoseconds: 1000, calls: 1 }), "{at}");
        assert_eq!(wire.of(120).unwrap().calls, 2);
        assert!(wire.of(120).unwrap().nanoseconds >= 9000);
        assert_eq!(wire.of(130), None);
    }

    #[test]
    fn only_rtp_is_noted() {
        let before = WRITTEN.load(Ordering::Relaxed);
        on_sent(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
        on_sent(&[0x80, 200, 0, 6, 0, 0, 0, 1]);
        on_sent(&[0x80]);
        assert_eq!(WRITTEN.load(Ordering::Relaxed), before);
        on_sent(&[0x90, 102, 0, 6, 0, 0, 0, 7]);
        assert_eq!(LOG[before as usize % ENTRIES].timestamp.load(Ordering::Relaxed), 7);
    }
}
