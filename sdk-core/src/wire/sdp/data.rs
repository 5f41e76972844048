//! Whether an offer wants data channels (RFC 8841).

use super::{Description, MediaKind, VideoChoice};

/// The longest message the camera takes, in bytes: `a=max-message-size` of its answers. Control
/// messages have a few hundred.
pub const MAX_MESSAGE_SIZE: usize = 64 * 1024;

/// The data section that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataChoice {
    /// Which m-line, from 0.
    pub section: usize,
    pub mid: String,
    /// The other side's SCTP port; there is no UDP port behind it.
    pub sctp_port: u16,
    /// The longest message the other side takes, in bytes.
    pub max_message_size: usize,
}

impl Description<'_> {
    /// Chooses the first data section in `video`'s bundle, since there is one transport.
    pub fn choose_data(&self, video: &VideoChoice) -> Option<DataChoice> {
        let (section, media) = self.media.iter().enumerate().find(|(_, m)| {
            m.kind == MediaKind::DataChannel
                && m.proto.ends_with("DTLS/SCTP")
                && !m.is_rejected()
                && self.bundles(m.mid, &video.mid)
        })?;
        Some(DataChoice {
            section,
            mid: media.mid.to_owned(),
            sctp_port: media.sctp_port.unwrap_or(DEFAULT_PORT),
            max_message_size: match media.max_message_size {
                // RFC 8841 §6.1.
                None => 64 * 1024,
                Some(0) => usize::MAX,
                Some(size) => size,
            },
        })
    }
}

/// What everyone uses.
pub(super) const DEFAULT_PORT: u16 = 5000;
