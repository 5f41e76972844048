//! Metrics in Prometheus' text format (version 0.0.4), and the registry of those who have some. Each
//! part counts for itself, in plain cells or atomics, and writes its own numbers down when asked.

use std::cell::RefCell;
use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Everybody who has something to show.
#[derive(Default)]
pub struct Registry(RefCell<Vec<Writer>>);

type Writer = Box<dyn Fn(&mut Text)>;

impl Registry {
    /// `write` is called at each scrape, and must write whole families that nobody else writes.
    pub fn add(&self, write: impl Fn(&mut Text) + 'static) {
        self.0.borrow_mut().push(Box::new(write));
    }

    /// Everything, as Prometheus reads it.
    pub fn render(&self) -> String {
        let mut text = Text(String::with_capacity(32 * 1024));
        for write in self.0.borrow().iter() {
            write(&mut text);
        }
        text.0
    }
}

/// The text as it grows.
#[derive(Default)]
pub struct Text(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Text {
    /// Begins a family: its samples follow.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = write!(self.0, "# HELP {name} {help}.\n# TYPE {name} {kind}\n");
    }

    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (i, (label, value)) in labels.iter().enumerate() {
            self.0.push(if i == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A family of one sample.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, Kind::Counter, help);
        self.sample(name, &[], value);
    }

    /// A family of one sample.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, help);
        self.sample(name, &[], value);
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

/// How long something took, in buckets.
pub struct Histogram {
    /// Upper bounds in seconds, rising.
    bounds: &'static [f64],
    /// One for each bound, and one for what is above all.
    counts: Box<[AtomicU64]>,
    sum_us: AtomicU64,
}

impl Histogram {
    pub fn new(bounds: &'static [f64]) -> Histogram {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, sum_us: AtomicU64::new(0) }
    }

    pub fn observe(&self, took: Duration) {
        let bucket = self.bounds.partition_point(|bound| *bound < took.as_secs_f64());
        self.counts[bucket].fetch_add(1, Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// Its samples, with `labels` on each; the family has been begun.
    pub fn write(&self, text: &mut Text, name: &str, labels: &[(&str, &str)]) {
        let (bucket, mut below) = (format!("{name}_bucket"), 0);
        for (i, count) in self.counts.iter().enumerate() {
            below += count.load(Relaxed);
            let le = self.bounds.get(i).map_or("+Inf".to_owned(), f64::to_string);
            text.sample(&bucket, &[labels, &[("le", &le)]].concat(), below);
        }
        let sum_s = self.sum_us.load(Relaxed) as f64 / 1e6;
        text.sample(&format!("{name}_sum"), labels, sum_s);
        text.sample(&format!("{name}_count"), labels, below);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_samples_and_labels_are_written_as_prometheus_reads_them() {
        let registry = Registry::default();
        registry.add(|text| text.gauge("a", "First", 1));
        registry.add(|text| {
            text.family("b_total", Kind::Counter, "Second");
            text.sample("b_total", &[("x", "1"), ("y", "a\"b\\c\nd")], 2.5);
        });
        assert_eq!(
            registry.render(),
            "# HELP a First.\n# TYPE a gauge\na 1\n# HELP b_total Second.\n# TYPE b_total counter\n\
             b_total{x=\"1\",y=\"a\\\"b\\\\c\\nd\"} 2.5\n"
        );
    }

    #[test]
    fn a_histogram_counts_what_is_at_or_below_each_bound() {
        let histogram = Histogram::new(&[0.1, 1.0]);
        for ms in [100, 101, 1000, 9000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let mut text = Text::default();
        histogram.write(&mut text, "h", &[("route", "r")]);
        assert_eq!(
            text.into_string(),
            "h_bucket{route=\"r\",le=\"0.1\"} 1\nh_bucket{route=\"r\",le=\"1\"} 3\n\
             h_bucket{route=\"r\",le=\"+Inf\"} 4\nh_sum{route=\"r\"} 10.201\nh_count{route=\"r\"} 4\n"
        );
    }
}
