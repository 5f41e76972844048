//! H.265 payload types in offers (RFC 7798 7.1 and 7.2, draft-ietf-avtcore-hevc-webrtc).

use super::{Media, Payload};
use crate::wire::h265::ProfileTierLevel;
use std::fmt;

/// The parameters of an H.265 payload type. An answer repeats them as they were offered, down to
/// those that were left out: browsers compare them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct H265Format {
    /// 1, Main, where it is left out.
    pub profile_id: Option<u8>,
    /// Main tier where it is left out.
    pub tier_flag: Option<u8>,
    /// 93, level 3.1, where it is left out.
    pub level_id: Option<u8>,
    /// `tx-mode=SRST` was said; nothing else is taken.
    pub tx_mode: bool,
}

impl H265Format {
    /// None for a payload type that is not H.265, or not in a way that can be sent: in several
    /// streams (`tx-mode`), in a profile space of its own, or in numbers that cannot be read.
    pub(super) fn of(payload: &Payload<'_>) -> Option<H265Format> {
        if !is_h265(payload) {
            return None;
        }
        let number = |name: &str, max: u8| match payload.parameter(name) {
            Some(text) => text.parse().ok().filter(|n| *n <= max).map(Some),
            None => Some(None),
        };
        let tx_mode = payload.parameter("tx-mode");
        let is_plain = tx_mode.is_none_or(|mode| mode.eq_ignore_ascii_case("SRST"))
            && number("profile-space", 3)?.unwrap_or(0) == 0;
        is_plain.then_some(H265Format {
            profile_id: number("profile-id", 31)?,
            tier_flag: number("tier-flag", 1)?,
            level_id: number("level-id", u8::MAX)?,
            tx_mode: tx_mode.is_some(),
        })
    }

    fn profile(&self) -> u8 {
        self.profile_id.unwrap_or(1)
    }

    /// Whether the stream stays within the level and tier that were offered.
    fn covers(&self, stream: ProfileTierLevel) -> bool {
        stream.level_id <= self.level_id.unwrap_or(93)
            && (!stream.high_tier || self.tier_flag == Some(1))
    }
}

impl fmt::Display for H265Format {
    /// As in `a=fmtp`; empty if nothing was offered.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = [
            ("level-id", self.level_id),
            ("profile-id", self.profile_id),
            ("tier-flag", self.tier_flag),
        ];
        let mut separator = "";
        for (name, number) in numbers {
            if let Some(number) = number {
                write!(f, "{separator}{name}={number}")?;
                separator = ";";
            }
        }
        if self.tx_mode {
            write!(f, "{separator}tx-mode=SRST")?;
        }
        Ok(())
    }
}

pub(super) fn is_h265(payload: &Payload<'_>) -> bool {
    payload.encoding.eq_ignore_ascii_case("H265") && payload.clock_rate == 90_000
}

/// The payload type a stream goes out as: of those whose profile's decoders play it (`None` before
/// its first SPS: all) the one of its own profile, then one that covers its level and tier, then
/// the first.
///
/// Profiles are kept to, since a decoder for 8 bits shows nothing of 10. Level and tier are only
/// preferred: browsers offer level 3.1 and decode what their hardware can, which is 1080p and more.
pub(super) fn best_h265<'m, 'a>(
    media: &'m Media<'a>,
    stream: Option<ProfileTierLevel>,
) -> Option<(&'m Payload<'a>, H265Format)> {
    media
        .payloads
        .iter()
        .filter_map(|payload| Some((payload, H265Format::of(payload)?)))
        .filter(|(_, offered)| stream.is_none_or(|stream| stream.plays_as(offered.profile())))
        .min_by_key(|(_, offered)| match stream {
            Some(stream) => (offered.profile() != stream.profile_id, !offered.covers(stream)),
            None => (offered.profile() != 1, false),
        })
}
