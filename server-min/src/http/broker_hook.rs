//! `POST /v1/mqtt/auth` and `/v1/mqtt/acl`: a broker that is not ours asks who may do what
//! (docs/external-broker.md). Not for browsers, so without CORS.

use super::api::read_body;
use super::caller::bearer;
use super::reply::{self, Reply};
use crate::mqtt_external::Hook;
use hyper::body::Incoming;
use hyper::header::{ALLOW, WWW_AUTHENTICATE};
use hyper::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;

pub(super) const PREFIX: &str = "/v1/mqtt/";

pub(super) async fn answer(hook: Option<&Hook>, request: Request<Incoming>) -> Reply {
    let Some(hook) = hook else {
        let text = "no broker may ask here: set mqtt.hook_secret in the server's configuration";
        return reply::error(StatusCode::NOT_FOUND, text);
    };
    if *request.method() != Method::POST {
        let text = "this address takes POST";
        let reply = reply::error(StatusCode::METHOD_NOT_ALLOWED, text);
        return reply::with(reply, ALLOW, "POST");
    }
    if !bearer(request.headers()).is_some_and(|secret| hook.knows(secret)) {
        let text = "expected \"Authorization: Bearer SECRET\" with mqtt.hook_secret";
        let reply = reply::error(StatusCode::UNAUTHORIZED, text);
        return reply::with(reply, WWW_AUTHENTICATE, "Bearer");
    }
    let path = request.uri().path().to_owned();
    let body = match read_body(request.into_body()).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let answer = match path.strip_prefix(PREFIX) {
        Some("auth") => match parse(&body) {
            Ok(question) => Ok(hook.on_login(&question).await),
            Err(text) => Err(text),
        },
        Some("acl") => {
            parse(&body).and_then(|action| hook.on_action(&action).map_err(str::to_owned))
        }
        _ => {
            let text = "there is nothing here; a broker asks /v1/mqtt/auth and /v1/mqtt/acl";
            return reply::error(StatusCode::NOT_FOUND, text);
        }
    };
    match answer {
        Ok(answer) => reply::json(StatusCode::OK, &answer),
        Err(text) => {
            log::warn!("{path}: {text}");
            reply::error(StatusCode::BAD_REQUEST, &text)
        }
    }
}

/// The error does not repeat what it found: there are passwords in it.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|e| {
        let (line, column) = (e.line(), e.column());
        format!(
            "the body cannot be read (line {line}, column {column}); expected JSON with username and \
             password, or with username, action, topic and retain"
        )
    })
}
