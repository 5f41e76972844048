//! A viewer in virtual time: the other end of ICE, DTLS and SRTP, without a socket or a clock.

use crate::bottleneck::FeedbackWriter;
use crate::data_support::Browser;
use bytes::BytesMut;
use is::stun::{StunMessage, StunPacket};
use is::{Candidate, IceAgent, IceCreds, Protocol};
use rtc_dtls::config::{ConfigBuilder, ExtendedMasterSecretType};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::crypto_provider::default_provider;
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;
use sdk_core::media::srtp::{SrtpKeys, SrtpProfile, SrtpReceiver, SrtpSender};
use sdk_core::wire::rtp;
use sdk_core::wire::sdp::{Description, Fingerprint};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) struct FakeViewer {
    pub(crate) addr: SocketAddr,
    /// Whose offer it makes.
    pub(crate) browser: String,
    ice: IceAgent,
    dtls: Endpoint,
    certificate: Certificate,
    profiles: Vec<SrtpProtectionProfile>,
    peer: Option<SocketAddr>,
    dtls_started: bool,
    srtp: Option<(SrtpSender, SrtpReceiver)>,
    pub(crate) profile: Option<SrtpProfile>,
    pub(crate) packets: Vec<Packet>,
    pub(crate) rtcp: Vec<Vec<u8>>,
    /// What transport-wide feedback is to say next.
    feedback: FeedbackWriter,
    reports: Vec<Vec<u8>>,
    /// When the next one is due, for a viewer that sends it.
    feedback_at: Option<Instant>,
    epoch: Option<Instant>,
    /// Its data channels, if it opens an SCTP association.
    pub(crate) data: Option<Browser>,
    wants_data: bool,
    pub(crate) peer_closed: bool,
    /// A fatal alert came.
    pub(crate) refused: bool,
    /// Datagrams that are neither of the three.
    pub(crate) strange: usize,
}

/// An RTP packet, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
    pub(crate) payload_type: u8,
    pub(crate) marker: bool,
    pub(crate) payload: Vec<u8>,
}

#[derive(Debug)]
struct RingHmac;

impl is::Sha1HmacProvider for RingHmac {
    fn sha1_hmac(&self, key: &[u8], payloads: &[&[u8]]) -> [u8; 20] {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
        let all = payloads.concat();
        ring::hmac::sign(&key, &all).as_ref().try_into().unwrap()
    }
}

pub(crate) const GCM_AND_CM: &[SrtpProtectionProfile] = &[
    SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
    SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
];
/// The extension's id in the offer.
const TRANSPORT_CC: u8 = 4;
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(100);
pub(crate) const CM_ONLY: &[SrtpProtectionProfile] =
    &[SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80];

impl FakeViewer {
    pub(crate) fn new(addr: &str, profiles: &[SrtpProtectionProfile]) -> FakeViewer {
        let addr = addr.parse().unwrap();
        let mut ice = IceAgent::with_hmac(IceCreds::new(), &RingHmac);
        ice.set_controlling(true);
        ice.add_local_candidate(Candidate::host(addr, Protocol::Udp).unwrap());
        let provider = default_provider().unwrap();
        FakeViewer {
            addr,
            browser: include_str!("../../../testdata/sdp/chromium_video.sdp").into(),
            ice,
            dtls: Endpoint::new(addr, TransportProtocol::UDP, None),
            certificate: Certificate::generate_self_signed(Vec::new(), provider.crypto()).unwrap(),
            profiles: profiles.to_vec(),
            peer: None,
            dtls_started: false,
            srtp: None,
            profile: None,
            packets: Vec::new(),
            rtcp: Vec::new(),
            feedback: FeedbackWriter::default(),
            reports: Vec::new(),
            feedback_at: None,
            epoch: None,
            data: None,
            wants_data: false,
            peer_closed: false,
            refused: false,
            strange: 0,
        }
    }

    /// Makes this browser's offer instead of Chromium's.
    pub(crate) fn like(self, browser: impl Into<String>) -> FakeViewer {
        FakeViewer { browser: browser.into(), ..self }
    }

    /// The next offer is this one.
    pub(crate) fn offer_next(&mut self, browser: String) {
        self.browser = browser;
    }

    /// Opens an SCTP association as soon as DTLS is done.
    pub(crate) fn with_data(self) -> FakeViewer {
        FakeViewer { wants_data: true, ..self }
    }

    /// Its browser's offer, with this viewer's credentials.
    pub(crate) fn offer(&self) -> String {
        let creds = self.ice.local_credentials();
        let fingerprint = Fingerprint::of(self.certificate.certificate[0].as_ref());
        self.browser
            .lines()
            .map(|line| match line.split_once(':') {
                Some(("a=ice-ufrag", _)) => format!("a=ice-ufrag:{}\r\n", creds.ufrag),
                Some(("a=ice-pwd", _)) => format!("a=ice-pwd:{}\r\n", creds.pass),
                Some(("a=fingerprint", _)) => format!("a=fingerprint:{fingerprint}\r\n"),
                _ => format!("{line}\r\n"),
            })
            .collect()
    }

    /// Its user name fragment and password.
    pub(crate) fn credentials(&self) -> (String, String) {
        let creds = self.ice.local_credentials();
        (creds.ufrag.clone(), creds.pass.clone())
    }

    pub(crate) fn candidate(&self) -> String {
        self.ice.local_candidates().next().unwrap().to_sdp_string()
    }

    /// New ICE credentials, for a second offer.
    pub(crate) fn restart_ice(&mut self) {
        self.ice.ice_restart(IceCreds::new(), true);
    }

    /// Restarts ICE from another address, as a phone that leaves its Wi-Fi. DTLS goes on.
    pub(crate) fn move_to(&mut self, addr: &str) {
        self.addr = addr.parse().unwrap();
        self.restart_ice();
        self.ice.add_local_candidate(Candidate::host(self.addr, Protocol::Udp).unwrap());
    }

    pub(crate) fn on_answer(&mut self, sdp: &str) {
        let answer = Description::parse(sdp).unwrap();
        let media = &answer.media[0];
        self.ice.set_remote_credentials(IceCreds {
            ufrag: media.ice_ufrag.into(),
            pass: media.ice_pwd.into(),
        });
        for candidate in answer.media.iter().flat_map(|media| &media.candidates) {
            self.on_candidate(candidate);
        }
    }

    pub(crate) fn on_candidate(&mut self, attribute: &str) {
        if let Ok(candidate) = Candidate::from_sdp_string(attribute) {
            self.ice.add_remote_candidate(candidate);
        }
    }

    pub(crate) fn handle_datagram(&mut self, now: Instant, source: SocketAddr, data: &mut [u8]) {
        match data[0] {
            0..=3 => {
                let message = StunMessage::parse(data).unwrap();
                self.ice.handle_packet(
                    now,
                    StunPacket { proto: Protocol::Udp, source, destination: self.addr, message },
                );
            }
            20..=63 => {
                let result = self.dtls.read(now, source, None, BytesMut::from(&*data));
                // A fatal alert: the camera has refused us.
                self.refused |= result.is_err();
                for event in result.unwrap_or_default() {
                    match event {
                        EndpointEvent::HandshakeComplete => {
                            self.on_handshake(source);
                            if self.wants_data {
                                self.open_data(now);
                            }
                        }
                        EndpointEvent::ApplicationData(packet) => match &mut self.data {
                            Some(data) => data.handle_packet(now, &packet),
                            None => self.strange += 1,
                        },
                        EndpointEvent::PeerClosed => self.peer_closed = true,
                        _ => {}
                    }
                }
            }
            128..=191 => self.on_media(now, data),
            _ => self.strange += 1,
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.ice.handle_timeout(now);
        if let Some(data) = &mut self.data {
            data.handle_timeout(now);
        }
        if self.feedback_at.is_some_and(|at| at <= now) {
            self.feedback_at = Some(now + FEEDBACK_INTERVAL);
            self.reports.extend(self.feedback.write());
        }
        if let Some(peer) = self.peer
            && self.dtls.poll_timeout(&peer).is_some()
        {
            self.dtls.handle_timeout(peer, now).unwrap();
        }
    }

    pub(crate) fn poll_timeout(&mut self) -> Option<Instant> {
        let dtls = self.peer.and_then(|peer| self.dtls.poll_timeout(&peer));
        let data = self.data.as_ref().and_then(Browser::poll_timeout);
        [self.ice.poll_timeout(), dtls, self.feedback_at, data].into_iter().flatten().min()
    }

    /// What it sends, with the address it sends to.
    pub(crate) fn poll_transmit(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        while let Some(event) = self.ice.poll_event() {
            if let is::IceAgentEvent::NominatedSend { destination, .. } = event {
                self.peer = Some(destination);
                if !self.dtls_started {
                    self.dtls_started = true;
                    let config = self.client_config();
                    self.dtls.connect(now, destination, config, None).unwrap();
                }
            }
        }
        if let Some(check) = self.ice.poll_transmit() {
            return Some((check.destination, check.contents.into()));
        }
        if let Some(report) = self.reports.pop() {
            return Some(self.rtcp(&report));
        }
        if let (Some(data), Some(peer)) = (&mut self.data, self.peer) {
            while let Some(packet) = data.poll_packet(now) {
                self.dtls.write(now, peer, &packet).unwrap();
            }
        }
        let datagram = self.dtls.poll_transmit()?;
        Some((datagram.transport.peer_addr, datagram.message.to_vec()))
    }

    /// Opens its SCTP association. As large as a browser's packets are, wherever they go.
    pub(crate) fn open_data(&mut self, now: Instant) {
        self.data = Some(Browser::new(now, 1191));
    }

    /// Its data channels.
    pub(crate) fn channels(&mut self) -> &mut Browser {
        self.data.as_mut().expect("an SCTP association")
    }

    /// From now on it sends transport-wide feedback, as a browser does.
    pub(crate) fn send_feedback(&mut self, now: Instant) {
        self.feedback_at = Some(now + FEEDBACK_INTERVAL);
    }

    /// Seals an RTCP packet and gives it with its destination.
    pub(crate) fn rtcp(&mut self, plain: &[u8]) -> (SocketAddr, Vec<u8>) {
        let mut packet = plain.to_vec();
        let (sender, _) = self.srtp.as_mut().unwrap();
        sender.seal_rtcp(&mut packet, 0).unwrap();
        (self.peer.unwrap(), packet)
    }

    /// Seals an RTP packet and gives it with its destination.
    pub(crate) fn rtp(&self, packet: &Packet) -> (SocketAddr, Vec<u8>) {
        let extensions = rtp::ExtensionIds::default();
        let header = rtp::HeaderTemplate::new(packet.ssrc, packet.payload_type, &extensions);
        let fields = rtp::HeaderFields {
            marker: packet.marker,
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            ..Default::default()
        };
        let (sender, _) = self.srtp.as_ref().unwrap();
        let tag = vec![0; sender.rtp_overhead()];
        let head = &header.fill(&fields)[..header.len()];
        let mut sealed = [head, &packet.payload, &tag].concat();
        sender.seal_rtp(&mut sealed, header.len(), packet.ssrc, packet.sequence.into()).unwrap();
        (self.peer.unwrap(), sealed)
    }

    fn client_config(&self) -> Arc<rtc_dtls::config::HandshakeConfig> {
        let config = ConfigBuilder::default()
            .with_crypto_provider(default_provider().unwrap())
            .with_certificates(vec![self.certificate.clone()])
            .with_srtp_protection_profiles(self.profiles.clone())
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            .with_insecure_skip_verify(true)
            .build(true, Some(self.addr))
            .unwrap();
        Arc::new(config)
    }

    fn on_handshake(&mut self, peer: SocketAddr) {
        let state = self.dtls.get_connection_state(peer).unwrap();
        let profile = SrtpProfile::from_id(state.srtp_protection_profile() as u16).unwrap();
        let material = state
            .export_keying_material("EXTRACTOR-dtls_srtp", &[], profile.exporter_len())
            .unwrap();
        let keys = SrtpKeys::from_exporter(profile, material.as_ref(), true).unwrap();
        self.profile = Some(profile);
        self.srtp = Some((SrtpSender::new(&keys), SrtpReceiver::new(&keys)));
    }

    fn on_media(&mut self, now: Instant, data: &mut [u8]) {
        let Some((_, receiver)) = &mut self.srtp else { return };
        if sdk_core::wire::rtcp::is_rtcp(data) {
            self.rtcp.push(receiver.open_rtcp(data).unwrap().to_vec());
            return;
        }
        let packet = rtp::Packet::parse(receiver.open_rtp(data).unwrap()).unwrap();
        // In an offer with more sections the id may be another extension's.
        let number = packet.extension(TRANSPORT_CC).and_then(|number| number.try_into().ok());
        if let Some(number) = number {
            let at = now - *self.epoch.get_or_insert(now) + Duration::from_secs(777);
            self.feedback.on_packet(u16::from_be_bytes(number), at);
        }
        self.packets.push(Packet {
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            ssrc: packet.ssrc,
            payload_type: packet.payload_type,
            marker: packet.marker,
            payload: packet.payload.to_vec(),
        });
    }
}
