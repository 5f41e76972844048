//! What can be set, its defaults, and what must hold between settings. A setting has one name
//! everywhere: `listen` under `[http]` in the file is `SERVER_MIN_HTTP_LISTEN` in the environment
//! and `--http.listen` as a flag. Flags win over the environment, which wins over the file.

mod apps;
mod flags;
mod load;

pub use apps::AppConfig;
pub use flags::{Action, Command, HELP, parse_args};
pub use load::{ConfigError, Setting, from_environment, load};

use crate::mqtt::BrokerConfig;
use crate::nodes;
use crate::regions::{self, GeoipConfig, Network, RegionConfig};
use crate::session::record::SESSION_TTL_S;
use crate::stun_turn::TurnConfig;
use crate::tls::TlsConfig;
use crate::{http, logger};
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
    /// Name of this node's region, a label of its metrics. Serves whoever no other one is chosen for.
    pub region: String,
    /// The host name or address that phones and cameras reach this server under. Where it is not
    /// set, the host that the session request itself was sent to.
    pub public_host: Option<String>,
    /// Whoever presents one of these may create sessions.
    pub app_keys: Vec<Secret>,
    /// Whoever presents a token signed by one of these may create sessions in its name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<AppConfig>,
    pub http: HttpConfig,
    pub mqtt: MqttConfig,
    pub turn: TurnConfig,
    pub session: SessionConfig,
    /// The certificate of every listener that speaks TLS or DTLS.
    pub tls: TlsConfig,
    /// Where TURN nodes stand, and whom they are near to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<RegionConfig>,
    pub geoip: GeoipConfig,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
    /// As a browser reaches this server where something stands in front of it (TLS, another
    /// port): `https://cam.example.org`.
    pub public_url: Option<String>,
    /// Whose pages may call `/v1` from a browser: `*`, one origin, or empty for none but our own.
    pub cors_origin: String,
    /// Proxies whose `X-Forwarded-For` or `Forwarded` says who the client is.
    pub trusted_proxies: Vec<Network>,
    /// HTTP connections at a time; WebSocket clients count with the broker's instead.
    pub max_connections: usize,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MqttConfig {
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
    /// As given to applications where the broker is reached under another address:
    /// `mqtts://mqtt.example.org:8883`.
    pub public_url: Option<String>,
    /// A device's password is the hex HMAC-SHA256 of its serial number under this secret. Without
    /// it no device can sign in.
    pub device_secret: Option<Secret>,
    /// Signs the credentials that applications get with a session. Made anew at each start where
    /// it is not set; nodes that share their clients must share it.
    pub app_secret: Option<Secret>,
    /// Password of the user `admin`, who may read and write every topic. Off unless set.
    pub admin_password: Option<Secret>,
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
            region: "local".into(),
            public_host: None,
            app_keys: Vec::new(),
            apps: Vec::new(),
            http: HttpConfig::default(),
            mqtt: MqttConfig::default(),
            turn: TurnConfig::default(),
            session: SessionConfig::default(),
            tls: TlsConfig::default(),
            regions: Vec::new(),
            geoip: GeoipConfig::default(),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        HttpConfig {
            listen: ([0, 0, 0, 0], 8080).into(),
            public_url: None,
            cors_origin: "*".into(),
            trusted_proxies: Vec::new(),
            max_connections: 1024,
        }
    }
}

impl Default for MqttConfig {
    fn default() -> MqttConfig {
        MqttConfig {
            listen: ([0, 0, 0, 0], 1883).into(),
            public_url: None,
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
        if let Err(text) = self.turn.check() {
            return Err(ConfigError::new(format!("turn.{text}")));
        }
        if let Err(text) = nodes::check(&self.turn.external, !self.turn.secrets.is_empty()) {
            return Err(ConfigError::new(format!("turn.{text}")));
        }
        regions::check(&self.region, &self.regions, &self.turn.external, &self.geoip)
            .map_err(ConfigError::new)?;
        if let Err(text) = self.tls.check() {
            return Err(ConfigError::new(format!("tls.{text}")));
        }
        let session = &self.session;
        let bounds = [
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

fn listen_address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format!(
            "{text:?} is not an address with a port; expected for example 0.0.0.0:8080 or [::]:8080"
        ))
    })
}
