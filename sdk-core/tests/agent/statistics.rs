//! What the camera says that it did is what it did.

use crate::viewer::{CM_ONLY, FakeViewer, GCM_AND_CM};
use crate::world::{STREAM, World};
use crate::{connected, delta, idr, slice, unit};
use sdk_core::agent::Input;
use sdk_core::driver::{Codec, DEFAULT_GOP_CACHE, StreamConfig};
use sdk_core::event::Event;
use sdk_core::media::srtp::SrtpProfile;
use sdk_core::stats::{CandidateType, Drops, Refused, Snapshot, ViewerStats};
use sdk_core::wire::rtcp::is_rtcp;
use sdk_core::wire::signal::{Body, Path};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const FRAME: Duration = Duration::from_millis(40);

fn stats(world: &World) -> Snapshot {
    let mut snapshot = Snapshot::default();
    world.agent.write_stats(world.now, &mut snapshot);
    snapshot
}

fn viewer(world: &World, n: usize) -> ViewerStats {
    stats(world).viewers[n].clone()
}

/// Sends RTCP of the viewer: a receiver report with `block` behind it, and `rest`.
fn rtcp(world: &mut World, n: usize, block: &[u8], rest: &[u8]) {
    let words = 1 + block.len() as u8 / 4;
    let report = [&[0x80 | (block.len() / 24) as u8, 201, 0, words, 0, 0, 0, 9], block].concat();
    let (to, packet) = world.viewers[n].rtcp(&[&report[..], rest].concat());
    let from = world.viewers[n].addr;
    world.send(from, to, packet);
}

fn feedback(kind: [u8; 2], ssrc: u32, rest: &[u8]) -> Vec<u8> {
    let words = 2 + rest.len() as u8 / 4;
    [&[kind[0], kind[1], 0, words, 0, 0, 0, 9], &ssrc.to_be_bytes()[..], rest].concat()
}

#[test]
fn two_seconds_of_frames_with_a_lossy_viewer_are_counted() {
    let (mut world, ids) = connected(2);
    let camera = world.open_sockets[0].1;
    let lossy = world.viewers[0].addr;
    // Counts the media that leaves for the lossy viewer, and loses every tenth packet of it.
    let sent = Rc::new(RefCell::new((0_u64, 0_u64, 0_u64)));
    let before = viewer(&world, 0);
    let count = sent.clone();
    world.lose = Box::new(move |from, to, data| {
        if from != camera || to != lossy || !matches!(data[0], 128..=191) {
            return false;
        }
        let (packets, bytes, lost) = &mut *count.borrow_mut();
        *bytes += data.len() as u64;
        if is_rtcp(data) {
            return false;
        }
        *packets += 1;
        *lost += u64::from(*packets % 10 == 0);
        *packets % 10 == 0
    });
    let mut pushed = 0;
    for n in 0..50_u8 {
        let frame = if n == 25 { idr(9000, n) } else { delta(5000, n) };
        pushed += frame.len() as u64;
        world.push_frame(&frame, FRAME * u32::from(n + 1));
        world.run(FRAME);
    }

    let now = viewer(&world, 0);
    let (packets, bytes, lost) = *sent.borrow();
    assert!(lost > 20);
    assert_eq!(now.session, ids[0]);
    assert_eq!((now.app.as_str(), now.stream, now.stream_name.as_str()), ("app_1", STREAM, "main"));
    assert_eq!(now.frames - before.frames, 50);
    assert_eq!(now.packets - before.packets, packets);
    assert_eq!(now.wire_bytes - before.wire_bytes, bytes);
    assert_eq!(now.drops, Drops::default());
    // 25 frames in each second; a NAL unit of 5000 bytes is five fragments or more.
    let overhead = now.wire_bytes as f64 / now.media_bytes as f64;
    assert!((1.02..1.08).contains(&overhead), "{overhead}");
    assert!((25 * 5000 * 8..28 * 5200 * 8 + 4200 * 8).contains(&now.media_bps), "{now:?}");
    assert!(now.wire_bps > now.media_bps && now.wire_bps < now.media_bps * 108 / 100);

    let other = viewer(&world, 1);
    assert_eq!((other.packets, other.media_bytes), (now.packets, now.media_bytes));

    let all = stats(&world);
    let stream = &all.streams[0];
    assert_eq!((stream.id, stream.name.as_str(), stream.viewers), (STREAM, "main", 2));
    assert_eq!((stream.frames, stream.keyframes), (51, 2));
    assert_eq!(stream.bytes, pushed + idr(3000, 1).len() as u64);
    assert_eq!(stream.frame_rate, 25);
    assert!((25 * 5000 * 8..29 * 5200 * 8).contains(&stream.bps), "{stream:?}");
    assert!(stream.history_bytes > 512 << 10 && stream.history_bytes < 2 << 20);
    assert_eq!(stream.refused, Refused::default());
    let asked =
        world.events.iter().filter(|e| matches!(e, Event::KeyframeRequest { .. })).count() as u64;
    assert_eq!(stream.keyframe_requests, asked);
    assert!(now.held_bytes > 10_000 && now.held_bytes < 200_000, "{}", now.held_bytes);

    // A second without frames, and nothing was sent in the last second.
    world.run(Duration::from_millis(1200));
    let all = stats(&world);
    assert_eq!(
        (all.viewers[0].media_bps, all.streams[0].frame_rate, all.streams[0].bps),
        (0, 0, 0)
    );
}

#[test]
fn what_the_viewer_reports_is_told() {
    let (mut world, _) = connected(1);
    world.push_frame(&delta(10_000, 1), FRAME);
    let ssrc = world.viewers[0].packets[0].ssrc;
    let last = world.viewers[0].packets.last().unwrap().sequence;
    // RFC 3550 6.4.1: a quarter lost, 7 in all; jitter 900/90000 s.
    let block =
        [&ssrc.to_be_bytes()[..], &[64, 0, 0, 7], &[0; 4], &[0, 0, 3, 132], &[0; 8]].concat();
    // RFC 4585 6.2.1: the last packet but three, and the two behind it; one more that never was.
    let [a, b] = (last - 3).to_be_bytes();
    let [c, d] = last.wrapping_add(1000).to_be_bytes();
    let nack = feedback([0x81, 205], ssrc, &[a, b, 0, 0b11, c, d, 0, 0]);
    rtcp(&mut world, 0, &block, &nack);
    let viewer_1 = viewer(&world, 0);
    assert_eq!((viewer_1.fraction_lost, viewer_1.lost_packets), (64, 7));
    assert_eq!(viewer_1.jitter, Duration::from_millis(10));
    assert_eq!((viewer_1.nacks, viewer_1.nacked_packets, viewer_1.resent_packets), (1, 4, 3));

    let pli = feedback([0x81, 206], ssrc, &[]);
    rtcp(&mut world, 0, &[], &pli);
    rtcp(&mut world, 0, &[], &pli);
    let mut fir = feedback([0x84, 206], 0, &ssrc.to_be_bytes());
    fir.extend([1, 0, 0, 0]);
    fir[3] += 1;
    rtcp(&mut world, 0, &[], &fir);
    rtcp(&mut world, 0, &[], &fir);
    let viewer_1 = viewer(&world, 0);
    assert_eq!((viewer_1.plis, viewer_1.firs), (2, 1), "a FIR is repeated under its number");
}

#[test]
fn the_times_follow_each_other() {
    let mut world = World::new(|_| ());
    let started = world.now;
    let id = world.join(FakeViewer::new("198.51.100.1:5000", GCM_AND_CM), 1);
    let joined = viewer(&world, 0);
    assert_eq!(joined.session, id);
    assert_eq!(joined.timeline.offer_unix, started.wall);
    assert_eq!(joined.timeline.answer, Some(Duration::ZERO), "in virtual time");
    assert_eq!((joined.timeline.ice, joined.timeline.dtls), (None, None));
    assert_eq!((joined.path, joined.srtp_profile, joined.rtt), (None, None, None));
    // For a moment nothing gets through.
    world.lose = Box::new(|_, _, _| true);
    world.run(Duration::from_millis(100));
    world.lose = Box::new(|_, _, _| false);
    world.run(Duration::from_millis(900));

    let watching = viewer(&world, 0);
    assert_eq!(watching.path, Some(Path::Host));
    assert_eq!(watching.local_candidate, Some(CandidateType::Host));
    assert_eq!(watching.remote_candidate, Some(CandidateType::Host));
    assert_eq!(watching.srtp_profile, Some(SrtpProfile::AeadAes128Gcm.id()));
    assert_eq!(watching.timeline.first_frame, None, "there was none");
    world.push_frame(&delta(500, 1), FRAME);
    world.push_frame(&delta(500, 2), FRAME * 2);
    assert_eq!(viewer(&world, 0).drops, Drops { awaiting_keyframe: 2, ..Drops::default() });
    world.push_frame(&idr(3000, 1), FRAME * 3);

    let times = viewer(&world, 0).timeline;
    let setup = world.events.iter().find_map(|e| match e {
        Event::ViewerConnected { setup_ms, .. } => Some(u64::from(*setup_ms)),
        _ => None,
    });
    assert_eq!(times.dtls.map(|at| at.as_millis() as u64), setup);
    assert!(times.answer <= times.ice && times.ice <= times.dtls, "{times:?}");
    assert!(
        times.ice >= Some(Duration::from_millis(100)) && times.dtls < times.first_frame,
        "{times:?}"
    );
    assert_eq!(times.first_frame, Some(Duration::from_secs(1)));
    assert_eq!(times.age, Duration::from_secs(1));
    world.run(Duration::from_secs(1));
    assert_eq!(viewer(&world, 0).timeline.first_frame, times.first_frame, "said once");
}

#[test]
fn frames_that_are_refused_are_counted_by_reason() {
    let mut world = World::new(|_| ());
    let naked = unit(&[&slice(0x65, 100, 1)]);
    world.push_frame(&naked, FRAME);
    world.push_frame(&[1, 2, 3], FRAME * 2);
    world.push_frame(&delta(100, 1), FRAME * 3);
    world.push_frame(&idr(3 << 20, 1), FRAME * 4);
    world.push_frame(&delta(100, 2), FRAME * 5);
    world.push_frame(&idr(3000, 1), FRAME * 6);
    world.push_frame(&delta(100, 3), FRAME * 7);
    let stream = &stats(&world).streams[0];
    let refused = Refused {
        queue_full: 0,
        awaiting_keyframe: 2,
        too_large: 1,
        no_parameter_sets: 1,
        malformed: 1,
    };
    assert_eq!(stream.refused, refused);
    assert_eq!((stream.frames, stream.keyframes, refused.total()), (2, 1, 5));
}

#[test]
fn a_viewer_that_left_is_gone_and_the_cipher_is_told() {
    let mut world = World::new(|_| ());
    world.push_frame(&idr(3000, 1), FRAME);
    world.join(FakeViewer::new("198.51.100.1:5000", CM_ONLY), 1);
    world.run(Duration::from_secs(2));
    let profile = SrtpProfile::AesCm128HmacSha1_80.id();
    assert_eq!(viewer(&world, 0).srtp_profile, Some(profile));
    assert!(stats(&world).is_lively());
    world.input(Input::SignalingUp);
    assert!(stats(&world).agent.signaling_up);
    world.input(Input::SignalingDown { reason: "a test".into() });
    world.input(Input::SignalingUp);
    assert_eq!(stats(&world).agent.signaling_reconnects, 1);
    world.input(Input::Shutdown);
    assert!(stats(&world).viewers.is_empty() && !stats(&world).is_lively());
}

#[test]
fn a_stream_that_is_started_twice_is_one_stream() {
    let mut world = World::new(|_| ());
    let config = StreamConfig {
        name: "main".into(),
        codec: Codec::H264,
        bitrate: 2_000_000,
        min_bitrate: None,
        max_bitrate: None,
        fallback: None,
        gop_cache: DEFAULT_GOP_CACHE,
    };
    world.input(Input::StartStream { id: STREAM, config });
    assert_eq!(stats(&world).streams.len(), 1);
}

#[test]
fn a_snapshots_memory_is_used_again() {
    let (mut world, _) = connected(4);
    let mut snapshot = stats(&world);
    let places = (snapshot.viewers.as_ptr(), snapshot.streams.as_ptr());
    world.push_frame(&delta(5000, 1), FRAME);
    world.agent.write_stats(world.now, &mut snapshot);
    assert_eq!((snapshot.viewers.as_ptr(), snapshot.streams.as_ptr()), places);
    assert_eq!((snapshot.viewers.len(), snapshot.streams[0].frames), (4, 2));
}

#[test]
fn a_frame_is_sent_with_its_last_packet_to_each_viewer() {
    let (mut world, _) = connected(2);
    world.run(Duration::from_secs(1));
    assert!(world.sent_frames.is_empty(), "the pictures that a viewer starts with do not count");
    world.push_frame(&delta(3000, 1), FRAME);
    assert_eq!(world.sent_frames, [Duration::ZERO; 2]);
    world.sent_frames.clear();
    // More than goes out at once.
    world.push_frame(&idr(60_000, 2), 2 * FRAME);
    assert!(world.sent_frames.is_empty());
    world.run(Duration::from_secs(1));
    assert_eq!(world.sent_frames.len(), 2);
    let spread = Duration::from_millis(5)..Duration::from_millis(200);
    assert!(world.sent_frames.iter().all(|took| spread.contains(took)), "{:?}", world.sent_frames);
}

/// A stream of 2 Mbit/s has a history of a megabyte, of which a quarter is the pictures that a viewer
/// starts with.
#[test]
fn a_stream_that_nobody_watches_keeps_what_a_viewer_starts_with() {
    let mut world = World::new(|_| ());
    let mut n = 0;
    let mut run = |world: &mut World, seconds: u32| {
        for _ in 0..25 * seconds {
            let frame = if n % 25 == 0 { idr(40_000, n as u8) } else { delta(5000, n as u8) };
            world.push_frame(&frame, FRAME * n);
            world.run(FRAME);
            n += 1;
        }
    };
    let history = |world: &World| stats(world).streams[0].history_bytes;
    run(&mut world, 10);
    assert!(history(&world) < 400_000, "{}", history(&world));

    let id = world.join(FakeViewer::new("198.51.100.1:5000", GCM_AND_CM), 1);
    run(&mut world, 3);
    assert!(world.is_connected(id));
    let keyframe = world.viewers[0].packets.iter().position(|p| p.marker).unwrap();
    assert!(keyframe > 30, "it started with the keyframe that was there");
    let missing = stats(&world).viewers[0].drops.total();
    assert_eq!((history(&world) > 1_000_000, missing), (true, 0));

    world.signal(id, "app_1", Body::Bye { reason: String::new() });
    run(&mut world, 4);
    assert!(history(&world) > 1_000_000, "somebody may still ask for packets");
    run(&mut world, 3);
    assert!(history(&world) < 400_000, "{}", history(&world));

    // Larger than that: it is taken all the same.
    world.push_frame(&idr(600_000, 1), FRAME * 1000);
    assert_eq!(stats(&world).streams[0].refused.total(), 0);
    assert!((600_000..800_000).contains(&history(&world)), "{}", history(&world));
}
