//! The STUN and TURN server without its sockets: it is told the time and each datagram, and says
//! what to send where.
//!
//! Nothing is kept for a client that has not proven who it is. What is kept for the others hangs on
//! their [`Allocation`], and goes with it.

use super::allocation::{Allocation, ReservationToken};
use super::bandwidth::Cap;
use super::config::TurnConfig;
use super::credentials::{Credentials, session_of};
use super::peers::PeerPolicy;
use ring::hmac;
use slab::Slab;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The clocks: one that never jumps, for all timers, and the calendar, for credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub instant: Instant,
    pub unix_s: u64,
}

/// A client's side of its 5-tuple: which of our sockets it talks to, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client {
    pub listener: u16,
    pub address: SocketAddr,
}

/// Names a relay socket. Used again after the socket was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayId(pub u32);

/// Opens and closes relay sockets for the core.
pub trait RelayPorts {
    /// Binds a UDP socket. `false` if this address is taken; another one is then tried.
    fn open(&mut self, id: RelayId, address: SocketAddr) -> bool;
    fn close(&mut self, id: RelayId);
}

/// What to do with a datagram from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'d> {
    None,
    /// Send the first `len` bytes of the reply buffer back.
    Reply {
        len: usize,
    },
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
    pub binding_requests: u64,
    /// Requests answered with success, and with an error, Binding included. The challenge that
    /// begins every authentication counts as neither.
    pub requests_ok: u64,
    pub requests_refused: u64,
    pub allocations_created: u64,
    pub packets_relayed: u64,
    pub bytes_relayed: u64,
    /// Over the bandwidth cap.
    pub packets_capped: u64,
}

pub struct Core {
    pub(super) config: TurnConfig,
    pub(super) policy: PeerPolicy,
    pub(super) cap: Cap,
    pub(super) credentials: Credentials,
    pub(super) allocations: Slab<Allocation>,
    pub(super) by_client: HashMap<Client, AllocationId>,
    pub(super) relays: Slab<Relay>,
    /// Where relay sockets are bound.
    pub(super) by_local: HashSet<SocketAddr>,
    pub(super) reservations: HashMap<ReservationToken, RelayId>,
    pub(super) stats: CoreStats,
    /// By session, or static user.
    sessions: HashMap<Box<str>, Session>,
    /// The local address of each listener.
    listeners: Vec<SocketAddr>,
    timers: BTreeSet<(Instant, Timer)>,
    events: VecDeque<CoreEvent>,
    random: Random,
}

pub(super) type AllocationId = usize;

pub(super) struct Relay {
    /// Where the socket is bound.
    pub(super) local: SocketAddr,
    pub(super) owner: Owner,
}

pub(super) enum Owner {
    Allocation(AllocationId),
    /// The odd neighbour of an even port, held for a while (RFC 8656 §7.2).
    Reserved {
        token: ReservationToken,
        session: Box<str>,
        expires: Instant,
    },
}

#[derive(Default)]
struct Session {
    allocations: Vec<AllocationId>,
    reserved: Vec<RelayId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Allocation(AllocationId),
    Reservation(RelayId),
}

/// RFC 8656 §7.2 suggests at least 30 s.
const RESERVATION_LIFETIME: Duration = Duration::from_secs(30);
/// Ports tried before a client is told that there is none.
const MAX_PORT_TRIES: u32 = 256;

impl Core {
    /// `listeners` are the local addresses that [`Client::listener`] counts; `seed` is secret
    /// randomness.
    pub fn new(
        config: TurnConfig,
        listeners: Vec<SocketAddr>,
        seed: [u8; 32],
        now: Instant,
    ) -> Core {
        let mut random = Random::new(seed);
        let nonce_secret = random.bytes();
        Core {
            policy: PeerPolicy {
                allow_loopback: config.allow_loopback_peers,
                allow_private: config.allow_private_peers,
            },
            cap: Cap::new(config.bandwidth_bps, config.bandwidth_burst_bytes),
            credentials: Credentials::new(
                &config.realm,
                &config.secrets,
                &config.static_users,
                &nonce_secret,
                now,
            ),
            config,
            allocations: Slab::new(),
            by_client: HashMap::new(),
            relays: Slab::new(),
            by_local: HashSet::new(),
            reservations: HashMap::new(),
            stats: CoreStats::default(),
            sessions: HashMap::new(),
            listeners,
            timers: BTreeSet::new(),
            events: VecDeque::new(),
            random,
        }
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

    /// Frees what has expired.
    pub fn handle_timeout(&mut self, now: Instant, ports: &mut impl RelayPorts) {
        while let Some(&(at, timer)) = self.timers.first().filter(|(at, _)| *at <= now) {
            match timer {
                Timer::Allocation(id) => self.free(id, ports),
                Timer::Reservation(relay) => self.release(relay, ports),
            }
            // Freeing has removed it; a timer without its owner must not stop the others.
            self.timers.remove(&(at, timer));
        }
    }

    pub fn poll_event(&mut self) -> Option<CoreEvent> {
        self.events.pop_front()
    }

    /// Frees all that belongs to a session, given by its id or by its whole user name; how many
    /// allocations that were.
    pub fn close_session(&mut self, name: &str, ports: &mut impl RelayPorts) -> usize {
        let Some(session) = self.sessions.get_mut(session_of(name)) else { return 0 };
        let (allocations, reserved) =
            (std::mem::take(&mut session.allocations), std::mem::take(&mut session.reserved));
        for &id in &allocations {
            self.free(id, ports);
        }
        for relay in reserved {
            self.release(relay, ports);
        }
        self.sessions.remove(session_of(name));
        allocations.len()
    }

    pub(super) fn has_quota(&self, username: &str, wanted: usize) -> bool {
        let session = self.sessions.get(session_of(username));
        let used = session.map_or(0, |s| s.allocations.len() + s.reserved.len());
        used + wanted <= self.config.allocations_per_session
            && self.relays.len() + wanted <= self.config.allocations_total
    }

    pub(super) fn insert(&mut self, allocation: Allocation) -> AllocationId {
        let (client, relay, expires) = (allocation.client, allocation.relay, allocation.expires);
        let (username, relayed) = (allocation.username.clone(), allocation.relayed);
        let id = self.allocations.insert(allocation);
        self.by_client.insert(client, id);
        if let Some(relay) = self.relays.get_mut(relay.0 as usize) {
            relay.owner = Owner::Allocation(id);
        }
        self.sessions.entry(session_of(&username).into()).or_default().allocations.push(id);
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
        self.close_relay(allocation.relay, ports);
        self.forget(session_of(&allocation.username), |s| s.allocations.retain(|a| *a != id));
        self.events.push_back(CoreEvent::Freed {
            username: allocation.username,
            relayed: allocation.relayed,
            bytes_to_peer: allocation.to_peer.bytes,
            bytes_to_client: allocation.to_client.bytes,
        });
    }

    /// Opens a relay socket on some port of the range; on an even one, if asked.
    pub(super) fn open_relay(
        &mut self,
        ip: IpAddr,
        even: bool,
        ports: &mut impl RelayPorts,
    ) -> Option<RelayId> {
        let (min, max) = (u32::from(self.config.min_port), u32::from(self.config.max_port));
        let step = if even { 2 } else { 1 };
        let first = if even { min.next_multiple_of(2) } else { min };
        let count = (max + 1).checked_sub(first)?.div_ceil(step);
        let start = self.random.number().checked_rem(count)?;
        (0..count.min(MAX_PORT_TRIES)).find_map(|i| {
            let port = first + (start + i) % count * step;
            self.open_relay_at(SocketAddr::new(ip, u16::try_from(port).ok()?), ports)
        })
    }

    /// Opens the relay socket next to `relay` and keeps it for whoever brings the token.
    pub(super) fn reserve_next(
        &mut self,
        now: Instant,
        relay: RelayId,
        username: &str,
        ports: &mut impl RelayPorts,
    ) -> Option<ReservationToken> {
        let local = self.relays.get(relay.0 as usize)?.local;
        let port = local.port().checked_add(1).filter(|port| *port <= self.config.max_port)?;
        let id = self.open_relay_at(SocketAddr::new(local.ip(), port), ports)?;
        let mut token = ReservationToken::default();
        token.copy_from_slice(&self.random.bytes()[..8]);
        let (session, expires) = (session_of(username), now + RESERVATION_LIFETIME);
        self.sessions.entry(session.into()).or_default().reserved.push(id);
        let owner = Owner::Reserved { token, session: session.into(), expires };
        self.relays.get_mut(id.0 as usize)?.owner = owner;
        self.reservations.insert(token, id);
        self.timers.insert((expires, Timer::Reservation(id)));
        Some(token)
    }

    /// Hands a reserved socket out; only its own session may have it.
    pub(super) fn claim(&mut self, token: &ReservationToken, username: &str) -> Option<RelayId> {
        let id = *self.reservations.get(token)?;
        match &self.relays.get(id.0 as usize)?.owner {
            Owner::Reserved { session, .. } if **session == *session_of(username) => {}
            _ => return None,
        }
        self.end_reservation(id);
        Some(id)
    }

    /// Closes a relay socket that has no allocation.
    pub(super) fn release(&mut self, relay: RelayId, ports: &mut impl RelayPorts) {
        self.end_reservation(relay);
        self.close_relay(relay, ports);
    }

    /// The local address to relay from for this client and address family.
    pub(super) fn relay_ip(&self, client: Client, ipv6: bool) -> Option<IpAddr> {
        let fits = |ip: &IpAddr| ip.is_ipv6() == ipv6;
        if !self.config.relay_ips.is_empty() {
            return self.config.relay_ips.iter().copied().find(fits);
        }
        let own = self.listeners.get(usize::from(client.listener)).map(SocketAddr::ip);
        // From the address that the client knows, or else from the most public one.
        own.filter(fits).or_else(|| {
            let all = self.listeners.iter().map(SocketAddr::ip).filter(fits);
            all.min_by_key(|ip| ip.is_loopback())
        })
    }

    /// The address that others know one of our own by.
    pub(super) fn outside(&self, local: SocketAddr) -> SocketAddr {
        match self.config.external_ip {
            Some(ip) if ip.is_ipv4() == local.is_ipv4() && !local.ip().is_loopback() => {
                SocketAddr::new(ip, local.port())
            }
            _ => local,
        }
    }

    /// Undoes [`outside`](Core::outside): two clients of ours meet here and not at a NAT that may
    /// not send back in what came from within.
    pub(super) fn inside(&self, peer: SocketAddr, relay: SocketAddr) -> SocketAddr {
        match self.config.external_ip {
            Some(ip) if ip == peer.ip() => {
                let local = SocketAddr::new(relay.ip(), peer.port());
                if self.by_local.contains(&local) { local } else { peer }
            }
            _ => peer,
        }
    }

    fn open_relay_at(&mut self, local: SocketAddr, ports: &mut impl RelayPorts) -> Option<RelayId> {
        let entry = self.relays.vacant_entry();
        let id = RelayId(u32::try_from(entry.key()).ok()?);
        if !ports.open(id, local) {
            return None;
        }
        // No packet is relayed before `insert` or `reserve_next` names the true owner.
        entry.insert(Relay { local, owner: Owner::Allocation(AllocationId::MAX) });
        self.by_local.insert(local);
        Some(id)
    }

    fn close_relay(&mut self, id: RelayId, ports: &mut impl RelayPorts) {
        if let Some(relay) = self.relays.try_remove(id.0 as usize) {
            self.by_local.remove(&relay.local);
            ports.close(id);
        }
    }

    fn end_reservation(&mut self, relay: RelayId) {
        let Some(entry) = self.relays.get_mut(relay.0 as usize) else { return };
        let unowned = Owner::Allocation(AllocationId::MAX);
        let Owner::Reserved { token, session, expires } =
            std::mem::replace(&mut entry.owner, unowned)
        else {
            return;
        };
        self.reservations.remove(&token);
        self.timers.remove(&(expires, Timer::Reservation(relay)));
        self.forget(&session, |s| s.reserved.retain(|r| *r != relay));
    }

    fn forget(&mut self, session: &str, remove: impl FnOnce(&mut Session)) {
        let Some(entry) = self.sessions.get_mut(session) else { return };
        remove(entry);
        if entry.allocations.is_empty() && entry.reserved.is_empty() {
            self.sessions.remove(session);
        }
    }
}

/// Numbers that cannot be guessed, and that are the same again for the same seed.
struct Random {
    key: hmac::Key,
    count: u64,
}

impl Random {
    fn new(seed: [u8; 32]) -> Random {
        Random { key: hmac::Key::new(hmac::HMAC_SHA256, &seed), count: 0 }
    }

    fn bytes(&mut self) -> [u8; 32] {
        self.count += 1;
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hmac::sign(&self.key, &self.count.to_be_bytes()).as_ref());
        bytes
    }

    fn number(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}
