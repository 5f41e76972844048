//! H.264 and H.265 as they arrive: RTP payloads put back together into access units (RFC 6184, RFC
//! 7798), and Annex B files taken apart into NAL units. Written apart from the device's packetizer
//! on purpose.

use crate::codec::{Codec, Kind};

/// The NAL unit types (H.264 table 7-1) these tests tell apart.
pub const NAL_SLICE: u8 = 1;
pub const NAL_IDR: u8 = 5;
pub const NAL_SEI: u8 = 6;
pub const NAL_SPS: u8 = 7;
pub const NAL_PPS: u8 = 8;
pub const NAL_AUD: u8 = 9;

const STAP_A: u8 = 24;
const FU_A: u8 = 28;
const AP: u8 = 48;
const FU: u8 = 49;

/// One coded picture.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccessUnit {
    pub codec: Codec,
    /// The RTP timestamp, 90 kHz.
    pub timestamp: u32,
    pub nals: Vec<Vec<u8>>,
    /// No packet of it was missing, and its last one had the marker bit.
    pub complete: bool,
}

impl AccessUnit {
    /// Whether a viewer may start with it: an IDR picture, in H.265 any random access picture.
    pub fn is_idr(&self) -> bool {
        self.nals.iter().any(|nal| self.codec.kind(nal) == Kind::KeySlice)
    }

    /// The picture data, without parameter sets, delimiters and SEI.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.nals.iter().map(Vec::as_slice).filter(|nal| self.codec.is_slice(nal))
    }

    pub fn types(&self) -> Vec<u8> {
        self.nals.iter().map(|nal| self.codec.nal_type(nal)).collect()
    }

    pub fn to_annexb(&self) -> Vec<u8> {
        self.nals.iter().flat_map(|nal| [&[0, 0, 0, 1], nal.as_slice()].concat()).collect()
    }
}

/// What the packets looked like, for tests of the packetisation itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PacketKinds {
    pub single: u64,
    /// Or AP.
    pub stap_a: u64,
    /// Or FU.
    pub fu_a: u64,
    /// Payloads the RFC does not allow here.
    pub bad: u64,
}

/// Puts RTP payloads, given in sequence, together.
#[derive(Default)]
pub struct Depacketizer {
    codec: Codec,
    unit: AccessUnit,
    started: bool,
    /// A fragmented NAL that has not ended yet.
    fragment: Option<Vec<u8>>,
    damaged: bool,
    pub kinds: PacketKinds,
}

impl Depacketizer {
    pub fn new(codec: Codec) -> Depacketizer {
        Depacketizer { codec, ..Depacketizer::default() }
    }

    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Takes one packet's payload; `gap` says that packets before it are missing. Gives the access
    /// unit that this packet ended: by its marker bit, or, where that was lost, by the next
    /// unit's timestamp.
    pub fn push(
        &mut self,
        timestamp: u32,
        marker: bool,
        gap: bool,
        payload: &[u8],
    ) -> Vec<AccessUnit> {
        let mut done = Vec::new();
        if self.started && timestamp != self.unit.timestamp {
            self.damaged = true;
            done.push(self.take());
        }
        if !self.started {
            self.started = true;
            self.unit.timestamp = timestamp;
        }
        if gap {
            self.damaged = true;
            self.fragment = None;
        }
        self.payload(payload);
        if marker {
            done.push(self.take());
        }
        done
    }

    fn take(&mut self) -> AccessUnit {
        self.started = false;
        let damaged = std::mem::take(&mut self.damaged) | self.fragment.take().is_some();
        let mut unit = std::mem::take(&mut self.unit);
        unit.complete = !damaged;
        unit.codec = self.codec;
        unit
    }

    fn payload(&mut self, payload: &[u8]) {
        match (self.codec, self.codec.nal_type(payload)) {
            (Codec::H264, 1..=23) => self.single(payload, 1),
            (Codec::H264, STAP_A) => self.aggregate(payload, 1),
            (Codec::H264, FU_A) => self.fragment_h264(payload),
            (Codec::H265, 0..AP) => self.single(payload, 2),
            (Codec::H265, AP) => self.aggregate(payload, 2),
            (Codec::H265, FU) => self.fragment_h265(payload),
            _ => self.bad(),
        }
    }

    fn single(&mut self, payload: &[u8], header: usize) {
        self.kinds.single += 1;
        self.end_fragment_early();
        if payload.len() < header {
            return self.bad();
        }
        self.unit.nals.push(payload.to_vec());
    }

    /// RFC 6184 §5.7.1, RFC 7798 §4.4.2: behind a header 16-bit sizes, each followed by that NAL.
    fn aggregate(&mut self, payload: &[u8], header: usize) {
        self.kinds.stap_a += 1;
        self.end_fragment_early();
        let Some(mut rest) = payload.get(header..).filter(|rest| !rest.is_empty()) else {
            return self.bad();
        };
        while !rest.is_empty() {
            let Some((size, after)) = rest.split_first_chunk::<2>() else { return self.bad() };
            let size = usize::from(u16::from_be_bytes(*size));
            let Some((nal, after)) = after.split_at_checked(size) else { return self.bad() };
            if nal.len() < header {
                return self.bad();
            }
            self.unit.nals.push(nal.to_vec());
            rest = after;
        }
    }

    /// RFC 6184 §5.8: indicator, header with start and end bits, then the piece.
    fn fragment_h264(&mut self, payload: &[u8]) {
        match payload.split_first_chunk::<2>() {
            Some((&[indicator, fu], piece)) => {
                self.fragment(fu, &[indicator & 0xe0 | fu & 0x1f], piece);
            }
            None => self.bad(),
        }
    }

    /// RFC 7798 §4.4.3: payload header, FU header, then the piece.
    fn fragment_h265(&mut self, payload: &[u8]) {
        match payload.split_first_chunk::<3>() {
            Some((&[first, second, fu], piece)) => {
                self.fragment(fu, &[first & 0x81 | (fu & 0x3f) << 1, second], piece);
            }
            None => self.bad(),
        }
    }

    /// `fu` has the start and end bits; `header` is that of the NAL that is put together.
    fn fragment(&mut self, fu: u8, header: &[u8], piece: &[u8]) {
        self.kinds.fu_a += 1;
        let (start, end) = (fu & 0x80 != 0, fu & 0x40 != 0);
        if piece.is_empty() || (start && end) {
            return self.bad();
        }
        if start {
            self.end_fragment_early();
            self.fragment = Some(header.to_vec());
        }
        match &mut self.fragment {
            Some(nal) => nal.extend_from_slice(piece),
            // Its start was lost: already counted as a gap, or else an error of the sender.
            None => self.damaged = true,
        }
        if end && let Some(nal) = self.fragment.take() {
            self.unit.nals.push(nal);
        }
    }

    fn end_fragment_early(&mut self) {
        if self.fragment.take().is_some() {
            self.damaged = true;
        }
    }

    fn bad(&mut self) {
        self.kinds.bad += 1;
        self.damaged = true;
    }
}

/// The NAL units of an Annex B byte stream, without start codes and trailing zeros.
pub fn split_annexb(bytes: &[u8]) -> Vec<&[u8]> {
    let mut nals = Vec::new();
    let mut start = None;
    let mut i = 0;
    while i + 3 <= bytes.len() {
        if bytes[i..i + 3] == [0, 0, 1] {
            if let Some(start) = start {
                nals.push(trim_zeros(&bytes[start..i]));
            }
            start = Some(i + 3);
            i += 3;
        } else {
            i += 1;
        }
    }
    if let Some(start) = start {
        nals.push(trim_zeros(&bytes[start..]));
    }
    nals.retain(|nal| !nal.is_empty());
    nals
}

fn trim_zeros(nal: &[u8]) -> &[u8] {
    let end = nal.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
    &nal[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annexb_is_split_at_start_codes_of_both_lengths() {
        let bytes = [0, 0, 0, 1, 0x67, 1, 2, 0, 0, 1, 0x68, 3, 0, 0, 0, 1, 0x65, 4, 0, 0, 3, 5];
        let nals = split_annexb(&bytes);
        assert_eq!(nals, [&[0x67, 1, 2][..], &[0x68, 3], &[0x65, 4, 0, 0, 3, 5]]);
        assert!(split_annexb(&[]).is_empty());
        assert!(split_annexb(&[0, 0, 1]).is_empty());
    }

    #[test]
    fn all_three_packet_kinds_come_together() {
        let mut d = Depacketizer::default();
        let stap = [0x78, 0, 2, 0x67, 1, 0, 2, 0x68, 2];
        assert!(d.push(9, false, false, &stap).is_empty());
        assert!(d.push(9, false, false, &[0x7c, 0x85, 1, 2]).is_empty());
        assert!(d.push(9, false, false, &[0x7c, 0x05, 3]).is_empty());
        let done = d.push(9, true, false, &[0x7c, 0x45, 4]);
        assert_eq!(done.len(), 1);
        assert_eq!(done[0].nals, [vec![0x67, 1], vec![0x68, 2], vec![0x65, 1, 2, 3, 4]]);
        assert!(done[0].complete && done[0].is_idr());
        let done = d.push(10, true, false, &[0x41, 9]);
        assert_eq!(done[0].types(), [NAL_SLICE]);
        assert_eq!(d.kinds, PacketKinds { single: 1, stap_a: 1, fu_a: 3, bad: 0 });
    }

    #[test]
    fn h265_packets_come_together_too() {
        let mut d = Depacketizer::new(Codec::H265);
        let ap = [0x60, 1, 0, 3, 0x40, 1, 9, 0, 2, 0x42, 1];
        assert!(d.push(9, false, false, &ap).is_empty());
        assert!(d.push(9, false, false, &[0x44, 1, 3]).is_empty());
        assert!(d.push(9, false, false, &[0x62, 1, 0x93, 1]).is_empty());
        let done = d.push(9, true, false, &[0x62, 1, 0x53, 2]);
        assert_eq!(done[0].types(), [32, 33, 34, 19]);
        assert_eq!(done[0].nals[3], [0x26, 1, 1, 2]);
        assert!(done[0].complete && done[0].is_idr());
        assert!(!d.push(10, true, false, &[0x02, 1, 9])[0].is_idr());
        assert_eq!(d.kinds, PacketKinds { single: 2, stap_a: 1, fu_a: 2, bad: 0 });
        for payload in
            [&[][..], &[0x02], &[0x60, 1], &[0x60, 1, 0, 1, 9], &[0x62, 1], &[0x64, 1, 1]]
        {
            assert!(!d.push(11, true, false, payload)[0].complete, "{payload:?}");
        }
    }

    #[test]
    fn a_unit_with_a_lost_packet_is_not_called_complete() {
        let mut d = Depacketizer::default();
        d.push(1, false, false, &[0x7c, 0x85, 1]);
        let done = d.push(1, true, true, &[0x7c, 0x45, 3]);
        assert!(!done[0].complete);
        // The marker was lost: the next timestamp ends the unit.
        d.push(2, false, false, &[0x41, 1]);
        let done = d.push(3, true, true, &[0x41, 2]);
        assert_eq!(done.len(), 2);
        assert!(!done[0].complete && !done[1].complete);
        assert!(d.push(4, true, false, &[0x41, 3])[0].complete);
    }

    #[test]
    fn nonsense_is_counted_and_never_panics() {
        for payload in [
            &[][..],
            &[0x00],
            &[0x78],
            &[0x78, 0],
            &[0x78, 0, 9, 1],
            &[0x78, 0, 0],
            &[0x7c],
            &[0x7c, 0xc5, 1],
            &[0x7c, 0x85],
            &[0x1f],
        ] {
            let mut d = Depacketizer::default();
            let done = d.push(1, true, false, payload);
            assert!(!done[0].complete, "{payload:?}");
        }
    }
}
