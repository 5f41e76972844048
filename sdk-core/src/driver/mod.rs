//! The only place with a clock, sockets and a thread: it turns them into the agent's inputs, and
//! the agent's outputs into sends and callbacks.
//!
//! [`Camera`] is what the C API wraps. All of its calls may come from any thread.

mod audio;
mod audio_queue;
pub mod broker;
mod channels;
mod frame;
mod frame_queue;
mod identity;
mod published;
mod resolver;
mod run;
mod udp;

pub use crate::config::{DEFAULT_GOP_CACHE, StreamConfig};
pub use crate::session::admission::UnsetClock;
pub use crate::wire::audio::AudioCodec;
pub use crate::wire::codec::Codec;
pub use crate::wire::dcep::{ChannelInfo, Reliability};
pub use crate::wire::sdp::AudioFormat;
pub use audio::MAX_AUDIO_LEN;
pub use broker::CertificateFiles;
pub use channels::ChannelError;
pub use frame::{Frame, FrameData, LentFrame};
pub use udp::Counters;

use crate::event::{AudioId, CloseReason, Event, StreamId, Talkback};
use crate::stats::Snapshot;
use crate::wire::signal::{SessionId, is_valid_id};
use audio::Audio;
use channels::Channels;
use frame_queue::{FrameQueue, Queued};
use published::Latest;
use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// How the camera reaches the service and what it allows.
#[derive(Clone)]
pub struct CameraConfig {
    /// The device's serial number: its id in topics and tokens.
    pub device_id: String,
    /// `mqtt://host[:port]`; `mqtts://` where the build has TLS.
    pub broker_url: String,
    pub broker_username: Option<String>,
    pub broker_password: Option<String>,
    /// PEM file with the certificates that a `mqtts://` broker may be signed by; the system's if
    /// `None`.
    pub broker_ca_file: Option<PathBuf>,
    /// This device's own certificate, for a `mqtts://` broker that wants one.
    pub broker_certificate: Option<CertificateFiles>,
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

/// The firmware's callbacks. Called from the agent's thread: return soon, and do not call
/// [`Camera::shutdown`] from one.
pub trait Handler: Send + Sync {
    fn on_event(&self, event: &Event);

    /// Sound for the loudspeaker. Where there is none it does not come.
    fn on_talkback(&self, _talkback: &Talkback<'_>) {}
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
    /// No such stream, or no such microphone, runs.
    NoStream,
    /// The agent is behind by a full queue; the stream goes on at the next keyframe.
    QueueFull,
    /// No bytes, or more than 4 MiB.
    BadSize,
    /// Not one packet of the microphone's codec, or longer than [`MAX_AUDIO_LEN`].
    BadAudio,
    /// [`Camera::shutdown`] was called.
    Closed,
}

/// A running camera. Dropping it is the same as [`Camera::shutdown`].
pub struct Camera {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Streams at once: main, sub and two more.
pub const MAX_STREAMS: usize = 4;
/// The largest access unit taken, in bytes. A 4K keyframe has some 1 MB.
pub const MAX_FRAME_LEN: usize = 4 * 1024 * 1024;

impl Camera {
    /// Starts the agent's thread and connects to the broker, which is retried for ever.
    pub fn start(config: CameraConfig, handler: Arc<dyn Handler>) -> Result<Camera, StartError> {
        config.check()?;
        let identity =
            identity::load_or_create(config.identity_file.as_deref()).map_err(StartError::Io)?;
        let shared = Arc::new(Shared::new());
        let runner = run::Runner::new(config, identity, handler, shared.clone())?;
        let thread = std::thread::Builder::new()
            .name("p2pcam".into())
            .spawn(move || runner.run_until_closed())
            .map_err(StartError::Io)?;
        Ok(Camera { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Makes a stream available to viewers under its name.
    pub fn start_stream(&self, config: StreamConfig) -> Result<StreamId, StartError> {
        config.check().map_err(StartError::Config)?;
        let id = self.shared.add_stream(config.clone())?;
        self.shared.command(Command::StartStream(id, config));
        Ok(id)
    }

    /// Hands over one access unit. Never blocks; takes no lock that the agent holds while it works.
    pub fn push_frame(&self, stream: StreamId, frame: Frame) -> Result<(), PushError> {
        let slot = self.shared.slot(stream).ok_or(PushError::NoStream)?;
        if frame.data.is_empty() || frame.data.len() > MAX_FRAME_LEN {
            return Err(PushError::BadSize);
        }
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(PushError::Closed);
        }
        let Frame { data, timestamp } = frame;
        let pushed = run::now().instant;
        let queued = Queued { stream, data, timestamp, pushed, after_gap: false };
        self.shared.frames.push(slot, queued).then_some(()).ok_or(PushError::QueueFull)
    }

    /// Ends the stream; its viewers are told. False if there is none.
    pub fn stop_stream(&self, stream: StreamId) -> bool {
        self.shared.remove_stream(stream) && self.shared.command(Command::StopStream(stream))
    }

    /// Says goodbye to one viewer. What comes of it is reported as an event; a session that does
    /// not exist is no error, since it may just have ended. False once the camera was shut down.
    pub fn close_viewer(&self, session: SessionId, reason: CloseReason) -> bool {
        self.shared.command(Command::CloseViewer(session, reason))
    }

    /// Shows a viewer another stream from that one's next keyframe on. As with
    /// [`Self::close_viewer`], what comes of it is reported as an event.
    pub fn switch_viewer(&self, session: SessionId, stream: StreamId) -> bool {
        self.shared.command(Command::SwitchViewer(session, stream))
    }

    /// What the agent counted: at most a second old, and in a callback that reports an event, of
    /// that moment. Waits for nobody, so it may be called from anywhere.
    pub fn stats(&self) -> Arc<Snapshot> {
        self.shared.stats.latest()
    }

    /// What the sockets did since the start.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Whether the caller is one of the firmware's callbacks.
    pub fn is_agent_thread(&self) -> bool {
        lock(&self.thread).as_ref().is_some_and(|t| t.thread().id() == std::thread::current().id())
    }

    /// Says goodbye to all viewers and the broker, and joins the thread. Frames still queued are
    /// released before it returns. Takes at most two seconds.
    ///
    /// From a callback it only asks the thread to end, since that cannot wait for itself.
    pub fn shutdown(&self) {
        self.shared.close();
        if self.is_agent_thread() {
            return;
        }
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            log::error!("the agent's thread ended by a panic");
        }
        while self.shared.frames.pop().is_some() {}
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// What the firmware's threads and the agent's have in common.
struct Shared {
    frames: FrameQueue,
    commands: Mutex<VecDeque<Command>>,
    wake: tokio::sync::Notify,
    channels: Channels,
    closed: AtomicBool,
    /// The id of the stream in each slot, 0 for none: what `push_frame` looks at.
    slots: [AtomicU32; MAX_STREAMS],
    streams: Mutex<Streams>,
    audio: Audio,
    counters: Arc<Counters>,
    stats: Latest,
    /// When the agent's thread began.
    started: std::sync::OnceLock<std::time::Instant>,
}

/// The streams that run, kept so that an agent that had to be made anew has them as well.
#[derive(Default)]
struct Streams {
    running: Vec<(StreamId, StreamConfig)>,
    started: u32,
}

enum Command {
    StartStream(StreamId, StreamConfig),
    StopStream(StreamId),
    StartAudio(AudioId, AudioFormat),
    StopAudio(AudioId),
    CloseViewer(SessionId, CloseReason),
    SwitchViewer(SessionId, StreamId),
}

/// Commands not yet seen by the agent. It sees them at its next turn, so more than a few waiting
/// means that it is gone.
const MAX_COMMANDS: usize = 256;

impl Shared {
    fn new() -> Shared {
        Shared {
            frames: FrameQueue::new(),
            commands: Mutex::default(),
            wake: tokio::sync::Notify::new(),
            channels: Channels::default(),
            closed: AtomicBool::new(false),
            slots: [const { AtomicU32::new(0) }; MAX_STREAMS],
            streams: Mutex::default(),
            audio: Audio::new(),
            counters: Arc::default(),
            stats: Latest::default(),
            started: std::sync::OnceLock::new(),
        }
    }

    fn slot(&self, stream: StreamId) -> Option<usize> {
        (stream.0 != 0).then_some(())?;
        self.slots.iter().position(|slot| slot.load(Ordering::Acquire) == stream.0)
    }

    fn add_stream(&self, config: StreamConfig) -> Result<StreamId, StartError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StartError::Closed);
        }
        let mut streams = lock(&self.streams);
        if streams.running.iter().any(|(_, s)| s.name == config.name) {
            return Err(StartError::Busy(format!(
                "a stream named {:?} runs already; stop it first or choose another name",
                config.name
            )));
        }
        let Some(at) = self.slots.iter().position(|s| s.load(Ordering::Acquire) == 0) else {
            return Err(StartError::Busy(format!("{MAX_STREAMS} streams run already")));
        };
        streams.started = streams.started.checked_add(1).unwrap_or(1);
        let id = StreamId(streams.started);
        streams.running.push((id, config));
        self.frames.forget(at);
        self.slots[at].store(id.0, Ordering::Release);
        Ok(id)
    }

    fn remove_stream(&self, stream: StreamId) -> bool {
        let mut streams = lock(&self.streams);
        let Some(slot) = self.slot(stream) else {
            return false;
        };
        self.slots[slot].store(0, Ordering::Release);
        streams.running.retain(|(id, _)| *id != stream);
        true
    }

    /// False if the camera was shut down.
    fn command(&self, command: Command) -> bool {
        if self.closed.load(Ordering::Acquire) {
            return false;
        }
        let mut commands = lock(&self.commands);
        if commands.len() >= MAX_COMMANDS {
            return false;
        }
        commands.push_back(command);
        drop(commands);
        self.wake.notify_one();
        true
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

impl CameraConfig {
    fn check(&self) -> Result<(), StartError> {
        let refuse = |text: String| Err(StartError::Config(text));
        if !is_valid_id(&self.device_id) {
            return refuse(format!(
                "device_id is {:?}; expected 1 to 64 letters, digits, '-', '_', '.' or ':'",
                self.device_id
            ));
        }
        if self.max_viewers == 0 || self.max_viewers > MAX_VIEWERS {
            return refuse(format!(
                "max_viewers is {}; expected 1 to {MAX_VIEWERS}",
                self.max_viewers
            ));
        }
        if !DATAGRAM_SIZES.contains(&self.max_datagram) {
            return refuse(format!(
                "max_datagram is {}; expected {} to {} bytes",
                self.max_datagram,
                DATAGRAM_SIZES.start(),
                DATAGRAM_SIZES.end()
            ));
        }
        Ok(())
    }
}

/// More than a small ARM can feed.
const MAX_VIEWERS: usize = 128;
/// From what every IPv4 host takes, with room for headers, to an Ethernet frame.
const DATAGRAM_SIZES: std::ops::RangeInclusive<usize> = 548..=1472;

/// A lock whose holder panicked still guards plain data that is whole: go on with it.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
