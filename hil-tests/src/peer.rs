//! The viewer's peer connection: the `webrtc` crate's, which is another implementation than the
//! device's own path. Beside `one_by_one` and `channels`, this is the only file that names
//! that crate outside tests.

use crate::api::IceServer;
use crate::channels::{ChannelOptions, Channels};
use crate::clock;
use crate::one_by_one::OneByOne;
use crate::received::Received;
use crate::sound::{Heard, HeardPacket, SoundCodec};
use rtc::ice::mdns::MulticastDnsMode;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::media_engine::{
    MIME_TYPE_H264, MIME_TYPE_HEVC, MIME_TYPE_OPUS, MIME_TYPE_PCMA, MIME_TYPE_PCMU,
};
use rtc::rtcp::payload_feedbacks::full_intra_request::{FirEntry, FullIntraRequest};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters,
    RTCRtpEncodingParameters, RtpCodecKind,
};
use sdk_core::wire::signal::Candidate;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use webrtc::data_channel::DataChannel;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler,
    RTCConfigurationBuilder, RTCIceCandidateInit, RTCIceGatheringState, RTCIceServer,
    RTCIceTransportPolicy, RTCPeerConnectionIceEvent, RTCPeerConnectionState,
    RTCSessionDescription, RTCStatsReportEntry, Registry, SettingEngineBuilder,
    SrtpProtectionProfile, StatsSelector, register_default_interceptors,
};
use webrtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};

/// One H.264 format of the offer.
#[derive(Debug, Clone)]
pub struct H264Format {
    pub payload_type: u8,
    /// `profile-level-id`, six hexadecimal digits.
    pub profile: &'static str,
    pub packetization_mode: u8,
}

impl H264Format {
    pub const BASELINE: H264Format =
        H264Format { payload_type: 102, profile: "42e01f", packetization_mode: 1 };
    pub const BASELINE_MODE_0: H264Format =
        H264Format { payload_type: 104, profile: "42e01f", packetization_mode: 0 };
    pub const MAIN: H264Format =
        H264Format { payload_type: 106, profile: "4d001f", packetization_mode: 1 };
    pub const HIGH: H264Format =
        H264Format { payload_type: 108, profile: "64001f", packetization_mode: 1 };
}

pub const H265_PAYLOAD_TYPE: u8 = 49;

/// Which SRTP protection profiles the viewer offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Srtp {
    /// AEAD_AES_128_GCM alone.
    Gcm,
    /// AES_CM_128_HMAC_SHA1_80 alone, which RFC 8827 makes mandatory.
    AesCm,
}

pub struct PeerOptions {
    pub ice_servers: Vec<IceServer>,
    pub relay_only: bool,
    pub formats: Vec<H264Format>,
    /// Offers H.265 too, behind these, as Chromium does: Main, with [`H265_PAYLOAD_TYPE`].
    pub h265: bool,
    /// The crate's own list if `None`.
    pub srtp: Option<Srtp>,
    /// Where to bind, for instance `127.0.0.1:0`.
    pub bind: String,
    /// See [`OneByOne::lose_one_in`].
    pub lose_one_in: Option<u32>,
    /// A section for sound behind that of the video.
    pub sound: Option<SoundOptions>,
    /// Data channels to open; the offer has a data section if there are any.
    pub channels: Vec<ChannelOptions>,
}

/// What a viewer offers for sound. It always listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoundOptions {
    pub codec: SoundCodec,
    /// It has a microphone too.
    pub talks: bool,
}

/// Of what the viewer says.
pub const TALK_SSRC: u32 = 0x7a1c;

/// What the connection has come to, shared with its callbacks.
#[derive(Default)]
pub struct PeerState {
    pub received: Received,
    pub heard: Heard,
    pub connected: Option<Instant>,
    pub failed: Option<String>,
    track: Option<Arc<dyn TrackRemote>>,
}

/// The pair that carries the media, by candidate types (`host`, `srflx`, `prflx`, `relay`), and
/// what DTLS agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selected {
    pub local: String,
    pub remote: String,
    pub local_address: String,
    pub remote_address: String,
    pub srtp: String,
    pub dtls: String,
}

/// Reads a connection's state, from any task.
#[derive(Clone)]
pub struct SharedState(Arc<Mutex<PeerState>>);

impl SharedState {
    pub fn look<T>(&self, read: impl FnOnce(&PeerState) -> T) -> T {
        read(&lock(&self.0))
    }
}

pub struct Peer {
    connection: Arc<dyn PeerConnection>,
    state: Arc<Mutex<PeerState>>,
    channels: Channels,
    fir_sequence: u8,
    microphone: Option<Arc<TrackLocalStaticRTP>>,
}

impl Peer {
    /// Makes the connection with one transceiver that only receives video, and one for sound if that is
    /// wished. Local candidates come
    /// out of the receiver, the empty one last.
    pub async fn new(
        options: PeerOptions,
    ) -> Result<(Peer, mpsc::UnboundedReceiver<Candidate>), String> {
        let text = |e: webrtc::error::Error| e.to_string();
        let mut media = MediaEngine::default();
        for format in &options.formats {
            media.register_codec(codec(format), RtpCodecKind::Video).map_err(text)?;
        }
        if options.h265 {
            media.register_codec(h265_codec(), RtpCodecKind::Video).map_err(text)?;
        }
        if let Some(sound) = options.sound {
            media.register_codec(sound_codec(sound.codec), RtpCodecKind::Audio).map_err(text)?;
        }
        let registry = register_default_interceptors(Registry::new(), &mut media).map_err(text)?;
        let mut settings = SettingEngineBuilder::new()
            .with_multicast_dns_mode(MulticastDnsMode::Disabled)
            .with_include_loopback_candidate(true);
        if let Some(srtp) = options.srtp {
            settings = settings.with_srtp_protection_profiles(vec![match srtp {
                Srtp::Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
                Srtp::AesCm => SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
            }]);
        }
        let servers = options.ice_servers.into_iter().map(|server| RTCIceServer {
            urls: server.urls,
            username: server.username,
            credential: server.credential,
        });
        let policy = match options.relay_only {
            true => RTCIceTransportPolicy::Relay,
            false => RTCIceTransportPolicy::All,
        };
        let configuration = RTCConfigurationBuilder::new()
            .with_ice_servers(servers.collect())
            .with_ice_transport_policy(policy)
            .build();
        let mut state = PeerState::default();
        state.received.h265 = options.h265.then_some(H265_PAYLOAD_TYPE);
        let state = Arc::new(Mutex::new(state));
        let (candidates, local) = mpsc::unbounded_channel();
        let channels = Channels::default();
        let connection = PeerConnectionBuilder::new()
            .with_configuration(configuration)
            .with_media_engine(media)
            .with_setting_engine(settings.build())
            .with_interceptor_registry(registry)
            .with_handler(Arc::new(Events {
                state: state.clone(),
                channels: channels.clone(),
                candidates,
            }))
            .with_runtime(Arc::new(OneByOne { lose_one_in: options.lose_one_in }))
            .with_udp_addrs(vec![options.bind])
            .build()
            .await
            .map_err(text)?;
        let receive_only = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Recvonly,
            ..RTCRtpTransceiverInit::default()
        };
        connection
            .add_transceiver_from_kind(RtpCodecKind::Video, Some(receive_only))
            .await
            .map_err(text)?;
        let mut microphone = None;
        match options.sound {
            None => {}
            Some(SoundOptions { talks: false, .. }) => {
                let receive_only = RTCRtpTransceiverInit {
                    direction: RTCRtpTransceiverDirection::Recvonly,
                    ..RTCRtpTransceiverInit::default()
                };
                let audio = RtpCodecKind::Audio;
                connection
                    .add_transceiver_from_kind(audio, Some(receive_only))
                    .await
                    .map_err(text)?;
            }
            Some(SoundOptions { codec, talks: true }) => {
                let track = Arc::new(TrackLocalStaticRTP::new(microphone_track(codec)));
                connection.add_track(track.clone()).await.map_err(text)?;
                microphone = Some(track);
            }
        }
        for channel in &options.channels {
            channels.create(&connection, channel).await?;
        }
        let connection = Arc::new(connection);
        Ok((Peer { connection, state, channels, fir_sequence: 0, microphone }, local))
    }

    /// Says one packet.
    pub async fn say(&self, packet: HeardPacket) -> Result<(), String> {
        let track = self.microphone.as_ref().ok_or("this viewer has no microphone")?;
        let header = rtp::Header {
            version: 2,
            marker: packet.marker,
            payload_type: packet.payload_type,
            sequence_number: packet.sequence,
            timestamp: packet.timestamp,
            ssrc: TALK_SSRC,
            ..rtp::Header::default()
        };
        let packet = rtp::Packet { header, payload: packet.payload.into() };
        track.write_rtp(packet).await.map_err(|e| e.to_string())
    }

    pub fn channels(&self) -> Channels {
        self.channels.clone()
    }

    /// Opens one more data channel.
    pub async fn open_channel(&self, options: &ChannelOptions) -> Result<(), String> {
        self.channels.create(&*self.connection, options).await
    }

    fn state(&self) -> MutexGuard<'_, PeerState> {
        lock(&self.state)
    }

    /// What the connection has come to. May be read while the connection is busy.
    pub fn shared(&self) -> SharedState {
        SharedState(self.state.clone())
    }

    /// Makes the offer, and with it starts to gather candidates. The offer holds none of them.
    pub async fn offer(&self) -> Result<String, String> {
        let offer = self.connection.create_offer(None).await.map_err(|e| e.to_string())?;
        let sdp = offer.sdp.clone();
        self.connection.set_local_description(offer).await.map_err(|e| e.to_string())?;
        Ok(sdp)
    }

    pub async fn answer(&self, sdp: String) -> Result<(), String> {
        let answer = RTCSessionDescription::answer(sdp).map_err(|e| e.to_string())?;
        self.connection.set_remote_description(answer).await.map_err(|e| e.to_string())
    }

    pub async fn add_candidate(&self, candidate: Candidate) -> Result<(), String> {
        let candidate = RTCIceCandidateInit {
            candidate: candidate.candidate,
            sdp_mid: candidate.sdp_mid,
            sdp_mline_index: candidate.sdp_m_line_index,
            ..RTCIceCandidateInit::default()
        };
        self.connection.add_ice_candidate(candidate).await.map_err(|e| e.to_string())
    }

    /// Sends a Picture Loss Indication (RFC 4585 §6.3.1).
    pub async fn send_pli(&self) -> Result<(), String> {
        let (track, media_ssrc) = self.track()?;
        let pli = PictureLossIndication { sender_ssrc: 1, media_ssrc };
        track.write_rtcp(vec![Box::new(pli)]).await.map_err(|e| e.to_string())
    }

    /// Sends a Full Intra Request (RFC 5104 §4.3.1), each with a new sequence number.
    pub async fn send_fir(&mut self) -> Result<(), String> {
        let (track, ssrc) = self.track()?;
        self.fir_sequence = self.fir_sequence.wrapping_add(1);
        let fir = FullIntraRequest {
            sender_ssrc: 1,
            media_ssrc: 0,
            fir: vec![FirEntry { ssrc, sequence_number: self.fir_sequence }],
        };
        track.write_rtcp(vec![Box::new(fir)]).await.map_err(|e| e.to_string())
    }

    fn track(&self) -> Result<(Arc<dyn TrackRemote>, u32), String> {
        let state = self.state();
        match (&state.track, state.received.ssrc) {
            (Some(track), Some(ssrc)) => Ok((track.clone(), ssrc)),
            _ => Err("there is no video yet".into()),
        }
    }

    /// The pair in use, from the crate's own statistics.
    pub async fn selected(&self) -> Option<Selected> {
        let report = self.connection.get_stats(clock::now(), StatsSelector::None).await;
        let transport = report.transport()?;
        let pair = report
            .candidate_pairs()
            .find(|pair| pair.stats.id == transport.selected_candidate_pair_id)?;
        // The crate's pairs name candidates without the prefix that their own entries have.
        let candidate = |prefix: &str, id: &str| match report.get(&format!("{prefix}_{id}")) {
            Some(
                RTCStatsReportEntry::LocalCandidate(c) | RTCStatsReportEntry::RemoteCandidate(c),
            ) => (
                c.candidate_type.to_string(),
                format!("{}:{}", c.address.clone().unwrap_or_default(), c.port),
            ),
            // Learned from a check (RFC 8445 §7.3.1.3), and so never registered.
            _ => ("prflx".to_owned(), String::new()),
        };
        let (local, local_address) = candidate("RTCLocalIceCandidate", &pair.local_candidate_id);
        let (remote, remote_address) =
            candidate("RTCRemoteIceCandidate", &pair.remote_candidate_id);
        Some(Selected {
            local,
            remote,
            local_address,
            remote_address,
            srtp: transport.srtp_cipher.clone(),
            dtls: transport.dtls_cipher.clone(),
        })
    }

    pub async fn close(&self) {
        // Its TURN allocations are freed on the way; a broken connection must not hang a test.
        let closing = tokio::time::timeout(Duration::from_secs(5), self.connection.close());
        if let Ok(Err(e)) = closing.await {
            log::info!("closing the peer connection: {e}");
        }
    }
}

fn lock(state: &Mutex<PeerState>) -> MutexGuard<'_, PeerState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The format as the crate writes it in an offer.
pub fn codec(format: &H264Format) -> RTCRtpCodecParameters {
    let fmtp = format!(
        "level-asymmetry-allowed=1;packetization-mode={};profile-level-id={}",
        format.packetization_mode, format.profile
    );
    parameters(format.payload_type, MIME_TYPE_H264, fmtp)
}

fn h265_codec() -> RTCRtpCodecParameters {
    let fmtp = "level-id=93;profile-id=1;tier-flag=0;tx-mode=SRST";
    parameters(H265_PAYLOAD_TYPE, MIME_TYPE_HEVC, fmtp.to_owned())
}

fn parameters(payload_type: u8, mime_type: &str, sdp_fmtp_line: String) -> RTCRtpCodecParameters {
    let feedback = |typ: &str, parameter: &str| RTCPFeedback {
        typ: typ.to_owned(),
        parameter: parameter.to_owned(),
    };
    RTCRtpCodecParameters {
        rtp_codec: RTCRtpCodec {
            mime_type: mime_type.to_owned(),
            clock_rate: 90_000,
            channels: 0,
            sdp_fmtp_line,
            rtcp_feedback: vec![
                feedback("ccm", "fir"),
                feedback("nack", ""),
                feedback("nack", "pli"),
            ],
        },
        payload_type,
    }
}

fn sound_codec(codec: SoundCodec) -> RTCRtpCodecParameters {
    let (mime_type, channels, fmtp) = match codec {
        SoundCodec::Opus => (MIME_TYPE_OPUS, 2, "minptime=10;useinbandfec=1"),
        SoundCodec::Pcma => (MIME_TYPE_PCMA, 0, ""),
        SoundCodec::Pcmu => (MIME_TYPE_PCMU, 0, ""),
    };
    RTCRtpCodecParameters {
        rtp_codec: RTCRtpCodec {
            mime_type: mime_type.to_owned(),
            clock_rate: codec.clock_rate(),
            channels,
            sdp_fmtp_line: fmtp.to_owned(),
            rtcp_feedback: Vec::new(),
        },
        payload_type: codec.payload_type(),
    }
}

fn microphone_track(codec: SoundCodec) -> MediaStreamTrack {
    let coding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters {
            ssrc: Some(TALK_SSRC),
            ..RTCRtpCodingParameters::default()
        },
        codec: sound_codec(codec).rtp_codec,
        ..RTCRtpEncodingParameters::default()
    };
    let name = || "microphone".to_owned();
    MediaStreamTrack::new(name(), name(), name(), RtpCodecKind::Audio, vec![coding])
}

/// The crate's callbacks. They run on the connection's own task, so they only note what happened.
struct Events {
    state: Arc<Mutex<PeerState>>,
    channels: Channels,
    candidates: mpsc::UnboundedSender<Candidate>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Events {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        match event.candidate.to_json() {
            Ok(init) => self.local(init.candidate, init.sdp_mid, init.sdp_mline_index),
            Err(e) => log::warn!("a local candidate that cannot be written: {e}"),
        }
    }

    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.local(String::new(), Some("0".into()), Some(0));
        }
    }

    async fn on_connection_state_change(&self, new: RTCPeerConnectionState) {
        log::debug!("peer connection: {new}");
        let mut state = lock(&self.state);
        match new {
            RTCPeerConnectionState::Connected => {
                state.connected.get_or_insert(clock::now());
            }
            RTCPeerConnectionState::Failed => {
                state.failed.get_or_insert("the peer connection failed".into());
            }
            _ => {}
        }
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        self.channels.follow(channel, true).await;
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let state = self.state.clone();
        let is_sound = track.kind().await == RtpCodecKind::Audio;
        if !is_sound {
            lock(&state).track = Some(track.clone());
        }
        // The crate's queue between its task and this one holds 256 packets and drops beyond:
        // nothing but the count may happen here.
        tokio::spawn(async move {
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                    let h = &packet.header;
                    if is_sound {
                        lock(&state).heard.packets.push(HeardPacket {
                            payload_type: h.payload_type,
                            sequence: h.sequence_number,
                            timestamp: h.timestamp,
                            marker: h.marker,
                            payload: packet.payload.to_vec(),
                        });
                        continue;
                    }
                    lock(&state).received.on_packet(
                        h.ssrc,
                        h.payload_type,
                        h.sequence_number,
                        h.timestamp,
                        h.marker,
                        &packet.payload,
                    );
                }
            }
        });
    }
}

impl Events {
    fn local(&self, candidate: String, mid: Option<String>, index: Option<u16>) {
        // Nobody listens any more once the viewer is gone.
        let _ =
            self.candidates.send(Candidate { candidate, sdp_mid: mid, sdp_m_line_index: index });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_offer_asks_for_video_only_and_its_candidates_come_after_it() {
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
        let (peer, mut local) = Peer::new(options).await.unwrap();
        let sdp = peer.offer().await.unwrap();
        println!("{sdp}");
        assert!(sdp.contains("\r\nm=video 9 UDP/TLS/RTP/SAVPF 102\r\n"), "{sdp}");
        assert!(sdp.contains("\r\na=recvonly\r\n"), "{sdp}");
        assert!(sdp.contains("packetization-mode=1;profile-level-id=42e01f"), "{sdp}");
        assert!(!sdp.contains("a=candidate:"), "{sdp}");
        let mut candidates = Vec::new();
        let wait = Duration::from_secs(20);
        while let Some(candidate) = tokio::time::timeout(wait, local.recv()).await.unwrap() {
            if candidate.candidate.is_empty() {
                break;
            }
            candidates.push(candidate.candidate);
        }
        println!("{candidates:?}");
        assert!(candidates.iter().any(|c| c.contains("127.0.0.1")), "{candidates:?}");
        peer.close().await;
    }
}
