//! Sound both ways: what the microphone makes reaches who listens, what a viewer says reaches the
//! loudspeaker, and reports put sound and picture on one time line.

use crate::viewer::{FakeViewer, GCM_AND_CM, Packet};
use crate::world::{Spoken, World};
use crate::{delta, depacketise, idr};
use sdk_core::agent::Input;
use sdk_core::driver::{AudioCodec, AudioFormat};
use sdk_core::event::AudioId;
use sdk_core::stats::{Snapshot, ViewerStats};
use sdk_core::wire::rtcp::{self, ReportBlock, SenderInfo};
use sdk_core::wire::sdp::{Description, Direction};
use sdk_core::wire::signal::{Body, Offer, SessionId};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const OFFER: &str = include_str!("../../../testdata/sdp/chromium_video_audio_data.sdp");
const AUDIO: AudioId = AudioId(1);
/// In Chromium's offer.
const OPUS: u8 = 111;
const PCMU: u8 = 0;
/// Of what the viewer says.
const TALK_SSRC: u32 = 0x7a1c;

fn format(codec: AudioCodec) -> AudioFormat {
    AudioFormat { codec, sends: true, receives: true }
}

/// A camera with sound; `None`: without.
fn world(audio: Option<AudioFormat>) -> World {
    let mut world = World::new(|_| ());
    if let Some(format) = audio {
        world.input(Input::StartAudio { id: AUDIO, format });
    }
    world.push_frame(&idr(3000, 1), Duration::ZERO);
    world
}

/// The offer of a viewer that listens, and talks if it says so.
fn offer(direction: &str) -> String {
    OFFER.replacen("a=sendrecv", direction, 1)
}

fn join(world: &mut World, n: u8, offer: String) -> SessionId {
    let addr = format!("198.51.100.{n}:5000");
    let id = world.join(FakeViewer::new(&addr, GCM_AND_CM).like(offer), n);
    world.run(Duration::from_secs(2));
    assert!(world.is_connected(id), "{:?}", world.events);
    id
}

/// A further offer in the session of viewer 1.
fn offer_again(world: &mut World, id: SessionId, offer: String) -> Description<'static> {
    world.viewers[0].offer_next(offer);
    let sdp = world.viewers[0].offer();
    let offer = Offer { sdp, token: world.token(id, "app_1"), stream: None };
    world.signal(id, "app_1", Body::Offer(offer));
    answer(world, "app_1")
}

fn answer(world: &World, app: &str) -> Description<'static> {
    Description::parse(world.answer_to(app).unwrap().leak()).unwrap()
}

/// An Opus packet of 20 ms that is known again.
fn opus(n: u32) -> Vec<u8> {
    [&[1 << 3][..], &n.to_be_bytes(), &[0x5a; 60]].concat()
}

fn push(world: &mut World, data: &[u8], timestamp: Duration) {
    world.input(Input::Audio { id: AUDIO, data, timestamp });
    world.run(Duration::ZERO);
}

fn heard(viewer: &FakeViewer, payload_type: u8) -> Vec<&Packet> {
    viewer.packets.iter().filter(|packet| packet.payload_type == payload_type).collect()
}

/// The viewer says something: 20 ms of PCMU.
fn say(world: &mut World, viewer: usize, n: u32) {
    let packet = Packet {
        sequence: 100 + n as u16,
        timestamp: 5000 + 160 * n,
        ssrc: TALK_SSRC,
        payload_type: PCMU,
        marker: n == 0,
        payload: word(n),
    };
    let (to, sealed) = world.viewers[viewer].rtp(&packet);
    let from = world.viewers[viewer].addr;
    world.send(from, to, sealed);
}

fn word(n: u32) -> Vec<u8> {
    n.to_be_bytes().repeat(40)
}

fn stats(world: &World, viewer: usize) -> ViewerStats {
    let mut snapshot = Snapshot::default();
    world.agent.write_stats(world.now, &mut snapshot);
    snapshot.viewers[viewer].clone()
}

/// All sender reports of one source, and report blocks.
fn reports(viewer: &FakeViewer, of: u32) -> (Vec<SenderInfo>, Vec<ReportBlock>) {
    let (mut sent, mut blocks) = (Vec::new(), Vec::new());
    for packet in viewer.rtcp.iter().flat_map(|compound| rtcp::packets(compound)) {
        match packet {
            rtcp::Packet::SenderReport { ssrc, info, .. } if ssrc == of => sent.push(info),
            rtcp::Packet::ReceiverReport { reports, .. } => {
                blocks.extend(reports.filter(|block| block.ssrc == of));
            }
            _ => {}
        }
    }
    (sent, blocks)
}

#[test]
fn every_listener_hears_the_microphone_and_nobody_else_does() {
    let mut world = world(Some(format(AudioCodec::Opus)));
    join(&mut world, 1, offer("a=recvonly"));
    join(&mut world, 2, offer("a=sendrecv"));
    join(&mut world, 3, offer("a=inactive"));
    world.join(FakeViewer::new("198.51.100.4:5000", GCM_AND_CM), 4);
    world.run(Duration::from_secs(2));
    let sent: Vec<Vec<u8>> = (0..100).map(opus).collect();
    for (n, packet) in (0..).zip(&sent) {
        if n % 5 == 0 {
            world.push_frame(&delta(900, n as u8), 40 * MS * (n / 2 + 1));
        }
        push(&mut world, packet, 20 * MS * n);
        assert_eq!(heard(&world.viewers[0], OPUS).len() as u32, n + 1, "it goes out at once");
        world.run(20 * MS);
    }
    for viewer in &world.viewers[..2] {
        let heard = heard(viewer, OPUS);
        assert_eq!(
            heard.iter().map(|packet| &packet.payload).collect::<Vec<_>>(),
            sent.iter().collect::<Vec<_>>()
        );
        for (n, pair) in heard.windows(2).enumerate() {
            assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
            assert_eq!(pair[1].timestamp, pair[0].timestamp.wrapping_add(960));
            assert_eq!((pair[0].marker, pair[1].marker), (n == 0, false));
        }
        let video: Vec<Packet> =
            viewer.packets.iter().filter(|p| p.ssrc != heard[0].ssrc).cloned().collect();
        assert_eq!(depacketise(&video).len(), 23);
        assert!(video.iter().all(|packet| packet.payload_type != OPUS));
    }
    for viewer in &world.viewers[2..] {
        assert!(heard(viewer, OPUS).is_empty());
        assert!(depacketise(&viewer.packets).len() >= 23, "and it sees all the same");
    }
    let stats = stats(&world, 0);
    let bytes: usize = sent.iter().map(Vec::len).sum();
    assert_eq!((stats.audio.packets, stats.audio.bytes), (100, bytes as u64));
    assert!(stats.wire_bytes > stats.media_bytes + stats.audio.bytes + 100 * 28);
}

#[test]
fn silence_is_a_gap_in_the_timestamps_and_a_marker_behind_it() {
    let mut world = world(Some(format(AudioCodec::Opus)));
    join(&mut world, 1, offer("a=recvonly"));
    for captured in [0, 20, 40, 460, 480] {
        push(&mut world, &opus(captured), MS * captured);
    }
    let heard = heard(&world.viewers[0], OPUS);
    let steps = heard.windows(2).map(|p| p[1].timestamp.wrapping_sub(p[0].timestamp) / 48);
    assert_eq!(steps.collect::<Vec<_>>(), [20, 20, 420, 20]);
    let markers: Vec<bool> = heard.iter().map(|packet| packet.marker).collect();
    assert_eq!(markers, [true, false, false, true, false]);
}

/// What a camera's encoders really do: the picture of a moment is there 30 ms after it, its sound 120 ms
/// after it. Five seconds of both, each with its moment of capture; gives the last moment of each.
fn play_both(world: &mut World, boot: Duration) -> (Duration, Duration) {
    let started = world.now.instant;
    let mut pushes: Vec<(Duration, Duration, bool)> = (0..150)
        .map(|n| (33 * MS * n + 30 * MS + n % 4 * MS, 33 * MS * n, true))
        .chain((0..250).map(|n| (20 * MS * n + 120 * MS + n * 7 % 9 * MS, 20 * MS * n, false)))
        .collect();
    pushes.sort_unstable();
    for (n, (at, captured, is_video)) in (0_u32..).zip(pushes) {
        world.run(at - (world.now.instant - started));
        match is_video {
            true if n == 0 => world.push_frame(&idr(1000, 1), boot + captured),
            true => world.push_frame(&delta(1000, n as u8), boot + captured),
            false => push(world, &opus(n), boot + captured),
        }
    }
    (33 * MS * 149, 20 * MS * 249)
}

/// By each two of the last reports on both, how much later the last picture was captured than the last
/// sound, in milliseconds.
fn distances(viewer: &FakeViewer) -> Vec<f64> {
    let is_sound = |packet: &&Packet| packet.payload_type == OPUS;
    let sound = viewer.packets.iter().rfind(is_sound).unwrap();
    let picture = viewer.packets.iter().rfind(|packet| !is_sound(packet)).unwrap();
    let wall = |info: &SenderInfo, timestamp: u32, rate: f64| {
        let ntp = info.ntp as f64 / f64::from(1 << 16) / f64::from(1 << 16);
        let ticks = timestamp.wrapping_sub(info.rtp_timestamp) as i32;
        1000.0 * (ntp + f64::from(ticks) / rate)
    };
    let last = |of: u32| {
        let (all, _) = reports(viewer, of);
        assert!(all.len() >= 4, "{}", all.len());
        all[all.len() - 4..].to_vec()
    };
    let (sounds, pictures) = (last(sound.ssrc), last(picture.ssrc));
    let pairs =
        sounds.iter().flat_map(|sound| pictures.iter().map(move |picture| (sound, picture)));
    let distance = |(of_sound, of_picture): (&SenderInfo, &SenderInfo)| {
        wall(of_picture, picture.timestamp, 90_000.0) - wall(of_sound, sound.timestamp, 48_000.0)
    };
    pairs.map(distance).collect()
}

#[test]
fn sound_and_picture_are_in_sync_by_their_sender_reports() {
    let mut world = World::new(|_| ());
    world.input(Input::StartAudio { id: AUDIO, format: format(AudioCodec::Opus) });
    join(&mut world, 1, offer("a=recvonly"));
    // The second time the encoders' clock has been set, as it is when the network tells the time.
    for boot in [5000, 1_700_000_000] {
        let (picture, sound) = play_both(&mut world, Duration::from_secs(boot));
        for distance in distances(&world.viewers[0]) {
            let skew = distance - (picture.as_secs_f64() - sound.as_secs_f64()) * 1000.0;
            assert!(skew.abs() < 5.0, "{skew} ms");
        }
    }
    // One packet for both, of one source description.
    let compound = world.viewers[0].rtcp.last().unwrap();
    let kinds = rtcp::packets(compound).map(|packet| match packet {
        rtcp::Packet::SenderReport { .. } => "SR",
        rtcp::Packet::SourceDescription => "SDES",
        _ => "?",
    });
    assert_eq!(kinds.collect::<Vec<_>>(), ["SR", "SR", "SDES", "SDES"]);
    let sdp = world.answer_to("app_1").unwrap();
    let cname = sdp.split("cname:").nth(1).unwrap().split("\r\n").next().unwrap();
    let named = compound.windows(cname.len()).filter(|window| *window == cname.as_bytes()).count();
    assert_eq!(named, 2, "{cname}");
}

/// Clocks that have nothing to do with each other: each is then of the moment at which it was pushed.
#[test]
fn sources_without_a_common_clock_are_tied_to_their_arrival() {
    let mut world = World::new(|_| ());
    world.input(Input::StartAudio { id: AUDIO, format: format(AudioCodec::Opus) });
    join(&mut world, 1, offer("a=recvonly"));
    world.push_frame(&idr(1000, 1), Duration::ZERO);
    for n in 0..250 {
        world.run(20 * MS);
        world.push_frame(&delta(500, n as u8), 20 * MS * (n + 1));
        push(&mut world, &opus(n), Duration::from_secs(5000) + 20 * MS * n);
    }
    for distance in distances(&world.viewers[0]) {
        assert!(distance.abs() < 5.0, "{distance} ms");
    }
}

/// The first report comes with the first sound: until then a player cannot tell what belongs together.
#[test]
fn the_first_sound_is_reported_at_once_with_or_without_pictures() {
    let mut world = World::new(|_| ());
    world.input(Input::StartAudio { id: AUDIO, format: format(AudioCodec::Opus) });
    join(&mut world, 1, offer("a=recvonly"));
    assert!(world.viewers[0].rtcp.is_empty(), "there was no picture yet");
    push(&mut world, &opus(1), 20 * MS);
    world.run(MS);
    let ssrc = heard(&world.viewers[0], OPUS)[0].ssrc;
    assert_eq!(reports(&world.viewers[0], ssrc).0.len(), 1);
    world.run(Duration::from_secs(3));
    assert_eq!(reports(&world.viewers[0], ssrc).0.len(), 4);
}

#[test]
fn what_a_viewer_says_reaches_the_loudspeaker_in_order_and_in_time() {
    let mut world = world(Some(format(AudioCodec::Pcmu)));
    let id = join(&mut world, 1, offer("a=sendrecv"));
    let start = world.now.instant;
    for n in 0..150 {
        // 71 overtakes 70, 90 and 91 are lost.
        match n {
            70 => {}
            71 => [71, 70].into_iter().for_each(|n| say(&mut world, 0, n)),
            90 | 91 => {}
            n => say(&mut world, 0, n),
        }
        world.run(20 * MS);
    }
    world.run(Duration::from_secs(1));
    let spoken = &world.spoken;
    assert_eq!(spoken.len(), 150);
    for (n, piece) in (0_u32..).zip(spoken) {
        let lost = n == 90 || n == 91;
        assert_eq!((piece.session, piece.lost), (id, u32::from(lost)), "{n}");
        assert_eq!(piece.data, if lost { Vec::new() } else { word(n) });
        assert_eq!((piece.timestamp, piece.duration), (20 * MS * n, 20 * MS));
        let age = piece.at - start - 20 * MS * n;
        assert!((20 * MS..=65 * MS).contains(&age), "{n}: {age:?}");
    }
    let talkback = stats(&world, 0).talkback;
    assert_eq!((talkback.packets, talkback.lost, talkback.late), (148, 2, 0));
    assert_eq!(talkback.delay, 30 * MS);

    // The viewer is told about its packets as well.
    let (_, blocks) = reports(&world.viewers[0], TALK_SSRC);
    let last = blocks.last().unwrap();
    assert_eq!((last.cumulative_lost, last.highest_sequence), (2, 249));
    assert!(blocks.len() >= 3 && blocks.iter().any(|block| block.fraction_lost > 0));
    let quiet = blocks.len();
    world.run(Duration::from_secs(5));
    assert_eq!(reports(&world.viewers[0], TALK_SSRC).1.len(), quiet, "nothing to report on");
}

#[test]
fn a_viewers_sender_report_comes_back_with_the_time_it_was_held() {
    let mut world = world(Some(format(AudioCodec::Pcmu)));
    join(&mut world, 1, offer("a=sendrecv"));
    say(&mut world, 0, 0);
    let mut report = Vec::new();
    let info = SenderInfo { ntp: 0x1122_3344_5566_7788, rtp_timestamp: 0, packets: 1, octets: 160 };
    rtcp::write_sender_report(&mut report, TALK_SSRC, &info);
    let (to, sealed) = world.viewers[0].rtcp(&report);
    let from = world.viewers[0].addr;
    world.send(from, to, sealed);
    let sent = world.now.instant;
    while reports(&world.viewers[0], TALK_SSRC).1.len() < 2 {
        let n = 1 + (world.now.instant - sent).as_millis() as u32 / 20;
        say(&mut world, 0, n);
        world.run(20 * MS);
    }
    let last = *reports(&world.viewers[0], TALK_SSRC).1.last().unwrap();
    assert_eq!(last.last_sender_report, 0x3344_5566);
    let held = Duration::from_secs_f64(f64::from(last.delay_since_last_sender_report) / 65_536.0);
    assert!(held > 500 * MS && held <= world.now.instant - sent, "{held:?}");
}

/// Press to talk: the same session, a further offer.
#[test]
fn a_viewer_may_begin_to_talk_and_stop() {
    let mut world = world(Some(format(AudioCodec::Pcmu)));
    let id = join(&mut world, 1, offer("a=recvonly"));
    assert_eq!(answer(&world, "app_1").media[0].direction, Direction::SendOnly);
    say(&mut world, 0, 0);
    world.run(Duration::from_secs(1));
    assert_eq!(world.spoken, [], "nobody has agreed to that");

    let talking = offer_again(&mut world, id, offer("a=sendrecv"));
    assert_eq!(talking.media[0].direction, Direction::SendRecv);
    for n in 1..50 {
        say(&mut world, 0, n);
        push(&mut world, &[n as u8; 160], 20 * MS * n);
        world.run(20 * MS);
    }
    world.run(Duration::from_secs(1));
    assert_eq!(world.spoken.len(), 49);

    let listening = offer_again(&mut world, id, offer("a=recvonly"));
    assert_eq!(listening.media[0].direction, Direction::SendOnly);
    say(&mut world, 0, 50);
    world.run(Duration::from_secs(1));
    assert_eq!(world.spoken.len(), 49);
    assert_eq!(stats(&world, 0).talkback.packets, 49, "what was said stays said");
    push(&mut world, &[1; 160], Duration::from_secs(4));
    assert_eq!(heard(&world.viewers[0], PCMU).len(), 50, "it listened all the time");
}

#[test]
fn numbers_of_the_first_offer_stay() {
    let mut world = world(Some(format(AudioCodec::Opus)));
    let id = join(&mut world, 1, offer("a=recvonly"));
    let other = offer("a=recvonly").replace("rtpmap:111 opus", "rtpmap:63 opus");
    let other = other.replace("a=rtpmap:63 red/48000/2\r\n", "");
    let refused = offer_again(&mut world, id, other);
    assert_eq!(refused.media[0].direction, Direction::Inactive);
    push(&mut world, &opus(1), 20 * MS);
    assert!(heard(&world.viewers[0], OPUS).is_empty());
    let pictures = world.viewers[0].packets.len();
    world.push_frame(&delta(500, 1), 40 * MS);
    assert_eq!(world.viewers[0].packets.len(), pictures + 1, "the picture goes on");
    offer_again(&mut world, id, offer("a=recvonly"));
    push(&mut world, &opus(2), 40 * MS);
    assert_eq!(heard(&world.viewers[0], OPUS).len(), 1);
}

#[test]
fn sound_that_begins_or_ends_later_takes_a_further_offer() {
    let mut world = world(None);
    let id = join(&mut world, 1, offer("a=sendrecv"));
    assert_eq!(answer(&world, "app_1").media[0].direction, Direction::Inactive);
    world.input(Input::StartAudio { id: AUDIO, format: format(AudioCodec::Pcmu) });
    push(&mut world, &[1; 160], 20 * MS);
    assert!(heard(&world.viewers[0], PCMU).is_empty());
    let with_sound = offer_again(&mut world, id, offer("a=sendrecv") + "a=x-again:1\r\n");
    assert_eq!(with_sound.media[0].direction, Direction::SendRecv);
    for n in 0..10 {
        say(&mut world, 0, n);
        push(&mut world, &[2; 160], 20 * MS * (n + 2));
        world.run(20 * MS);
    }
    assert_eq!(heard(&world.viewers[0], PCMU).len(), 10);
    assert!(!world.spoken.is_empty());

    world.input(Input::StopAudio { id: AUDIO });
    world.spoken.clear();
    for n in 10..20 {
        say(&mut world, 0, n);
        push(&mut world, &[3; 160], 20 * MS * (n + 2));
        world.run(20 * MS);
    }
    assert_eq!(heard(&world.viewers[0], PCMU).len(), 10);
    assert_eq!(world.spoken, []);

    // Started again, it goes on where it was: the same source, its numbers and its time go forward.
    let id_2 = AudioId(2);
    world.input(Input::StartAudio { id: id_2, format: format(AudioCodec::Pcmu) });
    offer_again(&mut world, id, offer("a=sendrecv") + "a=x-again:2\r\n");
    push(&mut world, &[4; 160], 500 * MS);
    assert_eq!(heard(&world.viewers[0], PCMU).len(), 10, "the one that was stopped");
    world.input(Input::Audio { id: id_2, data: &[5; 160], timestamp: 500 * MS });
    world.run(MS);
    let heard = heard(&world.viewers[0], PCMU);
    let [before, after] = heard[9..] else { panic!("{}", heard.len()) };
    assert_eq!((after.ssrc, after.sequence), (before.ssrc, before.sequence.wrapping_add(1)));
    assert!(after.timestamp.wrapping_sub(before.timestamp) < 8000 && after.marker);
}

#[test]
fn a_viewer_without_the_codec_sees_the_picture() {
    let mut world = world(Some(format(AudioCodec::Pcma)));
    let without = offer("a=recvonly").replace("a=rtpmap:8 PCMA/8000\r\n", "");
    join(&mut world, 1, without.replace(" 9 0 8 13", " 9 0 13"));
    push(&mut world, &[0xd5; 160], 20 * MS);
    world.push_frame(&delta(500, 1), 40 * MS);
    assert!(!world.viewers[0].packets.is_empty());
    let video = world.viewers[0].packets[0].ssrc;
    assert!(world.viewers[0].packets.iter().all(|packet| packet.ssrc == video));
}

/// What the firmware pushes that is no sound goes nowhere, and does no harm.
#[test]
fn what_is_no_packet_is_not_sent() {
    let mut world = world(Some(format(AudioCodec::Opus)));
    join(&mut world, 1, offer("a=recvonly"));
    for data in [&b"OggS"[..], &[], &[0xff]] {
        push(&mut world, data, 20 * MS);
    }
    push(&mut world, &opus(1), 40 * MS);
    assert_eq!(heard(&world.viewers[0], OPUS).len(), 1);
}

/// Whatever the viewer sends on its audio section, the loudspeaker gets packets of its codec or nothing.
#[test]
fn strange_packets_of_a_viewer_are_passed_over() {
    let mut world = world(Some(format(AudioCodec::Pcmu)));
    join(&mut world, 1, offer("a=sendrecv"));
    let mut state = 1_u64;
    for n in 0..2000_u32 {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = (state >> 33) as u32;
        let packet = Packet {
            // SRTP's index must go forward, so the number does; all else is whatever comes.
            sequence: 1000 + n as u16,
            timestamp: if random.is_multiple_of(3) { random.wrapping_mul(77) } else { 160 * n },
            ssrc: TALK_SSRC + random % 3,
            payload_type: if random.is_multiple_of(5) { 13 } else { PCMU },
            marker: random.is_multiple_of(7),
            payload: vec![random as u8; random as usize % 1400],
        };
        let (to, sealed) = world.viewers[0].rtp(&packet);
        let from = world.viewers[0].addr;
        world.send(from, to, sealed);
        world.run(MS * (random % 30));
    }
    world.run(Duration::from_secs(1));
    assert!(world.spoken.iter().all(|Spoken { data, lost, .. }| data.is_empty() == (*lost > 0)));
    let talkback = stats(&world, 0).talkback;
    assert!(talkback.packets > 1000 && talkback.delay <= 500 * MS, "{talkback:?}");
    world.push_frame(&delta(500, 1), Duration::from_secs(60));
    assert_eq!(world.events.iter().filter(|e| format!("{e:?}").contains("Closed")).count(), 0);
}
