//! Puts what arrives into order: candidates that overtook their offer wait for it, and an offer
//! that comes twice is known again.
//!
//! ```text
//! session unknown:  candidate → Mailbox::hold        offer → Mailbox::on_offer, then ::collect
//! session known:    offer → Correspondence::on_offer → first | repeated | restart | changed
//! session closed:   Mailbox::on_closed remembers its last offer for a minute
//! ```
//!
//! The [`Mailbox`] belongs to the device, a [`Correspondence`] to each session. Both are told the
//! time.

use crate::wire::sdp;
use crate::wire::signal::{Candidate, SessionId};
use ring::digest;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Sessions whose offer has not come yet. With one more, the oldest is dropped.
pub const MAX_EARLY_SESSIONS: usize = 16;
/// Candidates held for one of them. Further ones are dropped: the first are host candidates, and
/// ICE finds what is missing as peer-reflexive.
pub const MAX_EARLY_CANDIDATES: usize = 32;
/// Longest candidate held, in bytes; real ones have some 150.
pub const MAX_CANDIDATE_LEN: usize = 512;
/// How long candidates wait for their offer.
pub const EARLY_LIFETIME: Duration = Duration::from_secs(10);
/// Closed sessions whose offers are known again. With one more, the oldest is forgotten.
pub const MAX_CLOSED: usize = 64;
/// How long a closed session's offer is known again: longer than any broker's redelivery takes.
pub const CLOSED_LIFETIME: Duration = Duration::from_secs(60);

/// What the device keeps about sessions that are not open.
#[derive(Debug, Default)]
pub struct Mailbox {
    /// Oldest first.
    early: VecDeque<Early>,
    /// Oldest first.
    closed: VecDeque<Closed>,
}

#[derive(Debug)]
struct Early {
    session: SessionId,
    from: String,
    since: Instant,
    candidates: Vec<Candidate>,
}

#[derive(Debug)]
struct Closed {
    session: SessionId,
    since: Instant,
    offer: Digest,
}

/// What to do with an offer for a session that is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstOffer {
    /// Open a session.
    New,
    /// The broker delivered the offer of a session again that has ended since: ignore it.
    Stale,
}

impl Mailbox {
    pub fn new() -> Mailbox {
        Mailbox::default()
    }

    /// Keeps a candidate of a session that is not open. False if it was dropped: the bounds are
    /// this module's constants.
    pub fn hold(
        &mut self,
        now: Instant,
        session: SessionId,
        from: &str,
        candidate: Candidate,
    ) -> bool {
        self.expire(now);
        let len = candidate.candidate.len() + candidate.sdp_mid.as_ref().map_or(0, String::len);
        // A session that has just ended: its last candidates are of no use.
        if len > MAX_CANDIDATE_LEN || self.closed.iter().any(|c| c.session == session) {
            return false;
        }
        let known = self.early.iter().position(|e| e.session == session && e.from == from);
        let early = match known {
            Some(i) => self.early.get_mut(i),
            None => {
                if self.early.len() == MAX_EARLY_SESSIONS {
                    self.early.pop_front();
                }
                let candidates = Vec::new();
                self.early.push_back(Early { session, from: from.into(), since: now, candidates });
                self.early.back_mut()
            }
        };
        let Some(early) = early else { return false };
        if early.candidates.contains(&candidate) {
            return true;
        }
        let has_room = early.candidates.len() < MAX_EARLY_CANDIDATES;
        if has_room {
            early.candidates.push(candidate);
        }
        has_room
    }

    /// Whether an offer for a session that is not open opens one.
    pub fn on_offer(&mut self, now: Instant, session: SessionId, sdp: &str) -> FirstOffer {
        self.expire(now);
        let is_stale = self.closed.iter().any(|c| c.session == session && c.offer == digest(sdp));
        if is_stale { FirstOffer::Stale } else { FirstOffer::New }
    }

    /// Gives out, once, the candidates that `from` sent for a session before its offer.
    pub fn collect(&mut self, now: Instant, session: SessionId, from: &str) -> Vec<Candidate> {
        self.expire(now);
        let found = self.early.iter().position(|e| e.session == session && e.from == from);
        // What others sent for the same session is not theirs to send.
        let candidates = found.and_then(|i| self.early.remove(i)).map(|e| e.candidates);
        self.early.retain(|e| e.session != session);
        candidates.unwrap_or_default()
    }

    /// Notes a `bye` for a session that is not open.
    pub fn on_bye(&mut self, session: SessionId, from: &str) {
        self.early.retain(|e| !(e.session == session && e.from == from));
    }

    /// Notes that a session that was admitted has ended. A refused one need not be noted: its
    /// offer, if it comes again, is refused again.
    pub fn on_closed(&mut self, now: Instant, session: SessionId, last: &Correspondence) {
        self.expire(now);
        self.closed.retain(|c| c.session != session);
        if let Some(offer) = last.offer {
            if self.closed.len() == MAX_CLOSED {
                self.closed.pop_front();
            }
            self.closed.push_back(Closed { session, since: now, offer });
        }
    }

    /// Everything is dropped in its time, whenever the next message comes; nothing needs a timer.
    fn expire(&mut self, now: Instant) {
        let is_over = |since: Instant, lifetime| now.saturating_duration_since(since) >= lifetime;
        while self.early.front().is_some_and(|e| is_over(e.since, EARLY_LIFETIME)) {
            self.early.pop_front();
        }
        while self.closed.front().is_some_and(|c| is_over(c.since, CLOSED_LIFETIME)) {
            self.closed.pop_front();
        }
    }
}

/// What was said last in one open session.
#[derive(Debug, Default)]
pub struct Correspondence {
    offer: Option<Digest>,
    ice_ufrag: String,
    answer: Option<String>,
}

/// What an offer is, seen from what came before it in its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered<'a> {
    /// The session's first.
    First,
    /// The last one again. Send its answer again, if there is one yet.
    Repeated { answer: Option<&'a str> },
    /// New ICE credentials: ICE restarts (RFC 8839 §4.4.3).
    Restart,
    /// Other media over the same ICE credentials.
    Changed,
}

impl Correspondence {
    pub fn new() -> Correspondence {
        Correspondence::default()
    }

    /// Compares an offer with the last one and takes its place, unless it is the same.
    pub fn on_offer(&mut self, sdp: &str) -> Offered<'_> {
        let digest = digest(sdp);
        if self.offer == Some(digest) {
            return Offered::Repeated { answer: self.answer.as_deref() };
        }
        let ice_ufrag = sdp::ice_ufrag(sdp).unwrap_or_default();
        let offered = match self.offer {
            None => Offered::First,
            Some(_) if self.ice_ufrag == ice_ufrag => Offered::Changed,
            Some(_) => Offered::Restart,
        };
        self.offer = Some(digest);
        self.ice_ufrag = ice_ufrag.to_owned();
        self.answer = None;
        offered
    }

    /// Keeps the answer to the last offer, for when that comes again.
    pub fn on_answer(&mut self, sdp: &str) {
        self.answer = Some(sdp.to_owned());
    }
}

/// SHA-256, cut: what is compared is chosen by one viewer, who can only fool itself.
type Digest = [u8; 16];

fn digest(sdp: &str) -> Digest {
    let full = digest::digest(&digest::SHA256, sdp.as_bytes());
    let mut cut = Digest::default();
    for (to, from) in cut.iter_mut().zip(full.as_ref()) {
        *to = *from;
    }
    cut
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "some instant to count from")]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\na=ice-ufrag:abcd\r\n";

    fn id(n: u8) -> SessionId {
        SessionId::from_random([n; 16])
    }

    fn candidate(n: usize) -> Candidate {
        Candidate {
            candidate: format!("candidate:{n} 1 udp 1 192.0.2.1 {n} typ host"),
            sdp_mid: Some("0".into()),
            sdp_m_line_index: Some(0),
        }
    }

    #[test]
    fn candidates_wait_for_their_offer_and_are_given_out_once_and_in_order() {
        let now = Instant::now();
        let mut mailbox = Mailbox::new();
        for n in [1, 2, 2, 1, 3] {
            assert!(mailbox.hold(now, id(1), "app", candidate(n)));
        }
        assert!(mailbox.hold(now, id(2), "app", candidate(9)));
        assert!(mailbox.hold(now, id(1), "intruder", candidate(8)));
        assert_eq!(mailbox.on_offer(now, id(1), OFFER), FirstOffer::New);
        assert_eq!(mailbox.collect(now, id(1), "app"), [1, 2, 3].map(candidate));
        assert_eq!(mailbox.collect(now, id(1), "app"), []);
        assert_eq!(mailbox.collect(now, id(1), "intruder"), []);
        assert_eq!(mailbox.collect(now, id(2), "app"), [candidate(9)]);
    }

    #[test]
    fn they_wait_for_ten_seconds() {
        let now = Instant::now();
        let mut mailbox = Mailbox::new();
        mailbox.hold(now, id(1), "app", candidate(1));
        mailbox.hold(now + Duration::from_secs(1), id(2), "app", candidate(2));
        let later = now + EARLY_LIFETIME;
        assert_eq!(mailbox.collect(later, id(1), "app"), []);
        assert_eq!(mailbox.collect(later, id(2), "app"), [candidate(2)]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let now = Instant::now();
        let mut mailbox = Mailbox::new();
        for n in 0..MAX_EARLY_CANDIDATES {
            assert!(mailbox.hold(now, id(1), "app", candidate(n)));
        }
        assert!(!mailbox.hold(now, id(1), "app", candidate(99)));
        let long = Candidate { candidate: "x".repeat(MAX_CANDIDATE_LEN + 1), ..candidate(0) };
        assert!(!mailbox.hold(now, id(2), "app", long));
        for n in 0..MAX_EARLY_SESSIONS as u8 {
            assert!(mailbox.hold(now, id(10 + n), "app", candidate(1)));
        }
        assert_eq!(mailbox.collect(now, id(1), "app"), [], "the oldest went");
        assert_eq!(mailbox.collect(now, id(10), "app"), [candidate(1)]);
        assert_eq!(mailbox.early.len(), MAX_EARLY_SESSIONS - 1);
    }

    #[test]
    fn a_bye_ends_the_waiting() {
        let now = Instant::now();
        let mut mailbox = Mailbox::new();
        mailbox.hold(now, id(1), "app", candidate(1));
        mailbox.on_bye(id(1), "other");
        mailbox.on_bye(id(1), "app");
        assert_eq!(mailbox.collect(now, id(1), "app"), []);
    }

    #[test]
    fn a_repeated_offer_gets_the_same_answer() {
        let mut session = Correspondence::new();
        assert_eq!(session.on_offer(OFFER), Offered::First);
        assert_eq!(session.on_offer(OFFER), Offered::Repeated { answer: None });
        session.on_answer("answer 1");
        assert_eq!(session.on_offer(OFFER), Offered::Repeated { answer: Some("answer 1") });
        assert_eq!(session.on_offer(&format!("{OFFER}a=x\r\n")), Offered::Changed);
        let restart = OFFER.replace("abcd", "efgh");
        assert_eq!(session.on_offer(&restart), Offered::Restart);
        assert_eq!(session.on_offer(&restart), Offered::Repeated { answer: None });
    }

    #[test]
    fn an_offer_delivered_after_the_end_opens_nothing() {
        let now = Instant::now();
        let mut mailbox = Mailbox::new();
        let mut session = Correspondence::new();
        session.on_offer(OFFER);
        mailbox.on_closed(now, id(1), &session);
        assert_eq!(mailbox.on_offer(now, id(1), OFFER), FirstOffer::Stale);
        assert!(!mailbox.hold(now, id(1), "app", candidate(1)));
        assert_eq!(mailbox.on_offer(now, id(2), OFFER), FirstOffer::New);
        let again = OFFER.replace("abcd", "efgh");
        assert_eq!(mailbox.on_offer(now, id(1), &again), FirstOffer::New, "a new try");
        assert_eq!(mailbox.on_offer(now + CLOSED_LIFETIME, id(1), OFFER), FirstOffer::New);
        for n in 0..100 {
            mailbox.on_closed(now, id(n), &session);
        }
        assert_eq!(mailbox.closed.len(), MAX_CLOSED);
    }
}
