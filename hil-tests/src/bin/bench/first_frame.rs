//! From the click to the first decoded frame, in Chromium, over the whole path.

use hil_tests::browser::Watch;
use hil_tests::figures::Measured;
use hil_tests::lab::{CameraSetup, Lab};
use hil_tests::report::percentile;

/// Sessions opened in the browser.
const RUNS: usize = 11;

pub(crate) const NAMES: [&str; 1] = ["first_frame_ms_p50"];

pub(crate) async fn measure() -> Measured {
    let mut figures = Vec::new();
    let cached = first_frames(&[]).await?;
    for (name, share) in [("first_frame_ms_p50", 0.5), ("first_frame_ms_max", 1.0)] {
        figures.push((name, percentile(&cached, share).ok_or("no runs")?));
    }
    figures.push(("first_frame_runs", cached.len() as f64));
    // The other way to begin: the keyframe that is asked for when the offer comes.
    let asked = first_frames(&["--no-gop-cache"]).await?;
    figures.push(("first_frame_keyframe_ms_p50", percentile(&asked, 0.5).ok_or("no runs")?));
    Ok(figures)
}

/// In milliseconds, one for each run.
async fn first_frames(options: &[&str]) -> Result<Vec<f64>, String> {
    // A browser that is ended says no goodbye, and its place is taken until it is missed.
    let more = options.iter().map(|option| (*option).to_owned()).collect();
    let setup = CameraSetup { max_viewers: Some(64), more, ..CameraSetup::default() };
    let lab = Lab::start(setup).await?;
    let mut times = Vec::new();
    for run in 0..RUNS {
        let watch = Watch { click: true, seconds: 1, ..Watch::new(lab.viewer_url()) };
        let report = watch.run().await?;
        let time = report["firstFrameMs"].as_f64();
        let time = time.ok_or_else(|| format!("the page gave no firstFrameMs: {report}"))?;
        eprintln!("bench: first frame {run} {}: {time:.0} ms", options.join(" "));
        times.push(time);
    }
    lab.finish()?;
    Ok(times)
}
