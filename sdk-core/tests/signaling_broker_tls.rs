//! The broker link over TLS against a real Mosquitto, with certificates made for the test.

#![allow(clippy::unwrap_used, reason = "a test")]

mod signaling_common;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, date_time_ymd,
};
use sdk_core::driver::CertificateFiles;
use sdk_core::driver::broker::{BrokerConfig, BrokerLink, LinkEvent};
use signaling_common::Mosquitto;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tokio::time::timeout;

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate and its key, as PEM.
    fn sign(&self, params: &CertificateParams) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        [params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem()]
    }

    /// Writes a device's certificate and key to `device.pem` and `device.key`.
    fn give(&self, dir: &Path, params: &CertificateParams) -> CertificateFiles {
        let [certificate, key] = self.sign(params);
        let files = CertificateFiles { chain: dir.join("device.pem"), key: dir.join("device.key") };
        std::fs::write(&files.chain, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
        files
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn device(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    params
}

fn broker_with(more: &str, files: &[(&str, &str)]) -> Mosquitto {
    let authority = Authority::new("of servers");
    let [certificate, key] = authority.sign(&CertificateParams::new(["localhost".into()]).unwrap());
    let own = [("ca.pem", &*authority.pem), ("cert.pem", &certificate), ("key.pem", &key)];
    let settings = format!("certfile DIR/cert.pem\nkeyfile DIR/key.pem\n{more}");
    Mosquitto::start(&settings, &[&own[..], files].concat())
}

fn broker() -> Mosquitto {
    broker_with("allow_anonymous true", &[])
}

/// As server-min/deploy/mosquitto has it: a device is who its certificate says, and may use its own
/// topics.
fn broker_for(devices: &Authority) -> Mosquitto {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../server-min/deploy/mosquitto/devices.acl");
    let rules = std::fs::read_to_string(rules).unwrap();
    broker_with(
        "cafile DIR/devices-ca.pem\nrequire_certificate true\nuse_identity_as_username true\n\
         acl_file DIR/devices.acl",
        &[("devices-ca.pem", &devices.pem), ("devices.acl", &rules)],
    )
}

fn config(port: u16, ca_file: PathBuf) -> BrokerConfig {
    BrokerConfig {
        device_id: "device_1".into(),
        url: format!("mqtts://localhost:{port}"),
        username: None,
        password: None,
        ca_file: Some(ca_file),
        certificate: None,
        seed: 1,
        unix_millis: Box::new(|| 0),
    }
}

fn shows(broker: &Mosquitto, certificate: &CertificateFiles) -> BrokerLink {
    let config = config(broker.port, broker.dir.join("ca.pem"));
    BrokerLink::new(BrokerConfig { certificate: Some(certificate.clone()), ..config }).unwrap()
}

async fn next(link: &mut BrokerLink) -> LinkEvent {
    timeout(Duration::from_secs(20), link.next()).await.expect("an event within 20 s")
}

/// The link must say that there is no connection, in these words. At the first attempt the broker may
/// have hung up before the link reads why.
async fn is_down(link: &mut BrokerLink, words: &str) {
    loop {
        let LinkEvent::Down { reason } = next(link).await else { panic!("expected: {words}") };
        if reason.contains(words) {
            return;
        }
        assert!(reason.contains("broke ("), "{reason}");
    }
}

async fn first_event(port: u16, host: &str, ca_file: PathBuf) -> LinkEvent {
    let url = format!("mqtts://{host}:{port}");
    next(&mut BrokerLink::new(BrokerConfig { url, ..config(port, ca_file) }).unwrap()).await
}

#[tokio::test]
async fn a_broker_with_a_certificate_of_the_given_authority_is_trusted() {
    let broker = broker();
    let event = first_event(broker.port, "localhost", broker.dir.join("ca.pem")).await;
    assert_eq!(event, LinkEvent::Up);
}

#[tokio::test]
async fn others_are_not() {
    let broker = broker();
    let file = broker.dir.join("other.pem");
    std::fs::write(&file, Authority::new("of others").pem).unwrap();
    let with_ca = |host| first_event(broker.port, host, broker.dir.join("ca.pem"));
    for event in [first_event(broker.port, "localhost", file).await, with_ca("127.0.0.1").await] {
        let LinkEvent::Down { reason } = event else { panic!("{event:?}") };
        assert!(reason.contains("broker_ca_file"), "{reason}");
    }
}

#[tokio::test]
async fn a_device_is_let_in_by_its_certificate() {
    let devices = Authority::new("of devices");
    let broker = broker_for(&devices);
    let own = devices.give(&broker.dir, &device("device_1"));
    let mut link = shows(&broker, &own);
    assert_eq!(next(&mut link).await, LinkEvent::Up);
    link.shutdown(Duration::from_secs(2)).await;

    Authority::new("of others").give(&broker.dir, &device("device_1"));
    is_down(&mut shows(&broker, &own), "refused the certificate in broker_cert_file").await;
    let mut none = BrokerLink::new(config(broker.port, broker.dir.join("ca.pem"))).unwrap();
    is_down(&mut none, "set broker_cert_file and broker_key_file").await;
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_at_the_next_connection() {
    let devices = Authority::new("of devices");
    let broker = broker_for(&devices);
    let mut old = device("device_1");
    old.not_before = date_time_ymd(2020, 1, 1);
    old.not_after = date_time_ymd(2020, 2, 1);
    let own = devices.give(&broker.dir, &old);
    let mut link = shows(&broker, &own);
    is_down(&mut link, "refused the certificate in broker_cert_file (CertificateExpired)").await;
    devices.give(&broker.dir, &device("device_1"));
    assert_eq!(next(&mut link).await, LinkEvent::Up);

    // Another client with its id takes its connection over, so it comes anew: with the files as they
    // are, with the old ones where they are not good, and with a stranger's where they are.
    let twin = || async { assert_eq!(next(&mut shows(&broker, &own)).await, LinkEvent::Up) };
    twin().await;
    is_down(&mut link, "same device_id").await;
    assert_eq!(next(&mut link).await, LinkEvent::Up);
    twin().await;
    std::fs::write(&own.key, "no key").unwrap();
    is_down(&mut link, "same device_id").await;
    assert_eq!(next(&mut link).await, LinkEvent::Up);
    devices.give(&broker.dir, &device("device_1"));
    twin().await;
    Authority::new("of others").give(&broker.dir, &device("device_1"));
    is_down(&mut link, "same device_id").await;
    is_down(&mut link, "refused the certificate in broker_cert_file (UnknownCA)").await;
}

/// As openssl writes them, whatever it is asked for.
#[tokio::test]
async fn keys_of_each_kind_sign_the_device_in() {
    let dir = std::env::temp_dir().join(format!("device-keys-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let openssl = |command: &str, name: &str| {
        let [key, certificate] = ["key", "pem"].map(|kind| format!("{name}.{kind}"));
        let command = command.replace("KEY", &key).replace("PEM", &certificate);
        let done = Command::new("openssl").args(command.split(' ')).current_dir(&dir).output();
        let done = done.expect("openssl is needed: it comes with the Debian package `openssl`");
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
        CertificateFiles { chain: dir.join(certificate), key: dir.join(key) }
    };
    let make = |(name, command): (&str, &str)| {
        openssl(command, name);
        openssl("req -x509 -new -key KEY -subj /CN=device_1 -days 2 -out PEM", name)
    };
    let taken = [
        ("p256", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out KEY"),
        ("p384", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out KEY"),
        ("ed25519", "genpkey -algorithm ED25519 -out KEY"),
        ("rsa", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out KEY"),
        ("sec1", "ecparam -name prime256v1 -genkey -out KEY"),
        ("pkcs1", "genrsa -traditional -out KEY 2048"),
    ]
    .map(make);
    let known: String =
        taken.iter().map(|files| std::fs::read_to_string(&files.chain).unwrap()).collect();
    let broker = broker_with(
        "cafile DIR/known.pem\nrequire_certificate true\nuse_identity_as_username true",
        &[("known.pem", &known)],
    );
    for files in &taken {
        assert_eq!(next(&mut shows(&broker, files)).await, LinkEvent::Up, "{files:?}");
    }

    let mut others = [
        ("p521", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out KEY"),
        ("rsa1024", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out KEY"),
        ("der", "genpkey -algorithm ED25519 -out KEY"),
        ("encrypted", "genpkey -algorithm ED25519 -out KEY"),
    ]
    .map(make);
    let [.., der, encrypted] = &mut others;
    der.key = openssl("pkey -in KEY -outform DER -out PEM", "der").chain;
    der.chain.clone_from(&taken[0].chain);
    encrypted.key = openssl("pkey -in KEY -aes256 -passout pass:x -out PEM", "encrypted").chain;
    encrypted.chain.clone_from(&taken[0].chain);
    for files in others {
        let config = config(broker.port, broker.dir.join("ca.pem"));
        let refused = BrokerLink::new(BrokerConfig { certificate: Some(files), ..config }).err();
        let text = refused.unwrap();
        assert!(text.contains("broker_key_file") && text.contains("not encrypted"), "{text}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
