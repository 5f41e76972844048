//! The C camera: what it costs with no viewer, with one, and with eight.

use crate::crowd::Crowd;
use crate::watching::{SETTLE, WINDOW};
use hil_tests::clock;
use hil_tests::figures::Measured;
use hil_tests::lab::{CameraSetup, Lab};
use hil_tests::usage::{cpu_ms, memory};
use std::time::Duration;
use tokio::time::sleep;

pub(crate) const NAMES: [&str; 2] = ["rss_idle_kb", "rss_per_viewer_kb"];

pub(crate) async fn measure() -> Measured {
    let mut lab = Lab::start(CameraSetup::default()).await?;
    let pid = lab.camera().pid();
    // The clip stands for an encoder; it is no part of the SDK.
    let clip = std::fs::metadata(&lab.setup.clip).map_err(|e| e.to_string())?.len() / 1024;
    sleep(SETTLE).await;
    let idle = memory(pid)?;
    let cpu_0 = cpu_over(pid, WINDOW).await?;

    let mut crowd = Crowd::start()?;
    crowd.watch_camera(&lab, 1).await?;
    sleep(SETTLE).await;
    let cpu_1 = cpu_over(pid, WINDOW).await?;
    let rss_1 = memory(pid)?.rss_kb;
    crowd.watch_camera(&lab, 7).await?;
    sleep(SETTLE).await;
    let rss_8 = memory(pid)?.rss_kb;
    crowd.leave().await?;
    lab.finish()?;
    Ok(vec![
        ("cpu_ms_per_s_0_viewers", cpu_0),
        ("cpu_ms_per_s_1_viewer", cpu_1),
        ("rss_idle_kb", idle.rss_kb.saturating_sub(clip) as f64),
        ("rss_idle_anonymous_kb", idle.anonymous_kb.saturating_sub(clip) as f64),
        ("rss_per_viewer_kb", (rss_8 as f64 - rss_1 as f64) / 7.0),
    ])
}

async fn cpu_over(pid: u32, window: Duration) -> Result<f64, String> {
    let (start, from) = (clock::now(), cpu_ms(pid)?);
    sleep(window).await;
    Ok((cpu_ms(pid)? - from) / start.elapsed().as_secs_f64())
}
