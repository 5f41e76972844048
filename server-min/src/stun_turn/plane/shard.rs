//! One thread between the sockets and the core: it has clients, allocations and sockets of its own.

use super::admission::Admission;
use super::counters::{Counts, TurnCounters};
use super::dtls::Associations;
use super::framing::{self, Frame};
use super::links::{LinkEvent, Links};
use super::listeners::Listener;
use super::observers::Observers;
use super::receive::Receiver;
use super::relay::{Outcome, Relay};
use super::relay_sockets::RelaySockets;
use super::sys::{Epoll, Interest, Waker};
use super::tcp::{Detached, Received, StreamId, Streams};
use super::tls::Tls as TlsStream;
use crate::stun_turn::answers::MAX_REPLY_LEN;
use crate::stun_turn::connections::{ConnectionId, Direction};
use crate::stun_turn::core::{Client, Core, Now};
use crate::stun_turn::relays::RelayId;
use crate::tls::Tls;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Inbox, Sender, TryRecvError};
use std::time::{Duration, Instant, SystemTime};

pub(super) struct Shard {
    epoll: Rc<Epoll>,
    relay: Relay,
    listeners: Rc<[Listener]>,
    streams: Streams,
    /// `None` where DTLS is not served.
    associations: Option<Associations>,
    tls: Option<Tls>,
    /// When to accept again after the process had no file left for a connection.
    accept_again: Option<Instant>,
    inbox: Inbox<Command>,
    siblings: Arc<[Remote]>,
    waker: Arc<Waker>,
    observers: Observers,
    counters: Arc<TurnCounters>,
    published: Counts,
    receiver: Receiver,
}

/// All that a shard is made of.
pub(super) struct Parts {
    pub(super) core: Core,
    pub(super) listeners: Vec<Listener>,
    pub(super) tls: Option<Tls>,
    /// Makes the cookies of DTLS, as in all shards.
    pub(super) cookie_secret: [u8; 32],
    pub(super) started: Instant,
    pub(super) admission: Arc<Admission>,
    pub(super) inbox: Inbox<Command>,
    /// All shards, by their numbers.
    pub(super) siblings: Arc<[Remote]>,
    pub(super) waker: Arc<Waker>,
    pub(super) observers: Observers,
    pub(super) counters: Arc<TurnCounters>,
}

/// From other threads.
pub(super) enum Command {
    CloseSession(String),
    /// A client's stream that belongs to a peer of this shard's.
    Adopt(Detached),
    /// Ends the thread.
    Stop,
}

/// A shard, as other threads reach it.
pub(super) struct Remote {
    pub(super) commands: Sender<Command>,
    pub(super) waker: Arc<Waker>,
}

impl Remote {
    pub(super) fn send(&self, command: Command) {
        // One that has ended needs no command any more.
        let _ = self.commands.send(command);
        self.waker.wake();
    }
}

const WAKER_TOKEN: u64 = u64::MAX;
const RELAY_TOKENS: u64 = 1 << 32;
const STREAM_TOKENS: u64 = 2 << 32;
const LINK_TOKENS: u64 = 3 << 32;
const PEER_LISTENER_TOKENS: u64 = 4 << 32;
/// Batches from one busy socket before the others have their turn, and connections from one listener.
const MAX_BATCHES: usize = 4;
const MAX_ACCEPTS: usize = 64;
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// What ChannelData over DTLS is padded with: nothing (RFC 8656 §12.5, as over UDP).
const ZEROS: [u8; 4] = [0; 4];

impl Shard {
    pub(super) fn new(parts: Parts) -> io::Result<Shard> {
        let epoll = Rc::new(Epoll::new()?);
        epoll.add(&*parts.waker, WAKER_TOKEN, Interest::Read)?;
        let mut serves_dtls = false;
        for (i, listener) in parts.listeners.iter().enumerate() {
            serves_dtls |= matches!(listener, Listener::Dtls(_));
            listener.watch(&epoll, i)?;
        }
        let associations = match parts.tls.clone().filter(|_| serves_dtls) {
            Some(tls) => {
                let admission = parts.admission.clone();
                let made = Associations::new(tls, parts.cookie_secret, parts.started, admission);
                Some(made.map_err(io::Error::other)?)
            }
            None => None,
        };
        let links = Links::new(epoll.clone(), PEER_LISTENER_TOKENS, LINK_TOKENS);
        let sockets = RelaySockets::new(epoll.clone(), RELAY_TOKENS, links);
        Ok(Shard {
            relay: Relay::new(parts.core, sockets),
            listeners: parts.listeners.into(),
            streams: Streams::new(epoll.clone(), STREAM_TOKENS, parts.admission),
            epoll,
            associations,
            tls: parts.tls,
            accept_again: None,
            inbox: parts.inbox,
            siblings: parts.siblings,
            waker: parts.waker,
            observers: parts.observers,
            counters: parts.counters,
            published: Counts::default(),
            receiver: Receiver::new(),
        })
    }

    /// Until it is told to stop.
    pub(super) fn run(mut self) {
        let mut tokens = Vec::new();
        loop {
            let wait = self.poll_timeout().map(|at| at.saturating_duration_since(now().instant));
            if let Err(error) = self.epoll.wait(&mut tokens, wait) {
                log::error!("TURN stops: waiting for datagrams failed: {error}");
                break;
            }
            let now = now();
            let mut ended = false;
            for &token in &tokens {
                match token {
                    WAKER_TOKEN => ended |= self.on_wake(now),
                    token if token >= PEER_LISTENER_TOKENS => {
                        let id = RelayId((token - PEER_LISTENER_TOKENS) as u32);
                        self.on_peer_listener(now, id);
                    }
                    token if token >= LINK_TOKENS => {
                        self.on_link(now, ConnectionId((token - LINK_TOKENS) as u32));
                    }
                    token if token >= STREAM_TOKENS => {
                        self.on_stream(now, (token - STREAM_TOKENS) as StreamId);
                    }
                    token if token >= RELAY_TOKENS => {
                        self.on_relay(now, RelayId((token - RELAY_TOKENS) as u32));
                    }
                    listener => self.on_listener(now, listener as usize),
                }
            }
            self.handle_timeout(now);
            self.report();
            if ended {
                break;
            }
        }
    }

    /// Whether it was the last time.
    fn on_wake(&mut self, now: Now) -> bool {
        self.waker.clear();
        loop {
            match self.inbox.try_recv() {
                Ok(Command::CloseSession(name)) => {
                    let count = self.relay.core.close_session(&name, &mut self.relay.sockets);
                    if count > 0 {
                        log::info!("sessionId={name} closed: {count} TURN allocations freed");
                    }
                }
                Ok(Command::Adopt(stream)) => {
                    if let Some(id) = self.streams.adopt(now.instant, stream) {
                        self.on_stream(now, id);
                    }
                }
                Err(TryRecvError::Empty) => return false,
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return true,
            }
        }
    }

    fn on_listener(&mut self, now: Now, index: usize) {
        let listeners = self.listeners.clone();
        match listeners.get(index) {
            Some(Listener::Udp(socket)) => self.on_udp(now, index, socket),
            Some(Listener::Dtls(socket)) => self.on_dtls(now, index, socket),
            Some(Listener::Tcp(listener)) => self.accept(now, index, listener, None),
            Some(Listener::Tls(listener)) => {
                let tls = self.tls.clone();
                self.accept(now, index, listener, tls.as_ref());
            }
            None => {}
        }
    }

    fn on_udp(&mut self, now: Now, index: usize, listener: &UdpSocket) {
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
    fn on_dtls(&mut self, now: Now, index: usize, listener: &UdpSocket) {
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

    fn accept(&mut self, now: Now, index: usize, listener: &TcpListener, tls: Option<&Tls>) {
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
            // With the certificate as it is now.
            let tls = match tls.map(|tls| TlsStream::new(tls.server())).transpose() {
                Ok(tls) => tls,
                Err(error) => {
                    log::error!("TURN over TLS cannot be set up: {error}");
                    continue;
                }
            };
            let client = Client { listener: index as u16, address };
            self.streams.open(now.instant, socket, client, tls);
        }
    }

    fn watch_accepting(&mut self, interest: Interest) {
        for (i, listener) in self.listeners.iter().enumerate() {
            if let Listener::Tcp(socket) | Listener::Tls(socket) = listener
                && let Err(error) = self.epoll.set(socket, i as u64, interest)
            {
                log::error!("TURN cannot watch for connections: {error}");
            }
        }
    }

    fn on_stream(&mut self, now: Now, id: StreamId) {
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
    fn serve(&mut self, now: Now, id: StreamId, received: &Received, arena: &[u8]) {
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

    fn close_stream(&mut self, id: StreamId) {
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
    fn give_away(&mut self, id: StreamId, number: u16, rest: &[u8]) {
        let Some(sibling) = self.siblings.get(usize::from(number)) else {
            return self.close_stream(id);
        };
        if let Some(stream) = self.streams.detach(id, rest) {
            sibling.send(Command::Adopt(stream));
        }
    }

    fn on_relay(&mut self, now: Now, id: RelayId) {
        for _ in 0..MAX_BATCHES {
            // Closed by an event before this one.
            let Some(socket) = self.relay.sockets.get(id) else { return };
            self.receiver.receive(&socket.socket);
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

    /// A peer by TCP is at a relayed address.
    fn on_peer_listener(&mut self, now: Now, id: RelayId) {
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
    fn on_link(&mut self, now: Now, id: ConnectionId) {
        let mut arena = self.streams.take_arena();
        let event = self.relay.sockets.links.on_ready(id, &mut arena);
        self.on_link_event(now, id, event, &arena);
        self.streams.put_arena(arena);
    }

    fn on_link_event(&mut self, now: Now, id: ConnectionId, event: LinkEvent, arena: &[u8]) {
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

    fn pass_to_peer(&mut self, now: Now, stream: StreamId, peer: ConnectionId, bytes: &[u8]) {
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
    fn balance(&mut self, stream: StreamId, peer: ConnectionId) {
        let links = &mut self.relay.sockets.links;
        links.pause(peer, self.streams.has_backlog(stream));
        self.streams.pause(stream, links.is_slow(peer));
    }

    /// What a client on a stream is told without having asked just now.
    fn tell(&mut self, client: Client, message: &[u8]) {
        if let Some(id) = self.streams.id_of(client) {
            self.streams.answer(id, message);
            self.streams.flush();
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let associations = self.associations.as_ref().and_then(Associations::poll_timeout);
        let timers = [
            self.relay.core.poll_timeout(),
            self.streams.poll_timeout(),
            self.relay.sockets.links.poll_timeout(),
            associations,
            self.accept_again,
        ];
        timers.into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Now) {
        let relay = &mut self.relay;
        relay.core.handle_timeout(now.instant, &mut relay.sockets);
        self.handle_links(now);
        if self.accept_again.is_some_and(|at| at <= now.instant) {
            self.accept_again = None;
            self.watch_accepting(Interest::Read);
        }
        loop {
            let core = &self.relay.core;
            let expired = self.streams.poll_expired(now.instant, |c| core.has_allocation(c));
            let Some(id) = expired else { break };
            self.close_stream(id);
        }
        let Some(associations) = &mut self.associations else { return };
        loop {
            let (relay, listeners) = (&mut self.relay, &self.listeners);
            let mut again = Vec::new();
            let core = &relay.core;
            let expired = associations.poll_expired(
                now.instant,
                |client| core.has_allocation(client),
                |client, datagram| again.push((client, datagram.to_vec())),
            );
            for (client, datagram) in again {
                if let Some(Listener::Dtls(l)) = listeners.get(usize::from(client.listener)) {
                    relay.send(&[], l.as_raw_fd(), client.address, &datagram, 0..0, 0);
                }
            }
            relay.flush(&[]);
            let Some(client) = expired else { break };
            relay.close_client(client);
        }
    }

    fn handle_links(&mut self, now: Now) {
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

    fn report(&mut self) {
        while let Some(event) = self.relay.core.poll_event() {
            self.observers.tell(event);
        }
        let associations = self.associations.as_ref();
        let counts = Counts {
            core: self.relay.core.stats(),
            allocations: self.relay.core.allocations() as u64,
            unsent: self.relay.dropped() + self.streams.dropped(),
            connections: (self.streams.len() + associations.map_or(0, Associations::len)) as u64,
            connections_refused: self.streams.refused()
                + associations.map_or(0, Associations::refused),
        };
        self.counters.publish(&self.published, &counts);
        self.published = counts;
    }
}

impl Drop for Shard {
    /// Of what is now, nothing is left; of what has been, the totals are.
    fn drop(&mut self) {
        let gone = Counts { allocations: 0, connections: 0, ..self.published };
        self.counters.publish(&self.published, &gone);
    }
}

impl Listener {
    fn watch(&self, epoll: &Epoll, index: usize) -> io::Result<()> {
        let token = index as u64;
        match self {
            Listener::Udp(socket) | Listener::Dtls(socket) => {
                epoll.add(socket, token, Interest::Read)
            }
            Listener::Tcp(socket) | Listener::Tls(socket) => {
                epoll.add(socket, token, Interest::Read)
            }
        }
    }
}

/// The server's clock: everything below is told the time.
#[allow(clippy::disallowed_methods, reason = "this thread is the relay's driver")]
pub(super) fn now() -> Now {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), unix_s: unix.as_secs() }
}
