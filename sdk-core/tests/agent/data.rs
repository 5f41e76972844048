//! Data channels through the whole agent: from the offer to the last message.

use crate::data_support::{ChannelType, Kind};
use crate::viewer::{FakeViewer, GCM_AND_CM};
use crate::world::World;
use crate::{delta, depacketise, idr};
use sdk_core::agent::Input;
use sdk_core::event::{DataEvent, Event};
use sdk_core::peer::data::{Data, message_cost};
use sdk_core::session::ChannelRequest;
use sdk_core::stats::{DataStats, Snapshot, ViewerStats};
use sdk_core::wire::dcep::ChannelInfo;
use sdk_core::wire::sdp::Description;
use sdk_core::wire::signal::{Body, Offer, SessionId};
use std::time::Duration;

const VIDEO: &str = include_str!("../../../testdata/sdp/chromium_video.sdp");
const DATA_SECTION: &str = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n\
    c=IN IP4 0.0.0.0\r\na=ice-ufrag:x\r\na=ice-pwd:x\r\na=fingerprint:x\r\na=setup:actpass\r\n\
    a=mid:1\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n";
const MS: Duration = Duration::from_millis(1);

/// The same for the whole run of a test, so it may stay for good.
fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// Chromium's video offer with a data section behind it.
fn video_then_data() -> &'static str {
    leak(VIDEO.replace("a=group:BUNDLE 0", "a=group:BUNDLE 0 1") + DATA_SECTION)
}

fn joined(browser: &'static str) -> (World, SessionId) {
    let mut world = World::new(|_| ());
    world.push_frame(&idr(3000, 1), Duration::ZERO);
    let viewer = FakeViewer::new("198.51.100.1:5000", GCM_AND_CM).like(browser).with_data();
    let id = world.join(viewer, 1);
    world.run(Duration::from_secs(2));
    assert!(world.is_connected(id), "{:?}", world.events);
    (world, id)
}

/// With the viewer's channel 0 open.
fn with_channel() -> (World, SessionId) {
    let (mut world, id) = joined(video_then_data());
    assert_eq!(take(&mut world), [DataEvent::Ready { max_message: 64 * 1024 }]);
    let now = world.now.instant;
    world.viewers[0].channels().open(now, 0, "control", ChannelType::Reliable, 0);
    world.run(50 * MS);
    let info = ChannelInfo { label: "control".into(), ..ChannelInfo::default() };
    assert_eq!(take(&mut world), [DataEvent::Opened { channel: 0, info }]);
    (world, id)
}

/// What was told of data channels since the last time.
fn take(world: &mut World) -> Vec<DataEvent> {
    let mut taken = Vec::new();
    world.events.retain(|event| match event {
        Event::Data { event, .. } => {
            taken.push(event.clone());
            false
        }
        _ => true,
    });
    taken
}

fn request(world: &mut World, session: SessionId, channel: u16, request: ChannelRequest) {
    world.input(Input::Channel { session, channel, request });
}

fn send(world: &mut World, session: SessionId, channel: u16, text: &str) {
    let bytes = text.as_bytes().to_vec();
    request(world, session, channel, ChannelRequest::Send { text: true, bytes });
}

fn viewer_stats(world: &World) -> ViewerStats {
    let mut snapshot = Snapshot::default();
    world.agent.write_stats(world.now, &mut snapshot);
    snapshot.viewers[0].clone()
}

fn offer_again(world: &mut World, id: SessionId, sdp: String) {
    let offer = Offer { sdp, token: world.token(id, "app_1"), stream: None };
    world.signal(id, "app_1", Body::Offer(offer));
}

#[test]
fn messages_go_both_ways_beside_the_video() {
    let (mut world, id) = with_channel();
    let before = world.viewers[0].packets.len();
    for n in 0..50_u8 {
        let now = world.now.instant;
        world.viewers[0].channels().send(now, 0, Kind::String, format!("ptz {n}").as_bytes());
        world.push_frame(&delta(3000, n), Duration::from_millis(33) * u32::from(n + 1));
        world.run(33 * MS);
        for event in take(&mut world) {
            let DataEvent::Message { channel: 0, text: true, bytes } = event else {
                panic!("{event:?}")
            };
            send(&mut world, id, 0, &format!("ok {}", String::from_utf8(bytes).unwrap()));
        }
    }
    world.run(Duration::from_secs(1));
    let expected: Vec<String> = (0..50).map(|n| format!("ok ptz {n}")).collect();
    assert_eq!(world.viewers[0].channels().texts(0), expected);
    assert_eq!(depacketise(&world.viewers[0].packets[before..]).len(), 50);
    let cost: usize = expected.iter().map(|text| message_cost(text.len())).sum();
    let released: usize = world.released.iter().map(|(_, _, bytes)| bytes).sum();
    assert_eq!(released, cost + message_cost(1), "with the channel's own acknowledgement");
    assert_eq!(
        viewer_stats(&world).data,
        DataStats {
            channels: 1,
            sent_messages: 50,
            sent_bytes: expected.iter().map(|text| text.len() as u64).sum(),
            received_messages: 50,
            received_bytes: expected.iter().map(|text| text.len() as u64 - 3).sum(),
            buffered_bytes: 0,
        }
    );
}

#[test]
fn the_camera_opens_and_closes_channels() {
    let (mut world, id) = with_channel();
    let info = ChannelInfo { label: "events".into(), unordered: true, ..ChannelInfo::default() };
    request(&mut world, id, 1, ChannelRequest::Open(info.clone()));
    send(&mut world, id, 1, "motion");
    world.run(50 * MS);
    assert_eq!(take(&mut world), [DataEvent::Opened { channel: 1, info }]);
    assert_eq!(world.viewers[0].channels().texts(1), ["motion"]);
    request(&mut world, id, 1, ChannelRequest::Close);
    world.run(Duration::from_secs(1));
    assert_eq!(take(&mut world), [DataEvent::Closed { channel: 1 }]);
    assert_eq!(world.viewers[0].channels().closed, [1]);
}

#[test]
fn channels_end_before_their_viewer_does() {
    let (mut world, id) = with_channel();
    request(&mut world, id, 1, ChannelRequest::Open(ChannelInfo::default()));
    world.run(50 * MS);
    world.signal(id, "app_1", Body::Bye { reason: String::new() });
    let at = |event: &Event| world.events.iter().position(|e| e == event).unwrap();
    let closed = |channel| Event::Data { session: id, event: DataEvent::Closed { channel } };
    let last = world.events.len() - 1;
    assert!(matches!(world.events[last], Event::ViewerClosed { .. }));
    assert!(at(&closed(0)) < last && at(&closed(1)) < last);
    // What is for it comes too late.
    send(&mut world, id, 0, "x");
    request(&mut world, id, 3, ChannelRequest::Open(ChannelInfo::default()));
    assert_eq!(world.events.len() - 1, last);
}

#[test]
fn without_a_data_section_nothing_is_there_for_it() {
    let (mut world, id) = joined(VIDEO);
    // It opens an association although the answer has no place for it.
    assert!(!world.viewers[0].channels().connected);
    assert_eq!(take(&mut world), []);
    request(&mut world, id, 1, ChannelRequest::Open(ChannelInfo::default()));
    send(&mut world, id, 1, "x");
    assert_eq!(take(&mut world), []);
    let without = viewer_stats(&world);
    assert_eq!(without.data, DataStats::default());
    world.push_frame(&delta(3000, 1), 33 * MS);
    assert!(world.viewers[0].packets.last().unwrap().marker, "the video does not mind");

    // A section that nobody uses costs the channels' own struct; what is kept of an association comes
    // with the association.
    let mut world = World::new(|_| ());
    world.push_frame(&idr(3000, 1), Duration::ZERO);
    world.join(FakeViewer::new("198.51.100.1:5000", GCM_AND_CM).like(video_then_data()), 1);
    world.run(Duration::from_secs(2));
    let unused = viewer_stats(&world);
    let more = unused.held_bytes - without.held_bytes;
    assert!(more as usize <= size_of::<Data>() + 64, "{more}");
    let now = world.now.instant;
    world.viewers[0].open_data(now);
    world.run(Duration::from_secs(1));
    assert!(viewer_stats(&world).held_bytes > unused.held_bytes);
}

#[test]
fn a_data_section_may_come_later_but_not_move() {
    let mut world = World::new(|_| ());
    world.push_frame(&idr(3000, 1), Duration::ZERO);
    let id = world.join(FakeViewer::new("198.51.100.1:5000", GCM_AND_CM), 1);
    world.run(Duration::from_secs(2));
    world.viewers[0].browser = video_then_data().to_owned();
    let offer = world.viewers[0].offer();
    offer_again(&mut world, id, offer.clone());
    let answer = world.answer_to("app_1").unwrap();
    let answer = Description::parse(&answer).unwrap();
    assert_eq!((answer.media.len(), answer.media[1].port), (2, 9));
    assert_eq!(answer.media[1].max_message_size, Some(64 * 1024));
    let now = world.now.instant;
    world.viewers[0].open_data(now);
    world.run(Duration::from_secs(1));
    assert_eq!(take(&mut world), [DataEvent::Ready { max_message: 64 * 1024 }]);
    let now = world.now.instant;
    world.viewers[0].channels().open(now, 0, "control", ChannelType::Reliable, 0);
    world.run(50 * MS);
    assert_eq!(take(&mut world).len(), 1);

    // The same once more, with another name for it, and channels go on; then without it, and they
    // end.
    let stays = offer.replace("a=max-message-size:262144", "a=max-message-size:200");
    offer_again(&mut world, id, stays);
    send(&mut world, id, 0, "still there");
    world.run(50 * MS);
    assert_eq!(world.viewers[0].channels().texts(0), ["still there"]);
    let gone =
        offer.replace("m=application 9", "m=application 0").replace("BUNDLE 0 1", "BUNDLE 0");
    offer_again(&mut world, id, gone);
    assert_eq!(take(&mut world), [DataEvent::Closed { channel: 0 }]);
    offer_again(&mut world, id, offer.replace("s=-", "s=again"));
    assert_eq!(world.error_to("app_1"), None);
    let moved = offer.replace("a=mid:1", "a=mid:7").replace("BUNDLE 0 1", "BUNDLE 0 7");
    offer_again(&mut world, id, moved);
    assert_eq!(world.error_to("app_1"), Some(406));
}

#[test]
fn packets_fit_a_datagram_through_a_relay_however_small_it_is() {
    for max_datagram in [548, 1200, 1472] {
        let mut world = World::new(|config| config.max_datagram = max_datagram);
        world.push_frame(&idr(3000, 1), Duration::ZERO);
        let viewer = FakeViewer::new("198.51.100.1:5000", GCM_AND_CM);
        let id = world.join(viewer.like(video_then_data()).with_data(), 1);
        world.run(Duration::from_secs(2));
        let camera = world.open_sockets[0].1;
        world.lose = Box::new(move |from, _, data| {
            // A TURN channel's header would still go before it.
            assert!(from != camera || data.len() + 4 <= max_datagram, "{} bytes", data.len());
            false
        });
        let now = world.now.instant;
        world.viewers[0].channels().open(now, 0, "control", ChannelType::Reliable, 0);
        world.run(50 * MS);
        let longest = "x".repeat(64 * 1024);
        send(&mut world, id, 0, &longest);
        world.run(Duration::from_secs(10));
        assert_eq!(world.viewers[0].channels().texts(0), [longest], "{max_datagram}");
    }
}

#[test]
fn messages_survive_a_path_that_loses_and_another_one_after_it() {
    let (mut world, id) = with_channel();
    let mut state = 12345_u32;
    world.lose = Box::new(move |_, _, _| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state % 100 < 15
    });
    for n in 0..50 {
        let now = world.now.instant;
        world.viewers[0].channels().send(now, 0, Kind::String, format!("{n}").as_bytes());
        send(&mut world, id, 0, &format!("{n}"));
        world.run(20 * MS);
    }
    world.run(Duration::from_secs(30));
    let expected: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(world.viewers[0].channels().texts(0), expected);
    let came: Vec<DataEvent> = take(&mut world);
    assert_eq!(came.len(), 50, "{came:?}");

    // The path goes down; a message waits. The viewer restarts ICE from another address.
    let old = world.viewers[0].addr;
    world.lose = Box::new(move |from, to, _| from == old || to == old);
    send(&mut world, id, 0, "after the move");
    world.run(Duration::from_secs(8));
    world.viewers[0].move_to("198.51.100.77:6000");
    let offer = world.viewers[0].offer();
    offer_again(&mut world, id, offer);
    let answer = world.answer_to("app_1").unwrap();
    world.viewers[0].on_answer(&answer);
    world.run(Duration::from_secs(2));
    assert_eq!(world.viewers[0].channels().texts(0).last(), Some(&"after the move"));
    send(&mut world, id, 0, "and on");
    world.run(Duration::from_secs(1));
    assert_eq!(world.viewers[0].channels().texts(0).last(), Some(&"and on"));
}
