//! Many viewers in one process that decode nothing (`bench-peers receive`), and how they come to
//! watch: our camera by its whole way, with the session API and MQTT; the senders it is compared
//! with by an offer and an answer on their standard input and output.

use crate::peers;
use hil_tests::broker::{Broker, Message};
use hil_tests::clock;
use hil_tests::lab::{Lab, PATIENCE};
use hil_tests::lines::{Counts, Line};
use hil_tests::process::Process;
use hil_tests::viewer::login;
use sdk_core::wire::signal::{Body, Keepalive, Offer, SessionId, Signal, app_topic, device_topic};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// All viewers come from one application, so that one MQTT client speaks for them.
const APP: &str = "bench-crowd";

pub(crate) struct Crowd {
    process: Process,
    signaling: Option<Signaling>,
    opened: usize,
    counted: u64,
}

struct Signaling {
    broker: Broker,
    inbox: mpsc::UnboundedReceiver<Message>,
    device: String,
    sessions: Vec<SessionId>,
}

impl Crowd {
    /// Nobody watches yet.
    pub(crate) fn start() -> Result<Crowd, String> {
        let process = peers::start(&["receive"], peers::VIEWERS)?;
        Ok(Crowd { process, signaling: None, opened: 0, counted: 0 })
    }

    /// Has `more` viewers watch the lab's camera.
    pub(crate) async fn watch_camera(&mut self, lab: &Lab, more: usize) -> Result<(), String> {
        for _ in 0..more {
            let (viewer, sdp) = self.offer().await?;
            let session =
                lab.api.create(&lab.setup.device, APP).await.map_err(|e| e.to_string())?;
            let id = SessionId::parse(&session.session_id).ok_or("a session id is no UUID")?;
            if self.signaling.is_none() {
                let (broker, inbox) = Broker::connect(&login(&session), &[app_topic(APP)]).await?;
                let device = lab.setup.device.clone();
                self.signaling = Some(Signaling { broker, inbox, device, sessions: Vec::new() });
            }
            let signaling = self.signaling.as_mut().ok_or("no broker")?;
            let offer = Offer { sdp, token: session.token, stream: None };
            let sdp = signaling.ask(id, offer).await?;
            self.take(viewer, sdp).await?;
            self.connected(viewer).await?;
        }
        Ok(())
    }

    /// Has `more` viewers watch one of the senders that our camera is compared with.
    pub(crate) async fn watch(&mut self, sender: &mut Process, more: usize) -> Result<(), String> {
        for _ in 0..more {
            let (viewer, sdp) = self.offer().await?;
            sender.say(&Line::Offer { viewer, sdp }.write())?;
            let answer = |line: &str| match Line::parse(line) {
                Some(Line::Answer { viewer: of, sdp }) if of == viewer => Some(sdp),
                _ => None,
            };
            let sdp = sender.line("its answer", PATIENCE, answer).await?;
            self.take(viewer, sdp).await?;
            self.connected(viewer).await?;
        }
        Ok(())
    }

    /// What each viewer received so far, in the order in which they came.
    pub(crate) async fn counts(&mut self) -> Result<Vec<Counts>, String> {
        self.counted += 1;
        let wanted = self.counted;
        let mark = self.process.mark();
        self.process.say(&Line::Count { id: wanted }.write())?;
        let counts = |line: &str| match Line::parse(line) {
            Some(Line::Counts { id, viewers }) if id == wanted => Some(viewers),
            _ => None,
        };
        self.process.line_after(mark, "what was received", PATIENCE, counts).await
    }

    /// Says goodbye to the camera.
    pub(crate) async fn leave(mut self) -> Result<(), String> {
        if let Some(signaling) = &mut self.signaling {
            for id in std::mem::take(&mut signaling.sessions) {
                signaling.send(id, Body::Bye { reason: "the benchmark is done".into() }).await?;
            }
            // QoS 1: the client needs a moment to have the last ones confirmed.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Ok(())
    }

    async fn offer(&mut self) -> Result<(usize, String), String> {
        let viewer = self.opened;
        self.opened += 1;
        let mark = self.process.mark();
        self.process.say(&Line::Open { viewer }.write())?;
        let offer = |line: &str| match Line::parse(line) {
            Some(Line::Offer { viewer: of, sdp }) if of == viewer => Some(sdp),
            _ => None,
        };
        let sdp = self.process.line_after(mark, "a viewer's offer", PATIENCE, offer).await?;
        Ok((viewer, sdp))
    }

    async fn take(&mut self, viewer: usize, sdp: String) -> Result<(), String> {
        self.process.say(&Line::Answer { viewer, sdp }.write())
    }

    async fn connected(&mut self, viewer: usize) -> Result<(), String> {
        let is = |line: &str| (Line::parse(line) == Some(Line::Connected { viewer })).then_some(());
        self.process.line("that a viewer is connected", PATIENCE, is).await
    }
}

impl Signaling {
    /// Sends an offer, and waits for its answer.
    async fn ask(&mut self, id: SessionId, offer: Offer) -> Result<String, String> {
        self.send(id, Body::Offer(offer)).await?;
        self.sessions.push(id);
        let sdp = timeout(PATIENCE, self.answer_to(id))
            .await
            .map_err(|_| format!("the camera did not answer in {PATIENCE:?}"))??;
        // It repeats its answer until the viewer is heard.
        self.send(id, Body::Keepalive(Keepalive::default())).await?;
        Ok(sdp)
    }

    async fn answer_to(&mut self, id: SessionId) -> Result<String, String> {
        loop {
            let message = self.inbox.recv().await.ok_or("the MQTT client ended")?;
            let signal = Signal::parse(&message.payload).map_err(|e| e.message)?;
            match signal.body {
                Body::Answer { sdp } if signal.session_id == id => return Ok(sdp),
                Body::Error { code, message } => {
                    return Err(format!("the camera refused: {} {message}", code.number()));
                }
                Body::Bye { reason } => return Err(format!("the camera said goodbye: {reason}")),
                // Its candidates are in its answer, and on loopback the first one works.
                _ => {}
            }
        }
    }

    async fn send(&self, session_id: SessionId, body: Body) -> Result<(), String> {
        let signal = Signal {
            session_id,
            from: APP.into(),
            to: self.device.clone(),
            body,
            timestamp: clock::unix_ms(),
        };
        self.broker.publish(&device_topic(&self.device), signal.to_json()).await
    }
}
