//! Whose log lines these are: libraries below us log without knowing of sessions, so whoever prints
//! a line can ask here which session was being worked on.

use crate::wire::signal::SessionId;
use std::cell::Cell;

thread_local! {
    static CURRENT: Cell<Option<SessionId>> = const { Cell::new(None) };
}

/// The session that this thread is working on.
pub fn current() -> Option<SessionId> {
    CURRENT.get()
}

/// Until the scope is dropped, this thread works on `session`.
#[must_use]
pub fn enter(session: SessionId) -> Scope {
    Scope { before: CURRENT.replace(Some(session)) }
}

pub struct Scope {
    before: Option<SessionId>,
}

impl Drop for Scope {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_nest() {
        let [a, b] = [1, 2].map(|n| SessionId::from_random([n; 16]));
        let outer = enter(a);
        {
            let _inner = enter(b);
            assert_eq!(current(), Some(b));
        }
        assert_eq!(current(), Some(a));
        drop(outer);
        assert_eq!(current(), None);
    }
}
