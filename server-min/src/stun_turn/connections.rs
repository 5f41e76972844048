//! Peers by TCP (RFC 6062): a client on a stream asks for a connection with a peer, or is told of a
//! peer that has connected, and brings a second stream of its own to be joined with it.
//!
//! ```text
//! control stream: Allocate (TCP), Connect or ConnectionAttempt ─→ CONNECTION-ID
//! data stream:    ConnectionBind (CONNECTION-ID) ─→ bytes ←→ the peer's stream
//! ```

use super::answers::{
    BAD_REQUEST, CONNECTION_EXISTS, CONNECTION_FAILED, FORBIDDEN, Granted, KNOWN, MISMATCH,
    NO_CAPACITY, Refusal, UNKNOWN_ATTRIBUTE, WRONG_CREDENTIALS,
};
use super::core::{Action, AllocationId, Client, Core, Now};
use super::relays::{RelayId, RelayPorts};
use sdk_core::wire::stun::attribute as attr;
use sdk_core::wire::stun::{Builder, Class, Message, Method, TransactionId};
use std::net::SocketAddr;
use std::time::Instant;

/// Names a connection with a peer, to the client as well. Its first byte is its shard's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u32);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToPeer,
    ToClient,
}

pub(super) struct Connection {
    allocation: AllocationId,
    peer: SocketAddr,
    state: State,
}

enum State {
    /// The peer has not answered yet; neither has the client's request.
    Connecting {
        request: Box<[u8]>,
    },
    /// Waits for the client's second stream.
    Unbound,
    Bound,
}

/// With peers, of one allocation.
const MAX_CONNECTIONS: usize = 16;
const NUMBER_SHIFT: u32 = 24;

impl ConnectionId {
    fn shard(self) -> u16 {
        (self.0 >> NUMBER_SHIFT) as u16
    }
}

impl Core {
    /// The peer that a client asked for has answered, or has not. Writes the answer to the request.
    pub fn on_connected(
        &mut self,
        id: ConnectionId,
        succeeded: bool,
        reply: &mut [u8],
    ) -> Option<(Client, usize)> {
        let connection = self.connections.get_mut(&id)?;
        let state = std::mem::replace(&mut connection.state, State::Unbound);
        let State::Connecting { request } = state else { return None };
        let allocation = self.allocations.get(connection.allocation)?;
        let (client, key) = (allocation.client, allocation.key);
        let request = Message::parse(&request)?;
        let outcome = if succeeded {
            Ok(Granted::Connected(id))
        } else {
            self.connections.remove(&id);
            Err(CONNECTION_FAILED)
        };
        Some((client, self.answer(client, &request, outcome, Some(&key), reply)?))
    }

    /// A peer has connected to a relayed address. Writes the indication that tells the client; `None`
    /// if the client does not want to hear from this peer.
    pub fn on_attempt(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: SocketAddr,
        indication: &mut [u8],
    ) -> Option<(ConnectionId, Client, usize)> {
        let socket = self.relays.get(relay.0 as usize)?;
        let peer = match peer.ip() == socket.local.ip() && self.shared.is_taken(peer) {
            true => self.outside(peer),
            false => peer,
        };
        let owner = socket.owner;
        let allocation = self.allocations.get(owner)?;
        if !allocation.permits(now.instant, peer.ip()) || !self.has_room_for_connection(owner) {
            self.stats.packets_denied += 1;
            return None;
        }
        let client = allocation.client;
        let id = self.insert_connection(owner, peer, State::Unbound);
        let mut transaction = [0; 12];
        transaction.copy_from_slice(&self.random.bytes()[..12]);
        let transaction = TransactionId(transaction);
        let method = Method::CONNECTION_ATTEMPT;
        let len = Builder::new(indication, Class::Indication, method, transaction)
            .u32(attr::CONNECTION_ID, id.0)
            .xor_address(attr::XOR_PEER_ADDRESS, peer)
            .finish()?;
        Some((id, client, len))
    }

    /// A connection is gone.
    pub fn on_disconnected(&mut self, id: ConnectionId) {
        self.connections.remove(&id);
    }

    /// Counts bytes on their way. False if they are over a bandwidth cap: then ask again, later.
    pub fn carry(
        &mut self,
        now: Instant,
        id: ConnectionId,
        direction: Direction,
        bytes: usize,
    ) -> bool {
        let owner = self.connections.get(&id).map(|connection| connection.allocation);
        let Some(allocation) = owner.and_then(|owner| self.allocations.get_mut(owner)) else {
            return true;
        };
        let Some(relay) = self.relays.get(allocation.relay.0 as usize) else { return true };
        // What was read at once may be more than a small burst holds.
        let counted = bytes.min(self.config.bandwidth_burst_bytes as usize);
        let (outcome, total) = match direction {
            Direction::ToPeer => (relay.place.to_peer(now, counted), &mut allocation.bytes_to_peer),
            Direction::ToClient => {
                (relay.place.to_client(now, counted), &mut allocation.bytes_to_client)
            }
        };
        if outcome.is_ok() {
            *total += bytes as u64;
            self.stats.bytes_relayed += bytes as u64;
        }
        outcome.is_ok()
    }

    /// RFC 6062 §5.2.
    pub(super) fn connect(
        &mut self,
        now: Instant,
        owner: AllocationId,
        request: &Message<'_>,
        ports: &mut impl RelayPorts,
    ) -> Result<(), Refusal> {
        let allocation = self.allocations.get(owner).filter(|a| a.by_tcp).ok_or(MISMATCH)?;
        let relay = allocation.relay;
        let peer = request.get_xor_address(attr::XOR_PEER_ADDRESS).ok_or(BAD_REQUEST)?;
        self.check_peer(now, owner, peer)?;
        if self.is_listener(peer) {
            return Err(FORBIDDEN);
        }
        if self.connections.values().any(|c| c.allocation == owner && c.peer == peer) {
            return Err(CONNECTION_EXISTS);
        }
        if !self.has_room_for_connection(owner) {
            return Err(NO_CAPACITY);
        }
        let local = self.relays.get(relay.0 as usize).ok_or(MISMATCH)?.local;
        let inside = self.inside(peer, local);
        let state = State::Connecting { request: request.bytes().into() };
        let id = self.insert_connection(owner, peer, state);
        if !ports.connect(id, local, inside) {
            self.connections.remove(&id);
            return Err(CONNECTION_FAILED);
        }
        Ok(())
    }

    /// RFC 6062 §5.4, on a stream of its own.
    pub(super) fn bind_connection<'d>(
        &mut self,
        now: Now,
        client: Client,
        request: &Message<'_>,
        out: &mut [u8],
    ) -> Action<'d> {
        let id = request.get_u32(attr::CONNECTION_ID).map(ConnectionId);
        if let Some(id) = id
            && id.shard() != self.number
        {
            return Action::OfShard(id.shard());
        }
        let connection = id.and_then(|id| Some((id, self.connections.get(&id)?)));
        let owner = connection.and_then(|(_, c)| self.allocations.get(c.allocation));
        let established = owner.map(|a| (&*a.username, &a.key));
        let replied = |len: Option<usize>| len.map_or(Action::None, |len| Action::Reply { len });
        let proven = match self.credentials.prove(now, client.address, request, established) {
            Ok(proven) => proven,
            Err(unproven) => return replied(self.challenge(now, client, request, unproven, out)),
        };
        let outcome = match (connection, established) {
            _ if request.unknown_required(KNOWN).next().is_some() => Err(UNKNOWN_ATTRIBUTE),
            (_, Some((name, _))) if name != proven.username => Err(WRONG_CREDENTIALS),
            (Some((id, Connection { state: State::Unbound, .. })), Some(_)) => Ok(id),
            _ => Err(BAD_REQUEST),
        };
        let granted = outcome.map(|_| Granted::Done);
        let len = self.answer(client, request, granted, Some(&proven.key), out);
        let (Ok(id), Some(len)) = (outcome, len) else { return replied(len) };
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.state = State::Bound;
        }
        Action::Bound { len, connection: id }
    }

    pub(super) fn is_stream(&self, client: Client) -> bool {
        self.streams.get(usize::from(client.listener)).copied().unwrap_or(false)
    }

    pub(super) fn disconnect_all(&mut self, owner: AllocationId, ports: &mut impl RelayPorts) {
        self.connections.retain(|id, connection| {
            let stays = connection.allocation != owner;
            if !stays {
                ports.disconnect(*id);
            }
            stays
        });
    }

    fn has_room_for_connection(&self, owner: AllocationId) -> bool {
        let count = self.connections.values().filter(|c| c.allocation == owner).count();
        count < MAX_CONNECTIONS
    }

    fn insert_connection(
        &mut self,
        allocation: AllocationId,
        peer: SocketAddr,
        state: State,
    ) -> ConnectionId {
        let id = loop {
            let low = self.random.number() & ((1 << NUMBER_SHIFT) - 1);
            let id = ConnectionId(u32::from(self.number) << NUMBER_SHIFT | low);
            if !self.connections.contains_key(&id) {
                break id;
            }
        };
        self.connections.insert(id, Connection { allocation, peer, state });
        id
    }
}
