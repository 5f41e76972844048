//! The broker's and the HTTP side's limits, at every door.

#![allow(clippy::unwrap_used, reason = "clippy sees tests only in functions marked as such")]
#![allow(clippy::disallowed_methods, reason = "a test waits for the real broker in real time")]

mod api_support;
mod door_support;
mod packets;
mod tls_support;

use door_support::{DOORS, Door, MQTT_DOORS, PATIENCE, settings};
use server_min::server::Server;
use server_min::session::credentials::device_password;
use std::time::{Duration, Instant};
use tls_support::{Pki, borrowed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

const PAYLOAD: usize = 32 * 1024;

fn with_doors<F: Future<Output = Server>>(
    pki: &Pki,
    more: &[(&str, &str)],
    test: impl FnOnce(Server) -> F,
) {
    let settings = settings(pki);
    api_support::with_server(&[&borrowed(&settings)[..], more].concat(), test);
}

/// A client that does not read is bounded by its queue and let go, whatever lies between.
#[test]
fn a_slow_client_is_let_go_at_every_door() {
    let pki = Pki::new();
    let limits =
        [("mqtt.limits.max_queued_bytes", "1000000"), ("mqtt.limits.write_timeout_s", "3")];
    with_doors(&pki, &limits, |server| async {
        let publisher = server.broker().unwrap().local("flood");
        for (n, door) in (1..).zip(MQTT_DOORS) {
            let mut slow = door.sign_in(&server, &pki, "slow").await.unwrap();
            slow.write_all(&door.wrap(&packets::subscribe("flood"))).await.unwrap();
            assert_eq!(door.read(&mut slow, 5).await.unwrap(), packets::SUBACK);
            let mut sent = 0;
            while server.broker().unwrap().stats().slow_consumers_total < n {
                publisher.publish("flood", &vec![b'x'; PAYLOAD], false).unwrap();
                tokio::task::yield_now().await;
                let queued = server.broker().unwrap().stats().queued_bytes;
                assert!(queued <= 1_000_000, "{queued} bytes wait at {door:?}");
                sent += 1;
                // The sockets of both sides, TLS's buffers, and the queue.
                assert!(sent * PAYLOAD < 24_000_000, "{door:?} takes all there is");
            }
            let mut rest = Vec::new();
            let ended = timeout(PATIENCE, slow.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "the connection at {door:?} is held");
            gone(&server).await;
        }
        server
    });
}

#[test]
fn a_packet_that_is_too_large_ends_its_connection_at_every_door() {
    let pki = Pki::new();
    with_doors(&pki, &[("mqtt.limits.max_packet_size", "4096")], |server| async {
        for (n, door) in (1..).zip(MQTT_DOORS) {
            let mut client = door.sign_in(&server, &pki, "large").await.unwrap();
            // PUBLISH with 5000 bytes to come.
            client.write_all(&door.wrap(&[0x30, 0x88, 0x27, 0, 1, b'x'])).await.unwrap();
            let mut rest = Vec::new();
            timeout(PATIENCE, client.read_to_end(&mut rest)).await.unwrap().ok();
            gone(&server).await;
            assert_eq!(server.broker().unwrap().stats().protocol_errors_total, n, "{door:?}");
        }
        server
    });
}

/// What is too fast is read later: nothing is lost, and nobody is thrown out.
#[test]
fn a_fast_client_is_slowed_down_at_every_door() {
    let pki = Pki::new();
    let limits = [("mqtt.limits.packets_per_second", "20"), ("mqtt.limits.packet_burst", "10")];
    with_doors(&pki, &limits, |server| async {
        for door in MQTT_DOORS {
            let password = device_password(api_support::DEVICE_SECRET, "cam_1");
            let connect = packets::connect("cam_1", "cam_1", &password);
            let mut fast = door.sign_in_with(&server, &pki, &connect).await.unwrap();
            let started = Instant::now();
            fast.write_all(&door.wrap(&packets::PINGREQ.repeat(30))).await.unwrap();
            // However they are batched into frames, all answers come.
            let mut answered = 0;
            while answered < 30 {
                let len = match door.is_websocket() {
                    true => usize::from(fast.read_u16().await.unwrap() & 0x7f),
                    false => 2,
                };
                let mut answers = vec![0; len];
                timeout(PATIENCE, fast.read_exact(&mut answers)).await.unwrap().unwrap();
                answered += len / 2;
            }
            // 9 at once, with the CONNECT as the tenth, and 21 more at 20 a second.
            let took = started.elapsed();
            assert!(took > Duration::from_millis(900), "{took:?} at {door:?}");
        }
        server
    });
}

/// A TLS handshake that has begun takes the same place as a CONNECT that has.
#[test]
fn places_are_counted_over_all_doors_from_the_first_byte_on() {
    let pki = Pki::new();
    with_doors(&pki, &[("mqtt.limits.max_connecting", "4")], |server| async {
        let mut connecting = Vec::new();
        for door in [Door::Tcp, Door::Tls, Door::Tls] {
            let mut stream = door.knock(&server).await;
            stream.write_all(&[if door == Door::Tls { 0x16 } else { 0x10 }]).await.unwrap();
            connecting.push(stream);
        }
        let upgraded = Door::Wss.open(&server, &pki).await.unwrap();
        let count = |n| {
            let server = &server;
            async move {
                while server.broker().unwrap().stats().connections != n {
                    sleep(Duration::from_millis(5)).await;
                }
            }
        };
        timeout(PATIENCE, count(4)).await.unwrap();
        for door in MQTT_DOORS {
            let refused = timeout(PATIENCE, door.sign_in(&server, &pki, "fifth")).await.unwrap();
            assert!(refused.is_err(), "{door:?}");
        }
        assert_eq!(server.broker().unwrap().stats().connections_refused_total, 4);
        // One that goes makes room.
        drop(upgraded);
        timeout(PATIENCE, count(3)).await.unwrap();
        Door::Wss.serves(&server, &pki).await;
        // Who came and went has not failed; who speaks no TLS has.
        let failed = || server.broker().unwrap().stats().tls_handshakes_failed_total;
        drop(connecting);
        gone(&server).await;
        assert_eq!(failed(), 0);
        let mut plain = Door::Tls.knock(&server).await;
        plain.write_all(&door_support::connect("plain")).await.unwrap();
        gone_after_coming(&server, failed).await;
        server
    });
}

async fn gone_after_coming(server: &Server, failed: impl Fn() -> u64) {
    let counted = async {
        while failed() == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, counted).await.expect("it is counted");
    gone(server).await;
}

#[test]
fn one_address_has_only_so_many_connections() {
    let pki = Pki::new();
    let limits = [
        ("mqtt.limits.max_connections_per_address", "3"),
        ("http.max_connections_per_address", "4"),
    ];
    with_doors(&pki, &limits, |server| async {
        // The broker's are counted over all its doors.
        let mut held = Vec::new();
        for (n, door) in MQTT_DOORS.into_iter().enumerate() {
            let client = timeout(PATIENCE, door.sign_in(&server, &pki, &format!("c{n}"))).await;
            match client.unwrap() {
                Ok(client) => held.push(client),
                Err(_) => assert_eq!((n, door), (3, Door::Wss)),
            }
        }
        assert_eq!(
            (held.len(), server.broker().unwrap().stats().connections_refused_total),
            (3, 1)
        );
        drop(held);
        gone(&server).await;
        for door in [Door::Http, Door::Https] {
            let mut held = Vec::new();
            for _ in 0..4 {
                held.push(door.open(&server, &pki).await.unwrap());
            }
            let mut fifth = door.knock(&server).await;
            let _ = fifth.write_all(b"GET").await;
            let read = timeout(PATIENCE, fifth.read_u8()).await.unwrap();
            assert!(read.is_err(), "{door:?}");
            drop(held);
            sleep(Duration::from_millis(200)).await;
        }
        for door in DOORS {
            door.serves(&server, &pki).await;
            gone(&server).await;
        }
        server
    });
}

async fn gone(server: &Server) {
    let all_gone = async {
        while server.broker().unwrap().stats().connections > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, all_gone).await.expect("the connections end");
}
