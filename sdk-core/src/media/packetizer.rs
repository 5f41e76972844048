//! How NAL units are cut into payloads (RFC 6184, packetization-mode 1; RFC 7798): small ones
//! together in an aggregate (STAP-A, AP), big ones in fragments (FU-A, FU), all of one size but the
//! last, which may be smaller: so a picture's packets make one run for UDP_SEGMENT.

use crate::wire::codec::{AGGREGATED_UNIT_HEADER_LEN, Codec};

/// What one payload is made of. NAL units go by their place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Single {
        nal: usize,
    },
    /// An aggregate of the `count` units from `first` on.
    Aggregate {
        first: usize,
        count: usize,
    },
    /// `len` bytes from `offset` on of the unit without its header.
    Fragment {
        nal: usize,
        offset: usize,
        len: usize,
        end: bool,
    },
}

/// The payloads for units of these lengths (each with its header), none longer than `max_payload`.
pub(super) fn shapes<L: Fn(usize) -> usize>(
    codec: Codec,
    count: usize,
    nal_len: L,
    max_payload: usize,
) -> Shapes<L> {
    Shapes { codec, count, nal_len, max_payload, nal: 0, offset: 0 }
}

pub(super) struct Shapes<L> {
    codec: Codec,
    count: usize,
    nal_len: L,
    max_payload: usize,
    /// The next unit, and how much of its body went into fragments.
    nal: usize,
    offset: usize,
}

impl<L: Fn(usize) -> usize> Shapes<L> {
    pub(super) fn payload_len(&self, shape: &Shape) -> usize {
        match *shape {
            Shape::Single { nal } => (self.nal_len)(nal),
            Shape::Aggregate { first, count } => (first..first + count)
                .map(|nal| AGGREGATED_UNIT_HEADER_LEN + (self.nal_len)(nal))
                .sum::<usize>()
                .saturating_add(self.codec.aggregate_header_len()),
            Shape::Fragment { len, .. } => self.codec.fragment_header_len() + len,
        }
    }

    fn fragment(&mut self) -> Shape {
        let body = (self.nal_len)(self.nal) - self.codec.unit_header_len();
        let room = self.max_payload - self.codec.fragment_header_len();
        let fragments = body.div_ceil(room);
        let size = body.div_ceil(fragments);
        let (nal, offset) = (self.nal, self.offset);
        let len = size.min(body - offset);
        let end = offset + len == body;
        self.offset += len;
        if end {
            self.nal += 1;
            self.offset = 0;
        }
        Shape::Fragment { nal, offset, len, end }
    }

    /// How many units from the next one on fit into one aggregate.
    fn fitting(&self) -> usize {
        let mut room = self.max_payload - self.codec.aggregate_header_len();
        (self.nal..self.count)
            .take_while(|&nal| {
                let needed = AGGREGATED_UNIT_HEADER_LEN + (self.nal_len)(nal);
                let fits = needed <= room;
                room = room.saturating_sub(needed);
                fits
            })
            .count()
    }
}

impl<L: Fn(usize) -> usize> Iterator for Shapes<L> {
    type Item = Shape;

    fn next(&mut self) -> Option<Shape> {
        if self.nal >= self.count {
            return None;
        }
        if (self.nal_len)(self.nal) > self.max_payload {
            return Some(self.fragment());
        }
        let (nal, fitting) = (self.nal, self.fitting());
        self.nal += fitting.max(1);
        Some(match fitting {
            0 | 1 => Shape::Single { nal },
            count => Shape::Aggregate { first: nal, count },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lens: &[usize], max_payload: usize) -> Vec<Shape> {
        of_codec(Codec::H264, lens, max_payload)
    }

    fn of_codec(codec: Codec, lens: &[usize], max_payload: usize) -> Vec<Shape> {
        shapes(codec, lens.len(), |nal| lens[nal], max_payload).collect()
    }

    #[test]
    fn small_units_go_together_and_big_ones_are_cut() {
        assert_eq!(
            of(&[20, 5, 3000, 100], 1000),
            [
                Shape::Aggregate { first: 0, count: 2 },
                Shape::Fragment { nal: 2, offset: 0, len: 750, end: false },
                Shape::Fragment { nal: 2, offset: 750, len: 750, end: false },
                Shape::Fragment { nal: 2, offset: 1500, len: 750, end: false },
                Shape::Fragment { nal: 2, offset: 2250, len: 749, end: true },
                Shape::Single { nal: 3 },
            ]
        );
        assert_eq!(of(&[1000], 1000), [Shape::Single { nal: 0 }]);
        assert_eq!(of(&[995, 1], 1000).len(), 2, "one byte short for a STAP-A");
        assert_eq!(of(&[994, 1], 1000), [Shape::Aggregate { first: 0, count: 2 }]);
    }

    #[test]
    fn longer_headers_leave_less_room() {
        let of = |lens| of_codec(Codec::H265, lens, 1000);
        assert_eq!(of(&[993, 2]).len(), 2, "one byte short for an aggregate");
        assert_eq!(of(&[992, 2]), [Shape::Aggregate { first: 0, count: 2 }]);
        assert_eq!(of(&[1000]), [Shape::Single { nal: 0 }]);
        assert_eq!(of(&[999 + 997]).len(), 2, "two fragments of 997 bytes at most");
        assert_eq!(of(&[2 + 2 * 997 + 1]).len(), 3);
    }

    #[test]
    fn fragments_are_equal_but_for_a_smaller_last_one_and_never_more_than_needed() {
        let sizes = [64, 100, 1146].map(|max| [(Codec::H264, max), (Codec::H265, max)]);
        for (codec, max_payload) in sizes.into_iter().flatten() {
            let body = |len| len - codec.unit_header_len();
            for len in max_payload + 1..6000 {
                let cut = of_codec(codec, &[len], max_payload);
                let room = max_payload - codec.fragment_header_len();
                assert_eq!(cut.len(), body(len).div_ceil(room));
                let sizes: Vec<_> = cut
                    .iter()
                    .map(|shape| match *shape {
                        Shape::Fragment { len, .. } => len,
                        _ => panic!("{shape:?}"),
                    })
                    .collect();
                let (last, equal) = sizes.split_last().unwrap();
                assert!(equal.iter().all(|size| *size == equal[0]) && *last <= equal[0]);
                assert!(*last > 0 && equal[0] - last < cut.len());
                assert_eq!(sizes.iter().sum::<usize>(), body(len));
            }
        }
    }
}
