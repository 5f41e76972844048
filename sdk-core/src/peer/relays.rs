//! The STUN and TURN servers that one viewer's session uses: what they tell us about our
//! addresses, and how datagrams pass through a relay.

use super::gather::{Server, ServerKind};
use super::ice::Pair;
use super::transport::{LocalSocket, Route};
use super::turn::{MAX_OVERHEAD, Received, StunProbe, StunProbeEvent, TurnClient, TurnEvent};
use crate::net::{ControlQueue, Datagram};
use crate::random::Random;
use crate::time::earlier;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// All of a session's servers, each asked from the sockets that can reach it.
#[derive(Default)]
pub(super) struct Relays {
    probes: Vec<Asked<StunProbe>>,
    turns: Vec<Asked<TurnClient>>,
    /// Addresses that every relay, also one still to come, shall let through.
    permitted: Vec<IpAddr>,
    complete: bool,
    events: VecDeque<RelayEvent>,
}

/// A client and the socket it speaks through.
struct Asked<T> {
    client: T,
    server: SocketAddr,
    socket: LocalSocket,
    /// It has given its answer, or given up.
    settled: bool,
}

pub(super) enum RelayEvent {
    /// A server sees the socket `base` as `mapped`.
    Reflexive { mapped: SocketAddr, base: SocketAddr },
    /// A relay hands on to the socket `base` what reaches `relayed`.
    Relayed { relayed: SocketAddr, base: SocketAddr },
    /// Something does not work, in words for the log.
    Failed(String),
}

/// A relay does not help twice: the sockets of at most so many addresses ask each server.
const SOCKETS_PER_SERVER: usize = 2;
/// A viewer's candidates are few; further addresses still get through if they send first.
const MAX_PERMITTED: usize = 24;
/// Of what is not media: nothing of ours is larger than an Ethernet frame.
const MAX_CONTROL_LEN: usize = 1500;

impl Relays {
    /// Starts asking `server` at `addr`.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        server: &Server,
        addr: SocketAddr,
        sockets: &[LocalSocket],
        random: &mut Random,
    ) {
        // Loopback reaches nothing else, and nothing else reaches loopback.
        let suitable = |s: &&LocalSocket| {
            s.addr.is_ipv4() == addr.is_ipv4()
                && s.addr.ip().is_loopback() == addr.ip().is_loopback()
        };
        for socket in sockets.iter().filter(suitable).take(SOCKETS_PER_SERVER) {
            let (server_addr, socket, settled) = (addr, *socket, false);
            match &server.kind {
                ServerKind::Stun if is_asked(&self.probes, socket, addr) => {}
                ServerKind::Turn { .. } if is_asked(&self.turns, socket, addr) => {}
                ServerKind::Stun => {
                    let client = StunProbe::new(random.bytes(), now);
                    self.probes.push(Asked { client, server: server_addr, socket, settled });
                }
                ServerKind::Turn { username, credential } => {
                    let mut client =
                        TurnClient::new(addr, username, credential, random.bytes(), now);
                    for ip in &self.permitted {
                        client.permit(now, *ip);
                    }
                    self.turns.push(Asked { client, server: server_addr, socket, settled });
                }
            }
        }
    }

    /// No further server will be asked.
    pub(super) fn on_complete(&mut self) {
        self.complete = true;
    }

    /// Whether all servers have answered or failed.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
            && self.probes.iter().all(|p| p.settled)
            && self.turns.iter().all(|t| t.settled)
    }

    /// Lets the viewer's address through all relays, now and later.
    pub(super) fn permit(&mut self, now: Instant, addr: SocketAddr) {
        let ip = addr.ip();
        // Relays give out IPv4 addresses unless asked otherwise (RFC 8656 §7.2), and those reach
        // IPv4 only.
        if ip.is_ipv6() || self.permitted.contains(&ip) || self.permitted.len() >= MAX_PERMITTED {
            return;
        }
        self.permitted.push(ip);
        for turn in &mut self.turns {
            turn.client.permit(now, ip);
        }
    }

    /// Gives the viewer a channel on the relay at `pair.local`, if it is one: four bytes a packet
    /// in place of 36.
    pub(super) fn bind(&mut self, now: Instant, pair: Pair) {
        if let Some(turn) = self.turn_of(pair) {
            turn.client.bind(now, pair.remote);
        }
    }

    /// Takes a datagram that may be from a server. `Ok` is what a peer sent through a relay, with
    /// the relay's address and the peer's; `Err` gives back what was none of ours, or nothing if
    /// it was for the clients here.
    pub(super) fn unwrap<'a>(
        &mut self,
        now: Instant,
        datagram: Datagram<'a>,
    ) -> Result<(SocketAddr, SocketAddr, &'a mut [u8]), Option<Datagram<'a>>> {
        let matches = |socket: &LocalSocket, server: &SocketAddr| {
            socket.id == datagram.socket && *server == datagram.source
        };
        // Both may share one server: a probe takes only answers to its own question.
        if let Some(probe) = self.probes.iter_mut().find(|p| matches(&p.socket, &p.server))
            && probe.client.handle_datagram(datagram.data)
        {
            self.note_events();
            return Err(None);
        }
        if let Some(turn) = self.turns.iter_mut().find(|t| matches(&t.socket, &t.server)) {
            return match turn.client.handle_datagram(now, datagram.data) {
                Received::Data { peer, offset, len } => {
                    let data = datagram.data.get_mut(offset..offset + len).ok_or(None)?;
                    Ok((turn.client.relayed().ok_or(None)?, peer, data))
                }
                Received::Control => {
                    self.note_events();
                    Err(None)
                }
                Received::NotTurn => Err(Some(datagram)),
            };
        }
        Err(Some(datagram))
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for probe in &mut self.probes {
            probe.client.handle_timeout(now);
        }
        for turn in &mut self.turns {
            turn.client.handle_timeout(now);
        }
        self.note_events();
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let probes = self.probes.iter().filter_map(|p| p.client.poll_timeout()).min();
        let turns = self.turns.iter().filter_map(|t| t.client.poll_timeout()).min();
        earlier(probes, turns)
    }

    /// Moves what the clients have to say to their servers to `queue`.
    pub(super) fn flush(&mut self, queue: &mut ControlQueue) {
        let mut out = [0; MAX_CONTROL_LEN];
        for probe in &mut self.probes {
            while let Some(len) = probe.client.poll_transmit(&mut out) {
                queue.push(probe.socket.id, probe.server, out.get(..len).unwrap_or_default());
            }
        }
        for turn in &mut self.turns {
            while let Some(len) = turn.client.poll_transmit(&mut out) {
                queue.push(turn.socket.id, turn.server, out.get(..len).unwrap_or_default());
            }
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<RelayEvent> {
        self.events.pop_front()
    }

    /// One datagram to `pair.remote` by way of the relay at `pair.local`.
    pub(super) fn send(&mut self, pair: Pair, data: &[u8], queue: &mut ControlQueue) {
        let mut out = [0; MAX_CONTROL_LEN + MAX_OVERHEAD];
        if let Some(turn) = self.turn_of(pair)
            && let Some(len) = turn.client.wrap(pair.remote, data, &mut out)
        {
            queue.push(turn.socket.id, turn.server, out.get(..len).unwrap_or_default());
        }
    }

    /// The way of media through the relay at `pair.local`, once the viewer has a channel there.
    pub(super) fn route(&self, pair: Pair) -> Option<Route> {
        let turn = self.turns.iter().find(|t| t.client.relayed() == Some(pair.local))?;
        let channel = turn.client.channel(pair.remote)?;
        Some(Route { socket: turn.socket.id, destination: turn.server, channel: Some(channel) })
    }

    /// Gives all allocations back.
    pub(super) fn close(&mut self, now: Instant) {
        self.probes.clear();
        for turn in &mut self.turns {
            turn.client.close(now);
        }
    }

    fn turn_of(&mut self, pair: Pair) -> Option<&mut Asked<TurnClient>> {
        self.turns.iter_mut().find(|t| t.client.relayed() == Some(pair.local))
    }

    fn note_events(&mut self) {
        for probe in &mut self.probes {
            while let Some(event) = probe.client.poll_event() {
                probe.settled = true;
                if let StunProbeEvent::Mapped(mapped) = event {
                    let base = probe.socket.addr;
                    self.events.push_back(RelayEvent::Reflexive { mapped, base });
                }
            }
        }
        for turn in &mut self.turns {
            while let Some(event) = turn.client.poll_event() {
                let base = turn.socket.addr;
                match event {
                    TurnEvent::Allocated { relayed, mapped } => {
                        turn.settled = true;
                        if let Some(mapped) = mapped {
                            self.events.push_back(RelayEvent::Reflexive { mapped, base });
                        }
                        self.events.push_back(RelayEvent::Relayed { relayed, base });
                    }
                    TurnEvent::Failed { reason } => {
                        turn.settled = true;
                        self.events
                            .push_back(RelayEvent::Failed(format!("{}: {reason}", turn.server)));
                    }
                    TurnEvent::Closed => turn.settled = true,
                    TurnEvent::PeerRefused { peer, code } => {
                        let text = format!("{} refuses to relay to {peer} ({code})", turn.server);
                        self.events.push_back(RelayEvent::Failed(text));
                    }
                    TurnEvent::Permitted { .. } | TurnEvent::ChannelBound { .. } => {}
                }
            }
        }
    }
}

/// One client for each 5-tuple.
fn is_asked<T>(asked: &[Asked<T>], socket: LocalSocket, server: SocketAddr) -> bool {
    asked.iter().any(|a| a.socket.id == socket.id && a.server == server)
}
