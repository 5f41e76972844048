//! The relay as sessions have it, over real sockets: a bandwidth that the API set, an end that the API
//! or the sweep made, and secrets that are exchanged.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod api_support;
mod camera_support;
mod coturn_support;

use api_support::{
    APP_KEY, TURN_SECRET, bearer, metric, new_session, request, until_metric, with_server,
};
use camera_support::Side;
use coturn_support::Coturn;
use serde_json::{Value, json};
use server_min::clock;
use server_min::server::Server;
use server_min::stun_turn::{TurnConfig, TurnServer, password_for};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

const LOOPBACK: &[(&str, &str)] = &[("turn.allow_loopback_peers", "true")];

/// How many of `count` packets of 1000 bytes the client gets, sent at once by its peer.
fn receives_of(side: &mut Side, count: usize) -> usize {
    let mut received = 0;
    // In portions that no socket's buffer is too small for.
    for _ in 0..count / 10 {
        for _ in 0..10 {
            side.peer.send_to(&[7; 1000], side.camera.relayed).unwrap();
        }
        let next = || side.camera.receive().filter(|payload| payload.len() == 1000);
        received += std::iter::from_fn(next).take(10).count();
    }
    received
}

fn is_open(side: &mut Side) -> bool {
    receives_of(side, 10) == 10
}

async fn create(server: &Server, body: &Value) -> (u16, String) {
    let headers = [bearer(APP_KEY)];
    let reply = request(server.http, "POST", "/v1/sessions", &headers, &body.to_string()).await;
    (reply.status, reply.body)
}

#[test]
fn a_session_s_bandwidth_is_set_when_it_is_created() {
    let settings = [
        LOOPBACK[0],
        ("turn.bandwidth_bps", "80000"),
        ("turn.bandwidth_burst_bytes", "20000"),
        ("turn.max_bandwidth_bps", "400000"),
    ];
    with_server(&settings, |server| async {
        let ids = json!({"deviceId": "cam_1", "appId": "app_1"});
        let (mut own, mut wrong) = (ids.clone(), ids.clone());
        own["bandwidthBps"] = json!(240_000);
        let (status, body) = create(&server, &own).await;
        assert_eq!(status, 201, "{body}");
        let session: Value = serde_json::from_str(&body).unwrap();
        let sid = session["sessionId"].as_str().unwrap();
        let username = session["iceServers"][1]["username"].as_str().unwrap();
        assert!(username.ends_with(&format!(":{sid}:240")), "{username}");
        let path = format!("/v1/sessions/{sid}");
        let record = request(server.http, "GET", &path, &[bearer(APP_KEY)], "").await.json();
        assert_eq!(record["bandwidthBps"], 240_000);
        assert_eq!(record["turnAllocation"], username);

        // 60 000 bytes at once, for camera and viewer together; what comes on top is a second's.
        let mut sides = [(); 2].map(|()| Side::of(server.stun[0], &session));
        let received = receives_of(&mut sides[0], 50) + receives_of(&mut sides[1], 50);
        assert!((60..75).contains(&received), "{received}");
        let default = new_session(server.http, "cam_1", "app_1").await;
        assert!(!default["iceServers"][1]["username"].as_str().unwrap().contains(":240"));
        let received = receives_of(&mut Side::of(server.stun[0], &default), 60);
        assert!((20..35).contains(&received), "{received}");
        assert!(metric(server.http, "turn_capped_packets_total").await >= 45.0);

        for bps in [json!(0), json!(999), json!(400_001), json!(-1), json!("fast"), json!(1.5)] {
            wrong["bandwidthBps"] = bps;
            let (status, body) = create(&server, &wrong).await;
            assert_eq!(status, 400, "{body}");
        }
        wrong["bandwidthBps"] = json!(400_001);
        let (_, body) = create(&server, &wrong).await;
        assert!(body.contains("expected 1000 to 400000 bits per second"), "{body}");
        server
    });
}

#[test]
fn a_session_that_is_closed_loses_its_allocations_at_once() {
    with_server(LOOPBACK, |server| async {
        // By the API.
        let session = new_session(server.http, "cam_1", "app_1").await;
        let (mut camera, mut viewer) =
            (Side::of(server.stun[0], &session), Side::of(server.stun[0], &session));
        let other = new_session(server.http, "cam_2", "app_1").await;
        let mut others = Side::of(server.stun[0], &other);
        until_metric(server.http, "turn_sessions_active", 3.0).await;
        assert!(is_open(&mut camera) && is_open(&mut viewer) && is_open(&mut others));
        let path = format!("/v1/sessions/{}", session["sessionId"].as_str().unwrap());
        let reply = request(server.http, "DELETE", &path, &[bearer(APP_KEY)], "").await;
        assert_eq!(reply.status, 204);
        until_metric(server.http, "turn_sessions_active", 1.0).await;
        assert_eq!((receives_of(&mut camera, 10), receives_of(&mut viewer, 10)), (0, 0));
        assert!(is_open(&mut others));
        // Its credentials are good for a day, but not for this.
        let again = Side::tried(server.stun[0], &session);
        assert_eq!(again.err().as_deref(), Some("Forbidden"));

        // By the sweep, also with a bandwidth of its own in the name.
        let body = json!({"deviceId": "cam_3", "appId": "app_1", "bandwidthBps": 4_000_000});
        let session: Value = serde_json::from_str(&create(&server, &body).await.1).unwrap();
        let mut camera = Side::of(server.stun[0], &session);
        assert!(is_open(&mut camera));
        until_metric(server.http, "turn_sessions_active", 2.0).await;
        let closed = server.service.sweep(clock::now_ms() + 301_000).await.unwrap();
        assert_eq!(closed, 2);
        until_metric(server.http, "turn_sessions_active", 0.0).await;
        assert!(!is_open(&mut camera) && !is_open(&mut others));
        for side in [&camera, &others] {
            UdpSocket::bind(side.camera.relayed).expect("its port is free again");
        }
        server
    });
}

#[test]
fn secrets_are_exchanged_without_ending_what_plays() {
    let config = TurnConfig {
        listen: vec![([127, 0, 0, 1], 0).into()],
        secrets: vec![TURN_SECRET.into()],
        allow_loopback_peers: true,
        ..TurnConfig::default()
    };
    let server = TurnServer::start(config, Arc::new(())).unwrap();
    let side = |secret: &str| {
        let username = "4102444800:550e8400-e29b-41d4-a716-446655440000";
        let password = password_for(secret.as_bytes(), username);
        Side::connect(server.local_addrs()[0], username, &password)
    };
    let mut playing = side(TURN_SECRET).unwrap();
    assert!(side("new").is_err());
    server.set_secrets(&[b"new".to_vec(), TURN_SECRET.into()]).unwrap();
    assert!(is_open(&mut side("new").unwrap()) && is_open(&mut side(TURN_SECRET).unwrap()));
    server.set_secrets(&[b"new".to_vec()]).unwrap();
    assert!(is_open(&mut side("new").unwrap()));
    assert!(side(TURN_SECRET).is_err());
    assert!(is_open(&mut playing));
    assert!(server.set_secrets(&[]).unwrap_err().contains("secrets"));
    assert!(is_open(&mut side("new").unwrap()));
}

/// Whoever relays by coturn gives out the same names.
#[test]
fn coturn_takes_a_name_with_a_bandwidth() {
    let coturn = Coturn::open("bandwidth");
    let address = SocketAddr::from(([127, 0, 0, 1], coturn.port));
    // It counts time in 31 bits.
    let expiry_s = clock::now_ms() / 1000 + 3600;
    for more in ["", ":4000"] {
        let username = format!("{expiry_s}:550e8400-e29b-41d4-a716-446655440000{more}");
        let password = password_for(coturn.secret.as_bytes(), &username);
        let mut side = Side::connect(address, &username, &password).unwrap();
        assert!(is_open(&mut side));
        let wrong = Side::connect(address, &username, &password_for(b"wrong", &username));
        assert!(wrong.is_err());
    }
}
