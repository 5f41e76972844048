//! What `p2p_push_frame` asks of the allocator on the caller's thread: nothing for a lent frame, one
//! copy for another; and `p2p_push_audio`: nothing. Counted by the allocator itself, on this thread only.

#![allow(clippy::unwrap_used, reason = "tests")]

use p2pcam::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all is done by the system's allocator; counting touches thread-locals without a
// destructor or an allocation of their own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        BYTES.set(BYTES.get() + layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// SPS, PPS and an IDR slice of as many bytes.
fn keyframe(len: usize) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x0a, 0xda, 0x7b, 0x96];
    frame.extend([0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80, 0, 0, 0, 1, 0x65, 0x88]);
    frame.resize(len, 0x55);
    frame
}

static RELEASED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn on_release(user: *mut c_void, data: *const u8, size: usize) {
    assert!(!user.is_null() && !data.is_null() && size == FRAME_LEN);
    RELEASED.fetch_add(1, Ordering::Release);
}

const FRAME_LEN: usize = 40_000;
const FRAMES: usize = 200;

struct Encoder {
    stream: *mut p2p_stream_t,
    data: Vec<u8>,
    pushed: u64,
    lent: usize,
}

impl Encoder {
    /// Allocations of one call, and their bytes.
    fn push(&mut self, release: p2p_release_fn) -> (usize, usize) {
        let mut user = 0_u8;
        let frame = p2p_frame_t {
            struct_size: size_of::<p2p_frame_t>(),
            data: self.data.as_ptr(),
            size: self.data.len(),
            timestamp_us: 33_333 * self.pushed,
            release,
            release_user: (&raw mut user).cast(),
        };
        self.pushed += 1;
        self.lent += usize::from(release.is_some());
        let before = (ALLOCATIONS.get(), BYTES.get());
        // SAFETY: the data stays as it is until the test has ended.
        let status = unsafe { p2p_push_frame(self.stream, &frame) };
        let after = (ALLOCATIONS.get(), BYTES.get());
        assert_eq!(status, p2p_status_t::P2P_OK);
        (after.0 - before.0, after.1 - before.1)
    }

    /// Until the agent has taken all frames up to the last one lent.
    fn wait(&self) {
        let enough = (0..10_000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            RELEASED.load(Ordering::Acquire) == self.lent
        });
        assert!(enough, "{} frames lent, {RELEASED:?} came back", self.lent);
    }

    /// Of all calls but the first, which may set this thread up.
    fn push_all(&mut self, release: p2p_release_fn) -> (usize, usize) {
        let mut sum = (0, 0);
        for number in 0..FRAMES + 1 {
            let (allocations, bytes) = self.push(release);
            if number > 0 {
                sum = (sum.0 + allocations, sum.1 + bytes);
            }
            if release.is_none() {
                self.push(Some(on_release));
            }
            self.wait();
        }
        sum
    }
}

fn start_agent() -> *mut p2p_agent_t {
    let config = p2p_config_t {
        struct_size: size_of::<p2p_config_t>(),
        device_id: c"CAM-TEST".as_ptr(),
        // Nobody listens there.
        broker_url: c"mqtt://127.0.0.1:1".as_ptr(),
        service_public_key: c"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
            .as_ptr(),
        // SAFETY: all fields are pointers, numbers and optional functions, which zero is a value of.
        ..unsafe { std::mem::zeroed() }
    };
    let mut agent = ptr::null_mut();
    // SAFETY: the struct and its texts live until the call returns.
    assert_eq!(unsafe { p2p_init(&config, &mut agent) }, p2p_status_t::P2P_OK);
    agent
}

/// Once each place of the queue was used: their memory is used again.
#[test]
fn sound_costs_the_caller_no_allocation() {
    let agent = start_agent();
    let size = size_of::<p2p_audio_config_t>();
    let config = p2p_audio_config_t { struct_size: size, codec: P2P_AUDIO_OPUS, direction: 0 };
    let mut audio = ptr::null_mut();
    // SAFETY: the struct lives until the call returns.
    let status = unsafe { p2p_start_audio(agent, &config, &mut audio) };
    assert_eq!(status, p2p_status_t::P2P_OK);
    let packet = [1 << 3; 160];
    let mut counts = (0..400_u64).map(|n| {
        let frame = p2p_audio_frame_t {
            struct_size: size_of::<p2p_audio_frame_t>(),
            data: packet.as_ptr(),
            size: packet.len(),
            timestamp_us: 20_000 * n,
        };
        let before = ALLOCATIONS.get();
        // SAFETY: the struct and its data live until the call returns.
        let status = unsafe { p2p_push_audio(audio, &frame) };
        let count = ALLOCATIONS.get() - before;
        assert_eq!(status, p2p_status_t::P2P_OK);
        // The agent takes it; more than one at a time would be fine too.
        std::thread::sleep(Duration::from_millis(1));
        count
    });
    let first: usize = counts.by_ref().take(100).sum();
    let rest: usize = counts.sum();
    assert_eq!(p2p_deinit(agent), p2p_status_t::P2P_OK);
    assert!(first > 0, "the places grow once");
    assert_eq!(rest, 0);
}

#[test]
fn a_lent_frame_costs_the_caller_no_allocation_and_no_copy() {
    let agent = start_agent();
    let stream_config = p2p_stream_config_t {
        struct_size: size_of::<p2p_stream_config_t>(),
        name: c"main".as_ptr(),
        codec: P2P_CODEC_H264,
        // SAFETY: all fields are pointers and numbers, which zero is a value of.
        ..unsafe { std::mem::zeroed() }
    };
    let mut stream = ptr::null_mut();
    // SAFETY: the struct and its text live until the call returns.
    let status = unsafe { p2p_start_stream(agent, &stream_config, &mut stream) };
    assert_eq!(status, p2p_status_t::P2P_OK);
    let mut encoder = Encoder { stream, data: keyframe(FRAME_LEN), pushed: 0, lent: 0 };
    let lent = encoder.push_all(Some(on_release));
    let copied = encoder.push_all(None);
    assert_eq!(p2p_deinit(agent), p2p_status_t::P2P_OK);

    println!("{FRAMES} frames of {FRAME_LEN} bytes: lent {lent:?}, copied {copied:?}");
    assert_eq!(lent, (0, 0));
    assert_eq!(copied, (FRAMES, FRAMES * FRAME_LEN), "one copy each");
}
