//! The audio codecs, as far as RTP and SDP need to know them: what is in the packets is the
//! firmware's and the viewer's business.

/// One of the codecs that every browser has (RFC 7874 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioCodec {
    /// RFC 6716, in RTP by RFC 7587.
    Opus,
    /// G.711 A-law, 8 kHz, mono (RFC 3551 §4.5.14).
    Pcma,
    /// G.711 µ-law, 8 kHz, mono (RFC 3551 §4.5.14).
    Pcmu,
}

impl AudioCodec {
    /// As in SDP's `a=rtpmap`.
    pub fn encoding(self) -> &'static str {
        match self {
            AudioCodec::Opus => "opus",
            AudioCodec::Pcma => "PCMA",
            AudioCodec::Pcmu => "PCMU",
        }
    }

    /// Of RTP's timestamps, in Hz. Opus counts at 48 kHz whatever it was made from (RFC 7587 §4.1).
    pub fn clock_rate(self) -> u32 {
        match self {
            AudioCodec::Opus => 48_000,
            AudioCodec::Pcma | AudioCodec::Pcmu => 8_000,
        }
    }

    /// As in SDP's `a=rtpmap`: Opus says 2, mono or not (RFC 7587 §7).
    pub fn channels(self) -> u8 {
        match self {
            AudioCodec::Opus => 2,
            AudioCodec::Pcma | AudioCodec::Pcmu => 1,
        }
    }

    /// The number that means this codec without an rtpmap (RFC 3551 §6).
    pub fn static_payload_type(self) -> Option<u8> {
        match self {
            AudioCodec::Opus => None,
            AudioCodec::Pcma => Some(8),
            AudioCodec::Pcmu => Some(0),
        }
    }
}
