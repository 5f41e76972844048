//! Puts the parts together: binds every listener, then serves until told to stop.

use crate::clock;
use crate::config::{Config, Secret};
use crate::counters::{broker_metrics, relay_metrics};
use crate::http::{self, PublicAddress, Site};
use crate::mqtt::{Broker, Identity, LocalClient, Role};
use crate::placement::Placement;
use crate::session::credentials::hex;
use crate::session::keys::random;
use crate::session::service::{Addresses, Links, Relay, SERVER_ID, ServiceConfig};
use crate::session::{Access, MemoryStore, Metrics, Service, SigningKey};
use crate::stun_turn::{TurnConfig, TurnHandle, TurnServer};
use crate::tls::Tls;
use sdk_core::wire::signal::SERVER_TOPIC;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Reports that may wait for the session service; what comes on top is dropped, and counted by the
/// broker. Each side repeats its state every 20 s.
const REPORTS_WAITING: usize = 10_000;
/// How long clients may take to end at a shutdown.
const GRACE: Duration = Duration::from_secs(3);

/// A running server. Made, used and stopped within one `LocalSet`.
pub struct Server {
    pub http: SocketAddr,
    pub mqtt: SocketAddr,
    pub stun: Vec<SocketAddr>,
    pub public_key: [u8; 32],
    pub service: Rc<Service>,
    pub broker: Broker,
    /// `None` without `[tls]`.
    pub tls: Option<Tls>,
    pub placement: Rc<Placement>,
    /// `None` without `turn.listen`.
    turn: Option<Rc<TurnHandle>>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Binds all listeners and starts serving. Nothing serves if one of them cannot be bound.
    pub async fn start(mut config: Config) -> Result<Server, StartError> {
        let other = StartError::Other;
        let key = signing_key(&config).map_err(other)?;
        let public_key = key.public();
        if config.turn.secrets.is_empty() {
            config.turn.secrets.push(generated().map_err(other)?.into_bytes());
        }
        let app_secret = match &config.mqtt.app_secret {
            Some(secret) => secret.clone(),
            None => Secret::new(generated().map_err(other)?),
        };
        warn_of_gaps(&config);
        let wrong = |text: String| other(io::Error::other(text));
        let tls = Tls::load(&config.tls).map_err(wrong)?;

        let http_listener = bind("http.listen", config.http.listen).await?;
        let mqtt_listener = bind("mqtt.listen", config.mqtt.listen).await?;
        let metrics = Arc::new(Metrics::default());
        let turn = start_turn(&config.turn)?.map(Rc::new);
        let http = http_listener.local_addr().map_err(other)?;
        let mqtt = mqtt_listener.local_addr().map_err(other)?;
        let stun = turn.as_ref().map_or(Vec::new(), |turn| turn.local_addrs().to_vec());
        let placement = Placement::start(&config, stun.first().copied()).map_err(wrong)?;
        let placement = Rc::new(placement);

        let access = Access {
            device_secret: config.mqtt.device_secret.clone(),
            app_secret: app_secret.clone(),
            admin_password: config.mqtt.admin_password.clone(),
        };
        let broker = Broker::new(config.mqtt.limits.clone(), Rc::new(access));
        let client = broker.local(SERVER_ID);
        let links = Rc::new(Neighbours {
            broker: broker.clone(),
            client: client.clone(),
            placement: placement.clone(),
            turn: turn.clone(),
        });
        let service_config = ServiceConfig {
            mqtt_app_secret: app_secret,
            token_ttl_s: config.session.token_ttl_s,
            ttl_s: config.session.ttl_s,
            stale_after_s: config.session.stale_after_s,
        };
        let store = Rc::new(MemoryStore::new(config.session.max_sessions));
        let service = Rc::new(Service::new(service_config, store, key, metrics.clone(), links));

        let (stop, stopped) = watch::channel(false);
        let address = PublicAddress {
            public_host: config.public_host.clone(),
            http_url: config.http.public_url.clone(),
            mqtt_url: config.mqtt.public_url.clone(),
            http_port: http.port(),
            mqtt_port: mqtt.port(),
            turn_ip: config.turn.external_ip,
            turn: stun.clone(),
        };
        let all_metrics = {
            let (broker, turn, region) = (broker.clone(), turn.clone(), config.region.clone());
            let placement = placement.clone();
            move || {
                let relay = turn.as_ref().map(|turn| relay_metrics(turn.counters(), &region));
                metrics.render()
                    + &relay.unwrap_or_default()
                    + &placement.metrics()
                    + &broker_metrics(&broker.stats())
            }
        };
        let site = Rc::new(Site::new(
            service.clone(),
            address,
            placement.clone(),
            &config,
            websocket_door(&broker),
            Box::new(all_metrics),
        ));
        let max = config.http.max_connections;
        let tasks = vec![
            tokio::task::spawn_local(http::serve(http_listener, site, max, stopped)),
            tokio::task::spawn_local({
                let broker = broker.clone();
                async move { broker.serve_tcp(mqtt_listener).await }
            }),
            tokio::task::spawn_local(hear_reports(client, service.clone())),
            tokio::task::spawn_local(sweep(config.session.sweep_interval_s, service.clone())),
        ];
        Ok(Server {
            http,
            mqtt,
            stun,
            public_key,
            service,
            broker,
            tls,
            placement,
            turn,
            stop,
            tasks,
        })
    }

    /// `ready: http=127.0.0.1:8080 mqtt=127.0.0.1:1883 stun=127.0.0.1:3478`
    pub fn ready_line(&self) -> String {
        let stun: Vec<String> = self.stun.iter().map(SocketAddr::to_string).collect();
        format!("ready: http={} mqtt={} stun={}", self.http, self.mqtt, stun.join(","))
    }

    /// Takes no more, lets answers under way finish, tells the broker's clients, and frees the relay.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.broker.shutdown(GRACE).await;
        self.placement.stop();
        if let Some(turn) = &self.turn {
            turn.shutdown();
        }
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Why the server did not start.
#[derive(Debug)]
pub enum StartError {
    /// The address of this setting could not be bound.
    Listen {
        setting: &'static str,
        address: SocketAddr,
        error: io::Error,
    },
    Other(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (setting, address, error) = match self {
            StartError::Listen { setting, address, error } => (setting, address, error),
            StartError::Other(error) => return error.fmt(f),
        };
        let variable = setting.replace('.', "_").to_ascii_uppercase();
        let how = format!("set {setting} in the file, --{setting}, or SERVER_MIN_{variable}");
        let port = address.port();
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "port {port} ({setting}) is in use: stop what uses it, or {how} to another"
                )
            }
            io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "port {port} ({setting}) needs more rights than this user has: {how} to one above 1023"
                )
            }
            io::ErrorKind::AddrNotAvailable => {
                write!(
                    f,
                    "{} ({setting}) is no address of this machine: {how} to one, or to 0.0.0.0",
                    address.ip()
                )
            }
            _ => write!(f, "{address} ({setting}) cannot be listened on: {error}; {how}"),
        }
    }
}

impl std::error::Error for StartError {}

/// The broker and the relay, as the session service sees them.
struct Neighbours {
    broker: Broker,
    client: LocalClient,
    placement: Rc<Placement>,
    turn: Option<Rc<TurnHandle>>,
}

impl Links for Neighbours {
    fn publish(&self, topic: &str, payload: Vec<u8>) -> Result<(), String> {
        self.client.publish(topic, &payload, false).map(drop).map_err(|e| e.to_string())
    }

    fn is_online(&self, role: Role, id: &str) -> Option<bool> {
        Some(self.broker.is_online(&Identity { role, id: id.into() }))
    }

    fn relay_for(&self, session_id: &str, region: &str, own: &Addresses) -> Option<Relay> {
        self.placement.relay_for(session_id, region, own)
    }

    /// An external node is not told: it has no door for that (docs/regions.md, "The end of a session").
    fn free_relay(&self, session_id: &str) {
        if let Some(turn) = &self.turn {
            turn.close_user(session_id);
        }
    }
}

fn signing_key(config: &Config) -> io::Result<SigningKey> {
    match &config.session.signing_key_file {
        Some(path) => SigningKey::load_or_create(path),
        None => {
            log::warn!(
                "the signing key lives as long as this process: set session.signing_key_file, or \
                 devices must be given a new public key after each start"
            );
            SigningKey::in_memory()
        }
    }
}

fn generated() -> io::Result<String> {
    Ok(hex(&random::<32>()?))
}

fn warn_of_gaps(config: &Config) {
    if config.app_keys.is_empty() && config.apps.is_empty() {
        log::warn!(
            "nobody can create a session: set app_keys, [[apps]], --app_key or P2PCAM_APP_KEY"
        );
    }
    if config.mqtt.device_secret.is_none() {
        log::warn!("no device can sign in at the broker: set mqtt.device_secret");
    }
}

async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Listen { setting, address, error })
}

/// `None` where all relaying is done by others.
fn start_turn(config: &TurnConfig) -> Result<Option<TurnHandle>, StartError> {
    if config.listen.is_empty() {
        return Ok(None);
    }
    TurnServer::start(config.clone(), Arc::new(())).map(Some).map_err(|error| {
        // Which of several addresses it was, only the error's own text says.
        match config.listen.as_slice() {
            [address, others @ ..] if others.iter().all(|a| a.port() == address.port()) => {
                StartError::Listen { setting: "turn.listen", address: *address, error }
            }
            _ => StartError::Other(error),
        }
    })
}

fn websocket_door(broker: &Broker) -> http::WebSocketDoor {
    let broker = broker.clone();
    Rc::new(move |io, peer| {
        let broker = broker.clone();
        tokio::task::spawn_local(async move { broker.serve_websocket(io, peer).await });
    })
}

async fn hear_reports(client: LocalClient, service: Rc<Service>) {
    let Ok(mut reports) = client.subscribe(SERVER_TOPIC, REPORTS_WAITING) else {
        return log::error!("the broker refused {SERVER_TOPIC}: no session state will be known");
    };
    while let Some(report) = reports.recv().await {
        service.on_signal(report.publisher(), report.payload(), clock::now_ms()).await;
    }
}

async fn sweep(interval_s: u64, service: Rc<Service>) {
    loop {
        tokio::time::sleep(Duration::from_secs(interval_s)).await;
        match service.sweep(clock::now_ms()).await {
            Ok(0) => {}
            Ok(closed) => log::info!("sweep: {closed} stale sessions closed"),
            Err(e) => log::error!("sweep: {e}"),
        }
    }
}
