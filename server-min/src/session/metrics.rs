//! The service's counters, in Prometheus' text format (version 0.0.4).

use sdk_core::wire::signal::Path;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of `p2p_latency_seconds`, in milliseconds, with their labels.
const BUCKETS_MS: [(u64, &str); 6] =
    [(100, "0.1"), (250, "0.25"), (500, "0.5"), (1000, "1"), (2500, "2.5"), (5000, "5")];

/// Counted since the start. Atomic, because STUN and TURN may count on a thread of their own.
#[derive(Default)]
pub struct Metrics {
    pub stun: [AtomicU64; 3],
    pub turn_sessions_active: AtomicU64,
    pub turn_sessions_total: AtomicU64,
    attempts: AtomicU64,
    successes: AtomicU64,
    direct: AtomicU64,
    relayed: AtomicU64,
    latency: [AtomicU64; BUCKETS_MS.len()],
    latency_count: AtomicU64,
    latency_sum_ms: AtomicU64,
}

impl Metrics {
    /// A session was asked for and given.
    pub fn on_attempt(&self) {
        self.attempts.fetch_add(1, Relaxed);
    }

    /// A session connected for the first time.
    pub fn on_success(&self) {
        self.successes.fetch_add(1, Relaxed);
    }

    /// It became known how a session's media travels.
    pub fn on_path(&self, path: Path) {
        let counter = if path == Path::Relay { &self.relayed } else { &self.direct };
        counter.fetch_add(1, Relaxed);
    }

    /// It became known how long a session took from its offer to its connection.
    pub fn on_latency(&self, setup_ms: u64) {
        for ((bound_ms, _), counter) in BUCKETS_MS.iter().zip(&self.latency) {
            if setup_ms <= *bound_ms {
                counter.fetch_add(1, Relaxed);
            }
        }
        self.latency_count.fetch_add(1, Relaxed);
        self.latency_sum_ms.fetch_add(setup_ms, Relaxed);
    }
}
