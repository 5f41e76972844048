//! What a packet costs on the hot path, part by part: `cargo bench -p sdk-core`. With items that are
//! packets, divan prints how many of them a second.
#![allow(clippy::disallowed_methods, reason = "a benchmark has a clock")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails stops")]

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use sdk_core::driver::{
    Camera, CameraConfig, Codec, DEFAULT_GOP_CACHE, Frame, FrameData, Handler, LentFrame,
    StreamConfig, UnsetClock,
};
use sdk_core::event::{Event, StreamId};
use sdk_core::media::{
    FrameClock, PacketizationMode, SendBuffer, SrtpKeys, SrtpProfile, Train, VideoConfig,
    VideoStream, ViewerConfig, ViewerStream,
};
use sdk_core::wire::{annexb, rtp};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// 2 Mbit/s at 30 frames a second: eight packets a frame.
const FRAME_LEN: usize = 8300;

fn main() {
    divan::main();
}

#[divan::bench]
fn annexb_scan(bencher: Bencher<'_, '_>) {
    let frame = frame();
    bencher
        .counter(BytesCount::of_slice(&frame))
        .bench_local(|| annexb::nal_units(black_box(&frame)).count());
}

#[divan::bench]
fn frame_clock(bencher: Bencher<'_, '_>) {
    let (start, mut clock, mut n) = (Instant::now(), FrameClock::default(), 0);
    bencher.bench_local(|| {
        n += 33;
        let at = Duration::from_millis(n);
        clock.place(start + at, black_box(at))
    });
}

#[divan::bench]
fn packetise(bencher: Bencher<'_, '_>) {
    let frame = frame();
    let (mut stream, train) = stream(&frame);
    bencher
        .counter(ItemsCount::new(train.packets))
        .bench_local(|| stream.push(black_box(&frame), Duration::ZERO));
}

/// One frame for so many viewers, one after the other as the agent does it.
#[divan::bench(args = [1, 8, 100])]
fn seal_gcm(bencher: Bencher<'_, '_>, viewers: u32) {
    seal(bencher, viewers, SrtpProfile::AeadAes128Gcm);
}

#[divan::bench(args = [1, 8, 100])]
fn seal_aes_cm(bencher: Bencher<'_, '_>, viewers: u32) {
    seal(bencher, viewers, SrtpProfile::AesCm128HmacSha1_80);
}

fn seal(bencher: Bencher<'_, '_>, viewers: u32, profile: SrtpProfile) {
    let frame = frame();
    let (stream, train) = stream(&frame);
    let mut viewers: Vec<_> = (0..viewers).map(|at| viewer(2 * at + 1, profile)).collect();
    let mut out = SendBuffer::new();
    let now = Instant::now();
    bencher.counter(ItemsCount::new(train.packets * viewers.len() as u32)).bench_local(|| {
        for viewer in &mut viewers {
            out.clear();
            black_box(viewer.seal_train(now, &stream, &train, None, &mut out));
        }
    });
}

/// A picture of 2 Mbit/s, and a large keyframe: what the encoder's thread spends on handing it over.
const HANDED_OVER: [usize; 2] = [FRAME_LEN, 60_000];

#[divan::bench(args = HANDED_OVER, sample_count = 2000, sample_size = 1)]
fn push_lent(bencher: Bencher<'_, '_>, len: usize) {
    push(bencher, len, lend);
}

/// What the C API does with a frame that has no release.
#[divan::bench(args = HANDED_OVER, sample_count = 2000, sample_size = 1)]
fn push_copied(bencher: Bencher<'_, '_>, len: usize) {
    push(bencher, len, |frame| FrameData::Owned(frame.to_vec()));
}

/// To a camera that has nothing else to do. Only the caller's time, not the agent's.
fn push(bencher: Bencher<'_, '_>, len: usize, data: impl Fn(&'static [u8]) -> FrameData) {
    let (camera, stream) = camera();
    let (frame, timestamp) = (&PICTURE[..len], Duration::ZERO);
    bencher
        .with_inputs(|| {
            // The queue is in order: once this one is back, it is empty.
            let last = Frame { data: lend(&PICTURE[..1]), timestamp };
            camera.push_frame(stream, last).unwrap();
            while BACK.load(Ordering::Acquire) < LENT.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
        })
        .bench_local_values(|()| {
            camera.push_frame(stream, Frame { data: data(frame), timestamp }).unwrap();
        });
}

/// Never looked at, since it is no access unit.
static PICTURE: [u8; 60_000] = [1; 60_000];
/// Frames that were lent, and those given back.
static LENT: AtomicU64 = AtomicU64::new(0);
static BACK: AtomicU64 = AtomicU64::new(0);

fn lend(frame: &'static [u8]) -> FrameData {
    LENT.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the bytes are there as long as the program.
    FrameData::Lent(unsafe {
        LentFrame::new(frame.as_ptr(), frame.len(), |_, _| _ = BACK.fetch_add(1, Ordering::Release))
    })
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
        broker_certificate: None,
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
        gop_cache: DEFAULT_GOP_CACHE,
    };
    let stream = camera.start_stream(stream).unwrap();
    (camera, stream)
}

fn stream(frame: &[u8]) -> (VideoStream, Train) {
    let config = VideoConfig { source: StreamId(1), ..VideoConfig::new(2_000_000, 1200) };
    let mut stream = VideoStream::new(config);
    let train = stream.push(frame, Duration::ZERO).unwrap().unwrap();
    (stream, train)
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
