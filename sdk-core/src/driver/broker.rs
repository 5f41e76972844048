//! The link to the broker: MQTT 3.1.1 on `rumqttc`, which speaks the protocol over one connection
//! at a time. What must survive a connection is kept here: the queue of messages, the
//! acknowledgements they wait for, and the pauses between attempts.
//!
//! ```text
//! Waiting ─ pause over ─→ Connecting ─ CONNACK ─→ Subscribing ─ SUBACK ─→ Up
//!    └───────────── anything fails, with a reason ──────┴─────────────────┘
//! ```
//!
//! A device has one topic to listen on, and subscribes anew with each connection. Its status is
//! retained: online once it can be reached, offline by its last will or at an orderly end.

mod backoff;
mod connection;
mod endpoint;
mod failure;
mod queue;
#[cfg(feature = "tls")]
mod tls;

use crate::wire::signal::{MAX_SIGNAL_LEN, device_topic, is_valid_id, status_topic};
use backoff::Backoff;
use bytes::Bytes;
use connection::{Connection, Owner};
use endpoint::Endpoint;
use queue::Queue;
use rumqttc::{
    AsyncClient, ConnectionError, Incoming, LastWill, MqttOptions, Outgoing, QoS,
    SubscribeReasonCode,
};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// An idle connection is probed after this long, and given up after as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// For the TCP connection, TLS and CONNACK together, and again for SUBACK.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that lived so long was a good one: the next pause is a short one.
const STABLE: Duration = Duration::from_secs(30);
/// A signal, its topic and MQTT's own bytes.
const MAX_PACKET_LEN: usize = MAX_SIGNAL_LEN + 1024;
/// Messages sent and not yet acknowledged, counted from the oldest.
const WINDOW: usize = 16;
/// `rumqttc` numbers packets from 1 to this and round again. Twice our window, so that a number is
/// free again before its turn comes.
const PACKET_IDS: u16 = 2 * WINDOW as u16 + 2;

pub struct BrokerConfig {
    /// The device's id: in its topics, and its MQTT client id.
    pub device_id: String,
    /// `mqtt://host[:port]`, or `mqtts://host[:port]` in a build with the feature `tls`.
    pub url: String,
    pub username: Option<String>,
    pub password: Option<String>,
    /// PEM file with the certificates a `mqtts://` broker may be signed by; the system's if `None`.
    pub ca_file: Option<PathBuf>,
    /// What a `mqtts://` broker is shown when it asks who this device is.
    pub certificate: Option<CertificateFiles>,
    /// Of the pauses' randomness: another one for each device, or all come back at once.
    pub seed: u64,
    /// Unix milliseconds, for the status message.
    pub unix_millis: Box<dyn Fn() -> u64 + Send>,
}

/// A certificate of this device's own, as PEM files. They are read at the start, where an error is
/// told, and again for each connection, where bad ones are not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and after it those that lead to an authority which the broker knows.
    pub chain: PathBuf,
    /// Its private key, not encrypted.
    pub key: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// Connected and subscribed: the device can be reached.
    Up,
    /// The connection is lost, or could not be made; it is tried again for ever. Reported once for
    /// each loss and each new reason, not for each attempt.
    Down { reason: String },
    /// A message on the device's topic. QoS 1: it may come twice.
    Message { topic: String, payload: Bytes },
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishError {
    /// More than [`MAX_SIGNAL_LEN`] bytes.
    TooLarge,
    /// The topic is empty, longer than 256 bytes or has a wildcard in it.
    BadTopic,
    /// [`BrokerLink::shutdown`] was called.
    Closed,
}

pub struct BrokerLink {
    config: BrokerConfig,
    endpoint: Endpoint,
    queue: Queue,
    backoff: Backoff,
    state: State,
    /// The last `Down` told, until the next `Up`.
    told: Option<String>,
}

enum State {
    Waiting { until: Instant },
    Connecting(Connection),
    Subscribing { connection: Connection, until: Instant },
    Up { connection: Connection, since: Instant },
    Closed,
}

impl BrokerLink {
    /// Prepares a link; the first call of [`BrokerLink::next`] starts connecting. An error names
    /// the setting that cannot be used and what is expected.
    pub fn new(config: BrokerConfig) -> Result<BrokerLink, String> {
        if !is_valid_id(&config.device_id) {
            return Err(format!(
                "device_id {:?} cannot be used: expected 1 to 64 letters, digits or -_.:",
                config.device_id
            ));
        }
        let endpoint =
            Endpoint::parse(&config.url, config.ca_file.as_deref(), config.certificate.as_ref())?;
        Ok(BrokerLink {
            backoff: Backoff::new(config.seed),
            endpoint,
            queue: Queue::default(),
            state: State::Waiting { until: Instant::now() },
            told: None,
            config,
        })
    }

    /// Queues a message at QoS 1. It is kept until the broker acknowledges it, over any number of
    /// connections; the oldest ones are dropped where the queue's bounds are passed (64 messages,
    /// 256 KiB, 60 seconds). Never blocks.
    pub fn publish(&mut self, topic: &str, payload: Vec<u8>) -> Result<(), PublishError> {
        if matches!(self.state, State::Closed) {
            return Err(PublishError::Closed);
        }
        if payload.len() > MAX_SIGNAL_LEN {
            return Err(PublishError::TooLarge);
        }
        if !(1..=256).contains(&topic.len()) || topic.contains(['+', '#', '\0']) {
            return Err(PublishError::BadTopic);
        }
        self.queue.push(Instant::now(), topic, payload);
        self.send_queued();
        Ok(())
    }

    /// Messages the broker has not acknowledged yet.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Messages dropped so far because the queue's bounds were passed.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// Works until there is something to tell. Cancel-safe: what a cancelled call had begun, the
    /// next one goes on with. Pends for ever after [`BrokerLink::shutdown`].
    pub async fn next(&mut self) -> LinkEvent {
        loop {
            let event = match &mut self.state {
                State::Waiting { until } => {
                    sleep_until(*until).await;
                    self.state = State::Connecting(self.connect());
                    continue;
                }
                State::Connecting(connection) | State::Up { connection, .. } => {
                    Ok(connection.event().await)
                }
                State::Subscribing { connection, until } => {
                    timeout_at(*until, connection.event()).await
                }
                State::Closed => std::future::pending().await,
            };
            let told = match event {
                Ok(Ok(event)) => self.on_event(event),
                Ok(Err(e)) => {
                    let reason = failure::describe(&e, &self.endpoint);
                    self.on_failure(reason)
                }
                Err(_) => self.on_failure("the broker does not answer the subscription".into()),
            };
            if let Some(event) = told {
                return event;
            }
        }
    }

    /// Sends what is queued, says that the device is offline, and disconnects. Gives up after
    /// `limit`; then, or where there is no connection, the last will says it.
    pub async fn shutdown(&mut self, limit: Duration) {
        let State::Up { connection, .. } = &mut self.state else {
            self.state = State::Closed;
            return;
        };
        let start = Instant::now();
        // First what is queued, in half of the time; then the status.
        while !self.queue.is_empty() {
            send(&mut self.queue, connection);
            match timeout_at(start + limit / 2, connection.event()).await {
                Ok(Ok(event)) => {
                    connection.on_publication(&event, &mut self.queue);
                }
                _ => break,
            }
        }
        publish_status(&self.config, connection, false);
        let farewell = async {
            while connection.owes(Owner::Status) {
                let event = connection.event().await?;
                connection.on_publication(&event, &mut self.queue);
            }
            // Full only if a broker acknowledges nothing; then there is no need for politeness.
            let _ = connection.client.try_disconnect();
            while connection.event().await? != rumqttc::Event::Outgoing(Outgoing::Disconnect) {}
            Ok::<(), ConnectionError>(())
        };
        match timeout_at(start + limit, farewell).await {
            Ok(Ok(())) => log::debug!("broker: disconnected"),
            Ok(Err(e)) => log::debug!("broker: the connection broke at the end: {e}"),
            Err(_) => log::debug!("broker: no acknowledgement in time at the end"),
        }
        self.state = State::Closed;
    }

    fn connect(&mut self) -> Connection {
        let transport = self.endpoint.transport();
        let Endpoint { host, port, .. } = &self.endpoint;
        let config = &self.config;
        let mut options = MqttOptions::new(&config.device_id, host, *port);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_session(true)
            .set_max_packet_size(MAX_PACKET_LEN, MAX_PACKET_LEN)
            .set_inflight(PACKET_IDS)
            .set_transport(transport)
            .set_last_will(LastWill {
                topic: status_topic(&config.device_id),
                message: status(config, false).into(),
                qos: QoS::AtLeastOnce,
                retain: true,
            });
        if let Some(username) = &config.username {
            options.set_credentials(username, config.password.as_deref().unwrap_or_default());
        }
        // One for each connection: `rumqttc`'s own idea of what is to be sent again is not used.
        let (client, mut events) = AsyncClient::new(options, 2 * PACKET_IDS as usize);
        let mut network = rumqttc::NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
        events.set_network_options(network);
        Connection::new(client, events)
    }

    fn on_event(&mut self, event: rumqttc::Event) -> Option<LinkEvent> {
        use rumqttc::Event::Incoming as In;
        match event {
            In(Incoming::ConnAck(_)) => {
                if let State::Connecting(connection) = self.take_state() {
                    let topic = device_topic(&self.config.device_id);
                    // A new connection's channel is empty.
                    let _ = connection.client.try_subscribe(topic, QoS::AtLeastOnce);
                    let until = Instant::now() + CONNECT_TIMEOUT;
                    self.state = State::Subscribing { connection, until };
                }
                None
            }
            In(Incoming::SubAck(ack)) => {
                if ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                    return self.on_failure(format!(
                        "the broker does not let this device subscribe to {}: the credentials, or \
                         the certificate, are for another device_id, or its access rules lack \
                         that topic",
                        device_topic(&self.config.device_id)
                    ));
                }
                let State::Subscribing { mut connection, .. } = self.take_state() else {
                    return None;
                };
                publish_status(&self.config, &mut connection, true);
                self.state = State::Up { connection, since: Instant::now() };
                self.queue.expire(Instant::now());
                self.send_queued();
                self.told = None;
                Some(LinkEvent::Up)
            }
            In(Incoming::Publish(publish)) => {
                Some(LinkEvent::Message { topic: publish.topic, payload: publish.payload })
            }
            other => {
                if let State::Up { connection, .. } = &mut self.state
                    && connection.on_publication(&other, &mut self.queue)
                {
                    self.send_queued();
                }
                None
            }
        }
    }

    /// Drops the connection and sets the time of the next attempt.
    fn on_failure(&mut self, reason: String) -> Option<LinkEvent> {
        if let State::Up { since, .. } = self.take_state()
            && since.elapsed() >= STABLE
        {
            self.backoff.reset();
        }
        self.queue.on_connection_lost();
        let pause = self.backoff.next_pause();
        log::info!("broker: {reason}; next attempt in {} ms", pause.as_millis());
        self.state = State::Waiting { until: Instant::now() + pause };
        if self.told.as_ref() == Some(&reason) {
            return None;
        }
        self.told = Some(reason.clone());
        Some(LinkEvent::Down { reason })
    }

    fn take_state(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Closed)
    }

    fn send_queued(&mut self) {
        if let State::Up { connection, .. } = &mut self.state {
            send(&mut self.queue, connection);
        }
    }
}

/// Hands over what the window has room for.
fn send(queue: &mut Queue, connection: &mut Connection) {
    queue.send(WINDOW, |number, topic, payload| {
        connection.publish(Owner::Message(number), topic, false, payload)
    });
}

fn status(config: &BrokerConfig, online: bool) -> Vec<u8> {
    format!(r#"{{"online":{online},"timestamp":{}}}"#, (config.unix_millis)()).into_bytes()
}

fn publish_status(config: &BrokerConfig, connection: &mut Connection, online: bool) {
    let topic = status_topic(&config.device_id);
    if !connection.publish(Owner::Status, &topic, true, &status(config, online)) {
        log::warn!("broker: the status could not be sent");
    }
}
