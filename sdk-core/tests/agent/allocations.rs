//! What the whole agent asks of the allocator while viewers just watch: nothing, frame after frame,
//! report after report. Counted by the allocator itself, on this thread, in the agent's calls only.

use crate::viewer::{FakeViewer, GCM_AND_CM};
use crate::world::World;
use crate::{delta, idr};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static IN_AGENT: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if IN_AGENT.get() {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    }
}

// SAFETY: all is done by the system's allocator; counting touches thread-locals without a
// destructor or an allocation of their own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs a call into the agent, whose allocations count.
pub(crate) fn counted<R>(call: impl FnOnce() -> R) -> R {
    IN_AGENT.set(true);
    let result = call();
    IN_AGENT.set(false);
    result
}

/// Allocations of the agent's calls while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// 30 frames a second with a keyframe every two seconds.
fn watch(world: &mut World, frames: std::ops::Range<u32>) {
    for n in frames {
        let frame = if n % 60 == 0 { idr(40_000, n as u8) } else { delta(7000, n as u8) };
        world.push_frame(&frame, Duration::from_millis(33) * (n + 100));
        world.run(Duration::from_millis(33));
    }
}

#[test]
fn a_viewer_that_watches_costs_no_allocation() {
    for viewers in [1, 8] {
        let mut world = World::new(|_| ());
        world.push_frame(&idr(3000, 1), Duration::ZERO);
        for n in 1..=viewers {
            let id = world.join(FakeViewer::new(&format!("198.51.100.{n}:5000"), GCM_AND_CM), n);
            world.run(Duration::from_secs(1));
            assert!(world.is_connected(id), "{:?}", world.events);
        }
        for viewer in &mut world.viewers {
            viewer.send_feedback(world.now.instant);
        }
        watch(&mut world, 0..300);
        let packets = |world: &World| world.viewers.iter().map(|v| v.packets.len()).sum::<usize>();
        let before = packets(&world);
        let count = allocations(|| watch(&mut world, 300..600));
        let packets = packets(&world) - before;
        println!("{viewers} viewers: {count} allocations, {packets} packets");
        assert!(packets > 2500 * usize::from(viewers));
        assert_eq!(count, 0);
    }
}
