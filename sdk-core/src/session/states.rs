//! One viewer from hello to goodbye: a state machine over its signals, its transport and its
//! media.
//!
//! ```text
//! offer ─→ Opening ─ sockets open, answer sent ─→ Connecting ─ ICE + DTLS ─→ Connected
//!             └──────────── refused, timed out, bye, lost ─────────────────────→ Closed
//! ```

mod channels;
mod counted;
mod switching;

use super::adapt::Adapt;
use super::audio::MediaTimes;
use super::offer::OfferInForce;
use super::outputs::{Outputs, To, Want};
use super::stream::Stream;
use super::streams::Streams;
use super::viewer::Viewer;
use crate::event::{CloseReason, Event, StreamId};
use crate::log_scope;
use crate::media::jitter::Piece;
use crate::media::{AudioPacket, SendBuffer, Sources, SrtpKeys, SrtpProfile, TrainId};
use crate::net::{Datagram, SocketId};
use crate::peer::data::DataTerms;
use crate::peer::dtls::{Identity, SrtpKeying};
use crate::peer::gather::{Server, usable_servers};
use crate::peer::{LocalSocket, Peer, PeerEvent, PeerSettings, Route};
use crate::random::Random;
use crate::signaling::mailbox::{Correspondence, Offered};
use crate::signaling::outbox::Outbox;
use crate::time::{Now, earlier};
use crate::wire::audio::AudioCodec;
use crate::wire::sdp::{AudioFormat, NOT_ASKED_FOR, SdpError};
use crate::wire::signal::{
    Body, Candidate, ErrorCode, Keepalive, Offer, Path, SessionId, SessionState, Signal,
};
use crate::wire::token::Claims;
pub use channels::ChannelRequest;
use counted::Counted;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub struct Session {
    id: SessionId,
    app: String,
    /// What the viewer is sent.
    stream: StreamId,
    /// What it will be sent from that stream's next keyframe on.
    wanted: Option<StreamId>,
    /// What was asked for; another one while its network is too slow.
    home: StreamId,
    adapt: Adapt,
    started: Instant,
    /// The stream it was then, and the number of the packet that came next in it.
    offered: (StreamId, u64),
    phase: Phase,
    peer: Peer,
    servers: Vec<Server>,
    /// Servers whose address is still being looked up.
    unresolved: usize,
    offer: OfferInForce,
    correspondence: Correspondence,
    /// Repeats the answer until the viewer is heard.
    outbox: Outbox,
    sockets: Vec<SocketId>,
    viewer: Viewer,
    keepalive_at: Instant,
    /// Since when no check has been answered.
    disconnected_at: Option<Instant>,
    data_terms: DataTerms,
    counted: Counted,
}

enum Phase {
    /// The driver is opening sockets.
    Opening,
    /// The answer is out.
    Connecting,
    Connected {
        path: Path,
        setup_ms: u32,
    },
    Closed,
}

/// What does not change from viewer to viewer.
pub struct Settings<'a> {
    pub identity: &'a Identity,
    pub relay_only: bool,
    /// What the camera has for sound.
    pub audio: Option<AudioFormat>,
    /// Largest UDP payload to send, in bytes.
    pub max_datagram: usize,
}

/// Both sides say that they are there, and the session service hears of it.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// From the offer to media; the viewer's side gives up after 10 s without an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a viewer whose checks fail may take to restart ICE.
const RESTART_GRACE: Duration = Duration::from_secs(15);

impl Session {
    /// Admits the viewer that sent `signal` with `offer`. Its token has been checked; `claims` is
    /// what it said.
    pub fn new(
        now: Now,
        signal: &Signal,
        offer: &Offer,
        claims: &Claims,
        stream: &Stream,
        settings: &Settings<'_>,
        random: &mut Random,
    ) -> Result<Session, SdpError> {
        let in_force = OfferInForce::read(&offer.sdp, stream, settings.audio)?;
        let mut peer = Peer::new(
            PeerSettings { relay_only: settings.relay_only },
            settings.identity,
            in_force.credentials(),
            in_force.fingerprints(),
            random,
        )
        .map_err(|message| SdpError { code: ErrorCode::Internal, message })?;
        let mut correspondence = Correspondence::new();
        correspondence.on_offer(&offer.sdp);
        let viewer = Viewer::new(in_force.choice(), stream.bitrate(), random);
        let data_terms = channels::terms(settings, random);
        peer.accept_data(in_force.data().map(|_| data_terms));
        let mut session = Session {
            id: signal.session_id,
            app: signal.from.clone(),
            stream: stream.id(),
            wanted: None,
            home: stream.id(),
            adapt: Adapt::new(),
            started: now.instant,
            offered: (stream.id(), stream.video().next_packet()),
            phase: Phase::Opening,
            peer,
            servers: usable_servers(&claims.ice_servers),
            unresolved: 0,
            offer: in_force,
            correspondence,
            outbox: Outbox::new(),
            sockets: Vec::new(),
            viewer,
            keepalive_at: now.instant + KEEPALIVE,
            disconnected_at: None,
            data_terms,
            counted: Counted::new(now, stream.name()),
        };
        session.take_sound();
        Ok(session)
    }

    pub fn id(&self) -> SessionId {
        self.id
    }

    pub fn app(&self) -> &str {
        &self.app
    }

    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// Its own, while it has any.
    pub fn sockets(&self) -> &[SocketId] {
        &self.sockets
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    pub fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected { .. })
    }

    /// One of the microphone's packets: it goes out at once, or not at all.
    pub fn send_audio(&mut self, now: Now, codec: AudioCodec, packet: &AudioPacket<'_>) {
        if let Some(route) = self.media_route() {
            self.viewer.send_audio(now, codec, packet, route);
        }
    }

    /// What the viewer says by now, one piece a call; a packet's bytes are written over `data`.
    pub fn poll_talkback(&mut self, now: Now, data: &mut Vec<u8>) -> Option<(AudioCodec, Piece)> {
        self.viewer.sound_mut().poll_talkback(now.instant, data)
    }

    /// The camera's microphone and loudspeaker are gone, or are others.
    pub fn end_sound(&mut self) {
        self.viewer.sound_mut().agree(None);
    }

    /// What the encoder should make for this viewer alone, in bits per second, if that is known.
    pub fn target(&self) -> Option<u32> {
        if self.is_connected() { self.viewer.target() } else { None }
    }

    /// Seals what may go out to this viewer now; says where it goes if there was something.
    pub fn seal(&mut self, now: Now, sources: &dyn Sources, out: &mut SendBuffer) -> Option<Route> {
        let route = self.media_route()?;
        while let Some(reason) = self.viewer.seal(now, sources, route, out) {
            log::warn!("sessionId={} a frame was left out: {reason:?}", self.id);
        }
        if out.runs().is_empty() {
            return None;
        }
        self.counted.on_sealed(now.instant, out, self.viewer.stats());
        Some(route)
    }

    /// The train that [`Session::seal`] has just sealed the last packets of, once.
    pub fn take_finished(&mut self) -> Option<TrainId> {
        self.viewer.take_finished()
    }

    pub fn begin(&mut self, out: &mut Outputs) {
        log::info!("sessionId={} app={} stream={} new viewer", self.id, self.app, self.stream.0);
        out.event(Event::ViewerNew {
            session: self.id,
            app: self.app.clone(),
            stream: self.stream,
        });
        out.push(Want::OpenSockets { session: self.id });
    }

    /// The driver has opened sockets: the answer, with their addresses, goes out.
    pub fn on_sockets(
        &mut self,
        now: Now,
        sockets: Result<Vec<LocalSocket>, String>,
        identity: &Identity,
        random: &mut Random,
        out: &mut Outputs,
    ) {
        let _scope = log_scope::enter(self.id);
        let sockets = match sockets {
            Ok(sockets) => sockets,
            Err(e) => {
                let message = format!("the device has no network socket for this viewer: {e}");
                return self.fail(now, ErrorCode::Internal, message, out);
            }
        };
        self.sockets.extend(sockets.iter().map(|s| s.id));
        self.peer.on_sockets(now.instant, &sockets);
        self.phase = Phase::Connecting;
        self.answer(now, identity, out);
        self.ask_servers(now, random, out);
        self.take_offered_candidates(now);
        let state = Keepalive { state: Some(SessionState::Connecting), ..Keepalive::default() };
        out.signal(now, self.id, To::Service, Body::Keepalive(state));
        self.settle(now, out);
    }

    /// A further offer of the same application in this session.
    pub fn on_offer(
        &mut self,
        now: Now,
        offer: &Offer,
        streams: &mut Streams,
        audio: Option<AudioFormat>,
        identity: &Identity,
        out: &mut Outputs,
    ) {
        let _scope = log_scope::enter(self.id);
        let offered = self.correspondence.on_offer(&offer.sdp);
        if let Offered::Repeated { answer } = offered {
            if let Some(sdp) = answer.map(str::to_owned) {
                out.signal(now, self.id, To::App(&self.app), Body::Answer { sdp });
            }
            return;
        }
        let restart = offered == Offered::Restart;
        let changed = match self.offer.read_next(&offer.sdp, audio) {
            Ok(changed) => changed,
            Err(e) => return self.fail(now, e.code, e.message, out),
        };
        if restart {
            log::info!("sessionId={} the viewer restarts ICE", self.id);
            self.peer.restart(now.instant, changed.credentials());
        }
        self.peer.accept_data(changed.data().map(|_| self.data_terms));
        self.offer = changed;
        self.take_sound();
        if !matches!(self.phase, Phase::Opening) {
            self.answer(now, identity, out);
            self.take_offered_candidates(now);
        }
        if let Some(name) = &offer.stream {
            self.on_stream_asked(now, name, streams, out);
        }
        self.settle(now, out);
    }

    pub fn on_candidate(&mut self, now: Now, candidate: &Candidate, out: &mut Outputs) {
        let _scope = log_scope::enter(self.id);
        if !candidate.candidate.is_empty() {
            self.peer.add_remote_candidate(now.instant, &candidate.candidate);
        }
        self.settle(now, out);
    }

    /// Notes any message of the viewer in this session.
    pub fn on_heard(&mut self, message: &Body) {
        self.outbox.on_heard(message);
    }

    /// What to remember of a session that has ended.
    pub fn correspondence(&self) -> &Correspondence {
        &self.correspondence
    }

    /// The address of one of the servers this session wanted looked up.
    pub fn on_resolved(
        &mut self,
        now: Now,
        server: usize,
        addr: Option<SocketAddr>,
        random: &mut Random,
        out: &mut Outputs,
    ) {
        let _scope = log_scope::enter(self.id);
        self.unresolved = self.unresolved.saturating_sub(1);
        if let (Some(server), Some(addr)) = (self.servers.get(server), addr) {
            self.peer.on_server(now.instant, server, addr, random);
        }
        if self.unresolved == 0 {
            self.peer.on_servers_complete(now.instant);
        }
        self.settle(now, out);
    }

    pub fn handle_datagram(
        &mut self,
        now: Now,
        datagram: Datagram<'_>,
        streams: &mut Streams,
        out: &mut Outputs,
    ) {
        if self.is_closed() {
            return;
        }
        let _scope = log_scope::enter(self.id);
        let was_connected = self.is_connected();
        if let Some(data) = self.peer.handle_datagram(now.instant, datagram) {
            let route = self.media_route();
            let wish = self.viewer.handle_media(now, data, streams, route);
            if wish.keyframe {
                self.want_keyframe(now, streams, out);
            }
            self.adapt(now, streams, out);
        }
        self.settle(now, out);
        if !was_connected && self.is_connected() {
            self.tell_stream(now, streams, None, out);
            let video = streams.video(self.stream);
            let (stream, next_packet) = self.offered;
            let offered_at = if self.stream == stream { next_packet } else { u64::MAX };
            if !video.is_some_and(|video| self.viewer.start(video, offered_at)) {
                self.want_keyframe(now, streams, out);
            }
        }
    }

    fn want_keyframe(&self, now: Now, streams: &mut Streams, out: &mut Outputs) {
        if let Some(stream) = streams.get_mut(self.stream) {
            stream.want_keyframe(now, out);
        }
    }

    /// `times` is what the clocks of a stream and of the sound show now.
    pub fn handle_timeout(
        &mut self,
        now: Now,
        times: &dyn Fn(StreamId) -> MediaTimes,
        out: &mut Outputs,
    ) {
        if self.is_closed() {
            return;
        }
        let _scope = log_scope::enter(self.id);
        self.peer.handle_timeout(now.instant);
        if now.instant >= self.keepalive_at {
            self.keepalive_at = now.instant + KEEPALIVE;
            self.keepalive(now, true, out);
        }
        if let Some(message) = self.outbox.poll_repeat(now.instant) {
            out.signal(now, self.id, To::App(&self.app), message);
        }
        if !self.is_connected() && now.instant >= self.started + CONNECT_TIMEOUT {
            let message = format!(
                "not connected within {} s: no pair of candidates worked; if the viewer is behind \
                 a strict NAT or firewall, a TURN server is needed",
                CONNECT_TIMEOUT.as_secs()
            );
            return self.fail(now, ErrorCode::Timeout, message, out);
        }
        if self.disconnected_at.is_some_and(|at| now.instant >= at + RESTART_GRACE) {
            return self.close(now, CloseReason::Lost, out);
        }
        if let Some(route) = self.media_route()
            && let Some(len) =
                self.viewer.report(now, |shown| times(shown.unwrap_or(self.stream)), route, out)
        {
            self.counted.on_report(now.instant, len);
        }
        self.settle(now, out);
    }

    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let mut timeout = earlier(self.peer.poll_timeout(), Some(self.keepalive_at));
        timeout = earlier(timeout, self.disconnected_at.map(|at| at + RESTART_GRACE));
        timeout = earlier(timeout, self.outbox.poll_timeout());
        match &self.phase {
            Phase::Opening | Phase::Connecting => {
                earlier(timeout, Some(self.started + CONNECT_TIMEOUT))
            }
            Phase::Connected { .. } => {
                // Without a route nothing can be sealed, and time will not change that.
                let media = self.media_route().and_then(|_| self.viewer.poll_timeout());
                earlier(earlier(timeout, media), self.viewer.sound().poll_timeout())
            }
            Phase::Closed => None,
        }
    }

    /// Ends the session with an `error` for the viewer.
    pub fn fail(&mut self, now: Now, code: ErrorCode, message: String, out: &mut Outputs) {
        self.close(now, CloseReason::Failed { code, message }, out);
    }

    /// Ends the session and tells everybody.
    pub fn close(&mut self, now: Now, reason: CloseReason, out: &mut Outputs) {
        if self.is_closed() {
            return;
        }
        if let Some(route) = self.media_route() {
            self.viewer.goodbye(route, out);
        }
        self.phase = Phase::Closed;
        self.outbox.on_arrived();
        match &reason {
            CloseReason::ViewerLeft(_) => {}
            CloseReason::Failed { code, message } => {
                let body = Body::Error { code: *code, message: message.clone() };
                out.signal(now, self.id, To::App(&self.app), body);
            }
            other => {
                let body = Body::Bye { reason: other.to_string() };
                out.signal(now, self.id, To::App(&self.app), body);
            }
        }
        self.report_end(now, &reason, out);
        self.peer.close(now.instant);
        self.end_channels(out);
        while let Some((transmit, data)) = self.peer.poll_transmit() {
            out.send(transmit, data);
        }
        out.push(Want::CloseSockets(std::mem::take(&mut self.sockets)));
        match self.viewer.stats() {
            Some(stats) => log::info!("sessionId={} closed: {reason}; {stats:?}", self.id),
            None => log::info!("sessionId={} closed: {reason}", self.id),
        }
        out.event(Event::ViewerClosed { session: self.id, reason });
    }

    /// Where this viewer's media goes, once it flows.
    fn media_route(&self) -> Option<Route> {
        if self.is_connected() { self.peer.route() } else { None }
    }

    fn answer(&mut self, now: Now, identity: &Identity, out: &mut Outputs) {
        let sdp = match self.offer.answer(&self.peer, &self.viewer, identity) {
            Ok(sdp) => sdp,
            Err(e) => return self.fail(now, e.code, e.message, out),
        };
        self.correspondence.on_answer(&sdp);
        self.counted.on_answer(now.instant);
        let body = Body::Answer { sdp };
        self.outbox.on_sent(now.instant, &body);
        out.signal(now, self.id, To::App(&self.app), body);
    }

    /// Takes what the offer in force says about sound. Without it the pictures come all the same.
    fn take_sound(&mut self) {
        let sound = self.viewer.sound_mut();
        if self.offer.sound().is_ok_and(|choice| !sound.fits(choice)) {
            self.offer.refuse_sound(
                "the offer maps it to another payload type, codec or section than an earlier one of \
                 this session; open a new one",
            );
        }
        sound.agree(self.offer.sound().ok());
        match self.offer.sound() {
            Ok(choice) => log::info!(
                "sessionId={} sound: {}, to the viewer: {}, from it: {}",
                self.id,
                choice.codec.encoding(),
                choice.sends,
                choice.receives
            ),
            Err(NOT_ASKED_FOR) => log::debug!("sessionId={} no sound: {NOT_ASKED_FOR}", self.id),
            Err(why) => log::info!("sessionId={} no sound: {why}", self.id),
        }
    }

    fn take_offered_candidates(&mut self, now: Now) {
        for candidate in self.offer.candidates() {
            self.peer.add_remote_candidate(now.instant, candidate);
        }
    }

    /// Servers given by address are asked at once, the others when their name is looked up.
    fn ask_servers(&mut self, now: Now, random: &mut Random, out: &mut Outputs) {
        for (index, server) in self.servers.iter().enumerate() {
            match server.host.parse() {
                Ok(ip) => {
                    let addr = SocketAddr::new(ip, server.port);
                    self.peer.on_server(now.instant, server, addr, random);
                }
                Err(_) => {
                    self.unresolved += 1;
                    out.push(Want::Resolve {
                        session: self.id,
                        server: index,
                        host: server.host.clone(),
                        port: server.port,
                    });
                }
            }
        }
        if self.unresolved == 0 {
            self.peer.on_servers_complete(now.instant);
        }
    }

    /// Tells the session service, and on its turn the viewer, how the session is.
    fn keepalive(&self, now: Now, to_viewer: bool, out: &mut Outputs) {
        let keepalive = match &self.phase {
            Phase::Opening | Phase::Connecting => {
                Keepalive { state: Some(SessionState::Connecting), ..Keepalive::default() }
            }
            Phase::Connected { path, setup_ms } => Keepalive {
                state: Some(SessionState::Connected),
                path: Some(*path),
                setup_ms: Some(*setup_ms),
                ..Keepalive::default()
            },
            Phase::Closed => return,
        };
        if to_viewer {
            out.signal(now, self.id, To::App(&self.app), Body::Keepalive(keepalive.clone()));
        }
        out.signal(now, self.id, To::Service, Body::Keepalive(keepalive));
    }

    /// The service counts sessions by what ended them.
    fn report_end(&self, now: Now, reason: &CloseReason, out: &mut Outputs) {
        let (code, words) = match reason {
            CloseReason::Failed { code, message } => (Some(*code), message.clone()),
            CloseReason::Lost => (Some(ErrorCode::Timeout), reason.to_string()),
            _ => (None, reason.to_string()),
        };
        let keepalive = Keepalive {
            state: Some(SessionState::Closed),
            code: code.map(ErrorCode::number),
            reason: Some(words),
            ..Keepalive::default()
        };
        out.signal(now, self.id, To::Service, Body::Keepalive(keepalive));
    }

    /// Moves what the transport has to say to where it belongs.
    fn settle(&mut self, now: Now, out: &mut Outputs) {
        while let Some(event) = self.peer.poll_event() {
            match event {
                PeerEvent::LocalCandidate(candidate) => {
                    let candidate = self.offer.local_candidate(candidate);
                    out.signal(now, self.id, To::App(&self.app), Body::Candidate(candidate));
                }
                PeerEvent::Connected { path, keying } => {
                    self.counted.on_route(&self.peer);
                    self.on_connected(now, path, &keying, out);
                }
                PeerEvent::PathChanged(path) => {
                    self.counted.on_route(&self.peer);
                    self.on_path_changed(now, path, out);
                }
                PeerEvent::Disconnected => {
                    log::warn!("sessionId={} no check is answered", self.id);
                    self.disconnected_at.get_or_insert(now.instant);
                }
                PeerEvent::Data(event) => self.on_data_event(event, out),
                PeerEvent::Warning(text) => log::warn!("sessionId={} {text}", self.id),
                PeerEvent::Closed => {
                    self.close(now, CloseReason::ViewerLeft(String::new()), out);
                }
                PeerEvent::Failed(text) => self.fail(now, ErrorCode::Internal, text, out),
            }
        }
        if self.peer.is_proven() {
            self.counted.on_path(now.instant);
            self.outbox.on_arrived();
        }
        if self.peer.has_consent() {
            self.disconnected_at = None;
        }
        while let Some((transmit, data)) = self.peer.poll_transmit() {
            out.send(transmit, data);
        }
    }

    fn on_connected(&mut self, now: Now, path: Path, keying: &SrtpKeying, out: &mut Outputs) {
        let keys = SrtpProfile::from_id(keying.profile)
            .and_then(|profile| SrtpKeys::from_exporter(profile, &keying.material, false));
        let Some(keys) = keys else {
            let message = "the handshake gave no usable SRTP keys".to_owned();
            return self.fail(now, ErrorCode::Internal, message, out);
        };
        self.viewer.on_keys(now.instant, &keys);
        self.counted.on_keys(now.instant, keying.profile);
        let setup = now.instant.saturating_duration_since(self.started);
        let setup_ms = u32::try_from(setup.as_millis()).unwrap_or(u32::MAX);
        self.phase = Phase::Connected { path, setup_ms };
        log::info!("sessionId={} connected in {setup_ms} ms, path {path:?}", self.id);
        out.event(Event::ViewerConnected { session: self.id, path, setup_ms });
        self.keepalive(now, false, out);
    }

    fn on_path_changed(&mut self, now: Now, changed: Path, out: &mut Outputs) {
        if let Phase::Connected { path, .. } = &mut self.phase
            && *path != changed
        {
            log::info!("sessionId={} path is now {changed:?}", self.id);
            *path = changed;
            self.keepalive(now, false, out);
        }
    }
}
