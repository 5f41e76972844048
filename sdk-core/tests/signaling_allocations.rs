//! What reading an offer and writing its answer cost in allocations: a camera has little memory,
//! and Chrome's offers are long.

#![allow(clippy::unwrap_used, reason = "a test")]

use sdk_core::wire::sdp::{Answer, Description, Fingerprint, StreamFormat};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATIONS.get();
    let done = work();
    (done, ALLOCATIONS.get() - before)
}

#[test]
fn an_offer_of_chromium_costs_few_allocations() {
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/sdp/chromium_video_audio_data.sdp");
    let text = std::fs::read_to_string(path).unwrap();
    let (offer, parsing) = allocations(|| Description::parse(&text).unwrap());
    let (choice, choosing) = allocations(|| offer.choose_video(StreamFormat::H264(None)).unwrap());
    let answer = Answer {
        offer: &offer,
        choice: &choice,
        audio: None,
        data: None,
        session_number: 1,
        version: 1,
        ice_ufrag: "camU",
        ice_pwd: "0123456789012345678901",
        fingerprint: Fingerprint::of(b""),
        ssrc: 1,
        rtx_ssrc: 2,
        audio_ssrc: 3333,
        cname: "camera",
        stream_id: "main",
        track_id: "video",
        candidates: &[],
        end_of_candidates: false,
    };
    let (_, writing) = allocations(|| answer.write());
    println!("parse {parsing}, choose {choosing}, write {writing} ({} characters)", text.len());
    assert!(parsing <= 24 && choosing <= 6 && writing <= 2, "{parsing} {choosing} {writing}");
}
