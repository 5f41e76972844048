//! Repeats an `offer` or `answer` until the other side is heard: QoS 1 ends at the broker, and what
//! a subscriber missed while it was reconnecting nobody else sends again.
//!
//! One per session. It keeps the message and tells when to send it again; it is told the time.

use crate::wire::signal::Body;
use std::time::{Duration, Instant};

/// Pauses before the repeats: 1, 3 and 7 seconds after the first sending.
const PAUSES: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// Repeats at most one message, the latest.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    message: Body,
    repeats: usize,
    next: Instant,
}

impl Outbox {
    pub fn new() -> Outbox {
        Outbox::default()
    }

    /// Notes that `message` was sent just now. Offers and answers are kept for repeating, in place
    /// of an earlier one; anything else is ignored.
    pub fn on_sent(&mut self, now: Instant, message: &Body) {
        if matches!(message, Body::Offer(_) | Body::Answer { .. }) {
            self.waiting =
                Some(Waiting { message: message.clone(), repeats: 0, next: now + PAUSES[0] });
        }
    }

    /// Notes a message of the other side in this session. What shows that ours has arrived ends
    /// the repeating.
    ///
    /// After an answer, candidates show nothing: they follow the offer without waiting for it.
    pub fn on_heard(&mut self, message: &Body) {
        let Some(waiting) = &self.waiting else { return };
        let says_nothing = match waiting.message {
            Body::Answer { .. } => matches!(message, Body::Offer(_) | Body::Candidate(_)),
            _ => matches!(message, Body::Offer(_)),
        };
        if !says_nothing {
            self.waiting = None;
        }
    }

    /// The other side has used our ICE password (an authenticated check came, or an answer to
    /// ours), so it has our description; or the session is over.
    pub fn on_arrived(&mut self) {
        self.waiting = None;
    }

    /// When [`Outbox::poll_repeat`] has something to say.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|w| w.next)
    }

    /// The message to send again now, if it is time.
    pub fn poll_repeat(&mut self, now: Instant) -> Option<Body> {
        let waiting = self.waiting.as_mut().filter(|w| w.next <= now)?;
        waiting.repeats += 1;
        match PAUSES.get(waiting.repeats) {
            Some(pause) => {
                waiting.next = now + *pause;
                Some(waiting.message.clone())
            }
            None => self.waiting.take().map(|w| w.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::signal::{Candidate, Keepalive};

    fn answer() -> Body {
        Body::Answer { sdp: "v=0".into() }
    }

    fn candidate() -> Body {
        Body::Candidate(Candidate {
            candidate: "candidate:1".into(),
            sdp_mid: None,
            sdp_m_line_index: Some(0),
        })
    }

    /// Milliseconds after `start` at which repeats come.
    fn repeats(outbox: &mut Outbox, start: Instant) -> Vec<u128> {
        let mut at = Vec::new();
        while let Some(next) = outbox.poll_timeout() {
            assert_eq!(outbox.poll_repeat(next - Duration::from_millis(1)), None);
            assert_eq!(outbox.poll_repeat(next), Some(answer()));
            at.push((next - start).as_millis());
        }
        at
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "some instant to count from")]
    fn an_unheard_answer_is_repeated_three_times() {
        let start = Instant::now();
        let mut outbox = Outbox::new();
        outbox.on_sent(start, &answer());
        assert_eq!(repeats(&mut outbox, start), [1000, 3000, 7000]);
        assert_eq!(outbox.poll_repeat(start + Duration::from_secs(60)), None);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "some instant to count from")]
    fn only_what_proves_arrival_ends_the_repeating() {
        let start = Instant::now();
        let mut outbox = Outbox::new();
        outbox.on_sent(start, &answer());
        outbox.on_heard(&candidate());
        assert!(outbox.poll_timeout().is_some());
        outbox.on_heard(&Body::Keepalive(Keepalive::default()));
        assert_eq!(outbox.poll_timeout(), None);

        outbox.on_sent(start, &answer());
        outbox.on_arrived();
        assert_eq!(outbox.poll_timeout(), None);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "some instant to count from")]
    fn a_newer_answer_takes_the_older_ones_place() {
        let start = Instant::now();
        let mut outbox = Outbox::new();
        outbox.on_sent(start, &Body::Answer { sdp: "old".into() });
        let later = start + Duration::from_secs(2);
        outbox.on_sent(later, &candidate());
        outbox.on_sent(later, &answer());
        assert_eq!(repeats(&mut outbox, later), [1000, 3000, 7000]);
    }
}
