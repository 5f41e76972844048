//! What signals do to a running server: SIGTERM lets those who are there finish, SIGHUP takes a new
//! configuration.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(clippy::disallowed_methods, reason = "tests of the whole run in real time")]

mod api_support;
mod camera_support;
mod ops_support;
mod redis_support;

use api_support::{APP_KEY, Response, bearer, get, metric, new_session, request};
use camera_support::Side;
use ops_support::{Binary, Folder, SECTIONS, run};
use server_min::session::credentials::device_password;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(10);

/// `settings` stand before the first section.
fn write_config(folder: &Folder, settings: &str, sections: &str) {
    folder.write("server.toml", &format!("{settings}\n{SECTIONS}\n{sections}"));
}

fn start(name: &str, drain_s: u32) -> (Folder, Binary) {
    let folder = Folder::new(name);
    write_config(&folder, &format!("app_keys = [\"{APP_KEY}\"]\ndrain_s = {drain_s}"), "");
    let server = Binary::start(&folder);
    (folder, server)
}

async fn create(http: SocketAddr, key: &str) -> Response {
    let body = r#"{"deviceId":"cam_1","appId":"app_1"}"#;
    request(http, "POST", "/v1/sessions", &[bearer(key)], body).await
}

async fn until_ready_is(http: SocketAddr, status: u16) -> Response {
    let give_up = Instant::now() + SOON;
    loop {
        let reply = get(http, "/readyz").await;
        if reply.status == status {
            return reply;
        }
        assert!(Instant::now() < give_up, "readyz is {}", reply.status);
    }
}

/// A device with MQTT 5, which is told why it is disconnected.
struct Device(TcpStream);

impl Device {
    async fn connect(mqtt: SocketAddr, sn: &str) -> Device {
        let text = |text: &str| {
            let len = u16::try_from(text.len()).unwrap().to_be_bytes();
            [&len[..], text.as_bytes()].concat()
        };
        // Protocol 5, a user name and a password, a clean start, 60 s, no properties.
        let body = [
            text("MQTT"),
            vec![5, 0xc2, 0, 60, 0],
            text(sn),
            text(sn),
            text(&device_password("device-secret", sn)),
        ]
        .concat();
        let mut stream = TcpStream::connect(mqtt).await.unwrap();
        stream.write_all(&[0x10, u8::try_from(body.len()).unwrap()]).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let mut device = Device(stream);
        let (first, body) = device.recv().await.unwrap();
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK");
        device
    }

    async fn recv(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.0.read_u8().await.ok()?;
        let mut body = vec![0; self.0.read_u8().await.ok()?.into()];
        self.0.read_exact(&mut body).await.ok()?;
        Some((first, body))
    }

    async fn ping(&mut self) {
        self.0.write_all(&[0xc0, 0]).await.unwrap();
        assert_eq!(self.recv().await, Some((0xd0, vec![])));
    }
}

#[test]
fn sigterm_lets_those_who_are_there_finish() {
    const DRAIN: Duration = Duration::from_secs(5);
    let (_folder, mut server) = start("drain", 5);
    let (http, mqtt, stun) = (server.http, server.mqtt, server.stun);
    run(async {
        assert_eq!(get(http, "/readyz").await.body, "ready\n");
        let session = new_session(http, "cam_1", "app_1").await;
        let mut device = Device::connect(mqtt, "cam_1").await;
        let mut allocation = Side::of(stun, &session);
        // A request that has begun.
        let mut begun = TcpStream::connect(http).await.unwrap();
        let body = r#"{"deviceId":"cam_2","appId":"app_2"}"#;
        let head = format!(
            "POST /v1/sessions HTTP/1.1\r\nHost: {http}\r\n{}\r\nContent-Length: {}\r\n\r\n",
            bearer(APP_KEY),
            body.len()
        );
        begun.write_all(head.as_bytes()).await.unwrap();
        assert_eq!(get(http, "/healthz").await.status, 200);

        let told = Instant::now();
        server.signal(libc::SIGTERM);
        let reply = until_ready_is(http, 503).await;
        assert_eq!(reply.body, "not ready\ndraining: the server is stopping\n");
        assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
        assert_eq!(get(http, "/healthz").await.status, 200);
        let refused = create(http, APP_KEY).await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
        assert!(refused.error().contains("stopping"), "{}", refused.body);
        // What was there goes on.
        begun.write_all(body.as_bytes()).await.unwrap();
        let mut reply = [0; 12];
        begun.read_exact(&mut reply).await.unwrap();
        assert_eq!(&reply, b"HTTP/1.1 201");
        let id = session["sessionId"].as_str().unwrap();
        let path = format!("/v1/sessions/{id}");
        assert_eq!(request(http, "GET", &path, &[bearer(APP_KEY)], "").await.status, 200);
        device.ping().await;
        assert!(allocation.relays() && server.is_running());

        // Until the time is over: MQTT 5 is told why (0x8b, server shutting down).
        while let Some((first, body)) = device.recv().await {
            if first == 0xe0 {
                assert_eq!(body.first(), Some(&0x8b));
                assert!(told.elapsed() >= DRAIN, "{:?}", told.elapsed());
            }
        }
        assert!(told.elapsed() >= DRAIN, "{:?}", told.elapsed());
        let (code, log) = server.ended(SOON);
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("draining: no new sessions; 5s for 1 MQTT clients, 1 TURN"), "{log}");
        assert!(!allocation.relays());
    });
}

#[test]
fn a_drain_ends_when_nobody_is_left() {
    let (_folder, server) = start("drain-left", 300);
    let (http, mqtt) = (server.http, server.mqtt);
    run(async {
        let device = Device::connect(mqtt, "cam_1").await;
        server.signal(libc::SIGTERM);
        until_ready_is(http, 503).await;
        drop(device);
        let (code, log) = server.ended(SOON);
        assert_eq!(code, Some(0), "{log}");
    });
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for second in [libc::SIGTERM, libc::SIGINT] {
        let (_folder, server) = start("drain-second", 300);
        let (http, mqtt) = (server.http, server.mqtt);
        run(async {
            let _device = Device::connect(mqtt, "cam_1").await;
            server.signal(libc::SIGTERM);
            until_ready_is(http, 503).await;
            server.signal(libc::SIGHUP);
            server.signal(second);
            let (code, log) = server.ended(SOON);
            assert_eq!(code, Some(0), "{log}");
            assert!(log.contains("a second signal: no more waiting"), "{log}");
        });
    }
}

/// Sends SIGHUP and waits for its end, which is the `count`th line of this kind.
fn reload(server: &Binary, count: usize) -> String {
    let before = server.log().len();
    server.signal(libc::SIGHUP);
    let give_up = Instant::now() + SOON;
    loop {
        let log = server.log();
        let ends = |line: &&str| {
            line.contains("reload: done") || line.contains("everything stays as it was")
        };
        if log.lines().filter(ends).count() == count {
            return log[before..].to_owned();
        }
        assert!(Instant::now() < give_up, "{log}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn sighup_takes_what_can_change_and_names_what_cannot() {
    let folder = Folder::new("reload");
    write_config(&folder, "app_keys = [\"one\"]", "");
    let server = Binary::start(&folder);
    let http = server.http;
    run(async {
        assert_eq!(create(http, "one").await.status, 201);
        assert_eq!(create(http, "two").await.status, 401);

        // A key is added, then the old one is taken out; the rest is told apart.
        write_config(&folder, "app_keys = [\"one\", \"two\"]", "");
        let log = reload(&server, 1);
        assert!(log.contains("reload: done; changed: app_keys\n"), "{log}");
        assert_eq!(create(http, "one").await.status, 201);
        assert_eq!(create(http, "two").await.status, 201);
        let settings = "app_keys = [\"two\"]\nregion = \"moon-1\"\nlog = \"debug\"";
        write_config(&folder, settings, "[session]\nttl_s = 7200\nmax_sessions = 3\n");
        let log = reload(&server, 2);
        assert!(log.contains("region changed: takes effect at the next start"), "{log}");
        let taken = "changed: app_keys, log, session.max_sessions, session.ttl_s\n";
        assert!(log.contains(taken) && !log.contains("\"two\""), "{log}");
        assert_eq!(create(http, "one").await.status, 401);
        // The fourth session is one too many now.
        assert_eq!(create(http, "two").await.status, 429);
        server.until_log("POST /v1/sessions 429");

        // What is wrong changes nothing.
        for (settings, says) in [
            ("app_keys = [\"three\"", "missing comma between array elements"),
            ("app_keys = [\"three\"]\ndrain_s = 1000000", "drain_s: 1000000: expected 0 to 3600"),
            ("app_kyes = []", "unknown field `app_kyes`"),
        ] {
            write_config(&folder, settings, "");
            let done = server.log().matches("reload: done").count();
            let failed = server.log().matches("everything stays").count();
            let log = reload(&server, done + failed + 1);
            assert!(log.contains(says) && log.contains("ERROR"), "{says}: {log}");
            assert_eq!(create(http, "three").await.status, 401);
            assert_eq!(create(http, "two").await.status, 429);
            assert_eq!(metric(http, "server_min_config_last_reload_successful").await, 0.0);
        }
        write_config(&folder, "app_keys = [\"four\"]", "");
        reload(&server, 6);
        assert_eq!(create(http, "four").await.status, 201);
        assert_eq!(metric(http, "server_min_config_last_reload_successful").await, 1.0);
        let failures = "server_min_config_reloads_total{outcome=\"failure\"}";
        assert_eq!(metric(http, failures).await, 3.0);
    });
}

#[test]
fn sighup_exchanges_the_certificate() {
    const EXPIRY: &str = "tls_certificate_not_after_seconds";
    let folder = Folder::new("reload-tls");
    let file = |name: &str| folder.path(name).to_str().unwrap().to_owned();
    let tls =
        format!("[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n", file("cert.pem"), file("key.pem"));
    folder.certificate(2031);
    let write = |key: &str| {
        let listen = "listen = \"127.0.0.1:0\"\n";
        let sections = SECTIONS.replacen(listen, &format!("{listen}tls_{listen}"), 1);
        folder.write("server.toml", &format!("app_keys = [\"{key}\"]\n{sections}\n{tls}"));
    };
    write("one");
    let server = Binary::start(&folder);
    let (http, https) = (server.http, server.https.unwrap());
    run(async {
        assert_eq!(metric(http, EXPIRY).await, 1_924_992_000.0);
        assert!(certificate_shown(https).contains("2031"));
        folder.certificate(2041);
        assert!(certificate_shown(https).contains("2031"), "until it is told");
        reload(&server, 1);
        assert_eq!(metric(http, EXPIRY).await, 2_240_611_200.0);
        assert!(certificate_shown(https).contains("2041"));
        // A half-written pair: the good one stays, and the rest is taken all the same.
        folder.write("key.pem", "-----BEGIN PRIVATE KEY-----\n");
        write("two");
        let log = reload(&server, 2);
        assert!(log.contains("key.pem") && log.contains("what held before holds on"), "{log}");
        assert_eq!(metric(http, EXPIRY).await, 2_240_611_200.0);
        assert!(certificate_shown(https).contains("2041"));
        assert_eq!(create(http, "two").await.status, 201);
        assert_eq!(metric(http, "server_min_config_last_reload_successful").await, 0.0);
    });
}

/// Until when the certificate is good that a client is shown, in openssl's words.
fn certificate_shown(https: SocketAddr) -> String {
    let command = format!(
        "openssl s_client -connect {https} -servername localhost </dev/null 2>/dev/null \
         | openssl x509 -noout -enddate"
    );
    let output = Command::new("sh").arg("-c").arg(command).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.starts_with("notAfter="), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    shown
}

/// The new secret signs at once, the old one is taken until it is taken out, and no allocation ends.
#[test]
fn sighup_exchanges_the_relay_s_secrets() {
    let folder = Folder::new("reload-turn");
    let write = |secrets: &str| {
        let sections = SECTIONS.replace("[\"north\"]", secrets);
        let text = format!("app_keys = [\"{APP_KEY}\"]\n{sections}");
        folder.write("server.toml", &text);
    };
    write("[\"north\"]");
    let server = Binary::start(&folder);
    let (http, stun) = (server.http, server.stun);
    run(async {
        let old = new_session(http, "cam_1", "app_1").await;
        let mut allocation = Side::of(stun, &old);
        write("[\"south\", \"north\"]");
        let log = reload(&server, 1);
        assert!(log.contains("changed: turn.secrets") && !log.contains("south"), "{log}");
        let new = new_session(http, "cam_1", "app_1").await;
        assert!(Side::of(stun, &new).relays());
        assert!(Side::of(stun, &old).relays());
        write("[\"south\"]");
        reload(&server, 2);
        assert!(Side::tried(stun, &old).is_err(), "a secret that was taken out");
        assert!(Side::of(stun, &new).relays());
        assert!(allocation.relays(), "what was made with it lives on");
        // What cannot be used changes nothing.
        write("[\"\"]");
        assert!(reload(&server, 3).contains("turn.secrets has an empty entry"));
        assert!(Side::of(stun, &new).relays());
    });
}

/// A node without its store lives, and says that it should not be given work; it needs no restart.
#[test]
fn a_node_whose_redis_is_away_is_not_ready() {
    let mut redis = redis_support::Redis::start();
    let folder = Folder::new("ready-redis");
    let store = format!("[store]\nredis = \"{}\"", redis.url());
    write_config(&folder, "app_keys = [\"one\"]", &store);
    let server = Binary::start(&folder);
    let http = server.http;
    run(async {
        assert_eq!(until_ready_is(http, 200).await.body, "ready\n");
        assert_eq!(create(http, "one").await.status, 201);
        redis.stop();
        let reply = until_ready_is(http, 503).await;
        assert!(reply.body.contains("\nstore: "), "{}", reply.body);
        assert_eq!(get(http, "/healthz").await.status, 200);
        assert_eq!(metric(http, "server_min_ready{check=\"store\"}").await, 0.0);
        assert_eq!(create(http, "one").await.status, 503);
        let errors = "session_store_errors_total{error=\"unavailable\"}";
        assert!(metric(http, errors).await >= 1.0);
        redis.start_again();
        until_ready_is(http, 200).await;
        assert_eq!(create(http, "one").await.status, 201);
    });
}
