//! The promise of the hot path: in steady state a packet costs no allocation, for one viewer or
//! eight. Counted by the allocator itself, on this thread only, since others belong to the harness.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod bottleneck;
mod media_support;

use bottleneck::FeedbackWriter;
use media_support::*;
use sdk_core::media::srtp::SrtpSender;
use sdk_core::media::{
    AudioConfig, AudioSender, AudioTimeline, PacedStream, PacketizationMode, Rtx, Sealed,
    SendBuffer, SrtpProfile, Talkback, VideoConfig, VideoStream, ViewerConfig, ViewerStream,
};
use sdk_core::wire::audio::AudioCodec;
use sdk_core::wire::codec::Codec;
use sdk_core::wire::rtp::{self, ExtensionIds};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all is done by the system's allocator; counting touches a thread-local without a
// destructor or an allocation of its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// A few seconds of video with keyframes, losses and reports, counted after a first round.
fn steady_state(viewers: usize, profile: SrtpProfile, config: &ViewerConfig) -> (u64, u64) {
    let mut now = start_of_time();
    let mut stream = VideoStream::new(VideoConfig::new(2_000_000, 1200));
    let mut out = SendBuffer::new();
    let mut remote = Remote::new(profile);
    let mut viewers: Vec<ViewerStream> =
        (0..viewers).map(|_| viewer(now, config.clone(), profile).0).collect();
    let frames: Vec<Vec<u8>> = (0..60)
        .map(|at| if at % 30 == 0 { idr(40_000) } else { delta(6000 + 10 * at, at as u8) })
        .collect();

    let mut measured = 0;
    let mut packets = 0;
    let mut sequence = config.initial_sequence;
    for round in 0..4 {
        for (at, frame) in frames.iter().enumerate() {
            now += Duration::from_millis(33);
            let nack = remote.nack(&[sequence.wrapping_sub(3), sequence.wrapping_sub(2)]);
            let mut nacks = vec![nack; viewers.len()];
            let timestamp = Duration::from_millis(33 * (60 * round + at as u64));
            let count = allocations(|| {
                out.clear();
                let train = stream.push(frame, timestamp).unwrap().unwrap();
                sequence = sequence.wrapping_add(train.packets as u16);
                for (viewer, nack) in viewers.iter_mut().zip(&mut nacks) {
                    let sealed = viewer.seal_train(now, &stream, &train, Some(0x4000), &mut out);
                    assert_eq!(sealed, Sealed::Sent { packets: train.packets });
                    viewer.handle_rtcp(now, nack, &stream, Some(0x4000), &mut out).unwrap();
                    viewer.write_report(now, 1, Some(0x4000), &mut out);
                    packets += u64::from(train.packets);
                }
            });
            if round > 0 {
                measured += count;
            }
        }
    }
    let resent: u64 = viewers.iter().map(|viewer| viewer.stats().resent_packets).sum();
    assert!(resent > 100 * viewers.len() as u64, "packets were sent again as well: {resent}");
    (measured, packets)
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1_u8; 10]))), 1);
    assert_eq!(allocations(|| ()), 0);
}

#[test]
fn no_allocation_per_packet_with_gcm() {
    for viewers in [1, 8] {
        let (allocations, packets) =
            steady_state(viewers, SrtpProfile::AeadAes128Gcm, &viewer_config());
        println!("{viewers} viewers, GCM: {allocations} allocations for {packets} packets");
        assert_eq!(allocations, 0);
    }
}

#[test]
fn no_allocation_per_packet_with_counter_mode_extensions_and_rtx() {
    let config = ViewerConfig {
        rtx: Some(Rtx { ssrc: RTX_SSRC, payload_type: 97 }),
        extensions: ExtensionIds {
            mid: Some((1, "0".into())),
            abs_send_time: Some(2),
            transport_cc: Some(3),
        },
        ..viewer_config()
    };
    let (allocations, _) = steady_state(1, SrtpProfile::AesCm128HmacSha1_80, &config);
    assert_eq!(allocations, 0);
}

/// The paced way with keyframes in parts, transport-wide feedback, an estimate that moves, losses
/// that are repaired, and frames left out.
#[test]
fn no_allocation_per_packet_when_paced() {
    let mut now = start_of_time();
    let start = now;
    let extensions = ExtensionIds { transport_cc: Some(3), ..ExtensionIds::default() };
    let rtx = Some(Rtx { ssrc: RTX_SSRC, payload_type: 97 });
    let config = ViewerConfig { rtx, extensions, ..viewer_config() };
    let mut stream = VideoStream::new(VideoConfig::new(2_000_000, 1200));
    let profile = SrtpProfile::AeadAes128Gcm;
    let mut paced = PacedStream::new(now, config, &keys(profile, false), 2_500_000);
    let mut remote = Remote::new(profile);
    let mut feedback = FeedbackWriter::default();
    // Grown to the largest part there can be: these become larger with the estimate.
    let mut out = SendBuffer::new();
    out.push(None, &[0; 60_000]);
    let frames: Vec<Vec<u8>> = (0..60)
        .map(|at| if at % 30 == 0 { idr(60_000) } else { delta(8000 + 10 * at, at as u8) })
        .collect();
    let (mut measured, mut packets, mut parts) = (0, 0, 0);
    for round in 0..5 {
        for (at, frame) in frames.iter().enumerate() {
            let timestamp = Duration::from_millis(33 * (60 * round + at as u64));
            let mut count = allocations(|| {
                let train = stream.push(frame, timestamp).unwrap().unwrap();
                paced.queue(&train);
            });
            for _ in 0..33 {
                now += Duration::from_millis(1);
                count += allocations(|| {
                    out.clear();
                    let _ = paced.seal(now, &stream, Some(0x4000), &mut out);
                    paced.take_keyframe_wish(now);
                });
                parts += u64::from(!out.runs().is_empty());
                for datagram in datagrams(&out) {
                    packets += 1;
                    let packet = remote.open_packet(&datagram[4..]);
                    // Each 50th is lost, and in the last rounds the way becomes slow.
                    let late = Duration::from_micros(300 * (round / 3) * packets);
                    if packets % 50 != 0 {
                        feedback.on_packet(packet.transport_sequence, now - start + late);
                    }
                    if packets % 50 == 1 {
                        let mut nack = remote.nack(&[packet.sequence.wrapping_sub(1)]);
                        count += allocations(|| {
                            let _ = paced.handle_rtcp(now, &mut nack, &stream, Some(0x4000));
                        });
                    }
                }
            }
            if at % 2 == 0
                && let Some(packet) = feedback.write()
            {
                let mut sealed = remote.seal(&packet);
                count += allocations(|| {
                    paced.handle_rtcp(now, &mut sealed, &stream, Some(0x4000)).unwrap();
                });
            }
            if round > 0 {
                measured += count;
            }
        }
    }
    let stats = paced.stream().stats();
    assert!(packets > 1500 && parts > 320, "{packets} packets in {parts} sends");
    assert!(stats.resent_packets > 20, "{stats:?}");
    assert!(paced.stream().bandwidth().estimate().is_some_and(|rate| rate < 2_500_000));
    assert_eq!(measured, 0);
}

/// The microphone's packets to eight viewers, and a viewer's words to the loudspeaker.
#[test]
fn no_allocation_per_packet_of_sound() {
    let mut now = start_of_time();
    let profile = SrtpProfile::AeadAes128Gcm;
    let srtp = SrtpSender::new(&keys(profile, false));
    let mut timeline = AudioTimeline::new(AudioCodec::Pcmu);
    let config = |n| AudioConfig {
        ssrc: n,
        payload_type: 0,
        mid: Some((4, "0".into())),
        initial_sequence: 1,
        timestamp_offset: 2,
    };
    let mut senders: Vec<AudioSender> = (0..8).map(|n| AudioSender::new(config(n))).collect();
    let mut talkback = Talkback::new(AudioCodec::Pcmu, 0);
    let (mut out, mut heard) = (SendBuffer::new(), Vec::new());
    let payload = [0x7f; 160];
    let mut remote = Remote::new(profile);
    let mut pieces = 0;
    let mut counts = (0..400_u32).map(|n| {
        now += Duration::from_millis(20);
        let count = allocations(|| {
            out.clear();
            let packet = timeline.place(&payload, Duration::from_millis(20) * n).unwrap();
            for sender in &mut senders {
                sender.seal(&packet, &srtp, Some(0x4000), &mut out).unwrap();
            }
        });
        let all = datagrams(&out);
        let mut word = all[0][4..].to_vec();
        let plain = remote.receiver.open_rtp(&mut word).unwrap();
        let packet = rtp::Packet::parse(plain).unwrap();
        count
            + allocations(|| {
                if n % 20 != 19 {
                    talkback.handle_rtp(now, &packet);
                }
                while talkback.poll(now, &mut heard).is_some() {
                    pieces += 1;
                }
                if n % 50 == 0 {
                    talkback.report(now);
                }
            })
    });
    assert!(counts.by_ref().take(150).sum::<u64>() > 0, "buffers grow once");
    assert_eq!(counts.sum::<u64>(), 0);
    assert!(pieces > 390, "{pieces}");
}

#[test]
fn no_allocation_per_packet_of_h265() {
    let mut now = start_of_time();
    let (mut viewer, _) = viewer(now, viewer_config(), SrtpProfile::AeadAes128Gcm);
    let video = VideoConfig { codec: Codec::H265, ..VideoConfig::new(2_000_000, 1200) };
    let mut stream = VideoStream::new(video);
    let mut out = SendBuffer::new();
    let frames = [h265_idr(20_000), annex_b(&[h265_nal(1, 7000, 1)])];
    let mut counts = (0..50).map(|at| {
        now += Duration::from_millis(33);
        allocations(|| {
            out.clear();
            let frame = &frames[at as usize % 2];
            let train = stream.push(frame, Duration::from_millis(33 * at)).unwrap().unwrap();
            viewer.seal_train(now, &stream, &train, None, &mut out);
        })
    });
    assert!(counts.next() > Some(0), "buffers grow once");
    assert_eq!(counts.sum::<u64>(), 0);
}

#[test]
fn no_allocation_per_packet_in_mode_0() {
    let mode = PacketizationMode::SingleNal;
    let mut now = start_of_time();
    let config = ViewerConfig { packetization_mode: mode, ..viewer_config() };
    let (mut viewer, _) = viewer(now, config, SrtpProfile::AeadAes128Gcm);
    let mut stream = VideoStream::new(VideoConfig::new(2_000_000, 1200));
    let mut out = SendBuffer::new();
    let frame = idr(20_000);
    let mut counts = (0..50).map(|at| {
        now += Duration::from_millis(33);
        allocations(|| {
            out.clear();
            let train = stream.push(&frame, Duration::from_millis(33 * at)).unwrap().unwrap();
            viewer.seal_train(now, &stream, &train, None, &mut out);
        })
    });
    assert!(counts.next() > Some(0), "buffers grow once");
    assert_eq!(counts.sum::<u64>(), 0);
}
