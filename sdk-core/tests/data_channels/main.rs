//! Data channels in virtual time, against another implementation of SCTP.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../data_support/mod.rs"]
mod data_support;
mod hostile;
mod world;

use data_support::{ChannelType, Kind};
use sdk_core::peer::data::{DataEvent, MAX_CHANNELS, message_cost};
use sdk_core::stats::DataStats;
use sdk_core::wire::dcep::{ChannelInfo, Reliability};
use sdk_core::wire::sctp::{Chunk, Packet};
use std::time::Duration;
use world::World;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn info(label: &str) -> ChannelInfo {
    ChannelInfo { label: label.into(), ..ChannelInfo::default() }
}

/// With channel 0, opened by the viewer.
fn with_channel(seed: u64, kind: ChannelType, value: u32) -> World {
    let mut world = World::connected(seed);
    world.browser.open(world.now, 0, "control", kind, value);
    world.run(200 * MS);
    assert_eq!(world.browser.acknowledged, [0]);
    assert_eq!(world.take_events().len(), 1);
    world
}

#[test]
fn a_viewers_channel_carries_messages_both_ways() {
    let mut world = World::connected(1);
    world.browser.open(world.now, 0, "control", ChannelType::Reliable, 0);
    world.browser.send(world.now, 0, Kind::String, b"ptz left");
    world.run(25 * MS);
    let opened = DataEvent::Opened { channel: 0, info: info("control") };
    let message =
        |text, bytes: &[u8]| DataEvent::Message { channel: 0, text, bytes: bytes.to_vec() };
    assert_eq!(world.take_events(), [opened, message(true, b"ptz left")]);
    world.camera.send(world.now, 0, true, b"ok ptz left".to_vec());
    world.camera.send(world.now, 0, false, vec![0, 1, 2]);
    world.camera.send(world.now, 0, true, Vec::new());
    world.camera.send(world.now, 0, false, Vec::new());
    world.run(26 * MS);
    assert_eq!(
        world.browser.received,
        [
            (0, Kind::String, b"ok ptz left".to_vec()),
            (0, Kind::Binary, vec![0, 1, 2]),
            (0, Kind::StringEmpty, vec![]),
            (0, Kind::BinaryEmpty, vec![]),
        ]
    );
    world.browser.send(world.now, 0, Kind::StringEmpty, &[0]);
    world.browser.send(world.now, 0, Kind::BinaryEmpty, &[0]);
    world.run(SECOND);
    assert_eq!(world.take_events(), [message(true, b""), message(false, b"")]);
    let cost = message_cost(11) + message_cost(3) + 2 * message_cost(0);
    // With the acknowledgement of the channel itself.
    let released: usize = world.released.iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(released, cost + message_cost(1));
    assert_eq!(
        world.camera.stats(),
        DataStats {
            channels: 1,
            sent_messages: 4,
            sent_bytes: 14,
            received_messages: 3,
            received_bytes: 8,
            buffered_bytes: 0,
        }
    );
    assert!(world.settle(10 * SECOND) < SECOND, "nobody has anything to do");
}

#[test]
fn the_camera_opens_channels_of_all_kinds() {
    let mut world = World::connected(2);
    let kinds = [
        (Reliability::Reliable, ChannelType::Reliable, ChannelType::ReliableUnordered, 0),
        (
            Reliability::MaxRetransmits(3),
            ChannelType::PartialReliableRexmit,
            ChannelType::PartialReliableRexmitUnordered,
            3,
        ),
        (
            Reliability::MaxLifetimeMs(500),
            ChannelType::PartialReliableTimed,
            ChannelType::PartialReliableTimedUnordered,
            500,
        ),
    ];
    let mut expected = Vec::new();
    for (n, (reliability, ordered, unordered, value)) in kinds.into_iter().enumerate() {
        for (m, kind) in [ordered, unordered].into_iter().enumerate() {
            let channel = (4 * n + 2 * m + 1) as u16;
            let info = ChannelInfo {
                label: format!("events {channel}"),
                protocol: "json".into(),
                unordered: m == 1,
                reliability,
            };
            world.camera.open(world.now, channel, info.clone());
            // Before it is answered.
            world.camera.send(world.now, channel, true, b"first".to_vec());
            expected.push((channel, info, kind, value));
        }
    }
    world.run(60 * MS);
    let mut events = world.take_events();
    for (channel, info, kind, value) in expected {
        let (_, open) = world.browser.opened.iter().find(|(id, _)| *id == channel).unwrap();
        assert_eq!((open.channel_type, open.reliability_parameter), (kind, value));
        assert_eq!((&open.label[..], &open.protocol[..]), (info.label.as_bytes(), &b"json"[..]));
        assert_eq!(world.browser.texts(channel), ["first"]);
        let opened = DataEvent::Opened { channel, info };
        events.remove(events.iter().position(|e| *e == opened).unwrap());
        world.camera.send(world.now, channel, true, b"second".to_vec());
        world.browser.send(world.now, channel, Kind::String, b"answer");
    }
    assert_eq!(events, []);
    world.run(100 * MS);
    for channel in [1, 3, 5, 7, 9, 11] {
        assert_eq!(world.browser.texts(channel), ["first", "second"]);
        assert_eq!(world.texts(channel), ["answer"]);
    }
}

/// Numbered messages of many sizes, up to several chunks.
fn numbered(n: usize) -> Vec<u8> {
    let mut text = format!("{n}:");
    text.extend(std::iter::repeat_n('x', n * 37 % 4000));
    text.into_bytes()
}

fn number(text: &str) -> usize {
    let (n, rest) = text.split_once(':').unwrap();
    let n = n.parse().unwrap();
    assert!(n == 108 || rest.len() == n * 37 % 4000);
    n
}

#[test]
fn reliable_channels_lose_nothing_in_a_network_that_loses_doubles_and_reorders() {
    for seed in 1..=20 {
        let kind =
            if seed % 2 == 0 { ChannelType::Reliable } else { ChannelType::ReliableUnordered };
        let mut world = with_channel(seed, kind, 0);
        world.network.loss = 150;
        world.network.doubles = 50;
        world.network.late = 100;
        for n in 0..100 {
            world.camera.send(world.now, 0, true, numbered(n));
            world.browser.send(world.now, 0, Kind::String, &numbered(n));
            world.run(10 * MS);
        }
        world.settle(300 * SECOND);
        for (who, texts) in [("browser", world.browser.texts(0)), ("camera", world.texts(0))] {
            let mut numbers: Vec<usize> = texts.into_iter().map(number).collect();
            if kind == ChannelType::ReliableUnordered {
                numbers.sort_unstable();
            }
            assert!(numbers.iter().copied().eq(0..100), "seed {seed}, {who}: {numbers:?}");
        }
        let sent: usize = (0..100).map(|n| message_cost(numbered(n).len())).sum();
        let released: usize = world.released.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(released, sent + message_cost(1), "seed {seed}");
        assert_eq!(world.camera.stats().buffered_bytes, 0);
    }
}

#[test]
fn unreliable_channels_give_up_what_is_lost_and_go_on() {
    let kinds = [
        (ChannelType::PartialReliableRexmit, 0),
        (ChannelType::PartialReliableRexmitUnordered, 0),
        (ChannelType::PartialReliableRexmitUnordered, 1),
        (ChannelType::PartialReliableTimed, 100),
        (ChannelType::PartialReliableTimedUnordered, 100),
    ];
    for (seed, (kind, value)) in kinds.into_iter().cycle().take(20).enumerate() {
        let mut world = with_channel(seed as u64 + 1, kind, value);
        world.network.loss = 200;
        for n in 0..100 {
            world.camera.send(world.now, 0, true, numbered(n));
            world.browser.send(world.now, 0, Kind::String, &numbered(n));
            world.run(20 * MS);
        }
        world.network.loss = 0;
        world.settle(60 * SECOND);
        world.camera.send(world.now, 0, true, b"108:".to_vec());
        world.browser.send(world.now, 0, Kind::String, b"108:");
        world.settle(SECOND);
        let what = format!("seed {seed}, {kind:?} {value}");
        for texts in [world.browser.texts(0), world.texts(0)] {
            let numbers: Vec<usize> = texts.into_iter().map(number).collect();
            assert!((5..=101).contains(&numbers.len()), "{what}: {} came", numbers.len());
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), numbers.len(), "{what}: some came twice");
            let is_ordered = matches!(
                kind,
                ChannelType::PartialReliableRexmit | ChannelType::PartialReliableTimed
            );
            assert!(!is_ordered || sorted == numbers, "{what}: {numbers:?}");
            assert_eq!(numbers.last(), Some(&108), "{what}");
        }
        assert_eq!(world.camera.stats().buffered_bytes, 0, "{what}");
        assert_eq!(world.browser.buffered(0), 0, "{what}");
    }
}

#[test]
fn the_longest_messages_pass_and_longer_ones_close_their_channel() {
    let mut world = with_channel(1, ChannelType::Reliable, 0);
    world.browser.open(world.now, 2, "other", ChannelType::Reliable, 0);
    let longest = vec![b'x'; 64 * 1024];
    world.camera.send(world.now, 0, true, longest.clone());
    world.browser.send(world.now, 0, Kind::String, &longest);
    world.run(3 * SECOND);
    assert_eq!(world.texts(0), [std::str::from_utf8(&longest).unwrap()]);
    assert_eq!(world.browser.texts(0).len(), 1);
    world.take_events();

    world.browser.send(world.now, 0, Kind::Binary, &vec![1; 64 * 1024 + 1]);
    world.browser.send(world.now, 2, Kind::String, b"still there");
    world.settle(10 * SECOND);
    assert_eq!(world.browser.closed, [0]);
    let events = world.take_events();
    let other = DataEvent::Message { channel: 2, text: true, bytes: b"still there".to_vec() };
    assert!(events.contains(&DataEvent::Closed { channel: 0 }), "{events:?}");
    assert!(events.contains(&other), "{events:?}");
    let warning = events.iter().find_map(|event| match event {
        DataEvent::Warning(why) => Some(why),
        _ => None,
    });
    let why = warning.unwrap();
    assert!(why.contains("channel 0") && why.contains("65536"), "{why}");
    assert_eq!(events.len(), 3);
}

#[test]
fn either_side_closes_a_channel_and_its_number_can_be_used_again() {
    let mut world = with_channel(1, ChannelType::Reliable, 0);
    world.network.loss = 100;
    for round in 0..10 {
        // The viewer closes behind what it has sent.
        world.browser.send(world.now, 0, Kind::String, b"last words");
        world.browser.close(world.now, 0);
        world.settle(100 * SECOND);
        assert_eq!(world.texts(0), ["last words"]);
        assert_eq!(world.take_events().last(), Some(&DataEvent::Closed { channel: 0 }));
        assert_eq!(world.camera.stats().channels, 0);
        world.camera.send(world.now, 0, true, b"too late".to_vec());
        // The other one is the camera's; it is closed behind what was sent on it.
        world.camera.open(world.now, 1, info("events"));
        world.camera.send(world.now, 1, true, numbered(round));
        world.camera.close(1);
        world.camera.send(world.now, 1, true, b"too late".to_vec());
        world.settle(100 * SECOND);
        assert_eq!(world.browser.texts(1).len(), round + 1);
        assert_eq!(world.browser.closed, [0, 1].repeat(round + 1));
        assert_eq!(world.take_events().last(), Some(&DataEvent::Closed { channel: 1 }));
        assert_eq!(world.camera.stats().buffered_bytes, 0);

        world.browser.open(world.now, 0, "again", ChannelType::Reliable, 0);
        world.settle(100 * SECOND);
        let opened = DataEvent::Opened { channel: 0, info: info("again") };
        assert_eq!(world.take_events(), [opened]);
    }
}

#[test]
fn a_viewer_that_does_not_close_its_side_is_not_waited_for_for_ever() {
    // Nothing comes back at all.
    let mut world = with_channel(1, ChannelType::Reliable, 0);
    world.run(SECOND);
    world.network.is_down = true;
    world.camera.close(0);
    world.run(60 * SECOND);
    assert_eq!(world.take_events(), [DataEvent::Closed { channel: 0 }]);
    assert_eq!(world.camera.poll_timeout(), None);

    // It has closed the channel and reads no more, so what we sent meanwhile stays unread, and for that
    // `rtc-sctp` says "in progress" for ever.
    let mut world = with_channel(1, ChannelType::Reliable, 0);
    world.browser.close(world.now, 0);
    world.camera.send(world.now, 0, true, b"crossing".to_vec());
    world.run(60 * SECOND);
    assert_eq!(world.take_events(), [DataEvent::Closed { channel: 0 }]);
    assert_eq!(world.camera.poll_timeout(), None);
}

#[test]
fn a_channel_that_is_closed_from_both_sides_at_once_is_closed_once() {
    let mut world = with_channel(1, ChannelType::Reliable, 0);
    world.camera.close(0);
    world.browser.close(world.now, 0);
    world.settle(10 * SECOND);
    assert_eq!(world.take_events(), [DataEvent::Closed { channel: 0 }]);
    assert_eq!((world.camera.stats().channels, &world.browser.closed[..]), (0, &[0][..]));
}

#[test]
fn too_many_channels_and_odd_numbers_are_refused() {
    let mut world = World::connected(1);
    for n in 0..=MAX_CHANNELS as u16 {
        world.browser.open(world.now, 2 * n, "many", ChannelType::Reliable, 0);
    }
    world.browser.open(world.now, 7, "odd", ChannelType::Reliable, 0);
    world.browser.send(world.now, 7, Kind::String, b"nobody hears this");
    world.settle(10 * SECOND);
    assert_eq!(world.camera.stats().channels as usize, MAX_CHANNELS);
    let mut closed = world.browser.closed.clone();
    closed.sort_unstable();
    assert_eq!(closed, [7, 32]);
    let events = world.take_events();
    let warnings = events.iter().filter(|e| matches!(e, DataEvent::Warning(_))).count();
    assert_eq!((warnings, events.len()), (2, MAX_CHANNELS + 2));
    // The camera gets none either now, and one when there is room.
    world.camera.open(world.now, 1, info("x"));
    world.browser.close(world.now, 0);
    world.settle(10 * SECOND);
    world.camera.open(world.now, 3, info("x"));
    world.settle(10 * SECOND);
    let closed = world.events.iter().filter(|e| matches!(e, DataEvent::Closed { .. })).count();
    assert_eq!((closed, world.browser.opened.len()), (2, 1));
}

#[test]
fn all_channels_end_with_the_association_and_another_one_may_follow() {
    for aborts in [true, false] {
        let mut world = with_channel(1, ChannelType::Reliable, 0);
        world.camera.open(world.now, 1, info("events"));
        world.run(SECOND);
        world.take_events();
        if aborts {
            world.browser.abort()
        } else {
            world.browser.shutdown()
        }
        world.camera.send(world.now, 1, true, b"x".to_vec());
        world.run(10 * SECOND);
        let events = world.take_events();
        let [DataEvent::Warning(_), closed @ ..] = &events[..] else { panic!("{events:?}") };
        let closed: Vec<&DataEvent> = closed.iter().collect();
        assert_eq!(closed, [&DataEvent::Closed { channel: 0 }, &DataEvent::Closed { channel: 1 }]);
        assert_eq!(world.camera.poll_timeout(), None);
        // The page opens its connection anew over the same transport.
        world.browser = data_support::Browser::new(world.now, world::MAX_PACKET);
        world.run(SECOND);
        assert!(world.browser.connected);
        assert_eq!(world.take_events(), [DataEvent::Ready]);
        world.camera.open(world.now, 1, info("events"));
        world.camera.send(world.now, 1, true, b"back".to_vec());
        world.run(SECOND);
        assert_eq!(world.browser.texts(1), ["back"]);
    }
}

#[test]
fn the_handshake_survives_any_loss_in_it() {
    for seed in 1..=30 {
        let mut world = World::new(seed);
        world.network.loss = 250;
        world.network.doubles = 100;
        world.run(200 * SECOND);
        assert!(world.browser.connected, "seed {seed}");
        let ready = world.events.iter().filter(|e| **e == DataEvent::Ready).count();
        assert_eq!((ready, world.events.len()), (1, 1), "seed {seed}");
    }
}

#[test]
fn after_an_outage_messages_go_out_soon_and_on_a_new_path_at_once() {
    let mut world = with_channel(1, ChannelType::Reliable, 0);
    world.network.is_down = true;
    world.camera.send(world.now, 0, true, b"stop".to_vec());
    world.run(20 * SECOND);
    world.network.is_down = false;
    world.run(5 * SECOND);
    assert_eq!(world.browser.texts(0), ["stop"]);

    world.network.is_down = true;
    world.camera.send(world.now, 0, true, b"go".to_vec());
    world.camera.close(0);
    world.run(20 * SECOND);
    world.network.is_down = false;
    world.camera.on_path_changed(world.now);
    world.run(26 * MS);
    assert_eq!(world.browser.texts(0), ["stop", "go"]);
    world.run(300 * MS);
    assert_eq!(world.browser.closed, [0]);
}

#[test]
fn one_turn_sends_a_few_packets_and_no_more_than_the_window_is_under_way() {
    let mut world = with_channel(1, ChannelType::Reliable, 0);
    world.from_camera.clear();
    for _ in 0..4 {
        world.camera.send(world.now, 0, false, vec![7; 60_000]);
    }
    world.flush();
    assert_eq!(world.from_camera.len(), 4);
    // 240 kB at a round trip of 50 ms with at most 32 KiB in each takes 8 round trips and more.
    let (start, mut most) = (world.now, 0);
    while world.browser.received.len() < 4 {
        let before = world.from_camera.len();
        world.run(50 * MS);
        let bytes: usize = world.from_camera[before..].iter().map(Vec::len).sum();
        most = most.max(bytes);
        assert!(world.now - start < 5 * SECOND);
    }
    assert!((20_000..40_000).contains(&most), "{most} bytes in a round trip");
    assert!(world.now - start > 400 * MS);
}

#[test]
fn acknowledgements_go_with_messages_and_otherwise_wait_a_moment() {
    let mut world = with_channel(1, ChannelType::Reliable, 0);
    world.run(SECOND);
    world.from_camera.clear();
    world.browser.send(world.now, 0, Kind::String, b"ptz left");
    world.run(25 * MS);
    assert_eq!(world.texts(0), ["ptz left"]);
    world.camera.send(world.now, 0, true, b"ok".to_vec());
    world.run(SECOND);
    let kinds: Vec<&str> = world
        .from_camera
        .iter()
        .flat_map(|packet| Packet::parse(packet).unwrap().chunks())
        .map(|chunk| match chunk {
            Chunk::Sack(_) => "SACK",
            Chunk::Data(_) => "DATA",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((kinds, world.from_camera.len()), (vec!["SACK", "DATA"], 1));
}
