//! DTLS 1.2 (RFC 6347) as the server, and the SRTP keys it agrees on (RFC 5764), by the crate
//! `rtc-dtls`. This is the only file that names it.

use bytes::BytesMut;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::crypto_provider::{RTCCryptoProvider, default_provider};
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error as RtcError;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::wire::sdp::Fingerprint;

/// The camera's DTLS key and self-signed certificate. Made once and kept: making keys takes
/// seconds on a small ARM.
#[derive(Clone)]
pub struct Identity {
    certificate: Certificate,
    provider: Arc<dyn RTCCryptoProvider>,
    fingerprint: Fingerprint,
}

impl Identity {
    /// Makes a new ECDSA P-256 key and certificate.
    pub fn generate() -> Result<Identity, DtlsError> {
        let provider = default_provider().map_err(DtlsError::new)?;
        let certificate = Certificate::generate_self_signed(Vec::new(), provider.crypto())
            .map_err(DtlsError::new)?;
        Identity::new(certificate, provider)
    }

    /// Reads what [`Identity::to_pem`] wrote.
    pub fn from_pem(pem: &str) -> Result<Identity, DtlsError> {
        let provider = default_provider().map_err(DtlsError::new)?;
        let certificate = Certificate::from_pem(pem, provider.crypto()).map_err(DtlsError::new)?;
        Identity::new(certificate, provider)
    }

    /// Private key and certificate, to be kept in a file that only the camera can read.
    pub fn to_pem(&self) -> Result<String, DtlsError> {
        self.certificate.serialize_pem().map_err(DtlsError::new)
    }

    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn new(
        certificate: Certificate,
        provider: Arc<dyn RTCCryptoProvider>,
    ) -> Result<Identity, DtlsError> {
        let der = certificate
            .certificate
            .first()
            .ok_or_else(|| DtlsError("the identity file holds no certificate".into()))?;
        let fingerprint = Fingerprint::of(der.as_ref());
        Ok(Identity { certificate, provider, fingerprint })
    }

    /// A server's configuration that takes only a client whose certificate has one of the
    /// fingerprints in `remote`, and only `profile`.
    fn handshake_config(
        &self,
        remote: Arc<[Fingerprint]>,
        profile: SrtpProtectionProfile,
    ) -> Result<Arc<HandshakeConfig>, DtlsError> {
        ConfigBuilder::default()
            .with_crypto_provider(self.provider.clone())
            .with_certificates(vec![self.certificate.clone()])
            .with_srtp_protection_profiles(vec![profile])
            .with_extended_master_secret(ExtendedMasterSecretType::Request)
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            // There is no chain to verify; the fingerprint from the SDP is what counts
            // (RFC 8827 §5.6.4), and the next line checks it.
            .with_insecure_skip_verify(true)
            .with_verify_peer_certificate(Some(Arc::new(move |certificates, _| match certificates
                .first()
            {
                Some(der) if remote.iter().any(|f| f.matches(der)) => Ok(()),
                _ => Err(RtcError::Other(FINGERPRINT_MISMATCH.into())),
            })))
            .with_flight_interval(RETRANSMIT_INTERVAL)
            .build(false, None)
            .map(Arc::new)
            .map_err(DtlsError::new)
    }
}

/// One viewer's DTLS association.
pub struct Dtls {
    identity: Identity,
    remote_fingerprints: Arc<[Fingerprint]>,
    endpoint: Endpoint,
    profile: SrtpProtectionProfile,
    state: State,
    /// Application data of the datagram that was taken last.
    received: Vec<BytesMut>,
    /// Bytes taken before the viewer proved who it is; see [`MAX_UNPROVEN`].
    unproven: usize,
    /// The endpoint's timer, asked when it may have changed: it looks it up by address, and this is
    /// wanted with every frame.
    timer: Option<Instant>,
}

enum State {
    /// Only AEAD_AES_128_GCM is on offer. The client's flight is kept, to be played again to an
    /// endpoint with the fall-back profile if it has none.
    Preferring {
        flight: Vec<BytesMut>,
    },
    Handshaking,
    Established,
    Closed,
}

#[derive(Debug)]
pub enum DtlsEvent {
    /// The handshake is done and the viewer's fingerprint was the one in its offer.
    Established(SrtpKeying),
    /// The viewer closed the association.
    Closed,
}

/// What both sides derive their SRTP keys from (RFC 5764 §4.2).
pub struct SrtpKeying {
    /// The protection profile's number in IANA's registry: 1 or 7.
    pub profile: u16,
    /// Client's key, server's key, client's salt, server's salt. The camera is the server.
    pub material: Vec<u8>,
}

impl fmt::Debug for SrtpKeying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SrtpKeying {{ profile: {} }}", self.profile)
    }
}

const PREFERRED: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm;
const FALL_BACK: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80;
const FINGERPRINT_MISMATCH: &str = "the viewer's certificate is not the one its offer named";
/// RFC 6347 §4.2.4.1 says 1 s. Viewers are on links where a lost flight should cost less.
const RETRANSMIT_INTERVAL: Duration = Duration::from_millis(400);
/// What the longest of the cipher suites adds to application data, in bytes: header, initialization
/// vector, MAC and padding of AES-CBC.
pub const MAX_OVERHEAD: usize = 13 + 16 + 20 + 16;
/// A ClientHello with post-quantum keys has some 1.5 kB, a whole handshake 4 kB.
const MAX_UNPROVEN: usize = 64 * 1024;

impl Dtls {
    /// Waits for the client whose certificate has one of `remote_fingerprints`, as its offer said.
    pub fn new(
        identity: &Identity,
        remote_fingerprints: Vec<Fingerprint>,
    ) -> Result<Dtls, DtlsError> {
        let remote_fingerprints: Arc<[Fingerprint]> = remote_fingerprints.into();
        Ok(Dtls {
            endpoint: endpoint(identity, remote_fingerprints.clone(), PREFERRED)?,
            identity: identity.clone(),
            remote_fingerprints,
            profile: PREFERRED,
            state: State::Preferring { flight: Vec::new() },
            received: Vec::new(),
            unproven: 0,
            timer: None,
        })
    }

    /// Takes a datagram with DTLS records. An error ends the session. Application data in it is there
    /// for [`Self::take_received`] until the next datagram comes.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        data: &[u8],
    ) -> Result<Option<DtlsEvent>, DtlsError> {
        self.received.clear();
        if !matches!(self.state, State::Established) {
            self.unproven += data.len();
            if self.unproven > MAX_UNPROVEN {
                return Err(DtlsError("the DTLS handshake is larger than any browser's".into()));
            }
        }
        let data = BytesMut::from(data);
        if let State::Preferring { flight } = &mut self.state {
            flight.push(data.clone());
        }
        let told = match self.endpoint.read(now, REMOTE, None, data) {
            Err(RtcError::ErrServerNoMatchingSrtpProfile) => self.fall_back(now),
            result => self.note(result),
        };
        self.timer = self.endpoint.poll_timeout(&REMOTE);
        told
    }

    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsError> {
        if self.timer.is_none_or(|at| now < at) {
            return Ok(());
        }
        let result = self.endpoint.handle_timeout(REMOTE, now);
        self.timer = self.endpoint.poll_timeout(&REMOTE);
        result.map_err(DtlsError::new)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timer
    }

    /// The next datagram for the viewer.
    pub fn poll_transmit(&mut self) -> Option<BytesMut> {
        let datagram = self.endpoint.poll_transmit()?.message;
        if let State::Preferring { .. } = self.state {
            // An answer means that the profile was taken.
            self.state = State::Handshaking;
        }
        Some(datagram)
    }

    pub fn take_received(&mut self) -> Vec<BytesMut> {
        std::mem::take(&mut self.received)
    }

    /// Queues application data: one record, and one datagram, of at most [`MAX_OVERHEAD`] bytes more.
    pub fn write(&mut self, now: Instant, data: &[u8]) -> Result<(), DtlsError> {
        self.endpoint.write(now, REMOTE, data).map_err(DtlsError::new)
    }

    pub fn is_established(&self) -> bool {
        matches!(self.state, State::Established)
    }

    /// Queues a close_notify.
    pub fn close(&mut self, now: Instant) {
        self.endpoint.stop(now, REMOTE);
        self.timer = None;
        self.state = State::Closed;
    }

    /// The server takes the first of the client's profiles that it knows, and browsers put
    /// AES_CM_128_HMAC_SHA1_80 first, which costs a Cortex-A7 five times as much as GCM. So GCM
    /// alone is offered first, and the fall-back only to a client that has no GCM.
    fn fall_back(&mut self, now: Instant) -> Result<Option<DtlsEvent>, DtlsError> {
        let State::Preferring { flight } = std::mem::replace(&mut self.state, State::Handshaking)
        else {
            return Err(DtlsError("the viewer offers no SRTP profile this device has".into()));
        };
        self.profile = FALL_BACK;
        // The refusal that the first endpoint wanted to send goes away with it.
        self.endpoint = endpoint(&self.identity, self.remote_fingerprints.clone(), self.profile)?;
        let mut event = None;
        for data in flight {
            let result = self.endpoint.read(now, REMOTE, None, data);
            event = event.or(self.note(result)?);
        }
        Ok(event)
    }

    fn note(
        &mut self,
        result: Result<Vec<EndpointEvent>, RtcError>,
    ) -> Result<Option<DtlsEvent>, DtlsError> {
        let mut told = None;
        for event in result.map_err(DtlsError::new)? {
            match event {
                EndpointEvent::HandshakeComplete => {
                    self.state = State::Established;
                    told = Some(DtlsEvent::Established(self.keying()?));
                }
                EndpointEvent::PeerClosed => {
                    self.state = State::Closed;
                    told = Some(DtlsEvent::Closed);
                }
                EndpointEvent::ApplicationData(data) => self.received.push(data),
                _ => {}
            }
        }
        Ok(told)
    }

    fn keying(&self) -> Result<SrtpKeying, DtlsError> {
        let state = self
            .endpoint
            .get_connection_state(REMOTE)
            .ok_or_else(|| DtlsError("no DTLS association".into()))?;
        // A client without the use_srtp extension gets this far.
        if state.srtp_protection_profile() != self.profile {
            return Err(DtlsError("the viewer did not agree on an SRTP profile".into()));
        }
        let (key_len, salt_len) = if self.profile == PREFERRED { (16, 12) } else { (16, 14) };
        let material = state
            .export_keying_material("EXTRACTOR-dtls_srtp", &[], 2 * (key_len + salt_len))
            .map_err(DtlsError::new)?;
        Ok(SrtpKeying { profile: self.profile as u16, material: material.as_ref().to_vec() })
    }
}

/// Why a handshake failed. The text is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DtlsError(String);

impl DtlsError {
    fn new(e: impl fmt::Display) -> DtlsError {
        DtlsError(e.to_string())
    }
}

impl fmt::Display for DtlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DTLS: {}", self.0)
    }
}

impl std::error::Error for DtlsError {}

fn endpoint(
    identity: &Identity,
    remote: Arc<[Fingerprint]>,
    profile: SrtpProtectionProfile,
) -> Result<Endpoint, DtlsError> {
    let config = identity.handshake_config(remote, profile)?;
    Ok(Endpoint::new(REMOTE, TransportProtocol::UDP, Some(config)))
}

/// The endpoint tells its associations apart by address. Ours has one, wherever its packets come
/// from: ICE may move it at any time.
const REMOTE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
