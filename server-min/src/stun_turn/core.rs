//! The STUN and TURN server without its sockets: it is told the time and each datagram, and says
//! what to send where.
//!
//! Nothing is kept for a client that has not proven who it is. What is kept for the others hangs on
//! their [`Allocation`], and goes with it.

use super::allocation::{Allocation, ReservationToken};
use super::complaints::Complaint;
use super::config::TurnConfig;
use super::connections::{Connection, ConnectionId};
use super::credentials::{Credentials, session_of};
use super::peers::PeerPolicy;
use super::quota::SessionName;
use super::refusals::Refused;
use super::relays::{Relay, RelayId, RelayPorts};
use super::shared::Shared;
use ring::hmac;
use slab::Slab;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// The clocks: one that never jumps, for all timers, and the calendar, for credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub instant: Instant,
    pub unix_s: u64,
}

/// A client's side of its 5-tuple: which of our sockets it talks to, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Client {
    pub listener: u16,
    pub address: SocketAddr,
}

/// What to do with a datagram from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'d> {
    None,
    /// Send the first `len` bytes of the reply buffer back.
    Reply {
        len: usize,
    },
    /// Send the first `len` bytes of the reply buffer back; all that follows, both ways, is the
    /// peer's at the other end of this connection.
    Bound {
        len: usize,
        connection: ConnectionId,
    },
    /// What this message, and its client's stream with it, belongs to lies in another shard.
    OfShard(u16),
    /// Send `payload` from this relay socket.
    ToPeer {
        relay: RelayId,
        peer: SocketAddr,
        payload: &'d [u8],
        dont_fragment: bool,
    },
}

/// What happened to an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoreEvent {
    Created { username: Arc<str>, relayed: SocketAddr },
    Freed { username: Arc<str>, relayed: SocketAddr, bytes_to_peer: u64, bytes_to_client: u64 },
}

/// Running totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CoreStats {
    /// Binding requests answered with an address, and with an error.
    pub bindings_ok: u64,
    pub bindings_refused: u64,
    /// All other requests. The challenge that begins every authentication counts as neither.
    pub requests_ok: u64,
    pub requests_refused: u64,
    /// Those of `requests_refused` with wrong or expired credentials.
    pub requests_unauthorized: u64,
    /// Bindings and others, by their error.
    pub refused: Refused,
    pub allocations_created: u64,
    pub packets_relayed: u64,
    pub bytes_relayed: u64,
    /// Over the bandwidth cap of a session, or of the node.
    pub packets_capped: u64,
    pub bytes_capped: u64,
    /// Those of `packets_capped` that were over the node's.
    pub packets_capped_by_node: u64,
    /// Payload that no permission or channel lets through, or to our own listeners.
    pub packets_denied: u64,
    /// Neither STUN nor ChannelData, or STUN that no client sends.
    pub packets_malformed: u64,
}

pub struct Core {
    pub(super) config: TurnConfig,
    pub(super) policy: PeerPolicy,
    pub(super) credentials: Credentials,
    pub(super) allocations: Slab<Allocation>,
    pub(super) by_client: HashMap<Client, AllocationId>,
    /// Whose datagram was relayed last: frames come in runs.
    last: AllocationId,
    pub(super) relays: Slab<Relay>,
    /// The same for all cores of a relay.
    pub(super) shared: Arc<Shared>,
    pub(super) stats: CoreStats,
    /// By session or static user: one of its relay sockets, which names the next.
    pub(super) sessions: HashMap<SessionName, RelayId>,
    /// The local address of each listener.
    pub(super) listeners: Vec<SocketAddr>,
    /// Which of them are for streams; none unless it was said.
    pub(super) streams: Vec<bool>,
    /// With peers, by TCP.
    pub(super) connections: HashMap<ConnectionId, Connection>,
    pub(super) number: u16,
    pub(super) timers: BTreeSet<(Instant, Timer)>,
    events: VecDeque<CoreEvent>,
    pub(super) random: Random,
}

pub(super) type AllocationId = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Allocation(AllocationId),
    Reservation(ReservationToken),
    Complaints,
}

impl Core {
    /// A core that shares with no other. `listeners` are the local addresses that
    /// [`Client::listener`] counts; `seed` is secret randomness.
    pub fn new(
        config: TurnConfig,
        listeners: Vec<SocketAddr>,
        seed: [u8; 32],
        now: Instant,
    ) -> Core {
        let shared = Arc::new(Shared::new(&config, &listeners, seed, now));
        Core::of_shard(config, listeners, shared, 0)
    }

    /// One of several cores: each has clients of its own, and takes the nonces of all.
    pub fn of_shard(
        config: TurnConfig,
        listeners: Vec<SocketAddr>,
        shared: Arc<Shared>,
        number: u16,
    ) -> Core {
        Core {
            policy: PeerPolicy::new(&config),
            credentials: Credentials::new(
                &config.realm,
                shared.secrets.clone(),
                &config.static_users,
                &shared.secret("nonces", 0),
                shared.started,
            ),
            config,
            allocations: Slab::new(),
            by_client: HashMap::new(),
            last: 0,
            relays: Slab::new(),
            random: Random::new(shared.secret("random", number)),
            shared,
            stats: CoreStats::default(),
            sessions: HashMap::new(),
            listeners,
            streams: Vec::new(),
            connections: HashMap::new(),
            number,
            timers: BTreeSet::new(),
            events: VecDeque::new(),
        }
    }

    /// Says which listeners are for streams. Their clients alone may have peers by TCP.
    pub fn set_streams(&mut self, streams: Vec<bool>) {
        self.streams = streams;
    }

    pub fn stats(&self) -> CoreStats {
        self.stats
    }

    pub fn allocations(&self) -> usize {
        self.allocations.len()
    }

    /// When to call [`handle_timeout`](Core::handle_timeout) next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Frees what has expired, and writes what was to be written later.
    pub fn handle_timeout(&mut self, now: Instant, ports: &mut impl RelayPorts) {
        while let Some(&(at, timer)) = self.timers.first().filter(|(at, _)| *at <= now) {
            match timer {
                Timer::Allocation(id) => self.free(id, ports),
                Timer::Reservation(token) => self.shared.expire(&token),
                Timer::Complaints => self.shared.complaints.flush(now),
            }
            // Freeing has removed it; a timer without its owner must not stop the others.
            self.timers.remove(&(at, timer));
        }
    }

    pub fn poll_event(&mut self) -> Option<CoreEvent> {
        self.events.pop_front()
    }

    pub fn has_allocation(&self, client: Client) -> bool {
        self.by_client.contains_key(&client)
    }

    /// Frees what a client holds whose connection has ended.
    pub fn close_client(&mut self, client: Client, ports: &mut impl RelayPorts) {
        if let Some(&id) = self.by_client.get(&client) {
            self.free(id, ports);
        }
    }

    /// Ends a session, given by its id or by its whole user name: frees all that belongs to it, and lets
    /// it allocate no more, in whatever shard. How many allocations were freed in this one.
    pub fn close_session(&mut self, name: &str, ports: &mut impl RelayPorts) -> usize {
        let before = self.allocations.len();
        let name = session_of(name);
        self.shared.close(name);
        while let Some(&id) = self.sessions.get(name) {
            let owner = self.relays.get(id.0 as usize).map(|relay| relay.owner);
            match owner.filter(|owner| self.allocations.contains(*owner)) {
                Some(owner) => self.free(owner, ports),
                None => self.close_relay(id, ports),
            }
        }
        before - self.allocations.len()
    }

    /// For the log: what a session was refused.
    pub(super) fn complain(&mut self, now: Instant, username: &str, what: Complaint) {
        let flush_at = self.shared.complaints.hear(now, session_of(username), what);
        self.timers.extend(flush_at.map(|at| (at, Timer::Complaints)));
    }

    /// The allocation of whoever sends payload.
    pub(super) fn sender(&mut self, client: Client) -> Option<AllocationId> {
        if self.allocations.get(self.last).is_some_and(|a| a.client == client) {
            return Some(self.last);
        }
        self.last = *self.by_client.get(&client)?;
        Some(self.last)
    }

    pub(super) fn insert(&mut self, allocation: Allocation) -> AllocationId {
        let (client, relay, expires) = (allocation.client, allocation.relay, allocation.expires);
        let (username, relayed) = (allocation.username.clone(), allocation.relayed);
        let id = self.allocations.insert(allocation);
        self.by_client.insert(client, id);
        if let Some(relay) = self.relays.get_mut(relay.0 as usize) {
            relay.owner = id;
        }
        self.timers.insert((expires, Timer::Allocation(id)));
        self.stats.allocations_created += 1;
        self.events.push_back(CoreEvent::Created { username, relayed });
        id
    }

    pub(super) fn extend(&mut self, id: AllocationId, expires: Instant) {
        let Some(allocation) = self.allocations.get_mut(id) else { return };
        self.timers.remove(&(allocation.expires, Timer::Allocation(id)));
        self.timers.insert((expires, Timer::Allocation(id)));
        allocation.expires = expires;
    }

    pub(super) fn free(&mut self, id: AllocationId, ports: &mut impl RelayPorts) {
        let Some(allocation) = self.allocations.try_remove(id) else { return };
        self.by_client.remove(&allocation.client);
        self.timers.remove(&(allocation.expires, Timer::Allocation(id)));
        if allocation.by_tcp {
            self.disconnect_all(id, ports);
        }
        self.close_relay(allocation.relay, ports);
        self.events.push_back(CoreEvent::Freed {
            username: allocation.username,
            relayed: allocation.relayed,
            bytes_to_peer: allocation.bytes_to_peer,
            bytes_to_client: allocation.bytes_to_client,
        });
    }
}

/// Numbers that cannot be guessed, and that are the same again for the same seed.
pub(super) struct Random {
    key: hmac::Key,
    count: u64,
}

impl Random {
    fn new(seed: [u8; 32]) -> Random {
        Random { key: hmac::Key::new(hmac::HMAC_SHA256, &seed), count: 0 }
    }

    pub(super) fn bytes(&mut self) -> [u8; 32] {
        self.count += 1;
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hmac::sign(&self.key, &self.count.to_be_bytes()).as_ref());
        bytes
    }

    pub(super) fn number(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}
