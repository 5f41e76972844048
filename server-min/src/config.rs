//! What can be set, its defaults, and what must hold between settings. A setting has one name
//! everywhere: `listen` under `[http]` in the file is `SERVER_MIN_HTTP_LISTEN` in the environment
//! and `--http.listen` as a flag. Flags win over the environment, which wins over the file.

mod apps;
mod flags;
mod listeners;
mod load;

pub use apps::AppConfig;
pub use flags::{Action, Command, HELP, parse_args};
pub use load::{ConfigError, Loaded, Setting, Source, from_environment, load};

use crate::mqtt::BrokerConfig;
use crate::mqtt_external::Provisioning;
use crate::nodes;
use crate::ops::OpsConfig;
use crate::regions::{self, GeoipConfig, Network, RegionConfig};
use crate::session::StoreConfig;
use crate::session::record::SESSION_TTL_S;
use crate::stun_turn::TurnConfig;
use crate::tls::TlsConfig;
use crate::{http, logger, mqtt_external};
use sdk_core::wire::signal::is_valid_id;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Level of the log, and of single modules: `info,mqtt=debug`.
    pub log: String,
    pub log_format: logger::Format,
    /// Lines a second from one place in the program, after ten times as many at once; 0 is no limit.
    /// Lines of sessions may be ten times as many.
    pub log_limit: u32,
    /// Name of this node's region, a label of its metrics. Serves whoever no other one is chosen for.
    pub region: String,
    /// The host name or address that phones and cameras reach this server under. Where it is not
    /// set, the host that the session request itself was sent to.
    pub public_host: Option<String>,
    /// How long SIGTERM waits for those who are there to leave.
    pub drain_s: u64,
    /// Whoever presents one of these may create sessions.
    pub app_keys: Vec<Secret>,
    /// Whoever presents a token signed by one of these may create sessions in its name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<AppConfig>,
    pub http: HttpConfig,
    pub mqtt: MqttConfig,
    pub turn: TurnConfig,
    pub session: SessionConfig,
    pub store: StoreConfig,
    /// The certificate of every listener that speaks TLS or DTLS.
    pub tls: TlsConfig,
    /// Where TURN nodes stand, and whom they are near to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<RegionConfig>,
    pub geoip: GeoipConfig,
    pub ops: OpsConfig,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Without TLS; `None`, written `off`, where HTTPS alone is served.
    #[serde(deserialize_with = "listen_address", serialize_with = "address_or_off")]
    pub listen: Option<SocketAddr>,
    /// HTTPS, with the certificate of `[tls]`; off unless set.
    #[serde(deserialize_with = "listen_address", serialize_with = "address_or_off")]
    pub tls_listen: Option<SocketAddr>,
    /// As a browser reaches this server where something stands in front of it (TLS, another
    /// port): `https://cam.example.org`.
    pub public_url: Option<String>,
    /// Whose pages may call `/v1` from a browser: `*`, one origin, or empty for none but our own.
    pub cors_origin: String,
    /// Proxies whose `X-Forwarded-For` or `Forwarded` says who the client is.
    pub trusted_proxies: Vec<Network>,
    /// Connections at a time, of both listeners together; WebSocket clients count with the broker's
    /// instead.
    pub max_connections: usize,
    /// Of these, how many may come from one address; 0 for no limit, as it must be behind a proxy.
    pub max_connections_per_address: usize,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MqttConfig {
    /// Without TLS; `None`, written `off`, where it is served over TLS alone.
    #[serde(deserialize_with = "listen_address", serialize_with = "address_or_off")]
    pub listen: Option<SocketAddr>,
    /// MQTT over TLS (`mqtts`), with the certificate of `[tls]`; off unless set.
    #[serde(deserialize_with = "listen_address", serialize_with = "address_or_off")]
    pub tls_listen: Option<SocketAddr>,
    /// As given to applications where the broker is reached under another address:
    /// `mqtts://mqtt.example.org:8883`.
    pub public_url: Option<String>,
    /// Users with salted hashes of their passwords; `server-min hash-password` makes a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// Devices sign in with a certificate of `tls.client_ca` alone, not with a password.
    pub require_device_certificate: bool,
    /// A device's password is the hex HMAC-SHA256 of its serial number under this secret. Without
    /// it no device can sign in.
    pub device_secret: Option<Secret>,
    /// Signs the credentials that applications get with a session. Made anew at each start where
    /// it is not set; nodes that share their clients must share it.
    pub app_secret: Option<Secret>,
    /// Password of the user `admin`, who may read and write every topic. Off unless set.
    pub admin_password: Option<Secret>,
    /// `wss://mqtt.example.org/mqtt`, where pages reach it; needed with `external`.
    pub public_ws_url: Option<String>,
    /// The broker in our own one's place: `mqtts://mqtt.example.org:8883`. The service is its client.
    pub external: Option<String>,
    pub external_username: Option<String>,
    pub external_password: Option<Secret>,
    /// PEM file with the authorities that broker's certificate may be signed by; the system's unless
    /// set.
    pub external_ca: Option<PathBuf>,
    /// PEM files with the certificate, and its key, by which the service signs in there.
    pub external_certificate: Option<PathBuf>,
    pub external_key: Option<PathBuf>,
    /// Takes any certificate of that broker: whoever stands between reads and forges everything.
    pub external_insecure: bool,
    /// The service's client id there; a new one at each start unless set.
    pub external_client_id: Option<String>,
    /// Several nodes with one session store take each report once among them.
    pub external_share: bool,
    /// How that broker learns of applications; not at all unless set: it asks us, or lets all in.
    pub external_provisioning: Option<Provisioning>,
    /// What a broker that is not ours shows when it asks `/v1/mqtt/auth` and `/v1/mqtt/acl`. Nobody
    /// may ask unless set.
    pub hook_secret: Option<Secret>,
    /// What one client, and all of them, may take.
    pub limits: BrokerConfig,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionConfig {
    /// The Ed25519 key that signs session tokens (PKCS#8, or a raw 32-byte seed). Made at the
    /// first start where it is missing; in memory only where no file is named.
    pub signing_key_file: Option<PathBuf>,
    /// How long a token opens its camera. A viewer that starts later asks for a new session.
    pub token_ttl_s: u64,
    /// How long a session's record and its TURN and MQTT credentials last.
    pub ttl_s: u64,
    /// Sessions at a time.
    pub max_sessions: usize,
    /// A session nobody reported on for so long is closed by the next sweep. Both sides report
    /// every 20 s.
    pub stale_after_s: u64,
    pub sweep_interval_s: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            log: "info".into(),
            log_format: logger::Format::Text,
            log_limit: 10,
            region: "local".into(),
            public_host: None,
            drain_s: 5,
            app_keys: Vec::new(),
            apps: Vec::new(),
            http: HttpConfig::default(),
            mqtt: MqttConfig::default(),
            turn: TurnConfig::default(),
            session: SessionConfig::default(),
            store: StoreConfig::default(),
            tls: TlsConfig::default(),
            regions: Vec::new(),
            geoip: GeoipConfig::default(),
            ops: OpsConfig::default(),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        HttpConfig {
            listen: Some(([0, 0, 0, 0], 8080).into()),
            tls_listen: None,
            public_url: None,
            cors_origin: "*".into(),
            trusted_proxies: Vec::new(),
            max_connections: 1024,
            max_connections_per_address: 0,
        }
    }
}

impl Default for MqttConfig {
    fn default() -> MqttConfig {
        MqttConfig {
            listen: Some(([0, 0, 0, 0], 1883).into()),
            tls_listen: None,
            public_url: None,
            credentials_file: None,
            require_device_certificate: false,
            public_ws_url: None,
            external: None,
            external_username: None,
            external_password: None,
            external_ca: None,
            external_certificate: None,
            external_key: None,
            external_insecure: false,
            external_client_id: None,
            external_share: false,
            external_provisioning: None,
            hook_secret: None,
            device_secret: None,
            app_secret: None,
            admin_password: None,
            limits: BrokerConfig::default(),
        }
    }
}

impl Default for SessionConfig {
    fn default() -> SessionConfig {
        SessionConfig {
            signing_key_file: None,
            token_ttl_s: 3600,
            ttl_s: SESSION_TTL_S,
            max_sessions: 100_000,
            stale_after_s: 300,
            sweep_interval_s: 300,
        }
    }
}

impl Config {
    /// What the types cannot say. The error names the key.
    fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str, text: String| Err(ConfigError::new(format!("{key}: {text}")));
        if let Err(text) = logger::Levels::parse(&self.log) {
            return wrong("log", text);
        }
        if !is_valid_id(&self.region) {
            return wrong(
                "region",
                format!("{:?}: expected 1 to 64 letters, digits, - or _", self.region),
            );
        }
        if let Some(host) = &self.public_host
            && !http::is_valid_host(host)
        {
            let text = "expected a host name or an IP address, without a port and without http://";
            return wrong("public_host", format!("{host:?}: {text}"));
        }
        for key in &self.app_keys {
            let visible = key.expose().bytes().all(|c| c.is_ascii_graphic());
            if !visible || key.expose().is_empty() {
                return wrong("app_keys", "a key is empty or has characters that no HTTP header can carry; use letters and digits".into());
            }
        }
        if let Err(text) = apps::check(&self.apps) {
            return wrong("apps", text);
        }
        let urls = [
            ("http.public_url", &self.http.public_url, ["http://", "https://"]),
            ("mqtt.public_url", &self.mqtt.public_url, ["mqtt://", "mqtts://"]),
            ("mqtt.public_ws_url", &self.mqtt.public_ws_url, ["ws://", "wss://"]),
        ];
        for (key, url, [plain, tls]) in urls {
            if let Some(url) = url
                && !(url.starts_with(plain) || url.starts_with(tls))
            {
                return wrong(key, format!("{url:?}: expected {plain}… or {tls}…"));
            }
        }
        let cors = &self.http.cors_origin;
        if !cors.is_empty() && !cors.bytes().all(|c| c.is_ascii_graphic()) {
            return wrong(
                "http.cors_origin",
                format!(
                    "{cors:?}: expected *, one origin such as https://app.example.org, or nothing"
                ),
            );
        }
        let (device, app) = (&self.mqtt.device_secret, &self.mqtt.app_secret);
        let secrets = [
            ("mqtt.device_secret", device),
            ("mqtt.app_secret", app),
            ("mqtt.admin_password", &self.mqtt.admin_password),
            ("mqtt.external_password", &self.mqtt.external_password),
            ("mqtt.hook_secret", &self.mqtt.hook_secret),
        ];
        for (key, secret) in secrets {
            if secret.as_ref().is_some_and(|s| s.expose().is_empty()) {
                return wrong(key, "is empty; leave it out or give it a value".into());
            }
        }
        if device.is_some() && device == app {
            return wrong(
                "mqtt.app_secret",
                "is the same as mqtt.device_secret; they must differ".into(),
            );
        }
        if let Err(text) = mqtt_external::check(&self.mqtt) {
            return Err(ConfigError::new(format!("mqtt.{text}")));
        }
        if let Err(text) = self.turn.check() {
            return Err(ConfigError::new(format!("turn.{text}")));
        }
        if let Err(text) = self.store.check() {
            return Err(ConfigError::new(format!("store.{text}")));
        }
        if let Err(text) = nodes::check(&self.turn.external, !self.turn.secrets.is_empty()) {
            return Err(ConfigError::new(format!("turn.{text}")));
        }
        regions::check(&self.region, &self.regions, &self.turn.external, &self.geoip)
            .map_err(ConfigError::new)?;
        if let Err(text) = self.tls.check() {
            return Err(ConfigError::new(format!("tls.{text}")));
        }
        if let Err(text) = self.ops.check() {
            return Err(ConfigError::new(format!("ops.{text}")));
        }
        listeners::check(self)?;
        let session = &self.session;
        let bounds = [
            ("drain_s", self.drain_s, 0, 3600),
            ("log_limit", self.log_limit.into(), 0, 1_000_000),
            ("session.token_ttl_s", session.token_ttl_s, 10, session.ttl_s),
            ("session.ttl_s", session.ttl_s, 60, 30 * 86_400),
            ("session.stale_after_s", session.stale_after_s, 60, session.ttl_s),
            ("session.sweep_interval_s", session.sweep_interval_s, 1, 86_400),
            ("session.max_sessions", session.max_sessions as u64, 1, 10_000_000),
            ("http.max_connections", self.http.max_connections as u64, 1, 1_000_000),
        ];
        for (key, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                return wrong(key, format!("{value}: expected {least} to {most}"));
            }
        }
        Ok(())
    }

    /// How to log. `validate` has read the levels already.
    pub fn logging(&self) -> logger::Settings {
        let levels = logger::Levels::parse(&self.log).unwrap_or_default();
        logger::Settings { levels, format: self.log_format, limit: self.log_limit }
    }

    /// The configuration as it would be used, as TOML, with secrets hidden.
    pub fn describe(&self) -> String {
        let mut shown = self.clone();
        let hidden = || HIDDEN.to_owned();
        shown.turn.secrets.fill(hidden().into_bytes());
        shown.turn.static_users.iter_mut().for_each(|(_, password)| *password = hidden());
        toml::to_string(&shown).unwrap_or_else(|e| format!("# cannot be shown: {e}"))
    }
}

/// A text that is neither printed nor logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself. Only for what must compare or sign with it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

const HIDDEN: &str = "(hidden)";

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
        String::deserialize(from).map(Secret)
    }
}

fn listen_address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    if text == OFF {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        serde::de::Error::custom(format!(
            "{text:?} is not an address with a port; expected for example 0.0.0.0:8080 or [::]:8080, \
             or {OFF} for no such listener"
        ))
    })
}

fn address_or_off<S: Serializer>(address: &Option<SocketAddr>, to: S) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => to.collect_str(address),
        None => to.serialize_str(OFF),
    }
}

const OFF: &str = "off";
