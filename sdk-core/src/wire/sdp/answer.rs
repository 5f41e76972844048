//! Writes the camera's answer (RFC 8829 §5.3).

use super::audio::AudioChoice;
use super::choose::{EXT_ABS_SEND_TIME, EXT_MID, EXT_TRANSPORT_CC};
use super::data::{DEFAULT_PORT, DataChoice, MAX_MESSAGE_SIZE};
use super::{Description, Fingerprint, H265Format, Media, MediaKind, VideoChoice, VideoFormat};
use crate::wire::audio::AudioCodec;
use std::fmt::Write as _;

/// All that goes into an answer.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    pub offer: &'a Description<'a>,
    pub choice: &'a VideoChoice,
    pub audio: Option<&'a AudioChoice>,
    pub data: Option<&'a DataChoice>,
    /// Of `o=`: the same for all answers of a session, below 2^63 (RFC 8829 §5.2.1).
    pub session_number: u64,
    /// Of `o=`: one more with each answer of a session, so that a changed one is seen as such.
    pub version: u64,
    pub ice_ufrag: &'a str,
    pub ice_pwd: &'a str,
    /// Of the camera's certificate.
    pub fingerprint: Fingerprint,
    pub ssrc: u32,
    /// For retransmissions; used only if the choice has a payload type for them.
    pub rtx_ssrc: u32,
    /// Used only if there is audio that the camera sends.
    pub audio_ssrc: u32,
    pub cname: &'a str,
    /// The viewer's `MediaStream.id`; no spaces.
    pub stream_id: &'a str,
    pub track_id: &'a str,
    /// `candidate:…`, without `a=`: those known by now.
    pub candidates: &'a [String],
    /// No further candidates will come.
    pub end_of_candidates: bool,
}

impl Answer<'_> {
    pub fn write(&self) -> String {
        let mut out = String::with_capacity(2048);
        self.write_to(&mut out).expect("writing to a String cannot fail");
        out
    }

    fn write_to(&self, out: &mut String) -> std::fmt::Result {
        let number = self.session_number & (u64::MAX >> 1);
        write!(out, "v=0\r\no=- {number} {} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n", self.version)?;
        // Only where the offer bundles, and only what is accepted (RFC 8843 §7.3.1).
        let tag = self.inactive_tag();
        if self.offer.bundle.contains(&self.choice.mid.as_str()) {
            out.push_str("a=group:BUNDLE");
            for (i, media) in self.offer.media.iter().enumerate() {
                if self.accepts(i) || Some(i) == tag {
                    write!(out, " {}", media.mid)?;
                }
            }
            out.push_str("\r\n");
        }
        if self.choice.extmap_allow_mixed {
            out.push_str("a=extmap-allow-mixed\r\n");
        }
        for (i, media) in self.offer.media.iter().enumerate() {
            if i == self.choice.section {
                self.write_video(out, media)?;
            } else if let Some(audio) = self.audio.filter(|audio| audio.section == i) {
                self.write_audio(out, media, audio)?;
            } else if self.data.is_some_and(|data| data.section == i) {
                self.write_data(out, media)?;
            } else if Some(i) == tag {
                self.write_inactive(out, media)?;
            } else {
                write_rejected(out, media)?;
            }
        }
        Ok(())
    }

    fn accepts(&self, section: usize) -> bool {
        section == self.choice.section
            || self.audio.is_some_and(|audio| audio.section == section)
            || self.data.is_some_and(|data| data.section == section)
    }

    /// The bundle's first section, if it is none of the accepted ones, with RTP in it.
    ///
    /// It is accepted as inactive. To reject it would be just as right (RFC 8843 §7.3.3), but
    /// Chromium with `bundlePolicy: "max-bundle"` then fails with "Failed to setup RTCP mux".
    fn inactive_tag(&self) -> Option<usize> {
        let tag = self.offer.bundle.first()?;
        let (i, media) = self.offer.media.iter().enumerate().find(|(_, m)| m.mid == *tag)?;
        let is_rtp = !media.payloads.is_empty() && media.rtcp_mux && !media.is_rejected();
        let bundles = self.offer.bundle.contains(&self.choice.mid.as_str());
        (!self.accepts(i) && is_rtp && bundles).then_some(i)
    }

    fn write_inactive(&self, out: &mut String, media: &Media<'_>) -> std::fmt::Result {
        let Some(payload) = media.payloads.first() else { return write_rejected(out, media) };
        let pt = payload.payload_type;
        write!(out, "m={} 9 {} {pt}\r\n", media.kind_text, media.proto)?;
        self.write_rtp_transport(out, media)?;
        out.push_str("a=inactive\r\na=rtcp-mux\r\n");
        if !payload.encoding.is_empty() {
            write!(out, "a=rtpmap:{pt} {}/{}", payload.encoding, payload.clock_rate)?;
            if payload.channels > 1 {
                write!(out, "/{}", payload.channels)?;
            }
            out.push_str("\r\n");
        }
        if !payload.fmtp.is_empty() {
            write!(out, "a=fmtp:{pt} {}\r\n", payload.fmtp)?;
        }
        Ok(())
    }

    fn write_rtp_transport(&self, out: &mut String, media: &Media<'_>) -> std::fmt::Result {
        out.push_str("c=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n");
        self.write_transport(out, media)
    }

    /// What says how to connect, the same in each section of the bundle.
    fn write_transport(&self, out: &mut String, media: &Media<'_>) -> std::fmt::Result {
        write_mid(out, media)?;
        write!(out, "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", self.ice_ufrag, self.ice_pwd)?;
        out.push_str("a=ice-options:trickle\r\n");
        write!(out, "a=fingerprint:{}\r\na=setup:passive\r\n", self.fingerprint)
    }

    fn write_video(&self, out: &mut String, media: &Media<'_>) -> std::fmt::Result {
        let choice = self.choice;
        let pt = choice.payload_type;
        write!(out, "m=video 9 {} {pt}", media.proto)?;
        if let Some(rtx) = choice.rtx_payload_type {
            write!(out, " {rtx}")?;
        }
        out.push_str("\r\n");
        self.write_rtp_transport(out, media)?;
        for (id, uri) in [
            (choice.extensions.mid, EXT_MID),
            (choice.extensions.transport_cc, EXT_TRANSPORT_CC),
            (choice.extensions.abs_send_time, EXT_ABS_SEND_TIME),
        ] {
            if let Some(id) = id {
                write!(out, "a=extmap:{id} {uri}\r\n")?;
            }
        }
        out.push_str("a=sendonly\r\n");
        write!(out, "a=msid:{} {}\r\n", self.stream_id, self.track_id)?;
        out.push_str("a=rtcp-mux\r\n");
        if choice.rtcp_rsize {
            out.push_str("a=rtcp-rsize\r\n");
        }
        self.write_codec(out)?;
        self.write_sources(out)?;
        for candidate in self.candidates {
            write!(out, "a={candidate}\r\n")?;
        }
        if self.end_of_candidates {
            out.push_str("a=end-of-candidates\r\n");
        }
        Ok(())
    }

    fn write_audio(
        &self,
        out: &mut String,
        media: &Media<'_>,
        audio: &AudioChoice,
    ) -> std::fmt::Result {
        let (pt, codec) = (audio.payload_type, audio.codec);
        write!(out, "m=audio 9 {} {pt}\r\n", media.proto)?;
        self.write_rtp_transport(out, media)?;
        if let Some(id) = audio.mid_extension {
            write!(out, "a=extmap:{id} {EXT_MID}\r\n")?;
        }
        out.push_str(match (audio.sends, audio.receives) {
            (true, true) => "a=sendrecv\r\n",
            (true, false) => "a=sendonly\r\n",
            (false, true) => "a=recvonly\r\n",
            (false, false) => "a=inactive\r\n",
        });
        if audio.sends {
            write!(out, "a=msid:{} {AUDIO_TRACK_ID}\r\n", self.stream_id)?;
        }
        out.push_str("a=rtcp-mux\r\n");
        if audio.rtcp_rsize {
            out.push_str("a=rtcp-rsize\r\n");
        }
        write!(out, "a=rtpmap:{pt} {}/{}", codec.encoding(), codec.clock_rate())?;
        if codec == AudioCodec::Opus {
            // What we would like to get: losses that the next packet mends (RFC 7587 §6.1).
            write!(out, "/2\r\na=fmtp:{pt} minptime=10;useinbandfec=1")?;
        }
        out.push_str("\r\n");
        if audio.sends {
            let ssrc = self.audio_ssrc;
            write!(out, "a=ssrc:{ssrc} cname:{}\r\n", self.cname)?;
            write!(out, "a=ssrc:{ssrc} msid:{} {AUDIO_TRACK_ID}\r\n", self.stream_id)?;
        }
        Ok(())
    }

    fn write_data(&self, out: &mut String, media: &Media<'_>) -> std::fmt::Result {
        write!(out, "m={} 9 {} {}\r\n", media.kind_text, media.proto, media.formats)?;
        out.push_str("c=IN IP4 0.0.0.0\r\n");
        self.write_transport(out, media)?;
        write!(out, "a=sctp-port:{DEFAULT_PORT}\r\na=max-message-size:{MAX_MESSAGE_SIZE}\r\n")
    }

    fn write_codec(&self, out: &mut String) -> std::fmt::Result {
        let choice = self.choice;
        let pt = choice.payload_type;
        write!(out, "a=rtpmap:{pt} {}/90000\r\n", choice.format.codec().encoding())?;
        let feedback = choice.feedback;
        for (on, text) in [
            (feedback.remb, "goog-remb"),
            (feedback.transport_cc, "transport-cc"),
            (feedback.fir, "ccm fir"),
            (feedback.nack, "nack"),
            (feedback.pli, "nack pli"),
        ] {
            if on {
                write!(out, "a=rtcp-fb:{pt} {text}\r\n")?;
            }
        }
        write_parameters(out, pt, &choice.format)?;
        if let Some(rtx) = choice.rtx_payload_type {
            write!(out, "a=rtpmap:{rtx} rtx/90000\r\na=fmtp:{rtx} apt={pt}\r\n")?;
        }
        Ok(())
    }

    fn write_sources(&self, out: &mut String) -> std::fmt::Result {
        let has_rtx = self.choice.rtx_payload_type.is_some();
        if has_rtx {
            write!(out, "a=ssrc-group:FID {} {}\r\n", self.ssrc, self.rtx_ssrc)?;
        }
        for ssrc in [Some(self.ssrc), has_rtx.then_some(self.rtx_ssrc)].into_iter().flatten() {
            write!(out, "a=ssrc:{ssrc} cname:{}\r\n", self.cname)?;
            write!(out, "a=ssrc:{ssrc} msid:{} {}\r\n", self.stream_id, self.track_id)?;
        }
        Ok(())
    }
}

/// The offer's own parameters: see `Description::choose_video`.
fn write_parameters(out: &mut String, pt: u8, format: &VideoFormat) -> std::fmt::Result {
    match format {
        VideoFormat::H264 { packetization_mode, profile_level_id, level_asymmetry_allowed } => {
            write!(out, "a=fmtp:{pt} ")?;
            if *level_asymmetry_allowed {
                out.push_str("level-asymmetry-allowed=1;");
            }
            write!(out, "packetization-mode={packetization_mode}")?;
            if let Some(id) = profile_level_id {
                write!(out, ";profile-level-id={id}")?;
            }
            out.push_str("\r\n");
        }
        VideoFormat::H265(format) if *format == H265Format::default() => {}
        VideoFormat::H265(format) => write!(out, "a=fmtp:{pt} {format}\r\n")?,
    }
    Ok(())
}

/// A section that is not accepted keeps its place, with port 0 (RFC 3264 §6).
fn write_rejected(out: &mut String, media: &Media<'_>) -> std::fmt::Result {
    // One format is enough, and an m-line must have one.
    let format = media.formats.split_ascii_whitespace().next().unwrap_or("0");
    write!(out, "m={} 0 {} {format}\r\nc=IN IP4 0.0.0.0\r\n", media.kind_text, media.proto)?;
    write_mid(out, media)?;
    if media.kind != MediaKind::DataChannel {
        out.push_str("a=inactive\r\n");
    }
    Ok(())
}

fn write_mid(out: &mut String, media: &Media<'_>) -> std::fmt::Result {
    if media.mid.is_empty() { Ok(()) } else { write!(out, "a=mid:{}\r\n", media.mid) }
}

const AUDIO_TRACK_ID: &str = "audio";
