//! The session store that several nodes share: Redis.
//!
//! ```text
//! session:{id}          the record as JSON; Redis forgets it after its ttl
//! sessions              sorted set of the open ones, by updatedAt: what the sweep looks at, and the bound
//! sessions:connected    set of those that are connected
//! sessions:closed       hash: how many are closed, by when Redis forgets them
//! session_updates:{id}  channel: the record after each change
//! session_closed        stream of closings, each announced on the channel of the same name
//! sessions:sweep        lock of the node that sweeps
//! ```
//!
//! Every change is one script (`scripts.rs`): a step for everybody, a round trip for us. Closings are
//! acted upon where they are heard, by the node that closed as well: whose answer was lost, acts all the
//! same, and whoever was away reads on in the stream from where it was.

mod config;
mod counting;
mod keys;
mod link;
mod listening;
mod listing;
mod scripts;
mod stale;
mod watches;

pub use config::{RedisUrl, StoreConfig};

use super::closing::Closing;
use super::credentials::hex;
use super::keys::random;
use super::listing::{Listed, Wanted};
use super::memory::MemoryStore;
use super::record::SessionRecord;
use super::store::{Answer, Change, Counts, OnClosing, SessionStore, StoreError, Updated};
use crate::config::Config;
use keys::{Entry, Keys};
use link::{Link, read};
use redis::{Value, cmd};
use scripts::{CLOSINGS_KEPT, Scripts};
use sdk_core::wire::signal::{SessionId, SessionState};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use watches::{MAX_WATCHED, Watches};

/// The store that the settings ask for: Redis, or memory.
pub async fn open(config: &Config) -> Result<Rc<dyn SessionStore>, String> {
    let max = config.session.max_sessions;
    Ok(match &config.store.redis {
        Some(url) => Rc::new(RedisStore::start(&config.store, url, max).await?),
        None => Rc::new(MemoryStore::new(max)),
    })
}

/// What is made anew by each node unless it is set, no other node can check.
pub fn warn_of_gaps(config: &Config) {
    for (setting, is_set) in [
        ("session.signing_key_file", config.session.signing_key_file.is_some()),
        ("mqtt.app_secret", config.mqtt.app_secret.is_some()),
        ("turn.secrets", !config.turn.secrets.is_empty()),
    ] {
        if config.store.redis.is_some() && !is_set {
            log::warn!("set {setting}, and to the same in all nodes that share store.redis");
        }
    }
}

/// How often a change is tried while others change the same record: two sides report, each every 20 s.
const TRIES: usize = 8;
/// A node that sweeps and says nothing for so long has died.
const SWEEP_LOCK: Duration = Duration::from_secs(30);
/// How long a start waits for Redis, before it goes on without.
const START_PATIENCE: Duration = Duration::from_secs(1);

/// Session records in Redis, shared by all nodes that use the same one.
pub struct RedisStore {
    inner: Rc<Inner>,
    task: JoinHandle<()>,
}

struct Inner {
    link: Link,
    keys: Keys,
    scripts: Scripts,
    max: Cell<usize>,
    /// Which node we are, for this life.
    node: String,
    watches: Watches,
    on_closing: RefCell<Option<OnClosing>>,
    /// The last closing that was acted upon: its place in the stream.
    heard: RefCell<Option<String>>,
    steady: Cell<Steady>,
    /// As Redis said last; `None` while it is away.
    counts: Cell<Option<Counts>>,
    /// The time, as we were told last.
    now_ms: Cell<u64>,
}

/// Since when Redis could hear of every report.
#[derive(Clone, Copy, Default)]
struct Steady {
    connection: u64,
    since_ms: u64,
}

/// What a change found.
enum Found {
    /// What was expected, and changed it.
    AsKnown,
    Other(String),
    Nothing,
}

impl RedisStore {
    /// Connects, and waits a moment for that; goes on trying for ever. The error is about the settings.
    pub async fn start(config: &StoreConfig, url: &RedisUrl, max: usize) -> Result<Self, String> {
        let node = random::<8>().map_err(|e| e.to_string())?;
        let inner = Rc::new(Inner {
            link: Link::new(config, url)?,
            keys: Keys::new(&config.prefix),
            scripts: Scripts::new(),
            max: Cell::new(max),
            node: hex(&node),
            watches: Watches::default(),
            on_closing: RefCell::default(),
            heard: RefCell::default(),
            steady: Cell::default(),
            counts: Cell::default(),
            now_ms: Cell::default(),
        });
        let (tried, mut first_try) = watch::channel(false);
        let task = tokio::task::spawn_local(listening::keep(inner.clone(), tried));
        let _ = tokio::time::timeout(START_PATIENCE, first_try.wait_for(|tried| *tried)).await;
        Ok(RedisStore { inner, task })
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.task.abort();
        self.inner.link.give_up("the store was closed");
    }
}

impl SessionStore for RedisStore {
    fn create(&self, record: SessionRecord, now_ms: u64) -> Answer<'_, ()> {
        Box::pin(async move {
            let inner = &*self.inner;
            inner.note(now_ms);
            debug_assert!(!record.is_expired(now_ms));
            let id = &record.session_id;
            let mut call = inner.scripts.create.prepare_invoke();
            call.key(inner.keys.record(id)).key(&inner.keys.open);
            call.arg(to_json(&record)?).arg(record.ttl).arg(record.updated_at);
            call.arg(Entry::of(&record).to_string())
                .arg(inner.max.get())
                .arg(inner.keys.updates(id));
            let answer: String = read(inner.link.call(&call).await?)?;
            match answer.as_str() {
                "made" => Ok(()),
                "exists" => Err(StoreError::Exists),
                _ => Err(StoreError::Full { max: inner.max.get() }),
            }
        })
    }

    fn get(&self, id: SessionId, now_ms: u64) -> Answer<'_, Option<SessionRecord>> {
        Box::pin(async move {
            self.inner.note(now_ms);
            let record = self.inner.read(id).await?;
            Ok(record.filter(|record| !record.is_expired(now_ms)))
        })
    }

    fn update<'a>(
        &'a self,
        known: &'a SessionRecord,
        change: Change,
        now_ms: u64,
    ) -> Answer<'a, Option<Updated>> {
        Box::pin(async move {
            let inner = &*self.inner;
            inner.note(now_ms);
            let (mut before, mut expected) = (known.clone(), to_json(known)?);
            for _ in 0..TRIES {
                if before.is_closed() || before.is_expired(now_ms) {
                    return Ok(None);
                }
                let mut after = before.clone();
                change.apply(&mut after, now_ms);
                match inner.replace(&expected, &after).await? {
                    Found::AsKnown => return Ok(Some(Updated { before, after })),
                    Found::Nothing => return Ok(None),
                    Found::Other(text) => (before, expected) = (from_json(&text)?, text),
                }
            }
            Err(contended(&known.session_id))
        })
    }

    fn close<'a>(
        &'a self,
        known: &'a SessionRecord,
        closing: Closing,
        now_ms: u64,
    ) -> Answer<'a, Option<SessionRecord>> {
        Box::pin(async move {
            let inner = &*self.inner;
            inner.note(now_ms);
            let (mut before, mut expected) = (known.clone(), to_json(known)?);
            for _ in 0..TRIES {
                if before.is_closed() {
                    return Ok(None);
                }
                let mut after = before.clone();
                after.close(now_ms);
                match inner.close(&expected, &after, &closing).await? {
                    Found::AsKnown => return Ok(Some(before)),
                    Found::Nothing => return Ok(None),
                    Found::Other(text) => (before, expected) = (from_json(&text)?, text),
                }
            }
            Err(contended(&known.session_id))
        })
    }

    fn stale(&self, now_ms: u64, idle_ms: u64, limit: usize) -> Answer<'_, Vec<SessionRecord>> {
        Box::pin(async move {
            self.inner.note(now_ms);
            self.inner.stale(now_ms, idle_ms, limit).await
        })
    }

    fn list<'a>(&'a self, wanted: &'a Wanted, now_ms: u64) -> Answer<'a, Listed> {
        Box::pin(async move {
            self.inner.note(now_ms);
            self.inner.list(wanted, now_ms).await
        })
    }

    fn watch(&self, id: SessionId) -> Answer<'_, Option<watch::Receiver<SessionRecord>>> {
        Box::pin(async move { self.inner.watch(id).await })
    }

    fn on_closing(&self, hear: OnClosing) {
        self.inner.on_closing.replace(Some(hear));
    }

    fn begin_sweep(&self) -> Answer<'_, bool> {
        Box::pin(async move {
            let inner = &*self.inner;
            let mut call = inner.scripts.lock.key(&inner.keys.sweep_lock);
            call.arg(&inner.node).arg(SWEEP_LOCK.as_millis() as u64);
            let got: i64 = read(inner.link.call(&call).await?)?;
            Ok(got == 1)
        })
    }

    fn end_sweep(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let inner = &*self.inner;
            inner.mend_counts().await?;
            let mut call = inner.scripts.unlock.key(&inner.keys.sweep_lock);
            call.arg(&inner.node);
            inner.link.call(&call).await.map(drop)
        })
    }

    fn ready(&self) -> Result<(), String> {
        self.inner.link.ready()
    }

    fn counts(&self) -> Option<Counts> {
        self.inner.counts.get()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn set_max(&self, max_sessions: usize) {
        self.inner.max.set(max_sessions);
    }
}

impl Inner {
    /// Notes the time, and that of the first call of each connection.
    fn note(&self, now_ms: u64) {
        self.now_ms.set(now_ms);
        let connection = self.link.number();
        if self.steady.get().connection != connection {
            self.steady.set(Steady { connection, since_ms: now_ms });
        }
    }

    async fn read(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        let mut get = cmd("GET");
        get.arg(self.keys.record(&id.to_string()));
        let text: Option<String> = read(self.link.ask(&get).await?)?;
        text.map(|text| from_json(&text)).transpose()
    }

    async fn replace(&self, expected: &str, new: &SessionRecord) -> Result<Found, StoreError> {
        let mut call = self.scripts.update.key(self.keys.record(&new.session_id));
        call.key(&self.keys.open).key(&self.keys.connected);
        call.arg(expected).arg(to_json(new)?).arg(new.updated_at);
        call.arg(Entry::of(new).to_string()).arg(self.keys.updates(&new.session_id));
        call.arg(u8::from(new.status == SessionState::Connected));
        found(self.link.call(&call).await?)
    }

    async fn close(
        &self,
        expected: &str,
        new: &SessionRecord,
        closing: &Closing,
    ) -> Result<Found, StoreError> {
        let closing = serde_json::to_string(closing).map_err(unreadable)?;
        let mut call = self.scripts.close.key(self.keys.record(&new.session_id));
        call.key(&self.keys.open).key(&self.keys.closings);
        call.key(&self.keys.connected).key(&self.keys.closed);
        call.arg(expected).arg(to_json(new)?).arg(Entry::of(new).to_string());
        call.arg(self.keys.updates(&new.session_id))
            .arg(CLOSINGS_KEPT)
            .arg(&self.node)
            .arg(closing);
        found(self.link.call(&call).await?)
    }

    async fn watch(
        &self,
        id: SessionId,
    ) -> Result<Option<watch::Receiver<SessionRecord>>, StoreError> {
        if let Some(watcher) = self.watches.join(id) {
            return Ok(Some(watcher));
        }
        // Before it is subscribed to, so that no announcement finds nobody; and read again after that,
        // so that no change falls between the two.
        let Some(record) = self.read(id).await? else { return Ok(None) };
        let Some(watcher) = self.watches.add(id, record) else {
            return Err(StoreError::Full { max: MAX_WATCHED });
        };
        self.link.subscribe(&[self.keys.updates(&id.to_string())]).await?;
        match self.read(id).await? {
            Some(record) => self.watches.offer(id, record),
            None => self.watches.end(id),
        }
        Ok(Some(watcher))
    }
}

fn found(value: Value) -> Result<Found, StoreError> {
    match value {
        Value::Nil => Ok(Found::Nothing),
        Value::BulkString(bytes) => String::from_utf8(bytes).map(Found::Other).map_err(unreadable),
        _ => Ok(Found::AsKnown),
    }
}

fn to_json(record: &SessionRecord) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(unreadable)
}

fn from_json(text: &str) -> Result<SessionRecord, StoreError> {
    serde_json::from_str(text).map_err(unreadable)
}

fn unreadable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("its record is not one of ours: {error}"))
}

fn contended(session_id: &str) -> StoreError {
    StoreError::Unavailable(format!("{session_id} was changed by others {TRIES} times meanwhile"))
}
