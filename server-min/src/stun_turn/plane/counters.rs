//! The relay's totals, gathered from all shards.

use crate::stun_turn::core::CoreStats;
use crate::stun_turn::refusals::SharedRefused;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Running totals, but for `allocations` and `connections`. Each shard adds to them once a wake-up.
#[derive(Debug, Default)]
pub struct TurnCounters {
    /// Alive now.
    pub allocations: AtomicU64,
    pub allocations_created: AtomicU64,
    pub bindings_ok: AtomicU64,
    pub bindings_refused: AtomicU64,
    /// All but Binding.
    pub requests_ok: AtomicU64,
    pub requests_refused: AtomicU64,
    /// Those of `requests_refused` with wrong or expired credentials.
    pub requests_unauthorized: AtomicU64,
    /// Bindings and others, by their error.
    pub refused: SharedRefused,
    pub packets_relayed: AtomicU64,
    pub bytes_relayed: AtomicU64,
    /// Over the bandwidth cap of a session, or of the node.
    pub packets_capped: AtomicU64,
    pub bytes_capped: AtomicU64,
    /// Those of `packets_capped` that were over the node's.
    pub packets_capped_by_node: AtomicU64,
    /// Payload that no permission or channel lets through, or to our own listeners.
    pub packets_denied: AtomicU64,
    /// Neither STUN nor ChannelData, or STUN that no client sends.
    pub packets_malformed: AtomicU64,
    /// Refused by the kernel (a full buffer, or no route), or too much for a slow client's stream.
    pub packets_unsent: AtomicU64,
    /// Clients by TCP, TLS and DTLS, now.
    pub connections: AtomicU64,
    /// Those that found no place.
    pub connections_refused: AtomicU64,
}

/// What one shard has counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) core: CoreStats,
    pub(super) allocations: u64,
    pub(super) unsent: u64,
    pub(super) connections: u64,
    pub(super) connections_refused: u64,
}

impl TurnCounters {
    /// Adds what has changed since `before`.
    pub(super) fn publish(&self, before: &Counts, now: &Counts) {
        let (old, new) = (&before.core, &now.core);
        let pairs = [
            (&self.allocations, before.allocations, now.allocations),
            (&self.allocations_created, old.allocations_created, new.allocations_created),
            (&self.bindings_ok, old.bindings_ok, new.bindings_ok),
            (&self.bindings_refused, old.bindings_refused, new.bindings_refused),
            (&self.requests_ok, old.requests_ok, new.requests_ok),
            (&self.requests_refused, old.requests_refused, new.requests_refused),
            (&self.requests_unauthorized, old.requests_unauthorized, new.requests_unauthorized),
            (&self.packets_relayed, old.packets_relayed, new.packets_relayed),
            (&self.bytes_relayed, old.bytes_relayed, new.bytes_relayed),
            (&self.packets_capped, old.packets_capped, new.packets_capped),
            (&self.bytes_capped, old.bytes_capped, new.bytes_capped),
            (&self.packets_capped_by_node, old.packets_capped_by_node, new.packets_capped_by_node),
            (&self.packets_denied, old.packets_denied, new.packets_denied),
            (&self.packets_malformed, old.packets_malformed, new.packets_malformed),
            (&self.packets_unsent, before.unsent, now.unsent),
            (&self.connections, before.connections, now.connections),
            (&self.connections_refused, before.connections_refused, now.connections_refused),
        ];
        for (counter, old, new) in pairs {
            if old != new {
                // Also right for what has become less.
                counter.fetch_add(new.wrapping_sub(old), Relaxed);
            }
        }
        self.refused.publish(&old.refused, &new.refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_add_up_and_a_gauge_goes_down_again() {
        let counters = TurnCounters::default();
        let zero = Counts::default();
        let one = Counts { allocations: 3, unsent: 1, ..zero };
        let two = Counts { allocations: 2, connections: 1, ..zero };
        counters.publish(&zero, &one);
        counters.publish(&zero, &two);
        assert_eq!(counters.allocations.load(Relaxed), 5);
        counters.publish(&one, &Counts { allocations: 0, ..one });
        counters.publish(&two, &zero);
        assert_eq!(counters.allocations.load(Relaxed), 0);
        assert_eq!(counters.connections.load(Relaxed), 0);
        assert_eq!(counters.packets_unsent.load(Relaxed), 1);
    }
}
