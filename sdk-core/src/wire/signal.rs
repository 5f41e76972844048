//! Signals: the JSON messages that viewers, cameras and the session service exchange through the
//! broker. `docs/signaling.md` is the contract; `testdata/signaling` holds an example of each.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use std::fmt;

/// Longest message anyone may send, in bytes.
pub const MAX_SIGNAL_LEN: usize = 64 * 1024;

/// One message through the broker.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    pub session_id: SessionId,
    /// Who sends: an application's or a device's id.
    pub from: String,
    pub to: String,
    pub body: Body,
    /// Unix milliseconds. For tracing only, never for deciding: a camera's clock may be unset.
    pub timestamp: u64,
}

/// What a signal says: its `type` and `payload`.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    Offer(Offer),
    Answer { sdp: String },
    Candidate(Candidate),
    Bye { reason: String },
    Keepalive(Keepalive),
    Error { code: ErrorCode, message: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub sdp: String,
    /// The session service's permission, see [`crate::wire::token`]. Empty when missing.
    #[serde(default)]
    pub token: String,
    /// Which of the camera's streams to show, `main` unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
}

/// A trickled ICE candidate (RFC 8840). An empty `candidate` ends the candidates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    pub candidate: String,
    #[serde(default)]
    pub sdp_mid: Option<String>,
    #[serde(default, rename = "sdpMLineIndex")]
    pub sdp_m_line_index: Option<u16>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Keepalive {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<SessionState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Path>,
    /// From the offer to the connection, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_ms: Option<u32>,
    /// From a viewer: which stream it wants to see from now on. From a camera: which one it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// From a camera: all that it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<String>,
    /// From a camera: why it goes on with the stream it sends instead of the one asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_error: Option<String>,
    /// To the service, with `closed`: the number of the error that ended the session, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// And in words, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `status` of a session's record and `state` of a keepalive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionState {
    Connecting,
    Connected,
    Closed,
}

/// How media travels: the kind of the selected pair's candidate that says most about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    Host,
    Srflx,
    Prflx,
    Relay,
}

/// Why something was refused. The number says what to do, the message's text says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// 400: the message or its SDP cannot be read.
    Malformed,
    /// 401: the token is missing, expired or forged.
    Unauthorized,
    /// 403: the token is for another device.
    Forbidden,
    /// 404: there is no such session.
    NoSession,
    /// 406: nothing in the offer can be played.
    NotAcceptable,
    /// 408: not connected in time.
    Timeout,
    /// 409: the session id is in use by another application.
    Conflict,
    /// 413: the message is too large.
    TooLarge,
    /// 429: too many viewers or sessions.
    TooMany,
    /// 500: internal error.
    Internal,
    /// 503: the stream is not running.
    Unavailable,
    /// A code this version does not know.
    Other(u16),
}

impl ErrorCode {
    pub fn number(self) -> u16 {
        match self {
            ErrorCode::Malformed => 400,
            ErrorCode::Unauthorized => 401,
            ErrorCode::Forbidden => 403,
            ErrorCode::NoSession => 404,
            ErrorCode::NotAcceptable => 406,
            ErrorCode::Timeout => 408,
            ErrorCode::Conflict => 409,
            ErrorCode::TooLarge => 413,
            ErrorCode::TooMany => 429,
            ErrorCode::Internal => 500,
            ErrorCode::Unavailable => 503,
            ErrorCode::Other(n) => n,
        }
    }

    pub fn from_number(n: u16) -> ErrorCode {
        match n {
            400 => ErrorCode::Malformed,
            401 => ErrorCode::Unauthorized,
            403 => ErrorCode::Forbidden,
            404 => ErrorCode::NoSession,
            406 => ErrorCode::NotAcceptable,
            408 => ErrorCode::Timeout,
            409 => ErrorCode::Conflict,
            413 => ErrorCode::TooLarge,
            429 => ErrorCode::TooMany,
            500 => ErrorCode::Internal,
            503 => ErrorCode::Unavailable,
            n => ErrorCode::Other(n),
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// A session's id: a UUID (RFC 9562), kept in its lower-case text form without allocating.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// Makes a version 4 UUID of 16 random bytes.
    pub fn from_random(mut bytes: [u8; 16]) -> SessionId {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        SessionId(bytes)
    }

    /// Reads the 36-character form `8-4-4-4-12`, upper or lower case.
    pub fn parse(text: &str) -> Option<SessionId> {
        let text = text.as_bytes();
        if text.len() != 36 {
            return None;
        }
        let mut bytes = [0u8; 16];
        let mut digits = 0;
        for (i, &c) in text.iter().enumerate() {
            if matches!(i, 8 | 13 | 18 | 23) {
                if c != b'-' {
                    return None;
                }
                continue;
            }
            let digit = (c as char).to_digit(16)? as u8;
            bytes[digits / 2] = bytes[digits / 2] << 4 | digit;
            digits += 1;
        }
        Some(SessionId(bytes))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A message that cannot be read. `session_id` and `from` are there where they could still be
/// read, so that an `error` can be sent back.
#[derive(Debug, Clone, PartialEq)]
pub struct SignalError {
    pub code: ErrorCode,
    pub message: String,
    pub session_id: Option<SessionId>,
    pub from: Option<String>,
}

impl fmt::Display for SignalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "signal refused ({}): {}", self.code, self.message)
    }
}

impl std::error::Error for SignalError {}

/// A message as it comes in.
#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "sessionId")]
    session_id: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    payload: Value,
    #[serde(default)]
    timestamp: Value,
}

/// A message as it goes out: written from where its parts are.
#[derive(Serialize)]
struct Outgoing<'a, P> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "sessionId", serialize_with = "as_text")]
    session_id: SessionId,
    from: &'a str,
    to: &'a str,
    payload: P,
    timestamp: u64,
}

fn as_text<S: Serializer>(id: &SessionId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

#[derive(Serialize, Deserialize)]
struct Text<S> {
    sdp: S,
}

#[derive(Serialize, Deserialize)]
struct Reason<S> {
    #[serde(default)]
    reason: S,
}

#[derive(Serialize, Deserialize)]
struct Failure<S> {
    code: u16,
    #[serde(default)]
    message: S,
}

impl Signal {
    /// Reads one message. Unknown fields are ignored; an unknown `type` is an error.
    pub fn parse(bytes: &[u8]) -> Result<Signal, SignalError> {
        let refuse =
            |code, message: String| SignalError { code, message, session_id: None, from: None };
        if bytes.len() > MAX_SIGNAL_LEN {
            return Err(refuse(
                ErrorCode::TooLarge,
                format!(
                    "the message has {} bytes; at most {MAX_SIGNAL_LEN} are taken",
                    bytes.len()
                ),
            ));
        }
        let envelope: Envelope = serde_json::from_slice(bytes)
            .map_err(|e| refuse(ErrorCode::Malformed, format!("not a signaling message: {e}")))?;
        let session_id = SessionId::parse(&envelope.session_id);
        let malformed = |message: String| SignalError {
            code: ErrorCode::Malformed,
            message,
            session_id,
            from: Some(envelope.from.clone()).filter(|f| !f.is_empty()),
        };
        let Some(id) = session_id else {
            return Err(malformed("sessionId is not a UUID".into()));
        };
        if envelope.from.is_empty() {
            return Err(malformed("`from` is missing: name the sender".into()));
        }
        let payload = match envelope.payload {
            Value::Null => Value::Object(Map::new()),
            other => other,
        };
        fn read<T: serde::de::DeserializeOwned>(v: Value) -> Result<T, String> {
            serde_json::from_value(v).map_err(|e| format!("payload: {e}"))
        }
        let body = match envelope.kind.as_str() {
            "offer" => read(payload).map(Body::Offer),
            "answer" => read::<Text<String>>(payload).map(|t| Body::Answer { sdp: t.sdp }),
            "candidate" => read(payload).map(Body::Candidate),
            "bye" => read::<Reason<String>>(payload).map(|r| Body::Bye { reason: r.reason }),
            "keepalive" => read(payload).map(Body::Keepalive),
            "error" => read::<Failure<String>>(payload)
                .map(|f| Body::Error { code: ErrorCode::from_number(f.code), message: f.message }),
            other => Err(format!(
                "type is {other:?}; expected offer, answer, candidate, bye, keepalive or error"
            )),
        }
        .map_err(malformed)?;
        Ok(Signal {
            session_id: id,
            from: envelope.from,
            to: envelope.to,
            body,
            timestamp: envelope.timestamp.as_u64().unwrap_or(0),
        })
    }

    /// Writes the message as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        match &self.body {
            Body::Offer(offer) => self.write(offer),
            Body::Answer { sdp } => self.write(Text { sdp }),
            Body::Candidate(candidate) => self.write(candidate),
            Body::Bye { reason } => self.write(Reason { reason }),
            Body::Keepalive(keepalive) => self.write(keepalive),
            Body::Error { code, message } => self.write(Failure { code: code.number(), message }),
        }
    }

    fn write(&self, payload: impl Serialize) -> Vec<u8> {
        let message = Outgoing {
            kind: self.body.kind(),
            session_id: self.session_id,
            from: &self.from,
            to: &self.to,
            payload,
            timestamp: self.timestamp,
        };
        // Cannot fail: there are no maps with odd keys, and writing to memory does not fail.
        serde_json::to_vec(&message).unwrap_or_default()
    }
}

impl Body {
    /// The message's `type` as written on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Body::Offer(_) => "offer",
            Body::Answer { .. } => "answer",
            Body::Candidate(_) => "candidate",
            Body::Bye { .. } => "bye",
            Body::Keepalive(_) => "keepalive",
            Body::Error { .. } => "error",
        }
    }
}

/// The topic a device listens on.
pub fn device_topic(device_sn: &str) -> String {
    format!("p2p/signal/device/{device_sn}")
}

/// The topic an application listens on.
pub fn app_topic(app_id: &str) -> String {
    format!("p2p/signal/app/{app_id}")
}

/// The topic the session service listens on.
pub const SERVER_TOPIC: &str = "p2p/signal/server";

/// The session service's name in `from` and `to`. No application or device may have it.
pub const SERVER_NAME: &str = "server";

/// The retained topic that says whether a device is online.
pub fn status_topic(device_sn: &str) -> String {
    format!("p2p/status/device/{device_sn}")
}

/// Whether `id` can stand in a topic as a device's or an application's id: 1 to 64 characters out
/// of letters, digits, `-`, `_`, `.` and `:`.
pub fn is_valid_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "550e8400-e29b-41d4-a716-446655440000";

    #[test]
    fn session_ids_keep_their_text_form() {
        let id = SessionId::parse(ID).unwrap();
        assert_eq!(id.to_string(), ID);
        assert_eq!(SessionId::parse(&ID.to_uppercase()), Some(id));
        for bad in ["", "550e8400", "550e8400-e29b-41d4-a716-44665544000g", &ID.replace('-', "0")] {
            assert_eq!(SessionId::parse(bad), None, "{bad}");
        }
        let random = SessionId::from_random([0xff; 16]).to_string();
        assert_eq!(random, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn a_message_that_cannot_be_answered_says_so() {
        let err = Signal::parse(b"{").unwrap_err();
        assert_eq!((err.code, err.session_id), (ErrorCode::Malformed, None));
        let text = format!(r#"{{"type":"dance","sessionId":"{ID}","from":"a"}}"#);
        let err = Signal::parse(text.as_bytes()).unwrap_err();
        assert_eq!(err.session_id, SessionId::parse(ID));
        assert_eq!(err.from.as_deref(), Some("a"));
        assert!(err.message.contains("dance"), "{}", err.message);
        let err = Signal::parse(&vec![b' '; MAX_SIGNAL_LEN + 1]).unwrap_err();
        assert_eq!(err.code, ErrorCode::TooLarge);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bodies = [
            Body::Offer(Offer { sdp: "v=0".into(), token: "t".into(), stream: Some("sub".into()) }),
            Body::Answer { sdp: "v=0".into() },
            Body::Candidate(Candidate {
                candidate: String::new(),
                sdp_mid: Some("0".into()),
                sdp_m_line_index: Some(0),
            }),
            Body::Bye { reason: "done".into() },
            Body::Keepalive(Keepalive {
                state: Some(SessionState::Connected),
                path: Some(Path::Relay),
                setup_ms: Some(120),
                stream: Some("main".into()),
                streams: vec!["main".into(), "sub".into()],
                stream_error: Some("the stream is not running".into()),
                code: Some(408),
                reason: Some("not connected in time".into()),
            }),
            Body::Error { code: ErrorCode::TooMany, message: "full".into() },
        ];
        for body in bodies {
            let signal = Signal {
                session_id: SessionId::parse(ID).unwrap(),
                from: "app_1".into(),
                to: "device_1".into(),
                body,
                timestamp: 1_750_929_836_097,
            };
            assert_eq!(Signal::parse(&signal.to_json()).unwrap(), signal);
        }
    }
}
