//! Payload through the core: one look-up and a handful of comparisons a packet, and no copy.

use super::core::{Action, Client, Core, Now};
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
        let Some(&id) = self.by_client.get(&client) else { return Action::None };
        let peer = self.allocations.get(id).and_then(|a| a.peer_of(now.instant, number));
        match peer {
            Some(peer) => self.relay_to_peer(now, id, peer, payload, false),
            None => Action::None,
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
            return Action::None;
        };
        let known = [attr::XOR_PEER_ADDRESS, attr::DATA, attr::DONT_FRAGMENT];
        if message.unknown_required(&known).next().is_some() {
            return Action::None;
        }
        let Some(&id) = self.by_client.get(&client) else { return Action::None };
        if !self.allocations.get(id).is_some_and(|a| a.permits(now.instant, peer.ip())) {
            return Action::None;
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
        let Some(allocation) = self.allocations.get_mut(id) else { return Action::None };
        if !allocation.to_peer.meter.take(now.instant, payload.len(), &self.cap) {
            self.stats.packets_capped += 1;
            return Action::None;
        }
        allocation.to_peer.bytes += payload.len() as u64;
        self.stats.packets_relayed += 1;
        self.stats.bytes_relayed += payload.len() as u64;
        let relay = allocation.relay;
        let peer = match self.relays.get(relay.0 as usize) {
            Some(socket) => self.inside(peer, socket.local),
            None => return Action::None,
        };
        Action::ToPeer { relay, peer, payload, dont_fragment }
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
            return None;
        }
        if !allocation.to_client.meter.take(now.instant, len, &self.cap) {
            self.stats.packets_capped += 1;
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
        allocation.to_client.bytes += len as u64;
        self.stats.packets_relayed += 1;
        self.stats.bytes_relayed += len as u64;
        Some(out)
    }
}
