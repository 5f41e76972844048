//! The session store of a single node: a bounded map in memory.

use super::record::SessionRecord;
use super::store::{Answer, Change, Counts, SessionStore, StoreError, Updated};
use sdk_core::wire::signal::{SessionId, SessionState};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use tokio::sync::watch;

/// Session records of this process. Full means full: nobody's open session makes room for another,
/// but what has been closed or has expired does.
pub struct MemoryStore {
    max: Cell<usize>,
    sessions: RefCell<HashMap<SessionId, Entry>>,
    counts: Cell<Counts>,
}

struct Entry {
    record: SessionRecord,
    /// Made when the first watcher comes.
    updates: Option<watch::Sender<SessionRecord>>,
}

impl MemoryStore {
    pub fn new(max_sessions: usize) -> MemoryStore {
        MemoryStore {
            max: Cell::new(max_sessions),
            sessions: RefCell::default(),
            counts: Cell::default(),
        }
    }

    /// From now on. Those that are there and too many stay.
    pub fn set_max(&self, max_sessions: usize) {
        self.max.set(max_sessions);
    }

    pub fn len(&self) -> usize {
        self.sessions.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One record came, went, or changed its state.
    fn count(&self, before: Option<SessionState>, after: Option<SessionState>) {
        let mut counts = self.counts.get();
        if let Some(state) = before {
            *counts.of_mut(state) -= 1;
        }
        if let Some(state) = after {
            *counts.of_mut(state) += 1;
        }
        self.counts.set(counts);
    }

    fn forget(
        &self,
        sessions: &mut HashMap<SessionId, Entry>,
        which: impl Fn(&SessionRecord) -> bool,
    ) {
        sessions.retain(|_, entry| {
            let forgotten = which(&entry.record);
            if forgotten {
                self.count(Some(entry.record.status), None);
            }
            !forgotten
        });
    }
}

impl Entry {
    fn publish(&self) {
        if let Some(updates) = &self.updates {
            updates.send_replace(self.record.clone());
        }
    }
}

impl SessionStore for MemoryStore {
    fn create(&self, record: SessionRecord, now_ms: u64) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut sessions = self.sessions.borrow_mut();
            let id = SessionId::parse(&record.session_id)
                .ok_or_else(|| StoreError::Unavailable("the session id is not a UUID".into()))?;
            if sessions.contains_key(&id) {
                return Err(StoreError::Exists);
            }
            let max = self.max.get();
            if sessions.len() >= max {
                // An expired but open one still owns a TURN allocation: the sweep takes it first.
                self.forget(&mut sessions, SessionRecord::is_closed);
            }
            if sessions.len() >= max {
                return Err(StoreError::Full { max });
            }
            debug_assert!(!record.is_expired(now_ms));
            self.count(None, Some(record.status));
            sessions.insert(id, Entry { record, updates: None });
            Ok(())
        })
    }

    fn get(&self, id: SessionId, now_ms: u64) -> Answer<'_, Option<SessionRecord>> {
        Box::pin(async move {
            let sessions = self.sessions.borrow();
            let record = sessions.get(&id).map(|entry| &entry.record);
            Ok(record.filter(|r| !r.is_expired(now_ms)).cloned())
        })
    }

    fn update(&self, id: SessionId, change: Change, now_ms: u64) -> Answer<'_, Option<Updated>> {
        Box::pin(async move {
            let mut sessions = self.sessions.borrow_mut();
            let Some(entry) = sessions.get_mut(&id) else { return Ok(None) };
            if entry.record.is_closed() || entry.record.is_expired(now_ms) {
                return Ok(None);
            }
            let before = entry.record.clone();
            change.apply(&mut entry.record, now_ms);
            self.count(Some(before.status), Some(entry.record.status));
            entry.publish();
            Ok(Some(Updated { before, after: entry.record.clone() }))
        })
    }

    fn close(&self, id: SessionId, now_ms: u64) -> Answer<'_, Option<SessionRecord>> {
        Box::pin(async move {
            let mut sessions = self.sessions.borrow_mut();
            let Some(entry) = sessions.get_mut(&id) else { return Ok(None) };
            if entry.record.is_closed() {
                return Ok(None);
            }
            let before = entry.record.clone();
            entry.record.status = SessionState::Closed;
            self.count(Some(before.status), Some(SessionState::Closed));
            entry.record.turn_allocation = None;
            entry.record.updated_at = entry.record.updated_at.max(now_ms);
            entry.publish();
            Ok(Some(before))
        })
    }

    fn stale(&self, now_ms: u64, idle_ms: u64, limit: usize) -> Answer<'_, Vec<SessionRecord>> {
        Box::pin(async move {
            let mut sessions = self.sessions.borrow_mut();
            self.forget(&mut sessions, |r| r.is_closed() && r.is_expired(now_ms));
            let stale = sessions.values().map(|entry| &entry.record).filter(|record| {
                !record.is_closed()
                    && (record.is_stale(now_ms, idle_ms) || record.is_expired(now_ms))
            });
            Ok(stale.take(limit).cloned().collect())
        })
    }

    fn watch(&self, id: SessionId) -> Answer<'_, Option<watch::Receiver<SessionRecord>>> {
        Box::pin(async move {
            let mut sessions = self.sessions.borrow_mut();
            let Some(entry) = sessions.get_mut(&id) else { return Ok(None) };
            let record = &entry.record;
            let updates = entry.updates.get_or_insert_with(|| watch::Sender::new(record.clone()));
            Ok(Some(updates.subscribe()))
        })
    }

    fn counts(&self) -> Option<Counts> {
        Some(self.counts.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::record::SESSION_TTL_S;
    use sdk_core::wire::signal::Path;

    const MINUTE_MS: u64 = 60_000;

    fn id(n: u8) -> SessionId {
        SessionId::from_random([n; 16])
    }

    fn record(n: u8, now_ms: u64) -> SessionRecord {
        SessionRecord {
            session_id: id(n).to_string(),
            device_id: "device_1".into(),
            app_id: "app_1".into(),
            status: SessionState::Connecting,
            stun_server: "192.0.2.1:3478".into(),
            turn_allocation: Some(format!("99:{}", id(n))),
            created_at: now_ms,
            updated_at: now_ms,
            ttl: SESSION_TTL_S,
            path: None,
            setup_ms: None,
            region: None,
            bandwidth_bps: None,
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn the_record_has_the_fields_of_the_contract() {
        let json = serde_json::to_value(record(1, 5)).unwrap();
        let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = vec![
            "sessionId",
            "deviceId",
            "appId",
            "status",
            "stunServer",
            "turnAllocation",
            "createdAt",
            "updatedAt",
            "ttl",
        ];
        expected.sort_unstable();
        assert_eq!(keys, expected);
        assert_eq!(json["status"], "connecting");
        assert_eq!(json["ttl"], 86_400);
        assert_eq!(SessionRecord::key("x"), "session:x");
        assert_eq!(SessionRecord::updates_channel("x"), "session_updates:x");
    }

    #[test]
    fn a_full_store_refuses_but_closed_sessions_make_room() {
        run(async {
            let store = MemoryStore::new(2);
            store.create(record(1, 0), 0).await.unwrap();
            assert_eq!(store.create(record(1, 0), 0).await, Err(StoreError::Exists));
            store.create(record(2, 0), 0).await.unwrap();
            assert_eq!(store.create(record(3, 0), 0).await, Err(StoreError::Full { max: 2 }));
            store.close(id(1), 1).await.unwrap().unwrap();
            store.create(record(3, 0), 2).await.unwrap();
            assert_eq!(store.len(), 2);
        });
    }

    #[test]
    fn a_session_is_closed_once_and_stays_closed() {
        run(async {
            let store = MemoryStore::new(2);
            store.create(record(1, 0), 0).await.unwrap();
            let before = store.close(id(1), 10).await.unwrap().unwrap();
            assert!(before.turn_allocation.is_some());
            assert_eq!(store.close(id(1), 11).await.unwrap(), None);
            let report = Change { state: Some(SessionState::Connected), ..Change::default() };
            assert_eq!(store.update(id(1), report, 12).await.unwrap(), None);
            let after = store.get(id(1), 12).await.unwrap().unwrap();
            assert_eq!((after.status, after.turn_allocation), (SessionState::Closed, None));
        });
    }

    #[test]
    fn watchers_see_each_change() {
        run(async {
            let store = MemoryStore::new(2);
            assert!(store.watch(id(1)).await.unwrap().is_none());
            store.create(record(1, 0), 0).await.unwrap();
            let mut updates = store.watch(id(1)).await.unwrap().unwrap();
            let connected = Change {
                state: Some(SessionState::Connected),
                path: Some(Path::Prflx),
                setup_ms: Some(120),
            };
            store.update(id(1), connected, 7).await.unwrap().unwrap();
            updates.changed().await.unwrap();
            let seen = updates.borrow_and_update().clone();
            assert_eq!((seen.status, seen.path), (SessionState::Connected, Some(Path::Prflx)));
            assert_eq!(seen.updated_at, 7);
            // What is relayed for one side is relayed, and the other may not know.
            for (said, kept) in
                [(Path::Host, Path::Prflx), (Path::Relay, Path::Relay), (Path::Prflx, Path::Relay)]
            {
                let change = Change { path: Some(said), ..Change::default() };
                let updated = store.update(id(1), change, 7).await.unwrap().unwrap();
                assert_eq!(updated.after.path, Some(kept));
            }
            // A late `connecting` of the other side does not take the connection back.
            let late = Change { state: Some(SessionState::Connecting), ..Change::default() };
            let updated = store.update(id(1), late, 8).await.unwrap().unwrap();
            assert_eq!(updated.after.status, SessionState::Connected);
        });
    }

    #[test]
    fn stale_and_expired_sessions_are_found_in_virtual_time() {
        run(async {
            let (store, idle_ms) = (MemoryStore::new(9), 5 * MINUTE_MS);
            store.create(record(1, 0), 0).await.unwrap();
            store.create(record(2, 0), 0).await.unwrap();
            store.update(id(2), Change::default(), 4 * MINUTE_MS).await.unwrap().unwrap();
            assert!(store.stale(5 * MINUTE_MS - 1, idle_ms, 9).await.unwrap().is_empty());
            let stale = store.stale(5 * MINUTE_MS, idle_ms, 9).await.unwrap();
            assert_eq!(stale.len(), 1);
            assert_eq!(stale[0].session_id, id(1).to_string());
            assert_eq!(store.stale(20 * MINUTE_MS, idle_ms, 1).await.unwrap().len(), 1);
            // After its time to live a record is not shown; once closed it is forgotten.
            let end_ms = SESSION_TTL_S * 1000;
            assert_eq!(store.get(id(1), end_ms).await.unwrap(), None);
            store.close(id(1), end_ms).await.unwrap().unwrap();
            store.stale(end_ms, u64::MAX, 9).await.unwrap();
            assert_eq!(store.len(), 1);
        });
    }

    #[test]
    fn records_are_counted_by_state() {
        run(async {
            let store = MemoryStore::new(2);
            let counts = || {
                let Counts { connecting, connected, closed } = store.counts().unwrap();
                (connecting, connected, closed)
            };
            for n in [1, 2] {
                store.create(record(n, 0), 0).await.unwrap();
            }
            let connected = Change { state: Some(SessionState::Connected), ..Change::default() };
            for _ in 0..2 {
                store.update(id(1), connected, 1).await.unwrap();
            }
            assert_eq!(counts(), (1, 1, 0));
            for _ in 0..2 {
                store.close(id(2), 2).await.unwrap();
            }
            assert_eq!(counts(), (0, 1, 1));
            // Full: what is closed makes room.
            store.create(record(3, 3), 3).await.unwrap();
            assert_eq!(counts(), (1, 1, 0));
            store.set_max(3);
            store.create(record(4, 3), 3).await.unwrap();
            store.close(id(1), 4).await.unwrap();
            store.stale(SESSION_TTL_S * 1000, u64::MAX, 9).await.unwrap();
            assert_eq!(counts(), (2, 0, 0));
        });
    }
}
