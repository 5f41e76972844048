//! What one client holds: a relayed address, and who may talk through it.

use super::core::Client;
use super::relays::RelayId;
use sdk_core::wire::stun::{LongTermKey, TransactionId};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) struct Allocation {
    pub(super) client: Client,
    pub(super) relay: RelayId,
    /// As told to the client and to peers.
    pub(super) relayed: SocketAddr,
    pub(super) username: Arc<str>,
    pub(super) key: LongTermKey,
    /// Of the Allocate request: the same again is a retransmission.
    pub(super) transaction: TransactionId,
    /// Told with the answer to EVEN-PORT.
    pub(super) reservation: Option<ReservationToken>,
    /// RFC 6062: peers are connected, and no datagram is relayed.
    pub(super) by_tcp: bool,
    pub(super) expires: Instant,
    pub(super) bytes_to_peer: u64,
    pub(super) bytes_to_client: u64,
    permissions: Vec<Permission>,
    channels: Vec<Channel>,
}

pub(super) type ReservationToken = [u8; 8];

struct Permission {
    peer: IpAddr,
    expires: Instant,
}

struct Channel {
    number: u16,
    peer: SocketAddr,
    expires: Instant,
}

/// Why a channel or permission is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// The number or the peer is bound otherwise already (RFC 8656 §12.2).
    Conflict,
    TooMany,
}

/// RFC 8656 §9.
const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
/// RFC 8656 §12.
const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);
/// So few are searched faster than hashed, and bound what a client can make us keep.
const MAX_PERMISSIONS: usize = 64;
const MAX_CHANNELS: usize = 32;

impl Allocation {
    #[allow(clippy::too_many_arguments, reason = "the fields that differ, once")]
    pub(super) fn new(
        client: Client,
        relay: RelayId,
        relayed: SocketAddr,
        username: Arc<str>,
        key: LongTermKey,
        transaction: TransactionId,
        expires: Instant,
    ) -> Allocation {
        Allocation {
            client,
            relay,
            relayed,
            username,
            key,
            transaction,
            reservation: None,
            by_tcp: false,
            expires,
            bytes_to_peer: 0,
            bytes_to_client: 0,
            permissions: Vec::new(),
            channels: Vec::new(),
        }
    }

    pub(super) fn permits(&self, now: Instant, peer: IpAddr) -> bool {
        self.permissions.iter().any(|p| p.peer == peer && now < p.expires)
    }

    pub(super) fn channel_of(&self, now: Instant, peer: SocketAddr) -> Option<u16> {
        self.channels.iter().find(|c| c.peer == peer && now < c.expires).map(|c| c.number)
    }

    pub(super) fn peer_of(&self, now: Instant, number: u16) -> Option<SocketAddr> {
        self.channels.iter().find(|c| c.number == number && now < c.expires).map(|c| c.peer)
    }

    /// Installs or refreshes permissions for all of these addresses, or for none.
    pub(super) fn permit(&mut self, now: Instant, peers: &[IpAddr]) -> Result<(), Denied> {
        self.permissions.retain(|p| now < p.expires);
        let is_new = |peer: &&IpAddr| !self.permissions.iter().any(|p| p.peer == **peer);
        if self.permissions.len() + peers.iter().filter(is_new).count() > MAX_PERMISSIONS {
            return Err(Denied::TooMany);
        }
        let expires = now + PERMISSION_LIFETIME;
        for &peer in peers {
            match self.permissions.iter_mut().find(|p| p.peer == peer) {
                Some(permission) => permission.expires = expires,
                None => push(&mut self.permissions, Permission { peer, expires }),
            }
        }
        Ok(())
    }

    /// Binds a channel, or refreshes it, and its peer's permission with it.
    pub(super) fn bind(
        &mut self,
        now: Instant,
        number: u16,
        peer: SocketAddr,
    ) -> Result<(), Denied> {
        self.channels.retain(|c| now < c.expires);
        let existing = self.channels.iter().position(|c| c.number == number || c.peer == peer);
        match existing.map(|i| (i, &self.channels[i])) {
            Some((_, c)) if c.number != number || c.peer != peer => return Err(Denied::Conflict),
            None if self.channels.len() >= MAX_CHANNELS => return Err(Denied::TooMany),
            _ => {}
        }
        self.permit(now, &[peer.ip()])?;
        let expires = now + CHANNEL_LIFETIME;
        match existing {
            Some(i) => self.channels[i].expires = expires,
            None => push(&mut self.channels, Channel { number, peer, expires }),
        }
        Ok(())
    }
}

/// Room for one, then for two, four and so on: most allocations have one channel and two permissions,
/// and a vector of its own accord begins with four.
fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len().max(1));
    }
    list.push(item);
}
