//! What the instrumented camera (`bench device`) counts of itself: allocations, sends, and how long
//! a frame takes from its push to the kernel.

use crate::crowd::Crowd;
use crate::watching::{FRAMES_PER_SECOND, SETTLE, WINDOW};
use hil_tests::figures::Measured;
use hil_tests::lab::{CameraSetup, Lab, PATIENCE};
use hil_tests::report::percentile;
use tokio::time::sleep;

pub(crate) const COUNTER_NAMES: [&str; 2] = ["allocs_per_packet", "sends_per_frame_per_viewer"];
pub(crate) const WIRE_NAMES: [&str; 1] = ["push_to_wire_us_p99"];

/// With one viewer and with eight.
pub(crate) async fn counters() -> Measured {
    let mut lab = start().await?;
    let mut crowd = Crowd::start()?;
    crowd.watch_camera(&lab, 1).await?;
    let one = window(&mut lab, &mut crowd, 1.0).await?;
    crowd.watch_camera(&lab, 7).await?;
    let eight = window(&mut lab, &mut crowd, 8.0).await?;
    crowd.leave().await?;
    lab.finish()?;
    Ok(vec![
        ("allocs_per_packet", one.allocations_per_packet.max(eight.allocations_per_packet)),
        ("allocs_per_packet_1_viewer", one.allocations_per_packet),
        ("allocs_per_packet_8_viewers", eight.allocations_per_packet),
        ("allocs_in_median_second_1_viewer", one.allocations_in_median_second),
        ("allocs_in_median_second_8_viewers", eight.allocations_in_median_second),
        ("sends_per_frame_per_viewer", one.sends_per_frame.max(eight.sends_per_frame)),
        ("sends_per_frame_per_viewer_1_viewer", one.sends_per_frame),
        ("sends_per_frame_per_viewer_8_viewers", eight.sends_per_frame),
    ])
}

/// With one viewer.
pub(crate) async fn push_to_wire() -> Measured {
    let mut lab = start().await?;
    let mut crowd = Crowd::start()?;
    crowd.watch_camera(&lab, 1).await?;
    // What is printed speaks of frames of two seconds before.
    sleep(SETTLE + SETTLE).await;
    let mark = lab.camera().mark();
    sleep(WINDOW + WINDOW).await;
    let frames: Vec<(f64, u32)> =
        lab.camera().lines().iter().skip(mark).flat_map(|line| wire_line(line)).collect();
    crowd.leave().await?;
    lab.finish()?;
    let expected = 2.0 * WINDOW.as_secs_f64() * FRAMES_PER_SECOND;
    if (frames.len() as f64) < 0.95 * expected {
        return Err(format!("{} of {expected} frames were seen on their way", frames.len()));
    }
    let all: Vec<f64> = frames.iter().map(|(us, _)| *us).collect();
    let whole: Vec<f64> =
        frames.iter().filter(|(_, calls)| *calls == 1).map(|(us, _)| *us).collect();
    let of = |values: &[f64], share| percentile(values, share).ok_or("no frames".to_owned());
    Ok(vec![
        ("push_to_wire_us_p50", of(&all, 0.5)?),
        ("push_to_wire_us_p99", of(&all, 0.99)?),
        ("push_to_wire_us_max", of(&all, 1.0)?),
        ("push_to_wire_one_send_us_p99", of(&whole, 0.99)?),
        ("push_to_wire_one_send_percent", 100.0 * whole.len() as f64 / all.len() as f64),
        ("push_to_wire_frames", all.len() as f64),
    ])
}

async fn start() -> Result<Lab, String> {
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    Lab::start(CameraSetup { binary: Some(this), ..CameraSetup::default() }).await
}

struct Window {
    allocations_per_packet: f64,
    /// Most seconds have none: what there is comes with a signal, a report or a check.
    allocations_in_median_second: f64,
    sends_per_frame: f64,
}

async fn window(lab: &mut Lab, crowd: &mut Crowd, viewers: f64) -> Result<Window, String> {
    sleep(SETTLE).await;
    let (first, before) = (counters_line(lab).await?, crowd.counts().await?);
    let mark = lab.camera().mark();
    sleep(WINDOW).await;
    let seconds: Vec<[f64; 3]> =
        lab.camera().lines().iter().skip(mark).filter_map(|line| parse_counters(line)).collect();
    let allocations: Vec<f64> = seconds.windows(2).map(|pair| pair[1][1] - pair[0][1]).collect();
    let median = percentile(&allocations, 0.5).ok_or("the camera counted nothing")?;
    let (last, after) = (counters_line(lab).await?, crowd.counts().await?);
    let [frames_sent, allocations, sends] = [0, 1, 2].map(|i| last[i] - first[i]);
    let (mut packets, mut frames) = (0, 0);
    for (before, after) in before.iter().zip(&after) {
        if after.missing != before.missing {
            return Err("packets were lost on loopback: the machine is overloaded".into());
        }
        packets += after.packets - before.packets;
        frames += after.frames - before.frames;
    }
    // The viewers counted at slightly other moments than the camera.
    let packets_sent = frames_sent * viewers * packets as f64 / frames as f64;
    Ok(Window {
        allocations_per_packet: allocations / packets_sent,
        allocations_in_median_second: median,
        sends_per_frame: sends / (frames_sent * viewers),
    })
}

/// The next `counters` line.
async fn counters_line(lab: &mut Lab) -> Result<[f64; 3], String> {
    let camera = lab.camera();
    let mark = camera.mark();
    camera.line_after(mark, "its counters", PATIENCE, parse_counters).await
}

/// `counters frames=30 allocations=12 sends=34`, since the camera's start.
fn parse_counters(line: &str) -> Option<[f64; 3]> {
    let rest = line.strip_prefix("counters ")?;
    let mut numbers = rest.split_whitespace().map(|w| w.split_once('=')?.1.parse::<f64>().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

/// `wire 410/1 395/1 30210/4`: microseconds and sends of each frame.
fn wire_line(line: &str) -> impl Iterator<Item = (f64, u32)> {
    let words = line.strip_prefix("wire").unwrap_or_default().split_whitespace();
    words.filter_map(|word| {
        let (us, calls) = word.split_once('/')?;
        Some((us.parse().ok()?, calls.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_about_the_wire_is_read() {
        assert_eq!(wire_line("wire 410/1 30210/4").collect::<Vec<_>>(), [(410.0, 1), (30210.0, 4)]);
        assert_eq!(wire_line("wire").count(), 0);
        assert_eq!(wire_line("stats 1/2").count(), 0);
        let counters = "counters frames=30 allocations=12 sends=34";
        assert_eq!(parse_counters(counters), Some([30.0, 12.0, 34.0]));
    }
}
