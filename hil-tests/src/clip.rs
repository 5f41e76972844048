//! The clip the camera plays, and the strongest proof there is: what a viewer received are the
//! clip's own bytes, picture for picture, in order.

use crate::codec::{Codec, Kind};
use crate::h264::{AccessUnit, split_annexb};
use std::path::Path;

pub struct Clip {
    codec: Codec,
    /// The slices of each picture.
    pictures: Vec<Vec<Vec<u8>>>,
    /// Every parameter set that occurs.
    parameter_sets: Vec<Vec<u8>>,
    pub idr_count: usize,
    pub bytes: usize,
}

impl Clip {
    pub fn read(path: &Path) -> Result<Clip, String> {
        let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Clip::parse(Codec::of(path), &bytes).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Takes an Annex B stream apart. A picture begins where its first slice begins.
    pub fn parse(codec: Codec, bytes: &[u8]) -> Result<Clip, String> {
        let mut clip = Clip {
            codec,
            pictures: Vec::new(),
            parameter_sets: Vec::new(),
            idr_count: 0,
            bytes: bytes.len(),
        };
        for nal in split_annexb(bytes) {
            let kind = codec.kind(nal);
            if kind == Kind::ParameterSet && !clip.parameter_sets.iter().any(|known| known == nal) {
                clip.parameter_sets.push(nal.to_vec());
            }
            if !codec.is_slice(nal) {
                continue;
            }
            if codec.begins_picture(nal) {
                clip.pictures.push(Vec::new());
                clip.idr_count += usize::from(kind == Kind::KeySlice);
            }
            match clip.pictures.last_mut() {
                Some(picture) => picture.push(nal.to_vec()),
                None => return Err("the first slice is not the first of a picture".into()),
            }
        }
        if clip.pictures.is_empty() || clip.parameter_sets.is_empty() {
            return Err("no pictures, or no parameter sets".into());
        }
        Ok(clip)
    }

    /// Each picture as an encoder hands it over, keyframes with their parameter sets.
    pub fn annexb_pictures(&self) -> Vec<Vec<u8>> {
        let picture = |slices: &Vec<Vec<u8>>| {
            let is_idr = slices.iter().any(|nal| self.codec.kind(nal) == Kind::KeySlice);
            let sets = if is_idr { self.parameter_sets.as_slice() } else { &[] };
            sets.iter()
                .chain(slices)
                .flat_map(|nal| [&[0, 0, 0, 1], nal.as_slice()].concat())
                .collect()
        };
        self.pictures.iter().map(picture).collect()
    }

    pub fn pictures(&self) -> usize {
        self.pictures.len()
    }

    /// Checks that `units` are the clip's pictures, byte for byte and in its order, from wherever
    /// they begin and round and round. An encoder that is asked for a keyframe makes one, so a
    /// jump is allowed where it lands on an IDR picture; the number of jumps is the answer. After a
    /// picture that came in pieces, because packets were lost, any other may follow. Every parameter
    /// set must be one of the clip's.
    pub fn expect_played(&self, units: &[AccessUnit]) -> Result<usize, String> {
        let mut jumps = 0;
        let mut next = None;
        for (i, unit) in units.iter().enumerate() {
            if !unit.complete {
                next = None;
                continue;
            }
            let at = match next.filter(|&next| self.is_picture(next, unit)) {
                Some(at) => at,
                None => {
                    let found = (0..self.pictures.len()).find(|&at| self.is_picture(at, unit));
                    let is = found.map_or("none of its".into(), |at| format!("its picture {at}"));
                    match (found, next) {
                        (Some(at), None) => at,
                        (Some(at), Some(_)) if unit.is_idr() => {
                            jumps += 1;
                            at
                        }
                        _ => {
                            return Err(format!(
                                "frame {i} should be the clip's picture {next:?}, but is {is} \
                                 (NAL types {:?}, complete: {})",
                                unit.types(),
                                unit.complete
                            ));
                        }
                    }
                }
            };
            next = Some((at + 1) % self.pictures.len());
            self.expect_known_nals(unit).map_err(|text| format!("frame {i}: {text}"))?;
        }
        match units.iter().any(|unit| unit.complete) {
            true => Ok(jumps),
            false => Err("no whole frame was received".into()),
        }
    }

    fn is_picture(&self, at: usize, unit: &AccessUnit) -> bool {
        unit.slices().eq(self.pictures[at].iter().map(Vec::as_slice))
    }

    fn expect_known_nals(&self, unit: &AccessUnit) -> Result<(), String> {
        for nal in &unit.nals {
            let strange = match self.codec.kind(nal) {
                Kind::ParameterSet => !self.parameter_sets.contains(nal),
                Kind::Optional | Kind::Slice | Kind::KeySlice => false,
                Kind::Other => true,
            };
            if strange {
                let nal_type = self.codec.nal_type(nal);
                return Err(format!("a NAL of type {nal_type} that is not the clip's"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip() -> Clip {
        let mut bytes = Vec::new();
        for nal in
            [&[0x67, 1][..], &[0x68, 2], &[0x65, 0x80, 1], &[0x41, 0x80, 2], &[0x41, 0x20, 3]]
        {
            bytes.extend_from_slice(&[0, 0, 0, 1]);
            bytes.extend_from_slice(nal);
        }
        Clip::parse(Codec::H264, &bytes).unwrap()
    }

    fn unit(nals: &[&[u8]]) -> AccessUnit {
        AccessUnit {
            codec: Codec::H264,
            timestamp: 0,
            nals: nals.iter().map(|nal| nal.to_vec()).collect(),
            complete: true,
        }
    }

    #[test]
    fn the_clip_is_recognised_from_any_picture_on_and_round_its_end() {
        let clip = clip();
        assert_eq!((clip.pictures(), clip.idr_count), (2, 1));
        let idr = unit(&[&[0x67, 1], &[0x68, 2], &[0x65, 0x80, 1]]);
        let two_slices = unit(&[&[0x41, 0x80, 2], &[0x41, 0x20, 3]]);
        assert_eq!(clip.expect_played(&[idr.clone(), two_slices.clone(), idr.clone()]), Ok(0));
        assert_eq!(clip.expect_played(&[two_slices.clone(), idr.clone()]), Ok(0));
        assert_eq!(clip.expect_played(&[idr.clone(), idr.clone()]), Ok(1));
        let twice = [two_slices.clone(), two_slices.clone()];
        assert!(clip.expect_played(&twice).is_err(), "the keyframe between is missing");
        assert!(clip.expect_played(&[]).is_err());
        let changed = unit(&[&[0x67, 1], &[0x68, 9], &[0x65, 0x80, 1]]);
        assert!(clip.expect_played(&[changed]).is_err(), "another parameter set");
        let torn = AccessUnit { complete: false, ..unit(&[&[0x41, 0x80, 9]]) };
        let after = [idr.clone(), torn, two_slices.clone()];
        assert_eq!(clip.expect_played(&after), Ok(0), "what is known to be torn is passed over");
        let cut = unit(&[&[0x41, 0x80, 2]]);
        assert!(clip.expect_played(&[idr, cut]).is_err(), "a slice is missing");
    }
}
