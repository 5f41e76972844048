//! Several server-min that share a Redis.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use crate::api_support::{APP_KEY, Response, bearer, config, request};
use crate::redis_support::{Redis, until};
use sdk_core::wire::signal::SessionId;
use serde_json::{Value, json};
use server_min::server::Server;

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
