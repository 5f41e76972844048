//! Packets changed at random never panic the broker and never disturb anybody else. Seeded: a failing
//! round can be played again.

#![allow(clippy::unwrap_used, reason = "clippy sees tests only in functions marked as such")]

mod mqtt_support;

use mqtt_protocol_core::mqtt::packet::{
    ContentType, CorrelationData, MessageExpiryInterval, Property, Qos, ResponseTopic,
    UserProperty, v5_0,
};
use mqtt_support::{
    PASSWORD, Random, RawClient, Version, connect_packet, publish_packet, subscribe_packet,
    with_broker,
};
use server_min::mqtt::BrokerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ROUNDS: u64 = 30_000;
const SEED: u64 = 0x6d71_7474;

#[tokio::test]
async fn mutated_packets_hurt_only_their_sender() {
    with_broker(BrokerConfig::default(), |rig| async move {
        let mut listener = RawClient::connect(&rig, Version::V5, "admin:a", "listener").await;
        listener.subscribe("bystander", 1).await;
        let mut publisher = RawClient::connect(&rig, Version::V3, "admin:a", "publisher").await;
        for round in 0..ROUNDS {
            let mut random = Random(SEED + round);
            let version = if random.below(2) == 0 { Version::V3 } else { Version::V5 };
            let (client, server) = tokio::io::duplex(64 * 1024);
            let broker = rig.broker.clone();
            let peer = rig.address;
            let serving =
                tokio::task::spawn_local(async move { broker.serve_stream(server, peer).await });

            let (mut read, mut write) = tokio::io::split(client);
            let draining = tokio::task::spawn_local(async move {
                let mut sink = Vec::new();
                let _ = read.read_to_end(&mut sink).await;
            });
            let mut bytes = Vec::new();
            if random.below(4) != 0 {
                bytes.extend(connect_packet(
                    version,
                    "admin:fuzz",
                    "fuzz",
                    random.below(2) == 0,
                    60,
                ));
            }
            let packets = packets(version);
            for _ in 0..1 + random.below(4) {
                let mut packet = packets[random.below(packets.len())].clone();
                for _ in 0..random.below(4) {
                    mutate(&mut packet, &mut random);
                }
                bytes.extend(packet);
            }
            // The broker may close in the middle.
            let _ = write.write_all(&bytes).await;
            let _ = write.shutdown().await;
            serving.await.unwrap_or_else(|panic| {
                panic!("round {round} ({version:?}): {panic}: {bytes:02x?}")
            });
            drop(write);
            draining.await.unwrap();

            if round % 100 == 0 {
                assert_eq!(publisher.publish("bystander", &round.to_be_bytes()).await, 0);
                assert_eq!(listener.recv_publish().await.1, round.to_be_bytes());
            }
        }
        let stats = rig.broker.stats();
        assert!(
            stats.protocol_errors_total > ROUNDS / 10 && stats.messages_in_total > ROUNDS / 10,
            "{stats:?}"
        );
        assert_eq!(stats.connections, 2);
    })
    .await;
}

fn mutate(packet: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(packet.len());
    match random.below(7) {
        0 => packet[at] ^= 1 << random.below(8),
        1 => packet[at] = random.next() as u8,
        2 => packet[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
        3 => packet.truncate(at.max(1)),
        4 => packet.insert(at, random.next() as u8),
        5 => {
            let end = at + random.below(packet.len() - at);
            let copy = packet[at..end].to_vec();
            packet.extend(copy);
        }
        // The length of the packet, more or less true.
        _ if packet.len() > 1 => {
            packet[1] = packet[1].wrapping_add(random.below(5) as u8).wrapping_sub(2)
        }
        _ => {}
    }
}

fn packets(version: Version) -> Vec<Vec<u8>> {
    let mut packets = vec![
        connect_packet(version, "admin:fuzz", "fuzz", true, 1),
        subscribe_packet(version, "a/+/c", 1),
        subscribe_packet(version, "fuzz", 2),
        publish_packet(version, "fuzz", b"payload", 0, 0, true),
        publish_packet(version, "fuzz", b"payload", 1, 3, false),
        publish_packet(version, "fuzz", b"payload", 2, 4, false),
        vec![0x40, 2, 0, 1],
        vec![0x50, 2, 0, 1],
        vec![0x62, 2, 0, 4],
        vec![0x70, 2, 0, 4],
        vec![0xc0, 0],
        vec![0xe0, 0],
        vec![0xa2, 8, 0, 9, 0, 4, b'f', b'u', b'z', b'z'],
    ];
    if version == Version::V5 {
        packets.push(vec![0xa2, 9, 0, 9, 0, 0, 4, b'f', b'u', b'z', b'z']);
        packets.push(vec![0x40, 4, 0, 1, 0, 0]);
        packets.push(vec![0xe0, 7, 4, 5, 0x11, 0, 0, 0, 9]);
        packets.push(vec![0xf0, 2, 0x18, 0]);
        let properties = vec![
            Property::ContentType(ContentType::new("text/plain").unwrap()),
            Property::ResponseTopic(ResponseTopic::new("back").unwrap()),
            Property::CorrelationData(CorrelationData::new("c0").unwrap()),
            Property::UserProperty(UserProperty::new("key", "value").unwrap()),
            Property::MessageExpiryInterval(MessageExpiryInterval::new(5).unwrap()),
        ];
        let publish = v5_0::Publish::builder()
            .topic_name("fuzz")
            .unwrap()
            .qos(Qos::AtLeastOnce)
            .packet_id(5u16);
        let publish: v5_0::Publish = publish.props(properties).payload("payload").build().unwrap();
        packets.push(publish.to_continuous_buffer());
        let connect =
            v5_0::Connect::builder().client_id("fuzz").unwrap().user_name("admin:fuzz").unwrap();
        let connect = connect.password(PASSWORD).unwrap();
        let connect = connect.will_message("fuzz", "will", Qos::ExactlyOnce, true).unwrap();
        packets.push(connect.build().unwrap().to_continuous_buffer());
    }
    packets
}
