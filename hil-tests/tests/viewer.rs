//! The viewer's own trial: it receives what the `webrtc` crate itself sends. Where this passes and
//! a scenario fails, the camera is to blame.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]

use hil_tests::clip::Clip;
use hil_tests::clock;
use hil_tests::lab::{PATIENCE, clip_path};
use hil_tests::peer::{H264Format, Peer, PeerOptions, Srtp, codec};
use rtc::media::Sample;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use std::sync::Arc;
use std::time::Duration;
use webrtc::media_stream::MediaStreamTrack;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_sample::TrackLocalStaticSample;
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler,
    RTCIceCandidateInit, RTCPeerConnectionIceEvent, RTCSessionDescription, Registry,
    SettingEngineBuilder, register_default_interceptors,
};

const SSRC: u32 = 4711;

struct Sender(tokio::sync::mpsc::UnboundedSender<RTCIceCandidateInit>);

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Sender {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        let _ = self.0.send(event.candidate.to_json().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_viewer_receives_another_sender_than_ours() {
    let options = PeerOptions {
        ice_servers: Vec::new(),
        relay_only: false,
        formats: vec![H264Format::BASELINE],
        h265: false,
        srtp: Some(Srtp::Gcm),
        bind: "127.0.0.1:0".into(),
        lose_one_in: None,
        sound: None,
        channels: Vec::new(),
    };
    let (viewer, mut viewer_candidates) = Peer::new(options).await.unwrap();

    let format = codec(&H264Format::BASELINE);
    let mut media = MediaEngine::default();
    media.register_codec(format.clone(), RtpCodecKind::Video).unwrap();
    let registry = register_default_interceptors(Registry::new(), &mut media).unwrap();
    let (candidates, mut sender_candidates) = tokio::sync::mpsc::unbounded_channel();
    let settings = SettingEngineBuilder::new().with_include_loopback_candidate(true).build();
    let sender = PeerConnectionBuilder::new()
        .with_media_engine(media)
        .with_interceptor_registry(registry)
        .with_setting_engine(settings)
        .with_handler(Arc::new(Sender(candidates)))
        .with_udp_addrs(vec!["127.0.0.1:0"])
        .build()
        .await
        .unwrap();
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(SSRC), ..Default::default() },
        codec: format.rtp_codec.clone(),
        ..Default::default()
    };
    let kind = RtpCodecKind::Video;
    let track = MediaStreamTrack::new("s".into(), "t".into(), "l".into(), kind, vec![encoding]);
    let track = Arc::new(TrackLocalStaticSample::new(clock::now(), track).unwrap());
    sender.add_track(track.clone() as Arc<dyn TrackLocal>).await.unwrap();

    let offer = viewer.offer().await.unwrap();
    sender.set_remote_description(RTCSessionDescription::offer(offer).unwrap()).await.unwrap();
    let answer = sender.create_answer(None).await.unwrap();
    sender.set_local_description(answer.clone()).await.unwrap();
    viewer.answer(answer.sdp).await.unwrap();

    let path = clip_path("baseline-180p30.h264");
    let clip = Clip::read(&path).unwrap();
    let pictures = clip.annexb_pictures();
    let state = viewer.shared();
    let start = clock::now();
    let mut next = 0;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    while state.look(|s| s.received.frames) < 60 {
        assert!(start.elapsed() < PATIENCE, "{} packets", state.look(|s| s.received.packets));
        tokio::select! {
            Some(candidate) = viewer_candidates.recv() => if !candidate.candidate.is_empty() {
                let candidate = RTCIceCandidateInit {
                    candidate: candidate.candidate,
                    sdp_mid: candidate.sdp_mid,
                    sdp_mline_index: candidate.sdp_m_line_index,
                    ..Default::default()
                };
                sender.add_ice_candidate(candidate).await.unwrap();
            },
            Some(candidate) = sender_candidates.recv() => {
                let candidate = sdk_core::wire::signal::Candidate {
                    candidate: candidate.candidate,
                    sdp_mid: candidate.sdp_mid,
                    sdp_m_line_index: candidate.sdp_mline_index,
                };
                viewer.add_candidate(candidate).await.unwrap();
            }
            _ = tick.tick() => {
                if state.look(|s| s.connected.is_none()) {
                    continue;
                }
                let sample = Sample {
                    data: pictures[next % pictures.len()].clone().into(),
                    duration: Duration::from_millis(33),
                    ..Sample::new(clock::now())
                };
                next += 1;
                let payload_type = H264Format::BASELINE.payload_type;
                track.sample_writer(SSRC, payload_type).write_sample(&sample).await.unwrap();
            }
        }
    }
    state.look(|s| {
        let r = &s.received;
        println!("{} frames, {} packets, {:?}", r.frames, r.packets, r.kinds());
        assert_eq!((r.missing, r.incomplete_frames), (0, 0));
        clip.expect_played(&r.units).unwrap();
    });
    let selected = viewer.selected().await.unwrap();
    println!("{selected:?}");
    assert_eq!(selected.srtp, "SRTP_AEAD_AES_128_GCM");
    assert_eq!(selected.local, "host");
    // A check may overtake the candidate it came from.
    assert!(matches!(selected.remote.as_str(), "host" | "prflx"), "{selected:?}");
    viewer.close().await;
    sender.close().await.unwrap();
}
