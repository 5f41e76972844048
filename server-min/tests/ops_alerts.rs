//! The alerts and the dashboard: promtool reads them, the alerts fire when they should and only then,
//! and neither asks for a metric that the server does not have.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod api_support;
mod mmdb_support;
mod ops_support;
mod redis_support;

use api_support::{get, with_server};
use mmdb_support::Mmdb;
use ops_support::{Folder, promtool, said};
use redis_support::Redis;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

fn deploy(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy")).join(name)
}

fn read(name: &str) -> String {
    let path = deploy(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn expect_good(arguments: &[&str]) {
    let output = promtool(arguments, "");
    assert!(output.status.success(), "promtool {arguments:?}: {}", said(&output));
}

#[test]
fn promtool_reads_the_rules_and_the_configuration() {
    let path = |name: &str| deploy(name).to_str().unwrap().to_owned();
    expect_good(&["check", "rules", &path("prometheus/alerts.yml")]);
    expect_good(&["check", "config", &path("prometheus/prometheus.yml")]);
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    expect_good(&["test", "rules", deploy("prometheus/alerts_test.yml").to_str().unwrap()]);
    // Each one both ways.
    let rules = read("prometheus/alerts.yml");
    let alerts: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let tests = read("prometheus/alerts_test.yml");
    let mut tried: BTreeMap<&str, BTreeSet<bool>> = BTreeMap::new();
    let mut current = "";
    for line in tests.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("alertname: ") {
            current = name;
        } else if let Some(expected) = line.strip_prefix("exp_alerts:") {
            tried.entry(current).or_default().insert(expected.is_empty());
        }
    }
    assert!(alerts.contains("HighTurnRatio") && alerts.contains("LowConnectionSuccessRate"));
    assert_eq!(tried.keys().copied().collect::<BTreeSet<_>>(), alerts);
    for (alert, outcomes) in tried {
        assert_eq!(outcomes.len(), 2, "{alert} is not tested both ways");
    }
}

/// Whoever is woken at night finds a section about it.
#[test]
fn each_alert_has_its_place_in_the_runbook() {
    let page = fs::read_to_string(deploy("../../docs/operations.md")).unwrap();
    let headings: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(|heading| heading.to_ascii_lowercase().replace(' ', "-"))
        .collect();
    let rules = read("prometheus/alerts.yml");
    let runbooks: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("runbook: ")).collect();
    let alerts = rules.matches("- alert: ").count();
    assert_eq!(runbooks.len(), alerts);
    for runbook in runbooks {
        let anchor = runbook.strip_prefix("docs/operations.md#").expect(runbook);
        assert!(headings.contains(anchor), "{anchor} is not among {headings:?}");
    }
}

/// Every name that looks like one of our metrics.
fn metric_names(text: &str) -> BTreeSet<&str> {
    const PREFIXES: &[&str] = &[
        "p2p_",
        "stun_",
        "turn_",
        "mqtt_",
        "http_",
        "session_",
        "server_min_",
        "process_",
        "tls_",
        "region_",
        "geoip_",
    ];
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .filter(|word| PREFIXES.iter().any(|prefix| word.starts_with(prefix)))
        .collect()
}

/// What can be asked for: families, and the series of histograms.
fn known(families: &str) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for line in families.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        if kind == "histogram" {
            known.extend(["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")));
        } else {
            known.insert(name.to_owned());
        }
    }
    known
}

/// Expressions of the dashboard's panels and annotations, by where they stand.
fn expressions(value: &Value, place: &str, into: &mut Vec<(String, String)>) {
    match value {
        Value::Object(object) => {
            let title = object.get("title").or(object.get("name")).and_then(Value::as_str);
            let place = title.unwrap_or(place);
            for (key, value) in object {
                match (key.as_str(), value) {
                    ("expr", Value::String(text)) => into.push((place.into(), text.clone())),
                    _ => expressions(value, place, into),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| expressions(value, place, into)),
        _ => {}
    }
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_are_there() {
    let dashboard: Value = serde_json::from_str(&read("grafana/p2pcam.json")).unwrap();
    let mut asked = Vec::new();
    expressions(&dashboard, "", &mut asked);
    assert!(asked.len() > 50, "{}", asked.len());
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "an id is there twice");
        let position = &panel["gridPos"];
        let end = position["x"].as_u64().unwrap() + position["w"].as_u64().unwrap();
        assert!(end <= 24, "{}", panel["title"]);
    }

    // As Grafana would send them. promtool reads the expressions of rules, so rules they become.
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    for (i, (place, expression)) in asked.iter().enumerate() {
        let sent = expression.replace("$__rate_interval", "1m").replace("$instance", ".*");
        assert!(!sent.contains('$'), "{place}: {sent}");
        let quoted = serde_json::to_string(&sent).unwrap();
        rules += &format!("      - record: panel{i}\n        expr: {quoted}\n");
    }
    let folder = Folder::new("dashboard");
    expect_good(&["check", "rules", folder.write("rules.yml", &rules).to_str().unwrap()]);
    // It would notice.
    let broken = rules.replacen("sum(", "sum((", 1);
    let broken = folder.write("broken.yml", &broken);
    assert!(!promtool(&["check", "rules", broken.to_str().unwrap()], "").status.success());

    let known = all_metrics();
    for (place, expression) in &asked {
        let names = metric_names(expression);
        assert!(!names.is_empty(), "{place}: {expression}");
        for name in names {
            assert!(known.contains(name), "{place}: {name} is no metric");
        }
    }
    for file in ["prometheus/alerts.yml", "prometheus/alerts_test.yml"] {
        for name in metric_names(&read(file)) {
            assert!(known.contains(name), "{file}: {name} is no metric");
        }
    }
}

/// Of a server that has all by itself, and of one that has everything elsewhere, with certificates and a
/// database: between them they have every metric there is.
fn all_metrics() -> BTreeSet<String> {
    let folder = Folder::new("all-metrics");
    folder.certificate(2031);
    let file = |name: &str| folder.path(name).to_str().unwrap().to_owned();
    let (certificate, key, database) = (file("cert.pem"), file("key.pem"), file("geo.mmdb"));
    Mmdb::new("GeoLite2-Country").country("192.0.2.0/24", "DE", "EU").write(database.as_ref(), 1);
    let redis = Redis::start();
    let url = redis.url();
    let elsewhere = [
        ("store.redis", url.as_str()),
        ("mqtt.external", "mqtt://127.0.0.1:9"),
        ("mqtt.public_url", "mqtt://127.0.0.1:9"),
        ("mqtt.public_ws_url", "ws://127.0.0.1:9"),
        ("regions", "[{name='eu-1', countries=['DE']}]"),
        ("geoip.database", &database),
        ("tls.certificate", &certificate),
        ("tls.key", &key),
    ];
    let mut all = BTreeSet::new();
    for settings in [&[][..], &elsewhere] {
        with_server(settings, |server| async {
            let counted = async || server.service.counts().is_some();
            redis_support::until("sessions are counted", counted).await;
            all.extend(known(&get(server.http, "/metrics").await.body));
            server
        });
    }
    all
}
