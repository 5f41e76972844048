//! One thread between the sockets and the core: it has clients, allocations and sockets of its own.

mod datagrams;
mod streams;
mod tcp_peers;

use super::admission::Admission;
use super::counters::{Counts, TurnCounters};
use super::dtls::Associations;
use super::gather::Gathering;
use super::links::Links;
use super::listeners::Listener;
use super::observers::Observers;
use super::receive::Receiver;
use super::relay::Relay;
use super::relay_sockets::RelaySockets;
use super::sys::{Epoll, Interest, Ready, Waker};
use super::tcp::{Detached, StreamId, Streams};
use crate::stun_turn::connections::ConnectionId;
use crate::stun_turn::core::{Core, Now};
use crate::stun_turn::relays::RelayId;
use crate::stun_turn::traffic::{MAX_ASKED, Traffic};
use crate::tls::Tls;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Inbox, Sender, TryRecvError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::oneshot;

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
    /// Counts how often it has been woken.
    turn: u32,
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
    /// Asks what each of these sessions has relayed through this shard, at most [`MAX_ASKED`] of them.
    Tell {
        sessions: Arc<[String]>,
        answer: oneshot::Sender<Vec<Traffic>>,
    },
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
/// Connections from one listener before the others have their turn.
const MAX_ACCEPTS: usize = 64;

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
            turn: 0,
        })
    }

    /// Until it is told to stop.
    pub(super) fn run(mut self) {
        let mut ready = Ready::new();
        let mut clock = Clock::new();
        let mut gathering = Gathering::new(clock.last.instant);
        loop {
            // From before the last events were served: at most a moment too long.
            let wait =
                self.poll_timeout().map(|at| at.saturating_duration_since(clock.last.instant));
            if let Err(error) = self.epoll.wait(&mut ready, wait) {
                log::error!("TURN stops: waiting for datagrams failed: {error}");
                break;
            }
            let now = clock.now();
            self.turn = self.turn.wrapping_add(1);
            let mut ended = false;
            for token in ready.tokens() {
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
            if let Some(pause) = gathering.pause(now.instant, self.receiver.take_received()) {
                std::thread::sleep(pause);
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
                Ok(Command::Tell { sessions, answer }) => {
                    let core = &self.relay.core;
                    let asked = sessions.iter().take(MAX_ASKED);
                    // Whoever asked may have gone away.
                    let _ = answer.send(asked.map(|name| core.traffic_of(name)).collect());
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

/// Asks the calendar once a second only: for credentials that is enough, and a packet pays for it.
struct Clock {
    last: Now,
    calendar_at: Instant,
}

impl Clock {
    fn new() -> Clock {
        let last = now();
        Clock { last, calendar_at: last.instant }
    }

    #[allow(clippy::disallowed_methods, reason = "this thread is the relay's driver")]
    fn now(&mut self) -> Now {
        let instant = Instant::now();
        if instant.saturating_duration_since(self.calendar_at) < Duration::from_secs(1) {
            self.last.instant = instant;
        } else {
            self.last = now();
            self.calendar_at = self.last.instant;
        }
        self.last
    }
}

/// The server's clock: everything below is told the time.
#[allow(clippy::disallowed_methods, reason = "this thread is the relay's driver")]
pub(super) fn now() -> Now {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), unix_s: unix.as_secs() }
}
