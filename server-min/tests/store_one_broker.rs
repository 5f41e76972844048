//! Several nodes on one real Redis and one real broker that is none of theirs.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod api_support;
mod external_support;
mod node_support;
mod redis_support;

use api_support::{Mqtt, allocate, metric, new_session, until_metric};
use external_support::{Folder, Mosquitto, free_port};
use node_support::{ask, node_with, path};
use redis_support::{Redis, run, until};
use serde_json::json;
use std::time::Duration;

#[test]
fn each_event_counts_once_and_each_bye_is_said_once() {
    run(async {
        let (redis, folder, port) = (Redis::start(), Folder::new("nodes"), free_port());
        let configuration = format!("listener {port} 127.0.0.1\nallow_anonymous true\n");
        let mosquitto = Mosquitto::start(&folder, &configuration, port).await;
        let broker = mosquitto.url();
        let more = [
            ("mqtt.external", &*broker),
            ("mqtt.public_url", &broker),
            ("mqtt.public_ws_url", "wss://mqtt.example.org/mqtt"),
            ("mqtt.external_share", "true"),
        ];
        let a = node_with(&redis, &redis.url(), &more).await;
        let b = node_with(&redis, &redis.url(), &more).await;
        for node in [&a, &b] {
            until_metric(node.http, "mqtt_external_up", 1.0).await;
            until("the node is ready", async || node.service.ready().is_ok()).await;
        }
        let mut device = Mqtt::device(mosquitto.address, "cam_1").await;
        let session = new_session(a.http, "cam_1", "app_1").await;
        assert_eq!(device.message().await["type"], "keepalive");
        let mut app = Mqtt::connect(mosquitto.address, "app_1", "-").await.unwrap();
        app.subscribe("p2p/signal/app/app_1").await;
        allocate(&session).await;
        until_metric(a.http, "turn_sessions_active", 1.0).await;

        // Whichever of the two a report comes to, it changes the same record, and counts once.
        let report = json!({"type": "keepalive", "sessionId": session["sessionId"], "from": "cam_1",
                            "to": "server", "timestamp": 0,
                            "payload": {"state": "connected", "path": "host", "setupMs": 80}});
        for _ in 0..10 {
            device.publish("p2p/signal/server", &report).await;
            assert_eq!(device.message().await["type"], "keepalive");
        }
        until("it is connected", async || {
            ask(&b, "GET", &path(&session)).await.json()["status"] == "connected"
        })
        .await;
        let name = "p2p_connection_success_total";
        assert_eq!(metric(a.http, name).await + metric(b.http, name).await, 1.0);

        // Closed at B: A frees what it relays, and leaves the bye to B.
        assert_eq!(ask(&b, "DELETE", &path(&session)).await.status, 204);
        for side in [&mut device, &mut app] {
            let bye = side.message().await;
            assert_eq!((&bye["type"], &bye["sessionId"]), (&json!("bye"), &session["sessionId"]));
        }
        until_metric(a.http, "turn_sessions_active", 0.0).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        app.publish("p2p/signal/device/cam_1", &json!({"type": "marker", "from": "app_1"})).await;
        assert_eq!(device.message().await["type"], "marker");
        a.stop().await;
        b.stop().await;
    });
}
