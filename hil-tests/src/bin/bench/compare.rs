//! What our camera costs with ten viewers, and what a camera on the `webrtc` crate and one on str0m
//! cost for the same: the same clip, the same viewers, one after the other, several times round.

use crate::crowd::Crowd;
use crate::peers;
use crate::watching::{SETTLE, Watched, warnings, watched};
use hil_tests::figures::Measured;
use hil_tests::lab::{CameraSetup, Lab};
use hil_tests::report::percentile;

const VIEWERS: usize = 10;
const ROUNDS: usize = 3;

pub(crate) const NAMES: [&str; 2] = ["cpu_vs_webrtc_crate", "cpu_vs_str0m"];

#[derive(Clone, Copy)]
struct Sender {
    /// As `bench-peers` knows it; `None` is our own camera.
    peer: Option<&'static str>,
    cpu: &'static str,
    packets: &'static str,
    bytes: &'static str,
}

const SENDERS: [Sender; 4] = [
    Sender {
        peer: None,
        cpu: "cpu_ms_per_s_10_viewers",
        packets: "packets_per_frame",
        bytes: "bytes_per_frame",
    },
    Sender {
        peer: Some("str0m"),
        cpu: "cpu_ms_per_s_10_viewers_str0m",
        packets: "packets_per_frame_str0m",
        bytes: "bytes_per_frame_str0m",
    },
    Sender {
        peer: Some("str0m-runs"),
        cpu: "cpu_ms_per_s_10_viewers_str0m_runs",
        packets: "packets_per_frame_str0m_runs",
        bytes: "bytes_per_frame_str0m_runs",
    },
    Sender {
        peer: Some("webrtc"),
        cpu: "cpu_ms_per_s_10_viewers_webrtc_crate",
        packets: "packets_per_frame_webrtc_crate",
        bytes: "bytes_per_frame_webrtc_crate",
    },
];

pub(crate) async fn measure() -> Measured {
    hil_tests::usage::expect_two_processors()?;
    let mut runs: Vec<Vec<Watched>> = vec![Vec::new(); SENDERS.len()];
    for round in 0..ROUNDS {
        for (sender, runs) in SENDERS.iter().zip(&mut runs) {
            let name = sender.peer.unwrap_or("the camera");
            let run = run(sender.peer).await.map_err(|e| format!("{name}: {e}"))?;
            eprintln!("bench: round {round}, {name}: {run:.1?}");
            runs.push(run);
        }
    }
    let mut figures = Vec::new();
    let mut cpu = Vec::new();
    for (sender, runs) in SENDERS.iter().zip(&runs) {
        let median = |read: fn(&Watched) -> f64| {
            let values: Vec<f64> = runs.iter().map(read).collect();
            percentile(&values, 0.5).unwrap_or(f64::NAN)
        };
        cpu.push(median(|run| run.cpu_ms_per_s));
        figures.push((sender.cpu, median(|run| run.cpu_ms_per_s)));
        figures.push((sender.packets, median(|run| run.packets_per_frame)));
        figures.push((sender.bytes, median(|run| run.bytes_per_frame)));
    }
    let [ours, str0m, str0m_runs, webrtc] = cpu[..] else { return Err("not all ran".into()) };
    figures.push(("cpu_vs_webrtc_crate", ours / webrtc));
    figures.push(("cpu_vs_str0m", ours / str0m));
    figures.push(("cpu_vs_str0m_runs", ours / str0m_runs));
    Ok(figures)
}

async fn run(peer: Option<&str>) -> Result<Watched, String> {
    let mut crowd = Crowd::start()?;
    let setup = CameraSetup {
        max_viewers: Some(VIEWERS as u32),
        processors: Some((peers::SENDER, peers::VIEWERS)),
        ..CameraSetup::default()
    };
    let Some(peer) = peer else {
        let mut lab = Lab::start(setup).await?;
        crowd.watch_camera(&lab, VIEWERS).await?;
        tokio::time::sleep(SETTLE).await;
        let pid = lab.camera().pid();
        let watched = watched(&mut crowd, pid)
            .await
            .map_err(|e| format!("{e}; {}", warnings(&lab.camera().lines())))?;
        crowd.leave().await?;
        lab.finish()?;
        return Ok(watched);
    };
    let clip = setup.clip.to_str().ok_or("the clip's path is not UTF-8")?.to_owned();
    let mut sender = peers::start(&[peer, &clip], peers::SENDER)?;
    crowd.watch(&mut sender, VIEWERS).await?;
    tokio::time::sleep(SETTLE).await;
    let pid = sender.pid();
    watched(&mut crowd, pid).await
}
