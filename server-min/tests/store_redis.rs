//! Several nodes on one real Redis.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod api_support;
mod node_support;
mod redis_support;

use api_support::{
    APP_KEY, Mqtt, PATIENCE, allocate, bearer, metric, new_session, request, until_metric,
};
use node_support::{Process, ask, id, node, node_at, path};
use redis_support::{Redis, closing, listen, record, run, store_at, store_with_one, until};
use sdk_core::wire::signal::SessionId;
use serde_json::{Value, json};
use server_min::clock;
use server_min::session::closing::By;
use server_min::session::shared::StoreConfig;
use server_min::session::{Change, Counts, RedisStore, SessionRecord, SessionStore, Wanted};
use tokio::time::timeout;

const MINUTE_MS: u64 = 60_000;

#[test]
fn others_can_read_what_is_kept_and_hear_of_each_change() {
    run(async {
        let redis = Redis::start();
        let node = node(&redis).await;
        let (announced, mut updates) = tokio::sync::mpsc::unbounded_channel::<(String, Value)>();
        let mut listener = redis.connection();
        let (subscribed, ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut channels = listener.as_pubsub();
            channels.psubscribe("session*").unwrap();
            subscribed.send(()).unwrap();
            for _ in 0..3 {
                let message = channels.get_message().unwrap();
                let payload: String = message.get_payload().unwrap();
                let channel = message.get_channel_name().to_owned();
                announced.send((channel, serde_json::from_str(&payload).unwrap())).unwrap();
            }
        });
        ready.recv().unwrap();

        let session = new_session(node.http, "cam_1", "app_1").await;
        let sid = session["sessionId"].as_str().unwrap();
        let key = format!("session:{sid}");
        let kept: Value = serde_json::from_str(&redis.ask::<String>(&["GET", &key])).unwrap();
        assert_eq!(kept, ask(&node, "GET", &path(&session)).await.json());
        assert_eq!((&kept["deviceId"], &kept["status"]), (&json!("cam_1"), &json!("connecting")));
        let ttl: i64 = redis.ask(&["TTL", &key]);
        assert!((86_390..=86_400).contains(&ttl), "{ttl}");
        assert_eq!(
            redis.ask::<Vec<String>>(&["ZRANGE", "sessions", "0", "-1", "WITHSCORES"]),
            [format!("{sid} cam_1 app_1"), kept["updatedAt"].to_string()]
        );
        let mut next = async || timeout(PATIENCE, updates.recv()).await.unwrap().unwrap();
        assert_eq!(next().await, (format!("session_updates:{sid}"), kept));

        assert_eq!(ask(&node, "DELETE", &path(&session)).await.status, 204);
        let kept: Value = serde_json::from_str(&redis.ask::<String>(&["GET", &key])).unwrap();
        assert_eq!((&kept["status"], &kept["turnAllocation"]), (&json!("closed"), &Value::Null));
        assert!(redis.ask::<i64>(&["TTL", &key]) > 86_000);
        assert_eq!(redis.ask::<usize>(&["ZCARD", "sessions"]), 0);
        assert_eq!(next().await, (format!("session_updates:{sid}"), kept));
        let (channel, closing) = next().await;
        assert_eq!((channel.as_str(), &closing["sessionId"]), ("session_closed", &json!(sid)));
        thread.join().unwrap();
        node.stop().await;
    });
}

#[test]
fn a_prefix_keeps_two_services_in_one_redis_apart() {
    run(async {
        let redis = Redis::start();
        let with = |prefix: &str| StoreConfig { prefix: prefix.into(), ..StoreConfig::default() };
        let one = store_at(&redis.url(), &with("one:"), 1).await;
        let two = store_at(&redis.url(), &with("two:"), 1).await;
        let heard = listen(&two);
        let made = record(1, 0);
        one.create(made.clone(), 0).await.unwrap();
        let watched = one.watch(SessionId::from_random([1; 16])).await.unwrap().unwrap();
        two.create(made.clone(), 0).await.unwrap();
        assert!(one.close(&made, closing(&made), 1).await.unwrap().is_some());
        assert!(two.begin_sweep().await.unwrap() && one.begin_sweep().await.unwrap());
        let mut watched = watched;
        timeout(PATIENCE, watched.wait_for(SessionRecord::is_closed)).await.unwrap().unwrap();
        let keys: Vec<String> = redis.ask(&["KEYS", "*"]);
        assert!(keys.iter().all(|k| k.starts_with("one:") || k.starts_with("two:")), "{keys:?}");
        assert!(two.close(&made, closing(&made), 1).await.unwrap().is_some());
        until("its own closing is heard", async || !heard.borrow().is_empty()).await;
        assert_eq!(*heard.borrow(), [(closing(&made), By::ThisNode)]);
    });
}

#[test]
fn nothing_is_asked_twice() {
    run(async {
        let redis = Redis::start();
        let store = redis_support::store(&redis, 99).await;
        let known = record(0, 0);
        // The scripts become known to Redis.
        store.create(known.clone(), 0).await.unwrap();
        store.update(&known, Change::default(), 1).await.unwrap().unwrap();
        until("the sessions are counted", async || store.counts().is_some()).await;
        redis.ask::<String>(&["CONFIG", "RESETSTAT"]);
        let calls = |command: &str| {
            let stats: String = redis.ask(&["INFO", "commandstats"]);
            let of_command = format!("cmdstat_{command}:calls=");
            let line = stats.lines().find_map(|line| line.strip_prefix(&of_command));
            line.map_or(0, |line| line.split(',').next().unwrap().parse::<u32>().unwrap())
        };
        // But for the script that counts the sessions every 2 s, and alone asks for this.
        let scripts = || {
            let counted = calls("scard");
            calls("evalsha") - counted
        };
        for n in 1..=10 {
            store.create(record(n, 0), 0).await.unwrap();
        }
        assert_eq!((scripts(), calls("get"), calls("eval")), (10, 0, 0));
        // A report: the record is read, and changed by who has read it. The script compares.
        for n in 1..=10 {
            let known = store.get(SessionId::from_random([n; 16]), 1).await.unwrap().unwrap();
            store.update(&known, Change::default(), 1).await.unwrap().unwrap();
        }
        assert_eq!((scripts(), calls("get")), (20, 20));
    });
}

#[test]
fn a_session_of_one_node_is_served_and_ended_by_another() {
    run(async {
        let redis = Redis::start();
        let (a, b) = (node(&redis).await, node(&redis).await);
        // The camera is at the broker of A, and so is the viewer.
        let mut device = Mqtt::device(a.mqtt, "cam_1").await;
        let session = new_session(a.http, "cam_1", "app_1").await;
        let mut app = Mqtt::app(a.mqtt, &session, "app_1").await;
        assert_eq!(device.message().await["type"], "keepalive");
        allocate(&session).await;
        until_metric(a.http, "turn_sessions_active", 1.0).await;

        // B knows it: its token, its record; and takes reports on it.
        let own = [bearer(session["token"].as_str().unwrap())];
        let reply = request(b.http, "GET", &path(&session), &own, "").await;
        assert_eq!((reply.status, &reply.json()["deviceId"]), (200, &json!("cam_1")));
        let report = |state: Value| {
            json!({"type": "keepalive", "sessionId": session["sessionId"], "from": "cam_1",
                   "to": "server", "payload": state, "timestamp": 0})
        };
        let connected = json!({"state": "connected", "path": "relay", "setupMs": 80});
        let mut at_b = Mqtt::device(b.mqtt, "cam_1").await;
        at_b.publish("p2p/signal/server", &report(connected.clone())).await;
        assert_eq!(at_b.message().await["type"], "keepalive");
        until("B wrote it down", async || {
            ask(&a, "GET", &path(&session)).await.json()["status"] == "connected"
        })
        .await;
        // The same report at A counts nowhere again.
        device.publish("p2p/signal/server", &report(connected)).await;
        assert_eq!(device.message().await["type"], "keepalive");
        at_b.leave().await;

        // Its end, said to B, is the end at A: relay, viewer and camera.
        let reply = request(b.http, "DELETE", &path(&session), &own, "").await;
        assert_eq!(reply.status, 204);
        until_metric(a.http, "turn_sessions_active", 0.0).await;
        for side in [&mut device, &mut app] {
            let bye = side.message().await;
            assert_eq!((&bye["type"], &bye["sessionId"]), (&json!("bye"), &session["sessionId"]));
            assert_eq!(bye["payload"]["reason"], "closed through the session API");
        }
        assert_eq!(ask(&a, "DELETE", &path(&session)).await.status, 204);
        app.publish("p2p/signal/device/cam_1", &json!({"type": "marker", "from": "app_1"})).await;
        assert_eq!(device.message().await["type"], "marker", "a bye is said once");
        for (name, at_a, at_b) in [
            ("p2p_connection_attempts_total", 1.0, 0.0),
            ("p2p_connection_success_total", 0.0, 1.0),
            ("p2p_connections_total{path=\"relay\"}", 0.0, 1.0),
            ("p2p_latency_seconds_count", 0.0, 1.0),
        ] {
            let counted = (metric(a.http, name).await, metric(b.http, name).await);
            assert_eq!(counted, (at_a, at_b), "{name}");
        }
        a.stop().await;
        b.stop().await;
    });
}

#[test]
fn a_sweep_by_one_node_frees_what_another_relays() {
    run(async {
        let redis = Redis::start();
        let (a, b) = (node(&redis).await, node(&redis).await);
        let mut device = Mqtt::device(a.mqtt, "cam_1").await;
        let session = new_session(a.http, "cam_1", "app_1").await;
        device.message().await;
        allocate(&session).await;
        until_metric(a.http, "turn_sessions_active", 1.0).await;
        // B has served before; it is not a node that knows nothing of the last five minutes.
        assert_eq!(ask(&b, "GET", &path(&session)).await.status, 200);
        let later_ms = clock::now_ms() + 5 * MINUTE_MS;
        assert_eq!(b.service.sweep(later_ms).await, Ok(1));
        assert_eq!(a.service.sweep(later_ms).await, Ok(0));
        until_metric(a.http, "turn_sessions_active", 0.0).await;
        let bye = device.message().await;
        assert_eq!(bye["payload"]["reason"], "nobody reported on it");
        a.stop().await;
        b.stop().await;
    });
}

#[test]
fn a_session_whose_record_has_expired_is_closed_all_the_same() {
    run(async {
        let redis = Redis::start();
        let (store, made) = store_with_one(&redis).await;
        let heard = listen(&store);
        // As Redis does by itself after a day.
        assert_eq!(redis.ask::<i64>(&["DEL", &format!("session:{}", made.session_id)]), 1);
        let found = store.stale(5 * MINUTE_MS, 5 * MINUTE_MS, 9).await.unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].is_expired(5 * MINUTE_MS));
        assert_eq!(store.update(&made, Change::default(), 9).await, Ok(None));
        let closing = closing(&found[0]);
        let closed = futures_util::future::join_all(
            (0..4).map(|_| store.close(&found[0], closing.clone(), 5 * MINUTE_MS)),
        );
        let won = closed.await.into_iter().filter(|won| matches!(won, Ok(Some(_)))).count();
        assert_eq!(won, 1);
        until("it is heard", async || !heard.borrow().is_empty()).await;
        assert_eq!(*heard.borrow(), [(closing, By::ThisNode)]);
        assert_eq!(redis.ask::<usize>(&["ZCARD", "sessions"]), 0);
        // What is none of ours is forgotten, and stops nobody.
        redis.ask::<i64>(&["ZADD", "sessions", "0", "nonsense"]);
        redis.ask::<i64>(&["ZADD", "sessions", "0", "x y z"]);
        redis.ask::<String>(&["SET", "session:x", "{"]);
        assert_eq!(store.stale(5 * MINUTE_MS, 5 * MINUTE_MS, 9).await, Ok(Vec::new()));
        assert_eq!(redis.ask::<usize>(&["ZCARD", "sessions"]), 0);
    });
}

#[test]
fn one_node_sweeps_at_a_time_and_another_takes_over() {
    run(async {
        let redis = Redis::start();
        let a = redis_support::store(&redis, 9).await;
        let b = redis_support::store(&redis, 9).await;
        assert_eq!(a.begin_sweep().await, Ok(true));
        assert_eq!(b.begin_sweep().await, Ok(false));
        // It is not B's to give back.
        b.end_sweep().await.unwrap();
        assert_eq!(b.begin_sweep().await, Ok(false));
        // Whoever goes on, renews it.
        redis.ask::<i64>(&["PEXPIRE", "sessions:sweep", "5000"]);
        assert_eq!(a.begin_sweep().await, Ok(true));
        let left: i64 = redis.ask(&["PTTL", "sessions:sweep"]);
        assert!((25_000..=30_000).contains(&left), "{left}");
        a.end_sweep().await.unwrap();
        assert_eq!(b.begin_sweep().await, Ok(true));
        // B dies. After half a minute, which is made short here, it is A's turn.
        drop(b);
        assert_eq!(a.begin_sweep().await, Ok(false));
        redis.ask::<i64>(&["PEXPIRE", "sessions:sweep", "100"]);
        until("A takes over", async || a.begin_sweep().await.unwrap()).await;
    });
}

#[test]
fn two_sweeps_at_once_close_each_session_once() {
    run(async {
        let redis = Redis::start();
        let (a, b) = (node(&redis).await, node(&redis).await);
        let store = redis_support::store(&redis, 100_000).await;
        let heard = listen(&store);
        let now_ms = clock::now_ms();
        let made: Vec<SessionRecord> = (0..1200u32)
            .map(|n| {
                let mut random = [0; 16];
                random[..4].copy_from_slice(&n.to_be_bytes());
                let session_id = SessionId::from_random(random).to_string();
                SessionRecord { session_id, ..record(1, now_ms) }
            })
            .collect();
        for batch in made.chunks(100) {
            let all = batch.iter().map(|record| store.create(record.clone(), now_ms));
            futures_util::future::try_join_all(all).await.unwrap();
        }
        for node in [&a, &b] {
            assert_eq!(
                ask(node, "GET", &format!("/v1/sessions/{}", made[0].session_id)).await.status,
                200
            );
        }
        let later_ms = clock::now_ms() + 5 * MINUTE_MS;
        let (of_a, of_b) = tokio::join!(a.service.sweep(later_ms), b.service.sweep(later_ms));
        assert_eq!(of_a.unwrap() + of_b.unwrap(), made.len());
        until("every closing is heard", async || heard.borrow().len() == made.len()).await;
        assert!(heard.borrow().iter().all(|(_, by)| *by == By::AnotherNode));
        assert_eq!(redis.ask::<usize>(&["EXISTS", "sessions:sweep"]), 0);
        a.stop().await;
        b.stop().await;
    });
}

#[test]
fn a_watch_that_nobody_holds_is_given_up() {
    run(async {
        let redis = Redis::start();
        let (store, _) = store_with_one(&redis).await;
        let watcher = store.watch(SessionId::from_random([1; 16])).await.unwrap().unwrap();
        let channels = || redis.ask::<Vec<String>>(&["PUBSUB", "CHANNELS", "session_updates:*"]);
        assert_eq!(channels().len(), 1);
        drop(watcher);
        until("it is unsubscribed", async || channels().is_empty()).await;
    });
}

/// More announcements at once than are kept: what was dropped is read again.
#[test]
fn a_flood_of_announcements_hides_no_change() {
    run(async {
        let redis = Redis::start();
        let (store, made) = store_with_one(&redis).await;
        let heard = listen(&store);
        let mut watched = store.watch(SessionId::from_random([1; 16])).await.unwrap().unwrap();
        // All of it is there before this thread, which is the store's as well, looks at any of it.
        let channel = format!("session_updates:{}", made.session_id);
        let mut flood = redis::pipe();
        for n in 0..4000 {
            flood.cmd("PUBLISH").arg(&channel).arg("noise").ignore();
            if n == 3000 {
                let changed = SessionRecord { updated_at: 7, ..made.clone() };
                let changed = serde_json::to_string(&changed).unwrap();
                flood.cmd("SET").arg(format!("session:{}", made.session_id)).arg(&changed).ignore();
                flood.cmd("PUBLISH").arg(&channel).arg(&changed).ignore();
                let closing = serde_json::to_string(&closing(&made)).unwrap();
                let fields = ["by", "another", "closing", &closing];
                flood.cmd("XADD").arg("session_closed").arg("*").arg(&fields).ignore();
                flood.cmd("PUBLISH").arg("session_closed").arg(&closing).ignore();
            }
        }
        flood.query::<()>(&mut redis.connection()).unwrap();
        timeout(PATIENCE, watched.changed()).await.unwrap().unwrap();
        assert_eq!(watched.borrow().updated_at, 7);
        until("the closing is heard", async || !heard.borrow().is_empty()).await;
        assert_eq!(*heard.borrow(), [(closing(&made), By::AnotherNode)]);
    });
}

#[test]
fn tls_is_verified() {
    run(async {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let folder = std::env::temp_dir().join(format!("p2pcam-rediss-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let cert = file("cert.pem", &made.cert.pem());
        let key = file("key.pem", &made.signing_key.serialize_pem());
        let port = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap().port().to_string()
        };
        let redis = Redis::start_with(&[
            "--tls-port",
            &port,
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--tls-auth-clients",
            "no",
            "--requirepass",
            "p@ss/word",
        ]);
        let with =
            |ca: Option<&str>| StoreConfig { ca: ca.map(Into::into), ..StoreConfig::default() };
        let url = |host: &str, password: &str| format!("rediss://:{password}@{host}:{port}/1");
        let good = store_at(&url("localhost", "p@ss/word"), &with(Some(&cert)), 9).await;
        good.create(record(1, 0), 0).await.unwrap();
        for (ca, host, password, says) in [
            (None, "localhost", "p@ss/word", "certificate"),
            (Some(&*cert), "127.0.0.1", "p@ss/word", "certificate"),
            (Some(&*cert), "localhost", "other", "WRONGPASS"),
        ] {
            let url = url(host, password).parse().unwrap();
            let store = RedisStore::start(&with(ca), &url, 9).await.unwrap();
            until(says, async || store.ready().is_err_and(|error| error.contains(says))).await;
            assert!(!store.ready().unwrap_err().contains("p@ss"));
        }
        let url = url("localhost", "").parse().unwrap();
        let bad = RedisStore::start(&with(Some("nowhere.pem")), &url, 9).await;
        assert!(bad.err().unwrap().contains("store.ca nowhere.pem"));
        drop(redis);
        std::fs::remove_dir_all(&folder).unwrap();
    });
}

/// The configuration we ship starts, and its user may do all that a node does, and nothing else.
#[test]
fn the_redis_configuration_we_ship_serves_nodes() {
    run(async {
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/redis.conf");
        let text = std::fs::read_to_string(shipped).unwrap();
        assert!(text.contains("maxmemory-policy noeviction") && text.contains("appendonly yes"));
        let redis = Redis::start_from(shipped);
        let url = format!("redis://p2pcam:REPLACE-ME@127.0.0.1:{}", redis.port);
        let (a, b) = (node_at(&redis, &url).await, node_at(&redis, &url).await);
        let session = new_session(a.http, "cam_1", "app_1").await;
        allocate(&session).await;
        until_metric(a.http, "turn_sessions_active", 1.0).await;
        assert_eq!(ask(&b, "GET", &path(&session)).await.status, 200);
        let later_ms = clock::now_ms() + 5 * MINUTE_MS;
        assert_eq!(b.service.sweep(later_ms).await, Ok(1));
        until_metric(a.http, "turn_sessions_active", 0.0).await;
        let record = ask(&a, "GET", &path(&session)).await.json();
        assert_eq!(record["status"], "closed");
        let counts = Counts { closed: 1, ..Counts::default() };
        until("it is counted", async || a.service.counts() == Some(counts)).await;
        // What an operator sees, and what a node watches, too.
        let wanted = Wanted { limit: 1, ..Wanted::default() };
        assert_eq!(a.service.list(&wanted, later_ms).await.unwrap().open, 0);
        let store = store_at(&url, &StoreConfig::default(), 9).await;
        drop(store.watch(id(&session)).await.unwrap().unwrap());
        assert_eq!(store.ready(), Ok(()));
        for (user, refused) in [("", "NOAUTH"), ("p2pcam:REPLACE-ME@", "NOPERM")] {
            let client = redis::Client::open(format!("redis://{user}127.0.0.1:{}", redis.port));
            let mut connection = client.unwrap().get_connection().unwrap();
            let error = redis::cmd("KEYS").arg("*").query::<()>(&mut connection).unwrap_err();
            assert!(error.to_string().to_uppercase().contains(refused), "{error}");
        }
        a.stop().await;
        b.stop().await;
    });
}

/// The command, as it is run: its processes are killed and started, and the sessions stay.
#[test]
fn a_node_that_dies_takes_no_session_with_it() {
    run(async {
        let redis = Redis::start_with(&["--requirepass", "hunter2"]);
        let url = format!("redis://:hunter2@127.0.0.1:{}", redis.port);
        let process = || Process::that_serves(&redis, &url);
        let (mut a, b) = (process().await, process().await);
        let session = new_session(a.http, "cam_1", "app_1").await;
        let asked = async |node: &Process, method| {
            request(node.http, method, &path(&session), &[bearer(APP_KEY)], "").await
        };
        assert_eq!(asked(&b, "GET").await.json(), asked(&a, "GET").await.json());
        a.child.kill().unwrap();
        assert_eq!(asked(&b, "GET").await.json()["status"], "connecting");
        let new_a = process().await;
        assert_eq!(asked(&new_a, "GET").await.status, 200);
        // A token of the one that died is good at the new one, which signs with the same key.
        let own = [bearer(session["token"].as_str().unwrap())];
        let reply = request(new_a.http, "DELETE", &path(&session), &own, "").await;
        assert_eq!(reply.status, 204);
        assert_eq!(asked(&b, "GET").await.json()["status"], "closed");
        for node in [new_a, b] {
            let log = node.stop();
            assert!(log.contains("sessions are kept at redis://:(hidden)@127.0.0.1:"), "{log}");
            assert!(!log.contains("hunter2"), "{log}");
        }
    });
}
