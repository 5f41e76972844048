//! The jitter buffer: turns a viewer's packets, which come unevenly, out of order, or not at all, into
//! sound that goes to the loudspeaker in order and in time.
//!
//! ```text
//! packet ─→ push ─→ slots by sequence number ─ when it is its time ─→ poll ─→ sound, or a loss
//! ```
//!
//! A packet's time is when it would come over the best way seen lately, and a delay. The delay is what
//! all but a few packets need: it grows at once by what a packet is too late, and shrinks slowly, or at
//! a pause at once. A loss is told at the time of the packet that is missing, if a later one is there; if
//! none is, the other side may just be silent. A pause in the timestamps alone is none either (DTX).
//!
//! Bounds: [`SLOTS`] packets, of which the oldest are dropped for newer ones; [`MAX_DELAY`], and what is
//! a tenth of a second behind its time even so is dropped. Both are told as lost.

mod arrivals;

use self::arrivals::Arrivals;
use super::reception::extended;
use crate::wire::audio::AudioCodec;
use std::time::{Duration, Instant};

/// What one of the other side's packets says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival<'a> {
    pub sequence: u16,
    pub timestamp: u32,
    pub payload: &'a [u8],
}

/// What is to be heard next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// So many packets are missing here; 0 for a packet.
    pub lost: u32,
    /// Since the first packet.
    pub timestamp: Duration,
    /// How much sound it is, or would have been.
    pub duration: Duration,
}

/// Counted since the first packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JitterStats {
    /// Handed on.
    pub played: u64,
    /// Told as lost, those that came too late among them.
    pub lost: u64,
    /// Came after their time.
    pub late: u64,
}

/// See the module.
#[derive(Debug)]
pub struct JitterBuffer {
    codec: AudioCodec,
    /// By sequence number.
    slots: Vec<Slot>,
    started: Instant,
    first_timestamp: u32,
    /// Of the next packet to be handed on.
    next: u64,
    highest: u64,
    /// Where the sound that was handed on ends: where the next packet belongs, in ticks since the first.
    end: i64,
    /// Ticks of the newest packet, and of its end.
    newest: (i64, i64),
    /// How much sound a packet is, in ticks.
    step: u32,
    arrivals: Arrivals,
    /// When the packet of tick 0 is to be heard, in microseconds since `started`.
    offset: i64,
    stats: JitterStats,
}

/// A packet that waits. Its memory is used again.
#[derive(Debug, Default)]
struct Slot {
    /// `None`: empty.
    sequence: Option<u64>,
    ticks: i64,
    /// When it came, in microseconds since the first one.
    came: i64,
    payload: Vec<u8>,
}

/// The first packet that waits, and when it is to be heard, in microseconds since the first one.
#[derive(Debug, Clone, Copy)]
struct First {
    sequence: u64,
    ticks: i64,
    due: i64,
}

/// What is known of packets that are missing.
enum Gap {
    Lost(Piece),
    NotYet,
    /// The timestamps leave no room for them.
    NoSound,
}

/// Packets that may wait: more than [`MAX_DELAY`] of 10 ms each.
pub const SLOTS: usize = 64;
/// The longest that sound may wait here.
pub const MAX_DELAY: Duration = Duration::from_millis(500);
/// Longest payload taken, in bytes: what fits into a datagram.
pub const MAX_PAYLOAD: usize = 1500;

impl JitterBuffer {
    /// With the first packet of a source; push it as well.
    pub fn new(now: Instant, codec: AudioCodec, first: &Arrival<'_>) -> JitterBuffer {
        // One cycle up, so that the packets before the first one have numbers too.
        let next = 0x1_0000 | u64::from(first.sequence);
        JitterBuffer {
            codec,
            slots: std::iter::repeat_with(Slot::default).take(SLOTS).collect(),
            started: now,
            first_timestamp: first.timestamp,
            next,
            highest: next - 1,
            end: 0,
            newest: (0, 0),
            step: codec.clock_rate() / 50,
            arrivals: Arrivals::new(),
            offset: 0,
            stats: JitterStats::default(),
        }
    }

    pub fn stats(&self) -> &JitterStats {
        &self.stats
    }

    /// How long a packet waits that came the fastest way.
    pub fn delay(&self) -> Duration {
        let delay = self.offset - self.arrivals.fastest();
        Duration::from_micros(u64::try_from(delay).unwrap_or(0))
    }

    /// Heap memory, by capacity.
    pub fn held_bytes(&self) -> usize {
        let payloads: usize = self.slots.iter().map(|slot| slot.payload.capacity()).sum();
        self.slots.capacity() * size_of::<Slot>() + payloads + self.arrivals.held_bytes()
    }

    /// Takes a packet.
    pub fn push(&mut self, now: Instant, packet: &Arrival<'_>) {
        if packet.payload.len() > MAX_PAYLOAD {
            return;
        }
        let sequence = extended(self.highest, packet.sequence);
        if sequence.abs_diff(self.highest) > MAX_JUMP {
            return self.begin_anew(now, packet);
        }
        let came = micros(now.saturating_duration_since(self.started));
        let mut ticks = self.ticks_of(packet.timestamp);
        if self.arrivals.is_strange(came - self.micros_of(ticks)) {
            if sequence <= self.highest {
                self.stats.late += 1;
                return;
            }
            if self.micros_of(ticks - self.newest.1).unsigned_abs() > arrivals::MAX_STEP {
                ticks = self.newest.1;
                self.count_from(packet.timestamp, ticks);
            }
        }
        let is_next = sequence == self.next && self.highest < sequence;
        let begins = self.arrivals.push(came - self.micros_of(ticks));
        // After a pause nobody hears that the time goes faster or slower.
        if begins || is_next && ticks > self.newest.1 {
            self.offset = self.arrivals.wanted();
        }
        let latest = self.arrivals.fastest() + MAX_DELAY.as_micros() as i64;
        self.offset = self.offset.min(latest);
        if sequence < self.next {
            self.stats.late += 1;
            return;
        }
        let late = came - (self.micros_of(ticks) + self.offset);
        self.offset = (self.offset + late.max(0)).min(latest);

        self.make_room(sequence);
        if sequence > self.highest {
            self.highest = sequence;
            let length = self.codec.ticks(packet.payload).unwrap_or(0);
            self.newest = (ticks, ticks + i64::from(length));
        }
        let slot = self.slot_mut(sequence);
        if slot.sequence == Some(sequence) {
            return;
        }
        slot.sequence = Some(sequence);
        (slot.ticks, slot.came) = (ticks, came);
        slot.payload.clear();
        slot.payload.extend_from_slice(packet.payload);
    }

    /// What is to be heard by now, one piece a call; a packet's bytes are written over `payload`.
    pub fn poll(&mut self, now: Instant, payload: &mut Vec<u8>) -> Option<Piece> {
        loop {
            let first = self.first()?;
            let elapsed = micros(now.saturating_duration_since(self.started));
            if elapsed - first.due > TOO_LATE {
                self.slot_mut(first.sequence).sequence = None;
                self.stats.late += 1;
                continue;
            }
            if first.sequence > self.next {
                match self.lost(&first, elapsed) {
                    Gap::Lost(piece) => return Some(piece),
                    Gap::NotYet => return None,
                    Gap::NoSound => continue,
                }
            }
            if elapsed < first.due {
                return None;
            }
            let slot = self.slot_mut(first.sequence);
            slot.sequence = None;
            payload.clear();
            payload.extend_from_slice(&slot.payload);
            self.next = first.sequence + 1;
            self.offset += (self.arrivals.wanted() - self.offset).clamp(-FASTER, SLOWER);
            // Nothing to hear, but its number was needed to know that.
            let Some(length) = self.codec.ticks(payload) else { continue };
            self.step = length;
            self.end = first.ticks + i64::from(length);
            self.stats.played += 1;
            return Some(Piece {
                lost: 0,
                timestamp: self.time_of(first.ticks),
                duration: self.codec.time_of(length.into()),
            });
        }
    }

    /// When [`Self::poll`] has something next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let first = self.first()?;
        let is_whole = first.sequence == self.next;
        let due = if is_whole { first.due } else { first.due.min(self.end_due()) };
        Some(self.started + Duration::from_micros(u64::try_from(due).unwrap_or(0)))
    }

    /// Tells one of the packets that are missing before `first`; or all of them at once, if they are
    /// many, or if the time of that one has come as well.
    fn lost(&mut self, first: &First, elapsed: i64) -> Gap {
        let missing = first.sequence - self.next;
        // They may have been before a pause, and then the pause is not theirs.
        let room = u64::try_from(first.ticks - self.end).unwrap_or(0);
        let step = u64::from(self.step).min(room / missing);
        if step == 0 {
            self.next = first.sequence;
            return Gap::NoSound;
        }
        let lost = match elapsed {
            _ if elapsed >= first.due => missing,
            _ if elapsed < self.end_due() => return Gap::NotYet,
            _ if missing > MOST_APART => missing,
            _ => 1,
        };
        let timestamp = self.time_of(self.end);
        let length = step * lost;
        self.end += length as i64;
        self.next += lost;
        self.stats.lost += lost;
        let duration = self.codec.time_of(length);
        let lost = u32::try_from(lost).unwrap_or(u32::MAX);
        Gap::Lost(Piece { lost, timestamp, duration })
    }

    fn first(&self) -> Option<First> {
        let held = self.slots.iter().filter_map(|slot| Some((slot.sequence?, slot)));
        let (sequence, slot) = held.min_by_key(|(sequence, _)| *sequence)?;
        // However its numbers and those behind it jump, it does not wait for longer.
        let latest = slot.came + MAX_DELAY.as_micros() as i64;
        let due = (self.micros_of(slot.ticks) + self.offset).min(latest);
        Some(First { sequence, ticks: slot.ticks, due })
    }

    /// When the sound that was handed on ends.
    fn end_due(&self) -> i64 {
        self.micros_of(self.end) + self.offset
    }

    /// Drops the oldest packets for one that needs their place. They count as lost when the next one is
    /// heard: the gap says so.
    fn make_room(&mut self, sequence: u64) {
        let least = sequence.saturating_sub(SLOTS as u64 - 1);
        if least <= self.next {
            return;
        }
        for slot in &mut self.slots {
            slot.sequence = slot.sequence.filter(|held| *held >= least);
        }
    }

    /// The other side's numbers have jumped: nothing that waits has anything to do with it.
    fn begin_anew(&mut self, now: Instant, packet: &Arrival<'_>) {
        for slot in &mut self.slots {
            slot.sequence = None;
        }
        let end = self.end.max(self.newest.1);
        self.count_from(packet.timestamp, end);
        self.end = end;
        self.next = 0x1_0000 | u64::from(packet.sequence);
        self.highest = self.next - 1;
        self.arrivals = Arrivals::new();
        self.push(now, packet);
    }

    /// The other side's clock was set: its timestamps go on from where the sound ended.
    fn count_from(&mut self, timestamp: u32, end: i64) {
        self.first_timestamp = timestamp.wrapping_sub(end as u32);
        self.newest = (end, end);
    }

    /// In ticks since the first packet; right over any number of wraps.
    fn ticks_of(&self, timestamp: u32) -> i64 {
        let ticks = timestamp.wrapping_sub(self.first_timestamp);
        self.newest.0 + i64::from(ticks.wrapping_sub(self.newest.0 as u32) as i32)
    }

    fn micros_of(&self, ticks: i64) -> i64 {
        ticks * 1000 / i64::from(self.codec.clock_rate() / 1000)
    }

    fn time_of(&self, ticks: i64) -> Duration {
        self.codec.time_of(u64::try_from(ticks).unwrap_or(0))
    }

    fn slot_mut(&mut self, sequence: u64) -> &mut Slot {
        &mut self.slots[place(sequence)]
    }
}

fn place(sequence: u64) -> usize {
    (sequence % SLOTS as u64) as usize
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// A sequence number that is further away is of a source that began anew.
const MAX_JUMP: u64 = 3000;
/// So many missing packets are told one by one. No decoder conceals more than that.
const MOST_APART: u64 = 8;
/// What is further behind its time is dropped, in microseconds.
const TOO_LATE: i64 = 100_000;
/// How far the time moves with each packet, in microseconds. With packets of 20 ms the loudspeaker gets
/// its sound a twentieth faster, or a fifth slower.
const FASTER: i64 = 1000;
const SLOWER: i64 = 4000;

#[cfg(test)]
mod tests;
