//! What sessions have relayed so far, for whoever watches the node.
//!
//! An allocation counts its own bytes anyway, for the log line at its end. A shard is asked by a command
//! and reads these: no packet meets anything that would not be there without it.

use super::core::Core;
use super::relays::RelayId;
use std::ops::AddAssign;

/// Of the allocations that a session has now; what those before them relayed is forgotten with them. A
/// payload that goes from one of its allocations to another counts with both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub allocations: usize,
    pub bytes_to_peers: u64,
    pub bytes_to_clients: u64,
}

/// Sessions asked about in one command; what is asked beyond is not answered. So a shard is held up by
/// no more than a look-up for each.
pub const MAX_ASKED: usize = 200;

impl Traffic {
    pub fn bytes(&self) -> u64 {
        self.bytes_to_peers + self.bytes_to_clients
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        self.allocations += other.allocations;
        self.bytes_to_peers += other.bytes_to_peers;
        self.bytes_to_clients += other.bytes_to_clients;
    }
}

impl Core {
    /// Of a session's allocations here; as many steps as it has relay sockets, which its quota bounds.
    pub fn traffic_of(&self, session: &str) -> Traffic {
        let mut traffic = Traffic::default();
        let mut at: Option<RelayId> = self.sessions.get(session).copied();
        while let Some(relay) = at.and_then(|id| self.relays.get(id.0 as usize)) {
            if let Some(allocation) = self.allocations.get(relay.owner) {
                traffic += Traffic {
                    allocations: 1,
                    bytes_to_peers: allocation.bytes_to_peer,
                    bytes_to_clients: allocation.bytes_to_client,
                };
            }
            at = relay.next;
        }
        traffic
    }
}
