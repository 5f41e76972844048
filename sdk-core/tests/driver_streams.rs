//! Streams of a running camera, from the threads of its firmware.

#![allow(clippy::unwrap_used, reason = "a test")]

use sdk_core::driver::{
    Camera, CameraConfig, Codec, DEFAULT_GOP_CACHE, Frame, FrameData, Handler, StreamConfig,
    UnsetClock,
};
use sdk_core::event::Event;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Quiet;

impl Handler for Quiet {
    fn on_event(&self, _event: &Event) {}
}

fn camera() -> Camera {
    let config = CameraConfig {
        device_id: "CAM-TEST".into(),
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
    Camera::start(config, Arc::new(Quiet)).unwrap()
}

fn config(name: &str) -> StreamConfig {
    StreamConfig {
        name: name.into(),
        codec: Codec::H264,
        bitrate: 2_000_000,
        min_bitrate: None,
        max_bitrate: None,
        fallback: None,
        gop_cache: DEFAULT_GOP_CACHE,
    }
}

const KEYFRAME: &[u8] = &[
    0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x0a, 0xda, 0x7b, 0x96, 0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80, 0, 0,
    1, 0x65, 0x88, 0x84, 0x0a, 0xf1, 0x18, 0xa0,
];

/// What is pushed first is the keyframe that says what the stream is.
#[test]
#[allow(clippy::disallowed_methods, reason = "a patience")]
fn the_first_frame_of_a_stream_is_not_lost() {
    let camera = camera();
    let push = |stream, ms| {
        let frame = Frame { data: FrameData::Owned(KEYFRAME.to_vec()), timestamp: ms };
        camera.push_frame(stream, frame).unwrap();
    };
    let main = camera.start_stream(config("main")).unwrap();
    for round in 0..300u64 {
        let at = Duration::from_millis(round * 33);
        // The agent is busy with another stream, or about to be.
        push(main, at);
        let sub = camera.start_stream(config("sub")).unwrap();
        push(sub, at);
        let end = Instant::now() + Duration::from_secs(10);
        let frames = || {
            let stats = camera.stats();
            stats.streams.iter().find(|stream| stream.id == sub).map_or(0, |stream| stream.frames)
        };
        while frames() == 0 {
            assert!(Instant::now() < end, "round {round}: the frame did not arrive");
            std::thread::sleep(Duration::from_micros(200));
        }
        assert!(camera.stop_stream(sub));
    }
}
