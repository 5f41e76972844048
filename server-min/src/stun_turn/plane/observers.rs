//! Who is told what becomes of allocations: the log, and an observer.

use crate::stun_turn::core::CoreEvent;
use crate::stun_turn::credentials::session_of;
use std::net::SocketAddr;
use std::sync::Arc;

/// Is told about allocations, on the shards' threads: it must not block.
pub trait TurnObserver: Send + Sync + 'static {
    fn allocation_created(&self, allocation: &AllocationInfo<'_>);
    fn allocation_freed(&self, allocation: &AllocationInfo<'_>, relayed: Relayed);
}

/// For whoever does not care.
impl TurnObserver for () {
    fn allocation_created(&self, _: &AllocationInfo<'_>) {}
    fn allocation_freed(&self, _: &AllocationInfo<'_>, _: Relayed) {}
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllocationInfo<'a> {
    pub username: &'a str,
    /// The part after the expiry; the whole name if it has none.
    pub session_id: &'a str,
    pub relayed: SocketAddr,
}

/// Payload bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed {
    pub to_peers: u64,
    pub to_client: u64,
}

/// The log, and the server's own observer.
#[derive(Clone)]
pub(super) struct Observers {
    pub(super) observer: Arc<dyn TurnObserver>,
}

impl Observers {
    pub(super) fn tell(&self, event: CoreEvent) {
        match event {
            CoreEvent::Created { username, relayed } => {
                let session_id = session_of(&username);
                log::info!("sessionId={session_id} TURN allocation {relayed}");
                let info = AllocationInfo { username: &username, session_id, relayed };
                self.observer.allocation_created(&info);
            }
            CoreEvent::Freed { username, relayed, bytes_to_peer, bytes_to_client } => {
                let session_id = session_of(&username);
                log::info!(
                    "sessionId={session_id} TURN allocation {relayed} freed; {bytes_to_peer} bytes \
                     to peers, {bytes_to_client} to the client"
                );
                let info = AllocationInfo { username: &username, session_id, relayed };
                let relayed = Relayed { to_peers: bytes_to_peer, to_client: bytes_to_client };
                self.observer.allocation_freed(&info, relayed);
            }
        }
    }
}
