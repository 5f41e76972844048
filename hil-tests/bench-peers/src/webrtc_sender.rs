//! A camera on the async `webrtc` crate, as its own examples are written: a peer connection and a
//! `TrackLocalStaticSample` for each viewer, the default interceptors, one thread.

use crate::input;
use crate::pictures::Pictures;
use bytes::Bytes;
use hil_tests::clock;
use hil_tests::lines::Line;
use hil_tests::peer::{H264Format, codec};
use rtc::media::Sample;
use rtc::media_stream::MediaStreamTrack;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_sample::TrackLocalStaticSample;
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler,
    RTCIceGatheringState, RTCPeerConnectionState, RTCSessionDescription, Registry,
    SettingEngineBuilder, SrtpProtectionProfile, register_default_interceptors,
};
use webrtc::rtp_transceiver::RtpSender;

const FRAME: Duration = Duration::from_nanos(33_333_333);

pub(crate) fn run(clip: &str) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(camera(clip))
}

async fn camera(clip: &str) -> Result<(), String> {
    let mut pictures = Pictures::<Bytes>::read(clip)?;
    let mut lines = input::lines();
    let (mut connections, mut tracks) = (Vec::new(), Vec::<Track>::new());
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                None => return Ok(()),
                Some(Line::Offer { viewer, sdp }) => {
                    let (connection, track) = Connection::answer(viewer, sdp).await?;
                    connections.push(connection);
                    tracks.push(track);
                }
                Some(other) => return Err(format!("not for a sender: {other:?}")),
            },
            () = tokio::time::sleep_until(pictures.due().into()) => {
                let (picture, _) = pictures.next();
                for track in &mut tracks {
                    track.write(&picture).await?;
                }
            }
        }
    }
}

/// Kept so that it stays open.
struct Connection {
    _connection: Arc<dyn PeerConnection>,
}

struct Track {
    track: Arc<TrackLocalStaticSample>,
    sender: Arc<dyn RtpSender>,
    connected: watch::Receiver<bool>,
    ssrc: u32,
    payload_type: Option<u8>,
}

impl Connection {
    async fn answer(viewer: usize, sdp: String) -> Result<(Connection, Track), String> {
        let text = |e: webrtc::error::Error| format!("viewer {viewer}: {e}");
        let mut media = MediaEngine::default();
        let codec = codec(&H264Format::BASELINE);
        media.register_codec(codec.clone(), RtpCodecKind::Video).map_err(text)?;
        let registry = register_default_interceptors(Registry::new(), &mut media).map_err(text)?;
        let settings = SettingEngineBuilder::new()
            .with_include_loopback_candidate(true)
            .with_srtp_protection_profiles(vec![SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm])
            .build();
        let (gathered, mut is_gathered) = watch::channel(false);
        let (connect, connected) = watch::channel(false);
        let connection = PeerConnectionBuilder::new()
            .with_media_engine(media)
            .with_setting_engine(settings)
            .with_interceptor_registry(registry)
            .with_handler(Arc::new(Events { gathered, connect }))
            .with_udp_addrs(vec!["127.0.0.1:0".to_owned()])
            .build()
            .await
            .map_err(text)?;
        let connection: Arc<dyn PeerConnection> = Arc::new(connection);
        let ssrc = 0x1000_0000 + viewer as u32;
        let encoding = RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters {
                ssrc: Some(ssrc),
                ..RTCRtpCodingParameters::default()
            },
            codec: codec.rtp_codec,
            ..RTCRtpEncodingParameters::default()
        };
        let stream = MediaStreamTrack::new(
            "camera".into(),
            format!("video-{viewer}"),
            "main".into(),
            RtpCodecKind::Video,
            vec![encoding],
        );
        let track = Arc::new(TrackLocalStaticSample::new(clock::now(), stream).map_err(text)?);
        let sender =
            connection.add_track(track.clone() as Arc<dyn TrackLocal>).await.map_err(text)?;
        let offer = RTCSessionDescription::offer(sdp).map_err(text)?;
        connection.set_remote_description(offer).await.map_err(text)?;
        let answer = connection.create_answer(None).await.map_err(text)?;
        connection.set_local_description(answer).await.map_err(text)?;
        is_gathered.wait_for(|is| *is).await.map_err(|e| e.to_string())?;
        let answer = connection.local_description().await.ok_or("there is no answer")?;
        println!("{}", Line::Answer { viewer, sdp: answer.sdp }.write());
        let track = Track { track, sender, connected, ssrc, payload_type: None };
        Ok((Connection { _connection: connection }, track))
    }
}

impl Track {
    async fn write(&mut self, picture: &Bytes) -> Result<(), String> {
        if !*self.connected.borrow() {
            return Ok(());
        }
        let payload_type = match self.payload_type {
            Some(payload_type) => payload_type,
            None => {
                let parameters = self.sender.get_parameters().await.map_err(|e| e.to_string())?;
                let codecs = parameters.rtp_parameters.codecs;
                let first = codecs.first().ok_or("the viewer and the sender share no codec")?;
                *self.payload_type.insert(first.payload_type)
            }
        };
        let sample = Sample { data: picture.clone(), duration: FRAME, ..Sample::new(clock::now()) };
        self.track
            .write_sample(self.ssrc, payload_type, &sample, &[])
            .await
            .map_err(|e| e.to_string())
    }
}

struct Events {
    gathered: watch::Sender<bool>,
    connect: watch::Sender<bool>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Events {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered.send_replace(true);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        if state == RTCPeerConnectionState::Connected {
            self.connect.send_replace(true);
        }
    }
}
