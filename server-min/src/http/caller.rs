//! Who calls the session API, by the `Authorization` header, and what that allows.
//!
//! | Caller | creates sessions | reads and closes |
//! |---|---|---|
//! | an application key | every one | every one |
//! | a token that an application signed | for its appId, and for its device if it names one | likewise |
//! | a session's own token | none | this session |

use super::reply::{self, Reply};
use super::router::Site;
use crate::session::AppToken;
use crate::session::app_token::Refusal;
use crate::session::credentials::same_secret;
use crate::session::record::SessionRecord;
use hyper::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use hyper::{HeaderMap, StatusCode};
use sdk_core::wire::signal::SessionId;
use std::fmt;

const FOR_CREATION: &str = "the application key is missing or wrong: send it as \
    \"Authorization: Bearer KEY\", one of app_keys in the server's configuration, or a token of \
    your own, signed (EdDSA) with a key of its [[apps]]";
const FOR_A_SESSION: &str = "send the application key, a token that your application signed, or \
    this session's own unexpired token as \"Authorization: Bearer …\"";

/// Someone who has proven who it is.
pub(super) enum Caller {
    KeyHolder,
    Application(AppToken),
    /// Whoever was given the session's token: already found to be of the session in question.
    Participant,
}

impl Caller {
    /// Who may create sessions.
    pub(super) fn of_application(
        site: &Site,
        headers: &HeaderMap,
        now_ms: u64,
    ) -> Result<Caller, Refusal> {
        let known = match bearer(headers) {
            Some(given) => key_or_token(site, given, now_ms)?,
            None => None,
        };
        known.ok_or_else(|| Refusal::Unauthorized(FOR_CREATION.into()))
    }

    /// Who may use the session `id`, as far as that can be said without its record.
    pub(super) fn of_session(
        site: &Site,
        headers: &HeaderMap,
        id: Option<SessionId>,
        now_ms: u64,
    ) -> Result<Caller, Refusal> {
        let nobody = || Refusal::Unauthorized(FOR_A_SESSION.into());
        let given = bearer(headers).ok_or_else(nobody)?;
        if let Some(caller) = key_or_token(site, given, now_ms)? {
            return Ok(caller);
        }
        let is_of_it = id.is_some_and(|id| site.service.is_token_of(given, id, now_ms));
        if is_of_it { Ok(Caller::Participant) } else { Err(nobody()) }
    }

    pub(super) fn may_watch(&self, device_id: &str, app_id: &str) -> Result<(), Refusal> {
        match self {
            Caller::KeyHolder => Ok(()),
            Caller::Application(token) => token.may_watch(device_id, app_id),
            Caller::Participant => Err(Refusal::Unauthorized(FOR_CREATION.into())),
        }
    }

    pub(super) fn may_use(&self, session: &SessionRecord) -> Result<(), Refusal> {
        match self {
            Caller::KeyHolder | Caller::Participant => Ok(()),
            Caller::Application(token) => token.may_use(session),
        }
    }
}

/// As the log names it.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::KeyHolder => f.write_str("an application key"),
            Caller::Application(token) => write!(f, "a token of {}", token.issuer),
            Caller::Participant => f.write_str("the session's token"),
        }
    }
}

/// `None` is neither: a session's token, or nothing of ours.
fn key_or_token(site: &Site, given: &str, now_ms: u64) -> Result<Option<Caller>, Refusal> {
    // With every key, so that the time taken tells nothing about which one was close.
    let has_key = site
        .app_keys
        .iter()
        .fold(false, |found, key| same_secret(key.expose().as_bytes(), given.as_bytes()) | found);
    if has_key {
        return Ok(Some(Caller::KeyHolder));
    }
    let token = AppToken::verify(&site.apps, given, now_ms / 1000)?;
    Ok(token.map(Caller::Application))
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, given) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| given.trim())
}

/// The answer to someone who may not do this.
pub(super) fn refused(refusal: &Refusal) -> Reply {
    let (status, text) = match refusal {
        Refusal::Unauthorized(text) => (StatusCode::UNAUTHORIZED, text),
        Refusal::Forbidden(text) => (StatusCode::FORBIDDEN, text),
    };
    let reply = reply::error(status, text);
    match status {
        StatusCode::UNAUTHORIZED => reply::with(reply, WWW_AUTHENTICATE, "Bearer"),
        _ => reply,
    }
}
