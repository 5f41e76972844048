//! A report as a page for people: each figure against its limit, then whatever is to be compared, as
//! bars. One file, nothing loaded.

use crate::figures::{Figure, Limit};
use crate::report::Report;

/// Figures of one unit, side by side.
pub struct Bars<'a> {
    pub title: &'a str,
    pub text: &'a str,
    pub unit: &'a str,
    /// A label, and the figure's name.
    pub entries: &'a [(&'a str, &'a str)],
}

pub fn page(title: &str, report: &Report, figures: &[Figure], compared: &[Bars<'_>]) -> String {
    let head = [
        ("machine_cpu", "", ""),
        ("machine_cores", ", ", " processors"),
        ("machine_kernel", ", Linux ", ""),
        ("git_commit", "; commit ", ""),
    ]
    .map(|(name, before, after)| format!("{before}{}{after}", text(report, name)))
    .concat();
    let limits: String = figures.iter().map(|figure| against_limit(report, figure)).collect();
    let compared: String = compared
        .iter()
        .map(|bars| {
            format!(
                "<h2>{}</h2><p>{}</p><div class=\"chart\">{}</div>\n",
                escape(bars.title),
                escape(bars.text),
                rows(report, bars.unit, bars.entries)
            )
        })
        .collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{0}</title>\n\
         <style>{STYLE}</style>\n<h1>{0}</h1><p>{1}</p>\n\
         <h2>Against the limits</h2><p>A bar is a figure's share of its limit; the line is the \
         limit.</p><div class=\"chart limits\">{limits}</div>\n{compared}</html>\n",
        escape(title),
        escape(&head),
    )
}

/// The limit is in the middle of the row.
fn against_limit(report: &Report, figure: &Figure) -> String {
    let value = number(report, figure.name);
    let share = value.zip(figure.limit.bound()).map(|(value, bound)| match figure.limit {
        Limit::AtLeast(_) => bound / value,
        // Of nothing there is no share.
        _ if bound == 0.0 => 2.0 * f64::from(value > 0.0),
        _ => value / bound,
    });
    let class = match value {
        Some(value) if figure.limit.holds(value) => "ok",
        Some(_) => "missed",
        None => "none",
    };
    let shown = match (value, figure.limit) {
        (None, _) => text(report, &format!("{}_reason", figure.name)),
        (Some(value), Limit::AtMost(bound)) => format!("{value} of at most {bound}"),
        (Some(value), Limit::AtLeast(bound)) => format!("{value} of at least {bound}"),
        (Some(value), Limit::None) => value.to_string(),
    };
    row(figure.what, &shown, share.unwrap_or(0.0) / 2.0, class)
}

/// The longest bar fills its row.
fn rows(report: &Report, unit: &str, entries: &[(&str, &str)]) -> String {
    let most = entries.iter().filter_map(|(_, name)| number(report, name)).fold(0.0, f64::max);
    let one = |(label, name): &(&str, &str)| match number(report, name) {
        Some(value) => row(label, &format!("{value} {unit}"), value / most, "ok"),
        None => row(label, "not measured", 0.0, "none"),
    };
    entries.iter().map(one).collect()
}

fn row(label: &str, shown: &str, share: f64, class: &str) -> String {
    format!(
        "<div>{}</div><div class=\"bar\"><i class=\"{class}\" style=\"width:{:.1}%\"></i></div>\
         <div>{}</div>\n",
        escape(label),
        100.0 * share.clamp(0.0, 1.0),
        escape(shown),
    )
}

fn number(report: &Report, name: &str) -> Option<f64> {
    report.get(name).and_then(serde_json::Value::as_f64)
}

fn text(report: &Report, name: &str) -> String {
    match report.get(name) {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

const STYLE: &str = "\
:root{color-scheme:light dark;font:15px system-ui,sans-serif}body{max-width:60rem;margin:2rem auto;\
padding:0 1rem}.chart{display:grid;grid-template-columns:minmax(12rem,2fr) 3fr minmax(8rem,1fr);\
gap:.4rem 1rem;align-items:center}.bar{background:#8883;height:1rem;position:relative}\
.limits .bar::after{content:'';position:absolute;left:50%;top:-3px;bottom:-3px;border-left:2px solid}\
i{display:block;height:100%}.ok{background:#2a9d5c}.missed{background:#d1495b}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::figure;

    const FIGURES: [Figure; 5] = [
        figure("cpu_vs_str0m", Limit::AtMost(0.7), "CPU time against str0m"),
        figure("rss_idle_kb", Limit::AtMost(3500.0), "kB resident"),
        figure("allocs_per_packet", Limit::AtMost(0.0), "allocations a packet"),
        figure("loss_decoded_percent", Limit::AtLeast(97.0), "% decoded"),
        figure("loss_freezes", Limit::AtMost(1.0), "freezes"),
    ];

    #[test]
    fn a_figure_beyond_its_limit_is_seen_and_reasons_are_text() {
        let mut report = Report::default();
        report.number("cpu_vs_str0m", 0.35);
        report.number("rss_idle_kb", 7000.0);
        report.number("allocs_per_packet", 0.0);
        report.number("loss_decoded_percent", 96.0);
        report.missing("loss_freezes", "no <browser>");
        report.number("half", 2.0);
        report.number("whole", 4.0);
        let entries = [("half", "half"), ("whole", "whole"), ("neither", "neither")];
        let bars = Bars { title: "Both", text: "", unit: "ms", entries: &entries };
        let page = page("make bench", &report, &FIGURES, &[bars]);
        assert!(page.contains("class=\"ok\" style=\"width:25.0%\""), "{page}");
        assert!(page.contains("class=\"missed\" style=\"width:100.0%\""));
        assert!(page.contains("class=\"ok\" style=\"width:0.0%\""));
        assert!(page.contains("96 of at least 97"));
        assert!(page.contains("no &lt;browser>"));
        assert!(page.contains("style=\"width:50.0%\"></i></div><div>2 ms<"));
        assert!(page.contains("not measured"));
    }
}
