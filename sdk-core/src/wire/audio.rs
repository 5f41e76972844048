//! The audio codecs, as far as RTP and SDP need to know them: what is in the packets is the
//! firmware's and the viewer's business.

use std::time::Duration;

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

    /// How much sound is in a packet, in ticks of [`Self::clock_rate`]. `None` if it is no packet of
    /// this codec.
    pub fn ticks(self, packet: &[u8]) -> Option<u32> {
        match self {
            AudioCodec::Opus => opus_ticks(packet),
            AudioCodec::Pcma | AudioCodec::Pcmu => {
                u32::try_from(packet.len()).ok().filter(|samples| *samples > 0)
            }
        }
    }

    /// A time in ticks of [`Self::clock_rate`].
    pub fn ticks_of(self, time: Duration) -> u64 {
        let rate = u64::from(self.clock_rate());
        let fraction = u64::from(time.subsec_nanos()) * rate / 1_000_000_000;
        time.as_secs().wrapping_mul(rate).wrapping_add(fraction)
    }

    /// Ticks of [`Self::clock_rate`] as a time.
    pub fn time_of(self, ticks: u64) -> Duration {
        let rate = u64::from(self.clock_rate());
        let nanos = ticks % rate * 1_000_000_000 / rate;
        Duration::new(ticks / rate, nanos as u32)
    }
}

/// By the packet's first byte and, where it has many frames, the second one (RFC 6716 §3.1, §3.2).
fn opus_ticks(packet: &[u8]) -> Option<u32> {
    let first = *packet.first()?;
    let frame = match first >> 3 {
        silk @ 0..12 => [480, 960, 1920, 2880][usize::from(silk & 3)],
        hybrid @ 12..16 => [480, 960][usize::from(hybrid & 1)],
        celt => [120, 240, 480, 960][usize::from(celt & 3)],
    };
    let frames = match first & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(*packet.get(1)? & 0x3f),
    };
    // No packet has more than 120 ms.
    Some(frame * frames).filter(|ticks| (1..=5760).contains(ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opus_says_how_long_it_is() {
        let ms = |packet: &[u8]| AudioCodec::Opus.ticks(packet).map(|ticks| ticks / 48);
        // Configurations 1 (SILK, 20 ms), 13 (hybrid, 20 ms), 31 and 16 (CELT, 20 and 2.5 ms).
        assert_eq!(ms(&[1 << 3, 9]), Some(20));
        assert_eq!(ms(&[13 << 3]), Some(20));
        assert_eq!(ms(&[31 << 3 | 1, 9, 9]), Some(40));
        assert_eq!(AudioCodec::Opus.ticks(&[16 << 3]), Some(120));
        assert_eq!(ms(&[3 << 3 | 3, 2, 9]), Some(120), "two frames of 60 ms");
        assert_eq!(ms(&[3 << 3 | 3, 3, 9]), None, "180 ms");
        assert_eq!(ms(&[31 << 3 | 3, 0]), None, "no frame");
        assert_eq!(ms(&[31 << 3 | 3]), None, "cut");
        assert_eq!(ms(b""), None);
        assert_eq!(ms(b"OggS"), None, "the container is to be taken off first");
    }

    #[test]
    fn a_byte_of_g711_is_a_sample() {
        assert_eq!(AudioCodec::Pcma.ticks(&[0xd5; 160]), Some(160));
        assert_eq!(AudioCodec::Pcmu.ticks(&[]), None);
    }

    #[test]
    fn ticks_and_times_turn_into_each_other() {
        let day = Duration::from_secs(86_400) + Duration::from_millis(20);
        for codec in [AudioCodec::Opus, AudioCodec::Pcmu] {
            assert_eq!(codec.time_of(codec.ticks_of(day)), day);
        }
        assert_eq!(AudioCodec::Opus.ticks_of(Duration::from_millis(20)), 960);
        assert_eq!(AudioCodec::Pcma.time_of(160), Duration::from_millis(20));
    }
}
