//! A message on its way into DATA chunks.

use super::flight::{Limit, Sent, State};
use super::{MESSAGE_OVERHEAD, Outgoing};
use bytes::Bytes;
use std::time::Instant;

/// Not yet sent, or only in part.
pub(super) struct Queued {
    pub(super) number: u32,
    pub(super) message: Outgoing,
    /// How much of it was sent.
    pub(super) offset: usize,
    /// Of an ordered one, once its beginning was sent.
    pub(super) ssn: u16,
    pub(super) limit: Limit,
}

impl Queued {
    /// The length of its next chunk.
    pub(super) fn next_len(&self, most: usize) -> usize {
        (self.message.payload.len() - self.offset).min(most)
    }

    /// Its next chunk, as it is sent now.
    pub(super) fn next_chunk(&mut self, len: usize, now: Instant) -> Sent {
        let end = self.offset + len;
        let payload = self.message.payload.slice(self.offset..end);
        let ending = end == self.message.payload.len();
        let sent = Sent {
            beginning: self.offset == 0,
            ending,
            cost: len + if ending { MESSAGE_OVERHEAD } else { 0 },
            payload,
            sends: 1,
            state: State::UnderWay,
            ..self.given_up_end(now)
        };
        self.offset = end;
        sent
    }

    /// An end that is never sent.
    pub(super) fn given_up_end(&self, now: Instant) -> Sent {
        Sent {
            message: self.number,
            stream: self.message.stream,
            ssn: self.ssn,
            protocol: self.message.protocol,
            unordered: !self.message.ordered,
            beginning: false,
            ending: true,
            payload: Bytes::new(),
            cost: 0,
            limit: self.limit,
            sends: 0,
            sent_at: now,
            state: State::GivenUp,
            missed: 0,
        }
    }

    /// What of the send buffer its unsent rest takes.
    pub(super) fn cost(&self) -> usize {
        self.message.payload.len() - self.offset + MESSAGE_OVERHEAD
    }
}
