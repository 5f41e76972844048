//! H.264 as it arrives: RTP payloads put back together into access units (RFC 6184), and Annex B
//! files taken apart into NAL units. Written apart from the device's packetizer on purpose.

/// The NAL unit types (H.264 table 7-1) these tests tell apart.
pub const NAL_SLICE: u8 = 1;
pub const NAL_IDR: u8 = 5;
pub const NAL_SEI: u8 = 6;
pub const NAL_SPS: u8 = 7;
pub const NAL_PPS: u8 = 8;
pub const NAL_AUD: u8 = 9;

const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// `nal_unit_type`; 0 for an empty NAL.
pub fn nal_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |header| header & 0x1f)
}

/// Whether the NAL carries picture data.
pub fn is_slice(nal: &[u8]) -> bool {
    (NAL_SLICE..=NAL_IDR).contains(&nal_type(nal))
}

/// One coded picture.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccessUnit {
    /// The RTP timestamp, 90 kHz.
    pub timestamp: u32,
    pub nals: Vec<Vec<u8>>,
    /// No packet of it was missing, and its last one had the marker bit.
    pub complete: bool,
}

impl AccessUnit {
    pub fn is_idr(&self) -> bool {
        self.nals.iter().any(|nal| nal_type(nal) == NAL_IDR)
    }

    /// The picture data, without parameter sets, delimiters and SEI.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.nals.iter().map(Vec::as_slice).filter(|nal| is_slice(nal))
    }

    pub fn types(&self) -> Vec<u8> {
        self.nals.iter().map(|nal| nal_type(nal)).collect()
    }

    pub fn to_annexb(&self) -> Vec<u8> {
        self.nals.iter().flat_map(|nal| [&[0, 0, 0, 1], nal.as_slice()].concat()).collect()
    }
}

/// What the packets looked like, for tests of the packetisation itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PacketKinds {
    pub single: u64,
    pub stap_a: u64,
    pub fu_a: u64,
    /// Payloads RFC 6184 does not allow here.
    pub bad: u64,
}

/// Puts RTP payloads, given in sequence, together.
#[derive(Default)]
pub struct Depacketizer {
    unit: AccessUnit,
    started: bool,
    /// A fragmented NAL that has not ended yet.
    fragment: Option<Vec<u8>>,
    damaged: bool,
    pub kinds: PacketKinds,
}

impl Depacketizer {
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
        unit
    }

    fn payload(&mut self, payload: &[u8]) {
        match nal_type(payload) {
            1..=23 => {
                self.kinds.single += 1;
                self.end_fragment_early();
                self.unit.nals.push(payload.to_vec());
            }
            STAP_A => {
                self.kinds.stap_a += 1;
                self.end_fragment_early();
                self.aggregate(&payload[1..]);
            }
            FU_A => {
                self.kinds.fu_a += 1;
                self.fragment(payload);
            }
            _ => self.bad(),
        }
    }

    /// RFC 6184 §5.7.1: 16-bit sizes, each followed by that NAL.
    fn aggregate(&mut self, mut rest: &[u8]) {
        if rest.is_empty() {
            return self.bad();
        }
        while !rest.is_empty() {
            let Some((size, after)) = rest.split_first_chunk::<2>() else { return self.bad() };
            let size = usize::from(u16::from_be_bytes(*size));
            let Some((nal, after)) = after.split_at_checked(size) else { return self.bad() };
            if nal.is_empty() {
                return self.bad();
            }
            self.unit.nals.push(nal.to_vec());
            rest = after;
        }
    }

    /// RFC 6184 §5.8: indicator, header with start and end bits, then the piece.
    fn fragment(&mut self, payload: &[u8]) {
        let Some((&[indicator, header], piece)) = payload.split_first_chunk::<2>() else {
            return self.bad();
        };
        let (start, end) = (header & 0x80 != 0, header & 0x40 != 0);
        if piece.is_empty() || (start && end) {
            return self.bad();
        }
        if start {
            self.end_fragment_early();
            self.fragment = Some(vec![indicator & 0xe0 | header & 0x1f]);
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
