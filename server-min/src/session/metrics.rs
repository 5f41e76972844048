//! What became of sessions, counted since the start.

use super::ending::Reason;
use super::store::{Counts, StoreError};
use crate::metrics::{Histogram, Kind, Text};
use sdk_core::wire::signal::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of `p2p_latency_seconds`.
const LATENCY_S: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

pub struct Metrics {
    attempts: AtomicU64,
    successes: AtomicU64,
    direct: AtomicU64,
    relayed: AtomicU64,
    latency: Histogram,
    /// Ended before they connected, and after; by [`Reason`].
    failures: [AtomicU64; Reason::ALL.len()],
    disconnections: [AtomicU64; Reason::ALL.len()],
    store_errors: [AtomicU64; StoreError::LABELS.len()],
}

/// What became of sessions since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub created: u64,
    pub connected: u64,
    /// Ended without having connected.
    pub failed: u64,
    pub direct: u64,
    pub relayed: u64,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            attempts: AtomicU64::default(),
            successes: AtomicU64::default(),
            direct: AtomicU64::default(),
            relayed: AtomicU64::default(),
            latency: Histogram::new(LATENCY_S),
            failures: Default::default(),
            disconnections: Default::default(),
            store_errors: Default::default(),
        }
    }
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

    /// It became known how a session's media travels; again, where a path that one side took for a
    /// direct one turns out to be relayed.
    pub fn on_path(&self, path: Path) {
        let counter = if path == Path::Relay { &self.relayed } else { &self.direct };
        counter.fetch_add(1, Relaxed);
    }

    /// It became known how long a session took from its offer to its connection.
    pub fn on_latency(&self, setup_ms: u64) {
        self.latency.observe(Duration::from_millis(setup_ms));
    }

    /// A session ended.
    pub fn on_end(&self, connected: bool, reason: Reason) {
        let counters = if connected { &self.disconnections } else { &self.failures };
        counters[reason as usize].fetch_add(1, Relaxed);
    }

    pub fn on_store_error(&self, error: &StoreError) {
        self.store_errors[error.index()].fetch_add(1, Relaxed);
    }

    pub fn totals(&self) -> Totals {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        Totals {
            created: of(&self.attempts),
            connected: of(&self.successes),
            failed: self.failures.iter().map(of).sum(),
            direct: of(&self.direct),
            relayed: of(&self.relayed),
        }
    }

    /// `counts` are the sessions there are, where the store knows. Those of a store that is `shared` are the
    /// same in each node's metrics, so they have another name: whoever sums must not take them along.
    pub fn write(&self, text: &mut Text, counts: Option<Counts>, shared: bool) {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        text.counter("p2p_connection_attempts_total", "Sessions created", of(&self.attempts));
        text.counter(
            "p2p_connection_success_total",
            "Sessions that connected",
            of(&self.successes),
        );
        let name = "p2p_connections_total";
        text.family(name, Kind::Counter, "Connections by the path of their media");
        text.sample(name, &[("path", "direct")], of(&self.direct));
        text.sample(name, &[("path", "relay")], of(&self.relayed));
        let name = "p2p_latency_seconds";
        text.family(name, Kind::Histogram, "From an offer to its connection");
        self.latency.write(text, name, &[]);
        for (name, help, counters) in [
            (
                "p2p_connection_failures_total",
                "Sessions that ended without having connected, by reason",
                &self.failures,
            ),
            (
                "p2p_disconnections_total",
                "Sessions that ended after having connected, by reason",
                &self.disconnections,
            ),
        ] {
            text.family(name, Kind::Counter, help);
            for reason in Reason::ALL {
                let count = of(&counters[reason as usize]);
                text.sample(name, &[("reason", reason.label())], count);
            }
        }
        if let Some(Counts { connecting, connected, closed }) = counts {
            let name = if shared { "p2p_shared_sessions" } else { "p2p_sessions" };
            text.family(name, Kind::Gauge, "Session records in the store by their state");
            for (state, count) in
                [("connecting", connecting), ("connected", connected), ("closed", closed)]
            {
                text.sample(name, &[("state", state)], count);
            }
        }
        let name = "session_store_errors_total";
        text.family(name, Kind::Counter, "Calls of the session store that failed, by their error");
        for (label, counter) in StoreError::LABELS.iter().zip(&self.store_errors) {
            text.sample(name, &[("error", label)], of(counter));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_article_s_metrics_are_rendered() {
        let metrics = Metrics::default();
        metrics.on_attempt();
        metrics.on_success();
        metrics.on_path(Path::Relay);
        metrics.on_path(Path::Prflx);
        metrics.on_latency(250);
        metrics.on_latency(9000);
        metrics.on_end(false, Reason::Timeout);
        metrics.on_end(true, Reason::Left);
        metrics.on_store_error(&StoreError::Full { max: 1 });
        let mut text = Text::default();
        metrics.write(&mut text, Some(Counts { connected: 3, ..Counts::default() }), false);
        let text = text.into_string();
        for line in [
            "p2p_connection_attempts_total 1",
            "p2p_connection_success_total 1",
            "p2p_connections_total{path=\"direct\"} 1",
            "p2p_connections_total{path=\"relay\"} 1",
            "p2p_latency_seconds_bucket{le=\"0.1\"} 0",
            "p2p_latency_seconds_bucket{le=\"0.25\"} 1",
            "p2p_latency_seconds_bucket{le=\"0.5\"} 1",
            "p2p_latency_seconds_bucket{le=\"1\"} 1",
            "p2p_latency_seconds_bucket{le=\"2.5\"} 1",
            "p2p_latency_seconds_bucket{le=\"5\"} 1",
            "p2p_latency_seconds_bucket{le=\"+Inf\"} 2",
            "p2p_latency_seconds_sum 9.25",
            "p2p_latency_seconds_count 2",
            "p2p_connection_failures_total{reason=\"timeout\"} 1",
            "p2p_connection_failures_total{reason=\"left\"} 0",
            "p2p_disconnections_total{reason=\"left\"} 1",
            "p2p_sessions{state=\"connected\"} 3",
            "session_store_errors_total{error=\"full\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
