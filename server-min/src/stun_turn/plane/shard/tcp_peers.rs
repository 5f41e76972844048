//! Peers by TCP (RFC 6062), between their sockets and their clients' streams.

use super::super::links::LinkEvent;
use super::super::relay::Relay;
use super::super::tcp::StreamId;
use super::{MAX_ACCEPTS, Shard};
use crate::stun_turn::answers::MAX_REPLY_LEN;
use crate::stun_turn::connections::{ConnectionId, Direction};
use crate::stun_turn::core::{Client, Now};
use crate::stun_turn::relays::RelayId;

impl Shard {
    /// A peer by TCP is at a relayed address.
    pub(super) fn on_peer_listener(&mut self, now: Now, id: RelayId) {
        for _ in 0..MAX_ACCEPTS {
            let Relay { core, sockets, .. } = &mut self.relay;
            let Some((socket, peer)) = sockets.links.accept(id) else { return };
            let mut indication = [0; MAX_REPLY_LEN];
            let Some((connection, client, len)) = core.on_attempt(now, id, peer, &mut indication)
            else {
                continue;
            };
            if !sockets.links.add(connection, socket) {
                core.on_disconnected(connection);
                continue;
            }
            self.tell(client, &indication[..len]);
        }
    }

    /// A peer by TCP has something to say, or room to hear.
    pub(super) fn on_link(&mut self, now: Now, id: ConnectionId) {
        let mut arena = self.streams.take_arena();
        let event = self.relay.sockets.links.on_ready(id, &mut arena);
        self.on_link_event(now, id, event, &arena);
        self.streams.put_arena(arena);
    }

    pub(super) fn on_link_event(
        &mut self,
        now: Now,
        id: ConnectionId,
        event: LinkEvent,
        arena: &[u8],
    ) {
        let core = &mut self.relay.core;
        match event {
            LinkEvent::Connected | LinkEvent::Failed => {
                let mut answer = [0; MAX_REPLY_LEN];
                let succeeded = event == LinkEvent::Connected;
                if let Some((client, len)) = core.on_connected(id, succeeded, &mut answer) {
                    self.tell(client, &answer[..len]);
                }
            }
            LinkEvent::Received(stream, len) => {
                if len > 0 {
                    self.streams.pass_on(stream, &arena[..len]);
                    if !core.carry(now.instant, id, Direction::ToClient, len) {
                        let links = &mut self.relay.sockets.links;
                        links.owe(now.instant, id, Direction::ToClient, len);
                    }
                }
                self.balance(stream, id);
                if self.streams.has_ended(stream) {
                    self.close_stream(stream);
                }
            }
            LinkEvent::Ended(stream) => {
                core.on_disconnected(id);
                if let Some(stream) = stream
                    && self.streams.finish(stream)
                {
                    self.close_stream(stream);
                }
            }
            LinkEvent::Nothing => {}
        }
    }

    pub(super) fn pass_to_peer(
        &mut self,
        now: Now,
        stream: StreamId,
        peer: ConnectionId,
        bytes: &[u8],
    ) {
        let Relay { core, sockets, .. } = &mut self.relay;
        if !bytes.is_empty() {
            sockets.links.write(peer, bytes);
            if !core.carry(now.instant, peer, Direction::ToPeer, bytes.len()) {
                sockets.links.owe(now.instant, peer, Direction::ToPeer, bytes.len());
            }
        }
        self.balance(stream, peer);
    }

    /// Reads from either side only as far as the other one takes it.
    pub(super) fn balance(&mut self, stream: StreamId, peer: ConnectionId) {
        let links = &mut self.relay.sockets.links;
        links.pause(peer, self.streams.has_backlog(stream));
        self.streams.pause(stream, links.is_slow(peer));
    }

    /// What a client on a stream is told without having asked just now.
    pub(super) fn tell(&mut self, client: Client, message: &[u8]) {
        if let Some(id) = self.streams.id_of(client) {
            self.streams.answer(id, message);
            self.streams.flush();
        }
    }

    pub(super) fn handle_links(&mut self, now: Now) {
        self.relay.sockets.links.set_timers(now.instant);
        loop {
            let Relay { core, sockets, .. } = &mut self.relay;
            let expired = sockets.links.poll_expired(now.instant, |id, direction, bytes| {
                core.carry(now.instant, id, direction, bytes)
            });
            let Some((id, event)) = expired else { break };
            self.on_link_event(now, id, event, &[]);
        }
        while let Some(stream) = self.relay.sockets.links.poll_orphan() {
            self.close_stream(stream);
        }
    }
}
