//! The last packets of a stream, once for all viewers: what is sent first time and again.
//!
//! Two rings: the payloads' bytes, and where each payload lies. The oldest packets make room for new
//! ones.

/// See the module.
pub struct History {
    bytes: Box<[u8]>,
    slots: Box<[Slot]>,
    /// The oldest packet that is still held.
    first: u64,
    /// The index that the next packet will get.
    next: u64,
    /// Where the next payload may start, counted on for ever; modulo the ring's size it is a place.
    write_at: u64,
}

/// One packet's payload, as all viewers get it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HistoryPacket<'a> {
    pub payload: &'a [u8],
    /// It is the last one of its train.
    pub marker: bool,
}

#[derive(Clone, Copy)]
struct Slot {
    start: u64,
    len: u32,
    marker: bool,
}

impl History {
    /// Allocates all at once; the system gives the pages as they are written first.
    pub fn new(max_bytes: usize, max_packets: usize) -> History {
        let empty = Slot { start: 0, len: 0, marker: false };
        History {
            bytes: vec![0; max_bytes.max(1)].into(),
            slots: vec![empty; max_packets.max(1)].into(),
            first: 0,
            next: 0,
            write_at: 0,
        }
    }

    /// Gives the rings another size, and keeps what fits, the newest.
    pub fn resize(&mut self, max_bytes: usize, max_packets: usize) {
        let mut resized = History::new(max_bytes, max_packets);
        resized.first = self.first;
        resized.next = self.first;
        for index in self.first..self.next {
            let packet = self.packet(index).filter(|packet| packet.payload.len() <= max_bytes);
            let HistoryPacket { payload, marker } = packet.unwrap_or_default();
            resized.append(payload.len(), marker, |bytes| bytes.copy_from_slice(payload));
        }
        *self = resized;
    }

    /// Drops all packets.
    pub fn clear(&mut self) {
        self.first = self.next;
    }

    /// Heap memory.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.slots)
    }

    /// Index of the oldest packet held; equals [`Self::next_index`] when there is none.
    pub fn first_index(&self) -> u64 {
        self.first
    }

    /// Index that the next packet gets.
    pub fn next_index(&self) -> u64 {
        self.next
    }

    /// Whether `packets` payloads of at most `largest` and together `total` bytes fit at once, all
    /// others dropped. A payload never wraps, so less than one may be wasted at the ring's end.
    pub fn can_hold(&self, packets: usize, total: usize, largest: usize) -> bool {
        packets <= self.slots.len() && total.saturating_add(largest) <= self.bytes.len()
    }

    pub fn packet(&self, index: u64) -> Option<HistoryPacket<'_>> {
        if !(self.first..self.next).contains(&index) {
            return None;
        }
        let slot = self.slots[self.slot_of(index)];
        let start = self.place_of(slot.start);
        let payload = self.bytes.get(start..start + slot.len as usize)?;
        Some(HistoryPacket { payload, marker: slot.marker })
    }

    /// Makes room for a payload and lets `fill` write it. Drops the oldest packets as needed.
    ///
    /// Panics if `len` is more than the ring has, which [`Self::can_hold`] tells before.
    pub fn append(&mut self, len: usize, marker: bool, fill: impl FnOnce(&mut [u8])) {
        let size = self.bytes.len();
        let mut start = self.write_at;
        let place = self.place_of(start);
        if place + len > size {
            start += (size - place) as u64;
        }
        let end = start + len as u64;
        let full = |history: &History| {
            history.next - history.first == history.slots.len() as u64
                || end - history.slots[history.slot_of(history.first)].start > size as u64
        };
        while self.first < self.next && full(self) {
            self.first += 1;
        }
        let slot = self.slot_of(self.next);
        self.slots[slot] = Slot { start, len: len as u32, marker };
        let place = self.place_of(start);
        fill(&mut self.bytes[place..place + len]);
        self.write_at = end;
        self.next += 1;
    }

    fn slot_of(&self, index: u64) -> usize {
        (index % self.slots.len() as u64) as usize
    }

    fn place_of(&self, position: u64) -> usize {
        (position % self.bytes.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_what_was_written_and_the_newest() {
        let mut state = 7_u32;
        for (max_bytes, max_packets) in [(1000, 16), (1000, 1000), (64, 3), (997, 50)] {
            let mut history = History::new(max_bytes, max_packets);
            let mut lengths = Vec::new();
            for index in 0..5000_u64 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let len = (state >> 16) as usize % 40 + 1;
                lengths.push(len);
                history.append(len, index % 3 == 0, |bytes| bytes.fill(index as u8));
                assert_eq!(history.next_index(), index + 1);
                assert!(index + 1 - history.first_index() <= max_packets as u64);
                let mut held = 0;
                for index in history.first_index()..=index {
                    let packet = history.packet(index).unwrap();
                    assert_eq!(packet.payload, vec![index as u8; lengths[index as usize]]);
                    assert_eq!(packet.marker, index % 3 == 0);
                    held += packet.payload.len();
                }
                assert!(held <= max_bytes);
                assert!(history.packet(index + 1).is_none());
                if let Some(before) = history.first_index().checked_sub(1) {
                    assert!(history.packet(before).is_none());
                }
            }
        }
    }

    #[test]
    fn another_size_keeps_the_newest_that_fit() {
        let fill = |history: &mut History, indices: std::ops::Range<u64>| {
            for index in indices {
                history.append(10 + index as usize % 7, index % 3 == 0, |b| b.fill(index as u8));
            }
        };
        let check = |history: &History, least: u64, next: u64| {
            assert_eq!(history.next_index(), next);
            assert!(next - history.first_index() >= least, "{}", history.first_index());
            for index in history.first_index()..next {
                let payload = &vec![index as u8; 10 + index as usize % 7][..];
                let packet = HistoryPacket { payload, marker: index % 3 == 0 };
                assert_eq!(history.packet(index), Some(packet));
            }
        };
        let mut history = History::new(300, 100);
        fill(&mut history, 0..57);
        let held = 57 - history.first_index();
        history.resize(1000, 100);
        check(&history, held, 57);
        fill(&mut history, 57..200);
        check(&history, 60, 200);
        history.resize(200, 8);
        check(&history, 8, 200);
        fill(&mut history, 200..230);
        check(&history, 8, 230);
        history.clear();
        assert_eq!((history.first_index(), history.next_index()), (230, 230));
        history.resize(1000, 100);
        fill(&mut history, 230..250);
        check(&history, 20, 250);
    }

    #[test]
    fn whatever_it_says_it_can_hold_stays_whole() {
        for lead in 0..200 {
            let mut history = History::new(200, 16);
            history.append(lead % 200 + 1, false, |_| ());
            let first = history.next_index();
            assert!(history.can_hold(16, 160, 40) && !history.can_hold(16, 161, 40));
            assert!(!history.can_hold(17, 17, 1));
            for _ in 0..4 {
                history.append(40, false, |bytes| bytes.fill(1));
            }
            assert!(history.first_index() <= first, "lead {lead}");
        }
    }
}
