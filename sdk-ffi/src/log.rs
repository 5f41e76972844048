//! Log lines for the firmware. Rust's `log` has one logger a process, so every agent that asked for
//! lines gets all of them.

use crate::boundary::in_callback;
use crate::callbacks::c_text;
use crate::config::p2p_config_t;
use crate::status::Error;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::sync::{PoisonError, RwLock};

/// Something is broken that needs someone.
pub const P2P_LOG_ERROR: i32 = 1;
/// Something went wrong and was dealt with.
pub const P2P_LOG_WARN: i32 = 2;
/// Viewers and signaling come and go.
pub const P2P_LOG_INFO: i32 = 3;
/// How it came to that.
pub const P2P_LOG_DEBUG: i32 = 4;
/// Every message.
pub const P2P_LOG_TRACE: i32 = 5;

/// One log line without a newline; what belongs to a session carries its id. It lives only until the
/// callback returns. Comes from any thread that is inside the library, also inside p2p_init() and
/// p2p_deinit(), and possibly from several at once. What the callback itself makes the library log is
/// dropped. Lines are the process's: with several agents, each on_log gets those of all.
pub type p2p_log_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, level: i32, line: *const c_char)>;

/// Where one agent's lines go.
pub(crate) struct Sink {
    call: unsafe extern "C" fn(*mut c_void, i32, *const c_char),
    user: *mut c_void,
    level: LevelFilter,
}

// SAFETY: the header says that on_log may be called from any thread.
unsafe impl Send for Sink {}
// SAFETY: the header says that on_log may be called from several threads at once.
unsafe impl Sync for Sink {}

impl Sink {
    /// None if the firmware wants no lines.
    pub(crate) fn new(config: &p2p_config_t) -> Result<Option<Sink>, Error> {
        let level = match config.log_level {
            P2P_LOG_ERROR => LevelFilter::Error,
            P2P_LOG_WARN => LevelFilter::Warn,
            0 | P2P_LOG_INFO => LevelFilter::Info,
            P2P_LOG_DEBUG => LevelFilter::Debug,
            P2P_LOG_TRACE => LevelFilter::Trace,
            other => {
                return Err(Error::argument(format!(
                    "log_level is {other}: expected 0 or one of P2P_LOG_…"
                )));
            }
        };
        Ok(config.on_log.map(|call| Sink { call, user: config.user, level }))
    }
}

/// Sends lines to `sink` until [`remove`] with the same owner.
pub(crate) fn add(owner: usize, sink: Sink) {
    let mut sinks = SINKS.write().unwrap_or_else(PoisonError::into_inner);
    sinks.push((owner, sink));
    // Fails if a Rust part of the same process has a logger already; then lines are that one's.
    let _ = log::set_logger(&BRIDGE);
    set_level(&sinks);
}

/// When this returns, the owner's sink is called no more.
pub(crate) fn remove(owner: usize) {
    let mut sinks = SINKS.write().unwrap_or_else(PoisonError::into_inner);
    let before = sinks.len();
    sinks.retain(|(of, _)| *of != owner);
    if sinks.len() < before {
        set_level(&sinks);
    }
}

fn set_level(sinks: &[(usize, Sink)]) {
    let most = sinks.iter().map(|(_, sink)| sink.level).max();
    log::set_max_level(most.unwrap_or(LevelFilter::Off));
}

static SINKS: RwLock<Vec<(usize, Sink)>> = RwLock::new(Vec::new());
static BRIDGE: Bridge = Bridge;

struct Bridge;

impl Log for Bridge {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        level_for_firmware(metadata).is_some_and(|level| level <= log::max_level())
    }

    fn log(&self, record: &Record<'_>) {
        let Some(severity) = level_for_firmware(record.metadata()) else { return };
        let Some(_logging) = Logging::begin() else { return };
        let line = match sdk_core::log_scope::current() {
            Some(session) if !is_ours(record.metadata()) => {
                c_text(&format!("sessionId={session} {}", record.args()))
            }
            _ => c_text(&record.args().to_string()),
        };
        let level = match severity {
            Level::Error => P2P_LOG_ERROR,
            Level::Warn => P2P_LOG_WARN,
            Level::Info => P2P_LOG_INFO,
            Level::Debug => P2P_LOG_DEBUG,
            Level::Trace => P2P_LOG_TRACE,
        };
        for (_, sink) in SINKS.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if severity <= sink.level {
                // SAFETY: the firmware's own function; the line lives until it returns.
                in_callback(|| unsafe { (sink.call)(sink.user, level, line.as_ptr()) });
            }
        }
    }

    fn flush(&self) {}
}

/// Other people's crates know neither sessions nor our readers: what they call an error we have dealt
/// with, and a warning is for whoever looks closely. The rest of their lines is not passed on.
fn level_for_firmware(metadata: &Metadata<'_>) -> Option<Level> {
    match metadata.level() {
        level if is_ours(metadata) => Some(level),
        Level::Error => Some(Level::Warn),
        Level::Warn => Some(Level::Debug),
        _ => None,
    }
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    ["sdk_core", "p2pcam"].iter().any(|name| metadata.target().starts_with(name))
}

/// Held while a thread writes a line.
struct Logging;

impl Logging {
    fn begin() -> Option<Logging> {
        (!LOGGING.replace(true)).then_some(Logging)
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        LOGGING.set(false);
    }
}

thread_local! {
    /// This thread is inside `log`: a line about a line would never end.
    static LOGGING: Cell<bool> = const { Cell::new(false) };
}
