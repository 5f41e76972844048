//! Some packets of a train: what of a large frame goes out at one time.

use crate::media::video_stream::Train;
use std::ops::Range;

/// Packets of a train that go out together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub train: Train,
    /// Which of its packets.
    pub packets: Range<u32>,
    /// The train's own, or another one where the past is drawn together; the same for all parts.
    pub timestamp: u32,
}

impl Part {
    pub fn all_of(train: &Train) -> Part {
        Part { train: *train, packets: 0..train.packets, timestamp: train.timestamp }
    }

    pub fn is_first(&self) -> bool {
        self.packets.start == 0
    }

    pub fn is_last(&self) -> bool {
        self.packets.end >= self.train.packets
    }

    /// The part as a train of its own. Its bytes are an estimate: all packets of a train have about
    /// the same size.
    pub(super) fn as_train(&self) -> Train {
        let packets = self.packets.len() as u32;
        let share =
            u64::from(self.train.bytes) * u64::from(packets) / u64::from(self.train.packets.max(1));
        Train {
            first_packet: self.train.first_packet + u64::from(self.packets.start),
            packets,
            bytes: share as u32,
            ..self.train
        }
    }
}

/// The timestamp of a train of the past that is sent with `left` others behind it, up to the newest.
pub(in crate::media) fn gop_timestamp(newest: u32, own: u32, left: u32) -> u32 {
    let age = newest.wrapping_sub(own).min(left.saturating_mul(GOP_STEP_TICKS));
    newest.wrapping_sub(age)
}

/// One millisecond.
const GOP_STEP_TICKS: u32 = 90;
