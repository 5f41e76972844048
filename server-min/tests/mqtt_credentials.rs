//! The credentials file in a running server, from `server-min hash-password` to the broker.

#![allow(clippy::unwrap_used, reason = "clippy sees tests only in functions marked as such")]

mod api_support;
mod packets;

use api_support::{Mqtt, PATIENCE, metric, with_server};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::pbkdf2;
use server_min::session::credentials::device_password;
use std::io::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

fn hash_password(role: &str, id: &str, password: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_server-min"))
        .args(["hash-password", role, id])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// As hash-password prints it, but quickly checked.
fn line(role: &str, id: &str, password: &str) -> String {
    let (rounds, salt, mut hash) = (NonZeroU32::new(1_000).unwrap(), [7; 16], [0; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password.as_bytes(), &mut hash);
    let [salt, hash] = [&salt[..], &hash].map(|bytes| STANDARD_NO_PAD.encode(bytes));
    format!("{role} {id} $pbkdf2-sha256$i={rounds}${salt}${hash}\n")
}

struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> File {
        let name = format!("p2pcam-users-{}-{name}", std::process::id());
        let file = File(std::env::temp_dir().join(name));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    fn setting(&self) -> (&str, &str) {
        ("mqtt.credentials_file", self.0.to_str().unwrap())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn hash_password_makes_lines_that_the_server_takes_and_no_others() {
    let lines = ["app_1", "app_1", "app_2"].map(|id| {
        let output = hash_password("app", id, "north\n");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let line = String::from_utf8(output.stdout).unwrap();
        assert!(line.starts_with(&format!("app {id} $pbkdf2-sha256$i=100000$")), "{line}");
        assert!(!line.contains("north"), "{line}");
        line
    });
    assert_ne!(lines[0], lines[1], "salted");
    let file = File::new("made", &lines[1..].concat());
    with_server(&[file.setting()], |server| async {
        for user in ["app_1", "app_2"] {
            assert!(Mqtt::connect(server.mqtt, user, "south").await.is_err());
            assert!(Mqtt::connect(server.mqtt, user, "north").await.is_ok());
        }
        server
    });
    for (role, id, password, expected) in [
        ("camera", "cam_1", "north\n", "\"camera\" is no role"),
        ("device", "cam/1", "north\n", "\"cam/1\": expected 1 to 64"),
        ("device", "cam_1", "", "expected the password"),
        ("device", "cam_1", "\n", "expected the password"),
    ] {
        let output = hash_password(role, id, password);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(expected), "{text}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn each_role_of_the_file_may_what_the_role_may() {
    let text = line("device", "cam_1", "of-cam")
        + &line("app", "app_1", "of-app")
        + &line("service", "recorder", "of-recorder")
        + &line("admin", "anna", "of-anna")
        + line("app", "wall", "of-wall").trim_end()
        + " read:p2p/status/device/+ write:wall/#\n";
    let file = File::new("roles", &text);
    with_server(&[file.setting()], |server| async {
        let connect = async |user, password| {
            Mqtt::connect(server.mqtt, user, password)
                .await
                .unwrap_or_else(|e| panic!("{user}: {e}"))
        };
        let mut device = connect("cam_1", "of-cam").await;
        device.subscribe("p2p/signal/device/cam_1").await;
        let mut app = connect("app_1", "of-app").await;
        let offer = serde_json::json!({"from": "app_1", "type": "offer"});
        app.publish("p2p/signal/device/cam_1", &offer).await;
        assert_eq!(device.message().await, offer);
        assert!(!app.may_subscribe("p2p/status/device/+").await);
        assert!(!app.may_subscribe("p2p/signal/device/cam_1").await);
        assert!(!device.may_subscribe("p2p/signal/device/+").await);

        let mut wall = connect("wall", "of-wall").await;
        assert!(wall.may_subscribe("p2p/status/device/+").await);
        assert!(!wall.may_subscribe("p2p/#").await);
        let mut recorder = connect("recorder", "of-recorder").await;
        assert!(recorder.may_subscribe("wall/#").await);
        let status = serde_json::json!({"online": true});
        device.publish("p2p/status/device/cam_1", &status).await;
        assert_eq!(wall.message().await, status);
        wall.publish("wall/on", &status).await;
        assert_eq!(recorder.message().await, status);
        app.publish("wall/on", &offer).await;
        let mut anna = connect("anna", "of-anna").await;
        assert!(anna.may_subscribe("#").await);
        anna.publish("wall/off", &serde_json::json!(1)).await;
        assert_eq!(recorder.message().await, serde_json::json!(1), "the app's was not heard");
        for (user, password) in [("cam_1", "of-app"), ("nobody", "of-cam"), ("anna", "")] {
            assert!(Mqtt::connect(server.mqtt, user, password).await.is_err(), "{user}");
        }
        server
    });
}

#[test]
fn the_file_is_read_again_and_a_locked_name_opens_nothing() {
    let file = File::new("reload", &line("app", "app_1", "old"));
    with_server(&[file.setting()], |server| async {
        let connect = |user, password| Mqtt::connect(server.mqtt, user, password);
        let mut held = connect("app_1", "old").await.unwrap();
        let secret = device_password(api_support::DEVICE_SECRET, "cam_1");
        assert!(connect("cam_1", &secret).await.is_ok());

        file.write(&(line("app", "app_1", "new") + "device cam_1 !\n"));
        server.access.reload().unwrap();
        assert!(connect("app_1", "old").await.is_err());
        // The locked name's derived password, too.
        assert!(connect("cam_1", &secret).await.is_err());
        assert!(held.may_subscribe("p2p/signal/app/app_1").await, "who is connected stays so");
        assert!(connect("app_1", "new").await.is_ok());

        file.write("nonsense");
        let text = server.access.reload().unwrap_err();
        assert!(text.contains("line 1: expected: role id hash"), "{text}");
        assert!(connect("app_1", "new").await.is_ok(), "the last good one stays");
        server
    });
}

#[test]
fn packets_behind_a_connect_wait_for_its_verdict() {
    let file = File::new("pipelined", &line("app", "app_1", "of-app"));
    with_server(&[file.setting()], |server| async {
        // CONNECT, SUBSCRIBE and PINGREQ at once, as an eager client sends them.
        let subscribe = packets::subscribe("p2p/signal/app/app_1");
        let all =
            [packets::connect("client", "app_1", "of-app"), subscribe, packets::PINGREQ.to_vec()]
                .concat();
        let mut stream = TcpStream::connect(server.mqtt).await.unwrap();
        stream.write_all(&all).await.unwrap();
        let mut answers = [0; 11];
        timeout(PATIENCE, stream.read_exact(&mut answers)).await.unwrap().unwrap();
        let expected = [&packets::CONNACK[..], &packets::SUBACK, &packets::PINGRESP].concat();
        assert_eq!(answers.as_slice(), expected);
        // A client that leaves meanwhile leaves nothing behind.
        drop(stream);
        let mut hasty = TcpStream::connect(server.mqtt).await.unwrap();
        hasty.write_all(&packets::connect("client", "app_1", "wrong")).await.unwrap();
        drop(hasty);
        while server.broker().unwrap().stats().connections > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        server
    });
}

#[test]
fn guessing_is_bounded_for_its_address_and_told_by_reason() {
    let file = File::new("guess", &line("admin", "anna", "right"));
    let settings = [file.setting(), ("mqtt.limits.failed_logins_per_minute", "3")];
    with_server(&settings, |server| async {
        for _ in 0..3 {
            assert!(
                refusal(server.mqtt, "anna", "wrong").await.contains(&4),
                "bad user or password"
            );
        }
        for password in ["wrong", "right"] {
            assert!(refusal(server.mqtt, "anna", password).await.contains(&3), "unavailable");
        }
        // Who has a secret is let in all the same.
        Mqtt::device(server.mqtt, "cam_1").await;
        for (reason, count) in [("credentials", 3.0), ("too_many_failures", 2.0), ("expired", 0.0)]
        {
            let name = format!("mqtt_logins_refused_total{{reason=\"{reason}\"}}");
            assert_eq!(metric(server.http, &name).await, count, "{reason}");
        }
        server
    });
}

/// The CONNACK that a wrong login gets.
async fn refusal(server: SocketAddr, user: &str, password: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(&packets::connect("client", user, password)).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    answer
}
