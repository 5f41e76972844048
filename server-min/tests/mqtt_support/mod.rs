//! A broker on loopback, a byte-level client for what well-behaved clients never do, and the
//! mosquitto command-line clients.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "clippy sees tests only in functions marked as such")]

use mqtt_protocol_core::mqtt::packet::{Qos, SubEntry, SubOpts, v3_1_1, v5_0};
use server_min::mqtt::{
    Authenticator, Broker, BrokerConfig, Identity, Login, Refusal, Role, Verdict,
};
use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::LocalSet;
use tokio::time::timeout;

pub const PASSWORD: &str = "right";
pub const PATIENCE: Duration = Duration::from_secs(10);

/// User names are `role:id`; the password is always the same.
pub struct TestUsers;

impl Authenticator for TestUsers {
    fn authenticate(&self, login: &Login<'_>) -> Verdict {
        who(login).into()
    }

    fn may_publish(&self, _: &Identity, _: &str, payload: &[u8]) -> bool {
        payload != b"forbidden"
    }

    fn may_watch(&self, _: &Identity, device_id: &str) -> bool {
        device_id != "secret"
    }
}

fn who(login: &Login<'_>) -> Result<Identity, Refusal> {
    if login.password != Some(PASSWORD.as_bytes()) {
        return Err(Refusal::BadCredentials);
    }
    let (role, id) =
        login.username.and_then(|name| name.split_once(':')).ok_or(Refusal::BadCredentials)?;
    let role = Role::from_name(role).ok_or(Refusal::NotAuthorized)?;
    Ok(Identity { role, id: id.into() })
}

pub struct Rig {
    pub broker: Broker,
    pub address: SocketAddr,
}

impl Rig {
    pub fn port(&self) -> String {
        self.address.port().to_string()
    }
}

/// Runs a test beside a broker, on one thread as in the server.
pub async fn with_broker<F: Future>(
    config: BrokerConfig,
    test: impl FnOnce(Rig) -> F,
) -> F::Output {
    LocalSet::new()
        .run_until(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let broker = Broker::new(config, Rc::new(TestUsers));
            let serving = broker.clone();
            tokio::task::spawn_local(async move { serving.serve_tcp(listener).await });
            test(Rig { broker, address }).await
        })
        .await
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V3,
    V5,
}

/// A packet as it came: its first byte and its body.
pub type Packet = (u8, Vec<u8>);

pub struct RawClient {
    pub stream: TcpStream,
    pub version: Version,
}

impl RawClient {
    pub async fn open(rig: &Rig, version: Version) -> Self {
        let stream = TcpStream::connect(rig.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, version }
    }

    /// Connects with a clean session and expects to be let in.
    pub async fn connect(rig: &Rig, version: Version, user: &str, client_id: &str) -> Self {
        Self::connect_with(rig, version, user, client_id, true).await.0
    }

    /// The second is the session-present flag.
    pub async fn connect_with(
        rig: &Rig,
        version: Version,
        user: &str,
        client_id: &str,
        clean: bool,
    ) -> (Self, bool) {
        let mut client = Self::open(rig, version).await;
        client.send(&connect_packet(version, user, client_id, clean, 60)).await;
        let (first, body) = client.recv().await.expect("a CONNACK");
        assert_eq!((first, body[1]), (0x20, 0), "{body:?}");
        (client, body[0] & 1 != 0)
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next packet; `None` once the broker closed the connection.
    pub async fn recv(&mut self) -> Option<Packet> {
        timeout(PATIENCE, self.recv_forever()).await.expect("the broker answers in time")
    }

    pub async fn recv_forever(&mut self) -> Option<Packet> {
        let first = self.stream.read_u8().await.ok()?;
        let mut len = 0usize;
        for shift in [0, 7, 14, 21] {
            let byte = self.stream.read_u8().await.ok()?;
            len |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body).await.ok()?;
        Some((first, body))
    }

    /// Subscribes and returns the code.
    pub async fn subscribe(&mut self, filter: &str, qos: u8) -> u8 {
        self.send(&subscribe_packet(self.version, filter, qos)).await;
        let (first, body) = self.recv().await.expect("a SUBACK");
        assert_eq!(first, 0x90);
        *body.last().unwrap()
    }

    /// Publishes with QoS 1 and returns the PUBACK's reason.
    pub async fn publish(&mut self, topic: &str, payload: &[u8]) -> u8 {
        self.send(&publish_packet(self.version, topic, payload, 1, 77, false)).await;
        let (first, body) = self.recv().await.expect("a PUBACK");
        assert_eq!((first, &body[..2]), (0x40, &[0, 77][..]));
        body.get(2).copied().unwrap_or(0)
    }

    /// Still connected: a PINGREQ is answered.
    pub async fn ping(&mut self) {
        self.send(&[0xc0, 0]).await;
        assert_eq!(self.recv().await, Some((0xd0, vec![])));
    }

    /// The next packet, a PUBLISH: its topic, payload, and packet id, acknowledged if need be.
    pub async fn recv_publish(&mut self) -> (String, Vec<u8>, u16) {
        let (first, body) = self.recv().await.expect("a PUBLISH");
        assert_eq!(first >> 4, 3, "{first:x} {body:?}");
        let publish = read_publish(self.version, first, &body);
        if publish.2 != 0 {
            let [high, low] = publish.2.to_be_bytes();
            self.send(&[0x40, 2, high, low]).await;
        }
        publish
    }
}

pub fn read_publish(version: Version, first: u8, body: &[u8]) -> (String, Vec<u8>, u16) {
    match version {
        Version::V3 => {
            let packet = v3_1_1::Publish::parse(first & 15, body.into()).unwrap().0;
            (
                packet.topic_name().into(),
                packet.payload().as_slice().into(),
                packet.packet_id().unwrap_or(0),
            )
        }
        Version::V5 => {
            let packet = v5_0::Publish::parse(first & 15, body.into()).unwrap().0;
            (
                packet.topic_name().into(),
                packet.payload().as_slice().into(),
                packet.packet_id().unwrap_or(0),
            )
        }
    }
}

pub fn connect_packet(
    version: Version,
    user: &str,
    client_id: &str,
    clean: bool,
    keep_alive_s: u16,
) -> Vec<u8> {
    match version {
        Version::V3 => v3_1_1::Connect::builder()
            .client_id(client_id)
            .unwrap()
            .clean_session(clean)
            .user_name(user)
            .unwrap()
            .password(PASSWORD)
            .unwrap()
            .keep_alive(keep_alive_s)
            .build()
            .unwrap()
            .to_continuous_buffer(),
        Version::V5 => {
            use mqtt_protocol_core::mqtt::packet::{Property, SessionExpiryInterval};
            let expiry = SessionExpiryInterval::new(if clean { 0 } else { 600 }).unwrap();
            v5_0::Connect::builder()
                .client_id(client_id)
                .unwrap()
                .clean_start(clean)
                .user_name(user)
                .unwrap()
                .password(PASSWORD)
                .unwrap()
                .keep_alive(keep_alive_s)
                .props(vec![Property::SessionExpiryInterval(expiry)])
                .build()
                .unwrap()
                .to_continuous_buffer()
        }
    }
}

pub fn subscribe_packet(version: Version, filter: &str, qos: u8) -> Vec<u8> {
    let options = SubOpts::new().set_qos(Qos::try_from(qos).unwrap());
    let entries = vec![SubEntry::new(filter, options).unwrap()];
    match version {
        Version::V3 => v3_1_1::Subscribe::builder()
            .packet_id(1)
            .entries(entries)
            .build()
            .unwrap()
            .to_continuous_buffer(),
        Version::V5 => v5_0::Subscribe::builder()
            .packet_id(1)
            .entries(entries)
            .build()
            .unwrap()
            .to_continuous_buffer(),
    }
}

pub fn publish_packet(
    version: Version,
    topic: &str,
    payload: &[u8],
    qos: u8,
    packet_id: u16,
    retain: bool,
) -> Vec<u8> {
    let qos = Qos::try_from(qos).unwrap();
    let packet_id = (qos != Qos::AtMostOnce).then_some(packet_id);
    match version {
        Version::V3 => v3_1_1::Publish::builder()
            .topic_name(topic)
            .unwrap()
            .qos(qos)
            .packet_id(packet_id)
            .retain(retain)
            .payload(payload.to_vec())
            .build()
            .unwrap()
            .to_continuous_buffer(),
        Version::V5 => v5_0::Publish::builder()
            .topic_name(topic)
            .unwrap()
            .qos(qos)
            .packet_id(packet_id)
            .retain(retain)
            .payload(payload.to_vec())
            .build()
            .unwrap()
            .to_continuous_buffer(),
    }
}

/// Resident memory of this process, in kB.
pub fn rss_kb() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Small, seeded, good enough to mutate packets with.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

pub struct Finished {
    pub code: Option<i32>,
    /// Both streams.
    pub text: String,
}

/// `mosquitto_pub` or `mosquitto_sub` with the address and credentials filled in.
pub fn mosquitto(rig: &Rig, tool: &str, user: &str, arguments: &[&str]) -> Command {
    // Line by line even into a pipe.
    let mut command = Command::new("stdbuf");
    command
        .args(["-oL", tool, "-h", "127.0.0.1", "-p", &rig.port(), "-u", user, "-P", PASSWORD])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

pub async fn run(mut command: Command) -> Finished {
    let output = timeout(PATIENCE, command.output())
        .await
        .expect("the client ends in time")
        .unwrap_or_else(|error| panic!("{command:?}: {error}; install the package coreutils"));
    assert_ne!(output.status.code(), Some(127), "install the package mosquitto-clients");
    let text = [output.stdout, output.stderr].concat();
    Finished { code: output.status.code(), text: String::from_utf8_lossy(&text).into() }
}

/// A `mosquitto_sub` that has subscribed; it prints each message with `format`.
pub struct Listener {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// What a resumed session delivered before the subscription was confirmed.
    early: VecDeque<String>,
}

impl Listener {
    pub async fn start(rig: &Rig, user: &str, format: &str, arguments: &[&str]) -> Self {
        // With -d the client says when it has subscribed; -F marks what is a message.
        let format = format!("MESSAGE {format}");
        let mut command = mosquitto(rig, "mosquitto_sub", user, &["-d", "-F", &format]);
        let mut child = command
            .args(arguments)
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("stdbuf: {error}; install the package coreutils"));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut early = VecDeque::new();
        timeout(PATIENCE, async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(message) = line.strip_prefix("MESSAGE ") {
                    early.push_back(message.to_owned());
                } else if line.starts_with("Subscribed") {
                    return;
                }
            }
            panic!("mosquitto_sub ended without having subscribed; is the package mosquitto-clients installed?");
        })
        .await
        .expect("mosquitto_sub subscribes in time");
        Self { child, lines, early }
    }

    pub async fn message(&mut self) -> String {
        if let Some(message) = self.early.pop_front() {
            return message;
        }
        timeout(PATIENCE, async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if let Some(message) = line.strip_prefix("MESSAGE ") {
                    return message.to_owned();
                }
            }
            panic!("mosquitto_sub ended without a message");
        })
        .await
        .expect("a message in time")
    }

    /// Kills it without a DISCONNECT.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}
