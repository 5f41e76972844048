//! What the broker counts. One thread owns the counters, so plain cells do.

use super::access::Role;
use std::cell::Cell;

/// A snapshot for metrics. Totals only grow; what comes before them are gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerStats {
    pub connections: u64,
    /// Clients signed in, by role.
    pub devices: u64,
    pub apps: u64,
    /// Services and operators.
    pub others: u64,
    /// Online and offline ones.
    pub sessions: u64,
    pub subscriptions: u64,
    pub retained_messages: u64,
    /// Bytes waiting or in flight in all sessions.
    pub queued_bytes: u64,

    pub connections_total: u64,
    /// Closed at accept because of `max_connections` or `max_connecting`.
    pub connections_refused_total: u64,
    /// CONNECTs answered with a refusal.
    pub logins_refused_total: u64,
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

impl BrokerStats {
    pub(crate) fn signed_in_mut(&mut self, role: Role) -> &mut u64 {
        match role {
            Role::Device => &mut self.devices,
            Role::App => &mut self.apps,
            Role::Service | Role::Admin => &mut self.others,
        }
    }
}

pub(crate) struct Counters(Cell<BrokerStats>);

impl Counters {
    pub(crate) fn new() -> Self {
        Self(Cell::new(BrokerStats::default()))
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut BrokerStats)) {
        let mut stats = self.0.get();
        change(&mut stats);
        self.0.set(stats);
    }

    pub(crate) fn get(&self) -> BrokerStats {
        self.0.get()
    }
}
