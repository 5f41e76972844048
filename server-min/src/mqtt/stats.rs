//! What the broker counts. One thread owns the counters.

use std::cell::RefCell;

/// A snapshot for metrics. Totals only grow; the first five are gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerStats {
    pub connections: u64,
    /// Online and offline ones.
    pub sessions: u64,
    pub subscriptions: u64,
    pub retained_messages: u64,
    /// Bytes waiting or in flight in all sessions.
    pub queued_bytes: u64,

    pub connections_total: u64,
    /// Closed at accept because of `max_connections`, `max_connecting` or
    /// `max_connections_per_address`.
    pub connections_refused_total: u64,
    /// TLS connections that did not come to be: a foreign certificate, no TLS at all, or not in time.
    pub tls_handshakes_failed_total: u64,
    /// CONNECTs answered with a refusal.
    pub logins_refused_total: u64,
    /// The same by reason, in the order of [`RefusalReason::ALL`].
    pub logins_refused: [u64; RefusalReason::ALL.len()],
    /// Connections ended for breaking the protocol or a limit.
    pub protocol_errors_total: u64,
    /// PUBLISH packets from clients and local publishes.
    pub messages_in_total: u64,
    /// PUBLISH packets to clients and local subscribers.
    pub messages_out_total: u64,
    /// Payload bytes of these.
    pub payload_bytes_in_total: u64,
    pub payload_bytes_out_total: u64,
    /// Messages lost to a full queue, an expiry or a client's own packet limit.
    pub messages_dropped_total: u64,
    /// Publishes and subscriptions the access rules refused.
    pub access_denied_total: u64,
    /// Clients disconnected because they did not read.
    pub slow_consumers_total: u64,
}

/// Why a CONNECT was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// Not a CONNECT, or not one that can be served.
    Malformed,
    Credentials,
    Expired,
    Certificate,
    TooManyFailures,
    ClientId,
    /// A last will on a topic of others, or an id that cannot stand in a topic.
    NotAllowed,
    Quota,
    Unavailable,
}

impl RefusalReason {
    pub const ALL: [RefusalReason; 9] = [
        Self::Malformed,
        Self::Credentials,
        Self::Expired,
        Self::Certificate,
        Self::TooManyFailures,
        Self::ClientId,
        Self::NotAllowed,
        Self::Quota,
        Self::Unavailable,
    ];

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Credentials => "credentials",
            Self::Expired => "expired",
            Self::Certificate => "certificate",
            Self::TooManyFailures => "too_many_failures",
            Self::ClientId => "client_id",
            Self::NotAllowed => "not_allowed",
            Self::Quota => "quota",
            Self::Unavailable => "unavailable",
        }
    }
}

impl BrokerStats {
    pub(crate) fn on_login_refused(&mut self, reason: RefusalReason) {
        self.logins_refused_total += 1;
        self.logins_refused[reason as usize] += 1;
    }

    pub fn logins_refused_for(&self, reason: RefusalReason) -> u64 {
        self.logins_refused[reason as usize]
    }
}

/// Changed several times for each message, so in place: the whole would be some 200 bytes to copy.
pub(crate) struct Counters(RefCell<BrokerStats>);

impl Counters {
    pub(crate) fn new() -> Self {
        Self(RefCell::default())
    }

    /// `change` calls nobody.
    pub(crate) fn update(&self, change: impl FnOnce(&mut BrokerStats)) {
        change(&mut self.0.borrow_mut());
    }

    pub(crate) fn get(&self) -> BrokerStats {
        *self.0.borrow()
    }

    pub(crate) fn queued_bytes(&self) -> u64 {
        self.0.borrow().queued_bytes
    }
}
