//! One thing the client keeps for itself on the server: the allocation, a permission, a channel.

use super::transaction::{GaveUp, Schedule, Transaction, TransactionIds};
use crate::wire::stun::TransactionId;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

pub(super) struct Job {
    pub(super) target: Target,
    pub(super) step: Step,
    /// The server has granted it, and it is being refreshed.
    pub(super) confirmed: bool,
    /// In a row.
    pub(super) stale_nonces: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Allocation,
    Permission(IpAddr),
    Channel { peer: SocketAddr, channel: u16 },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// For the allocation.
    Waiting,
    InFlight(Transaction),
    Done {
        refresh_at: Instant,
    },
    Refused,
}

impl Target {
    /// Whose traffic it is about.
    pub(super) fn ip(self) -> Option<IpAddr> {
        match self {
            Target::Allocation => None,
            Target::Permission(ip) => Some(ip),
            Target::Channel { peer, .. } => Some(peer.ip()),
        }
    }
}

impl Job {
    pub(super) fn new(target: Target) -> Job {
        Job { target, step: Step::Waiting, confirmed: false, stale_nonces: 0 }
    }

    pub(super) fn start(&mut self, now: Instant, ids: &mut TransactionIds) {
        self.step = Step::InFlight(Transaction::start(now, ids.next()));
    }

    /// Notes the server's consent; whether it is the first.
    pub(super) fn confirm(&mut self, refresh_at: Instant) -> bool {
        self.step = Step::Done { refresh_at };
        !std::mem::replace(&mut self.confirmed, true)
    }

    pub(super) fn is_waiting_for(&self, id: TransactionId) -> bool {
        matches!(&self.step, Step::InFlight(transaction) if transaction.id == id)
    }

    /// The transaction whose request must be sent now, if there is one; it is asked for once.
    pub(super) fn take_due(&mut self) -> Option<TransactionId> {
        match &mut self.step {
            Step::InFlight(transaction) => transaction.take_due(),
            _ => None,
        }
    }

    pub(super) fn on_time(
        &mut self,
        now: Instant,
        schedule: &Schedule,
        ids: &mut TransactionIds,
    ) -> Result<(), GaveUp> {
        match &mut self.step {
            Step::InFlight(transaction) => transaction.on_time(now, schedule),
            Step::Done { refresh_at } => {
                if *refresh_at <= now {
                    self.start(now, ids);
                }
                Ok(())
            }
            Step::Waiting | Step::Refused => Ok(()),
        }
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        match &self.step {
            Step::InFlight(transaction) => Some(transaction.deadline),
            Step::Done { refresh_at } => Some(*refresh_at),
            Step::Waiting | Step::Refused => None,
        }
    }
}
