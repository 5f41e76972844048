//! From the agent's thread to all others: the latest snapshot of what was counted.
//!
//! Not computed when it is asked for: that would have the firmware's thread wait for the agent, or
//! the agent lock what it counts, and a callback would wait for itself. Instead the agent's thread
//! writes a snapshot at most once a second, and at each event, and swaps it in. The lock is held for
//! that swap, and to count up a reference; never while anything is computed, copied or freed.
//!
//! Two snapshots are used in turn, so that in steady state nothing is allocated. Only if a reader
//! still holds the older one, a new one is made.

use super::{Shared, lock};
use crate::agent::Agent;
use crate::stats::{Latency, Snapshot};
use crate::time::Now;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The latest snapshot, for any thread.
#[derive(Default)]
pub(super) struct Latest {
    snapshot: Mutex<Arc<Snapshot>>,
}

impl Latest {
    pub(super) fn latest(&self) -> Arc<Snapshot> {
        lock(&self.snapshot).clone()
    }

    /// Gives the one before it back.
    fn swap(&self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        std::mem::replace(&mut *lock(&self.snapshot), snapshot)
    }
}

/// The agent's thread's side.
pub(super) struct Publisher<'a> {
    shared: &'a Shared,
    /// The one before the latest.
    spare: Option<Arc<Snapshot>>,
    /// When the last one was written.
    last: Option<Instant>,
    /// Something happened that does not wait for the second.
    hurried: bool,
    /// The last one has numbers that change as time passes, so another one has to follow it even
    /// if nothing happens. A camera at rest is not woken up.
    lively: bool,
    /// From a frame's push to when its last packet was sent.
    push_to_wire: Latency,
}

const INTERVAL: Duration = Duration::from_secs(1);

impl<'a> Publisher<'a> {
    pub(super) fn new(shared: &'a Shared) -> Publisher<'a> {
        Publisher {
            shared,
            spare: None,
            last: None,
            hurried: true,
            lively: false,
            push_to_wire: Latency::default(),
        }
    }

    /// When [`Self::publish_if_due`] must be called, if nothing happens before.
    pub(super) fn next(&self) -> Option<Instant> {
        self.last.filter(|_| self.lively).map(|last| last + INTERVAL)
    }

    /// The last packet of a frame for some viewer was just sent.
    pub(super) fn on_frame_sent(&mut self, pushed: Instant, now: Instant) {
        self.push_to_wire.add(now, now.saturating_duration_since(pushed));
    }

    /// The next turn of the loop writes a snapshot.
    pub(super) fn hurry(&mut self) {
        self.hurried = true;
    }

    pub(super) fn publish_if_due(&mut self, now: Now, agent: &Agent) {
        if self.hurried || self.last.is_none_or(|last| now.instant >= last + INTERVAL) {
            self.publish(now, agent);
        }
    }

    pub(super) fn publish(&mut self, now: Now, agent: &Agent) {
        let mut next = self.spare.take().unwrap_or_default();
        if Arc::get_mut(&mut next).is_none() {
            next = Arc::default();
        }
        // Nobody else has it: it is the spare one or a new one.
        if let Some(snapshot) = Arc::get_mut(&mut next) {
            agent.write_stats(now, snapshot);
            self.add_own(now, snapshot);
            self.lively = snapshot.is_lively();
        }
        self.spare = Some(self.shared.stats.swap(next));
        self.last = Some(now.instant);
        self.hurried = false;
    }

    /// What the driver counts.
    fn add_own(&mut self, now: Now, snapshot: &mut Snapshot) {
        let Shared { counters, frames, audio, started, .. } = self.shared;
        let agent = &mut snapshot.agent;
        agent.uptime = started
            .get()
            .map_or(Duration::ZERO, |started| now.instant.saturating_duration_since(*started));
        agent.sends = counters.sends.load(Ordering::Relaxed);
        agent.datagrams = counters.datagrams.load(Ordering::Relaxed);
        agent.send_errors = counters.dropped.load(Ordering::Relaxed);
        agent.audio_refused = audio.packets.refused();
        agent.held_bytes += size_of::<Shared>() as u64;
        agent.push_to_wire = self.push_to_wire.stats(now.instant);
        for stream in &mut snapshot.streams {
            let slot = self.shared.slot(stream.id);
            stream.refused.queue_full = slot.map_or(0, |slot| frames.refused(slot).into());
        }
    }
}
