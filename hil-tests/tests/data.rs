//! Data channels between the C camera and viewers that know nothing of it: the `webrtc` crate, and
//! Chromium.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]

use hil_tests::browser;
use hil_tests::channels::{ChannelOptions, ChannelState, Channels};
use hil_tests::lab::{CameraSetup, Lab, PATIENCE};
use hil_tests::viewer::{Options, Viewer};

mod common;
use common::{join, play, soon};

fn channel(label: &str) -> ChannelOptions {
    ChannelOptions { label: label.into(), ..ChannelOptions::default() }
}

/// One of each kind of reliability.
fn all_kinds() -> Vec<ChannelOptions> {
    vec![
        channel("control"),
        ChannelOptions { unordered: true, ..channel("unordered") },
        ChannelOptions { max_retransmits: Some(2), ..channel("retransmits") },
        ChannelOptions { unordered: true, max_lifetime_ms: Some(500), ..channel("lifetime") },
    ]
}

async fn until(channels: &Channels, label: &str, what: &str, done: impl Fn(&ChannelState) -> bool) {
    soon(&format!("{what} on {label}"), async || channels.state(label).is_some_and(|s| done(&s)))
        .await;
}

async fn open(channels: &Channels, label: &str) {
    until(channels, label, "open", |state| state.open).await;
}

async fn lab() -> Lab {
    let setup = CameraSetup { stats_every: Some(0.5), ..CameraSetup::default() };
    Lab::start(setup).await.unwrap()
}

async fn with_channels(lab: &Lab, channels: Vec<ChannelOptions>) -> (Viewer, Channels) {
    let viewer = join(lab, Options { channels, ..Options::default() }).await;
    play(lab, &viewer, 30).await;
    let channels = viewer.channels().await;
    (viewer, channels)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_of_every_kind_carry_messages_both_ways() {
    let mut lab = lab().await;
    let (viewer, channels) = with_channels(&lab, all_kinds()).await;
    let long: Vec<u8> = (0..65_536_u32).map(|n| n as u8).collect();
    for options in all_kinds() {
        let label = options.label.as_str();
        open(&channels, label).await;
        channels.send_text(label, "ptz left").await.unwrap();
        channels.send_text(label, "ptz home").await.unwrap();
        channels.send(label, &[1, 2, 3]).await.unwrap();
        until(&channels, label, "three answers", |state| state.messages.len() >= 3).await;
        let mut messages = channels.state(label).unwrap().messages;
        println!("{label}: {messages:?}");
        if options.unordered {
            messages.sort();
            messages.rotate_left(1);
        }
        assert_eq!(messages[0], (true, b"ok pan=-10 tilt=0".to_vec()), "{label}");
        assert_eq!(messages[1], (true, b"ok pan=0 tilt=0".to_vec()), "{label}");
        assert_eq!(messages[2], (false, vec![1, 2, 3]), "{label}");
    }
    for label in ["control", "unordered"] {
        channels.send(label, &long).await.unwrap();
        until(&channels, label, "the long one", |state| state.messages.len() == 4).await;
        let last = channels.state(label).unwrap().messages.pop().unwrap();
        assert!(last == (false, long.clone()), "{label}: {} bytes", last.1.len());
    }
    let line = format!("stats viewer {}", viewer.session.session_id);
    let counted =
        |text: &str| text.starts_with(&line) && text.contains("channels=4 data_in=14 data_out=14");
    let camera = lab.camera();
    camera.line("its statistics", PATIENCE, |text| counted(text).then_some(())).await.unwrap();
    play(&lab, &viewer, 120).await;
    viewer.leave().await;
    lab.finish().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_camera_opens_a_channel_and_either_side_closes_one() {
    let mut lab = lab().await;
    let (viewer, channels) = with_channels(&lab, vec![channel("control")]).await;
    open(&channels, "control").await;
    channels.send_text("control", "watch").await.unwrap();
    until(&channels, "position", "a position", |state| !state.messages.is_empty()).await;
    let position = channels.state("position").unwrap();
    assert!(position.by_camera && !position.ordered, "{position:?}");
    channels.send_text("control", "ptz up").await.unwrap();
    let turned = |state: &ChannelState| state.texts().contains(&"pan=0 tilt=10".to_owned());
    until(&channels, "position", "the new position", turned).await;

    let mark = lab.camera().mark();
    channels.close("position").await.unwrap();
    let closed =
        |line: &str| (line.contains("data channel") && line.ends_with("closed")).then_some(());
    lab.camera().line_after(mark, "that the channel is closed", PATIENCE, closed).await.unwrap();
    // The others go on, and a new one gets a number.
    viewer.open_channel(&channel("again")).await.unwrap();
    open(&channels, "again").await;
    channels.send_text("again", "hello").await.unwrap();
    until(&channels, "again", "its echo", |state| state.texts() == ["hello"]).await;
    viewer.leave().await;
    lab.finish().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_is_too_fast_waits_and_nothing_is_lost() {
    let mut lab = lab().await;
    let (viewer, channels) = with_channels(&lab, vec![channel("control")]).await;
    open(&channels, "control").await;
    let mark = lab.camera().mark();
    channels.send_text("control", "log").await.unwrap();
    until(&channels, "control", "the whole log", |state| state.messages.len() >= 128).await;
    let texts = channels.state("control").unwrap().texts();
    for (n, text) in texts.iter().enumerate() {
        assert!(text.starts_with(&format!("log {} of 128\n", n + 1)), "{n}: {:.40}", text);
        assert_eq!(text.len(), 16_384);
    }
    // 2 MB are more than may wait, so the camera was told to wait and to go on.
    let writable = |line: &str| line.ends_with("writable").then_some(());
    lab.camera().line_after(mark, "that it may go on", PATIENCE, writable).await.unwrap();
    viewer.leave().await;
    lab.finish().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_pass_through_a_relay() {
    let setup = CameraSetup { relay_only: true, ..CameraSetup::default() };
    let lab = Lab::start(setup).await.unwrap();
    let (viewer, channels) = with_channels(&lab, vec![channel("control")]).await;
    open(&channels, "control").await;
    let long: Vec<u8> = (0..65_536_u32).map(|n| (n >> 8) as u8).collect();
    channels.send("control", &long).await.unwrap();
    until(&channels, "control", "its echo", |state| !state.messages.is_empty()).await;
    assert!(channels.state("control").unwrap().messages == [(false, long)]);
    let selected = viewer.selected().await.unwrap();
    assert!([selected.local, selected.remote].contains(&"relay".to_owned()));
    viewer.leave().await;
    lab.finish().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_exchanges_messages_of_every_kind() {
    let mut lab = lab().await;
    let report = browser::script("data.mjs", &["--url", &lab.viewer_url()]).await.unwrap();
    println!("{report:#}");
    for label in ["control", "unordered", "retransmits", "lifetime"] {
        let seen = &report["channels"][label];
        assert_eq!(
            seen["texts"],
            serde_json::json!(["ok pan=-10 tilt=0", "ok pan=0 tilt=0", ""]),
            "{label}"
        );
        assert_eq!(seen["bytes"], serde_json::json!([3, 0, 65_536]), "{label}");
    }
    let position = &report["position"];
    assert_eq!((&position["ordered"], &position["maxRetransmits"]), (&false.into(), &0.into()));
    assert_eq!(
        report["log"],
        serde_json::json!({ "parts": 128, "inOrder": true, "bytes": 128 * 16_384 })
    );
    assert_eq!(report["refused"], serde_json::json!({ "closed": true, "othersOpen": true }));
    assert_eq!(report["again"], serde_json::json!(["hello"]));
    assert!(report["framesDecoded"].as_u64().unwrap() > 30, "the picture moves beside it");
    let closed =
        |line: &str| (line.contains("data channel") && line.ends_with("closed")).then_some(());
    lab.camera().line("that a channel was closed", PATIENCE, closed).await.unwrap();
    lab.finish().unwrap();
}
