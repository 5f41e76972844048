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

/// 30 frames a second with a keyframe every two seconds, for that long.
fn watch(world: &mut World, frames: &mut u32, time: Duration) {
    let end = world.now.instant + time;
    while world.now.instant < end {
        let n = *frames;
        let frame = if n.is_multiple_of(60) { idr(40_000, n as u8) } else { delta(7000, n as u8) };
        world.push_frame(&frame, Duration::from_millis(33) * (n + 100));
        world.run(Duration::from_millis(33));
        *frames += 1;
    }
}

/// Frames, feedback, sender reports and consent checks; everything but the keepalives of signaling,
/// which come every 20 s.
#[test]
fn a_viewer_that_watches_costs_no_allocation() {
    for viewers in [1, 8] {
        let mut world = World::new(|_| ());
        let start = world.now.instant;
        world.push_frame(&idr(3000, 1), Duration::ZERO);
        for n in 1..=viewers {
            let id = world.join(FakeViewer::new(&format!("198.51.100.{n}:5000"), GCM_AND_CM), n);
            world.run(Duration::from_millis(800));
            assert!(world.is_connected(id), "{:?}", world.events);
        }
        for viewer in &mut world.viewers {
            viewer.send_feedback(world.now.instant);
        }
        // Until all have sent their first keepalive.
        let mut frames = 0;
        let until = start + Duration::from_secs(28) - world.now.instant;
        watch(&mut world, &mut frames, until);

        let look = |world: &World| {
            let packets: usize = world.viewers.iter().map(|v| v.packets.len()).sum();
            let reports: usize = world.viewers.iter().map(|v| v.rtcp.len()).sum();
            (packets, reports, world.signals.len())
        };
        let before = look(&world);
        let count = allocations(|| watch(&mut world, &mut frames, Duration::from_secs(11)));
        let after = look(&world);
        let (packets, reports) = (after.0 - before.0, after.1 - before.1);
        println!("{viewers} viewers: {count} allocations, {packets} packets, {reports} reports");
        assert_eq!(before.2, after.2, "no keepalive falls in between");
        assert!(packets > 2000 * usize::from(viewers) && reports >= 10 * usize::from(viewers));
        assert_eq!(count, 0);
    }
}

/// What a keepalive costs, so that it stays a handful: two signals, to the viewer and the service.
#[test]
fn a_keepalive_costs_a_handful() {
    let mut world = World::new(|_| ());
    world.push_frame(&idr(3000, 1), Duration::ZERO);
    world.join(FakeViewer::new("198.51.100.1:5000", GCM_AND_CM), 1);
    world.run(Duration::from_secs(35));
    let before = world.signals.len();
    let count = allocations(|| world.run(Duration::from_secs(20)));
    println!("{count} allocations in 20 s");
    assert_eq!(world.signals.len() - before, 2);
    assert!(count <= 12, "{count}");
}
