//! The session store of a single node: a bounded map in memory.

use super::closing::{By, Closing};
use super::record::SessionRecord;
use super::store::{Answer, Change, OnClosing, SessionStore, StoreError, Updated};
use sdk_core::wire::signal::SessionId;
use std::cell::RefCell;
use std::collections::HashMap;
use tokio::sync::watch;

/// Session records of this process. Full means full: nobody's open session makes room for another,
/// but what has been closed or has expired does.
pub struct MemoryStore {
    max: usize,
    sessions: RefCell<HashMap<SessionId, Entry>>,
    on_closing: RefCell<Option<OnClosing>>,
}

struct Entry {
    record: SessionRecord,
    /// Made when the first watcher comes.
    updates: Option<watch::Sender<SessionRecord>>,
}

impl MemoryStore {
    pub fn new(max_sessions: usize) -> MemoryStore {
        MemoryStore {
            max: max_sessions,
            sessions: RefCell::default(),
            on_closing: RefCell::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.sessions.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
            if sessions.len() >= self.max {
                // An expired but open one still owns a TURN allocation: the sweep takes it first.
                sessions.retain(|_, entry| !entry.record.is_closed());
            }
            if sessions.len() >= self.max {
                return Err(StoreError::Full { max: self.max });
            }
            debug_assert!(!record.is_expired(now_ms));
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

    fn update<'a>(
        &'a self,
        known: &'a SessionRecord,
        change: Change,
        now_ms: u64,
    ) -> Answer<'a, Option<Updated>> {
        Box::pin(async move {
            let mut sessions = self.sessions.borrow_mut();
            let Some(entry) = entry_of(&mut sessions, known) else { return Ok(None) };
            if entry.record.is_closed() || entry.record.is_expired(now_ms) {
                return Ok(None);
            }
            let before = entry.record.clone();
            change.apply(&mut entry.record, now_ms);
            entry.publish();
            Ok(Some(Updated { before, after: entry.record.clone() }))
        })
    }

    fn close<'a>(
        &'a self,
        known: &'a SessionRecord,
        closing: Closing,
        now_ms: u64,
    ) -> Answer<'a, Option<SessionRecord>> {
        Box::pin(async move {
            let before = match entry_of(&mut self.sessions.borrow_mut(), known) {
                Some(entry) if !entry.record.is_closed() => {
                    let before = entry.record.clone();
                    entry.record.close(now_ms);
                    entry.publish();
                    before
                }
                _ => return Ok(None),
            };
            let hear = self.on_closing.borrow().clone();
            if let Some(hear) = hear {
                hear(&closing, By::ThisNode, now_ms);
            }
            Ok(Some(before))
        })
    }

    fn stale(&self, now_ms: u64, idle_ms: u64, limit: usize) -> Answer<'_, Vec<SessionRecord>> {
        Box::pin(async move {
            let mut sessions = self.sessions.borrow_mut();
            sessions.retain(|_, e| !(e.record.is_closed() && e.record.is_expired(now_ms)));
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

    fn on_closing(&self, hear: OnClosing) {
        self.on_closing.replace(Some(hear));
    }

    fn begin_sweep(&self) -> Answer<'_, bool> {
        Box::pin(async { Ok(true) })
    }

    fn end_sweep(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

fn entry_of<'a>(
    sessions: &'a mut HashMap<SessionId, Entry>,
    known: &SessionRecord,
) -> Option<&'a mut Entry> {
    sessions.get_mut(&SessionId::parse(&known.session_id)?)
}
