//! Messages until the broker acknowledges them.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// With one more, the oldest is dropped: its session has most likely ended.
const MAX_MESSAGES: usize = 64;
/// Topics and payloads together. With more, the oldest are dropped.
const MAX_BYTES: usize = 256 * 1024;
/// Messages that could not be sent for so long are dropped at the next connection: whoever waited
/// for them has given up (an offer fails after 10 s).
const LIFETIME: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Queue {
    /// Oldest first, numbers ascending.
    messages: VecDeque<Message>,
    bytes: usize,
    next_number: u64,
    dropped: u64,
}

struct Message {
    number: u64,
    topic: String,
    payload: Vec<u8>,
    since: Instant,
    /// Handed to the present connection.
    is_sent: bool,
}

impl Message {
    fn len(&self) -> usize {
        self.topic.len() + self.payload.len()
    }
}

impl Queue {
    pub(super) fn push(&mut self, now: Instant, topic: &str, payload: Vec<u8>) {
        let number = self.next_number;
        self.next_number += 1;
        let message = Message { number, topic: topic.into(), payload, since: now, is_sent: false };
        self.bytes += message.len();
        self.messages.push_back(message);
        while self.messages.len() > MAX_MESSAGES || self.bytes > MAX_BYTES {
            self.drop_oldest("the queue is full");
        }
    }

    /// Offers to `send`, in order, what was not sent on this connection, until it refuses or a
    /// message is `window` messages younger than the oldest unacknowledged one.
    pub(super) fn send(&mut self, window: usize, mut send: impl FnMut(u64, &str, &[u8]) -> bool) {
        let Some(oldest) = self.messages.front().map(|m| m.number) else { return };
        for message in &mut self.messages {
            if message.number >= oldest + window as u64 {
                break;
            }
            if !message.is_sent {
                message.is_sent = send(message.number, &message.topic, &message.payload);
                if !message.is_sent {
                    break;
                }
            }
        }
    }

    /// A number that was dropped meanwhile is none of our business.
    pub(super) fn on_acknowledged(&mut self, number: u64) {
        if let Ok(i) = self.messages.binary_search_by_key(&number, |m| m.number)
            && let Some(message) = self.messages.remove(i)
        {
            self.bytes -= message.len();
        }
    }

    /// Whatever was not acknowledged is sent again over the next connection.
    pub(super) fn on_connection_lost(&mut self) {
        self.messages.iter_mut().for_each(|m| m.is_sent = false);
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while self.messages.front().is_some_and(|m| now.duration_since(m.since) > LIFETIME) {
            self.drop_oldest("there was no connection for a minute");
        }
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn drop_oldest(&mut self, why: &str) {
        if let Some(message) = self.messages.pop_front() {
            self.bytes -= message.len();
            self.dropped += 1;
            log::warn!("broker: a message to {} is dropped: {why}", message.topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(queue: &mut Queue, window: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        queue.send(window, |number, _, _| {
            numbers.push(number);
            true
        });
        numbers
    }

    #[test]
    fn messages_leave_only_when_acknowledged() {
        let now = Instant::now();
        let mut queue = Queue::default();
        for _ in 0..5 {
            queue.push(now, "t", vec![0; 10]);
        }
        assert_eq!(sent(&mut queue, 3), [0, 1, 2]);
        assert!(sent(&mut queue, 3).is_empty());
        queue.on_acknowledged(1);
        assert!(sent(&mut queue, 3).is_empty(), "the window counts from the oldest");
        queue.on_acknowledged(0);
        queue.on_acknowledged(0);
        assert_eq!(sent(&mut queue, 3), [3, 4]);
        queue.on_connection_lost();
        assert_eq!(sent(&mut queue, 3), [2, 3, 4], "what is unacknowledged is sent again");
        (2..=4).for_each(|n| queue.on_acknowledged(n));
        assert_eq!((queue.len(), queue.bytes), (0, 0));
    }

    #[test]
    fn a_refused_message_keeps_its_turn() {
        let mut queue = Queue::default();
        queue.push(Instant::now(), "t", vec![1]);
        queue.send(8, |_, _, _| false);
        assert_eq!(sent(&mut queue, 8), [0]);
    }

    #[test]
    fn the_oldest_go_first_when_the_bounds_are_passed() {
        let now = Instant::now();
        let mut queue = Queue::default();
        for _ in 0..MAX_MESSAGES + 3 {
            queue.push(now, "t", vec![]);
        }
        assert_eq!((queue.len(), queue.dropped()), (MAX_MESSAGES, 3));
        assert_eq!(sent(&mut queue, 1), [3]);
        for _ in 0..5 {
            queue.push(now, "t", vec![0; 65_000]);
        }
        assert!(queue.len() == 4 && queue.bytes <= MAX_BYTES);
        queue.push(now + LIFETIME, "t", vec![]);
        queue.expire(now + LIFETIME + Duration::from_millis(1));
        assert_eq!(queue.len(), 1);
    }
}
