//! The log: a session can be followed from end to end in both formats, and nobody can fill the disk with
//! it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(clippy::disallowed_methods, reason = "tests of the whole run in real time")]

mod api_support;
mod camera_support;
mod ops_support;

use api_support::{APP_KEY, Mqtt, bearer, get, new_session, request, until_metric};
use camera_support::Side;
use ops_support::{Binary, Folder, SECTIONS, run};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

fn start(name: &str, settings: &str) -> (Folder, Binary) {
    let folder = Folder::new(name);
    // All clients of a test have one address.
    let limits = "[mqtt.limits]\nfailed_logins_per_minute = 0\n";
    let text = format!("app_keys = [\"{APP_KEY}\"]\n{settings}\n{SECTIONS}\n{limits}");
    folder.write("server.toml", &text);
    let server = Binary::start(&folder);
    (folder, server)
}

/// One session from its creation to its end, with everything the server sees of it; its id.
async fn whole_session(server: &Binary) -> String {
    let (http, mqtt) = (server.http, server.mqtt);
    let session = new_session(http, "cam_1", "app_1").await;
    let id = session["sessionId"].as_str().unwrap().to_owned();
    let mut device = Mqtt::device(mqtt, "cam_1").await;
    let mut app = Mqtt::app(mqtt, &session, "app_1").await;
    let message = |from: &str, to: &str, kind: &str, payload: Value| {
        json!({
            "type": kind, "sessionId": id, "from": from, "to": to, "payload": payload,
            "timestamp": 1_750_929_836_097_u64,
        })
    };
    // In another's name.
    let forged = message("app_2", "cam_1", "bye", json!({"reason": "x"}));
    app.publish("p2p/signal/device/cam_1", &forged).await;
    let mut allocation = Side::of(server.stun, &session);
    assert!(allocation.relays());
    let report = json!({"state": "connected", "path": "relay", "setupMs": 120});
    let report = message("cam_1", "server", "keepalive", report);
    device.publish("p2p/signal/server", &report).await;
    until_metric(http, "p2p_connection_success_total", 1.0).await;
    let path = format!("/v1/sessions/{id}");
    assert_eq!(request(http, "GET", &path, &[bearer(APP_KEY)], "").await.status, 200);
    // A reason that wants to be a line, and a session, of its own.
    let words = "over\n{\"sessionId\":\"forged\"} sessionId=forged \u{1b}[31m\"";
    let closed = json!({"state": "closed", "code": 408, "reason": words});
    let closed = message("cam_1", "server", "keepalive", closed);
    device.publish("p2p/signal/server", &closed).await;
    until_metric(http, "turn_sessions_active", 0.0).await;
    id
}

/// What must be found of it: where it was said, and what.
const EVENTS: &[(&str, &str)] = &[
    ("session::service", "created for app app_1 and device cam_1"),
    ("http::server", "POST /v1/sessions 201"),
    ("session::access", "app_1 refused: another's name"),
    ("stun_turn", "TURN allocation 127.0.0.1:"),
    ("session::service", "connected, says cam_1"),
    ("session::service", "path=Relay, says cam_1"),
    ("session::service", "setupMs=120, says cam_1"),
    ("http::server", " GET /v1/sessions/"),
    ("session::service", "closed (cam_1: over"),
    ("stun_turn", "closed: 1 TURN allocations freed"),
    ("stun_turn", "bytes to peers"),
];

/// Those of [`EVENTS`] that belong to no session yet when they are said.
fn is_of_session(event: &str) -> bool {
    !event.starts_with("POST")
}

#[test]
fn a_session_is_found_by_its_id_in_text() {
    let (_folder, server) = start("log-text", "log = \"debug\"");
    let id = run(whole_session(&server));
    server.signal(libc::SIGINT);
    let (code, log) = server.ended(SOON);
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(&id)).collect();
    for (target, says) in EVENTS.iter().filter(|(_, says)| is_of_session(says)) {
        let found = lines.iter().any(|line| {
            let start = format!(": sessionId={id} ");
            line.split(&start).next().is_some_and(|head| head.contains(target))
                && line.contains(says)
        });
        assert!(found, "{target}: {says}\n{log}");
    }
    // One event is one line, with its time, whatever was said in it.
    for line in log.lines() {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{line}");
        let level = rest.split_whitespace().next().unwrap();
        assert!(["ERROR", "WARN", "INFO", "DEBUG"].contains(&level), "{line}");
    }
    assert!(log.contains("reason=timeout") && !log.contains('\u{1b}'), "{log}");
}

#[test]
fn a_session_is_found_by_its_field_in_json() {
    let (_folder, server) = start("log-json", "log = \"debug\"\nlog_format = \"json\"");
    let id = run(whole_session(&server));
    server.signal(libc::SIGINT);
    let (code, log) = server.ended(SOON);
    assert_eq!(code, Some(0));
    let events: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    for event in &events {
        let ts = event["ts"].as_str().unwrap();
        assert!(ts.len() == 24 && ts.ends_with('Z'), "{event}");
        for field in ["level", "target", "msg"] {
            assert!(event[field].is_string(), "{field}: {event}");
        }
        assert!(!event["msg"].as_str().unwrap().starts_with("sessionId="), "{event}");
        // Of nobody else: what stands in somebody's words is not believed.
        let session = event.get("sessionId").map_or(id.as_str(), |s| s.as_str().unwrap());
        assert_eq!(session, id, "{event}");
    }
    for (target, says) in EVENTS {
        let event = events.iter().find(|event| {
            let text = |field: &str| event[field].as_str().unwrap();
            text("target").starts_with(target) && text("msg").contains(says)
        });
        let event = event.unwrap_or_else(|| panic!("{target}: {says}\n{log}"));
        let session = is_of_session(says).then(|| Value::from(id.as_str()));
        assert_eq!(event.get("sessionId"), session.as_ref(), "{event}");
    }
}

/// A thousand wrong passwords are not a thousand lines, but it is known that they were.
#[test]
fn a_flood_is_counted_instead_of_written() {
    const LOGINS: usize = 300;
    let settings = "log_limit = 1\nlog_format = \"json\"";
    let (_folder, server) = start("log-flood", settings);
    run(async {
        for _ in 0..LOGINS {
            assert!(Mqtt::connect(server.mqtt, "cam_1", "wrong").await.is_err());
        }
        // What belongs to a session is still written.
        let id = whole_session(&server).await;
        server.until_log(&id);
        assert_eq!(get(server.http, "/healthz").await.status, 200);
    });
    server.signal(libc::SIGINT);
    let (_, log) = server.ended(SOON);
    let messages: Vec<String> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["msg"].as_str().unwrap().into())
        .collect();
    let written = messages.iter().filter(|msg| msg.contains("refused: client id")).count();
    let left_out: usize = messages
        .iter()
        .filter(|msg| msg.contains("more lines of mqtt::connection"))
        .map(|msg| msg.split(' ').next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert_eq!(written + left_out, LOGINS, "{log}");
    // Ten at once, and one a second after that; the test may take a while.
    assert!((10..100).contains(&written), "{written}: {log}");
}

/// A client that is refused an allocation and tries again has one line, as long as the test may take.
#[test]
fn a_client_that_is_refused_again_and_again_has_one_line() {
    let (_folder, server) = start("log-quota", "");
    let id = run(async {
        let session = new_session(server.http, "cam_1", "app_1").await;
        let held: Vec<_> = (0..16).map(|_| Side::of(server.stun, &session)).collect();
        for _ in 0..50 {
            assert!(Side::tried(server.stun, &session).is_err());
        }
        drop(held);
        let refused = "turn_requests_refused_total{reason=\"session_quota\"}";
        until_metric(server.http, refused, 50.0).await;
        session["sessionId"].as_str().unwrap().to_owned()
    });
    server.signal(libc::SIGINT);
    let (_, log) = server.ended(SOON);
    let of_quota = |line: &&str| line.contains("turn.allocations_per_session");
    let lines: Vec<&str> = log.lines().filter(of_quota).collect();
    assert!(lines.len() == 1 && lines[0].contains(&format!("sessionId={id} ")), "{log}");
}
