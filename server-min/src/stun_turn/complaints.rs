//! What the log says of refusals that an operator may want to know of. A client that is refused tries
//! again, and again: its session gets one line at once, and after that no more than one every so often,
//! with their number. One for all shards of a relay, as a session's clients may be in several.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// From one line of a session to the next about the same.
const EVERY: Duration = Duration::from_secs(60);
/// Sessions that have lines of their own at a time; those on top share one.
const MAX_SESSIONS: usize = 1024;
/// How often those are looked for who are not refused any more, where there is no room.
const TIDY_EVERY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Complaints(Mutex<Lately>);

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Complaint {
    SessionFull,
    RelayFull,
    Peer(IpAddr),
}

#[derive(Default)]
struct Lately {
    sessions: HashMap<Box<str>, [Option<Said>; KINDS]>,
    /// Those that found no place in it.
    others: Option<Said>,
    tidied: Option<Instant>,
}

const KINDS: usize = 3;

/// A line that was written, and what has come since then.
#[derive(Debug, Clone, Copy)]
struct Said {
    at: Instant,
    last: Complaint,
    more: u32,
}

impl Complaints {
    /// Writes a line about it, or counts it for the next one. When to call
    /// [`flush`](Complaints::flush), if nobody has been asked to yet.
    pub(super) fn hear(&self, now: Instant, session: &str, what: Complaint) -> Option<Instant> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner).hear(now, session, what);
        match heard {
            Heard::New => {
                write(Some(session), what, 0);
                None
            }
            Heard::Counted { flush_at } => flush_at,
        }
    }

    /// Writes the lines whose time has come.
    pub(super) fn flush(&self, now: Instant) {
        let due = self.0.lock().unwrap_or_else(PoisonError::into_inner).take_due(now);
        for (session, last, more) in due {
            write(session.as_deref(), last, more);
        }
    }
}

enum Heard {
    New,
    Counted { flush_at: Option<Instant> },
}

impl Lately {
    fn hear(&mut self, now: Instant, session: &str, what: Complaint) -> Heard {
        let is_known = self.sessions.contains_key(session);
        let is_full = |lately: &Lately| lately.sessions.len() >= MAX_SESSIONS;
        if !is_known && is_full(self) && self.tidied.is_none_or(|at| at + TIDY_EVERY <= now) {
            self.tidied = Some(now);
            self.sessions.retain(|_, said| said.iter().flatten().any(|said| said.holds(now)));
        }
        let said = match is_known || !is_full(self) {
            true => &mut self.sessions.entry(session.into()).or_default()[what.kind()],
            false => &mut self.others,
        };
        match said {
            Some(said) if said.holds(now) => {
                said.more = said.more.saturating_add(1);
                said.last = what;
                Heard::Counted { flush_at: (said.more == 1).then_some(said.at + EVERY) }
            }
            _ => {
                *said = Some(Said { at: now, last: what, more: 0 });
                Heard::New
            }
        }
    }

    fn take_due(&mut self, now: Instant) -> Vec<(Option<Box<str>>, Complaint, u32)> {
        let mut due = Vec::new();
        let mut take = |session: Option<&str>, place: &mut Option<Said>| {
            let Some(said) = place.filter(|said| said.at + EVERY <= now) else { return };
            *place = (said.more > 0).then_some(Said { at: now, more: 0, ..said });
            if said.more > 0 {
                due.push((session.map(Into::into), said.last, said.more));
            }
        };
        self.sessions.retain(|session, said| {
            said.iter_mut().for_each(|said| take(Some(session), said));
            said.iter().any(Option::is_some)
        });
        take(None, &mut self.others);
        due
    }
}

impl Said {
    /// Whether the next one is to be counted, and not written.
    fn holds(&self, now: Instant) -> bool {
        self.more > 0 || now < self.at + EVERY
    }
}

impl Complaint {
    fn kind(self) -> usize {
        match self {
            Complaint::SessionFull => 0,
            Complaint::RelayFull => 1,
            Complaint::Peer(_) => 2,
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Complaint::SessionFull => f.write_str(
                "TURN refuses an allocation: the session has as many as it may \
                 (turn.allocations_per_session)",
            ),
            Complaint::RelayFull => f.write_str(
                "TURN refuses an allocation: the relay has as many as it may \
                 (turn.allocations_total)",
            ),
            Complaint::Peer(ip) => write!(
                f,
                "TURN peer {ip} is in a range this server does not relay to; turn.allowed_peers \
                 would change that"
            ),
        }
    }
}

/// `more`: how many, where it is not the first.
fn write(session: Option<&str>, what: Complaint, more: u32) {
    let level = match what {
        Complaint::RelayFull => log::Level::Warn,
        _ => log::Level::Info,
    };
    match (session, more) {
        (Some(session), 0) => log::log!(level, "sessionId={session} {what}"),
        (Some(session), _) => {
            log::log!(
                level,
                "sessionId={session} {what}: refused {more} times more since the last line"
            );
        }
        (None, _) => {
            log::warn!("TURN refused {more} requests of sessions that are too many to be named");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[allow(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn is_new(heard: Heard) -> bool {
        matches!(heard, Heard::New)
    }

    #[test]
    fn a_session_has_one_line_at_once_and_one_with_the_number_of_the_others() {
        let (mut lately, start) = (Lately::default(), origin());
        let full = Complaint::SessionFull;
        assert!(is_new(lately.hear(start, "a", full)));
        let second = Duration::from_secs(1);
        // Only the first one asks to be called again, when a minute after the line is over.
        let Heard::Counted { flush_at: Some(due) } = lately.hear(start + second, "a", full) else {
            panic!("it was written")
        };
        assert_eq!(due, start + EVERY);
        for _ in 0..9 {
            let heard = lately.hear(start + 2 * second, "a", full);
            assert!(matches!(heard, Heard::Counted { flush_at: None }));
        }
        // Another session, and another reason, are other lines.
        assert!(is_new(lately.hear(start + second, "b", full)));
        assert!(is_new(lately.hear(start + second, "a", Complaint::RelayFull)));
        // Another peer is not: a client tries them all.
        let peer = |n| Complaint::Peer(Ipv4Addr::new(10, 0, 0, n).into());
        assert!(is_new(lately.hear(start + second, "a", peer(1))));
        assert!(!is_new(lately.hear(start + second, "a", peer(2))));

        assert!(lately.take_due(due - second).is_empty());
        assert_eq!(lately.take_due(due), [(Some("a".into()), full, 10)]);
        assert_eq!(lately.take_due(due + second), [(Some("a".into()), peer(2), 1)]);
        // It goes on: a minute again. It ends: the next one has a line at once.
        let Heard::Counted { flush_at } = lately.hear(due + 30 * second, "a", full) else {
            panic!("it was written")
        };
        assert_eq!(flush_at, Some(due + EVERY));
        assert_eq!(lately.take_due(due + EVERY), [(Some("a".into()), full, 1)]);
        assert!(lately.take_due(due + 3 * EVERY).is_empty());
        assert!(lately.sessions.is_empty(), "nobody is remembered for longer than that");
        assert!(is_new(lately.hear(due + 3 * EVERY, "a", full)));
    }

    #[test]
    fn sessions_without_end_take_no_more_memory_and_no_more_lines() {
        let (mut lately, start) = (Lately::default(), origin());
        let mut hear = |now, n: usize| lately.hear(now, &format!("s{n}"), Complaint::RelayFull);
        let written = (0..10 * MAX_SESSIONS).filter(|n| is_new(hear(start, *n))).count();
        assert_eq!(written, MAX_SESSIONS + 1, "one for those on top");
        assert!(!is_new(hear(start, 3)), "those that are known are");
        let mut due = lately.take_due(start + EVERY);
        due.sort_by_key(|(_, _, more)| *more);
        let others = u32::try_from(9 * MAX_SESSIONS - 1).unwrap();
        assert_eq!(
            due,
            [(Some("s3".into()), Complaint::RelayFull, 1), (None, Complaint::RelayFull, others)]
        );
        // Who is not refused any more makes room, without a call at the end of its minute.
        let mut lately = Lately::default();
        for n in 0..MAX_SESSIONS {
            lately.hear(start, &format!("s{n}"), Complaint::RelayFull);
        }
        lately.hear(start + EVERY / 2, "late", Complaint::RelayFull);
        assert!(is_new(lately.hear(start + EVERY, "new", Complaint::RelayFull)));
        assert_eq!(lately.sessions.keys().map(|k| &**k).collect::<Vec<_>>(), ["new"]);
    }
}
