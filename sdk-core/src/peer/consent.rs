//! What keeps a path that works: checks on the pair in use, which show that both sides still want what
//! is sent (RFC 7675) and keep the way through NATs open (RFC 8445 §11).
//!
//! The ICE agent does that too, on all pairs it has, and allocates for each check. So once the path is
//! found the agent rests, and what is left to do is done here without it: checks of the viewer that
//! change nothing are answered, and some of our own are sent. Anything else goes to the agent as
//! before, and wakes it: a nomination, a check from a new address, a new candidate, checks of ours
//! that are not answered. It goes on as if no time had passed.

use super::ice::{Credentials, Pair};
use crate::random::Random;
use crate::wire::stun::attribute as attr;
use crate::wire::stun::{Builder, Class, Message, Method, TransactionId};
use std::time::{Duration, Instant};

pub(super) struct Consent {
    local: Credentials,
    remote: Credentials,
    random: Random,
    /// For the role that ICE would have to settle if both sides claimed the same one.
    tie_breaker: [u8; 8],
    /// Not before this may the agent rest.
    busy_until: Option<Instant>,
    /// When the viewer last answered a check on the pair in use.
    answered_at: Option<Instant>,
    /// Checks that are on their way.
    asked: heapless::Deque<(TransactionId, Instant), MAX_ASKED>,
    rtt: Option<Duration>,
}

/// What became of a STUN message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Nothing: it is for the ICE agent.
    No,
    /// It was the viewer's answer.
    Answer,
    /// It was the viewer's check; so many bytes are to be sent back where it came from.
    Check(usize),
}

/// Room for any message of ours: user names have 512 bytes at most (RFC 8445 §5.3).
pub(super) const MAX_LEN: usize = 700;
/// How long the agent stays awake after something happened: two rounds of its checks.
const AFTER_EVENT: Duration = Duration::from_secs(6);
const INTERVAL: Duration = Duration::from_millis(2500);
/// A check that may have been lost is followed by another one soon.
const RETRY: Duration = Duration::from_millis(500);
/// Without an answer for so long, the agent looks for another path.
const PATIENCE: Duration = Duration::from_secs(4);
const MAX_ASKED: usize = 8;
/// Of a peer-reflexive candidate (RFC 8445 §5.1.2.1), as checks have to say it.
const PRIORITY: u32 = 110 << 24 | 65_535 << 8 | 255;
/// What may be in a check that changes nothing.
const KNOWN: [u16; 4] =
    [attr::USERNAME, attr::MESSAGE_INTEGRITY, attr::PRIORITY, attr::USE_CANDIDATE];

impl Consent {
    pub(super) fn new(local: Credentials, remote: Credentials, seed: &[u8; 32]) -> Consent {
        let mut random = Random::new(seed);
        Consent {
            local,
            remote,
            tie_breaker: random.bytes(),
            random,
            busy_until: None,
            answered_at: None,
            asked: heapless::Deque::new(),
            rtt: None,
        }
    }

    /// ICE starts over.
    pub(super) fn restart(&mut self, now: Instant, local: Credentials, remote: Credentials) {
        self.local = local;
        self.remote = remote;
        self.asked.clear();
        self.wake(now);
    }

    /// Something happened that is the agent's business.
    pub(super) fn wake(&mut self, now: Instant) {
        self.busy_until = Some(now + AFTER_EVENT);
    }

    /// The viewer answered a check on the pair in use.
    pub(super) fn on_answered(&mut self, now: Instant) {
        self.answered_at = Some(now);
        self.asked.clear();
    }

    /// Whether the agent may rest, given that there is a path.
    pub(super) fn is_enough(&self, now: Instant) -> bool {
        self.busy_until.is_some_and(|until| now >= until)
            && self.answered_at.is_some_and(|at| now < at + PATIENCE)
    }

    /// When to ask, or to wake the agent, while it rests.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let patient_until = self.answered_at? + PATIENCE;
        Some(self.next_check()?.min(patient_until))
    }

    /// The next check for the pair in use, if one is due: written to `out`, with its length.
    pub(super) fn check(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        if self.next_check()? > now {
            return None;
        }
        let id = TransactionId(self.random.bytes());
        if self.asked.is_full() {
            self.asked.pop_front();
        }
        // Cannot fail: room was just made.
        let _ = self.asked.push_back((id, now));
        let mut user = UserName::default();
        user.write(&self.remote, &self.local)?;
        Builder::new(out, Class::Request, Method::BINDING, id)
            .attribute(attr::USERNAME, user.bytes())
            .u32(attr::PRIORITY, PRIORITY)
            .attribute(attr::ICE_CONTROLLED, &self.tie_breaker)
            .integrity(self.remote.password.as_bytes())
            .fingerprint()
            .finish()
    }

    /// Takes a message that came along `pair`, unless it may change something. The answer to a check
    /// is written to `out`.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        message: &Message<'_>,
        pair: Pair,
        in_use: Pair,
        out: &mut [u8],
    ) -> Taken {
        match (message.class(), message.method()) {
            (Class::Success, Method::BINDING) if pair == in_use => self.on_answer(now, message),
            (Class::Request, Method::BINDING) if self.changes_nothing(message, pair == in_use) => {
                let len =
                    Builder::new(out, Class::Success, Method::BINDING, message.transaction_id())
                        .xor_address(attr::XOR_MAPPED_ADDRESS, pair.remote)
                        .integrity(self.local.password.as_bytes())
                        .fingerprint()
                        .finish();
                len.map_or(Taken::No, Taken::Check)
            }
            _ => Taken::No,
        }
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    fn next_check(&self) -> Option<Instant> {
        Some(match self.asked.back() {
            Some((_, at)) => *at + RETRY,
            None => self.answered_at? + INTERVAL,
        })
    }

    fn on_answer(&mut self, now: Instant, message: &Message<'_>) -> Taken {
        let id = message.transaction_id();
        let asked = self.asked.iter().find(|(asked, _)| *asked == id).map(|(_, at)| *at);
        match asked {
            Some(at) if message.has_integrity(self.remote.password.as_bytes()) => {
                self.rtt = Some(now.saturating_duration_since(at));
                self.on_answered(now);
                Taken::Answer
            }
            _ => Taken::No,
        }
    }

    /// Whether this check is the viewer's, and all there is to it is the answer.
    fn changes_nothing(&self, check: &Message<'_>, is_in_use: bool) -> bool {
        let has = |kind| check.get(kind).is_some();
        let mut user = UserName::default();
        user.write(&self.local, &self.remote).is_some()
            && check.get(attr::USERNAME) == Some(user.bytes())
            && has(attr::ICE_CONTROLLING)
            && (is_in_use || !has(attr::USE_CANDIDATE))
            && check.unknown_required(&KNOWN).next().is_none()
            && check.has_integrity(self.local.password.as_bytes())
    }
}

/// The receiver's and the sender's user name fragments, as checks have them (RFC 8445 §7.2.2).
struct UserName {
    bytes: [u8; 513],
    len: usize,
}

impl Default for UserName {
    fn default() -> UserName {
        UserName { bytes: [0; 513], len: 0 }
    }
}

impl UserName {
    /// `None` if it is longer than any may be.
    fn write(&mut self, receiver: &Credentials, sender: &Credentials) -> Option<()> {
        for part in [&receiver.ufrag, ":", &sender.ufrag] {
            let end = self.len + part.len();
            self.bytes.get_mut(self.len..end)?.copy_from_slice(part.as_bytes());
            self.len = end;
        }
        Some(())
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs a moment to count from")]
mod tests {
    use super::*;

    fn credentials(name: &str) -> Credentials {
        Credentials { ufrag: name.into(), password: format!("{name}-password-{name}") }
    }

    fn pair(port: u16) -> Pair {
        Pair { local: ([192, 0, 2, 1], 4000).into(), remote: ([198, 51, 100, 7], port).into() }
    }

    const USED: u16 = 5000;

    /// A camera's, at rest, and a buffer.
    fn resting() -> (Consent, Instant, [u8; MAX_LEN]) {
        let mut consent = Consent::new(credentials("camera"), credentials("viewer"), &[1; 32]);
        let now = Instant::now();
        consent.wake(now);
        assert!(!consent.is_enough(now));
        let now = now + AFTER_EVENT;
        assert!(!consent.is_enough(now), "no check was answered yet");
        consent.on_answered(now);
        assert!(consent.is_enough(now));
        (consent, now, [0; MAX_LEN])
    }

    type Attributes<'a> = &'a [(u16, &'a [u8])];

    /// A viewer's check with these attributes beside the ones that all have.
    fn check(user: &str, password: &str, attributes: Attributes<'_>) -> Vec<u8> {
        let mut buffer = [0; MAX_LEN];
        let id = TransactionId([7; 12]);
        let builder = Builder::new(&mut buffer, Class::Request, Method::BINDING, id)
            .attribute(attr::USERNAME, user.as_bytes())
            .u32(attr::PRIORITY, 1);
        let builder = attributes.iter().fold(builder, |b, (kind, value)| b.attribute(*kind, value));
        let len = builder.integrity(password.as_bytes()).fingerprint().finish().unwrap();
        buffer[..len].to_vec()
    }

    const CONTROLLING: (u16, &[u8]) = (attr::ICE_CONTROLLING, &[1; 8]);
    const CONTROLLED: (u16, &[u8]) = (attr::ICE_CONTROLLED, &[1; 8]);
    const NOMINATING: (u16, &[u8]) = (attr::USE_CANDIDATE, &[]);
    const USER: &str = "camera:viewer";
    const PASSWORD: &str = "camera-password-camera";

    #[test]
    fn a_check_that_changes_nothing_is_answered() {
        let (mut consent, now, mut out) = resting();
        let checks = [
            (check(USER, PASSWORD, &[CONTROLLING]), USED),
            (check(USER, PASSWORD, &[CONTROLLING]), 5001),
            (check(USER, PASSWORD, &[CONTROLLING, NOMINATING]), USED),
            // What browsers add for themselves need not be understood.
            (check(USER, PASSWORD, &[CONTROLLING, (0xC057, &[0; 4])]), USED),
        ];
        for (check, port) in checks {
            let message = Message::parse(&check).unwrap();
            let taken = consent.handle(now, &message, pair(port), pair(USED), &mut out);
            let Taken::Check(len) = taken else { panic!("{taken:?}") };
            let answer = Message::parse(&out[..len]).unwrap();
            assert_eq!((answer.class(), answer.method()), (Class::Success, Method::BINDING));
            assert_eq!(answer.transaction_id(), message.transaction_id());
            assert_eq!(answer.get_xor_address(attr::XOR_MAPPED_ADDRESS), Some(pair(port).remote));
            assert!(answer.has_integrity(PASSWORD.as_bytes()) && answer.has_fingerprint());
        }
    }

    #[test]
    fn whatever_may_change_something_is_the_agents() {
        let (mut consent, now, mut out) = resting();
        for (check, port, why) in [
            (check(USER, PASSWORD, &[CONTROLLING, NOMINATING]), 5001, "another pair is nominated"),
            (check(USER, PASSWORD, &[CONTROLLED]), USED, "both want to be controlled"),
            (check(USER, "of-someone-else", &[CONTROLLING]), USED, "forged"),
            (check("viewer:camera", PASSWORD, &[CONTROLLING]), USED, "not for us"),
            (check("camera:", PASSWORD, &[CONTROLLING]), USED, "from nobody"),
            (check(USER, PASSWORD, &[CONTROLLING, (0x7ABC, &[0; 4])]), USED, "must be understood"),
        ] {
            let message = Message::parse(&check).unwrap();
            let taken = consent.handle(now, &message, pair(port), pair(USED), &mut out);
            assert_eq!(taken, Taken::No, "{why}");
        }
    }

    /// Answers a check of ours as a viewer does.
    fn answer(check: &[u8], password: &str) -> Vec<u8> {
        let check = Message::parse(check).unwrap();
        assert_eq!(check.get(attr::USERNAME), Some(&b"viewer:camera"[..]));
        assert!(check.get(attr::ICE_CONTROLLED).is_some() && check.get(attr::PRIORITY).is_some());
        assert!(check.has_integrity(b"viewer-password-viewer") && check.has_fingerprint());
        let mut buffer = [0; MAX_LEN];
        let id = check.transaction_id();
        let answer = Builder::new(&mut buffer, Class::Success, Method::BINDING, id)
            .xor_address(attr::XOR_MAPPED_ADDRESS, pair(4000).local)
            .integrity(password.as_bytes());
        let len = answer.fingerprint().finish().unwrap();
        buffer[..len].to_vec()
    }

    #[test]
    fn checks_go_out_now_and_then_and_soon_again_until_one_is_answered() {
        let (mut consent, start, mut out) = resting();
        let (mut now, mut sent) = (start, Vec::new());
        let mut checks = Vec::new();
        while consent.is_enough(now) {
            now = consent.poll_timeout().unwrap();
            if let Some(len) = consent.check(now, &mut out) {
                sent.push((now - start).as_millis());
                checks.push(out[..len].to_vec());
            }
        }
        assert_eq!(sent, [2500, 3000, 3500, 4000]);
        assert_eq!(now, start + PATIENCE, "then the agent looks for another path");

        let take = |consent: &mut Consent, answer: &[u8], port| {
            let message = Message::parse(answer).unwrap();
            consent.handle(now, &message, pair(port), pair(USED), &mut [0; MAX_LEN])
        };
        let good = answer(&checks[2], "viewer-password-viewer");
        assert_eq!(take(&mut consent, &answer(&checks[2], "guessed"), USED), Taken::No);
        assert_eq!(take(&mut consent, &good, 5001), Taken::No, "by another way");
        assert!(!consent.is_enough(now));
        assert_eq!(take(&mut consent, &good, USED), Taken::Answer);
        assert_eq!(consent.rtt(), Some(Duration::from_millis(500)));
        assert!(consent.is_enough(now));
        assert_eq!(consent.poll_timeout(), Some(now + INTERVAL));
        assert_eq!(take(&mut consent, &good, USED), Taken::No, "once only");
    }

    #[test]
    fn after_a_restart_only_the_new_credentials_count() {
        let (mut consent, now, mut out) = resting();
        consent.restart(now, credentials("again"), credentials("viewer"));
        assert!(!consent.is_enough(now + PATIENCE / 2));
        let old = check(USER, PASSWORD, &[CONTROLLING]);
        let new = check("again:viewer", "again-password-again", &[CONTROLLING]);
        let mut take = |check: &[u8]| {
            let message = Message::parse(check).unwrap();
            consent.handle(now, &message, pair(USED), pair(USED), &mut out)
        };
        assert_eq!(take(&old), Taken::No);
        assert!(matches!(take(&new), Taken::Check(_)));
    }
}
