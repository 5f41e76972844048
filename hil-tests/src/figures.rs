//! What a benchmark is asked for: figures, what each may be, and how they stand in the report.

use crate::report::Report;

/// What one part measured, by name.
pub type Measured = Result<Vec<(&'static str, f64)>, String>;

#[derive(Clone, Copy)]
pub struct Figure {
    pub name: &'static str,
    pub limit: Limit,
    /// For people, with its unit.
    pub what: &'static str,
}

#[derive(Clone, Copy)]
pub enum Limit {
    AtMost(f64),
    AtLeast(f64),
    /// Reported, whatever it is.
    None,
}

impl Limit {
    pub fn holds(self, value: f64) -> bool {
        match self {
            Limit::AtMost(most) => value <= most,
            Limit::AtLeast(least) => value >= least,
            Limit::None => true,
        }
    }

    pub fn bound(self) -> Option<f64> {
        match self {
            Limit::AtMost(bound) | Limit::AtLeast(bound) => Some(bound),
            Limit::None => None,
        }
    }
}

pub const fn figure(name: &'static str, limit: Limit, what: &'static str) -> Figure {
    Figure { name, limit, what }
}

/// Takes what a part measured, or why it did not: then `names` are without a value.
pub fn note(report: &mut Report, names: &[&str], measured: Measured) {
    match measured {
        Ok(values) => values.iter().for_each(|(name, value)| report.number(name, *value)),
        Err(reason) => names.iter().for_each(|name| report.missing(name, &reason)),
    }
}

/// Adds the limits, and a word about each figure that was not measured.
pub fn complete(report: &mut Report, figures: &[Figure]) {
    for figure in figures {
        if report.get(figure.name).is_none() {
            report.missing(figure.name, "not asked for in this run");
        }
        if let Some(bound) = figure.limit.bound() {
            report.number(&format!("{}_limit", figure.name), bound);
        }
    }
}

/// One line for each figure: its value, its limit, and whether it keeps it.
pub fn table(report: &Report, figures: &[Figure]) -> String {
    let longest = figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for figure in figures {
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
        let (name, what) = (figure.name, figure.what);
        text += &format!("{name:<longest$}{shown:>11}  {limit:<9} {verdict:<13} {what}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: [Figure; 3] = [
        figure("loss_freezes", Limit::AtMost(1.0), "freezes"),
        figure("cpu_vs_str0m", Limit::AtMost(0.7), "CPU time against str0m"),
        figure("rss_idle_kb", Limit::AtMost(3500.0), "kB resident"),
    ];

    #[test]
    fn every_figure_is_in_every_report() {
        let mut report = Report::default();
        note(&mut report, &["loss_freezes"], Err("no browser".into()));
        note(&mut report, &[], Ok(vec![("cpu_vs_str0m", 0.71), ("rss_idle_kb", 3500.0)]));
        complete(&mut report, &FIGURES);
        assert_eq!(report.get("loss_freezes_reason").unwrap(), "no browser");
        for figure in FIGURES {
            assert!(report.get(figure.name).is_some(), "{}", figure.name);
        }
        let table = table(&report, &FIGURES);
        let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line("cpu_vs_str0m").contains("MISSED"));
        assert!(line("rss_idle_kb").contains(" ok "));
        assert!(line("loss_freezes").contains("not measured"));
    }
}
