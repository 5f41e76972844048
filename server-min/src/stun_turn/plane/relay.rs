//! The core with its sockets: what is done with a client's message, by whichever transport it came.

use super::relay_sockets::RelaySockets;
use super::send::SendQueue;
use crate::stun_turn::answers::MAX_REPLY_LEN;
use crate::stun_turn::connections::ConnectionId;
use crate::stun_turn::core::{Action, Client, Core, Now};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};

pub(super) struct Relay {
    pub(super) core: Core,
    pub(super) sockets: RelaySockets,
    queue: SendQueue,
    reply: Box<[u8; MAX_REPLY_LEN]>,
}

/// What a client's message leads to, beside what was gathered.
pub(super) enum Outcome<'a> {
    Nothing,
    Answer(&'a [u8]),
    /// The same, and all that follows is a peer's (RFC 6062).
    Joined(&'a [u8], ConnectionId),
    /// The stream belongs to this shard.
    Elsewhere(u16),
}

impl<'a> Outcome<'a> {
    /// For transports that only have answers.
    pub(super) fn answer(self) -> Option<&'a [u8]> {
        match self {
            Outcome::Answer(answer) => Some(answer),
            _ => None,
        }
    }
}

impl Relay {
    pub(super) fn new(core: Core, sockets: RelaySockets) -> Relay {
        let reply = Box::new([0; MAX_REPLY_LEN]);
        Relay { core, sockets, queue: SendQueue::new(), reply }
    }

    /// Takes one message of a client. What is for a peer is gathered; what is for the client is the
    /// answer. `message` lies in `arena`, which must stay as it is until the next
    /// [`flush`](Relay::flush).
    pub(super) fn handle_client(
        &mut self,
        now: Now,
        client: Client,
        message: &[u8],
        arena: &[u8],
    ) -> Outcome<'_> {
        let reply = &mut self.reply[..];
        match self.core.handle_client(now, client, message, &mut self.sockets, reply) {
            Action::None => Outcome::Nothing,
            Action::Reply { len } => Outcome::Answer(&self.reply[..len]),
            Action::Bound { len, connection } => Outcome::Joined(&self.reply[..len], connection),
            Action::OfShard(number) => Outcome::Elsewhere(number),
            Action::ToPeer { relay, peer, payload, dont_fragment } => {
                let Some(relay) = self.sockets.get(relay) else { return Outcome::Nothing };
                if relay.dont_fragment != dont_fragment {
                    // The option is the socket's: what was gathered goes out before.
                    self.queue.flush(arena);
                    relay.set_dont_fragment(dont_fragment);
                }
                let fd = relay.socket.as_raw_fd();
                let start = payload.as_ptr() as usize - arena.as_ptr() as usize;
                self.send(arena, fd, peer, &[], start..start + payload.len(), 0);
                Outcome::Nothing
            }
        }
    }

    /// Gathers the answer that [`handle_client`](Relay::handle_client) has just given.
    pub(super) fn send_reply(&mut self, arena: &[u8], socket: RawFd, to: SocketAddr, len: usize) {
        if !self.queue.has_room(len) {
            self.queue.flush(arena);
        }
        self.queue.push(socket, to, &self.reply[..len], 0..0, 0);
    }

    /// Gathers a datagram: `prefix`, then a part of the arena, then so many zeros.
    pub(super) fn send(
        &mut self,
        arena: &[u8],
        socket: RawFd,
        to: SocketAddr,
        prefix: &[u8],
        payload: Range<usize>,
        padding: usize,
    ) {
        if !self.queue.has_room(prefix.len()) {
            self.queue.flush(arena);
        }
        self.queue.push(socket, to, prefix, payload, padding);
    }

    /// Sends all that was gathered.
    pub(super) fn flush(&mut self, arena: &[u8]) {
        self.queue.flush(arena);
    }

    /// Ends what a client holds whose connection is gone (RFC 8656 §3.1: its 5-tuple is).
    pub(super) fn close_client(&mut self, client: Client) {
        self.core.close_client(client, &mut self.sockets);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.queue.dropped()
    }
}
