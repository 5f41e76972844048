//! The way from any of the firmware's threads to the agent's: a bounded queue.

use super::lock;
use crate::event::StreamId;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// One access unit on its way to the agent.
pub(super) struct Queued {
    pub(super) stream: StreamId,
    pub(super) data: super::FrameData,
    pub(super) timestamp: Duration,
    pub(super) pushed: Instant,
    /// Frames of this stream were lost before this one, so it can only be shown if it is a
    /// keyframe.
    pub(super) after_gap: bool,
}

/// Frames of all streams, in the order in which they were pushed.
///
/// Bound: [`FrameQueue::CAPACITY`] frames. A frame that finds it full is refused, and its stream
/// goes on at the next keyframe.
pub(super) struct FrameQueue {
    /// Held for one move of a frame's header, never while anything is done with it. Not
    /// `heapless::mpmc`: its positions are bytes, so a producer that is preempted while others push
    /// 256 frames takes an old position for its own; the queue then spins for ever or loses frames.
    frames: Mutex<heapless::Deque<Queued, { FrameQueue::CAPACITY }>>,
    gaps: [AtomicBool; super::MAX_STREAMS],
    /// Frames that found it full, by the slot of their stream.
    refused: [AtomicU32; super::MAX_STREAMS],
    wake: tokio::sync::Notify,
}

impl FrameQueue {
    /// Half a second of four streams at 30 frames a second.
    pub(super) const CAPACITY: usize = 64;

    pub(super) fn new() -> FrameQueue {
        FrameQueue {
            frames: Mutex::new(heapless::Deque::new()),
            gaps: [const { AtomicBool::new(false) }; super::MAX_STREAMS],
            refused: [const { AtomicU32::new(0) }; super::MAX_STREAMS],
            wake: tokio::sync::Notify::new(),
        }
    }

    /// False if the queue is full; the frame is dropped, which releases it.
    pub(super) fn push(&self, slot: usize, mut frame: Queued) -> bool {
        frame.after_gap = self.gaps.get(slot).is_some_and(|gap| gap.swap(false, Ordering::AcqRel));
        let refused = lock(&self.frames).push_back(frame);
        match refused {
            Ok(()) => {
                self.wake.notify_one();
                true
            }
            Err(_refused) => {
                if let Some(gap) = self.gaps.get(slot) {
                    gap.store(true, Ordering::Release);
                }
                if let Some(refused) = self.refused.get(slot) {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
                false
            }
        }
    }

    /// How many frames of the stream in this slot found it full.
    pub(super) fn refused(&self, slot: usize) -> u32 {
        self.refused.get(slot).map_or(0, |refused| refused.load(Ordering::Relaxed))
    }

    /// Another stream takes the slot.
    pub(super) fn forget(&self, slot: usize) {
        if let Some(refused) = self.refused.get(slot) {
            refused.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn pop(&self) -> Option<Queued> {
        lock(&self.frames).pop_front()
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
            pushed: crate::driver::run::now().instant,
            after_gap: false,
        }
    }

    #[test]
    fn a_full_queue_refuses_and_the_next_frame_knows() {
        let queue = FrameQueue::new();
        while queue.push(0, frame()) {}
        assert_eq!((queue.refused(0), queue.refused(1)), (1, 0));
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
