//! What an operator asks a store for: open sessions, a page at a time.

use super::record::SessionRecord;
use sdk_core::wire::signal::{SessionId, SessionState};
use std::fmt;
use std::str::FromStr;

/// Sessions in one page.
pub const MAX_LISTED: usize = 200;

/// Which open sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// At most so many, and [`MAX_LISTED`].
    pub limit: usize,
    /// Only those behind this one.
    pub after: Option<Place>,
    pub state: Option<SessionState>,
    /// Part of the session's, the device's or the application's id; all sessions if it is empty.
    pub text: String,
}

/// A page: whoever was heard of last comes first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    pub sessions: Vec<SessionRecord>,
    /// Where to go on; `None` at the end. A page may hold fewer than were asked for and still not be the
    /// last one.
    pub next: Option<Place>,
    /// Open sessions in all, whatever was wanted.
    pub open: usize,
}

/// A session's place in the list, `1750929836097.89144a39-…`: the last sign of life, and the id. Each
/// report moves a session to the front, so whoever goes on from a place sees nobody twice, and sees in
/// the first page again who has reported meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub updated_at: u64,
    pub session_id: SessionId,
}

impl Wanted {
    pub fn limit(&self) -> usize {
        self.limit.min(MAX_LISTED)
    }

    pub(super) fn names(&self, session_id: &str, device_id: &str, app_id: &str) -> bool {
        let text = self.text.as_str();
        text.is_empty() || [session_id, device_id, app_id].iter().any(|id| id.contains(text))
    }

    pub(super) fn state_fits(&self, record: &SessionRecord) -> bool {
        self.state.is_none_or(|state| record.status == state)
    }

    /// Whether a place comes behind the page before.
    pub(super) fn is_behind(&self, place: Place) -> bool {
        self.after.is_none_or(|after| place < after)
    }
}

impl Place {
    /// `None` where the record's id is none.
    pub(super) fn of(record: &SessionRecord) -> Option<Place> {
        let session_id = SessionId::parse(&record.session_id)?;
        Some(Place { updated_at: record.updated_at, session_id })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.updated_at, self.session_id)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Place, ()> {
        let (updated_at, id) = text.split_once('.').ok_or(())?;
        let session_id = SessionId::parse(id).ok_or(())?;
        Ok(Place { updated_at: updated_at.parse().map_err(drop)?, session_id })
    }
}
