//! Payload through the core: one look-up and a handful of comparisons a packet, and no copy.

use super::core::{Action, Client, Core, CoreStats, Now};
use super::quota::Over;
use super::relays::RelayId;
use sdk_core::wire::stun::attribute as attr;
use sdk_core::wire::stun::{Builder, Class, Message, Method, TransactionId, channel_data};
use std::net::SocketAddr;

/// What goes to a client in front of a peer's payload, and where.
#[derive(Debug, Clone, Copy)]
pub struct ToClient {
    pub client: Client,
    prefix: [u8; MAX_PREFIX],
    prefix_len: usize,
    /// Zeros that follow the payload.
    pub padding: usize,
}

impl ToClient {
    pub fn prefix(&self) -> &[u8] {
        &self.prefix[..self.prefix_len]
    }
}

/// A Data indication's header, an IPv6 peer address, and DATA's own header.
const MAX_PREFIX: usize = 20 + 24 + 4;

impl Core {
    /// ChannelData from a client (RFC 8656 §12.6).
    pub(super) fn channel_to_peer<'d>(
        &mut self,
        now: Now,
        client: Client,
        number: u16,
        payload: &'d [u8],
    ) -> Action<'d> {
        let id = self.sender(client);
        let allocation = id.and_then(|id| self.allocations.get(id));
        match (id, allocation.and_then(|a| a.peer_of(now.instant, number))) {
            (Some(id), Some(peer)) => self.relay_to_peer(now, id, peer, payload, false),
            _ => self.deny(),
        }
    }

    /// A Send indication (RFC 8656 §11.2). Not authenticated, but bound to the 5-tuple.
    pub(super) fn send_to_peer<'d>(
        &mut self,
        now: Now,
        client: Client,
        message: &Message<'d>,
    ) -> Action<'d> {
        let peer = message.get_xor_address(attr::XOR_PEER_ADDRESS);
        let (Some(peer), Some(payload)) = (peer, message.get(attr::DATA)) else {
            self.stats.packets_malformed += 1;
            return Action::None;
        };
        let known = [attr::XOR_PEER_ADDRESS, attr::DATA, attr::DONT_FRAGMENT];
        if message.unknown_required(&known).next().is_some() {
            self.stats.packets_malformed += 1;
            return Action::None;
        }
        let id = self.sender(client);
        let permits =
            |id| self.allocations.get(id).is_some_and(|a| a.permits(now.instant, peer.ip()));
        let Some(id) = id.filter(|id| permits(*id)) else {
            return self.deny();
        };
        // A permission is for all ports of an address, ours too.
        if self.is_listener(peer) {
            return self.deny();
        }
        let dont_fragment = message.get(attr::DONT_FRAGMENT).is_some();
        self.relay_to_peer(now, id, peer, payload, dont_fragment)
    }

    fn relay_to_peer<'d>(
        &mut self,
        now: Now,
        id: usize,
        peer: SocketAddr,
        payload: &'d [u8],
        dont_fragment: bool,
    ) -> Action<'d> {
        let Some(allocation) = self.allocations.get_mut(id).filter(|a| !a.by_tcp) else {
            return self.deny();
        };
        let relay = allocation.relay;
        let Some(socket) = self.relays.get(relay.0 as usize) else { return Action::None };
        if let Err(over) = socket.place.to_peer(now.instant, payload.len()) {
            self.stats.count_capped(over, payload.len());
            return Action::None;
        }
        allocation.bytes_to_peer += payload.len() as u64;
        self.stats.packets_relayed += 1;
        self.stats.bytes_relayed += payload.len() as u64;
        let peer = self.inside(peer, socket.local);
        Action::ToPeer { relay, peer, payload, dont_fragment }
    }

    fn deny<'d>(&mut self) -> Action<'d> {
        self.stats.packets_denied += 1;
        Action::None
    }

    /// A datagram of `len` bytes has come to a relay socket (RFC 8656 §11.3). `None` if the client
    /// does not want to hear from this peer.
    pub fn handle_peer(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: SocketAddr,
        len: usize,
    ) -> Option<ToClient> {
        let socket = self.relays.get(relay.0 as usize)?;
        let id = socket.owner;
        // Another client's relayed address, seen from within, is known by its outside.
        let peer = match peer.ip() == socket.local.ip() && self.shared.is_taken(peer) {
            true => self.outside(peer),
            false => peer,
        };
        let allocation = self.allocations.get_mut(id)?;
        if !allocation.permits(now.instant, peer.ip()) {
            self.stats.packets_denied += 1;
            return None;
        }
        if let Err(over) = socket.place.to_client(now.instant, len) {
            self.stats.count_capped(over, len);
            return None;
        }
        let mut out = ToClient {
            client: allocation.client,
            prefix: [0; MAX_PREFIX],
            prefix_len: channel_data::HEADER_LEN,
            padding: 0,
        };
        match allocation.channel_of(now.instant, peer) {
            Some(number) => {
                let header = channel_data::header(number, u16::try_from(len).ok()?);
                out.prefix[..header.len()].copy_from_slice(&header);
            }
            None => {
                // Nobody answers an indication, so its id needs only to differ.
                let mut transaction = [0; 12];
                transaction[..8].copy_from_slice(&self.stats.packets_relayed.to_be_bytes());
                let id = TransactionId(transaction);
                (out.prefix_len, out.padding) =
                    Builder::new(&mut out.prefix, Class::Indication, Method::DATA, id)
                        .xor_address(attr::XOR_PEER_ADDRESS, peer)
                        .finish_before_value(attr::DATA, len)?;
            }
        }
        allocation.bytes_to_client += len as u64;
        self.stats.packets_relayed += 1;
        self.stats.bytes_relayed += len as u64;
        Some(out)
    }
}

impl CoreStats {
    fn count_capped(&mut self, over: Over, bytes: usize) {
        self.packets_capped += 1;
        self.bytes_capped += bytes as u64;
        self.packets_capped_by_node += u64::from(over == Over::Node);
    }
}
