//! The library's version.

use std::ffi::c_char;

/// The version of this header. It only grows: p2p_version() tells the library's own.
pub const P2P_VERSION_MAJOR: i32 = 0;
pub const P2P_VERSION_MINOR: i32 = 1;
pub const P2P_VERSION_PATCH: i32 = 0;

/// The version of the library that is linked, as "major.minor.patch". Constant, never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn p2p_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_names_the_version_of_the_package() {
        let header = format!("{P2P_VERSION_MAJOR}.{P2P_VERSION_MINOR}.{P2P_VERSION_PATCH}");
        assert_eq!(header, env!("CARGO_PKG_VERSION"));
    }
}
