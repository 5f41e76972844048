//! What the tests need to know of a NAL unit, in either codec. Written apart from the device's own
//! reading of them on purpose.

use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    #[default]
    H264,
    H265,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Slice,
    /// A slice of a picture at which a viewer may start: IDR, and in H.265 BLA and CRA.
    KeySlice,
    ParameterSet,
    /// Delimiters and SEI, which the packetizer drops or keeps as it likes.
    Optional,
    Other,
}

impl Codec {
    /// By the file's ending.
    pub fn of(path: &Path) -> Codec {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("h265") => Codec::H265,
            _ => Codec::H264,
        }
    }

    /// `nal_unit_type`; 0 for an empty NAL.
    pub fn nal_type(self, nal: &[u8]) -> u8 {
        nal.first().map_or(0, |first| match self {
            Codec::H264 => first & 0x1f,
            Codec::H265 => first >> 1 & 0x3f,
        })
    }

    /// H.264 table 7-1, H.265 table 7-1.
    pub fn kind(self, nal: &[u8]) -> Kind {
        match (self, self.nal_type(nal)) {
            (Codec::H264, 5) | (Codec::H265, 16..=21) => Kind::KeySlice,
            (Codec::H264, 1..=4) | (Codec::H265, 0..=9) => Kind::Slice,
            (Codec::H264, 7 | 8) | (Codec::H265, 32..=34) => Kind::ParameterSet,
            (Codec::H264, 6 | 9) | (Codec::H265, 35 | 39 | 40) => Kind::Optional,
            _ => Kind::Other,
        }
    }

    pub fn is_slice(self, nal: &[u8]) -> bool {
        matches!(self.kind(nal), Kind::Slice | Kind::KeySlice)
    }

    /// Whether this slice is the first of its picture: `first_mb_in_slice` 0, which is a leading 1
    /// bit (H.264 §7.3.3, ue(v)), or `first_slice_segment_in_pic_flag` (H.265 §7.3.6.1).
    pub fn begins_picture(self, nal: &[u8]) -> bool {
        let header = match self {
            Codec::H264 => 1,
            Codec::H265 => 2,
        };
        self.is_slice(nal) && nal.get(header).is_some_and(|first| first & 0x80 != 0)
    }
}
