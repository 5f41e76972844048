//! What the kernel says about this process, under the names that Prometheus' own clients use. Read
//! from /proc at each scrape; what is not there is left out.

use crate::metrics::{Kind, Text};
use std::fs;

/// Of /proc/self/stat: the same on every architecture Linux has but two that are gone.
const TICKS_PER_S: f64 = 100.0;

pub fn write_metrics(text: &mut Text) {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    if let Some(stat) = Stat::parse(&read("/proc/self/stat")) {
        text.counter(
            "process_cpu_seconds_total",
            "Processor time used, user and system",
            stat.cpu_ticks as f64 / TICKS_PER_S,
        );
        if let Some(boot_s) = boot_time_s(&read("/proc/stat")) {
            text.gauge(
                "process_start_time_seconds",
                "When the process started, since 1970",
                boot_s as f64 + stat.start_ticks as f64 / TICKS_PER_S,
            );
        }
    }
    let status = read("/proc/self/status");
    for (name, help, key) in [
        ("process_resident_memory_bytes", "Memory in RAM", "VmRSS:"),
        ("process_virtual_memory_bytes", "Address space", "VmSize:"),
    ] {
        if let Some(kib) = kib_of(&status, key) {
            text.gauge(name, help, kib * 1024);
        }
    }
    if let Some(threads) = kib_of(&status, "Threads:") {
        text.gauge("process_threads", "Threads", threads);
    }
    if let Some(open) = open_fds() {
        text.gauge("process_open_fds", "File descriptors open", open);
    }
    if let Some(max) = max_fds(&read("/proc/self/limits")) {
        text.gauge("process_max_fds", "File descriptors there may be", max);
    }
    let name = "server_min_build_info";
    text.family(name, Kind::Gauge, "Always 1; what runs, in the labels");
    text.sample(name, &[("version", env!("CARGO_PKG_VERSION"))], 1);
}

/// Of /proc/self/stat (proc(5)).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Stat> {
        // The second field is the name in parentheses, which may hold anything; the third follows.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Stat { cpu_ticks: number(14)? + number(15)?, start_ticks: number(22)? })
    }
}

fn boot_time_s(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

fn kib_of(status: &str, key: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(key))?;
    value.split_whitespace().next()?.parse().ok()
}

fn open_fds() -> Option<u64> {
    // Since Linux 6.2 the folder's size is their number; before that they have to be counted.
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => {
            let counted = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
            // The one that the counting took.
            Some(counted.saturating_sub(1))
        }
        open => Some(open),
    }
}

fn max_fds(limits: &str) -> Option<u64> {
    let value = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_also_where_the_name_is_odd() {
        let text = "7 (a) b) c) S 1 7 7 0 -1 4194560 1 0 0 0 120 30 0 0 20 0 2 0 5000 1 2";
        assert_eq!(Stat::parse(text), Some(Stat { cpu_ticks: 150, start_ticks: 5000 }));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert_eq!(boot_time_s("cpu 1\nbtime 1700000000\n"), Some(1_700_000_000));
        assert_eq!(kib_of("VmSize:\t  9 kB\nVmRSS:\t  1234 kB\n", "VmRSS:"), Some(1234));
        let limits = "Max processes 1 1 p\nMax open files            1024   524288   files\n";
        assert_eq!(max_fds(limits), Some(1024));
        assert_eq!(max_fds("Max open files            unlimited   unlimited   files\n"), None);
    }

    #[test]
    fn this_process_has_all_of_it() {
        let mut text = Text::default();
        write_metrics(&mut text);
        let text = text.into_string();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_start_time_seconds") > 1_600_000_000.0);
        assert!(value("process_cpu_seconds_total") >= 0.0);
        let file = fs::File::open("/proc/self/stat").unwrap();
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        drop(file);
    }
}
