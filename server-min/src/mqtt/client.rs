//! What a client's packets mean: its CONNECT, and then each packet in turn. Bytes in, bytes out; the
//! connection owns the socket.

use super::access::{self, Grant, Identity, Login, PendingVerdict, Refusal, Role, Verdict};
use super::answer::{self, ConnackCode, PublishResult, SubscribeResult, Welcome};
use super::broker::{Broker, Registration};
use super::codec::{self, Fault, Inbound, Publish, SubscribeOptions, Version};
use super::connect::{self, Connect};
use super::connection::Arrival;
use super::message::Message;
use super::session::{Link, Terms};
use super::stats::RefusalReason;
use super::subscriptions::SessionIndex;
use super::topic;
use std::borrow::Cow;
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

/// What became of a connection's first packet.
pub(crate) enum Admission {
    Online(Client),
    /// Whether it may is being found out.
    Waiting(Applicant, PendingVerdict),
}

/// A client that has said who it is.
pub(crate) struct Applicant {
    connect: Box<Connect>,
    client_id: String,
}

/// Why a connection is refused. What there is to be told to the client was told.
pub(crate) struct Denied {
    pub(crate) reason: RefusalReason,
    pub(crate) what: String,
}

impl Client {
    /// Takes the first packet of a connection. Answers it, unless its verdict is to be waited for.
    pub(crate) fn connect(
        registration: &Registration,
        arrival: &Arrival,
        first_byte: u8,
        body: &[u8],
        out: &mut Vec<u8>,
        now: Instant,
    ) -> Result<Admission, Denied> {
        let connect = connect::parse(first_byte, body).map_err(|bad| {
            out.extend_from_slice(&bad.answer);
            Denied { reason: RefusalReason::Malformed, what: bad.what.to_owned() }
        })?;
        let connect = Box::new(connect);
        let client_id = match client_id(&connect) {
            _ if connect.wants_enhanced_authentication => Err(ConnackCode::BadAuthenticationMethod),
            other => other.map(Cow::into_owned),
        };
        let client_id = match client_id {
            Ok(client_id) => client_id,
            Err(code) => return Err(deny(out, connect.version, &connect.client_id, code)),
        };
        let login = Login {
            client_id: &client_id,
            username: connect.username.as_deref(),
            password: connect.password.as_deref(),
            certificate: arrival.certificate.as_deref(),
            peer: arrival.peer,
        };
        let verdict = registration.broker.0.authenticator.authenticate(&login);
        let applicant = Applicant { connect, client_id };
        match verdict {
            Verdict::Now(verdict) => {
                Self::admit(registration, arrival.peer, applicant, verdict, out, now)
                    .map(Admission::Online)
            }
            Verdict::Later(verdict) => Ok(Admission::Waiting(applicant, verdict)),
        }
    }

    /// Answers a client whose verdict is known.
    pub(crate) fn admit(
        registration: &Registration,
        peer: SocketAddr,
        applicant: Applicant,
        verdict: Result<Identity, Refusal>,
        out: &mut Vec<u8>,
        now: Instant,
    ) -> Result<Self, Denied> {
        let Applicant { connect, client_id } = applicant;
        let version = connect.version;
        verdict
            .map_err(ConnackCode::from)
            .and_then(|who| Self::open(registration, peer, *connect, &client_id, who, out, now))
            .map_err(|code| deny(out, version, &client_id, code))
    }

    fn open(
        registration: &Registration,
        peer: SocketAddr,
        mut connect: Connect,
        client_id: &str,
        identity: Identity,
        out: &mut Vec<u8>,
        now: Instant,
    ) -> Result<Self, ConnackCode> {
        let broker = registration.broker.clone();
        let config = &broker.0.config;
        let version = connect.version;
        let will = connect.will.take().map(Box::new);
        if matches!(identity.role, Role::Device | Role::App) && !access::is_valid_id(&identity.id) {
            log::error!(
                "mqtt: {peer}: {:?} cannot be an id in a topic, login refused",
                identity.id
            );
            return Err(ConnackCode::NotAuthorized);
        }
        if let Some(will) = &will {
            if !topic::is_valid_name(&will.publish.topic) {
                return Err(ConnackCode::TopicInvalid);
            }
            if !may_publish(&broker, &identity, &will.publish) {
                broker.0.counters.update(|c| c.access_denied_total += 1);
                return Err(ConnackCode::NotAuthorized);
            }
        }

        let asked_expiry_s = match version {
            Version::V3 if connect.clean_start => 0,
            Version::V3 => u32::MAX,
            Version::V5 => connect.session_expiry_s.unwrap_or(0),
        };
        let expiry_s = asked_expiry_s.min(config.max_session_expiry_s);
        let keep_alive_s = config.keep_alive_s(connect.keep_alive_s);
        let terms = Terms {
            version,
            expiry: Duration::from_secs(expiry_s.into()),
            receive_maximum: connect.receive_maximum,
            max_packet_size: connect.max_packet_size,
            will,
        };
        let link = registration.link.clone();
        let opened = broker
            .0
            .router
            .borrow_mut()
            .open(identity, client_id, connect.clean_start, link.clone(), terms, now)
            .ok_or(ConnackCode::QuotaExceeded)?;
        let welcome = Welcome {
            session_present: opened.session_present,
            keep_alive_s: Some(keep_alive_s).filter(|granted| *granted != connect.keep_alive_s),
            session_expiry_s: Some(expiry_s).filter(|granted| *granted != asked_expiry_s),
            assigned_client_id: Some(client_id).filter(|_| connect.client_id.is_empty()),
            receive_maximum: config.receive_maximum,
            max_packet_size: config.max_packet_size,
        };
        out.extend_from_slice(&answer::connack_accepted(version, &welcome));
        let silence_allowed = config.silence_allowed(connect.keep_alive_s);
        let identity = opened.identity;
        log::debug!("mqtt: {peer}: {client_id:?} is {:?} {:?}", identity.role, identity.id);
        Ok(Self {
            broker,
            link,
            peer,
            identity,
            version,
            session: opened.index,
            serial: opened.serial,
            expires_at_once: asked_expiry_s == 0,
            silence_allowed,
            has_left: false,
            was_denied: false,
        })
    }

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
                true => PublishResult::Delivered,
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

fn deny(out: &mut Vec<u8>, version: Version, client_id: &str, code: ConnackCode) -> Denied {
    out.extend_from_slice(&answer::connack_refused(version, code));
    Denied { reason: code.reason(), what: format!("client id {client_id:?}: {code:?}") }
}

/// The client's own id, or one made up for it (MQTT 5.0 §3.1.3.1). 3.1.1 allows none only for a clean
/// session.
fn client_id(connect: &Connect) -> Result<Cow<'_, str>, ConnackCode> {
    let id = connect.client_id.as_str();
    if id.is_empty() {
        if connect.version == Version::V3 && !connect.clean_start {
            return Err(ConnackCode::ClientIdInvalid);
        }
        let random: [u8; 8] = ring::rand::generate(&ring::rand::SystemRandom::new())
            .map_err(|_| ConnackCode::Unavailable)?
            .expose();
        return Ok(format!("auto-{:016x}", u64::from_be_bytes(random)).into());
    }
    if id.len() > LONGEST_CLIENT_ID || id.contains('\0') {
        return Err(ConnackCode::ClientIdInvalid);
    }
    Ok(id.into())
}

const LONGEST_CLIENT_ID: usize = 256;
