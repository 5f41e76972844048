//! A TURN client over UDP (RFC 8656), told the time: it has no socket and no clock.
//!
//! It owns one 5-tuple. Whatever arrives on that socket from the server goes through
//! [`TurnClient::handle_datagram`]; whatever [`TurnClient::poll_transmit`] writes goes to the
//! server. Everything it keeps for the server is a [`Job`]: one request that is in flight, done
//! until it must be refreshed, or refused.

mod failure;
mod job;
mod probe;
mod responses;
mod transaction;

pub use failure::TurnFailure;
pub use probe::{StunProbe, StunProbeEvent};

use crate::wire::stun::attribute as attr;
use crate::wire::stun::{self, Builder, Class, Message, Method, TransactionId, channel_data};
use job::{Job, Target};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use transaction::{Schedule, TransactionIds};

/// Addresses of remote candidates that may send to us.
pub const MAX_PERMISSIONS: usize = 32;
/// Peers with the short framing; ICE ends up with one.
pub const MAX_CHANNELS: usize = 8;
/// What a Send indication adds to a payload at most: header, peer's IPv6 address, padding.
pub const MAX_OVERHEAD: usize = stun::HEADER_LEN + 24 + 4 + 3;

/// One allocation on one server.
pub struct TurnClient {
    server: SocketAddr,
    username: String,
    password: String,
    /// Known once the server has said its realm.
    auth: Option<Auth>,
    phase: Phase,
    jobs: Vec<Job>,
    events: VecDeque<TurnEvent>,
    ids: TransactionIds,
}

/// What a datagram from the server was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Was for the client itself, or was nothing useful.
    Control,
    /// `peer` sent `data[offset..offset + len]`.
    Data { peer: SocketAddr, offset: usize, len: usize },
    /// Neither STUN nor ChannelData.
    NotTurn,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnEvent {
    /// `relayed` is where peers reach us; `mapped` is our own address as the server sees it.
    Allocated { relayed: SocketAddr, mapped: Option<SocketAddr> },
    /// Datagrams now pass between the relayed address and this address, whatever the port.
    Permitted { peer: IpAddr },
    /// [`TurnClient::channel`] answers from now on.
    ChannelBound { peer: SocketAddr, channel: u16 },
    /// The server lets nothing through to this address. The allocation itself lives on.
    PeerRefused { peer: IpAddr, code: u16 },
    /// There is no allocation, or no longer. Nothing follows.
    Failed { reason: TurnFailure },
    /// [`TurnClient::close`] was answered, or nobody answered it. Nothing follows.
    Closed,
}

struct Auth {
    realm: String,
    nonce: Vec<u8>,
    key: stun::LongTermKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Allocating,
    Allocated {
        relayed: SocketAddr,
    },
    Closing,
    /// Failed or closed.
    Ended,
}

/// What we ask for; servers give at most 3600 s and usually this.
const LIFETIME_S: u32 = 600;
/// Seven sends over 16 s, then 4 s of patience: RFC 8489 §6.2.1 with an RTO of 250 ms, because a
/// relay a quarter of a second away is of no use for live pictures.
const SCHEDULE: Schedule = Schedule { max_sends: 7, last_wait: Duration::from_secs(4) };

impl TurnClient {
    /// Asks `server` for an allocation. `seed` is secret randomness: who guesses transaction ids
    /// can forge answers.
    pub fn new(
        server: SocketAddr,
        username: impl Into<String>,
        password: impl Into<String>,
        seed: [u8; 32],
        now: Instant,
    ) -> TurnClient {
        let mut ids = TransactionIds::new(seed);
        let mut allocation = Job::new(Target::Allocation);
        allocation.start(now, &mut ids);
        TurnClient {
            server,
            username: username.into(),
            password: password.into(),
            auth: None,
            phase: Phase::Allocating,
            jobs: vec![allocation],
            events: VecDeque::new(),
            ids,
        }
    }

    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// Where peers reach us, while the allocation lives.
    pub fn relayed(&self) -> Option<SocketAddr> {
        match self.phase {
            Phase::Allocated { relayed } => Some(relayed),
            _ => None,
        }
    }

    /// Takes a datagram that came from the server's address.
    pub fn handle_datagram(&mut self, now: Instant, data: &[u8]) -> Received {
        if let Some((channel, payload)) = channel_data::parse(data) {
            return match self.peer_of(channel) {
                Some(peer) => {
                    Received::Data { peer, offset: channel_data::HEADER_LEN, len: payload.len() }
                }
                None => Received::Control,
            };
        }
        if !Message::looks_like(data) {
            return Received::NotTurn;
        }
        let Some(message) = Message::parse(data) else { return Received::Control };
        match (message.class(), message.method()) {
            (Class::Indication, Method::DATA) => {
                data_indication(&message).unwrap_or(Received::Control)
            }
            (Class::Success | Class::Error, method) => {
                self.on_response(now, &message, method);
                Received::Control
            }
            _ => Received::Control,
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let ids = &mut self.ids;
        let silence = self.jobs.iter_mut().any(|job| job.on_time(now, &SCHEDULE, ids).is_err());
        match self.phase {
            _ if !silence => {}
            Phase::Closing => self.end(TurnEvent::Closed),
            _ => self.fail(TurnFailure::Timeout),
        }
    }

    /// When to call [`handle_timeout`](TurnClient::handle_timeout) next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.jobs.iter().filter_map(Job::timeout).min()
    }

    /// Writes the next datagram for the server; answers its length. 1200 bytes are enough.
    pub fn poll_transmit(&mut self, out: &mut [u8]) -> Option<usize> {
        let (target, id) =
            self.jobs.iter_mut().find_map(|job| Some((job.target, job.take_due()?)))?;
        self.write_request(target, id, out)
    }

    pub fn poll_event(&mut self) -> Option<TurnEvent> {
        self.events.pop_front()
    }

    /// Lets datagrams from this address through, and keeps it so. May be called before the
    /// allocation is there. `false` if there are too many, or the allocation has ended.
    pub fn permit(&mut self, now: Instant, peer: IpAddr) -> bool {
        let target = Target::Permission(peer);
        if self.jobs.iter().any(|job| job.target == target) {
            return true;
        }
        let count = self.jobs.iter().filter(|j| matches!(j.target, Target::Permission(_))).count();
        count < MAX_PERMISSIONS && self.add(now, target)
    }

    /// Gives `peer` a channel, and with it a permission, and keeps both. `false` as for
    /// [`permit`](TurnClient::permit).
    pub fn bind(&mut self, now: Instant, peer: SocketAddr) -> bool {
        let bound = |job: &Job| matches!(job.target, Target::Channel { peer: p, .. } if p == peer);
        if self.jobs.iter().any(bound) {
            return true;
        }
        let is_channel = |job: &&Job| matches!(job.target, Target::Channel { .. });
        let count = self.jobs.iter().filter(is_channel).count();
        let channel = channel_data::FIRST_CHANNEL + count as u16;
        count < MAX_CHANNELS && self.add(now, Target::Channel { peer, channel })
    }

    /// The peer's channel, once the server has confirmed it. [`channel_data::header`] writes the
    /// four bytes that then go in front of each payload.
    pub fn channel(&self, peer: SocketAddr) -> Option<u16> {
        self.jobs.iter().find_map(|job| match job.target {
            Target::Channel { peer: p, channel } if p == peer && job.confirmed => Some(channel),
            _ => None,
        })
    }

    /// Writes `payload` for `peer` as the server takes it: ChannelData where there is a channel,
    /// otherwise a Send indication. `None` if it does not fit `out`, which should have
    /// [`MAX_OVERHEAD`] bytes more than the payload.
    pub fn wrap(&mut self, peer: SocketAddr, payload: &[u8], out: &mut [u8]) -> Option<usize> {
        let Some(channel) = self.channel(peer) else {
            return Builder::new(out, Class::Indication, Method::SEND, self.ids.next())
                .xor_address(attr::XOR_PEER_ADDRESS, peer)
                .attribute(attr::DATA, payload)
                .finish();
        };
        let len = u16::try_from(payload.len()).ok()?;
        let (header, rest) = out.split_first_chunk_mut::<{ channel_data::HEADER_LEN }>()?;
        *header = channel_data::header(channel, len);
        rest.get_mut(..payload.len())?.copy_from_slice(payload);
        Some(channel_data::HEADER_LEN + payload.len())
    }

    /// Gives the allocation back (RFC 8656 §7: Refresh with lifetime 0).
    pub fn close(&mut self, now: Instant) {
        match self.phase {
            Phase::Allocated { .. } => {
                self.phase = Phase::Closing;
                self.jobs.retain(|job| job.target == Target::Allocation);
                for job in &mut self.jobs {
                    job.start(now, &mut self.ids);
                }
            }
            Phase::Allocating => self.end(TurnEvent::Closed),
            Phase::Closing | Phase::Ended => {}
        }
    }

    fn add(&mut self, now: Instant, target: Target) -> bool {
        let mut job = Job::new(target);
        match self.phase {
            Phase::Allocating => {}
            Phase::Allocated { .. } => job.start(now, &mut self.ids),
            Phase::Closing | Phase::Ended => return false,
        }
        self.jobs.push(job);
        true
    }

    /// A server that was just asked for a channel may use it before its answer arrives.
    fn peer_of(&self, number: u16) -> Option<SocketAddr> {
        self.jobs.iter().find_map(|job| match job.target {
            Target::Channel { peer, channel } if channel == number => Some(peer),
            _ => None,
        })
    }

    fn write_request(&self, target: Target, id: TransactionId, out: &mut [u8]) -> Option<usize> {
        let method = match (target, self.phase) {
            (Target::Allocation, Phase::Allocating) => Method::ALLOCATE,
            (Target::Allocation, _) => Method::REFRESH,
            (Target::Permission(_), _) => Method::CREATE_PERMISSION,
            (Target::Channel { .. }, _) => Method::CHANNEL_BIND,
        };
        let mut request = Builder::new(out, Class::Request, method, id);
        request = match target {
            Target::Allocation if method == Method::ALLOCATE => request
                .attribute(attr::REQUESTED_TRANSPORT, &[attr::TRANSPORT_UDP, 0, 0, 0])
                .u32(attr::LIFETIME, LIFETIME_S),
            Target::Allocation if self.phase == Phase::Closing => request.u32(attr::LIFETIME, 0),
            Target::Allocation => request.u32(attr::LIFETIME, LIFETIME_S),
            Target::Permission(ip) => {
                request.xor_address(attr::XOR_PEER_ADDRESS, SocketAddr::new(ip, 0))
            }
            Target::Channel { peer, channel } => {
                request.channel_number(channel).xor_address(attr::XOR_PEER_ADDRESS, peer)
            }
        };
        match &self.auth {
            None => request.finish(),
            Some(auth) => request
                .attribute(attr::USERNAME, self.username.as_bytes())
                .attribute(attr::REALM, auth.realm.as_bytes())
                .attribute(attr::NONCE, &auth.nonce)
                .integrity(&auth.key)
                .finish(),
        }
    }

    fn fail(&mut self, reason: TurnFailure) {
        let session_id = self.username.split_once(':').map_or("-", |(_, id)| id);
        log::info!("sessionId={session_id} no relay at {}: {reason}", self.server);
        self.end(TurnEvent::Failed { reason });
    }

    fn end(&mut self, event: TurnEvent) {
        self.phase = Phase::Ended;
        self.jobs.clear();
        self.events.push_back(event);
    }
}

fn data_indication(message: &Message<'_>) -> Option<Received> {
    let peer = message.get_xor_address(attr::XOR_PEER_ADDRESS)?;
    let data = message.attributes().find(|a| a.kind == attr::DATA)?;
    Some(Received::Data { peer, offset: data.offset + 4, len: data.value.len() })
}
