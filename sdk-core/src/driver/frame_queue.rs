//! The way from any of the firmware's threads to the agent's: a bounded queue without a lock.

use crate::event::StreamId;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// One access unit on its way to the agent.
pub(super) struct Queued {
    pub(super) stream: StreamId,
    pub(super) data: super::FrameData,
    pub(super) timestamp: Duration,
    /// Frames of this stream were lost before this one, so it can only be shown if it is a
    /// keyframe.
    pub(super) after_gap: bool,
}

/// Frames of all streams, in the order in which they were pushed.
///
/// Bound: [`FrameQueue::CAPACITY`] frames. A frame that finds it full is refused, and its stream
/// goes on at the next keyframe.
pub(super) struct FrameQueue {
    frames: heapless::mpmc::Queue<Queued, { FrameQueue::CAPACITY }>,
    gaps: [AtomicBool; super::MAX_STREAMS],
    wake: tokio::sync::Notify,
}

impl FrameQueue {
    /// Half a second of four streams at 30 frames a second.
    pub(super) const CAPACITY: usize = 64;

    #[expect(
        deprecated,
        reason = "a thread that is preempted inside `enqueue` may make others fail or see nothing; \
                  a frame that fails is dropped as by a full queue, and one that is not seen is \
                  when its own wake-up comes"
    )]
    pub(super) fn new() -> FrameQueue {
        FrameQueue {
            frames: heapless::mpmc::Queue::new(),
            gaps: [const { AtomicBool::new(false) }; super::MAX_STREAMS],
            wake: tokio::sync::Notify::new(),
        }
    }

    /// False if the queue is full; the frame is dropped, which releases it.
    pub(super) fn push(&self, slot: usize, mut frame: Queued) -> bool {
        frame.after_gap = self.gaps.get(slot).is_some_and(|gap| gap.swap(false, Ordering::AcqRel));
        match self.frames.enqueue(frame) {
            Ok(()) => {
                self.wake.notify_one();
                true
            }
            Err(_refused) => {
                if let Some(gap) = self.gaps.get(slot) {
                    gap.store(true, Ordering::Release);
                }
                false
            }
        }
    }

    pub(super) fn pop(&self) -> Option<Queued> {
        self.frames.dequeue()
    }

    /// Resolves when something was pushed since the last time.
    pub(super) async fn wait(&self) {
        self.wake.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::FrameData;

    fn frame() -> Queued {
        Queued {
            stream: StreamId(1),
            data: FrameData::Owned(vec![1]),
            timestamp: Duration::ZERO,
            after_gap: false,
        }
    }

    #[test]
    fn a_full_queue_refuses_and_the_next_frame_knows() {
        let queue = FrameQueue::new();
        while queue.push(0, frame()) {}
        let mut taken = 0;
        while let Some(frame) = queue.pop() {
            assert!(!frame.after_gap);
            taken += 1;
        }
        assert!((FrameQueue::CAPACITY - 1..=FrameQueue::CAPACITY).contains(&taken));
        assert!(queue.push(1, frame()) && queue.push(0, frame()) && queue.push(0, frame()));
        let gaps: Vec<bool> = std::iter::from_fn(|| queue.pop()).map(|f| f.after_gap).collect();
        assert_eq!(gaps, [false, true, false]);
    }
}
