//! Frames as the firmware hands them over: copied, or lent until they are released.

use std::mem::MaybeUninit;
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
///
/// What is to be done then is kept in place, so that lending a frame allocates nothing.
pub struct LentFrame {
    data: *const u8,
    len: usize,
    /// [`release`] for the closure that `closure` holds.
    release: unsafe fn(*mut Closure, *const u8, usize),
    closure: Closure,
}

/// Room for a closure: of a function and its argument, as C has it.
type Closure = MaybeUninit<[usize; 2]>;

// SAFETY: the bytes are only read, and whoever made the frame promised in `LentFrame::new` that
// they stay where they are until the release callback has run. The closure is `Send`.
unsafe impl Send for LentFrame {}

impl LentFrame {
    /// `release` is called exactly once, with the frame's bytes, when it is not needed any more. It
    /// may capture two words.
    ///
    /// # Safety
    /// `data` must point to `len` readable bytes that do not change until `release` runs.
    pub unsafe fn new<R>(data: *const u8, len: usize, release: R) -> LentFrame
    where
        R: FnOnce(*const u8, usize) + Send + 'static,
    {
        const {
            let fits = size_of::<R>() <= size_of::<Closure>();
            assert!(
                fits && align_of::<R>() <= align_of::<Closure>(),
                "it captures two words at most"
            );
        }
        let mut closure = Closure::uninit();
        // SAFETY: it was checked that there is room.
        unsafe { closure.as_mut_ptr().cast::<R>().write(release) };
        LentFrame { data, len, release: self::release::<R>, closure }
    }
}

/// # Safety
/// `closure` holds an `R`, which is not used again.
unsafe fn release<R: FnOnce(*const u8, usize)>(closure: *mut Closure, data: *const u8, len: usize) {
    // SAFETY: promised by the caller.
    let release = unsafe { closure.cast::<R>().read() };
    release(data, len);
}

impl Drop for LentFrame {
    fn drop(&mut self) {
        // SAFETY: both were made for the same type, and a value is dropped once.
        unsafe { (self.release)(&raw mut self.closure, self.data, self.len) };
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_lent_frame_is_given_back_once_when_it_is_dropped() {
        static BYTES: [u8; 3] = [1, 2, 3];
        let (back, number) = (Arc::new(AtomicUsize::new(0)), 7);
        let count = back.clone();
        let release = move |data: *const u8, len| {
            assert_eq!((data, len), (BYTES.as_ptr(), 3));
            count.fetch_add(number, Ordering::Relaxed);
        };
        // SAFETY: the bytes never change.
        let lent = unsafe { LentFrame::new(BYTES.as_ptr(), BYTES.len(), release) };
        let moved = std::thread::spawn(move || FrameData::Lent(lent)).join().unwrap();
        assert_eq!((&moved[..], back.load(Ordering::Relaxed)), (&BYTES[..], 0));
        drop(moved);
        assert_eq!(back.load(Ordering::Relaxed), 7);
        assert_eq!(Arc::strong_count(&back), 1, "what the closure held is freed");
    }
}
