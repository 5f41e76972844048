//! The relay against Debian's coturn utilities: clients written by others, over real sockets.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use server_min::stun_turn::{TurnConfig, TurnHandle, TurnServer};
use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
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
fn ipv6_relayed_address() {
    let server = server("[::1]:0");
    let peer = EchoPeer::start();
    let summary = uclient(&server, &peer, &["-x", "-u", "u", "-W", SECRET, "-e", "::1"]);
    summary.expect_all();
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
    let server = TurnServer::start(config, Arc::new(())).unwrap();
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
        ..TurnConfig::default()
    }
}

fn server(listen: &str) -> TurnHandle {
    TurnServer::start(config(listen), Arc::new(())).unwrap()
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
    let address = server.local_addrs()[0];
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
    panic!("{name} cannot be run ({error}); install it with: apt-get install coturn")
}

#[allow(clippy::disallowed_methods, reason = "bounds how long another program may run")]
fn now() -> Instant {
    Instant::now()
}
