//! Peers by TCP (RFC 6062): their sockets, each to be joined with a client's stream. Bytes pass
//! unchanged; a side that is slow makes the other be read from no further, and so does the bandwidth
//! cap.

use super::backlog::{Backlog, is_transient};
use super::listeners::{connect_peer, listen_for_peers};
use super::sys::{Epoll, Interest};
use super::tcp::StreamId;
use crate::stun_turn::connections::{ConnectionId, Direction};
use crate::stun_turn::relays::{Opened, RelayId};
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

pub(super) struct Links {
    epoll: Rc<Epoll>,
    /// Added to a relay's id, or a connection's, to give what epoll says of it.
    listener_tokens: u64,
    link_tokens: u64,
    listeners: HashMap<RelayId, TcpListener>,
    links: HashMap<ConnectionId, Link>,
    timers: BTreeSet<(Instant, ConnectionId)>,
    /// Waiting for their first timer, which needs the time.
    started: Vec<ConnectionId>,
    /// Clients' streams whose peers are gone.
    orphans: Vec<StreamId>,
}

struct Link {
    socket: TcpStream,
    state: State,
    backlog: Backlog,
    check_at: Option<Instant>,
    /// Bytes that went over the bandwidth cap: that way nothing is read until they fit.
    owed_to_peer: usize,
    owed_to_client: usize,
    /// Its client is slow.
    paused: bool,
    /// Its client is gone: it ends when what waits for it was taken.
    finishing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    /// Its client has not brought its stream yet.
    Unbound,
    Bound(StreamId),
}

/// What became of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkEvent {
    Connected,
    /// Never was one.
    Failed,
    /// So many bytes were read for this stream.
    Received(StreamId, usize),
    /// Is over; if it was joined, what was read of it has been passed on.
    Ended(Option<StreamId>),
    Nothing,
}

/// RFC 6062 §5.2 and §5.3: at least 30 s, for the peer's answer and for the client's stream.
const PATIENCE: Duration = Duration::from_secs(30);
/// Until what was over the cap is asked for again.
const CAPPED_FOR: Duration = Duration::from_millis(20);
/// Bytes read with one call.
pub(super) const READ_LEN: usize = 32 * 1024;

impl Links {
    pub(super) fn new(epoll: Rc<Epoll>, listener_tokens: u64, link_tokens: u64) -> Links {
        Links {
            epoll,
            listener_tokens,
            link_tokens,
            listeners: HashMap::new(),
            links: HashMap::new(),
            timers: BTreeSet::new(),
            started: Vec::new(),
            orphans: Vec::new(),
        }
    }

    pub(super) fn listen(&mut self, id: RelayId, address: SocketAddr) -> Opened {
        let token = self.listener_tokens + u64::from(id.0);
        let listening = listen_for_peers(address).and_then(|listener| {
            self.epoll.add(&listener, token, Interest::Read)?;
            Ok(listener)
        });
        match listening {
            Ok(listener) => {
                self.listeners.insert(id, listener);
                Opened::Here
            }
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => Opened::Taken,
            Err(error) => {
                log::warn!("TURN cannot listen on {address}/tcp: {error}");
                Opened::Impossible
            }
        }
    }

    pub(super) fn close(&mut self, id: RelayId) {
        self.listeners.remove(&id);
    }

    /// A peer that has connected to a relayed address.
    pub(super) fn accept(&mut self, id: RelayId) -> Option<(TcpStream, SocketAddr)> {
        match self.listeners.get(&id)?.accept() {
            Ok(accepted) => Some(accepted),
            Err(e) if is_transient(&e) => None,
            Err(error) => {
                // Trying again would turn in circles; the client can still connect its peers.
                log::warn!("TURN accepts no more peers on one of its ports: {error}");
                self.close(id);
                None
            }
        }
    }

    pub(super) fn connect(&mut self, id: ConnectionId, from: SocketAddr, peer: SocketAddr) -> bool {
        connect_peer(from, peer).is_ok_and(|s| self.insert(id, s, State::Connecting))
    }

    /// Keeps a peer that was accepted.
    pub(super) fn add(&mut self, id: ConnectionId, socket: TcpStream) -> bool {
        socket.set_nonblocking(true).is_ok() && self.insert(id, socket, State::Unbound)
    }

    fn insert(&mut self, id: ConnectionId, socket: TcpStream, state: State) -> bool {
        let interest = Interest::of(false, state == State::Connecting);
        if self.epoll.add(&socket, self.link_tokens + u64::from(id.0), interest).is_err() {
            return false;
        }
        let link = Link {
            socket,
            state,
            backlog: Backlog::default(),
            check_at: None,
            owed_to_peer: 0,
            owed_to_client: 0,
            paused: false,
            finishing: false,
        };
        self.links.insert(id, link);
        self.started.push(id);
        true
    }

    /// Joins a link with its client's stream.
    pub(super) fn join(&mut self, id: ConnectionId, stream: StreamId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.state = State::Bound(stream);
            if let Some(at) = link.check_at.take() {
                self.timers.remove(&(at, id));
            }
        }
        self.watch(id);
    }

    /// From the client to its peer.
    pub(super) fn write(&mut self, id: ConnectionId, bytes: &[u8]) {
        if let Some(link) = self.links.get_mut(&id)
            && link.backlog.write(&link.socket, bytes).is_err()
        {
            // The next event tells that it is over.
            link.backlog = Backlog::default();
        }
        self.watch(id);
    }

    /// The socket is ready. What it says is read into `arena`.
    pub(super) fn on_ready(&mut self, id: ConnectionId, arena: &mut [u8]) -> LinkEvent {
        let Some(link) = self.links.get_mut(&id) else { return LinkEvent::Nothing };
        let event = match link.state {
            State::Connecting => match link.socket.take_error() {
                Ok(None) if link.socket.peer_addr().is_ok() => {
                    link.state = State::Unbound;
                    LinkEvent::Connected
                }
                Ok(None) => LinkEvent::Nothing,
                _ => LinkEvent::Failed,
            },
            // It is watched for nothing: this is its end.
            State::Unbound => LinkEvent::Ended(None),
            State::Bound(stream) => link.receive(stream, arena),
        };
        match event {
            LinkEvent::Failed | LinkEvent::Ended(_) => self.remove(id),
            _ => self.watch(id),
        }
        event
    }

    /// Stops reading while the client is slow.
    pub(super) fn pause(&mut self, id: ConnectionId, paused: bool) {
        if let Some(link) = self.links.get_mut(&id).filter(|link| link.paused != paused) {
            link.paused = paused;
            self.watch(id);
        }
    }

    /// Whether the client's stream should not be read from.
    pub(super) fn is_slow(&self, id: ConnectionId) -> bool {
        self.links.get(&id).is_some_and(|link| !link.backlog.is_empty() || link.owed_to_peer > 0)
    }

    /// These bytes were over the cap.
    pub(super) fn owe(
        &mut self,
        now: Instant,
        id: ConnectionId,
        direction: Direction,
        bytes: usize,
    ) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match direction {
            Direction::ToPeer => link.owed_to_peer += bytes,
            Direction::ToClient => link.owed_to_client += bytes,
        }
        self.check_at(id, now + CAPPED_FOR);
        self.watch(id);
    }

    /// The client's stream is gone: the link ends when what waits for it was taken; true if that is
    /// now.
    pub(super) fn finish(&mut self, id: ConnectionId) -> bool {
        let Some(link) = self.links.get_mut(&id) else { return false };
        link.finishing = true;
        if link.backlog.is_empty() {
            self.remove(id);
            return true;
        }
        // A peer that takes nothing any more has as long as one that does not answer.
        self.started.push(id);
        self.watch(id);
        false
    }

    pub(super) fn disconnect(&mut self, id: ConnectionId) {
        if let Some(Link { state: State::Bound(stream), .. }) = self.links.get(&id) {
            self.orphans.push(*stream);
        }
        self.remove(id);
    }

    /// The next stream whose peer is gone.
    pub(super) fn poll_orphan(&mut self) -> Option<StreamId> {
        self.orphans.pop()
    }

    /// Gives those their time that began since this was called last.
    pub(super) fn set_timers(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.started) {
            self.check_at(id, now + PATIENCE);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The next link whose time is over, and whether its peer had answered.
    pub(super) fn poll_expired(
        &mut self,
        now: Instant,
        mut carry: impl FnMut(ConnectionId, Direction, usize) -> bool,
    ) -> Option<(ConnectionId, LinkEvent)> {
        while let Some(&(at, id)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            let Some(link) = self.links.get_mut(&id) else { continue };
            link.check_at = None;
            let event = match link.state {
                State::Connecting => LinkEvent::Failed,
                State::Unbound => LinkEvent::Ended(None),
                State::Bound(_) if link.finishing => LinkEvent::Ended(None),
                State::Bound(stream) => {
                    let (to_peer, to_client) = (link.owed_to_peer, link.owed_to_client);
                    if to_peer > 0 && carry(id, Direction::ToPeer, to_peer) {
                        link.owed_to_peer = 0;
                    }
                    if to_client > 0 && carry(id, Direction::ToClient, to_client) {
                        link.owed_to_client = 0;
                    }
                    if link.owed_to_peer + link.owed_to_client > 0 {
                        self.check_at(id, now + CAPPED_FOR);
                    }
                    self.watch(id);
                    return Some((id, LinkEvent::Received(stream, 0)));
                }
            };
            self.remove(id);
            return Some((id, event));
        }
        None
    }

    fn check_at(&mut self, id: ConnectionId, at: Instant) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if let Some(before) = link.check_at.replace(at) {
            self.timers.remove(&(before, id));
        }
        self.timers.insert((at, id));
    }

    fn remove(&mut self, id: ConnectionId) {
        if let Some(Link { check_at: Some(at), .. }) = self.links.remove(&id) {
            self.timers.remove(&(at, id));
        }
    }

    fn watch(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get(&id) else { return };
        let is_bound = matches!(link.state, State::Bound(_));
        let reads = is_bound && !link.paused && !link.finishing && link.owed_to_client == 0;
        let writes = link.state == State::Connecting || !link.backlog.is_empty();
        let token = self.link_tokens + u64::from(id.0);
        if let Err(error) = self.epoll.set(&link.socket, token, Interest::of(reads, writes)) {
            log::warn!("TURN cannot watch a peer: {error}");
        }
    }
}

impl Link {
    fn receive(&mut self, stream: StreamId, arena: &mut [u8]) -> LinkEvent {
        let ended = LinkEvent::Ended(Some(stream));
        if !self.backlog.is_empty() && self.backlog.flush(&self.socket).is_err() {
            return ended;
        }
        if self.finishing {
            return if self.backlog.is_empty() { ended } else { LinkEvent::Nothing };
        }
        if self.paused || self.owed_to_client > 0 {
            // Not watched for reading: if nothing was to be written, the peer has broken off.
            return match self.socket.take_error() {
                Ok(None) => LinkEvent::Received(stream, 0),
                _ => ended,
            };
        }
        let len = arena.len().min(READ_LEN);
        match (&self.socket).read(&mut arena[..len]) {
            Ok(0) => ended,
            Ok(count) => LinkEvent::Received(stream, count),
            Err(e) if is_transient(&e) => LinkEvent::Received(stream, 0),
            Err(_) => ended,
        }
    }
}
