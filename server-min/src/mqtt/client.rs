//! What a client's packets mean, each in turn, once it is in (admission.rs). Bytes in, bytes out; the
//! connection owns the socket.

mod admission;

pub(crate) use admission::{Admission, Applicant, Denied};

use super::access::{self, Grant, Identity, Role};
use super::answer::{self, PublishResult, SubscribeResult};
use super::broker::Broker;
use super::codec::{self, Fault, Inbound, Publish, SubscribeOptions, Version};
use super::message::Message;
use super::session::Link;
use super::subscriptions::SessionIndex;
use super::topic;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// A client whose CONNECT was accepted, and its hold on its session.
pub(crate) struct Client {
    broker: Broker,
    link: Rc<Link>,
    peer: SocketAddr,
    identity: Rc<Identity>,
    version: Version,
    session: SessionIndex,
    serial: u64,
    expires_at_once: bool,
    pub(crate) silence_allowed: Duration,
    /// Somebody has been given a message of this client's since it was last asked.
    pub(crate) has_delivered: bool,
    has_left: bool,
    was_denied: bool,
}

/// How a connection ended, as far as the will is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The client said goodbye: no will.
    Graceful,
    Lost,
}

impl Client {
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// Services and operators are not limited in their rate.
    pub(crate) fn is_trusted(&self) -> bool {
        matches!(self.identity.role, Role::Service | Role::Admin)
    }

    /// One packet after the CONNECT; its answers go into `out`. `Some` once the client said goodbye.
    pub(crate) fn handle_packet(
        &mut self,
        first_byte: u8,
        body: &[u8],
        out: &mut Vec<u8>,
        now: Instant,
    ) -> Result<Option<Ending>, Fault> {
        match codec::parse(self.version, first_byte, body)? {
            Inbound::Publish(publish) => self.on_publish(publish, out, now)?,
            Inbound::Puback(packet_id) => self.with_session(|session| session.on_puback(packet_id)),
            Inbound::Pubrel(packet_id) => {
                let mut found = false;
                self.with_session(|session| found = session.on_pubrel(packet_id));
                answer::pubcomp(out, self.version, packet_id, found);
            }
            Inbound::Subscribe { packet_id, entries, has_identifier } => {
                self.on_subscribe(packet_id, entries, has_identifier, out, now);
            }
            Inbound::Unsubscribe { packet_id, filters } => {
                let mut router = self.broker.0.router.borrow_mut();
                let existed: Vec<bool> =
                    filters.iter().map(|filter| router.unsubscribe(self.session, filter)).collect();
                out.extend_from_slice(&answer::unsuback(self.version, packet_id, &existed));
            }
            Inbound::Pingreq => answer::pingresp(out),
            Inbound::Disconnect { with_will, session_expiry_s } => {
                if let Some(asked_s) = session_expiry_s {
                    // §3.14.2.2.2: a session that was to end with its connection cannot be prolonged now.
                    if asked_s != 0 && self.expires_at_once {
                        return Err(Fault::ProtocolError);
                    }
                    let granted_s = asked_s.min(self.broker.0.config.max_session_expiry_s);
                    self.with_session(|session| {
                        session.expiry = Duration::from_secs(granted_s.into())
                    });
                }
                return Ok(Some(if with_will { Ending::Lost } else { Ending::Graceful }));
            }
        }
        Ok(None)
    }

    /// Waiting messages of the session, until `out` has `enough` bytes.
    pub(crate) fn write_pending(&mut self, out: &mut Vec<u8>, enough: usize, now: Instant) {
        if let Some(session) = self.broker.0.router.borrow_mut().held_by(self.session, &self.link) {
            session.write_pending(out, enough, now);
        }
    }

    /// Gives the session back; only the first call counts.
    pub(crate) fn leave(&mut self, ending: Ending, now: Instant) {
        if !std::mem::replace(&mut self.has_left, true) {
            self.broker.0.counters.update(|c| *c.signed_in_mut(self.identity.role) -= 1);
            let graceful = ending == Ending::Graceful;
            self.broker.0.router.borrow_mut().close(self.session, &self.link, graceful, now);
        }
    }

    fn on_publish(
        &mut self,
        publish: Publish,
        out: &mut Vec<u8>,
        now: Instant,
    ) -> Result<(), Fault> {
        if !topic::is_well_formed_name(&publish.topic) {
            return Err(Fault::TopicNameInvalid);
        }
        let (qos, packet_id) = (publish.qos, publish.packet_id);
        let allowed = topic::is_valid_name(&publish.topic)
            && may_publish(&self.broker, &self.identity, &publish);
        if !allowed {
            self.on_denied("publish to", &publish.topic);
        }
        let is_new = match qos {
            // A refused MQTT 5 exchange ends with its PUBREC (§4.3.3).
            2 if allowed || self.version == Version::V3 => {
                let limit = self.broker.0.config.receive_maximum;
                let mut noted = Ok(false);
                self.with_session(|session| noted = session.on_exactly_once(packet_id, limit));
                noted?
            }
            _ => true,
        };
        let result = if !allowed {
            PublishResult::NotAuthorized
        } else if !is_new {
            PublishResult::Delivered
        } else {
            let message = Message::new(publish, self.identity.clone(), self.serial, now);
            match self.broker.0.router.borrow_mut().publish(message, now) {
                true => {
                    self.has_delivered = true;
                    PublishResult::Delivered
                }
                false => PublishResult::NobodyListens,
            }
        };
        match qos {
            0 => {}
            1 => answer::puback(out, self.version, packet_id, result),
            _ => answer::pubrec(out, self.version, packet_id, result),
        }
        Ok(())
    }

    fn on_subscribe(
        &mut self,
        packet_id: u16,
        entries: Vec<(String, SubscribeOptions)>,
        has_identifier: bool,
        out: &mut Vec<u8>,
        now: Instant,
    ) {
        // All checks come first: the authenticator is not called with the router borrowed.
        let refusals: Vec<Option<SubscribeResult>> = entries
            .iter()
            .map(|(filter, _)| {
                if has_identifier {
                    Some(SubscribeResult::IdentifierNotSupported)
                } else if topic::is_shared(filter) {
                    Some(SubscribeResult::SharedNotSupported)
                } else if !topic::is_valid_filter(filter) {
                    Some(SubscribeResult::FilterInvalid)
                } else if !self.may_subscribe(filter) {
                    self.on_denied("subscribe to", filter);
                    Some(SubscribeResult::NotAuthorized)
                } else {
                    None
                }
            })
            .collect();
        let mut router = self.broker.0.router.borrow_mut();
        let results: Vec<SubscribeResult> = entries
            .iter()
            .zip(refusals)
            .map(|((filter, options), refusal)| {
                refusal.unwrap_or_else(|| router.subscribe(self.session, filter, *options, now))
            })
            .collect();
        out.extend_from_slice(&answer::suback(self.version, packet_id, &results));
    }

    fn may_subscribe(&self, filter: &str) -> bool {
        match access::may_subscribe(&self.identity, filter) {
            Grant::Yes => true,
            Grant::No => self.broker.0.authenticator.may_subscribe_too(&self.identity, filter),
            Grant::IfMayWatch => access::watched_device(filter).is_some_and(|device| {
                self.broker.0.authenticator.may_watch(&self.identity, device)
            }),
        }
    }

    /// Loud once a connection: what is refused once is usually refused all the time.
    fn on_denied(&mut self, doing: &str, topic: &str) {
        self.broker.0.counters.update(|c| c.access_denied_total += 1);
        let level = if self.was_denied { log::Level::Debug } else { log::Level::Warn };
        self.was_denied = true;
        let Identity { role, id } = &*self.identity;
        log::log!(level, "mqtt: {}: {role:?} {id:?} may not {doing} {topic:?}", self.peer);
    }

    fn with_session(&self, change: impl FnOnce(&mut super::session::Session)) {
        if let Some(session) = self.broker.0.router.borrow_mut().held_by(self.session, &self.link) {
            change(session);
        }
    }
}

impl Drop for Client {
    /// Also where the connection's task was dropped or panicked: the session is given back.
    fn drop(&mut self) {
        self.leave(Ending::Lost, Instant::now());
    }
}

fn may_publish(broker: &Broker, who: &Identity, publish: &Publish) -> bool {
    let (rules, topic) = (&broker.0.authenticator, &publish.topic);
    (access::may_publish(who, topic, publish.retain) || rules.may_publish_too(who, topic))
        && rules.may_publish(who, topic, publish.payload.as_slice())
}
