//! The last sessions that ended, for whoever asks what happened to one of them.

use super::ending::Ending;
use super::record::SessionRecord;
use sdk_core::wire::signal::Path;
use std::cell::RefCell;
use std::collections::VecDeque;

/// What became of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub session_id: String,
    pub device_id: String,
    pub app_id: String,
    pub region: Option<String>,
    pub path: Option<Path>,
    pub setup_ms: Option<u32>,
    /// Whether it was ever connected.
    pub connected: bool,
    pub ending: Ending,
    /// Unix milliseconds; 0 where a shared store has forgotten it.
    pub created_at: u64,
    pub ended_at: u64,
}

impl Ended {
    pub(super) fn new(
        record: &SessionRecord,
        connected: bool,
        ending: Ending,
        now_ms: u64,
    ) -> Ended {
        Ended {
            session_id: record.session_id.clone(),
            device_id: record.device_id.clone(),
            app_id: record.app_id.clone(),
            region: record.region.clone(),
            path: record.path,
            setup_ms: record.setup_ms,
            connected,
            ending,
            created_at: record.created_at,
            ended_at: now_ms,
        }
    }

    /// `None` where it is not known.
    pub fn age_ms(&self) -> Option<u64> {
        (self.created_at > 0).then(|| self.ended_at.saturating_sub(self.created_at))
    }
}

/// The last [`MAX_RECENT`] of this process; the oldest makes room for the newest.
#[derive(Default)]
pub struct Recent(RefCell<VecDeque<Ended>>);

pub const MAX_RECENT: usize = 1000;

impl Recent {
    pub(super) fn push(&self, ended: Ended) {
        let mut all = self.0.borrow_mut();
        if all.len() >= MAX_RECENT {
            all.pop_front();
        }
        all.push_back(ended);
    }

    /// Looks at each of them, the newest first.
    pub fn each(&self, look: impl FnMut(&Ended)) {
        self.0.borrow().iter().rev().for_each(look);
    }

    /// The newest first, at most `limit`.
    pub fn newest(&self, limit: usize) -> Vec<Ended> {
        self.0.borrow().iter().rev().take(limit).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::ending::Reason;

    #[test]
    fn the_oldest_makes_room() {
        let recent = Recent::default();
        for n in 0..=MAX_RECENT as u64 {
            recent.push(Ended {
                session_id: n.to_string(),
                device_id: "cam".into(),
                app_id: "app".into(),
                region: None,
                path: None,
                setup_ms: None,
                connected: false,
                ending: Ending::new(Reason::Left, "x"),
                created_at: n,
                ended_at: n + 5,
            });
        }
        let all = recent.newest(usize::MAX);
        assert_eq!(all.len(), MAX_RECENT);
        assert_eq!((all[0].session_id.as_str(), all[0].age_ms()), ("1000", Some(5)));
        assert_eq!(all.last().unwrap().session_id, "1");
        assert_eq!(recent.newest(2).len(), 2);
        let forgotten = Ended { created_at: 0, ..all[0].clone() };
        assert_eq!(forgotten.age_ms(), None);
    }
}
