//! Randomness as it is passed in: unguessable for whoever does not know the seed, and the same
//! again for whoever does, so that a failing run can be played once more.

use ring::hmac;

/// A generator over a 32-byte seed: HMAC-SHA256 of a counter. Slow and small; it is asked a few
/// times a session.
pub struct Random {
    key: hmac::Key,
    counter: u64,
}

impl Random {
    pub fn new(seed: &[u8; 32]) -> Random {
        Random { key: hmac::Key::new(hmac::HMAC_SHA256, seed), counter: 0 }
    }

    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(32) {
            self.counter += 1;
            let block = hmac::sign(&self.key, &self.counter.to_be_bytes());
            for (to, from) in chunk.iter_mut().zip(block.as_ref()) {
                *to = *from;
            }
        }
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (mut a, mut b) = (Random::new(&[1; 32]), Random::new(&[1; 32]));
        let first: [u8; 40] = a.bytes();
        assert_eq!(first, b.bytes::<40>());
        assert_ne!(first, a.bytes::<40>());
        assert_ne!(first, Random::new(&[2; 32]).bytes::<40>());
    }
}
