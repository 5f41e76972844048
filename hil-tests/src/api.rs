//! The session API, as an application sees it (docs/signaling.md, "Session API").

use crate::http;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt;

/// Where the session API is, and what opens it.
#[derive(Debug, Clone)]
pub struct SessionApi {
    /// `http://host:port`
    pub url: String,
    pub app_key: String,
}

/// The answer to `POST /v1/sessions`: everything a viewer needs. Tests change fields of it to see
/// what a camera does with a session it should refuse.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    pub session_id: String,
    pub token: String,
    pub expires_at: Value,
    pub ice_servers: Vec<IceServer>,
    pub mqtt: Mqtt,
    /// Not part of the answer: what was asked for.
    #[serde(skip)]
    pub device: String,
    #[serde(skip)]
    pub app: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct IceServer {
    pub urls: Vec<String>,
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    pub credential: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mqtt {
    pub url: String,
    pub ws_url: String,
    pub username: String,
    pub password: String,
}

/// Why the API gave no session.
#[derive(Debug)]
pub enum ApiError {
    Io(std::io::Error),
    /// An answer other than the expected one.
    Status {
        status: u16,
        body: String,
    },
    /// The answer cannot be read.
    Malformed(String),
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApiError::Io(e) => write!(f, "session API: {e}"),
            ApiError::Status { status, body } => write!(f, "session API: {status}: {body}"),
            ApiError::Malformed(text) => write!(f, "session API: {text}"),
        }
    }
}

impl std::error::Error for ApiError {}

impl SessionApi {
    /// `POST /v1/sessions`.
    pub async fn create(&self, device: &str, app: &str) -> Result<Session, ApiError> {
        let body = json!({ "deviceId": device, "appId": app }).to_string();
        let answer = self.call("POST", "/v1/sessions", body.as_bytes()).await?;
        if answer.status != 201 {
            return Err(ApiError::Status { status: answer.status, body: answer.text() });
        }
        let session: Session = serde_json::from_slice(&answer.body)
            .map_err(|e| ApiError::Malformed(format!("{e} in {}", answer.text())))?;
        Ok(Session { device: device.into(), app: app.into(), ..session })
    }

    /// `GET /v1/sessions/{id}`: the session record.
    pub async fn record(&self, session_id: &str) -> Result<Value, ApiError> {
        let answer = self.call("GET", &format!("/v1/sessions/{session_id}"), b"").await?;
        if answer.status != 200 {
            return Err(ApiError::Status { status: answer.status, body: answer.text() });
        }
        serde_json::from_slice(&answer.body).map_err(|e| ApiError::Malformed(e.to_string()))
    }

    /// `DELETE /v1/sessions/{id}`: closes it on both sides.
    pub async fn delete(&self, session_id: &str) -> Result<(), ApiError> {
        let answer = self.call("DELETE", &format!("/v1/sessions/{session_id}"), b"").await?;
        match answer.status {
            200..=299 => Ok(()),
            status => Err(ApiError::Status { status, body: answer.text() }),
        }
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<http::Response, ApiError> {
        let bearer = format!("Bearer {}", self.app_key);
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        http::request(method, &format!("{}{path}", self.url), &headers, body)
            .await
            .map_err(ApiError::Io)
    }
}
