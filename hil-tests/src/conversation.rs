//! The viewer's side of the conversation in one session: repeats the offer until the camera is
//! heard, trickles candidates, keeps the session alive, and writes down what was said.

use crate::broker::{Broker, Message};
use crate::clock;
use crate::peer::{Peer, SharedState};
use sdk_core::wire::signal::{
    Body, Candidate, Keepalive, Path, SERVER_TOPIC, SessionId, SessionState, Signal, device_topic,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};

/// An offer is repeated after these pauses, until the camera is heard in this session.
const OFFER_PAUSES: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);

/// What was said, for tests to look at.
#[derive(Default)]
pub struct Talk {
    pub offer_sent: Option<Instant>,
    pub offers_sent: u32,
    pub answered: Option<Instant>,
    /// Every `answer` that came, whole: repeated ones must be the same.
    pub answers: Vec<String>,
    pub remote_candidates: Vec<String>,
    pub keepalives: u32,
    /// Those of the camera's that speak of streams.
    pub streams_told: Vec<Keepalive>,
    pub refused: Option<(u16, String)>,
    pub bye: Option<String>,
    pub trouble: Option<String>,
}

/// The task's side: what is sent and received in one session.
pub(crate) struct Conversation {
    pub(crate) id: SessionId,
    pub(crate) app: String,
    pub(crate) device: String,
    pub(crate) broker: Broker,
    pub(crate) peer: Arc<tokio::sync::Mutex<Peer>>,
    pub(crate) talk: Arc<Mutex<Talk>>,
    pub(crate) state: SharedState,
    pub(crate) offer: Body,
    /// Candidates that came before the answer.
    pub(crate) waiting: Vec<Candidate>,
    pub(crate) answered: bool,
    pub(crate) reported: Option<SessionState>,
}

impl Conversation {
    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Message>,
        mut local_candidates: mpsc::UnboundedReceiver<Candidate>,
        mut commands: mpsc::UnboundedReceiver<Body>,
    ) {
        let start = tokio::time::Instant::now();
        let mut retries = OFFER_PAUSES.iter();
        let mut next_offer = retries.next().map(|pause| start + *pause);
        let mut next_keepalive = start + KEEPALIVE_EVERY;
        // Notices the connection, to report it.
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            let offer_at = next_offer.unwrap_or(start + ANSWER_TIMEOUT);
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => if self.on_message(message).await { return },
                    None => return self.trouble("the MQTT client ended".into()),
                },
                Some(candidate) = local_candidates.recv() => {
                    self.send(Body::Candidate(candidate)).await;
                }
                Some(body) = commands.recv() => {
                    let last = matches!(body, Body::Bye { .. });
                    self.send(body).await;
                    if last {
                        self.report(SessionState::Closed).await;
                        // QoS 1: the client needs a moment to have it confirmed.
                        sleep(Duration::from_millis(200)).await;
                        return;
                    }
                }
                _ = sleep_until(offer_at), if !self.answered => {
                    if next_offer.is_none() {
                        return self.trouble(format!("no answer in {ANSWER_TIMEOUT:?}"));
                    }
                    self.send_offer().await;
                    next_offer = retries.next().map(|pause| offer_at + *pause);
                }
                _ = sleep_until(next_keepalive) => {
                    next_keepalive += KEEPALIVE_EVERY;
                    self.send(Body::Keepalive(Keepalive::default())).await;
                }
                _ = tick.tick(), if self.reported.is_none() => {
                    if self.connected().is_some() {
                        self.report(SessionState::Connected).await;
                    }
                }
            }
        }
    }

    pub(crate) async fn send_offer(&self) {
        self.send(self.offer.clone()).await;
        let mut talk = lock(&self.talk);
        talk.offer_sent.get_or_insert(clock::now());
        talk.offers_sent += 1;
    }

    async fn send(&self, body: Body) {
        self.send_to(&device_topic(&self.device), body).await;
    }

    async fn send_to(&self, topic: &str, body: Body) {
        let signal = Signal {
            session_id: self.id,
            from: self.app.clone(),
            to: self.device.clone(),
            body,
            timestamp: clock::unix_ms(),
        };
        if let Err(e) = self.broker.publish(topic, signal.to_json()).await {
            self.trouble(e);
        }
    }

    /// Tells the session service what the session has come to.
    async fn report(&mut self, state: SessionState) {
        self.reported = Some(state);
        let sent = lock(&self.talk).offer_sent;
        let setup = self.connected().zip(sent).map(|(at, sent)| at.duration_since(sent));
        let path = match state {
            SessionState::Connected => self.path().await,
            _ => None,
        };
        let report = Keepalive {
            state: Some(state),
            path,
            setup_ms: setup.and_then(|setup| u32::try_from(setup.as_millis()).ok()),
            ..Keepalive::default()
        };
        self.send_to(SERVER_TOPIC, Body::Keepalive(report)).await;
    }

    async fn path(&self) -> Option<Path> {
        let selected = self.peer.lock().await.selected().await?;
        Some(match (selected.local.as_str(), selected.remote.as_str()) {
            ("relay", _) | (_, "relay") => Path::Relay,
            ("srflx", _) | (_, "srflx") => Path::Srflx,
            ("prflx", _) | (_, "prflx") => Path::Prflx,
            _ => Path::Host,
        })
    }

    fn connected(&self) -> Option<Instant> {
        self.state.look(|state| state.connected)
    }

    /// True once the session has ended.
    async fn on_message(&mut self, message: Message) -> bool {
        let signal = match Signal::parse(&message.payload) {
            Ok(signal) => signal,
            Err(e) => {
                self.trouble(format!("the camera sent what cannot be read: {}", e.message));
                return true;
            }
        };
        if signal.session_id != self.id {
            return false;
        }
        match signal.body {
            Body::Answer { sdp } => self.on_answer(sdp).await,
            Body::Candidate(candidate) => {
                lock(&self.talk).remote_candidates.push(candidate.candidate.clone());
                match self.answered {
                    true => self.add(candidate).await,
                    false => self.waiting.push(candidate),
                }
            }
            Body::Keepalive(keepalive) => {
                let mut talk = lock(&self.talk);
                talk.keepalives += 1;
                if keepalive.stream.is_some() {
                    talk.streams_told.push(keepalive);
                }
            }
            Body::Bye { reason } => {
                lock(&self.talk).bye = Some(reason);
                return true;
            }
            Body::Error { code, message } => {
                lock(&self.talk).refused = Some((code.number(), message));
                return true;
            }
            Body::Offer(_) => self.trouble("the camera sent an offer".into()),
        }
        false
    }

    async fn on_answer(&mut self, sdp: String) {
        {
            let mut talk = lock(&self.talk);
            talk.answers.push(sdp.clone());
            talk.answered.get_or_insert(clock::now());
        }
        if std::mem::replace(&mut self.answered, true) {
            return;
        }
        if let Err(e) = self.peer.lock().await.answer(sdp.clone()).await {
            return self.trouble(format!("the answer cannot be used: {e}\n{sdp}"));
        }
        for candidate in std::mem::take(&mut self.waiting) {
            self.add(candidate).await;
        }
    }

    async fn add(&self, candidate: Candidate) {
        // The end of candidates needs no word to the crate.
        if !candidate.candidate.is_empty()
            && let Err(e) = self.peer.lock().await.add_candidate(candidate.clone()).await
        {
            self.trouble(format!("candidate {:?} cannot be used: {e}", candidate.candidate));
        }
    }

    fn trouble(&self, text: String) {
        log::warn!("viewer {}: {text}", self.id);
        lock(&self.talk).trouble.get_or_insert(text);
    }
}

pub(crate) fn lock(talk: &Mutex<Talk>) -> MutexGuard<'_, Talk> {
    talk.lock().unwrap_or_else(PoisonError::into_inner)
}
