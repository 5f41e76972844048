//! An H.265 stream, to viewers that offer the codec and to one that does not.

use crate::viewer::{FakeViewer, GCM_AND_CM, Packet};
use crate::world::{STREAM, World};
use sdk_core::agent::Input;
use sdk_core::driver::{Codec, DEFAULT_GOP_CACHE, StreamConfig};
use sdk_core::event::{CloseReason, Event};
use sdk_core::wire::annexb::nal_units;
use sdk_core::wire::h265::{NalHeader, NalKind, Payload};
use sdk_core::wire::sdp::Description;
use sdk_core::wire::signal::{Body, SessionId};
use std::time::Duration;

const CHROMIUM: &str = include_str!("../../../testdata/sdp/chromium_h265_video.sdp");
const SAFARI: &str = include_str!("../../../testdata/sdp/safari_video.sdp");
const WITHOUT: &str = include_str!("../../../testdata/sdp/chromium_video.sdp");

/// The clip's access units: AUD, parameter sets and all, as the encoder made them.
fn clip() -> Vec<Vec<u8>> {
    let clip = include_bytes!("../../../testdata/h265/main-180p30.h265");
    let mut units: Vec<Vec<u8>> = Vec::new();
    for nal in nal_units(clip) {
        if NalHeader::of(nal).unwrap().kind() == NalKind::AccessUnitDelimiter {
            units.push(Vec::new());
        }
        units.last_mut().unwrap().extend([&[0, 0, 0, 1], nal].concat());
    }
    assert_eq!(units.len(), 60);
    units
}

fn world() -> World {
    let mut world = World::new(|_| ());
    let config = StreamConfig {
        name: "main".into(),
        codec: Codec::H265,
        bitrate: 150_000,
        min_bitrate: None,
        max_bitrate: None,
        fallback: None,
        gop_cache: DEFAULT_GOP_CACHE,
    };
    world.input(Input::StopStream { id: STREAM });
    world.input(Input::StartStream { id: STREAM, config });
    world
}

/// Puts the NAL units of packets together again (RFC 7798 4.4).
fn depacketise(packets: &[Packet]) -> Vec<Vec<u8>> {
    let mut nals: Vec<Vec<u8>> = Vec::new();
    for packet in packets {
        match Payload::parse(&packet.payload).unwrap() {
            Payload::Single(nal) => nals.push(nal.to_vec()),
            Payload::Aggregation(units) => nals.extend(units.map(<[u8]>::to_vec)),
            Payload::Fragment { header, start, fragment, .. } => {
                if start {
                    nals.push(header.to_bytes().to_vec());
                }
                nals.last_mut().unwrap().extend_from_slice(fragment);
            }
        }
    }
    nals
}

#[test]
fn the_clip_arrives_nal_for_nal_where_the_codec_is_offered() {
    let mut world = world();
    let clip = clip();
    world.push_frame(&clip[0], Duration::ZERO);
    for (n, offer) in [(1, CHROMIUM), (2, SAFARI)] {
        let viewer = FakeViewer::new(&format!("198.51.100.{n}:5000"), GCM_AND_CM).like(offer);
        let id = world.join(viewer, n);
        world.run(Duration::from_secs(2));
        assert!(world.is_connected(id), "{:?}", world.events);
    }
    for (n, unit) in (1..).zip(&clip[1..]) {
        world.push_frame(unit, Duration::from_millis(33) * n);
        world.run(Duration::from_millis(33));
    }
    // All but the delimiters, which have no use in RTP.
    let expected: Vec<Vec<u8>> = clip
        .iter()
        .flat_map(|unit| nal_units(unit))
        .filter(|nal| NalHeader::of(nal).unwrap().kind() != NalKind::AccessUnitDelimiter)
        .map(<[u8]>::to_vec)
        .collect();
    for (viewer, payload_type) in world.viewers.iter().zip([50, 106]) {
        assert_eq!(depacketise(&viewer.packets), expected);
        let app = if payload_type == 50 { "app_1" } else { "app_2" };
        let answer = world.answer_to(app).unwrap();
        let answer = Description::parse(&answer).unwrap();
        let payload = answer.media[0].payloads[0];
        assert_eq!((payload.payload_type, payload.encoding), (payload_type, "H265"));
    }
}

#[test]
fn lost_packets_are_sent_again() {
    let mut world = world();
    let clip = clip();
    world.push_frame(&clip[0], Duration::ZERO);
    world.join(FakeViewer::new("198.51.100.1:5000", GCM_AND_CM).like(CHROMIUM), 1);
    world.run(Duration::from_secs(2));
    let Packet { sequence, ssrc, payload, .. } = world.viewers[0].packets[1].clone();
    let before = world.viewers[0].packets.len();
    let mut nack = vec![0x80, 201, 0, 1, 0, 0, 0, 9, 0x81, 205, 0, 3, 0, 0, 0, 9];
    nack.extend(ssrc.to_be_bytes());
    nack.extend(sequence.to_be_bytes());
    nack.extend([0, 0]);
    let (to, nack) = world.viewers[0].rtcp(&nack);
    let from = world.viewers[0].addr;
    world.send(from, to, nack);
    let again = &world.viewers[0].packets[before..];
    // Asked for so late, it comes twice.
    assert_eq!(again.len(), 2);
    // RFC 4588: the original sequence number, then the payload.
    let expected = [&sequence.to_be_bytes()[..], &payload].concat();
    assert!(again.iter().all(|packet| packet.payload == expected));
}

#[test]
fn a_viewer_without_the_codec_is_refused_with_a_word_that_helps() {
    for pushed in [false, true] {
        let mut world = world();
        if pushed {
            world.push_frame(&clip()[0], Duration::ZERO);
        }
        world.join(FakeViewer::new("198.51.100.1:5000", GCM_AND_CM).like(WITHOUT), 1);
        assert_eq!(world.error_to("app_1"), Some(406));
        let says = |b: &Body| matches!(b, Body::Error { message, .. } if message.contains("H.265"));
        assert!(world.bodies_to("app_1").any(says));
        assert_eq!(world.answer_to("app_1"), None);
        assert!(world.open_sockets.is_empty());
        let id = SessionId::from_random([1; 16]);
        let closed = |e: &Event| matches!(e, Event::ViewerClosed { session, reason: CloseReason::Failed { .. } } if *session == id);
        assert!(world.events.iter().any(closed), "{:?}", world.events);
    }
}

#[test]
fn a_viewer_with_both_codecs_gets_the_streams_own() {
    // The same offer, an H.264 stream.
    let mut world = World::new(|_| ());
    let sets = [&[0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1f, 0xda][..], &[0, 0, 0, 1, 0x68, 0xce, 0x3c]];
    let idr = [&sets.concat()[..], &[0, 0, 0, 1, 0x65, 0x88, 1]].concat();
    world.push_frame(&idr, Duration::ZERO);
    let id = world.join(FakeViewer::new("198.51.100.1:5000", GCM_AND_CM).like(CHROMIUM), 1);
    world.run(Duration::from_secs(2));
    assert!(world.is_connected(id), "{:?}", world.events);
    let answer = world.answer_to("app_1").unwrap();
    assert!(answer.contains("H264/90000") && !answer.contains("H265"), "{answer}");
}
