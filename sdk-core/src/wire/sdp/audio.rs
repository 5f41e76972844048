//! Which of an offer's audio sections the camera sends in, listens to, or both.

use super::choose::{EXT_MID, extension_id};
use super::{Description, Media, MediaKind, Payload, VideoChoice};
use crate::wire::audio::AudioCodec;
use std::fmt;

/// What the camera has for sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioFormat {
    pub codec: AudioCodec,
    /// It has a microphone.
    pub sends: bool,
    /// It has a loudspeaker.
    pub receives: bool,
}

impl fmt::Display for AudioFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ways = match (self.sends, self.receives) {
            (true, true) => "microphone and loudspeaker",
            (true, false) => "microphone",
            (false, true) => "loudspeaker",
            (false, false) => "neither way",
        };
        write!(f, "{}, {ways}", self.codec.encoding())
    }
}

/// What of an offer's audio is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioChoice {
    /// Which m-line, from 0.
    pub section: usize,
    pub mid: String,
    /// Both ways.
    pub payload_type: u8,
    pub codec: AudioCodec,
    /// The camera sends.
    pub sends: bool,
    /// The camera listens.
    pub receives: bool,
    /// Id of the RTP header extension that names the section (RFC 8843 §15).
    pub mid_extension: Option<u8>,
    pub rtcp_rsize: bool,
}

impl Description<'_> {
    /// Chooses where to send and hear sound: the first audio section in `video`'s bundle, since there
    /// is one transport, that has the codec and a direction in common with the camera. `None` is no
    /// error: the pictures come without sound.
    pub fn choose_audio(&self, video: &VideoChoice, audio: AudioFormat) -> Option<AudioChoice> {
        let bundled = |m: &Media<'_>| self.bundles(m.mid, &video.mid) && m.rtcp_mux;
        let audios = self.media.iter().enumerate().filter(|(_, m)| m.kind == MediaKind::Audio);
        audios.filter(|(_, m)| !m.is_rejected() && bundled(m)).find_map(|(section, media)| {
            let payload = media.payloads.iter().find(|p| is_codec(p, audio.codec))?;
            let sends = audio.sends && media.receives();
            let receives = audio.receives && media.sends();
            (sends || receives).then(|| AudioChoice {
                section,
                mid: media.mid.to_owned(),
                payload_type: payload.payload_type,
                codec: audio.codec,
                sends,
                receives,
                mid_extension: extension_id(media, EXT_MID)
                    .filter(|_| (1..=16).contains(&media.mid.len())),
                rtcp_rsize: media.rtcp_rsize,
            })
        })
    }
}

impl Description<'_> {
    /// Why [`Self::choose_audio`] finds nothing: for the log.
    pub fn why_no_audio(&self, video: &VideoChoice, audio: AudioFormat) -> &'static str {
        let audios = || {
            let audios = self.media.iter().filter(|m| m.kind == MediaKind::Audio);
            audios.filter(|m| !m.is_rejected())
        };
        let bundled = || audios().filter(|m| self.bundles(m.mid, &video.mid) && m.rtcp_mux);
        if audios().next().is_none() {
            NOT_ASKED_FOR
        } else if bundled().next().is_none() {
            "no audio section shares the video's transport (a=group:BUNDLE, a=rtcp-mux)"
        } else if !bundled().any(|m| m.payloads.iter().any(|p| is_codec(p, audio.codec))) {
            "the viewer does not offer the camera's codec"
        } else {
            "no direction that the viewer offers is one that the camera has"
        }
    }
}

/// What [`Description::why_no_audio`] says of an offer without any.
pub const NOT_ASKED_FOR: &str = "the viewer asks for none";

fn is_codec(payload: &Payload<'_>, codec: AudioCodec) -> bool {
    if payload.encoding.is_empty() {
        return codec.static_payload_type() == Some(payload.payload_type);
    }
    payload.encoding.eq_ignore_ascii_case(codec.encoding())
        && payload.clock_rate == codec.clock_rate()
        && payload.channels == codec.channels()
}
