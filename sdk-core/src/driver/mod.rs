//! The only place with a clock, sockets and a thread: it turns them into the agent's inputs, and
//! the agent's outputs into sends and callbacks.
//!
//! [`Camera`] is what the C API wraps. All of its calls may come from any thread.

pub mod broker;

use crate::event::{CloseReason, Event, StreamId};
use crate::wire::signal::SessionId;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How the camera reaches the service and what it allows.
#[derive(Clone)]
pub struct CameraConfig {
    /// The device's serial number: its id in topics and tokens.
    pub device_id: String,
    /// `mqtt://host[:port]`; `mqtts://` where the build has TLS.
    pub broker_url: String,
    pub broker_username: Option<String>,
    pub broker_password: Option<String>,
    /// The session service's raw Ed25519 public key.
    pub service_public_key: [u8; 32],
    /// Where the DTLS key and certificate are kept (0600) so that they need not be made at each
    /// start; in memory only if `None`.
    pub identity_file: Option<PathBuf>,
    /// Viewers at once; further ones get error 429.
    pub max_viewers: usize,
    /// Offers candidates on 127.0.0.1 as well. For demos and tests on one machine.
    pub include_loopback: bool,
    /// Hides host and server-reflexive candidates, so that only relays are used.
    pub relay_only: bool,
    /// What a token's expiry is worth while this device's clock is unset (before 2024).
    pub unset_clock: UnsetClock,
    /// Largest UDP payload to send, in bytes (1200 fits everywhere).
    pub max_datagram: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnsetClock {
    /// The time comes from the service's last keepalive; until there is one, viewers are refused
    /// with 401.
    #[default]
    Refuse,
    /// Until the service has told the time, expiry is not checked; the signature always is.
    AcceptUntilKnown,
}

/// The firmware's callbacks. Called from the agent's thread: return soon, and do not call
/// [`Camera::shutdown`] from one.
pub trait Handler: Send + Sync {
    fn on_event(&self, event: &Event);
}

/// One channel of the camera.
#[derive(Debug, Clone)]
pub struct StreamConfig {
    /// `main`, `sub`, …: what viewers ask for in their offer.
    pub name: String,
    pub codec: Codec,
    /// What is expected, for sizing queues; in bits per second.
    pub bitrate: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    H264,
}

/// One access unit, as the encoder made it.
pub struct Frame {
    pub data: FrameData,
    /// On the encoder's own clock, which must not go backwards within a stream.
    pub timestamp: Duration,
}

/// The access unit's bytes (Annex B), copied or lent.
pub enum FrameData {
    Owned(Vec<u8>),
    /// Lent by the firmware; `release` runs exactly once, when this is dropped.
    Lent(LentFrame),
}

/// A buffer that belongs to the firmware until this is dropped.
pub struct LentFrame {
    data: *const u8,
    len: usize,
    release: Option<Box<dyn FnOnce() + Send>>,
}

// SAFETY: the bytes are only read, and whoever made the frame promised in `LentFrame::new` that
// they stay where they are until the release callback has run.
unsafe impl Send for LentFrame {}

impl LentFrame {
    /// # Safety
    /// `data` must point to `len` readable bytes that do not change until `release` runs.
    pub unsafe fn new(data: *const u8, len: usize, release: Box<dyn FnOnce() + Send>) -> LentFrame {
        LentFrame { data, len, release: Some(release) }
    }
}

impl Drop for LentFrame {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            release();
        }
    }
}

impl std::ops::Deref for FrameData {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            FrameData::Owned(bytes) => bytes,
            // SAFETY: promised by the caller of `LentFrame::new`.
            FrameData::Lent(lent) => unsafe { std::slice::from_raw_parts(lent.data, lent.len) },
        }
    }
}

/// Why [`Camera::start`] or [`Camera::start_stream`] failed.
#[derive(Debug)]
pub enum StartError {
    /// A field of the configuration cannot be used; the text names it and what is expected.
    Config(String),
    /// The operating system refused a thread, a socket or a file.
    Io(std::io::Error),
    /// A stream of that name runs already, or there are too many.
    Busy(String),
    /// [`Camera::shutdown`] was called.
    Closed,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(text) | StartError::Busy(text) => f.write_str(text),
            StartError::Io(e) => e.fmt(f),
            StartError::Closed => f.write_str("the camera was shut down"),
        }
    }
}

impl std::error::Error for StartError {}

/// Why a frame was not taken. The frame is dropped, and released if it was lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushError {
    /// No such stream runs.
    NoStream,
    /// The agent is behind by a full queue; the stream goes on at the next keyframe.
    QueueFull,
    /// No bytes, or more than 4 MiB.
    BadSize,
    /// [`Camera::shutdown`] was called.
    Closed,
}

/// A running camera. Dropping it is the same as [`Camera::shutdown`].
pub struct Camera {}

impl Camera {
    /// Starts the agent's thread and connects to the broker, which is retried for ever.
    pub fn start(_config: CameraConfig, _handler: Arc<dyn Handler>) -> Result<Camera, StartError> {
        Err(StartError::Closed)
    }

    pub fn start_stream(&self, _config: StreamConfig) -> Result<StreamId, StartError> {
        Err(StartError::Closed)
    }

    /// Hands over one access unit. Never blocks; takes no lock that the agent holds while it works.
    pub fn push_frame(&self, _stream: StreamId, _frame: Frame) -> Result<(), PushError> {
        Err(PushError::Closed)
    }

    /// Ends the stream; its viewers are told. False if there is none.
    pub fn stop_stream(&self, _stream: StreamId) -> bool {
        false
    }

    /// Says goodbye to one viewer. False if there is none.
    pub fn close_viewer(&self, _session: SessionId, _reason: CloseReason) -> bool {
        false
    }

    /// Says goodbye to all viewers and the broker, and joins the thread. Frames still queued are
    /// released before it returns. Takes at most two seconds.
    pub fn shutdown(&self) {}
}
