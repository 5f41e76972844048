//! Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 3.1): when each
//! packet of a transport arrived, or that it did not.

/// One feedback packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportFeedback<'a> {
    pub base_sequence: u16,
    /// How many packets it speaks of.
    pub count: u16,
    /// In units of 64 ms, with a sign; on the receiver's own clock.
    pub reference_time: i32,
    /// Counts feedback packets.
    pub feedback_count: u8,
    chunks_and_deltas: &'a [u8],
}

/// What became of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Its transport-wide sequence number.
    pub sequence: u16,
    /// In units of 0.25 ms after the packet before it, or after the reference time for the first
    /// one that arrived. `None` if it did not arrive.
    pub delta: Option<i16>,
}

impl<'a> TransportFeedback<'a> {
    /// `body` starts at the sender's SSRC.
    pub(super) fn parse(body: &'a [u8]) -> Option<TransportFeedback<'a>> {
        let (&[s0, s1, c0, c1, r0, r1, r2, feedback_count], chunks_and_deltas) =
            body.get(8..)?.split_first_chunk()?;
        Some(TransportFeedback {
            base_sequence: u16::from_be_bytes([s0, s1]),
            count: u16::from_be_bytes([c0, c1]),
            reference_time: i32::from_be_bytes([r0, r1, r2, 0]) >> 8,
            feedback_count,
            chunks_and_deltas,
        })
    }

    /// One item for each packet; fewer if the feedback is cut.
    pub fn arrivals(&self) -> Arrivals<'a> {
        let mut chunks = Chunks { rest: self.chunks_and_deltas, left: u32::from(self.count) };
        // The deltas lie behind the last chunk.
        while chunks.left > 0 && chunks.next().is_some() {}
        let statuses = Chunks { rest: self.chunks_and_deltas, left: u32::from(self.count) };
        Arrivals {
            next_sequence: self.base_sequence,
            left: self.count,
            chunks: statuses,
            chunk: Chunk::EMPTY,
            deltas: chunks.rest,
        }
    }
}

/// See [`TransportFeedback::arrivals`].
#[derive(Debug, Clone)]
pub struct Arrivals<'a> {
    next_sequence: u16,
    left: u16,
    chunks: Chunks<'a>,
    chunk: Chunk,
    deltas: &'a [u8],
}

impl Iterator for Arrivals<'_> {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        self.left = self.left.checked_sub(1)?;
        if self.chunk.len == 0 {
            self.chunk = self.chunks.next()?;
        }
        let delta = match self.chunk.take()? {
            SMALL_DELTA => {
                let (&delta, rest) = self.deltas.split_first()?;
                self.deltas = rest;
                Some(i16::from(delta))
            }
            LARGE_DELTA => {
                let (delta, rest) = self.deltas.split_first_chunk()?;
                self.deltas = rest;
                Some(i16::from_be_bytes(*delta))
            }
            _ => None,
        };
        let sequence = self.next_sequence;
        self.next_sequence = sequence.wrapping_add(1);
        Some(Arrival { sequence, delta })
    }
}

/// The chunks of packet statuses (3.1.2 to 3.1.4).
#[derive(Debug, Clone)]
struct Chunks<'a> {
    rest: &'a [u8],
    /// Statuses still to come.
    left: u32,
}

impl Iterator for Chunks<'_> {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        let word = u16::from_be_bytes(*bytes);
        let chunk = Chunk { word, len: Chunk::len_of(word) };
        self.left = self.left.saturating_sub(u32::from(chunk.len));
        Some(chunk)
    }
}

#[derive(Debug, Clone, Copy)]
struct Chunk {
    word: u16,
    /// Statuses still to be taken.
    len: u16,
}

impl Chunk {
    const EMPTY: Chunk = Chunk { word: 0, len: 0 };

    fn len_of(word: u16) -> u16 {
        match word >> 14 {
            // A run of one status.
            0 | 1 => word & 0x1fff,
            // Fourteen statuses of one bit.
            2 => 14,
            // Seven statuses of two bits.
            _ => 7,
        }
    }

    fn take(&mut self) -> Option<u16> {
        // A run of no packets says nothing and would never end.
        self.len = self.len.checked_sub(1)?;
        Some(match self.word >> 14 {
            0 | 1 => self.word >> 13 & 3,
            2 => self.word >> self.len & 1,
            _ => self.word >> (2 * self.len) & 3,
        })
    }
}

const SMALL_DELTA: u16 = 1;
const LARGE_DELTA: u16 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn feedback(count: u16, chunks_and_deltas: &[u8]) -> Vec<u8> {
        let mut body = vec![0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xff];
        body.extend(count.to_be_bytes());
        body.extend([0xff, 0xff, 0xfe, 7]);
        body.extend(chunks_and_deltas);
        body
    }

    #[test]
    fn runs_and_vectors_of_statuses_with_their_deltas() {
        let body = feedback(
            2 + 14 + 7,
            &[
                0x20, 0x02, // a run of two small deltas
                0x90, 0x01, // one bit each: the second and the last
                0xe0, 0x01, // two bits each: large, five not received, small
                4, 8, 12, 16, // small deltas
                0xff, 0xff, // -1
                20, 0, 0,
            ],
        );
        let feedback = TransportFeedback::parse(&body).unwrap();
        assert_eq!(feedback.reference_time, -2);
        assert_eq!(feedback.feedback_count, 7);
        let arrivals: Vec<_> = feedback.arrivals().collect();
        assert_eq!(arrivals.len(), 23);
        assert_eq!(arrivals[0], Arrival { sequence: 0xffff, delta: Some(4) });
        assert_eq!(arrivals[1], Arrival { sequence: 0, delta: Some(8) });
        let arrived: Vec<_> =
            arrivals.iter().filter_map(|a| a.delta.map(|d| (a.sequence, d))).collect();
        assert_eq!(arrived, [(0xffff, 4), (0, 8), (2, 12), (14, 16), (15, -1), (21, 20)]);
    }

    #[test]
    fn cut_feedback_ends_early() {
        let body = feedback(4, &[0x20, 0x04, 1, 2]);
        assert_eq!(TransportFeedback::parse(&body).unwrap().arrivals().count(), 2);
        let body = feedback(u16::MAX, &[0x20, 0x00, 0x00, 0x00]);
        assert_eq!(TransportFeedback::parse(&body).unwrap().arrivals().count(), 0);
        assert_eq!(TransportFeedback::parse(&body[..15]), None);
    }
}
