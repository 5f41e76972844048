//! The firmware's callbacks, and the bridge that turns the core's events into them.

use crate::audio::{p2p_talkback_fn, p2p_talkback_t};
use crate::boundary::in_callback;
use crate::config::p2p_config_t;
use crate::data::{self, p2p_data_channel_fn, p2p_data_fn};
use crate::handle::{self, Agent, p2p_agent_t, p2p_stream_t};
use crate::stats::P2P_SESSION_ID_SIZE;
use sdk_core::driver::Handler;
use sdk_core::event::{CloseReason, DataEvent, Event, StreamId, Talkback};
use sdk_core::wire::signal::{Path, SessionId};
use std::ffi::{CString, c_char, c_void};
use std::io::Write as _;
use std::mem::size_of;
use std::ptr;
use std::sync::Arc;

/// What happened. A later version may add kinds: ignore those you do not know.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum p2p_event_kind_t {
    /// The link to the broker is up: viewers can find the camera.
    P2P_EVENT_SIGNALING_UP = 1,
    /// The link to the broker is down, text says why; it is tried again for ever.
    P2P_EVENT_SIGNALING_DOWN = 2,
    /// A viewer was admitted and is being connected: session_id, app_id, stream.
    P2P_EVENT_VIEWER_NEW = 3,
    /// The viewer's media flows: session_id, path, setup_ms.
    P2P_EVENT_VIEWER_CONNECTED = 4,
    /// The viewer is gone, or was not admitted: session_id, reason, code, text.
    P2P_EVENT_VIEWER_CLOSED = 5,
    /// The viewer is sent another stream from now on: session_id, stream.
    P2P_EVENT_VIEWER_STREAM = 6,
}

/// How media travels.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum p2p_path_t {
    /// Not known, or not what the event is about.
    P2P_PATH_NONE = 0,
    /// Directly, within one network.
    P2P_PATH_HOST = 1,
    /// Directly, through a NAT whose public address STUN told.
    P2P_PATH_SRFLX = 2,
    /// Directly, through a NAT whose address the other side saw.
    P2P_PATH_PRFLX = 3,
    /// Through a TURN relay.
    P2P_PATH_RELAY = 4,
}

/// Why a viewer's session ended.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum p2p_close_reason_t {
    /// Not what the event is about.
    P2P_CLOSE_NONE = 0,
    /// The viewer said goodbye.
    P2P_CLOSE_VIEWER_LEFT = 1,
    /// p2p_viewer_close(), p2p_stop_stream() or p2p_deinit().
    P2P_CLOSE_BY_DEVICE = 2,
    /// The session service closed it.
    P2P_CLOSE_BY_SERVICE = 3,
    /// It was refused or failed; code is the number the viewer was told.
    P2P_CLOSE_FAILED = 4,
    /// Nothing was heard from the viewer any more.
    P2P_CLOSE_LOST = 5,
}

/// One event. It and all it points to live only until the callback returns. A newer library may give
/// a larger struct, whose beginning is this one.
#[repr(C)]
pub struct p2p_event_t {
    /// In bytes, as the library knows it.
    pub struct_size: usize,
    /// The agent it is about.
    pub agent: *mut p2p_agent_t,
    /// The stream the viewer watches; NULL if it was stopped meanwhile, or where there is none.
    pub stream: *mut p2p_stream_t,
    /// The viewer's session id, a UUID of 36 characters, as in the logs of the service; or NULL.
    pub session_id: *const c_char,
    /// The app the viewer belongs to, or NULL.
    pub app_id: *const c_char,
    /// The reason in words; or NULL.
    pub text: *const c_char,
    pub kind: p2p_event_kind_t,
    pub path: p2p_path_t,
    pub reason: p2p_close_reason_t,
    /// The number the viewer was told (400 to 599, see docs/signaling.md), or 0.
    pub code: i32,
    /// From the viewer's offer to the connection, in milliseconds.
    pub setup_ms: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Tells what happens. Runs on the agent's thread: return soon.
pub type p2p_event_fn = Option<unsafe extern "C" fn(user: *mut c_void, event: *const p2p_event_t)>;

/// The next frame of this stream should be a keyframe: a viewer joined or lost packets. Runs on the
/// agent's thread: return soon. stream_user is p2p_stream_config_t.user.
pub type p2p_keyframe_fn = Option<
    unsafe extern "C" fn(user: *mut c_void, stream: *mut p2p_stream_t, stream_user: *mut c_void),
>;

/// The encoder of this stream should make bits_per_second from now on: what the viewer with the
/// poorest network can take, within the stream's min_bitrate and max_bitrate. Comes at once when it
/// is less, and at most once a second when it is more. Runs on the agent's thread: return soon.
/// stream_user is p2p_stream_config_t.user.
pub type p2p_bitrate_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        stream: *mut p2p_stream_t,
        bits_per_second: u32,
        stream_user: *mut c_void,
    ),
>;

use p2p_close_reason_t::*;
use p2p_event_kind_t::*;
use p2p_path_t::*;

/// The functions of one agent's configuration.
#[derive(Clone, Copy)]
pub(crate) struct Callbacks {
    user: *mut c_void,
    on_event: p2p_event_fn,
    on_keyframe_request: p2p_keyframe_fn,
    on_target_bitrate: p2p_bitrate_fn,
    on_talkback: p2p_talkback_fn,
    on_data_channel: p2p_data_channel_fn,
    on_data: p2p_data_fn,
}

// SAFETY: the header says that callbacks run on the agent's thread, with this user pointer.
unsafe impl Send for Callbacks {}
// SAFETY: as above; nothing here changes.
unsafe impl Sync for Callbacks {}

impl Callbacks {
    pub(crate) fn new(config: &p2p_config_t) -> Callbacks {
        Callbacks {
            user: config.user,
            on_event: config.on_event,
            on_keyframe_request: config.on_keyframe_request,
            on_target_bitrate: config.on_target_bitrate,
            on_talkback: config.on_talkback,
            on_data_channel: config.on_data_channel,
            on_data: config.on_data,
        }
    }

    /// Whether there is somebody to hear what viewers say.
    pub(crate) fn take_talkback(&self) -> bool {
        self.on_talkback.is_some()
    }
}

/// What the core calls.
pub(crate) struct Bridge {
    agent: Arc<Agent>,
}

impl Bridge {
    pub(crate) fn new(agent: Arc<Agent>) -> Bridge {
        Bridge { agent }
    }

    fn stream(&self, id: StreamId) -> *mut p2p_stream_t {
        let found = handle::find_stream(&self.agent, id);
        found.map_or(ptr::null_mut(), |s| ptr::without_provenance_mut(s.handle))
    }

    fn request_keyframe(&self, id: StreamId) {
        let Some(call) = self.agent.callbacks.on_keyframe_request else { return };
        // A stream that was stopped meanwhile needs no keyframe.
        let Some(stream) = handle::find_stream(&self.agent, id) else { return };
        let handle = ptr::without_provenance_mut(stream.handle);
        let stream_user = ptr::with_exposed_provenance_mut(stream.user);
        // SAFETY: the firmware's own function with the firmware's own arguments.
        in_callback(|| unsafe { call(self.agent.callbacks.user, handle, stream_user) });
    }

    fn set_bitrate(&self, id: StreamId, bits_per_second: u32) {
        let Some(call) = self.agent.callbacks.on_target_bitrate else { return };
        let Some(stream) = handle::find_stream(&self.agent, id) else { return };
        let handle = ptr::without_provenance_mut(stream.handle);
        let stream_user = ptr::with_exposed_provenance_mut(stream.user);
        let user = self.agent.callbacks.user;
        // SAFETY: the firmware's own function with the firmware's own arguments.
        in_callback(|| unsafe { call(user, handle, bits_per_second, stream_user) });
    }

    fn tell_data(&self, session: SessionId, event: &DataEvent) {
        let agent = ptr::without_provenance_mut(self.agent.handle);
        let Callbacks { user, on_data_channel, on_data, .. } = self.agent.callbacks;
        data::tell(agent, session, event, user, on_data_channel, on_data);
    }

    fn tell(&self, kind: p2p_event_kind_t, detail: Detail<'_>) {
        let Some(call) = self.agent.callbacks.on_event else { return };
        let session_id = detail.session.map(|id| c_text(&id.to_string()));
        let app_id = detail.app.map(c_text);
        let text = detail.text.as_deref().map(c_text);
        let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |t| t.as_ptr());
        let event = p2p_event_t {
            struct_size: size_of::<p2p_event_t>(),
            agent: ptr::without_provenance_mut(self.agent.handle),
            stream: detail.stream,
            session_id: pointer(&session_id),
            app_id: pointer(&app_id),
            text: pointer(&text),
            kind,
            path: detail.path,
            reason: detail.reason,
            code: detail.code,
            setup_ms: detail.setup_ms,
            reserved: 0,
        };
        // SAFETY: the firmware's own function; the event lives until it returns.
        in_callback(|| unsafe { call(self.agent.callbacks.user, &raw const event) });
    }
}

impl Handler for Bridge {
    fn on_event(&self, event: &Event) {
        match event {
            Event::SignalingUp => self.tell(P2P_EVENT_SIGNALING_UP, Detail::default()),
            Event::SignalingDown { reason } => self.tell(
                P2P_EVENT_SIGNALING_DOWN,
                Detail { text: Some(reason.clone()), ..Detail::default() },
            ),
            Event::ViewerNew { session, app, stream } => self.tell(
                P2P_EVENT_VIEWER_NEW,
                Detail {
                    session: Some(*session),
                    app: Some(app),
                    stream: self.stream(*stream),
                    ..Detail::default()
                },
            ),
            Event::ViewerConnected { session, path, setup_ms } => self.tell(
                P2P_EVENT_VIEWER_CONNECTED,
                Detail {
                    session: Some(*session),
                    path: path_number(*path),
                    setup_ms: *setup_ms,
                    ..Detail::default()
                },
            ),
            Event::ViewerStream { session, stream } => self.tell(
                P2P_EVENT_VIEWER_STREAM,
                Detail {
                    session: Some(*session),
                    stream: self.stream(*stream),
                    ..Detail::default()
                },
            ),
            Event::ViewerClosed { session, reason } => self.tell(
                P2P_EVENT_VIEWER_CLOSED,
                Detail {
                    session: Some(*session),
                    reason: reason_number(reason),
                    code: match reason {
                        CloseReason::Failed { code, .. } => code.number().into(),
                        _ => 0,
                    },
                    text: Some(reason.to_string()),
                    ..Detail::default()
                },
            ),
            Event::Data { session, event } => self.tell_data(*session, event),
            Event::KeyframeRequest { stream } => self.request_keyframe(*stream),
            Event::TargetBitrate { stream, bits_per_second } => {
                self.set_bitrate(*stream, *bits_per_second);
            }
        }
    }

    fn on_talkback(&self, talkback: &Talkback<'_>) {
        let Some(call) = self.agent.callbacks.on_talkback else { return };
        // Audio that was stopped meanwhile has no loudspeaker.
        if !handle::has_audio(&self.agent) {
            return;
        }
        let session_id = c_session_id(talkback.session);
        let talkback = p2p_talkback_t::of(talkback, &session_id);
        // SAFETY: the firmware's own function; what it is given lives until it returns.
        in_callback(|| unsafe { call(self.agent.callbacks.user, &raw const talkback) });
    }
}

/// What an event says beyond its kind.
struct Detail<'a> {
    session: Option<SessionId>,
    app: Option<&'a str>,
    stream: *mut p2p_stream_t,
    path: p2p_path_t,
    reason: p2p_close_reason_t,
    code: i32,
    setup_ms: u32,
    text: Option<String>,
}

impl Default for Detail<'_> {
    fn default() -> Self {
        Detail {
            session: None,
            app: None,
            stream: ptr::null_mut(),
            path: P2P_PATH_NONE,
            reason: P2P_CLOSE_NONE,
            code: 0,
            setup_ms: 0,
            text: None,
        }
    }
}

pub(crate) fn path_number(path: Path) -> p2p_path_t {
    match path {
        Path::Host => P2P_PATH_HOST,
        Path::Srflx => P2P_PATH_SRFLX,
        Path::Prflx => P2P_PATH_PRFLX,
        Path::Relay => P2P_PATH_RELAY,
    }
}

fn reason_number(reason: &CloseReason) -> p2p_close_reason_t {
    match reason {
        CloseReason::ViewerLeft(_) => P2P_CLOSE_VIEWER_LEFT,
        CloseReason::ClosedByDevice(_) => P2P_CLOSE_BY_DEVICE,
        CloseReason::ClosedByService(_) => P2P_CLOSE_BY_SERVICE,
        CloseReason::Failed { .. } => P2P_CLOSE_FAILED,
        CloseReason::Lost => P2P_CLOSE_LOST,
    }
}

/// A session's id for C, made without an allocation.
fn c_session_id(id: SessionId) -> [u8; P2P_SESSION_ID_SIZE] {
    let mut text = [0; P2P_SESSION_ID_SIZE];
    // 36 characters: a zero byte is always left.
    let _ = write!(&mut text[..P2P_SESSION_ID_SIZE - 1], "{id}");
    text
}

/// A text for C. Zero bytes, which the network may have sent, would end it early.
pub(crate) fn c_text(text: &str) -> CString {
    let bytes: Vec<u8> = text.bytes().map(|b| if b == 0 { b'?' } else { b }).collect();
    CString::new(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdk_core::wire::signal::ErrorCode;
    use std::ffi::CStr;

    const ID: &str = "550e8400-e29b-41d4-a716-446655440000";

    /// Writes an event down as the firmware sees it.
    unsafe extern "C" fn note(user: *mut c_void, event: *const p2p_event_t) {
        // SAFETY: `user` is the test's own list, and the event lives until this returns.
        let (list, event) = unsafe { (&mut *user.cast::<Vec<String>>(), &*event) };
        let text = |text: *const c_char| match text.is_null() {
            true => "-".into(),
            // SAFETY: not NULL, so it ends with a zero byte.
            false => unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned(),
        };
        list.push(format!(
            "{:?} {} {} {:?} {:?} {} {} {}",
            event.kind,
            text(event.session_id),
            text(event.app_id),
            event.path,
            event.reason,
            event.code,
            event.setup_ms,
            text(event.text)
        ));
        assert!(event.stream.is_null() && !event.agent.is_null());
    }

    #[test]
    fn events_arrive_with_all_they_say() {
        let mut seen: Vec<String> = Vec::new();
        let callbacks = Callbacks {
            user: (&raw mut seen).cast(),
            on_event: Some(note),
            on_keyframe_request: None,
            on_target_bitrate: None,
            on_talkback: None,
            on_data_channel: None,
            on_data: None,
        };
        let agent = handle::add_agent(callbacks).unwrap();
        let bridge = Bridge::new(agent.clone());
        let session = SessionId::parse(ID).unwrap();
        let closed = |reason| Event::ViewerClosed { session, reason };
        for event in [
            Event::SignalingUp,
            Event::SignalingDown { reason: "refused".into() },
            Event::ViewerNew { session, app: "app\0x".into(), stream: StreamId(1) },
            Event::ViewerConnected { session, path: Path::Relay, setup_ms: 120 },
            closed(CloseReason::ViewerLeft(String::new())),
            closed(CloseReason::Failed { code: ErrorCode::TooMany, message: "full".into() }),
            closed(CloseReason::Lost),
            Event::KeyframeRequest { stream: StreamId(1) },
        ] {
            bridge.on_event(&event);
        }
        handle::remove_agent(&agent);
        let none = "P2P_PATH_NONE P2P_CLOSE_NONE 0 0";
        assert_eq!(
            seen,
            [
                format!("P2P_EVENT_SIGNALING_UP - - {none} -"),
                format!("P2P_EVENT_SIGNALING_DOWN - - {none} refused"),
                format!("P2P_EVENT_VIEWER_NEW {ID} app?x {none} -"),
                format!("P2P_EVENT_VIEWER_CONNECTED {ID} - P2P_PATH_RELAY P2P_CLOSE_NONE 0 120 -"),
                format!(
                    "P2P_EVENT_VIEWER_CLOSED {ID} - P2P_PATH_NONE P2P_CLOSE_VIEWER_LEFT 0 0 \
                     the viewer left"
                ),
                format!(
                    "P2P_EVENT_VIEWER_CLOSED {ID} - P2P_PATH_NONE P2P_CLOSE_FAILED 429 0 full (429)"
                ),
                format!(
                    "P2P_EVENT_VIEWER_CLOSED {ID} - P2P_PATH_NONE P2P_CLOSE_LOST 0 0 \
                     nothing was heard from the viewer any more"
                ),
            ]
        );
    }
}
