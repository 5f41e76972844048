//! Asks a STUN server for our own address as it sees it: a server-reflexive candidate.

use super::transaction::{Schedule, Transaction, TransactionIds};
use crate::wire::stun::attribute as attr;
use crate::wire::stun::{Builder, Class, Message, Method};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// One Binding request and its answer. A server that does not answer is given up after five
/// seconds; nothing ever waits for it, as candidates trickle.
pub struct StunProbe {
    state: State,
    outcome: Option<StunProbeEvent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StunProbeEvent {
    /// Our address as the server sees it.
    Mapped(SocketAddr),
    /// No answer, or no useful one.
    Failed,
}

enum State {
    Asking(Transaction),
    Done,
}

/// Sends at 0, 0.25, 0.75, 1.75 and 3.75 s.
const SCHEDULE: Schedule = Schedule { max_sends: 5, last_wait: Duration::from_millis(1250) };

impl StunProbe {
    /// `seed` is secret randomness: who guesses the transaction id can forge the answer.
    pub fn new(seed: [u8; 32], now: Instant) -> StunProbe {
        let id = TransactionIds::new(seed).next();
        StunProbe { state: State::Asking(Transaction::start(now, id)), outcome: None }
    }

    /// Takes a datagram that came from the server's address. `false` if it is not for the probe,
    /// and may be for ICE or another probe on the same socket.
    pub fn handle_datagram(&mut self, data: &[u8]) -> bool {
        let State::Asking(transaction) = &self.state else { return false };
        let Some(message) = Message::parse(data) else { return false };
        let is_answer = message.method() == Method::BINDING
            && matches!(message.class(), Class::Success | Class::Error)
            && message.transaction_id() == transaction.id;
        if !is_answer {
            return false;
        }
        // Servers of RFC 3489's age know the plain address only.
        let mapped = message
            .get_xor_address(attr::XOR_MAPPED_ADDRESS)
            .or_else(|| message.get_address(attr::MAPPED_ADDRESS))
            .filter(|_| message.class() == Class::Success);
        self.finish(mapped.map_or(StunProbeEvent::Failed, StunProbeEvent::Mapped));
        true
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if let State::Asking(transaction) = &mut self.state
            && transaction.on_time(now, &SCHEDULE).is_err()
        {
            self.finish(StunProbeEvent::Failed);
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Asking(transaction) => Some(transaction.deadline),
            State::Done => None,
        }
    }

    /// Writes the next datagram for the server; answers its length.
    pub fn poll_transmit(&mut self, out: &mut [u8]) -> Option<usize> {
        let State::Asking(transaction) = &mut self.state else { return None };
        let id = transaction.take_due()?;
        Builder::new(out, Class::Request, Method::BINDING, id).finish()
    }

    pub fn poll_event(&mut self) -> Option<StunProbeEvent> {
        self.outcome.take()
    }

    fn finish(&mut self, outcome: StunProbeEvent) {
        self.state = State::Done;
        self.outcome = Some(outcome);
    }
}
