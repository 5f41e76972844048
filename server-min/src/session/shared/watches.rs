//! Who watches which session in this process.

use crate::session::record::SessionRecord;
use sdk_core::wire::signal::{SessionId, SessionState};
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use tokio::sync::watch;

/// Sessions that may be watched at a time.
pub(super) const MAX_WATCHED: usize = 10_000;

#[derive(Default)]
pub(super) struct Watches {
    senders: RefCell<HashMap<SessionId, watch::Sender<SessionRecord>>>,
}

impl Watches {
    /// One more watcher of a session that is watched already.
    pub(super) fn join(&self, id: SessionId) -> Option<watch::Receiver<SessionRecord>> {
        self.senders.borrow().get(&id).map(watch::Sender::subscribe)
    }

    /// `None` where there are too many.
    pub(super) fn add(
        &self,
        id: SessionId,
        record: SessionRecord,
    ) -> Option<watch::Receiver<SessionRecord>> {
        let mut senders = self.senders.borrow_mut();
        let full = senders.len() >= MAX_WATCHED;
        match senders.entry(id) {
            Entry::Occupied(there) => Some(there.get().subscribe()),
            Entry::Vacant(_) if full => None,
            Entry::Vacant(place) => Some(place.insert(watch::Sender::new(record)).subscribe()),
        }
    }

    /// A record as it was announced or read. The two may come in any order: a session's time goes on
    /// and its status goes one way, so what is older can be told.
    pub(super) fn offer(&self, id: SessionId, record: SessionRecord) {
        if let Some(sender) = self.senders.borrow().get(&id) {
            sender.send_if_modified(|known| {
                let newer = age(&record) >= age(known) && record != *known;
                if newer {
                    *known = record;
                }
                newer
            });
        }
    }

    /// The session is gone: its watchers are told.
    pub(super) fn end(&self, id: SessionId) {
        self.senders.borrow_mut().remove(&id);
    }

    pub(super) fn ids(&self) -> Vec<SessionId> {
        self.senders.borrow().keys().copied().collect()
    }

    /// Forgets, and returns, what nobody watches any more or has expired.
    pub(super) fn prune(&self, now_ms: u64) -> Vec<SessionId> {
        let over = |sender: &mut watch::Sender<SessionRecord>| {
            sender.receiver_count() == 0 || sender.borrow().is_expired(now_ms)
        };
        self.senders.borrow_mut().extract_if(|_, sender| over(sender)).map(|(id, _)| id).collect()
    }
}

fn age(record: &SessionRecord) -> (u64, u8) {
    let step = match record.status {
        SessionState::Connecting => 0,
        SessionState::Connected => 1,
        SessionState::Closed => 2,
    };
    (record.updated_at, step)
}
