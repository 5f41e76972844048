//! The figures that are asked for, what each may be, and what the parts of the benchmark give.

use hil_tests::report::Report;

/// What one part measured, by name.
pub(crate) type Measured = Result<Vec<(&'static str, f64)>, String>;

#[derive(Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) limit: Limit,
    /// For people, with its unit.
    pub(crate) what: &'static str,
}

#[derive(Clone, Copy)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
    /// Reported, whatever it is.
    None,
}

impl Limit {
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Limit::AtMost(most) => value <= most,
            Limit::AtLeast(least) => value >= least,
            Limit::None => true,
        }
    }

    pub(crate) fn bound(self) -> Option<f64> {
        match self {
            Limit::AtMost(bound) | Limit::AtLeast(bound) => Some(bound),
            Limit::None => None,
        }
    }
}

const fn figure(name: &'static str, limit: Limit, what: &'static str) -> Figure {
    Figure { name, limit, what }
}

/// Every run says something about each of these: a number, or why there is none.
pub(crate) const FIGURES: [Figure; 13] = [
    figure(
        "allocs_per_packet",
        Limit::AtMost(0.0),
        "allocations a packet, worse of 1 and 8 viewers",
    ),
    figure(
        "sends_per_frame_per_viewer",
        Limit::AtMost(1.2),
        "send calls a frame and viewer, worse of 1 and 8 viewers",
    ),
    figure(
        "cpu_vs_webrtc_crate",
        Limit::AtMost(0.25),
        "CPU time against the webrtc crate, 10 viewers",
    ),
    figure("cpu_vs_str0m", Limit::AtMost(0.7), "CPU time against str0m, 10 viewers"),
    figure(
        "rss_idle_kb",
        Limit::AtMost(3500.0),
        "kB resident without viewers and without the clip",
    ),
    figure("rss_per_viewer_kb", Limit::AtMost(96.0), "kB resident for each further viewer"),
    figure(
        "first_frame_ms_p50",
        Limit::AtMost(90.0),
        "ms from the click to the first picture in Chromium, median",
    ),
    figure(
        "push_to_wire_us_p99",
        Limit::AtMost(2000.0),
        "us from push to the kernel, 1 viewer, 99th percentile",
    ),
    figure(
        "loss_freezes",
        Limit::AtMost(1.0),
        "freezes in Chromium in a minute with 5 % loss both ways",
    ),
    figure("loss_decoded_percent", Limit::AtLeast(97.0), "% of the frames decoded in that minute"),
    figure("viewers_per_core", Limit::None, "viewers at 2 Mbit/s that one core carries"),
    figure(
        "fan_out_slope_ratio",
        Limit::AtMost(1.1),
        "CPU of a further viewer, 50 to 100 viewers against 10 to 50",
    ),
    figure("linked_delta_kb", Limit::None, "kB that the SDK adds to a firmware on this machine"),
];

/// Takes what a part measured, or why it did not: then `names` are without a value.
pub(crate) fn note(report: &mut Report, names: &[&str], measured: Measured) {
    match measured {
        Ok(values) => values.iter().for_each(|(name, value)| report.number(name, *value)),
        Err(reason) => names.iter().for_each(|name| report.missing(name, &reason)),
    }
}

/// Adds the limits, and a word about each figure that was not measured.
pub(crate) fn complete(report: &mut Report) {
    for figure in FIGURES {
        if report.get(figure.name).is_none() {
            report.missing(figure.name, "not asked for in this run");
        }
        if let Some(bound) = figure.limit.bound() {
            report.number(&format!("{}_limit", figure.name), bound);
        }
    }
}

/// One line for each figure: its value, its limit, and whether it keeps it.
pub(crate) fn table(report: &Report) -> String {
    let mut text = String::new();
    for figure in FIGURES {
        let value = report.get(figure.name).and_then(serde_json::Value::as_f64);
        let (shown, verdict) = match (value, figure.limit) {
            (None, _) => ("-".to_owned(), "not measured"),
            (Some(value), Limit::None) => (value.to_string(), ""),
            (Some(value), limit) if limit.holds(value) => (value.to_string(), "ok"),
            (Some(value), _) => (value.to_string(), "MISSED"),
        };
        let limit = match figure.limit {
            Limit::AtMost(bound) => format!("<= {bound}"),
            Limit::AtLeast(bound) => format!(">= {bound}"),
            Limit::None => String::new(),
        };
        text +=
            &format!("{:<28}{shown:>10}  {limit:<9} {verdict:<13} {}\n", figure.name, figure.what);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_in_every_report() {
        let mut report = Report::default();
        note(&mut report, &["loss_freezes"], Err("no browser".into()));
        note(&mut report, &[], Ok(vec![("cpu_vs_str0m", 0.71), ("rss_idle_kb", 3500.0)]));
        complete(&mut report);
        assert_eq!(report.get("loss_freezes_reason").unwrap(), "no browser");
        for figure in FIGURES {
            assert!(report.get(figure.name).is_some(), "{}", figure.name);
        }
        let table = table(&report);
        let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line("cpu_vs_str0m").contains("MISSED"));
        assert!(line("rss_idle_kb").contains(" ok "));
        assert!(line("loss_freezes").contains("not measured"));
    }
}
