//! A real server on loopback ports of its own, and small clients for it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use sdk_core::peer::turn::{TurnClient, TurnEvent};
use serde_json::Value;
use server_min::config::{Config, Setting, load};
use server_min::server::Server;
use server_min::session::credentials::device_password;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::LocalSet;
use tokio::time::timeout;

pub const APP_KEY: &str = "test-key";
pub const DEVICE_SECRET: &str = "device-secret";
pub const TURN_SECRET: &str = "north";
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A configuration on free loopback ports, with `more` on top.
pub fn config(more: &[(&str, &str)]) -> Config {
    let basic = [
        ("http.listen", "127.0.0.1:0"),
        ("mqtt.listen", "127.0.0.1:0"),
        ("turn.listen", "127.0.0.1:0"),
        ("turn.secrets", TURN_SECRET),
        ("mqtt.device_secret", DEVICE_SECRET),
        ("app_keys", APP_KEY),
        ("region", "eu-1"),
    ];
    let settings: Vec<Setting> = basic
        .iter()
        .chain(more)
        .map(|(key, value)| Setting {
            key: (*key).into(),
            value: (*value).into(),
            source: format!("--{key}"),
        })
        .collect();
    load(None, &settings).unwrap()
}

/// Runs `test` beside a server.
pub fn with_server<F: Future<Output = Server>>(
    more: &[(&str, &str)],
    test: impl FnOnce(Server) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let server = Server::start(config(more)).await.unwrap();
        let server = timeout(Duration::from_secs(60), test(server)).await.unwrap();
        server.stop().await;
    });
}

pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The text of an error reply, whose code must be the status.
    pub fn error(&self) -> String {
        let json = self.json();
        assert_eq!(json["error"]["code"], self.status, "{}", self.body);
        json["error"]["message"].as_str().unwrap().to_owned()
    }
}

/// One request on a connection of its own; `headers` are whole lines.
pub async fn request(
    server: SocketAddr,
    method: &str,
    path: &str,
    headers: &[String],
    body: &str,
) -> Response {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|h| h.starts_with("Host:")) {
        text += &format!("Host: {server}\r\n");
    }
    for header in headers {
        text += &format!("{header}\r\n");
    }
    text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    // A server that refuses early may close before it has read everything.
    let _ = stream.write_all(text.as_bytes()).await;
    read_response(&mut stream).await
}

/// What comes until the end of the connection.
pub async fn read_response(stream: &mut (impl AsyncRead + Unpin)) -> Response {
    let mut reply = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut reply)).await.unwrap();
    let reply = String::from_utf8(reply).unwrap();
    let (head, body) =
        reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no reply: {reply:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Response { status, head: head.into(), body: body.into() }
}

pub async fn get(server: SocketAddr, path: &str) -> Response {
    request(server, "GET", path, &[], "").await
}

pub fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}")
}

/// A session for `device` and `app`, as the API gave it.
pub async fn new_session(server: SocketAddr, device: &str, app: &str) -> Value {
    let body = serde_json::json!({"deviceId": device, "appId": app}).to_string();
    let reply = request(server, "POST", "/v1/sessions", &[bearer(APP_KEY)], &body).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    reply.json()
}

/// An allocation at the session's relay, with its credentials; it ends with the relay.
pub async fn allocate(session: &Value) {
    let url = session["iceServers"][1]["urls"][0].as_str().unwrap();
    let relay = url.strip_prefix("turn:").unwrap().split('?').next().unwrap().parse().unwrap();
    let told = allocate_at(relay, session).await;
    assert!(matches!(told, TurnEvent::Allocated { .. }), "{told:?}");
}

/// What the camera's client is told when it asks `relay` for an allocation.
pub async fn allocate_at(relay: SocketAddr, session: &Value) -> TurnEvent {
    let text = |key: &str| {
        let turn = session["iceServers"].as_array().unwrap().last().unwrap();
        turn[key].as_str().unwrap()
    };
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let now = || tokio::time::Instant::now().into_std();
    let mut turn = TurnClient::new(relay, text("username"), text("credential"), [7; 32], now());
    let mut buffer = [0; 1500];
    let told = async {
        loop {
            while let Some(len) = turn.poll_transmit(&mut buffer) {
                socket.send_to(&buffer[..len], relay).await.unwrap();
            }
            if let Some(event) = turn.poll_event() {
                return event;
            }
            match timeout(Duration::from_millis(200), socket.recv_from(&mut buffer)).await {
                Ok(received) => {
                    let (len, from) = received.unwrap();
                    assert_eq!(from, relay);
                    turn.handle_datagram(now(), &buffer[..len]);
                }
                Err(_) => turn.handle_timeout(now()),
            }
        }
    };
    timeout(PATIENCE, told).await.unwrap()
}

/// An MQTT client that is connected.
pub struct Mqtt {
    client: AsyncClient,
    events: tokio::sync::mpsc::UnboundedReceiver<Packet>,
}

impl Mqtt {
    /// Connects, or says which CONNACK code came instead.
    pub async fn connect(server: SocketAddr, user: &str, password: &str) -> Result<Mqtt, String> {
        Mqtt::connect_with(server, user, password, true).await
    }

    async fn connect_with(
        server: SocketAddr,
        user: &str,
        password: &str,
        clean: bool,
    ) -> Result<Mqtt, String> {
        let mut options =
            MqttOptions::new(format!("c-{user}"), server.ip().to_string(), server.port());
        options.set_credentials(user, password).set_keep_alive(Duration::from_secs(20));
        options.set_clean_session(clean);
        let (client, mut event_loop) = AsyncClient::new(options, 32);
        match timeout(PATIENCE, event_loop.poll()).await.unwrap() {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {}
            other => return Err(format!("{other:?}")),
        }
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        tokio::task::spawn_local(async move {
            while let Ok(event) = event_loop.poll().await {
                if let Event::Incoming(packet) = event {
                    let _ = sender.send(packet);
                }
            }
        });
        Ok(Mqtt { client, events })
    }

    pub async fn device(server: SocketAddr, sn: &str) -> Mqtt {
        let mut device =
            Mqtt::connect(server, sn, &device_password(DEVICE_SECRET, sn)).await.unwrap();
        device.subscribe(&format!("p2p/signal/device/{sn}")).await;
        device
    }

    /// A device whose subscriptions the broker keeps while it is away; it has none at first.
    pub async fn device_that_is_remembered(server: SocketAddr, sn: &str) -> Mqtt {
        let password = device_password(DEVICE_SECRET, sn);
        Mqtt::connect_with(server, sn, &password, false).await.unwrap()
    }

    /// Disconnects in order.
    pub async fn leave(self) {
        self.client.disconnect().await.unwrap();
    }

    /// The application of a session, with the credentials that came with it.
    pub async fn app(server: SocketAddr, session: &Value, app: &str) -> Mqtt {
        let text = |key: &str| session["mqtt"][key].as_str().unwrap().to_owned();
        let mut client = Mqtt::connect(server, &text("username"), &text("password")).await.unwrap();
        client.subscribe(&format!("p2p/signal/app/{app}")).await;
        client
    }

    pub async fn subscribe(&mut self, topic: &str) {
        self.client.subscribe(topic, QoS::AtLeastOnce).await.unwrap();
        self.until(|packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;
    }

    /// Whether the broker grants a subscription.
    pub async fn may_subscribe(&mut self, topic: &str) -> bool {
        use rumqttc::SubscribeReasonCode::Failure;
        self.client.subscribe(topic, QoS::AtLeastOnce).await.unwrap();
        self.until(|packet| match packet {
            Packet::SubAck(ack) => Some(!ack.return_codes.contains(&Failure)),
            _ => None,
        })
        .await
    }

    /// Publishes and waits until the broker has it.
    pub async fn publish(&mut self, topic: &str, message: &Value) {
        self.publish_as(false, topic, message).await;
    }

    pub async fn publish_retained(&mut self, topic: &str, message: &Value) {
        self.publish_as(true, topic, message).await;
    }

    async fn publish_as(&mut self, retain: bool, topic: &str, message: &Value) {
        let payload = message.to_string();
        self.client.publish(topic, QoS::AtLeastOnce, retain, payload).await.unwrap();
        self.until(|packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;
    }

    /// The next message.
    pub async fn message(&mut self) -> Value {
        self.until(|packet| match packet {
            Packet::Publish(publish) => Some(serde_json::from_slice(&publish.payload).unwrap()),
            _ => None,
        })
        .await
    }

    async fn until<T>(&mut self, wanted: impl Fn(&Packet) -> Option<T>) -> T {
        let found = async {
            loop {
                let packet = self.events.recv().await.expect("the broker ended the connection");
                if let Some(found) = wanted(&packet) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("what was expected did not come")
    }
}

/// The value of a metric, labels included in `name`.
pub async fn metric(server: SocketAddr, name: &str) -> f64 {
    let text = get(server, "/metrics").await.body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
}

/// Waits for a metric to have a value; the relay's thread writes its own down after it has answered.
pub async fn until_metric(server: SocketAddr, name: &str, value: f64) {
    let reached = async { while metric(server, name).await != value {} };
    timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{name} did not become {value}"));
}
