//! More than one live stream: viewers that go from one to another, and recordings that are paused and
//! begin anew.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]

use hil_tests::browser::Watch;
use hil_tests::clip::Clip;
use hil_tests::h264::AccessUnit;
use hil_tests::lab::{CameraSetup, Lab, PATIENCE, clip_path};
use hil_tests::viewer::{Options, Viewer};
use sdk_core::wire::signal::{Body, Keepalive};

mod common;
use common::{join, play, soon};

async fn ask(viewer: &Viewer, stream: &str) {
    let before = viewer.talk().streams_told.len();
    viewer.say(Body::Keepalive(Keepalive { stream: Some(stream.into()), ..Keepalive::default() }));
    soon("a word about the stream", async || viewer.talk().streams_told.len() > before).await;
}

fn told(viewer: &Viewer) -> Keepalive {
    viewer.talk().streams_told.last().unwrap().clone()
}

/// From picture to picture, in milliseconds.
fn steps(units: &[AccessUnit]) -> Vec<u32> {
    units.windows(2).map(|pair| pair[1].timestamp.wrapping_sub(pair[0].timestamp) / 90).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_goes_to_the_sub_stream_and_back_in_one_session() {
    let sub_clip = Some(clip_path("main-180p30.h264"));
    let lab = Lab::start(CameraSetup { sub_clip, ..CameraSetup::default() }).await.unwrap();
    let viewer = join(&lab, Options::default()).await;
    play(&lab, &viewer, 30).await;
    assert_eq!(told(&viewer).streams, ["main", "sub"]);
    let ssrc = viewer.look(|state| state.received.ssrc);

    ask(&viewer, "sub").await;
    assert_eq!(told(&viewer).stream.as_deref(), Some("sub"));
    let so_far = viewer.look(|state| state.received.frames);
    viewer.frames(so_far + 40, PATIENCE).await.unwrap();
    ask(&viewer, "attic").await;
    assert_eq!(told(&viewer).stream.as_deref(), Some("sub"));
    assert!(told(&viewer).stream_error.unwrap().contains("attic"));
    ask(&viewer, "main").await;
    let so_far = viewer.look(|state| state.received.frames);
    viewer.frames(so_far + 40, PATIENCE).await.unwrap();

    let units = viewer.look(|state| {
        let r = &state.received;
        assert_eq!((r.missing, r.incomplete_frames, r.ssrc), (0, 0, ssrc));
        r.units.clone()
    });
    // Whose pictures they are, one run after the other: each is its clip's, from a keyframe on.
    let clips = [Clip::read(&lab.setup.clip), Clip::read(lab.setup.sub_clip.as_ref().unwrap())];
    let clips = clips.map(Result::unwrap);
    let whose = |unit: &AccessUnit| {
        let one = std::slice::from_ref(unit);
        clips.iter().position(|clip| clip.expect_played(one).is_ok()).unwrap()
    };
    let runs: Vec<&[AccessUnit]> = units.chunk_by(|a, b| whose(a) == whose(b)).collect();
    assert_eq!(runs.iter().map(|run| whose(&run[0])).collect::<Vec<_>>(), [0, 1, 0]);
    for run in runs {
        assert!(run[0].is_idr() && run.len() >= 30, "{}", run.len());
        clips[whose(&run[0])].expect_played(run).unwrap();
    }
    let steps = steps(&units);
    assert!(steps.iter().all(|step| (1..=200).contains(step)), "{steps:?}");
    viewer.leave().await;
    lab.finish().unwrap();
}

fn recording() -> CameraSetup {
    CameraSetup {
        clip: clip_path("main-180p30.h264"),
        more: vec!["--recorded".into()],
        ..CameraSetup::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_that_is_paused_and_begins_anew_stays_one_stream() {
    let lab = Lab::start(recording()).await.unwrap();
    let pictures = Clip::read(&lab.setup.clip).unwrap().pictures() as u64;
    let viewer = join(&lab, Options::default()).await;
    play(&lab, &viewer, 2 * pictures + 20).await;
    let steps = viewer.look(|state| steps(&state.received.units));
    println!("{steps:?}");
    let pauses = steps.iter().filter(|step| (900..1500).contains(*step)).count();
    assert!((2..=3).contains(&pauses), "{steps:?}");
    assert!(steps.iter().all(|step| (1..1500).contains(step)), "{steps:?}");
    viewer.leave().await;
    lab.finish().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_shows_a_recording_round_after_round() {
    let lab = Lab::start(recording()).await.unwrap();
    let pictures = Clip::read(&lab.setup.clip).unwrap().pictures();
    let report = Watch { seconds: 12, ..Watch::new(lab.viewer_url()) }.run().await.unwrap();
    println!("{pictures} pictures: {report}");
    let frames: Vec<u64> =
        report["framesDecoded"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    // Of each three seconds at most one is a pause.
    assert!(frames.windows(4).all(|second| second[3] > second[0] + 30), "{frames:?}");
    lab.finish().unwrap();
}
