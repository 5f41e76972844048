//! Relay sockets as the core sees them: which ports are open, for whom, and by which address the
//! world knows them.

use super::allocation::ReservationToken;
use super::connections::ConnectionId;
use super::core::{AllocationId, Client, Core, Timer};
use super::credentials::session_of;
use super::quota::Place;
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

    /// Listens by TCP in the place of a UDP socket that is open. This and the rest are for RFC 6062,
    /// and not for every plane.
    fn listen(&mut self, _id: RelayId, _address: SocketAddr) -> Opened {
        Opened::Impossible
    }

    /// Begins to connect a peer from a relayed address; false if that cannot be.
    fn connect(&mut self, _id: ConnectionId, _from: SocketAddr, _peer: SocketAddr) -> bool {
        false
    }

    /// Closes the connection with a peer, and the client's with it.
    fn disconnect(&mut self, _id: ConnectionId) {}
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
    pub(super) place: Place,
    /// Another one of the same session.
    pub(super) next: Option<RelayId>,
}

const UNOWNED: AllocationId = AllocationId::MAX;
/// RFC 8656 §7.2 suggests at least 30 s.
const RESERVATION_LIFETIME: Duration = Duration::from_secs(30);
/// Ports tried before a client is told that there is none.
const MAX_PORT_TRIES: u32 = 256;

impl Core {
    /// Opens a relay socket on some port of the range; on an even one, if asked; for peers by TCP, if
    /// asked.
    pub(super) fn open_relay(
        &mut self,
        ip: IpAddr,
        even: bool,
        by_tcp: bool,
        place: Place,
        ports: &mut impl RelayPorts,
    ) -> Option<RelayId> {
        let (min, max) = (u32::from(self.config.min_port), u32::from(self.config.max_port));
        let step = if even { 2 } else { 1 };
        let first = if even { min.next_multiple_of(2) } else { min };
        let count = (max + 1).checked_sub(first)?.div_ceil(step);
        let start = self.random.number().checked_rem(count)?;
        for i in 0..count.min(MAX_PORT_TRIES) {
            let port = u16::try_from(first + (start + i) % count * step).ok()?;
            let local = SocketAddr::new(ip, port);
            if !self.shared.take(local) {
                continue;
            }
            match self.open_socket(local, by_tcp, ports) {
                Opened::Here => return self.keep_relay(local, place),
                Opened::Taken => {}
                Opened::Impossible => return None,
            }
        }
        None
    }

    /// Holds the port next to `relay` for whoever brings the token.
    pub(super) fn reserve_next(
        &mut self,
        now: Instant,
        relay: RelayId,
        place: Place,
        ports: &mut impl RelayPorts,
    ) -> Option<ReservationToken> {
        let local = self.relays.get(relay.0 as usize)?.local;
        let port = local.port().checked_add(1).filter(|port| *port <= self.config.max_port)?;
        let next = SocketAddr::new(local.ip(), port);
        if !self.shared.take(next) {
            return None;
        }
        // To see that no other program has it.
        if self.open_socket(next, false, ports) != Opened::Here {
            return None;
        }
        ports.close(self.next_relay()?);
        let mut token = ReservationToken::default();
        token.copy_from_slice(&self.random.bytes()[..8]);
        let expires = now + RESERVATION_LIFETIME;
        self.shared.reserve(token, next, place, expires);
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
        let (local, place) = self.shared.claim(token, session_of(username), now)?;
        match self.open_socket(local, false, ports) {
            Opened::Here => self.keep_relay(local, place),
            Opened::Taken | Opened::Impossible => None,
        }
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

    /// Opens a port that is marked as ours already, for [`keep_relay`](Core::keep_relay); where that
    /// fails, it no longer is.
    fn open_socket(
        &mut self,
        local: SocketAddr,
        by_tcp: bool,
        ports: &mut impl RelayPorts,
    ) -> Opened {
        let opened = self.next_relay().map_or(Opened::Impossible, |id| {
            let opened = ports.open(id, local);
            if !by_tcp || opened != Opened::Here {
                return opened;
            }
            // It may be free for one and not for the other.
            let opened = ports.listen(id, local);
            if opened != Opened::Here {
                ports.close(id);
            }
            opened
        });
        if opened != Opened::Here {
            self.shared.give_back(local);
        }
        opened
    }

    /// The id of what is kept next.
    fn next_relay(&self) -> Option<RelayId> {
        u32::try_from(self.relays.vacant_key()).ok().map(RelayId)
    }

    fn keep_relay(&mut self, local: SocketAddr, place: Place) -> Option<RelayId> {
        let id = self.next_relay()?;
        let next = self.sessions.insert(place.name.clone(), id);
        self.relays.insert(Relay { local, owner: UNOWNED, place, next });
        Some(id)
    }

    pub(super) fn close_relay(&mut self, id: RelayId, ports: &mut impl RelayPorts) {
        let Some(relay) = self.relays.try_remove(id.0 as usize) else { return };
        self.unlink(id, &relay);
        self.shared.give_back(relay.local);
        ports.close(id);
    }

    /// Takes a relay socket out of its session's chain, which is as short as the quota.
    fn unlink(&mut self, id: RelayId, relay: &Relay) {
        let session = relay.place.name.session();
        let Some(first) = self.sessions.get_mut(session) else { return };
        if *first != id {
            let mut at = *first;
            while let Some(before) = self.relays.get_mut(at.0 as usize) {
                match before.next {
                    Some(next) if next == id => return before.next = relay.next,
                    Some(next) => at = next,
                    None => return,
                }
            }
            return;
        }
        match relay.next {
            Some(next) => *first = next,
            None => drop(self.sessions.remove(session)),
        }
    }
}
