//! Who may allocate: time-limited credentials that any holder of a secret can make without asking,
//! and nonces that the server can check without having kept them.

use super::config::check_secrets;
use super::core::Now;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use sdk_core::wire::stun::attribute as attr;
use sdk_core::wire::stun::{self, LongTermKey, Message};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

pub(super) struct Credentials {
    realm: String,
    secrets: Arc<Secrets>,
    static_users: Vec<(String, String)>,
    nonce_key: hmac::Key,
    started: Instant,
}

/// The secrets of time-limited credentials, any of which may have made them. All shards of a relay
/// have the same, and they may be exchanged while it runs.
pub struct Secrets(RwLock<Vec<hmac::Key>>);

/// A request's sender, proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proven {
    pub(super) username: String,
    pub(super) key: LongTermKey,
}

/// Why a request's sender is not proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unproven {
    /// 401: no credentials, or wrong ones.
    Unauthorized,
    /// 438.
    StaleNonce,
    /// 400: credentials with parts missing.
    Malformed,
}

/// Characters of a nonce: short, because whoever forges our client's address is sent one.
pub(super) const NONCE_LEN: usize = 12;
/// The seconds at which it was issued, as many as fit (they begin anew after 194 days), and a tag
/// that binds them to a client. A tag need not outlast more than guesses over the network.
const RAW_NONCE_LEN: usize = 9;
const NONCE_TIME_LEN: usize = 3;
/// RFC 8489 §14.3 and §9.2.4 set no lower bound; coturn's default is 600.
const NONCE_LIFETIME_S: u32 = 3600;
const MAX_USERNAME_LEN: usize = 128;

impl Secrets {
    pub fn new(secrets: &[Vec<u8>]) -> Secrets {
        Secrets(RwLock::new(keys(secrets)))
    }

    /// What is allocated stays, and can be refreshed; what is new must be proven by one of these.
    /// The error says what is wrong with them, and leaves the old ones.
    pub fn replace(&self, secrets: &[Vec<u8>]) -> Result<(), String> {
        check_secrets(secrets)?;
        if secrets.is_empty() {
            return Err("secrets is empty; nobody could sign in with what was given out".into());
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys(secrets);
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<hmac::Key>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Credentials {
    pub(super) fn new(
        realm: &str,
        secrets: Arc<Secrets>,
        static_users: &[(String, String)],
        nonce_secret: &[u8],
        started: Instant,
    ) -> Credentials {
        Credentials {
            realm: realm.to_owned(),
            secrets,
            static_users: static_users.to_vec(),
            nonce_key: hmac::Key::new(hmac::HMAC_SHA256, nonce_secret),
            started,
        }
    }

    pub(super) fn realm(&self) -> &str {
        &self.realm
    }

    /// Checks a request as RFC 8489 §9.2.4 says. `established` are name and key of the sender's
    /// allocation: they stay good after the name's time is over, because what they made lives on.
    pub(super) fn prove(
        &self,
        now: Now,
        client: SocketAddr,
        request: &Message<'_>,
        established: Option<(&str, &LongTermKey)>,
    ) -> Result<Proven, Unproven> {
        let sha256 = request.get(attr::MESSAGE_INTEGRITY_SHA256).is_some();
        if !sha256 && request.get(attr::MESSAGE_INTEGRITY).is_none() {
            return Err(Unproven::Unauthorized);
        }
        let (username, nonce) = (request.get_str(attr::USERNAME), request.get(attr::NONCE));
        let (Some(username), Some(nonce), Some(_)) = (username, nonce, request.get(attr::REALM))
        else {
            return Err(Unproven::Malformed);
        };
        if !self.is_fresh(now, client, nonce) {
            return Err(Unproven::StaleNonce);
        }
        let holds = |key: &LongTermKey| match sha256 {
            true => request.has_integrity_sha256(key),
            false => request.has_integrity(key),
        };
        let proven = |key: LongTermKey| Proven { username: username.to_owned(), key };
        if let Some((name, key)) = established
            && name == username
        {
            return if holds(key) { Ok(proven(*key)) } else { Err(Unproven::Unauthorized) };
        }
        if username.len() > MAX_USERNAME_LEN {
            return Err(Unproven::Unauthorized);
        }
        self.key_of(now, username, holds).map(proven).ok_or(Unproven::Unauthorized)
    }

    /// What a 401 or 438 carries: the time of issue, and proof that we gave it to this client.
    pub(super) fn nonce(&self, now: Now, client: SocketAddr) -> [u8; NONCE_LEN] {
        let [_, issued_s @ ..] = self.seconds(now).to_be_bytes();
        let mut raw = [0; RAW_NONCE_LEN];
        let (time, tag) = raw.split_at_mut(NONCE_TIME_LEN);
        time.copy_from_slice(&issued_s);
        tag.copy_from_slice(&self.nonce_tag(issued_s, client));
        let mut nonce = [0; NONCE_LEN];
        let written = URL_SAFE_NO_PAD.encode_slice(raw, &mut nonce);
        debug_assert_eq!(written, Ok(NONCE_LEN), "9 bytes are 12 characters");
        nonce
    }

    fn nonce_tag(
        &self,
        issued_s: [u8; NONCE_TIME_LEN],
        client: SocketAddr,
    ) -> [u8; RAW_NONCE_LEN - NONCE_TIME_LEN] {
        let mut context = hmac::Context::with_key(&self.nonce_key);
        context.update(&issued_s);
        match client.ip() {
            IpAddr::V4(ip) => context.update(&ip.octets()),
            IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        context.update(&client.port().to_be_bytes());
        let mut tag = [0; RAW_NONCE_LEN - NONCE_TIME_LEN];
        tag.copy_from_slice(&context.sign().as_ref()[..RAW_NONCE_LEN - NONCE_TIME_LEN]);
        tag
    }

    fn is_fresh(&self, now: Now, client: SocketAddr, nonce: &[u8]) -> bool {
        let mut raw = [0; RAW_NONCE_LEN];
        if nonce.len() != NONCE_LEN
            || URL_SAFE_NO_PAD.decode_slice(nonce, &mut raw) != Ok(RAW_NONCE_LEN)
        {
            return false;
        }
        let [a, b, c, tag @ ..] = raw;
        let age_s = self.seconds(now).wrapping_sub(u32::from_be_bytes([0, a, b, c])) & 0xFF_FFFF;
        let is_ours = same_in_constant_time(&tag, &self.nonce_tag([a, b, c], client));
        is_ours && age_s <= NONCE_LIFETIME_S
    }

    fn seconds(&self, now: Now) -> u32 {
        now.instant.saturating_duration_since(self.started).as_secs() as u32
    }

    /// The key of this name that holds, if one does.
    fn key_of(
        &self,
        now: Now,
        name: &str,
        holds: impl Fn(&LongTermKey) -> bool,
    ) -> Option<LongTermKey> {
        let long_term = |password: &str| stun::long_term_key(name, &self.realm, password);
        let fixed = self.static_users.iter().filter(|(user, _)| user == name);
        let found = fixed.map(|(_, password)| long_term(password)).find(&holds);
        if found.is_some() || Name::parse(name).expiry_s.is_none_or(|end_s| end_s < now.unix_s) {
            return found;
        }
        let secrets = self.secrets.read();
        secrets.iter().map(|secret| long_term(&password(secret, name))).find(holds)
    }
}

/// What a user name says. Those that server-min makes are `{unix expiry}:{sessionId}`, and
/// `{unix expiry}:{sessionId}:{kbit/s}` for a session whose record has a bandwidth of its own: so
/// each node knows it, and nobody can change it without the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name<'a> {
    pub(super) expiry_s: Option<u64>,
    pub(super) session: &'a str,
    pub(super) bandwidth_bps: Option<u64>,
}

impl<'a> Name<'a> {
    pub(super) fn parse(username: &'a str) -> Name<'a> {
        let whole = Name { expiry_s: None, session: username, bandwidth_bps: None };
        let (expiry, rest) = match username.split_once(':') {
            Some((expiry, rest)) => (expiry, Some(rest)),
            None => (username, None),
        };
        let Ok(expiry_s) = expiry.parse() else { return whole };
        let whole = Name { expiry_s: Some(expiry_s), ..whole };
        let Some(rest) = rest.filter(|rest| !rest.is_empty()) else { return whole };
        if let Some((session, kbit_s)) = rest.rsplit_once(':')
            && !session.is_empty()
            && let Ok(kbit_s) = kbit_s.parse::<u32>()
            && kbit_s > 0
        {
            return Name { session, bandwidth_bps: Some(u64::from(kbit_s) * 1000), ..whole };
        }
        Name { session: rest, ..whole }
    }
}

/// The password that goes with a time-limited user name.
pub fn password_for(secret: &[u8], username: &str) -> String {
    password(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret), username)
}

/// Whose a user name is: the session's id in a time-limited one, any other stands for itself.
pub fn session_of(username: &str) -> &str {
    Name::parse(username).session
}

fn password(secret: &hmac::Key, username: &str) -> String {
    STANDARD.encode(hmac::sign(secret, username.as_bytes()))
}

fn keys(secrets: &[Vec<u8>]) -> Vec<hmac::Key> {
    let key = |s: &Vec<u8>| hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, s);
    secrets.iter().map(key).collect()
}

fn same_in_constant_time<const N: usize>(a: &[u8; N], b: &[u8; N]) -> bool {
    a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SID: &str = "550e8400-e29b-41d4-a716-446655440000";

    #[test]
    fn a_name_says_until_when_whose_and_how_fast() {
        let name = |text: &str| {
            let Name { expiry_s, session, bandwidth_bps } = Name::parse(text);
            (expiry_s, session.to_owned(), bandwidth_bps)
        };
        let sid = SID.to_owned();
        assert_eq!(name(&format!("99:{SID}")), (Some(99), sid.clone(), None));
        assert_eq!(name(&format!("99:{SID}:4000")), (Some(99), sid.clone(), Some(4_000_000)));
        assert_eq!(name(SID), (None, sid, None));
        for (text, expiry_s, session) in [
            ("", None, ""),
            ("tester", None, "tester"),
            ("tester:5", None, "tester:5"),
            // As coturn takes it: a time and no more.
            ("99", Some(99), "99"),
            ("99:", Some(99), "99:"),
            ("99::5", Some(99), ":5"),
            ("99:a:b", Some(99), "a:b"),
            ("99:a:", Some(99), "a:"),
            ("99:a:0", Some(99), "a:0"),
            ("99:a:-1", Some(99), "a:-1"),
            ("99:a:9999999999", Some(99), "a:9999999999"),
        ] {
            assert_eq!(name(text), (expiry_s, session.to_owned(), None), "{text}");
            assert_eq!(session_of(session_of(text)), session_of(text), "{text}");
        }
    }
}
