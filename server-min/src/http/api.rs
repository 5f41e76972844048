//! `/v1/sessions`, for applications.

use super::caller::{Caller, refused};
use super::client::client_address;
use super::reply::{self, Reply};
use super::router::Site;
use super::server::Via;
use crate::clock;
use crate::session::ending::{Ending, Reason};
use crate::session::record::SessionRecord;
use crate::session::service::{Addresses, CreateError, Created, Request as SessionRequest};
use crate::session::store::StoreError;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ALLOW, HeaderValue, RETRY_AFTER, VARY,
};
use hyper::{Method, Request, StatusCode, Uri};
use sdk_core::wire::signal::{ErrorCode, SessionId, is_valid_id};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

/// A request is two ids; this is plenty.
const MAX_BODY_LEN: usize = 16 * 1024;
/// A body that takes longer is not coming.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A store that was away is tried again every few seconds; and what takes a stopping server's place is
/// there by then.
const RETRY_AFTER_S: &str = "5";

const NO_SUCH_SESSION: &str = "there is no such session; create one with POST /v1/sessions";

/// Answers one request to `path` (which begins with `/v1/`), with the headers that let pages of
/// other origins read the answer.
///
/// Any origin may by default: the API goes by a key in a header, never by a cookie, so a foreign
/// page can do nothing here that its author could not do without a browser, and viewers made by
/// others work. `http.cors_origin` narrows it.
pub(super) async fn answer<B>(site: &Site, request: Request<B>, via: Via) -> Reply
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut reply = route(site, request, via).await;
    if let Some(origin) = &site.settings().cors_origin {
        let headers = reply.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(VARY, HeaderValue::from_static("Origin"));
    }
    reply
}

async fn route<B>(site: &Site, request: Request<B>, via: Via) -> Reply
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let path = request.uri().path().to_owned();
    let Some(rest) = path.strip_prefix("/v1/sessions") else { return not_found() };
    if rest.is_empty() {
        return match *request.method() {
            Method::POST => create(site, request, via).await,
            Method::OPTIONS => preflight("POST, OPTIONS"),
            _ => not_allowed("POST, OPTIONS"),
        };
    }
    let Some(id) = rest.strip_prefix('/') else { return not_found() };
    let allowed = "GET, DELETE, OPTIONS";
    if *request.method() == Method::OPTIONS {
        return preflight(allowed);
    }
    if !matches!(*request.method(), Method::GET | Method::DELETE) {
        return not_allowed(allowed);
    }
    let id = SessionId::parse(id);
    let now_ms = clock::now_ms();
    let caller = match Caller::of_session(site, request.headers(), id, now_ms) {
        Ok(caller) => caller,
        Err(refusal) => return refused(&refusal),
    };
    let record = match id {
        Some(id) => site.service.get(id, now_ms).await,
        None => Ok(None),
    };
    match (id, record) {
        (Some(id), Ok(Some(record))) => match caller.may_use(&record) {
            Ok(()) if *request.method() == Method::DELETE => {
                close(site, &record, code_of(request.uri()), now_ms).await
            }
            Ok(()) => show(id, &record),
            Err(refusal) => {
                log::info!("sessionId={id} {} refused to {caller}", request.method());
                refused(&refusal)
            }
        },
        (Some(id), Err(e)) => failed(&format!("sessionId={id} reading its record"), &e.to_string()),
        _ => reply::error(StatusCode::NOT_FOUND, NO_SUCH_SESSION),
    }
}

async fn create<B>(site: &Site, request: Request<B>, via: Via) -> Reply
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if site.ops.health.is_draining() {
        let text =
            "this server is stopping; another one, or the same a little later, takes sessions";
        let reply = reply::error(StatusCode::SERVICE_UNAVAILABLE, text);
        return reply::with(reply, RETRY_AFTER, RETRY_AFTER_S);
    }
    let caller = match Caller::of_application(site, request.headers(), clock::now_ms()) {
        Ok(caller) => caller,
        Err(refusal) => return refused(&refusal),
    };
    let mut addresses = match site.address.of_request(request.headers(), via) {
        Ok(addresses) => addresses,
        Err(text) => return reply::error(StatusCode::BAD_REQUEST, &text),
    };
    let client = client_address(via.peer.ip(), request.headers(), &site.trusted_proxies);
    let body = match read_body(request.into_body()).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let wanted: Wanted = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(e) => {
            let text = format!(
                "the body cannot be read ({e}); expected {{\"deviceId\":\"…\",\"appId\":\"…\"}}"
            );
            return reply::error(StatusCode::BAD_REQUEST, &text);
        }
    };
    let Wanted { device_id, app_id, region, bandwidth_bps } = wanted;
    if let Err(refusal) = caller.may_watch(&device_id, &app_id) {
        return refused(&refusal);
    }
    if region.as_deref().is_some_and(|region| !is_valid_id(region)) {
        let text = "region: expected 1 to 64 letters, digits, - or _, or leave it out";
        return reply::error(StatusCode::BAD_REQUEST, text);
    }
    let regions = &site.placement.regions;
    let choice = regions.choose(region.as_deref(), client, clock::now_ms());
    log::debug!("{client} is served in {} (by {})", choice.region, choice.by);
    regions.direct(choice.region, &mut addresses);
    let region = choice.region.to_owned();
    let wanted =
        SessionRequest { device_id, app_id, region, bandwidth_bps, by: caller.to_string() };
    match site.service.create(wanted, &addresses, clock::now_ms()).await {
        Ok(created) => created_reply(&created, &addresses),
        Err(CreateError::Invalid(text)) => reply::error(StatusCode::BAD_REQUEST, &text),
        Err(CreateError::Store(StoreError::Full { .. })) => reply::error(
            StatusCode::TOO_MANY_REQUESTS,
            "the server has as many sessions as it may hold (session.max_sessions); close some or \
             try again later",
        ),
        Err(e) => failed("creating a session", &e.to_string()),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    device_id: String,
    app_id: String,
    #[serde(default)]
    region: Option<String>,
    #[serde(default)]
    bandwidth_bps: Option<u64>,
}

fn created_reply(created: &Created, addresses: &Addresses) -> Reply {
    let mut body = json!({
        "sessionId": created.session_id.to_string(),
        "token": created.token,
        // Unix milliseconds, as every time in this API.
        "expiresAt": created.expires_at_s * 1000,
        "iceServers": created.ice_servers,
        "mqtt": {
            "url": addresses.mqtt_url,
            "wsUrl": addresses.ws_url,
            "username": created.mqtt.username,
            "password": created.mqtt.password,
        },
    });
    if let Some(online) = created.device_online {
        body["deviceOnline"] = online.into();
    }
    reply::json(StatusCode::CREATED, &body)
}

fn show(id: SessionId, record: &SessionRecord) -> Reply {
    match serde_json::to_value(record) {
        Ok(value) => reply::json(StatusCode::OK, &value),
        Err(e) => failed(&format!("sessionId={id} writing its record"), &e.to_string()),
    }
}

/// Closing what is closed already is no error: the caller has what it wanted.
async fn close(site: &Site, record: &SessionRecord, code: Option<ErrorCode>, now_ms: u64) -> Reply {
    let reason = match code {
        None => Reason::Api,
        Some(code) => code.into(),
    };
    let ending = Ending::new(reason, "closed through the session API");
    match site.service.close(record, ending, now_ms).await {
        Ok(_) => reply::empty(StatusCode::NO_CONTENT),
        Err(e) => failed(&format!("sessionId={} closing it", record.session_id), &e.to_string()),
    }
}

/// `?code=408`: what the caller gives the session up for.
fn code_of(uri: &Uri) -> Option<ErrorCode> {
    let mut pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, number) = pairs.find(|(name, _)| *name == "code")?;
    number.parse().ok().map(ErrorCode::from_number)
}

pub(super) async fn read_body<B>(body: B) -> Result<bytes::Bytes, Reply>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_LEN).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => Err(reply::error(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body has more than 16 KiB; a session request needs two ids",
        )),
        Ok(Err(_)) => Err(reply::error(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => Err(reply::error(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in 10 s")),
    }
}

fn preflight(methods: &'static str) -> Reply {
    let reply = reply::empty(StatusCode::NO_CONTENT);
    let reply = reply::with(reply, ACCESS_CONTROL_ALLOW_METHODS, methods);
    let reply = reply::with(reply, ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type");
    reply::with(reply, ACCESS_CONTROL_MAX_AGE, "600")
}

pub(super) fn not_allowed(methods: &'static str) -> Reply {
    let text = format!("this method is not for this address; it takes {methods}");
    reply::with(reply::error(StatusCode::METHOD_NOT_ALLOWED, &text), ALLOW, methods)
}

fn not_found() -> Reply {
    let text = "there is nothing here; the API is POST /v1/sessions and GET or DELETE \
                /v1/sessions/{id}";
    reply::error(StatusCode::NOT_FOUND, text)
}

/// The reason goes to the log, not to the client.
pub(super) fn failed(what: &str, why: &str) -> Reply {
    log::error!("{what} failed: {why}");
    let text = "the server could not do this now; its log says why. Try again later";
    reply::with(reply::error(StatusCode::SERVICE_UNAVAILABLE, text), RETRY_AFTER, RETRY_AFTER_S)
}
