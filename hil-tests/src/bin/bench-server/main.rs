//! `make bench-server`: measures server-min beside Debian's coturn and Mosquitto, prints the
//! figures, and writes them as flat JSON to `target/report/server.json`, with a picture beside it.
//! What could not be measured is `null`, with a reason. docs/benchmarks.md explains the figures.
//!
//! ```text
//! parts ─→ Measured ─→ Report ─→ server.json, server.html, a table
//!   ├ servers: server-min, turnserver, mosquitto on one processor; redis-server on the other
//!   └ load, on the other processor: turn (clients and peers), stun, mqtt, http
//! ```
//!
//! `bench-server [--quick] [--out FILE] [PART…]`; `--quick` shows in seconds that everything runs.
//! `bench-server capacity` writes the tables of docs/capacity.md anew from the last report.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the command line")]

mod capacity;
mod chart;
mod datagrams;
mod figures;
mod footprint;
mod held;
mod idle;
mod mqtt;
mod mqtt_wire;
mod relay;
mod rounds;
mod scale;
mod servers;
mod sessions;
mod stun;
mod turn;

use figures::FIGURES;
use hil_tests::figures::{complete, note, table};
use hil_tests::firmware::root;
use hil_tests::report::Report;
use hil_tests::usage;
use scale::Scale;
use std::path::PathBuf;

/// In this order, and what each owes a word about.
const PARTS: [(&str, &[&str]); 7] = [
    ("footprint", &footprint::NAMES),
    ("stun", &stun::NAMES),
    ("relay", &relay::NAMES),
    ("held", &held::NAMES),
    ("mqtt", &mqtt::NAMES),
    ("idle", &idle::NAMES),
    ("sessions", &sessions::NAMES),
];

/// The processor of the server that is measured.
const SERVER: usize = 0;
/// The processor of everything else, this program included.
const LOAD: usize = 1;

struct Options {
    quick: bool,
    /// Nothing is measured; `out` is read.
    capacity: bool,
    out: PathBuf,
    only: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    let result = match options(std::env::args().skip(1)) {
        Ok(options) if options.capacity => {
            capacity::write(&options.out, &root().join("docs/capacity.md"))
        }
        Ok(options) => bench(&options).await,
        Err(e) => Err(e),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench-server: {e}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let out = root().join("target/report/server.json");
    let mut options = Options { quick: false, capacity: false, out, only: Vec::new() };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => options.quick = true,
            "capacity" => options.capacity = true,
            "--out" => options.out = arguments.next().ok_or("--out needs a file's name")?.into(),
            name if PARTS.iter().any(|(part, _)| *part == name) => options.only.push(argument),
            name => {
                let parts: Vec<&str> = PARTS.iter().map(|(part, _)| *part).collect();
                let parts = parts.join(", ");
                return Err(format!("there is no part {name:?}: expected some of {parts}"));
            }
        }
    }
    Ok(options)
}

async fn bench(options: &Options) -> Result<(), String> {
    let scale = if options.quick { Scale::QUICK } else { Scale::FULL };
    let mut report = Report::default();
    report.machine(&root());
    report.text("scale", format!("{scale:?}"));
    servers::describe(&mut report);
    let ready = match usage::expect_two_processors() {
        Ok(()) => usage::pin_here(LOAD).map_err(|e| format!("processor {LOAD}: {e}")),
        Err(reason) => Err(reason),
    };
    for (part, names) in PARTS {
        if !options.only.is_empty() && options.only.iter().all(|name| name != part) {
            continue;
        }
        eprintln!("bench-server: {part}");
        let measured = match (&ready, part) {
            (Err(reason), _) => Err(reason.clone()),
            (_, "footprint") => footprint::measure(&scale, &mut report).await,
            (_, "stun") => stun::measure(&scale).await,
            (_, "relay") => relay::measure(&scale, &mut report).await,
            (_, "held") => held::measure(&scale, &mut report).await,
            (_, "mqtt") => mqtt::measure(&scale).await,
            (_, "idle") => idle::measure(&scale).await,
            _ => sessions::measure(&scale, &mut report).await,
        };
        if let Err(reason) = &measured {
            eprintln!("bench-server: {part}: {reason}");
        }
        note(&mut report, names, measured);
    }
    complete(&mut report, &FIGURES);
    println!("{}", report.to_json());
    print!("{}", table(&report, &FIGURES));
    let file = report.write(&options.out)?;
    let picture = file.with_extension("html");
    std::fs::write(&picture, chart::page(&report))
        .map_err(|e| format!("{}: {e}", picture.display()))?;
    println!("written to {} and {}", file.display(), picture.display());
    Ok(())
}
