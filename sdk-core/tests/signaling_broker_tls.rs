//! The broker link over TLS against a real Mosquitto, with certificates made for the test.

#![allow(clippy::unwrap_used, reason = "a test")]

mod signaling_common;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use sdk_core::driver::broker::{BrokerConfig, BrokerLink, LinkEvent};
use signaling_common::Mosquitto;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::timeout;

/// An authority and a certificate that it signed for `localhost`, all as PEM.
fn certificates() -> (String, String, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let own = CertificateParams::new(vec!["localhost".into()]).unwrap();
    let own_pem = own.signed_by(&key, &issuer).unwrap().pem();
    (authority_pem, own_pem, key.serialize_pem())
}

fn broker() -> Mosquitto {
    let (authority, certificate, key) = certificates();
    Mosquitto::start(
        "allow_anonymous true\ncertfile DIR/cert.pem\nkeyfile DIR/key.pem",
        &[("ca.pem", &authority), ("cert.pem", &certificate), ("key.pem", &key)],
    )
}

async fn first_event(port: u16, host: &str, ca_file: PathBuf) -> LinkEvent {
    let config = BrokerConfig {
        device_id: "device_1".into(),
        url: format!("mqtts://{host}:{port}"),
        username: None,
        password: None,
        ca_file: Some(ca_file),
        seed: 1,
        unix_millis: Box::new(|| 0),
    };
    let mut link = BrokerLink::new(config).unwrap();
    timeout(Duration::from_secs(10), link.next()).await.expect("an event within 10 s")
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
    let (other, _, _) = certificates();
    let file = broker.dir.join("other.pem");
    std::fs::write(&file, other).unwrap();
    let with_ca = |host| first_event(broker.port, host, broker.dir.join("ca.pem"));
    for event in [first_event(broker.port, "localhost", file).await, with_ca("127.0.0.1").await] {
        let LinkEvent::Down { reason } = event else { panic!("{event:?}") };
        assert!(reason.contains("broker_ca_file"), "{reason}");
    }
}
