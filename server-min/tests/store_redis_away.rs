//! Redis goes away and comes back: no session is lost, nothing hangs, nothing is closed in error.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod api_support;
mod node_support;
mod redis_support;

use api_support::{
    APP_KEY, PATIENCE, allocate, bearer, metric, new_session, request, until_metric,
};
use node_support::{ask, create, node, node_that_waits, path};
use redis_support::{Redis, closing, listen, record, run, store_at, store_with_one, until};
use sdk_core::wire::signal::SessionId;
use serde_json::{Value, json};
use server_min::server::Server;
use server_min::session::closing::By;
use server_min::session::shared::StoreConfig;
use server_min::session::{Change, SessionRecord, SessionStore};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// As long as a request may take while Redis is away: its own patience is 2 s.
const BOUND: Duration = Duration::from_secs(8);
const MINUTE_MS: u64 = 60_000;

/// Whatever happens to Redis, an answer comes in bounded time and says what it is.
async fn assert_unavailable(node: &Server, session: &Value) {
    for (method, path) in
        [("GET", path(session)), ("DELETE", path(session)), ("POST", "/v1/sessions".into())]
    {
        let begin = Instant::now();
        let body = json!({"deviceId": "cam_1", "appId": "app_1"}).to_string();
        let reply = request(node.http, method, &path, &[bearer(APP_KEY)], &body).await;
        assert_eq!(reply.status, 503, "{method} {}", reply.body);
        assert_eq!(reply.header("retry-after"), Some("5"));
        assert!(reply.error().contains("Try again"), "{}", reply.body);
        assert!(begin.elapsed() < BOUND, "{method} took {:?}", begin.elapsed());
    }
    assert!(node.service.ready().is_err());
}

/// The session of before is there, and everything works again, without a restart.
async fn assert_back(node: &Server, session: &Value, sessions: usize, redis: &Redis) {
    until("the node is back", async || node.service.ready().is_ok()).await;
    let record = ask(node, "GET", &path(session)).await;
    assert_eq!((record.status, &record.json()["status"]), (200, &json!("connecting")));
    assert_eq!(redis.ask::<usize>(&["ZCARD", "sessions"]), sessions);
    let next = create(node).await;
    assert_eq!(next.status, 201, "{}", next.body);
    assert_eq!(ask(node, "DELETE", &path(&next.json())).await.status, 204);
}

#[test]
fn a_redis_that_stops_and_starts_loses_no_session() {
    run(async {
        let mut redis = Redis::start();
        let node = node(&redis).await;
        let session = new_session(node.http, "cam_1", "app_1").await;
        allocate(&session).await;
        until_metric(node.http, "turn_sessions_active", 1.0).await;
        for _ in 0..2 {
            redis.stop();
            assert_unavailable(&node, &session).await;
            // Media goes on.
            assert_eq!(metric(node.http, "turn_sessions_active").await, 1.0);
            redis.start_again();
            assert_back(&node, &session, 1, &redis).await;
        }
        assert_eq!(ask(&node, "DELETE", &path(&session)).await.status, 204);
        until_metric(node.http, "turn_sessions_active", 0.0).await;
        node.stop().await;
    });
}

#[test]
fn a_redis_that_hangs_is_given_up_and_taken_again() {
    run(async {
        let redis = Redis::start();
        let node = node(&redis).await;
        let session = new_session(node.http, "cam_1", "app_1").await;
        redis.pause();
        assert_unavailable(&node, &session).await;
        // Once it is known, nobody waits.
        let begin = Instant::now();
        for _ in 0..20 {
            assert_eq!(create(&node).await.status, 503);
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        redis.go_on();
        until("the node is back", async || node.service.ready().is_ok()).await;
        // What was asked for when it hung may have been done when it went on: the GET, and no more,
        // since that was when the connection was given up.
        assert_back(&node, &session, 1, &redis).await;
        node.stop().await;
    });
}

#[test]
fn killed_connections_are_made_again() {
    run(async {
        let redis = Redis::start();
        let node = node(&redis).await;
        let session = new_session(node.http, "cam_1", "app_1").await;
        for _ in 0..5 {
            let killed: i64 = redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            assert_eq!(killed, 1, "one connection, for commands and announcements");
            until("it was noticed", async || {
                ask(&node, "GET", &path(&session)).await.status == 200
            })
            .await;
            until("it listens again", async || {
                redis.ask::<Vec<String>>(&["PUBSUB", "CHANNELS"]) == ["session_closed"]
            })
            .await;
        }
        node.stop().await;
    });
}

/// As after a failover, when the address still leads to the old primary; or when it has lost its replicas.
#[test]
fn a_redis_that_only_reads_is_as_good_as_none() {
    run(async {
        let redis = Redis::start();
        let node = node(&redis).await;
        let session = new_session(node.http, "cam_1", "app_1").await;
        let only_reads: [&[&str]; 2] =
            [&["REPLICAOF", "127.0.0.1", "1"], &["CONFIG", "SET", "min-replicas-to-write", "1"]];
        let writes: [&[&str]; 2] =
            [&["REPLICAOF", "NO", "ONE"], &["CONFIG", "SET", "min-replicas-to-write", "0"]];
        for (only_reads, writes) in only_reads.into_iter().zip(writes) {
            redis.ask::<String>(only_reads);
            until("it is noticed", async || node.service.ready().is_err()).await;
            assert_unavailable(&node, &session).await;
            redis.ask::<String>(writes);
            assert_back(&node, &session, 1, &redis).await;
        }
        node.stop().await;
    });
}

/// A full one takes no more sessions, and lets those it has go on and end.
#[test]
fn a_full_redis_keeps_what_it_has() {
    run(async {
        let redis = Redis::start();
        let (store, made) = store_with_one(&redis).await;
        let heard = listen(&store);
        redis.ask::<String>(&["CONFIG", "SET", "maxmemory", "1"]);
        let full = store.create(record(2, 0), 0).await.unwrap_err();
        assert!(full.to_string().to_uppercase().contains("OOM"), "{full}");
        assert!(store.update(&made, Change::default(), 5).await.unwrap().is_some());
        assert_eq!(store.ready(), Ok(()));
        assert!(store.close(&made, closing(&made), 6).await.unwrap().is_some());
        until("the closing is heard", async || heard.borrow().len() == 1).await;
        assert_eq!(redis.ask::<usize>(&["ZCARD", "sessions"]), 0);
    });
}

#[test]
fn a_node_starts_without_redis_and_serves_when_it_comes() {
    run(async {
        let mut redis = Redis::start();
        let url = redis.url();
        redis.stop();
        let node = node_that_waits(&redis, &url).await;
        assert_eq!(create(&node).await.status, 503);
        redis.start_again();
        until("it serves", async || create(&node).await.status == 201).await;
        node.stop().await;
    });
}

/// Who was away reads what it has missed: changes of what it watches, and closings.
#[test]
fn no_change_is_missed_by_a_node_that_was_away() {
    run(async {
        let redis = Redis::start();
        redis.ask::<String>(&["ACL", "SETUSER", "a", "on", ">secret/a", "~*", "&*", "+@all"]);
        let of_a = format!("redis://a:secret/a@127.0.0.1:{}", redis.port);
        let a = store_at(&of_a, &StoreConfig::default(), 9).await;
        let b = redis_support::store(&redis, 9).await;
        let heard = listen(&a);
        let (one, two) = (record(1, 0), record(2, 0));
        for record in [&one, &two] {
            a.create(record.clone(), 0).await.unwrap();
        }
        let mut watched = a.watch(SessionId::from_random([1; 16])).await.unwrap().unwrap();
        let mut gone = a.watch(SessionId::from_random([2; 16])).await.unwrap().unwrap();
        let sign_of_life = Change::default();
        b.update(&one, sign_of_life, 5).await.unwrap().unwrap();
        timeout(PATIENCE, watched.changed()).await.unwrap().unwrap();

        redis.ask::<String>(&["ACL", "SETUSER", "a", "off"]);
        redis.ask::<i64>(&["CLIENT", "KILL", "USER", "a"]);
        until("A is away", async || a.ready().is_err()).await;
        b.update(&one, sign_of_life, 7).await.unwrap().unwrap();
        assert!(b.close(&two, closing(&two), 8).await.unwrap().is_some());
        redis.ask::<i64>(&["DEL", &format!("session:{}", two.session_id)]);
        assert!(!watched.has_changed().unwrap() && heard.borrow().is_empty());

        redis.ask::<String>(&["ACL", "SETUSER", "a", "on"]);
        timeout(PATIENCE, watched.changed()).await.unwrap().unwrap();
        assert_eq!(watched.borrow_and_update().updated_at, 7);
        let ended = async { while gone.changed().await.is_ok() {} };
        timeout(PATIENCE, ended).await.unwrap();
        until("the closing is heard", async || !heard.borrow().is_empty()).await;
        assert_eq!(*heard.borrow(), [(closing(&two), By::AnotherNode)]);
        // And it hears again as it happens, once.
        b.update(&one, sign_of_life, 9).await.unwrap().unwrap();
        timeout(PATIENCE, watched.changed()).await.unwrap().unwrap();
        assert!(b.close(&one, closing(&one), 10).await.unwrap().is_some());
        timeout(PATIENCE, watched.wait_for(SessionRecord::is_closed)).await.unwrap().unwrap();
        until("this one too", async || heard.borrow().len() == 2).await;
    });
}

/// While Redis was away nobody could report: that is no reason to close what plays.
#[test]
fn sessions_are_not_stale_because_redis_was_away() {
    run(async {
        let mut redis = Redis::start();
        let (store, made) = store_with_one(&redis).await;
        let idle_ms = 5 * MINUTE_MS;
        redis.stop();
        until("it is noticed", async || store.ready().is_err()).await;
        redis.start_again();
        until("it is back", async || store.ready().is_ok()).await;
        let back_ms = 30 * MINUTE_MS;
        assert_eq!(store.stale(back_ms, idle_ms, 9).await, Ok(Vec::new()));
        assert_eq!(store.stale(back_ms + idle_ms - 1, idle_ms, 9).await, Ok(Vec::new()));
        assert_eq!(store.stale(back_ms + idle_ms, idle_ms, 9).await, Ok(vec![made.clone()]));
        // Nor is it for a node that has just started: it cannot know.
        let new = redis_support::store(&redis, 9).await;
        assert_eq!(new.stale(back_ms, idle_ms, 9).await, Ok(Vec::new()));
        assert_eq!(new.stale(back_ms + idle_ms, idle_ms, 9).await, Ok(vec![made]));
    });
}
