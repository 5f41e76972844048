//! What is agreed on: SRTP profiles, packetization modes, H.264 profiles.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]

use hil_tests::clip::Clip;
use hil_tests::lab::{CameraSetup, Lab, PATIENCE, clip_path};
use hil_tests::peer::{H264Format, H265_PAYLOAD_TYPE, Srtp};
use hil_tests::viewer::Options;

mod common;
use common::{expect_refused, join, play};

/// AES-CM with HMAC-SHA1 is what RFC 8827 makes mandatory, and all that some old viewers have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_srtp_profile_plays() {
    let lab = Lab::start(CameraSetup::default()).await.unwrap();
    let cases =
        [(Srtp::AesCm, "SRTP_AES128_CM_HMAC_SHA1_80"), (Srtp::Gcm, "SRTP_AEAD_AES_128_GCM")];
    for (srtp, name) in cases {
        let viewer = join(&lab, Options { srtp: Some(srtp), ..Options::default() }).await;
        play(&lab, &viewer, 60).await;
        // Feedback is sealed with the same keys, in the other direction.
        let before = viewer.look(|state| state.received.keyframes);
        viewer.send_pli().await.unwrap();
        viewer
            .until("a keyframe", PATIENCE, |state| state.received.keyframes > before)
            .await
            .unwrap();
        let selected = viewer.selected().await.unwrap();
        assert!(selected.srtp.contains(name), "{selected:?}");
        viewer.leave().await;
    }
    lab.finish().unwrap();
}

/// Browsers offer 42e01f and play Main and High streams all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_profile_plays_at_a_viewer_that_offers_baseline_alone() {
    for name in ["baseline-180p30.h264", "main-180p30.h264", "high-180p30.h264"] {
        let clip = clip_path(name);
        let lab = Lab::start(CameraSetup { clip, ..CameraSetup::default() }).await.unwrap();
        let formats = vec![H264Format::BASELINE];
        let viewer = join(&lab, Options { formats, ..Options::default() }).await;
        play(&lab, &viewer, 70).await;
        viewer.look(|state| {
            assert_eq!(state.received.payload_type, Some(H264Format::BASELINE.payload_type));
        });
        viewer.leave().await;
        lab.finish().unwrap();
    }
}

/// An encoder that writes its parameter sets once and cuts pictures into slices: every keyframe
/// must still come with its parameter sets, or a viewer that joins late sees nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameter_sets_come_with_every_keyframe() {
    let clip = clip_path("bare-180p30.h264");
    let lab = Lab::start(CameraSetup { clip, ..CameraSetup::default() }).await.unwrap();
    // The second one joins when the encoder's only parameter sets are long gone.
    for _ in 0..2 {
        let viewer = join(&lab, Options::default()).await;
        play(&lab, &viewer, 100).await;
        viewer.look(|state| {
            let keyframes: Vec<_> = state.received.units.iter().filter(|u| u.is_idr()).collect();
            assert!(keyframes.len() >= 2);
            for unit in keyframes {
                let types = unit.types();
                assert!(types.contains(&7) && types.contains(&8), "{types:?}");
            }
        });
        viewer.leave().await;
    }
    lab.finish().unwrap();
}

/// In packetization mode 0 (RFC 6184 §6.2) a packet is one NAL, whole: no STAP-A, no FU-A.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mode_0_sends_single_nals_only() {
    let clip = clip_path("bare-180p30.h264");
    let lab = Lab::start(CameraSetup { clip, ..CameraSetup::default() }).await.unwrap();
    let formats = vec![H264Format::BASELINE_MODE_0];
    let viewer = join(&lab, Options { formats, ..Options::default() }).await;
    viewer.frames(60, PATIENCE).await.unwrap();
    viewer.look(|state| {
        let kinds = state.received.kinds();
        assert_eq!((kinds.stap_a, kinds.fu_a, kinds.bad), (0, 0, 0));
        assert!(kinds.single > 60);
    });
    play(&lab, &viewer, 60).await;
    viewer.leave().await;
    lab.finish().unwrap();
}

/// Nothing that can be played is an error the viewer can show, not silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offer_without_h264_is_refused() {
    let lab = Lab::start(CameraSetup::default()).await.unwrap();
    let viewer = join(&lab, Options { formats: Vec::new(), ..Options::default() }).await;
    expect_refused(&viewer, 406).await;
    lab.finish().unwrap();
}

/// What a viewer that offers both codecs gets is the stream's own: each keyframe with its VPS, SPS and
/// PPS, whether the encoder repeats them or not, and every picture byte for byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h265_plays_where_it_is_offered() {
    for name in ["main-180p30.h265", "cra-180p30.h265"] {
        let clip = clip_path(name);
        let lab = Lab::start(CameraSetup { clip, ..CameraSetup::default() }).await.unwrap();
        for _ in 0..2 {
            let viewer = join(&lab, Options { h265: true, ..Options::default() }).await;
            play(&lab, &viewer, 100).await;
            let before = viewer.look(|state| {
                let r = &state.received;
                assert_eq!(r.payload_type, Some(H265_PAYLOAD_TYPE));
                assert_eq!((r.missing, r.incomplete_frames, r.kinds().bad), (0, 0, 0));
                assert!(r.kinds().stap_a > 0 && r.kinds().fu_a > 0, "{:?}", r.kinds());
                assert!(r.units[0].is_idr());
                let keyframes: Vec<_> = r.units.iter().filter(|u| u.is_idr()).collect();
                assert!(keyframes.len() >= 2);
                for unit in keyframes {
                    assert_eq!(unit.types()[..3], [32, 33, 34], "{:?}", unit.types());
                }
                r.keyframes
            });
            viewer.send_pli().await.unwrap();
            viewer
                .until("a keyframe", PATIENCE, |state| state.received.keyframes > before)
                .await
                .unwrap();
            viewer.leave().await;
        }
        lab.finish().unwrap();
    }
}

/// A viewer without the codec is told so, and may take another stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h265_is_refused_where_it_is_not_offered_and_the_sub_stream_plays() {
    let lab = Lab::start(CameraSetup {
        clip: clip_path("main-180p30.h265"),
        sub_clip: Some(clip_path("baseline-180p30.h264")),
        ..CameraSetup::default()
    })
    .await
    .unwrap();
    let viewer = join(&lab, Options::default()).await;
    expect_refused(&viewer, 406).await;
    let text = viewer.end().map(|end| end.to_string()).unwrap_or_default();
    assert!(text.contains("H.265") && text.contains("`sub`"), "{text}");
    let stream = Some("sub".to_owned());
    let viewer = join(&lab, Options { stream, h265: true, ..Options::default() }).await;
    viewer.frames(60, PATIENCE).await.unwrap();
    let sub = Clip::read(&clip_path("baseline-180p30.h264")).unwrap();
    viewer.look(|state| sub.expect_played(&state.received.units)).unwrap();
    viewer.leave().await;
    lab.finish().unwrap();
}
