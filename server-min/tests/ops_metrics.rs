//! /metrics: what it says is what happened, what Prometheus reads, and what docs/metrics.md lists.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod api_support;
mod camera_support;
mod ops_support;

use api_support::{
    APP_KEY, Mqtt, bearer, get, metric, new_session, request, until_metric, with_server,
};
use camera_support::Side;
use ops_support::{Folder, promtool, said};
use serde_json::{Value, json};
use server_min::session::Reason;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The metrics in the tables of docs/metrics.md.
fn listed() -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let page = fs::read_to_string(path).unwrap();
    let mut listed = BTreeSet::new();
    let mut lines = page.lines();
    while lines.by_ref().any(|line| line == "| Metric | |") {
        for line in lines.by_ref().skip(1).take_while(|line| line.starts_with("| ")) {
            let cell = line.split('|').nth(1).unwrap();
            for name in cell.split('`').skip(1).step_by(2) {
                let name = name.split('{').next().unwrap();
                assert!(listed.insert(name.to_owned()), "{name} is listed twice");
            }
        }
    }
    assert!(listed.len() > 40, "{listed:?}");
    listed
}

/// Each family with its help and its kind, in this order, before its samples.
fn families(text: &str) -> BTreeMap<String, String> {
    let mut families = BTreeMap::new();
    let mut helped = None;
    let mut current = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["#", "HELP", name, help] => {
                assert!(help.len() > 5 && help.ends_with('.'), "{line}");
                helped = Some(*name);
            }
            ["#", "TYPE", name, kind] => {
                assert_eq!(helped, Some(*name), "{line}");
                let before = families.insert((*name).to_owned(), (*kind).to_owned());
                assert_eq!(before, None, "{name} is there twice");
                (*name).clone_into(&mut current);
            }
            _ => {
                let name = line.split(['{', ' ']).next().unwrap();
                let of_histogram = ["_bucket", "_sum", "_count"]
                    .iter()
                    .filter_map(|end| name.strip_suffix(end))
                    .any(|base| base == current && families[base] == "histogram");
                assert!(name == current || of_histogram, "{line} stands in {current}");
            }
        }
    }
    families
}

#[test]
fn promtool_likes_it_and_the_docs_list_it() {
    let folder = Folder::new("metrics");
    folder.certificate(2031);
    let file = |name: &str| folder.path(name).to_str().unwrap().to_owned();
    let (certificate, key) = (file("cert.pem"), file("key.pem"));
    let settings = [
        ("tls.certificate", certificate.as_str()),
        ("tls.key", &key),
        ("turn.allow_loopback_peers", "true"),
    ];
    with_server(&settings, |server| async move {
        let http = server.http;
        // A bit of everything.
        let session = new_session(http, "cam_1", "app_1").await;
        let _device = Mqtt::device(server.mqtt, "cam_1").await;
        let _app = Mqtt::app(server.mqtt, &session, "app_1").await;
        assert!(Mqtt::connect(server.mqtt, "cam_1", "wrong").await.is_err());
        let stun = server.stun[0];
        // Its sockets block, and so must not stand on the server's thread.
        let relayed = tokio::task::spawn_blocking(move || {
            let mut allocation = Side::of(stun, &session);
            assert!(allocation.relays());
            allocation
        });
        let _allocation = relayed.await.unwrap();
        assert_eq!(get(http, "/nothing?x").await.status, 404);
        until_metric(http, "turn_sessions_active", 1.0).await;

        let text = get(http, "/metrics").await.body;
        let output = promtool(&["check", "metrics"], &text);
        assert!(output.status.success() && said(&output).is_empty(), "{}", said(&output));
        let families = families(&text);
        assert_eq!(families.keys().cloned().collect::<BTreeSet<_>>(), listed());
        for (name, kind) in &families {
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        }
        for (name, value) in [
            ("mqtt_clients{role=\"device\"}", 1.0),
            ("mqtt_clients{role=\"app\"}", 1.0),
            ("mqtt_logins_refused_total{reason=\"credentials\"}", 1.0),
            ("p2p_sessions{state=\"connecting\"}", 1.0),
            ("http_requests_total{route=\"/v1/sessions\",status=\"201\"}", 1.0),
            ("http_requests_total{route=\"page\",status=\"404\"}", 1.0),
            ("http_request_duration_seconds_count{route=\"/v1/sessions\"}", 1.0),
            ("turn_sessions_max", 10_000.0),
            ("turn_requests_refused_total{reason=\"unauthorized\"}", 0.0),
            ("server_min_ready{check=\"store\"}", 1.0),
            ("server_min_ready{check=\"turn\"}", 1.0),
            ("server_min_ready{check=\"listeners\"}", 1.0),
            ("server_min_config_last_reload_successful", 1.0),
        ] {
            assert_eq!(metric(http, name).await, value, "{name}");
        }
        server
    });
}

/// The article's names, labels and buckets are those of its own dashboards: they stay.
#[test]
fn the_article_s_names_labels_and_buckets() {
    with_server(&[], |server| async move {
        let text = get(server.http, "/metrics").await.body;
        for start in [
            "stun_requests_total{status=\"success\",region=\"eu-1\"} ",
            "turn_sessions_active ",
            "turn_sessions_total ",
            "p2p_connections_total{path=\"relay\"} ",
            "p2p_connection_attempts_total ",
            "p2p_connection_success_total ",
            "p2p_latency_seconds_sum ",
            "p2p_latency_seconds_count ",
        ] {
            assert!(text.lines().any(|line| line.starts_with(start)), "{start}\n{text}");
        }
        let bounds: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("p2p_latency_seconds_bucket{le=\""))
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        assert_eq!(bounds, ["0.1", "0.25", "0.5", "1", "2.5", "5", "+Inf"]);
        server
    });
}

fn report(session: &Value, from: &str, kind: &str, payload: Value) -> Value {
    json!({
        "type": kind, "sessionId": session["sessionId"], "from": from, "to": "server",
        "payload": payload, "timestamp": 1_750_929_836_097_u64,
    })
}

#[test]
fn each_session_s_end_is_counted_by_its_reason() {
    const SERVER: &str = "p2p/signal/server";
    let delete = async |http, session: &Value, query: &str| {
        let path = format!("/v1/sessions/{}{query}", session["sessionId"].as_str().unwrap());
        assert_eq!(request(http, "DELETE", &path, &[bearer(APP_KEY)], "").await.status, 204);
    };
    with_server(&[], |server| async move {
        let http = server.http;
        let mut device = Mqtt::device(server.mqtt, "cam_1").await;
        let mut ended = Vec::new();
        let closed = |more: Value| {
            let mut payload = json!({"state": "closed"});
            payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            payload
        };
        // What a camera says.
        for (kind, payload, reason) in [
            ("keepalive", closed(json!({"code": 408, "reason": "no way"})), Reason::Timeout),
            ("keepalive", closed(json!({"code": 406})), Reason::Unplayable),
            ("keepalive", closed(json!({"code": 777})), Reason::Internal),
            ("keepalive", closed(json!({})), Reason::Left),
            ("bye", json!({"reason": "the camera is shutting down"}), Reason::Left),
            ("error", json!({"code": 503, "message": "no stream"}), Reason::Unavailable),
        ] {
            let session = new_session(http, "cam_1", "app_1").await;
            device.publish(SERVER, &report(&session, "cam_1", kind, payload)).await;
            ended.push((session, reason, false));
            until_metric(http, "p2p_sessions{state=\"connecting\"}", 0.0).await;
        }
        // What an application says, through the API and to a camera that is not there.
        for (query, reason) in
            [("", Reason::Api), ("?code=429", Reason::Busy), ("?x&code=y", Reason::Api)]
        {
            let session = new_session(http, "cam_1", "app_1").await;
            delete(http, &session, query).await;
            ended.push((session, reason, false));
        }
        let session = new_session(http, "cam_2", "app_1").await;
        let mut app = Mqtt::app(server.mqtt, &session, "app_1").await;
        app.publish(SERVER, &report(&session, "app_1", "bye", json!({"reason": "x"}))).await;
        ended.push((session, Reason::DeviceOffline, false));
        until_metric(http, "p2p_sessions{state=\"connecting\"}", 0.0).await;
        // One that plays, and is lost; the camera took the viewer's relay for an address of its own.
        let session = new_session(http, "cam_1", "app_1").await;
        let connected = |path: &str| json!({"state": "connected", "path": path, "setupMs": 120});
        device.publish(SERVER, &report(&session, "cam_1", "keepalive", connected("prflx"))).await;
        for _ in 0..2 {
            let payload = connected("relay");
            app.publish(SERVER, &report(&session, "app_1", "keepalive", payload)).await;
        }
        until_metric(http, "p2p_connections_total{path=\"relay\"}", 1.0).await;
        assert_eq!(metric(http, "p2p_connections_total{path=\"direct\"}").await, 1.0);
        assert_eq!(metric(http, "p2p_connection_success_total").await, 1.0);
        assert_eq!(metric(http, "p2p_sessions{state=\"connected\"}").await, 1.0);
        let lost = closed(json!({"code": 408, "reason": "nothing was heard"}));
        device.publish(SERVER, &report(&session, "cam_1", "keepalive", lost)).await;
        ended.push((session, Reason::Timeout, true));
        until_metric(http, "p2p_sessions{state=\"connected\"}", 0.0).await;

        for reason in Reason::ALL {
            for (family, was_connected) in
                [("p2p_connection_failures_total", false), ("p2p_disconnections_total", true)]
            {
                let is_one =
                    |(_, r, c): &&(Value, Reason, bool)| *r == reason && *c == was_connected;
                let count = ended.iter().filter(is_one).count();
                let name = format!("{family}{{reason=\"{}\"}}", reason.label());
                assert_eq!(metric(http, &name).await, count as f64, "{name}");
            }
        }
        // And each can be looked up.
        let recent = server.service.recent().newest(100);
        assert_eq!(recent.len(), ended.len());
        for (found, (session, reason, was_connected)) in recent.iter().rev().zip(&ended) {
            assert_eq!(session["sessionId"], found.session_id);
            assert_eq!((found.ending.reason, found.connected), (*reason, *was_connected));
            assert_eq!(found.app_id, "app_1");
            assert!(found.age_ms().unwrap() < 60_000);
        }
        assert_eq!(recent[0].setup_ms, Some(120));
        assert_eq!(recent[0].ending.words, "cam_1: nothing was heard (408)");
        server
    });
}

#[test]
fn a_full_store_is_counted() {
    with_server(&[("session.max_sessions", "1")], |server| async move {
        let http = server.http;
        new_session(http, "cam_1", "app_1").await;
        let body = r#"{"deviceId":"cam_1","appId":"app_1"}"#;
        let reply = request(http, "POST", "/v1/sessions", &[bearer(APP_KEY)], body).await;
        assert_eq!(reply.status, 429);
        assert_eq!(metric(http, "session_store_errors_total{error=\"full\"}").await, 1.0);
        server
    });
}

#[test]
fn a_connection_too_many_is_counted() {
    with_server(&[("http.max_connections", "2")], |server| async move {
        let connect = || TcpStream::connect(server.http);
        let (mut first, _second) = (connect().await.unwrap(), connect().await.unwrap());
        let mut third = connect().await.unwrap();
        let read = third.read(&mut [0]).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        let head = "GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
        first.write_all(head.as_bytes()).await.unwrap();
        let mut text = String::new();
        first.read_to_string(&mut text).await.unwrap();
        for line in
            ["http_connections 2", "http_connections_max 2", "http_connections_refused_total 1"]
        {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        server
    });
}
