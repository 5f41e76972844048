//! H.264: what a NAL unit is (ITU-T H.264 7.3.1) and how it travels in RTP payloads (RFC 6184).

use std::fmt;

/// A NAL unit's first byte: forbidden_zero_bit, nal_ref_idc, nal_unit_type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NalHeader(pub u8);

impl NalHeader {
    pub fn of(nal: &[u8]) -> Option<NalHeader> {
        nal.first().map(|&byte| NalHeader(byte))
    }

    pub fn kind(self) -> NalKind {
        match self.0 & TYPE_MASK {
            1..=4 => NalKind::Slice,
            5 => NalKind::IdrSlice,
            6 => NalKind::Sei,
            7 => NalKind::Sps,
            8 => NalKind::Pps,
            9 => NalKind::AccessUnitDelimiter,
            10 | 11 => NalKind::End,
            12 => NalKind::Filler,
            other => NalKind::Other(other),
        }
    }
}

/// nal_unit_type (H.264 table 7-1), as far as a sender cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NalKind {
    /// A slice, or a partition of one, of a picture that is no IDR picture.
    Slice,
    IdrSlice,
    Sei,
    Sps,
    Pps,
    AccessUnitDelimiter,
    /// End of sequence or of stream.
    End,
    Filler,
    Other(u8),
}

impl NalKind {
    pub fn is_slice(self) -> bool {
        matches!(self, NalKind::Slice | NalKind::IdrSlice)
    }
}

/// profile_idc, constraint flags and level_idc: SDP's `profile-level-id` (RFC 6184 8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileLevelId(pub [u8; 3]);

impl ProfileLevelId {
    /// From a sequence parameter set with its NAL header.
    pub fn from_sps(nal: &[u8]) -> Option<ProfileLevelId> {
        match nal {
            &[header, profile, constraints, level, ..]
                if NalHeader(header).kind() == NalKind::Sps =>
            {
                Some(ProfileLevelId([profile, constraints, level]))
            }
            _ => None,
        }
    }
}

impl fmt::Display for ProfileLevelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [profile, constraints, level] = self.0;
        write!(f, "{profile:02x}{constraints:02x}{level:02x}")
    }
}

/// seq_parameter_set_id or pic_parameter_set_id of a parameter set with its NAL header.
pub fn parameter_set_id(nal: &[u8]) -> Option<u32> {
    // No emulation prevention byte can come before the id: neither profile_idc nor level_idc is 0.
    match NalHeader::of(nal)?.kind() {
        NalKind::Sps => read_ue(nal.get(4..)?),
        NalKind::Pps => read_ue(nal.get(1..)?),
        _ => None,
    }
}

/// An Exp-Golomb number at the start of `data` (H.264 9.1), if it is below 2^16.
fn read_ue(data: &[u8]) -> Option<u32> {
    let bit = |at: usize| data.get(at / 8).map(|byte| u32::from(byte >> (7 - at % 8) & 1));
    let mut zeros = 0;
    while bit(zeros)? == 0 {
        zeros += 1;
        if zeros > 16 {
            return None;
        }
    }
    let mut value = 1;
    for at in 0..zeros {
        value = value << 1 | bit(zeros + 1 + at)?;
    }
    Some(value - 1)
}

/// What a payload spends on top of each unit it aggregates, and on its own header (RFC 6184 5.7.1).
pub const STAP_A_HEADER_LEN: usize = 1;
pub const STAP_A_UNIT_HEADER_LEN: usize = 2;
/// FU indicator and FU header (RFC 6184 5.8), which stand for the NAL unit's own header.
pub const FU_A_HEADER_LEN: usize = 2;

/// The first byte of a STAP-A that is to carry `headers`: the highest NRI of all, and F if any has
/// it (RFC 6184 5.7).
pub fn stap_a_header(headers: impl Iterator<Item = NalHeader>) -> u8 {
    let (forbidden, nri) = headers.fold((0, 0), |(forbidden, nri), NalHeader(byte)| {
        (forbidden | byte & FORBIDDEN_BIT, nri.max(byte & NRI_MASK))
    });
    forbidden | nri | STAP_A
}

/// FU indicator and FU header of a fragment of the NAL unit that begins with `header`.
pub fn fu_a_header(NalHeader(header): NalHeader, start: bool, end: bool) -> [u8; FU_A_HEADER_LEN] {
    let start = if start { FU_START_BIT } else { 0 };
    let end = if end { FU_END_BIT } else { 0 };
    [header & !TYPE_MASK | FU_A, start | end | header & TYPE_MASK]
}

/// An RTP payload of packetization-mode 0 or 1 (RFC 6184 5.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload<'a> {
    Single(&'a [u8]),
    StapA(StapA<'a>),
    FuA {
        /// The header of the unit that is put together.
        header: NalHeader,
        start: bool,
        end: bool,
        fragment: &'a [u8],
    },
}

impl<'a> Payload<'a> {
    /// None for an empty or cut payload, or one that mode 1 does not know.
    pub fn parse(payload: &'a [u8]) -> Option<Payload<'a>> {
        let (&first, rest) = payload.split_first()?;
        match first & TYPE_MASK {
            1..=23 => Some(Payload::Single(payload)),
            STAP_A => Some(Payload::StapA(StapA { rest })),
            FU_A => {
                let (&fu, fragment) = rest.split_first()?;
                Some(Payload::FuA {
                    header: NalHeader(first & !TYPE_MASK | fu & TYPE_MASK),
                    start: fu & FU_START_BIT != 0,
                    end: fu & FU_END_BIT != 0,
                    fragment,
                })
            }
            _ => None,
        }
    }
}

/// The units of a STAP-A. Ends at the first one that is cut or empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StapA<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for StapA<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.rest.split_first_chunk::<STAP_A_UNIT_HEADER_LEN>()?;
        let (unit, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        self.rest = rest;
        (!unit.is_empty()).then_some(unit)
    }
}

const FORBIDDEN_BIT: u8 = 0x80;
const NRI_MASK: u8 = 0x60;
const TYPE_MASK: u8 = 0x1f;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;
const FU_START_BIT: u8 = 0x80;
const FU_END_BIT: u8 = 0x40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_level_id_is_read_from_the_sps_alone() {
        let sps = [0x67, 0x42, 0xe0, 0x1f, 0xda];
        assert_eq!(ProfileLevelId::from_sps(&sps).unwrap().to_string(), "42e01f");
        assert_eq!(ProfileLevelId::from_sps(&[0x68, 0x42, 0xe0, 0x1f]), None);
        assert_eq!(ProfileLevelId::from_sps(&sps[..3]), None);
    }

    #[test]
    fn parameter_set_ids_are_exp_golomb_numbers() {
        for (bits, id) in [(0b1000_0000, 0), (0b0100_0000, 1), (0b0110_0000, 2), (0b0010_0000, 3)] {
            assert_eq!(parameter_set_id(&[0x68, bits]), Some(id));
            assert_eq!(parameter_set_id(&[0x67, 0x64, 0, 0x28, bits]), Some(id));
        }
        assert_eq!(parameter_set_id(&[0x68, 0, 0, 0, 0]), None);
        assert_eq!(parameter_set_id(&[0x68]), None);
        assert_eq!(parameter_set_id(&[0x65, 0x80]), None);
    }

    #[test]
    fn a_stap_a_takes_the_highest_nri() {
        let headers = [NalHeader(0x06), NalHeader(0x68), NalHeader(0x41)];
        assert_eq!(stap_a_header(headers.into_iter()), 0x60 | 24);
        let payload = [0x78, 0, 2, 0x67, 1, 0, 1, 0x68, 0, 9, 1];
        let Some(Payload::StapA(mut units)) = Payload::parse(&payload) else { panic!() };
        assert_eq!(units.next(), Some(&[0x67, 1][..]));
        assert_eq!(units.next(), Some(&[0x68][..]));
        assert_eq!(units.next(), None, "a cut unit is not given out");
    }

    #[test]
    fn an_fu_a_keeps_the_units_header_in_two_bytes() {
        let [indicator, header] = fu_a_header(NalHeader(0x65), true, false);
        assert_eq!([indicator, header], [0x7c, 0x85]);
        let expected =
            Payload::FuA { header: NalHeader(0x65), start: true, end: false, fragment: &[7] };
        assert_eq!(Payload::parse(&[indicator, header, 7]), Some(expected));
    }

    #[test]
    fn payloads_that_mode_1_does_not_know_are_refused() {
        assert_eq!(Payload::parse(&[]), None);
        assert_eq!(Payload::parse(&[0x7c]), None, "FU-A without its header");
        for kind in [0, 25, 26, 27, 29, 30, 31] {
            assert_eq!(Payload::parse(&[kind, 1, 2, 3]), None);
        }
    }
}
