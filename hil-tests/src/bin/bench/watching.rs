//! A sender while a crowd watches it: its CPU time, and the proof that everything arrived.

use crate::crowd::Crowd;
use hil_tests::clock;
use hil_tests::usage::cpu_ms;
use std::time::Duration;
use tokio::time::sleep;

pub(crate) const FRAMES_PER_SECOND: f64 = 30.0;
/// From the last viewer's connection until anything is measured.
pub(crate) const SETTLE: Duration = Duration::from_secs(4);
/// Ten groups of pictures of the clip.
pub(crate) const WINDOW: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Watched {
    /// Milliseconds of CPU time in a second, all threads, user and system.
    pub(crate) cpu_ms_per_s: f64,
    pub(crate) packets_per_frame: f64,
    /// RTP payloads.
    pub(crate) bytes_per_frame: f64,
}

/// Measures the process over [`WINDOW`]. Fails if any of the viewers missed a frame, since then not
/// all of the work was done.
pub(crate) async fn watched(crowd: &mut Crowd, pid: u32) -> Result<Watched, String> {
    let before = crowd.counts().await?;
    let (start, cpu_before) = (clock::now(), cpu_ms(pid)?);
    sleep(WINDOW).await;
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_ms(pid)? - cpu_before);
    let after = crowd.counts().await?;

    // What is under way at either end of the window may count or not.
    let expected = seconds * FRAMES_PER_SECOND - 3.0;
    let (mut packets, mut bytes, mut frames) = (0, 0, 0);
    for (viewer, (before, after)) in before.iter().zip(&after).enumerate() {
        let (got, missing) = (after.frames - before.frames, after.missing - before.missing);
        if missing > 0 || (got as f64) < expected {
            return Err(format!(
                "viewer {viewer} received {got} whole frames in {seconds:.1} s, {missing} packets \
                 were missing: the machine is overloaded, or the sender is"
            ));
        }
        packets += after.packets - before.packets;
        bytes += after.bytes - before.bytes;
        frames += got;
    }
    let frames = frames as f64;
    Ok(Watched {
        cpu_ms_per_s: cpu / seconds,
        packets_per_frame: packets as f64 / frames,
        bytes_per_frame: bytes as f64 / frames,
    })
}

/// What our camera's log has to say about it.
pub(crate) fn warnings(lines: &[String]) -> String {
    let warnings: Vec<&String> = lines.iter().filter(|line| line.starts_with("W ")).collect();
    match warnings.last() {
        Some(last) => format!("the camera warned {} times, last: {last}", warnings.len()),
        None => "the camera gave no warning".into(),
    }
}
