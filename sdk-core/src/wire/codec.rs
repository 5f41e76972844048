//! The video codecs behind one face: all that cutting a stream into packets needs to know of one.

use super::{h264, h265};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// ITU-T H.264, in RTP by RFC 6184.
    H264,
    /// ITU-T H.265, in RTP by RFC 7798.
    H265,
}

/// What a NAL unit means to a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A slice of a picture that refers to others.
    Slice,
    /// A slice of a picture at which a viewer may start.
    KeySlice,
    Sei,
    /// Delimiters, filler, ends, and what a viewer could not use or RTP not carry.
    Useless,
    /// Parameter sets, and all that is sent as it is.
    Other,
}

/// In the order in which they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ParameterSetKind {
    /// Of H.265 only.
    Vps,
    Sps,
    Pps,
}

/// What each unit in an aggregate costs on top of its bytes: its length.
pub const AGGREGATED_UNIT_HEADER_LEN: usize = 2;
const _: () = assert!(AGGREGATED_UNIT_HEADER_LEN == h264::STAP_A_UNIT_HEADER_LEN);
const _: () = assert!(AGGREGATED_UNIT_HEADER_LEN == h265::AP_UNIT_HEADER_LEN);

impl Codec {
    /// As in SDP's `a=rtpmap`.
    pub fn encoding(self) -> &'static str {
        match self {
            Codec::H264 => "H264",
            Codec::H265 => "H265",
        }
    }

    pub fn unit(self, nal: &[u8]) -> Unit {
        match self {
            Codec::H264 => h264_unit(nal),
            Codec::H265 => h265_unit(nal),
        }
    }

    /// Which parameter set this is, and its id.
    pub fn parameter_set(self, nal: &[u8]) -> Option<(ParameterSetKind, u32)> {
        let kind = match self {
            Codec::H264 => match h264::NalHeader::of(nal)?.kind() {
                h264::NalKind::Sps => ParameterSetKind::Sps,
                h264::NalKind::Pps => ParameterSetKind::Pps,
                _ => return None,
            },
            Codec::H265 => match h265::NalHeader::of(nal)?.kind() {
                h265::NalKind::Vps => ParameterSetKind::Vps,
                h265::NalKind::Sps => ParameterSetKind::Sps,
                h265::NalKind::Pps => ParameterSetKind::Pps,
                _ => return None,
            },
        };
        let id = match self {
            Codec::H264 => h264::parameter_set_id(nal)?,
            Codec::H265 => h265::parameter_set_id(nal)?,
        };
        Some((kind, id))
    }

    /// Those without which nothing can be decoded.
    pub fn parameter_sets(self) -> &'static [ParameterSetKind] {
        match self {
            Codec::H264 => &[ParameterSetKind::Sps, ParameterSetKind::Pps],
            Codec::H265 => &[ParameterSetKind::Vps, ParameterSetKind::Sps, ParameterSetKind::Pps],
        }
    }

    /// Of a NAL unit's own header, which a fragment's header stands for.
    pub fn unit_header_len(self) -> usize {
        match self {
            Codec::H264 => 1,
            Codec::H265 => h265::NAL_HEADER_LEN,
        }
    }

    pub fn aggregate_header_len(self) -> usize {
        match self {
            Codec::H264 => h264::STAP_A_HEADER_LEN,
            Codec::H265 => h265::AP_HEADER_LEN,
        }
    }

    pub fn fragment_header_len(self) -> usize {
        match self {
            Codec::H264 => h264::FU_A_HEADER_LEN,
            Codec::H265 => h265::FU_HEADER_LEN,
        }
    }

    /// Gives `put` the header of a payload that aggregates `units`.
    pub fn write_aggregate_header<'a>(
        self,
        units: impl Iterator<Item = &'a [u8]>,
        put: impl FnOnce(&[u8]),
    ) {
        match self {
            Codec::H264 => put(&[h264::stap_a_header(units.filter_map(h264::NalHeader::of))]),
            Codec::H265 => put(&h265::ap_header(units.filter_map(h265::NalHeader::of))),
        }
    }

    /// Gives `put` the header of a fragment of `nal`.
    pub fn write_fragment_header(
        self,
        nal: &[u8],
        start: bool,
        end: bool,
        put: impl FnOnce(&[u8]),
    ) {
        match self {
            Codec::H264 => {
                let header = h264::NalHeader::of(nal).unwrap_or(h264::NalHeader(0));
                put(&h264::fu_a_header(header, start, end));
            }
            Codec::H265 => {
                let header = h265::NalHeader::of(nal).unwrap_or(h265::NalHeader(0));
                put(&h265::fu_header(header, start, end));
            }
        }
    }
}

fn h264_unit(nal: &[u8]) -> Unit {
    use h264::NalKind;
    match h264::NalHeader::of(nal).map(h264::NalHeader::kind) {
        Some(NalKind::Slice) => Unit::Slice,
        Some(NalKind::IdrSlice) => Unit::KeySlice,
        Some(NalKind::Sei) => Unit::Sei,
        Some(NalKind::AccessUnitDelimiter | NalKind::End | NalKind::Filler) | None => Unit::Useless,
        // RTP's own payload types, and 0: not for an encoder to use.
        Some(NalKind::Other(0 | 24..)) => Unit::Useless,
        Some(NalKind::Sps | NalKind::Pps | NalKind::Other(_)) => Unit::Other,
    }
}

fn h265_unit(nal: &[u8]) -> Unit {
    use h265::NalKind;
    // Other layers are nothing to a decoder of Main and Main 10, which ignores them (H.265 F.3.1).
    let Some(header) = h265::NalHeader::of(nal).filter(|header| header.layer_id() == 0) else {
        return Unit::Useless;
    };
    match header.kind() {
        NalKind::Slice => Unit::Slice,
        NalKind::Idr | NalKind::Bla | NalKind::Cra => Unit::KeySlice,
        NalKind::Sei => Unit::Sei,
        NalKind::AccessUnitDelimiter | NalKind::End | NalKind::Filler => Unit::Useless,
        // RTP's own payload types, and those left for other uses.
        NalKind::Other(48..) => Unit::Useless,
        NalKind::Vps | NalKind::Sps | NalKind::Pps | NalKind::Other(_) => Unit::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_mean_the_same_in_both_codecs() {
        for (h264, h265, unit) in [
            (&[0x41][..], &[0x02, 1][..], Unit::Slice),
            (&[0x65], &[0x26, 1], Unit::KeySlice),
            (&[0x65], &[0x2a, 1], Unit::KeySlice),
            (&[0x06], &[0x4e, 1], Unit::Sei),
            (&[0x09], &[0x46, 1], Unit::Useless),
            (&[0x0c], &[0x4c, 1], Unit::Useless),
            (&[0x78], &[0x60, 1], Unit::Useless),
            (&[], &[0x26], Unit::Useless),
            (&[0x67], &[0x42, 1], Unit::Other),
        ] {
            assert_eq!(Codec::H264.unit(h264), unit, "{h264:02x?}");
            assert_eq!(Codec::H265.unit(h265), unit, "{h265:02x?}");
        }
        assert_eq!(Codec::H265.unit(&[0x26, 0x09]), Unit::Useless, "of another layer");
    }
}
