//! H.265: what a NAL unit is (ITU-T H.265 7.3.1.2) and how it travels in RTP payloads (RFC 7798),
//! without decoding order numbers (`sprop-max-don-diff=0`), which need no field anywhere.

mod parameter_sets;

pub use parameter_sets::{ProfileTierLevel, parameter_set_id};

/// A NAL unit's first two bytes: forbidden_zero_bit, nal_unit_type (6 bits), nuh_layer_id (6),
/// nuh_temporal_id_plus1 (3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NalHeader(pub u16);

impl NalHeader {
    /// None for a unit that is too short to have one.
    pub fn of(nal: &[u8]) -> Option<NalHeader> {
        nal.first_chunk().map(|bytes| NalHeader(u16::from_be_bytes(*bytes)))
    }

    pub fn kind(self) -> NalKind {
        match self.unit_type() {
            16..=18 => NalKind::Bla,
            19 | 20 => NalKind::Idr,
            21 => NalKind::Cra,
            0..=31 => NalKind::Slice,
            32 => NalKind::Vps,
            33 => NalKind::Sps,
            34 => NalKind::Pps,
            35 => NalKind::AccessUnitDelimiter,
            36 | 37 => NalKind::End,
            38 => NalKind::Filler,
            39 | 40 => NalKind::Sei,
            other => NalKind::Other(other),
        }
    }

    /// Above 0: another layer's or view's, which a decoder of the base layer ignores.
    pub fn layer_id(self) -> u8 {
        (self.0 >> LAYER_SHIFT) as u8 & 0x3f
    }

    /// 1 to 7; 0 is forbidden.
    pub fn temporal_id_plus1(self) -> u8 {
        self.0 as u8 & 7
    }

    fn unit_type(self) -> u8 {
        (self.0 >> TYPE_SHIFT) as u8 & TYPE_MASK
    }

    /// The same header for another type of unit.
    fn with_type(self, unit_type: u8) -> NalHeader {
        NalHeader(
            self.0 & !(u16::from(TYPE_MASK) << TYPE_SHIFT) | u16::from(unit_type) << TYPE_SHIFT,
        )
    }

    pub fn to_bytes(self) -> [u8; NAL_HEADER_LEN] {
        self.0.to_be_bytes()
    }
}

/// nal_unit_type (H.265 table 7-1), as far as a sender cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NalKind {
    /// A slice segment of a picture at which decoding cannot start.
    Slice,
    /// IDR_W_RADL, IDR_N_LP: instantaneous decoding refresh.
    Idr,
    /// BLA_W_LP, BLA_W_RADL, BLA_N_LP: what an editor makes of a CRA at a splice.
    Bla,
    /// Clean random access: an open group of pictures begins.
    Cra,
    Vps,
    Sps,
    Pps,
    AccessUnitDelimiter,
    /// End of sequence or of bitstream.
    End,
    Filler,
    /// Before or after its picture.
    Sei,
    /// 41 to 63: reserved, or unspecified, of which RTP takes 48 to 50 for itself.
    Other(u8),
}

impl NalKind {
    /// A slice segment, of whatever picture.
    pub fn is_slice(self) -> bool {
        self == NalKind::Slice || self.is_random_access()
    }

    /// Of an IRAP picture, at which decoding may start (H.265 3.69).
    ///
    /// That holds for CRA too: only pictures that are shown before it (leading ones, RASL) may
    /// refer to what came earlier, a decoder that starts there drops these (8.1.3), and an encoder
    /// without reordering makes none. So a camera that codes nothing but CRA can be watched.
    pub fn is_random_access(self) -> bool {
        matches!(self, NalKind::Idr | NalKind::Bla | NalKind::Cra)
    }
}

pub const NAL_HEADER_LEN: usize = 2;
/// What a payload spends on its own header, and on top of each unit it aggregates (RFC 7798 4.4.2).
pub const AP_HEADER_LEN: usize = NAL_HEADER_LEN;
pub const AP_UNIT_HEADER_LEN: usize = 2;
/// Payload header and FU header (RFC 7798 4.4.3), which stand for the NAL unit's own header.
pub const FU_HEADER_LEN: usize = NAL_HEADER_LEN + 1;

/// The payload header of an aggregation packet that is to carry `headers`: F if any has it, the
/// lowest layer and the lowest temporal id of all (RFC 7798 4.4.2).
pub fn ap_header(headers: impl Iterator<Item = NalHeader>) -> [u8; AP_HEADER_LEN] {
    let (forbidden, layer, temporal) = headers.fold((0, u8::MAX, u8::MAX), |all, header| {
        let (forbidden, layer, temporal) = all;
        (
            forbidden | header.0 & FORBIDDEN_BIT,
            layer.min(header.layer_id()),
            temporal.min(header.temporal_id_plus1()),
        )
    });
    let ids = u16::from(layer & 0x3f) << LAYER_SHIFT | u16::from(temporal & 7);
    NalHeader(forbidden | ids).with_type(AP).to_bytes()
}

/// Payload header and FU header of a fragment of the NAL unit that begins with `header`.
pub fn fu_header(header: NalHeader, start: bool, end: bool) -> [u8; FU_HEADER_LEN] {
    let [first, second] = header.with_type(FU).to_bytes();
    let start = if start { FU_START_BIT } else { 0 };
    let end = if end { FU_END_BIT } else { 0 };
    [first, second, start | end | header.unit_type()]
}

/// An RTP payload without decoding order numbers (RFC 7798 4.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload<'a> {
    Single(&'a [u8]),
    Aggregation(Aggregation<'a>),
    Fragment {
        /// The header of the unit that is put together.
        header: NalHeader,
        start: bool,
        end: bool,
        fragment: &'a [u8],
    },
}

impl<'a> Payload<'a> {
    /// None for an empty or cut payload, or one of a type that is not sent here: PACI (RFC 7798
    /// 4.4.4), reserved.
    pub fn parse(payload: &'a [u8]) -> Option<Payload<'a>> {
        let header = NalHeader::of(payload)?;
        let rest = payload.get(NAL_HEADER_LEN..)?;
        match header.unit_type() {
            0..AP => Some(Payload::Single(payload)),
            AP => Some(Payload::Aggregation(Aggregation { rest })),
            FU => {
                let (&fu, fragment) = rest.split_first()?;
                Some(Payload::Fragment {
                    header: header.with_type(fu & TYPE_MASK),
                    start: fu & FU_START_BIT != 0,
                    end: fu & FU_END_BIT != 0,
                    fragment,
                })
            }
            _ => None,
        }
    }
}

/// The units of an aggregation packet. Ends at the first one that is cut or has no header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aggregation<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Aggregation<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.rest.split_first_chunk::<AP_UNIT_HEADER_LEN>()?;
        let (unit, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        self.rest = rest;
        (unit.len() >= NAL_HEADER_LEN).then_some(unit)
    }
}

const FORBIDDEN_BIT: u16 = 0x8000;
const TYPE_SHIFT: u32 = 9;
const TYPE_MASK: u8 = 0x3f;
const LAYER_SHIFT: u32 = 3;
const AP: u8 = 48;
const FU: u8 = 49;
const FU_START_BIT: u8 = 0x80;
const FU_END_BIT: u8 = 0x40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_by_their_fields() {
        for (bytes, kind, layer, temporal) in [
            ([0x40, 0x01], NalKind::Vps, 0, 1),
            ([0x42, 0x01], NalKind::Sps, 0, 1),
            ([0x44, 0x01], NalKind::Pps, 0, 1),
            ([0x46, 0x01], NalKind::AccessUnitDelimiter, 0, 1),
            ([0x48, 0x01], NalKind::End, 0, 1),
            ([0x4a, 0x01], NalKind::End, 0, 1),
            ([0x4c, 0x01], NalKind::Filler, 0, 1),
            ([0x4e, 0x01], NalKind::Sei, 0, 1),
            ([0x50, 0x01], NalKind::Sei, 0, 1),
            ([0x26, 0x01], NalKind::Idr, 0, 1),
            ([0x28, 0x01], NalKind::Idr, 0, 1),
            ([0x2a, 0x01], NalKind::Cra, 0, 1),
            ([0x20, 0x01], NalKind::Bla, 0, 1),
            ([0x24, 0x01], NalKind::Bla, 0, 1),
            ([0x02, 0x03], NalKind::Slice, 0, 3),
            ([0x03, 0x0f], NalKind::Slice, 33, 7),
            ([0x2c, 0x01], NalKind::Slice, 0, 1),
            ([0x60, 0x01], NalKind::Other(48), 0, 1),
        ] {
            let header = NalHeader::of(&bytes).unwrap();
            assert_eq!(header.kind(), kind, "{bytes:02x?}");
            assert_eq!((header.layer_id(), header.temporal_id_plus1()), (layer, temporal));
            assert_eq!(header.to_bytes(), bytes);
        }
        assert_eq!(NalHeader::of(&[0x40]), None);
        assert!(NalKind::Cra.is_random_access() && NalKind::Cra.is_slice());
        assert!(!NalKind::Slice.is_random_access() && !NalKind::Vps.is_slice());
    }

    #[test]
    fn an_aggregation_takes_the_lowest_layer_and_temporal_id() {
        let headers =
            [[0x42, 0x0b], [0x4e, 0x02], [0x02, 0x1d]].map(|b| NalHeader::of(&b).unwrap());
        assert_eq!(ap_header(headers.into_iter()), [0x60, 0x02]);
        assert_eq!(ap_header([NalHeader(0xc203)].into_iter()), [0xe0, 0x03], "F is kept");
        let payload = [0x60, 0x01, 0, 3, 0x42, 1, 9, 0, 2, 0x44, 1, 0, 9, 1];
        let Some(Payload::Aggregation(mut units)) = Payload::parse(&payload) else { panic!() };
        assert_eq!(units.next(), Some(&[0x42, 1, 9][..]));
        assert_eq!(units.next(), Some(&[0x44, 1][..]));
        assert_eq!(units.next(), None, "a cut unit is not given out");
    }

    #[test]
    fn a_fragment_keeps_the_units_header_in_three_bytes() {
        let header = NalHeader::of(&[0x26, 0x01]).unwrap();
        assert_eq!(fu_header(header, true, false), [0x62, 0x01, 0x93]);
        assert_eq!(fu_header(header, false, true), [0x62, 0x01, 0x53]);
        let expected = Payload::Fragment { header, start: true, end: false, fragment: &[7] };
        assert_eq!(Payload::parse(&[0x62, 0x01, 0x93, 7]), Some(expected));
    }

    #[test]
    fn other_payloads_are_refused() {
        for payload in [&[][..], &[0x26], &[0x62, 0x01]] {
            assert_eq!(Payload::parse(payload), None, "{payload:02x?}");
        }
        for kind in 50..64 {
            assert_eq!(Payload::parse(&[kind << 1, 1, 2, 3]), None, "type {kind}");
        }
    }
}
