//! How NAL units are cut into payloads (RFC 6184, packetization-mode 1): small ones together in a
//! STAP-A, big ones in FU-As, all fragments of one size but the last, which may be smaller: so a
//! picture's packets make one run for UDP_SEGMENT.

use crate::wire::h264::{FU_A_HEADER_LEN, STAP_A_HEADER_LEN, STAP_A_UNIT_HEADER_LEN};

/// What one payload is made of. NAL units go by their place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Single {
        nal: usize,
    },
    /// A STAP-A of the `count` units from `first` on.
    Aggregate {
        first: usize,
        count: usize,
    },
    /// An FU-A of `len` bytes from `offset` on of the unit without its header.
    Fragment {
        nal: usize,
        offset: usize,
        len: usize,
        end: bool,
    },
}

/// The payloads for units of these lengths (each at least 1), none longer than `max_payload`.
pub(super) fn shapes<L: Fn(usize) -> usize>(
    count: usize,
    nal_len: L,
    max_payload: usize,
) -> Shapes<L> {
    Shapes { count, nal_len, max_payload, nal: 0, offset: 0 }
}

pub(super) struct Shapes<L> {
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
                .map(|nal| STAP_A_UNIT_HEADER_LEN + (self.nal_len)(nal))
                .sum::<usize>()
                .saturating_add(STAP_A_HEADER_LEN),
            Shape::Fragment { len, .. } => FU_A_HEADER_LEN + len,
        }
    }

    fn fragment(&mut self) -> Shape {
        let body = (self.nal_len)(self.nal) - 1;
        let room = self.max_payload - FU_A_HEADER_LEN;
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

    /// How many units from the next one on fit into one STAP-A.
    fn fitting(&self) -> usize {
        let mut room = self.max_payload - STAP_A_HEADER_LEN;
        (self.nal..self.count)
            .take_while(|&nal| {
                let needed = STAP_A_UNIT_HEADER_LEN + (self.nal_len)(nal);
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
        shapes(lens.len(), |nal| lens[nal], max_payload).collect()
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
    fn fragments_are_equal_but_for_a_smaller_last_one_and_never_more_than_needed() {
        for max_payload in [64, 100, 1146] {
            for len in max_payload + 1..6000 {
                let cut = shapes(1, |_| len, max_payload).collect::<Vec<_>>();
                assert_eq!(cut.len(), (len - 1).div_ceil(max_payload - 2));
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
                assert_eq!(sizes.iter().sum::<usize>(), len - 1);
            }
        }
    }
}
