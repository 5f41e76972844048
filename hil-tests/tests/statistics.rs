//! `p2p_get_stats` as the firmware prints it, against what an independent viewer saw.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]

use hil_tests::lab::{CameraSetup, Lab, PATIENCE};
use hil_tests::viewer::{Options, Viewer};
use std::collections::HashMap;

mod common;
use common::join;

const EVERY: f64 = 0.5;
/// Of the lab's clip.
const FPS: f64 = 30.0;

/// The numbers and words of one line: `stats viewer <id>: name=value …`.
struct Line(HashMap<String, String>);

impl Line {
    fn parse(line: &str, kind: &str) -> Option<Line> {
        let (_, rest) = line.strip_prefix("stats ")?.strip_prefix(kind)?.split_once(": ")?;
        let pairs = rest.split_whitespace().filter_map(|word| word.split_once('='));
        Some(Line(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }

    fn word(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.0))
    }

    fn number(&self, name: &str) -> f64 {
        self.word(name).parse().unwrap()
    }
}

/// The next line of this kind that `wanted` takes.
async fn next(lab: &mut Lab, kind: &str, wanted: impl Fn(&Line) -> bool) -> Line {
    let camera = lab.camera();
    let mark = camera.mark();
    let take = |line: &str| Line::parse(line, kind).filter(|line| wanted(line));
    camera.line_after(mark, "its statistics", PATIENCE, take).await.unwrap()
}

async fn watch(lab: &mut Lab, frames: u64) -> Viewer {
    let viewer = join(lab, Options::default()).await;
    viewer.frames(frames, PATIENCE).await.unwrap();
    viewer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cameras_numbers_are_the_viewers() {
    let setup = CameraSetup { stats_every: Some(EVERY), ..CameraSetup::default() };
    let mut lab = Lab::start(setup).await.unwrap();
    let viewer = watch(&mut lab, 90).await;
    let id = viewer.session.session_id.clone();

    let before = viewer.look(|s| (s.received.frames as f64, s.received.packets as f64));
    let line = next(&mut lab, &format!("viewer {id}"), |_| true).await;
    let after = viewer.look(|s| (s.received.frames as f64, s.received.packets as f64));
    println!("{:?}", line.0);
    // Counted up to a second and a printing interval before, and up to now.
    let behind = FPS * (1.5 + EVERY);
    let frames = line.number("frames");
    assert!(frames > before.0 - behind && frames < after.0 + behind, "{before:?} {after:?}");
    assert!(line.number("packets") > frames && line.number("packets") < after.1 * 1.5);
    assert!(line.number("wire") > line.number("bytes"));
    // A clip of 2 Mbit/s, whose seconds differ.
    let (media, wire) = (line.number("media_bps"), line.number("wire_bps"));
    assert!((500_000.0..6_000_000.0).contains(&media) && wire > media, "{media} {wire}");
    assert!(line.number("dropped") < FPS, "but a few before its first keyframe");
    assert!(["host", "prflx"].contains(&line.word("path")));
    assert_eq!(line.word("local"), "host");
    let times = ["answer_ms", "ice_ms", "dtls_ms", "first_frame_ms"].map(|name| line.number(name));
    assert!(times[0] >= 0.0 && times.is_sorted() && times[3] < 30_000.0, "{times:?}");

    let stream = next(&mut lab, "stream main", |_| true).await;
    println!("{:?}", stream.0);
    assert_eq!(stream.number("viewers"), 1.0);
    assert!((FPS - 8.0..FPS + 8.0).contains(&stream.number("fps")), "{:?}", stream.0);
    assert!(stream.number("frames") >= frames && stream.number("keyframes") >= 1.0);
    assert_eq!(stream.number("refused"), 0.0);
    let agent = next(&mut lab, "agent", |_| true).await;
    println!("{:?}", agent.0);
    assert_eq!(agent.number("up"), 1.0);
    // ICE tries addresses that cannot be reached; media does not.
    assert!(agent.number("errors") < 20.0);
    assert!(agent.number("datagrams") >= line.number("packets"));
    assert!(agent.number("sends") <= agent.number("datagrams"));

    // Without viewers there is none in the list.
    viewer.leave().await;
    next(&mut lab, "stream main", |line| line.number("viewers") == 0.0).await;
    lab.finish().unwrap();
}
