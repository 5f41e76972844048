//! The session service: gives sessions out, hears what becomes of them, and ends them.

use super::closing::{Bye, Closing};
use super::credentials::{self, Credentials};
use super::ending::{Ending, Reason};
use super::keys::{self, SigningKey};
use super::listing::{Listed, Wanted};
use super::messages::Messages;
use super::metrics::{Metrics, Totals};
use super::recent::{Ended, Recent};
use super::record::SessionRecord;
use super::store::{Change, Counts, SessionStore, StoreError};
use crate::config::Secret;
use crate::metrics::Text;
use crate::mqtt::{Identity, Role};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sdk_core::wire::signal::{
    Body, ErrorCode, Keepalive, Path, SERVER_TOPIC, SessionId, SessionState, Signal, is_valid_id,
};
use sdk_core::wire::token::{self, Claims, IceServer};
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

/// How the service signs in its own messages.
pub const SERVER_ID: &str = "server";
/// Stale sessions closed in one step, so that a large sweep does not hold up everything else.
const SWEEP_BATCH: usize = 500;
/// A user name has kbit/s.
const MIN_BANDWIDTH_BPS: u64 = 1000;
const MAX_NAMED_BANDWIDTH_BPS: u64 = 1_000_000_000_000;
/// Of these, how many are under way to a shared store at a time.
const CLOSED_AT_ONCE: usize = 32;

/// What the service needs from its neighbours: the broker and the relay.
pub trait Links {
    /// Publishes with QoS 1, not retained. The error says why the broker did not take it.
    fn publish(&self, topic: &str, payload: Vec<u8>) -> Result<(), String>;

    /// Whether someone is connected to the broker; `None` where that cannot be known.
    fn is_online(&self, role: Role, id: &str) -> Option<bool>;

    /// Which relay serves a session in a region. `own` says where clients reach that of this server.
    fn relay_for(&self, session_id: &str, region: &str, own: &Addresses) -> Option<Relay>;

    /// Frees what the relay has allocated for a session.
    fn free_relay(&self, session_id: &str);

    /// Whether all nodes publish through one and the same broker, or each has its own.
    fn shares_broker(&self) -> bool {
        false
    }

    /// Lets the application of a new session sign in, at a broker that must be told.
    fn admit<'a>(&'a self, _session_id: &'a str, _app: &'a Credentials) -> Admission<'a> {
        Box::pin(async {})
    }

    /// The session is over, and the application may go unless it has another one.
    fn dismiss(&self, _session_id: &str, _app_id: &str) {}
}

/// Done when the broker has been told, or does not answer.
pub type Admission<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// The service's settings.
#[derive(Clone)]
pub struct ServiceConfig {
    /// The most that a request may ask for; 0 is no limit.
    pub max_bandwidth_bps: u64,
    pub mqtt_app_secret: Secret,
    pub token_ttl_s: u64,
    pub ttl_s: u64,
    pub stale_after_s: u64,
}

/// Where clients reach this server, as the request's host and the configuration say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// `host:port`
    pub stun: String,
    pub turn_urls: Vec<String>,
    pub mqtt_url: String,
    pub ws_url: String,
}

/// The relay that both sides of a session are told of.
pub struct Relay {
    /// `host:port`, where it serves STUN as well.
    pub stun: Option<String>,
    pub turn_urls: Vec<String>,
    /// Signs the session's credentials for it.
    pub secret: Rc<[u8]>,
}

/// A request for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub device_id: String,
    pub app_id: String,
    /// The one that was chosen for it.
    pub region: String,
    /// For the relay, in each direction; its default if not set.
    pub bandwidth_bps: Option<u64>,
    /// On whose authority, for the log.
    pub by: String,
}

/// What an application gets with a session.
pub struct Created {
    pub session_id: SessionId,
    pub token: String,
    /// Unix seconds until which the token opens its camera.
    pub expires_at_s: u64,
    pub ice_servers: Vec<IceServer>,
    pub mqtt: Credentials,
    /// `None` where it is not known.
    pub device_online: Option<bool>,
}

/// Why no session was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateError {
    /// The request cannot be fulfilled as it is, with what to change.
    Invalid(String),
    Store(StoreError),
    Internal(String),
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CreateError::Invalid(text) | CreateError::Internal(text) => f.write_str(text),
            CreateError::Store(error) => error.fmt(f),
        }
    }
}

pub struct Service {
    config: RefCell<Rc<ServiceConfig>>,
    store: Rc<dyn SessionStore>,
    key: SigningKey,
    metrics: Arc<Metrics>,
    messages: Messages,
    recent: Recent,
}

impl Service {
    pub fn new(
        config: ServiceConfig,
        store: Rc<dyn SessionStore>,
        key: SigningKey,
        metrics: Arc<Metrics>,
        links: Rc<dyn Links>,
    ) -> Service {
        let config = RefCell::new(Rc::new(config));
        let messages = Messages::new(links);
        let hear = messages.clone();
        store.on_closing(Rc::new(move |closing, by, now_ms| hear.on_closing(closing, by, now_ms)));
        Service { config, store, key, metrics, messages, recent: Recent::default() }
    }

    /// Changes settings for what comes from now on.
    pub fn reconfigure(&self, change: impl FnOnce(&mut ServiceConfig)) {
        change(Rc::make_mut(&mut self.config.borrow_mut()));
    }

    fn config(&self) -> Rc<ServiceConfig> {
        self.config.borrow().clone()
    }

    /// The last sessions that ended, as this process saw it.
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// What became of sessions since the start, in this process.
    pub fn totals(&self) -> Totals {
        self.metrics.totals()
    }

    /// The sessions there are; `None` while the store is away.
    pub fn counts(&self) -> Option<Counts> {
        self.store.counts()
    }

    /// Whether someone is connected to the broker; `None` where that cannot be known.
    pub fn is_online(&self, role: Role, id: &str) -> Option<bool> {
        self.messages.is_online(role, id)
    }

    pub fn write_metrics(&self, text: &mut Text) {
        self.metrics.write(text, self.store.counts(), self.store.is_shared());
    }

    /// What the store answered; its errors are counted.
    fn kept<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        answer.inspect_err(|error| self.metrics.on_store_error(error))
    }

    /// Gives out a session: its record, its token, and both sides' credentials.
    pub async fn create(
        &self,
        request: Request,
        addresses: &Addresses,
        now_ms: u64,
    ) -> Result<Created, CreateError> {
        check(&request).map_err(CreateError::Invalid)?;
        let config = self.config();
        check_bandwidth(request.bandwidth_bps, config.max_bandwidth_bps)
            .map_err(CreateError::Invalid)?;
        let random = keys::random().map_err(|e| CreateError::Internal(e.to_string()))?;
        let id = SessionId::from_random(random);
        let sid = id.to_string();
        let now_s = now_ms / 1000;
        let end_s = now_s + config.ttl_s;
        let expires_at_s = now_s + config.token_ttl_s;
        // One for both sides: their candidates meet in it, and the session has one place to be freed at.
        let relay = self.messages.links.relay_for(&sid, &request.region, addresses);
        let turn_name = credentials::with_bandwidth(&sid, request.bandwidth_bps);
        let turn = relay.as_ref().map(|relay| credentials::turn(&relay.secret, &turn_name, end_s));
        let ice_servers = ice_servers(relay.as_ref(), turn.as_ref());
        let record = SessionRecord {
            session_id: sid.clone(),
            device_id: request.device_id.clone(),
            app_id: request.app_id.clone(),
            status: SessionState::Connecting,
            stun_server: relay.and_then(|relay| relay.stun).unwrap_or_default(),
            turn_allocation: turn.map(|turn| turn.username),
            created_at: now_ms,
            updated_at: now_ms,
            ttl: config.ttl_s,
            path: None,
            setup_ms: None,
            region: Some(request.region),
            bandwidth_bps: request.bandwidth_bps,
        };
        self.kept(self.store.create(record, now_ms).await).map_err(CreateError::Store)?;
        self.metrics.on_attempt();
        log::info!(
            "sessionId={sid} created for app {} and device {} by {}",
            request.app_id,
            request.device_id,
            request.by
        );
        // The device learns the time, by which it checks the token, and that an offer may come.
        self.messages.to_device(
            id,
            &request.device_id,
            Body::Keepalive(Keepalive::default()),
            now_ms,
        );
        let secret = config.mqtt_app_secret.expose();
        let mqtt = credentials::mqtt_app(secret, &request.app_id, end_s);
        self.messages.links.admit(&sid, &mqtt).await;
        let token = self.key.sign(&Claims {
            sid,
            dev: request.device_id.clone(),
            app: request.app_id.clone(),
            exp: expires_at_s,
            ice_servers: ice_servers.clone(),
        });
        Ok(Created {
            session_id: id,
            token,
            expires_at_s,
            ice_servers,
            mqtt,
            device_online: self.messages.is_online(Role::Device, &request.device_id),
        })
    }

    pub async fn get(
        &self,
        id: SessionId,
        now_ms: u64,
    ) -> Result<Option<SessionRecord>, StoreError> {
        self.kept(self.store.get(id, now_ms).await)
    }

    /// Open sessions, for an operator.
    pub async fn list(&self, wanted: &Wanted, now_ms: u64) -> Result<Listed, StoreError> {
        self.kept(self.store.list(wanted, now_ms).await)
    }

    /// Closes a session and says `bye` to both sides. `false` where there was nothing to close.
    pub async fn close(
        &self,
        known: &SessionRecord,
        ending: Ending,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        Ok(self.end(known, ending, Bye::Both, now_ms).await?.is_some())
    }

    /// Whether sessions can be served now, as far as is known.
    pub fn ready(&self) -> Result<(), String> {
        self.store.ready()
    }

    /// Whether `token` is this service's own, still good, and for this session.
    pub fn is_token_of(&self, token: &str, id: SessionId, now_ms: u64) -> bool {
        token::verify(token, &self.key.public()).is_ok_and(|claims| {
            SessionId::parse(&claims.sid) == Some(id) && claims.exp > now_ms / 1000
        })
    }

    /// Takes a message that `sender` published on `p2p/signal/server`.
    pub async fn on_signal(&self, sender: &Identity, payload: &[u8], now_ms: u64) {
        let signal = match Signal::parse(payload) {
            Ok(signal) => signal,
            Err(e) => {
                let id = e.session_id.map_or("-".to_owned(), |id| id.to_string());
                return log::debug!("sessionId={id} from {}: {e}", sender.id);
            }
        };
        let id = signal.session_id;
        let is_device = match sender.role {
            Role::Device => true,
            Role::App => false,
            // Our own messages and an operator's are not reports.
            Role::Service | Role::Admin => return,
        };
        if signal.from.as_str() != &*sender.id {
            return log::warn!("sessionId={id} {} ignored: it wrote in another's name", sender.id);
        }
        // The store has said once that it is away. Each side says again how it is in 20 s.
        if let Err(e) = self.take(&signal, Some(is_device), now_ms).await {
            log::debug!("sessionId={id} report of {} lost: {e}", signal.from);
        }
    }

    /// Takes a message from `p2p/signal/server` of a broker that does not say who published it. It
    /// counts if it names a session that there is, and one of its sides: the id is known to these
    /// two and to us alone.
    pub async fn on_unproven_signal(&self, payload: &[u8], now_ms: u64) {
        let signal = match Signal::parse(payload) {
            Ok(signal) => signal,
            Err(e) => {
                let id = e.session_id.map_or("-".to_owned(), |id| id.to_string());
                return log::debug!("sessionId={id} from {SERVER_TOPIC}: {e}");
            }
        };
        if let Err(e) = self.take(&signal, None, now_ms).await {
            log::error!("sessionId={} report of {} lost: {e}", signal.session_id, signal.from);
        }
    }

    /// Closes sessions that nobody reports on any more or whose time is over, frees their
    /// allocations, and says `bye` to the sides that are there. How many were closed; none where
    /// another node is at it.
    pub async fn sweep(&self, now_ms: u64) -> Result<usize, StoreError> {
        let mut closed = 0;
        // Asked again before each step, or another node takes over in the middle of a long sweep.
        while self.kept(self.store.begin_sweep().await)? {
            let of_step = self.sweep_step(now_ms).await?;
            if of_step == 0 {
                self.kept(self.store.end_sweep().await)?;
                break;
            }
            closed += of_step;
            tokio::task::yield_now().await;
        }
        Ok(closed)
    }

    async fn sweep_step(&self, now_ms: u64) -> Result<usize, StoreError> {
        let idle_ms = self.config().stale_after_s.saturating_mul(1000);
        let stale = self.kept(self.store.stale(now_ms, idle_ms, SWEEP_BATCH).await)?;
        let close = |record: SessionRecord| async move {
            let ending = match record.is_expired(now_ms) {
                true => Ending::new(Reason::Expired, "its time is over"),
                false => Ending::new(Reason::Silent, "nobody reported on it"),
            };
            self.end(&record, ending, Bye::Online, now_ms).await
        };
        let closing = stream::iter(stale).map(close).buffer_unordered(CLOSED_AT_ONCE);
        closing
            .try_fold(0, |sum, closed| async move { Ok(sum + usize::from(closed.is_some())) })
            .await
    }

    /// `is_device` is proven, or `None`: then it is what the record says of whom the signal is from.
    async fn take(
        &self,
        signal: &Signal,
        is_device: Option<bool>,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let (id, from) = (signal.session_id, &signal.from);
        // So a device learns the time, whether or not its session is still known.
        let tell_the_time = || {
            if matches!(signal.body, Body::Keepalive(_)) {
                self.messages.to_device(id, from, Body::Keepalive(Keepalive::default()), now_ms);
            }
        };
        if is_device == Some(true) {
            tell_the_time();
        }
        let Some(record) = self.get(id, now_ms).await? else { return Ok(()) };
        let side = match is_device.unwrap_or(record.device_id == *from) {
            true => &record.device_id,
            false => &record.app_id,
        };
        if side != from {
            log::warn!("sessionId={id} report of {from} ignored: not a side of it");
            return Ok(());
        }
        if is_device.is_none() && record.device_id == *from {
            tell_the_time();
        }
        match &signal.body {
            Body::Bye { reason } => {
                let ending = Ending::reported(from, None, reason);
                self.end(&record, ending, Bye::Nobody, now_ms).await.map(drop)
            }
            Body::Error { code, message } => {
                let ending = Ending::reported(from, Some(*code), message);
                self.end(&record, ending, Bye::Nobody, now_ms).await.map(drop)
            }
            Body::Keepalive(k) if k.state == Some(SessionState::Closed) => {
                let words = k.reason.as_deref().unwrap_or("reported closed");
                let ending = Ending::reported(from, k.code.map(ErrorCode::from_number), words);
                self.end(&record, ending, Bye::Nobody, now_ms).await.map(drop)
            }
            Body::Keepalive(keepalive) => {
                self.report(&record, &signal.from, keepalive, now_ms).await
            }
            other => {
                log::debug!(
                    "sessionId={id} {} of {} is not for the server",
                    other.kind(),
                    signal.from
                );
                Ok(())
            }
        }
    }

    async fn report(
        &self,
        known: &SessionRecord,
        from: &str,
        keepalive: &Keepalive,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let Keepalive { state, path, setup_ms, .. } = *keepalive;
        // Only a connection has a path and a set-up time.
        let connected = state == Some(SessionState::Connected);
        let change = Change {
            state,
            path: path.filter(|_| connected),
            setup_ms: setup_ms.filter(|_| connected),
        };
        let updated = self.kept(self.store.update(known, change, now_ms).await)?;
        let Some(updated) = updated else { return Ok(()) };
        let id = &known.session_id;
        let (before, after) = (&updated.before, &updated.after);
        if before.status != after.status {
            log::info!("sessionId={id} connected, says {from}");
            self.metrics.on_success();
        }
        if let Some(path) = after.path
            && before.path != after.path
        {
            log::info!("sessionId={id} path={path:?}, says {from}");
            // A connection counts once on each path: as relayed also where the other side, which
            // may not be able to see that, called it direct before.
            if before.path.is_none() || path == Path::Relay {
                self.metrics.on_path(path);
            }
        }
        if let (None, Some(setup_ms)) = (before.setup_ms, after.setup_ms) {
            log::info!("sessionId={id} setupMs={setup_ms}, says {from}");
            self.metrics.on_latency(setup_ms.into());
        }
        Ok(())
    }

    /// Closes the record; what follows from it, each node does for itself when it hears of it.
    async fn end(
        &self,
        known: &SessionRecord,
        mut ending: Ending,
        bye: Bye,
        now_ms: u64,
    ) -> Result<Option<SessionRecord>, StoreError> {
        let closing = Closing {
            session_id: known.session_id.clone(),
            device_id: known.device_id.clone(),
            app_id: known.app_id.clone(),
            reason: ending.words.clone(),
            bye,
        };
        let closed = self.kept(self.store.close(known, closing, now_ms).await)?;
        if let Some(record) = &closed {
            // Who never connects falls silent long before its time is over; and a shared store may have
            // forgotten what it was by then.
            let connected =
                record.status == SessionState::Connected || ending.reason == Reason::Expired;
            if !connected {
                let device_online = self.messages.is_online(Role::Device, &record.device_id);
                ending.reason = ending.reason.of_unconnected(device_online);
            }
            log::info!("sessionId={} closed {ending}", known.session_id);
            self.metrics.on_end(connected, ending.reason);
            self.recent.push(Ended::new(record, connected, ending, now_ms));
        }
        Ok(closed)
    }
}

fn check(request: &Request) -> Result<(), String> {
    for (name, id) in [("deviceId", &request.device_id), ("appId", &request.app_id)] {
        if !is_valid_id(id) || id == SERVER_ID {
            return Err(format!(
                "{name} is {:?}; expected 1 to 64 letters, digits, - _ . or :, and not \"{SERVER_ID}\"",
                id.chars().take(80).collect::<String>()
            ));
        }
    }
    if request.device_id == request.app_id {
        return Err("deviceId and appId are the same; each side needs an id of its own".into());
    }
    Ok(())
}

fn check_bandwidth(wanted_bps: Option<u64>, max_bps: u64) -> Result<(), String> {
    let max_bps = if max_bps == 0 { MAX_NAMED_BANDWIDTH_BPS } else { max_bps };
    match wanted_bps {
        Some(bps) if !(MIN_BANDWIDTH_BPS..=max_bps).contains(&bps) => Err(format!(
            "bandwidthBps is {bps}; expected {MIN_BANDWIDTH_BPS} to {max_bps} bits per second \
             (turn.max_bandwidth_bps), or leave it out for what every session has"
        )),
        _ => Ok(()),
    }
}

/// The same for both sides: one user name, so that one session has one bandwidth cap and one end.
fn ice_servers(relay: Option<&Relay>, turn: Option<&Credentials>) -> Vec<IceServer> {
    let stun = relay.and_then(|relay| relay.stun.as_ref()).map(|stun| IceServer {
        urls: vec![format!("stun:{stun}")],
        username: None,
        credential: None,
    });
    let turn = relay.zip(turn).map(|(relay, turn)| IceServer {
        urls: relay.turn_urls.clone(),
        username: Some(turn.username.clone()),
        credential: Some(turn.password.clone()),
    });
    stun.into_iter().chain(turn).collect()
}
