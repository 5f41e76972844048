//! Frames as the firmware hands them over: copied, or lent until they are released.

use std::time::Duration;

/// One access unit, as the encoder made it.
pub struct Frame {
    pub data: FrameData,
    /// On the encoder's own clock; see [`crate::media::frame_clock`] for what its jumps mean.
    pub timestamp: Duration,
}

/// The access unit's bytes (Annex B), copied or lent.
pub enum FrameData {
    Owned(Vec<u8>),
    /// Lent by the firmware; `release` runs exactly once, when this is dropped.
    Lent(LentFrame),
}

/// A buffer that belongs to the firmware until this is dropped.
pub struct LentFrame {
    data: *const u8,
    len: usize,
    release: Option<Box<dyn FnOnce() + Send>>,
}

// SAFETY: the bytes are only read, and whoever made the frame promised in `LentFrame::new` that
// they stay where they are until the release callback has run.
unsafe impl Send for LentFrame {}

impl LentFrame {
    /// # Safety
    /// `data` must point to `len` readable bytes that do not change until `release` runs.
    pub unsafe fn new(data: *const u8, len: usize, release: Box<dyn FnOnce() + Send>) -> LentFrame {
        LentFrame { data, len, release: Some(release) }
    }
}

impl Drop for LentFrame {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            release();
        }
    }
}

impl std::ops::Deref for FrameData {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            FrameData::Owned(bytes) => bytes,
            // SAFETY: promised by the caller of `LentFrame::new`.
            FrameData::Lent(lent) => unsafe { std::slice::from_raw_parts(lent.data, lent.len) },
        }
    }
}
