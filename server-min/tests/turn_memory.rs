//! What the relay's process holds, read from /proc: for allocations, and after floods that came by a
//! real socket. The binary is a process of its own, so what grows is the relay.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(clippy::disallowed_methods, reason = "a test waits for the real relay in real time")]

mod turn_support;

use sdk_core::wire::stun::attribute as attr;
use sdk_core::wire::stun::{Message, Method, TransactionId, channel_data};
use server_min::stun_turn::core::Client;
use server_min::stun_turn::password_for;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use turn_support::{Attr, SECRET, User, channel, peer, plain, request, udp};

const ALLOCATIONS: usize = 5000;
const LIMIT_BYTES: usize = 2048;
/// Requests of the flood; TURN_FLOOD sets another number.
const FLOOD: usize = 100_000;
const FLOOD_LIMIT_KB: usize = 256;

#[test]
fn an_allocation_costs_less_than_2_kb() {
    allow_many_files(ALLOCATIONS + 500);
    let server = Server::start();
    // The first ones fill tables and touch buffers.
    let warm_up: Vec<Holder> = (0..200).map(|i| Holder::new(&server, i)).collect();
    let before_kb = server.rss_kb();
    let held: Vec<Holder> = (0..ALLOCATIONS).map(|i| Holder::new(&server, 1000 + i)).collect();
    let each = server.rss_kb().saturating_sub(before_kb) * 1024 / ALLOCATIONS;
    println!("rss_per_allocation_bytes {each}");
    assert!(each <= LIMIT_BYTES, "{each} bytes for each allocation");
    // Still there: what goes into the channel reaches the peer.
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for holder in [warm_up.first(), held.first(), held.last()].into_iter().flatten() {
        holder.bind(0x4001, peer.local_addr().unwrap());
        let packet = [&channel_data::header(0x4001, 5)[..], b"media"].concat();
        holder.socket.send(&packet).unwrap();
        assert_eq!(peer.recv(&mut [0; 64]).unwrap(), 5);
    }
}

#[test]
fn a_flood_by_the_real_socket_leaves_nothing() {
    let flood = std::env::var("TURN_FLOOD").map_or(FLOOD, |text| text.parse().unwrap());
    let server = Server::start();
    let mut strangers = Strangers::new(server.address);
    // Buffers are touched once.
    strangers.send(flood / 4);
    let before_kb = server.rss_kb();
    let answered = strangers.send(flood);
    let grown_kb = server.rss_kb().saturating_sub(before_kb);
    println!("rss_flood_kb {grown_kb} after {flood} requests, {answered} answered");
    assert!(answered > flood / 2, "{answered} answers");
    assert!(grown_kb <= FLOOD_LIMIT_KB, "{grown_kb} kB more after {flood} requests");
    // And it serves whoever has credentials.
    let holder = Holder::new(&server, 1);
    holder.bind(0x4001, "127.0.0.1:9".parse().unwrap());
}

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start() -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server-min"));
        for listener in ["http", "mqtt", "turn"] {
            command.args([format!("--{listener}.listen"), "127.0.0.1:0".into()]);
        }
        command.args(["--turn.secrets", std::str::from_utf8(SECRET).unwrap()]);
        command.args(["--turn.allow_loopback_peers", "true", "--log", "warn"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.map_while(Result::ok).find(|line| line.starts_with("ready:"));
        let address = ready.and_then(|line| line.split_once("stun=")?.1.parse().ok());
        Server { child, address: address.expect("the address of STUN in the line `ready:`") }
    }

    fn rss_kb(&self) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of a session of its own, with an allocation, a permission and a channel.
struct Holder {
    socket: UdpSocket,
    user: User,
}

impl Holder {
    fn new(server: &Server, number: usize) -> Holder {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let username = format!("4102444800:550e8400-e29b-41d4-a716-{number:012}");
        let user = User {
            client: Client { listener: 0, address: socket.local_addr().unwrap() },
            password: password_for(SECRET, &username),
            username,
            nonce: Vec::new(),
        };
        let mut holder = Holder { socket, user };
        let challenge = holder.ask(&plain(Method::ALLOCATE, TransactionId([1; 12]), &[udp()]));
        let nonce = Message::parse(&challenge).unwrap().get(attr::NONCE).unwrap().to_vec();
        holder.user.nonce = nonce;
        holder.call(Method::ALLOCATE, &[udp()]);
        holder.call(Method::CREATE_PERMISSION, &[peer("127.0.0.2:4000")]);
        holder.bind(0x4000, "127.0.0.3:4000".parse().unwrap());
        holder
    }

    fn bind(&self, number: u16, address: SocketAddr) {
        self.call(Method::CHANNEL_BIND, &[channel(number), peer(&address.to_string())]);
    }

    fn call(&self, method: Method, attributes: &[Attr]) {
        let mut id = [2; 12];
        id[0] = method.0 as u8;
        let answer = self.ask(&request(&self.user, method, TransactionId(id), attributes));
        let error = Message::parse(&answer).unwrap().error_code();
        assert!(error.is_none(), "{method:?}: {error:?}");
    }

    /// Repeats itself, as clients do.
    fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = [0; 1500];
        for _ in 0..10 {
            self.socket.send(bytes).unwrap();
            if let Ok(len) = self.socket.recv(&mut buffer) {
                return buffer[..len].to_vec();
            }
        }
        panic!("no answer")
    }
}

/// Whoever sends from ever new addresses of loopback's.
struct Strangers {
    server: SocketAddr,
    requests: Vec<Vec<u8>>,
    addresses: u32,
}

impl Strangers {
    fn new(server: SocketAddr) -> Strangers {
        let user = User::of_session("7c9e", "203.0.113.5:5000");
        let id = TransactionId([7; 12]);
        let methods = [Method::ALLOCATE, Method::REFRESH, Method::CHANNEL_BIND, Method::SEND];
        let mut requests: Vec<Vec<u8>> = Vec::new();
        for method in methods {
            requests.push(plain(method, id, &[]));
            requests.push(plain(method, id, &[udp()]));
            requests.push(request(&user, method, id, &[udp()]));
        }
        requests.push(channel_data::header(0x4000, 0).to_vec());
        requests.push(vec![0xFF; 1200]);
        // The last one is answered, which paces the flood.
        requests.push(plain(Method::BINDING, id, &[]));
        Strangers { server, requests, addresses: 0 }
    }

    /// How many were answered.
    fn send(&mut self, requests: usize) -> usize {
        let mut answered = 0;
        for _ in 0..requests / self.requests.len() {
            self.addresses += 1;
            let ip = Ipv4Addr::from(0x7F01_0000 + self.addresses);
            let socket = UdpSocket::bind((ip, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            for request in &self.requests {
                socket.send_to(request, self.server).unwrap();
            }
            let mut buffer = [0; 1500];
            while let Ok(len) = socket.recv(&mut buffer) {
                answered += 1;
                let method = Message::parse(&buffer[..len]).unwrap().method();
                if method == Method::BINDING {
                    break;
                }
            }
        }
        answered
    }
}

/// Each client is a socket of this process.
fn allow_many_files(needed: usize) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place to write to and to read from.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
    assert!(limit.rlim_cur as usize > needed, "raise the hard limit of open files (ulimit -Hn)");
}
