//! `make bench`: measures the whole path on this machine, prints the figures, and writes them as
//! flat JSON to `target/report/media.json`. What could not be measured is `null`, with a reason.
//!
//! `bench device …` is the instrumented camera, which the benchmark starts itself.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the command line")]

mod counters;
mod device;
mod footprint;

use hil_tests::browser::Watch;
use hil_tests::firmware::root;
use hil_tests::lab::{CameraSetup, Lab, PATIENCE};
use hil_tests::report::{Report, percentile};
use hil_tests::usage::{cpu_ms, memory};
use hil_tests::viewer::{Options, Viewer};
use std::time::Duration;
use tokio::time::sleep;

/// Sessions opened in the browser for the time to the first picture.
const BROWSER_RUNS: usize = 11;
const SETTLE: Duration = Duration::from_secs(5);
const WINDOW: Duration = Duration::from_secs(20);

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

/// All measurements, or those named.
#[tokio::main]
async fn bench(only: Vec<String>) -> Result<(), String> {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|o| o == name);
    let mut report = Report::default();
    report.machine(&root());
    if wanted("footprint") {
        report.result("linked_delta_kb", footprint::linked_delta_kb());
    }
    if wanted("camera") {
        let names = [
            "cpu_ms_per_s_0_viewers",
            "cpu_ms_per_s_1_viewer",
            "rss_idle_kb",
            "rss_idle_anonymous_kb",
            "rss_per_viewer_kb",
        ];
        measure(&mut report, &names, camera_usage().await);
    }
    if wanted("counters") {
        measure(&mut report, &["allocs_per_packet", "sends_per_frame"], device_counters().await);
    }
    if wanted("browser") {
        let names = ["first_frame_ms_p50", "first_frame_ms_max", "first_frame_runs"];
        measure(&mut report, &names, first_frame().await);
    }
    println!("{}", report.to_json());
    let file = report.write(&root().join("target/report/media.json"))?;
    println!("written to {}", file.display());
    Ok(())
}

/// Notes the named figures, or why there are none.
fn measure(report: &mut Report, names: &[&str], figures: Result<Vec<f64>, String>) {
    for (i, name) in names.iter().enumerate() {
        match &figures {
            Ok(figures) => report.number(name, figures[i]),
            Err(reason) => report.missing(name, reason),
        }
    }
}

/// The C camera: what it costs with no viewer, with one, and with eight.
async fn camera_usage() -> Result<Vec<f64>, String> {
    let mut lab = Lab::start(CameraSetup::default()).await?;
    let pid = lab.camera().pid();
    let clip = std::fs::metadata(&lab.setup.clip).map_err(|e| e.to_string())?.len() / 1024;
    sleep(SETTLE).await;
    let idle = memory(pid)?;
    let cpu_0 = cpu_over(pid, WINDOW).await?;

    let mut viewers = vec![join(&lab, 0).await?];
    sleep(SETTLE).await;
    let cpu_1 = cpu_over(pid, WINDOW).await?;
    let rss_1 = memory(pid)?.rss_kb;
    for i in 1..8 {
        viewers.push(join(&lab, i).await?);
    }
    sleep(SETTLE).await;
    let rss_8 = memory(pid)?.rss_kb;
    for viewer in viewers {
        viewer.leave().await;
    }
    lab.finish()?;
    Ok(vec![
        cpu_0,
        cpu_1,
        // The clip stands for an encoder; it is no part of the SDK.
        idle.rss_kb.saturating_sub(clip) as f64,
        idle.anonymous_kb.saturating_sub(clip) as f64,
        (rss_8 as f64 - rss_1 as f64) / 7.0,
    ])
}

async fn cpu_over(pid: u32, window: Duration) -> Result<f64, String> {
    let (start, from) = (hil_tests::clock::now(), cpu_ms(pid)?);
    sleep(window).await;
    Ok((cpu_ms(pid)? - from) / start.elapsed().as_secs_f64())
}

async fn join(lab: &Lab, number: usize) -> Result<Viewer, String> {
    let app = format!("bench-{number}");
    let viewer = Viewer::join(&lab.api, &lab.setup.device, &app, Options::default())
        .await
        .map_err(|e| e.to_string())?;
    viewer.frames(30, PATIENCE).await.map_err(|e| e.to_string())?;
    Ok(viewer)
}

/// Allocations and sends of the instrumented camera while one viewer watches.
async fn device_counters() -> Result<Vec<f64>, String> {
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    let setup = CameraSetup { binary: Some(this), ..CameraSetup::default() };
    let mut lab = Lab::start(setup).await?;
    let viewer = join(&lab, 0).await?;
    sleep(SETTLE).await;
    let first = counters_line(&mut lab).await?;
    sleep(WINDOW).await;
    let last = counters_line(&mut lab).await?;
    let (packets, frames) = viewer.look(|s| (s.received.packets as f64, s.received.frames as f64));
    if viewer.look(|s| s.received.missing) != 0 {
        return Err("packets were lost on loopback: the machine is overloaded".into());
    }
    viewer.leave().await;
    lab.finish()?;
    let [frames_sent, allocations, sends] = [0, 1, 2].map(|i| last[i] - first[i]);
    let packets_sent = frames_sent * packets / frames;
    Ok(vec![allocations / packets_sent, sends / frames_sent])
}

/// The next `counters` line: frames, allocations, sends.
async fn counters_line(lab: &mut Lab) -> Result<[f64; 3], String> {
    let camera = lab.camera();
    let mark = camera.mark();
    let parse = |line: &str| {
        let rest = line.strip_prefix("counters ")?;
        let mut numbers = rest.split_whitespace().map(|w| w.split_once('=')?.1.parse::<f64>().ok());
        Some([numbers.next()??, numbers.next()??, numbers.next()??])
    };
    camera.line_after(mark, "its counters", PATIENCE, parse).await
}

/// From the click to the first decoded frame, in Chromium, over the whole path.
async fn first_frame() -> Result<Vec<f64>, String> {
    // A browser that is ended says no goodbye, and its place is taken until it is missed.
    let setup = CameraSetup { max_viewers: Some(64), ..CameraSetup::default() };
    let lab = Lab::start(setup).await?;
    let mut times = Vec::new();
    for run in 0..BROWSER_RUNS {
        let watch = Watch { click: true, seconds: 1, ..Watch::new(lab.viewer_url()) };
        let report = watch.run().await?;
        let time = report["firstFrameMs"].as_f64();
        let time = time.ok_or_else(|| format!("the page gave no firstFrameMs: {report}"))?;
        eprintln!("bench: first frame {run}: {time:.0} ms");
        times.push(time);
    }
    lab.finish()?;
    let of = |share| percentile(&times, share).ok_or("no runs".to_owned());
    Ok(vec![of(0.5)?, of(1.0)?, times.len() as f64])
}
