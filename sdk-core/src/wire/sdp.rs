//! Session descriptions (RFC 8866) as browsers offer them, and the camera's answer.
//!
//! ```text
//! offer text ─ Description::parse ─→ Description ─ choose_video ─→ VideoChoice ─────────────┐
//!                                        ├───────── choose_audio, choose_data ─→ or nothing ─┤
//!                                        └──────────────────────────────────────────────────┴ Answer::write ─→ answer text
//! ```
//!
//! A camera only answers (RFC 8829, JSEP): one video section that it sends in, one audio and one
//! data section where it has that, one bundle (RFC 8843), DTLS server (RFC 8842), candidates trickled
//! (RFC 8840). Everything else in an offer is rejected, section by section, or accepted as inactive
//! where the bundle hangs on it.

mod answer;
mod audio;
mod choose;
mod data;
mod fingerprint;
mod h265;
mod parse;
mod profile;

pub use answer::Answer;
pub use audio::{AudioChoice, AudioFormat, NOT_ASKED_FOR};
pub use choose::{Extensions, Feedback, StreamFormat, VideoChoice, VideoFormat};
pub use data::{DataChoice, MAX_MESSAGE_SIZE};
pub use fingerprint::{Fingerprint, HashFunction};
pub use h265::H265Format;
pub use parse::ice_ufrag;
pub use profile::{H264Profile, ProfileLevelId};

use crate::wire::signal::ErrorCode;
use std::fmt;

/// Longest description read, in bytes; Chrome's offers have 5 to 9 kB.
pub const MAX_SDP_LEN: usize = 64 * 1024;
/// Longest line, in bytes.
pub const MAX_LINE_LEN: usize = 4096;
/// Most m-lines.
pub const MAX_SECTIONS: usize = 32;
/// Most payload types in one section: there are no more numbers.
pub const MAX_PAYLOADS: usize = 128;
/// Most header extensions in one section.
pub const MAX_EXTMAPS: usize = 32;
/// Most candidates in one section.
pub const MAX_CANDIDATES: usize = 64;
/// Most fingerprints in one section.
pub const MAX_FINGERPRINTS: usize = 8;

/// A description, borrowed from its text. Transport attributes are already resolved: each section
/// has its own, or those of the bundle's first section (RFC 8843 §7.1.3), or the session's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description<'a> {
    /// The mids of the first `a=group:BUNDLE`.
    pub bundle: Vec<&'a str>,
    /// `a=ice-lite`: the other side never checks by itself (RFC 8445 §2.5).
    pub ice_lite: bool,
    /// `a=extmap-allow-mixed` (RFC 8285 §6).
    pub extmap_allow_mixed: bool,
    pub media: Vec<Media<'a>>,
}

/// One m-line and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media<'a> {
    pub kind: MediaKind,
    /// The m-line's first word, for echoing a kind this version does not know.
    pub kind_text: &'a str,
    /// 0 where the section is rejected or `bundle_only`.
    pub port: u16,
    pub proto: &'a str,
    /// The m-line's format list: payload types, or `webrtc-datachannel`.
    pub formats: &'a str,
    /// Empty if there is none.
    pub mid: &'a str,
    pub bundle_only: bool,
    pub direction: Direction,
    pub rtcp_mux: bool,
    pub rtcp_rsize: bool,
    pub setup: Option<Setup>,
    /// Empty if there is none.
    pub ice_ufrag: &'a str,
    /// Empty if there is none.
    pub ice_pwd: &'a str,
    pub ice_options: IceOptions,
    pub fingerprints: Vec<Fingerprint>,
    /// `candidate:…` lines, without `a=`.
    pub candidates: Vec<&'a str>,
    pub end_of_candidates: bool,
    /// Stream and track: what stands behind `a=msid:`.
    pub msid: Option<&'a str>,
    pub extmaps: Vec<Extmap<'a>>,
    /// In the offer's order of preference.
    pub payloads: Vec<Payload<'a>>,
    /// `a=sctp-port` of a data channel section (RFC 8841).
    pub sctp_port: Option<u16>,
    /// `a=max-message-size` of a data channel section (RFC 8841), in bytes; 0 is no limit.
    pub max_message_size: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    Audio,
    Video,
    /// Data channels: `m=application … webrtc-datachannel` (RFC 8841).
    DataChannel,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// What a section without a direction means (RFC 8866 §6.7).
    #[default]
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

/// `a=setup` (RFC 4145, RFC 8842): who opens the DTLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    ActPass,
    Active,
    Passive,
    HoldConn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IceOptions {
    /// RFC 8840.
    pub trickle: bool,
    /// RFC 8445 §10.
    pub ice2: bool,
    pub renomination: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extmap<'a> {
    pub id: u16,
    pub uri: &'a str,
}

/// A payload type and what is said about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    pub payload_type: u8,
    /// As in `a=rtpmap`, `H264`, in the offer's own spelling; empty without an rtpmap.
    pub encoding: &'a str,
    pub clock_rate: u32,
    /// Of audio; 1 if it is not said.
    pub channels: u8,
    /// Parameters of `a=fmtp`, empty if there are none.
    pub fmtp: &'a str,
    pub feedback: Feedback,
}

impl Payload<'_> {
    /// One parameter of `a=fmtp`, names without regard to case.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.fmtp.split(';').find_map(|part| {
            let (key, value) = part.split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Media<'_> {
    /// Whether the offerer has given this section up (port 0 without `a=bundle-only`, RFC 8843 §6).
    pub fn is_rejected(&self) -> bool {
        self.port == 0 && !self.bundle_only
    }

    /// Whether whoever wrote this section is ready to receive in it.
    pub fn receives(&self) -> bool {
        matches!(self.direction, Direction::RecvOnly | Direction::SendRecv)
    }

    /// Whether whoever wrote this section wants to send in it.
    pub fn sends(&self) -> bool {
        matches!(self.direction, Direction::SendOnly | Direction::SendRecv)
    }
}

impl Description<'_> {
    /// Whether two sections share one transport.
    fn bundles(&self, a: &str, b: &str) -> bool {
        self.bundle.contains(&a) && self.bundle.contains(&b)
    }
}

/// A description that cannot be read (400) or accepted (406).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SdpError {
    pub code: ErrorCode,
    pub message: String,
}

impl SdpError {
    fn malformed(message: impl Into<String>) -> SdpError {
        SdpError { code: ErrorCode::Malformed, message: message.into() }
    }

    pub(crate) fn not_acceptable(message: impl Into<String>) -> SdpError {
        SdpError { code: ErrorCode::NotAcceptable, message: message.into() }
    }
}

impl fmt::Display for SdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for SdpError {}
