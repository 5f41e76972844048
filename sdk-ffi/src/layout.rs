//! The structs that C hands over, to be read or to be filled: each begins with its own size, so that
//! firmware and library of different versions understand each other.
//!
//! - A size that some version of the struct had: accepted; fields that version did not have are zero,
//!   which always means the default, and are left out of what is filled.
//! - Larger than the library's own: written by newer firmware. Accepted if what the library does not
//!   know is all zero, since then nothing was asked for that it cannot do. What is filled is zero there.
//! - Anything else, also zero: refused. A size between two versions would cut a field in half.

use crate::status::{Error, p2p_status_t};
use std::mem::{MaybeUninit, size_of};
use std::ptr;

/// A struct that C fills in.
///
/// # Safety
/// `repr(C)`, first field `struct_size: usize`, no padding at its end, and all zero bytes are a
/// valid value of it, as is anything that C may write into its fields.
pub(crate) unsafe trait Versioned: Copy {
    const NAME: &'static str;
    /// The sizes of all versions, oldest first; the last is the present one.
    const SIZES: &'static [usize];
}

/// No struct will ever be as large; a size beyond is a struct that was never initialised.
const MAX_SIZE: usize = 1024;

/// # Safety
/// `from` is NULL or points to a `usize` followed by as many readable bytes as it says, at least if
/// that is a size which can be accepted.
pub(crate) unsafe fn read<T: Versioned>(from: *const T, argument: &str) -> Result<T, Error> {
    if from.is_null() {
        return Err(Error::argument(format!("{argument} is NULL: expected a {}", T::NAME)));
    }
    // SAFETY: promised by the caller. Unaligned, because C's casts are not ours to trust.
    let size = accept::<T>(unsafe { from.cast::<usize>().read_unaligned() })?;
    let known = size_of::<T>();
    if size > known {
        // SAFETY: `size` bytes are readable, as promised by the caller.
        let unknown =
            unsafe { std::slice::from_raw_parts(from.cast::<u8>().add(known), size - known) };
        if unknown.iter().any(|byte| *byte != 0) {
            return refuse(format!(
                "{} has {size} bytes, this library knows {known}, and the rest is not zero: it asks \
                 for something only a newer library can do",
                T::NAME
            ));
        }
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: both are valid for the smaller of the two sizes; zero is valid for what is left, and
    // `Versioned` promises that whatever C wrote is valid too.
    unsafe {
        ptr::copy_nonoverlapping(
            from.cast::<u8>(),
            value.as_mut_ptr().cast::<u8>(),
            size.min(known),
        );
        Ok(value.assume_init())
    }
}

/// Structs of C that lie one behind the other, to be filled. All are of the first one's size.
pub(crate) struct Place<T> {
    first: *mut T,
    size: usize,
    room: usize,
}

impl<T: Versioned> Place<T> {
    /// `None` where `first` is NULL.
    ///
    /// # Safety
    /// `first` is NULL or points to `room` structs, at least one, each of as many writable bytes as
    /// the `usize` there says, at least if that is a size which can be accepted.
    pub(crate) unsafe fn of(
        first: *mut T,
        room: usize,
        argument: &str,
    ) -> Result<Option<Place<T>>, Error> {
        if first.is_null() {
            return Ok(None);
        }
        // SAFETY: promised by the caller.
        let size = accept::<T>(unsafe { first.cast::<usize>().read_unaligned() })?;
        if room.checked_mul(size).is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(Error::argument(format!("{argument} cannot have {room} elements")));
        }
        Ok(Some(Place { first, size, room }))
    }

    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// Fills one struct, but for its `struct_size`, which it gets from the first one.
    ///
    /// # Safety
    /// The promise of [`Place::of`] still holds, and `at` is less than its room.
    pub(crate) unsafe fn write(&self, at: usize, value: T) {
        let known = self.size.min(size_of::<T>());
        // SAFETY: all is within the struct, whose bytes the caller promised. Without regard to
        // alignment, because C's casts are not ours to trust.
        unsafe {
            let to = self.first.cast::<u8>().add(at * self.size);
            ptr::copy_nonoverlapping(ptr::from_ref(&value).cast::<u8>(), to, known);
            to.add(known).write_bytes(0, self.size - known);
            to.cast::<usize>().write_unaligned(self.size);
        }
    }
}

/// A size that some version of the struct had, or may get.
fn accept<T: Versioned>(size: usize) -> Result<usize, Error> {
    let known = size_of::<T>();
    let newer = known < size && size <= MAX_SIZE;
    if newer || T::SIZES.contains(&size) {
        return Ok(size);
    }
    refuse(format!(
        "struct_size of {} is {size}: expected {known}; initialise it with its _INIT macro",
        T::NAME
    ))
}

fn refuse<R>(why: String) -> Result<R, Error> {
    Err(Error::new(p2p_status_t::P2P_ERR_STRUCT_SIZE, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Second {
        struct_size: usize,
        old: u64,
        new: u64,
    }

    // SAFETY: integers only, no padding.
    unsafe impl Versioned for Second {
        const NAME: &'static str = "second_t";
        const SIZES: &'static [usize] = &[size_of::<usize>() + 8, size_of::<Second>()];
    }

    #[repr(C)]
    struct Third {
        known: Second,
        newest: u64,
    }

    fn third(size: usize, newest: u64) -> Result<Second, Error> {
        let value = Third { known: Second { struct_size: size, old: 1, new: 2 }, newest };
        unsafe { read(ptr::from_ref(&value).cast(), "value") }
    }

    #[test]
    fn older_structs_get_defaults_and_newer_ones_pass_if_they_ask_for_nothing() {
        assert_eq!(third(Second::SIZES[0], 9).unwrap().new, 0);
        assert_eq!(third(Second::SIZES[1], 9).unwrap().new, 2);
        assert_eq!(third(size_of::<Third>(), 0).unwrap().new, 2);
        assert!(third(size_of::<Third>(), 9).is_err());
    }

    #[test]
    fn all_other_sizes_are_refused() {
        for size in (0..=size_of::<Second>()).chain([MAX_SIZE + 1, 1 << 20, usize::MAX]) {
            if !Second::SIZES.contains(&size) {
                let error = third(size, 0).map(|_| ()).unwrap_err();
                assert_eq!(error.status, p2p_status_t::P2P_ERR_STRUCT_SIZE, "{size}");
            }
        }
        let error = unsafe { read::<Second>(ptr::null(), "value") }.map(|_| ()).unwrap_err();
        assert_eq!(error.status, p2p_status_t::P2P_ERR_ARGUMENT);
    }

    #[test]
    fn structs_of_other_versions_are_filled_as_far_as_they_go() {
        let value = Second { struct_size: 0, old: 1, new: 2 };
        for size in [Second::SIZES[0], Second::SIZES[1], size_of::<Third>()] {
            let mut words = [9_usize; 2 * size_of::<Third>() / size_of::<usize>() + 1];
            words[0] = size;
            let first = words.as_mut_ptr().cast::<Second>();
            let place = unsafe { Place::of(first, 2, "value") }.unwrap().unwrap();
            unsafe {
                place.write(0, value);
                place.write(1, value);
            }
            let filled = size.min(size_of::<Second>()) / size_of::<usize>();
            for element in words[..2 * size / size_of::<usize>()].chunks(size / size_of::<usize>())
            {
                assert_eq!(element[0], size);
                let known = u64::from(element[1] as u32);
                assert_eq!((known, element[filled..].iter().all(|word| *word == 0)), (1, true));
            }
            assert!(words[2 * size / size_of::<usize>()..].iter().all(|word| *word == 9));
        }
        assert!(unsafe { Place::<Second>::of(ptr::null_mut(), 0, "value") }.unwrap().is_none());
    }

    #[test]
    fn arrays_that_no_memory_holds_are_refused() {
        let mut value = Second { struct_size: size_of::<Second>(), old: 1, new: 2 };
        let error = unsafe { Place::of(&raw mut value, usize::MAX / 2, "value") };
        assert_eq!(error.err().unwrap().status, p2p_status_t::P2P_ERR_ARGUMENT);
        value.struct_size = 1;
        let error = unsafe { Place::of(&raw mut value, 1, "value") };
        assert_eq!(error.err().unwrap().status, p2p_status_t::P2P_ERR_STRUCT_SIZE);
    }
}
