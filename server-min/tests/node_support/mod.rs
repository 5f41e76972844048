//! Several server-min that share a Redis.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use crate::api_support::{APP_KEY, DEVICE_SECRET, Response, bearer, config, request};
use crate::redis_support::{Redis, until};
use sdk_core::wire::signal::SessionId;
use serde_json::{Value, json};
use server_min::server::Server;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A node of several: same secrets, same Redis.
pub async fn node(redis: &Redis) -> Server {
    node_at(redis, &redis.url()).await
}

pub async fn node_at(redis: &Redis, url: &str) -> Server {
    let node = node_that_waits(redis, url).await;
    until("the node is ready", async || node.service.ready().is_ok()).await;
    node
}

/// One whose Redis may not be there.
pub async fn node_that_waits(redis: &Redis, url: &str) -> Server {
    node_with(redis, url, &[]).await
}

pub async fn node_with(redis: &Redis, url: &str, more: &[(&str, &str)]) -> Server {
    let key = redis.file("signing.key");
    let shared = [
        ("store.redis", url),
        ("mqtt.app_secret", "apps"),
        ("session.signing_key_file", key.to_str().unwrap()),
    ];
    Server::start(config(&[&shared[..], more].concat())).await.unwrap()
}

pub fn path(session: &Value) -> String {
    format!("/v1/sessions/{}", session["sessionId"].as_str().unwrap())
}

pub fn id(session: &Value) -> SessionId {
    SessionId::parse(session["sessionId"].as_str().unwrap()).unwrap()
}

pub async fn ask(node: &Server, method: &str, path: &str) -> Response {
    request(node.http, method, path, &[bearer(APP_KEY)], "").await
}

pub async fn create(node: &Server) -> Response {
    let body = json!({"deviceId": "cam_1", "appId": "app_1"}).to_string();
    request(node.http, "POST", "/v1/sessions", &[bearer(APP_KEY)], &body).await
}

/// The command, as it is run: a node that does not outlive the test.
pub struct Process {
    pub child: Child,
    pub http: SocketAddr,
    pub mqtt: SocketAddr,
    log: PathBuf,
}

impl Process {
    pub async fn that_serves(redis: &Redis, url: &str) -> Process {
        let process = Process::start(redis, url);
        until("it serves", async || {
            let path = "/v1/sessions/550e8400-e29b-41d4-a716-446655440000";
            request(process.http, "GET", path, &[bearer(APP_KEY)], "").await.status == 404
        })
        .await;
        process
    }

    fn start(redis: &Redis, url: &str) -> Process {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let key = redis.file("signing.key");
        // A pipe that nobody reads would hold it up.
        let log = redis.file(&format!("node{}.log", COUNT.fetch_add(1, Relaxed)));
        let mut child = Command::new(env!("CARGO_BIN_EXE_server-min"))
            .args(["--http.listen", "127.0.0.1:0", "--mqtt.listen", "127.0.0.1:0"])
            .args(["--turn.listen", "127.0.0.1:0", "--turn.secrets", "north"])
            .args(["--mqtt.app_secret", "apps", "--mqtt.device_secret", DEVICE_SECRET])
            .args(["--app_key", APP_KEY, "--log", "debug", "--session.sweep_interval_s", "1"])
            .args(["--store.redis", url, "--session.signing_key_file", key.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = |name: &str| {
            let found = line.split_whitespace().find_map(|part| part.strip_prefix(name));
            found.unwrap_or_else(|| panic!("{line:?}")).parse().unwrap()
        };
        Process { http: address("http="), mqtt: address("mqtt="), child, log }
    }

    /// In order; what it wrote to its log.
    pub fn stop(mut self) -> String {
        let pid = i32::try_from(self.child.id()).unwrap();
        // SAFETY: kill takes no pointer; the child has not been waited for, so the id is its own.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
        let status = self.child.wait().unwrap();
        let log = fs::read_to_string(&self.log).unwrap();
        assert!(status.success(), "{log}");
        log
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
