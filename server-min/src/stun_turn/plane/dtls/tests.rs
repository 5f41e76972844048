//! Associations in virtual time, with the crate's own client at the other side.

use super::super::admission::Admission;
use super::*;
use crate::tls::TlsConfig;
use rtc_dtls::config::ConfigBuilder;
use std::path::PathBuf;

/// The server's side in virtual time, and what it has sent.
struct Lab {
    associations: Associations,
    now: Instant,
    folder: PathBuf,
    tls: Tls,
}

struct Peer {
    client: Client,
    endpoint: Endpoint,
    certificate: Option<Vec<u8>>,
}

impl Lab {
    #[allow(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn new(name: &str, max_connections: usize) -> Lab {
        let folder =
            std::env::temp_dir().join(format!("p2pcam-dtls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let files = TlsConfig {
            certificate: Some(folder.join("cert.pem")),
            key: Some(folder.join("key.pem")),
            client_ca: None,
        };
        write_certificate(&folder);
        let tls = Tls::load(&files).unwrap().unwrap();
        let now = Instant::now();
        let admission = Admission::new(max_connections, max_connections);
        let associations = Associations::new(tls.clone(), [3; 32], now, admission).unwrap();
        Lab { associations, now, folder, tls }
    }

    /// What is answered to one datagram, and the messages in it.
    fn read(&mut self, client: Client, datagram: &[u8]) -> (Vec<Vec<u8>>, Read) {
        let mut answers = Vec::new();
        let read = self.associations.read(self.now, client, datagram, |a| {
            answers.push(a.to_vec());
        });
        (answers, read)
    }

    /// Until neither side has anything to say; the messages that came from the client.
    fn exchange(&mut self, peer: &mut Peer) -> Vec<BytesMut> {
        let mut messages = Vec::new();
        while let Some(datagram) = peer.endpoint.poll_transmit() {
            let (answers, mut read) = self.read(peer.client, &datagram.message);
            messages.append(&mut read.messages);
            for answer in answers {
                peer.hear(self.now, &answer);
            }
        }
        messages
    }

    /// The messages that a client of ours gets.
    fn write(&mut self, peer: &mut Peer, message: &[u8]) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        let parts = [&message[..1], &message[1..], &[]];
        self.associations.write(self.now, peer.client, parts, |r| records.push(r.to_vec()));
        records.iter().flat_map(|record| peer.hear(self.now, record)).collect()
    }

    fn expired(&mut self) -> Vec<Client> {
        let mut gone = Vec::new();
        let none = |_| false;
        while let Some(c) = self.associations.poll_expired(self.now, none, |_, _| {}) {
            gone.push(c);
        }
        gone
    }

    fn connect(&mut self, port: u16) -> Peer {
        let mut peer = Peer::new(self.now, port);
        self.exchange(&mut peer);
        assert!(peer.certificate.is_some(), "the handshake is done");
        peer
    }

    /// The cookie's answer to a client that says nothing after it.
    fn half_open(&mut self, port: u16) -> Client {
        let mut peer = Peer::new(self.now, port);
        let first = peer.endpoint.poll_transmit().unwrap();
        let (answers, _) = self.read(peer.client, &first.message);
        peer.hear(self.now, &answers[0]);
        let second = peer.endpoint.poll_transmit().unwrap();
        let (flight, _) = self.read(peer.client, &second.message);
        assert!(flight.iter().map(Vec::len).sum::<usize>() > 400, "certificate and all");
        peer.client
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Peer {
    fn new(now: Instant, port: u16) -> Peer {
        let config = ConfigBuilder::default()
            .with_crypto_provider(default_provider().unwrap())
            .with_insecure_skip_verify(true)
            .build(true, Some(REMOTE))
            .unwrap();
        let mut endpoint = Endpoint::new(REMOTE, TransportProtocol::UDP, None);
        endpoint.connect(now, REMOTE, Arc::new(config), None).unwrap();
        let address = SocketAddr::from(([192, 0, 2, 7], port));
        Peer { client: Client { listener: 0, address }, endpoint, certificate: None }
    }

    fn hear(&mut self, now: Instant, datagram: &[u8]) -> Vec<Vec<u8>> {
        let events = self.endpoint.read(now, REMOTE, None, BytesMut::from(datagram)).unwrap();
        let mut messages = Vec::new();
        for event in events {
            match event {
                EndpointEvent::HandshakeComplete => {
                    let state = self.endpoint.get_connection_state(REMOTE).unwrap();
                    self.certificate = state.peer_certificates.first().cloned();
                }
                EndpointEvent::ApplicationData(data) => messages.push(data.to_vec()),
                _ => {}
            }
        }
        messages
    }
}

fn write_certificate(folder: &std::path::Path) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
}

#[test]
fn messages_pass_both_ways_and_the_end_is_told() {
    let mut lab = Lab::new("pass", 10);
    let mut peer = lab.connect(5000);
    peer.endpoint.write(lab.now, REMOTE, b"question").unwrap();
    assert_eq!(lab.exchange(&mut peer), [b"question".as_slice()]);
    assert_eq!(lab.write(&mut peer, b"answer"), [b"answer"]);
    // Garbage, and records that are not sealed, end nothing.
    for bad in [&b"\x16garbage"[..], &[21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40]] {
        assert!(!lab.read(peer.client, bad).1.ended);
    }
    assert_eq!(lab.write(&mut peer, b"still here"), [b"still here"]);
    peer.endpoint.stop(lab.now, REMOTE);
    let close = peer.endpoint.poll_transmit().unwrap();
    assert!(lab.read(peer.client, &close.message).1.ended);
    assert_eq!((lab.associations.len(), lab.associations.poll_timeout()), (0, None));
}

#[test]
fn nothing_is_kept_for_whoever_does_not_answer_the_cookie() {
    let mut lab = Lab::new("flood", 10);
    let hello = Peer::new(lab.now, 1).endpoint.poll_transmit().unwrap().message;
    for i in 0..10_000u32 {
        let address = SocketAddr::from((i.to_be_bytes(), 7));
        let (answers, _) = lab.read(Client { listener: 0, address }, &hello);
        assert!(answers.len() == 1 && answers[0].len() <= hello.len(), "no amplification");
    }
    assert_eq!((lab.associations.len(), lab.associations.poll_timeout()), (0, None));
}

#[test]
fn handshakes_have_their_time_and_their_places() {
    let mut lab = Lab::new("places", MAX_HANDSHAKES + 10);
    let done = lab.connect(1000);
    let first = lab.half_open(2000);
    for i in 0..MAX_HANDSHAKES as u16 {
        lab.now += Duration::from_millis(1);
        lab.half_open(3000 + i);
    }
    assert_eq!(lab.associations.len(), MAX_HANDSHAKES + 1, "the oldest made room");
    assert!(!lab.associations.by_client.contains_key(&first));
    // None of them ends its handshake: ten seconds later all are gone, and so is the client
    // that has finished its own and then said nothing.
    lab.now += Duration::from_secs(10);
    let gone = lab.expired();
    assert_eq!(gone.len(), MAX_HANDSHAKES + 1);
    assert!(gone.contains(&done.client));
    assert_eq!((lab.associations.handshakes.len(), lab.associations.len()), (0, 0));
}

#[test]
fn without_a_place_there_is_no_handshake() {
    let mut lab = Lab::new("full", 1);
    let _one = lab.connect(1000);
    let mut other = Peer::new(lab.now, 1001);
    lab.exchange(&mut other);
    assert!(other.certificate.is_none());
    assert_eq!((lab.associations.len(), lab.associations.refused()), (1, 1));
}

#[test]
fn a_lost_flight_is_sent_again() {
    let mut lab = Lab::new("lost", 10);
    lab.half_open(5000);
    let due = lab.associations.poll_timeout().unwrap();
    assert!(due <= lab.now + RETRANSMIT_INTERVAL);
    lab.now = due;
    let mut sent = 0;
    lab.associations.poll_expired(lab.now, |_| false, |_, datagram| sent += datagram.len());
    assert!(sent > 400, "certificate and all");
}

#[test]
fn a_client_may_begin_anew_from_the_same_port() {
    let mut lab = Lab::new("anew", 10);
    let mut before = lab.connect(5000);
    // Only the second hello of the new one, which has the cookie, ends what was.
    let mut after = Peer::new(lab.now, 5000);
    let first = after.endpoint.poll_transmit().unwrap();
    let (answers, read) = lab.read(after.client, &first.message);
    assert!(!read.ended);
    assert_eq!(lab.write(&mut before, b"still here"), [b"still here"]);
    after.hear(lab.now, &answers[0]);
    let second = after.endpoint.poll_transmit().unwrap();
    let (answers, read) = lab.read(after.client, &second.message);
    assert!(read.ended);
    answers.iter().for_each(|answer| drop(after.hear(lab.now, answer)));
    lab.exchange(&mut after);
    // The network brings that hello once more: nothing begins again.
    assert!(!lab.read(after.client, &second.message).1.ended);
    assert_eq!(lab.write(&mut after, b"here now"), [b"here now"]);
    assert_eq!(lab.associations.len(), 1);
}

#[test]
fn a_certificate_that_was_read_anew_is_the_next_clients() {
    let mut lab = Lab::new("renew", 10);
    let mut before = lab.connect(5000);
    write_certificate(&lab.folder);
    lab.tls.reload().unwrap();
    let after = lab.connect(5001);
    assert_ne!(before.certificate, after.certificate);
    assert_eq!(lab.write(&mut before, b"goes on"), [b"goes on"]);
}
