//! Several streams, and viewers that go from one to another: when they ask, and when their network
//! wants it.

use crate::bottleneck::Link;
use crate::viewer::{FakeViewer, GCM_AND_CM, Packet};
use crate::world::{STREAM, World};
use crate::{delta, depacketise, idr, unit};
use sdk_core::agent::Input;
use sdk_core::driver::{Codec, DEFAULT_GOP_CACHE, StreamConfig};
use sdk_core::event::{Event, StreamId};
use sdk_core::wire::annexb::nal_units;
use sdk_core::wire::signal::{Body, Keepalive, SessionId};
use std::time::Duration;

const SUB: StreamId = StreamId(2);
const FRAME: Duration = Duration::from_micros(33_333);

pub(crate) fn config(name: &str, codec: Codec, bitrate: u32) -> StreamConfig {
    let name = name.into();
    StreamConfig {
        name,
        codec,
        bitrate,
        min_bitrate: None,
        max_bitrate: None,
        fallback: None,
        gop_cache: DEFAULT_GOP_CACHE,
    }
}

/// A camera with two streams, one viewer of the first.
fn scene() -> (World, SessionId) {
    let mut world = World::new(|_| ());
    world.input(Input::StartStream { id: SUB, config: config("sub", Codec::H264, 300_000) });
    push(&mut world, STREAM, &idr(3000, 1), Duration::ZERO);
    let id = world.join(FakeViewer::new("198.51.100.1:5000", GCM_AND_CM), 1);
    world.run(Duration::from_secs(1));
    assert!(world.is_connected(id));
    world.events.clear();
    (world, id)
}

fn push(world: &mut World, stream: StreamId, data: &[u8], timestamp: Duration) {
    world.push(stream, data, timestamp);
    world.run(Duration::ZERO);
}

fn ask(world: &mut World, id: SessionId, stream: &str) {
    let wish = Keepalive { stream: Some(stream.into()), ..Keepalive::default() };
    world.signal(id, "app_1", Body::Keepalive(wish));
}

/// What the camera said last about streams: which one it sends, all that it has, what is wrong.
fn told(world: &World) -> Option<(String, Vec<String>, Option<String>)> {
    let all = world.bodies_to("app_1").filter_map(|body| match body {
        Body::Keepalive(Keepalive { stream: Some(stream), streams, stream_error, .. }) => {
            Some((stream.clone(), streams.clone(), stream_error.clone()))
        }
        _ => None,
    });
    all.last()
}

fn nals(frames: &[&[u8]]) -> Vec<Vec<u8>> {
    frames.iter().flat_map(|frame| nal_units(frame)).map(<[u8]>::to_vec).collect()
}

fn assert_one_stream(packets: &[Packet]) {
    for pair in packets.windows(2) {
        assert_eq!(pair[0].ssrc, pair[1].ssrc);
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
        let later = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert!(later < 3 * 90_000, "{pair:?}");
        assert_eq!(later > 0, pair[0].marker, "{pair:?}");
    }
}

#[test]
fn a_viewer_goes_to_another_stream_at_its_next_keyframe_and_back() {
    let (mut world, id) = scene();
    let both = vec!["main".to_owned(), "sub".to_owned()];
    assert_eq!(told(&world), Some(("main".into(), both.clone(), None)));
    ask(&mut world, id, "sub");
    assert_eq!(world.events, [Event::KeyframeRequest { stream: SUB }]);
    assert_eq!(told(&world).unwrap().0, "main", "nothing has changed so far");

    // The clocks of the two streams are not the same: the sub-stream's is hours ahead.
    let hours = Duration::from_secs(7200);
    let frames: [(StreamId, Vec<u8>, Duration); 6] = [
        (SUB, delta(400, 2), hours),
        (STREAM, delta(900, 3), FRAME),
        (SUB, idr(1500, 4), hours + FRAME),
        (STREAM, delta(900, 5), 2 * FRAME),
        (SUB, delta(300, 6), hours + 2 * FRAME),
        (STREAM, idr(2500, 7), 3 * FRAME),
    ];
    for (stream, frame, at) in &frames[..5] {
        push(&mut world, *stream, frame, *at);
        world.run(FRAME / 2);
    }
    assert!(world.events.contains(&Event::ViewerStream { session: id, stream: SUB }));
    assert_eq!(told(&world), Some(("sub".into(), both, None)));
    ask(&mut world, id, "main");
    push(&mut world, STREAM, &frames[5].1, frames[5].2);
    assert!(world.events.contains(&Event::ViewerStream { session: id, stream: STREAM }));

    let packets = &world.viewers[0].packets;
    let seen = [&idr(3000, 1), &frames[1].1, &frames[2].1, &frames[4].1, &frames[5].1];
    assert_eq!(depacketise(packets), nals(&seen.map(Vec::as_slice)));
    assert_one_stream(packets);
}

#[test]
fn streams_of_one_clock_keep_their_distance() {
    let (mut world, id) = scene();
    let at = |n: u32| Duration::from_secs(1) + FRAME * n;
    push(&mut world, STREAM, &delta(500, 2), at(0));
    ask(&mut world, id, "sub");
    world.run(FRAME / 3);
    push(&mut world, SUB, &idr(500, 3), at(1));
    let packets = &world.viewers[0].packets;
    let [.., before, after] = &packets[..] else { panic!("{packets:?}") };
    assert_eq!(after.timestamp.wrapping_sub(before.timestamp), 2999, "33.333 ms");
}

#[test]
fn what_cannot_be_shown_is_told_and_changes_nothing() {
    let (mut world, id) = scene();
    world.input(Input::StartStream {
        id: StreamId(3),
        config: config("hevc", Codec::H265, 300_000),
    });
    for (name, why) in [("attic", "not running"), ("hevc", "H265"), ("", "not running")] {
        ask(&mut world, id, name);
        let (stream, streams, error) = told(&world).unwrap();
        assert_eq!((stream.as_str(), streams.len()), ("main", 3));
        assert!(error.as_ref().is_some_and(|error| error.contains(why)), "{error:?}");
    }
    assert!(world.events.is_empty(), "{:?}", world.events);
    // A stream that is stopped before its keyframe came is forgotten.
    ask(&mut world, id, "sub");
    world.input(Input::StopStream { id: SUB });
    push(&mut world, STREAM, &delta(500, 2), FRAME);
    assert!(world.is_connected(id) || world.open_sockets.len() == 1);
    assert_eq!(depacketise(&world.viewers[0].packets).len(), 4);
}

#[test]
fn a_frame_that_was_begun_is_finished_before_the_other_stream_begins() {
    let (mut world, id) = scene();
    // Nothing is known of the network, so a large frame goes out in parts.
    let large = idr(150_000, 2);
    world.push(STREAM, &large, FRAME);
    let begun = world.viewers[0].packets.len();
    ask(&mut world, id, "sub");
    push(&mut world, SUB, &idr(1000, 3), FRAME);
    assert!(world.viewers[0].packets.len() < begun + 130, "some of it waits");
    world.run(Duration::from_millis(300));
    let expected = [idr(3000, 1), large, idr(1000, 3)];
    let packets = &world.viewers[0].packets;
    assert_eq!(depacketise(packets), nals(&expected.each_ref().map(Vec::as_slice)));
    assert_one_stream(packets);
}

#[test]
fn packets_of_the_stream_before_are_still_sent_again() {
    let (mut world, id) = scene();
    push(&mut world, STREAM, &delta(700, 2), FRAME);
    let lost = world.viewers[0].packets.last().unwrap().clone();
    ask(&mut world, id, "sub");
    world.run(FRAME);
    push(&mut world, SUB, &idr(700, 3), FRAME);
    let media = lost.ssrc.to_be_bytes();
    let mut nack = vec![0x81, 205, 0, 3, 0, 0, 0, 7];
    nack.extend([&media[..], &lost.sequence.to_be_bytes(), &[0, 0]].concat());
    let (to, packet) = world.viewers[0].rtcp(&nack);
    let from = world.viewers[0].addr;
    world.send(from, to, packet);
    world.run(Duration::from_millis(10));
    // RFC 4588: the original sequence number, then the payload.
    let again = world.viewers[0].packets.last().unwrap();
    assert_ne!(again.ssrc, lost.ssrc);
    assert_eq!(again.payload, [&lost.sequence.to_be_bytes()[..], &lost.payload].concat());
    assert_eq!(again.timestamp, lost.timestamp);
}

/// Two encoders that do what they are told, and the seconds in which viewers changed their stream.
struct Encoders {
    rates: [u32; 2],
    wanted: [bool; 2],
    frames: u32,
    moves: Vec<(u32, SessionId, StreamId)>,
}

impl Encoders {
    fn run(&mut self, world: &mut World, seconds: u32) {
        for _ in 0..seconds * 30 {
            let at = FRAME * self.frames;
            for (n, stream) in [STREAM, SUB].into_iter().enumerate() {
                let usual = self.rates[n] as usize / 8 / 30;
                let key = self.frames.is_multiple_of(60) || self.wanted[n];
                self.wanted[n] = false;
                let frame = if key { idr(3 * usual, 1) } else { delta(usual, 1) };
                push(world, stream, &frame, at);
            }
            world.run(FRAME);
            self.frames += 1;
            for event in std::mem::take(&mut world.events) {
                let place = |stream| usize::from(stream == SUB);
                match event {
                    Event::TargetBitrate { stream, bits_per_second } => {
                        self.rates[place(stream)] = bits_per_second;
                    }
                    Event::KeyframeRequest { stream } => self.wanted[place(stream)] = true,
                    Event::ViewerStream { session, stream } => {
                        self.moves.push((self.frames / 30, session, stream));
                    }
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn a_slow_network_goes_to_the_fallback_and_comes_back_and_the_others_do_not_notice() {
    let mut world = World::new(|_| ());
    world.input(Input::StopStream { id: STREAM });
    let mut main = config("main", Codec::H264, 2_000_000);
    (main.min_bitrate, main.fallback) = (Some(1_200_000), Some("sub".into()));
    world.input(Input::StartStream { id: STREAM, config: main });
    world.input(Input::StartStream { id: SUB, config: config("sub", Codec::H264, 300_000) });
    push(&mut world, STREAM, &unit(&[crate::SPS, crate::PPS]), Duration::ZERO);
    let mut sessions = Vec::new();
    for n in 1..=2 {
        let addr = format!("198.51.100.{n}:5000");
        world.links.push((addr.parse().unwrap(), Link::new(6e6)));
        sessions.push(world.join(FakeViewer::new(&addr, GCM_AND_CM), n));
        world.run(Duration::from_secs(1));
        let now = world.now.instant;
        world.viewers.last_mut().unwrap().send_feedback(now);
    }
    world.events.clear();
    let mut encoders = Encoders {
        rates: [2_000_000, 300_000],
        wanted: [true, true],
        frames: 0,
        moves: Vec::new(),
    };
    encoders.run(&mut world, 5);
    assert_eq!((encoders.rates[0], &encoders.moves[..]), (2_000_000, &[][..]));

    let slow = world.viewers[0].addr;
    world.set_link_rate(slow, 6e5);
    encoders.run(&mut world, 25);
    let away = encoders.moves.clone();
    assert!(matches!(away[..], [(7..=10, session, SUB)] if session == sessions[0]), "{away:?}");
    assert_eq!(encoders.rates[0], 2_000_000, "the other viewer has all of it again");
    let worst = (0..30).map(|_| {
        encoders.run(&mut world, 1);
        world.queue_to(slow)
    });
    assert!(worst.max().unwrap() < Duration::from_millis(300));

    world.set_link_rate(slow, 6e6);
    encoders.run(&mut world, 25);
    let back = &encoders.moves[1..];
    assert!(matches!(back[..], [(60..=75, session, STREAM)] if session == sessions[0]), "{back:?}");
    assert!(encoders.rates[0] >= 1_800_000, "{}", encoders.rates[0]);
}

#[test]
fn two_pictures_of_one_moment_are_still_two() {
    let (mut world, id) = scene();
    let at = Duration::from_secs(1);
    push(&mut world, STREAM, &delta(500, 2), at);
    ask(&mut world, id, "sub");
    push(&mut world, SUB, &idr(500, 3), at);
    let packets = &world.viewers[0].packets;
    let [.., before, after] = &packets[..] else { panic!("{packets:?}") };
    assert_eq!(after.timestamp.wrapping_sub(before.timestamp), 90);
}
