//! One connection to the broker: whose publications are on their way over it, until each is
//! acknowledged.

use super::queue::Queue;
use rumqttc::{AsyncClient, ConnectionError, EventLoop, Incoming, Outgoing, QoS};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

/// One connection and what it owes us.
pub(super) struct Connection {
    pub(super) client: AsyncClient,
    /// The event loop at work. It is kept across calls of [`BrokerLink::next`], since dropping it
    /// half-way would lose packets.
    polling: Polling,
    /// Publications handed to the event loop that have no packet id yet, in order.
    handed: VecDeque<Owner>,
    /// Publications on their way, by packet id.
    unacknowledged: Vec<(u16, Owner)>,
}

pub(super) type Polled = Result<rumqttc::Event, ConnectionError>;
type Polling = Pin<Box<dyn Future<Output = (Box<EventLoop>, Polled)> + Send>>;

/// Whose publication it is: the link's own status, or the queue's message of that number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Status,
    Message(u64),
}

impl Connection {
    pub(super) fn new(client: AsyncClient, events: EventLoop) -> Connection {
        Connection {
            client,
            polling: poll(Box::new(events)),
            handed: VecDeque::new(),
            unacknowledged: Vec::new(),
        }
    }

    /// The next event. Cancel-safe.
    pub(super) async fn event(&mut self) -> Polled {
        let (events, polled) = (&mut self.polling).await;
        self.polling = poll(events);
        polled
    }

    /// Hands over a publication. False where the event loop takes no more at present.
    pub(super) fn publish(
        &mut self,
        owner: Owner,
        topic: &str,
        retain: bool,
        payload: &[u8],
    ) -> bool {
        let done = self.client.try_publish(topic, QoS::AtLeastOnce, retain, payload).is_ok();
        if done {
            self.handed.push_back(owner);
        }
        done
    }

    pub(super) fn owes(&self, owner: Owner) -> bool {
        self.handed.contains(&owner) || self.unacknowledged.iter().any(|(_, o)| *o == owner)
    }

    /// Follows publications on their way. True if one was acknowledged.
    ///
    /// `rumqttc` takes them in the order they were handed over, tells the packet id of each as it
    /// writes it, and tells of an acknowledgement only after that.
    pub(super) fn on_publication(&mut self, event: &rumqttc::Event, queue: &mut Queue) -> bool {
        match event {
            rumqttc::Event::Outgoing(Outgoing::Publish(packet_id)) => {
                if let Some(owner) = self.handed.pop_front() {
                    self.unacknowledged.push((*packet_id, owner));
                }
                false
            }
            rumqttc::Event::Incoming(Incoming::PubAck(ack)) => {
                let found = self.unacknowledged.iter().position(|(id, _)| *id == ack.pkid);
                if let Some((_, Owner::Message(number))) =
                    found.map(|i| self.unacknowledged.swap_remove(i))
                {
                    queue.on_acknowledged(number);
                }
                found.is_some()
            }
            _ => false,
        }
    }
}

fn poll(
    mut events: Box<EventLoop>,
) -> Pin<Box<dyn Future<Output = (Box<EventLoop>, Polled)> + Send>> {
    Box::pin(async move {
        let polled = events.poll().await;
        (events, polled)
    })
}
