//! Relay sockets as the core sees them: which ports are open, for whom, and by which address the
//! world knows them.

use super::allocation::ReservationToken;
use super::core::{AllocationId, Client, Core, Timer};
use super::credentials::session_of;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Names a relay socket. Used again after the socket was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayId(pub u32);

/// Opens and closes relay sockets for the core.
pub trait RelayPorts {
    /// Binds a UDP socket.
    fn open(&mut self, id: RelayId, address: SocketAddr) -> Opened;
    fn close(&mut self, id: RelayId);
}

/// What came of opening a relay socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    Here,
    /// The address is in use; another port may do.
    Taken,
    /// No other port will do better: no such address, or no more files.
    Impossible,
}

pub(super) struct Relay {
    /// Where the socket is bound.
    pub(super) local: SocketAddr,
    /// [`UNOWNED`] until an allocation has it.
    pub(super) owner: AllocationId,
}

const UNOWNED: AllocationId = AllocationId::MAX;
/// RFC 8656 §7.2 suggests at least 30 s.
const RESERVATION_LIFETIME: Duration = Duration::from_secs(30);
/// Ports tried before a client is told that there is none.
const MAX_PORT_TRIES: u32 = 256;

impl Core {
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
        for i in 0..count.min(MAX_PORT_TRIES) {
            let port = u16::try_from(first + (start + i) % count * step).ok()?;
            match self.open_relay_at(SocketAddr::new(ip, port), ports) {
                Ok(id) => return Some(id),
                Err(Opened::Taken) => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// Holds the port next to `relay` for whoever brings the token.
    pub(super) fn reserve_next(
        &mut self,
        now: Instant,
        relay: RelayId,
        username: &str,
        ports: &mut impl RelayPorts,
    ) -> Option<ReservationToken> {
        let local = self.relays.get(relay.0 as usize)?.local;
        let port = local.port().checked_add(1).filter(|port| *port <= self.config.max_port)?;
        let next = SocketAddr::new(local.ip(), port);
        if !self.shared.take(next) {
            return None;
        }
        // To see that no other program has it.
        let tried = self.open_taken(next, ports).ok()?;
        self.relays.remove(tried.0 as usize);
        ports.close(tried);
        let mut token = ReservationToken::default();
        token.copy_from_slice(&self.random.bytes()[..8]);
        let expires = now + RESERVATION_LIFETIME;
        self.shared.reserve(token, next, session_of(username), expires);
        self.timers.insert((expires, Timer::Reservation(token)));
        Some(token)
    }

    /// Opens the port that a token stands for; only its own session may have it.
    pub(super) fn claim(
        &mut self,
        now: Instant,
        token: &ReservationToken,
        username: &str,
        ports: &mut impl RelayPorts,
    ) -> Option<RelayId> {
        let local = self.shared.claim(token, session_of(username), now)?;
        self.open_taken(local, ports).ok()
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
                if self.shared.is_taken(local) { local } else { peer }
            }
            _ => peer,
        }
    }

    fn open_relay_at(
        &mut self,
        local: SocketAddr,
        ports: &mut impl RelayPorts,
    ) -> Result<RelayId, Opened> {
        if self.shared.take(local) { self.open_taken(local, ports) } else { Err(Opened::Taken) }
    }

    /// Opens a port that is marked as ours already; where that fails, it no longer is.
    fn open_taken(
        &mut self,
        local: SocketAddr,
        ports: &mut impl RelayPorts,
    ) -> Result<RelayId, Opened> {
        let entry = self.relays.vacant_entry();
        let id = RelayId(u32::try_from(entry.key()).map_err(|_| Opened::Impossible)?);
        match ports.open(id, local) {
            Opened::Here => {
                entry.insert(Relay { local, owner: UNOWNED });
                Ok(id)
            }
            other => {
                self.shared.give_back(local);
                Err(other)
            }
        }
    }

    pub(super) fn close_relay(&mut self, id: RelayId, ports: &mut impl RelayPorts) {
        if let Some(relay) = self.relays.try_remove(id.0 as usize) {
            self.shared.give_back(relay.local);
            ports.close(id);
        }
    }
}
