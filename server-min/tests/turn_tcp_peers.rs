//! RFC 6062 over real sockets: peers by TCP, asked for or coming by themselves, joined with a second
//! stream of the client, which may be accepted by another shard than the first.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod turn_support;

use sdk_core::wire::stun::attribute as attr;
use sdk_core::wire::stun::{Message, Method, TransactionId};
use server_min::stun_turn::{TurnConfig, TurnHandle, TurnServer, password_for};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use turn_support::{Attr, User, even_port, lifetime, now, peer, plain, request};

/// A client on a stream, with credentials.
struct Client {
    stream: TcpStream,
    user: User,
}

impl Client {
    fn connect(server: &TurnHandle, session: &str) -> Client {
        let stream = TcpStream::connect(server.local_addrs()[0]).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let username = format!("4102444800:{session}");
        let mut user = User::of_session(session, "127.0.0.1:1");
        user.password = password_for(b"secret", &username);
        user.username = username;
        Client { stream, user }
    }

    /// With a relayed address for peers by TCP.
    fn allocate(server: &TurnHandle, session: &str) -> (Client, SocketAddr) {
        let mut client = Client::connect(server, session);
        let answer = client.call(Method::ALLOCATE, &[tcp()]);
        let relayed = Message::parse(&answer).unwrap().get_xor_address(attr::XOR_RELAYED_ADDRESS);
        (client, relayed.unwrap())
    }

    /// The answer to a request, whatever it is; the nonce is asked for where there is none.
    fn call(&mut self, method: Method, attributes: &[Attr]) -> Vec<u8> {
        if self.user.nonce.is_empty() {
            self.stream.write_all(&plain(method, next_id(), &[tcp()])).unwrap();
            let challenge = self.message();
            let message = Message::parse(&challenge).unwrap();
            assert_eq!(message.error_code().unwrap().code, 401);
            self.user.nonce = message.get(attr::NONCE).unwrap().to_vec();
        }
        let id = next_id();
        self.stream.write_all(&request(&self.user, method, id, attributes)).unwrap();
        let answer = self.message();
        assert_eq!(Message::parse(&answer).unwrap().transaction_id(), id);
        answer
    }

    /// 0 for success.
    fn code(&mut self, method: Method, attributes: &[Attr]) -> u16 {
        let answer = self.call(method, attributes);
        Message::parse(&answer).unwrap().error_code().map_or(0, |error| error.code)
    }

    fn message(&mut self) -> Vec<u8> {
        let mut message = vec![0; 20];
        self.stream.read_exact(&mut message).unwrap();
        let len = usize::from(u16::from_be_bytes([message[2], message[3]]));
        message.resize(20 + len, 0);
        self.stream.read_exact(&mut message[20..]).unwrap();
        message
    }

    /// A connection with a peer that listens.
    fn connect_peer(&mut self, address: SocketAddr) -> Vec<u8> {
        let answer = self.call(Method::CONNECT, &[peer(&address.to_string())]);
        connection_id(&answer).unwrap()
    }
}

/// The client's second stream, joined with the peer's.
fn join(server: &TurnHandle, session: &str, id: &[u8]) -> TcpStream {
    let mut client = Client::connect(server, session);
    let code = client.code(Method::CONNECTION_BIND, &[connection(id)]);
    assert_eq!(code, 0);
    client.stream
}

fn connection_id(message: &[u8]) -> Option<Vec<u8>> {
    Some(Message::parse(message)?.get(attr::CONNECTION_ID)?.to_vec())
}

fn connection(id: &[u8]) -> Attr {
    Attr::Bytes(attr::CONNECTION_ID, id.to_vec())
}

fn tcp() -> Attr {
    Attr::Bytes(attr::REQUESTED_TRANSPORT, vec![attr::TRANSPORT_TCP, 0, 0, 0])
}

#[test]
fn what_is_sent_arrives_whole_even_to_the_slow() {
    let server = start(config());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut control, relayed) = Client::allocate(&server, "a");
    // Four times, so that second streams come to the first one's shard and to others.
    for round in 0..4u8 {
        let id = control.connect_peer(listener.local_addr().unwrap());
        let (mut peer, source) = listener.accept().unwrap();
        assert_eq!(source, relayed);
        // A peer may speak first.
        peer.write_all(b"first").unwrap();
        let mut data = join(&server, "a", &id);
        let mut greeting = [0; 5];
        data.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"first");
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8 ^ round).collect();
        one_way(&mut data, &mut peer, &bytes);
        one_way(&mut peer, &mut data, &bytes);
        // Either end may end it.
        let (first, mut second) = if round % 2 == 0 { (data, peer) } else { (peer, data) };
        drop(first);
        assert!(is_closed(&mut second));
    }
    assert!(server.counters().bytes_relayed.load(Relaxed) >= 4 * 6_000_000);
}

/// The reader begins late: all that is under way must wait, and none of it be lost.
fn one_way(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            let mut got = vec![0; bytes.len()];
            to.read_exact(&mut got).unwrap();
            assert!(got == bytes);
        });
        from.write_all(bytes).unwrap();
    });
}

#[test]
fn peers_that_are_permitted_may_come_by_themselves() {
    let server = start(config());
    let (mut control, relayed) = Client::allocate(&server, "a");
    assert!(is_closed(&mut connect(relayed)), "not permitted");
    assert_eq!(control.code(Method::CREATE_PERMISSION, &[peer("127.0.0.1:9")]), 0);
    let mut caller = connect(relayed);
    let told = control.message();
    let message = Message::parse(&told).unwrap();
    assert_eq!(message.method(), Method::CONNECTION_ATTEMPT);
    assert_eq!(message.get_xor_address(attr::XOR_PEER_ADDRESS), caller.local_addr().ok());
    let id = connection_id(&told).unwrap();
    // Another session's client has no use for it, and its own only once.
    let mut thief = Client::connect(&server, "b");
    let code = thief.code(Method::CONNECTION_BIND, &[connection(&id)]);
    assert!([401, 438, 441].contains(&code), "{code}");
    let mut data = join(&server, "a", &id);
    let mut again = Client::connect(&server, "a");
    assert_eq!(again.code(Method::CONNECTION_BIND, &[connection(&id)]), 400);
    caller.write_all(b"question").unwrap();
    data.write_all(b"answer").unwrap();
    let (mut question, mut answer) = ([0; 8], [0; 6]);
    data.read_exact(&mut question).unwrap();
    caller.read_exact(&mut answer).unwrap();
    assert_eq!((&question, &answer), (b"question", b"answer"));
    // The allocation's end is the end of all.
    assert_eq!(control.code(Method::REFRESH, &[lifetime(0)]), 0);
    assert!(is_closed(&mut caller) && is_closed(&mut data));
    assert!(TcpStream::connect(relayed).is_err(), "nobody listens any more");
}

#[test]
fn a_closed_session_loses_its_peers() {
    let server = start(config());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut control, _) = Client::allocate(&server, "a");
    let id = control.connect_peer(listener.local_addr().unwrap());
    let (mut peer, _) = listener.accept().unwrap();
    let mut data = join(&server, "a", &id);
    server.close_user("a");
    assert!(is_closed(&mut peer) && is_closed(&mut data));
    // As another does when its control connection ends.
    let (mut control, _) = Client::allocate(&server, "b");
    let id = control.connect_peer(listener.local_addr().unwrap());
    let (mut peer, _) = listener.accept().unwrap();
    let mut data = join(&server, "b", &id);
    drop(control);
    assert!(is_closed(&mut peer) && is_closed(&mut data));
}

#[test]
fn what_cannot_be_is_refused() {
    let server = start(config());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (mut control, _) = Client::allocate(&server, "a");
    let to = |address: SocketAddr| [peer(&address.to_string())];
    control.connect_peer(address);
    assert_eq!(control.code(Method::CONNECT, &to(address)), 446);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(control.code(Method::CONNECT, &to(nobody)), 447);
    assert_eq!(control.code(Method::CONNECT, &to(server.local_addrs()[0])), 403, "ourselves");
    assert_eq!(control.code(Method::CONNECT, &to("10.1.2.3:80".parse().unwrap())), 403);
    assert_eq!(control.code(Method::CONNECT, &to("[::1]:80".parse().unwrap())), 443);
    assert_eq!(control.code(Method::CONNECT, &[]), 400);
    let channel = Attr::Bytes(attr::CHANNEL_NUMBER, vec![0x40, 0, 0, 0]);
    let [to_peer] = to(address);
    assert_eq!(control.code(Method::CHANNEL_BIND, &[channel, to_peer]), 400);
    assert_eq!(Client::connect(&server, "a").code(Method::ALLOCATE, &[tcp(), even_port(0)]), 400);
    let unknown = connection(&[0, 1, 2, 3]);
    let mut other = Client::connect(&server, "a");
    assert_eq!(other.code(Method::CONNECTION_BIND, &[unknown]), 400);
    // A shard that there is none of.
    other
        .stream
        .write_all(&plain(Method::CONNECTION_BIND, next_id(), &[connection(&[99; 4])]))
        .unwrap();
    assert!(is_closed(&mut other.stream));
    // An allocation for datagrams has no connections, and nobody has any unless it was allowed.
    let mut datagrams = Client::connect(&server, "a");
    assert_eq!(datagrams.code(Method::ALLOCATE, &[turn_support::udp()]), 0);
    assert_eq!(datagrams.code(Method::CONNECT, &to(address)), 437);
    let without = start(TurnConfig { tcp_relay: false, ..config() });
    assert_eq!(Client::connect(&without, "a").code(Method::ALLOCATE, &[tcp()]), 442);
}

#[test]
fn the_bandwidth_cap_holds() {
    let limits =
        TurnConfig { bandwidth_bps: 8_000_000, bandwidth_burst_bytes: 100_000, ..config() };
    let server = start(limits);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut control, _) = Client::allocate(&server, "a");
    let id = control.connect_peer(listener.local_addr().unwrap());
    let (mut peer, _) = listener.accept().unwrap();
    let mut data = join(&server, "a", &id);
    // 1 MB/s with a burst of 0.1 MB.
    let (began, bytes) = (now(), vec![7; 1_100_000]);
    one_way(&mut peer, &mut data, &bytes);
    let took = began.elapsed();
    assert!((Duration::from_millis(800)..Duration::from_secs(4)).contains(&took), "{took:?}");
    let began = now();
    one_way(&mut data, &mut peer, &bytes);
    let took = began.elapsed();
    assert!((Duration::from_millis(800)..Duration::from_secs(4)).contains(&took), "{took:?}");
}

fn config() -> TurnConfig {
    TurnConfig {
        listen: vec![([127, 0, 0, 1], 0).into()],
        secrets: vec![b"secret".to_vec()],
        allow_loopback_peers: true,
        tcp_relay: true,
        bandwidth_bps: 0,
        shards: 3,
        ..TurnConfig::default()
    }
}

fn start(config: TurnConfig) -> TurnHandle {
    TurnServer::start(config, Arc::new(())).unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// Within the read timeout.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    match stream.read(&mut [0; 64]) {
        Ok(len) => len == 0,
        Err(e) => e.kind() == ErrorKind::ConnectionReset,
    }
}

fn next_id() -> TransactionId {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let mut id = [0; 12];
    id[..8].copy_from_slice(&COUNT.fetch_add(1, Relaxed).to_be_bytes());
    TransactionId(id)
}
