//! Puts the layers together: the file, then the environment, then flags. Every error names the
//! key, and where its value came from.

use super::{Config, Secret};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Keys whose values never appear in an error.
const SECRET_KEYS: &[&str] = &[
    "app_keys",
    "secret",
    "_password",
    "secrets",
    "static_users",
    "redis",
    "external",
    "ops.token",
];
/// Sections by their prefix in environment names, the longer before the shorter.
const SECTIONS: &[(&str, &str)] = &[
    ("http_", "http"),
    ("mqtt_limits_", "mqtt.limits"),
    ("mqtt_", "mqtt"),
    ("turn_", "turn"),
    ("session_", "session"),
    ("store_", "store"),
    ("tls_", "tls"),
    ("geoip_", "geoip"),
    ("ops_", "ops"),
];

/// A value for one key from outside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// `http.listen`
    pub key: String,
    pub value: String,
    /// As the user knows it: `SERVER_MIN_HTTP_LISTEN`, `--http.listen`.
    pub source: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(String);

impl ConfigError {
    pub fn new(text: impl Into<String>) -> ConfigError {
        ConfigError(text.into())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Where the configuration comes from; it can be read again.
#[derive(Debug, Clone, Default)]
pub struct Source {
    pub file: Option<PathBuf>,
    /// From the environment and the command line, in the order they apply.
    pub settings: Vec<Setting>,
}

/// A configuration, and what was written to make it.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// With secrets, so it is compared and never shown.
    written: Written,
}

#[derive(Clone)]
struct Written(BTreeMap<String, Value>);

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Source {
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let (config, table) = read(self.file.as_deref(), &self.settings)?;
        let mut written = BTreeMap::new();
        flatten("", Value::Table(table), &mut written);
        Ok(Loaded { config, written: Written(written) })
    }
}

impl Loaded {
    /// The keys of what is set otherwise in `new`, in their order.
    pub fn changes(&self, new: &Loaded) -> Vec<String> {
        let (before, after) = (&self.written.0, &new.written.0);
        let effective = |loaded: &Loaded| {
            let mut all = BTreeMap::new();
            let written = toml::to_string(&loaded.config).unwrap_or_default();
            flatten("", Value::Table(toml::from_str(&written).unwrap_or_default()), &mut all);
            all
        };
        let (held, holds) = (effective(self), effective(new));
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let has_changed = |key: &String| {
            // A default that is written down is no change. Of secrets, the effective values are hidden.
            before.get(key) != after.get(key) && (is_secret(key) || held.get(key) != holds.get(key))
        };
        keys.into_iter().filter(|key| has_changed(key)).cloned().collect()
    }
}

/// Tables become keys with dots; what is in lists belongs to the list's key.
fn flatten(prefix: &str, value: Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                flatten(&key, value, into);
            }
        }
        value => drop(into.insert(prefix.to_owned(), value)),
    }
}

/// Reads `file` and applies `settings` in their order.
pub fn load(file: Option<&Path>, settings: &[Setting]) -> Result<Config, ConfigError> {
    read(file, settings).map(|(config, _)| config)
}

fn read(file: Option<&Path>, settings: &[Setting]) -> Result<(Config, Table), ConfigError> {
    let text = match file {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|e| ConfigError::new(format!("configuration file {}: {e}", path.display())))?,
        None => String::new(),
    };
    let name = file.map(|path| path.display().to_string()).unwrap_or_default();
    let mut config: Config = toml::from_str(&text).map_err(|e| in_file(&name, &text, &e))?;
    let mut table: Table = toml::from_str(&text).map_err(|e| in_file(&name, &text, &e))?;
    let mut more_keys = Vec::new();
    for setting in settings {
        if setting.key == "app_key" {
            more_keys.push(Secret::new(&setting.value));
            continue;
        }
        (table, config) = with(&table, setting)?;
    }
    config.app_keys.append(&mut more_keys);
    config.validate()?;
    Ok((config, table))
}

/// What the environment sets: `SERVER_MIN_…`, and `P2PCAM_APP_KEY` for one more application key.
pub fn from_environment(vars: impl Iterator<Item = (String, String)>) -> Vec<Setting> {
    let mut settings: Vec<Setting> = vars
        .filter_map(|(name, value)| {
            let key = if name == "P2PCAM_APP_KEY" {
                "app_key".to_owned()
            } else {
                let rest = name.strip_prefix("SERVER_MIN_")?;
                // Kubernetes sets these for a Service that is called server-min.
                if rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_") {
                    return None;
                }
                key_of(&rest.to_ascii_lowercase())
            };
            // These two are read before anything is loaded.
            let elsewhere = key == "config" || key == "ready_file";
            (!elsewhere && !value.is_empty()).then_some(Setting { key, value, source: name })
        })
        .collect();
    settings.sort_by(|a, b| a.source.cmp(&b.source));
    settings
}

/// `http_max_connections` is `max_connections` under `[http]`.
fn key_of(name: &str) -> String {
    let in_section = SECTIONS
        .iter()
        .find_map(|(prefix, section)| Some(format!("{section}.{}", name.strip_prefix(prefix)?)));
    in_section.unwrap_or_else(|| name.to_owned())
}

/// The configuration with one setting applied. What type it must have, the configuration says: a
/// text is tried first, then a TOML value, then a list of texts with commas between.
fn with(table: &Table, setting: &Setting) -> Result<(Table, Config), ConfigError> {
    let literal = toml::from_str::<Table>(&format!("v = {}", setting.value))
        .ok()
        .and_then(|mut parsed| parsed.remove("v"))
        .filter(|value| !value.is_str());
    let list = setting.value.split(',').map(|s| Value::from(s.trim())).collect();
    let candidates = [Some(Value::from(setting.value.as_str())), literal, Some(Value::Array(list))];
    let mut first_error = None;
    for value in candidates.into_iter().flatten() {
        let mut table = table.clone();
        set(&mut table, &setting.key, value);
        // By way of text, as from a file: the second way there would be 200 kB of code.
        let read = toml::to_string(&table).map(|text| toml::from_str::<Config>(&text));
        match read.unwrap_or_else(|e| Err(serde::de::Error::custom(e))) {
            Ok(config) => return Ok((table, config)),
            Err(e) => first_error = first_error.or(Some(e)),
        }
    }
    let message = first_error.map(|e| e.message().to_owned()).unwrap_or_default();
    let text = format!(
        "{} (the setting {}): {}",
        setting.source,
        setting.key,
        hide(&setting.key, &message)
    );
    Err(ConfigError::new(text))
}

fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        Some((section, key)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                set(inner, key, value);
            }
        }
        None => {
            table.insert(key.to_owned(), value);
        }
    }
}

/// `server-min.toml line 3, http.listen: …`
fn in_file(name: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start).min(text.len());
    let before = text.get(..start).unwrap_or(text);
    let line_number = before.matches('\n').count() + 1;
    let line = text.lines().nth(line_number - 1).unwrap_or("").trim();
    let section = text
        .lines()
        .take(line_number)
        .filter_map(|l| l.trim().strip_prefix('[')?.trim_start_matches('[').split(']').next())
        .last();
    let key = line.split(['=', ' ']).next().unwrap_or("").trim();
    let is_key_char = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.');
    let is_key = !key.is_empty() && key.bytes().all(is_key_char);
    let key = match (section, is_key) {
        (Some(section), true) => format!(", {section}.{key}"),
        (None, true) => format!(", {key}"),
        (Some(section), false) => format!(", [{section}]"),
        (None, false) => String::new(),
    };
    // In a list of tables several keys stand in one line.
    let secret = SECRET_KEYS.iter().find(|secret| line.contains(**secret));
    let message = hide(secret.unwrap_or(&key.as_str()), error.message());
    ConfigError::new(format!("{name} line {line_number}{key}: {message}"))
}

fn is_secret(key: &str) -> bool {
    SECRET_KEYS.iter().any(|secret| key.ends_with(secret))
}

/// Takes the value out of a message about a secret: `invalid type: string "…", expected …`.
fn hide(key: &str, message: &str) -> String {
    match message.split_once("expected") {
        Some((found, expected)) if is_secret(key) && !found.starts_with("unknown field") => {
            format!("expected{expected}")
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(key: &str, value: &str) -> Setting {
        Setting { key: key.into(), value: value.into(), source: format!("--{key}") }
    }

    fn from_file(name: &str, text: &str) -> Result<Config, ConfigError> {
        let path = std::env::temp_dir().join(format!("p2pcam-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let loaded = load(Some(&path), &[]);
        std::fs::remove_file(&path).unwrap();
        loaded
    }

    #[test]
    fn later_layers_win_and_types_follow_the_key() {
        let settings = [
            setting("http.listen", "127.0.0.1:0"),
            setting("http.max_connections", "7"),
            setting("http.listen", "[::1]:81"),
            setting("region", "12"),
            setting("app_keys", "one, two"),
            setting("app_key", "three"),
        ];
        let config = load(None, &settings).unwrap();
        assert_eq!(config.http.listen, "[::1]:81".parse().ok());
        assert_eq!((config.http.max_connections, config.region.as_str()), (7, "12"));
        let keys: Vec<&str> = config.app_keys.iter().map(Secret::expose).collect();
        assert_eq!(keys, ["one", "two", "three"]);
    }

    #[test]
    fn environment_names_map_to_keys() {
        let vars = [
            ("SERVER_MIN_HTTP_MAX_CONNECTIONS", "9"),
            ("SERVER_MIN_PUBLIC_HOST", "cam.example.org"),
            ("SERVER_MIN_PORT_8080_TCP", "tcp://192.0.2.1:8080"),
            ("SERVER_MIN_SERVICE_HOST", "192.0.2.1"),
            ("P2PCAM_APP_KEY", "k"),
            ("HOME", "/"),
        ];
        let settings = from_environment(vars.iter().map(|(k, v)| ((*k).into(), (*v).into())));
        let config = load(None, &settings).unwrap();
        assert_eq!(config.http.max_connections, 9);
        assert_eq!(config.public_host.as_deref(), Some("cam.example.org"));
        assert_eq!(config.app_keys, [Secret::new("k")]);
    }

    #[test]
    fn errors_name_file_line_key_and_what_was_expected() {
        let err = from_file("line", "region = \"x\"\n\n[http]\nlisten = \"8080\"\n").unwrap_err();
        assert!(err.0.contains("line 4, http.listen: \"8080\" is not an address"), "{err}");
        let err = from_file("unknown", "[mqtt]\nlissten = \"x\"\n").unwrap_err();
        assert!(err.0.contains("line 2, mqtt.lissten: unknown field `lissten`"), "{err}");
        assert!(err.0.contains("`listen`"), "{err}");
        let err = from_file("section", "[htpp]\nlisten = \"x\"\n").unwrap_err();
        assert!(err.0.contains("line 1") && err.0.contains("`htpp`"), "{err}");
        let err = from_file("type", "[http]\nmax_connections = \"x\"\n").unwrap_err();
        assert!(err.0.contains("line 2, http.max_connections: invalid type"), "{err}");
        let err = from_file("syntax", "[http\n").unwrap_err();
        assert!(err.0.contains("line 1"), "{err}");
        let err = load(Some(Path::new("/nonexistent.toml")), &[]).unwrap_err();
        assert!(err.0.contains("/nonexistent.toml"), "{err}");
        for (key, value) in [("http.listen", "x"), ("htp.x", "1"), ("session.token_ttl_s", "5")] {
            let err = load(None, &[setting(key, value)]).unwrap_err();
            assert!(err.0.contains(key.split('.').next().unwrap()), "{err}");
        }
    }

    #[test]
    fn no_error_and_no_description_shows_a_secret() {
        let err = from_file("secret", "app_keys = \"hunter2\"\n").unwrap_err();
        assert!(err.0.contains("line 1, app_keys: expected a sequence"), "{err}");
        assert!(!err.0.contains("hunter2"), "{err}");
        let settings = [
            setting("app_keys", "hunter2"),
            setting("mqtt.device_secret", "hunter2"),
            setting("mqtt.admin_password", "hunter2"),
            setting("mqtt.hook_secret", "hunter2"),
        ];
        let config = load(None, &settings).unwrap();
        assert!(!config.describe().contains("hunter2"), "{}", config.describe());
        assert!(config.describe().contains("(hidden)"));
        assert!(!format!("{config:?}").contains("hunter2"));
        let same = [setting("mqtt.device_secret", "x"), setting("mqtt.app_secret", "x")];
        assert!(load(None, &same).unwrap_err().0.starts_with("mqtt.app_secret"));
    }
}
