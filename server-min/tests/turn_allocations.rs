//! What relaying costs once it runs: the data plane allocates nothing for a packet, by UDP and by TCP,
//! in either direction. Alone in its process, because the allocator counts all threads.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod turn_support;

use sdk_core::wire::stun::attribute as attr;
use sdk_core::wire::stun::{Message, Method, TransactionId, channel_data};
use server_min::stun_turn::{TurnConfig, TurnHandle, TurnServer, password_for};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use turn_support::{Attr, User, channel, peer, plain, request, udp};

struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is the system allocator's; the counter is an atomic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: as our caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as our caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CHANNEL: u16 = 0x4000;
const LEN: usize = 1201;

/// A client's way to the server.
enum Way {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Way {
    fn send(&mut self, bytes: &[u8]) {
        match self {
            Way::Udp(socket) => drop(socket.send(bytes).unwrap()),
            Way::Tcp(stream) => stream.write_all(bytes).unwrap(),
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> usize {
        match self {
            Way::Udp(socket) => socket.recv(buffer).unwrap(),
            Way::Tcp(stream) => stream.read(buffer).unwrap(),
        }
    }
}

#[test]
fn a_relayed_packet_allocates_nothing() {
    let config = TurnConfig {
        listen: vec![([127, 0, 0, 1], 0).into()],
        secrets: vec![b"secret".to_vec()],
        allow_loopback_peers: true,
        bandwidth_bps: 0,
        shards: 1,
        ..TurnConfig::default()
    };
    let server = TurnServer::start(config, Arc::new(())).unwrap();
    let address = server.local_addrs()[0];
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    relays_without_allocating(&server, Way::Udp(socket));
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    relays_without_allocating(&server, Way::Tcp(stream));
}

fn relays_without_allocating(server: &TurnHandle, mut way: Way) {
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    echo.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let relayed = allocate(&mut way, echo.local_addr().unwrap());
    let mut framed = channel_data::header(CHANNEL, LEN as u16).to_vec();
    framed.resize((4 + LEN).next_multiple_of(4), 7);
    let mut buffer = [0; 2048];
    let mut round = |way: &mut Way| {
        way.send(&framed);
        assert_eq!(echo.recv_from(&mut buffer).unwrap(), (LEN, relayed));
        echo.send_to(&buffer[..LEN], relayed).unwrap();
        let mut len = way.receive(&mut buffer);
        while len < 4 + LEN {
            len += way.receive(&mut buffer[len..]);
        }
        assert_eq!(channel_data::parse(&buffer[..len]).unwrap().0, CHANNEL);
    };
    (0..50).for_each(|_| round(&mut way));
    let before = CALLS.load(Relaxed);
    (0..500).for_each(|_| round(&mut way));
    assert_eq!(CALLS.load(Relaxed) - before, 0);
    assert_eq!(server.counters().packets_unsent.load(Relaxed), 0);
}

/// With a channel to the peer.
fn allocate(way: &mut Way, echo: SocketAddr) -> SocketAddr {
    let username = "4102444800:session".to_owned();
    let mut user = User::of_session("session", "127.0.0.1:1");
    user.password = password_for(b"secret", &username);
    user.username = username;
    way.send(&plain(Method::ALLOCATE, TransactionId([1; 12]), &[udp()]));
    let mut buffer = [0; 2048];
    let len = way.receive(&mut buffer);
    let challenge = Message::parse(&buffer[..len]).unwrap();
    user.nonce = challenge.get(attr::NONCE).unwrap().to_vec();
    let mut call = |method, id: u8, attributes: &[Attr]| {
        way.send(&request(&user, method, TransactionId([id; 12]), attributes));
        let len = way.receive(&mut buffer);
        let answer = Message::parse(&buffer[..len]).unwrap();
        assert!(answer.error_code().is_none(), "{:?}", answer.error_code());
        answer.get_xor_address(attr::XOR_RELAYED_ADDRESS)
    };
    let relayed = call(Method::ALLOCATE, 2, &[udp()]).unwrap();
    call(Method::CHANNEL_BIND, 3, &[channel(CHANNEL), peer(&echo.to_string())]);
    relayed
}
