//! Clients by stream: from being accepted to the end.

use super::super::framing::{self, Frame};
use super::super::listeners::Listener;
use super::super::relay::Outcome;
use super::super::sys::Interest;
use super::super::tcp::{Received, StreamId};
use super::super::tls::Tls as TlsStream;
use super::{Command, MAX_ACCEPTS, Shard};
use crate::stun_turn::core::{Client, Now};
use crate::tls::Tls;
use std::io;
use std::net::TcpListener;
use std::time::Duration;

const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

impl Shard {
    pub(super) fn accept(
        &mut self,
        now: Now,
        index: usize,
        listener: &TcpListener,
        tls: Option<&Tls>,
    ) {
        for _ in 0..MAX_ACCEPTS {
            let (socket, address) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    log::warn!("TURN cannot accept a connection: {error}");
                    // No file is left: trying at once again would turn in circles.
                    self.accept_again = Some(now.instant + ACCEPT_PAUSE);
                    return self.watch_accepting(Interest::Nothing);
                }
            };
            let Some(place) = self.streams.admit(address.ip()) else { continue };
            // With the certificate as it is now.
            let tls = match tls.map(|tls| TlsStream::new(tls.server())).transpose() {
                Ok(tls) => tls,
                Err(error) => {
                    log::error!("TURN over TLS cannot be set up: {error}");
                    continue;
                }
            };
            let client = Client { listener: index as u16, address };
            self.streams.open(now.instant, socket, client, tls, place);
        }
    }

    pub(super) fn watch_accepting(&mut self, interest: Interest) {
        for (i, listener) in self.listeners.iter().enumerate() {
            if let Listener::Tcp(socket) | Listener::Tls(socket) = listener
                && let Err(error) = self.epoll.set(socket, i as u64, interest)
            {
                log::error!("TURN cannot watch for connections: {error}");
            }
        }
    }

    pub(super) fn on_stream(&mut self, now: Now, id: StreamId) {
        let mut arena = self.streams.take_arena();
        match (self.streams.peer_of(id), self.streams.receive(id, &mut arena)) {
            (None, Some(received)) => self.serve(now, id, &received, &arena),
            (Some(peer), Some(received)) => {
                self.pass_to_peer(now, id, peer, &arena[..received.len]);
                if received.ended || self.streams.has_ended(id) {
                    self.close_stream(id);
                }
            }
            (_, None) => {}
        }
        self.streams.put_arena(arena);
    }

    /// Takes the messages of a stream.
    pub(super) fn serve(&mut self, now: Now, id: StreamId, received: &Received, arena: &[u8]) {
        let (client, relay) = (received.client, &mut self.relay);
        let (mut at, mut next_len) = (0, 0);
        let (mut joined, mut elsewhere) = (None, None);
        while at < received.len && joined.is_none() {
            match framing::next(&arena[at..received.len]) {
                Frame::Message { len } => {
                    match relay.handle_client(now, client, &arena[at..at + len], arena) {
                        Outcome::Nothing => {}
                        Outcome::Answer(answer) => self.streams.answer(id, answer),
                        Outcome::Joined(answer, peer) => {
                            self.streams.answer(id, answer);
                            joined = Some(peer);
                        }
                        Outcome::Elsewhere(number) => {
                            elsewhere = Some(number);
                            break;
                        }
                    }
                    at += len;
                }
                Frame::Incomplete { len } => {
                    next_len = len;
                    break;
                }
                Frame::Malformed => {
                    next_len = usize::MAX;
                    break;
                }
            }
        }
        relay.flush(arena);
        self.streams.flush();
        let rest = &arena[at..received.len];
        if let Some(number) = elsewhere {
            return self.give_away(id, number, rest);
        }
        let had_message = at > 0;
        let has_allocation = relay.core.has_allocation(client);
        let goes_on = match joined {
            Some(peer) => {
                self.streams.join(id, peer);
                relay.sockets.links.join(peer, id);
                self.pass_to_peer(now, id, peer, rest);
                !received.ended
            }
            None => {
                !received.ended
                    && self.streams.keep(
                        now.instant,
                        id,
                        rest,
                        had_message,
                        has_allocation,
                        next_len,
                    )
            }
        };
        if !goes_on || self.streams.has_ended(id) {
            self.close_stream(id);
        }
    }

    pub(super) fn close_stream(&mut self, id: StreamId) {
        let peer = self.streams.peer_of(id);
        if let Some(client) = self.streams.close(id) {
            self.relay.close_client(client);
        }
        if let Some(peer) = peer
            && self.relay.sockets.links.finish(peer)
        {
            self.relay.core.on_disconnected(peer);
        }
    }

    /// The allocation that a stream asks for is another shard's.
    pub(super) fn give_away(&mut self, id: StreamId, number: u16, rest: &[u8]) {
        let Some(sibling) = self.siblings.get(usize::from(number)) else {
            return self.close_stream(id);
        };
        if let Some(stream) = self.streams.detach(id, rest) {
            sibling.send(Command::Adopt(stream));
        }
    }
}
