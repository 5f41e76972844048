//! The whole way of congestion control: frames from an encoder that does what it is told, through
//! the agent and a link, to a viewer that reports; and back as a target for the encoder.

use crate::bottleneck::Link;
use crate::viewer::{FakeViewer, GCM_AND_CM};
use crate::world::{STREAM, World};
use crate::{delta, idr};
use sdk_core::event::Event;
use std::net::SocketAddr;
use std::time::Duration;

const BITRATE: u32 = 4_000_000;
const FRAME: Duration = Duration::from_micros(33_333);

/// A camera with viewers behind links, and its encoder.
struct Scene {
    world: World,
    viewers: Vec<SocketAddr>,
    bitrate: u32,
    frames: u32,
    time: f64,
    /// Seconds, and what the encoder was told.
    told: Vec<(f64, u32)>,
    keyframes_asked: usize,
    /// Seconds, and each viewer's queue in its link.
    queues: Vec<(f64, Vec<Duration>)>,
}

impl Scene {
    fn new(links: Vec<Link>) -> Scene {
        let mut world = World::with_bitrate(BITRATE, |_| ());
        world.push_frame(&idr(3000, 1), Duration::ZERO);
        let mut viewers = Vec::new();
        for (n, link) in (1..).zip(links) {
            let addr = format!("198.51.100.{n}:5000");
            viewers.push(addr.parse().unwrap());
            world.links.push((viewers[viewers.len() - 1], link));
            let id = world.join(FakeViewer::new(&addr, GCM_AND_CM), n);
            world.run(Duration::from_secs(1));
            assert!(world.is_connected(id), "{:?}", world.events);
        }
        for viewer in &mut world.viewers {
            viewer.send_feedback(world.now.instant);
        }
        world.events.clear();
        Scene {
            world,
            viewers,
            bitrate: BITRATE,
            frames: 0,
            time: 0.0,
            told: Vec::new(),
            keyframes_asked: 0,
            queues: Vec::new(),
        }
    }

    fn run(&mut self, seconds: f64) {
        let end = self.time + seconds;
        let mut keyframe_wanted = false;
        while self.time < end {
            let usual = self.bitrate as usize / 8 / 30;
            let at = FRAME * (self.frames + 60);
            let frame = match self.frames.is_multiple_of(60) || keyframe_wanted {
                true => idr(4 * usual, self.frames as u8),
                false => delta(usual, self.frames as u8),
            };
            self.frames += 1;
            self.world.push_frame(&frame, at);
            self.world.run(FRAME);
            self.time += FRAME.as_secs_f64();
            keyframe_wanted = false;
            for event in std::mem::take(&mut self.world.events) {
                match event {
                    Event::TargetBitrate { stream, bits_per_second } => {
                        assert_eq!(stream, STREAM);
                        self.bitrate = bits_per_second;
                        self.told.push((self.time, bits_per_second));
                    }
                    Event::KeyframeRequest { .. } => {
                        self.keyframes_asked += 1;
                        keyframe_wanted = true;
                    }
                    _ => {}
                }
            }
            let world = &mut self.world;
            let queues = self.viewers.iter().map(|viewer| world.queue_to(*viewer)).collect();
            self.queues.push((self.time, queues));
        }
    }

    /// What the encoder was told last up to a moment.
    fn told_at(&self, time: f64) -> u32 {
        self.told.iter().rev().find(|(at, _)| *at <= time).map_or(BITRATE, |(_, rate)| *rate)
    }

    fn worst_queue(&self, viewer: usize, from: f64, to: f64) -> Duration {
        let samples = self.queues.iter().filter(|(at, _)| (from..to).contains(at));
        samples.map(|(_, queues)| queues[viewer]).max().unwrap()
    }
}

#[test]
fn the_encoder_follows_a_link_from_4_to_1_and_back_to_4_mbit() {
    // A little more than the stream with its headers, then much less.
    let mut scene = Scene::new(vec![Link::new(5e6)]);
    let viewer = scene.viewers[0];
    scene.run(10.0);
    assert_eq!(scene.told_at(10.0), BITRATE, "{:?}", scene.told);
    scene.world.set_link_rate(viewer, 1e6);
    scene.run(15.0);
    scene.world.set_link_rate(viewer, 5e6);
    scene.run(20.0);

    println!("told: {:?}", scene.told);
    let full = scene.queues.iter().filter(|(_, queues)| queues[0] > Duration::from_millis(300));
    let full: Vec<f64> = full.map(|(at, _)| *at).collect();
    println!(
        "queue above 300 ms from {:?} to {:?} s, worst {:?}, {:?} after 2 s",
        full.first(),
        full.last(),
        scene.worst_queue(0, 10.0, 25.0),
        scene.worst_queue(0, 12.0, 25.0)
    );
    println!("{:?}", scene.world.viewers[0].packets.len());
    assert!(full.last().is_none_or(|at| *at < 11.0), "{full:?}");
    for at in 13..25 {
        let told = scene.told_at(f64::from(at));
        assert!((400_000..1_000_000).contains(&told), "{told} at {at} s: {:?}", scene.told);
    }
    let back = scene.told.iter().find(|(at, rate)| *at > 25.0 && *rate > 3_200_000).unwrap().0;
    println!("3.2 Mbit/s again after {:.2} s", back - 25.0);
    assert!(back < 33.0, "{:?}", scene.told);
    // What it was told may not oscillate wildly, nor often.
    let told = scene.told.iter().filter(|(at, _)| (13.0..25.0).contains(at)).count();
    assert!(told < 18, "{told} times in 12 s: {:?}", scene.told);
}

#[test]
fn the_weakest_viewer_counts_and_the_floor_protects_the_others() {
    let mut scene = Scene::new(vec![Link::new(20e6), Link::new(2e6)]);
    scene.run(15.0);
    let told = scene.told_at(15.0);
    assert!((1_200_000..2_000_000).contains(&told), "{:?}", scene.told);
    // Far below the floor of a tenth: that viewer has pictures missing, the other has none.
    let weak = scene.viewers[1];
    scene.world.set_link_rate(weak, 150_000.0);
    let before = scene.world.viewers[0].packets.len();
    scene.run(15.0);
    assert_eq!(scene.told_at(30.0), BITRATE / 10);
    let strong = &scene.world.viewers[0].packets;
    let pictures = strong[before..].iter().filter(|packet| packet.marker).count();
    assert!((449..=452).contains(&pictures), "{pictures} pictures in 15 s");
    for pair in strong.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
    }
    let asked = scene.keyframes_asked;
    assert!(asked < 20, "{asked} keyframes asked for");
    // The weak one leaves: full rate again.
    let id = sdk_core::wire::signal::SessionId::from_random([2; 16]);
    let bye = sdk_core::wire::signal::Body::Bye { reason: String::new() };
    scene.world.signal(id, "app_2", bye);
    scene.run(20.0);
    assert_eq!(scene.told_at(50.0), BITRATE, "{:?}", scene.told);
}

#[test]
fn the_answer_agrees_to_feedback() {
    let scene = Scene::new(vec![Link::new(20e6)]);
    let answer = scene.world.answer_to("app_1").unwrap();
    let expected = [
        "a=extmap:4 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
        "a=rtcp-fb:96 transport-cc",
        "a=rtcp-fb:96 goog-remb",
    ];
    for line in expected {
        // The payload type is whichever was chosen.
        let (kind, rest) = line.split_at(line.find(' ').unwrap());
        let kind = kind.trim_end_matches(char::is_numeric);
        let has = |l: &str| l.starts_with(kind) && l.ends_with(rest);
        assert!(answer.lines().any(has), "{line} in {answer}");
    }
}

#[test]
fn nothing_is_asked_of_the_encoder_on_a_fast_network() {
    let mut scene = Scene::new(vec![Link::new(100e6), Link::new(50e6)]);
    scene.run(20.0);
    assert_eq!(scene.told, []);
    assert_eq!(scene.keyframes_asked, 0);
}
