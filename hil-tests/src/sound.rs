//! Sound as tests look at it: the clips in `testdata/audio`, and what a listener heard of them.

use crate::firmware;
use std::path::PathBuf;

/// In the payload types that browsers give them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoundCodec {
    Opus,
    Pcma,
    Pcmu,
}

impl SoundCodec {
    pub const ALL: [SoundCodec; 3] = [SoundCodec::Opus, SoundCodec::Pcma, SoundCodec::Pcmu];

    /// The clip in this codec.
    pub fn clip(self) -> PathBuf {
        firmware::root().join("testdata/audio").join(format!("glide.{}", self.ending()))
    }

    /// Of files in the form that the example camera reads and writes.
    pub fn ending(self) -> &'static str {
        match self {
            SoundCodec::Opus => "opus-packets",
            SoundCodec::Pcma => "pcma",
            SoundCodec::Pcmu => "pcmu",
        }
    }

    /// RFC 3551 §6 for G.711.
    pub fn payload_type(self) -> u8 {
        match self {
            SoundCodec::Opus => 111,
            SoundCodec::Pcma => 8,
            SoundCodec::Pcmu => 0,
        }
    }

    /// Of its RTP timestamps, in Hz (RFC 7587 §4.1, RFC 3551 §4.5.14).
    pub fn clock_rate(self) -> u32 {
        match self {
            SoundCodec::Opus => 48_000,
            _ => 8_000,
        }
    }

    /// Packets of 20 ms, out of a file's bytes. An Opus packet of no bytes is one to be concealed.
    pub fn packets(self, file: &[u8]) -> Vec<Vec<u8>> {
        if self != SoundCodec::Opus {
            return file.chunks(160).map(<[u8]>::to_vec).collect();
        }
        let (mut rest, mut packets) = (file, Vec::new());
        while let [high, low, behind @ ..] = rest {
            let len = usize::from(*high) << 8 | usize::from(*low);
            packets.push(behind[..len.min(behind.len())].to_vec());
            rest = behind.get(len..).unwrap_or_default();
        }
        packets
    }

    /// The clip's packets.
    pub fn clip_packets(self) -> Result<Vec<Vec<u8>>, String> {
        let path = self.clip();
        let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(self.packets(&bytes))
    }
}

/// What a listener received, in order of arrival.
#[derive(Debug, Default)]
pub struct Heard {
    pub packets: Vec<HeardPacket>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeardPacket {
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub marker: bool,
    pub payload: Vec<u8>,
}

impl Heard {
    /// Checks that all of it is the clip, played in a loop from wherever it was: byte for byte, with
    /// numbers and timestamps that fit. What a loaded machine lost is given back as a count.
    pub fn expect_clip(&self, codec: SoundCodec) -> Result<usize, String> {
        let clip = codec.clip_packets()?;
        let first = self.packets.first().ok_or("nothing was heard")?;
        let begin = clip
            .iter()
            .position(|packet| *packet == first.payload)
            .ok_or("the first packet is none of the clip")?;
        let mut next = 0;
        for packet in &self.packets {
            let place = usize::from(packet.sequence.wrapping_sub(first.sequence));
            if place < next {
                return Err(format!("packet {place} came after {next}"));
            }
            next = place + 1;
            if packet.payload != clip[(begin + place) % clip.len()] {
                return Err(format!("packet {place} is another one"));
            }
            let ticks = packet.timestamp.wrapping_sub(first.timestamp);
            if ticks != place as u32 * codec.clock_rate() / 50 {
                return Err(format!("packet {place} is at {ticks} ticks"));
            }
            if packet.payload_type != codec.payload_type() || packet.marker && place > 0 {
                return Err(format!("packet {place}: {packet:?}"));
            }
        }
        Ok(next - self.packets.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clips_are_five_seconds_of_packets_that_differ() {
        for codec in SoundCodec::ALL {
            let packets = codec.clip_packets().unwrap();
            assert!((250..=252).contains(&packets.len()), "{codec:?}: {}", packets.len());
            let mut different = packets.clone();
            different.sort();
            different.dedup();
            assert_eq!(different.len(), packets.len(), "{codec:?}");
        }
    }

    #[test]
    fn opus_packets_lie_behind_their_lengths() {
        let packets = SoundCodec::Opus.packets(&[0, 2, 7, 8, 0, 0, 0, 1, 9, 0, 5, 1]);
        assert_eq!(packets, [&[7, 8][..], &[], &[9], &[1]]);
    }
}
