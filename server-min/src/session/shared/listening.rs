//! Keeps the connection, and hears what other nodes do.

use super::Inner;
use super::link::{Opened, read};
use crate::clock;
use crate::session::closing::{By, Closing};
use crate::session::keys::random;
use crate::session::store::StoreError;
use redis::{PushInfo, PushKind, Value, cmd};
use sdk_core::wire::signal::SessionId;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{interval, sleep, timeout};

/// From the first packet to a connection that is of use.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before the next try; doubled each time, up to the most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often Redis is asked whether it takes writes.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// Closings read in one go.
const CLOSINGS_AT_ONCE: usize = 500;
/// Channels subscribed to, and records read, with one command.
const BATCH: usize = 500;

/// Connects, listens, and begins anew, for ever. `tried` becomes true after the first try.
pub(super) async fn keep(inner: Rc<Inner>, tried: watch::Sender<bool>) {
    let mut failures = 0;
    loop {
        match timeout(CONNECT_TIMEOUT, inner.begin()).await {
            Ok(Ok(opened)) => {
                log::info!("sessions are kept at {}", inner.link.url());
                tried.send_replace(true);
                failures = 0;
                let why = inner.listen(opened).await;
                inner.link.give_up(&why);
                inner.counts.set(None);
                log::error!("{} is away, and requests get 503: {why}", inner.link.url());
            }
            failed => {
                let seconds = CONNECT_TIMEOUT.as_secs();
                let why = match failed {
                    Ok(failed) => failed.err().unwrap_or_default(),
                    Err(_) => format!("it did not answer in {seconds} s"),
                };
                inner.link.give_up(&why);
                // The first of a row, and then now and then.
                match failures % 32 {
                    0 => {
                        log::error!("{} cannot be used, requests get 503: {why}", inner.link.url())
                    }
                    _ => log::debug!("{} cannot be used: {why}", inner.link.url()),
                }
                failures += 1;
                tried.send_replace(true);
            }
        }
        sleep(pause(failures, random::<1>().map_or(0, |[byte]| byte))).await;
    }
}

/// Half of it, and up to the other half more: nodes that lost the same Redis do not all come at once.
fn pause(failures: u32, random: u8) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE);
    whole / 2 + whole / 2 * u32::from(random) / 255
}

impl Inner {
    /// A connection that has shown that it can write, and that hears what we listen to.
    async fn begin(&self) -> Result<Opened, String> {
        let mut opened = self.link.open().await?;
        let connection = &mut opened.connection;
        let text = |e: redis::RedisError| e.to_string();
        self.check_command().query_async::<()>(connection).await.map_err(text)?;
        let updates = |id: &SessionId| self.keys.updates(&id.to_string());
        let watched: Vec<String> = self.watches.ids().iter().map(updates).collect();
        connection.subscribe(&self.keys.closings).await.map_err(text)?;
        for channels in watched.chunks(BATCH) {
            connection.subscribe(channels).await.map_err(text)?;
        }
        let mut last = cmd("XREVRANGE");
        last.arg(&self.keys.closings).arg("+").arg("-").arg("COUNT").arg(1);
        let last: Vec<Entry> = last.query_async(connection).await.map_err(text)?;
        let last = last.into_iter().next().map_or("0-0".to_owned(), |(id, _)| id);
        // Where the stream ends before what we have heard, it is a replica's that lacks the newest, or
        // a new one: what follows is new to us.
        let heard = self.heard.take().filter(|heard| place(heard) <= place(&last));
        self.heard.replace(Some(heard.unwrap_or(last)));
        self.link.use_it(opened.connection.clone());
        Ok(opened)
    }

    /// Until the connection fails; why it did.
    async fn listen(&self, mut opened: Opened) -> String {
        // Neither is announced again, what was announced while we were away.
        self.catch_up().await;
        let mut check = interval(CHECK_EVERY);
        loop {
            tokio::select! {
                why = self.link.failed() => return why,
                announcement = opened.announcements.recv() => {
                    let Some(first) = announcement else { return "the connection ended".into() };
                    let mut closings = false;
                    let mut next = Some(first);
                    while let Some(announcement) = next {
                        if announcement.kind == PushKind::Disconnection {
                            return "the connection broke".into();
                        }
                        closings |= self.on_announcement(&announcement);
                        next = opened.announcements.try_recv().ok();
                    }
                    if opened.missed.swap(false, Relaxed) {
                        self.catch_up().await;
                    } else if closings {
                        complain(self.hear_closings().await);
                    }
                }
                _ = check.tick() => {
                    let checked = self.link.ask(&self.check_command()).await;
                    if let Err(StoreError::Unavailable(why)) = checked {
                        return why;
                    }
                    complain(self.forget_unwatched().await);
                    if let Err(e) = self.count().await {
                        log::warn!("sessions are not counted: {e}");
                    }
                }
            }
        }
    }

    /// A write, since a Redis that only reads is of no use; one that a full Redis takes.
    fn check_command(&self) -> redis::Cmd {
        let mut delete = cmd("DEL");
        delete.arg(&self.keys.check);
        delete
    }

    /// Whether there are closings to read.
    fn on_announcement(&self, announcement: &PushInfo) -> bool {
        let (PushKind::Message, [channel, payload, ..]) = (&announcement.kind, &*announcement.data)
        else {
            return false;
        };
        let Some(channel) = text_of(channel) else { return false };
        if channel == self.keys.closings {
            return true;
        }
        let id = self.keys.session_of(channel).and_then(SessionId::parse);
        let record = text_of(payload).and_then(|text| serde_json::from_str(text).ok());
        if let (Some(id), Some(record)) = (id, record) {
            self.watches.offer(id, record);
        }
        false
    }

    async fn catch_up(&self) {
        complain(self.hear_closings().await);
        complain(self.read_watched().await);
    }

    /// Reads on in the stream from what was heard last.
    async fn hear_closings(&self) -> Result<(), StoreError> {
        loop {
            let from = self.heard.borrow().clone().unwrap_or("0-0".into());
            let mut range = cmd("XRANGE");
            range.arg(&self.keys.closings).arg(format!("({from}")).arg("+");
            range.arg("COUNT").arg(CLOSINGS_AT_ONCE);
            let entries: Vec<Entry> = read(self.link.ask(&range).await?)?;
            let whole = entries.len() == CLOSINGS_AT_ONCE;
            for (place, fields) in entries {
                self.hear_closing(&fields);
                self.heard.replace(Some(place));
            }
            if !whole {
                return Ok(());
            }
        }
    }

    fn hear_closing(&self, fields: &HashMap<String, String>) {
        let closing = fields.get("closing").map(|text| serde_json::from_str::<Closing>(text));
        let Some(Ok(closing)) = closing else {
            return log::warn!("{}: an entry that is none of ours", self.keys.closings);
        };
        let ours = fields.get("by").is_some_and(|by| *by == self.node);
        let by = if ours { By::ThisNode } else { By::AnotherNode };
        let hear = self.on_closing.borrow().clone();
        if let Some(hear) = hear {
            hear(&closing, by, clock::now_ms());
        }
    }

    async fn read_watched(&self) -> Result<(), StoreError> {
        for ids in self.watches.ids().chunks(BATCH) {
            let mut mget = cmd("MGET");
            for id in ids {
                mget.arg(self.keys.record(&id.to_string()));
            }
            let texts: Vec<Option<String>> = read(self.link.ask(&mget).await?)?;
            for (id, text) in ids.iter().zip(texts) {
                match text.and_then(|text| serde_json::from_str(&text).ok()) {
                    Some(record) => self.watches.offer(*id, record),
                    None => self.watches.end(*id),
                }
            }
        }
        Ok(())
    }

    async fn forget_unwatched(&self) -> Result<(), StoreError> {
        let ids = self.watches.prune(self.now_ms.get());
        for ids in ids.chunks(BATCH) {
            // Who has come since then, stays.
            let still = ids.iter().filter(|id| self.watches.join(**id).is_none());
            let channels: Vec<String> =
                still.map(|id| self.keys.updates(&id.to_string())).collect();
            if channels.is_empty() {
                continue;
            }
            self.link.unsubscribe(&channels).await?;
        }
        Ok(())
    }
}

/// An entry of a stream: its place, and its fields.
type Entry = (String, HashMap<String, String>);

/// `milliseconds-number`, so that places can be compared.
fn place(text: &str) -> Option<(u64, u64)> {
    let (ms, number) = text.split_once('-')?;
    Some((ms.parse().ok()?, number.parse().ok()?))
}

fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// What fails here is done again after the next connection.
fn complain(result: Result<(), StoreError>) {
    if let Err(e) = result {
        log::warn!("what other nodes do is not heard: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_differ() {
        assert_eq!((pause(0, 0).as_millis(), pause(0, 255).as_millis()), (50, 100));
        assert_eq!((pause(3, 0).as_millis(), pause(3, 255).as_millis()), (400, 800));
        for failures in [6, 40, u32::MAX] {
            assert_eq!(pause(failures, 0), LONGEST_PAUSE / 2);
            assert_eq!(pause(failures, 255), LONGEST_PAUSE);
        }
    }

    #[test]
    fn places_in_the_stream_are_numbers() {
        assert!(place("9-2") < place("10-1") && place("10-1") < place("10-11"));
        assert_eq!(place("10"), None);
    }
}
