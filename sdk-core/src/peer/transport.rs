//! A viewer's transport: it finds a path (ICE), proves who is at its end (DTLS) and says where
//! media goes.
//!
//! ```text
//! Datagram ─ relay's server? ─ TURN ─┐
//!            anyone else ────────────┴→ by first byte (RFC 7983): STUN → ICE
//!                                                                 DTLS → handshake → SRTP keys
//!                                                                        application data → SCTP
//!                                                                 RTP, RTCP → back to the caller
//! ```

use super::consent::{self, Consent, Taken};
use super::data::{Data, DataEvent, DataTerms};
use super::dtls::{Dtls, DtlsEvent, Identity, SrtpKeying};
use super::gather::Server;
use super::ice::{Credentials, Ice, IceEvent, Kind, Pair};
use super::relays::{RelayEvent, Relays};
use crate::net::{ControlQueue, Datagram, SocketId, Transmit};
use crate::random::Random;
use crate::time::earlier;
use crate::wire::sdp::Fingerprint;
use crate::wire::signal::Path;
use crate::wire::stun::{Class, Message};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// One viewer's way to us and back.
pub struct Peer {
    settings: PeerSettings,
    ice: Ice,
    /// In the ICE agent's place while that rests.
    consent: Consent,
    /// As of the last input.
    ice_rests: bool,
    dtls: Dtls,
    /// There if the answer has a data section.
    data: Option<Box<Data>>,
    sockets: Vec<LocalSocket>,
    relays: Relays,
    /// Where media goes, and what is answered to whom.
    path: Option<Pair>,
    /// The kind of path that was told last: it changes with the pair, and when a candidate is named
    /// whose address was in use before.
    told: Option<Path>,
    /// Something came that may make it another kind.
    retell: bool,
    /// DTLS that came before its sender had shown a valid check: at most [`MAX_EARLY`] datagrams.
    early: Vec<(Pair, Vec<u8>)>,
    /// Addresses that have shown a valid check.
    proven: heapless::Deque<Pair, MAX_PROVEN>,
    /// When the viewer last showed that it wants what we send: an authenticated check, or its
    /// answer to one of ours (RFC 7675). `None` before the first, and once its absence was told.
    consent_at: Option<Instant>,
    gathering_told: bool,
    transmits: ControlQueue,
    events: VecDeque<PeerEvent>,
}

#[derive(Debug, Clone, Copy)]
pub struct PeerSettings {
    /// Hides host and server-reflexive candidates.
    pub relay_only: bool,
}

/// One of the driver's sockets, opened for this viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalSocket {
    pub id: SocketId,
    pub addr: SocketAddr,
}

/// Where to send media: filled into every [`crate::net::Transmit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub socket: SocketId,
    pub destination: SocketAddr,
    /// The TURN channel to the viewer, whose 4-byte header precedes each packet.
    pub channel: Option<u16>,
}

#[derive(Debug)]
pub enum PeerEvent {
    /// Tell the viewer of this candidate; an empty one ends the candidates.
    LocalCandidate(String),
    /// The path is open and the viewer has proved to be who its offer said.
    Connected { path: Path, keying: SrtpKeying },
    /// Media takes another path from now on.
    PathChanged(Path),
    /// No check has been answered for some seconds.
    Disconnected,
    /// The viewer closed the association.
    Closed,
    /// Of a data channel.
    Data(DataEvent),
    /// Something does not work, but something else may. The text is for the log.
    Warning(String),
    /// The session cannot go on. The text is for people.
    Failed(String),
}

/// Both sides check every few seconds, so this is several checks in a row. RFC 7675 §5.1 allows 30 s
/// in all, of which the rest is for a viewer that restarts ICE.
const CONSENT_TIMEOUT: Duration = Duration::from_secs(12);
const MAX_EARLY: usize = 4;
const MAX_PROVEN: usize = 16;

impl Peer {
    pub fn new(
        settings: PeerSettings,
        identity: &Identity,
        remote: Credentials,
        fingerprints: Vec<Fingerprint>,
        random: &mut Random,
    ) -> Result<Peer, String> {
        let mut ice = Ice::default();
        ice.set_remote_credentials(remote.clone());
        let consent = Consent::new(ice.local_credentials(), remote, &random.bytes());
        Ok(Peer {
            settings,
            ice,
            consent,
            ice_rests: false,
            dtls: Dtls::new(identity, fingerprints).map_err(|e| e.to_string())?,
            data: None,
            sockets: Vec::new(),
            relays: Relays::default(),
            path: None,
            told: None,
            retell: false,
            early: Vec::new(),
            proven: heapless::Deque::new(),
            consent_at: None,
            gathering_told: false,
            transmits: ControlQueue::default(),
            events: VecDeque::new(),
        })
    }

    /// Takes the sockets that the driver opened. Their addresses are the host candidates.
    pub fn on_sockets(&mut self, now: Instant, sockets: &[LocalSocket]) {
        for socket in sockets {
            if !self.settings.relay_only {
                self.ice.add_local(Kind::Host, socket.addr, socket.addr);
            }
            self.sockets.push(*socket);
        }
        self.settle(now);
    }

    /// Asks a server, now that its address is known.
    pub fn on_server(
        &mut self,
        now: Instant,
        server: &Server,
        addr: SocketAddr,
        random: &mut Random,
    ) {
        self.relays.ask(now, server, addr, &self.sockets, random);
        self.settle(now);
    }

    /// All servers that will be asked have been named. Once they have answered or failed, the
    /// candidates are ended.
    pub fn on_servers_complete(&mut self, now: Instant) {
        self.relays.on_complete();
        self.settle(now);
    }

    pub fn local_credentials(&self) -> Credentials {
        self.ice.local_credentials()
    }

    /// The candidates known so far, for the answer.
    pub fn local_candidates(&self) -> Vec<String> {
        self.ice.local_candidates().collect()
    }

    pub fn add_remote_candidate(&mut self, now: Instant, attribute: &str) {
        if let Some(addr) = self.ice.add_remote(attribute) {
            self.retell = true;
            self.relays.permit(now, addr);
        }
        self.consent.wake(now);
        self.ice.handle_timeout(now);
        self.settle(now);
    }

    /// A new offer with new ICE credentials (RFC 8445 §9). DTLS and media go on.
    pub fn restart(&mut self, now: Instant, remote: Credentials) {
        self.ice.restart(remote.clone());
        self.consent.restart(now, self.ice.local_credentials(), remote);
        self.settle(now);
    }

    /// Whether the answer has a data section, and what goes for it. Without one, channels that there
    /// are end.
    pub fn accept_data(&mut self, terms: Option<DataTerms>) {
        match terms {
            Some(terms) => drop(self.data.get_or_insert_with(|| Box::new(Data::new(&terms)))),
            None => self.end_data(),
        }
    }

    /// Opens, uses or closes data channels, if there is a data section.
    pub fn with_data(&mut self, now: Instant, act: impl FnOnce(&mut Data)) {
        if let Some(data) = &mut self.data {
            act(data);
            self.settle(now);
        }
    }

    pub fn data(&self) -> Option<&Data> {
        self.data.as_deref()
    }

    /// Takes a datagram. What comes back is RTP or RTCP for this session, still encrypted.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        datagram: Datagram<'a>,
    ) -> Option<&'a mut [u8]> {
        let local = self.sockets.iter().find(|s| s.id == datagram.socket)?.addr;
        let (pair, data) = match self.relays.unwrap(now, datagram) {
            Ok((relayed, peer, data)) => (Pair { local: relayed, remote: peer }, data),
            Err(Some(datagram)) => (Pair { local, remote: datagram.source }, datagram.data),
            Err(None) => {
                self.settle(now);
                return None;
            }
        };
        match data.first()? {
            // RFC 7983 §7
            0..=3 if self.on_stun(now, pair, data) => {
                self.consent_at = Some(now);
                self.on_proven(now, pair);
            }
            20..=63 if self.proven.iter().any(|p| *p == pair) => self.on_dtls(now, pair, data),
            20..=63 if self.early.len() < MAX_EARLY => self.early.push((pair, data.to_vec())),
            128..=191 if self.proven.iter().any(|p| *p == pair) => return Some(data),
            _ => {}
        }
        self.settle(now);
        None
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(in_use) = self.rests_on(now) {
            let mut out = [0; consent::MAX_LEN];
            if let Some(len) = self.consent.check(now, &mut out) {
                self.send(in_use, out.get(..len).unwrap_or_default());
            }
        } else if self.ice.poll_timeout().is_none_or(|at| at <= now) {
            self.ice.handle_timeout(now);
        }
        self.relays.handle_timeout(now);
        if self.consent_ends().is_some_and(|at| at <= now) {
            self.consent_at = None;
            self.events.push_back(PeerEvent::Disconnected);
        }
        if let Err(e) = self.dtls.handle_timeout(now) {
            self.events.push_back(PeerEvent::Failed(e.to_string()));
        }
        if let Some(data) = &mut self.data {
            data.handle_timeout(now);
        }
        self.settle(now);
    }

    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let data = self.data.as_ref().and_then(|data| data.poll_timeout());
        let checks = match self.ice_rests {
            true => self.consent.poll_timeout(),
            false => self.ice.poll_timeout(),
        };
        let timeout = earlier(earlier(checks, self.dtls.poll_timeout()), data);
        earlier(earlier(timeout, self.relays.poll_timeout()), self.consent_ends())
    }

    /// The next control datagram to send.
    pub fn poll_transmit(&mut self) -> Option<(Transmit, &[u8])> {
        self.transmits.pop()
    }

    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    /// Where media goes; `None` while there is no path, or its channel is not bound yet.
    pub fn route(&self) -> Option<Route> {
        let pair = self.path?;
        if let Some(socket) = self.sockets.iter().find(|s| s.addr == pair.local) {
            return Some(Route { socket: socket.id, destination: pair.remote, channel: None });
        }
        self.relays.route(pair)
    }

    /// The path in use, by the candidate that says most about it.
    pub fn path(&self) -> Option<Path> {
        self.path.map(|pair| path_of(self.ice.kinds(pair)))
    }

    /// What the ends of the path in use are: ours, and the viewer's.
    pub fn candidates(&self) -> Option<(Kind, Kind)> {
        self.path.map(|pair| self.ice.kinds(pair))
    }

    pub fn is_established(&self) -> bool {
        self.dtls.is_established() && self.path.is_some()
    }

    /// Whether the viewer has shown a check with our password, so that it has our answer.
    pub fn is_proven(&self) -> bool {
        !self.proven.is_empty()
    }

    /// Whether the viewer still shows that it wants what we send.
    pub fn has_consent(&self) -> bool {
        self.consent_at.is_some()
    }

    pub fn rtt(&self) -> Option<Duration> {
        self.consent.rtt().or_else(|| self.ice.rtt())
    }

    /// Says goodbye to the viewer and frees the relays. What is queued should still be sent.
    pub fn close(&mut self, now: Instant) {
        self.end_data();
        self.dtls.close(now);
        self.flush_dtls();
        self.relays.close(now);
        self.flush_relays();
    }

    fn consent_ends(&self) -> Option<Instant> {
        self.consent_at.filter(|_| self.is_established()).map(|at| at + CONSENT_TIMEOUT)
    }

    /// The pair in use, if nothing is left for the ICE agent to do about it.
    fn rests_on(&self, now: Instant) -> Option<Pair> {
        let is_settled = self.dtls.is_established() && self.path == self.ice.nominated();
        self.path.filter(|_| is_settled && self.consent.is_enough(now))
    }

    /// True if it belongs to this session and proved to know its password.
    fn on_stun(&mut self, now: Instant, pair: Pair, data: &[u8]) -> bool {
        let message = Message::parse(data);
        if let Some(in_use) = self.rests_on(now)
            && let Some(message) = &message
            && self.proven.iter().any(|p| *p == pair)
        {
            let mut out = [0; consent::MAX_LEN];
            match self.consent.handle(now, message, pair, in_use, &mut out) {
                Taken::No => {}
                Taken::Answer => return true,
                Taken::Check(len) => {
                    self.send(pair, out.get(..len).unwrap_or_default());
                    return true;
                }
            }
        }
        let is_accepted = self.ice.handle_packet(now, pair, data);
        let is_answer = message.is_some_and(|message| message.class() == Class::Success);
        match is_accepted {
            true if is_answer && self.path == Some(pair) => self.consent.on_answered(now),
            true if !is_answer && self.rests_on(now).is_some() => self.consent.wake(now),
            _ => {}
        }
        is_accepted
    }

    fn on_proven(&mut self, now: Instant, pair: Pair) {
        if self.proven.iter().any(|p| *p == pair) {
            return;
        }
        if self.proven.is_full() {
            self.proven.pop_front();
        }
        // Cannot fail: room was just made.
        let _ = self.proven.push_back(pair);
        self.relays.permit(now, pair.remote);
        for (from, data) in std::mem::take(&mut self.early) {
            if from == pair {
                self.on_dtls(now, pair, &data);
            } else {
                self.early.push((from, data));
            }
        }
    }

    fn on_dtls(&mut self, now: Instant, pair: Pair, data: &[u8]) {
        // The viewer may speak before its nominating check has come: answer where it is.
        self.path.get_or_insert(pair);
        match self.dtls.handle_datagram(now, data) {
            Ok(None) => {}
            Ok(Some(DtlsEvent::Established(keying))) => {
                let path = path_of(self.ice.kinds(*self.path.get_or_insert(pair)));
                self.told = Some(path);
                self.events.push_back(PeerEvent::Connected { path, keying });
            }
            Ok(Some(DtlsEvent::Closed)) => self.events.push_back(PeerEvent::Closed),
            // Once keys are agreed, a bad record is dropped (RFC 6347 §4.1.2.7).
            Err(_) if self.dtls.is_established() => {}
            Err(e) => self.events.push_back(PeerEvent::Failed(e.to_string())),
        }
        if let Some(data) = &mut self.data {
            for packet in self.dtls.take_received() {
                data.handle_packet(now, &packet);
            }
        }
    }

    fn end_data(&mut self) {
        if let Some(mut data) = self.data.take() {
            data.close_all();
            self.take_data_events(&mut data);
        }
    }

    fn take_data_events(&mut self, data: &mut Data) {
        while let Some(event) = data.poll_event() {
            self.events.push_back(match event {
                DataEvent::Warning(text) => PeerEvent::Warning(text),
                event => PeerEvent::Data(event),
            });
        }
    }

    /// Moves what the parts have to say to where it belongs, after every input.
    fn settle(&mut self, now: Instant) {
        while let Some(event) = self.relays.poll_event() {
            let candidate = match event {
                RelayEvent::Reflexive { mapped, base } if !self.settings.relay_only => {
                    self.ice.add_local(Kind::ServerReflexive, mapped, base)
                }
                RelayEvent::Relayed { relayed, base } => {
                    self.ice.add_local(Kind::Relayed, relayed, base)
                }
                RelayEvent::Reflexive { .. } => None,
                RelayEvent::Failed(text) => {
                    self.events.push_back(PeerEvent::Warning(text));
                    None
                }
            };
            self.events.extend(candidate.map(PeerEvent::LocalCandidate));
            self.consent.wake(now);
            self.ice.handle_timeout(now);
        }
        if !self.gathering_told && self.relays.is_complete() {
            self.gathering_told = true;
            self.events.push_back(PeerEvent::LocalCandidate(String::new()));
        }
        while let Some(IceEvent::Nominated(pair)) = self.ice.poll_event() {
            self.on_nominated(now, pair);
        }
        if std::mem::take(&mut self.retell)
            && let Some(path) = self.path()
            && self.told.is_some_and(|told| told != path)
        {
            self.told = Some(path);
            self.events.push_back(PeerEvent::PathChanged(path));
        }
        while let Some(check) = self.ice.poll_check() {
            self.send(check.pair, &check.data);
        }
        self.flush_data(now);
        self.flush_dtls();
        self.flush_relays();
        self.ice_rests = self.rests_on(now).is_some();
    }

    fn on_nominated(&mut self, now: Instant, pair: Pair) {
        self.consent.wake(now);
        self.relays.bind(now, pair);
        if let Some(data) = self.data.as_mut().filter(|_| self.path != Some(pair)) {
            data.on_path_changed(now);
        }
        self.path = Some(pair);
        self.retell = true;
    }

    fn flush_data(&mut self, now: Instant) {
        let Some(mut data) = self.data.take() else { return };
        while let Some(packet) = data.poll_packet(now) {
            if let Err(e) = self.dtls.write(now, &packet) {
                log::debug!("an SCTP packet was not sent: {e}");
            }
        }
        self.take_data_events(&mut data);
        self.data = Some(data);
    }

    fn flush_dtls(&mut self) {
        while let Some(data) = self.dtls.poll_transmit() {
            if let Some(pair) = self.path {
                self.send(pair, &data);
            }
        }
    }

    fn flush_relays(&mut self) {
        self.relays.flush(&mut self.transmits);
    }

    /// Sends one control datagram along `pair`, through the relay if its near end is one.
    fn send(&mut self, pair: Pair, data: &[u8]) {
        match self.sockets.iter().find(|s| s.addr == pair.local) {
            Some(socket) => self.transmits.push(socket.id, pair.remote, data),
            None => self.relays.send(pair, data, &mut self.transmits),
        }
    }
}

fn path_of((local, remote): (Kind, Kind)) -> Path {
    let either = |kind| local == kind || remote == kind;
    if either(Kind::Relayed) {
        Path::Relay
    } else if either(Kind::PeerReflexive) {
        Path::Prflx
    } else if either(Kind::ServerReflexive) {
        Path::Srflx
    } else {
        Path::Host
    }
}
