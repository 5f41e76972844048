//! What stands at the beginning of VPS, SPS and PPS (H.265 7.3.2).

use super::{NAL_HEADER_LEN, NalHeader, NalKind};

/// general_profile_space to general_level_idc (H.265 7.3.3), as far as SDP speaks of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileTierLevel {
    /// general_profile_idc, SDP's `profile-id`: 1 is Main, 2 Main 10.
    pub profile_id: u8,
    /// general_profile_compatibility_flag, that of profile 0 in the highest bit: the profiles whose
    /// decoders can play this too.
    pub compatible: u32,
    /// SDP's `tier-flag`: the High tier.
    pub high_tier: bool,
    /// general_level_idc, SDP's `level-id`: 30 times the level.
    pub level_id: u8,
}

impl ProfileTierLevel {
    /// From a sequence parameter set with its NAL header.
    pub fn from_sps(nal: &[u8]) -> Option<ProfileTierLevel> {
        Some(read_sps(nal)?.0)
    }

    /// Whether a decoder of this profile plays the stream.
    pub fn plays_as(&self, profile_id: u8) -> bool {
        let flag = 0x8000_0000_u32.checked_shr(u32::from(profile_id)).unwrap_or(0);
        profile_id == self.profile_id
            || self.compatible & flag != 0
            // Main 10 contains Main (H.265 A.3.3), whether an encoder says so or not.
            || (self.profile_id, profile_id) == (1, 2)
    }
}

/// The id of a VPS, SPS or PPS with its NAL header.
pub fn parameter_set_id(nal: &[u8]) -> Option<u32> {
    match NalHeader::of(nal)?.kind() {
        NalKind::Vps => Bits::of(nal)?.read(4),
        NalKind::Sps => Some(read_sps(nal)?.1),
        NalKind::Pps => Bits::of(nal)?.read_ue(),
        _ => None,
    }
}

/// Profile, tier and level of an SPS, and its id (H.265 7.3.2.2.1).
fn read_sps(nal: &[u8]) -> Option<(ProfileTierLevel, u32)> {
    if NalHeader::of(nal)?.kind() != NalKind::Sps {
        return None;
    }
    let mut bits = Bits::of(nal)?;
    bits.skip(4)?;
    let sub_layers = bits.read(3)?;
    bits.skip(1)?;
    // profile_tier_level(1, sub_layers), H.265 7.3.3.
    bits.skip(2)?;
    let high_tier = bits.read(1)? == 1;
    let profile_id = bits.read(5)? as u8;
    let compatible = bits.read(32)?;
    bits.skip(48)?;
    let level_id = bits.read(8)? as u8;
    if sub_layers > 0 {
        let present = bits.read(16)?;
        for layer in 0..sub_layers {
            let flags = present >> (14 - 2 * layer);
            let profile = if flags & 2 != 0 { 88 } else { 0 };
            let level = if flags & 1 != 0 { 8 } else { 0 };
            bits.skip(profile + level)?;
        }
    }
    let id = bits.read_ue()?;
    Some((ProfileTierLevel { profile_id, compatible, high_tier, level_id }, id))
}

/// Reads a unit's payload bit by bit, without its emulation prevention bytes (H.265 7.3.1.1).
struct Bits<'a> {
    rest: std::slice::Iter<'a, u8>,
    /// Zero bytes just before the next one.
    zeros: u8,
    byte: u8,
    /// How many bits of `byte` have not been read.
    left: u32,
}

impl<'a> Bits<'a> {
    /// Behind the NAL header.
    fn of(nal: &'a [u8]) -> Option<Bits<'a>> {
        Some(Bits { rest: nal.get(NAL_HEADER_LEN..)?.iter(), zeros: 0, byte: 0, left: 0 })
    }

    fn bit(&mut self) -> Option<u32> {
        if self.left == 0 {
            self.byte = self.next_byte()?;
            self.left = 8;
        }
        self.left -= 1;
        Some(u32::from(self.byte >> self.left & 1))
    }

    fn next_byte(&mut self) -> Option<u8> {
        let mut byte = *self.rest.next()?;
        if self.zeros >= 2 && byte == 3 {
            self.zeros = 0;
            byte = *self.rest.next()?;
        }
        self.zeros = if byte == 0 { self.zeros.saturating_add(1) } else { 0 };
        Some(byte)
    }

    /// Up to 32 bits.
    fn read(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0, |value, _| Some(value << 1 | self.bit()?))
    }

    fn skip(&mut self, count: u32) -> Option<()> {
        (0..count).try_for_each(|_| self.bit().map(|_| ()))
    }

    /// An Exp-Golomb number (H.265 9.2) below 2^16.
    fn read_ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 16 {
                return None;
            }
        }
        Some((1 << zeros | self.read(zeros)?) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// x265's for 320x180 Main: its zeros need emulation prevention bytes.
    const SPS: [u8; 18] = [
        0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00,
        0x03, 0x00, 0x3c,
    ];

    fn sps(end: &[u8]) -> Vec<u8> {
        [&SPS[..], end].concat()
    }

    #[test]
    fn profile_tier_and_level_are_read_through_emulation_prevention() {
        let read = ProfileTierLevel::from_sps(&sps(&[0xa0])).unwrap();
        let expected = ProfileTierLevel {
            profile_id: 1,
            compatible: 0x6000_0000,
            high_tier: false,
            level_id: 60,
        };
        assert_eq!(read, expected);
        assert!(read.plays_as(1) && read.plays_as(2) && !read.plays_as(3) && !read.plays_as(200));
        let main_10 = ProfileTierLevel { profile_id: 2, compatible: 0x2000_0000, ..read };
        assert!(main_10.plays_as(2) && !main_10.plays_as(1));
        assert_eq!(ProfileTierLevel::from_sps(&SPS), None, "cut before its id");
        let mut vps = sps(&[0xa0]);
        vps[0] = 0x40;
        assert_eq!(ProfileTierLevel::from_sps(&vps), None);
    }

    #[test]
    fn ids_are_read() {
        for (bits, id) in [(0b1000_0000, 0), (0b0100_0000, 1), (0b0110_0000, 2), (0b0010_0000, 3)] {
            assert_eq!(parameter_set_id(&[0x44, 0x01, bits]), Some(id));
            assert_eq!(parameter_set_id(&sps(&[bits])), Some(id));
        }
        assert_eq!(parameter_set_id(&[0x40, 0x01, 0x5c]), Some(5));
        // Two sub-layers, the first with a profile and a level of its own, of 96 bits.
        let mut layered = sps(&[0xc0, 0x00]);
        layered[2] = 0x03;
        layered.extend([7; 12]);
        layered.push(0b0100_0000);
        assert_eq!(parameter_set_id(&layered), Some(1));
        for nothing in [&[][..], &[0x44, 0x01], &[0x44, 0x01, 0, 0, 0x80], &[0x26, 0x01, 0x80]] {
            assert_eq!(parameter_set_id(nothing), None);
        }
    }
}
