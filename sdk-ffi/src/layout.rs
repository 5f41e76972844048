//! Reading the structs that C hands over: each begins with its own size, so that firmware and library
//! of different versions understand each other.
//!
//! - A size that some version of the struct had: accepted; fields that version did not have are zero,
//!   which always means the default.
//! - Larger than the library's own: written by newer firmware. Accepted if what the library does not
//!   know is all zero, since then nothing was asked for that it cannot do.
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
    let size = unsafe { from.cast::<usize>().read_unaligned() };
    let known = size_of::<T>();
    let refuse = |why: String| Err(Error::new(p2p_status_t::P2P_ERR_STRUCT_SIZE, why));
    let newer = known < size && size <= MAX_SIZE;
    if !newer && !T::SIZES.contains(&size) {
        return refuse(format!(
            "struct_size of {} is {size}: expected {known}; initialise it with its _INIT macro",
            T::NAME
        ));
    }
    if newer {
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
}
