//! Which of an offer's video sections and payload types the camera sends in.

use super::h265::{H265Format, best_h265, is_h265};
use super::{Description, Fingerprint, H264Profile, Media, MediaKind, Payload};
use super::{ProfileLevelId, SdpError, Setup};
use crate::wire::codec::Codec;
use crate::wire::h265::ProfileTierLevel;

/// What a stream is, as far as it is known: nothing more than its codec before its first SPS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamFormat {
    H264(Option<ProfileLevelId>),
    H265(Option<ProfileTierLevel>),
}

impl StreamFormat {
    pub fn codec(self) -> Codec {
        match self {
            StreamFormat::H264(_) => Codec::H264,
            StreamFormat::H265(_) => Codec::H265,
        }
    }
}

/// What of an offer is accepted: all that the rest of the agent needs to know of it.
///
/// The answer says exactly what stands here, so whoever cannot serve something (say, `rtx`) clears
/// it before writing the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoChoice {
    /// Which m-line, from 0.
    pub section: usize,
    pub mid: String,
    pub payload_type: u8,
    pub format: VideoFormat,
    /// Payload type of its retransmissions (RFC 4588), where offered.
    pub rtx_payload_type: Option<u8>,
    pub extensions: Extensions,
    pub feedback: Feedback,
    pub rtcp_rsize: bool,
    pub extmap_allow_mixed: bool,
    /// The other side's ICE credentials.
    pub ice_ufrag: String,
    pub ice_pwd: String,
    pub ice_lite: bool,
    /// The other side's certificate has one of these; never empty.
    pub fingerprints: Vec<Fingerprint>,
}

/// The parameters of the payload type, as they were offered for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoFormat {
    H264 {
        /// 1: NAL units may be aggregated and fragmented; 0: one NAL unit a packet (RFC 6184 §6).
        packetization_mode: u8,
        /// `None` where the offer names none.
        profile_level_id: Option<ProfileLevelId>,
        level_asymmetry_allowed: bool,
    },
    /// Units may always be aggregated and fragmented.
    H265(H265Format),
}

impl VideoFormat {
    pub fn codec(&self) -> Codec {
        match self {
            VideoFormat::H264 { .. } => Codec::H264,
            VideoFormat::H265(_) => Codec::H265,
        }
    }

    /// Whether the same packets do for both.
    fn is_packetised_as(&self, other: &VideoFormat) -> bool {
        let mode = |format: &VideoFormat| match format {
            VideoFormat::H264 { packetization_mode, .. } => Some(*packetization_mode),
            VideoFormat::H265(_) => None,
        };
        mode(self) == mode(other)
    }
}

/// Ids of the RTP header extensions (RFC 8285) both sides know, 1 to 14.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extensions {
    /// RFC 8843 §15.
    pub mid: Option<u8>,
    pub transport_cc: Option<u8>,
    pub abs_send_time: Option<u8>,
}

impl Extensions {
    /// Whether `other` has at least these, under the same ids.
    fn are_among(&self, other: &Extensions) -> bool {
        let kept = |mine: Option<u8>, other| mine.is_none() || mine == other;
        kept(self.mid, other.mid)
            && kept(self.transport_cc, other.transport_cc)
            && kept(self.abs_send_time, other.abs_send_time)
    }
}

/// RTCP feedback (RFC 4585) offered for a payload type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Feedback {
    pub nack: bool,
    /// Picture Loss Indication.
    pub pli: bool,
    /// Full Intra Request (RFC 5104).
    pub fir: bool,
    pub remb: bool,
    pub transport_cc: bool,
}

pub(super) const EXT_MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
pub(super) const EXT_TRANSPORT_CC: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
pub(super) const EXT_ABS_SEND_TIME: &str =
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";

impl Description<'_> {
    /// Chooses where and how to send a stream.
    ///
    /// The section is the first video one that wants to receive and has the stream's codec. For
    /// H.265 see [`best_h265`]. Among H.264 payload types:
    ///
    /// 1. `packetization-mode=1` before 0, since mode 0 cannot carry a NAL unit that is larger than
    ///    a packet (RFC 6184 §5.4), as most of a camera's are;
    /// 2. then the stream's own profile, else the nearest one;
    /// 3. then the offer's order.
    ///
    /// RFC 6184 §8.2.2 has both sides use the payload type with the same profile, and lets only
    /// the level differ under `level-asymmetry-allowed`. Browsers check an answer in just this way:
    /// its profile must be the one they offered for that payload type, whatever the level. But they
    /// do not check the stream against it; their decoders follow the SPS. So a High stream plays in
    /// a browser that offers 42e01f alone, provided the answer repeats that browser's own
    /// `profile-level-id`, which is what [`super::Answer`] does.
    ///
    /// Errors: 406 if nothing can be played, or if the offer wants to be the DTLS server; 400 if
    /// what a connection needs is missing.
    pub fn choose_video(&self, stream: StreamFormat) -> Result<VideoChoice, SdpError> {
        let videos = || self.media.iter().enumerate().filter(|(_, m)| m.kind == MediaKind::Video);
        let ready = || videos().filter(|(_, m)| !m.is_rejected() && m.receives());
        let chosen = ready().find_map(|(i, media)| {
            let (payload, format) = best(media, stream)?;
            Some((i, payload, format))
        });
        let Some((section, payload, format)) = chosen else {
            let why = if videos().next().is_none() {
                "the offer has no video section: add a recvonly video transceiver"
            } else if ready().next().is_none() {
                "no video section of the offer wants to receive: make it recvonly or sendrecv"
            } else {
                let has_h265 = ready().any(|(_, m)| m.payloads.iter().any(is_h265));
                not_offered(stream.codec(), has_h265)
            };
            return Err(SdpError::not_acceptable(why));
        };
        taken(self, section, payload, format)
    }

    /// Chooses again in a later offer of the same session, where everything keeps its meaning: a
    /// packet that is sent again must be the same one under its SRTP index.
    ///
    /// A browser may offer more than it did before, such as the profiles of a decoder that it has
    /// found meanwhile, or other header extensions; none of that is taken. Nor does it matter which
    /// stream is being sent by now.
    ///
    /// Errors: 406, and what is missing, if the offer no longer has what was taken of the first one.
    pub fn choose_video_again(&self, before: &VideoChoice) -> Result<VideoChoice, SdpError> {
        let gone = |what: &str| {
            SdpError::not_acceptable(format!(
                "the new offer {what}, which this session uses; open a new session for that"
            ))
        };
        let section = before.section;
        let media = self.media.get(section);
        let media = media.filter(|m| m.kind == MediaKind::Video && m.mid == before.mid);
        let media = media.ok_or_else(|| gone("has its video section elsewhere than the one"))?;
        if media.is_rejected() || !media.receives() {
            return Err(gone("does not want to receive in the video section"));
        }
        let same = media.payloads.iter().filter(|p| p.payload_type == before.payload_type);
        let mut meanings = same.filter_map(|payload| Some((payload, format_of(payload)?)));
        let fits = |format: &VideoFormat| format.is_packetised_as(&before.format);
        let Some((payload, format)) = meanings.find(|(_, format)| fits(format)) else {
            return Err(gone(&format!(
                "has another meaning for payload type {}",
                before.payload_type
            )));
        };
        let choice = taken(self, section, payload, format)?;
        if before.rtx_payload_type.is_some() && choice.rtx_payload_type != before.rtx_payload_type {
            return Err(gone("has another payload type for the retransmissions (rtx) of the one"));
        }
        if !before.extensions.are_among(&choice.extensions) {
            return Err(gone("leaves out or renumbers an RTP header extension (a=extmap)"));
        }
        Ok(VideoChoice {
            rtx_payload_type: before.rtx_payload_type,
            extensions: before.extensions,
            ..choice
        })
    }
}

fn taken(
    offer: &Description<'_>,
    section: usize,
    payload: &Payload<'_>,
    format: VideoFormat,
) -> Result<VideoChoice, SdpError> {
    let media = &offer.media[section];
    check_transport(media)?;
    Ok(VideoChoice {
        section,
        mid: media.mid.to_owned(),
        payload_type: payload.payload_type,
        format,
        rtx_payload_type: rtx_for(media, payload.payload_type),
        extensions: extensions(media),
        feedback: payload.feedback,
        rtcp_rsize: media.rtcp_rsize,
        extmap_allow_mixed: offer.extmap_allow_mixed,
        ice_ufrag: media.ice_ufrag.to_owned(),
        ice_pwd: media.ice_pwd.to_owned(),
        ice_lite: offer.ice_lite,
        fingerprints: media.fingerprints.clone(),
    })
}

fn not_offered(codec: Codec, has_h265: bool) -> &'static str {
    match codec {
        Codec::H264 => "the offer has no H.264, and this stream is nothing else",
        Codec::H265 if has_h265 => {
            "this stream is H.265 of another profile or transmission mode than the viewer offers; \
             ask for another stream (often `sub`), or set the camera's encoder to H.265 Main or \
             H.264"
        }
        Codec::H265 => {
            "this stream is H.265, which the viewer does not offer; ask for another stream (often \
             `sub`), or set the camera's encoder to H.264"
        }
    }
}

fn best<'m, 'a>(
    media: &'m Media<'a>,
    stream: StreamFormat,
) -> Option<(&'m Payload<'a>, VideoFormat)> {
    match stream {
        StreamFormat::H264(profile) => {
            let payload = best_h264(media, profile.map(ProfileLevelId::profile))?;
            Some((payload, h264_format(payload)))
        }
        StreamFormat::H265(profile) => {
            let (payload, format) = best_h265(media, profile)?;
            Some((payload, VideoFormat::H265(format)))
        }
    }
}

fn h264_format(payload: &Payload<'_>) -> VideoFormat {
    VideoFormat::H264 {
        packetization_mode: packetization_mode(payload),
        profile_level_id: profile_level_id(payload),
        level_asymmetry_allowed: payload.parameter("level-asymmetry-allowed") == Some("1"),
    }
}

/// What a payload type means, if it is one that a stream can be sent in.
fn format_of(payload: &Payload<'_>) -> Option<VideoFormat> {
    if is_h264(payload) {
        return Some(h264_format(payload));
    }
    H265Format::of(payload).map(VideoFormat::H265)
}

fn is_h264(payload: &Payload<'_>) -> bool {
    payload.encoding.eq_ignore_ascii_case("H264")
        && payload.clock_rate == 90_000
        && packetization_mode(payload) <= 1
}

fn best_h264<'m, 'a>(media: &'m Media<'a>, stream: Option<H264Profile>) -> Option<&'m Payload<'a>> {
    media.payloads.iter().filter(|p| is_h264(p)).min_by_key(|p| {
        // Without a profile-level-id, Baseline is meant (RFC 6184 §8.1).
        let offered = profile_level_id(p).map_or(H264Profile::Baseline, |id| id.profile());
        (packetization_mode(p) != 1, H264Profile::distance(stream, offered))
    })
}

fn packetization_mode(payload: &Payload<'_>) -> u8 {
    payload.parameter("packetization-mode").map_or(0, |mode| mode.parse().unwrap_or(u8::MAX))
}

fn profile_level_id(payload: &Payload<'_>) -> Option<ProfileLevelId> {
    payload.parameter("profile-level-id").and_then(ProfileLevelId::parse)
}

fn rtx_for(media: &Media<'_>, payload_type: u8) -> Option<u8> {
    media
        .payloads
        .iter()
        .filter(|p| p.encoding.eq_ignore_ascii_case("rtx"))
        .find(|p| p.parameter("apt").and_then(|apt| apt.parse().ok()) == Some(payload_type))
        .map(|p| p.payload_type)
}

fn extensions(media: &Media<'_>) -> Extensions {
    let id = |uri| extension_id(media, uri);
    Extensions {
        mid: id(EXT_MID).filter(|_| (1..=16).contains(&media.mid.len())),
        transport_cc: id(EXT_TRANSPORT_CC),
        abs_send_time: id(EXT_ABS_SEND_TIME),
    }
}

/// Only ids that fit the one-byte header form (RFC 8285 §4.2).
pub(super) fn extension_id(media: &Media<'_>, uri: &str) -> Option<u8> {
    let found = media.extmaps.iter().find(|e| e.uri == uri && (1..=14).contains(&e.id));
    found.map(|e| e.id as u8)
}

/// A video section that can be played must also be one that can be connected.
fn check_transport(media: &Media<'_>) -> Result<(), SdpError> {
    if !matches!(media.proto, "UDP/TLS/RTP/SAVPF" | "UDP/TLS/RTP/SAVP" | "RTP/SAVPF") {
        return Err(SdpError::not_acceptable(format!(
            "the video section's protocol is {:?}; expected UDP/TLS/RTP/SAVPF",
            media.proto
        )));
    }
    if !media.rtcp_mux {
        return Err(SdpError::not_acceptable(
            "the video section lacks a=rtcp-mux, and the camera opens no second port for RTCP",
        ));
    }
    match media.setup {
        // Without the attribute the offerer is active (RFC 4145 §4).
        Some(Setup::ActPass | Setup::Active) | None => {}
        Some(Setup::Passive | Setup::HoldConn) => {
            return Err(SdpError::not_acceptable(
                "the offer wants to be the DTLS server, which the camera is: offer a=setup:actpass",
            ));
        }
    }
    // RFC 8839 §5.4: 4 to 256 and 22 to 256 characters.
    if !(4..=256).contains(&media.ice_ufrag.len()) || !(22..=256).contains(&media.ice_pwd.len()) {
        return Err(SdpError::malformed(
            "a=ice-ufrag (4 to 256 characters) or a=ice-pwd (22 to 256) is missing or has another \
             length",
        ));
    }
    if media.fingerprints.is_empty() {
        return Err(SdpError::malformed(
            "no a=fingerprint with sha-256, sha-384 or sha-512: the connection cannot be secured",
        ));
    }
    Ok(())
}
