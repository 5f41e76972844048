//! One MQTT client: keeps its subscriptions over reconnects and hands on what it receives.

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Messages under way to the broker; more than a viewer ever has.
const QUEUE: usize = 64;
/// As the contract: 64 KiB a message, and room for its topic and header.
const MAX_PACKET_LEN: usize = 128 * 1024;
const RECONNECT_PAUSE: Duration = Duration::from_millis(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub retain: bool,
}

/// What the client needs to know to log in.
#[derive(Debug, Clone)]
pub struct Login {
    /// `mqtt://host:port`
    pub url: String,
    pub client_id: String,
    pub username: String,
    pub password: String,
}

/// The sending half; the link ends when it is dropped.
pub struct Broker {
    client: AsyncClient,
    task: JoinHandle<()>,
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Broker {
    /// Logs in and subscribes to `topics`; returns once the broker has confirmed both, or with the
    /// reason why it did not.
    pub async fn connect(
        login: &Login,
        topics: &[String],
    ) -> Result<(Broker, mpsc::UnboundedReceiver<Message>), String> {
        let (host, port) = login
            .url
            .strip_prefix("mqtt://")
            .and_then(|rest| rest.trim_end_matches('/').rsplit_once(':'))
            .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)))
            .ok_or_else(|| format!("{}: expected mqtt://host:port", login.url))?;
        let mut options = MqttOptions::new(&login.client_id, host, port);
        options.set_credentials(&login.username, &login.password);
        options.set_keep_alive(Duration::from_secs(20));
        options.set_max_packet_size(MAX_PACKET_LEN, MAX_PACKET_LEN);
        let (client, event_loop) = AsyncClient::new(options, QUEUE);
        let (messages, inbox) = mpsc::unbounded_channel();
        let (progress, mut ready) = watch::channel(Progress::Connecting);
        let task =
            tokio::spawn(run(client.clone(), event_loop, topics.to_vec(), messages, progress));
        let broker = Broker { client, task };
        let end = timeout(CONNECT_TIMEOUT, ready.wait_for(|p| *p != Progress::Connecting)).await;
        match end {
            Err(_) => Err(format!("{}: no answer in {CONNECT_TIMEOUT:?}", login.url)),
            Ok(Err(_)) => Err("the MQTT client ended".into()),
            Ok(Ok(progress)) => match &*progress {
                Progress::Failed(why) => Err(why.clone()),
                _ => Ok((broker, inbox)),
            },
        }
    }

    /// Publishes at QoS 1, not retained.
    pub async fn publish(&self, topic: &str, payload: Vec<u8>) -> Result<(), String> {
        self.client
            .publish(topic, QoS::AtLeastOnce, false, payload)
            .await
            .map_err(|e| format!("publishing to {topic}: {e}"))
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Progress {
    Connecting,
    Ready,
    Failed(String),
}

async fn run(
    client: AsyncClient,
    mut event_loop: rumqttc::EventLoop,
    topics: Vec<String>,
    messages: mpsc::UnboundedSender<Message>,
    progress: watch::Sender<Progress>,
) {
    let mut subscribed = 0;
    loop {
        match event_loop.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                subscribed = 0;
                if topics.is_empty() {
                    progress.send_replace(Progress::Ready);
                }
                for topic in &topics {
                    if let Err(e) = client.try_subscribe(topic, QoS::AtLeastOnce) {
                        log::warn!("subscribing to {topic}: {e}");
                    }
                }
            }
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                let refused = |code| matches!(code, &rumqttc::SubscribeReasonCode::Failure);
                if ack.return_codes.iter().any(refused) {
                    progress.send_replace(Progress::Failed("a subscription was refused".into()));
                    return;
                }
                subscribed += 1;
                if subscribed == topics.len() {
                    progress.send_replace(Progress::Ready);
                }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let message = Message {
                    topic: publish.topic,
                    payload: publish.payload.to_vec(),
                    retain: publish.retain,
                };
                if messages.send(message).is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(e) if *progress.borrow() == Progress::Connecting => {
                progress.send_replace(Progress::Failed(format!("MQTT: {e}")));
                return;
            }
            Err(e) => {
                log::info!("MQTT link lost: {e}");
                sleep(RECONNECT_PAUSE).await;
            }
        }
    }
}
