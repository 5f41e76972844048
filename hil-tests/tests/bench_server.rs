//! `make bench-server`, in small: every part runs against the real servers and gives its figures.
#![allow(clippy::unwrap_used, reason = "clippy sees tests only in functions marked as such")]

use serde_json::Value;
use std::process::Command;

#[test]
fn every_part_gives_its_figures_or_a_reason() {
    let folder = std::env::temp_dir().join(format!("bench-server-{}", std::process::id()));
    let out = folder.join("server.json");
    let run = Command::new(env!("CARGO_BIN_EXE_bench-server"))
        .args(["--quick", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    assert!(run.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    let page = std::fs::read_to_string(out.with_extension("html")).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();

    for (name, most) in [
        ("stun_cpu_vs_coturn", 10.0),
        ("relay_cpu_vs_coturn", 10.0),
        ("relay_burst_cpu_vs_coturn", 10.0),
        ("relay_cpu_5000_vs_64", 10.0),
        ("rss_per_allocation_kb", 20.0),
        ("allocations_held", 60.0),
        ("allocations_setup_s", 10.0),
        ("mqtt_p95_ms", 1000.0),
        ("mqtt_p95_vs_mosquitto", 1000.0),
        ("rss_per_idle_mqtt_connection_kb", 20.0),
        ("idle_mqtt_connections", 200.0),
        ("idle_mqtt_cpu_ms_per_s", 1000.0),
        ("sessions_per_s", 100_000.0),
        ("sessions_per_s_memory", 100_000.0),
        ("binary_mb", 500.0),
        ("start_ms", 10_000.0),
    ] {
        let value = report[name].as_f64();
        assert!(value.is_some_and(|value| (0.0..=most).contains(&value)), "{name}: {said}");
    }
    for (name, value) in report.as_object().unwrap().iter().filter(|(_, value)| value.is_null()) {
        assert!(report[format!("{name}_reason")].is_string(), "{name} is {value} without a reason");
    }
    assert!(said.contains("written to") && page.contains("make bench-server"));
    let unknown = Command::new(env!("CARGO_BIN_EXE_bench-server")).arg("nothing").output().unwrap();
    assert!(!unknown.status.success());
}
