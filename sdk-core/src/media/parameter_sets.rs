//! The newest SPS and PPS of a stream. Every IDR picture is sent with them, so that a viewer can
//! start at any.

use crate::wire::h264::{NalHeader, NalKind, parameter_set_id};

/// Bounded: a camera has one of each, H.264 allows more than anyone uses.
#[derive(Default)]
pub(super) struct ParameterSets {
    /// SPS before PPS, each kind by id.
    sets: Vec<ParameterSet>,
}

struct ParameterSet {
    key: (bool, u32),
    nal: Vec<u8>,
}

impl ParameterSets {
    /// Takes an SPS or PPS. False if it is none, or cannot be kept and must be sent where it is.
    pub(super) fn note(&mut self, nal: &[u8]) -> bool {
        let Some(kind @ (NalKind::Sps | NalKind::Pps)) = NalHeader::of(nal).map(NalHeader::kind)
        else {
            return false;
        };
        let Some(id) = parameter_set_id(nal).filter(|_| nal.len() <= MAX_SET_LEN) else {
            return false;
        };
        let key = (kind == NalKind::Pps, id);
        match self.sets.binary_search_by_key(&key, |set| set.key) {
            Ok(at) if self.sets[at].nal == nal => true,
            Ok(at) => {
                self.sets[at].nal = nal.to_vec();
                true
            }
            Err(at) if self.sets.len() < MAX_SETS => {
                self.sets.insert(at, ParameterSet { key, nal: nal.to_vec() });
                true
            }
            Err(_) => false,
        }
    }

    /// Whether there is at least one of each kind, without which nothing can be decoded.
    pub(super) fn are_complete(&self) -> bool {
        let has = |pps| self.sets.iter().any(|set| set.key.0 == pps);
        has(false) && has(true)
    }

    pub(super) fn len(&self) -> usize {
        self.sets.len()
    }

    pub(super) fn get(&self, at: usize) -> &[u8] {
        self.sets.get(at).map_or(&[], |set| &set.nal)
    }

    /// The first SPS, from which SDP's profile is read.
    pub(super) fn first_sps(&self) -> Option<&[u8]> {
        self.sets.first().filter(|set| !set.key.0).map(|set| &set.nal[..])
    }
}

pub(super) const MAX_SETS: usize = 16;
const MAX_SET_LEN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sps_come_first_and_newer_ones_replace_older_ones() {
        let mut sets = ParameterSets::default();
        assert!(sets.note(&[0x68, 0x80, 1]));
        assert!(!sets.are_complete());
        assert!(sets.note(&[0x67, 0x42, 0, 0x1f, 0x80]));
        assert!(sets.are_complete());
        assert!(sets.note(&[0x67, 0x42, 0, 0x28, 0x80]));
        assert!(sets.note(&[0x68, 0x40, 2]));
        assert_eq!(sets.len(), 3);
        assert_eq!(sets.get(0), [0x67, 0x42, 0, 0x28, 0x80]);
        assert_eq!(sets.first_sps(), Some(sets.get(0)));
        assert_eq!(sets.get(1), [0x68, 0x80, 1]);
        assert_eq!(sets.get(2), [0x68, 0x40, 2]);
    }

    #[test]
    fn others_and_too_many_and_too_long_ones_are_not_kept() {
        let mut sets = ParameterSets::default();
        assert!(!sets.note(&[]) && !sets.note(&[0x65, 0x80]) && !sets.note(&[0x67, 1, 2, 3]));
        let mut long = vec![0x68, 0x80];
        long.resize(MAX_SET_LEN + 1, 1);
        assert!(!sets.note(&long));
        // Ids 31 to 62: five zeros, a one, five bits.
        let kept = (0..32_u16).filter(|id| {
            let [a, b] = (1 << 10 | id << 5).to_be_bytes();
            sets.note(&[0x68, a, b])
        });
        assert_eq!(kept.count(), MAX_SETS);
    }
}
