//! The service's counters, in Prometheus' text format (version 0.0.4).

use sdk_core::wire::signal::Path;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of `p2p_latency_seconds`, in milliseconds, with their labels.
const BUCKETS_MS: [(u64, &str); 6] =
    [(100, "0.1"), (250, "0.25"), (500, "0.5"), (1000, "1"), (2500, "2.5"), (5000, "5")];

/// What became of sessions, counted since the start.
#[derive(Default)]
pub struct Metrics {
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

impl Metrics {
    /// Everything as Prometheus reads it.
    pub fn render(&self) -> String {
        let mut text = Text(String::with_capacity(2048));
        let plain = [
            ("p2p_connection_attempts_total", "Sessions created", &self.attempts),
            ("p2p_connection_success_total", "Sessions that connected", &self.successes),
        ];
        for (name, help, counter) in plain {
            text.family(name, "counter", help);
            text.sample(name, "", counter.load(Relaxed));
        }
        text.family("p2p_connections_total", "counter", "Connections by the path of their media");
        for (path, counter) in [("direct", &self.direct), ("relay", &self.relayed)] {
            let labels = format!("{{path=\"{path}\"}}");
            text.sample("p2p_connections_total", &labels, counter.load(Relaxed));
        }
        text.family("p2p_latency_seconds", "histogram", "From an offer to its connection");
        let count = self.latency_count.load(Relaxed);
        for ((_, label), counter) in BUCKETS_MS.iter().zip(&self.latency) {
            let labels = format!("{{le=\"{label}\"}}");
            text.sample("p2p_latency_seconds_bucket", &labels, counter.load(Relaxed));
        }
        text.sample("p2p_latency_seconds_bucket", "{le=\"+Inf\"}", count);
        let sum_s = self.latency_sum_ms.load(Relaxed) as f64 / 1000.0;
        text.sample("p2p_latency_seconds_sum", "", sum_s);
        text.sample("p2p_latency_seconds_count", "", count);
        text.0
    }
}

/// Prometheus' text format as it grows.
pub struct Text(pub String);

impl Text {
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}.\n# TYPE {name} {kind}\n");
    }

    pub fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
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
        let text = metrics.render();
        for line in [
            "p2p_connection_attempts_total 1",
            "p2p_connection_success_total 1",
            "p2p_connections_total{path=\"direct\"} 1",
            "p2p_connections_total{path=\"relay\"} 1",
            "p2p_latency_seconds_bucket{le=\"0.1\"} 0",
            "p2p_latency_seconds_bucket{le=\"0.25\"} 1",
            "p2p_latency_seconds_bucket{le=\"5\"} 1",
            "p2p_latency_seconds_bucket{le=\"+Inf\"} 2",
            "p2p_latency_seconds_sum 9.25",
            "p2p_latency_seconds_count 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
