//! Clients by stream, over real sockets: messages arrive whole and in order, a connection's end ends
//! what it held, and neither the slow, the silent nor the many can take more than their place.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod turn_support;

use sdk_core::peer::turn::{Received, TurnClient, TurnEvent};
use sdk_core::wire::stun::{Builder, Class, Method, TransactionId, channel_data};
use server_min::stun_turn::{TurnConfig, TurnHandle, TurnServer, password_for};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use turn_support::{now, wait_until};

const SESSION: &str = "550e8400-e29b-41d4-a716-446655440000";

/// The camera's client over a stream: each of its datagrams is a message.
struct Camera {
    stream: TcpStream,
    turn: TurnClient,
    relayed: SocketAddr,
    /// What has come, up to a message that is not whole.
    waiting: Vec<u8>,
}

impl Camera {
    /// With a channel to `peer`.
    fn connect(server: &TurnHandle, peer: SocketAddr) -> Camera {
        let address = server.local_addrs()[0];
        let stream = connect(address);
        let username = format!("4102444800:{SESSION}");
        let password = password_for(b"secret", &username);
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&stream.local_addr().unwrap().port().to_be_bytes());
        let mut turn = TurnClient::new(address, username, password, seed, now());
        turn.bind(now(), peer);
        let mut camera = Camera { stream, turn, relayed: address, waiting: Vec::new() };
        let mut bound = false;
        while !bound {
            let mut buffer = [0; 2048];
            while let Some(len) = camera.turn.poll_transmit(&mut buffer) {
                camera.stream.write_all(&buffer[..len]).unwrap();
            }
            let message = camera.message().expect("an answer");
            camera.turn.handle_datagram(now(), &message);
            while let Some(event) = camera.turn.poll_event() {
                match event {
                    TurnEvent::Allocated { relayed, .. } => camera.relayed = relayed,
                    TurnEvent::ChannelBound { .. } => bound = true,
                    other => panic!("{other:?}"),
                }
            }
        }
        camera
    }

    /// A payload for the peer, framed and padded.
    fn framed(&mut self, peer: SocketAddr, payload: &[u8]) -> Vec<u8> {
        let mut buffer = [0; 2048];
        let len = self.turn.wrap(peer, payload, &mut buffer).unwrap();
        buffer[..len.next_multiple_of(4)].to_vec()
    }

    /// The next whole message; `None` at the end of the stream.
    fn message(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(head) = self.waiting.first_chunk::<4>() {
                let body = usize::from(u16::from_be_bytes([head[2], head[3]]));
                let len = match head[0] & 0xC0 {
                    0x00 => 20 + body,
                    0x40 => 4 + body.next_multiple_of(4),
                    _ => panic!("not the begin of a message: {head:?}"),
                };
                if self.waiting.len() >= len {
                    return Some(self.waiting.drain(..len).collect());
                }
            }
            let mut buffer = [0; 65_536];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(len) => self.waiting.extend_from_slice(&buffer[..len]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return None,
                Err(e) => panic!("{e}"),
            }
        }
    }

    fn payload(&mut self) -> Option<Vec<u8>> {
        let message = self.message()?;
        match self.turn.handle_datagram(now(), &message) {
            Received::Data { offset, len, .. } => Some(message[offset..offset + len].to_vec()),
            other => panic!("{other:?}"),
        }
    }
}

/// Of a size that is seldom a multiple of four.
fn packet(number: u32) -> Vec<u8> {
    let mut packet = number.to_be_bytes().to_vec();
    packet.resize(700 + (number as usize * 37) % 500, number as u8);
    packet
}

#[test]
fn bursts_arrive_whole_and_in_order_however_the_stream_is_cut() {
    let server = start(config());
    let (peer, address) = peer();
    let mut camera = Camera::connect(&server, address);
    let stream: Vec<u8> = (0..60).flat_map(|i| camera.framed(address, &packet(i))).collect();
    let mut buffer = [0; 2048];
    let mut received = 0;
    for piece in stream.chunks(1777) {
        camera.stream.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    while received < 60 {
        let (len, source) = peer.recv_from(&mut buffer).unwrap();
        assert!(buffer[..len] == packet(received)[..], "{received}");
        assert_eq!(source, camera.relayed);
        peer.send_to(&buffer[..len], source).unwrap();
        received += 1;
    }
    for i in 0..60 {
        assert!(camera.payload() == Some(packet(i)), "{i}");
    }
    assert_eq!(server.counters().packets_unsent.load(Relaxed), 0);
}

#[test]
fn the_end_of_a_connection_frees_its_allocation_at_once() {
    let server = start(config());
    let (_peer, address) = peer();
    let cameras = [Camera::connect(&server, address), Camera::connect(&server, address)];
    assert_eq!(server.counters().connections.load(Relaxed), 2);
    let ports = cameras.each_ref().map(|camera| camera.relayed);
    let [closed, mut freed] = cameras;
    drop(closed);
    wait_until(|| server.allocations() == 1);
    UdpSocket::bind(ports[0]).unwrap();
    // And the other way round: an allocation that is closed leaves the connection alone.
    server.close_user(SESSION);
    wait_until(|| server.allocations() == 0);
    UdpSocket::bind(ports[1]).unwrap();
    freed.stream.write_all(&binding()).unwrap();
    assert!(freed.message().is_some());
    assert_eq!(server.counters().connections.load(Relaxed), 1);
}

#[test]
fn a_client_that_does_not_read_loses_whole_messages_and_nobody_else_any() {
    const COUNT: u32 = 6000;
    let server = start(config());
    let (peer, address) = peer();
    let mut slow = Camera::connect(&server, address);
    let mut other = connect(server.local_addrs()[0]);
    let counters = server.counters();
    for i in 0..COUNT {
        peer.send_to(&packet(i), slow.relayed).unwrap();
        if i % 20 == 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    wait_until(|| counters.packets_unsent.load(Relaxed) > 1000);
    other.write_all(&binding()).unwrap();
    assert!(other.read(&mut [0; 64]).unwrap() > 0, "another client is served meanwhile");
    let mut numbers = Vec::new();
    slow.stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    while let Some(payload) = slow.payload() {
        let number = u32::from_be_bytes(*payload.first_chunk().unwrap());
        assert!(payload == packet(number), "{number} is whole");
        numbers.push(number);
    }
    assert!(numbers.is_sorted() && numbers.len() > 100, "{} arrived", numbers.len());
    assert!(numbers.len() < COUNT as usize / 2, "{} arrived", numbers.len());
    // It goes on where it reads again.
    peer.send_to(&packet(COUNT), slow.relayed).unwrap();
    assert!(slow.payload() == Some(packet(COUNT)));
}

#[test]
fn a_client_that_asks_and_does_not_listen_is_gone() {
    let server = start(config());
    let mut stream = connect(server.local_addrs()[0]);
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    let many: Vec<u8> = (0..1000).flat_map(|_| binding()).collect();
    // Its answers fill what we keep for it, and then it is closed.
    let ended = (0..2000).any(|_| stream.write_all(&many).is_err());
    assert!(ended);
    wait_until(|| server.counters().connections.load(Relaxed) == 0);
}

#[test]
fn what_is_not_a_message_ends_the_connection() {
    let server = start(config());
    let channel = channel_data::header(0x4000, 60_000);
    let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    for bytes in [&[0x80; 4][..], &[0, 1, 0, 3, 0, 0, 0, 0], http, &channel] {
        let mut stream = connect(server.local_addrs()[0]);
        stream.write_all(bytes).unwrap();
        assert!(is_closed(&mut stream), "{bytes:?}");
    }
    // Also after something that was good.
    let mut stream = connect(server.local_addrs()[0]);
    stream.write_all(&[&binding()[..], &[0xFF; 8]].concat()).unwrap();
    assert!(stream.read(&mut [0; 64]).unwrap() > 0);
    assert!(is_closed(&mut stream));
}

#[test]
fn who_says_nothing_is_gone_after_ten_seconds() {
    let server = start(config());
    let began = now();
    let mut silent = connect(server.local_addrs()[0]);
    let mut half = connect(server.local_addrs()[0]);
    half.write_all(&binding()[..10]).unwrap();
    for stream in [&mut silent, &mut half] {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert!(is_closed(stream));
    }
    assert!((9..15).contains(&began.elapsed().as_secs()));
}

#[test]
fn connections_of_one_address_and_of_all_are_counted() {
    let limits = TurnConfig { max_connections: 5, max_connections_per_address: 3, ..config() };
    let server = start(limits);
    let address = server.local_addrs()[0];
    let counters = server.counters();
    let mut first: Vec<TcpStream> = (0..3).map(|_| serving(address)).collect();
    assert!(is_closed(&mut connect(address)));
    first.pop();
    wait_until(|| counters.connections.load(Relaxed) == 2);
    first.push(serving(address));
    assert_eq!(counters.connections_refused.load(Relaxed), 1);
    drop(first);
    wait_until(|| counters.connections.load(Relaxed) == 0);
}

/// Each shard has clients of its own; what is asked of the relay is asked of all.
#[test]
fn a_session_is_closed_on_every_shard() {
    let limits = TurnConfig { shards: 4, allocations_per_session: 40, ..config() };
    let server = start(limits);
    let (_peer, address) = peer();
    let cameras: Vec<Camera> = (0..24).map(|_| Camera::connect(&server, address)).collect();
    wait_until(|| server.allocations() == 24);
    server.close_user(SESSION);
    wait_until(|| server.allocations() == 0);
    for camera in &cameras {
        UdpSocket::bind(camera.relayed).unwrap();
    }
    assert_eq!(server.counters().allocations_created.load(Relaxed), 24);
}

#[test]
fn a_port_that_is_in_use_by_tcp_alone_is_told() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let taken = TurnConfig { listen: vec![address], ..config() };
    let error = TurnServer::start(taken, Arc::new(())).err().unwrap().to_string();
    assert!(error.contains(&format!("{address}/tcp")), "{error}");
    assert!(error.contains("turn.listen"), "{error}");
    let without = TurnConfig { tls_listen: vec![address], ..config() };
    let error = TurnServer::start(without, Arc::new(())).err().unwrap().to_string();
    assert!(error.contains("tls.certificate"), "{error}");
}

fn config() -> TurnConfig {
    TurnConfig {
        listen: vec![([127, 0, 0, 1], 0).into()],
        secrets: vec![b"secret".to_vec()],
        allow_loopback_peers: true,
        bandwidth_bps: 0,
        shards: 2,
        ..TurnConfig::default()
    }
}

fn start(config: TurnConfig) -> TurnHandle {
    TurnServer::start(config, Arc::new(())).unwrap()
}

fn peer() -> (UdpSocket, SocketAddr) {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let address = peer.local_addr().unwrap();
    (peer, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// A connection that has been answered, and so has its place.
fn serving(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(&binding()).unwrap();
    assert!(stream.read(&mut [0; 64]).unwrap() > 0);
    stream
}

fn binding() -> Vec<u8> {
    let mut buffer = [0; 64];
    let id = TransactionId([5; 12]);
    let len = Builder::new(&mut buffer, Class::Request, Method::BINDING, id).finish().unwrap();
    buffer[..len].to_vec()
}

/// Within the read timeout.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(len) => len == 0,
        Err(e) => e.kind() == ErrorKind::ConnectionReset,
    }
}
