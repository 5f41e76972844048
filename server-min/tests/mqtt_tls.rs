//! MQTT over TLS and devices' certificates, with mosquitto's clients, openssl and the camera's own
//! client against a whole server.

#![allow(clippy::unwrap_used, reason = "clippy sees tests only in functions marked as such")]

mod api_support;
mod packets;
mod tls_support;

use api_support::{DEVICE_SECRET, PATIENCE, metric, new_session, with_server};
use sdk_core::driver::CertificateFiles;
use sdk_core::driver::broker::{BrokerConfig, BrokerLink, LinkEvent};
use server_min::server::Server;
use server_min::session::credentials::device_password;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tls_support::{Pki, borrowed};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

struct Finished {
    ok: bool,
    /// Both streams.
    text: String,
}

async fn run(tool: &str, arguments: &[&str]) -> Finished {
    let mut command = Command::new(tool);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.expect("the client ends in time");
    let output = output.unwrap_or_else(|e| panic!("{tool}: {e}; is its package installed?"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Finished { ok: output.status.success(), text }
}

/// Publishes a message of `from` to the session service, the one topic that every device may
/// publish to.
async fn publish(server: &Server, pki: &Pki, from: &str, more: &[&str]) -> Finished {
    let port = server.bound.mqtts.unwrap().port().to_string();
    let (ca, message) = (pki.path("ca.pem"), format!("{{\"from\":\"{from}\"}}"));
    let arguments = ["-h", "localhost", "-p", &port, "--cafile", &ca, "-q", "1", "-V", "mqttv5"];
    let what = ["-t", "p2p/signal/server", "-m", &message];
    run("mosquitto_pub", &[&arguments[..], &what, more].concat()).await
}

async fn refusals(server: &Server, reason: &str) -> f64 {
    metric(server.http, &format!("mqtt_logins_refused_total{{reason=\"{reason}\"}}")).await
}

#[test]
fn mosquitto_s_clients_signal_over_tls_and_trust_its_authority_alone() {
    let pki = Pki::new();
    with_server(&borrowed(&pki.settings()), |server| async {
        let mqtts = server.bound.mqtts.unwrap();
        let port = mqtts.port().to_string();
        let session = new_session(server.http, "cam_1", "app_1").await;
        let [user, password] =
            ["username", "password"].map(|key| session["mqtt"][key].as_str().unwrap().to_owned());
        let ca = pki.path("ca.pem");
        let at = ["-h", "localhost", "-p", &port, "--cafile", &ca, "-q", "1"];
        let app = ["-u", &user, "-P", &password, "-t", "p2p/signal/app/app_1", "-C", "1", "-d"];
        let mut listener = Command::new("stdbuf")
            .args(["-oL", "mosquitto_sub"])
            .args([&at[..], &app].concat())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(listener.stdout.take().unwrap()).lines();
        while !lines.next_line().await.unwrap().unwrap().starts_with("Subscribed") {}
        let secret = device_password(DEVICE_SECRET, "cam_1");
        let answer = r#"{"from":"cam_1","type":"answer"}"#;
        let device = ["-u", "cam_1", "-P", &secret, "-t", "p2p/signal/app/app_1", "-m", answer];
        let sent = run("mosquitto_pub", &[&at[..], &device].concat()).await;
        assert!(sent.ok, "{}", sent.text);
        let mut heard = String::new();
        while !heard.contains("answer") {
            heard = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
        }
        assert_eq!(heard, answer);

        let other = pki.path("other.pem");
        let distrusting = ["-h", "localhost", "-p", &port, "--cafile", &other];
        let refused = run("mosquitto_pub", &[&distrusting[..], &device].concat()).await;
        assert!(!refused.ok && refused.text.contains("A TLS error"), "{}", refused.text);
        // Without TLS there is nothing to talk to.
        let plain = ["-h", "localhost", "-p", &port];
        assert!(!run("mosquitto_pub", &[&plain[..], &device].concat()).await.ok);
        assert!(metric(server.http, "mqtt_tls_handshakes_failed_total").await >= 2.0);
        server
    });
}

#[test]
fn a_device_signs_in_with_its_certificate_as_itself_alone() {
    let pki = Pki::new();
    with_server(&borrowed(&pki.settings()), |server| async {
        let [certificate, key] = pki.device("cam_1");
        let own = ["--cert", &certificate, "--key", &key];
        // By its certificate alone; the user name may say the same, or be left out.
        for who in [&["-u", "cam_1"][..], &["-i", "cam_1"]] {
            let done = publish(&server, &pki, "cam_1", &[&own, who].concat()).await;
            assert!(done.ok && !done.text.contains("uthorized"), "{who:?}: {}", done.text);
        }
        let foreign_password = device_password(DEVICE_SECRET, "cam_2");
        for who in [
            &["-u", "cam_2"][..],
            &["-i", "cam_2"],
            &["-u", "admin"],
            &["-u", "cam_2", "-P", &foreign_password],
        ] {
            let done = publish(&server, &pki, "cam_1", &[&own, who].concat()).await;
            assert!(!done.ok && done.text.contains("Not authorized"), "{who:?}: {}", done.text);
        }
        assert_eq!(refusals(&server, "certificate").await, 4.0);
        // What it says in its messages is held to the certificate, too.
        let done = publish(&server, &pki, "cam_2", &[&own[..], &["-u", "cam_1"]].concat()).await;
        assert!(done.text.contains("Not authorized"), "{}", done.text);

        // A wrong certificate ends in the handshake, before anything is said.
        let before = metric(server.http, "mqtt_tls_handshakes_failed_total").await;
        for [certificate, key] in [pki.foreign_device("cam_1"), pki.expired_device("cam_1")] {
            let who = ["--cert", &certificate, "--key", &key, "-u", "cam_1"];
            let done = publish(&server, &pki, "cam_1", &who).await;
            assert!(!done.ok && !done.text.contains("Not authorized"), "{}", done.text);
        }
        let failed = metric(server.http, "mqtt_tls_handshakes_failed_total").await - before;
        assert_eq!(failed, 2.0);
        // Who has none signs in with its password.
        let secret = device_password(DEVICE_SECRET, "cam_1");
        let done = publish(&server, &pki, "cam_1", &["-u", "cam_1", "-P", &secret]).await;
        assert!(done.ok, "{}", done.text);
        server
    });
}

#[test]
fn where_certificates_are_required_no_device_has_a_password() {
    let pki = Pki::new();
    let mut settings = pki.settings();
    settings.push(("mqtt.require_device_certificate", "true".into()));
    with_server(&borrowed(&settings), |server| async {
        let secret = device_password(DEVICE_SECRET, "cam_1");
        let done = publish(&server, &pki, "cam_1", &["-u", "cam_1", "-P", &secret]).await;
        assert!(!done.ok && done.text.contains("Not authorized"), "{}", done.text);
        // Nor without TLS.
        assert!(api_support::Mqtt::connect(server.mqtt, "cam_1", &secret).await.is_err());
        assert_eq!(refusals(&server, "certificate").await, 2.0);
        let [certificate, key] = pki.device("cam_1");
        let own = ["--cert", &certificate, "--key", &key, "-u", "cam_1"];
        let done = publish(&server, &pki, "cam_1", &own).await;
        assert!(done.ok, "{}", done.text);
        let session = new_session(server.http, "cam_1", "app_1").await;
        api_support::Mqtt::app(server.mqtt, &session, "app_1").await;
        server
    });
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    let pki = Pki::new();
    with_server(&borrowed(&pki.settings()), |server| async {
        for address in [server.bound.mqtts.unwrap(), server.bound.https.unwrap()] {
            let (address, ca) = (address.to_string(), pki.path("ca.pem"));
            for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
                let done =
                    s_client(&address, &["-CAfile", &ca, "-verify_return_error", version]).await;
                assert!(done.ok && done.text.contains(&format!("New, {name}")), "{}", done.text);
                assert!(done.text.contains("Verify return code: 0 (ok)"), "{}", done.text);
            }
            for version in ["-tls1_1", "-tls1"] {
                // Or openssl itself would not offer them.
                let old = [version, "-cipher", "DEFAULT@SECLEVEL=0"];
                let done = s_client(&address, &old).await;
                let text = done.text;
                assert!(!done.ok && text.contains("SSL alert number"), "{text}");
            }
        }
        server
    });
}

async fn s_client(address: &str, more: &[&str]) -> Finished {
    run("openssl", &[&["s_client", "-connect", address, "-servername", "localhost"], more].concat())
        .await
}

#[test]
fn a_new_certificate_is_for_new_connections() {
    let pki = Pki::new();
    with_server(&borrowed(&pki.settings()), |server| async {
        let addresses = [server.bound.mqtts.unwrap(), server.bound.https.unwrap()];
        let mut old = pki.connect(addresses[0]).await;
        let password = device_password(DEVICE_SECRET, "cam_1");
        old.write_all(&packets::connect("cam_1", "cam_1", &password)).await.unwrap();
        let mut connack = [0; 4];
        old.read_exact(&mut connack).await.unwrap();
        assert_eq!(connack, packets::CONNACK);

        let before = leaf(&pki, addresses[1]).await;
        assert_eq!(leaf(&pki, addresses[0]).await, before);
        pki.new_server_certificate();
        assert_eq!(leaf(&pki, addresses[1]).await, before, "until it is told to");
        server.tls.as_ref().unwrap().reload().unwrap();
        for address in addresses {
            assert_ne!(leaf(&pki, address).await, before);
        }
        old.write_all(&packets::PINGREQ).await.unwrap();
        let mut pingresp = [0; 2];
        timeout(PATIENCE, old.read_exact(&mut pingresp)).await.unwrap().unwrap();
        assert_eq!(pingresp, packets::PINGRESP, "the old connection lives");
        server
    });
}

async fn leaf(pki: &Pki, address: SocketAddr) -> Vec<u8> {
    let stream = pki.connect(address).await;
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// The camera's own client, which trusts `ca.pem`.
fn camera_config(server: &Server, pki: &Pki, sn: &str) -> BrokerConfig {
    BrokerConfig {
        device_id: sn.into(),
        url: format!("mqtts://localhost:{}", server.bound.mqtts.unwrap().port()),
        username: None,
        password: None,
        ca_file: Some(pki.path("ca.pem").into()),
        certificate: None,
        seed: 1,
        unix_millis: Box::new(|| 0),
    }
}

/// The same with a certificate and a key.
fn showing(server: &Server, pki: &Pki, sn: &str, files: &[String; 2]) -> BrokerLink {
    let [chain, key] = files.each_ref().map(Into::into);
    let certificate = Some(CertificateFiles { chain, key });
    BrokerLink::new(BrokerConfig { certificate, ..camera_config(server, pki, sn) }).unwrap()
}

async fn next(camera: &mut BrokerLink) -> LinkEvent {
    timeout(PATIENCE, camera.next()).await.unwrap()
}

/// The next event must say that there is no connection, in these words.
async fn is_down(camera: &mut BrokerLink, words: &str) {
    let LinkEvent::Down { reason } = next(camera).await else { panic!("expected: {words}") };
    assert!(reason.contains(words), "{reason}");
}

#[test]
fn the_camera_s_own_client_comes_up_over_tls() {
    let pki = Pki::new();
    with_server(&borrowed(&pki.settings()), |server| async {
        let config = || BrokerConfig {
            username: Some("cam_1".into()),
            password: Some(device_password(DEVICE_SECRET, "cam_1")),
            ..camera_config(&server, &pki, "cam_1")
        };
        let mut camera = BrokerLink::new(config()).unwrap();
        assert_eq!(next(&mut camera).await, LinkEvent::Up);
        is_reached(&server, &mut camera).await;
        let other = BrokerConfig { ca_file: Some(pki.path("other.pem").into()), ..config() };
        is_down(&mut BrokerLink::new(other).unwrap(), "broker_ca_file").await;
        camera.shutdown(Duration::from_secs(2)).await;
        server
    });
}

/// A session's first keepalive comes to `cam_1`.
async fn is_reached(server: &Server, camera: &mut BrokerLink) {
    new_session(server.http, "cam_1", "app_1").await;
    let heard = next(camera).await;
    let LinkEvent::Message { topic, .. } = heard else { panic!("{heard:?}") };
    assert_eq!(topic, "p2p/signal/device/cam_1");
}

#[test]
fn the_camera_signs_in_with_its_certificate() {
    let pki = Pki::new();
    let mut settings = pki.settings();
    settings.push(("mqtt.require_device_certificate", "true".into()));
    with_server(&borrowed(&settings), |server| async {
        let own = pki.device("cam_1");
        let mut camera = showing(&server, &pki, "cam_1", &own);
        assert_eq!(next(&mut camera).await, LinkEvent::Up);
        is_reached(&server, &mut camera).await;
        camera.shutdown(Duration::from_secs(2)).await;

        // As somebody else it is refused by the broker, with none as well, and a certificate that
        // proves nothing in the handshake.
        let mut other = showing(&server, &pki, "cam_1", &pki.device("cam_2"));
        is_down(&mut other, "whether device_id is the common name of the certificate").await;
        let password = Some(device_password(DEVICE_SECRET, "cam_1"));
        let username = Some("cam_1".into());
        let none = BrokerConfig { username, password, ..camera_config(&server, &pki, "cam_1") };
        let mut none = BrokerLink::new(none).unwrap();
        is_down(&mut none, "set broker_cert_file and broker_key_file").await;
        assert_eq!(refusals(&server, "certificate").await, 2.0);
        let mut foreign = showing(&server, &pki, "cam_1", &pki.foreign_device("cam_1"));
        is_down(&mut foreign, "broker_cert_file (UnknownCA)").await;
        let files = pki.expired_device("cam_1");
        let mut renewed = showing(&server, &pki, "cam_1", &files);
        is_down(&mut renewed, "broker_cert_file (CertificateExpired)").await;
        assert_eq!(metric(server.http, "mqtt_tls_handshakes_failed_total").await, 2.0);

        for (new, old) in own.iter().zip(&files) {
            std::fs::copy(new, old).unwrap();
        }
        assert_eq!(next(&mut renewed).await, LinkEvent::Up, "without a restart");
        is_reached(&server, &mut renewed).await;
        server
    });
}

/// An operator's way: server-min/deploy/make-ca.sh.
#[test]
fn an_authority_of_one_s_own_is_made_by_a_script() {
    let pki = Pki::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/make-ca.sh");
    let folder = pki.path("made");
    let make = |more: &[&str]| {
        let output = std::process::Command::new(script).arg(&folder).args(more).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(text) }
    };
    assert!(make(&["device", "cam_1"]).unwrap_err().contains("there is no authority"));
    make(&[]).unwrap();
    assert!(make(&[]).unwrap_err().contains("has an authority already"));
    make(&["server", "localhost", "127.0.0.1", "::1"]).unwrap();
    make(&["device", "cam_1", "-cam:2"]).unwrap();
    for (sn, expected) in [("cam_1", "exists already"), ("a/b", "cannot be"), ("ca", "cannot be")] {
        let text = make(&["device", sn]).unwrap_err();
        assert!(text.contains(expected), "{text}");
    }
    for name in ["ca.key", "server.key", "cam_1.key"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(format!("{folder}/{name}")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
    let settings = [
        ("tls.certificate", format!("{folder}/server.pem")),
        ("tls.key", format!("{folder}/server.key")),
        ("tls.client_ca", format!("{folder}/ca.pem")),
        ("mqtt.tls_listen", "127.0.0.1:0".into()),
        ("mqtt.require_device_certificate", "true".into()),
    ];
    std::fs::copy(format!("{folder}/ca.pem"), pki.path("ca.pem")).unwrap();
    with_server(&borrowed(&settings), |server| async {
        for sn in ["cam_1", "-cam:2"] {
            let [certificate, key] = ["pem", "key"].map(|kind| format!("{folder}/{sn}.{kind}"));
            let own = ["--cert", &certificate, "--key", &key, "-u", sn];
            let done = publish(&server, &pki, sn, &own).await;
            assert!(done.ok && !done.text.contains("uthorized"), "{}", done.text);
            let mut camera = showing(&server, &pki, sn, &[certificate, key]);
            assert_eq!(next(&mut camera).await, LinkEvent::Up);
        }
        // The server's own certificate is for no device, though the same authority signed it.
        let [certificate, key] = ["pem", "key"].map(|kind| format!("{folder}/server.{kind}"));
        let own = ["--cert", &certificate, "--key", &key, "-u", "localhost"];
        assert!(!publish(&server, &pki, "localhost", &own).await.ok);
        server
    });
}
