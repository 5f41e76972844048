//! The operators' page and what it reads: who is let in, what is shown, and that it is true.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod api_support;
mod camera_support;
mod ops_support;
mod redis_support;

use api_support::{
    APP_KEY, Mqtt, Response, bearer, config, get, metric, new_session, request, until_metric,
    with_server,
};
use camera_support::Side;
use ops_support::{Binary, Folder, SECTIONS};
use redis_support::{Redis, until};
use serde_json::{Value, json};
use server_min::server::Server;
use std::net::SocketAddr;

const TOKEN: &str = "0123456789abcdef-operator";
const ON: [(&str, &str); 2] = [("ops.token", TOKEN), ("turn.allow_loopback_peers", "true")];
const OVERVIEW: &str = "/v1/ops/overview";
const SESSIONS: &str = "/v1/ops/sessions";

async fn ask_as(token: &str, http: SocketAddr, method: &str, path: &str) -> Response {
    request(http, method, path, &[bearer(token)], "").await
}

async fn ask(http: SocketAddr, path: &str) -> Value {
    let reply = ask_as(TOKEN, http, "GET", path).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    reply.json()
}

fn id(session: &Value) -> &str {
    session["sessionId"].as_str().unwrap()
}

/// What a side says of its session, until the server has taken it.
async fn report(http: SocketAddr, side: &mut Mqtt, session: &Value, from: &str, payload: Value) {
    let message = json!({
        "type": "keepalive", "sessionId": session["sessionId"], "from": from, "to": "server",
        "payload": payload, "timestamp": 1_750_929_836_097_u64,
    });
    side.publish("p2p/signal/server", &message).await;
    let path = format!("/v1/sessions/{}", id(session));
    until("the report is taken", async || {
        let record = request(http, "GET", &path, &[bearer(APP_KEY)], "").await.json();
        record["status"] == payload["state"]
    })
    .await;
}

#[test]
fn without_a_token_in_the_configuration_there_is_nothing() {
    let folder = Folder::new("ops-off");
    folder.write("server.toml", &format!("app_keys = [\"k\"]\n{SECTIONS}"));
    let server = Binary::start(&folder);
    ops_support::run(async {
        for path in ["/ops", "/ops/main.js", OVERVIEW, SESSIONS] {
            for method in ["GET", "POST", "DELETE"] {
                let reply = ask_as(TOKEN, server.http, method, path).await;
                assert_eq!(reply.status, 404, "{method} {path}");
            }
        }
    });
    server.until_log("set ops.token");
    assert_eq!(server.log().matches("set ops.token").count(), 1, "once is enough");
}

#[test]
fn a_token_may_come_and_go_at_a_reload() {
    let folder = Folder::new("ops-reload");
    let write = |ops: &str| folder.write("server.toml", &format!("{SECTIONS}{ops}"));
    write("");
    let server = Binary::start(&folder);
    let status = |token: &str| {
        ops_support::run(async { ask_as(token, server.http, "GET", OVERVIEW).await.status })
    };
    assert_eq!(status(TOKEN), 404);
    write("[ops]\ntoken = \"too-short\"\n");
    server.signal(libc::SIGHUP);
    server.until_log("expected at least 16");
    assert!(!server.log().contains("too-short"), "{}", server.log());
    assert_eq!(status(TOKEN), 404);
    write(&format!("[ops]\ntoken = \"{TOKEN}\"\n"));
    server.signal(libc::SIGHUP);
    server.until_log("changed: ops.token");
    assert_eq!((status(TOKEN), status("another-token-000")), (200, 401));
    assert!(!server.log().contains(TOKEN) && !server.log().contains("another-token"));
}

#[test]
fn only_the_token_opens_it_and_guessing_is_slow() {
    with_server(&ON, |server| async move {
        let http = server.http;
        for path in [OVERVIEW, SESSIONS, "/v1/ops/sessions/89144a39-77cb-4530-bead-def9d1b0e39d"] {
            let reply = get(http, path).await;
            assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")));
            assert!(reply.error().contains("ops.token"));
        }
        // Neither what makes sessions nor a session's own token, nor a beginning of the right one.
        let session = new_session(http, "cam_1", "app_1").await;
        let tokens = [APP_KEY, session["token"].as_str().unwrap(), &TOKEN[..20]];
        for token in tokens {
            let reply = ask_as(token, http, "GET", OVERVIEW).await;
            assert_eq!(reply.status, 401, "{token}");
        }
        let reply = ask_as(TOKEN, http, "GET", OVERVIEW).await;
        assert_eq!((reply.status, reply.header("cache-control")), (200, Some("no-store")));
        assert_eq!(reply.header("access-control-allow-origin"), None, "no page of others reads it");
        let preflight = request(http, "OPTIONS", SESSIONS, &[bearer(TOKEN)], "").await;
        assert_eq!((preflight.status, preflight.header("allow")), (405, Some("GET")));
        assert_eq!(preflight.header("access-control-allow-origin"), None);
        // Ten wrong ones in all, and then nobody from here is listened to for some seconds.
        for _ in tokens.len()..10 {
            assert_eq!(ask_as("wrong-wrong-wrong", http, "GET", SESSIONS).await.status, 401);
        }
        for token in ["wrong-wrong-wrong", TOKEN] {
            let reply = ask_as(token, http, "GET", OVERVIEW).await;
            assert_eq!((reply.status, reply.header("retry-after")), (429, Some("6")));
        }
        assert_eq!(metric(http, "ops_logins_refused_total").await, 12.0);
        // The page itself holds nothing, and opens for everybody.
        assert_eq!(get(http, "/ops").await.status, 200);
        server
    });
}

#[test]
fn the_page_is_there_with_a_policy_of_its_own() {
    with_server(&ON, |server| async move {
        let http = server.http;
        let page = get(http, "/ops").await;
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(
            policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        // Every file that it names is there, and nothing is in it that the policy would not run.
        let names = page.body.split(['"', '\'']).filter(|part| part.starts_with("ops/"));
        let names: Vec<&str> = names.collect();
        assert!(names.len() >= 3, "{names:?}");
        for name in names {
            assert_eq!(get(http, &format!("/{name}")).await.status, 200, "{name}");
        }
        for inline in ["style=", "onclick=", "<script>", "<style"] {
            assert!(!page.body.contains(inline), "{inline}");
        }
        let moved = get(http, "/ops/").await;
        assert_eq!((moved.status, moved.header("location")), (308, Some("../ops")));
        assert_eq!(get(http, "/ops/nothing.js").await.status, 404);
        assert_eq!(request(http, "POST", "/ops", &[], "").await.status, 405);
        server
    });
}

#[test]
fn sessions_are_shown_as_they_are_and_found_by_their_names() {
    with_server(&ON, |server| async move {
        let http = server.http;
        let mut device = Mqtt::device(server.mqtt, "cam_2").await;
        let mut sessions = Vec::new();
        for n in 0..5 {
            sessions.push(new_session(http, &format!("cam_{n}"), "app_1").await);
        }
        let connected = json!({"state": "connected", "path": "srflx", "setupMs": 321});
        report(http, &mut device, &sessions[2], "cam_2", connected).await;

        let all = ask(http, SESSIONS).await;
        assert_eq!((all["open"].as_u64(), &all["next"]), (Some(5), &Value::Null));
        let first = &all["sessions"][0];
        assert_eq!(first["sessionId"], sessions[2]["sessionId"], "who was heard of last");
        for (key, value) in [
            ("deviceId", json!("cam_2")),
            ("appId", json!("app_1")),
            ("status", json!("connected")),
            ("path", json!("srflx")),
            ("setupMs", json!(321)),
            ("region", json!("eu-1")),
            ("relay", Value::Null),
        ] {
            assert_eq!(first[key], value, "{key}");
        }
        let (now, made) = (all["now"].as_u64().unwrap(), first["createdAt"].as_u64().unwrap());
        assert_eq!(first["ageMs"].as_u64().unwrap(), now - made);
        // Page by page, by state, and one of them by each of its names.
        let page = ask(http, &format!("{SESSIONS}?limit=2")).await;
        let rest = format!("{SESSIONS}?limit=200&after={}", page["next"].as_str().unwrap());
        assert_eq!(ask(http, &rest).await["sessions"].as_array().unwrap().len(), 3);
        for (query, count) in [
            ("state=connected", 1),
            ("state=connecting", 4),
            ("q=cam_", 5),
            ("q=cam_2", 1),
            ("q=pp_", 5),
            ("q=nobody", 0),
            (&format!("q={}", &id(&sessions[3])[9..]), 1),
        ] {
            let found = ask(http, &format!("{SESSIONS}?{query}")).await;
            assert_eq!(found["sessions"].as_array().unwrap().len(), count, "{query}");
        }
        for bad in ["limit=0", "limit=1000", "state=closed", "after=x", "q=%3Cscript", "x=1"] {
            let reply = ask_as(TOKEN, http, "GET", &format!("{SESSIONS}?{bad}")).await;
            assert_eq!(reply.status, 400, "{bad}");
            assert!(!reply.error().is_empty());
        }
        // One of them: whether its sides are there, too.
        let one = ask(http, &format!("{SESSIONS}/{}", id(&sessions[2]))).await;
        assert_eq!((&one["deviceOnline"], &one["appOnline"]), (&json!(true), &json!(false)));
        assert_eq!((&one["session"]["setupMs"], &one["ended"]), (&json!(321), &Value::Null));
        for nobody in ["89144a39-77cb-4530-bead-def9d1b0e39d", "x"] {
            let reply = ask_as(TOKEN, http, "GET", &format!("{SESSIONS}/{nobody}")).await;
            assert_eq!(reply.status, 404);
        }
        let overview = ask(http, OVERVIEW).await;
        assert_eq!(overview["sessions"], json!({"connecting": 4, "connected": 1, "closed": 0}));
        assert_eq!(
            (&overview["mqtt"]["devices"], &overview["draining"]),
            (&json!(1), &json!(false))
        );
        let names: Vec<&str> = overview["checks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|check| {
                assert_eq!(check["why"], Value::Null);
                check["name"].as_str().unwrap()
            })
            .collect();
        assert_eq!(names, ["store", "broker", "turn", "listeners"]);
        assert_eq!(
            (&overview["nodes"][0]["own"], &overview["nodes"][0]["alive"]),
            (&json!(true), &json!(true))
        );
        server
    });
}

#[test]
fn an_operator_ends_a_session_and_sees_why_others_ended() {
    with_server(&ON, |server| async move {
        let http = server.http;
        let mut device = Mqtt::device(server.mqtt, "cam_1").await;
        let failed = new_session(http, "cam_1", "app_1").await;
        let closed = json!({"state": "closed", "code": 408, "reason": "no way <b>there</b>"});
        report(http, &mut device, &failed, "cam_1", closed).await;
        let session = new_session(http, "cam_1", "app_1").await;
        let mut app = Mqtt::app(server.mqtt, &session, "app_1").await;
        let connected = json!({"state": "connected", "path": "host", "setupMs": 99});
        report(http, &mut device, &session, "cam_1", connected).await;

        let path = format!("{SESSIONS}/{}", id(&session));
        let wrong = ask_as("wrong-wrong-wrong", http, "DELETE", &path).await;
        assert_eq!(wrong.status, 401);
        assert_eq!(ask(http, &path).await["session"]["status"], "connected");
        let reply = ask_as(TOKEN, http, "DELETE", &path).await;
        assert_eq!((reply.status, reply.header("cache-control")), (204, Some("no-store")));
        let bye = app.message().await;
        assert_eq!(
            (&bye["type"], &bye["payload"]["reason"]),
            (&json!("bye"), &json!("closed by an operator"))
        );
        assert_eq!(ask_as(TOKEN, http, "DELETE", &path).await.status, 404, "it is closed");

        let one = ask(http, &path).await;
        assert_eq!(
            (&one["session"]["status"], &one["ended"]["reason"]),
            (&json!("closed"), &json!("api"))
        );
        let ends = &ask(http, OVERVIEW).await["ends"];
        assert_eq!(
            (&ends["failed"], &ends["disconnected"]),
            (&json!({"timeout": 1}), &json!({"api": 1}))
        );
        let recent = ends["recent"].as_array().unwrap();
        assert_eq!((recent.len(), &ends["of"]), (2, &json!(2)));
        assert_eq!(recent[0]["sessionId"], session["sessionId"], "the newest first");
        assert_eq!(recent[1]["words"], "cam_1: no way <b>there</b> (408)");
        assert_eq!(
            (&recent[1]["connected"], &recent[0]["connected"]),
            (&json!(false), &json!(true))
        );
        let totals = &ask(http, OVERVIEW).await["totals"];
        let expected =
            json!({"created": 2, "connected": 1, "failed": 1, "direct": 1, "relayed": 0});
        assert_eq!(totals, &expected);
        server
    });
}

#[test]
fn what_a_session_relays_is_shown_while_it_does() {
    with_server(&ON, |server| async move {
        let (http, stun) = (server.http, server.stun[0]);
        let body = json!({"deviceId": "cam_1", "appId": "app_1", "bandwidthBps": 500_000});
        let made =
            request(http, "POST", "/v1/sessions", &[bearer(APP_KEY)], &body.to_string()).await;
        let session = made.json();
        let other = new_session(http, "cam_2", "app_1").await;
        let path = format!("{SESSIONS}/{}", id(&session));
        assert_eq!(ask(http, &path).await["session"]["relay"], Value::Null);
        let credentials = session.clone();
        // Its sockets block, and so must not stand on the server's thread.
        let relayed = tokio::task::spawn_blocking(move || {
            let mut both = [Side::of(stun, &credentials), Side::of(stun, &credentials)];
            for allocation in &mut both {
                for _ in 0..20 {
                    assert!(allocation.relays());
                }
            }
            both
        });
        let both = relayed.await.unwrap();
        // The first look was less than a second ago, so the relay is not asked again at once.
        let relay = async || ask(http, &path).await["session"]["relay"].clone();
        until("the relay is asked", async || !relay().await.is_null()).await;
        let seen = relay().await;
        // "there" and "back", twenty times for each of the two.
        for (key, value) in [
            ("allocations", json!(2)),
            ("bytesToPeers", json!(200)),
            ("bytesToClients", json!(160)),
            ("capBps", json!(500_000)),
        ] {
            assert_eq!(seen[key], value, "{key}: {seen}");
        }
        assert!(seen["bitRate"].as_u64().unwrap() > 0, "there was a look before: {seen}");
        // In the list as well, and the other session relays nothing.
        let all = ask(http, SESSIONS).await;
        for shown in all["sessions"].as_array().unwrap() {
            let is_other = shown["sessionId"] == other["sessionId"];
            assert_eq!(shown["relay"].is_null(), is_other, "{shown}");
        }
        let turn = ask(http, OVERVIEW).await["turn"].clone();
        assert_eq!((&turn["allocations"], &turn["bytesRelayed"]), (&json!(2), &json!(360)));
        // Closed, it has nothing there any more.
        assert_eq!(ask_as(TOKEN, http, "DELETE", &path).await.status, 204);
        until_metric(http, "turn_sessions_active", 0.0).await;
        until("its allocations are gone", async || relay().await.is_null()).await;
        drop(both);
        server
    });
}

#[test]
fn two_nodes_with_one_redis_show_the_same_sessions_and_say_when_it_is_away() {
    let mut redis = Redis::start();
    let url = redis.url();
    let more = [ON[0], ON[1], ("store.redis", url.as_str())];
    redis_support::run(async {
        let servers = [
            Server::start(config(&more)).await.unwrap(),
            Server::start(config(&more)).await.unwrap(),
        ];
        let [one, two] = [servers[0].http, servers[1].http];
        let session = new_session(one, "cam_1", "app_1").await;
        new_session(two, "cam_2", "app_1").await;
        for http in [one, two] {
            let all = ask(http, SESSIONS).await;
            assert_eq!(
                (all["open"].as_u64(), all["sessions"].as_array().unwrap().len()),
                (Some(2), 2)
            );
            let found = ask(http, &format!("{SESSIONS}?q=cam_1")).await;
            assert_eq!(found["sessions"][0]["sessionId"], session["sessionId"]);
            // All of them, wherever they were created; as Redis said some seconds ago.
            let both = json!({"connecting": 2, "connected": 0, "closed": 0});
            until("they are counted", async || ask(http, OVERVIEW).await["sessions"] == both).await;
        }
        // Closed at the one that did not create it.
        let path = format!("{SESSIONS}/{}", id(&session));
        assert_eq!(ask_as(TOKEN, two, "DELETE", &path).await.status, 204);
        assert_eq!(ask(one, SESSIONS).await["open"], 1);
        redis.stop();
        until("the store is away", async || {
            ask_as(TOKEN, one, "GET", SESSIONS).await.status == 503
        })
        .await;
        let overview = ask(one, OVERVIEW).await;
        assert_eq!(overview["sessions"], Value::Null, "what was is not what is");
        let checks = overview["checks"].clone();
        let store = checks.as_array().unwrap().iter().find(|check| check["name"] == "store");
        assert!(store.unwrap()["why"].as_str().is_some_and(|why| !why.is_empty()), "{checks}");
        for server in servers {
            server.stop().await;
        }
    });
}
