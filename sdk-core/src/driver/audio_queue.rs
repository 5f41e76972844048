//! The microphone's packets on their way to the agent's thread: a bounded queue of its own, so that
//! sound never waits behind pictures, nor is dropped because of them.

use super::lock;
use crate::event::AudioId;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Packets in the order in which they were pushed.
///
/// Bound: [`AudioQueue::CAPACITY`] packets. One that finds it full is refused.
pub(super) struct AudioQueue {
    /// Held while one packet is copied, never while anything is done with it.
    ring: Mutex<Ring>,
    refused: AtomicU64,
    wake: tokio::sync::Notify,
}

/// Places that are used again with their memory, so that in steady state nothing is allocated.
#[derive(Default)]
struct Ring {
    places: Vec<Packet>,
    first: usize,
    len: usize,
}

/// One packet.
pub(super) struct Packet {
    pub(super) id: AudioId,
    pub(super) data: Vec<u8>,
    pub(super) timestamp: Duration,
}

impl AudioQueue {
    /// More than half a second of packets of 20 ms.
    pub(super) const CAPACITY: usize = 32;

    pub(super) fn new() -> AudioQueue {
        AudioQueue {
            ring: Mutex::default(),
            refused: AtomicU64::new(0),
            wake: tokio::sync::Notify::new(),
        }
    }

    /// Copies the packet. False if the queue is full.
    pub(super) fn push(&self, id: AudioId, data: &[u8], timestamp: Duration) -> bool {
        let taken = lock(&self.ring).push(id, data, timestamp);
        match taken {
            true => self.wake.notify_one(),
            false => {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        taken
    }

    /// Exchanges `packet` for the first one that waits. False if there is none.
    pub(super) fn pop(&self, packet: &mut Packet) -> bool {
        lock(&self.ring).pop(packet)
    }

    /// How many packets found it full.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Resolves when something was pushed since the last time.
    pub(super) async fn wait(&self) {
        self.wake.notified().await;
    }
}

impl Ring {
    fn push(&mut self, id: AudioId, data: &[u8], timestamp: Duration) -> bool {
        if self.len == AudioQueue::CAPACITY {
            return false;
        }
        if self.places.is_empty() {
            self.places.resize_with(AudioQueue::CAPACITY, Packet::empty);
        }
        let at = (self.first + self.len) % AudioQueue::CAPACITY;
        let place = &mut self.places[at];
        place.data.clear();
        place.data.extend_from_slice(data);
        (place.id, place.timestamp) = (id, timestamp);
        self.len += 1;
        true
    }

    fn pop(&mut self, packet: &mut Packet) -> bool {
        if self.len == 0 {
            return false;
        }
        std::mem::swap(packet, &mut self.places[self.first]);
        self.first = (self.first + 1) % AudioQueue::CAPACITY;
        self.len -= 1;
        true
    }
}

impl Packet {
    /// For [`AudioQueue::pop`].
    pub(super) fn empty() -> Packet {
        Packet { id: AudioId(0), data: Vec::new(), timestamp: Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_as_they_went_in_and_their_memory_is_used_again() {
        let queue = AudioQueue::new();
        let mut packet = Packet::empty();
        assert!(!queue.pop(&mut packet));
        let mut places = std::collections::BTreeSet::new();
        for n in 0..200_u64 {
            let data = [n as u8; 160];
            assert!(queue.push(AudioId(7), &data, Duration::from_millis(20 * n)));
            assert!(queue.pop(&mut packet));
            assert_eq!((packet.id, &packet.data[..]), (AudioId(7), &data[..]));
            assert_eq!(packet.timestamp, Duration::from_millis(20 * n));
            places.insert(packet.data.as_ptr().addr());
        }
        assert_eq!(places.len(), AudioQueue::CAPACITY + 1);
    }

    #[test]
    fn a_full_queue_refuses_the_new_one() {
        let queue = AudioQueue::new();
        for n in 0..AudioQueue::CAPACITY as u8 {
            assert!(queue.push(AudioId(1), &[n], Duration::ZERO));
        }
        assert!(!queue.push(AudioId(1), &[99], Duration::ZERO));
        assert_eq!(queue.refused(), 1);
        let mut packet = Packet::empty();
        for n in 0..AudioQueue::CAPACITY as u8 {
            assert!(queue.pop(&mut packet));
            assert_eq!(packet.data, [n]);
        }
        assert!(!queue.pop(&mut packet));
    }
}
