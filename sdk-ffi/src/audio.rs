//! Sound: `p2p_start_audio`, `p2p_push_audio`, `p2p_stop_audio`, and what viewers say.

use crate::boundary::enter;
use crate::handle::{self, p2p_agent_t, p2p_audio_t};
use crate::layout::{self, Versioned};
use crate::status::{Error, p2p_status_t};
use sdk_core::driver::{AudioCodec, AudioFormat};
use sdk_core::event::Talkback;
use std::ffi::{c_char, c_void};
use std::mem::size_of;
use std::ptr;
use std::time::Duration;

/// Opus (RFC 6716): one packet a frame, 2.5 to 120 ms of mono or stereo, without a container.
pub const P2P_AUDIO_OPUS: i32 = 1;
/// G.711 A-law, 8000 samples a second, mono: a byte is a sample.
pub const P2P_AUDIO_PCMA: i32 = 2;
/// G.711 u-law, 8000 samples a second, mono: a byte is a sample.
pub const P2P_AUDIO_PCMU: i32 = 3;

/// The camera's microphone, and its loudspeaker if on_talkback is set.
pub const P2P_AUDIO_BOTH: i32 = 0;
/// Its microphone alone.
pub const P2P_AUDIO_MICROPHONE: i32 = 1;
/// Its loudspeaker alone.
pub const P2P_AUDIO_LOUDSPEAKER: i32 = 2;

/// The largest frame that p2p_push_audio() takes, in bytes.
pub const P2P_MAX_AUDIO_FRAME_SIZE: usize = 1275;

/// An agent's sound. Start from P2P_AUDIO_CONFIG_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct p2p_audio_config_t {
    /// sizeof(p2p_audio_config_t), set by P2P_AUDIO_CONFIG_INIT.
    pub struct_size: usize,
    /// Required. One of P2P_AUDIO_OPUS, P2P_AUDIO_PCMA and P2P_AUDIO_PCMU: of both directions.
    /// Every browser has all three.
    pub codec: i32,
    /// Which ways: P2P_AUDIO_BOTH, P2P_AUDIO_MICROPHONE or P2P_AUDIO_LOUDSPEAKER.
    pub direction: i32,
}

/// One frame of the microphone's encoder. Start from P2P_AUDIO_FRAME_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct p2p_audio_frame_t {
    /// sizeof(p2p_audio_frame_t), set by P2P_AUDIO_FRAME_INIT.
    pub struct_size: usize,
    /// One packet of the codec: 20 ms are usual, which is 160 bytes of G.711. It is copied.
    pub data: *const u8,
    /// In bytes, 1 to P2P_MAX_AUDIO_FRAME_SIZE.
    pub size: usize,
    /// When the first sample was captured, in microseconds, on the same clock as the timestamps of
    /// the video's frames: that is how viewers play both in time. A clock that is apart from the
    /// video's by more than a second counts as another one, and then both are taken to be captured
    /// when they are pushed. Where nothing is pushed there is silence.
    pub timestamp_us: u64,
}

/// What a viewer says: a packet, or packets that did not come. It and all it points to live only until
/// the callback returns. A newer library may give a larger struct, whose beginning is this one.
#[repr(C)]
pub struct p2p_talkback_t {
    /// In bytes, as the library knows it.
    pub struct_size: usize,
    /// Who: the session id of the events. Several viewers may talk at once.
    pub session_id: *const c_char,
    /// One packet of the codec, to be decoded and played now; NULL where packets are missing.
    pub data: *const u8,
    /// In bytes; 0 where packets are missing.
    pub size: usize,
    /// Where it belongs, in microseconds since the viewer began to talk. Between the end of one packet
    /// and the next one there may be silence.
    pub timestamp_us: u64,
    /// How much sound it is, or would have been, in microseconds.
    pub duration_us: u32,
    /// 0: data is a packet. Otherwise how many packets are missing here: let the decoder conceal them.
    pub lost: u32,
    /// P2P_AUDIO_OPUS, P2P_AUDIO_PCMA or P2P_AUDIO_PCMU, as the audio was started.
    pub codec: i32,
    /// Always 0.
    pub reserved: u32,
}

/// Plays what a viewer says: in order and in time, as far as a buffer that follows the network's jitter
/// can make it so. Runs on the agent's thread: hand it on and return soon.
pub type p2p_talkback_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, talkback: *const p2p_talkback_t)>;

// SAFETY: integers, any of which may be zero; no padding (tests/abi.rs).
unsafe impl Versioned for p2p_audio_config_t {
    const NAME: &'static str = "p2p_audio_config_t";
    const SIZES: &'static [usize] = &[size_of::<p2p_audio_config_t>()];
}

// SAFETY: a pointer and integers, any of which may be zero; no padding at the end (tests/abi.rs).
unsafe impl Versioned for p2p_audio_frame_t {
    const NAME: &'static str = "p2p_audio_frame_t";
    const SIZES: &'static [usize] = &[size_of::<p2p_audio_frame_t>()];
}

/// Starts the agent's sound: one microphone and one loudspeaker, which all viewers share. On success
/// *audio is its handle; on failure it is NULL. P2P_ERR_BUSY if it runs already.
///
/// A viewer decides in its offer whether it listens, talks, or both, and may change that while it
/// watches. One without the codec sees the pictures without sound; the log says why. Viewers that watch
/// when this is called get sound only when they offer again, so call it before the first frame.
///
/// # Safety
/// `config` points to a p2p_audio_config_t whose struct_size is true; `audio` points to writable memory
/// for a pointer. Either may be NULL, which is an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn p2p_start_audio(
    agent: *mut p2p_agent_t,
    config: *const p2p_audio_config_t,
    audio: *mut *mut p2p_audio_t,
) -> p2p_status_t {
    enter(|| {
        if audio.is_null() {
            return Err(Error::argument("audio is NULL: expected where to put the handle"));
        }
        // SAFETY: promised by the caller.
        unsafe { audio.write(ptr::null_mut()) };
        let call = handle::agent(agent)?;
        // SAFETY: promised by the caller.
        let config = unsafe { layout::read(config, "config")? };
        let format = config.to_core(call.agent().callbacks.take_talkback())?;
        let id = call.camera().start_audio(format)?;
        let new = handle::add_audio(&call, id)?;
        // SAFETY: promised by the caller.
        unsafe { audio.write(ptr::without_provenance_mut(new.handle)) };
        Ok(())
    })
}

/// Hands over one frame of the microphone's encoder, which is copied and goes out at once to all viewers
/// that listen. Never blocks: if the agent is behind by a full queue (of 32 frames, beside that of the
/// video), the frame is dropped with P2P_ERR_QUEUE_FULL.
///
/// # Safety
/// `frame` is NULL or points to a p2p_audio_frame_t whose struct_size is true; its data points to size
/// readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn p2p_push_audio(
    audio: *mut p2p_audio_t,
    frame: *const p2p_audio_frame_t,
) -> p2p_status_t {
    enter(|| {
        // SAFETY: promised by the caller.
        let frame = unsafe { layout::read(frame, "frame")? };
        let (call, audio) = handle::audio(audio)?;
        frame.check()?;
        // SAFETY: promised by the caller, and the size was checked.
        let data = unsafe { std::slice::from_raw_parts(frame.data, frame.size) };
        let timestamp = Duration::from_micros(frame.timestamp_us);
        Ok(call.camera().push_audio(audio.id, data, timestamp)?)
    })
}

/// Ends the agent's sound; viewers go on without it. The handle is stale afterwards. A call of
/// on_talkback that has begun may still be running on the agent's thread.
#[unsafe(no_mangle)]
pub extern "C" fn p2p_stop_audio(audio: *mut p2p_audio_t) -> p2p_status_t {
    enter(|| {
        let (call, found) = handle::audio(audio)?;
        let was_faster = !handle::remove_audio(found);
        if was_faster || !call.camera().stop_audio(found.id) {
            return Err(Error::new(
                p2p_status_t::P2P_ERR_HANDLE,
                "the audio was stopped by another thread",
            ));
        }
        Ok(())
    })
}

impl p2p_audio_config_t {
    fn to_core(self, hears: bool) -> Result<AudioFormat, Error> {
        let codec = match self.codec {
            P2P_AUDIO_OPUS => AudioCodec::Opus,
            P2P_AUDIO_PCMA => AudioCodec::Pcma,
            P2P_AUDIO_PCMU => AudioCodec::Pcmu,
            other => {
                return Err(Error::new(
                    p2p_status_t::P2P_ERR_CODEC,
                    format!(
                        "codec is {other}: expected P2P_AUDIO_OPUS ({P2P_AUDIO_OPUS}), \
                         P2P_AUDIO_PCMA ({P2P_AUDIO_PCMA}) or P2P_AUDIO_PCMU ({P2P_AUDIO_PCMU})"
                    ),
                ));
            }
        };
        let (sends, receives) = match self.direction {
            P2P_AUDIO_BOTH => (true, hears),
            P2P_AUDIO_MICROPHONE => (true, false),
            P2P_AUDIO_LOUDSPEAKER if hears => (false, true),
            P2P_AUDIO_LOUDSPEAKER => {
                return Err(Error::argument(
                    "direction is P2P_AUDIO_LOUDSPEAKER, but on_talkback in p2p_config_t is NULL: \
                     there is nobody to play anything",
                ));
            }
            other => {
                return Err(Error::argument(format!(
                    "direction is {other}: expected P2P_AUDIO_BOTH, P2P_AUDIO_MICROPHONE or \
                     P2P_AUDIO_LOUDSPEAKER"
                )));
            }
        };
        Ok(AudioFormat { codec, sends, receives })
    }
}

impl p2p_audio_frame_t {
    fn check(&self) -> Result<(), Error> {
        if self.data.is_null() {
            return Err(Error::argument("data is NULL: expected one packet"));
        }
        if self.size == 0 || self.size > P2P_MAX_AUDIO_FRAME_SIZE {
            return Err(Error::new(
                p2p_status_t::P2P_ERR_FRAME_SIZE,
                format!("size is {}: expected 1 to {P2P_MAX_AUDIO_FRAME_SIZE} bytes", self.size),
            ));
        }
        Ok(())
    }
}

impl p2p_talkback_t {
    /// Valid as long as both arguments are.
    pub(crate) fn of(talkback: &Talkback<'_>, session_id: &[u8]) -> p2p_talkback_t {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let is_lost = talkback.lost > 0;
        p2p_talkback_t {
            struct_size: size_of::<p2p_talkback_t>(),
            session_id: session_id.as_ptr().cast(),
            data: if is_lost { ptr::null() } else { talkback.data.as_ptr() },
            size: talkback.data.len(),
            timestamp_us: micros(talkback.timestamp),
            duration_us: u32::try_from(micros(talkback.duration)).unwrap_or(u32::MAX),
            lost: talkback.lost,
            codec: match talkback.codec {
                AudioCodec::Opus => P2P_AUDIO_OPUS,
                AudioCodec::Pcma => P2P_AUDIO_PCMA,
                AudioCodec::Pcmu => P2P_AUDIO_PCMU,
            },
            reserved: 0,
        }
    }
}

const _: () = assert!(P2P_MAX_AUDIO_FRAME_SIZE == sdk_core::driver::MAX_AUDIO_LEN);

#[cfg(test)]
mod tests {
    use super::*;
    use sdk_core::wire::signal::SessionId;

    #[test]
    fn a_packet_has_data_and_a_loss_has_none() {
        let said = Talkback {
            session: SessionId::from_random([1; 16]),
            codec: AudioCodec::Pcmu,
            data: &[0x7f; 160],
            lost: 0,
            timestamp: Duration::from_millis(40),
            duration: Duration::from_millis(20),
        };
        let of = |said: &Talkback<'_>| p2p_talkback_t::of(said, b"id\0");
        let packet = of(&said);
        assert!(ptr::eq(packet.data, said.data.as_ptr()) && packet.size == 160);
        assert_eq!((packet.timestamp_us, packet.duration_us), (40_000, 20_000));
        assert_eq!((packet.lost, packet.codec), (0, P2P_AUDIO_PCMU));
        let loss = of(&Talkback { data: &[], lost: 3, ..said });
        assert!(loss.data.is_null() && loss.size == 0 && loss.lost == 3);
    }

    #[test]
    fn a_loudspeaker_needs_somebody_to_play() {
        let config = |direction| p2p_audio_config_t { struct_size: 0, codec: 2, direction };
        let ways = |direction, hears| {
            let format = config(direction).to_core(hears).ok()?;
            Some((format.sends, format.receives))
        };
        assert_eq!(ways(P2P_AUDIO_BOTH, true), Some((true, true)));
        assert_eq!(ways(P2P_AUDIO_BOTH, false), Some((true, false)));
        assert_eq!(ways(P2P_AUDIO_MICROPHONE, true), Some((true, false)));
        assert_eq!(ways(P2P_AUDIO_LOUDSPEAKER, true), Some((false, true)));
        assert_eq!(ways(P2P_AUDIO_LOUDSPEAKER, false), None);
        assert_eq!(ways(7, true), None);
    }
}
