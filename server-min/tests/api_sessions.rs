//! The session API over real HTTP, with the real broker behind it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod api_support;

use api_support::{
    APP_KEY, Mqtt, TURN_SECRET, allocate, bearer, get, metric, new_session, request, until_metric,
    with_server,
};
use sdk_core::wire::token;
use serde_json::{Value, json};
use server_min::clock;
use server_min::mqtt::{Identity, Role};
use server_min::session::credentials;

fn wanted() -> String {
    json!({"deviceId": "cam_1", "appId": "app_1"}).to_string()
}

#[test]
fn a_session_comes_with_everything_both_sides_need() {
    with_server(&[], |server| async {
        let before_s = clock::now_ms() / 1000;
        let session = new_session(server.http, "cam_1", "app_1").await;
        let sid = session["sessionId"].as_str().unwrap();
        let claims = token::verify(session["token"].as_str().unwrap(), &server.public_key).unwrap();
        assert_eq!(
            (claims.sid.as_str(), claims.dev.as_str(), claims.app.as_str()),
            (sid, "cam_1", "app_1")
        );
        assert!((before_s + 3600..before_s + 3610).contains(&claims.exp), "{}", claims.exp);
        assert_eq!(session["expiresAt"], claims.exp * 1000);

        let stun = server.stun[0];
        let ice = &session["iceServers"];
        assert_eq!(ice[0], json!({"urls": [format!("stun:{stun}")]}));
        let turn = ["udp", "tcp"].map(|transport| format!("turn:{stun}?transport={transport}"));
        assert_eq!(ice[1]["urls"], json!(turn));
        let username = ice[1]["username"].as_str().unwrap();
        let (expiry, of) = username.split_once(':').unwrap();
        assert_eq!(of, sid);
        let expiry: u64 = expiry.parse().unwrap();
        assert!((before_s + 86_400..before_s + 86_410).contains(&expiry), "{expiry}");
        let made = credentials::turn(TURN_SECRET.as_bytes(), sid, expiry);
        assert_eq!(ice[1]["credential"], made.password);
        assert_eq!(serde_json::to_value(&claims.ice_servers).unwrap(), *ice);

        let mqtt = &session["mqtt"];
        assert_eq!(mqtt["url"], format!("mqtt://{}", server.mqtt));
        assert_eq!(mqtt["wsUrl"], format!("ws://{}/mqtt", server.http));
        assert_eq!(mqtt["username"], format!("{expiry}:app_1"));
        assert_eq!(session["deviceOnline"], false);

        let record = get_record(&server, sid).await;
        assert_eq!(record["status"], "connecting");
        assert_eq!(record["deviceId"], "cam_1");
        assert_eq!(record["appId"], "app_1");
        assert_eq!(record["stunServer"], stun.to_string());
        assert_eq!(record["turnAllocation"], username);
        assert_eq!(record["ttl"], 86_400);
        assert_eq!(record["createdAt"], record["updatedAt"]);
        assert_eq!(metric(server.http, "p2p_connection_attempts_total").await, 1.0);
        server
    });
}

#[test]
fn addresses_follow_the_host_that_was_asked() {
    with_server(&[], |server| async {
        let headers = [bearer(APP_KEY), "Host: 192.168.1.5:9000".into()];
        let reply = request(server.http, "POST", "/v1/sessions", &headers, &wanted()).await;
        let port = server.stun[0].port();
        assert_eq!(reply.json()["iceServers"][0]["urls"][0], format!("stun:192.168.1.5:{port}"));
        assert_eq!(reply.json()["mqtt"]["wsUrl"], "ws://192.168.1.5:9000/mqtt");
        let headers = [bearer(APP_KEY), "Host: a\"b".into()];
        let reply = request(server.http, "POST", "/v1/sessions", &headers, &wanted()).await;
        assert_eq!(reply.status, 400);
        server
    });
    with_server(&[("public_host", "cam.example.org")], |server| async {
        let session = new_session(server.http, "cam_1", "app_1").await;
        let port = server.http.port();
        assert_eq!(session["mqtt"]["wsUrl"], format!("ws://cam.example.org:{port}/mqtt"));
        server
    });
}

#[test]
fn every_refusal_says_what_to_do() {
    with_server(&[("app_keys", "other,test-key")], |server| async {
        let post = |headers: Vec<String>, body: String| async move {
            request(server.http, "POST", "/v1/sessions", &headers, &body).await
        };
        for headers in [
            vec![],
            vec![bearer("wrong")],
            vec![bearer("")],
            vec![bearer("test-key2")],
            vec![bearer("other,test-key")],
            vec![format!("Authorization: Basic {APP_KEY}")],
        ] {
            let reply = post(headers.clone(), wanted()).await;
            assert_eq!(reply.status, 401, "{headers:?}");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
            assert!(reply.error().contains("Authorization: Bearer KEY"), "{}", reply.body);
        }
        let key = || vec![bearer(APP_KEY)];
        for (body, says) in [
            (String::new(), "deviceId"),
            ("{".into(), "deviceId"),
            (json!({"deviceId": "cam_1"}).to_string(), "appId"),
            (json!({"deviceId": 7, "appId": "app_1"}).to_string(), "integer"),
            (json!({"deviceId": "a/b", "appId": "app_1"}).to_string(), "deviceId is \"a/b\""),
            (json!({"deviceId": "cam_1", "appId": "#"}).to_string(), "appId is \"#\""),
            (json!({"deviceId": "cam_1", "appId": "server"}).to_string(), "appId"),
            (json!({"deviceId": "x", "appId": "x"}).to_string(), "the same"),
            (json!({"deviceId": "x", "appId": "y", "region": "a b"}).to_string(), "region"),
        ] {
            let reply = post(key(), body.clone()).await;
            assert_eq!(reply.status, 400, "{body}");
            assert!(reply.error().contains(says), "{body}: {}", reply.body);
        }
        let reply = post(key(), " ".repeat(16 * 1024 + 1)).await;
        assert_eq!(reply.status, 413);
        assert!(reply.error().contains("16 KiB"));
        for (method, path, status, allow) in [
            ("GET", "/v1/sessions", 405, Some("POST, OPTIONS")),
            (
                "POST",
                "/v1/sessions/550e8400-e29b-41d4-a716-446655440000",
                405,
                Some("GET, DELETE, OPTIONS"),
            ),
            ("GET", "/v1/sessionsx", 404, None),
            ("GET", "/v1/", 404, None),
            ("GET", "/nothing", 404, None),
            ("POST", "/", 405, Some("GET, HEAD")),
            ("DELETE", "/metrics", 405, Some("GET, HEAD")),
        ] {
            let reply = request(server.http, method, path, &key(), "").await;
            assert_eq!((reply.status, reply.header("allow")), (status, allow), "{method} {path}");
            assert!(!reply.error().is_empty());
        }
        server
    });
}

#[test]
fn a_record_is_shown_to_the_application_and_to_the_session_itself() {
    with_server(&[], |server| async {
        let one = new_session(server.http, "cam_1", "app_1").await;
        let two = new_session(server.http, "cam_1", "app_2").await;
        let path = format!("/v1/sessions/{}", one["sessionId"].as_str().unwrap());
        let with = |key: &str| vec![bearer(key)];
        let token = |session: &Value| session["token"].as_str().unwrap().to_owned();
        for (headers, status) in [
            (with(APP_KEY), 200),
            (with(&token(&one)), 200),
            (with(&token(&two)), 401),
            (with(&token(&one).replace('.', "-")), 401),
            (vec![], 401),
        ] {
            for method in ["GET", "DELETE"] {
                if method == "DELETE" && status == 200 {
                    continue;
                }
                let reply = request(server.http, method, &path, &headers, "").await;
                assert_eq!(reply.status, status, "{method} {headers:?}");
            }
        }
        for id in ["550e8400-e29b-41d4-a716-446655440000", "not-a-uuid"] {
            for method in ["GET", "DELETE"] {
                let path = format!("/v1/sessions/{id}");
                let reply = request(server.http, method, &path, &with(APP_KEY), "").await;
                assert_eq!(reply.status, 404);
                assert!(reply.error().contains("POST /v1/sessions"));
            }
        }
        server
    });
}

#[test]
fn an_expired_token_opens_nothing() {
    with_server(&[("session.token_ttl_s", "10")], |server| async {
        let session = new_session(server.http, "cam_1", "app_1").await;
        let id = sdk_core::wire::signal::SessionId::parse(session["sessionId"].as_str().unwrap());
        let (id, token) = (id.unwrap(), session["token"].as_str().unwrap());
        let now_ms = clock::now_ms();
        assert!(server.service.is_token_of(token, id, now_ms));
        assert!(!server.service.is_token_of(token, id, now_ms + 10_000));
        server
    });
}

#[test]
fn delete_says_bye_to_both_sides() {
    with_server(&[], |server| async {
        let mut device = Mqtt::device(server.mqtt, "cam_1").await;
        let session = new_session(server.http, "cam_1", "app_1").await;
        assert_eq!(session["deviceOnline"], true);
        let sid = session["sessionId"].as_str().unwrap();
        // At the creation the device learns the time.
        let keepalive = device.message().await;
        assert_eq!(
            (&keepalive["type"], &keepalive["from"]),
            (&json!("keepalive"), &json!("server"))
        );
        assert_eq!(
            (keepalive["sessionId"].as_str(), &keepalive["to"]),
            (Some(sid), &json!("cam_1"))
        );
        let age_ms = clock::now_ms() - keepalive["timestamp"].as_u64().unwrap();
        assert!(age_ms < 10_000, "{age_ms}");

        let mut app = Mqtt::app(server.mqtt, &session, "app_1").await;
        let path = format!("/v1/sessions/{sid}");
        let own = [bearer(session["token"].as_str().unwrap())];
        let reply = request(server.http, "DELETE", &path, &own, "").await;
        assert_eq!((reply.status, reply.body.as_str()), (204, ""));
        for (side, name) in [(&mut device, "cam_1"), (&mut app, "app_1")] {
            let bye = side.message().await;
            assert_eq!(bye["type"], "bye");
            assert_eq!((bye["from"].as_str(), bye["to"].as_str()), (Some("server"), Some(name)));
            assert_eq!(bye["sessionId"], sid);
        }
        let record = get_record(&server, sid).await;
        assert_eq!(
            (&record["status"], &record["turnAllocation"]),
            (&json!("closed"), &Value::Null)
        );
        // Once more is no error, and says nothing again.
        let reply = request(server.http, "DELETE", &path, &own, "").await;
        assert_eq!(reply.status, 204);
        app.publish("p2p/signal/device/cam_1", &json!({"type": "marker", "from": "app_1"})).await;
        assert_eq!(device.message().await["type"], "marker");
        server
    });
}

#[test]
fn a_session_s_relay_works_until_it_is_closed() {
    with_server(&[("turn.allow_loopback_peers", "true")], |server| async {
        let session = new_session(server.http, "cam_1", "app_1").await;
        allocate(&session).await;
        until_metric(server.http, "turn_sessions_active", 1.0).await;
        let path = format!("/v1/sessions/{}", session["sessionId"].as_str().unwrap());
        let reply = request(server.http, "DELETE", &path, &[bearer(APP_KEY)], "").await;
        assert_eq!(reply.status, 204);
        until_metric(server.http, "turn_sessions_active", 0.0).await;
        assert_eq!(metric(server.http, "turn_sessions_total").await, 1.0);
        server
    });
}

#[test]
fn reports_change_the_record_and_count_once() {
    with_server(&[], |server| async {
        let mut device = Mqtt::device(server.mqtt, "cam_1").await;
        let mut stranger = Mqtt::device(server.mqtt, "cam_2").await;
        let session = new_session(server.http, "cam_1", "app_1").await;
        let sid = session["sessionId"].as_str().unwrap();
        let mut app = Mqtt::app(server.mqtt, &session, "app_1").await;
        device.message().await;
        let report = |from: &str, payload: Value| {
            json!({"type": "keepalive", "sessionId": sid, "from": from, "to": "server",
                   "payload": payload, "timestamp": 0})
        };
        let connected = json!({"state": "connected", "path": "relay", "setupMs": 120});

        // Another device's report, and one in another's name, change nothing.
        stranger.publish("p2p/signal/server", &report("cam_2", connected.clone())).await;
        assert_eq!(
            stranger.message().await["type"],
            "keepalive",
            "it is told the time all the same"
        );
        stranger.publish("p2p/signal/server", &report("cam_1", connected.clone())).await;
        assert_eq!(get_record(&server, sid).await["status"], "connecting");

        device.publish("p2p/signal/server", &report("cam_1", connected)).await;
        let answer = device.message().await;
        assert_eq!((&answer["type"], &answer["from"]), (&json!("keepalive"), &json!("server")));
        let second = json!({"state": "connected", "path": "host", "setupMs": 300});
        app.publish("p2p/signal/server", &report("app_1", second)).await;
        let record = get_record(&server, sid).await;
        assert_eq!(record["status"], "connected");
        assert_eq!((&record["path"], &record["setupMs"]), (&json!("relay"), &json!(120)));
        for (name, value) in [
            ("p2p_connection_success_total", 1.0),
            ("p2p_connections_total{path=\"relay\"}", 1.0),
            ("p2p_connections_total{path=\"direct\"}", 0.0),
            ("p2p_latency_seconds_count", 1.0),
            ("p2p_latency_seconds_bucket{le=\"0.1\"}", 0.0),
            ("p2p_latency_seconds_bucket{le=\"0.25\"}", 1.0),
        ] {
            assert_eq!(metric(server.http, name).await, value, "{name}");
        }

        let bye = json!({"type": "bye", "sessionId": sid, "from": "app_1", "to": "server",
                         "payload": {"reason": "left"}, "timestamp": 0});
        app.publish("p2p/signal/server", &bye).await;
        assert_eq!(get_record(&server, sid).await["status"], "closed");
        server
    });
}

#[test]
fn a_sweep_closes_what_nobody_reports_on() {
    with_server(&[], |server| async {
        let mut device = Mqtt::device(server.mqtt, "cam_1").await;
        let old = new_session(server.http, "cam_1", "app_1").await;
        let mut app = Mqtt::app(server.mqtt, &old, "app_1").await;
        let sid = old["sessionId"].as_str().unwrap();
        let created_ms = get_record(&server, sid).await["createdAt"].as_u64().unwrap();
        assert_eq!(server.service.sweep(created_ms + 299_999).await, Ok(0));
        assert_eq!(server.service.sweep(created_ms + 300_000).await, Ok(1));
        assert_eq!(server.service.sweep(created_ms + 300_000).await, Ok(0));
        assert_eq!(get_record(&server, sid).await["status"], "closed");
        // The device hears of its creation; then both hear its end, once.
        device.message().await;
        let next = new_session(server.http, "cam_1", "app_1").await;
        for (side, name) in [(&mut device, "cam_1"), (&mut app, "app_1")] {
            let bye = side.message().await;
            assert_eq!((&bye["type"], bye["sessionId"].as_str()), (&json!("bye"), Some(sid)));
            assert_eq!((bye["from"].as_str(), bye["to"].as_str()), (Some("server"), Some(name)));
            assert_eq!(bye["payload"]["reason"], "nobody reported on it");
        }
        let heard = device.message().await;
        assert_eq!(
            (&heard["type"], &heard["sessionId"]),
            (&json!("keepalive"), &next["sessionId"])
        );

        // One that is reported on is not swept, until its time to live is over.
        let sid = next["sessionId"].as_str().unwrap();
        let created_ms = get_record(&server, sid).await["createdAt"].as_u64().unwrap();
        let report = json!({"type": "keepalive", "sessionId": sid, "from": "cam_1", "to": "server",
                            "payload": {"state": "connected"}, "timestamp": 0});
        let report = serde_json::to_vec(&report).unwrap();
        let reporter = Identity { role: Role::Device, id: "cam_1".into() };
        let end_ms = created_ms + 86_400_000;
        server.service.on_signal(&reporter, &report, end_ms - 1).await;
        assert_eq!(device.message().await["type"], "keepalive");
        assert_eq!(server.service.sweep(end_ms - 1).await, Ok(0));
        assert_eq!(server.service.sweep(end_ms).await, Ok(1));
        for side in [&mut device, &mut app] {
            let bye = side.message().await;
            assert_eq!((&bye["type"], bye["sessionId"].as_str()), (&json!("bye"), Some(sid)));
            assert_eq!(bye["payload"]["reason"], "its time is over");
        }
        server
    });
}

/// A `bye` that waited for a camera's return would end a connection that outlived the outage.
#[test]
fn a_sweep_leaves_no_bye_for_who_is_away() {
    with_server(&[], |server| async {
        let mut device = Mqtt::device_that_is_remembered(server.mqtt, "cam_1").await;
        device.subscribe("p2p/signal/device/cam_1").await;
        let old = new_session(server.http, "cam_1", "app_1").await;
        assert_eq!(device.message().await["sessionId"], old["sessionId"]);
        device.leave().await;
        until_metric(server.http, "mqtt_connections", 0.0).await;
        let created_ms =
            get_record(&server, old["sessionId"].as_str().unwrap()).await["createdAt"].as_u64();
        assert_eq!(server.service.sweep(created_ms.unwrap() + 300_000).await, Ok(1));
        let next = new_session(server.http, "cam_1", "app_1").await;
        // What was sent while it was away was kept for it: the next session's keepalive, no bye.
        let mut device = Mqtt::device_that_is_remembered(server.mqtt, "cam_1").await;
        let heard = device.message().await;
        assert_eq!(
            (&heard["type"], &heard["sessionId"]),
            (&json!("keepalive"), &next["sessionId"])
        );
        server
    });
}

#[test]
fn a_full_store_says_429() {
    with_server(&[("session.max_sessions", "1")], |server| async {
        new_session(server.http, "cam_1", "app_1").await;
        let reply =
            request(server.http, "POST", "/v1/sessions", &[bearer(APP_KEY)], &wanted()).await;
        assert_eq!(reply.status, 429);
        assert!(reply.error().contains("session.max_sessions"));
        server
    });
}

#[test]
fn broker_credentials_are_checked() {
    with_server(&[("mqtt.admin_password", "root"), ("mqtt.app_secret", "apps")], |server| async {
        let session = new_session(server.http, "cam_1", "app_1").await;
        let text = |key: &str| session["mqtt"][key].as_str().unwrap().to_owned();
        let (user, password) = (text("username"), text("password"));
        assert!(Mqtt::connect(server.mqtt, &user, &password).await.is_ok());
        assert!(Mqtt::connect(server.mqtt, "admin", "root").await.is_ok());
        let expired = credentials::mqtt_app("apps", "app_1", clock::now_ms() / 1000 - 1);
        let other = credentials::mqtt_app("other", "app_1", u64::MAX);
        for (user, password) in [
            (user.as_str(), "wrong"),
            ("99999999999:app_1", password.as_str()),
            (&expired.username, &expired.password),
            (&other.username, &other.password),
            ("cam_1", "wrong"),
            ("admin", "toor"),
        ] {
            let refused = Mqtt::connect(server.mqtt, user, password).await.err();
            assert!(refused.is_some_and(|e| e.contains("BadUserNamePassword")), "{user}");
        }
        server
    });
}

async fn get_record(server: &server_min::server::Server, sid: &str) -> Value {
    let path = format!("/v1/sessions/{sid}");
    // The service takes reports on its own task, which has run once a request was answered.
    get(server.http, "/healthz").await;
    let reply = request(server.http, "GET", &path, &[bearer(APP_KEY)], "").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()
}
