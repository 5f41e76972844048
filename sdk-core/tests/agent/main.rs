//! The whole agent in virtual time, against viewers built on other people's ICE and DTLS.

#![allow(clippy::unwrap_used, reason = "a test")]

mod allocations;
mod audio;
#[path = "../bottleneck/mod.rs"]
mod bottleneck;
mod congestion;
mod data;
#[path = "../data_support/mod.rs"]
mod data_support;
mod h265;
mod path;
mod playback;
mod statistics;
mod switching;
mod viewer;
mod world;

use sdk_core::agent::Input;
use sdk_core::driver::{Codec, StreamConfig};
use sdk_core::event::{CloseReason, Event};
use sdk_core::media::srtp::SrtpProfile;
use sdk_core::wire::annexb::nal_units;
use sdk_core::wire::h264::{NalHeader, Payload};
use sdk_core::wire::signal::{Body, Keepalive, Offer, Path, SessionId, SessionState};
use std::time::Duration;
use viewer::{CM_ONLY, FakeViewer, GCM_AND_CM, Packet};
use world::{STREAM, World};

const SPS: &[u8] = &[0x67, 0x42, 0xc0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xe8];
const PPS: &[u8] = &[0x68, 0xce, 0x3c, 0x80];

fn unit(nals: &[&[u8]]) -> Vec<u8> {
    nals.iter().flat_map(|nal| [&[0, 0, 0, 1], *nal].concat()).collect()
}

fn slice(kind: u8, len: usize, seed: u8) -> Vec<u8> {
    let mut nal = vec![kind];
    nal.extend((1..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed) | 1));
    nal
}

fn idr(len: usize, seed: u8) -> Vec<u8> {
    unit(&[SPS, PPS, &slice(0x65, len, seed)])
}

fn delta(len: usize, seed: u8) -> Vec<u8> {
    unit(&[&slice(0x41, len, seed)])
}

/// Puts the NAL units of packets together again (RFC 6184 §5).
fn depacketise(packets: &[Packet]) -> Vec<Vec<u8>> {
    let mut nals: Vec<Vec<u8>> = Vec::new();
    for packet in packets {
        match Payload::parse(&packet.payload).unwrap() {
            Payload::Single(nal) => nals.push(nal.to_vec()),
            Payload::StapA(units) => nals.extend(units.map(<[u8]>::to_vec)),
            Payload::FuA { header, start, fragment, .. } => {
                if start {
                    nals.push(vec![header.0]);
                }
                nals.last_mut().unwrap().extend_from_slice(fragment);
            }
        }
    }
    nals
}

fn connected(viewers: u8) -> (World, Vec<SessionId>) {
    let mut world = World::new(|_| ());
    world.push_frame(&idr(3000, 1), Duration::ZERO);
    let ids = (1..=viewers)
        .map(|n| world.join(FakeViewer::new(&format!("198.51.100.{n}:5000"), GCM_AND_CM), n))
        .collect::<Vec<_>>();
    world.run(Duration::from_secs(2));
    for id in &ids {
        assert!(world.is_connected(*id), "{:?}", world.events);
    }
    (world, ids)
}

#[test]
fn frames_arrive_whole_at_every_viewer() {
    let (mut world, _) = connected(8);
    let mut sent = vec![idr(3000, 1)];
    for n in 0..60u8 {
        let frame = if n % 30 == 0 { idr(20_000, n) } else { delta(100 + 97 * n as usize, n) };
        world.push_frame(&frame, Duration::from_millis(33) * u32::from(n + 1));
        world.run(Duration::from_millis(33));
        sent.push(frame);
    }
    let expected: Vec<Vec<u8>> =
        sent.iter().flat_map(|f| nal_units(f).map(<[u8]>::to_vec)).collect();
    for viewer in &world.viewers {
        assert_eq!(viewer.profile, Some(SrtpProfile::AeadAes128Gcm));
        assert_eq!(depacketise(&viewer.packets), expected);
        for pair in viewer.packets.windows(2) {
            assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
        }
        assert_eq!(viewer.strange, 0);
        assert!(!viewer.rtcp.is_empty(), "sender reports");
    }
    let ssrcs: std::collections::HashSet<u32> =
        world.viewers.iter().map(|v| v.packets[0].ssrc).collect();
    assert_eq!(ssrcs.len(), 8);
}

#[test]
fn a_viewer_without_gcm_gets_aes_cm() {
    let mut world = World::new(|_| ());
    world.push_frame(&idr(3000, 1), Duration::ZERO);
    let id = world.join(FakeViewer::new("198.51.100.1:5000", CM_ONLY), 1);
    world.run(Duration::from_secs(2));
    assert!(world.is_connected(id));
    assert_eq!(world.viewers[0].profile, Some(SrtpProfile::AesCm128HmacSha1_80));
    assert_eq!(depacketise(&world.viewers[0].packets).len(), 3);
}

#[test]
fn an_impostor_with_another_certificate_gets_nothing() {
    let mut world = World::new(|_| ());
    world.push_frame(&idr(3000, 1), Duration::ZERO);
    let honest = FakeViewer::new("198.51.100.1:5000", GCM_AND_CM);
    let stranger = FakeViewer::new("198.51.100.9:5000", GCM_AND_CM);
    // The offer that reaches the camera names the stranger's certificate.
    let fingerprint =
        |sdp: &str| sdp.lines().find(|l| l.starts_with("a=fingerprint")).unwrap().to_owned();
    let swapped =
        honest.offer().replace(&fingerprint(&honest.offer()), &fingerprint(&stranger.offer()));
    let id = SessionId::from_random([1; 16]);
    let offer = Offer { sdp: swapped, token: world.token(id, "app_1"), stream: None };
    let candidate = honest.candidate();
    world.viewers.push(honest);
    world.signal(id, "app_1", Body::Offer(offer));
    let answer = world.answer_to("app_1").unwrap();
    world.viewers[0].on_answer(&answer);
    world.viewers[0].on_candidate(&candidate);
    world.run(Duration::from_secs(5));
    assert!(!world.is_connected(id));
    assert!(world.viewers[0].packets.is_empty());
    assert!(world.viewers[0].refused);
    assert_eq!(world.error_to("app_1"), Some(500));
    assert!(world.open_sockets.is_empty(), "nothing is left behind");
}

#[test]
fn a_repeated_offer_gets_the_same_answer_and_no_second_session() {
    let (mut world, ids) = connected(1);
    let offer =
        Offer { sdp: world.viewers[0].offer(), token: world.token(ids[0], "app_1"), stream: None };
    let before = world.answer_to("app_1").unwrap();
    world.signal(ids[0], "app_1", Body::Offer(offer));
    assert_eq!(world.answer_to("app_1").unwrap(), before);
    let new = world.events.iter().filter(|e| matches!(e, Event::ViewerNew { .. })).count();
    assert_eq!(new, 1);
}

#[test]
fn refusals_carry_their_code() {
    let mut world = World::new(|config| config.max_viewers = 1);
    let viewer = FakeViewer::new("198.51.100.1:5000", GCM_AND_CM);
    let id = SessionId::from_random([1; 16]);
    let sdp = viewer.offer();
    let with = |token: String, stream: Option<&str>, sdp: &str| {
        Body::Offer(Offer { sdp: sdp.into(), token, stream: stream.map(str::to_owned) })
    };
    let good = world.token(id, "app_1");

    world.signal(id, "app_1", with(String::new(), None, &sdp));
    assert_eq!(world.error_to("app_1"), Some(401));
    world.signal(id, "app_2", with(good.clone(), None, &sdp));
    assert_eq!(world.error_to("app_2"), Some(401), "a token is no use to another application");
    world.signal(id, "app_1", with(good.clone(), Some("attic"), &sdp));
    assert_eq!(world.error_to("app_1"), Some(503));
    world.signal(id, "app_1", with(good.clone(), None, "v=0\r\n"));
    assert!(matches!(world.error_to("app_1"), Some(400 | 406)));
    let audio = include_str!("../../../testdata/sdp/chromium_audio_only.sdp");
    world.signal(id, "app_1", with(good.clone(), None, audio));
    assert_eq!(world.error_to("app_1"), Some(406));
    world.signal(id, "app_1", Body::Keepalive(Default::default()));
    assert_eq!(world.error_to("app_1"), Some(404));
    world.signal(id, "app_1", Body::Answer { sdp: sdp.clone() });
    assert_eq!(world.error_to("app_1"), Some(400));

    world.signal(id, "app_1", with(good.clone(), None, &sdp));
    assert!(world.answer_to("app_1").is_some(), "after all this it still works");
    world.signal(id, "app_3", with(good, None, &sdp));
    assert_eq!(world.error_to("app_3"), Some(409));
    let second = SessionId::from_random([2; 16]);
    let token = world.token(second, "app_4");
    world.signal(second, "app_4", with(token, None, &sdp));
    assert_eq!(world.error_to("app_4"), Some(429));
}

#[test]
fn candidates_may_come_before_their_offer() {
    let mut world = World::new(|_| ());
    world.push_frame(&idr(3000, 1), Duration::ZERO);
    let viewer = FakeViewer::new("198.51.100.1:5000", GCM_AND_CM);
    let id = SessionId::from_random([1; 16]);
    let candidate = sdk_core::wire::signal::Candidate {
        candidate: viewer.candidate(),
        sdp_mid: Some("0".into()),
        sdp_m_line_index: Some(0),
    };
    world.signal(id, "app_1", Body::Candidate(candidate));
    let offer = Offer { sdp: viewer.offer(), token: world.token(id, "app_1"), stream: None };
    world.viewers.push(viewer);
    world.signal(id, "app_1", Body::Offer(offer));
    let answer = world.answer_to("app_1").unwrap();
    world.viewers[0].on_answer(&answer);
    world.run(Duration::from_secs(2));
    assert!(world.is_connected(id));
}

#[test]
fn an_answer_nobody_hears_is_repeated_and_then_given_up() {
    let mut world = World::new(|_| ());
    let viewer = FakeViewer::new("198.51.100.1:5000", GCM_AND_CM);
    let id = SessionId::from_random([1; 16]);
    let offer = Offer { sdp: viewer.offer(), token: world.token(id, "app_1"), stream: None };
    world.signal(id, "app_1", Body::Offer(offer));
    world.run(Duration::from_secs(30));
    let answers = world.bodies_to("app_1").filter(|b| matches!(b, Body::Answer { .. })).count();
    assert_eq!(answers, 4);
    assert_eq!(world.error_to("app_1"), Some(408));
    assert!(world.open_sockets.is_empty());
}

#[test]
fn lost_packets_are_sent_again() {
    let (mut world, _) = connected(1);
    world.push_frame(&delta(10_000, 1), Duration::from_millis(33));
    let (camera, viewer) = (world.open_sockets[0].1, world.viewers[0].addr);
    let before = world.viewers[0].packets.len();
    let first = world.viewers[0].packets[before - 5].sequence;
    let ssrc = world.viewers[0].packets[0].ssrc;
    // RFC 4585 §6.2.1: two packets, the first and the third after it.
    let mut nack = vec![0x81, 205, 0, 3, 0, 0, 0, 9];
    nack.extend(ssrc.to_be_bytes());
    nack.extend(first.to_be_bytes());
    nack.extend([0, 0b100]);
    let (to, nack) = world.viewers[0].rtcp(&[&[0x80, 201, 0, 1, 0, 0, 0, 9][..], &nack].concat());
    assert_eq!(to, camera);
    world.send(viewer, to, nack);
    let again: Vec<&Packet> = world.viewers[0].packets[before..].iter().collect();
    assert_eq!(again.len(), 2);
    // RFC 4588 §4: the original sequence number goes before the payload.
    let original = |p: &Packet| u16::from_be_bytes([p.payload[0], p.payload[1]]);
    assert_eq!(again.iter().map(|p| original(p)).collect::<Vec<_>>(), [first, first + 3]);
    assert_ne!(again[0].ssrc, ssrc);
}

#[test]
fn a_lost_picture_reaches_the_encoder_once() {
    let (mut world, _) = connected(2);
    world.run(Duration::from_secs(2));
    let asked = |w: &World| {
        let wanted = Event::KeyframeRequest { stream: STREAM };
        w.events.iter().filter(|e| **e == wanted).count()
    };
    world.push_frame(&idr(3000, 2), Duration::from_secs(3));
    world.run(Duration::from_secs(2));
    let before = asked(&world);
    for i in 0..2 {
        let mut pli = vec![0x81, 206, 0, 2, 0, 0, 0, 9];
        pli.extend(world.viewers[i].packets[0].ssrc.to_be_bytes());
        let report = [0x80, 201, 0, 1, 0, 0, 0, 9];
        let (to, pli) = world.viewers[i].rtcp(&[&report[..], &pli].concat());
        let from = world.viewers[i].addr;
        world.send(from, to, pli);
    }
    assert_eq!(asked(&world), before + 1);
}

#[test]
fn a_lossy_path_connects_all_the_same() {
    let mut world = World::new(|_| ());
    world.push_frame(&idr(3000, 1), Duration::ZERO);
    let mut state = 12345u32;
    world.lose = Box::new(move |_, _, _| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state % 100 < 20
    });
    let id = world.join(FakeViewer::new("198.51.100.1:5000", GCM_AND_CM), 1);
    world.run(Duration::from_secs(15));
    assert!(world.is_connected(id), "{:?}", world.events);
}

#[test]
fn a_viewer_that_vanishes_is_noticed_and_cleared_away() {
    let (mut world, ids) = connected(1);
    world.run(Duration::from_secs(120));
    assert!(!world.events.iter().any(|e| matches!(e, Event::ViewerClosed { .. })), "it is there");
    world.lose = Box::new(|_, _, _| true);
    world.run(Duration::from_secs(30));
    let lost = Event::ViewerClosed { session: ids[0], reason: CloseReason::Lost };
    assert!(world.events.contains(&lost), "{:?}", world.events);
    assert!(world.open_sockets.is_empty());
    // The service counts sessions by what ended them.
    assert_eq!(end_reported(&world), (Some(408), Some(CloseReason::Lost.to_string())));
}

/// What the service was told last: the code and the words of a session's end.
fn end_reported(world: &World) -> (Option<u16>, Option<String>) {
    let mut to_service = world.signals.iter().filter(|(topic, _)| topic == "p2p/signal/server");
    match to_service.next_back().map(|(_, signal)| signal.body.clone()) {
        Some(Body::Keepalive(Keepalive {
            state: Some(SessionState::Closed),
            code,
            reason,
            ..
        })) => (code, reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_service_is_told_why_a_session_did_not_connect() {
    let mut world = World::new(|_| ());
    world.lose = Box::new(|_, _, _| true);
    world.join(FakeViewer::new("198.51.100.1:5000", GCM_AND_CM), 1);
    world.run(Duration::from_secs(60));
    let (code, words) = end_reported(&world);
    assert_eq!(code, Some(408));
    assert!(words.is_some_and(|words| words.contains("connect")), "{:?}", world.events);
}

#[test]
fn a_restart_of_ice_keeps_media_going() {
    let (mut world, ids) = connected(1);
    world.viewers[0].restart_ice();
    let offer =
        Offer { sdp: world.viewers[0].offer(), token: world.token(ids[0], "app_1"), stream: None };
    let candidate = world.viewers[0].candidate();
    let first_answer = world.answer_to("app_1").unwrap();
    world.signal(ids[0], "app_1", Body::Offer(offer));
    let answer = world.answer_to("app_1").unwrap();
    assert_ne!(answer, first_answer);
    world.viewers[0].on_answer(&answer);
    world.signal(
        ids[0],
        "app_1",
        Body::Candidate(sdk_core::wire::signal::Candidate {
            candidate,
            sdp_mid: Some("0".into()),
            sdp_m_line_index: Some(0),
        }),
    );
    let before = world.viewers[0].packets.len();
    for n in 0..100u8 {
        world.push_frame(&delta(2000, n), Duration::from_millis(33) * (u32::from(n) + 1));
        world.run(Duration::from_millis(33));
    }
    assert_eq!(world.viewers[0].packets.len() - before, 200);
    world.run(Duration::from_secs(40));
    let closed = world.events.iter().any(|e| matches!(e, Event::ViewerClosed { .. }));
    assert!(!closed, "{:?}", world.events);
}

/// DTLS takes longer than the encoder: what it made on the viewer's account is not missed.
#[test]
fn without_a_cache_a_viewer_begins_with_the_keyframe_that_it_was_asked_for() {
    let mut world = World::new(|_| ());
    world.input(Input::StopStream { id: STREAM });
    let config = StreamConfig { gop_cache: 0, ..switching::config("main", Codec::H264, 2_000_000) };
    world.input(Input::StartStream { id: STREAM, config });
    world.push_frame(&idr(3000, 1), Duration::ZERO);
    let frame = Duration::from_millis(33);
    let asked = |world: &World| {
        let is_it = |e: &&Event| matches!(e, Event::KeyframeRequest { .. });
        world.events.iter().filter(is_it).count()
    };
    world.join(FakeViewer::new("198.51.100.1:5000", GCM_AND_CM), 1);
    assert_eq!((asked(&world), world.viewers[0].packets.len()), (1, 0));
    world.push(STREAM, &idr(3000, 2), frame);
    world.push(STREAM, &delta(500, 3), 2 * frame);
    assert_eq!(world.viewers[0].packets.len(), 0, "there are no keys yet");
    world.run(Duration::from_secs(1));
    let nals = |frames: &[Vec<u8>]| -> Vec<Vec<u8>> {
        frames.iter().flat_map(|frame| nal_units(frame)).map(<[u8]>::to_vec).collect()
    };
    let first = nals(&[idr(3000, 2), delta(500, 3)]);
    assert_eq!(depacketise(&world.viewers[0].packets), first);
    assert_eq!(asked(&world), 1);

    // That keyframe is another's: one who comes later waits for its own.
    world.join(FakeViewer::new("198.51.100.2:5000", GCM_AND_CM), 2);
    world.push(STREAM, &delta(500, 4), 3 * frame);
    world.run(Duration::from_secs(1));
    assert_eq!((asked(&world) > 1, world.viewers[1].packets.len()), (true, 0));
    world.push(STREAM, &idr(3000, 5), 4 * frame);
    world.run(frame);
    assert_eq!(depacketise(&world.viewers[1].packets), nals(&[idr(3000, 5)]));
}

/// A browser may find another decoder meanwhile, and an encoder may change its profile.
#[test]
fn a_further_offer_changes_nothing_in_what_is_being_sent() {
    const BROWSER: &str = include_str!("../../../testdata/sdp/chromium_video.sdp");
    let mut world = World::new(|_| ());
    world.push_frame(&idr(3000, 1), Duration::ZERO);
    let only_main = BROWSER.replace("=42e01f", "=58001f").replace("=42001f", "=58001f");
    let id = world.join(FakeViewer::new("198.51.100.1:5000", GCM_AND_CM).like(only_main), 1);
    world.run(Duration::from_secs(1));
    let payload_types = |world: &World| {
        let all = world.viewers[0].packets.iter().map(|packet| packet.payload_type);
        all.collect::<std::collections::BTreeSet<u8>>()
    };
    let before = payload_types(&world);
    assert_eq!(before.len(), 1);

    world.viewers[0].offer_next(BROWSER.into());
    let offer =
        Offer { sdp: world.viewers[0].offer(), token: world.token(id, "app_1"), stream: None };
    world.signal(id, "app_1", Body::Offer(offer));
    let count = world.viewers[0].packets.len();
    world.push_frame(&idr(3000, 2), Duration::from_millis(40));
    world.run(Duration::from_millis(40));
    assert!(world.viewers[0].packets.len() > count, "{:?}", world.events);
    assert_eq!(payload_types(&world), before);
    assert!(
        !world.events.iter().any(|e| matches!(e, Event::ViewerClosed { .. })),
        "{:?}",
        world.events
    );
}

#[test]
fn whatever_comes_in_nothing_panics_and_the_viewer_stays() {
    let (mut world, ids) = connected(1);
    let (camera, viewer) = (world.open_sockets[0].1, world.viewers[0].addr);
    let mut state = 99u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..5000 {
        let len = (random() % 120) as usize;
        let mut junk: Vec<u8> = (0..len).map(|_| random() as u8).collect();
        if let Some(first) = junk.first_mut() {
            // Often something that looks like one of the protocols.
            *first = [0, 1, 20, 22, 23, 64, 128, 144, 200][(random() % 9) as usize];
        }
        world.send(viewer, camera, junk);
    }
    world.push_frame(&delta(500, 7), Duration::from_millis(40));
    assert!(world.viewers[0].packets.last().unwrap().marker);
    let nal = depacketise(&world.viewers[0].packets).pop().unwrap();
    assert!(NalHeader::of(&nal).is_some_and(|header| header.kind().is_slice()));
    assert!(!world.events.iter().any(|e| matches!(e, Event::ViewerClosed { .. })), "{ids:?}");
}

#[test]
fn goodbyes_reach_everybody() {
    let (mut world, ids) = connected(2);
    world.signal(ids[0], "app_1", Body::Bye { reason: "seen enough".into() });
    let left = CloseReason::ViewerLeft("seen enough".into());
    assert_eq!(end_reported(&world), (None, Some(left.to_string())));
    assert!(world.events.contains(&Event::ViewerClosed { session: ids[0], reason: left }));
    world.input(Input::Shutdown);
    assert!(world.bodies_to("app_2").any(|b| matches!(b, Body::Bye { .. })));
    assert!(world.open_sockets.is_empty());
    world.run(Duration::from_secs(1));
    assert!(world.viewers[1].peer_closed, "close_notify");
}

#[test]
fn a_relay_that_is_named_late_is_known_as_one() {
    let mut world = World::new(|_| ());
    world.push_frame(&idr(3000, 1), Duration::ZERO);
    let viewer = FakeViewer::new("198.51.100.1:5000", GCM_AND_CM);
    let id = SessionId::from_random([1; 16]);
    let offer = Offer { sdp: viewer.offer(), token: world.token(id, "app_1"), stream: None };
    let candidate = viewer.candidate();
    world.viewers.push(viewer);
    world.signal(id, "app_1", Body::Offer(offer));
    let answer = world.answer_to("app_1").unwrap();
    world.viewers[0].on_answer(&answer);
    world.run(Duration::from_secs(2));
    let paths = |w: &World| {
        let to_service = w.signals.iter().filter(|(topic, _)| topic == "p2p/signal/server");
        to_service
            .filter_map(|(_, s)| match &s.body {
                Body::Keepalive(keepalive) => keepalive.path,
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(paths(&world), [Path::Prflx]);
    // The viewer's address turns out to be a relay's.
    let relay = candidate.replace("typ host", "typ relay raddr 0.0.0.0 rport 0");
    world.signal(
        id,
        "app_1",
        Body::Candidate(sdk_core::wire::signal::Candidate {
            candidate: relay,
            sdp_mid: Some("0".into()),
            sdp_m_line_index: Some(0),
        }),
    );
    assert_eq!(paths(&world), [Path::Prflx, Path::Relay]);
}
