//! Mosquitto as `deploy/mosquitto` sets it up, TLS and access rules and all, with the session service,
//! devices and applications as its clients.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod api_support;
mod external_support;

use api_support::{
    APP_KEY, DEVICE_SECRET, PATIENCE, bearer, metric, new_session, request, until_metric,
};
use external_support::{Authority, Folder, Mosquitto, free_port};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use sdk_core::driver::CertificateFiles;
use sdk_core::driver::broker::{BrokerConfig, BrokerLink, LinkEvent};
use serde_json::{Value, json};
use server_min::server::Server;
use server_min::session::credentials::{device_password, mqtt_app};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command as AsyncCommand};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const ADMIN_PASSWORD: &str = "of mosquitto_ctrl dynsec init";

/// Mosquitto from the files that operators are given, with this machine's ports and paths.
struct Rig {
    folder: Folder,
    mosquitto: Mosquitto,
    ca: String,
    ports: [u16; 3],
    devices: Authority,
}

fn deployed(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/mosquitto").join(name);
    std::fs::read_to_string(path).unwrap()
}

fn with_rig(test: impl AsyncFnOnce(&mut Rig)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let folder = Folder::new("deployed");
        let authority = Authority::new(&folder, "ca");
        let devices = Authority::new(&folder, "devices-ca");
        let [certificate, key] = authority.issue(&folder, "localhost");
        for (from, to) in [(certificate, "fullchain.pem"), (key, "privkey.pem")] {
            std::fs::copy(from, folder.path(to)).unwrap();
        }
        folder.write("devices.acl", &deployed("devices.acl"));
        let passwords = folder.write("devices.pw", "");
        for sn in ["cam_1", "cam_2"] {
            tool("mosquitto_passwd", &["-b", &passwords, sn, &device_password(DEVICE_SECRET, sn)]);
        }
        let list = folder.path("dynamic-security.json");
        tool("mosquitto_ctrl", &["dynsec", "init", &list, "server-min", ADMIN_PASSWORD]);
        for file in [&passwords, &list] {
            folder.write(
                Path::new(file).file_name().unwrap().to_str().unwrap(),
                &std::fs::read_to_string(file).unwrap(),
            );
        }
        let ports = [free_port(), free_port(), free_port()];
        let home = folder.0.to_str().unwrap();
        let mut configuration = deployed("mosquitto.conf")
            .replace("/etc/mosquitto/p2pcam", home)
            .replace("/var/lib/mosquitto", home);
        for (deployed, port) in ["8883", "8084", "8885"].into_iter().zip(ports) {
            let (from, to) = (format!("listener {deployed}\n"), format!("listener {port}\n"));
            assert!(configuration.contains(&from));
            configuration = configuration.replace(&from, &to);
        }
        let mosquitto = Mosquitto::start(&folder, &configuration, ports[0]).await;
        for port in ports {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        }
        let mut rig = Rig { folder, mosquitto, ca: authority.file, ports, devices };
        timeout(Duration::from_secs(60), test(&mut rig)).await.unwrap();
    });
}

fn tool(name: &str, arguments: &[&str]) {
    let done = Command::new(name).args(arguments).stdout(Stdio::null()).status();
    assert!(
        done.unwrap_or_else(|e| panic!("{name}: {e}; install the package mosquitto")).success()
    );
}

impl Rig {
    /// With the settings of `deploy/mosquitto/server-min.toml`, for this machine.
    async fn server(&self, more: &[(&str, &str)]) -> Server {
        let url = format!("mqtts://localhost:{}", self.ports[0]);
        let file: toml::Table = deployed("server-min.toml").parse().unwrap();
        let mut settings: Vec<(String, String)> = Vec::new();
        for (key, value) in file["mqtt"].as_table().unwrap() {
            let value = match key.as_str() {
                "external" => &url,
                "external_password" => ADMIN_PASSWORD,
                "device_secret" => DEVICE_SECRET,
                _ => value.as_str().unwrap(),
            };
            settings.push((format!("mqtt.{key}"), value.to_owned()));
        }
        settings.push(("mqtt.external_ca".into(), self.ca.clone()));
        settings.extend(more.iter().map(|(key, value)| ((*key).into(), (*value).into())));
        let settings: Vec<_> = settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let server = Server::start(api_support::config(&settings)).await.unwrap();
        until_metric(server.http, "mqtt_external_up", 1.0).await;
        server
    }

    fn client(&self, tool: &str, [user, password]: [&str; 2], arguments: &[&str]) -> AsyncCommand {
        let mut command = self.client_at(self.ports[0], tool);
        command.args(["-u", user, "-P", password]).args(arguments);
        command
    }

    fn client_at(&self, port: u16, tool: &str) -> AsyncCommand {
        let mut command = AsyncCommand::new("stdbuf");
        command
            .args(["-oL", tool, "-V", "mqttv5", "-q", "1", "--cafile", &self.ca])
            .args(["-h", "localhost", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn say(&self, who: [&str; 2], arguments: &[&str]) -> String {
        said(self.client("mosquitto_pub", who, arguments)).await
    }

    /// What the broker says to a subscription.
    async fn asks_for(&self, who: [&str; 2], filter: &str) -> String {
        said(self.client("mosquitto_sub", who, &["-E", "-d", "-t", filter])).await
    }

    async fn listens(&self, who: [&str; 2], filter: &str) -> Listener {
        let arguments = ["-d", "-F", "MESSAGE %p", "-t", filter];
        let mut child = self.client("mosquitto_sub", who, &arguments).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut listener = Listener { child, lines };
        while !listener.line().await.expect("it subscribes").starts_with("Subscribed") {}
        listener
    }
}

async fn said(mut command: AsyncCommand) -> String {
    let done = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()
}

struct Listener {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Listener {
    async fn line(&mut self) -> Option<String> {
        timeout(PATIENCE, self.lines.next_line()).await.expect("a line in time").unwrap()
    }

    async fn hears(&mut self) -> Value {
        loop {
            let line = self.line().await.expect("mosquitto_sub goes on");
            if let Some(message) = line.strip_prefix("MESSAGE ") {
                return serde_json::from_str(message).unwrap();
            }
        }
    }

    /// Until the broker ends it.
    async fn end(mut self) {
        while self.line().await.is_some() {}
        let _ = self.child.kill().await;
    }
}

fn signal(kind: &str, sid: &str, [from, to]: [&str; 2], payload: Value) -> String {
    json!({"type": kind, "sessionId": sid, "from": from, "to": to, "payload": payload, "timestamp": 0})
        .to_string()
}

fn credentials(session: &Value) -> [String; 2] {
    ["username", "password"].map(|key| session["mqtt"][key].as_str().unwrap().to_owned())
}

async fn record(server: &Server, sid: &str) -> Value {
    let path = format!("/v1/sessions/{sid}");
    request(server.http, "GET", &path, &[bearer(APP_KEY)], "").await.json()
}

async fn close(server: &Server, session: &Value) {
    let path = format!("/v1/sessions/{}", session["sessionId"].as_str().unwrap());
    let reply = request(server.http, "DELETE", &path, &[bearer(APP_KEY)], "").await;
    assert_eq!(reply.status, 204);
}

#[test]
fn a_session_goes_its_whole_way_with_its_own_credentials() {
    with_rig(async |rig| {
        let server = rig.server(&[("mqtt.external_share", "true")]).await;
        let password = device_password(DEVICE_SECRET, "cam_1");
        let cam = ["cam_1", password.as_str()];
        let online = r#"{"online":true,"timestamp":0}"#;
        assert_eq!(rig.say(cam, &["-r", "-t", "p2p/status/device/cam_1", "-m", online]).await, "");
        until_metric(server.http, "mqtt_external_devices_online", 1.0).await;
        let mut device = rig.listens(cam, "p2p/signal/device/cam_1").await;
        let session = new_session(server.http, "cam_1", "app_1").await;
        assert_eq!(session["deviceOnline"], true);
        let sid = session["sessionId"].as_str().unwrap();
        let [user, password] = credentials(&session);
        let app = [user.as_str(), password.as_str()];
        assert_eq!(device.hears().await["from"], "server");
        // At once: it was let in before it was told so.
        let mut viewer = rig.listens(app, "p2p/signal/app/app_1").await;
        let offer = signal("offer", sid, ["app_1", "cam_1"], json!({"sdp": "v=0"}));
        assert_eq!(rig.say(app, &["-t", "p2p/signal/device/cam_1", "-m", &offer]).await, "");
        assert_eq!(device.hears().await["type"], "offer");
        let answer = signal("answer", sid, ["cam_1", "app_1"], json!({"sdp": "v=0"}));
        assert_eq!(rig.say(cam, &["-t", "p2p/signal/app/app_1", "-m", &answer]).await, "");
        assert_eq!(viewer.hears().await["type"], "answer");
        for (who, from) in [(cam, "cam_1"), (app, "app_1")] {
            let state = json!({"state": "connected", "path": "host", "setupMs": 90});
            let report = signal("keepalive", sid, [from, "server"], state);
            assert_eq!(rig.say(who, &["-t", "p2p/signal/server", "-m", &report]).await, "");
        }
        until_metric(server.http, "mqtt_external_reports_total", 2.0).await;
        let connected = record(&server, sid).await;
        assert_eq!(
            (&connected["status"], &connected["path"]),
            (&json!("connected"), &json!("host"))
        );

        // The broker goes away in the middle and comes back; nobody is forgotten.
        drop((device, viewer));
        rig.mosquitto.end();
        until_metric(server.http, "mqtt_external_up", 0.0).await;
        rig.mosquitto.begin().await;
        until_metric(server.http, "mqtt_external_up", 1.0).await;
        let mut device = rig.listens(cam, "p2p/signal/device/cam_1").await;
        let mut viewer = rig.listens(app, "p2p/signal/app/app_1").await;
        until_metric(server.http, "mqtt_external_devices_online", 1.0).await;

        close(&server, &session).await;
        for side in [&mut device, &mut viewer] {
            let bye = side.hears().await;
            assert_eq!((&bye["type"], bye["sessionId"].as_str()), (&json!("bye"), Some(sid)));
        }
        assert_eq!(metric(server.http, "mqtt_external_refused_total").await, 0.0);
        // It heard so, and then it was its last session.
        viewer.end().await;
        let refused = rig.say(app, &["-t", "p2p/signal/server", "-m", "x"]).await;
        assert!(refused.contains("Not authorized"), "{refused}");
        server.stop().await;
    });
}

#[test]
fn nobody_does_more_than_its_role_may() {
    with_rig(async |rig| {
        let server = rig.server(&[]).await;
        let session = new_session(server.http, "cam_1", "app_1").await;
        let other = new_session(server.http, "cam_1", "app_2").await;
        let [user, password] = credentials(&session);
        let app = [user.as_str(), password.as_str()];
        let [user, password] = credentials(&other);
        let other = [user.as_str(), password.as_str()];
        let password = device_password(DEVICE_SECRET, "cam_1");
        let cam = ["cam_1", password.as_str()];
        for filter in ["p2p/signal/app/app_1", "p2p/status/device/cam_1"] {
            assert!(!rig.asks_for(app, filter).await.contains("denied"), "{filter}");
        }
        for filter in [
            "p2p/signal/app/app_2",
            "p2p/signal/app/+",
            "p2p/status/device/+",
            "p2p/status/#",
            "p2p/+/device/cam_1",
            "p2p/#",
            "#",
            "+/+/+/+",
            "p2p/signal/device/cam_1",
            "p2p/signal/server",
            "$share/server-min/p2p/signal/server",
            "$CONTROL/#",
            "$CONTROL/dynamic-security/v1/response",
            "$SYS/#",
        ] {
            let said = rig.asks_for(app, filter).await;
            assert!(said.contains("All subscription requests were denied"), "{filter}: {said}");
        }
        for (who, topic) in [
            (app, "p2p/signal/app/app_2"),
            (app, "p2p/signal/app/app_1"),
            (app, "p2p/status/device/cam_1"),
            (app, "p2p/signal/device/a/b"),
            (app, "x"),
            (app, "$CONTROL/dynamic-security/v1"),
            (cam, "p2p/signal/device/cam_1"),
            (cam, "p2p/signal/device/cam_2"),
            (cam, "p2p/status/device/cam_2"),
            (cam, "x"),
            (cam, "$CONTROL/dynamic-security/v1"),
        ] {
            let said = rig.say(who, &["-t", topic, "-m", "x"]).await;
            assert!(said.contains("Not authorized"), "{} {topic}: {said}", who[0]);
        }
        // Mosquitto lets a device of the access file subscribe to anything; but it hears its own only.
        let mut spy = rig.listens(cam, "p2p/#").await;
        for (topic, message) in [
            ("p2p/signal/device/cam_2", "1"),
            ("p2p/signal/server", "2"),
            ("p2p/signal/device/cam_1", "3"),
        ] {
            assert_eq!(rig.say(other, &["-t", topic, "-m", message]).await, "");
        }
        assert_eq!(spy.hears().await, 3);
        for (who, text) in [
            (["cam_1", "wrong"], "Not authorized"),
            (["cam_3", "x"], "Not authorized"),
            ([app[0], other[1]], "Not authorized"),
            (["9999999999:app_1", app[1]], "Not authorized"),
        ] {
            let said = rig.say(who, &["-t", "p2p/signal/server", "-m", "x"]).await;
            assert!(said.contains(text), "{who:?}: {said}");
        }
        server.stop().await;
    });
}

#[test]
fn an_application_stays_with_its_other_sessions_and_a_lost_node_leaves_nobody_for_ever() {
    with_rig(async |rig| {
        let server = rig.server(&[]).await;
        let sessions = [
            new_session(server.http, "cam_1", "app_1").await,
            new_session(server.http, "cam_2", "app_1").await,
        ];
        let [user, password] = credentials(&sessions[0]);
        let app = [user.as_str(), password.as_str()];
        close(&server, &sessions[0]).await;
        sleep(Duration::from_secs(6)).await;
        assert_eq!(rig.say(app, &["-t", "p2p/signal/server", "-m", "x"]).await, "");
        // This node is lost without a word: nobody takes its application out.
        server.stop().await;
        let gone = mqtt_app("of another node", "app_9", 1_700_000_000);
        // Mosquitto writes it anew with each change: it may be half there.
        let lists = async |name: &str| {
            loop {
                sleep(Duration::from_millis(5)).await;
                let file = rig.folder.path("dynamic-security.json");
                let text = std::fs::read_to_string(file).unwrap_or_default();
                if let Ok(list) = serde_json::from_str::<Value>(&text) {
                    let clients = list["clients"].as_array().unwrap();
                    return clients.iter().any(|client| client["username"] == name);
                }
            }
        };
        let admin = ["server-min", ADMIN_PASSWORD];
        let left = json!({"commands": [{"command": "createClient", "username": gone.username,
                                        "password": gone.password}]});
        let told = ["-t", "$CONTROL/dynamic-security/v1", "-m", &left.to_string()];
        assert_eq!(rig.say(admin, &told).await, "");
        assert!(lists(&gone.username).await);
        let server = rig.server(&[]).await;
        let removed = async { while lists(&gone.username).await {} };
        timeout(PATIENCE, removed).await.expect("its time is over");
        assert!(lists(app[0]).await, "its time is not");
        assert_eq!(rig.say(app, &["-t", "p2p/signal/server", "-m", "x"]).await, "");
        server.stop().await;
    });
}

#[test]
fn a_device_is_known_by_its_certificate_and_browsers_come_over_websocket() {
    with_rig(async |rig| {
        let [certificate, key] = rig.devices.issue(&rig.folder, "cam_7");
        for (topic, says) in
            [("p2p/status/device/cam_7", ""), ("p2p/status/device/cam_1", "Not authorized")]
        {
            let mut command = rig.client_at(rig.ports[2], "mosquitto_pub");
            command.args(["--cert", &certificate, "--key", &key, "-t", topic, "-m", "x"]);
            let said = said(command).await;
            assert!(said.contains(says) && said.is_empty() == says.is_empty(), "{topic}: {said}");
        }

        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&rig.ca).unwrap()).unwrap();
        let provider = rustls::crypto::ring::default_provider();
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(("127.0.0.1", rig.ports[1])).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream =
            tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let mut asked =
            format!("wss://localhost:{}/mqtt", rig.ports[1]).into_client_request().unwrap();
        asked.headers_mut().insert("Sec-WebSocket-Protocol", "mqtt".parse().unwrap());
        let (_, answer) = tokio_tungstenite::client_async(asked, stream).await.unwrap();
        assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], "mqtt");
    });
}

#[test]
fn a_camera_with_a_certificate_is_called_through_mosquitto() {
    with_rig(async |rig| {
        let server = rig.server(&[]).await;
        let [chain, key] = rig.devices.issue(&rig.folder, "cam_7").map(Into::into);
        let mut camera = BrokerLink::new(BrokerConfig {
            device_id: "cam_7".into(),
            url: format!("mqtts://localhost:{}", rig.ports[2]),
            username: None,
            password: None,
            ca_file: Some(rig.ca.clone().into()),
            certificate: Some(CertificateFiles { chain, key }),
            seed: 1,
            unix_millis: Box::new(|| 0),
        })
        .unwrap();
        assert_eq!(timeout(PATIENCE, camera.next()).await.unwrap(), LinkEvent::Up);
        new_session(server.http, "cam_7", "app_1").await;
        let heard = timeout(PATIENCE, camera.next()).await.unwrap();
        let LinkEvent::Message { topic, .. } = heard else { panic!("{heard:?}") };
        assert_eq!(topic, "p2p/signal/device/cam_7");
        server.stop().await;
    });
}
