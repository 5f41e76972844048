//! The data plane over real sockets: bursts arrive whole and in order, sessions end when told to,
//! nothing is left behind.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod camera_support;
mod turn_support;

use camera_support::Camera;
use sdk_core::wire::stun::{
    Builder, Class, Message, Method, TransactionId, attribute, channel_data,
};
use server_min::stun_turn::{
    AllocationInfo, Relayed, TurnConfig, TurnHandle, TurnObserver, TurnServer, password_for,
};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use turn_support::wait_until;

const SESSION: &str = "550e8400-e29b-41d4-a716-446655440000";

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl TurnObserver for Notes {
    fn allocation_created(&self, allocation: &AllocationInfo<'_>) {
        self.0.lock().unwrap().push(format!("created {}", allocation.session_id));
    }

    fn allocation_freed(&self, allocation: &AllocationInfo<'_>, relayed: Relayed) {
        let Relayed { to_peers, to_client } = relayed;
        let note = format!("freed {} {to_peers} {to_client}", allocation.session_id);
        self.0.lock().unwrap().push(note);
    }
}

/// A camera of [`SESSION`], with a channel to `peer`.
fn camera(server: &TurnHandle, peer: SocketAddr) -> Camera {
    let username = format!("4102444800:{SESSION}");
    let password = password_for(b"secret", &username);
    Camera::connect(server.local_addrs()[0], &username, &password, peer).unwrap()
}

#[test]
fn bursts_arrive_whole_and_in_order_both_ways() {
    let server = start(config(local()), Arc::new(()));
    let peer = UdpSocket::bind(local()).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let address = peer.local_addr().unwrap();
    let mut camera = camera(&server, address);
    for burst in 0..50u8 {
        let packets: Vec<Vec<u8>> = (0..20u8)
            .map(|i| {
                let len = if i == 19 { 300 } else { 1200 };
                let mut packet = vec![burst; len];
                packet[1] = i;
                packet
            })
            .collect();
        for packet in &packets {
            camera.send(address, packet);
        }
        let mut buffer = [0; 2048];
        for packet in &packets {
            let (len, source) = peer.recv_from(&mut buffer).unwrap();
            assert_eq!(source, camera.relayed);
            assert!(buffer[..len] == packet[..], "burst {burst}: {len} bytes");
            peer.send_to(&buffer[..len], source).unwrap();
        }
        for packet in &packets {
            assert_eq!(camera.receive().as_ref(), Some(packet), "burst {burst}");
        }
    }
    let counters = server.counters();
    wait_until(|| counters.packets_relayed.load(Relaxed) == 2000);
    assert_eq!(counters.bytes_relayed.load(Relaxed), 2 * 50 * (19 * 1200 + 300));
    assert_eq!(counters.packets_unsent.load(Relaxed), 0);
}

/// As the camera sends a frame: the kernel carries 20 datagrams as one until the relay reads them.
#[test]
fn merged_bursts_are_taken_apart_and_put_together_again() {
    const LEN: usize = 1200;
    let server = start(config(local()), Arc::new(()));
    let peer = UdpSocket::bind(local()).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let address = peer.local_addr().unwrap();
    let mut camera = camera(&server, address);
    let channel = camera.turn.channel(address).unwrap();
    let packet = |burst: u8, i: u8| {
        let mut packet = vec![burst; if i == 19 { 77 } else { LEN }];
        packet[1] = i;
        packet
    };
    for burst in 0..20 {
        let framed = (0..20).flat_map(|i| {
            let payload = packet(burst, i);
            [&channel_data::header(channel, payload.len() as u16)[..], &payload].concat()
        });
        let framed: Vec<u8> = framed.collect();
        split_sends_into(&camera.socket, LEN + channel_data::HEADER_LEN);
        camera.socket.send_to(&framed, camera.turn.server()).unwrap();
        let mut buffer = [0; 2048];
        for i in 0..20 {
            let len = peer.recv(&mut buffer).unwrap();
            assert!(buffer[..len] == packet(burst, i), "to the peer: {burst}, {i}");
        }
        let plain: Vec<u8> = (0..20).flat_map(|i| packet(burst, i)).collect();
        split_sends_into(&peer, LEN);
        peer.send_to(&plain, camera.relayed).unwrap();
        for i in 0..20 {
            let received = camera.receive();
            assert!(received == Some(packet(burst, i)), "to the camera: {burst}, {i}");
        }
    }
    assert_eq!(server.counters().packets_unsent.load(Relaxed), 0);
}

/// UDP_SEGMENT for all that this socket sends.
fn split_sends_into(socket: &UdpSocket, len: usize) {
    let len = len as libc::c_int;
    // SAFETY: the pointer and the size are those of `len`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const len).cast(),
            size_of_val(&len) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "Linux 4.18 or later is needed for this test");
}

#[test]
fn a_closed_session_is_freed_at_once_and_told_about() {
    let notes = Arc::new(Notes::default());
    let server = start(config(local()), notes.clone());
    let peer = UdpSocket::bind(local()).unwrap();
    let address = peer.local_addr().unwrap();
    let mut cameras = [camera(&server, address), camera(&server, address)];
    wait_until(|| server.allocations() == 2);
    cameras[0].send(address, b"12345");
    let (len, source) = peer.recv_from(&mut [0; 64]).unwrap();
    assert_eq!((len, source), (5, cameras[0].relayed));
    peer.send_to(b"123", source).unwrap();
    assert_eq!(cameras[0].receive().unwrap(), b"123");

    server.close_user("somebody else");
    server.close_user(SESSION);
    wait_until(|| server.allocations() == 0);
    for camera in &cameras {
        // Its port is free again.
        UdpSocket::bind(camera.relayed).unwrap();
    }
    server.shutdown();
    server.shutdown();
    // The two may belong to different shards, which tell in no order.
    let mut notes = notes.0.lock().unwrap();
    notes.sort();
    let expected = [
        format!("created {SESSION}"),
        format!("created {SESSION}"),
        format!("freed {SESSION} 0 0"),
        format!("freed {SESSION} 5 3"),
    ];
    assert_eq!(*notes, expected);
}

#[test]
fn a_stopped_server_leaves_its_port() {
    let server = start(config(local()), Arc::new(()));
    let address = server.local_addrs()[0];
    let error = TurnServer::start(config(address), Arc::new(())).err().unwrap().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("turn.listen"), "{error}");
    server.shutdown();
    drop(start(config(address), Arc::new(())));
    drop(start(config(address), Arc::new(())));
}

#[test]
fn an_unspecified_address_stands_for_all() {
    let server = start(config("0.0.0.0:0".parse().unwrap()), Arc::new(()));
    let addresses = server.local_addrs();
    assert!(addresses.iter().any(|a| a.ip().is_loopback()), "{addresses:?}");
    assert!(addresses.iter().all(|a| !a.ip().is_unspecified()), "{addresses:?}");
    for address in addresses {
        assert_eq!(address.port(), addresses[0].port());
        let socket = UdpSocket::bind((address.ip(), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut buffer = [0; 64];
        let id = TransactionId([3; 12]);
        let len = Builder::new(&mut buffer, Class::Request, Method::BINDING, id).finish().unwrap();
        socket.send_to(&buffer[..len], address).unwrap();
        let (len, source) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(source, *address, "the answer comes from where the question went");
        let answer = Message::parse(&buffer[..len]).unwrap();
        let mapped = answer.get_xor_address(attribute::XOR_MAPPED_ADDRESS);
        assert_eq!(mapped, socket.local_addr().ok());
    }
}

fn local() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn config(listen: SocketAddr) -> TurnConfig {
    TurnConfig {
        listen: vec![listen],
        secrets: vec![b"secret".to_vec()],
        allow_loopback_peers: true,
        bandwidth_bps: 0,
        shards: 3,
        ..TurnConfig::default()
    }
}

fn start(config: TurnConfig, observer: Arc<dyn TurnObserver>) -> TurnHandle {
    TurnServer::start(config, observer).unwrap()
}
