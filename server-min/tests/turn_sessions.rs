//! The relay as sessions have it, over real sockets: a bandwidth that the API set, an end that the API
//! or the sweep made, and secrets that are exchanged.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(clippy::disallowed_methods, reason = "this test drives clients over real sockets")]

mod api_support;
mod coturn_support;

use api_support::{
    APP_KEY, TURN_SECRET, bearer, metric, new_session, request, until_metric, with_server,
};
use coturn_support::Coturn;
use sdk_core::peer::turn::{Received, TurnClient, TurnEvent};
use serde_json::{Value, json};
use server_min::clock;
use server_min::server::Server;
use server_min::stun_turn::{TurnConfig, TurnServer, password_for};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LOOPBACK: &[(&str, &str)] = &[("turn.allow_loopback_peers", "true")];

/// One side of a session with an allocation, and a peer that it has a channel to.
struct Side {
    socket: UdpSocket,
    turn: TurnClient,
    relayed: SocketAddr,
    peer: UdpSocket,
}

impl Side {
    /// The code of the refusal, if it is refused.
    fn try_new(server: SocketAddr, username: &str, password: &str) -> Result<Side, String> {
        let bind = || {
            let socket = UdpSocket::bind((server.ip(), 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            socket
        };
        let (socket, peer) = (bind(), bind());
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&socket.local_addr().unwrap().port().to_be_bytes());
        let now = Instant::now();
        let mut turn = TurnClient::new(server, username, password, seed, now);
        turn.bind(now, peer.local_addr().unwrap());
        let mut side = Side { socket, turn, relayed: server, peer };
        let mut buffer = [0; 2048];
        while now.elapsed() < Duration::from_secs(10) {
            while let Some(len) = side.turn.poll_transmit(&mut buffer) {
                side.socket.send_to(&buffer[..len], server).unwrap();
            }
            if let Ok((len, _)) = side.socket.recv_from(&mut buffer) {
                side.turn.handle_datagram(Instant::now(), &buffer[..len]);
            }
            side.turn.handle_timeout(Instant::now());
            while let Some(event) = side.turn.poll_event() {
                match event {
                    TurnEvent::Allocated { relayed, .. } => side.relayed = relayed,
                    TurnEvent::ChannelBound { .. } => return Ok(side),
                    TurnEvent::Failed { reason } => return Err(format!("{reason:?}")),
                    _ => {}
                }
            }
        }
        Err("no answer in 10 s".into())
    }

    fn of_session(server: &Server, session: &Value) -> Side {
        let text = |key: &str| session["iceServers"][1][key].as_str().unwrap();
        Side::try_new(server.stun[0], text("username"), text("credential")).unwrap()
    }

    /// How many of `count` packets of 1000 bytes the client gets, sent at once by its peer.
    fn receives_of(&mut self, count: usize) -> usize {
        let mut received = 0;
        // In portions that no socket's buffer is too small for.
        for _ in 0..count / 10 {
            for _ in 0..10 {
                self.peer.send_to(&[7; 1000], self.relayed).unwrap();
            }
            let mut buffer = [0; 2048];
            for _ in 0..10 {
                let Ok((len, _)) = self.socket.recv_from(&mut buffer) else { break };
                let data = self.turn.handle_datagram(Instant::now(), &buffer[..len]);
                received += usize::from(matches!(data, Received::Data { len: 1000, .. }));
            }
        }
        received
    }

    fn is_open(&mut self) -> bool {
        self.receives_of(10) == 10
    }
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
        let mut sides = [(); 2].map(|()| Side::of_session(&server, &session));
        let received = sides[0].receives_of(50) + sides[1].receives_of(50);
        assert!((60..75).contains(&received), "{received}");
        let default = new_session(server.http, "cam_1", "app_1").await;
        assert!(!default["iceServers"][1]["username"].as_str().unwrap().contains(":240"));
        let received = Side::of_session(&server, &default).receives_of(60);
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
            (Side::of_session(&server, &session), Side::of_session(&server, &session));
        let other = new_session(server.http, "cam_2", "app_1").await;
        let mut others = Side::of_session(&server, &other);
        until_metric(server.http, "turn_sessions_active", 3.0).await;
        assert!(camera.is_open() && viewer.is_open() && others.is_open());
        let path = format!("/v1/sessions/{}", session["sessionId"].as_str().unwrap());
        let reply = request(server.http, "DELETE", &path, &[bearer(APP_KEY)], "").await;
        assert_eq!(reply.status, 204);
        until_metric(server.http, "turn_sessions_active", 1.0).await;
        assert_eq!((camera.receives_of(10), viewer.receives_of(10)), (0, 0));
        assert!(others.is_open());
        // Its credentials are good for a day, but not for this.
        let text = |key: &str| session["iceServers"][1][key].as_str().unwrap();
        let again = Side::try_new(server.stun[0], text("username"), text("credential"));
        assert_eq!(again.err().as_deref(), Some("Forbidden"));

        // By the sweep, also with a bandwidth of its own in the name.
        let body = json!({"deviceId": "cam_3", "appId": "app_1", "bandwidthBps": 4_000_000});
        let session: Value = serde_json::from_str(&create(&server, &body).await.1).unwrap();
        let mut camera = Side::of_session(&server, &session);
        assert!(camera.is_open());
        until_metric(server.http, "turn_sessions_active", 2.0).await;
        let closed = server.service.sweep(clock::now_ms() + 301_000).await.unwrap();
        assert_eq!(closed, 2);
        until_metric(server.http, "turn_sessions_active", 0.0).await;
        assert!(!camera.is_open() && !others.is_open());
        for side in [&camera, &others] {
            UdpSocket::bind(side.relayed).expect("its port is free again");
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
        Side::try_new(server.local_addrs()[0], username, &password)
    };
    let mut playing = side(TURN_SECRET).unwrap();
    assert!(side("new").is_err());
    server.set_secrets(&[b"new".to_vec(), TURN_SECRET.into()]).unwrap();
    assert!(side("new").unwrap().is_open() && side(TURN_SECRET).unwrap().is_open());
    server.set_secrets(&[b"new".to_vec()]).unwrap();
    assert!(side("new").unwrap().is_open());
    assert!(side(TURN_SECRET).is_err());
    assert!(playing.is_open());
    assert!(server.set_secrets(&[]).unwrap_err().contains("secrets"));
    assert!(side("new").unwrap().is_open());
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
        let mut side = Side::try_new(address, &username, &password).unwrap();
        assert!(side.is_open());
        let wrong = Side::try_new(address, &username, &password_for(b"wrong", &username));
        assert!(wrong.is_err());
    }
}
