//! Flat JSON of what was measured: a number, or `null` and a reason beside it. Nothing is made up.

use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Default)]
pub struct Report {
    entries: Map<String, Value>,
}

impl Report {
    pub fn number(&mut self, name: &str, value: f64) {
        // Three digits are more than any of these measurements can tell apart.
        let rounded = (value * 1000.0).round() / 1000.0;
        let value = match rounded.fract() == 0.0 && rounded.abs() < 1e15 {
            true => Value::from(rounded as i64),
            false => Value::from(rounded),
        };
        self.entries.insert(name.to_owned(), value);
    }

    pub fn text(&mut self, name: &str, value: impl Into<String>) {
        self.entries.insert(name.to_owned(), Value::String(value.into()));
    }

    /// What could not be measured, and why.
    pub fn missing(&mut self, name: &str, reason: &str) {
        self.entries.insert(name.to_owned(), Value::Null);
        let short: String = reason.chars().take(300).collect();
        self.text(&format!("{name}_reason"), short);
    }

    pub fn result(&mut self, name: &str, value: Result<f64, String>) {
        match value {
            Ok(value) => self.number(name, value),
            Err(reason) => self.missing(name, &reason),
        }
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.entries.get(name)
    }

    /// Which machine and which source this is about.
    pub fn machine(&mut self, root: &Path) {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_once(':').map(|(_, value)| value.trim().to_owned())
        };
        let cpu = field(&read("/proc/cpuinfo"), "model name");
        self.text("machine_cpu", cpu.unwrap_or_else(|| std::env::consts::ARCH.into()));
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        self.number("machine_cores", cores as f64);
        self.text("machine_memory", field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default());
        self.text("machine_kernel", read("/proc/sys/kernel/osrelease").trim());
        self.text("machine_load", read("/proc/loadavg").trim());
        let git = |arguments: &[&str]| {
            let output = Command::new("git").current_dir(root).args(arguments).output().ok()?;
            output
                .status
                .success()
                .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        match git(&["rev-parse", "HEAD"]) {
            Some(commit) => self.text("git_commit", commit),
            None => self.missing("git_commit", "git does not know this folder"),
        }
        let changed = git(&["status", "--porcelain"]).is_some_and(|text| !text.is_empty());
        self.entries.insert("git_changed".into(), Value::Bool(changed));
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(&self.entries).unwrap_or_default()
    }

    pub fn write(&self, file: &Path) -> Result<PathBuf, String> {
        let text = |e: std::io::Error| format!("{}: {e}", file.display());
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(text)?;
        }
        std::fs::write(file, self.to_json() + "\n").map_err(text)?;
        Ok(file.to_path_buf())
    }
}

/// The value that `share` (0 to 1) of `values` do not exceed, by nearest rank.
pub fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        assert_eq!(percentile(&[4.0, 1.0, 3.0, 2.0], 0.5), Some(2.0));
        assert_eq!(percentile(&[4.0, 1.0, 3.0, 2.0], 0.95), Some(4.0));
        assert_eq!(percentile(&[7.0], 0.0), Some(7.0));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn what_was_not_measured_is_null_with_a_reason() {
        let mut report = Report::default();
        report.result("a", Ok(1.23456));
        report.result("b", Err("no perf here".into()));
        report.result("c", Ok(12.0));
        let json: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["a"], 1.235);
        assert_eq!(json["b"], Value::Null);
        assert_eq!(json["b_reason"], "no perf here");
        assert_eq!(json["c"], 12);
    }
}
