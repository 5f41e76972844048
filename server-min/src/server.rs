//! Puts the parts together: binds every listener, then serves until told to stop.

use crate::carrier::{Carrier, Neighbours, hear_reports};
use crate::clock;
use crate::config::{Config, MqttConfig, Secret};
use crate::http::{Front, PublicAddress, Site};
use crate::listeners::{Bound, Listeners};
use crate::logger;
use crate::mqtt::Broker;
use crate::mqtt_external::{ExternalBroker, Hook};
use crate::ops::{Ops, Parts};
use crate::placement::Placement;
use crate::session::credentials::hex;
use crate::session::keys::random;
use crate::session::service::ServiceConfig;
use crate::session::{Access, Metrics, Service, SigningKey, shared};
use crate::start_error::StartError;
use crate::stun_turn::{TurnConfig, TurnHandle, TurnServer};
use crate::tls::Tls;
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long clients may take to end at a shutdown.
const GRACE: Duration = Duration::from_secs(3);
/// How often what the logger left out is written down.
const LOG_FLUSH_EVERY: Duration = Duration::from_secs(10);

/// A running server. Made, used and stopped within one `LocalSet`.
pub struct Server {
    /// Without TLS, unless it is served with TLS alone.
    pub http: SocketAddr,
    /// Port 0 where the broker is not ours.
    pub mqtt: SocketAddr,
    /// Each listener by itself.
    pub bound: Bound,
    pub stun: Vec<SocketAddr>,
    pub public_key: [u8; 32],
    pub service: Rc<Service>,
    carrier: Carrier,
    /// Who may sign in at the broker; its file can be read again.
    pub access: Rc<Access>,
    /// `None` without `[tls]`.
    pub tls: Option<Tls>,
    pub ops: Rc<Ops>,
    pub placement: Rc<Placement>,
    site: Rc<Site>,
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
        shared::warn_of_gaps(&config);
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

        let listeners = Listeners::bind(&config).await?;
        let external = ExternalBroker::new(&config.mqtt, random().map_err(other)?)
            .map_err(|text| other(io::Error::other(format!("mqtt.{text}"))))?;
        let metrics = Arc::new(Metrics::default());
        let turn = start_turn(&config.turn, tls.clone())?.map(Rc::new);
        let bound = listeners.bound();
        let stun = turn.as_ref().map_or(Vec::new(), |turn| turn.local_addrs().to_vec());
        let placement = Placement::start(&config, stun.first().copied()).map_err(wrong)?;
        let placement = Rc::new(placement);

        let access = Rc::new(Access::new(&config.mqtt, app_secret.clone()).map_err(other)?);
        let hook = Hook::new(&config.mqtt, access.clone());
        let (carrier, reports) = match external {
            None => {
                let broker = Broker::new(config.mqtt.limits.clone(), access.clone());
                (Carrier::own(broker), None)
            }
            Some((broker, reports)) => (Carrier::External(broker), Some(reports)),
        };
        let links = Rc::new(Neighbours {
            carrier: carrier.clone(),
            placement: placement.clone(),
            turn: turn.clone(),
        });
        let service_config = ServiceConfig {
            max_bandwidth_bps: config.turn.max_bandwidth_bps,
            mqtt_app_secret: app_secret,
            token_ttl_s: config.session.token_ttl_s,
            ttl_s: config.session.ttl_s,
            stale_after_s: config.session.stale_after_s,
        };
        let store = shared::open(&config).await.map_err(|e| other(io::Error::other(e)))?;
        let service = Rc::new(Service::new(service_config, store.clone(), key, metrics, links));

        let (stop, stopped) = watch::channel(false);
        let address = PublicAddress {
            public_host: config.public_host.clone(),
            http_url: config.http.public_url.clone(),
            mqtt_url: config.mqtt.public_url.clone(),
            ws_url: config.mqtt.public_ws_url.clone(),
            http_port: bound.http.map(|address| address.port()),
            https_port: bound.https.map(|address| address.port()),
            mqtt_port: bound.mqtt.map(|address| address.port()),
            mqtts_port: bound.mqtts.map(|address| address.port()),
            turn_ip: config.turn.external_ip,
            turn: stun.clone(),
            turn_tls: turn.as_ref().map_or(Vec::new(), |turn| turn.tls_addrs().to_vec()),
        };
        let ops = Ops::new();
        let sweep_interval_s = Rc::new(Cell::new(config.session.sweep_interval_s));
        let desk = ops.register(&Parts {
            service: &service,
            store: &store,
            carrier: &carrier,
            placement: &placement,
            turn: turn.as_ref(),
            access: &access,
            tls: tls.as_ref(),
            sweep_interval_s: &sweep_interval_s,
            config: &config,
        });
        let site = Site::new(desk, address, &config, carrier.websocket_door(), hook);
        let per_address = config.http.max_connections_per_address;
        let front = Front::new(site.clone(), per_address, stopped);
        let mut tasks = listeners.serve(tls.clone(), &front, carrier.broker());
        if let Carrier::External(broker) = carrier.clone() {
            tasks.push(tokio::task::spawn_local(async move { broker.run().await }));
        }
        tasks.extend([
            tokio::task::spawn_local(hear_reports(carrier.clone(), reports, service.clone())),
            tokio::task::spawn_local(sweep(sweep_interval_s, service.clone())),
            tokio::task::spawn_local(flush_log()),
        ]);
        ops.register_tasks(&tasks);
        // One of each pair is on, as the configuration was checked for, unless the broker is not ours.
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let http = bound.http.or(bound.https).unwrap_or(nowhere);
        let mqtt = bound.mqtt.or(bound.mqtts).unwrap_or(nowhere);
        Ok(Server {
            http,
            mqtt,
            bound,
            stun,
            public_key,
            service,
            carrier,
            access,
            tls,
            ops,
            placement,
            site,
            turn,
            stop,
            tasks,
        })
    }

    /// `ready: http=127.0.0.1:8080 mqtt=127.0.0.1:1883 stun=127.0.0.1:3478`, and behind it
    /// `mqtts=` and `https=` where these listen. What is off is not there.
    pub fn ready_line(&self) -> String {
        let stun: Vec<String> = self.stun.iter().map(SocketAddr::to_string).collect();
        let external = match &self.carrier {
            Carrier::Own { .. } => None,
            Carrier::External(broker) => Some(broker.address()),
        };
        self.bound.describe(external.as_deref(), &format!("stun={}", stun.join(",")))
    }

    /// Our own broker, unless `mqtt.external` is in its place.
    pub fn broker(&self) -> Option<&Broker> {
        self.carrier.broker()
    }

    /// Whether nobody would miss it: no MQTT client, and nothing relayed.
    pub fn is_idle(&self) -> bool {
        self.here() == (0, 0)
    }

    /// MQTT clients of our own broker, and allocations of our own relay.
    fn here(&self) -> (u64, u64) {
        let clients = self.broker().map_or(0, |broker| broker.stats().connections);
        (clients, self.turn.as_ref().map_or(0, |turn| turn.allocations()))
    }

    /// For the log.
    pub fn who_is_here(&self) -> String {
        let (clients, relayed) = self.here();
        format!("{clients} MQTT clients, {relayed} TURN allocations")
    }

    /// Takes no more, lets answers under way finish, tells the broker's clients, and frees the relay.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let answered = async {
            while self.site.connections() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let (_, ()) =
            tokio::join!(tokio::time::timeout(GRACE, answered), self.carrier.shutdown(GRACE));
        self.placement.stop();
        if let Some(turn) = &self.turn {
            turn.shutdown();
        }
        for task in &self.tasks {
            task.abort();
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
    let MqttConfig { device_secret, credentials_file, tls_listen, .. } = &config.mqtt;
    let MqttConfig { external, hook_secret, external_provisioning, .. } = &config.mqtt;
    if external.is_some() && hook_secret.is_none() && external_provisioning.is_none() {
        log::warn!(
            "the broker at mqtt.external knows nothing of applications' passwords: set \
             mqtt.hook_secret if it can ask, or mqtt.external_provisioning if it must be told"
        );
    }
    if config.mqtt.external_share && config.store.redis.is_none() {
        log::warn!(
            "mqtt.external_share gives other nodes reports on sessions that they do not know: set \
             store.redis, or leave it out"
        );
    }
    let checks_devices = external.is_none() || hook_secret.is_some();
    let by_certificate = tls_listen.is_some() && config.tls.client_ca.is_some();
    if checks_devices && device_secret.is_none() && credentials_file.is_none() && !by_certificate {
        log::warn!(
            "no device can sign in at the broker: set mqtt.device_secret, mqtt.credentials_file, or \
             mqtt.tls_listen and tls.client_ca"
        );
    }
}

/// `None` where all relaying is done by others.
fn start_turn(config: &TurnConfig, tls: Option<Tls>) -> Result<Option<TurnHandle>, StartError> {
    if config.listen.is_empty() {
        return Ok(None);
    }
    let started = TurnServer::start_with_tls(config.clone(), tls, Arc::new(()));
    started.map(Some).map_err(|error| {
        // Which of several addresses it was, only the error's own text says.
        match config.listen.as_slice() {
            _ if !config.tls_listen.is_empty() => StartError::Other(error),
            [address, others @ ..] if others.iter().all(|a| a.port() == address.port()) => {
                StartError::Listen { setting: "turn.listen", address: *address, error }
            }
            _ => StartError::Other(error),
        }
    })
}

async fn sweep(interval_s: Rc<Cell<u64>>, service: Rc<Service>) {
    loop {
        tokio::time::sleep(Duration::from_secs(interval_s.get())).await;
        match service.sweep(clock::now_ms()).await {
            Ok(0) => {}
            Ok(closed) => log::info!("sweep: {closed} stale sessions closed"),
            Err(e) => log::error!("sweep: {e}"),
        }
    }
}

async fn flush_log() {
    loop {
        tokio::time::sleep(LOG_FLUSH_EVERY).await;
        logger::flush();
    }
}
