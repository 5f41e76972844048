//! Streams and their frames: `p2p_start_stream`, `p2p_push_frame`, `p2p_stop_stream`.

use crate::boundary::{enter, in_callback};
use crate::config::{required, text};
use crate::handle::{self, p2p_agent_t, p2p_stream_t};
use crate::layout::{self, Versioned};
use crate::status::{Error, p2p_status_t};
use sdk_core::driver::{Codec, DEFAULT_GOP_CACHE, Frame, FrameData, LentFrame, StreamConfig};
use std::ffi::{c_char, c_void};
use std::mem::{ManuallyDrop, size_of};
use std::ptr;
use std::sync::PoisonError;
use std::time::Duration;

/// H.264 (ITU-T H.264), Annex-B byte stream. No B-frames.
pub const P2P_CODEC_H264: i32 = 1;
/// No viewer starts with pictures of the past.
pub const P2P_GOP_CACHE_OFF: usize = 1;

/// H.265 (ITU-T H.265, HEVC), Annex-B byte stream. No B-frames. A viewer that does not offer it gets
/// error 406, so a camera that has it should have a stream in H.264 too.
pub const P2P_CODEC_H265: i32 = 2;

/// The largest frame that p2p_push_frame() takes, in bytes.
pub const P2P_MAX_FRAME_SIZE: usize = 4_194_304;

/// One channel of the camera. Start from P2P_STREAM_CONFIG_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct p2p_stream_config_t {
    /// sizeof(p2p_stream_config_t), set by P2P_STREAM_CONFIG_INIT.
    pub struct_size: usize,
    /// Required. "main", "sub", …: what viewers ask for.
    pub name: *const c_char,
    /// Required. One of P2P_CODEC_…
    pub codec: i32,
    /// The bit rate that is expected, for sizing queues; in bits per second. 0: 2,000,000.
    pub bitrate: u32,
    /// on_target_bitrate never asks for less, in bits per second. 0: a tenth of bitrate.
    pub min_bitrate: u32,
    /// on_target_bitrate never asks for more, in bits per second. 0: bitrate.
    pub max_bitrate: u32,
    /// Given to this stream's callbacks as stream_user; for instance the encoder's own handle.
    pub user: *mut c_void,
    /// The name of another stream of the same codec, for viewers whose network does not take
    /// min_bitrate: they are sent that one until it does. NULL: they miss frames instead.
    pub fallback: *const c_char,
    /// Whether a viewer starts with the pictures since the last keyframe, which are kept anyhow: its
    /// first picture is there at once then. 0: if they have at most 256 KiB. P2P_GOP_CACHE_OFF: never,
    /// it waits for the keyframe that on_keyframe_request asks for. Otherwise the most, in bytes.
    pub gop_cache: usize,
}

/// Gives a lent frame back: data and size are those of the frame, user its release_user.
pub type p2p_release_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, data: *const u8, size: usize)>;

/// One access unit, as the encoder made it. Start from P2P_FRAME_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct p2p_frame_t {
    /// sizeof(p2p_frame_t), set by P2P_FRAME_INIT.
    pub struct_size: usize,
    /// Annex-B: NAL units, each behind a 3- or 4-byte start code, in decoding order. All units of one
    /// picture in one call. Parameter sets (SPS and PPS, with H.265 VPS too) come before the first IDR
    /// (with H.265 any IRAP picture); they need not be repeated.
    pub data: *const u8,
    /// In bytes, 1 to P2P_MAX_FRAME_SIZE.
    pub size: usize,
    /// When the picture was taken, in microseconds on the encoder's own clock. It may start anywhere.
    /// A recording keeps its own times: where they go back, or on by a second and more than it took,
    /// the recording was wound, and its next picture for viewers is a keyframe; while nothing is
    /// pushed, it is paused.
    pub timestamp_us: u64,
    /// NULL: the frame is copied, and data may be reused as soon as p2p_push_frame() returns.
    /// Otherwise the frame is lent: data must stay unchanged until release is called.
    pub release: p2p_release_fn,
    /// Given to release.
    pub release_user: *mut c_void,
}

// SAFETY: pointers and integers, any of which may be zero; no padding at the end (tests/abi.rs).
unsafe impl Versioned for p2p_stream_config_t {
    const NAME: &'static str = "p2p_stream_config_t";
    const SIZES: &'static [usize] = &[size_of::<p2p_stream_config_t>()];
}

// SAFETY: as above.
unsafe impl Versioned for p2p_frame_t {
    const NAME: &'static str = "p2p_frame_t";
    const SIZES: &'static [usize] = &[size_of::<p2p_frame_t>()];
}

/// Starts a stream that viewers can ask for by its name. On success *stream is its handle; on failure
/// it is NULL.
///
/// # Safety
/// `config` points to a p2p_stream_config_t whose struct_size is true and whose name ends with a zero
/// byte; `stream` points to writable memory for a pointer. Either may be NULL, which is an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn p2p_start_stream(
    agent: *mut p2p_agent_t,
    config: *const p2p_stream_config_t,
    stream: *mut *mut p2p_stream_t,
) -> p2p_status_t {
    enter(|| {
        if stream.is_null() {
            return Err(Error::argument("stream is NULL: expected where to put the handle"));
        }
        // SAFETY: promised by the caller.
        unsafe { stream.write(ptr::null_mut()) };
        let call = handle::agent(agent)?;
        // SAFETY: promised by the caller.
        let config = unsafe { layout::read(config, "config")? };
        // SAFETY: promised by the caller.
        let core = unsafe { config.to_core()? };

        let starting = call.agent().starting.lock().unwrap_or_else(PoisonError::into_inner);
        let id = call.camera().start_stream(core)?;
        let new = handle::add_stream(&call, id, config.user)?;
        drop(starting);
        // SAFETY: promised by the caller.
        unsafe { stream.write(ptr::without_provenance_mut(new.handle)) };
        Ok(())
    })
}

/// Hands over one access unit. Never blocks: if the agent is behind by a full queue, the frame is
/// dropped with P2P_ERR_QUEUE_FULL.
///
/// A lent frame's release is called exactly once, whatever this returns, on this thread before it
/// returns or on the agent's thread later, at the latest when p2p_deinit() returns. The one exception:
/// where frame is NULL or its struct_size is refused (P2P_ERR_STRUCT_SIZE), the library cannot know
/// release, and the buffer stays the caller's.
///
/// # Safety
/// `frame` is NULL or points to a p2p_frame_t whose struct_size is true; its data points to size
/// readable bytes, which stay unchanged until release is called, if there is one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn p2p_push_frame(
    stream: *mut p2p_stream_t,
    frame: *const p2p_frame_t,
) -> p2p_status_t {
    enter(|| {
        // SAFETY: promised by the caller.
        let frame = unsafe { layout::read(frame, "frame")? };
        // From here on the frame is released when this is dropped, on every path.
        let lent = Lent::of(&frame);
        let (call, stream) = handle::stream(stream)?;
        frame.check()?;
        let data = match lent {
            None => {
                // SAFETY: promised by the caller, and the size was checked.
                FrameData::Owned(copy(unsafe {
                    std::slice::from_raw_parts(frame.data, frame.size)
                })?)
            }
            // SAFETY: promised by the caller until `release` is called.
            Some(lent) => FrameData::Lent(unsafe { lent.into_core() }),
        };
        let timestamp = Duration::from_micros(frame.timestamp_us);
        Ok(call.camera().push_frame(stream.id, Frame { data, timestamp })?)
    })
}

/// Ends a stream; its viewers are told. The handle is stale afterwards. Frames of it that are still
/// queued are released soon, on the agent's thread.
#[unsafe(no_mangle)]
pub extern "C" fn p2p_stop_stream(stream: *mut p2p_stream_t) -> p2p_status_t {
    enter(|| {
        let (call, found) = handle::stream(stream)?;
        let was_faster = !handle::remove_stream(found);
        if was_faster || !call.camera().stop_stream(found.id) {
            return Err(Error::new(
                p2p_status_t::P2P_ERR_HANDLE,
                "the stream was stopped by another thread",
            ));
        }
        Ok(())
    })
}

impl p2p_stream_config_t {
    /// # Safety
    /// `name` and `fallback` are NULL or end with a zero byte.
    unsafe fn to_core(self) -> Result<StreamConfig, Error> {
        // SAFETY: promised by the caller.
        let (name, fallback) =
            unsafe { (required(self.name, "name")?, text(self.fallback, "fallback")?) };
        let codec = match self.codec {
            P2P_CODEC_H264 => Codec::H264,
            P2P_CODEC_H265 => Codec::H265,
            other => {
                return Err(Error::new(
                    p2p_status_t::P2P_ERR_CODEC,
                    format!(
                        "codec is {other}: expected P2P_CODEC_H264 ({P2P_CODEC_H264}) or \
                         P2P_CODEC_H265 ({P2P_CODEC_H265})"
                    ),
                ));
            }
        };
        let bitrate = if self.bitrate == 0 { 2_000_000 } else { self.bitrate };
        let set = |value: u32| (value != 0).then_some(value);
        let (min_bitrate, max_bitrate) = (set(self.min_bitrate), set(self.max_bitrate));
        let gop_cache = match self.gop_cache {
            0 => DEFAULT_GOP_CACHE,
            P2P_GOP_CACHE_OFF => 0,
            bytes => bytes,
        };
        Ok(StreamConfig { name, codec, bitrate, min_bitrate, max_bitrate, fallback, gop_cache })
    }
}

pub(crate) fn codec_number(codec: Codec) -> i32 {
    match codec {
        Codec::H264 => P2P_CODEC_H264,
        Codec::H265 => P2P_CODEC_H265,
    }
}

impl p2p_frame_t {
    fn check(&self) -> Result<(), Error> {
        if self.data.is_null() {
            return Err(Error::argument("data is NULL: expected one access unit"));
        }
        if self.size == 0 || self.size > P2P_MAX_FRAME_SIZE {
            return Err(Error::new(
                p2p_status_t::P2P_ERR_FRAME_SIZE,
                format!("size is {}: expected 1 to {P2P_MAX_FRAME_SIZE} bytes", self.size),
            ));
        }
        Ok(())
    }
}

/// The promise to give a lent frame back: kept when this is dropped.
struct Lent {
    lender: Lender,
    data: *const u8,
    size: usize,
}

/// Who takes it back.
#[derive(Clone, Copy)]
struct Lender {
    release: unsafe extern "C" fn(*mut c_void, *const u8, usize),
    user: *mut c_void,
}

// SAFETY: the header says that release may be called from any thread.
unsafe impl Send for Lender {}

impl Lender {
    fn take_back(self, data: *const u8, size: usize) {
        // SAFETY: the firmware's own function with the firmware's own arguments.
        in_callback(|| unsafe { (self.release)(self.user, data, size) });
    }
}

impl Lent {
    fn of(frame: &p2p_frame_t) -> Option<Lent> {
        let lender = Lender { release: frame.release?, user: frame.release_user };
        Some(Lent { lender, data: frame.data, size: frame.size })
    }

    /// Hands the promise on.
    ///
    /// # Safety
    /// `data` points to `size` readable bytes that do not change until they are given back.
    unsafe fn into_core(self) -> LentFrame {
        let this = ManuallyDrop::new(self);
        let lender = this.lender;
        let take_back = move |data, size| lender.take_back(data, size);
        // SAFETY: promised by the caller.
        unsafe { LentFrame::new(this.data, this.size, take_back) }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.lender.take_back(self.data, self.size);
    }
}

fn copy(data: &[u8]) -> Result<Vec<u8>, Error> {
    let mut owned = Vec::new();
    owned.try_reserve_exact(data.len()).map_err(|_| {
        Error::new(
            p2p_status_t::P2P_ERR_MEMORY,
            format!("no memory to copy a frame of {} bytes", data.len()),
        )
    })?;
    owned.extend_from_slice(data);
    Ok(owned)
}
