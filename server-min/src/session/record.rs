//! The session record, kept under the key `session:{sessionId}`.

use sdk_core::wire::signal::{Path, SessionState};
use serde::{Deserialize, Serialize};

/// How long a record is kept, in seconds.
pub const SESSION_TTL_S: u64 = 86_400;

/// One session as the store keeps it and `GET /v1/sessions/{id}` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionRecord {
    pub session_id: String,
    pub device_id: String,
    pub app_id: String,
    pub status: SessionState,
    /// The STUN server both sides were given, `host:port`; empty where they were given none.
    pub stun_server: String,
    /// The TURN user name both sides were given: whatever is allocated belongs to it. Set back to
    /// `null` when the session has been closed and its allocations freed.
    pub turn_allocation: Option<String>,
    /// Unix milliseconds.
    pub created_at: u64,
    /// Unix milliseconds of the last sign of life.
    pub updated_at: u64,
    /// Seconds from `created_at` until the record is gone.
    pub ttl: u64,
    /// How media travels, once a side has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Path>,
    /// From the offer to the connection, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_ms: Option<u32>,
    /// The region that was chosen for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// What a relay lets through in each direction, in bits per second; `turn.bandwidth_bps` if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_bps: Option<u64>,
}

impl SessionRecord {
    /// The key a store that is shared between nodes keeps this record under.
    pub fn key(session_id: &str) -> String {
        format!("session:{session_id}")
    }

    /// The channel on which changes of this record are published.
    pub fn updates_channel(session_id: &str) -> String {
        format!("session_updates:{session_id}")
    }

    /// The end: what the relay holds for it is about to be freed.
    pub fn close(&mut self, now_ms: u64) {
        self.status = SessionState::Closed;
        self.turn_allocation = None;
        self.updated_at = self.updated_at.max(now_ms);
    }

    pub fn is_closed(&self) -> bool {
        self.status == SessionState::Closed
    }

    /// Whether the record's time to live has passed at `now_ms`.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        now_ms >= self.created_at.saturating_add(self.ttl.saturating_mul(1000))
    }

    /// Whether the session still counts as open although nobody has reported for `idle_ms`.
    pub fn is_stale(&self, now_ms: u64, idle_ms: u64) -> bool {
        !self.is_closed() && now_ms >= self.updated_at.saturating_add(idle_ms)
    }
}
