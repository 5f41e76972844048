//! The operators' page, `/ops`, and what it reads under `/v1/ops`: for whoever has the token, and not
//! there at all unless one is set.
//!
//! | | |
//! |---|---|
//! | `GET /v1/ops/overview` | this node in numbers, its checks, and who ended lately |
//! | `GET /v1/ops/sessions?state=&q=&limit=&after=` | open sessions, the last heard of first |
//! | `GET`, `DELETE /v1/ops/sessions/{id}` | one of them; its end |

use super::api::{failed, not_allowed};
use super::caller;
use super::client::client_address;
use super::reply::{self, Reply};
use super::router::Site;
use super::server::Via;
use crate::clock;
use crate::config::Secret;
use crate::metrics::Text;
use crate::session::credentials::same_secret;
use crate::session::failures::Failures;
use crate::session::listing::{MAX_LISTED, Wanted};
use hyper::header::{CACHE_CONTROL, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method, Request, StatusCode};
use sdk_core::wire::signal::{SessionId, SessionState};
use std::cell::{Cell, RefCell};
use std::net::IpAddr;

pub(super) const API: &str = "/v1/ops/";
pub(super) const PAGE: &str = "/ops";

/// Wrong tokens from one address; as many may come at once.
const WRONG_PER_MINUTE: u32 = 10;
const RETRY_AFTER_S: &str = "6";
const DEFAULT_LIMIT: usize = 100;
/// As long as an id can be.
const MAX_TEXT: usize = 64;

/// Who comes in.
pub(super) struct Door {
    failures: RefCell<Failures>,
    refused: Cell<u64>,
    /// The log has said how to open it.
    hinted: Cell<bool>,
}

impl Door {
    pub(super) fn new() -> Door {
        Door {
            failures: RefCell::new(Failures::new(WRONG_PER_MINUTE)),
            refused: Cell::default(),
            hinted: Cell::default(),
        }
    }

    pub(super) fn write_metrics(&self, text: &mut Text) {
        let help = "Requests to /v1/ops with a wrong token, or from who gave too many";
        text.counter("ops_logins_refused_total", help, self.refused.get());
    }

    /// What whoever does not show `token` is answered; `None` lets in.
    fn refusal(
        &self,
        token: &Secret,
        headers: &HeaderMap,
        ip: IpAddr,
        now_ms: u64,
    ) -> Option<Reply> {
        let Some(given) = caller::bearer(headers) else {
            let text = "send the token of ops.token as \"Authorization: Bearer TOKEN\"";
            return Some(unauthorized(text));
        };
        let refuse = || self.refused.set(self.refused.get() + 1);
        if self.failures.borrow().is_over(ip, now_ms) {
            refuse();
            let text = "too many wrong tokens came from this address; wait a little";
            let reply = reply::error(StatusCode::TOO_MANY_REQUESTS, text);
            return Some(reply::with(reply, RETRY_AFTER, RETRY_AFTER_S));
        }
        if same_secret(token.expose().as_bytes(), given.as_bytes()) {
            return None;
        }
        self.failures.borrow_mut().note(ip, now_ms);
        refuse();
        log::warn!("a wrong token for {PAGE} from {ip}");
        Some(unauthorized("the token is wrong; it is ops.token in the server's configuration"))
    }

    fn hint(&self) {
        if !self.hinted.replace(true) {
            log::info!(
                "someone asked for {PAGE}, which is off: set ops.token (or SERVER_MIN_OPS_TOKEN) to \
                 have it"
            );
        }
    }
}

/// Whether the operators' side answers this path.
pub(super) fn is_ours(path: &str) -> bool {
    let page = path.strip_prefix(PAGE).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    page || path.starts_with(API)
}

pub(super) async fn answer<B>(site: &Site, request: Request<B>, via: Via) -> Reply {
    let settings = site.settings();
    let Some(token) = &settings.ops_token else {
        site.door.hint();
        return not_there();
    };
    let (path, headers) = (request.uri().path(), request.headers());
    let Some(rest) = path.strip_prefix(API) else { return page(site, &request) };
    let client = client_address(via.peer.ip(), headers, &site.trusted_proxies);
    let now_ms = clock::now_ms();
    if let Some(refusal) = site.door.refusal(token, headers, client, now_ms) {
        return refusal;
    }
    let (get, delete) = (Method::GET, Method::DELETE);
    let method = request.method();
    match rest {
        "overview" | "sessions" if *method != get => not_allowed("GET"),
        "overview" => reply::json(StatusCode::OK, &site.desk.overview(now_ms)),
        "sessions" => sessions(site, request.uri().query().unwrap_or(""), now_ms).await,
        _ => {
            let Some(id) = rest.strip_prefix("sessions/") else { return not_there() };
            if *method != get && *method != delete {
                return not_allowed("GET, DELETE");
            }
            match SessionId::parse(id) {
                None => no_such_session(),
                Some(id) if *method == delete => close(site, id, client, now_ms).await,
                Some(id) => one(site, id, now_ms).await,
            }
        }
    }
}

/// Public, as the viewer page is: what it shows comes from the API.
fn page<B>(site: &Site, request: &Request<B>) -> Reply {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return not_allowed("GET, HEAD");
    }
    if request.uri().path() == "/ops/" {
        // Its files are named from `/ops`, which may lie under a path of a proxy's.
        return reply::with(reply::empty(StatusCode::PERMANENT_REDIRECT), LOCATION, "../ops");
    }
    site.ops_page.answer(request.uri().path(), request.headers()).unwrap_or_else(not_there)
}

async fn sessions(site: &Site, query: &str, now_ms: u64) -> Reply {
    let wanted = match wanted(query) {
        Ok(wanted) => wanted,
        Err(text) => return reply::error(StatusCode::BAD_REQUEST, &text),
    };
    match site.desk.sessions(&wanted, now_ms).await {
        Ok(page) => reply::json(StatusCode::OK, &page),
        Err(e) => failed("listing sessions", &e.to_string()),
    }
}

async fn one(site: &Site, id: SessionId, now_ms: u64) -> Reply {
    match site.desk.session(id, now_ms).await {
        Ok(Some(session)) => reply::json(StatusCode::OK, &session),
        Ok(None) => no_such_session(),
        Err(e) => failed(&format!("sessionId={id} reading its record"), &e.to_string()),
    }
}

async fn close(site: &Site, id: SessionId, client: IpAddr, now_ms: u64) -> Reply {
    match site.desk.close(id, &client.to_string(), now_ms).await {
        Ok(true) => reply::with(reply::empty(StatusCode::NO_CONTENT), CACHE_CONTROL, "no-store"),
        Ok(false) => no_such_session(),
        Err(e) => failed(&format!("sessionId={id} closing it"), &e.to_string()),
    }
}

/// Ids have no characters that a query must escape, so nothing is unescaped.
fn wanted(query: &str) -> Result<Wanted, String> {
    let mut wanted = Wanted { limit: DEFAULT_LIMIT, ..Wanted::default() };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let wrong = |expected: &str| Err(format!("{name}: {value:?}: expected {expected}"));
        match name {
            "limit" => match value.parse() {
                Ok(limit) if (1..=MAX_LISTED).contains(&limit) => wanted.limit = limit,
                _ => return wrong(&format!("1 to {MAX_LISTED}")),
            },
            "state" => {
                wanted.state = match value {
                    "" => None,
                    "connecting" => Some(SessionState::Connecting),
                    "connected" => Some(SessionState::Connected),
                    _ => return wrong("connecting, connected, or nothing for both"),
                }
            }
            "after" if value.is_empty() => {}
            "after" => match value.parse() {
                Ok(place) => wanted.after = Some(place),
                Err(()) => return wrong("what \"next\" of the page before said"),
            },
            "q" => {
                let is_of_ids = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
                if value.len() > MAX_TEXT || !value.bytes().all(is_of_ids) {
                    return wrong("part of an id: up to 64 letters, digits, - or _");
                }
                value.clone_into(&mut wanted.text);
            }
            _ => return Err(format!("{name:?} is no parameter; there are state, q, limit, after")),
        }
    }
    Ok(wanted)
}

fn unauthorized(text: &str) -> Reply {
    reply::with(reply::error(StatusCode::UNAUTHORIZED, text), WWW_AUTHENTICATE, "Bearer")
}

fn not_there() -> Reply {
    reply::error(StatusCode::NOT_FOUND, "there is nothing here")
}

fn no_such_session() -> Reply {
    reply::error(StatusCode::NOT_FOUND, "there is no such session, and none that ended lately")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_is_wanted_or_what_is_wrong() {
        let plain = wanted("").unwrap();
        assert_eq!((plain.limit, plain.state, plain.text.as_str()), (DEFAULT_LIMIT, None, ""));
        let after = "1750929836097.89144a39-77cb-4530-bead-def9d1b0e39d";
        let all = wanted(&format!("limit=7&state=connected&q=cam_1&after={after}")).unwrap();
        assert_eq!((all.limit, all.state), (7, Some(SessionState::Connected)));
        assert_eq!((all.text.as_str(), all.after.unwrap().to_string().as_str()), ("cam_1", after));
        for bad in
            ["limit=0", "limit=201", "limit=x", "state=closed", "after=1", "q=a%20b", "q=ä", "x=1"]
        {
            let error = wanted(bad).unwrap_err();
            assert!(error.contains("expected") || error.contains("there are"), "{bad}: {error}");
        }
        assert!(wanted(&format!("q={}", "x".repeat(MAX_TEXT + 1))).is_err());
    }

    #[test]
    fn only_whole_names_are_ours() {
        for ours in ["/ops", "/ops/", "/ops/main.js", "/v1/ops/overview"] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in ["/", "/opsx", "/v1/opsx", "/v1/sessions", "/v1/ops"] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
