//! The session service: gives sessions out, hears what becomes of them, and ends them.

use super::credentials::{self, Credentials};
use super::keys::{self, SigningKey};
use super::metrics::Metrics;
use super::record::SessionRecord;
use super::store::{Change, SessionStore, StoreError};
use crate::config::Secret;
use crate::mqtt::{Identity, Role};
use sdk_core::wire::signal::{
    Body, Keepalive, SessionId, SessionState, Signal, app_topic, device_topic, is_valid_id,
};
use sdk_core::wire::token::{self, Claims, IceServer};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

/// How the service signs in its own messages.
pub const SERVER_ID: &str = "server";
/// Stale sessions closed in one step, so that a large sweep does not hold up everything else.
const SWEEP_BATCH: usize = 500;

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
}

/// The service's settings.
pub struct ServiceConfig {
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
    config: ServiceConfig,
    store: Rc<dyn SessionStore>,
    key: SigningKey,
    metrics: Arc<Metrics>,
    links: Rc<dyn Links>,
}

impl Service {
    pub fn new(
        config: ServiceConfig,
        store: Rc<dyn SessionStore>,
        key: SigningKey,
        metrics: Arc<Metrics>,
        links: Rc<dyn Links>,
    ) -> Service {
        Service { config, store, key, metrics, links }
    }

    /// Gives out a session: its record, its token, and both sides' credentials.
    pub async fn create(
        &self,
        request: Request,
        addresses: &Addresses,
        now_ms: u64,
    ) -> Result<Created, CreateError> {
        check(&request).map_err(CreateError::Invalid)?;
        let random = keys::random().map_err(|e| CreateError::Internal(e.to_string()))?;
        let id = SessionId::from_random(random);
        let sid = id.to_string();
        let now_s = now_ms / 1000;
        let end_s = now_s + self.config.ttl_s;
        let expires_at_s = now_s + self.config.token_ttl_s;
        // One for both sides: their candidates meet in it, and the session has one place to be freed at.
        let relay = self.links.relay_for(&sid, &request.region, addresses);
        let turn = relay.as_ref().map(|relay| credentials::turn(&relay.secret, &sid, end_s));
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
            ttl: self.config.ttl_s,
            path: None,
            setup_ms: None,
            region: Some(request.region),
        };
        self.store.create(record, now_ms).await.map_err(CreateError::Store)?;
        self.metrics.on_attempt();
        log::info!(
            "sessionId={sid} created for app {} and device {} by {}",
            request.app_id,
            request.device_id,
            request.by
        );
        // The device learns the time, by which it checks the token, and that an offer may come.
        self.to_device(id, &request.device_id, Body::Keepalive(Keepalive::default()), now_ms);
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
            mqtt: credentials::mqtt_app(
                self.config.mqtt_app_secret.expose(),
                &request.app_id,
                end_s,
            ),
            device_online: self.links.is_online(Role::Device, &request.device_id),
        })
    }

    pub async fn get(
        &self,
        id: SessionId,
        now_ms: u64,
    ) -> Result<Option<SessionRecord>, StoreError> {
        self.store.get(id, now_ms).await
    }

    /// Closes a session and says `bye` to both sides. `false` where there was nothing to close.
    pub async fn close(
        &self,
        id: SessionId,
        reason: &str,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        let Some(record) = self.end(id, reason, now_ms).await? else { return Ok(false) };
        let bye = Body::Bye { reason: reason.to_owned() };
        self.to_device(id, &record.device_id, bye.clone(), now_ms);
        self.to_app(id, &record.app_id, bye, now_ms);
        Ok(true)
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
        if let Err(e) = self.take(&signal, is_device, now_ms).await {
            log::error!("sessionId={id} report of {} lost: {e}", signal.from);
        }
    }

    /// Closes sessions that nobody reports on any more or whose time is over, frees their
    /// allocations, and says `bye` to the sides that are there. How many were closed.
    pub async fn sweep(&self, now_ms: u64) -> Result<usize, StoreError> {
        let idle_ms = self.config.stale_after_s.saturating_mul(1000);
        let mut closed = 0;
        loop {
            let stale = self.store.stale(now_ms, idle_ms, SWEEP_BATCH).await?;
            if stale.is_empty() {
                return Ok(closed);
            }
            for record in &stale {
                let reason = match record.is_expired(now_ms) {
                    true => "its time is over",
                    false => "nobody reported on it",
                };
                if let Some(id) = SessionId::parse(&record.session_id)
                    && self.end(id, reason, now_ms).await?.is_some()
                {
                    self.bye_to_those_online(id, record, reason, now_ms);
                    closed += 1;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    async fn take(&self, signal: &Signal, is_device: bool, now_ms: u64) -> Result<(), StoreError> {
        let (id, from) = (signal.session_id, &signal.from);
        if is_device && matches!(signal.body, Body::Keepalive(_)) {
            // So a device learns the time, whether or not its session is still known.
            self.to_device(id, from, Body::Keepalive(Keepalive::default()), now_ms);
        }
        let Some(record) = self.store.get(id, now_ms).await? else { return Ok(()) };
        let side = if is_device { &record.device_id } else { &record.app_id };
        if side != from {
            log::warn!("sessionId={id} report of {from} ignored: not a side of it");
            return Ok(());
        }
        match &signal.body {
            Body::Bye { reason } => self.end_by(id, &signal.from, reason, now_ms).await,
            Body::Keepalive(k) if k.state == Some(SessionState::Closed) => {
                self.end_by(id, &signal.from, "reported closed", now_ms).await
            }
            Body::Keepalive(keepalive) => self.report(id, &signal.from, keepalive, now_ms).await,
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
        id: SessionId,
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
        let Some(updated) = self.store.update(id, change, now_ms).await? else { return Ok(()) };
        let (before, after) = (&updated.before, &updated.after);
        if before.status != after.status {
            log::info!("sessionId={id} connected, says {from}");
            self.metrics.on_success();
        }
        if let Some(path) = after.path
            && before.path != after.path
        {
            log::info!("sessionId={id} path={path:?}, says {from}");
            // A connection counts once, by what was said of it first.
            if before.path.is_none() {
                self.metrics.on_path(path);
            }
        }
        if let (None, Some(setup_ms)) = (before.setup_ms, after.setup_ms) {
            log::info!("sessionId={id} setupMs={setup_ms}, says {from}");
            self.metrics.on_latency(setup_ms.into());
        }
        Ok(())
    }

    async fn end_by(
        &self,
        id: SessionId,
        from: &str,
        reason: &str,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let reason: String = reason.chars().take(200).collect();
        self.end(id, &format!("{from}: {reason}"), now_ms).await.map(drop)
    }

    /// Closes the record and frees what the relay holds for it; exactly once.
    async fn end(
        &self,
        id: SessionId,
        reason: &str,
        now_ms: u64,
    ) -> Result<Option<SessionRecord>, StoreError> {
        let closed = self.store.close(id, now_ms).await?;
        if let Some(record) = &closed {
            log::info!("sessionId={id} closed ({reason})");
            self.links.free_relay(&record.session_id);
        }
        Ok(closed)
    }

    /// Only to those: a `bye` that waits at the broker for somebody's return would end a direct
    /// connection that has outlived the broker's absence.
    fn bye_to_those_online(
        &self,
        id: SessionId,
        record: &SessionRecord,
        reason: &str,
        now_ms: u64,
    ) {
        let bye = || Body::Bye { reason: reason.to_owned() };
        if self.links.is_online(Role::Device, &record.device_id) == Some(true) {
            self.to_device(id, &record.device_id, bye(), now_ms);
        }
        if self.links.is_online(Role::App, &record.app_id) == Some(true) {
            self.to_app(id, &record.app_id, bye(), now_ms);
        }
    }

    fn to_app(&self, id: SessionId, app_id: &str, body: Body, now_ms: u64) {
        self.send(id, &app_topic(app_id), app_id, body, now_ms);
    }

    fn to_device(&self, id: SessionId, device_id: &str, body: Body, now_ms: u64) {
        self.send(id, &device_topic(device_id), device_id, body, now_ms);
    }

    fn send(&self, session_id: SessionId, topic: &str, to: &str, body: Body, now_ms: u64) {
        let from = SERVER_ID.to_owned();
        let signal = Signal { session_id, from, to: to.to_owned(), body, timestamp: now_ms };
        if let Err(e) = self.links.publish(topic, signal.to_json()) {
            log::error!("sessionId={session_id} nothing sent to {topic}: {e}");
        }
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
