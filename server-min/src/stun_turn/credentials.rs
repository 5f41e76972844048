//! Who may allocate: time-limited credentials that any holder of a secret can make without asking,
//! and nonces that the server can check without having kept them.

use super::core::Now;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use sdk_core::wire::stun::attribute as attr;
use sdk_core::wire::stun::{self, LongTermKey, Message};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

pub(super) struct Credentials {
    realm: String,
    secrets: Vec<hmac::Key>,
    static_users: Vec<(String, String)>,
    nonce_key: hmac::Key,
    started: Instant,
}

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
pub(super) const NONCE_LEN: usize = 16;
/// RFC 8489 §14.3 and §9.2.4 set no lower bound; coturn's default is 600.
const NONCE_LIFETIME_S: u32 = 3600;
const MAX_USERNAME_LEN: usize = 128;

impl Credentials {
    pub(super) fn new(
        realm: &str,
        secrets: &[Vec<u8>],
        static_users: &[(String, String)],
        nonce_secret: &[u8],
        started: Instant,
    ) -> Credentials {
        let secret = |s: &Vec<u8>| hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, s);
        Credentials {
            realm: realm.to_owned(),
            secrets: secrets.iter().map(secret).collect(),
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
        self.keys(now, username).find(holds).map(proven).ok_or(Unproven::Unauthorized)
    }

    /// What a 401 or 438 carries: the time of issue, and proof that we gave it to this client.
    pub(super) fn nonce(&self, now: Now, client: SocketAddr) -> [u8; NONCE_LEN] {
        self.nonce_of(self.seconds(now), client)
    }

    fn nonce_of(&self, issued_s: u32, client: SocketAddr) -> [u8; NONCE_LEN] {
        let mut context = hmac::Context::with_key(&self.nonce_key);
        context.update(&issued_s.to_be_bytes());
        match client.ip() {
            IpAddr::V4(ip) => context.update(&ip.octets()),
            IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        context.update(&client.port().to_be_bytes());
        let mut raw = [0; 12];
        raw[..4].copy_from_slice(&issued_s.to_be_bytes());
        raw[4..].copy_from_slice(&context.sign().as_ref()[..8]);
        let mut nonce = [0; NONCE_LEN];
        let written = URL_SAFE_NO_PAD.encode_slice(raw, &mut nonce);
        debug_assert_eq!(written, Ok(NONCE_LEN), "12 bytes are 16 characters");
        nonce
    }

    fn is_fresh(&self, now: Now, client: SocketAddr, nonce: &[u8]) -> bool {
        let mut raw = [0; 12];
        if nonce.len() != NONCE_LEN || URL_SAFE_NO_PAD.decode_slice(nonce, &mut raw) != Ok(12) {
            return false;
        }
        let issued_s = u32::from_be_bytes([raw[0], raw[1], raw[2], raw[3]]);
        let age = self.seconds(now).checked_sub(issued_s);
        // Nothing is gained by timing this comparison: a nonce is no secret of its client's.
        age.is_some_and(|age| age <= NONCE_LIFETIME_S) && self.nonce_of(issued_s, client) == nonce
    }

    fn seconds(&self, now: Now) -> u32 {
        now.instant.saturating_duration_since(self.started).as_secs() as u32
    }

    /// The keys that would do for this name.
    fn keys<'a>(&'a self, now: Now, name: &'a str) -> impl Iterator<Item = LongTermKey> + 'a {
        let fixed = self.static_users.iter().filter(move |(user, _)| user == name);
        let in_time = expiry_of(name).is_some_and(|expiry_s| now.unix_s <= expiry_s);
        let secrets = if in_time { &self.secrets[..] } else { &[] };
        let long_term = |password: &str| stun::long_term_key(name, &self.realm, password);
        fixed
            .map(move |(_, password)| long_term(password))
            .chain(secrets.iter().map(move |secret| long_term(&password(secret, name))))
    }
}

/// The password that goes with a time-limited user name.
pub fn password_for(secret: &[u8], username: &str) -> String {
    password(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret), username)
}

/// What a user name stands for: `{unix expiry}:{sessionId}` for a session, any other for itself.
pub fn session_of(username: &str) -> &str {
    match username.split_once(':') {
        Some((expiry, session)) if expiry.parse::<u64>().is_ok() && !session.is_empty() => session,
        _ => username,
    }
}

fn password(secret: &hmac::Key, username: &str) -> String {
    STANDARD.encode(hmac::sign(secret, username.as_bytes()))
}

fn expiry_of(username: &str) -> Option<u64> {
    username.split(':').next()?.parse().ok()
}
