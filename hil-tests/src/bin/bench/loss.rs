//! A minute in Chromium over a network that loses 5 % of all datagrams, both ways.
//!
//! ```text
//! camera ── relay of server-min ── Lossy ── Chromium
//! ```
//!
//! Chromium may use its relay only, and finds it behind [`Lossy`]; the camera, the page and the
//! signaling are as ever. So everything between Chromium and the camera suffers: media, feedback,
//! connectivity checks, and the relay's own messages.

use crate::lossy::Lossy;
use crate::watching::FRAMES_PER_SECOND;
use hil_tests::browser::Watch;
use hil_tests::figures::Measured;
use hil_tests::lab::{CameraSetup, Lab};
use serde_json::Value;

const PERCENT: u32 = 5;
const SECONDS: u32 = 60;
const SEED: u64 = 1;

pub(crate) const NAMES: [&str; 2] = ["loss_freezes", "loss_decoded_percent"];

pub(crate) async fn measure() -> Measured {
    let setup = CameraSetup { stats_every: Some(1.0), ..CameraSetup::default() };
    let mut lab = Lab::start(setup).await?;
    let lossy = Lossy::start(lab.turn_addr()?, PERCENT, SEED).await.map_err(|e| e.to_string())?;
    let watch = Watch {
        relay: true,
        turn: Some(lossy.addr()),
        seconds: SECONDS,
        ..Watch::new(lab.viewer_url())
    };
    let seen = watch.run().await?;
    let mut figures = of_the_browser(&seen)?;
    figures.push(("loss_network_percent", lossy.lost_percent()));
    figures.extend(of_the_camera(&lab.camera().lines()));
    lab.finish()?;
    Ok(figures)
}

fn of_the_browser(seen: &Value) -> Measured {
    let number =
        |name: &str| seen[name].as_f64().ok_or_else(|| format!("the page gave no {name}: {seen}"));
    let ends = |name: &str| {
        let list = seen[name].as_array().map(Vec::as_slice).unwrap_or_default();
        match (list.first().and_then(Value::as_f64), list.last().and_then(Value::as_f64)) {
            (Some(first), Some(last)) => Ok(last - first),
            _ => Err(format!("the page gave no {name}: {seen}")),
        }
    };
    let seconds = ends("sampledAtMs")? / 1000.0;
    let decoded = ends("framesDecoded")?;
    Ok(vec![
        ("loss_freezes", number("freezeCount")?),
        ("loss_frozen_s", number("totalFreezesDuration")?),
        ("loss_decoded_percent", 100.0 * decoded / (seconds * FRAMES_PER_SECOND)),
        ("loss_frames_dropped", number("framesDropped")?),
        ("loss_nacks", number("nackCount")?),
        ("loss_plis", number("pliCount")?),
        ("loss_packets_received", number("packetsReceived")?),
        ("loss_packets_lost", number("packetsLost")?),
        ("loss_retransmissions_received", number("retransmittedPacketsReceived")?),
        ("loss_jitter_buffer_ms", number("jitterBufferMs")?),
    ])
}

/// From its last statistics of the viewer.
fn of_the_camera(lines: &[String]) -> Vec<(&'static str, f64)> {
    let last = lines.iter().rev().find(|line| line.starts_with("stats viewer "));
    let field = |name: &str| {
        let words = last.iter().flat_map(|line| line.split_whitespace());
        let mut values = words.filter_map(|word| word.split_once('='));
        values.find(|(key, _)| *key == name)?.1.parse::<f64>().ok()
    };
    [
        ("loss_camera_frames", "frames"),
        ("loss_camera_packets", "packets"),
        ("loss_camera_nacked", "nacked"),
        ("loss_camera_resent", "resent"),
        ("loss_camera_plis", "pli"),
        ("loss_camera_frames_dropped", "dropped"),
        ("loss_camera_target_bps", "target_bps"),
    ]
    .into_iter()
    .filter_map(|(name, key)| Some((name, field(key)?)))
    .collect()
}
