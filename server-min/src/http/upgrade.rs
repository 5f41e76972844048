//! `/mqtt`: the WebSocket handshake (RFC 6455 §4.2), after which the connection is the broker's.

use super::reply::{self, Reply};
use super::router::WebSocketDoor;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use std::net::SocketAddr;

/// The name MQTT has on WebSocket (MQTT 5.0 §6).
const PROTOCOL: &str = "mqtt";

pub(super) fn answer(
    mut request: Request<Incoming>,
    peer: SocketAddr,
    broker: Option<&WebSocketDoor>,
) -> Reply {
    let Some(broker) = broker else {
        let text =
            "the MQTT broker is not here: connect to the mqtt.wsUrl that came with the session";
        return reply::error(StatusCode::NOT_FOUND, text);
    };
    let accept = match accept(request.method(), request.headers()) {
        Ok(accept) => accept,
        Err(Refusal { status, text, header: (name, value) }) => {
            return reply::with(reply::error(status, text), name, value);
        }
    };
    let broker = broker.clone();
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::task::spawn_local(async move {
        match upgraded.await {
            Ok(io) => broker(TokioIo::new(io), peer),
            Err(e) => log::debug!("WebSocket of {peer} not taken: {e}"),
        }
    });
    let mut reply = reply::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = reply.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    reply
}

/// Why there is no WebSocket, and the header that says what would do.
struct Refusal {
    status: StatusCode,
    text: &'static str,
    header: (HeaderName, &'static str),
}

/// Checks the client's half of the handshake; the value that proves that it was read.
fn accept(method: &Method, headers: &HeaderMap) -> Result<HeaderValue, Refusal> {
    let refuse = |status, text, header| Err(Refusal { status, text, header });
    let is_upgrade = has(headers, UPGRADE, "websocket") && has(headers, CONNECTION, "upgrade");
    if *method != Method::GET || !is_upgrade {
        let text = "this is the MQTT broker's WebSocket; connect with an MQTT client";
        return refuse(StatusCode::UPGRADE_REQUIRED, text, (UPGRADE, "websocket"));
    }
    if !has(headers, SEC_WEBSOCKET_VERSION, "13") {
        let text = "expected Sec-WebSocket-Version: 13";
        return refuse(StatusCode::UPGRADE_REQUIRED, text, (SEC_WEBSOCKET_VERSION, "13"));
    }
    if !has(headers, SEC_WEBSOCKET_PROTOCOL, PROTOCOL) {
        let text = "expected Sec-WebSocket-Protocol: mqtt";
        return refuse(StatusCode::BAD_REQUEST, text, (SEC_WEBSOCKET_PROTOCOL, PROTOCOL));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    let is_nonce = STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16);
    match HeaderValue::from_str(&accept_key(key)) {
        Ok(accept) if is_nonce => Ok(accept),
        _ => {
            let text = "expected Sec-WebSocket-Key with 16 bytes in base64";
            refuse(StatusCode::BAD_REQUEST, text, (SEC_WEBSOCKET_VERSION, "13"))
        }
    }
}

/// RFC 6455 §1.3.
fn accept_key(key: &[u8]) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat()))
}

/// Whether the comma-separated header `name` lists `token`.
fn has(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_rfc_6455_s() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn handshakes_are_checked() {
        let good = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "mqttv3.1, mqtt"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let status = |change: Option<(&str, &str)>| {
            let mut headers = HeaderMap::new();
            for (name, value) in good {
                let value = change.filter(|c| c.0 == name).map_or(value, |c| c.1);
                headers.insert(
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    value.parse().unwrap(),
                );
            }
            accept(&Method::GET, &headers).map_err(|refusal| refusal.status.as_u16())
        };
        assert!(status(None).is_ok());
        for (name, value, expected) in [
            ("connection", "keep-alive", 426),
            ("upgrade", "h2c", 426),
            ("sec-websocket-version", "8", 426),
            ("sec-websocket-protocol", "mqtts", 400),
            ("sec-websocket-key", "short", 400),
        ] {
            assert_eq!(status(Some((name, value))).unwrap_err(), expected, "{name}");
        }
    }
}
