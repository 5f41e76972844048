//! Open sessions in Redis, a page at a time: the sorted set from its end, and the records of those that
//! are wanted.

use super::keys::Entry;
use super::link::read;
use super::{Inner, from_json};
use crate::session::listing::{Listed, Place, Wanted};
use crate::session::store::StoreError;
use redis::cmd;
use sdk_core::wire::signal::SessionId;

/// Entries read at a time where few of them may be wanted.
const SEARCHED_AT_ONCE: usize = 1000;
/// How often more are read for one page. Whoever looks for a session among more goes on at `next`.
const MAX_READS: usize = 20;

impl Inner {
    pub(super) async fn list(&self, wanted: &Wanted, now_ms: u64) -> Result<Listed, StoreError> {
        let mut zcard = cmd("ZCARD");
        let open: usize = read(self.link.ask(zcard.arg(&self.keys.open)).await?)?;
        let mut listed = Listed { open, ..Listed::default() };
        let limit = wanted.limit();
        if limit == 0 {
            return Ok(listed);
        }
        let at_once = match wanted.text.is_empty() && wanted.state.is_none() {
            true => limit + 1,
            false => SEARCHED_AT_ONCE,
        };
        let highest = wanted.after.map_or("+inf".to_owned(), |after| after.updated_at.to_string());
        for n in 0..MAX_READS {
            let mut range = cmd("ZREVRANGEBYSCORE");
            range.arg(&self.keys.open).arg(&highest).arg("-inf").arg("WITHSCORES");
            range.arg("LIMIT").arg(n * at_once).arg(at_once);
            let entries: Vec<(String, f64)> = read(self.link.ask(&range).await?)?;
            let is_last = entries.len() < at_once;
            let end = entries.last().and_then(|(text, score)| place(text, *score));
            let candidates = entries.iter().filter_map(|(text, score)| {
                let Entry { session_id, device_id, app_id } = Entry::parse(text)?;
                let is_wanted = wanted.names(session_id, device_id, app_id)
                    && wanted.is_behind(place(text, *score)?);
                is_wanted.then_some(session_id)
            });
            let candidates: Vec<&str> = candidates.collect();
            for some in candidates.chunks(limit + 1) {
                self.add(some, wanted, now_ms, &mut listed).await?;
                if listed.next.is_some() {
                    return Ok(listed);
                }
            }
            if is_last {
                return Ok(listed);
            }
            if n + 1 == MAX_READS {
                listed.next = end;
            }
        }
        Ok(listed)
    }

    /// Reads these records; `next` is set once the page is full and there was one more.
    async fn add(
        &self,
        some: &[&str],
        wanted: &Wanted,
        now_ms: u64,
        listed: &mut Listed,
    ) -> Result<(), StoreError> {
        let mut mget = cmd("MGET");
        for session_id in some {
            mget.arg(self.keys.record(session_id));
        }
        let texts: Vec<Option<String>> = read(self.link.ask(&mget).await?)?;
        // One that is not there has expired, and one that cannot be read is the sweep's affair.
        for record in texts.into_iter().flatten().filter_map(|text| from_json(&text).ok()) {
            let is_open = !record.is_closed() && !record.is_expired(now_ms);
            if !is_open || !wanted.state_fits(&record) {
                continue;
            }
            if listed.sessions.len() == wanted.limit() {
                listed.next = listed.sessions.last().and_then(Place::of);
                return Ok(());
            }
            listed.sessions.push(record);
        }
        Ok(())
    }
}

/// Of an entry of the sorted set. Milliseconds since 1970 are exact in a double.
fn place(entry: &str, score: f64) -> Option<Place> {
    let session_id = SessionId::parse(Entry::parse(entry)?.session_id)?;
    Some(Place { updated_at: score as u64, session_id })
}
