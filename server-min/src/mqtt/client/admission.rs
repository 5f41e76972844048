//! A client's first packet: who it is, whether it may come in, and its session. What it may not is
//! answered with a CONNACK that says so.

use super::{Client, may_publish};
use crate::mqtt::access::{self, Identity, Login, PendingVerdict, Refusal, Role, Verdict};
use crate::mqtt::answer::{self, ConnackCode, Welcome};
use crate::mqtt::broker::Registration;
use crate::mqtt::codec::Version;
use crate::mqtt::connect::{self, Connect};
use crate::mqtt::connection::Arrival;
use crate::mqtt::session::Terms;
use crate::mqtt::stats::RefusalReason;
use crate::mqtt::topic;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

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
        let client_id = match connect.wants_enhanced_authentication {
            true => Err(ConnackCode::BadAuthenticationMethod),
            false => client_id(&connect).map(Cow::into_owned),
        };
        let client_id =
            client_id.map_err(|code| deny(out, connect.version, &connect.client_id, code))?;
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
        broker.0.counters.update(|c| *c.signed_in_mut(identity.role) += 1);
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
            has_delivered: false,
            has_left: false,
            was_denied: false,
        })
    }
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
