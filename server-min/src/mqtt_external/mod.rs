//! A broker that is not ours (`[mqtt] external`): the session service is one of its clients.
//!
//! ```text
//! Service ─ publish ─→ Outbox ─┐                    ┌→ Reports ─→ Service (p2p/signal/server)
//!    └ is_online ──→ Presence ←┼─ link (rumqttc) ←──┤
//!                              └→ the broker ───────┴→ Presence (p2p/status/device/+, retained)
//! ```
//!
//! MQTT 5, QoS 1. `rumqttc` speaks it over one connection at a time; what must survive a connection
//! (messages, the pauses between attempts) is kept here, and the broker keeps what comes for us
//! meanwhile. The connection is made anew for ever, with full jitter. docs/external-broker.md says
//! what the broker must be told, and what it cannot know.

mod backoff;
mod dynsec;
mod endpoint;
mod hook;
mod link;
mod outbox;
mod presence;

pub use endpoint::check;
pub use hook::Hook;

use crate::clock;
use crate::config::{MqttConfig, Secret};
use crate::metrics::{Kind, Text};
use crate::mqtt::Role;
use crate::session::Credentials;
use bytes::Bytes;
use dynsec::Dynsec;
use endpoint::Endpoint;
use outbox::Outbox;
use presence::Presence;
use sdk_core::wire::signal::SERVER_TOPIC;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};

/// Reports that may wait for the session service; what comes on top is dropped and counted. Each
/// side repeats its state every 20 s.
const REPORTS_WAITING: usize = 4096;
/// A report has some 200 bytes.
const MAX_REPORT_LEN: usize = 8 * 1024;

/// How long a session waits for its application to be let in.
const ADMISSION: Duration = Duration::from_secs(2);

/// How the broker learns who may sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum Provisioning {
    /// By messages to Mosquitto's dynamic security plugin.
    #[serde(rename = "mosquitto-dynsec")]
    MosquittoDynsec,
}

/// What was published on `p2p/signal/server`, by whomever.
pub type Reports = mpsc::Receiver<Bytes>;

/// The link to the broker. Cheap to clone; within one `LocalSet`.
#[derive(Clone)]
pub struct ExternalBroker(Rc<Shared>);

struct Shared {
    endpoint: Endpoint,
    credentials: Option<(String, Secret)>,
    client_id: String,
    /// One of several nodes that share the reports among them.
    is_sharing: bool,
    seed: u64,
    /// Where the broker must be told who may sign in.
    dynsec: Option<RefCell<Dynsec>>,
    outbox: RefCell<Outbox>,
    presence: RefCell<Presence>,
    reports: mpsc::Sender<Bytes>,
    /// There is something to send, or it is time to end.
    wake: Notify,
    is_closing: Cell<bool>,
    closed: Notify,
    /// Why it is not up; `None` while it is.
    trouble: RefCell<Option<String>>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    connects: Cell<u64>,
    taken: Cell<u64>,
    acknowledged: Cell<u64>,
    refused: Cell<u64>,
    reports_dropped: Cell<u64>,
}

impl ExternalBroker {
    /// Reads the settings and the files they name; [`ExternalBroker::run`] connects. `None` where
    /// `external` is not set. `random` is for the client id and the pauses between attempts.
    pub fn new(
        config: &MqttConfig,
        random: [u8; 16],
    ) -> Result<Option<(ExternalBroker, Reports)>, String> {
        let Some(url) = &config.external else { return Ok(None) };
        let (reports, reports_out) = mpsc::channel(REPORTS_WAITING);
        let number = u128::from_be_bytes(random);
        let named = config.external_client_id.clone();
        let password = || config.external_password.clone().unwrap_or(Secret::new(""));
        let client_id = named.unwrap_or_else(|| format!("server-min-{:016x}", number >> 64));
        let username = config.external_username.as_deref().unwrap_or_default();
        let dynsec = config
            .external_provisioning
            .map(|Provisioning::MosquittoDynsec| RefCell::new(Dynsec::new(username, &client_id)));
        let shared = Shared {
            endpoint: Endpoint::new(url, config)?,
            credentials: config.external_username.clone().map(|name| (name, password())),
            client_id,
            dynsec,
            is_sharing: config.external_share,
            seed: number as u64,
            outbox: RefCell::default(),
            presence: RefCell::default(),
            reports,
            wake: Notify::new(),
            is_closing: Cell::new(false),
            closed: Notify::new(),
            trouble: RefCell::new(Some("not connected yet".into())),
            counters: Counters::default(),
        };
        Ok(Some((ExternalBroker(Rc::new(shared)), reports_out)))
    }

    /// Connects, and again whenever the connection is lost, until [`ExternalBroker::shutdown`].
    pub async fn run(self) {
        link::run(&self.0).await;
        self.0.closed.notify_one();
    }

    /// Queues a message, QoS 1, not retained. It is kept until the broker acknowledges it; what is
    /// too much or too old is dropped, the oldest first (10,000 messages, 8 MiB, a minute).
    pub fn publish(&self, topic: &str, payload: Vec<u8>) {
        self.0.outbox.borrow_mut().push(Instant::now(), topic, payload);
        self.0.wake.notify_one();
    }

    /// Lets the application of a new session sign in, where the broker must be told. Waits until it
    /// has been, but not for long: an application that comes too early tries again.
    pub async fn admit(&self, session_id: &str, app: &Credentials) {
        let Some(dynsec) = &self.0.dynsec else { return };
        let (now_s, now) = (clock::now_ms() / 1000, Instant::now());
        let told = dynsec.borrow_mut().admit(session_id, app, now_s, now);
        let Some((told, done)) = told else { return };
        self.publish(dynsec::COMMANDS, told);
        if timeout(ADMISSION, done).await.is_err() {
            log::warn!("sessionId={session_id} the broker has not yet let its application in");
        }
    }

    /// A session is over.
    pub fn dismiss(&self, session_id: &str, app_id: &str) {
        if let Some(dynsec) = &self.0.dynsec {
            dynsec.borrow_mut().dismiss(session_id, app_id, Instant::now());
            self.0.wake.notify_one();
        }
    }

    /// Whether a device is connected to the broker, by what it says of itself. Of applications
    /// nobody says it; and nobody knows while we are not connected.
    pub fn is_online(&self, role: Role, id: &str) -> Option<bool> {
        if role != Role::Device || self.trouble().is_some() {
            return None;
        }
        self.0.presence.borrow().is_online(id)
    }

    /// Why messages neither come nor go at present; `None` if they do.
    pub fn trouble(&self) -> Option<String> {
        self.0.trouble.borrow().clone()
    }

    /// Sends what is queued and leaves in order, but takes no longer than `grace`.
    pub async fn shutdown(&self, grace: Duration) {
        self.0.is_closing.set(true);
        self.0.wake.notify_one();
        if timeout(grace, self.0.closed.notified()).await.is_err() {
            log::warn!(
                "{}: left with {} messages unsent",
                self.address(),
                self.0.outbox.borrow().len()
            );
        }
    }

    /// `mqtts://host:port`
    pub fn address(&self) -> String {
        self.0.endpoint.to_string()
    }

    pub(crate) fn write_metrics(&self, text: &mut Text) {
        let (shared, counters) = (&*self.0, &self.0.counters);
        let outbox = shared.outbox.borrow();
        for (name, kind, help, value) in [
            (
                "mqtt_external_up",
                Kind::Gauge,
                "Whether the external broker is connected and subscribed to",
                u64::from(shared.trouble.borrow().is_none()),
            ),
            (
                "mqtt_external_connects_total",
                Kind::Counter,
                "Times it became so",
                counters.connects.get(),
            ),
            (
                "mqtt_external_queued",
                Kind::Gauge,
                "Messages it has not acknowledged",
                outbox.len() as u64,
            ),
            (
                "mqtt_external_messages_out_total",
                Kind::Counter,
                "Messages it acknowledged",
                counters.acknowledged.get(),
            ),
            (
                "mqtt_external_refused_total",
                Kind::Counter,
                "Messages its access rules refused",
                counters.refused.get(),
            ),
            (
                "mqtt_external_dropped_total",
                Kind::Counter,
                "Messages dropped before it had them, and reports nobody took",
                outbox.dropped() + counters.reports_dropped.get(),
            ),
            (
                "mqtt_external_reports_total",
                Kind::Counter,
                "Reports it delivered",
                counters.taken.get(),
            ),
            (
                "mqtt_external_devices_online",
                Kind::Gauge,
                "Devices that say they are connected to it",
                shared.presence.borrow().online() as u64,
            ),
        ] {
            text.family(name, kind, help);
            text.sample(name, &[], value);
        }
    }
}

impl Shared {
    fn on_message(&self, topic: &str, payload: Bytes) {
        if let Some(dynsec) = self.dynsec.as_ref().filter(|_| topic == dynsec::ANSWERS) {
            let say = dynsec.borrow_mut().on_answer(&payload, clock::now_ms() / 1000);
            let mut outbox = self.outbox.borrow_mut();
            return say
                .into_iter()
                .for_each(|it| outbox.push(Instant::now(), dynsec::COMMANDS, it));
        }
        if topic != SERVER_TOPIC {
            return self.presence.borrow_mut().on_status(topic, &payload);
        }
        add_one(&self.counters.taken);
        if payload.len() > MAX_REPORT_LEN || self.reports.try_send(payload).is_err() {
            add_one(&self.counters.reports_dropped);
        }
    }
}

fn add_one(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}
