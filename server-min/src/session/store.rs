//! Where session records live: the interface that [`MemoryStore`](super::MemoryStore) implements for
//! one node, and [`RedisStore`](super::RedisStore) where several nodes serve the same sessions.

use super::closing::{By, Closing};
use super::listing::{Listed, Wanted};
use super::record::SessionRecord;
use sdk_core::wire::signal::{Path, SessionId, SessionState};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use tokio::sync::watch;

/// A store's answer. Boxed, so that the service can hold any store behind one pointer.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + 'a>>;

/// Keeps session records. Each call is atomic; each is told the time.
pub trait SessionStore {
    /// Keeps a new record. Refuses an id that is taken, and a record more than the bound.
    fn create(&self, record: SessionRecord, now_ms: u64) -> Answer<'_, ()>;

    /// The record, if it is there and has not expired.
    fn get(&self, id: SessionId, now_ms: u64) -> Answer<'_, Option<SessionRecord>>;

    /// Applies `change` to an open session and publishes the result to its watchers. `None` where
    /// there is no such session or it has been closed: a closed session stays closed. `known` is its
    /// record as it was read, by which a shared store need not read it again.
    fn update<'a>(
        &'a self,
        known: &'a SessionRecord,
        change: Change,
        now_ms: u64,
    ) -> Answer<'a, Option<Updated>>;

    /// Closes the session of `closing`, takes its TURN user name out of it, and lets
    /// [`on_closing`](SessionStore::on_closing) hear of it in every node. The record as it was before,
    /// or `None` where there was nothing left to close: so each close counts exactly once. `known` as
    /// above.
    fn close<'a>(
        &'a self,
        known: &'a SessionRecord,
        closing: Closing,
        now_ms: u64,
    ) -> Answer<'a, Option<SessionRecord>>;

    /// Open sessions nobody reported on for `idle_ms`, and those whose time to live has passed;
    /// at most `limit` of them. Records that are both closed and expired are forgotten on the way.
    ///
    /// A shared store finds what has expired `idle_ms` after its last report. And while it was away it
    /// could not hear of any: all that is counted from its return.
    fn stale(&self, now_ms: u64, idle_ms: u64, limit: usize) -> Answer<'_, Vec<SessionRecord>>;

    /// Open sessions, those that were heard of last first; bounded, whatever is there.
    fn list<'a>(&'a self, wanted: &'a Wanted, now_ms: u64) -> Answer<'a, Listed>;

    /// What is published on `session_updates:{id}`: the record after each change, the newest only
    /// where the watcher is slower. Ends when the record is forgotten. `None`: no such session.
    fn watch(&self, id: SessionId) -> Answer<'_, Option<watch::Receiver<SessionRecord>>>;

    /// Who is told of every closing, by whichever node; once for each, unless this node was away from
    /// a shared store for so long that the store has forgotten.
    fn on_closing(&self, hear: OnClosing);

    /// Whether this node may sweep now. It is the only one that may until it says
    /// [`end_sweep`](SessionStore::end_sweep), or is silent for half a minute: a long sweep asks again
    /// and again.
    fn begin_sweep(&self) -> Answer<'_, bool>;

    /// It is through. A shared store mends on the way what it counts by.
    fn end_sweep(&self) -> Answer<'_, ()>;

    /// Whether sessions can be kept and found right now, as far as is known; the error says why not.
    /// Asks nobody.
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    /// How many records there are, of all nodes where they share them. Asks nobody: a shared store says
    /// what it heard some seconds ago, and `None` while it is away.
    fn counts(&self) -> Option<Counts>;

    /// Whether other nodes keep their sessions here, too.
    fn is_shared(&self) -> bool {
        false
    }

    /// The bound on sessions from now on. Those that are there and too many stay.
    fn set_max(&self, max_sessions: usize);
}

/// Records by their state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub connecting: usize,
    pub connected: usize,
    pub closed: usize,
}

impl Counts {
    pub fn of_mut(&mut self, state: SessionState) -> &mut usize {
        match state {
            SessionState::Connecting => &mut self.connecting,
            SessionState::Connected => &mut self.connected,
            SessionState::Closed => &mut self.closed,
        }
    }
}

/// Hears of a closing, and by whom, at `now_ms`.
pub type OnClosing = Rc<dyn Fn(&Closing, By, u64)>;

/// What a report says about a session. Empty is a sign of life and nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    pub state: Option<SessionState>,
    pub path: Option<Path>,
    pub setup_ms: Option<u32>,
}

/// A record before and after a change, so that the caller can count what happened for the first
/// time.
#[derive(Debug, Clone, PartialEq)]
pub struct Updated {
    pub before: SessionRecord,
    pub after: SessionRecord,
}

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// The bound on sessions (or on those that are watched) is reached: try again later, or raise `session.max_sessions`.
    Full { max: usize },
    /// The session id is in use.
    Exists,
    /// The store cannot be reached, with the reason.
    Unavailable(String),
}

impl StoreError {
    /// As metrics name them.
    pub const LABELS: [&str; 3] = ["full", "exists", "unavailable"];

    /// Which of [`LABELS`](Self::LABELS) this one is.
    pub fn index(&self) -> usize {
        match self {
            StoreError::Full { .. } => 0,
            StoreError::Exists => 1,
            StoreError::Unavailable(_) => 2,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Full { max } => write!(f, "all {max} sessions are in use"),
            StoreError::Exists => f.write_str("the session id is in use"),
            StoreError::Unavailable(why) => write!(f, "the session store is unavailable: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}

impl Change {
    /// Applies itself to a record. A session goes from connecting to connected and never back, and
    /// its first set-up time stays. A relay seen by one side is one, whatever the other said: a
    /// relay that the viewer chose looks like any peer-reflexive address to the camera.
    pub fn apply(&self, record: &mut SessionRecord, now_ms: u64) {
        if let Some(state) = self.state
            && state != SessionState::Connecting
        {
            record.status = state;
        }
        record.path = match self.path {
            Some(Path::Relay) => self.path,
            said => record.path.or(said),
        };
        record.setup_ms = record.setup_ms.or(self.setup_ms);
        record.updated_at = record.updated_at.max(now_ms);
    }
}
