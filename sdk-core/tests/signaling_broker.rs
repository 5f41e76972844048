//! The broker link against a real Mosquitto, through a proxy that cuts connections.

#![allow(clippy::unwrap_used, reason = "a test")]

mod signaling_common;

use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, QoS};
use sdk_core::driver::broker::{BrokerConfig, BrokerLink, LinkEvent, PublishError};
use sdk_core::wire::signal::{device_topic, status_topic};
use signaling_common::Mosquitto;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

const DEVICE: &str = "device_1";

fn open_broker() -> Mosquitto {
    Mosquitto::start("allow_anonymous true", &[])
}

/// Passes connections on to the broker until they are cut.
struct Proxy {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    fn start(broker: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let kept = connections.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let Ok(server) = TcpStream::connect(("127.0.0.1", broker)) else { continue };
                let both = [client.try_clone().unwrap(), server.try_clone().unwrap()];
                kept.lock().unwrap().extend(both);
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || pass_on(from, to));
                }
            }
        });
        Proxy { address, connections }
    }

    /// Cuts all connections, in both directions and without a word of MQTT.
    fn cut(&self) -> usize {
        let cut: Vec<TcpStream> = self.connections.lock().unwrap().drain(..).collect();
        for connection in &cut {
            let _ = connection.shutdown(Shutdown::Both);
        }
        cut.len() / 2
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn config(port: u16) -> BrokerConfig {
    BrokerConfig {
        device_id: DEVICE.into(),
        url: format!("mqtt://127.0.0.1:{port}"),
        username: None,
        password: None,
        ca_file: None,
        certificate: None,
        seed: 7,
        unix_millis: Box::new(|| 1_750_929_836_097),
    }
}

/// Waits for an event of the link that `wanted` recognises.
async fn wait_for(link: &mut BrokerLink, wanted: impl Fn(&LinkEvent) -> bool) -> LinkEvent {
    let found = async {
        loop {
            let event = link.next().await;
            if wanted(&event) {
                return event;
            }
        }
    };
    timeout(Duration::from_secs(20), found).await.expect("an event within 20 s")
}

fn is_down(event: &LinkEvent) -> bool {
    matches!(event, LinkEvent::Down { .. })
}

/// Another client's view of the broker: what comes on `topics`.
async fn observer(port: u16, name: &str, topics: &[&str]) -> (AsyncClient, Observed) {
    let mut options = MqttOptions::new(name, "127.0.0.1", port);
    options.set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut events) = AsyncClient::new(options, 64);
    for topic in topics {
        client.subscribe(*topic, QoS::AtLeastOnce).await.unwrap();
    }
    let (to, from) = mpsc::unbounded_channel();
    let mut missing = topics.len();
    while missing > 0 {
        if let Event::Incoming(Incoming::SubAck(_)) = events.poll().await.unwrap() {
            missing -= 1;
        }
    }
    tokio::spawn(async move {
        while let Ok(event) = events.poll().await {
            if let Event::Incoming(Incoming::Publish(p)) = event
                && to.send((p.topic, String::from_utf8(p.payload.to_vec()).unwrap())).is_err()
            {
                break;
            }
        }
    });
    (client, from)
}

type Observed = mpsc::UnboundedReceiver<(String, String)>;

async fn observed(from: &mut Observed) -> (String, String) {
    timeout(Duration::from_secs(10), from.recv()).await.expect("a message within 10 s").unwrap()
}

#[tokio::test]
async fn messages_go_both_ways_and_the_status_tells_who_is_there() {
    let broker = open_broker();
    let (status, own) = (status_topic(DEVICE), device_topic(DEVICE));
    let topics = [status.as_str(), "p2p/signal/app/app_1"];
    let (client, mut seen) = observer(broker.port, "app_1", &topics).await;
    let mut link = BrokerLink::new(config(broker.port)).unwrap();
    assert_eq!(link.next().await, LinkEvent::Up);
    client.publish(&own, QoS::AtLeastOnce, false, "offer").await.unwrap();
    let message = LinkEvent::Message { topic: own, payload: "offer".into() };
    assert_eq!(wait_for(&mut link, |e| !is_down(e)).await, message);
    let online = r#"{"online":true,"timestamp":1750929836097}"#;
    assert_eq!(observed(&mut seen).await, (status.clone(), online.into()));

    link.publish("p2p/signal/app/app_1", b"answer".to_vec()).unwrap();
    assert_eq!(link.queued(), 1);
    assert!(timeout(Duration::from_secs(1), link.next()).await.is_err());
    assert_eq!(link.queued(), 0, "acknowledged");
    assert_eq!(observed(&mut seen).await, ("p2p/signal/app/app_1".into(), "answer".into()));

    // What is queued at the end still goes out, before the farewell.
    link.publish("p2p/signal/app/app_1", b"bye".to_vec()).unwrap();
    link.shutdown(Duration::from_secs(2)).await;
    assert_eq!(observed(&mut seen).await, ("p2p/signal/app/app_1".into(), "bye".into()));
    let offline = r#"{"online":false,"timestamp":1750929836097}"#;
    assert_eq!(observed(&mut seen).await, (status.clone(), offline.into()));
    assert_eq!(link.publish("x", vec![]), Err(PublishError::Closed));

    // Retained: who comes later learns it too; and the will, which would say it again, was not
    // sent, since the link disconnected properly.
    let (_late, mut seen_late) = observer(broker.port, "app_2", &[&status]).await;
    assert_eq!(observed(&mut seen_late).await, (status, offline.into()));
    assert!(timeout(Duration::from_millis(300), seen.recv()).await.is_err());
}

#[tokio::test]
async fn a_lost_connection_is_reported_and_the_will_says_so_to_others() {
    let broker = open_broker();
    let proxy = Proxy::start(broker.port);
    let status = status_topic(DEVICE);
    let (_client, mut seen) = observer(broker.port, "app_1", &[&status]).await;
    let mut link = BrokerLink::new(config(proxy.address.port())).unwrap();
    for _ in 0..2 {
        assert_eq!(wait_for(&mut link, |_| true).await, LinkEvent::Up);
        while !observed_while(&mut link, &mut seen).await.contains("true") {}
        assert_eq!(proxy.cut(), 1);
        let LinkEvent::Down { reason } = wait_for(&mut link, |_| true).await else { panic!() };
        assert!(reason.contains("broke"), "{reason}");
        assert!(observed(&mut seen).await.1.contains("false"), "the will");
    }
    assert_eq!(wait_for(&mut link, |_| true).await, LinkEvent::Up);
}

/// rumqttc alone loses some 80 of these.
#[tokio::test]
async fn no_message_is_lost_over_three_forced_reconnects() {
    const TOTAL: usize = 1000;
    let broker = Mosquitto::start("allow_anonymous true\nmax_queued_messages 0", &[]);
    let proxy = Proxy::start(broker.port);
    let topic = "p2p/signal/app/app_1";
    let (_client, mut seen) = observer(broker.port, "app_1", &[topic]).await;
    let mut link = BrokerLink::new(config(proxy.address.port())).unwrap();
    let (mut sent, mut cuts, mut ups, mut downs) = (0, 0, 0, 0);
    let start = Instant::now();
    while sent < TOTAL || link.queued() > 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "{sent} sent, {} left", link.queued());
        // Half full, so that the cut comes with messages on their way and others waiting.
        while sent < TOTAL && link.queued() < 32 {
            link.publish(topic, format!("message {sent} {}", "x".repeat(900)).into()).unwrap();
            sent += 1;
        }
        // Cancelled over and over, as in a driver's select.
        match timeout(Duration::from_millis(2), link.next()).await {
            Ok(LinkEvent::Up) => ups += 1,
            Ok(LinkEvent::Down { .. }) => downs += 1,
            Ok(LinkEvent::Message { .. }) | Err(_) => {}
        }
        if cuts < 3 && ups == cuts + 1 && sent > (cuts + 1) * 250 {
            assert!(link.queued() > 0);
            assert_eq!(proxy.cut(), 1);
            cuts += 1;
        }
    }
    assert_eq!((cuts, ups, downs), (3, 4, 3));
    assert_eq!(link.dropped(), 0);
    let mut numbers = HashSet::new();
    let mut total = 0;
    while numbers.len() < TOTAL {
        let (_, text) = observed(&mut seen).await;
        numbers.insert(text.split(' ').nth(1).unwrap().parse::<usize>().unwrap());
        total += 1;
    }
    println!("{TOTAL} messages, {cuts} cuts: none lost, {} came twice", total - TOTAL);
}

#[tokio::test]
async fn what_was_queued_before_the_broker_was_there_is_sent_when_it_is() {
    let broker = open_broker();
    let (_client, mut seen) = observer(broker.port, "app_1", &["t"]).await;
    let mut link = BrokerLink::new(config(broker.port)).unwrap();
    for n in 0..70 {
        link.publish("t", format!("{n}").into()).unwrap();
    }
    assert_eq!((link.queued(), link.dropped()), (64, 6));
    assert_eq!(wait_for(&mut link, |_| true).await, LinkEvent::Up);
    for n in 6..70 {
        let _ = timeout(Duration::from_millis(5), link.next()).await;
        assert_eq!(observed_while(&mut link, &mut seen).await, format!("{n}"));
    }
}

async fn observed_while(link: &mut BrokerLink, seen: &mut Observed) -> String {
    tokio::select! {
        (_, text) = observed(seen) => text,
        event = link.next() => panic!("{event:?}"),
    }
}

#[tokio::test]
async fn a_wrong_password_is_called_that() {
    let dir = std::env::temp_dir().join(format!("passwords-{}", std::process::id()));
    let made = Command::new("mosquitto_passwd")
        .args(["-b", "-c", dir.to_str().unwrap(), "camera", "secret"])
        .status()
        .expect("mosquitto_passwd is needed: it comes with the Debian package `mosquitto`");
    assert!(made.success());
    let passwords = std::fs::read_to_string(&dir).unwrap();
    std::fs::remove_file(&dir).unwrap();
    let files = [("passwords", passwords.as_str())];
    let broker = Mosquitto::start("allow_anonymous false\npassword_file DIR/passwords", &files);
    let with = |password: &str| BrokerConfig {
        username: Some("camera".into()),
        password: Some(password.into()),
        ..config(broker.port)
    };
    let mut link = BrokerLink::new(with("wrong")).unwrap();
    let LinkEvent::Down { reason } = wait_for(&mut link, |_| true).await else { panic!() };
    assert!(reason.contains("broker_password"), "{reason}");
    // It is tried again, and told once.
    assert!(timeout(Duration::from_secs(2), link.next()).await.is_err());
    let mut link = BrokerLink::new(with("secret")).unwrap();
    assert_eq!(wait_for(&mut link, |_| true).await, LinkEvent::Up);
}

#[tokio::test]
async fn an_absent_broker_is_waited_for() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut link = BrokerLink::new(config(free)).unwrap();
    let LinkEvent::Down { reason } = wait_for(&mut link, |_| true).await else { panic!() };
    assert!(reason.contains("nothing listens"), "{reason}");
    let start = Instant::now();
    link.shutdown(Duration::from_secs(2)).await;
    assert!(start.elapsed() < Duration::from_millis(100));
}

#[tokio::test]
async fn what_no_broker_would_take_is_refused_at_once() {
    let mut link = BrokerLink::new(config(1)).unwrap();
    assert_eq!(link.publish("t", vec![0; 64 * 1024 + 1]), Err(PublishError::TooLarge));
    for topic in ["", "a/#", "a/+", "a\0", &"x".repeat(257)] {
        assert_eq!(link.publish(topic, vec![]), Err(PublishError::BadTopic));
    }
    assert_eq!(link.queued(), 0);
    let bad = BrokerConfig { device_id: "a/b".into(), ..config(1) };
    assert!(BrokerLink::new(bad).err().unwrap().contains("device_id"));
}

/// The largest message there may be passes in both directions.
#[tokio::test]
async fn messages_of_64_kib_pass() {
    let broker = open_broker();
    let (client, mut seen) = observer(broker.port, "app_1", &["t"]).await;
    let mut link = BrokerLink::new(config(broker.port)).unwrap();
    assert_eq!(link.next().await, LinkEvent::Up);
    link.publish("t", vec![b'x'; 64 * 1024]).unwrap();
    assert_eq!(observed_while(&mut link, &mut seen).await.len(), 64 * 1024);
    client
        .publish(device_topic(DEVICE), QoS::AtLeastOnce, false, vec![b'y'; 64 * 1024])
        .await
        .unwrap();
    let LinkEvent::Message { payload, .. } = wait_for(&mut link, |_| true).await else { panic!() };
    assert_eq!(payload.len(), 64 * 1024);
}
