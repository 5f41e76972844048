//! From a train to what a viewer sees, through loss, drops, rollover and restarts.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod media_support;

use media_support::*;
use sdk_core::media::{
    DropReason, PacketizationMode, RtcpFacts, Rtx, Sealed, SendBuffer, SrtpProfile, Train,
    VideoConfig, VideoStream, ViewerConfig,
};
use sdk_core::wire::rtcp;
use sdk_core::wire::rtp::{self, ExtensionIds};
use std::time::{Duration, Instant};

struct World {
    now: Instant,
    stream: VideoStream,
    viewer: sdk_core::media::ViewerStream,
    remote: Remote,
    out: SendBuffer,
    frames: u32,
}

impl World {
    fn new(profile: SrtpProfile, config: ViewerConfig) -> World {
        World::with(VideoConfig::new(2_000_000, 1200), profile, config)
    }

    fn with(video: VideoConfig, profile: SrtpProfile, config: ViewerConfig) -> World {
        let now = start_of_time();
        let (viewer, remote) = viewer(now, config, profile);
        let stream = VideoStream::new(video);
        World { now, stream, viewer, remote, out: SendBuffer::new(), frames: 0 }
    }

    fn push(&mut self, access_unit: &[u8]) -> Train {
        self.frames += 1;
        self.now += Duration::from_millis(40);
        let timestamp = Duration::from_millis(40) * self.frames;
        self.stream.push(access_unit, timestamp).unwrap().unwrap()
    }

    fn seal(&mut self, train: &Train) -> Sealed {
        self.viewer.seal_train(self.now, &self.stream, train, None, &mut self.out)
    }

    /// Pushes a frame and receives it.
    fn show(&mut self, access_unit: &[u8]) -> Vec<Received> {
        let train = self.push(access_unit);
        assert!(matches!(self.seal(&train), Sealed::Sent { .. }));
        self.remote.open_all(&mut self.out)
    }

    fn hear(&mut self, mut datagram: Vec<u8>) -> RtcpFacts {
        let (viewer, stream) = (&mut self.viewer, &self.stream);
        let facts = viewer.handle_rtcp(self.now, &mut datagram, stream, None, &mut self.out);
        // How long it was is not what the tests compare.
        RtcpFacts { len: 0, ..facts.unwrap() }
    }
}

#[test]
fn a_viewer_sees_the_frames_from_the_first_keyframe_on() {
    for profile in SrtpProfile::ALL {
        let mut world = World::new(profile, viewer_config());
        let train = world.push(&delta(100, 1));
        assert_eq!(world.seal(&train), Sealed::AwaitingKeyframe);
        assert!(world.viewer.needs_keyframe() && world.out.runs().is_empty());

        let received = world.show(&idr(4000));
        assert!(!world.viewer.needs_keyframe());
        assert_eq!(nals_of(&received), [&SPS[..], &PPS, &nal(0x65, 4000, 3)]);
        for (packet, sequence) in received.iter().zip(1000..) {
            assert_eq!((packet.ssrc, packet.payload_type), (SSRC, 96));
            assert_eq!(packet.sequence, sequence);
            assert_eq!(packet.timestamp, 0xffff_0000 + 2 * 3600);
        }
        let markers: Vec<_> = received.iter().map(|packet| packet.marker).collect();
        assert_eq!(markers, [false, false, false, false, true]);

        let next = world.show(&delta(100, 2));
        assert_eq!(next[0].sequence, 1005);
        assert_eq!(next[0].timestamp, 0xffff_0000 + 3 * 3600);
        let stats = world.viewer.stats();
        assert_eq!((stats.packets, stats.frames, stats.dropped_frames), (6, 2, 0));
        let bytes: usize = received.iter().chain(&next).map(|packet| packet.payload.len()).sum();
        assert_eq!(stats.bytes, bytes as u64);
    }
}

#[test]
fn a_frame_of_one_slice_is_one_run_within_the_datagram_bound() {
    let extensions = ExtensionIds {
        mid: Some((1, "00000000".into())),
        abs_send_time: Some(2),
        transport_cc: Some(3),
    };
    let config = ViewerConfig { extensions, ..viewer_config() };
    let mut world = World::new(SrtpProfile::AeadAes128Gcm, config);
    world.show(&idr(100));
    let train = world.push(&delta(50_000, 1));
    world.viewer.seal_train(world.now, &world.stream, &train, Some(0x4000), &mut world.out);
    assert_eq!(world.out.runs().len(), 1);
    assert!(world.out.runs()[0].segment_size <= 1200 - 2, "with room for RTX");
    assert!(world.out.runs()[0].segment_size > 1180, "and little is wasted");
    for datagram in datagrams(&world.out) {
        assert_eq!(datagram[..2], [0x40, 0]);
        assert_eq!(usize::from(u16::from_be_bytes([datagram[2], datagram[3]])), datagram.len() - 4);
        world.remote.open(&datagram[4..]);
    }
}

#[test]
fn header_extensions_tell_time_and_order() {
    let extensions = ExtensionIds { mid: None, abs_send_time: Some(2), transport_cc: Some(3) };
    let config = ViewerConfig { extensions, ..viewer_config() };
    let mut world = World::new(SrtpProfile::AeadAes128Gcm, config);
    let mut expected = 1_u16;
    for frame in 1..20_u64 {
        let train = world.push(&idr(3000));
        world.seal(&train);
        for mut datagram in datagrams(&world.out) {
            let plain = world.remote.receiver.open_rtp(&mut datagram).unwrap();
            let packet = rtp::Packet::parse(plain).unwrap();
            assert_eq!(packet.extension(3), Some(&expected.to_be_bytes()[..]));
            let time = rtp::abs_send_time(Duration::from_millis(40 * frame)).to_be_bytes();
            assert_eq!(packet.extension(2), Some(&time[1..]));
            expected += 1;
        }
        world.out.clear();
    }
}

#[test]
fn lost_packets_are_sent_again_even_after_a_drop() {
    for profile in SrtpProfile::ALL {
        let extensions = ExtensionIds { mid: None, abs_send_time: Some(2), transport_cc: Some(3) };
        let mut world = World::new(profile, ViewerConfig { extensions, ..viewer_config() });
        world.show(&idr(2000));
        // Frames that this viewer is not sent: its sequence numbers go on without a gap.
        world.push(&delta(3000, 1));
        world.viewer.skip_to_keyframe();
        let train = world.push(&delta(3000, 2));
        assert_eq!(world.seal(&train), Sealed::AwaitingKeyframe);

        let train = world.push(&idr(9000));
        assert!(matches!(world.seal(&train), Sealed::Sent { packets: 9 }));
        let sent = datagrams(&world.out);
        world.out.clear();
        // Four get through.
        for at in [0, 2, 4, 6] {
            let packet = world.remote.open(&sent[at]);
            assert_eq!(packet.sequence, 1003 + at as u16, "contiguous over the drop");
        }
        let nack = world.remote.nack(&[1004, 1006, 1008, 1010, 1011]);
        let facts = world.hear(nack);
        assert_eq!((facts.resent, facts.keyframe_wanted), (5, false));
        let again = datagrams(&world.out);
        assert_eq!(again, [1, 3, 5, 7, 8].map(|at| sent[at].clone()), "byte by byte the same");
        let mut frame: Vec<_> = again.iter().map(|datagram| world.remote.open(datagram)).collect();
        assert_eq!(frame.len(), 5);
        frame.sort_by_key(|packet| packet.sequence);
        assert_eq!(world.viewer.stats().resent_packets, 5);
        assert_eq!(world.viewer.stats().dropped_frames, 1);
    }
}

#[test]
fn rtx_carries_lost_packets_in_a_source_of_its_own() {
    let rtx = Some(Rtx { ssrc: RTX_SSRC, payload_type: 97 });
    let mut world = World::new(SrtpProfile::AeadAes128Gcm, ViewerConfig { rtx, ..viewer_config() });
    let original = world.show(&idr(3000));
    let nack = world.remote.nack(&[1003, 1001]);
    assert_eq!(world.hear(nack).resent, 2);
    let again = world.remote.open_all(&mut world.out);
    for (packet, (sequence, at)) in again.iter().zip([(77, 3), (78, 1)]) {
        assert_eq!((packet.ssrc, packet.payload_type), (RTX_SSRC, 97));
        assert_eq!(packet.sequence, sequence);
        assert_eq!(packet.timestamp, original[at].timestamp);
        assert_eq!(packet.marker, original[at].marker);
        assert_eq!(packet.payload[..2], original[at].sequence.to_be_bytes());
        assert_eq!(packet.payload[2..], original[at].payload);
    }
    assert_eq!(again.len(), 2);
}

#[test]
fn an_rtx_source_of_the_streams_own_number_would_use_nonces_twice_and_is_not_used() {
    let rtx = Some(Rtx { ssrc: SSRC, payload_type: 97 });
    let mut world = World::new(SrtpProfile::AeadAes128Gcm, ViewerConfig { rtx, ..viewer_config() });
    let train = world.push(&idr(3000));
    world.seal(&train);
    let sent = datagrams(&world.out);
    world.out.clear();
    let nack = world.remote.nack(&[1002]);
    assert_eq!(world.hear(nack).resent, 1);
    assert_eq!(datagrams(&world.out), [sent[2].clone()]);
}

#[test]
fn a_packet_is_sent_again_once_per_round_trip() {
    let mut world = World::new(SrtpProfile::AeadAes128Gcm, viewer_config());
    world.show(&idr(3000));
    let mut resent = 0;
    for _ in 0..100 {
        world.now += Duration::from_millis(1);
        let nack = world.remote.nack(&[1001, 1001, 1001]);
        resent += world.hear(nack).resent;
    }
    assert_eq!(resent, 2, "50 ms until a round trip was measured");
    assert_eq!(world.viewer.stats().nacked_packets, 300);
}

#[test]
fn what_is_gone_from_the_history_asks_for_a_keyframe_and_what_was_never_sent_for_nothing() {
    let video = VideoConfig { history_bytes: 20_000, ..VideoConfig::new(2_000_000, 1200) };
    let mut world = World::with(video, SrtpProfile::AeadAes128Gcm, viewer_config());
    world.show(&idr(3000));
    let nack = world.remote.nack(&[999, 5, 40_000]);
    assert_eq!(world.hear(nack), RtcpFacts::default());
    (0..10).for_each(|seed| _ = world.show(&delta(5000, seed)));
    let nack = world.remote.nack(&[1001]);
    assert_eq!(world.hear(nack), RtcpFacts { keyframe_wanted: true, ..Default::default() });
    assert!(world.out.runs().is_empty());
}

#[test]
fn a_train_that_the_history_lost_is_dropped_whole() {
    let video = VideoConfig { history_bytes: 20_000, ..VideoConfig::new(2_000_000, 1200) };
    let mut world = World::with(video, SrtpProfile::AeadAes128Gcm, viewer_config());
    world.show(&idr(3000));
    let old = world.push(&delta(5000, 1));
    (0..3).for_each(|seed| _ = world.push(&delta(5000, seed)));
    assert_eq!(world.seal(&old), Sealed::Dropped(DropReason::TooOld));
    assert!(world.out.bytes().is_empty() && world.out.runs().is_empty());
    let train = world.push(&delta(100, 1));
    assert_eq!(world.seal(&train), Sealed::AwaitingKeyframe);
    let restart = world.show(&idr(3000));
    assert_eq!(restart[0].sequence, 1004);
    assert_eq!(world.viewer.stats().dropped_frames, 2);
}

#[test]
fn sequence_numbers_roll_over() {
    for profile in SrtpProfile::ALL {
        let config = ViewerConfig { initial_sequence: 0xffff, ..viewer_config() };
        let video = VideoConfig { max_payload: 64, ..VideoConfig::new(2_000_000, 1200) };
        let mut world = World::with(video, profile, config);
        let first = world.show(&idr(100));
        assert_eq!(first[0].sequence, 0x7fff, "the highest bit is not used at first");
        let mut last = u32::from(first.last().unwrap().sequence);
        while last < 0x1_0400 {
            let train = world.push(&delta(30_000, last as u8));
            world.seal(&train);
            let sent = datagrams(&world.out);
            world.out.clear();
            // One is lost and comes again: in some round it is on the other side of the rollover.
            world.now += Duration::from_secs(1);
            let nack = world.remote.nack(&[(last + 10) as u16]);
            assert_eq!(world.hear(nack).resent, 1);
            assert_eq!(datagrams(&world.out), [sent[9].clone()]);
            world.out.clear();
            for datagram in &sent {
                last += 1;
                assert_eq!(world.remote.open(datagram).sequence, last as u16);
            }
        }
    }
}

#[test]
fn mode_0_gets_each_unit_in_a_packet_of_its_own() {
    for profile in SrtpProfile::ALL {
        let config =
            ViewerConfig { packetization_mode: PacketizationMode::SingleNal, ..viewer_config() };
        let mut world = World::new(profile, config);
        let slices = [nal(0x65, 5000, 1), nal(0x65, 700, 2), nal(0x65, 20, 3), nal(0x65, 9, 4)];
        let mut unit = annex_b(&[&SPS[..], &PPS]);
        unit.extend(annex_b(&slices));
        let train = world.push(&unit);
        assert_eq!(world.seal(&train), Sealed::Sent { packets: 6 });
        let sent = datagrams(&world.out);
        let received = world.remote.open_all(&mut world.out);
        let payloads: Vec<_> = received.iter().map(|packet| &packet.payload[..]).collect();
        assert_eq!(payloads[..2], [&SPS[..], &PPS]);
        assert_eq!(payloads[2..], slices);
        for (at, packet) in received.iter().enumerate() {
            assert_eq!(packet.sequence, 1000 + at as u16);
            assert_eq!(packet.marker, at == 5);
        }
        let nack = world.remote.nack(&[1002, 1004]);
        assert_eq!(world.hear(nack).resent, 2);
        assert_eq!(datagrams(&world.out), [sent[2].clone(), sent[4].clone()]);
        world.out.clear();
        assert_eq!(
            world.viewer.stats().bytes,
            payloads.iter().map(|payload| payload.len() as u64).sum::<u64>()
        );
    }
}

#[test]
fn mode_0_drops_a_picture_that_no_datagram_takes_and_goes_on_at_the_next_keyframe() {
    let config =
        ViewerConfig { packetization_mode: PacketizationMode::SingleNal, ..viewer_config() };
    let mut world = World::new(SrtpProfile::AeadAes128Gcm, config);
    let train = world.push(&idr(60_001));
    let dropped = Sealed::Dropped(DropReason::TooLargeForMode0 { nal_bytes: 60_001 });
    assert_eq!(world.seal(&train), dropped);
    assert!(world.out.bytes().is_empty());
    let received = world.show(&idr(60_000));
    assert_eq!(received[2].payload, nal(0x65, 60_000, 3));
}

#[test]
fn a_new_viewer_starts_from_the_kept_pictures_and_goes_on_with_the_next() {
    let mut world = World::new(SrtpProfile::AeadAes128Gcm, viewer_config());
    assert_eq!(
        world.viewer.seal_gop(world.now, &world.stream, None, &mut world.out),
        0,
        "nothing is kept yet"
    );
    world.push(&idr(5000));
    (0..9).for_each(|seed| _ = world.push(&delta(2000, seed)));
    let sealed = world.viewer.seal_gop(world.now, &world.stream, None, &mut world.out);
    assert_eq!(sealed, 10);
    let received = world.remote.open_all(&mut world.out);
    assert_eq!(nals_of(&received).len(), 3 + 9);
    let mut timestamps: Vec<_> = received.iter().map(|packet| packet.timestamp).collect();
    timestamps.dedup();
    let newest = 0xffff_0000_u32.wrapping_add(10 * 3600);
    let expected: Vec<_> = (0..10).map(|at| newest - (9 - at) * 90).collect();
    assert_eq!(timestamps, expected, "a millisecond each up to the present");

    let next = world.show(&delta(100, 1));
    assert_eq!(next[0].sequence, received.last().unwrap().sequence + 1);
    assert_eq!(next[0].timestamp, newest.wrapping_add(3600));
    assert_eq!(
        world.viewer.seal_gop(world.now, &world.stream, None, &mut world.out),
        0,
        "it has started"
    );
}

#[test]
fn pictures_are_asked_for_once() {
    let mut world = World::new(SrtpProfile::AeadAes128Gcm, viewer_config());
    world.show(&idr(100));
    let pli = |ssrc: u32| {
        let mut packet = vec![0x81, 206, 0, 2, 0, 0, 0, 1];
        packet.extend(ssrc.to_be_bytes());
        packet
    };
    let fir = |number: u8| {
        let mut packet = vec![0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0];
        packet.extend(SSRC.to_be_bytes());
        packet.extend([number, 0, 0, 0]);
        packet
    };
    for (compound, wanted) in [
        (pli(SSRC), true),
        (pli(99), false),
        (fir(7), true),
        (fir(7), false),
        (fir(8), true),
        ([pli(SSRC), fir(8)].concat(), true),
    ] {
        let datagram = world.remote.seal(&compound);
        assert_eq!(world.hear(datagram).keyframe_wanted, wanted, "{compound:?}");
    }
    assert_eq!((world.viewer.stats().plis, world.viewer.stats().firs), (2, 2));

    // A request that was on its way while the keyframe was: with a round trip of 100 ms.
    report(&mut world, Duration::from_millis(100), 0);
    world.show(&idr(100));
    world.now += Duration::from_millis(99);
    let datagram = world.remote.seal(&pli(SSRC));
    assert!(!world.hear(datagram).keyframe_wanted);
    world.now += Duration::from_millis(2);
    let datagram = world.remote.seal(&pli(SSRC));
    assert!(world.hear(datagram).keyframe_wanted);
}

/// The camera reports, and the viewer answers after `rtt` and half a second.
fn report(world: &mut World, rtt: Duration, fraction_lost: u8) {
    world.now = world.now.max(world.viewer.poll_timeout().expect("a report is due some time"));
    let ntp = 0xe800_1234_5678_9abc;
    assert!(world.viewer.write_report(world.now, ntp, None, &mut world.out));
    world.out.clear();
    world.now += Duration::from_millis(500) + rtt;
    let mut compound = vec![0x81, 201, 0, 7, 0, 0, 0, 1];
    compound.extend(SSRC.to_be_bytes());
    compound.extend([fraction_lost, 0, 0, 9, 0, 0, 4, 0, 0, 0, 0, 90]);
    compound.extend(((ntp >> 16) as u32).to_be_bytes());
    compound.extend(0x8000_u32.to_be_bytes());
    let datagram = world.remote.seal(&compound);
    world.hear(datagram);
}

#[test]
fn reports_give_the_round_trip_and_the_loss() {
    let mut world = World::new(SrtpProfile::AesCm128HmacSha1_80, viewer_config());
    assert_eq!(world.viewer.poll_timeout(), None);
    world.show(&idr(100));
    report(&mut world, Duration::from_millis(80), 64);
    let stats = world.viewer.stats();
    assert_eq!(stats.rtt, Some(Duration::from_millis(80)));
    assert_eq!(stats.fraction_lost, 64);
    assert_eq!(stats.jitter, Duration::from_millis(1));
}

#[test]
fn sender_reports_tie_the_streams_clock_to_the_wall_clock() {
    let mut world = World::new(SrtpProfile::AeadAes128Gcm, viewer_config());
    assert!(!world.viewer.write_report(world.now, 1, None, &mut world.out));
    let received = world.show(&idr(3000));
    assert_eq!(world.viewer.poll_timeout(), Some(world.now), "with the first packet");
    let ntp = 0xe800_0000_8000_0000;
    let later = world.now + Duration::from_millis(100);
    assert!(world.viewer.write_report(later, ntp, Some(0x4abc), &mut world.out));
    assert!(!world.viewer.write_report(later, ntp, None, &mut world.out), "once a second");
    assert_eq!(world.viewer.poll_timeout(), Some(later + Duration::from_secs(1)));

    let mut datagram = datagrams(&world.out).remove(0);
    assert_eq!(datagram[..2], [0x4a, 0xbc]);
    assert!(rtcp::is_rtcp(&datagram[4..]));
    let plain = world.remote.receiver.open_rtcp(&mut datagram[4..]).unwrap();
    let packets: Vec<_> = rtcp::packets(plain).collect();
    let rtcp::Packet::SenderReport { ssrc: SSRC, info, .. } = packets[0] else {
        panic!("{packets:?}")
    };
    assert_eq!(info.ntp, ntp);
    assert_eq!(info.rtp_timestamp, received[0].timestamp.wrapping_add(9000));
    assert_eq!(info.packets, received.len() as u32);
    assert_eq!(info.octets as usize, received.iter().map(|p| p.payload.len()).sum::<usize>());
    assert_eq!(packets[1], rtcp::Packet::SourceDescription);
}

#[test]
fn a_goodbye_names_all_sources() {
    let rtx = Some(Rtx { ssrc: RTX_SSRC, payload_type: 97 });
    let mut world = World::new(SrtpProfile::AeadAes128Gcm, ViewerConfig { rtx, ..viewer_config() });
    assert!(world.viewer.write_goodbye(None, None, &mut world.out));
    let mut datagram = datagrams(&world.out).remove(0);
    let plain = world.remote.receiver.open_rtcp(&mut datagram).unwrap();
    let gone: Vec<_> = rtcp::packets(plain)
        .filter_map(|packet| match packet {
            rtcp::Packet::Goodbye(sources) => Some(sources),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(gone, [SSRC, RTX_SSRC]);
}

#[test]
fn what_no_player_waits_for_any_more_is_not_sent_again() {
    let mut world = World::new(SrtpProfile::AeadAes128Gcm, viewer_config());
    world.show(&idr(3000));
    world.now += Duration::from_millis(3900);
    let nack = world.remote.nack(&[1001]);
    assert_eq!(world.hear(nack).resent, 1);
    world.now += Duration::from_millis(200);
    let nack = world.remote.nack(&[1002]);
    assert_eq!(world.hear(nack), RtcpFacts { keyframe_wanted: true, ..Default::default() });
}
