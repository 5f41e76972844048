//! Where panics stop, and where a thread remembers that it is inside one of the firmware's callbacks.

use crate::status::{Error, p2p_status_t, set_last_error};
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs one call of the C API: its error becomes a status and this thread's text, and a panic
/// becomes `P2P_ERR_INTERNAL`, because it must not unwind into C.
pub(crate) fn enter(call: impl FnOnce() -> Result<(), Error>) -> p2p_status_t {
    // Nothing of ours is left half-changed by a panic: locks are taken without regard to poison,
    // and under them only whole entries are added or removed.
    let error = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => return p2p_status_t::P2P_OK,
        Ok(Err(error)) => error,
        Err(panic) => Error::new(p2p_status_t::P2P_ERR_INTERNAL, describe(panic)),
    };
    set_last_error(&error.text);
    error.status
}

/// Refuses what would wait for the very callback it is called from.
pub(crate) fn not_in_callback(name: &str) -> Result<(), Error> {
    if CALLBACKS.get() == 0 {
        return Ok(());
    }
    Err(Error::new(
        p2p_status_t::P2P_ERR_IN_CALLBACK,
        format!("{name} was called from inside a callback: call it from a thread of your own"),
    ))
}

/// Marks this thread as being inside a callback while `call` runs.
pub(crate) fn in_callback<R>(call: impl FnOnce() -> R) -> R {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            CALLBACKS.set(CALLBACKS.get() - 1);
        }
    }
    CALLBACKS.set(CALLBACKS.get() + 1);
    let _leave = Leave;
    call()
}

fn describe(panic: Box<dyn Any + Send>) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no text".into());
    // A foreign payload's own drop could panic again, outside of the boundary.
    std::mem::forget(panic);
    format!("a fault inside the library was contained: {text}")
}

thread_local! {
    static CALLBACKS: Cell<u32> = const { Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::p2p_last_error;
    use std::ffi::CStr;

    #[test]
    fn a_panic_becomes_a_status_and_a_text() {
        assert_eq!(enter(|| panic!("broken {}", 1)), p2p_status_t::P2P_ERR_INTERNAL);
        let text = unsafe { CStr::from_ptr(p2p_last_error()) }.to_str().unwrap();
        assert!(text.ends_with("broken 1"), "{text}");
        assert_eq!(
            enter(|| std::panic::resume_unwind(Box::new(7))),
            p2p_status_t::P2P_ERR_INTERNAL
        );
    }

    #[test]
    fn callbacks_nest() {
        in_callback(|| {
            in_callback(|| ());
            assert_eq!(
                not_in_callback("p2p_deinit").unwrap_err().status,
                p2p_status_t::P2P_ERR_IN_CALLBACK
            );
        });
        assert!(not_in_callback("p2p_deinit").is_ok());
    }
}
