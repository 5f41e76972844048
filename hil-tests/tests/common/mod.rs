//! What the scenarios share.
#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses its own part of this")]

use hil_tests::clip::Clip;
use hil_tests::clock;
use hil_tests::lab::{Lab, PATIENCE};
use hil_tests::peer::PeerState;
use hil_tests::viewer::{Options, Viewer, ViewerError};
use std::time::Duration;

/// Joins the lab's camera as the application `app-1`.
pub(crate) async fn join(lab: &Lab, options: Options) -> Viewer {
    Viewer::join(&lab.api, &lab.setup.device, "app-1", options).await.unwrap()
}

/// Waits for `count` frames and checks that they are the clip's.
pub(crate) async fn play(lab: &Lab, viewer: &Viewer, count: u64) {
    viewer.frames(count, PATIENCE).await.unwrap();
    let clip = Clip::read(&lab.setup.clip).unwrap();
    viewer.look(|state| clip.expect_played(&state.received.units)).unwrap();
}

/// A machine that is busier than it can be throws datagrams away, and no sender can help it; but
/// where it is the sender that leaves some out, it is more than one in fifty.
pub(crate) fn expect_nearly_all(state: &PeerState) {
    let r = &state.received;
    assert!(r.missing <= r.packets / 50, "{} of {} packets are missing", r.missing, r.packets);
    assert!(r.incomplete_frames <= r.frames / 10, "{} of {}", r.incomplete_frames, r.frames);
}

/// The viewer is refused with this code.
pub(crate) async fn expect_refused(viewer: &Viewer, code: u16) {
    match viewer.until_ended(PATIENCE).await {
        Ok(ViewerError::Refused { code: got, message }) => {
            assert_eq!(got, code, "{message}");
            assert!(!message.is_empty(), "an error says why");
        }
        other => panic!("expected error {code}, got {other:?}"),
    }
}

/// Tries until it is so.
pub(crate) async fn soon(what: &str, attempt: impl AsyncFn() -> bool) {
    let start = clock::now();
    while !attempt().await {
        assert!(start.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
