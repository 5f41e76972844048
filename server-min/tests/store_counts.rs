//! Sessions in a real Redis, counted by their state: every node says the same, and it is true.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod api_support;
mod node_support;
mod redis_support;

use api_support::{APP_KEY, Mqtt, bearer, get, new_session, request};
use node_support::{Process, path};
use redis_support::{Redis, closing, record, run, store, store_with_one, until};
use sdk_core::wire::signal::{SessionId, SessionState};
use serde_json::json;
use server_min::clock;
use server_min::session::{Change, Counts, RedisStore, SessionRecord, SessionStore};
use std::net::SocketAddr;

const CONNECTED: Change =
    Change { state: Some(SessionState::Connected), path: None, setup_ms: None };
const MINUTE_MS: u64 = 60_000;
const IDLE_MS: u64 = 5 * MINUTE_MS;

async fn until_counted(store: &RedisStore, connecting: usize, connected: usize, closed: usize) {
    let expected = Counts { connecting, connected, closed };
    until(&format!("{expected:?}"), async || store.counts() == Some(expected)).await;
}

/// What a node's metrics say of all nodes' sessions, in the order connecting, connected, closed.
async fn published(http: SocketAddr) -> Vec<(String, f64)> {
    let text = get(http, "/metrics").await.body;
    // Whoever sums the sessions that nodes keep for themselves sums none of these.
    assert!(!text.contains("p2p_sessions"), "{text}");
    let samples = text.lines().filter_map(|line| line.strip_prefix("p2p_shared_sessions{state=\""));
    samples
        .map(|line| {
            let (state, value) = line.split_once("\"} ").unwrap();
            (state.to_owned(), value.parse().unwrap())
        })
        .collect()
}

async fn until_published(nodes: &[&Process], connecting: f64, connected: f64, closed: f64) {
    let expected = [("connecting", connecting), ("connected", connected), ("closed", closed)]
        .map(|(state, count)| (state.to_owned(), count));
    for node in nodes {
        until(&format!("{expected:?}"), async || published(node.http).await == expected).await;
    }
}

async fn connect(device: &mut Mqtt, session: &serde_json::Value) {
    let payload = json!({"state": "connected", "path": "host", "setupMs": 80});
    let report = json!({"type": "keepalive", "sessionId": session["sessionId"], "from": "cam_1",
                        "to": "server", "payload": payload, "timestamp": 0});
    device.publish("p2p/signal/server", &report).await;
}

#[test]
fn every_process_says_the_same_of_the_sessions_of_all() {
    run(async {
        let mut redis = Redis::start();
        let url = redis.url();
        let (a, b) =
            (Process::that_serves(&redis, &url).await, Process::that_serves(&redis, &url).await);
        let both = [&a, &b];
        until_published(&both, 0.0, 0.0, 0.0).await;
        let mut sessions = Vec::new();
        for node in [&a, &a, &b] {
            sessions.push(new_session(node.http, "cam_1", "app_1").await);
        }
        // One that A created connects, says its camera at B; another, at A, and is closed by B.
        let (mut at_a, mut at_b) =
            (Mqtt::device(a.mqtt, "cam_1").await, Mqtt::device(b.mqtt, "cam_1").await);
        connect(&mut at_b, &sessions[0]).await;
        connect(&mut at_a, &sessions[1]).await;
        until_published(&both, 1.0, 2.0, 0.0).await;
        let reply = request(b.http, "DELETE", &path(&sessions[1]), &[bearer(APP_KEY)], "").await;
        assert_eq!(reply.status, 204);
        until_published(&both, 1.0, 1.0, 1.0).await;
        // What others have left in Redis is mended by whichever sweeps next.
        redis.ask::<i64>(&["SADD", "sessions:connected", "one that nobody knows"]);
        until("it is mended", async || redis.ask::<i64>(&["SCARD", "sessions:connected"]) == 1)
            .await;
        until_published(&both, 1.0, 1.0, 1.0).await;
        // One is forgotten in its time, after nobody has reported for long; its record is not kept as closed.
        let sid = sessions[2]["sessionId"].as_str().unwrap();
        redis.ask::<i64>(&["PEXPIRE", &format!("session:{sid}"), "1"]);
        redis.ask::<i64>(&["ZADD", "sessions", "1", &format!("{sid} cam_1 app_1")]);
        until_published(&both, 0.0, 1.0, 1.0).await;
        // One of them dies: the other goes on counting what both had.
        let new = Process::that_serves(&redis, &url).await;
        drop(a);
        until_published(&[&b, &new], 0.0, 1.0, 1.0).await;

        // Away: nothing is said of what cannot be known. And back, as it was.
        redis.stop();
        until("it is noticed", async || published(b.http).await.is_empty()).await;
        redis.start_again();
        until_published(&[&b, &new], 0.0, 1.0, 1.0).await;
        // Back with nothing: nothing is there, and what comes is counted from there.
        redis.stop();
        until("it is noticed", async || published(b.http).await.is_empty()).await;
        redis.start_again_empty();
        until_published(&[&b, &new], 0.0, 0.0, 0.0).await;
        // The camera does not know, and goes on reporting on a session that is not there.
        connect(&mut at_b, &sessions[0]).await;
        let session = new_session(new.http, "cam_1", "app_1").await;
        connect(&mut at_b, &session).await;
        until_published(&[&b, &new], 0.0, 1.0, 0.0).await;
        for node in [b, new] {
            node.stop();
        }
    });
}

/// A session that Redis forgets in its time is open until the sweep has closed it, and then nothing: its
/// record is not there to be counted as closed.
#[test]
fn sessions_whose_time_is_over_leave_no_trace_in_the_counts() {
    run(async {
        let redis = Redis::start();
        let (a, b) = (store(&redis, 99).await, store(&redis, 99).await);
        let of_a_moment = |n| SessionRecord { ttl: 3, ..record(n, 0) };
        for n in 1..=3 {
            a.create(of_a_moment(n), 0).await.unwrap();
        }
        for n in [1, 2] {
            b.update(&of_a_moment(n), CONNECTED, 1).await.unwrap().unwrap();
        }
        let known = a.get(SessionId::from_random([2; 16]), 1).await.unwrap().unwrap();
        a.close(&known, closing(&known), 2).await.unwrap().unwrap();
        until_counted(&b, 1, 1, 1).await;
        until("Redis has forgotten them", async || {
            redis.ask::<Vec<String>>(&["KEYS", "session:*"]).is_empty()
        })
        .await;
        until_counted(&a, 1, 1, 1).await;
        assert!(a.begin_sweep().await.unwrap());
        let expired = a.stale(IDLE_MS + 1, IDLE_MS, 9).await.unwrap();
        assert_eq!(expired.len(), 2);
        for record in &expired {
            a.close(record, closing(record), IDLE_MS + 1).await.unwrap().unwrap();
        }
        a.end_sweep().await.unwrap();
        // The closed one counts until its quarter of an hour is over.
        until_counted(&b, 0, 0, 1).await;
    });
}

#[test]
fn closed_sessions_count_until_redis_has_forgotten_them() {
    run(async {
        let redis = Redis::start();
        let (store, made) = store_with_one(&redis).await;
        store.close(&made, closing(&made), 1).await.unwrap().unwrap();
        until_counted(&store, 0, 0, 1).await;
        let now_s = clock::now_ms() / 1000;
        let quarters: Vec<(u64, u64)> = redis.ask(&["HGETALL", "sessions:closed"]);
        let [(until_s, 1)] = quarters[..] else { panic!("{quarters:?}") };
        let behind_s = until_s - now_s - made.ttl;
        assert!(until_s % 900 == 0 && behind_s <= 900, "{until_s} at {now_s}");
        // Of a day, 97 numbers at most. Those that are over go.
        for (until_s, count) in [(now_s - 1, "5"), (now_s - 90_000, "6"), (now_s + 60, "2")] {
            redis.ask::<i64>(&["HSET", "sessions:closed", &until_s.to_string(), count]);
        }
        until_counted(&store, 0, 0, 3).await;
        assert_eq!(redis.ask::<usize>(&["HLEN", "sessions:closed"]), 2);
    });
}

/// Whatever others did to Redis behind our back, what is counted is right again after the next sweep and
/// the next reports.
#[test]
fn what_others_left_is_mended() {
    run(async {
        let redis = Redis::start();
        let (a, b) = (store(&redis, 99).await, store(&redis, 99).await);
        for n in 1..=4 {
            a.create(record(n, 0), 0).await.unwrap();
            a.update(&record(n, 0), CONNECTED, 1).await.unwrap().unwrap();
        }
        until_counted(&b, 0, 4, 0).await;
        // A node of before closed one; more than one step finds; somebody deleted another one.
        let entry = |n| format!("{} cam_1 app_1", record(n, 0).session_id);
        redis.ask::<i64>(&["ZREM", "sessions", &entry(1), &entry(2)]);
        let mut strays = redis::pipe();
        for n in 0..2500 {
            strays.cmd("SADD").arg("sessions:connected").arg(format!("{n} cam_9 app_9")).ignore();
        }
        strays.query::<()>(&mut redis.connection()).unwrap();
        // Never less than nothing, meanwhile.
        until_counted(&b, 0, 2504, 0).await;
        assert!(a.begin_sweep().await.unwrap());
        a.end_sweep().await.unwrap();
        until_counted(&b, 0, 2, 0).await;
        assert_eq!(redis.ask::<usize>(&["SCARD", "sessions:connected"]), 2);
        // The set is lost, or there are sessions from before there was one.
        redis.ask::<i64>(&["DEL", "sessions:connected"]);
        until_counted(&b, 2, 0, 0).await;
        let known = b.get(SessionId::from_random([3; 16]), 2).await.unwrap().unwrap();
        b.update(&known, Change::default(), 2).await.unwrap().unwrap();
        until_counted(&a, 1, 1, 0).await;
    });
}

/// A full Redis goes on counting what it has.
#[test]
fn a_full_redis_counts() {
    run(async {
        let redis = Redis::start();
        let (store, made) = store_with_one(&redis).await;
        redis.ask::<String>(&["CONFIG", "SET", "maxmemory", "1"]);
        let updated = store.update(&made, CONNECTED, 1).await.unwrap().unwrap();
        until_counted(&store, 0, 1, 0).await;
        let made = updated.after;
        store.close(&made, closing(&made), 2).await.unwrap().unwrap();
        until_counted(&store, 0, 0, 1).await;
        store.end_sweep().await.unwrap();
    });
}
