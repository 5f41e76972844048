//! The rest of the HTTP side: the page, metrics, other origins, WebSocket, and clients that are
//! silent or too many.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod api_support;

use api_support::{
    APP_KEY, PATIENCE, bearer, get, metric, new_session, request, until_metric, with_server,
};
use futures_util::{SinkExt as _, StreamExt as _};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{self, Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

#[test]
fn the_page_is_served_with_its_policy() {
    with_server(&[], |server| async {
        for (path, content_type, file) in [
            ("/", "text/html; charset=utf-8", "index.html"),
            ("/?device=cam_1", "text/html; charset=utf-8", "index.html"),
            ("/index.html", "text/html; charset=utf-8", "index.html"),
            ("/style.css", "text/css; charset=utf-8", "style.css"),
            ("/viewer.js", "text/javascript; charset=utf-8", "viewer.js"),
            ("/mqtt.js", "text/javascript; charset=utf-8", "mqtt.js"),
            ("/icon.svg", "image/svg+xml", "icon.svg"),
        ] {
            let reply = get(server.http, path).await;
            assert_eq!((reply.status, reply.header("content-type")), (200, Some(content_type)));
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/page/");
            assert_eq!(reply.body, std::fs::read_to_string(format!("{folder}{file}")).unwrap());
            let policy = reply.header("content-security-policy").unwrap();
            assert!(
                policy.contains("default-src 'self'; connect-src 'self' ws: wss: http: https:")
            );
            assert_eq!(reply.header("cache-control"), Some("no-cache"));
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
            // A browser that has it already is not sent it again.
            let tag = reply.header("etag").unwrap();
            let known = [format!("If-None-Match: \"x\", {tag}")];
            let again = request(server.http, "GET", path, &known, "").await;
            assert_eq!((again.status, again.body.as_str()), (304, ""));
            let head = request(server.http, "HEAD", path, &[], "").await;
            assert_eq!((head.status, head.body.as_str()), (200, ""));
        }
        server
    });
}

/// Every script and style in the page's folder is served, so nothing it names is missing.
#[test]
fn the_page_needs_nothing_that_is_not_served() {
    with_server(&[], |server| async {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/page");
        let mut served = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".js") || name.ends_with(".css") || name.ends_with(".svg") {
                assert_eq!(get(server.http, &format!("/{name}")).await.status, 200, "{name}");
                served += 1;
            }
        }
        assert!(served >= 4, "{served} files in {folder}");
        server
    });
}

#[test]
fn health_and_metrics_are_plain_text() {
    with_server(&[], |server| async {
        let health = get(server.http, "/healthz").await;
        assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));
        let metrics = get(server.http, "/metrics").await;
        assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
        for name in [
            "stun_requests_total{status=\"success\",region=\"eu-1\"}",
            "turn_sessions_active",
            "turn_sessions_total",
            "mqtt_connections",
        ] {
            metric(server.http, name).await;
        }
        server
    });
}

#[test]
fn stun_requests_are_answered_and_counted() {
    with_server(&[], |server| async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // A Binding request without attributes (RFC 8489 §5).
        let mut binding = vec![0x00, 0x01, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        binding.extend([7; 12]);
        socket.send_to(&binding, server.stun[0]).await.unwrap();
        let mut reply = [0; 256];
        let (len, _) = timeout(PATIENCE, socket.recv_from(&mut reply)).await.unwrap().unwrap();
        assert!(len >= 20);
        assert_eq!((&reply[..2], &reply[8..20]), (&[0x01, 0x01][..], &[7; 12][..]));
        let counted = "stun_requests_total{status=\"success\",region=\"eu-1\"}";
        until_metric(server.http, counted, 1.0).await;
        server
    });
}

#[test]
fn other_origins_may_use_the_api_and_nothing_else() {
    with_server(&[], |server| async {
        let origin = "Origin: https://viewer.example.org".to_owned();
        let ask = [origin.clone(), "Access-Control-Request-Method: POST".into()];
        let preflight = request(server.http, "OPTIONS", "/v1/sessions", &ask, "").await;
        assert_eq!(preflight.status, 204);
        assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
        assert_eq!(preflight.header("access-control-allow-methods"), Some("POST, OPTIONS"));
        let allowed = preflight.header("access-control-allow-headers").unwrap();
        assert!(allowed.contains("authorization") && allowed.contains("content-type"));
        // The refusal can be read as well, so that the page can say what is wrong.
        let refused = request(server.http, "POST", "/v1/sessions", &[origin], "").await;
        assert_eq!(
            (refused.status, refused.header("access-control-allow-origin")),
            (401, Some("*"))
        );
        let page = get(server.http, "/").await;
        assert_eq!(page.header("access-control-allow-origin"), None);
        server
    });
    with_server(&[("http.cors_origin", "")], |server| async {
        let reply = request(server.http, "OPTIONS", "/v1/sessions", &[], "").await;
        assert_eq!(reply.header("access-control-allow-origin"), None);
        server
    });
}

#[test]
fn a_browser_reaches_the_broker_through_the_http_port() {
    with_server(&[], |server| async {
        let session = new_session(server.http, "cam_1", "app_1").await;
        let url = session["mqtt"]["wsUrl"].as_str().unwrap();
        let mut upgrade = url.into_client_request().unwrap();
        upgrade.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().unwrap());
        let stream = TcpStream::connect(server.http).await.unwrap();
        let (mut socket, reply) = tokio_tungstenite::client_async(upgrade, stream).await.unwrap();
        assert_eq!(reply.headers()["sec-websocket-protocol"], "mqtt");
        let text = |key: &str| session["mqtt"][key].as_str().unwrap();
        let connect = connect_packet("ws-1", text("username"), text("password"));
        socket.send(Message::Binary(connect.into())).await.unwrap();
        let connack = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(connack.into_data()[..], [0x20, 2, 0, 0]);
        assert_eq!(metric(server.http, "mqtt_connections").await, 1.0);

        let plain = get(server.http, "/mqtt").await;
        assert_eq!((plain.status, plain.header("upgrade")), (426, Some("websocket")));
        assert!(plain.error().contains("MQTT client"));
        server
    });
}

/// In virtual time: while everyone waits for a socket, the paused clock goes to its next timer.
#[test]
fn silent_clients_are_cut_off() {
    with_server(&[], |server| async {
        let body_missing = format!(
            "POST /v1/sessions HTTP/1.1\r\nHost: x\r\n{}\r\nContent-Length: 9\r\n\r\n{{",
            bearer(APP_KEY)
        );
        for sent in ["", "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", &body_missing] {
            let mut silent = TcpStream::connect(server.http).await.unwrap();
            silent.write_all(sent.as_bytes()).await.unwrap();
            expect_end_in_10_s(server.http, &mut silent, sent).await;
        }
        // One that was answered, keeps its connection, and asks for nothing more.
        let mut idle = TcpStream::connect(server.http).await.unwrap();
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(idle.read(&mut [0; 1024]).await.unwrap() > 0);
        expect_end_in_10_s(server.http, &mut idle, "idle").await;
        server
    });
}

#[test]
fn past_the_bound_newcomers_are_turned_away_and_places_come_back() {
    with_server(&[("http.max_connections", "2")], |server| async {
        let first = TcpStream::connect(server.http).await.unwrap();
        let _second = TcpStream::connect(server.http).await.unwrap();
        let mut third = TcpStream::connect(server.http).await.unwrap();
        let ended = timeout(PATIENCE, third.read(&mut [0; 16])).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        drop(first);
        let until_free = async {
            loop {
                let mut next = TcpStream::connect(server.http).await.unwrap();
                let _ = next.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await;
                let mut reply = String::new();
                if next.read_to_string(&mut reply).await.is_ok_and(|len| len > 0) {
                    return reply;
                }
            }
        };
        assert!(timeout(PATIENCE, until_free).await.unwrap().contains("200 OK"));
        server
    });
}

#[test]
fn junk_and_giant_heads_end_one_connection_only() {
    with_server(&[], |server| async {
        let giant = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
        for junk in [
            &b"\x16\x03\x01\x02\x00\x01\x00"[..],
            &[0; 4096],
            giant.as_bytes(),
            b"\r\n\r\n\r\nx y z\r\n\r\n",
        ] {
            let mut stream = TcpStream::connect(server.http).await.unwrap();
            let _ = stream.write_all(junk).await;
            let mut reply = Vec::new();
            let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut reply)).await.unwrap();
            let reply = String::from_utf8_lossy(&reply).into_owned();
            assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 4"), "{reply}");
        }
        assert_eq!(get(server.http, "/healthz").await.status, 200);
        server
    });
}

async fn expect_end_in_10_s(server: SocketAddr, stream: &mut TcpStream, what: &str) {
    // Connections are taken in their order: once this one is answered, the other is being timed.
    assert_eq!(get(server, "/healthz").await.status, 200);
    time::pause();
    let start = Instant::now();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    let waited = start.elapsed();
    time::resume();
    // A little of the ten seconds went by before the clock was stopped.
    let expected = Duration::from_secs(8)..Duration::from_millis(10_100);
    assert!(expected.contains(&waited), "{waited:?} {what:?}");
}

/// MQTT 3.1.1 §3.1, clean session, with user name and password.
fn connect_packet(client_id: &str, username: &str, password: &str) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x04\xc2\x00\x14".to_vec();
    for text in [client_id, username, password] {
        body.extend((text.len() as u16).to_be_bytes());
        body.extend(text.as_bytes());
    }
    let len = u8::try_from(body.len()).unwrap();
    assert!(len < 128, "one byte of remaining length");
    [vec![0x10, len], body].concat()
}
