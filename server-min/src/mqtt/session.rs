//! One client's state on the broker: what waits for it, what it has not acknowledged, and what is
//! kept while it is away.
//!
//! The queue's rule. QoS 0 is dropped once the queue is half full, so that it cannot push out what
//! matters. QoS 1 that finds the queue full ends the connection of a client that is online (it does
//! not read; MQTT 5 code 0x97), and takes the place of the oldest message of one that is offline,
//! where the newest is worth most. QoS 0 is not kept for a client that is offline. When all queues
//! together are full, those of offline clients take no more, and online clients that hold more than
//! an offline one may are disconnected.

use super::access::Identity;
use super::codec::{Fault, Version};
use super::config::BrokerConfig;
use super::connect::WillFields;
use super::message::{Delivery, Message};
use super::stats::Counters;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;
use tokio::time::Instant;

/// The thread between a session and the task of its connection.
#[derive(Default)]
pub(crate) struct Link {
    close: Cell<Option<Fault>>,
    waker: RefCell<Option<Waker>>,
}

impl Link {
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Ends the connection at its next poll; the first reason stands.
    pub(crate) fn close(&self, reason: Fault) {
        if self.close.get().is_none() {
            self.close.set(Some(reason));
            self.wake();
        }
    }

    pub(crate) fn close_reason(&self) -> Option<Fault> {
        self.close.get()
    }

    pub(crate) fn register(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        match slot.as_ref() {
            Some(old) if old.will_wake(waker) => {}
            _ => *slot = Some(waker.clone()),
        }
    }
}

pub(crate) struct Session {
    /// Unique over the broker's life, unlike the place in its table.
    pub(crate) serial: u64,
    pub(crate) identity: Rc<Identity>,
    pub(crate) client_id: Rc<str>,
    pub(crate) version: Version,
    pub(crate) subscriptions: Vec<Rc<str>>,
    pub(crate) presence: Presence,
    /// How long the session outlives its connection.
    pub(crate) expiry: Duration,
    pub(crate) will: Option<Box<WillFields>>,
    config: Rc<BrokerConfig>,
    max_inflight: u16,
    max_packet_size: u32,
    pending: VecDeque<Queued>,
    inflight: VecDeque<Inflight>,
    held: Held,
    last_packet_id: u16,
    /// QoS 2 messages that were taken and not yet released (MQTT 5.0 §4.3.3, method B).
    unreleased: Vec<u16>,
}

pub(crate) enum Presence {
    Online(Rc<Link>),
    Offline { expires_at: Instant, will_at: Option<Instant> },
}

struct Queued {
    message: Rc<Message>,
    qos: u8,
    retain: bool,
    /// Not 0 for a message that was in flight when an earlier connection ended.
    packet_id: u16,
}

struct Inflight {
    message: Rc<Message>,
    packet_id: u16,
    retain: bool,
}

/// The bytes one session holds, counted into the sum over all sessions for as long as it lives.
struct Held {
    bytes: usize,
    counters: Rc<Counters>,
}

impl Held {
    fn add(&mut self, cost: usize) {
        self.bytes += cost;
        self.counters.update(|c| c.queued_bytes += cost as u64);
    }

    fn remove(&mut self, cost: usize) {
        self.bytes -= cost;
        self.counters.update(|c| c.queued_bytes -= cost as u64);
    }

    fn is_total_over(&self, cost: usize, limit: usize) -> bool {
        self.counters.queued_bytes() + cost as u64 > limit as u64
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.remove(self.bytes);
    }
}

/// What a CONNECT settles for the connection it opens.
pub(crate) struct Terms {
    pub(crate) version: Version,
    pub(crate) expiry: Duration,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet_size: u32,
    pub(crate) will: Option<Box<WillFields>>,
}

impl Session {
    pub(crate) fn new(
        serial: u64,
        identity: Rc<Identity>,
        client_id: Rc<str>,
        link: Rc<Link>,
        config: Rc<BrokerConfig>,
        counters: Rc<Counters>,
    ) -> Self {
        Self {
            config,
            serial,
            identity,
            client_id,
            version: Version::V3,
            subscriptions: Vec::new(),
            presence: Presence::Online(link),
            expiry: Duration::ZERO,
            will: None,
            max_inflight: 1,
            max_packet_size: 0,
            pending: VecDeque::new(),
            inflight: VecDeque::new(),
            held: Held { bytes: 0, counters },
            last_packet_id: 0,
            unreleased: Vec::new(),
        }
    }

    /// Puts a new connection in place; what was in flight goes out again, in order and under its old
    /// packet ids (§4.4).
    pub(crate) fn begin(&mut self, link: Rc<Link>, terms: Terms) {
        self.presence = Presence::Online(link);
        self.version = terms.version;
        self.expiry = terms.expiry;
        self.will = terms.will;
        self.max_inflight = terms.receive_maximum.min(self.config.max_inflight).max(1);
        self.max_packet_size = terms.max_packet_size;
        while let Some(Inflight { message, packet_id, retain }) = self.inflight.pop_back() {
            self.pending.push_front(Queued { message, qos: 1, retain, packet_id });
        }
    }

    pub(crate) fn link(&self) -> Option<&Rc<Link>> {
        match &self.presence {
            Presence::Online(link) => Some(link),
            Presence::Offline { .. } => None,
        }
    }

    /// Queues a message by the rule above. `qos` is the lower of the message's and the subscription's.
    pub(crate) fn deliver(&mut self, message: &Rc<Message>, qos: u8, retain: bool) {
        let cost = message.queue_cost();
        let no_room_at_all = self.held.is_total_over(cost, self.config.max_queued_bytes_total);
        if cost > self.bounds().1 {
            return self.on_dropped();
        }
        match &self.presence {
            Presence::Online(link) if qos == 0 => {
                let nearly_full = self.pending.len() >= self.config.max_queued_messages / 2
                    || self.held.bytes + cost > self.config.max_queued_bytes / 2;
                if nearly_full || no_room_at_all {
                    return self.on_dropped();
                }
                link.wake();
            }
            Presence::Online(link) => {
                let has_much = self.held.bytes > self.config.max_offline_bytes;
                let is_slow = self.is_full_for(cost) || (no_room_at_all && has_much);
                if !is_slow {
                    link.wake();
                } else if link.close_reason().is_none() {
                    self.held.counters.update(|c| c.slow_consumers_total += 1);
                    link.close(Fault::QuotaExceeded);
                }
            }
            Presence::Offline { .. } if qos == 0 || no_room_at_all => return self.on_dropped(),
            Presence::Offline { .. } => {}
        }
        while self.is_full_for(cost) {
            self.on_dropped();
            match self.pending.pop_front() {
                Some(oldest) => self.held.remove(oldest.message.queue_cost()),
                // All of it is in flight.
                None => return,
            }
        }
        self.held.add(cost);
        self.pending.push_back(Queued { message: message.clone(), qos, retain, packet_id: 0 });
    }

    /// A retained message for a new subscription; what finds no room is not worth a disconnect.
    pub(crate) fn deliver_retained(&mut self, message: &Rc<Message>, qos: u8) {
        let cost = message.queue_cost();
        if self.is_full_for(cost)
            || self.held.is_total_over(cost, self.config.max_queued_bytes_total)
        {
            self.on_dropped();
        } else {
            self.deliver(message, qos, true);
        }
    }

    fn is_full_for(&self, cost: usize) -> bool {
        let (messages, bytes) = self.bounds();
        self.pending.len() >= messages.max(1) || self.held.bytes + cost > bytes
    }

    /// Messages and bytes this session may hold now.
    fn bounds(&self) -> (usize, usize) {
        let config = &self.config;
        match self.presence {
            Presence::Online(_) => (config.max_queued_messages, config.max_queued_bytes),
            Presence::Offline { .. } => (config.max_offline_messages, config.max_offline_bytes),
        }
    }

    fn on_dropped(&self) {
        self.held.counters.update(|c| c.messages_dropped_total += 1);
    }

    /// Moves waiting messages into `out` while the client's window is open and `out` is shorter than
    /// `enough`.
    pub(crate) fn write_pending(&mut self, out: &mut Vec<u8>, enough: usize, now: Instant) {
        while out.len() < enough {
            let window_open = self.inflight.len() < usize::from(self.max_inflight);
            match self.pending.front() {
                Some(next) if next.qos == 0 || window_open => {}
                _ => break,
            }
            let Some(Queued { message, qos, retain, packet_id }) = self.pending.pop_front() else {
                break;
            };
            let dup = packet_id != 0;
            let packet_id = match (qos, packet_id) {
                (0, _) => 0,
                (_, 0) => self.next_packet_id(),
                (_, old) => old,
            };
            let how = Delivery {
                version: self.version,
                packet_id,
                dup,
                retain,
                max_packet_size: self.max_packet_size,
            };
            // §3.1.2.11.4: what is too large for the client is dropped, as if it had been delivered.
            let is_lost = message.is_expired(now) || !message.write(out, how, now);
            self.held.counters.update(|c| match is_lost {
                true => c.messages_dropped_total += 1,
                false => {
                    c.messages_out_total += 1;
                    c.payload_bytes_out_total += message.payload.len() as u64;
                }
            });
            if qos == 0 || is_lost {
                self.held.remove(message.queue_cost());
            } else {
                self.inflight.push_back(Inflight { message, packet_id, retain });
            }
        }
        // An idle session holds no buffer.
        if self.pending.is_empty() && self.pending.capacity() > 0 && self.inflight.is_empty() {
            self.pending = VecDeque::new();
            self.inflight = VecDeque::new();
        }
    }

    pub(crate) fn on_puback(&mut self, packet_id: u16) {
        // Clients acknowledge in order (§4.6), so this is the first one.
        if let Some(position) = self.inflight.iter().position(|sent| sent.packet_id == packet_id)
            && let Some(sent) = self.inflight.remove(position)
        {
            self.held.remove(sent.message.queue_cost());
        }
    }

    /// Notes a QoS 2 publish: `Ok(true)` for a new one, `Err` if the client began too many.
    pub(crate) fn on_exactly_once(&mut self, packet_id: u16, limit: u16) -> Result<bool, Fault> {
        if self.unreleased.contains(&packet_id) {
            return Ok(false);
        }
        if self.unreleased.len() >= usize::from(limit.max(1)) {
            return Err(Fault::ReceiveMaximumExceeded);
        }
        self.unreleased.push(packet_id);
        Ok(true)
    }

    /// Ends a QoS 2 exchange; says whether there was one.
    pub(crate) fn on_pubrel(&mut self, packet_id: u16) -> bool {
        let position = self.unreleased.iter().position(|id| *id == packet_id);
        position.map(|position| self.unreleased.swap_remove(position)).is_some()
    }

    fn next_packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            let id = self.last_packet_id;
            // After a reconnect, old ids still wait in front of the queue.
            let in_use = self.inflight.iter().any(|sent| sent.packet_id == id)
                || self
                    .pending
                    .iter()
                    .take_while(|queued| queued.packet_id != 0)
                    .any(|queued| queued.packet_id == id);
            if !in_use {
                return id;
            }
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
