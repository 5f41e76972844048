//! Clients by DTLS 1.2 (RFC 6347), by the crate `rtc-dtls`, which is named here and in the files
//! below only.
//!
//! Nothing is kept for a client that has not shown, by a [cookie](super::hello), to be where it says
//! it is. After that it has ten seconds to finish its handshake, and a place among
//! [`MAX_HANDSHAKES`].

mod identity;
mod with_cookie;

use self::identity::Identity;
use self::with_cookie::WithCookie;
use super::admission::{Admission, Age, Place};
use super::hello::{Cookie, Cookies, Hello, Random, is_client_hello};
use crate::stun_turn::core::Client;
use crate::tls::Tls;
use bytes::BytesMut;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, HandshakeConfig};
use rtc_dtls::crypto_provider::{RTCCryptoProvider, default_provider};
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error as RtcError;
use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
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
        let provider = WithCookie::new(self.provider.clone(), cookie);
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

#[cfg(test)]
mod tests;
