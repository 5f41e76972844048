//! All sessions, and what a signal means for them: who is admitted, refused, or told goodbye.

use super::admission::{Admission, Refusal};
use super::audio::MediaTimes;
use super::outputs::{Outputs, To, Want};
use super::roster::{Entry, Roster};
use super::states::{ChannelRequest, Session, Settings};
use super::streams::Streams;
use super::target::Demand;
use crate::event::{CloseReason, Event, StreamId};
use crate::media::jitter::Piece;
use crate::media::{SendBuffer, Sources, Train, TrainId};
use crate::net::Datagram;
use crate::peer::dtls::Identity;
use crate::peer::{LocalSocket, Route};
use crate::random::Random;
use crate::signaling::mailbox::{FirstOffer, Mailbox};
use crate::time::{Now, earlier};
use crate::wire::audio::AudioCodec;
use crate::wire::sdp::AudioFormat;
use crate::wire::signal::{
    Body, ErrorCode, Offer, SERVER_NAME, SessionId, Signal, SignalError, is_valid_id,
};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub struct Table {
    admission: Admission,
    identity: Identity,
    config: TableConfig,
    /// What the camera has for sound.
    audio: Option<AudioFormat>,
    sessions: Roster,
    mailbox: Mailbox,
    refusals: RefusalLimit,
    /// What viewers can take may have changed.
    targets_moved: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct TableConfig {
    pub max_viewers: usize,
    pub relay_only: bool,
    /// Largest UDP payload to send, in bytes.
    pub max_datagram: usize,
}

impl Table {
    pub fn new(admission: Admission, identity: Identity, config: TableConfig) -> Table {
        Table {
            admission,
            identity,
            config,
            audio: None,
            sessions: Roster::default(),
            mailbox: Mailbox::new(),
            refusals: RefusalLimit::default(),
            targets_moved: false,
        }
    }

    /// Whether [`Self::demand`] may have changed since the last call.
    pub fn take_targets_moved(&mut self) -> bool {
        std::mem::take(&mut self.targets_moved)
    }

    /// What the viewers of a stream ask of its encoder together.
    pub fn demand(&mut self, stream: StreamId) -> Demand {
        let watching = self.sessions.iter_mut().filter_map(|entry| entry.known().watches);
        watching
            .filter(|(watched, _)| *watched == stream)
            .fold(Demand::Nobody, |demand, (_, target)| demand.and(target))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.sessions.iter_mut().map(|entry| &mut **entry)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().map(|entry| &**entry)
    }

    /// Seals what waits for one viewer; says where it goes, and which train ends with it.
    pub fn seal_next(
        &mut self,
        now: Now,
        sources: &dyn Sources,
        out: &mut SendBuffer,
    ) -> Option<(Route, Option<TrainId>)> {
        self.sessions.seal_next(|session| {
            let route = session.seal(now, sources, out)?;
            Some((route, session.take_finished()))
        })
    }

    /// What one viewer says by now; a packet's bytes are written over `data`.
    pub fn speak_next(
        &mut self,
        now: Now,
        data: &mut Vec<u8>,
    ) -> Option<(SessionId, AudioCodec, Piece)> {
        self.sessions.speak_next(|session| {
            let (codec, piece) = session.poll_talkback(now, data)?;
            Some((session.id(), codec, piece))
        })
    }

    /// Takes one message from the broker.
    pub fn handle_signal(
        &mut self,
        now: Now,
        bytes: &[u8],
        streams: &mut Streams,
        random: &mut Random,
        out: &mut Outputs,
    ) {
        let signal = match Signal::parse(bytes) {
            Ok(signal) => signal,
            Err(e) => return self.refuse_unread(now, e, out),
        };
        if signal.from == SERVER_NAME {
            return self.on_service(now, &signal, out);
        }
        let id = signal.session_id;
        if let Some(session) = self.find_of(id, &signal.from) {
            session.on_heard(&signal.body);
        }
        match &signal.body {
            Body::Offer(offer) => self.on_offer(now, &signal, offer, streams, random, out),
            Body::Candidate(candidate) => match self.find(id) {
                Some(session) if session.app() == signal.from => {
                    session.on_candidate(now, candidate, out);
                }
                Some(_) => {
                    self.refuse(now, id, &signal.from, in_use(), out);
                }
                None => {
                    self.mailbox.hold(now.instant, id, &signal.from, candidate.clone());
                }
            },
            Body::Bye { reason } => match self.find_of(id, &signal.from) {
                Some(session) => session.close(now, CloseReason::ViewerLeft(clip(reason)), out),
                None => self.mailbox.on_bye(id, &signal.from),
            },
            Body::Keepalive(keepalive) => match self.find_of(id, &signal.from) {
                Some(session) => {
                    if let Some(name) = &keepalive.stream {
                        session.on_stream_asked(now, &clip(name), streams, out);
                        self.targets_moved = true;
                    }
                }
                None => {
                    let message = "there is no such session on this device; create a new one";
                    let refusal =
                        Refusal { code: ErrorCode::NoSession, message: message.to_owned() };
                    self.refuse(now, id, &signal.from, refusal, out);
                }
            },
            Body::Error { code, message } => {
                if let Some(session) = self.find_of(id, &signal.from) {
                    let reason = CloseReason::ViewerLeft(format!("{} ({code})", clip(message)));
                    session.close(now, reason, out);
                }
            }
            Body::Answer { .. } => {
                let message = "a camera makes no offers, so it takes no answers".to_owned();
                let refusal = Refusal { code: ErrorCode::Malformed, message };
                self.refuse(now, id, &signal.from, refusal, out);
            }
        }
        self.bury(now);
    }

    pub fn on_sockets(
        &mut self,
        now: Now,
        id: SessionId,
        sockets: Result<Vec<LocalSocket>, String>,
        random: &mut Random,
        out: &mut Outputs,
    ) {
        match self.sessions.find(id) {
            Some(session) => {
                session.on_sockets(now, sockets, &self.identity, random, out);
                for candidate in self.mailbox.collect(now.instant, id, session.app()) {
                    session.on_candidate(now, &candidate, out);
                }
                self.sessions.on_sockets();
            }
            // It was closed in the meantime.
            None => {
                let ids = sockets.unwrap_or_default().iter().map(|s| s.id).collect();
                out.push(Want::CloseSockets(ids));
            }
        }
        self.bury(now);
    }

    pub fn on_resolved(
        &mut self,
        now: Now,
        id: SessionId,
        server: usize,
        addr: Option<SocketAddr>,
        random: &mut Random,
        out: &mut Outputs,
    ) {
        if let Some(session) = self.find(id) {
            session.on_resolved(now, server, addr, random, out);
        }
        self.bury(now);
    }

    pub fn handle_datagram(
        &mut self,
        now: Now,
        datagram: Datagram<'_>,
        streams: &mut Streams,
        out: &mut Outputs,
    ) {
        let Some(session) = self.sessions.owner(datagram.socket) else { return };
        let before = session.target();
        session.handle_datagram(now, datagram, streams, out);
        self.targets_moved |= session.target() != before;
        if session.is_closed() {
            self.bury(now);
        }
    }

    /// What the camera has for sound from now on. Who watches already hears it after its next offer.
    pub fn set_audio(&mut self, audio: Option<AudioFormat>) {
        self.audio = audio;
        self.sessions.iter_mut().for_each(|session| session.end_sound());
    }

    /// `times` is what the clocks of a stream and of the sound show now.
    pub fn handle_timeout(
        &mut self,
        now: Now,
        times: &dyn Fn(StreamId) -> MediaTimes,
        out: &mut Outputs,
    ) {
        // A viewer that says nothing is taken to have less.
        self.targets_moved = true;
        for session in self.sessions.iter_mut() {
            if session.known().timeout.is_some_and(|at| at <= now.instant) {
                session.handle_timeout(now, times, out);
            }
        }
        self.bury(now);
    }

    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.sessions.iter_mut().map(|entry| entry.known().timeout).fold(None, earlier)
    }

    /// What the firmware wants of a viewer's data channel.
    pub fn on_channel_request(
        &mut self,
        now: Now,
        id: SessionId,
        channel: u16,
        request: ChannelRequest,
        out: &mut Outputs,
    ) {
        if let Some(session) = self.find(id) {
            session.on_channel_request(now, channel, request, out);
        }
        self.bury(now);
    }

    /// A frame was cut into packets: for whoever watches that stream, or waits for its keyframe.
    pub fn on_train(&mut self, now: Now, train: &Train, streams: &Streams, out: &mut Outputs) {
        for session in self.sessions.iter_mut() {
            let before = session.stream();
            session.on_train(now, train, streams, out);
            self.targets_moved |= session.stream() != before;
        }
    }

    /// The firmware wants a viewer to see another stream.
    pub fn switch(
        &mut self,
        now: Now,
        id: SessionId,
        to: StreamId,
        streams: &mut Streams,
        out: &mut Outputs,
    ) {
        if let Some(session) = self.find(id)
            && let Err(e) = session.switch(now, to, streams, out)
        {
            log::warn!("sessionId={id} stays with its stream: {e}");
        }
    }

    /// Ends the sessions that watch a stream, since it is gone.
    pub fn on_stream_stopped(&mut self, now: Now, stream: StreamId, out: &mut Outputs) {
        let reason = CloseReason::ClosedByDevice("the stream was stopped");
        self.close_all(now, &reason, |s| s.stream() == stream, out);
        for session in self.sessions.iter_mut() {
            session.on_stream_stopped(stream);
        }
    }

    /// Ends one session at the firmware's wish.
    pub fn close(&mut self, now: Now, id: SessionId, reason: CloseReason, out: &mut Outputs) {
        if let Some(session) = self.find(id) {
            session.close(now, reason, out);
        }
        self.bury(now);
    }

    /// Ends all sessions that `which` picks.
    pub fn close_all(
        &mut self,
        now: Now,
        reason: &CloseReason,
        which: impl Fn(&Session) -> bool,
        out: &mut Outputs,
    ) {
        for session in self.sessions.iter_mut().filter(|s| which(s)) {
            session.close(now, reason.clone(), out);
        }
        self.bury(now);
    }

    fn on_offer(
        &mut self,
        now: Now,
        signal: &Signal,
        offer: &Offer,
        streams: &mut Streams,
        random: &mut Random,
        out: &mut Outputs,
    ) {
        let id = signal.session_id;
        if let Some(session) = self.sessions.find(id) {
            if session.app() != signal.from {
                self.refuse(now, id, &signal.from, in_use(), out);
                return;
            }
            session.on_offer(now, offer, streams, self.audio, &self.identity, out);
            return;
        }
        if self.mailbox.on_offer(now.instant, id, &offer.sdp) == FirstOffer::Stale {
            log::debug!("sessionId={id} an offer of a closed session was delivered again");
            return;
        }
        match self.admit(now, signal, offer, streams, random) {
            Ok(mut session) => {
                session.begin(out);
                // Asked for now, the keyframe is there when the viewer is connected.
                if let Some(stream) = streams.get_mut(session.stream()) {
                    stream.want_keyframe(now, out);
                }
                self.sessions.push(session);
            }
            Err(refusal) => {
                let reason =
                    CloseReason::Failed { code: refusal.code, message: refusal.message.clone() };
                if self.refuse(now, id, &signal.from, refusal, out) {
                    out.event(Event::ViewerClosed { session: id, reason });
                }
            }
        }
    }

    fn admit(
        &mut self,
        now: Now,
        signal: &Signal,
        offer: &Offer,
        streams: &Streams,
        random: &mut Random,
    ) -> Result<Session, Refusal> {
        let refuse = |code, message: String| Err(Refusal { code, message });
        let id = signal.session_id;
        let claims = self.admission.check(now, id, &signal.from, &offer.token)?;
        let name = offer.stream.as_deref().unwrap_or("main");
        let Some(stream) = streams.named(name) else {
            let message = format!("the stream {name:?} is not running on this device");
            return refuse(ErrorCode::Unavailable, clip(&message));
        };
        if self.sessions.len() >= self.config.max_viewers {
            let message =
                format!("{} viewers watch already, which is the limit", self.sessions.len());
            return refuse(ErrorCode::TooMany, message);
        }
        let settings = Settings {
            identity: &self.identity,
            relay_only: self.config.relay_only,
            audio: self.audio,
            max_datagram: self.config.max_datagram,
        };
        Session::new(now, signal, offer, &claims, stream, &settings, random)
            .map_err(|e| Refusal { code: e.code, message: e.message })
    }

    /// The session service tells the time, and may end a session.
    fn on_service(&mut self, now: Now, signal: &Signal, out: &mut Outputs) {
        match &signal.body {
            Body::Keepalive(_) => self.admission.on_service_time(now, signal.timestamp),
            Body::Bye { reason } => {
                let reason = CloseReason::ClosedByService(clip(reason));
                self.close(now, signal.session_id, reason, out);
            }
            other => {
                log::debug!("sessionId={} {} from the service", signal.session_id, other.kind())
            }
        }
    }

    fn refuse_unread(&mut self, now: Now, e: SignalError, out: &mut Outputs) {
        match (e.session_id, &e.from) {
            (Some(id), Some(from)) => {
                let refusal = Refusal { code: e.code, message: e.message };
                self.refuse(now, id, from, refusal, out);
            }
            _ => log::warn!("{e}; there is nobody to tell"),
        }
    }

    /// Sends an `error`. False if that was not possible or would be too much.
    fn refuse(
        &mut self,
        now: Now,
        id: SessionId,
        to: &str,
        refusal: Refusal,
        out: &mut Outputs,
    ) -> bool {
        if !is_valid_id(to) || !self.refusals.allow(now.instant) {
            return false;
        }
        log::warn!("sessionId={id} app={to} refused ({}): {}", refusal.code, refusal.message);
        let body = Body::Error { code: refusal.code, message: refusal.message };
        out.signal(now, id, To::App(to), body);
        true
    }

    fn find(&mut self, id: SessionId) -> Option<&mut Entry> {
        self.sessions.find(id)
    }

    fn find_of(&mut self, id: SessionId, app: &str) -> Option<&mut Entry> {
        self.find(id).filter(|s| s.app() == app)
    }

    fn bury(&mut self, now: Now) {
        let Table { sessions, mailbox, targets_moved, .. } = self;
        *targets_moved |= sessions.remove_closed(|session| {
            mailbox.on_closed(now.instant, session.id(), session.correspondence());
        });
    }
}

fn in_use() -> Refusal {
    let message = "the session id is in use by another application".to_owned();
    Refusal { code: ErrorCode::Conflict, message }
}

/// A stranger's words, short enough for a log line.
fn clip(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Errors are answered, but at most [`RefusalLimit::PER_SECOND`].
#[derive(Default)]
struct RefusalLimit {
    window: Option<Instant>,
    sent: u32,
}

impl RefusalLimit {
    const PER_SECOND: u32 = 20;

    fn allow(&mut self, now: Instant) -> bool {
        if self.window.is_none_or(|start| now >= start + Duration::from_secs(1)) {
            self.window = Some(now);
            self.sent = 0;
        }
        self.sent += 1;
        self.sent <= Self::PER_SECOND
    }
}
