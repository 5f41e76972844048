//! What clients cost that are connected and say nothing: memory for each, over TCP and over TLS, and
//! no time at all. The server is a process of its own, so that what is measured is the server's.

#![allow(clippy::unwrap_used, reason = "clippy sees tests only in functions marked as such")]

mod packets;
mod tls_support;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use server_min::session::credentials::device_password;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tls_support::Pki;

const SECRET: &str = "device-secret";
const OVER_TCP: usize = 10_000;
/// A handshake takes its time in a build that is not optimised.
const OVER_TLS: usize = 400;
const BYTES_OVER_TCP: usize = 4 * 1024;
/// Mostly rustls's: its state, and the buffer of 4 kB that it reads into.
const BYTES_OVER_TLS: usize = 16 * 1024;
/// Of the time that it is watched for.
const BUSY_PERCENT: f64 = 2.0;

struct Server {
    child: Child,
    mqtt: SocketAddr,
    mqtts: SocketAddr,
}

impl Server {
    fn start(pki: &Pki) -> Server {
        let mut settings = pki.settings();
        for (key, value) in [
            ("mqtt.device_secret", SECRET),
            ("mqtt.limits.max_connections", "12000"),
            ("http.listen", "127.0.0.1:0"),
            ("mqtt.listen", "127.0.0.1:0"),
            ("turn.listen", "127.0.0.1:0"),
            ("log", "warn"),
        ] {
            settings.push((key, value.into()));
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_server-min"));
        for (key, value) in settings {
            command.args([format!("--{key}"), value]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = |name: &str| {
            let part = line.split_whitespace().find_map(|part| part.strip_prefix(name));
            part.unwrap_or_else(|| panic!("{name} is not in {line:?}")).parse().unwrap()
        };
        let (mqtt, mqtts) = (address("mqtt="), address("mqtts="));
        Server { child, mqtt, mqtts }
    }

    fn rss_bytes(&self) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        1024 * line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
    }

    /// Of all its threads, user's and system's together.
    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name in parentheses may hold anything; utime and stime are the 12th and 13th after it.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum();
        // SAFETY: takes no pointer.
        ticks / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn idle_clients_cost_little_memory_and_no_time() {
    allow_many_files();
    let pki = Pki::new();
    let server = Server::start(&pki);
    let client = |n| sign_in(TcpStream::connect(server.mqtt).unwrap(), &format!("camera-{n:05}"));
    let (each, held) = bytes_for_each(&server, OVER_TCP, client);
    println!("rss_per_idle_connection_bytes {each}");
    assert!(each <= BYTES_OVER_TCP, "{each} bytes for each of {OVER_TCP} connections");

    // What the sign-ins left to do, their timers, is done after connect_timeout_s.
    std::thread::sleep(Duration::from_secs(9));
    let (watched, before) = (Duration::from_secs(5), server.cpu_seconds());
    std::thread::sleep(watched);
    let percent = 100.0 * (server.cpu_seconds() - before) / watched.as_secs_f64();
    println!("cpu_percent_with_{OVER_TCP}_idle {percent:.1}");
    assert!(percent <= BUSY_PERCENT, "{percent} % of a core for {OVER_TCP} idle connections");
    drop(held);
}

#[test]
fn idle_clients_over_tls_cost_what_tls_needs() {
    allow_many_files();
    let pki = Pki::new();
    let server = Server::start(&pki);
    let (config, name) = (pki.client(), ServerName::try_from("localhost").unwrap());
    let client = |n| {
        let stream = TcpStream::connect(server.mqtts).unwrap();
        let session = ClientConnection::new(config.clone(), name.clone()).unwrap();
        sign_in(StreamOwned::new(session, stream), &format!("camera-{n:05}"))
    };
    let (each, mut held) = bytes_for_each(&server, OVER_TLS, client);
    println!("rss_per_idle_tls_connection_bytes {each}");
    assert!(each <= BYTES_OVER_TLS, "{each} bytes for each over TLS");
    // Idle, and there.
    for stream in &mut held {
        stream.write_all(&packets::PINGREQ).unwrap();
        let mut pingresp = [0; 2];
        stream.read_exact(&mut pingresp).unwrap();
        assert_eq!(pingresp, packets::PINGRESP);
    }
}

/// How much the server grows by each of `count` clients, and these.
fn bytes_for_each<S>(
    server: &Server,
    count: usize,
    client: impl Fn(usize) -> S,
) -> (usize, Vec<S>) {
    // The first few fill the tables.
    let _warm_up: Vec<S> = (0..100).map(&client).collect();
    let before = server.rss_bytes();
    let held = (100..100 + count).map(&client).collect();
    (server.rss_bytes().saturating_sub(before) / count, held)
}

/// As a camera that is there and waits: signed in and subscribed.
fn sign_in<S: Read + Write>(mut stream: S, sn: &str) -> S {
    let connect = packets::connect(sn, sn, &device_password(SECRET, sn));
    let subscribe = packets::subscribe(&format!("p2p/signal/device/{sn}"));
    for (packet, answer) in [(connect, &packets::CONNACK[..]), (subscribe, &packets::SUBACK)] {
        stream.write_all(&packet).unwrap();
        let mut got = vec![0; answer.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, answer);
    }
    stream
}

/// For this process and, by inheritance, for the server.
fn allow_many_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid, initialised struct that outlives them.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
    assert!(
        limit.rlim_cur as usize > OVER_TCP + 1_000,
        "raise the hard limit of open files (ulimit -Hn)"
    );
}
