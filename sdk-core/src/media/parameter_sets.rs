//! The newest parameter sets of a stream. Every keyframe is sent with them, so that a viewer can
//! start at any.

use crate::wire::codec::{Codec, ParameterSetKind};

/// Bounded: a camera has one of each, the standards allow more than anyone uses.
pub(super) struct ParameterSets {
    codec: Codec,
    /// By kind, in the order in which they are sent, each kind by id.
    sets: Vec<ParameterSet>,
}

struct ParameterSet {
    key: (ParameterSetKind, u32),
    nal: Vec<u8>,
}

impl ParameterSets {
    pub(super) fn new(codec: Codec) -> ParameterSets {
        ParameterSets { codec, sets: Vec::new() }
    }

    /// Takes a parameter set. False if it is none, or cannot be kept and must be sent where it is.
    pub(super) fn note(&mut self, nal: &[u8]) -> bool {
        let Some(key) = self.codec.parameter_set(nal).filter(|_| nal.len() <= MAX_SET_LEN) else {
            return false;
        };
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
        self.codec.parameter_sets().iter().all(|kind| self.first(*kind).is_some())
    }

    pub(super) fn len(&self) -> usize {
        self.sets.len()
    }

    pub(super) fn get(&self, at: usize) -> &[u8] {
        self.sets.get(at).map_or(&[], |set| &set.nal)
    }

    /// The first one of a kind.
    pub(super) fn first(&self, kind: ParameterSetKind) -> Option<&[u8]> {
        self.sets.iter().find(|set| set.key.0 == kind).map(|set| &set.nal[..])
    }
}

pub(super) const MAX_SETS: usize = 16;
const MAX_SET_LEN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sps_come_first_and_newer_ones_replace_older_ones() {
        let mut sets = ParameterSets::new(Codec::H264);
        assert!(sets.note(&[0x68, 0x80, 1]));
        assert!(!sets.are_complete());
        assert!(sets.note(&[0x67, 0x42, 0, 0x1f, 0x80]));
        assert!(sets.are_complete());
        assert!(sets.note(&[0x67, 0x42, 0, 0x28, 0x80]));
        assert!(sets.note(&[0x68, 0x40, 2]));
        assert_eq!(sets.len(), 3);
        assert_eq!(sets.get(0), [0x67, 0x42, 0, 0x28, 0x80]);
        assert_eq!(sets.first(ParameterSetKind::Sps), Some(sets.get(0)));
        assert_eq!(sets.get(1), [0x68, 0x80, 1]);
        assert_eq!(sets.get(2), [0x68, 0x40, 2]);
    }

    #[test]
    fn h265_needs_a_vps_too_and_it_comes_first() {
        let mut sets = ParameterSets::new(Codec::H265);
        let sps = [&[0x42, 1, 1][..], &[0x61; 12], &[0xa0]].concat();
        assert!(sets.note(&[0x44, 1, 0x80]) && sets.note(&sps));
        assert!(!sets.are_complete());
        assert!(sets.note(&[0x40, 1, 0x0c]));
        assert!(sets.are_complete());
        assert_eq!((sets.get(0)[0], sets.get(1)[0], sets.get(2)[0]), (0x40, 0x42, 0x44));
        assert!(!sets.note(&[0x68, 0x80, 1]), "it is none in H.265");
    }

    #[test]
    fn others_and_too_many_and_too_long_ones_are_not_kept() {
        let mut sets = ParameterSets::new(Codec::H264);
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
