//! What one viewer received: packets, gaps, frames.

use crate::clock;
use crate::codec::Codec;
use crate::h264::{AccessUnit, Depacketizer, PacketKinds};
use std::time::Instant;

/// Frames kept for comparison: 20 minutes at 30 a second would be too many, two minutes are enough.
const MAX_FRAMES_KEPT: usize = 3600;

#[derive(Default)]
pub struct Received {
    pub packets: u64,
    pub payload_bytes: u64,
    /// Sequence numbers that were skipped and have not come later.
    pub missing: u64,
    /// Packets that came after a later one.
    pub late: u64,
    pub frames: u64,
    pub incomplete_frames: u64,
    pub keyframes: u64,
    pub ssrc: Option<u32>,
    pub payload_type: Option<u8>,
    pub first_packet: Option<Instant>,
    pub first_frame: Option<Instant>,
    pub last_frame: Option<Instant>,
    /// The largest RTP payload, in bytes.
    pub largest_payload: usize,
    /// In order of arrival, from the first frame on.
    pub units: Vec<AccessUnit>,
    /// The payload type that is H.265, if that was offered.
    pub h265: Option<u8>,
    next_sequence: Option<u16>,
    depacketizer: Depacketizer,
}

impl Received {
    /// Takes one RTP packet.
    pub fn on_packet(
        &mut self,
        ssrc: u32,
        payload_type: u8,
        sequence: u16,
        timestamp: u32,
        marker: bool,
        payload: &[u8],
    ) {
        let now = clock::now();
        self.packets += 1;
        self.payload_bytes += payload.len() as u64;
        self.largest_payload = self.largest_payload.max(payload.len());
        self.first_packet.get_or_insert(now);
        self.ssrc = Some(ssrc);
        self.payload_type = Some(payload_type);
        let codec = if self.h265 == Some(payload_type) { Codec::H265 } else { Codec::H264 };
        if self.depacketizer.codec() != codec {
            self.depacketizer = Depacketizer::new(codec);
        }
        let skipped = self.next_sequence.map_or(0, |next| sequence.wrapping_sub(next));
        if skipped >= 0x8000 {
            // RFC 3550 §A.1: before the expected one. A retransmission fills a gap; the frame it
            // belongs to has been counted as incomplete, because nothing is reordered here.
            self.late += 1;
            self.missing = self.missing.saturating_sub(1);
            return;
        }
        self.missing += u64::from(skipped);
        self.next_sequence = Some(sequence.wrapping_add(1));
        for unit in self.depacketizer.push(timestamp, marker, skipped != 0, payload) {
            self.frames += 1;
            self.keyframes += u64::from(unit.is_idr());
            self.incomplete_frames += u64::from(!unit.complete);
            self.first_frame.get_or_insert(now);
            self.last_frame = Some(now);
            if self.units.len() < MAX_FRAMES_KEPT {
                self.units.push(unit);
            }
        }
    }

    /// All frames received, as a file that a decoder can read.
    pub fn to_annexb(&self) -> Vec<u8> {
        self.units.iter().flat_map(AccessUnit::to_annexb).collect()
    }

    pub fn kinds(&self) -> PacketKinds {
        self.depacketizer.kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_over_the_wrap_and_late_packets_fill_them() {
        let mut r = Received::default();
        let mut packet =
            |sequence| r.on_packet(7, 96, sequence, u32::from(sequence), true, &[0x41, 1]);
        packet(0xfffe);
        packet(0xffff);
        packet(1);
        packet(0);
        packet(2);
        assert_eq!((r.packets, r.missing, r.late), (5, 0, 1));
        assert_eq!((r.frames, r.incomplete_frames), (4, 1));
    }
}
