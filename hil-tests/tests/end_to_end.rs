//! The whole path on real parts: `server-min`, the C camera, and the independent viewer.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]

use hil_tests::clip::Clip;
use hil_tests::coturn::Coturn;
use hil_tests::h264::{NAL_AUD, NAL_IDR, NAL_PPS, NAL_SEI, NAL_SPS};
use hil_tests::lab::{CameraSetup, Lab, PATIENCE};
use hil_tests::peer::PeerState;
use hil_tests::viewer::{Options, Viewer};
use std::process::Command;
use std::time::Duration;

mod common;
use common::{join, play};

/// The proof of everything at once: what comes out at the viewer is what the camera's encoder
/// made, byte for byte, beginning with a keyframe, with no packet missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_receives_the_clip_byte_for_byte() {
    let lab = Lab::start(CameraSetup::default()).await.unwrap();
    let viewer = undisturbed(&lab, 150).await;

    let clip = Clip::read(&lab.setup.clip).unwrap();
    viewer.look(|state| {
        let r = &state.received;
        assert_eq!((r.missing, r.incomplete_frames, r.kinds().bad), (0, 0, 0));
        let first: Vec<u8> =
            r.units[0].types().into_iter().filter(|t| ![NAL_AUD, NAL_SEI].contains(t)).collect();
        assert_eq!(first, [NAL_SPS, NAL_PPS, NAL_IDR]);
        assert_eq!(clip.expect_played(&r.units), Ok(0));
        assert!(r.largest_payload <= 1200, "a payload of {} bytes", r.largest_payload);
        let kinds = r.kinds();
        assert!(kinds.stap_a > 0 && kinds.fu_a > 0, "{kinds:?}");
        // A group of pictures kept for those who join is sent at once, its pictures a millisecond
        // (90 ticks) apart; from then on the encoder's 30 a second (3000 ticks) hold.
        let steps: Vec<u32> = r
            .units
            .windows(2)
            .map(|pair| pair[1].timestamp.wrapping_sub(pair[0].timestamp))
            .skip_while(|step| *step == 90)
            .collect();
        assert!(steps.len() > 60, "{steps:?}");
        // A camera that the machine held up leaves pictures out, but keeps its clock.
        assert!(steps.iter().all(|step| *step > 0 && (step + 1) % 3000 <= 2), "{steps:?}");
    });
    // And another's decoder finds nothing to complain about.
    let file = lab.folder().join("received.h264");
    std::fs::write(&file, viewer.look(|state| state.received.to_annexb())).unwrap();
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "warning", "-f", "h264", "-i"]).arg(&file).args(["-f", "null", "-"]);
    let output = ffmpeg.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");

    let selected = viewer.selected().await.unwrap();
    println!(
        "{selected:?}, connected after {:?}, first frame after {:?}",
        viewer.setup_time(),
        viewer.first_frame_time()
    );
    assert_ne!((selected.local.as_str(), selected.remote.as_str()), ("relay", "relay"));
    assert_eq!(selected.srtp, "SRTP_AEAD_AES_128_GCM");
    viewer.leave().await;
    lab.finish().unwrap();
}

/// A viewer that got `frames` frames whole. A machine that is overloaded throws datagrams away, so
/// there are three attempts; a sender that leaves something out does so in all of them.
async fn undisturbed(lab: &Lab, frames: u64) -> Viewer {
    for _ in 0..3 {
        let viewer = join(lab, Options::default()).await;
        viewer.frames(frames, PATIENCE).await.unwrap();
        if viewer.look(|state| (state.received.missing, state.received.late) == (0, 0)) {
            return viewer;
        }
        viewer.leave().await;
    }
    panic!("packets were missing in each of three attempts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_behind_a_relay_plays_through_it() {
    let lab = Lab::start(CameraSetup::default()).await.unwrap();
    let viewer = join(&lab, Options { relay_only: true, ..Options::default() }).await;
    play(&lab, &viewer, 60).await;
    let selected = viewer.selected().await.unwrap();
    assert_eq!(selected.local, "relay", "{selected:?}");
    viewer.leave().await;
    lab.finish().unwrap();
}

/// A camera that hides its own addresses offers relayed candidates only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_behind_a_relay_plays_through_it() {
    let setup = CameraSetup { relay_only: true, ..CameraSetup::default() };
    let lab = Lab::start(setup).await.unwrap();
    let viewer = join(&lab, Options::default()).await;
    play(&lab, &viewer, 60).await;
    let selected = viewer.selected().await.unwrap();
    let shown = viewer.talk().remote_candidates.clone();
    assert!(!shown.is_empty());
    for candidate in &shown {
        assert!(candidate.is_empty() || candidate.contains("typ relay"), "{candidate}");
    }
    expect_relay(&selected.remote);
    viewer.leave().await;
    lab.finish().unwrap();
}

/// The camera's end of the pair. Where its check overtook its candidate, the viewer knows the same
/// address as peer-reflexive; a camera that hides its own addresses has no other than the relay's.
fn expect_relay(remote: &str) {
    assert!(matches!(remote, "relay" | "prflx"), "{remote}");
}

/// A viewer that is relayed as its camera is.
async fn play_behind_relays(lab: &Lab) -> Viewer {
    let viewer = join(lab, Options { relay_only: true, ..Options::default() }).await;
    play(lab, &viewer, 60).await;
    let selected = viewer.selected().await.unwrap();
    assert_eq!(selected.local, "relay");
    expect_relay(&selected.remote);
    viewer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_behind_relays_play() {
    let setup = CameraSetup { relay_only: true, ..CameraSetup::default() };
    let lab = Lab::start(setup).await.unwrap();
    let viewer = play_behind_relays(&lab).await;
    viewer.leave().await;
    lab.finish().unwrap();
}

/// The same through a coturn that the server hands out, having no relay of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_behind_a_coturn_play() {
    let folder = std::env::temp_dir().join(format!("p2pcam-hil-coturn-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut coturn = Coturn::start(&folder).unwrap();
    let turn = Some(coturn.as_setting());
    let setup = CameraSetup { relay_only: true, turn, ..CameraSetup::default() };
    let lab = Lab::start(setup).await.unwrap();
    let viewer = play_behind_relays(&lab).await;
    // Both sides' allocations are there, under the session's name.
    let sid = viewer.session.session_id.clone();
    let allocated = |line: &str| {
        (line.contains(&sid) && line.contains("ALLOCATE processed, success")).then_some(())
    };
    let first = coturn.process().lines().iter().position(|line| allocated(line).is_some());
    coturn
        .process()
        .line_after(first.unwrap() + 1, "two allocations", PATIENCE, allocated)
        .await
        .unwrap();
    viewer.leave().await;
    lab.finish().unwrap();
    drop(coturn);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_viewers_watch_at_once_and_the_ninth_is_told() {
    let setup = CameraSetup { max_viewers: Some(8), ..CameraSetup::default() };
    let lab = Lab::start(setup).await.unwrap();
    let mut viewers = Vec::new();
    for i in 0..8 {
        let app = format!("app-{i}");
        let joined = Viewer::join(&lab.api, &lab.setup.device, &app, Options::default()).await;
        viewers.push(joined.unwrap());
    }
    for viewer in &viewers {
        viewer.frames(60, PATIENCE).await.unwrap();
    }
    let ninth = join(&lab, Options::default()).await;
    common::expect_refused(&ninth, 429).await;
    // The refusal disturbs nobody. Whether packets are missing is asked with one viewer: eight of
    // them, not optimised, may be more than the machine that runs this can follow.
    let clip = Clip::read(&lab.setup.clip).unwrap();
    for viewer in &viewers {
        let seen = viewer.look(|state| state.received.frames);
        viewer.frames(seen + 30, PATIENCE).await.unwrap();
        viewer.look(|state| {
            clip.expect_played(&state.received.units).unwrap();
        });
    }
    // Who leaves makes room.
    viewers.remove(0).leave().await;
    common::soon("a place for one more", async || {
        let viewer = join(&lab, Options::default()).await;
        viewer.frames(1, Duration::from_secs(10)).await.is_ok()
    })
    .await;
    for viewer in viewers {
        viewer.leave().await;
    }
    lab.finish().unwrap();
}

/// What is lost on the way is asked for again (RFC 4585 generic NACK) and comes again, so that in
/// the end next to nothing is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_packets_come_again() {
    let lab = Lab::start(CameraSetup::default()).await.unwrap();
    let viewer = join(&lab, Options { lose_one_in: Some(20), ..Options::default() }).await;
    let recovered = |state: &PeerState| state.received.late >= 20;
    viewer.until("20 packets sent again", PATIENCE, recovered).await.unwrap();
    viewer.look(|state| {
        let r = &state.received;
        println!("{} packets, {} late, {} missing", r.packets, r.late, r.missing);
        // Those of the last moments are still on their way.
        assert!(r.missing <= r.late, "{} missing, {} came late", r.missing, r.late);
    });
    viewer.leave().await;
    lab.finish().unwrap();
}

/// PLI (RFC 4585) and FIR (RFC 5104) both reach the firmware, which answers with a keyframe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyframe_that_is_asked_for_comes() {
    let mut lab = Lab::start(CameraSetup::default()).await.unwrap();
    let viewer = join(&lab, Options::default()).await;
    viewer.frames(10, PATIENCE).await.unwrap();
    for kind in ["PLI", "FIR"] {
        let mark = lab.camera().mark();
        let before = viewer.look(|state| state.received.keyframes);
        match kind {
            "PLI" => viewer.send_pli().await.unwrap(),
            _ => viewer.send_fir().await.unwrap(),
        }
        let asked = |line: &str| line.contains("keyframe").then_some(());
        lab.camera().line_after(mark, kind, PATIENCE, asked).await.unwrap();
        viewer
            .until("a keyframe", PATIENCE, |state| state.received.keyframes > before)
            .await
            .unwrap();
    }
    viewer.leave().await;
    lab.finish().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cameras_two_streams_are_told_apart() {
    let sub = hil_tests::lab::clip_path("baseline-180p30.h264");
    let setup = CameraSetup { sub_clip: Some(sub.clone()), ..CameraSetup::default() };
    let lab = Lab::start(setup).await.unwrap();
    let main = join(&lab, Options { stream: Some("main".into()), ..Options::default() }).await;
    let small = join(&lab, Options { stream: Some("sub".into()), ..Options::default() }).await;
    play(&lab, &main, 60).await;
    small.frames(60, PATIENCE).await.unwrap();
    small.look(|state| Clip::read(&sub).unwrap().expect_played(&state.received.units)).unwrap();
    main.leave().await;
    small.leave().await;
    lab.finish().unwrap();
}
