//! Annex B byte streams (H.264 and H.265): what encoders put out. NAL units lie between start codes
//! of three or four bytes; zeros before a start code belong to no unit.

/// The NAL units of one access unit, in order, without start codes.
///
/// Bytes before the first start code are skipped, and so are empty units.
pub fn nal_units(access_unit: &[u8]) -> NalUnits<'_> {
    let first = find_start_code(access_unit, 0).map(|at| at + START_CODE.len());
    NalUnits { data: access_unit, next: first }
}

/// See [`nal_units`].
#[derive(Debug, Clone)]
pub struct NalUnits<'a> {
    data: &'a [u8],
    /// Where the next unit starts; `None` behind the last one.
    next: Option<usize>,
}

impl<'a> Iterator for NalUnits<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let start = self.next?;
            let end = find_start_code(self.data, start);
            self.next = end.map(|at| at + START_CODE.len());
            let unit = self.data.get(start..end.unwrap_or(self.data.len()))?;
            // A NAL unit never ends with a zero byte (H.264 7.4.1), so these are the first byte of
            // a four-byte start code, or trailing_zero_8bits (H.264 B.1).
            let used = unit.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            if used > 0 {
                return Some(&unit[..used]);
            }
        }
    }
}

const START_CODE: [u8; 3] = [0, 0, 1];

/// Position of the first `00 00 01` at or behind `from`.
///
/// Words without any zero byte, nearly all of an encoded picture, are passed over at once.
fn find_start_code(data: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(rest) = data.get(at..)
        && let Some(word) = rest.first_chunk::<WORD>()
    {
        if has_zero_byte(usize::from_ne_bytes(*word))
            && let Some(found) = (at..at + WORD).find(|&i| is_start_code(data, i))
        {
            return Some(found);
        }
        at += WORD;
    }
    (at..data.len()).find(|&i| is_start_code(data, i))
}

const WORD: usize = size_of::<usize>();

fn is_start_code(data: &[u8], at: usize) -> bool {
    data.get(at..at + START_CODE.len()) == Some(&START_CODE)
}

fn has_zero_byte(word: usize) -> bool {
    const ONES: usize = usize::MAX / 0xff;
    const HIGH_BITS: usize = ONES << 7;
    word.wrapping_sub(ONES) & !word & HIGH_BITS != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(data: &[u8]) -> Vec<&[u8]> {
        nal_units(data).collect()
    }

    #[test]
    fn every_mix_of_start_codes_and_trailing_zeros() {
        let nals: [&[u8]; 4] =
            [&[0x67, 1, 2, 3], &[0x68, 9], &[0x06], &[0x65, 0, 0, 3, 0, 0, 2, 0x80]];
        let separators: [&[u8]; 4] =
            [&[0, 0, 1], &[0, 0, 0, 1], &[0, 0, 0, 0, 1], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 1]];
        for mix in 0..4_usize.pow(4) {
            for trailing in 0..4 {
                let mut data = Vec::new();
                for (i, nal) in nals.iter().enumerate() {
                    data.extend_from_slice(separators[mix / 4_usize.pow(i as u32) % 4]);
                    data.extend_from_slice(nal);
                }
                data.resize(data.len() + trailing, 0);
                assert_eq!(units(&data), nals, "mix {mix}, {trailing} zeros at the end");
            }
        }
    }

    #[test]
    fn the_fast_scan_finds_what_a_plain_one_finds_at_every_offset() {
        for lead in 0..40 {
            for length in 1..40 {
                let mut data = vec![0xff; lead];
                data.extend([0, 0, 1]);
                data.extend(vec![0x41; length]);
                data.extend([0, 0, 1, 0x42]);
                assert_eq!(units(&data), [vec![0x41; length].as_slice(), &[0x42]]);
            }
        }
    }

    #[test]
    fn nothing_is_found_where_there_is_nothing() {
        for data in [&[][..], &[0], &[0, 0], &[0, 0, 1], &[0, 0, 0, 1, 0, 0, 1, 0], &[0x65; 30]] {
            assert_eq!(units(data), [[0_u8; 0]; 0], "{data:?}");
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic_and_no_unit_has_a_start_code() {
        let mut state = 0x1234_5678_u32;
        for _ in 0..20_000 {
            let mut random = || {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state
            };
            let length = random() % 60;
            let data: Vec<u8> = (0..length).map(|_| (random() % 3) as u8).collect();
            for unit in nal_units(&data) {
                assert!(!unit.is_empty() && unit.last() != Some(&0));
                assert!(!unit.windows(3).any(|w| w == START_CODE), "{data:?}");
            }
        }
    }
}
