//! The relay against Debian's coturn utilities: clients written by others, over real sockets.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use server_min::stun_turn::{TurnConfig, TurnHandle, TurnServer};
use server_min::tls::{Tls, TlsConfig};
use std::io::{Read, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

const SECRET: &str = "secret";

#[test]
fn channels() {
    // With RTP and RTCP pairs (EVEN-PORT, RESERVATION-TOKEN), and without.
    relays_everything(&[&[], &["-c"]]);
}

#[test]
fn send_indications() {
    relays_everything(&[&["-s"], &["-s", "-c"]]);
}

#[test]
fn dont_fragment() {
    relays_everything(&[&["-g"], &["-g", "-c"], &["-g", "-s", "-c"]]);
}

#[test]
fn client_to_client() {
    relays_everything(&[&["-y"], &["-y", "-s"], &["-y", "-c"], &["-y", "-c", "-s", "-g"]]);
}

#[test]
fn extra_requests_and_padded_channel_data() {
    relays_everything(&[&["-G"], &["-D"], &["-D", "-G", "-c", "-g"]]);
}

#[test]
fn by_tcp() {
    relays_everything(&[&["-t"], &["-t", "-s"], &["-t", "-c", "-D"], &["-t", "-y", "-c"]]);
}

/// RFC 6062: two clients of the server, each other's peers.
#[test]
fn peers_by_tcp() {
    std::thread::scope(|scope| {
        for mode in [&["-t", "-T"][..], &["-t", "-T", "-S"]] {
            scope.spawn(move || {
                let (server, peer) = (server("127.0.0.1:0"), EchoPeer::start());
                let common = ["-u", "u", "-W", SECRET, "-e", "127.0.0.1"];
                uclient(&server, &peer, &[&common, mode].concat()).expect_all();
            });
        }
    });
}

#[test]
fn by_tls() {
    relays_everything(&[&["-t", "-S"], &["-t", "-S", "-s", "-c"], &["-t", "-S", "-y", "-c"]]);
}

#[test]
fn by_dtls() {
    relays_everything(&[&["-S"], &["-S", "-s", "-c"], &["-S", "-y", "-c"]]);
}

/// Each transport to the server, with a relayed address of IPv6.
#[test]
fn ipv6_relayed_address() {
    std::thread::scope(|scope| {
        for transport in [&[][..], &["-t"], &["-t", "-S"], &["-S"]] {
            scope.spawn(move || {
                let (server, peer) = (server("[::1]:0"), EchoPeer::start());
                let common = ["-x", "-u", "u", "-W", SECRET, "-e", "::1"];
                uclient(&server, &peer, &[&common, transport].concat()).expect_all();
            });
        }
    });
}

#[test]
fn an_rsa_certificate_does_as_well() {
    let server = Relay::start(config("127.0.0.1:0"), &rsa());
    let peer = EchoPeer::start();
    let common = ["-u", "u", "-W", SECRET, "-e", "127.0.0.1", "-c"];
    for transport in [&["-S"][..], &["-t", "-S"]] {
        uclient(&server, &peer, &[&common, transport].concat()).expect_all();
    }
}

#[test]
fn a_fixed_user_name_and_password() {
    let server = server("127.0.0.1:0");
    let peer = EchoPeer::start();
    uclient(&server, &peer, &["-u", "tester", "-w", "password", "-e", "127.0.0.1"]).expect_all();
    uclient(&server, &peer, &["-u", "tester", "-w", "wrong", "-e", "127.0.0.1"]).expect_refused();
}

#[test]
fn a_wrong_secret_gets_nothing() {
    let server = server("127.0.0.1:0");
    let peer = EchoPeer::start();
    uclient(&server, &peer, &["-u", "u", "-W", "wrong", "-e", "127.0.0.1"]).expect_refused();
    assert_eq!(server.allocations(), 0);
}

#[test]
fn peers_on_loopback_are_refused_unless_allowed() {
    let config = TurnConfig { allow_loopback_peers: false, ..config("127.0.0.1:0") };
    let server = Relay::start(config, &ecdsa());
    let peer = EchoPeer::start();
    uclient(&server, &peer, &["-u", "u", "-W", SECRET, "-e", "127.0.0.1"]).expect_refused();
}

#[test]
fn a_stun_client_learns_its_address() {
    let server = server("127.0.0.1:0");
    let output = run(
        Command::new("turnutils_stunclient").args([
            "-p",
            &server.local_addrs()[0].port().to_string(),
            "127.0.0.1",
        ]),
        Duration::from_secs(20),
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("UDP reflexive addr: 127.0.0.1:"), "{text}");
}

#[test]
fn nat_discovery_learns_its_mapping() {
    let server = server("127.0.0.1:0");
    let port = server.local_addrs()[0].port().to_string();
    let output = run(
        Command::new("turnutils_natdiscovery").args(["-m", "-f", "-p", &port, "127.0.0.1"]),
        Duration::from_secs(60),
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("UDP reflexive addr: 127.0.0.1:"), "{text}");
}

/// The project's acceptance command, once with each of these options, all at the same time: a run
/// mostly sleeps.
fn relays_everything(modes: &[&[&str]]) {
    std::thread::scope(|scope| {
        for mode in modes {
            scope.spawn(|| relays_everything_in(mode));
        }
    });
}

fn relays_everything_in(mode: &[&str]) {
    let server = server("127.0.0.1:0");
    let peer = EchoPeer::start();
    let mut arguments = vec!["-u", "u", "-W", SECRET, "-e", "127.0.0.1"];
    arguments.extend(mode);
    uclient(&server, &peer, &arguments).expect_all();
    let relayed = server.counters().packets_relayed.load(Relaxed);
    assert!(relayed >= 40, "{mode:?}: the server relayed {relayed} packets");
}

fn config(listen: &str) -> TurnConfig {
    TurnConfig {
        listen: vec![listen.parse().unwrap()],
        secrets: vec![b"not this one".to_vec(), SECRET.into()],
        static_users: vec![("tester".into(), "password".into())],
        allow_loopback_peers: true,
        tcp_relay: true,
        ..TurnConfig::default()
    }
}

fn server(listen: &str) -> Relay {
    Relay::start(config(listen), &ecdsa())
}

/// A server with each transport, on two shards. Its certificate's files go with it.
struct Relay {
    handle: TurnHandle,
    folder: PathBuf,
}

impl Relay {
    /// With a certificate and its key, both PEM.
    fn start(mut config: TurnConfig, (certificate, key): &(String, String)) -> Relay {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("p2pcam-turn-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).unwrap();
            Some(folder.join(name))
        };
        let files = TlsConfig {
            certificate: file("cert.pem", certificate),
            key: file("key.pem", key),
            client_ca: None,
        };
        let tls = Tls::load(&files).unwrap();
        config.tls_listen = vec![SocketAddr::new(config.listen[0].ip(), 0)];
        config.shards = 2;
        let handle = TurnServer::start_with_tls(config, tls, Arc::new(())).unwrap();
        Relay { handle, folder }
    }
}

impl Deref for Relay {
    type Target = TurnHandle;

    fn deref(&self) -> &TurnHandle {
        &self.handle
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn ecdsa() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// Its key in the old form (PKCS#1), as many files have it.
fn rsa() -> (String, String) {
    let certificate = "req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout - -out -";
    let both = openssl(certificate, "");
    let key = openssl("rsa -traditional", &both);
    assert!(key.contains("BEGIN RSA PRIVATE KEY"), "{key}");
    (both[both.find("-----BEGIN CERT").unwrap()..].to_owned(), key)
}

fn openssl(arguments: &str, input: &str) -> String {
    let mut child = Command::new("openssl")
        .args(arguments.split(' '))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| missing("openssl", &error));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

struct Summary {
    sent: Option<u64>,
    received: Option<u64>,
    output: Output,
}

impl Summary {
    /// The client's exit status says nothing about lost packets.
    fn expect_all(&self) {
        assert!(self.sent.is_some_and(|n| n > 0) && self.sent == self.received, "{}", self.text());
    }

    fn expect_refused(&self) {
        let nothing = self.received.is_none_or(|n| n == 0);
        assert!(nothing && !self.output.status.success(), "{}", self.text());
    }

    fn text(&self) -> String {
        format!(
            "sent {:?} bytes, received {:?}, {}\n{}{}",
            self.sent,
            self.received,
            self.output.status,
            String::from_utf8_lossy(&self.output.stdout),
            String::from_utf8_lossy(&self.output.stderr)
        )
    }
}

fn uclient(server: &TurnHandle, peer: &EchoPeer, arguments: &[&str]) -> Summary {
    let secure = arguments.contains(&"-S");
    let address = if secure { server.tls_addrs()[0] } else { server.local_addrs()[0] };
    let output = run(
        Command::new("turnutils_uclient")
            .args(["-n", "20", "-m", "2", "-l", "170"])
            .args(["-r", &peer.port.to_string(), "-p", &address.port().to_string()])
            .args(arguments)
            .arg(address.ip().to_string()),
        Duration::from_secs(60),
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let total = |name: &str| {
        let line = text.lines().rfind(|line| line.contains(name))?;
        let number = line.split_once(name)?.1.trim_start_matches([' ', '=', ':']);
        number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    Summary { sent: total("tot_send_bytes ~ "), received: total("tot_recv_bytes ~ "), output }
}

/// `turnutils_peer` on a port of its own.
struct EchoPeer {
    child: Child,
    port: u16,
}

impl EchoPeer {
    /// On a free port whose neighbour, for RTCP, is free as well; another program may be faster.
    fn start() -> EchoPeer {
        (0..5).find_map(|_| EchoPeer::try_start()).expect("turnutils_peer answers on no port")
    }

    fn try_start() -> Option<EchoPeer> {
        let port = free_port_pair();
        let child = Command::new("turnutils_peer")
            .args(["-p", &port.to_string(), "-L", "127.0.0.1", "-L", "::1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| missing("turnutils_peer", &error));
        let peer = EchoPeer { child, port };
        (peer.answers_on(port) && peer.answers_on(port + 1)).then_some(peer)
    }

    fn answers_on(&self, port: u16) -> bool {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        (0..100).any(|_| {
            let _ = socket.send_to(b"are you there?", SocketAddr::from(([127, 0, 0, 1], port)));
            socket.recv(&mut [0; 64]).is_ok()
        })
    }
}

impl Drop for EchoPeer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port_pair() -> u16 {
    let pair = |_| {
        let first = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let next = port.checked_add(1)?;
        UdpSocket::bind(("127.0.0.1", next)).is_ok().then_some(port)
    };
    (0..100).find_map(pair).expect("no two neighbouring ports are free")
}

/// Runs to the end, or kills it and fails.
fn run(command: &mut Command, limit: Duration) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| missing(&name, &error));
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read_out = std::thread::spawn(move || read_all(&mut out));
    let read_err = std::thread::spawn(move || read_all(&mut err));
    let give_up = now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if now() > give_up {
            let _ = child.kill();
            let _ = child.wait();
            let text = String::from_utf8_lossy(&read_out.join().unwrap()).into_owned();
            panic!("{name} was still running after {limit:?}:\n{text}");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Output { status, stdout: read_out.join().unwrap(), stderr: read_err.join().unwrap() }
}

fn read_all(from: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    bytes
}

fn missing(name: &str, error: &std::io::Error) -> ! {
    panic!("{name} cannot be run ({error}); install it with: apt-get install coturn openssl")
}

#[allow(clippy::disallowed_methods, reason = "bounds how long another program may run")]
fn now() -> Instant {
    Instant::now()
}
