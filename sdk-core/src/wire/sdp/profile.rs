//! H.264 profiles as SDP names them: `profile-level-id` (RFC 6184 §8.1, table 5).

use std::fmt;

/// The three bytes that follow an SPS's NAL header, and the six hex digits of `profile-level-id`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProfileLevelId {
    pub profile_idc: u8,
    /// `constraint_set` flags, highest bit first.
    pub profile_iop: u8,
    pub level_idc: u8,
}

impl ProfileLevelId {
    pub fn new(bytes: [u8; 3]) -> ProfileLevelId {
        let [profile_idc, profile_iop, level_idc] = bytes;
        ProfileLevelId { profile_idc, profile_iop, level_idc }
    }

    /// Reads six hexadecimal digits.
    pub fn parse(text: &str) -> Option<ProfileLevelId> {
        if text.len() != 6 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        let [_, a, b, c] = u32::from_str_radix(text, 16).ok()?.to_be_bytes();
        Some(ProfileLevelId::new([a, b, c]))
    }

    pub fn profile(self) -> H264Profile {
        // Which flags tell the profiles apart: RFC 6184 table 5.
        let iop = self.profile_iop;
        match self.profile_idc {
            0x42 if iop & 0x40 != 0 => H264Profile::ConstrainedBaseline,
            0x42 => H264Profile::Baseline,
            0x4d if iop & 0x80 != 0 => H264Profile::ConstrainedBaseline,
            0x4d => H264Profile::Main,
            0x58 if iop & 0xc0 == 0xc0 => H264Profile::ConstrainedBaseline,
            0x58 if iop & 0x80 != 0 => H264Profile::Baseline,
            0x64 if iop & 0x0c == 0x0c => H264Profile::ConstrainedHigh,
            0x64 => H264Profile::High,
            _ => H264Profile::Other,
        }
    }
}

impl fmt::Display for ProfileLevelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}{:02x}", self.profile_idc, self.profile_iop, self.level_idc)
    }
}

impl fmt::Debug for ProfileLevelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum H264Profile {
    ConstrainedBaseline,
    Baseline,
    Main,
    ConstrainedHigh,
    High,
    /// Extended, High 10, 4:2:2, 4:4:4: no camera sends these and browsers rarely decode them.
    Other,
}

impl H264Profile {
    /// How far an offered profile is from a stream's, 0 being the same.
    ///
    /// Below the stream's own come the profiles that contain it, then those it exceeds least.
    /// Every browser's decoder reads the stream's SPS and plays all of the five whatever was
    /// negotiated, so none is excluded; the order only decides what is honest where there is a
    /// choice.
    pub(super) fn distance(stream: Option<H264Profile>, offered: H264Profile) -> u8 {
        use H264Profile::*;
        let order: [H264Profile; 5] = match stream {
            Some(High) | Some(Other) => {
                [High, ConstrainedHigh, Main, ConstrainedBaseline, Baseline]
            }
            Some(ConstrainedHigh) => [ConstrainedHigh, High, Main, ConstrainedBaseline, Baseline],
            Some(Main) => [Main, High, ConstrainedHigh, ConstrainedBaseline, Baseline],
            Some(Baseline) => [Baseline, ConstrainedBaseline, Main, ConstrainedHigh, High],
            // Nothing is known before the first SPS: what every browser offers.
            Some(ConstrainedBaseline) | None => {
                [ConstrainedBaseline, Baseline, Main, ConstrainedHigh, High]
            }
        };
        order.iter().position(|p| *p == offered).map_or(5, |i| i as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_told_apart_by_their_constraint_flags() {
        use H264Profile::*;
        for (text, profile) in [
            ("42e01f", ConstrainedBaseline),
            ("42c01e", ConstrainedBaseline),
            ("42001f", Baseline),
            ("4d0029", Main),
            ("4d001f", Main),
            ("64001f", High),
            ("640c1f", ConstrainedHigh),
            ("640C1F", ConstrainedHigh),
            ("f4001f", Other),
        ] {
            let id = ProfileLevelId::parse(text).unwrap();
            assert_eq!(id.profile(), profile, "{text}");
            assert_eq!(id.to_string(), text.to_lowercase());
        }
        for bad in ["", "42e0", "42e01f0", "42e01g", "+2e01f"] {
            assert_eq!(ProfileLevelId::parse(bad), None, "{bad}");
        }
    }
}
