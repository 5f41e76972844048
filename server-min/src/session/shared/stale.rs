//! What the sweep looks for in Redis.

use super::keys::Entry;
use super::link::read;
use super::{Inner, from_json};
use crate::session::record::SessionRecord;
use crate::session::store::StoreError;
use redis::cmd;
use sdk_core::wire::signal::SessionState;

impl Inner {
    /// Of the sessions that were silent for `idle_ms`, those that have expired; and the others, if they
    /// could have been heard.
    pub(super) async fn stale(
        &self,
        now_ms: u64,
        idle_ms: u64,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let Some(before_ms) = now_ms.checked_sub(idle_ms) else { return Ok(Vec::new()) };
        let steady = self.steady.get().since_ms <= before_ms;
        let mut range = cmd("ZRANGEBYSCORE");
        range.arg(&self.keys.open).arg("-inf").arg(before_ms).arg("LIMIT").arg(0).arg(limit);
        let entries: Vec<String> = read(self.link.ask(&range).await?)?;
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let mut mget = cmd("MGET");
        for entry in &entries {
            let session_id = entry.split(' ').next().unwrap_or_default();
            mget.arg(self.keys.record(session_id));
        }
        let texts: Vec<Option<String>> = read(self.link.ask(&mget).await?)?;
        let (mut stale, mut lost) = (Vec::new(), Vec::new());
        for (entry, text) in entries.iter().zip(texts) {
            match open_session(entry, text) {
                Ok(record) if record.is_expired(now_ms) => stale.push(record),
                Ok(record) if steady && record.is_stale(now_ms, idle_ms) => stale.push(record),
                Ok(_) => {}
                Err(why) => {
                    log::info!("{entry:?} is taken out of {}: {why}", self.keys.open);
                    lost.push(entry);
                }
            }
        }
        if !lost.is_empty() {
            let mut zrem = cmd("ZREM");
            zrem.arg(&self.keys.open).arg(&lost);
            self.link.ask(&zrem).await?;
        }
        Ok(stale)
    }
}

/// The session of an entry, as far as it is known; or why it is none that is open.
fn open_session(entry: &str, text: Option<String>) -> Result<SessionRecord, String> {
    let entry = Entry::parse(entry).ok_or("it is none of ours")?;
    let Some(text) = text else { return Ok(expired(&entry)) };
    let record = from_json(&text).map_err(|e| e.to_string())?;
    match record.is_closed() {
        true => Err("its session is closed".into()),
        false => Ok(record),
    }
}

/// What is known of a session whose record Redis has forgotten in its time.
fn expired(entry: &Entry<'_>) -> SessionRecord {
    SessionRecord {
        session_id: entry.session_id.to_owned(),
        device_id: entry.device_id.to_owned(),
        app_id: entry.app_id.to_owned(),
        status: SessionState::Connecting,
        stun_server: String::new(),
        turn_allocation: None,
        created_at: 0,
        updated_at: 0,
        ttl: 0,
        path: None,
        setup_ms: None,
        region: None,
        bandwidth_bps: None,
    }
}
