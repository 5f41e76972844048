//! A real Chromium opens the page that `server-min` serves, and the picture moves.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]

use hil_tests::browser::Watch;
use hil_tests::firmware::root;
use hil_tests::lab::{CameraSetup, Lab, clip_path};
use hil_tests::sound::SoundCodec;
use serde_json::Value;

/// Points inside the clip's four corner squares, and their colours (testdata/h264/README.md).
const KNOWN_PIXELS: [((u32, u32), [u8; 3]); 4] = [
    ((40, 40), [255, 0, 0]),
    ((1240, 40), [0, 255, 0]),
    ((40, 680), [0, 0, 255]),
    ((1240, 680), [255, 255, 255]),
];
/// What an encoder and a decoder may make of a colour.
const TOLERANCE: u8 = 25;

fn watch(lab: &Lab, screenshot: &str) -> Watch {
    Watch {
        seconds: 5,
        pixels: KNOWN_PIXELS.iter().map(|(point, _)| *point).collect(),
        screenshot: Some(root().join("target/report").join(screenshot)),
        ..Watch::new(lab.viewer_url())
    }
}

fn expect_moving_picture(report: &Value) {
    println!("{report}");
    let frames: Vec<u64> =
        report["framesDecoded"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    assert!(frames.len() >= 4, "{frames:?}");
    assert!(frames.windows(2).all(|pair| pair[1] > pair[0]), "{frames:?}");
    // 30 a second are sent; a loaded machine may decode fewer, but not a slide show.
    assert!(frames[frames.len() - 1] - frames[0] > 40, "{frames:?}");
    assert!(report["keyFramesDecoded"].as_u64().unwrap() >= 1);
    assert_eq!((&report["width"], &report["height"]), (&1280.into(), &720.into()));
    let seen = report["pixels"].as_array().unwrap();
    assert_eq!(seen.len(), KNOWN_PIXELS.len());
    for ((point, expected), seen) in KNOWN_PIXELS.iter().zip(seen) {
        let seen: Vec<u8> =
            seen.as_array().unwrap().iter().map(|c| c.as_u64().unwrap() as u8).collect();
        let close = seen.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= TOLERANCE);
        assert!(close, "at {point:?}: expected {expected:?}, saw {seen:?}");
    }
}

fn expect_screenshot(name: &str) {
    let bytes = std::fs::read(root().join("target/report").join(name)).unwrap();
    assert!(bytes.starts_with(b"\x89PNG"), "{name} is not a picture");
    assert!(bytes.len() > 20_000, "{name} is nearly empty: {} bytes", bytes.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_picture_moves_in_a_browser() {
    let lab = Lab::start(CameraSetup::default()).await.unwrap();
    let report = watch(&lab, "viewer.png").run().await.unwrap();
    expect_moving_picture(&report);
    assert_eq!(report["relayed"], false);
    assert_eq!(report["srtpCipher"], "SRTP_AEAD_AES_128_GCM");
    expect_screenshot("viewer.png");
    lab.finish().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_picture_moves_through_a_relay() {
    let lab = Lab::start(CameraSetup::default()).await.unwrap();
    let report = Watch { relay: true, ..watch(&lab, "viewer-relay.png") }.run().await.unwrap();
    expect_moving_picture(&report);
    assert_eq!((&report["relayed"], &report["local"]), (&true.into(), &"relay".into()));
    expect_screenshot("viewer-relay.png");
    lab.finish().unwrap();
}

/// The page's own buttons, against the C camera: sound, talking, commands, and another stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_beside_the_picture_works() {
    let lab = Lab::start(CameraSetup {
        sub_clip: Some(clip_path("main-180p30.h264")),
        sound: Some(SoundCodec::Opus.clip()),
        talkback: Some("heard.opus-packets".into()),
        ..CameraSetup::default()
    })
    .await
    .unwrap();
    let report = Watch {
        listen: true,
        talk: Some(3),
        command: Some("ptz left".into()),
        stream: Some("sub".into()),
        screenshot: Some(root().join("target/report/viewer-beside.png")),
        ..Watch::new(lab.viewer_url())
    }
    .run()
    .await
    .unwrap();
    println!("{report}");
    assert_eq!(report["listen"]["codec"], "audio/opus");
    assert!(report["listen"]["energy"].as_f64().unwrap() > 0.0);
    let said = report["talk"]["packetsSent"].as_u64().unwrap();
    assert!(said > 100, "{said} packets in 3 s");
    let written =
        SoundCodec::Opus.packets(&std::fs::read(lab.folder().join("heard.opus-packets")).unwrap());
    let heard = written.iter().filter(|packet| !packet.is_empty()).count();
    assert!(heard > 50, "{heard} packets came out of the loudspeaker");
    assert_eq!(report["command"]["reply"], "ok pan=-10 tilt=0");
    assert_eq!(report["stream"]["names"], serde_json::json!(["main", "sub"]));
    assert_eq!((&report["width"], &report["height"]), (&320.into(), &180.into()));
    assert_eq!(report["problems"], serde_json::json!([]));
    lab.finish().unwrap();
}

/// A page that shows nothing says why, in words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_that_is_off_is_said_to_be_off() {
    let lab = Lab::start_server(CameraSetup::default()).await.unwrap();
    let words = Some("offline".to_owned());
    let report = Watch { expect_error: words, ..Watch::new(lab.viewer_url()) }.run().await.unwrap();
    println!("{report}");
    lab.finish().unwrap();
}

/// Browsers offer Constrained Baseline, Baseline and Main, and decode High under those numbers too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_profile_plays() {
    for clip in ["baseline-180p30.h264", "main-180p30.h264", "high-180p30.h264", "bare-180p30.h264"]
    {
        let setup = CameraSetup { clip: clip_path(clip), ..CameraSetup::default() };
        let lab = Lab::start(setup).await.unwrap();
        let report = Watch::new(lab.viewer_url()).run().await.unwrap();
        println!("{clip}: {report}");
        let frames = report["framesDecoded"].as_array().unwrap();
        let (first, last) =
            (frames[0].as_u64().unwrap(), frames[frames.len() - 1].as_u64().unwrap());
        assert!(last > first + 30, "{clip}: {first} to {last} frames");
        assert_eq!((&report["width"], &report["height"]), (&320.into(), &180.into()), "{clip}");
        lab.finish().unwrap();
    }
}
