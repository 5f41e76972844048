//! A client within the process: the session service publishes and listens without a socket.

use super::access::{Identity, Role};
use super::broker::Broker;
use super::codec::Publish;
use super::message::{self, Message, Properties};
use super::stats::Counters;
use super::topic;
use std::rc::Rc;
use tokio::sync::mpsc;

/// Publishes in the name of a [`Role::Service`] and listens to any topic. Cheap to clone.
#[derive(Clone)]
pub struct LocalClient {
    broker: Broker,
    identity: Rc<Identity>,
}

/// A message as a local subscriber gets it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LocalMessage(Rc<Message>);

/// Why a local publish or subscription was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Not a valid MQTT topic name or filter.
    InvalidTopic,
    /// Over the broker's `max_packet_size`.
    TooLarge,
}

/// Messages that match one filter, from a channel of the length given; what finds it full is
/// dropped and counted. Dropping this ends the subscription.
pub struct LocalSubscription(mpsc::Receiver<LocalMessage>);

impl LocalClient {
    pub(crate) fn new(broker: Broker, id: &str) -> Self {
        Self { broker, identity: Rc::new(Identity { role: Role::Service, id: id.into() }) }
    }

    /// Publishes with QoS 1; says whether anyone listens (an offline session counts).
    pub fn publish(&self, topic: &str, payload: &[u8], retain: bool) -> Result<bool, Rejected> {
        if !topic::is_valid_name(topic) || topic.len() > usize::from(u16::MAX) {
            return Err(Rejected::InvalidTopic);
        }
        if topic.len() + payload.len() > self.broker.0.config.max_packet_size as usize {
            return Err(Rejected::TooLarge);
        }
        let publish = Publish {
            topic: topic.into(),
            payload: message::payload(payload),
            properties: Properties::default(),
            qos: 1,
            retain,
            packet_id: 0,
        };
        Ok(self.broker.publish(publish, self.identity.clone()))
    }

    /// Retained messages that match come first. At least one message has room.
    pub fn subscribe(&self, filter: &str, capacity: usize) -> Result<LocalSubscription, Rejected> {
        if !topic::is_valid_filter(filter) || topic::is_shared(filter) {
            return Err(Rejected::InvalidTopic);
        }
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        self.broker.add_local(LocalSubscriber { filter: filter.into(), sender });
        Ok(LocalSubscription(receiver))
    }
}

impl LocalSubscription {
    /// The next message; `None` once the broker is gone. Cancel-safe.
    pub async fn recv(&mut self) -> Option<LocalMessage> {
        self.0.recv().await
    }
}

impl LocalMessage {
    pub fn topic(&self) -> &str {
        &self.0.topic
    }

    pub fn payload(&self) -> &[u8] {
        self.0.payload.as_slice()
    }

    /// Who published it, as the broker authenticated it.
    pub fn publisher(&self) -> &Identity {
        &self.0.publisher
    }

    pub fn retain(&self) -> bool {
        self.0.retain
    }
}

impl std::fmt::Display for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::InvalidTopic => "not a valid MQTT topic name or filter",
            Self::TooLarge => "the message is larger than max_packet_size",
        })
    }
}

impl std::error::Error for Rejected {}

pub(crate) struct LocalSubscriber {
    pub(crate) filter: Box<str>,
    sender: mpsc::Sender<LocalMessage>,
}

impl LocalSubscriber {
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(crate) fn deliver(&self, message: &Rc<Message>, counters: &Counters) {
        let sent = self.sender.try_send(LocalMessage(message.clone())).is_ok();
        counters.update(|c| match sent {
            true => {
                c.messages_out_total += 1;
                c.payload_bytes_out_total += message.payload.len() as u64;
            }
            false => c.messages_dropped_total += 1,
        });
    }
}
