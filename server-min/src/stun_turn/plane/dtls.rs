//! Clients by DTLS 1.2 (RFC 6347), by the crate `rtc-dtls`. This is the only file that names it.
//!
//! Nothing is kept for a client that has not shown, by a [cookie](super::hello), to be where it says
//! it is. After that it has ten seconds to finish its handshake, and a place among
//! [`MAX_HANDSHAKES`].

use super::admission::{Admission, Age, Place};
use super::hello::{Cookie, Cookies, Hello, Random, is_client_hello};
use crate::stun_turn::core::Client;
use crate::tls::Tls;
use bytes::BytesMut;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, HandshakeConfig};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::crypto_provider::{
    CryptoError, RTCCrypto, RTCCryptoProvider, RTCRandom, SignatureScheme, default_provider,
};
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error as RtcError;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// All associations of a shard.
pub(super) struct Associations {
    tls: Tls,
    cookies: Cookies,
    started: Instant,
    identity: Identity,
    provider: Arc<dyn RTCCryptoProvider>,
    admission: Arc<Admission>,
    by_client: HashMap<Client, Association>,
    /// Handshakes that are not finished, the oldest first.
    handshakes: BTreeSet<(Instant, Client)>,
    timers: BTreeSet<(Instant, Client)>,
    /// One message, put together for its record.
    scratch: Vec<u8>,
    refused: u64,
}

struct Association {
    endpoint: Endpoint,
    /// Of the ClientHello that it began with.
    random: Random,
    began: Instant,
    established: bool,
    age: Age,
    check_at: Instant,
    _place: Place,
}

/// What came of a datagram.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Messages of the client.
    pub(super) messages: Vec<BytesMut>,
    /// The association this client had is gone.
    pub(super) ended: bool,
}

/// Certificate and key as they were last imported.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    certificate: Certificate,
}

/// At a time in one shard; the oldest makes room.
const MAX_HANDSHAKES: usize = 512;
/// RFC 6347 §4.2.4.1.
const RETRANSMIT_INTERVAL: Duration = Duration::from_secs(1);
/// An endpoint of ours has one association, wherever its client is.
const REMOTE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// Whether DTLS can use this certificate's key.
pub(super) fn check(tls: &Tls) -> Result<(), String> {
    Identity::of(tls, &*default_provider().map_err(|e| e.to_string())?).map(drop)
}

impl Associations {
    /// `secret` makes the cookies; `started` is what their time counts from.
    pub(super) fn new(
        tls: Tls,
        secret: [u8; 32],
        started: Instant,
        admission: Arc<Admission>,
    ) -> Result<Associations, String> {
        let provider = default_provider().map_err(|e| e.to_string())?;
        let identity = Identity::of(&tls, &*provider)?;
        Ok(Associations {
            tls,
            cookies: Cookies::new(secret),
            started,
            identity,
            provider,
            admission,
            by_client: HashMap::new(),
            handshakes: BTreeSet::new(),
            timers: BTreeSet::new(),
            scratch: Vec::new(),
            refused: 0,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.by_client.len()
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Takes a datagram. `send` is given what to answer.
    pub(super) fn read(
        &mut self,
        now: Instant,
        client: Client,
        datagram: &[u8],
        mut send: impl FnMut(&[u8]),
    ) -> Read {
        let mut read = Read::default();
        let random = self.by_client.get(&client).map(|association| association.random);
        if random.is_some() && !is_client_hello(datagram) {
            self.read_of(now, client, datagram, &mut read, &mut send);
            return read;
        }
        let now_s = now.saturating_duration_since(self.started).as_secs();
        match self.cookies.answer(now_s, client.address, datagram) {
            Hello::Ignored => {}
            Hello::Verify(request) => send(&request),
            Hello::Refuse(alert) => send(&alert),
            // Said again, because our answer was lost.
            Hello::Proven { random: same, .. } if random == Some(same) => {
                self.read_of(now, client, datagram, &mut read, &mut send);
            }
            Hello::Proven { cookie, random, first } => {
                // RFC 6347 §4.2.8: the client begins anew.
                read.ended = self.remove(client);
                if self.begin(now, client, cookie, random, &first) {
                    self.read_of(now, client, datagram, &mut read, &mut send);
                }
            }
        }
        read
    }

    /// Sends one message as a record of its own.
    pub(super) fn write(
        &mut self,
        now: Instant,
        client: Client,
        parts: [&[u8]; 3],
        mut send: impl FnMut(&[u8]),
    ) {
        let Some(association) = self.by_client.get_mut(&client) else { return };
        self.scratch.clear();
        for part in parts {
            self.scratch.extend_from_slice(part);
        }
        if let Err(error) = association.endpoint.write(now, REMOTE, &self.scratch) {
            log::debug!("TURN over DTLS to {}: {error}", client.address);
        }
        association.transmit(&mut send);
    }

    /// A client's message was taken.
    pub(super) fn on_message(&mut self, now: Instant, client: Client) {
        if let Some(association) = self.by_client.get_mut(&client) {
            association.age.on_message(now);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Sends again what is due; the next client whose association is over.
    pub(super) fn poll_expired(
        &mut self,
        now: Instant,
        has_allocation: impl Fn(Client) -> bool,
        mut send: impl FnMut(Client, &[u8]),
    ) -> Option<Client> {
        while let Some(&(at, client)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, client));
            let Some(association) = self.by_client.get_mut(&client) else { continue };
            let next = association.age.check(now, has_allocation(client));
            let failed = association.endpoint.handle_timeout(REMOTE, now).is_err();
            association.transmit(&mut |datagram| send(client, datagram));
            let Some(next) = next.filter(|_| !failed) else {
                self.remove(client);
                return Some(client);
            };
            self.schedule(now, client, next);
        }
        None
    }

    /// Makes an association for a client that has shown where it is.
    fn begin(
        &mut self,
        now: Instant,
        client: Client,
        cookie: Cookie,
        random: Random,
        first: &[u8],
    ) -> bool {
        if self.handshakes.len() >= MAX_HANDSHAKES
            && let Some((_, oldest)) = self.handshakes.first().copied()
        {
            self.remove(oldest);
            self.refused += 1;
        }
        let Some(place) = self.admission.admit(client.address.ip()) else {
            self.refused += 1;
            return false;
        };
        self.identity.renew(&self.tls, &*self.provider);
        let config = match self.handshake_config(cookie) {
            Ok(config) => config,
            Err(error) => {
                log::error!("TURN over DTLS cannot be set up: {error}");
                return false;
            }
        };
        let mut endpoint = Endpoint::new(REMOTE, TransportProtocol::UDP, Some(config));
        // It has not seen the first hello, nor sent the cookie that answered it.
        if endpoint.read(now, REMOTE, None, BytesMut::from(first)).is_err() {
            return false;
        }
        while endpoint.poll_transmit().is_some() {}
        let age = Age::new(now);
        let Some(check_at) = age.check(now, false) else { return false };
        self.handshakes.insert((now, client));
        self.timers.insert((check_at, client));
        let association = Association {
            endpoint,
            random,
            began: now,
            established: false,
            age,
            check_at,
            _place: place,
        };
        self.by_client.insert(client, association);
        true
    }

    fn read_of(
        &mut self,
        now: Instant,
        client: Client,
        datagram: &[u8],
        read: &mut Read,
        send: &mut impl FnMut(&[u8]),
    ) {
        let Some(association) = self.by_client.get_mut(&client) else { return };
        let outcome = association.endpoint.read(now, REMOTE, None, BytesMut::from(datagram));
        association.transmit(send);
        let mut over = false;
        match outcome {
            Ok(events) => {
                for event in events {
                    match event {
                        EndpointEvent::HandshakeComplete => {
                            association.established = true;
                            self.handshakes.remove(&(association.began, client));
                        }
                        EndpointEvent::ApplicationData(data) => read.messages.push(data),
                        EndpointEvent::PeerClosed => over = true,
                        _ => {}
                    }
                }
            }
            Err(error) => {
                // Anyone can send a record that is not good; only one that is sealed ends what was
                // agreed on.
                over = !association.established || matches!(error, RtcError::ErrAlertFatalOrClose);
                log::debug!("TURN over DTLS with {}: {error}", client.address);
            }
        }
        if over {
            read.ended |= self.remove(client);
            return;
        }
        if let Some(at) = association.endpoint.poll_timeout(&REMOTE)
            && at < association.check_at
        {
            self.schedule(now, client, at);
        }
    }

    /// Looks at the association at `at`, or sooner if it has something to send again by then.
    fn schedule(&mut self, now: Instant, client: Client, at: Instant) {
        let Some(association) = self.by_client.get_mut(&client) else { return };
        self.timers.remove(&(association.check_at, client));
        let again = association.endpoint.poll_timeout(&REMOTE).filter(|again| *again > now);
        association.check_at = again.map_or(at, |again| again.min(at));
        self.timers.insert((association.check_at, client));
    }

    fn remove(&mut self, client: Client) -> bool {
        let Some(association) = self.by_client.remove(&client) else { return false };
        self.handshakes.remove(&(association.began, client));
        self.timers.remove(&(association.check_at, client));
        true
    }

    fn handshake_config(&self, cookie: Cookie) -> Result<Arc<HandshakeConfig>, RtcError> {
        let provider = WithCookie {
            provider: self.provider.clone(),
            random: GivenCookie { provider: self.provider.clone(), cookie, given: false.into() },
        };
        ConfigBuilder::default()
            .with_crypto_provider(Arc::new(provider))
            .with_certificates(vec![self.identity.certificate.clone()])
            .with_client_auth(ClientAuthType::NoClientCert)
            .with_flight_interval(RETRANSMIT_INTERVAL)
            .build(false, None)
            .map(Arc::new)
    }
}

impl Association {
    fn transmit(&mut self, send: &mut impl FnMut(&[u8])) {
        while let Some(transmit) = self.endpoint.poll_transmit() {
            send(&transmit.message);
        }
    }
}

impl Identity {
    fn of(tls: &Tls, provider: &dyn RTCCryptoProvider) -> Result<Identity, String> {
        let (chain, key) = tls.chain_and_key();
        let key = pkcs8(&key)?;
        let schemes = [
            SignatureScheme::EcdsaP256Sha256,
            SignatureScheme::RsaPkcs1Sha256,
            SignatureScheme::Ed25519,
        ];
        let import = |scheme| provider.crypto().import_signing_key(scheme, &key).ok();
        let key = schemes
            .into_iter()
            .find_map(import)
            .ok_or("DTLS needs an ECDSA P-256, RSA or Ed25519 key, and tls.key is another")?;
        Ok(Identity { certificate: Certificate::from_signing_key(chain.clone(), key), chain })
    }

    /// Takes what was read anew since the last handshake.
    fn renew(&mut self, tls: &Tls, provider: &dyn RTCCryptoProvider) {
        if tls.chain_and_key().0 == self.chain {
            return;
        }
        match Identity::of(tls, provider) {
            Ok(identity) => *self = identity,
            Err(error) => log::error!("TURN over DTLS goes on with the old certificate: {error}"),
        }
    }
}

/// The key in PKCS#8, whichever of the usual forms its file has.
fn pkcs8(key: &PrivateKeyDer<'_>) -> Result<Vec<u8>, String> {
    /// id-ecPublicKey, prime256v1 (RFC 5480 §2.1.1).
    const EC_P256: &[u8] = &[
        0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x08, 0x2A, 0x86,
        0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07,
    ];
    /// rsaEncryption, NULL (RFC 8017 §A.1).
    const RSA: &[u8] =
        &[0x30, 0x0D, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01, 0x05, 0x00];
    let (algorithm, inner) = match key {
        PrivateKeyDer::Pkcs8(key) => return Ok(key.secret_pkcs8_der().to_vec()),
        PrivateKeyDer::Sec1(key) => (EC_P256, key.secret_sec1_der()),
        PrivateKeyDer::Pkcs1(key) => (RSA, key.secret_pkcs1_der()),
        _ => return Err("tls.key is in a form that DTLS cannot use; expected PKCS#8".into()),
    };
    let version = [0x02, 0x01, 0x00];
    let content = [&version[..], algorithm, &der(0x04, inner)].concat();
    Ok(der(0x30, &content))
}

/// One DER value.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len().to_be_bytes();
    let first = len.iter().position(|byte| *byte != 0).unwrap_or(len.len() - 1);
    let len = &len[first..];
    let mut out = vec![tag];
    if len.len() > 1 || len[0] >= 0x80 {
        out.push(0x80 | len.len() as u8);
    }
    out.extend_from_slice(len);
    out.extend_from_slice(content);
    out
}

/// A provider whose first random bytes of a cookie's length are the cookie that the client was sent:
/// `rtc-dtls` makes one for each association, and can be given one by no other way.
struct WithCookie {
    provider: Arc<dyn RTCCryptoProvider>,
    random: GivenCookie,
}

struct GivenCookie {
    provider: Arc<dyn RTCCryptoProvider>,
    cookie: Cookie,
    given: AtomicBool,
}

impl RTCCryptoProvider for WithCookie {
    fn name(&self) -> &'static str {
        self.provider.name()
    }

    fn crypto(&self) -> &dyn RTCCrypto {
        self.provider.crypto()
    }

    fn random(&self) -> &dyn RTCRandom {
        &self.random
    }
}

impl RTCRandom for GivenCookie {
    fn fill(&self, output: &mut [u8]) -> Result<(), CryptoError> {
        if output.len() == self.cookie.len() && !self.given.swap(true, Relaxed) {
            output.copy_from_slice(&self.cookie);
            return Ok(());
        }
        self.provider.random().fill(output)
    }
}

#[cfg(test)]
mod tests {
    use super::super::admission::Admission;
    use super::*;
    use crate::tls::TlsConfig;
    use rtc_dtls::config::ConfigBuilder;
    use std::path::PathBuf;

    /// The server's side in virtual time, and what it has sent.
    struct Lab {
        associations: Associations,
        now: Instant,
        folder: PathBuf,
        tls: Tls,
    }

    struct Peer {
        client: Client,
        endpoint: Endpoint,
        certificate: Option<Vec<u8>>,
    }

    impl Lab {
        #[allow(clippy::disallowed_methods, reason = "an origin for virtual time")]
        fn new(name: &str, max_connections: usize) -> Lab {
            let folder =
                std::env::temp_dir().join(format!("p2pcam-dtls-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let files = TlsConfig {
                certificate: Some(folder.join("cert.pem")),
                key: Some(folder.join("key.pem")),
                client_ca: None,
            };
            write_certificate(&folder);
            let tls = Tls::load(&files).unwrap().unwrap();
            let now = Instant::now();
            let admission = Admission::new(max_connections, max_connections);
            let associations = Associations::new(tls.clone(), [3; 32], now, admission).unwrap();
            Lab { associations, now, folder, tls }
        }

        /// What is answered to one datagram, and the messages in it.
        fn read(&mut self, client: Client, datagram: &[u8]) -> (Vec<Vec<u8>>, Read) {
            let mut answers = Vec::new();
            let read = self.associations.read(self.now, client, datagram, |a| {
                answers.push(a.to_vec());
            });
            (answers, read)
        }

        /// Until neither side has anything to say; the messages that came from the client.
        fn exchange(&mut self, peer: &mut Peer) -> Vec<BytesMut> {
            let mut messages = Vec::new();
            while let Some(datagram) = peer.endpoint.poll_transmit() {
                let (answers, mut read) = self.read(peer.client, &datagram.message);
                messages.append(&mut read.messages);
                for answer in answers {
                    peer.hear(self.now, &answer);
                }
            }
            messages
        }

        /// The messages that a client of ours gets.
        fn write(&mut self, peer: &mut Peer, message: &[u8]) -> Vec<Vec<u8>> {
            let mut records = Vec::new();
            let parts = [&message[..1], &message[1..], &[]];
            self.associations.write(self.now, peer.client, parts, |r| records.push(r.to_vec()));
            records.iter().flat_map(|record| peer.hear(self.now, record)).collect()
        }

        fn expired(&mut self) -> Vec<Client> {
            let mut gone = Vec::new();
            let none = |_| false;
            while let Some(c) = self.associations.poll_expired(self.now, none, |_, _| {}) {
                gone.push(c);
            }
            gone
        }

        fn connect(&mut self, port: u16) -> Peer {
            let mut peer = Peer::new(self.now, port);
            self.exchange(&mut peer);
            assert!(peer.certificate.is_some(), "the handshake is done");
            peer
        }

        /// The cookie's answer to a client that says nothing after it.
        fn half_open(&mut self, port: u16) -> Client {
            let mut peer = Peer::new(self.now, port);
            let first = peer.endpoint.poll_transmit().unwrap();
            let (answers, _) = self.read(peer.client, &first.message);
            peer.hear(self.now, &answers[0]);
            let second = peer.endpoint.poll_transmit().unwrap();
            let (flight, _) = self.read(peer.client, &second.message);
            assert!(flight.iter().map(Vec::len).sum::<usize>() > 400, "certificate and all");
            peer.client
        }
    }

    impl Drop for Lab {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    impl Peer {
        fn new(now: Instant, port: u16) -> Peer {
            let config = ConfigBuilder::default()
                .with_crypto_provider(default_provider().unwrap())
                .with_insecure_skip_verify(true)
                .build(true, Some(REMOTE))
                .unwrap();
            let mut endpoint = Endpoint::new(REMOTE, TransportProtocol::UDP, None);
            endpoint.connect(now, REMOTE, Arc::new(config), None).unwrap();
            let address = SocketAddr::from(([192, 0, 2, 7], port));
            Peer { client: Client { listener: 0, address }, endpoint, certificate: None }
        }

        fn hear(&mut self, now: Instant, datagram: &[u8]) -> Vec<Vec<u8>> {
            let events = self.endpoint.read(now, REMOTE, None, BytesMut::from(datagram)).unwrap();
            let mut messages = Vec::new();
            for event in events {
                match event {
                    EndpointEvent::HandshakeComplete => {
                        let state = self.endpoint.get_connection_state(REMOTE).unwrap();
                        self.certificate = state.peer_certificates.first().cloned();
                    }
                    EndpointEvent::ApplicationData(data) => messages.push(data.to_vec()),
                    _ => {}
                }
            }
            messages
        }
    }

    fn write_certificate(folder: &std::path::Path) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn messages_pass_both_ways_and_the_end_is_told() {
        let mut lab = Lab::new("pass", 10);
        let mut peer = lab.connect(5000);
        peer.endpoint.write(lab.now, REMOTE, b"question").unwrap();
        assert_eq!(lab.exchange(&mut peer), [b"question".as_slice()]);
        assert_eq!(lab.write(&mut peer, b"answer"), [b"answer"]);
        // Garbage, and records that are not sealed, end nothing.
        for bad in [&b"\x16garbage"[..], &[21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40]] {
            assert!(!lab.read(peer.client, bad).1.ended);
        }
        assert_eq!(lab.write(&mut peer, b"still here"), [b"still here"]);
        peer.endpoint.stop(lab.now, REMOTE);
        let close = peer.endpoint.poll_transmit().unwrap();
        assert!(lab.read(peer.client, &close.message).1.ended);
        assert_eq!((lab.associations.len(), lab.associations.poll_timeout()), (0, None));
    }

    #[test]
    fn nothing_is_kept_for_whoever_does_not_answer_the_cookie() {
        let mut lab = Lab::new("flood", 10);
        let hello = Peer::new(lab.now, 1).endpoint.poll_transmit().unwrap().message;
        for i in 0..10_000u32 {
            let address = SocketAddr::from((i.to_be_bytes(), 7));
            let (answers, _) = lab.read(Client { listener: 0, address }, &hello);
            assert!(answers.len() == 1 && answers[0].len() <= hello.len(), "no amplification");
        }
        assert_eq!((lab.associations.len(), lab.associations.poll_timeout()), (0, None));
    }

    #[test]
    fn handshakes_have_their_time_and_their_places() {
        let mut lab = Lab::new("places", MAX_HANDSHAKES + 10);
        let done = lab.connect(1000);
        let first = lab.half_open(2000);
        for i in 0..MAX_HANDSHAKES as u16 {
            lab.now += Duration::from_millis(1);
            lab.half_open(3000 + i);
        }
        assert_eq!(lab.associations.len(), MAX_HANDSHAKES + 1, "the oldest made room");
        assert!(!lab.associations.by_client.contains_key(&first));
        // None of them ends its handshake: ten seconds later all are gone, and so is the client
        // that has finished its own and then said nothing.
        lab.now += Duration::from_secs(10);
        let gone = lab.expired();
        assert_eq!(gone.len(), MAX_HANDSHAKES + 1);
        assert!(gone.contains(&done.client));
        assert_eq!((lab.associations.handshakes.len(), lab.associations.len()), (0, 0));
    }

    #[test]
    fn without_a_place_there_is_no_handshake() {
        let mut lab = Lab::new("full", 1);
        let _one = lab.connect(1000);
        let mut other = Peer::new(lab.now, 1001);
        lab.exchange(&mut other);
        assert!(other.certificate.is_none());
        assert_eq!((lab.associations.len(), lab.associations.refused()), (1, 1));
    }

    #[test]
    fn a_lost_flight_is_sent_again() {
        let mut lab = Lab::new("lost", 10);
        lab.half_open(5000);
        let due = lab.associations.poll_timeout().unwrap();
        assert!(due <= lab.now + RETRANSMIT_INTERVAL);
        lab.now = due;
        let mut sent = 0;
        lab.associations.poll_expired(lab.now, |_| false, |_, datagram| sent += datagram.len());
        assert!(sent > 400, "certificate and all");
    }

    #[test]
    fn a_client_may_begin_anew_from_the_same_port() {
        let mut lab = Lab::new("anew", 10);
        let mut before = lab.connect(5000);
        // Only the second hello of the new one, which has the cookie, ends what was.
        let mut after = Peer::new(lab.now, 5000);
        let first = after.endpoint.poll_transmit().unwrap();
        let (answers, read) = lab.read(after.client, &first.message);
        assert!(!read.ended);
        assert_eq!(lab.write(&mut before, b"still here"), [b"still here"]);
        after.hear(lab.now, &answers[0]);
        let second = after.endpoint.poll_transmit().unwrap();
        let (answers, read) = lab.read(after.client, &second.message);
        assert!(read.ended);
        answers.iter().for_each(|answer| drop(after.hear(lab.now, answer)));
        lab.exchange(&mut after);
        // The network brings that hello once more: nothing begins again.
        assert!(!lab.read(after.client, &second.message).1.ended);
        assert_eq!(lab.write(&mut after, b"here now"), [b"here now"]);
        assert_eq!(lab.associations.len(), 1);
    }

    #[test]
    fn a_certificate_that_was_read_anew_is_the_next_clients() {
        let mut lab = Lab::new("renew", 10);
        let mut before = lab.connect(5000);
        write_certificate(&lab.folder);
        lab.tls.reload().unwrap();
        let after = lab.connect(5001);
        assert_ne!(before.certificate, after.certificate);
        assert_eq!(lab.write(&mut before, b"goes on"), [b"goes on"]);
    }
}
