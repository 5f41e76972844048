//! Requests and their answers: Binding for everybody, the rest for those who prove who they are.

use super::allocation::{Allocation, Denied, ReservationToken};
use super::answers::{
    BAD_REQUEST, FAMILY_MISMATCH, FAMILY_NOT_SUPPORTED, FORBIDDEN, Granted, KNOWN, MISMATCH,
    NO_CAPACITY, Refusal, SESSION_CLOSED, SESSION_QUOTA, TOTAL_QUOTA, TRANSPORT_NOT_SUPPORTED,
    UNKNOWN_ATTRIBUTE, WRONG_CREDENTIALS,
};
use super::complaints::Complaint;
use super::core::{Action, AllocationId, Client, Core, Now};
use super::credentials::{Proven, session_of};
use super::quota::{NoPlace, Place};
use super::relays::RelayPorts;
use sdk_core::wire::stun::attribute as attr;
use sdk_core::wire::stun::{Class, Message, Method, channel_data};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// RFC 8656 §7.2: who asks for less gets this.
const DEFAULT_LIFETIME_S: u32 = 600;
/// Addresses in one CreatePermission.
const MAX_PEERS_AT_ONCE: usize = 32;
impl Core {
    /// Takes a datagram from a client. `reply` has room for
    /// [`MAX_REPLY_LEN`](super::MAX_REPLY_LEN) bytes.
    pub fn handle_client<'d>(
        &mut self,
        now: Now,
        client: Client,
        data: &'d [u8],
        ports: &mut impl RelayPorts,
        reply: &mut [u8],
    ) -> Action<'d> {
        if let Some((number, payload)) = channel_data::parse(data) {
            return self.channel_to_peer(now, client, number, payload);
        }
        let Some(message) = Message::parse(data) else {
            self.stats.packets_malformed += 1;
            return Action::None;
        };
        let answered = match (message.class(), message.method()) {
            (Class::Indication, Method::SEND) => return self.send_to_peer(now, client, &message),
            (Class::Request, Method::CONNECTION_BIND)
                if self.config.tcp_relay && self.is_stream(client) =>
            {
                return self.bind_connection(now, client, &message, reply);
            }
            (Class::Request, Method::BINDING) => self.binding(client, &message, reply),
            (
                Class::Request,
                Method::ALLOCATE
                | Method::REFRESH
                | Method::CREATE_PERMISSION
                | Method::CHANNEL_BIND
                | Method::CONNECT,
            ) => self.authenticated(now, client, &message, ports, reply),
            // RFC 8489 §6.3: unknown methods and stray responses are dropped. Clients keep their
            // NAT's mapping alive by Binding indications.
            (class, method) => {
                if (class, method) != (Class::Indication, Method::BINDING) {
                    self.stats.packets_malformed += 1;
                }
                None
            }
        };
        answered.map_or(Action::None, |len| Action::Reply { len })
    }

    fn binding(&mut self, client: Client, request: &Message<'_>, out: &mut [u8]) -> Option<usize> {
        // MESSAGE-INTEGRITY may be there; nothing here depends on it.
        let outcome = match request.unknown_required(KNOWN).next() {
            Some(_) => Err(UNKNOWN_ATTRIBUTE),
            None => Ok(Granted::Mapped),
        };
        self.answer(client, request, outcome, None, out)
    }

    fn authenticated(
        &mut self,
        now: Now,
        client: Client,
        request: &Message<'_>,
        ports: &mut impl RelayPorts,
        out: &mut [u8],
    ) -> Option<usize> {
        let existing = self.by_client.get(&client).copied();
        let allocation = existing.and_then(|id| self.allocations.get(id));
        let established = allocation.map(|a| (&*a.username, &a.key));
        let proven = self.credentials.prove(now, client.address, request, established);
        let proven = match proven {
            Ok(proven) => proven,
            Err(unproven) => return self.challenge(now, client, request, unproven, out),
        };
        let is_owner = established.is_none_or(|(name, _)| name == proven.username);
        let outcome = match request.method() {
            _ if request.unknown_required(KNOWN).next().is_some() => Err(UNKNOWN_ATTRIBUTE),
            _ if !is_owner => Err(WRONG_CREDENTIALS),
            Method::ALLOCATE => self.allocate(now, client, existing, request, &proven, ports),
            method => match existing {
                None => Err(MISMATCH),
                Some(id) if method == Method::REFRESH => self.refresh(now, id, request, ports),
                Some(id) if method == Method::CREATE_PERMISSION => {
                    self.create_permission(now, id, request)
                }
                Some(id) if method == Method::CONNECT => {
                    match self.connect(now.instant, id, request, ports) {
                        // The answer comes when the peer has answered.
                        Ok(()) => return None,
                        Err(refusal) => Err(refusal),
                    }
                }
                Some(id) => self.channel_bind(now, id, request),
            },
        };
        if let Err(refusal) = outcome {
            log::debug!(
                "sessionId={} TURN refused {:?} of {}: {} {}",
                session_of(&proven.username),
                request.method(),
                client.address,
                refusal.code,
                refusal.phrase
            );
        }
        self.answer(client, request, outcome, Some(&proven.key), out)
    }

    fn allocate(
        &mut self,
        now: Now,
        client: Client,
        existing: Option<AllocationId>,
        request: &Message<'_>,
        proven: &Proven,
        ports: &mut impl RelayPorts,
    ) -> Result<Granted, Refusal> {
        if let Some(id) = existing {
            let transaction = self.allocations.get(id).map(|a| a.transaction);
            return match transaction == Some(request.transaction_id()) {
                true => Ok(Granted::Allocated(id)),
                false => Err(MISMATCH),
            };
        }
        let transport = request.get(attr::REQUESTED_TRANSPORT).ok_or(BAD_REQUEST)?;
        let transport: [u8; 4] = transport.try_into().map_err(|_| BAD_REQUEST)?;
        let by_tcp = match transport[0] {
            attr::TRANSPORT_UDP => false,
            attr::TRANSPORT_TCP if self.config.tcp_relay => true,
            _ => return Err(TRANSPORT_NOT_SUPPORTED),
        };
        // RFC 6062 §5.1.
        let not_for_tcp = [attr::EVEN_PORT, attr::RESERVATION_TOKEN, attr::DONT_FRAGMENT];
        let for_udp = not_for_tcp.into_iter().any(|kind| request.get(kind).is_some());
        if by_tcp && (for_udp || !self.is_stream(client)) {
            return Err(BAD_REQUEST);
        }
        let even_port = request.get(attr::EVEN_PORT);
        let token = request.get(attr::RESERVATION_TOKEN);
        let family = request.get(attr::REQUESTED_ADDRESS_FAMILY);
        if token.is_some() && (even_port.is_some() || family.is_some()) {
            return Err(BAD_REQUEST);
        }
        // RFC 8656 §18.8: the first bit asks for the next port as well.
        let reserve_next = match even_port {
            Some([flags]) => flags & 0x80 != 0,
            Some(_) => return Err(BAD_REQUEST),
            None => false,
        };
        let username: Arc<str> = Arc::from(proven.username.as_str());
        let (relay, next_place) = match token {
            Some(token) => {
                let token: ReservationToken = token.try_into().map_err(|_| BAD_REQUEST)?;
                let relay = self.claim(now.instant, &token, &username, ports);
                (relay.ok_or(NO_CAPACITY)?, None)
            }
            None => {
                let ip = self.relay_ip_for(client, family)?;
                let place = self.place_for(now.instant, &username)?;
                let next_place =
                    reserve_next.then(|| self.place_for(now.instant, &username)).transpose()?;
                let relay = self.open_relay(ip, even_port.is_some(), by_tcp, place, ports);
                (relay.ok_or(NO_CAPACITY)?, next_place)
            }
        };
        let mut reservation = None;
        if let Some(place) = next_place {
            reservation = self.reserve_next(now.instant, relay, place, ports);
            if reservation.is_none() {
                self.close_relay(relay, ports);
                return Err(NO_CAPACITY);
            }
        }
        let Some(local) = self.relays.get(relay.0 as usize).map(|relay| relay.local) else {
            return Err(NO_CAPACITY);
        };
        let lifetime = Duration::from_secs(self.lifetime_s(request).into());
        let mut allocation = Allocation::new(
            client,
            relay,
            self.outside(local),
            username,
            proven.key,
            request.transaction_id(),
            now.instant + lifetime,
        );
        allocation.reservation = reservation;
        allocation.by_tcp = by_tcp;
        Ok(Granted::Allocated(self.insert(allocation)))
    }

    fn place_for(&mut self, now: Instant, username: &Arc<str>) -> Result<Place, Refusal> {
        self.shared.quota.take(username).map_err(|why| match why {
            NoPlace::SessionFull => {
                self.complain(now, username, Complaint::SessionFull);
                SESSION_QUOTA
            }
            NoPlace::RelayFull => {
                self.complain(now, username, Complaint::RelayFull);
                TOTAL_QUOTA
            }
            NoPlace::Closed => SESSION_CLOSED,
        })
    }

    fn refresh(
        &mut self,
        now: Now,
        id: AllocationId,
        request: &Message<'_>,
        ports: &mut impl RelayPorts,
    ) -> Result<Granted, Refusal> {
        let relayed = self.allocations.get(id).map(|a| a.relayed).ok_or(MISMATCH)?;
        if let Some(family) = request.get(attr::REQUESTED_ADDRESS_FAMILY)
            && is_ipv6(family)? != relayed.is_ipv6()
        {
            return Err(FAMILY_MISMATCH);
        }
        if request.get_u32(attr::LIFETIME) == Some(0) {
            self.free(id, ports);
            return Ok(Granted::Lifetime(0));
        }
        let lifetime_s = self.lifetime_s(request);
        self.extend(id, now.instant + Duration::from_secs(lifetime_s.into()));
        Ok(Granted::Lifetime(lifetime_s))
    }

    fn create_permission(
        &mut self,
        now: Now,
        id: AllocationId,
        request: &Message<'_>,
    ) -> Result<Granted, Refusal> {
        let mut peers = [IpAddr::from([0; 4]); MAX_PEERS_AT_ONCE];
        let mut count = 0;
        for attribute in request.attributes().filter(|a| a.kind == attr::XOR_PEER_ADDRESS) {
            let peer = request.decode_xor_address(attribute.value).ok_or(BAD_REQUEST)?;
            self.check_peer(now.instant, id, peer)?;
            *peers.get_mut(count).ok_or(NO_CAPACITY)? = peer.ip();
            count += 1;
        }
        if count == 0 {
            return Err(BAD_REQUEST);
        }
        let allocation = self.allocations.get_mut(id).ok_or(MISMATCH)?;
        allocation.permit(now.instant, &peers[..count]).map_err(denied)?;
        Ok(Granted::Done)
    }

    fn channel_bind(
        &mut self,
        now: Now,
        id: AllocationId,
        request: &Message<'_>,
    ) -> Result<Granted, Refusal> {
        if self.allocations.get(id).is_some_and(|a| a.by_tcp) {
            return Err(BAD_REQUEST);
        }
        let number = request.get_u32(attr::CHANNEL_NUMBER).ok_or(BAD_REQUEST)? >> 16;
        let peer = request.get_xor_address(attr::XOR_PEER_ADDRESS).ok_or(BAD_REQUEST)?;
        // RFC 8656 ends at 0x4FFF; RFC 5766, and coturn's client with it, at 0x7FFF.
        let valid = channel_data::FIRST_CHANNEL..=channel_data::LAST_CHANNEL_RFC5766;
        let number = u16::try_from(number).ok().filter(|n| valid.contains(n)).ok_or(BAD_REQUEST)?;
        self.check_peer(now.instant, id, peer)?;
        if self.is_listener(peer) {
            return Err(FORBIDDEN);
        }
        let allocation = self.allocations.get_mut(id).ok_or(MISMATCH)?;
        allocation.bind(now.instant, number, peer).map_err(denied)?;
        Ok(Granted::Done)
    }

    pub(super) fn check_peer(
        &mut self,
        now: Instant,
        id: AllocationId,
        peer: SocketAddr,
    ) -> Result<(), Refusal> {
        let allocation = self.allocations.get(id).ok_or(MISMATCH)?;
        if allocation.relayed.is_ipv6() != peer.is_ipv6() {
            return Err(FAMILY_MISMATCH);
        }
        if !self.policy.allows(peer.ip()) {
            let username = allocation.username.clone();
            self.complain(now, &username, Complaint::Peer(peer.ip()));
            return Err(FORBIDDEN);
        }
        Ok(())
    }

    /// Whether this is where we listen ourselves. The ports beside may be other clients'.
    pub(super) fn is_listener(&self, peer: SocketAddr) -> bool {
        let is_ours = |ip| peer.ip() == ip || Some(peer.ip()) == self.config.external_ip;
        self.listeners.iter().any(|l| l.port() == peer.port() && is_ours(l.ip()))
    }

    fn relay_ip_for(&self, client: Client, family: Option<&[u8]>) -> Result<IpAddr, Refusal> {
        let ipv6 = family.map_or(Ok(false), is_ipv6)?;
        self.relay_ip(client, ipv6).ok_or(FAMILY_NOT_SUPPORTED)
    }

    pub(super) fn lifetime_s(&self, request: &Message<'_>) -> u32 {
        let wanted = request.get_u32(attr::LIFETIME).unwrap_or(DEFAULT_LIFETIME_S);
        wanted.min(self.config.max_lifetime_s).max(DEFAULT_LIFETIME_S)
    }
}

fn is_ipv6(family: &[u8]) -> Result<bool, Refusal> {
    match family {
        [attr::FAMILY_IPV4, ..] if family.len() == 4 => Ok(false),
        [attr::FAMILY_IPV6, ..] if family.len() == 4 => Ok(true),
        [_, ..] if family.len() == 4 => Err(FAMILY_NOT_SUPPORTED),
        _ => Err(BAD_REQUEST),
    }
}

fn denied(denied: Denied) -> Refusal {
    match denied {
        Denied::Conflict => BAD_REQUEST,
        Denied::TooMany => NO_CAPACITY,
    }
}
