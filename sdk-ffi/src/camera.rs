//! The agent itself: `p2p_init`, `p2p_deinit`; and its viewers: `p2p_viewer_close`,
//! `p2p_viewer_switch`.

use crate::boundary::{enter, not_in_callback};
use crate::callbacks::{Bridge, Callbacks};
use crate::config::{p2p_config_t, text};
use crate::handle::{self, p2p_agent_t, p2p_stream_t};
use crate::layout;
use crate::log::{self, Sink};
use crate::status::{Error, p2p_status_t};
use sdk_core::driver::Camera;
use sdk_core::event::CloseReason;
use sdk_core::wire::signal::SessionId;
use std::collections::BTreeSet;
use std::ffi::c_char;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

/// Starts a camera agent: its thread, and the connection to the broker, which is tried again for ever.
/// Does not wait for the network. Callbacks may come before this returns.
///
/// On success *agent is the handle for all further calls; on failure it is NULL. Not allowed inside a
/// callback.
///
/// # Safety
/// `config` points to a p2p_config_t whose struct_size is true and whose texts end with a zero byte;
/// `agent` points to writable memory for a pointer. Either may be NULL, which is an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn p2p_init(
    config: *const p2p_config_t,
    agent: *mut *mut p2p_agent_t,
) -> p2p_status_t {
    enter(|| {
        if agent.is_null() {
            return Err(Error::argument("agent is NULL: expected where to put the handle"));
        }
        // SAFETY: promised by the caller.
        unsafe { agent.write(ptr::null_mut()) };
        not_in_callback("p2p_init")?;
        // SAFETY: promised by the caller.
        let config = unsafe { layout::read(config, "config")? };
        // SAFETY: promised by the caller.
        let core = unsafe { config.to_core()? };
        let sink = Sink::new(&config)?;

        let new = handle::add_agent(Callbacks::new(&config))?;
        if let Some(sink) = sink {
            log::add(new.handle, sink);
        }
        match Camera::start(core, Arc::new(Bridge::new(new.clone()))) {
            Ok(camera) => {
                handle::agent_started(&new, camera);
                // SAFETY: promised by the caller.
                unsafe { agent.write(ptr::without_provenance_mut(new.handle)) };
                Ok(())
            }
            Err(error) => {
                handle::remove_agent(&new);
                log::remove(new.handle);
                Err(error.into())
            }
        }
    })
}

/// Ends an agent: says goodbye to its viewers and the broker, stops its streams, releases the frames
/// that are still queued and joins its thread. Takes at most two seconds, and then as long as other
/// threads are inside calls on this agent. When it returns, none of the agent's callbacks runs or
/// will run, and its handles and those of its streams are stale.
///
/// NULL is fine and does nothing. Not allowed inside a callback. Do not hold a lock that one of your
/// callbacks takes.
#[unsafe(no_mangle)]
pub extern "C" fn p2p_deinit(agent: *mut p2p_agent_t) -> p2p_status_t {
    enter(|| {
        if agent.is_null() {
            return Ok(());
        }
        not_in_callback("p2p_deinit")?;
        let agent = handle::end_agent(agent)?;
        log::remove(agent.handle);
        Ok(())
    })
}

/// Says goodbye to one viewer, which is told the reason; on_event then reports it as closed. A viewer
/// that is gone already is no error.
///
/// session_id is the text that the events carry. reason may be NULL. Up to 80 bytes of it reach the
/// viewer, and up to 32 different reasons in a process's life; beyond that it is a general one.
///
/// # Safety
/// `session_id` and `reason` are NULL or end with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn p2p_viewer_close(
    agent: *mut p2p_agent_t,
    session_id: *const c_char,
    reason: *const c_char,
) -> p2p_status_t {
    enter(|| {
        let call = handle::agent(agent)?;
        // SAFETY: promised by the caller.
        let (session, reason) = unsafe { (session(session_id)?, text(reason, "reason")?) };
        let reason = CloseReason::ClosedByDevice(reason.map_or(CLOSED, |words| intern(&words)));
        if call.camera().close_viewer(session, reason) {
            return Ok(());
        }
        Err(closing(session))
    })
}

/// Sends a viewer another stream of the same agent from that stream's next keyframe on, which is asked
/// for; on_event then reports P2P_EVENT_VIEWER_STREAM. The viewer's session goes on. Viewers may ask
/// for this themselves (docs/signaling.md); this call is for what only the firmware knows.
///
/// A viewer that is gone, or a stream of another codec than the viewer agreed on, changes nothing and
/// is told in the log.
///
/// # Safety
/// `session_id` is NULL or ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn p2p_viewer_switch(
    agent: *mut p2p_agent_t,
    session_id: *const c_char,
    stream: *mut p2p_stream_t,
) -> p2p_status_t {
    enter(|| {
        let call = handle::agent(agent)?;
        // SAFETY: promised by the caller.
        let session = unsafe { session(session_id)? };
        let (of_stream, to) = handle::stream(stream)?;
        if of_stream.agent().handle != call.agent().handle {
            return Err(Error::argument("stream is another agent's: expected one of this agent"));
        }
        let is_open = call.camera().switch_viewer(session, to.id);
        is_open.then_some(()).ok_or_else(|| closing(session))
    })
}

/// # Safety
/// `text` is NULL or ends with a zero byte.
pub(crate) unsafe fn session(id: *const c_char) -> Result<SessionId, Error> {
    // SAFETY: promised by the caller.
    let id = unsafe { text(id, "session_id")? };
    let id = id.ok_or_else(|| Error::argument("session_id is NULL: the events carry it"))?;
    SessionId::parse(&id).ok_or_else(|| {
        Error::argument(format!("session_id {id:?} is not a UUID: use what the events carry"))
    })
}

fn closing(session: SessionId) -> Error {
    let text = format!("viewer {session} was left as it was: the agent is being de-initialised");
    Error::new(p2p_status_t::P2P_ERR_CLOSED, text)
}

const CLOSED: &str = "closed by the camera";
const MAX_REASONS: usize = 32;
const MAX_REASON_LEN: usize = 80;

/// Firmware closes viewers for a handful of reasons, and the core wants them for ever. Each is kept
/// once, and there is a bound.
fn intern(words: &str) -> &'static str {
    static KNOWN: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    if words.is_empty() || words.len() > MAX_REASON_LEN {
        return CLOSED;
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kept) = known.get(words) {
        return kept;
    }
    if known.len() >= MAX_REASONS {
        return CLOSED;
    }
    let kept: &'static str = Box::leak(words.to_owned().into_boxed_str());
    known.insert(kept);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_kept_once_and_bounded() {
        assert!(ptr::eq(intern("privacy"), intern("privacy")));
        assert_eq!(intern("privacy"), "privacy");
        assert_eq!(intern(&"x".repeat(MAX_REASON_LEN + 1)), CLOSED);
        let kept = (0..100).filter(|n| intern(&format!("reason {n}")) != CLOSED).count();
        assert!(kept < MAX_REASONS, "{kept}");
    }
}
