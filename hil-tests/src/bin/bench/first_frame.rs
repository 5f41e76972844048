//! From the click to the first decoded frame, in Chromium, over the whole path.

use crate::figures::Measured;
use hil_tests::browser::Watch;
use hil_tests::lab::{CameraSetup, Lab};
use hil_tests::report::percentile;

/// Sessions opened in the browser.
const RUNS: usize = 11;

pub(crate) const NAMES: [&str; 1] = ["first_frame_ms_p50"];

pub(crate) async fn measure() -> Measured {
    // A browser that is ended says no goodbye, and its place is taken until it is missed.
    let setup = CameraSetup { max_viewers: Some(64), ..CameraSetup::default() };
    let lab = Lab::start(setup).await?;
    let mut times = Vec::new();
    for run in 0..RUNS {
        let watch = Watch { click: true, seconds: 1, ..Watch::new(lab.viewer_url()) };
        let report = watch.run().await?;
        let time = report["firstFrameMs"].as_f64();
        let time = time.ok_or_else(|| format!("the page gave no firstFrameMs: {report}"))?;
        eprintln!("bench: first frame {run}: {time:.0} ms");
        times.push(time);
    }
    lab.finish()?;
    let of = |share| percentile(&times, share).ok_or("no runs".to_owned());
    Ok(vec![
        ("first_frame_ms_p50", of(0.5)?),
        ("first_frame_ms_max", of(1.0)?),
        ("first_frame_runs", times.len() as f64),
    ])
}
