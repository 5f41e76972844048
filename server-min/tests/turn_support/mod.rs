//! A core in virtual time, and clients that speak to it without sockets.

#![allow(dead_code, reason = "each test binary uses its part")]

use sdk_core::wire::stun::attribute as attr;
use sdk_core::wire::stun::{
    Builder, Class, Message, Method, TransactionId, channel_data, long_term_key,
};
use server_min::stun_turn::core::{Action, Client, Core, Now};
use server_min::stun_turn::{
    MAX_REPLY_LEN, Opened, RelayId, RelayPorts, Shared, TurnConfig, password_for,
};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const UNIX_START_S: u64 = 1_800_000_000;
pub(crate) const SECRET: &[u8] = b"secret";

pub(crate) struct Lab {
    pub(crate) core: Core,
    pub(crate) shared: Arc<Shared>,
    pub(crate) ports: FakePorts,
    pub(crate) now: Now,
    transactions: u64,
}

/// Sockets that are only names.
#[derive(Default)]
pub(crate) struct FakePorts {
    pub(crate) open: HashMap<SocketAddr, RelayId>,
    /// Taken by another program.
    pub(crate) taken: Vec<SocketAddr>,
    pub(crate) taken_by_tcp: Vec<SocketAddr>,
}

impl RelayPorts for FakePorts {
    fn open(&mut self, id: RelayId, address: SocketAddr) -> Opened {
        if self.taken.contains(&address) || self.open.contains_key(&address) {
            return Opened::Taken;
        }
        assert!(self.open.values().all(|other| *other != id), "{id:?} is open already");
        self.open.insert(address, id);
        Opened::Here
    }

    fn close(&mut self, id: RelayId) {
        let before = self.open.len();
        self.open.retain(|_, other| *other != id);
        assert_eq!(self.open.len() + 1, before, "{id:?} was not open");
    }

    fn listen(&mut self, id: RelayId, address: SocketAddr) -> Opened {
        assert_eq!(self.open.get(&address), Some(&id));
        if self.taken_by_tcp.contains(&address) { Opened::Taken } else { Opened::Here }
    }
}

/// One 5-tuple with credentials.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) client: Client,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) nonce: Vec<u8>,
}

impl User {
    /// With time-limited credentials for an hour.
    pub(crate) fn of_session(session: &str, address: &str) -> User {
        let username = format!("{}:{session}", UNIX_START_S + 3600);
        let password = password_for(SECRET, &username);
        User {
            client: Client { listener: 0, address: address.parse().unwrap() },
            username,
            password,
            nonce: Vec::new(),
        }
    }
}

/// An answer, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    /// 0 for success.
    pub(crate) code: u16,
}

impl Answer {
    pub(crate) fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).unwrap()
    }

    pub(crate) fn relayed(&self) -> SocketAddr {
        self.message().get_xor_address(attr::XOR_RELAYED_ADDRESS).unwrap()
    }

    pub(crate) fn lifetime_s(&self) -> u32 {
        self.message().get_u32(attr::LIFETIME).unwrap()
    }
}

/// Peers, and the relay itself, have addresses of documentation, which are denied unless allowed.
pub(crate) fn config() -> TurnConfig {
    let peers = ["192.0.2.0/24", "198.51.100.0/22", "203.0.113.0/24", "2001:db8::/32"];
    TurnConfig {
        secrets: vec![SECRET.to_vec()],
        allowed_peers: peers.map(|range| range.parse().unwrap()).to_vec(),
        ..TurnConfig::default()
    }
}

impl Lab {
    pub(crate) fn new(config: TurnConfig) -> Lab {
        Lab::listening(config, &["192.0.2.1:3478", "[2001:db8::1]:3478"])
    }

    pub(crate) fn listening(config: TurnConfig, listeners: &[&str]) -> Lab {
        Lab::shards(config, listeners, 1).remove(0)
    }

    /// Several cores of one relay.
    pub(crate) fn shards(config: TurnConfig, listeners: &[&str], count: u16) -> Vec<Lab> {
        let now = Now { instant: origin(), unix_s: UNIX_START_S };
        let listeners: Vec<_> = listeners.iter().map(|l| l.parse().unwrap()).collect();
        let shared = Arc::new(Shared::new(&config, &listeners, [7; 32], now.instant));
        let shard = |number| Lab {
            core: Core::of_shard(config.clone(), listeners.clone(), shared.clone(), number),
            shared: shared.clone(),
            ports: FakePorts::default(),
            now,
            transactions: 0,
        };
        (0..count).map(shard).collect()
    }

    pub(crate) fn wait(&mut self, duration: Duration) {
        let end = self.now.instant + duration;
        // Stops at each timer on the way, as the data plane does.
        while let Some(at) = self.core.poll_timeout().filter(|at| *at <= end) {
            self.core.handle_timeout(at, &mut self.ports);
        }
        self.now.instant = end;
        self.now.unix_s += duration.as_secs();
    }

    /// Whatever the core answers to these bytes.
    pub(crate) fn raw(&mut self, client: Client, bytes: &[u8]) -> Option<Answer> {
        let mut reply = [0; MAX_REPLY_LEN];
        let action = self.core.handle_client(self.now, client, bytes, &mut self.ports, &mut reply);
        let Action::Reply { len } = action else { return None };
        let bytes = reply[..len].to_vec();
        let message = Message::parse(&bytes).unwrap();
        let code = message.error_code().map_or(0, |error| error.code);
        assert_eq!(message.class() == Class::Error, code != 0);
        Some(Answer { bytes, code })
    }

    /// A request with credentials, once; the nonce of the answer is noted.
    pub(crate) fn once(&mut self, user: &mut User, method: Method, attributes: &[Attr]) -> Answer {
        let id = self.next_id();
        let bytes = request(user, method, id, attributes);
        let answer = self.raw(user.client, &bytes).expect("requests are answered");
        assert_eq!(answer.message().transaction_id(), id);
        if let Some(nonce) = answer.message().get(attr::NONCE) {
            user.nonce = nonce.to_vec();
        } else if answer.code != 400 {
            let key = long_term_key(&user.username, "p2pcam", &user.password);
            assert!(answer.message().has_integrity(&key), "answers are sealed");
        }
        answer
    }

    /// A request as a client makes it: asking for a nonce first where it has none that is good.
    pub(crate) fn call(&mut self, user: &mut User, method: Method, attributes: &[Attr]) -> Answer {
        if user.nonce.is_empty() {
            let bytes = plain(method, self.next_id(), &[udp()]);
            let challenge = self.raw(user.client, &bytes).unwrap();
            assert_eq!(challenge.code, 401);
            user.nonce = challenge.message().get(attr::NONCE).unwrap().to_vec();
        }
        let answer = self.once(user, method, attributes);
        if answer.code == 438 { self.once(user, method, attributes) } else { answer }
    }

    pub(crate) fn allocate(&mut self, user: &mut User) -> Answer {
        self.call(user, Method::ALLOCATE, &[udp()])
    }

    pub(crate) fn permit(&mut self, user: &mut User, address: &str) -> u16 {
        self.call(user, Method::CREATE_PERMISSION, &[peer(address)]).code
    }

    pub(crate) fn bind(&mut self, user: &mut User, number: u16, address: &str) -> u16 {
        self.call(user, Method::CHANNEL_BIND, &[channel(number), peer(address)]).code
    }

    pub(crate) fn refresh(&mut self, user: &mut User, lifetime_s: u32) -> Answer {
        self.call(user, Method::REFRESH, &[lifetime(lifetime_s)])
    }

    /// From a client by channel; where it goes.
    pub(crate) fn send_by_channel(
        &mut self,
        client: Client,
        number: u16,
    ) -> Option<(RelayId, SocketAddr)> {
        let mut bytes = channel_data::header(number, 5).to_vec();
        bytes.extend_from_slice(b"media");
        self.send(client, &bytes)
    }

    /// From a client by Send indication; where it goes.
    pub(crate) fn send_by_indication(
        &mut self,
        client: Client,
        peer: &str,
    ) -> Option<(RelayId, SocketAddr)> {
        let mut buffer = [0; 128];
        let len = Builder::new(&mut buffer, Class::Indication, Method::SEND, self.next_id())
            .xor_address(attr::XOR_PEER_ADDRESS, peer.parse().unwrap())
            .attribute(attr::DATA, b"media")
            .finish()
            .unwrap();
        self.send(client, &buffer[..len])
    }

    /// From a peer to a relayed address; what the client gets.
    pub(crate) fn receive(
        &mut self,
        relayed: SocketAddr,
        peer: &str,
        payload: &[u8],
    ) -> Option<Vec<u8>> {
        let id = *self.ports.open.get(&relayed).expect("the relay socket is open");
        let to = self.core.handle_peer(self.now, id, peer.parse().unwrap(), payload.len())?;
        Some([to.prefix(), payload, &[0; 4][..to.padding]].concat())
    }

    fn send(&mut self, client: Client, bytes: &[u8]) -> Option<(RelayId, SocketAddr)> {
        let mut reply = [0; MAX_REPLY_LEN];
        match self.core.handle_client(self.now, client, bytes, &mut self.ports, &mut reply) {
            Action::None => None,
            Action::ToPeer { relay, peer, payload, .. } => {
                assert_eq!(payload, b"media");
                Some((relay, peer))
            }
            other => panic!("payload is never answered: {other:?}"),
        }
    }

    pub(crate) fn next_id(&mut self) -> TransactionId {
        self.transactions += 1;
        let mut id = [0; 12];
        id[..8].copy_from_slice(&self.transactions.to_be_bytes());
        TransactionId(id)
    }
}

/// One attribute of a request.
#[derive(Clone)]
pub(crate) enum Attr {
    Bytes(u16, Vec<u8>),
    Peer(SocketAddr),
}

pub(crate) fn udp() -> Attr {
    Attr::Bytes(attr::REQUESTED_TRANSPORT, vec![attr::TRANSPORT_UDP, 0, 0, 0])
}

pub(crate) fn tcp() -> Attr {
    Attr::Bytes(attr::REQUESTED_TRANSPORT, vec![attr::TRANSPORT_TCP, 0, 0, 0])
}

pub(crate) fn lifetime(s: u32) -> Attr {
    Attr::Bytes(attr::LIFETIME, s.to_be_bytes().to_vec())
}

pub(crate) fn peer(address: &str) -> Attr {
    Attr::Peer(address.parse().unwrap())
}

pub(crate) fn channel(number: u16) -> Attr {
    Attr::Bytes(attr::CHANNEL_NUMBER, (u32::from(number) << 16).to_be_bytes().to_vec())
}

pub(crate) fn family(family: u8) -> Attr {
    Attr::Bytes(attr::REQUESTED_ADDRESS_FAMILY, vec![family, 0, 0, 0])
}

pub(crate) fn even_port(flags: u8) -> Attr {
    Attr::Bytes(attr::EVEN_PORT, vec![flags])
}

/// Without credentials.
pub(crate) fn plain(method: Method, id: TransactionId, attributes: &[Attr]) -> Vec<u8> {
    let mut buffer = [0; 1500];
    let len = start(&mut buffer, method, id, attributes).finish().unwrap();
    buffer[..len].to_vec()
}

pub(crate) fn request(
    user: &User,
    method: Method,
    id: TransactionId,
    attributes: &[Attr],
) -> Vec<u8> {
    let mut buffer = [0; 1500];
    let key = long_term_key(&user.username, "p2pcam", &user.password);
    let len = start(&mut buffer, method, id, attributes)
        .attribute(attr::USERNAME, user.username.as_bytes())
        .attribute(attr::REALM, b"p2pcam")
        .attribute(attr::NONCE, &user.nonce)
        .integrity(&key)
        .finish()
        .unwrap();
    buffer[..len].to_vec()
}

fn start<'b>(
    buffer: &'b mut [u8],
    method: Method,
    id: TransactionId,
    attributes: &[Attr],
) -> Builder<'b> {
    let builder = Builder::new(buffer, Class::Request, method, id);
    attributes.iter().fold(builder, |builder, attribute| match attribute {
        Attr::Bytes(kind, value) => builder.attribute(*kind, value),
        Attr::Peer(address) => builder.xor_address(attr::XOR_PEER_ADDRESS, *address),
    })
}

/// What virtual time begins with.
pub(crate) fn origin() -> Instant {
    now()
}

pub(crate) fn wait_until(condition: impl Fn() -> bool) {
    let give_up = now() + Duration::from_secs(10);
    while !condition() {
        assert!(now() < give_up, "waited in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[allow(clippy::disallowed_methods, reason = "tests drive clients over real sockets")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
