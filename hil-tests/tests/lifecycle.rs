//! How sessions end, and what does not end them.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]

use hil_tests::clip::Clip;
use hil_tests::lab::{CameraSetup, Lab, PATIENCE};
use hil_tests::viewer::{Options, Viewer, ViewerError};
use serde_json::Value;
use std::time::Duration;

mod common;
use common::{expect_nearly_all, join, play, soon};

fn small() -> CameraSetup {
    CameraSetup {
        clip: hil_tests::lab::clip_path("baseline-180p30.h264"),
        ..CameraSetup::default()
    }
}

fn says<'a>(word: &'a str, session: &'a str) -> impl Fn(&str) -> Option<()> + 'a {
    move |line| (line.contains(word) && line.contains(session)).then_some(())
}

/// The firmware is told of a viewer that comes and goes, and the service's record follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewers_visit_is_seen_by_the_firmware_and_the_service() {
    let mut lab = Lab::start(small()).await.unwrap();
    let viewer = join(&lab, Options::default()).await;
    let id = viewer.session.session_id.clone();
    viewer.frames(10, PATIENCE).await.unwrap();
    let camera = lab.camera();
    camera.line("the new viewer", PATIENCE, says("viewer new", &id)).await.unwrap();
    camera.line("the connected viewer", PATIENCE, says("viewer connected", &id)).await.unwrap();
    let api = lab.api.clone();
    let status = async |wanted: &str| {
        let record: Value = api.record(&id).await.unwrap();
        record["status"] == wanted
    };
    soon("the record says connected", || status("connected")).await;

    let mark = lab.camera().mark();
    viewer.leave().await;
    let camera = lab.camera();
    camera
        .line_after(mark, "the closed viewer", PATIENCE, says("viewer closed", &id))
        .await
        .unwrap();
    soon("the record says closed", || status("closed")).await;
    lab.finish().unwrap();
}

/// A page that is closed sends DTLS's close_notify, even where it has no broker any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_that_closes_its_transport_is_gone_at_once() {
    let mut lab = Lab::start(small()).await.unwrap();
    let viewer = join(&lab, Options::default()).await;
    let id = viewer.session.session_id.clone();
    viewer.frames(10, PATIENCE).await.unwrap();
    viewer.vanish().await;
    lab.camera().line("the closed viewer", PATIENCE, says("viewer closed", &id)).await.unwrap();
    lab.finish().unwrap();
}

/// A viewer that loses its network says nothing at all. It is noticed all the same (consent,
/// RFC 7675), and its place is free again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_that_vanishes_is_noticed() {
    let setup = CameraSetup { max_viewers: Some(1), ..small() };
    let mut lab = Lab::start(setup).await.unwrap();
    // With its runtime go its sockets, in the middle of whatever they did.
    let phone = tokio::runtime::Runtime::new().unwrap();
    let (api, device) = (lab.api.clone(), lab.setup.device.clone());
    let viewer = phone.spawn(async move {
        let viewer = Viewer::join(&api, &device, "phone", Options::default()).await.unwrap();
        viewer.frames(10, PATIENCE).await.unwrap();
        viewer
    });
    let viewer = viewer.await.unwrap();
    let id = viewer.session.session_id.clone();
    phone.shutdown_background();
    let limit = Duration::from_secs(90);
    lab.camera().line("the closed viewer", limit, says("viewer closed", &id)).await.unwrap();
    let next = join(&lab, Options::default()).await;
    play(&lab, &next, 10).await;
    next.leave().await;
    lab.finish().unwrap();
}

/// `DELETE /v1/sessions/{id}` ends the session for both sides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_can_close_a_session() {
    let mut lab = Lab::start(small()).await.unwrap();
    let viewer = join(&lab, Options::default()).await;
    let id = viewer.session.session_id.clone();
    viewer.frames(10, PATIENCE).await.unwrap();
    lab.api.delete(&id).await.unwrap();
    match viewer.until_ended(PATIENCE).await.unwrap() {
        ViewerError::Bye(_) => {}
        other => panic!("expected bye, got {other:?}"),
    }
    lab.camera().line("the closed viewer", PATIENCE, says("viewer closed", &id)).await.unwrap();
    lab.finish().unwrap();
}

/// When the camera is switched off, its viewers are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_that_is_switched_off_says_goodbye() {
    let mut lab = Lab::start(small()).await.unwrap();
    let viewer = join(&lab, Options::default()).await;
    viewer.frames(10, PATIENCE).await.unwrap();
    lab.stop_camera().unwrap();
    match viewer.until_ended(PATIENCE).await.unwrap() {
        ViewerError::Bye(_) => {}
        other => panic!("expected bye, got {other:?}"),
    }
    lab.finish().unwrap();
}

/// The broker only introduces: while it is away, running media goes on, and when it is back, the
/// camera finds it by itself and new viewers can join.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_restarts_disturbs_no_running_picture() {
    let mut lab = Lab::start(CameraSetup::default()).await.unwrap();
    let viewer = join(&lab, Options::default()).await;
    viewer.frames(30, PATIENCE).await.unwrap();

    let mark = lab.camera().mark();
    lab.stop_server().unwrap();
    lab.camera()
        .line_after(mark, "that signaling is down", PATIENCE, |line| {
            line.contains("signaling down").then_some(())
        })
        .await
        .unwrap();
    let seen = viewer.look(|state| state.received.frames);
    viewer.frames(seen + 60, PATIENCE).await.unwrap();

    let mark = lab.camera().mark();
    lab.restart_server().await.unwrap();
    lab.camera()
        .line_after(mark, "that signaling is up", Duration::from_secs(90), |line| {
            line.contains("signaling up").then_some(())
        })
        .await
        .unwrap();
    let second = join(&lab, Options::default()).await;
    play(&lab, &second, 30).await;

    let seen = viewer.look(|state| state.received.frames);
    viewer.frames(seen + 30, PATIENCE).await.unwrap();
    let clip = Clip::read(&lab.setup.clip).unwrap();
    viewer.look(|state| {
        clip.expect_played(&state.received.units).unwrap();
        expect_nearly_all(state);
    });
    viewer.vanish().await;
    second.leave().await;
    lab.finish().unwrap();
}
