//! Status codes and the text of the last error.

use sdk_core::driver::{ChannelError, PushError, StartError};
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char};

/// What every call answers. Zero is success, everything else is negative. The numbers are
/// published: none is ever given another meaning. A later version may add numbers.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum p2p_status_t {
    /// Done.
    P2P_OK = 0,
    /// An argument or a field is NULL, empty, not UTF-8 or out of its range; p2p_last_error()
    /// names it.
    P2P_ERR_ARGUMENT = -1,
    /// struct_size is not the size of this struct in any version, or the part this library does not
    /// know is not zero. Start from the _INIT macro.
    P2P_ERR_STRUCT_SIZE = -2,
    /// Not a living handle of the right kind: NULL, stopped, de-initialised, or never one.
    P2P_ERR_HANDLE = -3,
    /// The codec is not known to this version.
    P2P_ERR_CODEC = -4,
    /// The configuration cannot be used; p2p_last_error() names the field and what is expected.
    P2P_ERR_CONFIG = -5,
    /// The frame is empty or larger than P2P_MAX_FRAME_SIZE; or, of audio, than
    /// P2P_MAX_AUDIO_FRAME_SIZE, or no packet of the codec.
    P2P_ERR_FRAME_SIZE = -6,
    /// Of a frame: the agent is behind by a full queue. The frame was dropped; a stream goes on at the
    /// next keyframe, which is asked for, and audio with the next frame. Of a message:
    /// P2P_MAX_BUFFERED_DATA bytes wait for this viewer. It was not taken;
    /// P2P_DATA_CHANNEL_WRITABLE tells when there is room.
    P2P_ERR_QUEUE_FULL = -7,
    /// A stream of that name runs already, or there are too many; or the agent's audio runs already.
    P2P_ERR_BUSY = -8,
    /// The call cannot be made from inside a callback.
    P2P_ERR_IN_CALLBACK = -9,
    /// The agent is being de-initialised by another thread.
    P2P_ERR_CLOSED = -10,
    /// The operating system refused a thread, a socket or a file.
    P2P_ERR_IO = -11,
    /// Not enough memory to copy the frame.
    P2P_ERR_MEMORY = -12,
    /// A fault inside the library. It was contained; please report the text.
    P2P_ERR_INTERNAL = -13,
    /// No such data channel is open: it was closed, or the viewer is gone or takes none.
    P2P_ERR_NO_CHANNEL = -14,
}

use p2p_status_t::*;

impl p2p_status_t {
    const ALL: [p2p_status_t; 15] = [
        P2P_OK,
        P2P_ERR_ARGUMENT,
        P2P_ERR_STRUCT_SIZE,
        P2P_ERR_HANDLE,
        P2P_ERR_CODEC,
        P2P_ERR_CONFIG,
        P2P_ERR_FRAME_SIZE,
        P2P_ERR_QUEUE_FULL,
        P2P_ERR_BUSY,
        P2P_ERR_IN_CALLBACK,
        P2P_ERR_CLOSED,
        P2P_ERR_IO,
        P2P_ERR_MEMORY,
        P2P_ERR_INTERNAL,
        P2P_ERR_NO_CHANNEL,
    ];

    fn text(self) -> &'static CStr {
        match self {
            P2P_OK => c"success",
            P2P_ERR_ARGUMENT => c"an argument or a field cannot be used",
            P2P_ERR_STRUCT_SIZE => c"struct_size does not fit: start from the _INIT macro",
            P2P_ERR_HANDLE => c"not a living handle",
            P2P_ERR_CODEC => c"unknown codec",
            P2P_ERR_CONFIG => c"the configuration cannot be used",
            P2P_ERR_FRAME_SIZE => c"the frame is empty or too large",
            P2P_ERR_QUEUE_FULL => c"the queue is full",
            P2P_ERR_BUSY => c"the name is taken, or there are too many",
            P2P_ERR_IN_CALLBACK => c"not allowed inside a callback",
            P2P_ERR_CLOSED => c"the agent is being de-initialised",
            P2P_ERR_IO => c"the operating system refused",
            P2P_ERR_MEMORY => c"not enough memory",
            P2P_ERR_INTERNAL => c"internal fault",
            P2P_ERR_NO_CHANNEL => c"no such data channel is open",
        }
    }
}

/// The meaning of a status in a few words. Never NULL, also for a number that is not a status; the
/// text is constant and stays valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn p2p_strerror(status: i32) -> *const c_char {
    p2p_status_t::ALL
        .iter()
        .find(|known| **known as i32 == status)
        .map_or(c"unknown status", |known| known.text())
        .as_ptr()
}

/// What went wrong in the last call on this thread that failed: what was expected, what came, and
/// what to do. Never NULL; empty if none failed yet. Valid on this thread until its next p2p_ call.
#[unsafe(no_mangle)]
pub extern "C" fn p2p_last_error() -> *const c_char {
    LAST_ERROR.with(|text| text.get().cast_const().cast())
}

/// A failed call: its status and its text.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) status: p2p_status_t,
    pub(crate) text: String,
}

impl Error {
    pub(crate) fn new(status: p2p_status_t, text: impl Into<String>) -> Error {
        Error { status, text: text.into() }
    }

    pub(crate) fn argument(text: impl Into<String>) -> Error {
        Error::new(P2P_ERR_ARGUMENT, text)
    }
}

impl From<StartError> for Error {
    fn from(e: StartError) -> Error {
        let status = match e {
            StartError::Config(_) => P2P_ERR_CONFIG,
            StartError::Io(_) => P2P_ERR_IO,
            StartError::Busy(_) => P2P_ERR_BUSY,
            StartError::Closed => P2P_ERR_CLOSED,
        };
        Error::new(status, e.to_string())
    }
}

impl From<PushError> for Error {
    fn from(e: PushError) -> Error {
        match e {
            PushError::NoStream => {
                Error::new(P2P_ERR_HANDLE, "it was stopped, or the audio has no microphone")
            }
            PushError::QueueFull => Error::new(
                P2P_ERR_QUEUE_FULL,
                "the frame queue is full: the frame was dropped, the stream goes on at the next \
                 keyframe",
            ),
            PushError::BadSize => Error::new(
                P2P_ERR_FRAME_SIZE,
                "the core refused the frame's size: expected one access unit of 1 byte to 4 MiB",
            ),
            PushError::BadAudio => Error::new(
                P2P_ERR_FRAME_SIZE,
                "expected one packet of the codec that the audio was started with; Opus without its \
                 container (Ogg, WebM)",
            ),
            PushError::Closed => Error::new(P2P_ERR_CLOSED, "the agent is being de-initialised"),
        }
    }
}

impl From<ChannelError> for Error {
    fn from(e: ChannelError) -> Error {
        let status = match e {
            ChannelError::NoChannel => P2P_ERR_NO_CHANNEL,
            ChannelError::QueueFull => P2P_ERR_QUEUE_FULL,
            ChannelError::TooLong { .. } | ChannelError::NameTooLong => P2P_ERR_ARGUMENT,
            ChannelError::TooMany => P2P_ERR_BUSY,
            ChannelError::Closed => P2P_ERR_CLOSED,
        };
        Error::new(status, e.to_string())
    }
}

/// Keeps `text` for [`p2p_last_error`], cut at a character's end where it is too long.
pub(crate) fn set_last_error(text: &str) {
    let mut len = text.len().min(LAST_ERROR_SIZE - 1);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    LAST_ERROR.with(|last| {
        // SAFETY: the array is this thread's own, no reference to it is kept anywhere, and C only
        // reads it between calls.
        let last = unsafe { &mut *last.get() };
        for (to, from) in last.iter_mut().zip(text.as_bytes().iter().take(len)) {
            *to = if *from == 0 { b'?' } else { *from };
        }
        last[len] = 0;
    });
}

const LAST_ERROR_SIZE: usize = 512;

thread_local! {
    // Neither made nor dropped at run time, so it can be read as long as the thread lives.
    static LAST_ERROR: UnsafeCell<[u8; LAST_ERROR_SIZE]> =
        const { UnsafeCell::new([0; LAST_ERROR_SIZE]) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last() -> String {
        // SAFETY: always terminated, and this thread makes no other call meanwhile.
        unsafe { CStr::from_ptr(p2p_last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        set_last_error(&"ü".repeat(400));
        assert_eq!(last(), "ü".repeat(255));
        set_last_error("a\0b");
        assert_eq!(last(), "a?b");
    }

    #[test]
    fn every_number_has_its_own_text() {
        let text = |n| unsafe { CStr::from_ptr(p2p_strerror(n)) };
        let mut seen: Vec<_> = p2p_status_t::ALL.iter().map(|s| text(*s as i32)).collect();
        assert!(p2p_status_t::ALL.iter().enumerate().all(|(i, s)| *s as i32 == -(i as i32)));
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), p2p_status_t::ALL.len());
        for other in [1, -15, i32::MIN, i32::MAX] {
            assert_eq!(text(other), c"unknown status");
        }
    }
}
