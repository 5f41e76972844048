//! Datagrams of clients, plain and by DTLS, and of peers.

use super::super::listeners::Listener;
use super::Shard;
use crate::stun_turn::answers::MAX_REPLY_LEN;
use crate::stun_turn::core::{Client, Now};
use crate::stun_turn::relays::RelayId;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// Batches from one busy socket before the others have their turn.
const MAX_BATCHES: usize = 4;
/// What a message may be padded with.
const ZEROS: [u8; 4] = [0; 4];

impl Shard {
    pub(super) fn on_udp(&mut self, now: Now, index: usize, listener: &UdpSocket) {
        let fd = listener.as_raw_fd();
        for _ in 0..MAX_BATCHES {
            self.receiver.receive(listener);
            let (arena, relay) = (self.receiver.arena(), &mut self.relay);
            for run in self.receiver.runs() {
                let client = Client { listener: index as u16, address: run.source };
                for range in run.datagrams() {
                    let outcome = relay.handle_client(now, client, &arena[range], arena);
                    if let Some(len) = outcome.answer().map(<[u8]>::len) {
                        relay.send_reply(arena, fd, client.address, len);
                    }
                }
            }
            relay.flush(arena);
            if !self.receiver.may_have_more() {
                break;
            }
        }
    }

    /// Messages are copied to the streams' arena on their way: `rtc-dtls` gives each a buffer of its
    /// own.
    pub(super) fn on_dtls(&mut self, now: Now, index: usize, listener: &UdpSocket) {
        let Some(associations) = &mut self.associations else { return };
        let fd = listener.as_raw_fd();
        let (mut arena, mut filled) = (self.streams.take_arena(), 0);
        for _ in 0..MAX_BATCHES {
            self.receiver.receive(listener);
            let relay = &mut self.relay;
            for run in self.receiver.runs() {
                let client = Client { listener: index as u16, address: run.source };
                for range in run.datagrams() {
                    let datagram = &self.receiver.arena()[range];
                    let read = associations.read(now.instant, client, datagram, |answer| {
                        relay.send(&arena, fd, client.address, answer, 0..0, 0);
                    });
                    for message in read.messages {
                        if arena.len() - filled < message.len() {
                            relay.flush(&arena);
                            filled = 0;
                        }
                        let place = filled..filled + message.len();
                        arena[place.clone()].copy_from_slice(&message);
                        filled = place.end;
                        associations.on_message(now.instant, client);
                        let message = &arena[place];
                        let outcome = relay.handle_client(now, client, message, &arena);
                        let Some(reply) = outcome.answer() else { continue };
                        let (mut copy, len) = ([0; MAX_REPLY_LEN], reply.len());
                        copy[..len].copy_from_slice(reply);
                        associations.write(
                            now.instant,
                            client,
                            [&copy[..len], &[], &[]],
                            |record| {
                                relay.send(&arena, fd, client.address, record, 0..0, 0);
                            },
                        );
                    }
                    if read.ended {
                        relay.close_client(client);
                    }
                }
            }
            relay.flush(&arena);
            filled = 0;
            if !self.receiver.may_have_more() {
                break;
            }
        }
        self.streams.put_arena(arena);
    }

    pub(super) fn on_relay(&mut self, now: Now, id: RelayId) {
        for _ in 0..MAX_BATCHES {
            // Closed by an event before this one.
            let Some(socket) = self.relay.sockets.get(id) else { return };
            // Reported twice in a row, it has more than one.
            let is_busy = self.turn.wrapping_sub(socket.read_in) <= 1;
            socket.read_in = self.turn;
            match is_busy {
                true => self.receiver.receive(&socket.socket),
                false => self.receiver.receive_one(&socket.socket),
            }
            let (arena, relay) = (self.receiver.arena(), &mut self.relay);
            for run in self.receiver.runs() {
                for range in run.datagrams() {
                    let len = range.len();
                    let Some(out) = relay.core.handle_peer(now, id, run.source, len) else {
                        continue;
                    };
                    let client = out.client;
                    match self.listeners.get(usize::from(client.listener)) {
                        Some(Listener::Udp(listener)) => {
                            let fd = listener.as_raw_fd();
                            relay.send(arena, fd, client.address, out.prefix(), range, out.padding);
                        }
                        Some(Listener::Tcp(_) | Listener::Tls(_)) => {
                            self.streams.relay(client, out.prefix(), &arena[range]);
                        }
                        Some(Listener::Dtls(listener)) => {
                            let Some(associations) = &mut self.associations else { continue };
                            let fd = listener.as_raw_fd();
                            let padding = &ZEROS[..out.padding];
                            let parts = [out.prefix(), &arena[range], padding];
                            associations.write(now.instant, client, parts, |record| {
                                relay.send(arena, fd, client.address, record, 0..0, 0);
                            });
                        }
                        None => {}
                    }
                }
            }
            relay.flush(arena);
            self.streams.flush();
            if !self.receiver.may_have_more() {
                break;
            }
        }
    }
}
