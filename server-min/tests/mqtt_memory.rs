//! What the broker holds for clients that do not read. One test, since it measures the whole process.

#![allow(clippy::unwrap_used, reason = "clippy sees tests only in functions marked as such")]
#![allow(clippy::disallowed_methods, reason = "a test waits for the real broker in real time")]

mod mqtt_support;

use mqtt_support::{TestUsers, Version, connect_packet, publish_packet, rss_kb, subscribe_packet};
use server_min::mqtt::{Broker, BrokerConfig, BrokerStats};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc as questions;
use tokio::task::LocalSet;

const PAYLOAD: usize = 32 * 1024;
const FLOOD: usize = 3_000;
const FLOOD_LIMIT_KB: usize = 24 * 1024;

#[test]
fn memory_stays_in_bounds() {
    let (address, broker) = start(BrokerConfig { write_timeout_s: 3, ..BrokerConfig::default() });

    let lazy = subscriber(address, "lazy", 1);
    let before_kb = rss_kb();
    flood(address, 1);
    let grown_kb = rss_kb().saturating_sub(before_kb);
    println!("rss_qos_1_flood_kb {grown_kb}");
    assert!(grown_kb < FLOOD_LIMIT_KB, "{grown_kb} kB");
    assert_eq!(broker.stats().slow_consumers_total, 1, "disconnected over its queue");
    expect_end_of(lazy);

    let lazy = subscriber(address, "lazy0", 0);
    let before_kb = rss_kb();
    flood(address, 0);
    let grown_kb = rss_kb().saturating_sub(before_kb);
    println!("rss_qos_0_flood_kb {grown_kb}");
    assert!(grown_kb < FLOOD_LIMIT_KB, "{grown_kb} kB");
    assert!(broker.stats().messages_dropped_total > FLOOD as u64 / 2, "QoS 0 is dropped");
    let deadline = Instant::now() + Duration::from_secs(10);
    while broker.stats().slow_consumers_total < 2 {
        assert!(Instant::now() < deadline, "disconnected for taking no byte");
        std::thread::sleep(Duration::from_millis(50));
    }
    expect_end_of(lazy);
}

/// The broker on a thread of its own, answering for its counters.
struct Remote(questions::UnboundedSender<mpsc::Sender<BrokerStats>>);

impl Remote {
    fn stats(&self) -> BrokerStats {
        let (sender, receiver) = mpsc::channel();
        self.0.send(sender).unwrap();
        receiver.recv().unwrap()
    }
}

fn start(config: BrokerConfig) -> (SocketAddr, Remote) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, mut receiver) = questions::unbounded_channel::<mpsc::Sender<BrokerStats>>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let broker = Broker::new(config, Rc::new(TestUsers));
            let serving = broker.clone();
            tokio::task::spawn_local(async move { serving.serve_tcp(listener).await });
            while let Some(question) = receiver.recv().await {
                let _ = question.send(broker.stats());
            }
        });
    });
    (address, Remote(sender))
}

fn connect(address: SocketAddr, user: &str, client_id: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(&connect_packet(Version::V3, user, client_id, true, 600)).unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    stream
}

fn subscriber(address: SocketAddr, client_id: &str, qos: u8) -> TcpStream {
    let mut stream = connect(address, "admin:lazy", client_id);
    stream.write_all(&subscribe_packet(Version::V3, "flood", qos)).unwrap();
    let mut suback = [0; 5];
    stream.read_exact(&mut suback).unwrap();
    assert_eq!(suback[4], qos);
    stream
}

fn flood(address: SocketAddr, qos: u8) {
    let mut stream = connect(address, "admin:flood", "flood");
    let packet = publish_packet(Version::V3, "flood", &vec![0; PAYLOAD], qos, 1, false);
    for _ in 0..FLOOD {
        stream.write_all(&packet).unwrap();
        if qos == 1 {
            let mut puback = [0; 4];
            stream.read_exact(&mut puback).unwrap();
            assert_eq!(puback, [0x40, 2, 0, 1]);
        }
    }
    stream.write_all(&[0xc0, 0]).unwrap();
    let mut pingresp = [0; 2];
    stream.read_exact(&mut pingresp).unwrap();
}

/// What is still in the sockets, and then the end.
fn expect_end_of(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() < 2 * FLOOD * PAYLOAD / 3, "{} bytes", rest.len());
}
