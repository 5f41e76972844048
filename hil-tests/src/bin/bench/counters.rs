//! Counts what the device's process asks of the allocator and of the kernel: a counting global
//! allocator, and the C library's send functions, which this binary defines in its place. Both
//! see every crate that is linked in, and cost an atomic addition.

use crate::wire;
use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static SENDS: AtomicU64 = AtomicU64::new(0);

/// Calls of `alloc` and `realloc` so far, by all threads.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.load(Ordering::Relaxed)
}

/// Send system calls on datagram sockets so far, by all threads.
pub(crate) fn datagram_sends() -> u64 {
    SENDS.load(Ordering::Relaxed)
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Counts the call if it is on a datagram socket: MQTT's are none of ours.
fn count(socket: c_int) {
    let mut kind: c_int = 0;
    let mut len = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: both pointers are to locals of the right size.
    let known = unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_TYPE,
            (&raw mut kind).cast::<c_void>(),
            &raw mut len,
        )
    };
    if known == 0 && kind == libc::SOCK_DGRAM {
        SENDS.fetch_add(1, Ordering::Relaxed);
    }
}

/// # Safety
/// As sendmsg(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn sendmsg(socket: c_int, message: *const libc::msghdr, flags: c_int) -> isize {
    count(socket);
    // SAFETY: the caller's own arguments.
    unsafe {
        let sent = libc::syscall(libc::SYS_sendmsg, socket, message, flags) as isize;
        note(&*message);
        sent
    }
}

/// # Safety
/// As sendmmsg(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn sendmmsg(
    socket: c_int,
    messages: *mut libc::mmsghdr,
    len: c_uint,
    flags: c_int,
) -> c_int {
    count(socket);
    // SAFETY: the caller's own arguments.
    unsafe {
        let sent = libc::syscall(libc::SYS_sendmmsg, socket, messages, len, flags) as c_int;
        for message in 0..usize::try_from(sent).unwrap_or(0) {
            note(&(*messages.add(message)).msg_hdr);
        }
        sent
    }
}

/// Has the message's first bytes looked at.
///
/// # Safety
/// As sendmsg(2) wants it.
unsafe fn note(message: &libc::msghdr) {
    if message.msg_iovlen > 0 {
        // SAFETY: the caller's promise.
        unsafe {
            let part = *message.msg_iov;
            wire::on_sent(std::slice::from_raw_parts(part.iov_base.cast(), part.iov_len));
        }
    }
}

/// # Safety
/// As sendto(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn sendto(
    socket: c_int,
    bytes: *const c_void,
    len: usize,
    flags: c_int,
    to: *const c_void,
    to_len: libc::socklen_t,
) -> isize {
    count(socket);
    // SAFETY: the caller's own arguments.
    unsafe { raw_sendto(socket, bytes, len, flags, to, to_len) }
}

/// # Safety
/// As send(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn send(socket: c_int, bytes: *const c_void, len: usize, flags: c_int) -> isize {
    count(socket);
    // SAFETY: the caller's own arguments; send is sendto without an address.
    unsafe { raw_sendto(socket, bytes, len, flags, std::ptr::null(), 0) }
}

unsafe fn raw_sendto(
    socket: c_int,
    bytes: *const c_void,
    len: usize,
    flags: c_int,
    to: *const c_void,
    to_len: libc::socklen_t,
) -> isize {
    // SAFETY: passed on from the caller.
    unsafe {
        let sent = libc::syscall(libc::SYS_sendto, socket, bytes, len, flags, to, to_len) as isize;
        wire::on_sent(std::slice::from_raw_parts(bytes.cast(), len));
        sent
    }
}
