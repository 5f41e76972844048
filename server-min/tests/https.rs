//! The session API, the viewer page and MQTT over HTTPS.

#![allow(clippy::unwrap_used, reason = "clippy sees tests only in functions marked as such")]

mod api_support;
mod js_support;
mod tls_support;

use api_support::{APP_KEY, Response, bearer, read_response, with_server};
use server_min::config::{Setting, load};
use server_min::server::Server;
use server_min::session::passwords::PasswordHash;
use tls_support::{Pki, borrowed};
use tokio::io::AsyncWriteExt as _;
use tokio::task::LocalSet;

/// One request over TLS to `localhost`, under whatever port the server has.
async fn request(server: &Server, pki: &Pki, line: &str, more: &str, body: &str) -> Response {
    let address = server.bound.https.unwrap();
    let mut stream = pki.connect(address).await;
    let port = address.port();
    let head = format!("{line} HTTP/1.1\r\nHost: cam.example.org:{port}\r\nConnection: close\r\n");
    let length = body.len();
    let text = format!("{head}{more}Content-Length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).await.unwrap();
    read_response(&mut stream).await
}

async fn session(server: &Server, pki: &Pki) -> serde_json::Value {
    let key = bearer(APP_KEY) + "\r\n";
    let body = r#"{"deviceId":"cam_1","appId":"app_1"}"#;
    let reply = request(server, pki, "POST /v1/sessions", &key, body).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    reply.json()
}

#[test]
fn the_api_and_the_page_are_served_and_lead_on_to_tls() {
    let pki = Pki::new();
    with_server(&borrowed(&pki.settings()), |server| async {
        let page = request(&server, &pki, "GET /", "", "").await;
        assert!(page.status == 200 && page.body.contains("<html"), "{}", page.body);
        let made = session(&server, &pki).await;
        let [https, mqtts] = [server.bound.https, server.bound.mqtts].map(|a| a.unwrap().port());
        assert_eq!(made["mqtt"]["wsUrl"], format!("wss://cam.example.org:{https}/mqtt"));
        assert_eq!(made["mqtt"]["url"], format!("mqtts://cam.example.org:{mqtts}"));
        // And without to what has none.
        let plain = api_support::new_session(server.http, "cam_1", "app_1").await;
        assert_eq!(plain["mqtt"]["wsUrl"], format!("ws://{}/mqtt", server.http));
        assert_eq!(plain["mqtt"]["url"], format!("mqtt://{}", server.mqtt));
        server
    });
}

#[test]
fn mqtt_js_signals_over_wss() {
    let pki = Pki::new();
    let hash = PasswordHash::new(b"right", [1; 16]);
    let users = format!("app a1 {hash}\napp a2 {hash}\ndevice cam1 {hash}\n");
    let mut settings = pki.settings();
    settings.push(("mqtt.credentials_file", pki.write("users", &users)));
    with_server(&borrowed(&settings), |server| async {
        let url = format!("wss://localhost:{}/mqtt", server.bound.https.unwrap().port());
        js_support::everything_arrives(&url, &["bare-names"], Some(&pki.path("ca.pem"))).await;
        server
    });
}

/// Nothing but TLS: what a server on the internet wants.
#[test]
fn plain_listeners_can_be_off() {
    let pki = Pki::new();
    let mut settings = pki.settings();
    settings.extend([("http.listen", "off".into()), ("mqtt.listen", "off".into())]);
    with_server(&borrowed(&settings), |server| async {
        assert_eq!((server.bound.http, server.bound.mqtt), (None, None));
        let [https, mqtts] = [server.bound.https, server.bound.mqtts].map(Option::unwrap);
        let line = server.ready_line();
        let rest = line.strip_prefix("ready: stun=").unwrap_or_else(|| panic!("{line}"));
        assert!(rest.ends_with(&format!(" mqtts={mqtts} https={https}")), "{line}");
        let made = session(&server, &pki).await;
        assert_eq!(made["mqtt"]["url"], format!("mqtts://cam.example.org:{}", mqtts.port()));
        server
    });
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_is_said_at_the_start() {
    let pki = Pki::new();
    pki.write("server.key", "nothing");
    let settings: Vec<Setting> = pki
        .settings()
        .into_iter()
        .chain([("turn.listen", "127.0.0.1:0".to_owned())])
        .map(|(key, value)| Setting { key: key.into(), value, source: format!("--{key}") })
        .collect();
    let config = load(None, &settings).unwrap();
    let started = LocalSet::new().run_until(Server::start(config)).await;
    let text = started.err().unwrap().to_string();
    assert!(text.contains("tls.key") && text.contains("server.key"), "{text}");
}
