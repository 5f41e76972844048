//! A viewer by the public contract alone (docs/signaling.md): session API, MQTT, offer, trickled
//! candidates, keepalive, bye.

use crate::api::{ApiError, Session, SessionApi};
use crate::broker::{Broker, Login};
use crate::channels::{ChannelOptions, Channels};
use crate::clock;
use crate::conversation::{Conversation, Talk, lock};
use crate::peer::{
    H264Format, Peer, PeerOptions, PeerState, Selected, SharedState, SoundOptions, Srtp,
};
use crate::sound::HeardPacket;
use sdk_core::wire::signal::{Body, Offer, SessionId, app_topic};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// How to watch.
#[derive(Debug, Clone)]
pub struct Options {
    pub stream: Option<String>,
    pub relay_only: bool,
    pub formats: Vec<H264Format>,
    /// Offers H.265 too.
    pub h265: bool,
    pub srtp: Option<Srtp>,
    pub bind: String,
    /// Loses one in so many packets on the way in.
    pub lose_one_in: Option<u32>,
    /// Wants to hear the camera, and perhaps to talk to it.
    pub sound: Option<SoundOptions>,
    pub channels: Vec<ChannelOptions>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            stream: None,
            relay_only: false,
            formats: vec![H264Format::BASELINE, H264Format::BASELINE_MODE_0, H264Format::MAIN],
            h265: false,
            srtp: None,
            bind: "127.0.0.1:0".into(),
            lose_one_in: None,
            sound: None,
            channels: Vec::new(),
        }
    }
}

/// Why there is no picture.
#[derive(Debug)]
pub enum ViewerError {
    Api(ApiError),
    /// The broker, or the webrtc crate, did not do what it should.
    Local(String),
    /// The camera or the service answered with an `error`.
    Refused {
        code: u16,
        message: String,
    },
    /// The camera or the service said `bye`.
    Bye(String),
    /// ICE or DTLS failed.
    Failed(String),
    Timeout(String),
}

impl fmt::Display for ViewerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ViewerError::Api(e) => e.fmt(f),
            ViewerError::Local(text) | ViewerError::Failed(text) => f.write_str(text),
            ViewerError::Refused { code, message } => write!(f, "refused: {code} {message}"),
            ViewerError::Bye(reason) => write!(f, "bye: {reason}"),
            ViewerError::Timeout(what) => write!(f, "timed out: {what}"),
        }
    }
}

impl std::error::Error for ViewerError {}

/// Watches until it is told to leave. Dropped without [`Viewer::leave`] it vanishes without a
/// word, as a phone does that loses its network.
pub struct Viewer {
    pub session: Session,
    peer: Arc<tokio::sync::Mutex<Peer>>,
    talk: Arc<Mutex<Talk>>,
    commands: mpsc::UnboundedSender<Body>,
    ended: watch::Receiver<bool>,
    task: JoinHandle<()>,
    state: SharedState,
}

impl Viewer {
    /// Asks the session API for a session and joins it.
    pub async fn join(
        api: &SessionApi,
        device: &str,
        app: &str,
        options: Options,
    ) -> Result<Viewer, ViewerError> {
        let session = api.create(device, app).await.map_err(ViewerError::Api)?;
        Viewer::join_session(session, options).await
    }

    /// Joins with this session. Returns once the offer has been sent.
    pub async fn join_session(session: Session, options: Options) -> Result<Viewer, ViewerError> {
        let id = SessionId::parse(&session.session_id)
            .ok_or_else(|| ViewerError::Local(format!("not a UUID: {}", session.session_id)))?;
        let peer_options = PeerOptions {
            ice_servers: session.ice_servers.clone(),
            relay_only: options.relay_only,
            formats: options.formats,
            h265: options.h265,
            srtp: options.srtp,
            bind: options.bind,
            lose_one_in: options.lose_one_in,
            sound: options.sound,
            channels: options.channels,
        };
        let (peer, local_candidates) = Peer::new(peer_options).await.map_err(ViewerError::Local)?;
        let (broker, inbox) = Broker::connect(&login(&session), &[app_topic(&session.app)])
            .await
            .map_err(ViewerError::Local)?;
        let offer = Offer {
            sdp: peer.offer().await.map_err(ViewerError::Local)?,
            token: session.token.clone(),
            stream: options.stream,
        };
        let state = peer.shared();
        let peer = Arc::new(tokio::sync::Mutex::new(peer));
        let talk = Arc::new(Mutex::new(Talk::default()));
        let (commands, command_inbox) = mpsc::unbounded_channel();
        let (end, ended) = watch::channel(false);
        let conversation = Conversation {
            id,
            app: session.app.clone(),
            device: session.device.clone(),
            broker,
            peer: peer.clone(),
            talk: talk.clone(),
            state: state.clone(),
            offer: Body::Offer(offer),
            waiting: Vec::new(),
            answered: false,
            reported: None,
        };
        conversation.send_offer().await;
        let run = conversation.run(inbox, local_candidates, command_inbox);
        let task = tokio::spawn(async move {
            run.await;
            end.send_replace(true);
        });
        Ok(Viewer { session, peer, talk, commands, ended, task, state })
    }

    pub fn talk(&self) -> MutexGuard<'_, Talk> {
        lock(&self.talk)
    }

    /// Looks at what was received.
    pub fn look<T>(&self, read: impl FnOnce(&PeerState) -> T) -> T {
        self.state.look(read)
    }

    /// Waits until `done` says so; fails early where the session ended.
    pub async fn until(
        &self,
        what: &str,
        limit: Duration,
        done: impl Fn(&PeerState) -> bool,
    ) -> Result<(), ViewerError> {
        let start = clock::now();
        loop {
            if self.look(&done) {
                return Ok(());
            }
            if let Some(end) = self.end() {
                return Err(end);
            }
            if start.elapsed() > limit {
                return Err(ViewerError::Timeout(format!("{what} after {limit:?}")));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until `count` frames have come in all.
    pub async fn frames(&self, count: u64, limit: Duration) -> Result<(), ViewerError> {
        let what = format!("{count} frames");
        self.until(&what, limit, |state| state.received.frames >= count).await.map_err(|e| match e {
            ViewerError::Timeout(text) => {
                let (frames, packets, connected) = self.look(|s| {
                    (s.received.frames, s.received.packets, s.connected.is_some())
                });
                ViewerError::Timeout(format!(
                    "{text}: {frames} frames of {packets} packets came, connected: {connected}, \
                     answered: {}",
                    self.talk().answered.is_some()
                ))
            }
            other => other,
        })
    }

    /// Waits for the session's end, and says what it was.
    pub async fn until_ended(&self, limit: Duration) -> Result<ViewerError, ViewerError> {
        let start = clock::now();
        loop {
            if let Some(end) = self.end() {
                return Ok(end);
            }
            if start.elapsed() > limit {
                return Err(ViewerError::Timeout(format!("the session's end after {limit:?}")));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// How the session ended, if it did.
    pub fn end(&self) -> Option<ViewerError> {
        {
            let talk = self.talk();
            if let Some((code, message)) = &talk.refused {
                return Some(ViewerError::Refused { code: *code, message: message.clone() });
            }
            if let Some(reason) = &talk.bye {
                return Some(ViewerError::Bye(reason.clone()));
            }
            if let Some(text) = &talk.trouble {
                return Some(ViewerError::Local(text.clone()));
            }
        }
        self.look(|state| state.failed.clone()).map(ViewerError::Failed)
    }

    /// From the first offer to the connection.
    pub fn setup_time(&self) -> Option<Duration> {
        let sent = self.talk().offer_sent?;
        self.look(|state| state.connected).map(|at| at.duration_since(sent))
    }

    /// From the first offer to the first whole frame.
    pub fn first_frame_time(&self) -> Option<Duration> {
        let sent = self.talk().offer_sent?;
        self.look(|state| state.received.first_frame).map(|at| at.duration_since(sent))
    }

    /// Its data channels.
    pub async fn channels(&self) -> Channels {
        self.peer.lock().await.channels()
    }

    /// Opens one more data channel.
    pub async fn open_channel(&self, options: &ChannelOptions) -> Result<(), ViewerError> {
        self.peer.lock().await.open_channel(options).await.map_err(ViewerError::Local)
    }

    /// The pair in use.
    pub async fn selected(&self) -> Option<Selected> {
        self.peer.lock().await.selected().await
    }

    pub async fn send_pli(&self) -> Result<(), ViewerError> {
        self.peer.lock().await.send_pli().await.map_err(ViewerError::Local)
    }

    pub async fn send_fir(&self) -> Result<(), ViewerError> {
        self.peer.lock().await.send_fir().await.map_err(ViewerError::Local)
    }

    /// Says one packet of sound to the camera.
    pub async fn talk_packet(&self, packet: HeardPacket) -> Result<(), ViewerError> {
        self.peer.lock().await.say(packet).await.map_err(ViewerError::Local)
    }

    /// Sends one more signal in this session.
    pub fn say(&self, body: Body) {
        // Once the session has ended there is nobody to say it to.
        let _ = self.commands.send(body);
    }

    /// Says goodbye and closes. Returns when the broker has the goodbye.
    pub async fn leave(mut self) {
        self.say(Body::Bye { reason: "the viewer left".into() });
        let _ = tokio::time::timeout(Duration::from_secs(5), self.ended.wait_for(|e| *e)).await;
        self.peer.lock().await.close().await;
    }

    /// Closes the transport without a word to anyone.
    pub async fn vanish(self) {
        self.task.abort();
        self.peer.lock().await.close().await;
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The log-in that a session's answer describes.
pub fn login(session: &Session) -> Login {
    Login {
        url: session.mqtt.url.clone(),
        // Several viewers may share an application's id; a client id must be unique.
        client_id: format!("{}:{}", session.app, session.session_id),
        username: session.mqtt.username.clone(),
        password: session.mqtt.password.clone(),
    }
}
