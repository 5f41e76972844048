//! The estimate against a simulated bottleneck, in virtual time: an encoder that does what it is
//! told, the pacer, a link, and a viewer that reports every 100 ms.
#![allow(clippy::print_stdout, reason = "what was measured is worth reading")]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod bottleneck;

use bottleneck::{FeedbackWriter, Link};
use sdk_core::media::{Bandwidth, Pacer};
use sdk_core::wire::rtcp::{self, Packet};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);
const PACKET: usize = 1200;
/// What the viewer's clock shows when the test starts.
const VIEWER_CLOCK: Duration = Duration::from_secs(4711);

struct Sim {
    start: Instant,
    now: Duration,
    link: Link,
    bandwidth: Bandwidth,
    pacer: Pacer,
    feedback: FeedbackWriter,
    /// Bytes of the frames that wait.
    waiting: VecDeque<usize>,
    on_the_way: VecDeque<(Duration, u16)>,
    reports: VecDeque<(Duration, Vec<u8>)>,
    next_sequence: u16,
    next_frame: Duration,
    frames: u32,
    encoder_max: f64,
    /// Frames that the encoder needs to follow.
    encoder_lag: usize,
    asked: VecDeque<f64>,
    trace: Vec<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Duration,
    estimate: f64,
    target: f64,
    /// In the link and in the pacer.
    link: Duration,
    pacer: Duration,
}

impl Sim {
    #[allow(clippy::disallowed_methods, reason = "virtual time needs a moment to count from")]
    fn new(start_rate: u32, link: Link) -> Sim {
        let start = Instant::now();
        Sim {
            start,
            now: Duration::ZERO,
            link,
            bandwidth: Bandwidth::new(start, start_rate),
            pacer: Pacer::new(start),
            feedback: FeedbackWriter::default(),
            waiting: VecDeque::new(),
            on_the_way: VecDeque::new(),
            reports: VecDeque::new(),
            next_sequence: 65_000,
            next_frame: Duration::ZERO,
            frames: 0,
            encoder_max: f64::from(start_rate),
            encoder_lag: 3,
            asked: VecDeque::new(),
            trace: Vec::new(),
        }
    }

    fn run(&mut self, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        while self.now < end {
            self.now += MS;
            if self.now >= self.next_frame {
                self.next_frame += Duration::from_micros(33_333);
                self.encode();
            }
            self.send();
            self.receive();
            self.sample();
        }
    }

    fn encode(&mut self) {
        let wanted = self.bandwidth.target().map_or(self.encoder_max, f64::from);
        self.asked.push_back(wanted.min(self.encoder_max));
        if self.asked.len() > self.encoder_lag {
            self.asked.pop_front();
        }
        // A keyframe of four frames' size every two seconds, and sizes that vary by a fifth.
        let usual = self.asked[0] / 8.0 / 30.0 * 60.0 / 63.0;
        let share = match self.frames % 60 {
            0 => 4.0,
            n => 0.8 + 0.1 * f64::from(n * 7 % 5),
        };
        self.frames += 1;
        self.waiting.push_back((usual * share) as usize);
    }

    fn send(&mut self) {
        let now = self.start + self.now;
        self.pacer.set_estimate(now, self.bandwidth.estimate(), self.bandwidth.drain());
        while let Some(frame) = self.waiting.front_mut() {
            let mut granted = self.pacer.grant(now, *frame);
            if granted == 0 {
                break;
            }
            *frame -= granted;
            while granted > 0 {
                let len = granted.min(PACKET);
                granted -= len;
                // Headers.
                let len = len + 48;
                self.pacer.on_sent(len);
                self.bandwidth.on_sent(now, Some(self.next_sequence), len);
                if let Some(at) = self.link.send(self.now, len) {
                    self.on_the_way.push_back((at, self.next_sequence));
                }
                self.next_sequence = self.next_sequence.wrapping_add(1);
            }
            if *frame == 0 {
                self.waiting.pop_front();
            }
        }
    }

    fn receive(&mut self) {
        while let Some((at, sequence)) = self.on_the_way.pop_front_if(|(at, _)| *at <= self.now) {
            self.feedback.on_packet(sequence, at + VIEWER_CLOCK);
        }
        if self.now.as_millis().is_multiple_of(100)
            && let Some(packet) = self.feedback.write()
        {
            self.reports.push_back((self.now + 20 * MS, packet));
        }
        while let Some((_, packet)) = self.reports.pop_front_if(|(at, _)| *at <= self.now) {
            for packet in rtcp::packets(&packet) {
                let Packet::TransportFeedback(feedback) = packet else { panic!("{packet:?}") };
                self.bandwidth.on_transport_feedback(self.start + self.now, &feedback);
            }
        }
    }

    fn sample(&mut self) {
        let waiting: usize = self.waiting.iter().sum();
        let estimate = self.bandwidth.estimate().map_or(f64::NAN, f64::from);
        self.trace.push(Sample {
            at: self.now,
            estimate,
            target: self.bandwidth.target().map_or(f64::NAN, f64::from),
            link: self.link.queue(self.now),
            pacer: Duration::from_secs_f64(8.0 * waiting as f64 / estimate.max(50_000.0)),
        });
    }

    /// The samples of a time in seconds.
    fn between(&self, from: f64, to: f64) -> impl Iterator<Item = &Sample> + Clone {
        self.trace.iter().filter(move |s| (from..to).contains(&s.at.as_secs_f64()))
    }

    fn range(&self, from: f64, to: f64) -> (f64, f64) {
        let estimates = self.between(from, to).map(|s| s.estimate);
        estimates.fold((f64::MAX, 0.0), |(least, most), e| (e.min(least), e.max(most)))
    }

    /// Seconds until the estimate stays within these bounds up to `to`.
    fn settled(&self, from: f64, to: f64, least: f64, most: f64) -> f64 {
        let outside = |s: &&Sample| !(least..=most).contains(&s.estimate);
        self.between(from, to).filter(outside).last().map_or(0.0, |s| s.at.as_secs_f64() - from)
    }

    fn worst_queue(&self, from: f64, to: f64) -> Duration {
        self.between(from, to).map(|s| s.link).max().unwrap()
    }

    fn mean(&self, from: f64, to: f64) -> f64 {
        let samples = self.between(from, to);
        samples.clone().map(|s| s.estimate).sum::<f64>() / samples.count() as f64
    }

    /// For the eye, when a test is run with --nocapture.
    fn print(&self, what: &str, step: f64) {
        println!("{what}");
        let mut next = 0.0;
        for s in self.trace.iter().filter(|s| !s.estimate.is_nan()) {
            if s.at.as_secs_f64() >= next {
                next = s.at.as_secs_f64() + step;
                println!(
                    "{:6.2} s  estimate {:7.0}  target {:7.0}  link {:3} ms  pacer {:3} ms",
                    s.at.as_secs_f64(),
                    s.estimate,
                    s.target,
                    s.link.as_millis(),
                    s.pacer.as_millis()
                );
            }
        }
    }
}

#[test]
fn it_follows_a_link_from_4_to_1_and_back_to_4_mbit() {
    let mut sim = Sim::new(4_000_000, Link::new(4e6));
    sim.run(20.0);
    sim.link.set_rate(sim.now, 1e6);
    sim.run(20.0);
    sim.link.set_rate(sim.now, 4e6);
    sim.run(30.0);
    sim.print("4, 1, 4 Mbit/s", 0.5);

    let down = sim.settled(20.0, 40.0, 0.8e6, 1.2e6);
    let full = sim.between(20.0, 40.0).filter(|s| s.link > 300 * MS);
    let full_for = full.clone().count();
    let empty = full.last().map_or(0.0, |s| s.at.as_secs_f64() - 20.0);
    let up_half = sim.between(40.0, 70.0).find(|s| s.estimate > 2e6).unwrap().at.as_secs_f64();
    let up = sim.between(40.0, 70.0).find(|s| s.estimate > 3.2e6).unwrap().at.as_secs_f64();
    println!(
        "4 to 1: settled after {down:.2} s; the link's queue was above 300 ms for {full_for} ms, \
         the last time after {empty:.2} s, worst {:?}; 1 to 4: 2 Mbit/s after {:.2} s, 3.2 after \
         {:.2} s",
        sim.worst_queue(20.0, 40.0),
        up_half - 40.0,
        up - 40.0
    );
    assert!(down < 3.0, "settles in {down} s");
    assert!(empty < 1.0, "the queue is above 300 ms up to {empty} s after the drop");
    assert!(sim.worst_queue(21.0, 40.0) < 300 * MS, "{:?}", sim.worst_queue(21.0, 40.0));
    assert!(sim.between(20.0, 40.0).all(|s| s.pacer < 300 * MS));
    assert!(up - 40.0 < 8.0, "back after {} s", up - 40.0);
}

#[test]
fn a_steady_link_of_2_mbit_is_used_without_wild_oscillation() {
    let mut sim = Sim::new(4_000_000, Link::new(2e6));
    sim.run(60.0);
    sim.print("2 Mbit/s", 1.0);
    let (least, most) = sim.range(5.0, 60.0);
    let queue = sim.worst_queue(5.0, 60.0);
    println!("2 Mbit/s: {least:.0} to {most:.0}, mean {:.0}, queue {queue:?}", sim.mean(5.0, 60.0));
    assert!(least > 1.5e6 && most < 2.4e6);
    assert!(sim.mean(5.0, 60.0) > 1.7e6);
    assert!(queue < 250 * MS);
}

#[test]
fn random_loss_of_5_percent_does_not_collapse_it() {
    let mut sim = Sim::new(2_000_000, Link { loss: 0.05, ..Link::new(4e6) });
    sim.run(60.0);
    let (least, most) = sim.range(1.0, 60.0);
    println!("5 % loss: {least:.0} to {most:.0}");
    assert!(least > 1.8e6);
}

#[test]
fn jitter_of_30_ms_does_not_starve_it() {
    let mut sim = Sim::new(4_000_000, Link { jitter: 30 * MS, ..Link::new(4e6) });
    sim.run(60.0);
    sim.print("jitter", 1.0);
    let (least, most) = sim.range(5.0, 60.0);
    println!("30 ms of jitter: {least:.0} to {most:.0}, mean {:.0}", sim.mean(5.0, 60.0));
    assert!(least > 2e6 && sim.mean(5.0, 60.0) > 3e6);
}

#[test]
fn a_shaper_that_lets_bursts_through_does_not_deceive_it() {
    let mut sim = Sim::new(4_000_000, Link { allowance: 20_000.0, ..Link::new(2e6) });
    sim.run(60.0);
    sim.print("shaper", 1.0);
    let (least, most) = sim.range(5.0, 60.0);
    let (mean, queue) = (sim.mean(5.0, 60.0), sim.worst_queue(5.0, 60.0));
    println!("shaper: {least:.0} to {most:.0}, mean {mean:.0}, worst queue {queue:?}");
    assert!(least > 1.5e6 && most < 3.5e6);
    assert!((1.7e6..2.3e6).contains(&mean));
    assert!(queue < 350 * MS);
}

#[test]
fn a_policer_without_a_queue_is_found_by_its_losses() {
    let mut sim = Sim::new(4_000_000, Link { buffer: 30 * MS, ..Link::new(1e6) });
    sim.run(40.0);
    sim.print("policer", 1.0);
    let (least, most) = sim.range(5.0, 40.0);
    println!("policer: {least:.0} to {most:.0}");
    assert!(least > 0.4e6 && most < 1.6e6);
}

#[test]
fn a_dead_link_lowers_the_rate_and_its_return_raises_it() {
    let mut sim = Sim::new(2_000_000, Link::new(4e6));
    sim.run(10.0);
    sim.link.loss = 1.0;
    sim.run(5.0);
    let dead = sim.bandwidth.estimate().unwrap();
    sim.link.loss = 0.0;
    sim.run(15.0);
    sim.print("dead link", 0.5);
    let back = sim.between(15.0, 30.0).find(|s| s.estimate > 1.8e6).unwrap().at.as_secs_f64();
    println!("dead for 5 s: down to {dead}, back after {:.2} s", back - 15.0);
    assert!(dead < 300_000);
    assert!(back - 15.0 < 10.0);
}

#[test]
fn a_longer_route_costs_no_rate_for_long() {
    let mut sim = Sim::new(2_000_000, Link::new(4e6));
    sim.run(10.0);
    sim.link.delay += 90 * MS;
    sim.run(20.0);
    sim.print("route", 0.5);
    let (least, _) = sim.range(10.0, 30.0);
    assert!(least > 1.2e6, "{least}");
    assert!(sim.bandwidth.estimate().unwrap() > 2_000_000);
}

#[test]
fn what_is_not_sent_is_not_promised() {
    let mut sim = Sim::new(2_000_000, Link::new(50e6));
    sim.encoder_max = 500_000.0;
    sim.run(20.0);
    let before = sim.bandwidth.estimate().unwrap();
    sim.run(20.0);
    let after = sim.bandwidth.estimate().unwrap();
    assert_eq!((before, after), (2_000_000, 2_000_000), "neither more nor less");
    sim.encoder_max = 2e6;
    sim.run(20.0);
    let sent = 2e6 * 1.07;
    let estimate = f64::from(sim.bandwidth.estimate().unwrap());
    assert!((1.2 * sent..1.8 * sent).contains(&estimate), "{estimate}");
}

#[test]
fn whatever_feedback_says_the_estimate_stays_within_its_bounds() {
    let mut sim = Sim::new(2_000_000, Link::new(4e6));
    let mut state = 0x1234_5678_9abc_def0_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..3000 {
        sim.run(0.003);
        let len = (random() % 60) as usize;
        let mut body: Vec<u8> = (0..8 + len).map(|_| random() as u8).collect();
        // Often about packets that were sent.
        if random() % 2 == 0 {
            body[0..2].copy_from_slice(&sim.next_sequence.wrapping_sub(20).to_be_bytes());
            body[2..4].copy_from_slice(&[0, 30]);
        }
        let mut packet = vec![0x8f, 205, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0];
        packet.extend(body);
        packet.resize(packet.len().next_multiple_of(4), 0);
        packet[3] = (packet.len() / 4 - 1) as u8;
        for packet in rtcp::packets(&packet) {
            if let Packet::TransportFeedback(feedback) = packet {
                sim.bandwidth.on_transport_feedback(sim.start + sim.now, &feedback);
            }
        }
        sim.bandwidth.on_max_bitrate(random() << (random() % 64));
        let estimate = sim.bandwidth.estimate().unwrap();
        assert!((50_000..=100_000_000).contains(&estimate), "{estimate}");
        let target = sim.bandwidth.target().unwrap();
        assert!((10_000..=estimate).contains(&target), "{target}");
    }
}

#[test]
fn without_transport_feedback_the_viewers_own_estimate_and_its_losses_count() {
    let mut sim = Sim::new(2_000_000, Link::new(4e6));
    let now = sim.start;
    assert_eq!(sim.bandwidth.estimate(), None);
    sim.bandwidth.on_max_bitrate(800_000);
    assert_eq!(sim.bandwidth.estimate(), Some(800_000));
    sim.bandwidth.on_max_bitrate(9_000_000);
    // A report each second with 20 % lost, then with none.
    for second in 1..=5 {
        sim.bandwidth.on_report(now + second * 1000 * MS, 51);
    }
    let low = sim.bandwidth.estimate().unwrap();
    assert!((1_000_000..1_400_000).contains(&low), "{low}");
    for second in 6..=12 {
        for _ in 0..200 {
            sim.bandwidth.on_sent(now + second * 1000 * MS, None, 1200);
        }
        sim.bandwidth.on_report(now + second * 1000 * MS, 0);
    }
    assert!(sim.bandwidth.estimate().unwrap() > 1_900_000, "{:?}", sim.bandwidth.estimate());
}
