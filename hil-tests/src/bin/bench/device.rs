//! `bench device`: the camera inside this instrumented process, through the driver's own API. It
//! plays a clip and prints its counters once a second; the other half of the benchmark watches it
//! from another process, so that nothing of the viewer is counted.

use crate::counters;
use crate::wire::{OnWire, Wire};
use hil_tests::clip::Clip;
use hil_tests::clock;
use sdk_core::driver::{
    Camera, CameraConfig, Codec, DEFAULT_GOP_CACHE, Frame, FrameData, Handler, LentFrame,
    PushError, StreamConfig, UnsetClock,
};
use sdk_core::event::Event;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const FRAMES_PER_SECOND: u32 = 30;

struct Print;

impl Handler for Print {
    fn on_event(&self, event: &Event) {
        match event {
            Event::SignalingUp => println!("signaling up"),
            other => println!("{other:?}"),
        }
    }
}

/// Plays until it is killed.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)).ok_or_else(|| format!("{name} is missing"))
    };
    let clip = Clip::read(Path::new(option("--clip")?))?;
    // Lent frames stay where they are until the process ends.
    let pictures: &'static [Vec<u8>] = Vec::leak(clip.annexb_pictures());
    let config = CameraConfig {
        device_id: option("--device")?.clone(),
        broker_url: option("--broker")?.clone(),
        broker_username: Some(option("--device")?.clone()),
        broker_password: Some(option("--password")?.clone()),
        broker_ca_file: None,
        broker_certificate: None,
        service_public_key: key(option("--public-key")?)?,
        identity_file: None,
        max_viewers: 128,
        include_loopback: true,
        relay_only: false,
        unset_clock: UnsetClock::Refuse,
        max_datagram: 1200,
    };
    let camera = Camera::start(config, Arc::new(Print)).map_err(|e| e.to_string())?;
    let stream = StreamConfig {
        name: "main".into(),
        codec: Codec::H264,
        bitrate: 2_000_000,
        min_bitrate: None,
        max_bitrate: None,
        fallback: None,
        gop_cache: DEFAULT_GOP_CACHE,
    };
    let stream = camera.start_stream(stream).map_err(|e| e.to_string())?;

    println!("stream \"main\" started");
    let start = clock::now();
    let period = Duration::from_secs(1) / FRAMES_PER_SECOND;
    let mut wire = Wire::new();
    let mut number = 0u32;
    for picture in pictures.iter().cycle() {
        let timestamp = period * number;
        std::thread::sleep((start + timestamp).saturating_duration_since(clock::now()));
        // SAFETY: the pictures are leaked and never change.
        let lent = unsafe { LentFrame::new(picture.as_ptr(), picture.len(), |_, _| ()) };
        wire.on_push(number.into());
        let frame = Frame { data: FrameData::Lent(lent), timestamp };
        match camera.push_frame(stream, frame) {
            // The agent fell behind and goes on at the next keyframe; the viewer counts what came.
            Ok(()) | Err(PushError::QueueFull) => {}
            Err(e) => return Err(format!("{e:?}")),
        }
        number += 1;
        if number.is_multiple_of(FRAMES_PER_SECOND) {
            // Read before the line is formatted, which allocates.
            let (allocations, sends) = (counters::allocations(), counters::datagram_sends());
            println!("counters frames={number} allocations={allocations} sends={sends}");
            wire.read_log();
            // By now all packets of a second ago have gone out, also those of a large frame.
            let old = u64::from(number).saturating_sub(2 * u64::from(FRAMES_PER_SECOND));
            print_wire((old..old + u64::from(FRAMES_PER_SECOND)).filter_map(|n| wire.of(n)));
        }
    }
    Ok(())
}

/// How long each frame took, in microseconds, and in how many sends.
fn print_wire(frames: impl Iterator<Item = OnWire>) {
    let mut out = std::io::stdout().lock();
    let written = write!(out, "wire").and_then(|()| {
        for frame in frames {
            write!(out, " {}/{}", frame.nanoseconds / 1000, frame.calls)?;
        }
        writeln!(out)
    });
    // Nobody reads any more: the benchmark is over, and about to end this process.
    drop(written);
}

fn key(hex: &str) -> Result<[u8; 32], String> {
    let digits: Option<Vec<u8>> = (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(hex.get(2 * i..2 * i + 2)?, 16).ok())
        .collect();
    digits
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| format!("{hex}: expected 64 hexadecimal digits"))
}
