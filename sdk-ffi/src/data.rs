//! Data channels: `p2p_send_data`, `p2p_open_data_channel`, `p2p_close_data_channel`, and what the
//! firmware hears of them.

use crate::boundary::{enter, in_callback};
use crate::callbacks::c_text;
use crate::camera::session;
use crate::config::{flag, text};
use crate::handle::{self, p2p_agent_t};
use crate::layout::{self, Versioned};
use crate::status::{Error, p2p_status_t};
use sdk_core::driver::{ChannelInfo, Reliability};
use sdk_core::event::DataEvent;
use sdk_core::wire::signal::SessionId;
use std::ffi::{c_char, c_void};
use std::mem::size_of;
use std::{ptr, slice};

/// The longest message, in bytes. A viewer may take less: P2P_DATA_CHANNEL_READY says how much.
pub const P2P_MAX_MESSAGE_SIZE: usize = 65_536;
/// What may wait to be sent to one viewer, in bytes. Each message counts for its own and 64 more.
pub const P2P_MAX_BUFFERED_DATA: usize = 262_144;

/// What is lost is sent again until it arrives.
pub const P2P_DATA_RELIABLE: i32 = 0;
/// What is lost is sent again so many times at most.
pub const P2P_DATA_MAX_RETRANSMITS: i32 = 1;
/// What is lost is sent again for so many milliseconds at most.
pub const P2P_DATA_MAX_LIFETIME: i32 = 2;

/// What happened to a viewer's data channels. A later version may add kinds: ignore those you do not
/// know.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum p2p_data_channel_change_t {
    /// The viewer takes data channels: p2p_open_data_channel() works from now on. max_message_size.
    P2P_DATA_CHANNEL_READY = 1,
    /// The viewer has opened a channel, or answered to p2p_open_data_channel(): channel and what it
    /// is opened as.
    P2P_DATA_CHANNEL_OPENED = 2,
    /// Nothing more comes or goes on it: channel. All channels of a viewer are closed before the
    /// viewer is.
    P2P_DATA_CHANNEL_CLOSED = 3,
    /// p2p_send_data() said P2P_ERR_QUEUE_FULL on it, and half of the room is free again: channel.
    P2P_DATA_CHANNEL_WRITABLE = 4,
}

/// Something that happened to a viewer's data channels. It and all it points to live only until the
/// callback returns. A newer library may give a larger struct, whose beginning is this one.
#[repr(C)]
pub struct p2p_data_channel_event_t {
    /// In bytes, as the library knows it.
    pub struct_size: usize,
    /// The agent it is about.
    pub agent: *mut p2p_agent_t,
    /// The viewer's session id, as in p2p_event_t.
    pub session_id: *const c_char,
    /// The channel's name, or NULL where it is not opened. The viewer's words: do not trust them.
    pub label: *const c_char,
    /// What is spoken on it, often empty; NULL where it is not opened. As above.
    pub protocol: *const c_char,
    pub change: p2p_data_channel_change_t,
    /// Its number within the session.
    pub channel: u16,
    /// Always 0.
    pub reserved: u16,
    /// 1: messages may arrive in another order than they were sent in. Otherwise 0.
    pub unordered: i32,
    /// One of P2P_DATA_…
    pub reliability: i32,
    /// Times or milliseconds, as reliability says.
    pub reliability_value: u32,
    /// The longest message the viewer takes, in bytes; 0 where it is not told.
    pub max_message_size: u32,
}

/// A message of a viewer. It and all it points to live only until the callback returns. A newer
/// library may give a larger struct, whose beginning is this one.
#[repr(C)]
pub struct p2p_data_t {
    /// In bytes, as the library knows it.
    pub struct_size: usize,
    /// The agent it is about.
    pub agent: *mut p2p_agent_t,
    /// The viewer's session id, as in p2p_event_t.
    pub session_id: *const c_char,
    /// The message, not ended by a zero byte. Never NULL. The viewer's words: do not trust them.
    pub data: *const u8,
    /// In bytes, 0 to P2P_MAX_MESSAGE_SIZE.
    pub size: usize,
    /// Its number within the session.
    pub channel: u16,
    /// Always 0.
    pub reserved: u16,
    /// 1: the viewer sent it as text, which should be UTF-8. Otherwise 0.
    pub is_text: i32,
}

/// What a data channel is opened as. Start from P2P_DATA_CHANNEL_CONFIG_INIT: what stays zero is the
/// default, a reliable channel whose messages arrive in order.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct p2p_data_channel_config_t {
    /// sizeof(p2p_data_channel_config_t), set by P2P_DATA_CHANNEL_CONFIG_INIT.
    pub struct_size: usize,
    /// Required. The channel's name: up to 255 bytes of UTF-8.
    pub label: *const c_char,
    /// What is spoken on it: likewise. NULL: nothing is said.
    pub protocol: *const c_char,
    /// 1: messages may arrive in another order than they were sent in. Otherwise 0.
    pub unordered: i32,
    /// One of P2P_DATA_…
    pub reliability: i32,
    /// Times or milliseconds, as reliability says.
    pub reliability_value: u32,
    /// Always 0.
    pub reserved: u32,
}

// SAFETY: pointers and integers, any of which may be zero. Four 32-bit fields at the end leave no
// padding on 32-bit or 64-bit machines, as tests/abi.rs checks.
unsafe impl Versioned for p2p_data_channel_config_t {
    const NAME: &'static str = "p2p_data_channel_config_t";
    const SIZES: &'static [usize] = &[size_of::<p2p_data_channel_config_t>()];
}

/// Tells what happens to data channels. Runs on the agent's thread: return soon.
pub type p2p_data_channel_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, event: *const p2p_data_channel_event_t)>;

/// Hands over a message of a viewer. Runs on the agent's thread: return soon. It may be answered with
/// p2p_send_data() at once.
pub type p2p_data_fn = Option<unsafe extern "C" fn(user: *mut c_void, data: *const p2p_data_t)>;

use p2p_data_channel_change_t::*;

/// Sends a message on a viewer's data channel. Returns at once, from any thread, also from inside a
/// callback; the message is copied.
///
/// P2P_ERR_NO_CHANNEL: the channel was closed, or the viewer is gone. P2P_ERR_QUEUE_FULL: more than
/// P2P_MAX_BUFFERED_DATA would wait for this viewer; on_data_channel tells P2P_DATA_CHANNEL_WRITABLE
/// once there is room again. A message that was taken is sent as the channel says: a reliable one
/// arrives unless the channel is closed before that.
///
/// session_id and channel are those of on_data_channel. data may be NULL if size is 0. is_text: 1 for
/// text, which must be UTF-8; 0 for bytes.
///
/// # Safety
/// `session_id` is NULL or ends with a zero byte; `data` is NULL or points to `size` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn p2p_send_data(
    agent: *mut p2p_agent_t,
    session_id: *const c_char,
    channel: u16,
    data: *const u8,
    size: usize,
    is_text: i32,
) -> p2p_status_t {
    enter(|| {
        let call = handle::agent(agent)?;
        // SAFETY: promised by the caller.
        let session = unsafe { session(session_id)? };
        let is_text = flag(is_text, "is_text")?;
        if size > P2P_MAX_MESSAGE_SIZE {
            let text = format!("size is {size}: expected at most {P2P_MAX_MESSAGE_SIZE}");
            return Err(Error::argument(text));
        }
        let bytes = match (data.is_null(), size) {
            (_, 0) => &[],
            (true, _) => {
                return Err(Error::argument(format!("data is NULL, but size says {size} bytes")));
            }
            // SAFETY: promised by the caller, and not longer than any object.
            (false, _) => unsafe { slice::from_raw_parts(data, size) },
        };
        // A browser would hand over something else than what was sent.
        if is_text && std::str::from_utf8(bytes).is_err() {
            return Err(Error::argument("data is not UTF-8, but is_text says that it is text"));
        }
        Ok(call.camera().send_data(session, channel, is_text, bytes)?)
    })
}

/// Opens a data channel to a viewer that takes them, which P2P_DATA_CHANNEL_READY tells. Its number
/// goes to *channel, and messages may be sent at once; P2P_DATA_CHANNEL_OPENED follows when the viewer
/// has answered. P2P_ERR_BUSY: the viewer has 16 channels.
///
/// # Safety
/// `session_id` is NULL or ends with a zero byte; `config` points to a p2p_data_channel_config_t whose
/// struct_size is true and whose texts end with a zero byte; `channel` points to writable memory for
/// a uint16_t. Each may be NULL, which is an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn p2p_open_data_channel(
    agent: *mut p2p_agent_t,
    session_id: *const c_char,
    config: *const p2p_data_channel_config_t,
    channel: *mut u16,
) -> p2p_status_t {
    enter(|| {
        let call = handle::agent(agent)?;
        if channel.is_null() {
            return Err(Error::argument("channel is NULL: expected where to put its number"));
        }
        // SAFETY: promised by the caller, here and below.
        let (session, config) = unsafe { (session(session_id)?, layout::read(config, "config")?) };
        // SAFETY: as above.
        let info = unsafe { config.to_core()? };
        let number = call.camera().open_data_channel(session, info)?;
        // SAFETY: as above. Unaligned, because C's casts are not ours to trust.
        unsafe { channel.write_unaligned(number) };
        Ok(())
    })
}

/// Closes a data channel behind what was sent on it. P2P_DATA_CHANNEL_CLOSED follows when the viewer
/// has closed it too; nothing can be sent on it meanwhile.
///
/// # Safety
/// `session_id` is NULL or ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn p2p_close_data_channel(
    agent: *mut p2p_agent_t,
    session_id: *const c_char,
    channel: u16,
) -> p2p_status_t {
    enter(|| {
        let call = handle::agent(agent)?;
        // SAFETY: promised by the caller.
        let session = unsafe { session(session_id)? };
        Ok(call.camera().close_data_channel(session, channel)?)
    })
}

impl p2p_data_channel_config_t {
    /// # Safety
    /// `label` and `protocol` are NULL or end with a zero byte.
    unsafe fn to_core(self) -> Result<ChannelInfo, Error> {
        // SAFETY: promised by the caller.
        let (label, protocol) =
            unsafe { (text(self.label, "label")?, text(self.protocol, "protocol")?) };
        let label = label.ok_or_else(|| Error::argument("label is NULL: it is required"))?;
        let value = self.reliability_value;
        let reliability = match self.reliability {
            P2P_DATA_RELIABLE => Reliability::Reliable,
            P2P_DATA_MAX_RETRANSMITS => Reliability::MaxRetransmits(value),
            P2P_DATA_MAX_LIFETIME => Reliability::MaxLifetimeMs(value),
            other => {
                let text = format!("reliability is {other}: expected one of P2P_DATA_…");
                return Err(Error::argument(text));
            }
        };
        let unordered = flag(self.unordered, "unordered")?;
        Ok(ChannelInfo { label, protocol: protocol.unwrap_or_default(), unordered, reliability })
    }
}

/// Calls the firmware's function for this event, if it has one.
pub(crate) fn tell(
    agent: *mut p2p_agent_t,
    session: SessionId,
    event: &DataEvent,
    user: *mut c_void,
    on_data_channel: p2p_data_channel_fn,
    on_data: p2p_data_fn,
) {
    if let DataEvent::Message { channel, text, bytes } = event {
        let Some(call) = on_data else { return };
        let session_id = c_text(&session.to_string());
        let data = p2p_data_t {
            struct_size: size_of::<p2p_data_t>(),
            agent,
            session_id: session_id.as_ptr(),
            data: bytes.as_ptr(),
            size: bytes.len(),
            channel: *channel,
            reserved: 0,
            is_text: (*text).into(),
        };
        // SAFETY: the firmware's own function; the message lives until it returns.
        return in_callback(|| unsafe { call(user, &raw const data) });
    }
    let Some(call) = on_data_channel else { return };
    let session_id = c_text(&session.to_string());
    let mut told = p2p_data_channel_event_t {
        struct_size: size_of::<p2p_data_channel_event_t>(),
        agent,
        session_id: session_id.as_ptr(),
        label: ptr::null(),
        protocol: ptr::null(),
        change: P2P_DATA_CHANNEL_READY,
        channel: 0,
        reserved: 0,
        unordered: 0,
        reliability: P2P_DATA_RELIABLE,
        reliability_value: 0,
        max_message_size: 0,
    };
    let names;
    match event {
        DataEvent::Ready { max_message } => {
            told.max_message_size = u32::try_from(*max_message).unwrap_or(u32::MAX);
        }
        DataEvent::Opened { channel, info } => {
            told.change = P2P_DATA_CHANNEL_OPENED;
            told.channel = *channel;
            names = (c_text(&info.label), c_text(&info.protocol));
            (told.label, told.protocol) = (names.0.as_ptr(), names.1.as_ptr());
            told.unordered = info.unordered.into();
            (told.reliability, told.reliability_value) = match info.reliability {
                Reliability::Reliable => (P2P_DATA_RELIABLE, 0),
                Reliability::MaxRetransmits(value) => (P2P_DATA_MAX_RETRANSMITS, value),
                Reliability::MaxLifetimeMs(value) => (P2P_DATA_MAX_LIFETIME, value),
            };
        }
        DataEvent::Closed { channel } => {
            (told.change, told.channel) = (P2P_DATA_CHANNEL_CLOSED, *channel);
        }
        DataEvent::Writable { channel } => {
            (told.change, told.channel) = (P2P_DATA_CHANNEL_WRITABLE, *channel);
        }
        DataEvent::Message { .. } => return,
    }
    // SAFETY: the firmware's own function; the event lives until it returns.
    in_callback(|| unsafe { call(user, &raw const told) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdk_core::peer::data::MAX_BUFFERED;
    use sdk_core::wire::sdp::MAX_MESSAGE_SIZE;
    use std::ffi::CStr;

    const ID: &str = "550e8400-e29b-41d4-a716-446655440000";

    /// # Safety
    /// `text` is NULL or ends with a zero byte.
    unsafe fn words(text: *const c_char) -> String {
        match text.is_null() {
            true => "-".into(),
            // SAFETY: promised by the caller.
            false => unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned(),
        }
    }

    unsafe extern "C" fn note_event(user: *mut c_void, event: *const p2p_data_channel_event_t) {
        // SAFETY: `user` is the test's own list, and the event lives until this returns.
        let (list, e) = unsafe { (&mut *user.cast::<Vec<String>>(), &*event) };
        // SAFETY: the library's own texts.
        let (id, label, protocol) =
            unsafe { (words(e.session_id), words(e.label), words(e.protocol)) };
        assert_eq!((id.as_str(), e.reserved), (ID, 0));
        list.push(format!(
            "{:?} {} {label} {protocol} {} {} {} {}",
            e.change,
            e.channel,
            e.unordered,
            e.reliability,
            e.reliability_value,
            e.max_message_size
        ));
    }

    unsafe extern "C" fn note_data(user: *mut c_void, data: *const p2p_data_t) {
        // SAFETY: as above.
        let (list, d) = unsafe { (&mut *user.cast::<Vec<String>>(), &*data) };
        // SAFETY: the library's own message.
        let bytes = unsafe { slice::from_raw_parts(d.data, d.size) };
        list.push(format!("{} {} {bytes:?}", d.channel, d.is_text));
    }

    #[test]
    fn events_and_messages_arrive_with_all_they_say() {
        let mut seen: Vec<String> = Vec::new();
        let session = SessionId::parse(ID).unwrap();
        let info = |unordered, reliability| ChannelInfo {
            label: "con\0trol".into(),
            protocol: "ptz".into(),
            unordered,
            reliability,
        };
        let opened = |channel, unordered, reliability| DataEvent::Opened {
            channel,
            info: info(unordered, reliability),
        };
        for event in [
            DataEvent::Ready { max_message: 65536 },
            opened(0, false, Reliability::Reliable),
            opened(2, true, Reliability::MaxRetransmits(0)),
            opened(4, false, Reliability::MaxLifetimeMs(150)),
            DataEvent::Message { channel: 2, text: true, bytes: b"hi".to_vec() },
            DataEvent::Message { channel: 2, text: false, bytes: Vec::new() },
            DataEvent::Writable { channel: 2 },
            DataEvent::Closed { channel: 2 },
        ] {
            let user = (&raw mut seen).cast();
            tell(ptr::null_mut(), session, &event, user, Some(note_event), Some(note_data));
            tell(ptr::null_mut(), session, &event, ptr::null_mut(), None, None);
        }
        assert_eq!(
            seen,
            [
                "P2P_DATA_CHANNEL_READY 0 - - 0 0 0 65536",
                "P2P_DATA_CHANNEL_OPENED 0 con?trol ptz 0 0 0 0",
                "P2P_DATA_CHANNEL_OPENED 2 con?trol ptz 1 1 0 0",
                "P2P_DATA_CHANNEL_OPENED 4 con?trol ptz 0 2 150 0",
                "2 1 [104, 105]",
                "2 0 []",
                "P2P_DATA_CHANNEL_WRITABLE 2 - - 0 0 0 0",
                "P2P_DATA_CHANNEL_CLOSED 2 - - 0 0 0 0",
            ]
        );
    }

    #[test]
    fn the_published_bounds_are_the_cores() {
        assert_eq!(P2P_MAX_MESSAGE_SIZE, MAX_MESSAGE_SIZE);
        assert_eq!(P2P_MAX_BUFFERED_DATA, MAX_BUFFERED);
    }
}
