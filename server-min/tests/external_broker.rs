//! The session service with a real Mosquitto in our broker's place: one that lets everybody do
//! everything, so that what counts is what the service itself believes.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod api_support;
mod external_support;
mod redis_support;

use api_support::{
    APP_KEY, Mqtt, PATIENCE, bearer, get, metric, new_session, request, until_metric,
};
use external_support::{Authority, Folder, Mosquitto, Wire, free_port};
use serde_json::{Value, json};
use server_min::server::Server;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;
use tokio::time::{sleep, timeout};

const PUBLIC: [(&str, &str); 2] = [
    ("mqtt.public_url", "mqtts://mqtt.example.org:8883"),
    ("mqtt.public_ws_url", "wss://mqtt.example.org/mqtt"),
];

/// One that lets everybody do everything.
fn beside_mosquitto(test: impl AsyncFnOnce(&mut Mosquitto)) {
    let folder = Folder::new("open");
    let port = free_port();
    let configuration = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n\
         persistence_location {}/\n",
        folder.0.display()
    );
    with_mosquitto(&folder, &configuration, port, test);
}

fn with_mosquitto(
    folder: &Folder,
    configuration: &str,
    port: u16,
    test: impl AsyncFnOnce(&mut Mosquitto),
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut mosquitto = Mosquitto::start(folder, configuration, port).await;
        timeout(Duration::from_secs(60), test(&mut mosquitto)).await.unwrap();
    });
}

async fn server(external: &str, more: &[(&str, &str)]) -> Server {
    let settings = [&PUBLIC[..], &[("mqtt.external", external)], more].concat();
    Server::start(api_support::config(&settings)).await.unwrap()
}

async fn connected_server(external: &str, more: &[(&str, &str)]) -> Server {
    let server = server(external, more).await;
    until_metric(server.http, "mqtt_external_up", 1.0).await;
    server
}

async fn record(server: &Server, sid: &str) -> Value {
    let path = format!("/v1/sessions/{sid}");
    request(server.http, "GET", &path, &[bearer(APP_KEY)], "").await.json()
}

async fn until_record(server: &Server, sid: &str, key: &str, value: &str) -> Value {
    let reached = async {
        loop {
            let record = record(server, sid).await;
            if record[key] == value {
                return record;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{key} did not become {value}"))
}

async fn close(server: &Server, sid: &str) {
    let path = format!("/v1/sessions/{sid}");
    let reply = request(server.http, "DELETE", &path, &[bearer(APP_KEY)], "").await;
    assert_eq!(reply.status, 204);
}

fn report(sid: &str, from: &str, payload: Value) -> Value {
    json!({"type": "keepalive", "sessionId": sid, "from": from, "to": "server", "payload": payload,
           "timestamp": 0})
}

fn signal(kind: &str, sid: &str, [from, to]: [&str; 2]) -> Value {
    json!({"type": kind, "sessionId": sid, "from": from, "to": to, "payload": {"sdp": "v=0"},
           "timestamp": 0})
}

/// What the broker keeps until the device says something else.
async fn says_online(device: &mut Mqtt, sn: &str, online: bool) {
    let status = json!({"online": online, "timestamp": 0});
    device.publish_retained(&format!("p2p/status/device/{sn}"), &status).await;
}

async fn until_online(server: &Server, sn: &str, expected: Value) {
    let reached = async {
        loop {
            let session = new_session(server.http, sn, "app_x").await;
            if session["deviceOnline"] == expected {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{sn}: not {expected}"));
}

#[test]
fn a_session_goes_its_whole_way_over_mosquitto() {
    beside_mosquitto(async |mosquitto| {
        let server = connected_server(&mosquitto.url(), &[]).await;
        let ready = server.ready_line();
        assert!(ready.contains(&format!(" mqtt={} ", mosquitto.url())), "{ready}");
        let mut device = Mqtt::device(mosquitto.address, "cam_1").await;
        let session = new_session(server.http, "cam_1", "app_1").await;
        let sid = session["sessionId"].as_str().unwrap();
        assert_eq!(session["mqtt"]["url"], PUBLIC[0].1);
        assert_eq!(session["mqtt"]["wsUrl"], PUBLIC[1].1);
        assert_eq!(session.get("deviceOnline"), None, "it has never said so");
        let mut app = Mqtt::app(mosquitto.address, &session, "app_1").await;
        let told = device.message().await;
        assert_eq!((&told["type"], &told["from"]), (&json!("keepalive"), &json!("server")));
        assert_eq!(told["sessionId"], sid);

        app.publish("p2p/signal/device/cam_1", &signal("offer", sid, ["app_1", "cam_1"])).await;
        assert_eq!(device.message().await["type"], "offer");
        device.publish("p2p/signal/app/app_1", &signal("answer", sid, ["cam_1", "app_1"])).await;
        assert_eq!(app.message().await["type"], "answer");

        let connected = json!({"state": "connected", "path": "relay", "setupMs": 120});
        device.publish("p2p/signal/server", &report(sid, "cam_1", connected)).await;
        let record = until_record(&server, sid, "status", "connected").await;
        assert_eq!((&record["path"], &record["setupMs"]), (&json!("relay"), &json!(120)));
        let told = device.message().await;
        assert_eq!((&told["type"], &told["from"]), (&json!("keepalive"), &json!("server")));
        let second = json!({"state": "connected", "path": "host", "setupMs": 300});
        app.publish("p2p/signal/server", &report(sid, "app_1", second)).await;

        close(&server, sid).await;
        for side in [&mut device, &mut app] {
            let bye = side.message().await;
            assert_eq!((&bye["type"], bye["sessionId"].as_str()), (&json!("bye"), Some(sid)));
            assert_eq!(bye["from"], "server");
        }
        assert_eq!(metric(server.http, "p2p_latency_seconds_count").await, 1.0);
        assert_eq!(metric(server.http, "mqtt_external_reports_total").await, 2.0);
        until_metric(server.http, "mqtt_external_messages_out_total", 4.0).await;
        for name in ["queued", "dropped_total", "refused_total"] {
            assert_eq!(metric(server.http, &format!("mqtt_external_{name}")).await, 0.0);
        }
        // Our own broker is not there.
        let reply = get(server.http, "/mqtt").await;
        assert_eq!(reply.status, 404);
        assert!(reply.error().contains("mqtt.wsUrl"));
        server.stop().await;
        assert!(mosquitto.log().contains("Received DISCONNECT from server-min-"));
    });
}

#[test]
fn whether_a_device_is_online_is_known_from_its_status() {
    beside_mosquitto(async |mosquitto| {
        let mut early = Mqtt::device(mosquitto.address, "early").await;
        says_online(&mut early, "early", true).await;
        let server = connected_server(&mosquitto.url(), &[]).await;
        until_online(&server, "early", json!(true)).await;
        let mut late = Mqtt::device(mosquitto.address, "late").await;
        says_online(&mut late, "late", true).await;
        until_online(&server, "late", json!(true)).await;
        until_metric(server.http, "mqtt_external_devices_online", 2.0).await;
        says_online(&mut early, "early", false).await;
        until_online(&server, "early", json!(false)).await;
        until_online(&server, "never", Value::Null).await;
        // A sweep says bye to a device that is there, and leaves none for one that is not.
        let old = new_session(server.http, "late", "app_1").await;
        let sid = old["sessionId"].as_str().unwrap();
        let created_ms = record(&server, sid).await["createdAt"].as_u64().unwrap();
        assert!(server.service.sweep(created_ms + 300_000).await.unwrap() >= 5);
        let bye = async { while late.message().await["type"] != "bye" {} };
        timeout(PATIENCE, bye).await.unwrap();
        server.stop().await;
    });
}

#[test]
fn only_who_knows_a_session_reports_on_it() {
    beside_mosquitto(async |mosquitto| {
        let server = connected_server(&mosquitto.url(), &[]).await;
        let session = new_session(server.http, "cam_1", "app_1").await;
        let sid = session["sessionId"].as_str().unwrap();
        let mut device = Mqtt::device(mosquitto.address, "cam_1").await;
        let mut other = Mqtt::device(mosquitto.address, "cam_2").await;
        let closed = || json!({"state": "closed"});
        let guessed = "550e8400-e29b-41d4-a716-446655440000";
        for (sid, from) in [(sid, "cam_2"), (sid, "server"), (sid, ""), (guessed, "cam_1")] {
            other.publish("p2p/signal/server", &report(sid, from, closed())).await;
        }
        other.publish("p2p/signal/server", &json!("nothing of ours")).await;
        other.publish("p2p/signal/server", &json!({"from": "x".repeat(9000)})).await;
        until_metric(server.http, "mqtt_external_reports_total", 6.0).await;
        assert_eq!(metric(server.http, "mqtt_external_dropped_total").await, 1.0, "too long");
        assert_eq!(record(&server, sid).await["status"], "connecting");
        // Whoever guesses makes the service say nothing to anybody: the answer to this comes first.
        device.publish("p2p/signal/server", &report(sid, "cam_1", json!({}))).await;
        let first = device.message().await;
        assert_eq!((&first["type"], first["sessionId"].as_str()), (&json!("keepalive"), Some(sid)));
        device.publish("p2p/signal/server", &report(sid, "cam_1", closed())).await;
        until_record(&server, sid, "status", "closed").await;
        server.stop().await;
    });
}

#[test]
fn a_broker_that_is_away_holds_up_nothing_and_what_was_said_meanwhile_arrives() {
    beside_mosquitto(async |mosquitto| {
        let mut device = Mqtt::device_that_is_remembered(mosquitto.address, "cam_1").await;
        device.subscribe("p2p/signal/device/cam_1").await;
        device.leave().await;
        mosquitto.end();

        let server = server(&mosquitto.url(), &[]).await;
        assert_eq!(metric(server.http, "mqtt_external_up").await, 0.0);
        let early = new_session(server.http, "cam_1", "app_1").await;
        assert_eq!(early.get("deviceOnline"), None, "nobody knows");
        assert_eq!(metric(server.http, "mqtt_external_queued").await, 1.0);
        mosquitto.begin().await;
        until_metric(server.http, "mqtt_external_up", 1.0).await;
        let mut device = Mqtt::device_that_is_remembered(mosquitto.address, "cam_1").await;
        assert_eq!(device.message().await["sessionId"], early["sessionId"]);

        // Once more, in the middle of a session.
        device.leave().await;
        mosquitto.end();
        until_metric(server.http, "mqtt_external_up", 0.0).await;
        close(&server, early["sessionId"].as_str().unwrap()).await;
        let late = new_session(server.http, "cam_1", "app_1").await;
        mosquitto.begin().await;
        until_metric(server.http, "mqtt_external_connects_total", 2.0).await;
        until_metric(server.http, "mqtt_external_queued", 0.0).await;
        let mut device = Mqtt::device_that_is_remembered(mosquitto.address, "cam_1").await;
        let bye = device.message().await;
        assert_eq!((&bye["type"], &bye["sessionId"]), (&json!("bye"), &early["sessionId"]));
        assert_eq!(device.message().await["sessionId"], late["sessionId"]);
        let sid = late["sessionId"].as_str().unwrap();
        device
            .publish("p2p/signal/server", &report(sid, "cam_1", json!({"state": "connected"})))
            .await;
        until_record(&server, sid, "status", "connected").await;
        server.stop().await;
    });
}

/// `rumqttc` by itself lost a tenth of them.
#[test]
fn nothing_is_lost_where_the_connection_is_cut() {
    const SESSIONS: usize = 300;
    beside_mosquitto(async |mosquitto| {
        let wire = Wire::to(mosquitto.address).await;
        let url = format!("mqtt://{}", wire.address);
        let server = connected_server(&url, &[("mqtt.external_client_id", "node-1")]).await;
        let mut device = Mqtt::device(mosquitto.address, "cam_1").await;
        let mut app = Mqtt::connect(mosquitto.address, "app_1", "").await.unwrap();
        let mut expected = BTreeSet::new();
        let mut cuts = 0;
        for n in 0..SESSIONS {
            let session = new_session(server.http, "cam_1", "app_1").await;
            let sid = session["sessionId"].as_str().unwrap().to_owned();
            let connected = json!({"state": "connected"});
            app.publish("p2p/signal/server", &report(&sid, "app_1", connected)).await;
            expected.insert(sid);
            if n % 100 == 50 {
                // The broker keeps what is reported until the next connection is there.
                until_metric(server.http, "mqtt_external_up", 1.0).await;
                cuts += wire.cut();
            }
        }
        assert_eq!(cuts, 3);
        let mut missing = expected.clone();
        while !missing.is_empty() {
            missing.remove(device.message().await["sessionId"].as_str().unwrap());
        }
        until_metric(server.http, "mqtt_external_connects_total", 4.0).await;
        until_metric(server.http, "p2p_connection_success_total", SESSIONS as f64).await;
        until_metric(server.http, "mqtt_external_queued", 0.0).await;
        assert_eq!(metric(server.http, "mqtt_external_dropped_total").await, 0.0);
        server.stop().await;
    });
}

#[test]
fn a_node_that_is_restarted_under_its_own_name_hears_what_was_said_meanwhile() {
    beside_mosquitto(async |mosquitto| {
        let mut device = Mqtt::device(mosquitto.address, "cam_1").await;
        let sid = "550e8400-e29b-41d4-a716-446655440000";
        for (more, heard) in [(&[("mqtt.external_client_id", "node-1")][..], 1.0), (&[], 0.0)] {
            connected_server(&mosquitto.url(), more).await.stop().await;
            device.publish("p2p/signal/server", &report(sid, "cam_1", json!({}))).await;
            let again = connected_server(&mosquitto.url(), more).await;
            // Another one, so that what was kept has come by then.
            device.publish("p2p/signal/server", &report(sid, "cam_1", json!({}))).await;
            until_metric(again.http, "mqtt_external_reports_total", heard + 1.0).await;
            again.stop().await;
        }
    });
}

#[test]
fn nodes_that_share_take_each_report_once() {
    beside_mosquitto(async |mosquitto| {
        let taken = |address: SocketAddr| metric(address, "mqtt_external_reports_total");
        let mut device = Mqtt::device(mosquitto.address, "cam_1").await;
        let sid = "550e8400-e29b-41d4-a716-446655440000";
        for (share, each) in [("true", 50.0), ("false", 100.0)] {
            let more = [("mqtt.external_share", share)];
            let nodes = [
                connected_server(&mosquitto.url(), &more).await,
                connected_server(&mosquitto.url(), &more).await,
            ];
            for _ in 0..100 {
                device.publish("p2p/signal/server", &report(sid, "cam_1", json!({}))).await;
            }
            let all = async {
                while taken(nodes[0].http).await + taken(nodes[1].http).await < 2.0 * each {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(PATIENCE, all).await.unwrap();
            sleep(Duration::from_millis(100)).await;
            for node in &nodes {
                assert_eq!(taken(node.http).await, each, "share={share}");
            }
            // One node leaves: the other one takes everything.
            let [stays, leaves] = nodes;
            leaves.stop().await;
            device.publish("p2p/signal/server", &report(sid, "cam_1", json!({}))).await;
            until_metric(stays.http, "mqtt_external_reports_total", each + 1.0).await;
            stays.stop().await;
        }
    });
}

#[test]
fn the_broker_s_certificate_is_checked_and_ours_is_shown() {
    let folder = Folder::new("tls");
    let authority = Authority::new(&folder, "ca");
    let stranger = Authority::new(&folder, "stranger");
    let [certificate, key] = authority.issue(&folder, "localhost");
    let [own_certificate, own_key] = authority.issue(&folder, "server-min");
    let ca = authority.file;
    let port = free_port();
    let configuration = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\ncafile {ca}\ncertfile {certificate}\n\
         keyfile {key}\nrequire_certificate true\nuse_identity_as_username true\n"
    );
    with_mosquitto(&folder, &configuration, port, async |mosquitto| {
        let url = format!("mqtts://localhost:{port}");
        let own = [
            ("mqtt.external_certificate", own_certificate.as_str()),
            ("mqtt.external_key", &own_key),
        ];
        let with = |more: &[(&'static str, &str)], url: &str| {
            let more: Vec<_> = own.iter().chain(more).map(|(k, v)| (*k, (*v).to_owned())).collect();
            let url = url.to_owned();
            async move {
                let more: Vec<_> = more.iter().map(|(k, v)| (*k, v.as_str())).collect();
                server(&url, &more).await
            }
        };
        for more in [("mqtt.external_ca", ca.as_str()), ("mqtt.external_insecure", "true")] {
            let good = with(&[more], &url).await;
            until_metric(good.http, "mqtt_external_up", 1.0).await;
            good.stop().await;
        }
        assert!(mosquitto.log().contains("u'server-min'"), "it is known by its certificate");
        for (more, url, says) in [
            (vec![], url.clone(), "UnknownIssuer"),
            (vec![("mqtt.external_ca", stranger.file.as_str())], url.clone(), "UnknownIssuer"),
            (
                vec![("mqtt.external_ca", ca.as_str())],
                format!("mqtts://127.0.0.1:{port}"),
                "not valid for name",
            ),
        ] {
            let bad = with(&more, &url).await;
            let trouble = until_trouble(&bad, says).await;
            assert!(trouble.contains("mqtt.external_ca"), "{trouble}");
            assert_eq!(metric(bad.http, "mqtt_external_up").await, 0.0);
            bad.stop().await;
        }
        // Without a certificate of our own, where one is asked for.
        let bad = server(&url, &[("mqtt.external_ca", &ca)]).await;
        until_trouble(&bad, &format!("localhost:{port}")).await;
        bad.stop().await;
    });
}

#[test]
fn what_the_broker_does_not_allow_is_said() {
    let folder = Folder::new("acl");
    let port = free_port();
    let passwords = folder.write("passwords", "");
    for user in ["service", "nobody", "mute"] {
        let made = Command::new("mosquitto_passwd").args(["-b", &passwords, user, "pw"]).status();
        assert!(made.unwrap().success());
    }
    folder.write("passwords", &std::fs::read_to_string(&passwords).unwrap());
    let acl = folder.write("acl", "user mute\ntopic read p2p/#\n");
    let configuration = format!(
        "listener {port} 127.0.0.1\npassword_file {passwords}\nacl_file {acl}\nallow_anonymous false\n"
    );
    with_mosquitto(&folder, &configuration, port, async |mosquitto| {
        let as_user = |name: &'static str, password: &'static str| {
            [("mqtt.external_username", name), ("mqtt.external_password", password)]
        };
        let bad = server(&mosquitto.url(), &as_user("service", "wrong")).await;
        let trouble = until_trouble(&bad, "refused the user name or password").await;
        assert!(trouble.contains("mqtt.external_username"), "{trouble}");
        bad.stop().await;
        let mute = connected_server(&mosquitto.url(), &as_user("mute", "pw")).await;
        new_session(mute.http, "cam_1", "app_1").await;
        until_metric(mute.http, "mqtt_external_refused_total", 1.0).await;
        assert_eq!(metric(mute.http, "mqtt_external_queued").await, 0.0, "not again and again");
        mute.stop().await;
    });
}

async fn until_trouble(server: &Server, says: &str) -> String {
    let said = async {
        loop {
            if let Some(trouble) = trouble(server)
                && trouble.contains(says)
            {
                return trouble;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let found = timeout(PATIENCE, said).await;
    found.unwrap_or_else(|_| panic!("not said: {says}, but {:?}", trouble(server)))
}

/// What `/readyz` says of the broker.
fn trouble(server: &Server) -> Option<String> {
    let not_ready = server.ops.health.not_ready();
    not_ready.into_iter().find(|part| part.name == "broker").map(|part| part.why)
}

/// As an operator runs it: one broker, one store, and nodes that know nothing of each other.
#[test]
fn nodes_on_one_store_and_one_broker_are_one_service() {
    let redis = redis_support::Redis::start();
    beside_mosquitto(async |mosquitto| {
        let url = redis.url();
        let more = [
            ("store.redis", url.as_str()),
            ("mqtt.external_share", "true"),
            ("mqtt.app_secret", "apps"),
        ];
        let nodes = [
            connected_server(&mosquitto.url(), &more).await,
            connected_server(&mosquitto.url(), &more).await,
        ];
        let mut device = Mqtt::device(mosquitto.address, "cam_1").await;
        let mut app = Mqtt::connect(mosquitto.address, "app_1", "").await.unwrap();
        app.subscribe("p2p/signal/app/app_1").await;
        let taken = |node: &Server| metric(node.http, "mqtt_external_reports_total");
        for n in 0..10 {
            // Given out by one node; whichever is told of the connection, both know of it.
            let session = new_session(nodes[n % 2].http, "cam_1", "app_1").await;
            let sid = session["sessionId"].as_str().unwrap();
            assert_eq!(device.message().await["sessionId"], sid);
            let connected = json!({"state": "connected", "path": "host", "setupMs": 90});
            app.publish("p2p/signal/server", &report(sid, "app_1", connected)).await;
            for node in &nodes {
                until_record(node, sid, "status", "connected").await;
            }
            close(&nodes[(n + 1) % 2], sid).await;
            for side in [&mut device, &mut app] {
                let bye = side.message().await;
                assert_eq!((&bye["type"], bye["sessionId"].as_str()), (&json!("bye"), Some(sid)));
            }
        }
        let [first, second] = [taken(&nodes[0]).await, taken(&nodes[1]).await];
        assert_eq!((first, second), (5.0, 5.0), "each report once, in turn");
        for node in nodes {
            node.stop().await;
        }
    });
}

/// docs/external-broker.md lists each metric there is, and none that is not.
#[test]
fn the_metrics_listed_are_those_there_are() {
    beside_mosquitto(async |mosquitto| {
        let server = server(&mosquitto.url(), &[]).await;
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/external-broker.md");
        let page = std::fs::read_to_string(page).unwrap();
        let metrics = get(server.http, "/metrics").await.body;
        let there: BTreeSet<&str> = metrics
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE mqtt_")?.split(' ').next())
            .collect();
        let listed: BTreeSet<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `mqtt_")?.split('`').next())
            .collect();
        assert_eq!(there, listed);
        server.stop().await;
    });
}
