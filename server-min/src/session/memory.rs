//! The session store of a single node: a bounded map in memory.

use super::closing::{By, Closing};
use super::listing::{Listed, Place, Wanted};
use super::record::SessionRecord;
use super::store::{Answer, Change, Counts, OnClosing, SessionStore, StoreError, Updated};
use sdk_core::wire::signal::{SessionId, SessionState};
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::HashMap;
use tokio::sync::watch;

/// Session records of this process. Full means full: nobody's open session makes room for another,
/// but what has been closed or has expired does.
pub struct MemoryStore {
    max: Cell<usize>,
    sessions: RefCell<HashMap<SessionId, Entry>>,
    counts: Cell<Counts>,
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
            max: Cell::new(max_sessions),
            sessions: RefCell::default(),
            counts: Cell::default(),
            on_closing: RefCell::default(),
        }
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
            self.count(Some(before.status), Some(entry.record.status));
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
                    self.count(Some(before.status), Some(entry.record.status));
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
            self.forget(&mut sessions, |r| r.is_closed() && r.is_expired(now_ms));
            let stale = sessions.values().map(|entry| &entry.record).filter(|record| {
                !record.is_closed()
                    && (record.is_stale(now_ms, idle_ms) || record.is_expired(now_ms))
            });
            Ok(stale.take(limit).cloned().collect())
        })
    }

    /// Looks at every record there is: of 100,000 that takes some milliseconds, so it is for people.
    fn list<'a>(&'a self, wanted: &'a Wanted, now_ms: u64) -> Answer<'a, Listed> {
        Box::pin(async move {
            let Counts { connecting, connected, .. } = self.counts.get();
            let mut listed = Listed { open: connecting + connected, ..Listed::default() };
            let (sessions, limit) = (self.sessions.borrow(), wanted.limit());
            if limit == 0 {
                return Ok(listed);
            }
            let place = |id: SessionId, r: &SessionRecord| Place {
                updated_at: r.updated_at,
                session_id: id,
            };
            let mut found: Vec<(Place, &SessionRecord)> = sessions
                .iter()
                .map(|(id, entry)| (place(*id, &entry.record), &entry.record))
                .filter(|(place, r)| {
                    !r.is_closed()
                        && !r.is_expired(now_ms)
                        && wanted.is_behind(*place)
                        && wanted.state_fits(r)
                        && wanted.names(&r.session_id, &r.device_id, &r.app_id)
                })
                .collect();
            let has_more = found.len() > limit;
            if has_more {
                // Only what is shown has to be in order.
                found.select_nth_unstable_by_key(limit, |(place, _)| Reverse(*place));
                found.truncate(limit);
            }
            found.sort_unstable_by_key(|(place, _)| Reverse(*place));
            listed.next = found.last().filter(|_| has_more).map(|(place, _)| *place);
            listed.sessions = found.into_iter().map(|(_, record)| record.clone()).collect();
            Ok(listed)
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

    fn set_max(&self, max_sessions: usize) {
        self.max.set(max_sessions);
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
