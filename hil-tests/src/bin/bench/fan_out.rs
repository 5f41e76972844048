//! How the cost of a viewer grows with the number of viewers: one camera, more and more of them.

use crate::crowd::Crowd;
use crate::peers;
use crate::watching::{SETTLE, warnings, watched};
use hil_tests::figures::Measured;
use hil_tests::lab::{CameraSetup, Lab};
use tokio::time::sleep;

/// Viewers, and the names of what the camera costs with them: in all, and each.
const STEPS: [(usize, &str, &str); 5] = [
    (1, "fan_out_cpu_ms_per_s_1", "fan_out_cpu_ms_per_s_per_viewer_1"),
    (10, "fan_out_cpu_ms_per_s_10", "fan_out_cpu_ms_per_s_per_viewer_10"),
    (25, "fan_out_cpu_ms_per_s_25", "fan_out_cpu_ms_per_s_per_viewer_25"),
    (50, "fan_out_cpu_ms_per_s_50", "fan_out_cpu_ms_per_s_per_viewer_50"),
    (100, "fan_out_cpu_ms_per_s_100", "fan_out_cpu_ms_per_s_per_viewer_100"),
];

pub(crate) const NAMES: [&str; 2] = ["viewers_per_core", "fan_out_slope_ratio"];

pub(crate) async fn measure() -> Measured {
    hil_tests::usage::expect_two_processors()?;
    let mut crowd = Crowd::start()?;
    let setup = CameraSetup {
        max_viewers: Some(128),
        processors: Some((peers::SENDER, peers::VIEWERS)),
        ..CameraSetup::default()
    };
    let mut lab = Lab::start(setup).await?;
    let pid = lab.camera().pid();
    let (mut figures, mut cpu, mut there) = (Vec::new(), Vec::new(), 0);
    for (viewers, in_all, each) in STEPS {
        crowd.watch_camera(&lab, viewers - there).await?;
        there = viewers;
        sleep(SETTLE).await;
        let run = watched(&mut crowd, pid)
            .await
            .map_err(|e| format!("{viewers} viewers: {e}; {}", warnings(&lab.camera().lines())))?;
        eprintln!("bench: {viewers} viewers: {run:.1?}");
        figures.push((in_all, run.cpu_ms_per_s));
        figures.push((each, run.cpu_ms_per_s / viewers as f64));
        cpu.push(run.cpu_ms_per_s);
    }
    crowd.leave().await?;
    lab.finish()?;
    let [_, at_10, _, at_50, at_100] = cpu[..] else { return Err("not all steps ran".into()) };
    let (low, high) = ((at_50 - at_10) / 40.0, (at_100 - at_50) / 50.0);
    figures.push(("fan_out_slope_ratio", high / low));
    // A second has a thousand milliseconds.
    figures.push(("viewers_per_core", 100.0 + (1000.0 - at_100) / high));
    Ok(figures)
}
