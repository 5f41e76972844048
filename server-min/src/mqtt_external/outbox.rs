//! Our messages until the broker acknowledges them, over any number of connections.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// With one more, the oldest of those that wait is dropped.
const MAX_MESSAGES: usize = 10_000;
/// Topics and payloads together; beyond that likewise.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// What could not be sent for so long is dropped at the next connection: an offer fails after 10 s,
/// and each side says every 20 s how it is.
const LIFETIME: Duration = Duration::from_secs(60);
/// Messages on their way at a time, counted from the oldest. Less than the 20 that Mosquitto takes
/// (Receive Maximum), so that a packet id is free again before its turn comes.
const WINDOW: usize = 16;

#[derive(Default)]
pub(super) struct Outbox {
    /// Oldest first. What is on its way is among the first `WINDOW`.
    messages: VecDeque<Message>,
    bytes: usize,
    dropped: u64,
}

struct Message {
    topic: String,
    payload: Vec<u8>,
    since: Instant,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// Given to the present connection, which has not yet said under which packet id it goes out.
    Handed,
    Sent(u16),
}

impl Message {
    fn len(&self) -> usize {
        self.topic.len() + self.payload.len()
    }
}

impl Outbox {
    pub(super) fn push(&mut self, now: Instant, topic: &str, payload: Vec<u8>) {
        let message = Message { topic: topic.into(), payload, since: now, stage: Stage::Waiting };
        self.bytes += message.len();
        self.messages.push_back(message);
        while self.messages.len() > MAX_MESSAGES || self.bytes > MAX_BYTES {
            let oldest = self.messages.iter().position(|m| m.stage == Stage::Waiting);
            let Some(oldest) = oldest else { break };
            self.remove(oldest);
            self.dropped += 1;
        }
    }

    /// Goes before everything else. Only while nothing is on its way.
    pub(super) fn push_first(&mut self, now: Instant, topic: &str, payload: Vec<u8>) {
        let message = Message { topic: topic.into(), payload, since: now, stage: Stage::Waiting };
        self.bytes += message.len();
        self.messages.push_front(message);
    }

    /// Offers to `take`, in order, what has its turn, until it refuses.
    pub(super) fn hand_over(&mut self, mut take: impl FnMut(&str, &[u8]) -> bool) {
        let turn = self.messages.iter_mut().take(WINDOW);
        for message in turn.filter(|m| m.stage == Stage::Waiting) {
            if !take(&message.topic, &message.payload) {
                break;
            }
            message.stage = Stage::Handed;
        }
    }

    /// The oldest message that was handed over goes out under this packet id.
    pub(super) fn on_sent(&mut self, packet_id: u16) {
        if let Some(message) = self.messages.iter_mut().find(|m| m.stage == Stage::Handed) {
            message.stage = Stage::Sent(packet_id);
        }
    }

    /// The topic of what was acknowledged; `None` if nothing of ours was.
    pub(super) fn on_acknowledged(&mut self, packet_id: u16) -> Option<String> {
        let sent = Stage::Sent(packet_id);
        let found = self.messages.iter().take(WINDOW).position(|m| m.stage == sent)?;
        self.remove(found).map(|message| message.topic)
    }

    /// Whatever was not acknowledged is sent again over the next connection.
    pub(super) fn on_connection_lost(&mut self) {
        self.messages.iter_mut().for_each(|m| m.stage = Stage::Waiting);
    }

    /// Drops what is too old to be of use. Before anything is handed to a new connection.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.messages.front().is_some_and(|m| now.duration_since(m.since) > LIFETIME) {
            self.remove(0);
            self.dropped += 1;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Messages dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn remove(&mut self, index: usize) -> Option<Message> {
        let message = self.messages.remove(index)?;
        self.bytes -= message.len();
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed(outbox: &mut Outbox) -> Vec<String> {
        let mut topics = Vec::new();
        outbox.hand_over(|topic, _| {
            topics.push(topic.to_owned());
            true
        });
        topics
    }

    fn filled(count: usize) -> Outbox {
        let mut outbox = Outbox::default();
        for n in 0..count {
            outbox.push(Instant::now(), &n.to_string(), vec![0; 10]);
        }
        outbox
    }

    #[test]
    fn messages_leave_only_when_acknowledged() {
        let mut outbox = filled(WINDOW + 2);
        assert_eq!(handed(&mut outbox).len(), WINDOW);
        (1..=WINDOW as u16).for_each(|id| outbox.on_sent(id));
        assert_eq!(outbox.on_acknowledged(99), None);
        assert_eq!(outbox.on_acknowledged(1).as_deref(), Some("0"));
        assert_eq!(outbox.on_acknowledged(1), None, "once");
        assert_eq!(handed(&mut outbox), ["16"]);
        outbox.on_connection_lost();
        let again = handed(&mut outbox);
        assert_eq!((again.len(), again[0].as_str()), (WINDOW, "1"), "unacknowledged: sent again");
        (1..=WINDOW as u16).for_each(|id| outbox.on_sent(id));
        (1..=WINDOW as u16).for_each(|id| assert!(outbox.on_acknowledged(id).is_some()));
        assert_eq!(handed(&mut outbox), ["17"]);
        outbox.on_sent(3);
        assert!(outbox.on_acknowledged(3).is_some());
        assert_eq!((outbox.len(), outbox.bytes, outbox.dropped()), (0, 0, 0));
    }

    #[test]
    fn a_refused_message_keeps_its_turn() {
        let mut outbox = filled(2);
        outbox.hand_over(|_, _| false);
        assert_eq!(handed(&mut outbox), ["0", "1"]);
    }

    #[test]
    fn beyond_the_bounds_the_oldest_that_wait_are_dropped_and_none_on_its_way() {
        let mut outbox = filled(MAX_MESSAGES);
        handed(&mut outbox);
        outbox.on_sent(1);
        outbox.push(Instant::now(), "new", vec![]);
        assert_eq!((outbox.len(), outbox.dropped()), (MAX_MESSAGES, 1));
        assert_eq!(outbox.on_acknowledged(1).as_deref(), Some("0"));
        assert!(outbox.messages.iter().all(|m| m.topic != WINDOW.to_string()));

        let mut outbox = Outbox::default();
        for _ in 0..200 {
            outbox.push(Instant::now(), "t", vec![0; 64 * 1024]);
        }
        assert!(outbox.bytes <= MAX_BYTES && outbox.len() > 120);
    }

    #[test]
    fn what_is_too_old_is_not_sent() {
        let mut outbox = filled(1);
        let later = Instant::now() + LIFETIME;
        outbox.push(later, "new", vec![]);
        outbox.expire(later + Duration::from_millis(1));
        assert_eq!(handed(&mut outbox), ["new"]);
        assert_eq!(outbox.dropped(), 1);
    }
}
