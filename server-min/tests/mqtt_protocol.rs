//! What well-behaved clients do not show: take-over, timeouts, limits and refusals, byte by byte.

#![allow(clippy::unwrap_used, reason = "clippy sees tests only in functions marked as such")]

mod mqtt_support;

use mqtt_protocol_core::mqtt::packet::{
    MaximumPacketSize, Property, Qos, ReceiveMaximum, SessionExpiryInterval, TopicAlias,
    WillDelayInterval, v5_0,
};
use mqtt_support::{
    PASSWORD, RawClient, Rig, Version, connect_packet, publish_packet, read_publish,
    subscribe_packet, with_broker,
};
use server_min::mqtt::{BrokerConfig, Identity, Role};
use std::time::Duration;
use tokio::time::Instant;

const BOTH: [Version; 2] = [Version::V3, Version::V5];

fn v5_connect(
    client_id: &str,
    clean: bool,
    props: Vec<Property>,
    will_props: Option<Vec<Property>>,
) -> Vec<u8> {
    let mut connect = v5_0::Connect::builder()
        .client_id(client_id)
        .unwrap()
        .clean_start(clean)
        .user_name("admin:a")
        .unwrap()
        .password(PASSWORD)
        .unwrap()
        .keep_alive(60)
        .props(props);
    if let Some(will_props) = will_props {
        connect = connect
            .will_message("gone", "will", Qos::AtLeastOnce, false)
            .unwrap()
            .will_props(will_props);
    }
    connect.build().unwrap().to_continuous_buffer()
}

fn expiry(seconds: u32) -> Property {
    Property::SessionExpiryInterval(SessionExpiryInterval::new(seconds).unwrap())
}

/// The connection ends, in MQTT 5 with this code.
async fn expect_end(client: &mut RawClient, code: u8) {
    if client.version == Version::V5 {
        assert_eq!(client.recv().await, Some((0xe0, vec![code])));
    }
    assert_eq!(client.recv().await, None);
}

#[tokio::test]
async fn two_thousand_messages_all_arrive_in_order() {
    with_broker(BrokerConfig::default(), |rig| async move {
        let mut listeners = Vec::new();
        for n in 0..20 {
            let mut client =
                RawClient::connect(&rig, BOTH[n % 2], "admin:sub", &format!("sub{n}")).await;
            assert_eq!(client.subscribe(&format!("t/{n}"), 1).await, 1);
            listeners.push(tokio::task::spawn_local(async move {
                let mut next = [0u8; 20];
                for _ in 0..100 {
                    let (topic, payload, packet_id) = client.recv_publish().await;
                    assert_eq!((topic, packet_id != 0), (format!("t/{n}"), true));
                    let (publisher, sequence) = (usize::from(payload[0]), payload[1]);
                    assert_eq!(sequence, next[publisher], "from {publisher}");
                    next[publisher] += 1;
                }
            }));
        }
        let mut publishers = Vec::new();
        for n in 0..20u8 {
            let version = BOTH[usize::from(n) % 2];
            let mut client =
                RawClient::connect(&rig, version, "admin:pub", &format!("pub{n}")).await;
            publishers.push(tokio::task::spawn_local(async move {
                for round in 0..5u8 {
                    for topic in 0..20u16 {
                        let payload = [&[n, round][..], &[0; 500]].concat();
                        let id = u16::from(round) * 20 + topic + 1;
                        client
                            .send(&publish_packet(
                                version,
                                &format!("t/{topic}"),
                                &payload,
                                1,
                                id,
                                false,
                            ))
                            .await;
                    }
                }
                for id in 1..=100u16 {
                    assert_eq!(client.recv().await, Some((0x40, id.to_be_bytes().to_vec())));
                }
            }));
        }
        for task in publishers.into_iter().chain(listeners) {
            task.await.unwrap();
        }
        assert_eq!(rig.broker.stats().messages_dropped_total, 0);
    })
    .await;
}

#[tokio::test]
async fn a_silent_client_is_closed_and_holds_up_nobody() {
    let config = BrokerConfig { connect_timeout_s: 1, ..BrokerConfig::default() };
    with_broker(config, |rig| async move {
        let started = Instant::now();
        let mut silent: Vec<RawClient> = Vec::new();
        for _ in 0..5 {
            silent.push(RawClient::open(&rig, Version::V3).await);
        }
        silent[1].send(&[0x10]).await;
        silent[2].send(&[0x10, 0x20, 0, 4, b'M']).await;
        let mut other = RawClient::connect(&rig, Version::V5, "admin:a", "other").await;
        other.ping().await;
        assert!(started.elapsed() < Duration::from_millis(900));
        for client in &mut silent {
            assert_eq!(client.recv().await, None);
        }
        let took = started.elapsed();
        assert!((Duration::from_millis(950)..Duration::from_secs(5)).contains(&took), "{took:?}");
        other.ping().await;
        assert_eq!(rig.broker.stats().connections, 1);
    })
    .await;
}

#[tokio::test]
async fn a_second_connection_takes_the_session_over() {
    with_broker(BrokerConfig::default(), |rig| async move {
        for version in BOTH {
            let (mut first, present) =
                RawClient::connect_with(&rig, version, "device:cam1", "c", false).await;
            assert!(!present);
            assert_eq!(first.subscribe("p2p/signal/device/cam1", 1).await, 1);
            let mut stranger = RawClient::connect(&rig, version, "device:cam2", "c").await;
            first.ping().await;
            let (mut second, present) =
                RawClient::connect_with(&rig, version, "device:cam1", "c", false).await;
            assert!(present);
            expect_end(&mut first, 0x8e).await;
            let mut app = RawClient::connect(&rig, version, "app:a", "a").await;
            assert_eq!(app.publish("p2p/signal/device/cam1", b"x").await, 0);
            assert_eq!(second.recv_publish().await.1, b"x");
            stranger.ping().await;
            let (_third, present) =
                RawClient::connect_with(&rig, version, "device:cam1", "c", true).await;
            assert!(!present, "a clean start forgets");
            expect_end(&mut second, 0x8e).await;
        }
    })
    .await;
}

#[tokio::test]
async fn silence_past_the_keepalive_ends_the_connection() {
    with_broker(BrokerConfig::default(), |rig| async move {
        for version in BOTH {
            let mut client = RawClient::open(&rig, version).await;
            client.send(&connect_packet(version, "admin:a", "k", true, 1)).await;
            assert_eq!(client.recv().await.unwrap().0, 0x20);
            // An incomplete packet is no sign of life.
            tokio::time::sleep(Duration::from_secs(1)).await;
            client.ping().await;
            client.send(&[0x30]).await;
            let started = Instant::now();
            expect_end(&mut client, 0x8d).await;
            let took = started.elapsed();
            assert!(
                (Duration::from_millis(1400)..Duration::from_secs(4)).contains(&took),
                "{took:?}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn shutdown_says_so_and_lets_nobody_in() {
    with_broker(BrokerConfig::default(), |rig| async move {
        let mut v3 = RawClient::connect(&rig, Version::V3, "admin:a", "v3").await;
        let mut v5 = RawClient::connect(&rig, Version::V5, "admin:a", "v5").await;
        let _silent = RawClient::open(&rig, Version::V3).await;
        v3.ping().await;
        let started = Instant::now();
        let broker = rig.broker.clone();
        let done =
            tokio::task::spawn_local(async move { broker.shutdown(Duration::from_secs(5)).await });
        expect_end(&mut v5, 0x8b).await;
        expect_end(&mut v3, 0x8b).await;
        drop((v3, v5));
        done.await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(2));
        let refused = tokio::net::TcpStream::connect(rig.address).await;
        assert!(refused.is_err(), "the listener is closed");
    })
    .await;
}

#[tokio::test]
async fn what_breaks_the_rules_ends_with_its_code() {
    with_broker(BrokerConfig::default(), |rig| async move {
        let config = BrokerConfig::default();
        for version in BOTH {
            let too_large = publish_packet(
                version,
                "x",
                &vec![0; config.max_packet_size as usize],
                1,
                1,
                false,
            );
            let exactly_once: Vec<u8> = (1..=config.receive_maximum + 1)
                .flat_map(|id| publish_packet(version, "x", b"", 2, id, false))
                .collect();
            let mut wildcard = publish_packet(version, "x", b"", 0, 0, false);
            wildcard[4] = b'#';
            let again = connect_packet(version, "admin:a", "again", true, 60);
            let cases = [
                (too_large, 0x95),
                (exactly_once, 0x93),
                (wildcard, if version == Version::V3 { 0x81 } else { 0x90 }),
                (again, 0x82),
                (vec![0x82, 5, 0, 1, 0, 1, b'x'], 0x81),
                (vec![0xf0, 0], 0x82),
                (vec![0x00, 0], 0x82),
                (vec![0x30, 0xff, 0xff, 0xff, 0xff], 0x81),
            ];
            for (n, (bytes, code)) in cases.into_iter().enumerate() {
                let mut client = RawClient::connect(&rig, version, "admin:a", "breaker").await;
                client.send(&bytes).await;
                let mut packet = client.recv().await;
                while packet.as_ref().is_some_and(|(first, _)| *first == 0x50) {
                    packet = client.recv().await;
                }
                if version == Version::V5 {
                    let (first, body) = packet.expect("a DISCONNECT");
                    assert_eq!(first, 0xe0);
                    // A wildcard in a topic may be called malformed just as well.
                    assert!(
                        body == [code] || (code == 0x90 && body == [0x81]),
                        "case {n}: {body:x?}"
                    );
                    packet = client.recv().await;
                }
                assert_eq!(packet, None, "case {n} {version:?}");
            }
        }
        let mut client = RawClient::connect(&rig, Version::V5, "admin:a", "alias").await;
        let alias = vec![Property::TopicAlias(TopicAlias::new(1).unwrap())];
        let publish =
            v5_0::Publish::builder().topic_name("x").unwrap().qos(Qos::AtMostOnce).props(alias);
        let publish: v5_0::Publish = publish.payload("x").build().unwrap();
        client.send(&publish.to_continuous_buffer()).await;
        expect_end(&mut client, 0x94).await;
        let mut client = RawClient::connect(&rig, Version::V5, "admin:a", "share").await;
        assert_eq!(client.subscribe("$share/group/x", 1).await, 0x9e);
        assert_eq!(client.subscribe("a/#/b", 1).await, 0x8f);
        let mut client = RawClient::connect(&rig, Version::V3, "admin:a", "share").await;
        assert_eq!(client.subscribe("$share/group/x", 1).await, 0x80);
    })
    .await;
}

#[tokio::test]
async fn qos_2_arrives_once_though_sent_twice() {
    with_broker(BrokerConfig::default(), |rig| async move {
        for version in BOTH {
            let mut listener = RawClient::connect(&rig, version, "admin:a", "l").await;
            assert_eq!(listener.subscribe("x", 2).await, 1);
            let mut client = RawClient::connect(&rig, version, "admin:a", "p").await;
            for _ in 0..2 {
                client.send(&publish_packet(version, "x", b"once", 2, 9, false)).await;
                assert_eq!(client.recv().await, Some((0x50, vec![0, 9])));
            }
            client.send(&[0x62, 2, 0, 9]).await;
            assert_eq!(client.recv().await, Some((0x70, vec![0, 9])));
            client.send(&publish_packet(version, "x", b"next", 2, 9, false)).await;
            assert_eq!(listener.recv_publish().await.1, b"once");
            assert_eq!(listener.recv_publish().await.1, b"next");
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again() {
    with_broker(BrokerConfig::default(), |rig| async move {
        for version in BOTH {
            let (mut client, _) = RawClient::connect_with(
                &rig,
                version,
                "admin:a",
                &format!("again {version:?}"),
                false,
            )
            .await;
            client.subscribe("x", 1).await;
            let mut other = RawClient::connect(&rig, version, "admin:a", "p").await;
            other.publish("x", b"1").await;
            let (first, body) = client.recv().await.unwrap();
            assert_eq!(first, 0x32);
            let (_, _, id) = read_publish(version, first, &body);
            drop(client);
            other.publish("x", b"2").await;
            let (mut client, present) = RawClient::connect_with(
                &rig,
                version,
                "admin:a",
                &format!("again {version:?}"),
                false,
            )
            .await;
            assert!(present);
            let (first, body) = client.recv().await.unwrap();
            assert_eq!(
                (first, read_publish(version, first, &body)),
                (0x3a, ("x".into(), b"1".to_vec(), id))
            );
            let (first, body) = client.recv().await.unwrap();
            assert_eq!((first, read_publish(version, first, &body).1), (0x32, b"2".to_vec()));
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_is_too_fast_is_slowed_down_and_loses_nothing() {
    let config =
        BrokerConfig { packets_per_second: 50, packet_burst: 10, ..BrokerConfig::default() };
    with_broker(config, |rig| async move {
        let mut client = RawClient::connect(&rig, Version::V3, "app:a", "fast").await;
        let mut other = RawClient::connect(&rig, Version::V3, "app:b", "other").await;
        let started = Instant::now();
        for id in 1..=60u16 {
            client
                .send(&publish_packet(Version::V3, "p2p/signal/server", b"x", 1, id, false))
                .await;
        }
        other.ping().await;
        assert!(started.elapsed() < Duration::from_millis(700), "the others are not held up");
        for id in 1..=60u16 {
            assert_eq!(client.recv().await, Some((0x40, id.to_be_bytes().to_vec())));
        }
        let took = started.elapsed();
        assert!((Duration::from_millis(800)..Duration::from_secs(5)).contains(&took), "{took:?}");
    })
    .await;
}

#[tokio::test]
async fn places_are_limited_and_given_back() {
    let config = BrokerConfig { max_connections: 4, max_connecting: 2, ..BrokerConfig::default() };
    with_broker(config, |rig| async move {
        let silent =
            [RawClient::open(&rig, Version::V3).await, RawClient::open(&rig, Version::V3).await];
        let mut refused = RawClient::open(&rig, Version::V3).await;
        assert_eq!(refused.recv().await, None, "max_connecting");
        drop(silent);
        while rig.broker.stats().connections > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut clients = Vec::new();
        for n in 0..4 {
            clients.push(RawClient::connect(&rig, Version::V3, "admin:a", &n.to_string()).await);
        }
        let mut refused = RawClient::open(&rig, Version::V3).await;
        assert_eq!(refused.recv().await, None, "max_connections");
        clients[0].send(&[0xe0, 0]).await;
        assert_eq!(clients[0].recv().await, None);
        clients.remove(0);
        while rig.broker.stats().connections > 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        RawClient::connect(&rig, Version::V3, "admin:a", "5").await.ping().await;
        assert_eq!(rig.broker.stats().connections_refused_total, 2);
    })
    .await;
}

#[tokio::test]
async fn an_identity_has_so_many_sessions_and_its_oldest_offline_one_gives_way() {
    let config = BrokerConfig { max_sessions_per_identity: 2, ..BrokerConfig::default() };
    with_broker(config, |rig| async move {
        let (away, _) = RawClient::connect_with(&rig, Version::V5, "app:a", "away", false).await;
        drop(away);
        let mut one = RawClient::connect(&rig, Version::V5, "app:a", "one").await;
        let mut two = RawClient::connect(&rig, Version::V5, "app:a", "two").await;
        assert_eq!(rig.broker.stats().sessions, 2);
        let mut three = RawClient::open(&rig, Version::V5).await;
        three.send(&connect_packet(Version::V5, "app:a", "three", true, 60)).await;
        assert_eq!(three.recv().await, Some((0x20, vec![0, 0x97, 0])));
        RawClient::connect(&rig, Version::V5, "app:b", "three").await.ping().await;
        one.ping().await;
        two.ping().await;
    })
    .await;
}

#[tokio::test]
async fn a_delayed_will_waits_for_the_client_to_come_back() {
    with_broker(BrokerConfig::default(), |rig| async move {
        let connect = || {
            let delay = vec![Property::WillDelayInterval(WillDelayInterval::new(1).unwrap())];
            v5_connect("w", false, vec![expiry(600)], Some(delay))
        };
        let mut watcher = RawClient::connect(&rig, Version::V5, "admin:a", "watcher").await;
        watcher.subscribe("gone", 1).await;
        for _ in 0..2 {
            let mut client = RawClient::open(&rig, Version::V5).await;
            client.send(&connect()).await;
            assert_eq!(client.recv().await.unwrap().1[1], 0);
            drop(client);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let started = Instant::now();
        assert_eq!(watcher.recv_publish().await.1, b"will");
        assert!(started.elapsed() > Duration::from_millis(600), "{:?}", started.elapsed());
        assert_eq!(rig.broker.stats().messages_in_total, 1, "the first will was called off");
    })
    .await;
}

#[tokio::test]
async fn an_offline_session_ends_in_time() {
    with_broker(BrokerConfig::default(), |rig| async move {
        let mut client = RawClient::open(&rig, Version::V5).await;
        client.send(&v5_connect("e", false, vec![expiry(1)], None)).await;
        assert_eq!(client.recv().await.unwrap().1[..2], [0, 0]);
        client.subscribe("x", 1).await;
        drop(client);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!((rig.broker.stats().sessions, rig.broker.stats().subscriptions), (1, 1));
        tokio::time::sleep(Duration::from_millis(1900)).await;
        assert_eq!((rig.broker.stats().sessions, rig.broker.stats().subscriptions), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn a_client_s_own_limits_are_kept() {
    with_broker(BrokerConfig::default(), |rig| async move {
        let limits = vec![
            Property::ReceiveMaximum(ReceiveMaximum::new(1).unwrap()),
            Property::MaximumPacketSize(MaximumPacketSize::new(100).unwrap()),
        ];
        let mut client = RawClient::open(&rig, Version::V5).await;
        client.send(&v5_connect("", true, limits, None)).await;
        let (_, body) = client.recv().await.unwrap();
        let (connack, _) = v5_0::Connack::parse(&body).unwrap();
        assert!(
            connack.props.iter().any(|p| matches!(p, Property::AssignedClientIdentifier(_))),
            "{connack}"
        );
        assert!(
            connack
                .props
                .iter()
                .any(|p| matches!(p, Property::TopicAliasMaximum(v) if v.val() == 0))
        );
        client.subscribe("x", 1).await;
        let mut other = RawClient::connect(&rig, Version::V5, "admin:a", "p").await;
        assert_eq!(other.publish("x", &[0; 200]).await, 0);
        assert_eq!(other.publish("x", b"1").await, 0);
        assert_eq!(other.publish("x", b"2").await, 0);
        let (first, body) = client.recv().await.unwrap();
        let (_, payload, id) = read_publish(Version::V5, first, &body);
        assert_eq!(payload, b"1", "the large one was left out");
        client.ping().await;
        let [high, low] = id.to_be_bytes();
        client.send(&[0x40, 2, high, low]).await;
        assert_eq!(client.recv_publish().await.1, b"2");
    })
    .await;
}

#[tokio::test]
async fn the_session_service_speaks_and_listens_in_process() {
    with_broker(BrokerConfig::default(), |rig: Rig| async move {
        let service = rig.broker.local("sessions");
        assert!(
            service.publish("p2p/#", b"x", false).is_err() && service.subscribe("a#", 1).is_err()
        );
        assert_eq!(service.publish("p2p/signal/server", b"x", false), Ok(false));
        assert_eq!(service.publish("p2p/status/device/cam1", b"kept", true), Ok(false));
        let mut inbox = service.subscribe("p2p/#", 2).unwrap();
        let kept = inbox.recv().await.unwrap();
        assert_eq!(
            (kept.topic(), kept.payload(), kept.retain()),
            ("p2p/status/device/cam1", &b"kept"[..], true)
        );

        let cam1 = Identity { role: Role::Device, id: "cam1".into() };
        assert!(!rig.broker.is_online(&cam1));
        let mut device = RawClient::connect(&rig, Version::V5, "device:cam1", "c").await;
        assert!(rig.broker.is_online(&cam1));
        assert_eq!(device.publish("p2p/signal/server", b"report").await, 0);
        let report = inbox.recv().await.unwrap();
        assert_eq!((report.publisher(), report.payload()), (&cam1, &b"report"[..]));

        for _ in 0..5 {
            device.publish("p2p/signal/server", b"flood").await;
        }
        assert_eq!(rig.broker.stats().messages_dropped_total, 3, "a full channel drops");
        device.subscribe("p2p/signal/device/cam1", 1).await;
        assert_eq!(service.publish("p2p/signal/device/cam1", b"offer", false), Ok(true));
        assert_eq!(device.recv_publish().await.1, b"offer");
        assert_eq!(rig.broker.disconnect(&cam1), 1);
        expect_end(&mut device, 0x98).await;
        drop(inbox);
        assert_eq!(service.publish("p2p/signal/server", b"x", false), Ok(false));
    })
    .await;
}

#[tokio::test]
async fn no_local_and_retain_as_published_are_kept() {
    use mqtt_protocol_core::mqtt::packet::{RetainHandling, SubEntry, SubOpts};
    with_broker(BrokerConfig::default(), |rig| async move {
        let mut client = RawClient::connect(&rig, Version::V5, "admin:a", "nl").await;
        let options = SubOpts::new().set_qos(Qos::AtLeastOnce).set_nl(true).set_rap(true);
        let options = options.set_rh(RetainHandling::DoNotSendRetained);
        let mut other = RawClient::connect(&rig, Version::V5, "admin:a", "o").await;
        other.send(&publish_packet(Version::V5, "x", b"old", 1, 77, true)).await;
        other.recv().await;
        let entries = vec![SubEntry::new("x", options).unwrap()];
        let subscribe: v5_0::Subscribe =
            v5_0::Subscribe::builder().packet_id(1).entries(entries).build().unwrap();
        client.send(&subscribe.to_continuous_buffer()).await;
        assert_eq!(client.recv().await.unwrap().0, 0x90);
        assert_eq!(client.publish("x", b"mine").await, 0);
        other.send(&publish_packet(Version::V5, "x", b"new", 1, 77, true)).await;
        let (first, body) = client.recv().await.unwrap();
        assert_eq!((first, read_publish(Version::V5, first, &body).1), (0x33, b"new".to_vec()));

        let unsubscribe = v5_0::Unsubscribe::builder().packet_id(2).entries(["x", "y"]).unwrap();
        let unsubscribe: v5_0::Unsubscribe = unsubscribe.build().unwrap();
        client.send(&unsubscribe.to_continuous_buffer()).await;
        assert_eq!(client.recv().await, Some((0xb0, vec![0, 2, 0, 0, 0x11])));
        client.send(&subscribe_packet(Version::V5, "y", 0)).await;
        assert_eq!(client.recv().await.unwrap().0, 0x90);
    })
    .await;
}
