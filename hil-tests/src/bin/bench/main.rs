//! `make bench`: measures the whole path on this machine, prints the figures, and writes them as
//! flat JSON to `target/report/media.json`, with a picture beside it. What could not be measured is
//! `null`, with a reason. `bench NAME…` runs these parts only; docs/benchmarks.md explains them.
//!
//! ```text
//! parts ─→ Measured ─→ Report ─→ media.json, media.html, a table
//!   └ Lab (server, camera) ← Crowd (bench-peers receive) → bench-peers str0m | webrtc
//! ```
//!
//! `bench device …` is the instrumented camera, which the benchmark starts itself.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the command line")]

mod chart;
mod compare;
mod counted;
mod counters;
mod crowd;
mod device;
mod fan_out;
mod figures;
mod first_frame;
mod footprint;
mod loss;
mod lossy;
mod peers;
mod resident;
mod watching;
mod wire;

use figures::FIGURES;
use hil_tests::figures::{complete, note, table};
use hil_tests::firmware::root;
use hil_tests::report::Report;

/// In this order, and what each owes a word about.
const PARTS: [(&str, &[&str]); 8] = [
    ("footprint", &["linked_delta_kb"]),
    ("camera", &resident::NAMES),
    ("counters", &counted::COUNTER_NAMES),
    ("wire", &counted::WIRE_NAMES),
    ("compare", &compare::NAMES),
    ("fan-out", &fan_out::NAMES),
    ("loss", &loss::NAMES),
    ("browser", &first_frame::NAMES),
];

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("device") => device::run(&arguments),
        _ => bench(arguments),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// All parts, or those named.
#[tokio::main]
async fn bench(only: Vec<String>) -> Result<(), String> {
    if let Some(unknown) = only.iter().find(|name| PARTS.iter().all(|(part, _)| part != name)) {
        let parts: Vec<&str> = PARTS.iter().map(|(part, _)| *part).collect();
        return Err(format!("there is no part {unknown:?}: expected some of {}", parts.join(", ")));
    }
    let mut report = Report::default();
    report.machine(&root());
    for (part, names) in PARTS {
        if !only.is_empty() && only.iter().all(|name| name != part) {
            continue;
        }
        eprintln!("bench: {part}");
        let measured = match part {
            "footprint" => footprint::linked_delta_kb().map(|kb| vec![("linked_delta_kb", kb)]),
            "camera" => resident::measure().await,
            "counters" => counted::counters().await,
            "wire" => counted::push_to_wire().await,
            "compare" => compare::measure().await,
            "fan-out" => fan_out::measure().await,
            "loss" => loss::measure().await,
            _ => first_frame::measure().await,
        };
        if let Err(reason) = &measured {
            eprintln!("bench: {part}: {reason}");
        }
        note(&mut report, names, measured);
    }
    complete(&mut report, &FIGURES);
    println!("{}", report.to_json());
    print!("{}", table(&report, &FIGURES));
    let file = report.write(&root().join("target/report/media.json"))?;
    let picture = file.with_extension("html");
    std::fs::write(&picture, chart::page(&report))
        .map_err(|e| format!("{}: {e}", picture.display()))?;
    println!("written to {} and {}", file.display(), picture.display());
    Ok(())
}
