//! Retransmission over UDP (RFC 8489 §6.2.1), and the ids that answers are known by.

use crate::wire::stun::TransactionId;
use ring::hmac;
use std::time::{Duration, Instant};

/// The first wait for an answer; each further one is twice as long.
const RTO: Duration = Duration::from_millis(250);

/// How long to go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    pub(super) max_sends: u8,
    /// After the last send.
    pub(super) last_wait: Duration,
}

/// One request until its answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Transaction {
    pub(super) id: TransactionId,
    /// When to send again, or to give up.
    pub(super) deadline: Instant,
    sends: u8,
    due: bool,
}

pub(super) struct GaveUp;

impl Transaction {
    pub(super) fn start(now: Instant, id: TransactionId) -> Transaction {
        Transaction { id, deadline: now + RTO, sends: 1, due: true }
    }

    pub(super) fn on_time(&mut self, now: Instant, schedule: &Schedule) -> Result<(), GaveUp> {
        if now < self.deadline {
            return Ok(());
        }
        if self.sends >= schedule.max_sends {
            return Err(GaveUp);
        }
        self.sends += 1;
        self.due = true;
        let wait = match self.sends == schedule.max_sends {
            true => schedule.last_wait,
            false => RTO * (1 << (self.sends - 1).min(10)),
        };
        self.deadline = now + wait;
        Ok(())
    }

    pub(super) fn take_due(&mut self) -> Option<TransactionId> {
        std::mem::take(&mut self.due).then_some(self.id)
    }
}

/// Ids that cannot be guessed, and that are the same again for the same seed.
pub(super) struct TransactionIds {
    key: hmac::Key,
    count: u64,
}

impl TransactionIds {
    pub(super) fn new(seed: [u8; 32]) -> TransactionIds {
        TransactionIds { key: hmac::Key::new(hmac::HMAC_SHA256, &seed), count: 0 }
    }

    pub(super) fn next(&mut self) -> TransactionId {
        let tag = hmac::sign(&self.key, &self.count.to_be_bytes());
        self.count += 1;
        let mut id = [0; 12];
        id.copy_from_slice(&tag.as_ref()[..12]);
        TransactionId(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn a_request_is_sent_seven_times_and_then_given_up() {
        let schedule = Schedule { max_sends: 7, last_wait: Duration::from_secs(4) };
        let start = Instant::now();
        let mut transaction = Transaction::start(start, TransactionIds::new([1; 32]).next());
        let mut sent_ms = Vec::new();
        let mut now = start;
        loop {
            if transaction.take_due().is_some() {
                sent_ms.push((now - start).as_millis());
            }
            now = transaction.deadline;
            if transaction.on_time(now, &schedule).is_err() {
                break;
            }
        }
        assert_eq!(sent_ms, [0, 250, 750, 1750, 3750, 7750, 15_750]);
        assert_eq!(now - start, Duration::from_millis(19_750));
    }

    #[test]
    fn ids_follow_from_the_seed_and_differ() {
        let ids = |seed| {
            let mut ids = TransactionIds::new([seed; 32]);
            [ids.next(), ids.next()]
        };
        assert_eq!(ids(1), ids(1));
        assert_ne!(ids(1)[0], ids(1)[1]);
        assert_ne!(ids(1)[0], ids(2)[0]);
    }
}
