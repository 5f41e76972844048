//! What a packet costs on the hot path, part by part: `cargo bench -p sdk-core`.
#![allow(clippy::print_stdout, reason = "a benchmark prints")]
#![allow(clippy::disallowed_methods, reason = "a benchmark has a clock")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails stops")]

use sdk_core::driver::{
    Camera, CameraConfig, Codec, Frame, FrameData, Handler, LentFrame, StreamConfig, UnsetClock,
};
use sdk_core::event::{Event, StreamId};
use sdk_core::media::{
    PacketizationMode, SendBuffer, SrtpKeys, SrtpProfile, VideoConfig, VideoStream, ViewerConfig,
    ViewerStream,
};
use sdk_core::wire::{annexb, rtp};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// 2 Mbit/s at 30 frames a second: eight packets a frame.
const FRAME_LEN: usize = 8300;

fn main() {
    let frame = frame();
    let scan = time(2000, || black_box(annexb::nal_units(black_box(&frame)).count()));
    println!("annexb_scan_mb_per_s {:.0}", frame.len() as f64 * 1000.0 / scan);

    let mut stream = VideoStream::new(VideoConfig::new(2_000_000, 1200));
    let packets = f64::from(stream.push(&frame, Duration::ZERO).unwrap().unwrap().packets);
    let push = time(2000, || black_box(stream.push(black_box(&frame), Duration::ZERO)));
    println!("packetise_ns_per_packet {:.0}", push / packets);

    for profile in SrtpProfile::ALL {
        for viewers in [1, 8] {
            let mut viewers: Vec<_> = (0..viewers).map(|at| viewer(at, profile)).collect();
            let mut out = SendBuffer::new();
            let now = Instant::now();
            let train = stream.push(&frame, Duration::ZERO).unwrap().unwrap();
            let seal = time(100, || {
                out.clear();
                for viewer in &mut viewers {
                    black_box(viewer.seal_train(now, &stream, &train, None, &mut out));
                }
            });
            let each = seal / packets / viewers.len() as f64;
            println!("seal_ns_per_packet {profile:?} {} viewers {each:.0}", viewers.len());
        }
    }

    let (camera, stream) = camera();
    for frame in [&frame[..], KEYFRAME] {
        let lent = push_frame(&camera, stream, || lend(frame));
        // What the C API does with a frame that has no release.
        let copied = push_frame(&camera, stream, || FrameData::Owned(frame.to_vec()));
        println!("push_ns {} bytes lent {lent:.0} copied {copied:.0}", frame.len());
    }
}

/// A large keyframe; never looked at, since it is no access unit.
static KEYFRAME: &[u8] = &[1; 60_000];

/// Frames that were lent, and those given back.
static LENT: AtomicU64 = AtomicU64::new(0);
static BACK: AtomicU64 = AtomicU64::new(0);

fn lend(frame: &[u8]) -> FrameData {
    LENT.fetch_add(1, Ordering::Relaxed);
    // SAFETY: `push_frame` waits until it is given back.
    FrameData::Lent(unsafe {
        LentFrame::new(frame.as_ptr(), frame.len(), |_, _| _ = BACK.fetch_add(1, Ordering::Release))
    })
}

/// Nanoseconds in which a frame is handed over to a camera that has nothing else to do. Only the
/// caller's time, not the agent's.
fn push_frame(camera: &Camera, stream: StreamId, data: impl Fn() -> FrameData) -> f64 {
    let timestamp = Duration::ZERO;
    let mut took: Vec<f64> = (0..2000)
        .map(|_| {
            let start = Instant::now();
            let pushed = camera.push_frame(stream, Frame { data: data(), timestamp });
            let took = start.elapsed().as_nanos() as f64;
            pushed.unwrap();
            // The queue is in order: once this one is back, it is empty.
            let last = Frame { data: lend(KEYFRAME), timestamp };
            camera.push_frame(stream, last).unwrap();
            while BACK.load(Ordering::Acquire) < LENT.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            took
        })
        .collect();
    took.sort_by(f64::total_cmp);
    took[took.len() / 2]
}

fn camera() -> (Camera, StreamId) {
    struct Quiet;
    impl Handler for Quiet {
        fn on_event(&self, _: &Event) {}
    }
    let config = CameraConfig {
        device_id: "bench".into(),
        // Nobody listens there.
        broker_url: "mqtt://127.0.0.1:1".into(),
        broker_username: None,
        broker_password: None,
        broker_ca_file: None,
        service_public_key: [0; 32],
        identity_file: None,
        max_viewers: 1,
        include_loopback: true,
        relay_only: false,
        unset_clock: UnsetClock::Refuse,
        max_datagram: 1200,
    };
    let camera = Camera::start(config, Arc::new(Quiet)).unwrap();
    let stream = StreamConfig {
        name: "main".into(),
        codec: Codec::H264,
        bitrate: 2_000_000,
        min_bitrate: None,
        max_bitrate: None,
        fallback: None,
    };
    let stream = camera.start_stream(stream).unwrap();
    (camera, stream)
}

/// Nanoseconds of one call: the best of five rounds, since others only make it slower.
fn time<T>(calls: u32, mut work: impl FnMut() -> T) -> f64 {
    let mut round = || {
        let start = Instant::now();
        (0..calls).for_each(|_| _ = work());
        start.elapsed().as_nanos() as f64 / f64::from(calls)
    };
    (0..5).map(|_| round()).fold(f64::INFINITY, f64::min)
}

/// A keyframe, so that each viewer takes it at once.
fn frame() -> Vec<u8> {
    let mut frame =
        vec![0, 0, 0, 1, 0x67, 0x42, 0xe0, 0x1f, 0xda, 0, 0, 0, 1, 0x68, 0xce, 0x38, 0x80];
    frame.extend([0, 0, 0, 1, 0x65]);
    let mut state = 1_u32;
    frame.extend((0..FRAME_LEN).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 | 2
    }));
    frame
}

fn viewer(ssrc: u32, profile: SrtpProfile) -> ViewerStream {
    let material = vec![7; profile.exporter_len()];
    let keys = SrtpKeys::from_exporter(profile, &material, false).unwrap();
    let config = ViewerConfig {
        ssrc,
        payload_type: 96,
        rtx: None,
        packetization_mode: PacketizationMode::NonInterleaved,
        extensions: rtp::ExtensionIds::default(),
        cname: "camera".into(),
        initial_sequence: 0,
        initial_rtx_sequence: 0,
        timestamp_offset: 0,
    };
    ViewerStream::new(Instant::now(), config, &keys)
}
