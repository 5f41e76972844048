//! The clip, picture by picture and on time, round and round.

use hil_tests::clip::Clip;
use hil_tests::clock;
use std::path::Path;
use std::time::{Duration, Instant};

const FRAMES_PER_SECOND: u32 = 30;

pub(crate) struct Pictures<T> {
    pictures: Vec<T>,
    start: Instant,
    number: u32,
}

impl<T: Clone + From<Vec<u8>>> Pictures<T> {
    pub(crate) fn read(clip: &str) -> Result<Pictures<T>, String> {
        let clip = Clip::read(Path::new(clip))?;
        let pictures = clip.annexb_pictures().into_iter().map(T::from).collect();
        Ok(Pictures { pictures, start: clock::now(), number: 0 })
    }

    /// When the next one is due.
    pub(crate) fn due(&self) -> Instant {
        self.start + self.timestamp()
    }

    /// The next one, with its time since the first.
    pub(crate) fn next(&mut self) -> (T, Duration) {
        let timestamp = self.timestamp();
        let at = self.number as usize % self.pictures.len();
        self.number += 1;
        (self.pictures[at].clone(), timestamp)
    }

    fn timestamp(&self) -> Duration {
        Duration::from_secs(1) * self.number / FRAMES_PER_SECOND
    }
}
