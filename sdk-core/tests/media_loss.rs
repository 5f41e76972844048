//! Loss both ways, in virtual time: the pacer, a link that loses 5 % of everything, and a viewer that
//! asks for what it lost and shows pictures in order, as Chromium does. What counts is how often the
//! picture stands still.
#![allow(clippy::print_stdout, reason = "what was measured is worth reading")]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod bottleneck;
mod media_support;

use bottleneck::{FeedbackWriter, Link};
use media_support::*;
use sdk_core::media::{
    PacedStream, Rtx, SendBuffer, SrtpProfile, VideoConfig, VideoStream, ViewerConfig,
};
use sdk_core::wire::rtp::{self, ExtensionIds};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);
const PROFILE: SrtpProfile = SrtpProfile::AeadAes128Gcm;
/// What the viewer's clock shows when the test starts.
const VIEWER_CLOCK: Duration = Duration::from_secs(4711);
const FRAME: Duration = Duration::from_micros(33_333);
/// Chromium's, where it knows no round trip: a viewer that only receives does not.
const ASK_AGAIN: Duration = Duration::from_millis(100);
const FEEDBACK_EVERY: Duration = Duration::from_millis(50);

struct Sim {
    start: Instant,
    now: Duration,
    video: VideoStream,
    paced: PacedStream,
    down: Link,
    up: Link,
    on_the_way: VecDeque<(Duration, Vec<u8>)>,
    reports: VecDeque<(Duration, Vec<u8>)>,
    viewer: Viewer,
}

/// What Chromium does with packets, as far as it counts here.
struct Viewer {
    remote: Remote,
    feedback: FeedbackWriter,
    /// Unwrapped sequence numbers behind the last frame on show, with the marker bit.
    packets: BTreeMap<u64, bool>,
    newest: Option<u64>,
    /// The first packet of the frame that is to be shown next.
    next: u64,
    /// Missing packets, and when they were asked for last.
    missing: BTreeMap<u64, Option<Duration>>,
    shown: Vec<Duration>,
}

impl Sim {
    fn new(loss: f64, seed: u64) -> Sim {
        let start = start_of_time();
        let config = ViewerConfig {
            rtx: Some(Rtx { ssrc: RTX_SSRC, payload_type: 97 }),
            extensions: ExtensionIds { transport_cc: Some(3), ..ExtensionIds::default() },
            ..viewer_config()
        };
        let link = |random: u64| Link { loss, random, delay: 5 * MS, ..Link::new(20e6) };
        Sim {
            start,
            now: Duration::ZERO,
            video: VideoStream::new(VideoConfig::new(2_000_000, 1200)),
            paced: PacedStream::new(start, config, &keys(PROFILE, false), 2_000_000),
            down: link(seed),
            up: link(seed.rotate_left(17)),
            on_the_way: VecDeque::new(),
            reports: VecDeque::new(),
            viewer: Viewer {
                remote: Remote::new(PROFILE),
                feedback: FeedbackWriter::default(),
                packets: BTreeMap::new(),
                newest: None,
                next: 0,
                missing: BTreeMap::new(),
                shown: Vec::new(),
            },
        }
    }

    fn run(&mut self, seconds: u64) {
        let mut next_frame = Duration::ZERO;
        for number in 0_u32.. {
            next_frame += FRAME;
            if next_frame.as_secs() >= seconds {
                return;
            }
            self.push(number);
            while self.now < next_frame {
                self.send();
                self.receive();
                self.now += MS;
            }
        }
    }

    /// 2 Mbit/s, and a keyframe every two seconds.
    fn push(&mut self, number: u32) {
        let unit = match number % 60 {
            0 => idr(32_000),
            n => delta(7800, n as u8),
        };
        let train = self.video.push(&unit, FRAME * number).unwrap().unwrap();
        self.paced.queue(&train);
    }

    fn send(&mut self) {
        let mut out = SendBuffer::new();
        loop {
            out.clear();
            self.paced.seal(self.start + self.now, &self.video, None, &mut out).unwrap();
            if out.runs().is_empty() {
                return;
            }
            for datagram in datagrams(&out) {
                if let Some(at) = self.down.send(self.now, datagram.len()) {
                    self.on_the_way.push_back((at, datagram));
                }
            }
        }
    }

    fn receive(&mut self) {
        while let Some((at, datagram)) = self.on_the_way.pop_front_if(|(at, _)| *at <= self.now) {
            self.viewer.on_datagram(at, &datagram);
        }
        let mut said = self.viewer.ask(self.now);
        if self.now.as_millis().is_multiple_of(FEEDBACK_EVERY.as_millis()) {
            said.extend(self.viewer.feedback.write().map(|packet| {
                let mut compound = Vec::new();
                sdk_core::wire::rtcp::write_empty_receiver_report(&mut compound, 1);
                compound.extend(packet);
                self.viewer.remote.seal(&compound)
            }));
        }
        for datagram in said {
            if let Some(at) = self.up.send(self.now, datagram.len()) {
                self.reports.push_back((at, datagram));
            }
        }
        let now = self.start + self.now;
        while let Some((_, mut datagram)) = self.reports.pop_front_if(|(at, _)| *at <= self.now) {
            self.paced.handle_rtcp(now, &mut datagram, &self.video, None).unwrap();
        }
    }
}

impl Viewer {
    fn on_datagram(&mut self, at: Duration, datagram: &[u8]) {
        let mut datagram = datagram.to_vec();
        let plain = self.remote.receiver.open_rtp(&mut datagram).unwrap();
        let packet = rtp::Packet::parse(plain).unwrap();
        let number = u16::from_be_bytes(packet.extension(3).unwrap().try_into().unwrap());
        self.feedback.on_packet(number, at + VIEWER_CLOCK);
        let (sequence, marker) = match packet.ssrc {
            RTX_SSRC => {
                let original = u16::from_be_bytes(*packet.payload.first_chunk().unwrap());
                (original, packet.marker)
            }
            _ => (packet.sequence, packet.marker),
        };
        let newest = self.newest.unwrap_or_else(|| {
            // Nothing is lost of the first frame for ever: it is asked for as well.
            self.next = u64::from(viewer_config().initial_sequence);
            self.next - 1
        });
        let number =
            newest.saturating_add_signed(i64::from(sequence.wrapping_sub(newest as u16) as i16));
        self.missing.extend((newest + 1..number).map(|missing| (missing, None)));
        self.missing.remove(&number);
        self.newest = Some(newest.max(number));
        if number >= self.next {
            self.packets.insert(number, marker);
        }
        self.show(at);
    }

    /// Shows all frames that are whole and follow the last one.
    fn show(&mut self, at: Duration) {
        let mut end = self.next;
        while let Some(marker) = self.packets.get(&end) {
            end += 1;
            if *marker {
                self.packets = self.packets.split_off(&end);
                self.next = end;
                self.shown.push(at);
            }
        }
    }

    /// Asks for what is missing: at once, and again after a while.
    fn ask(&mut self, now: Duration) -> Vec<Vec<u8>> {
        let due = |asked: Option<Duration>| asked.is_none_or(|at| now >= at + ASK_AGAIN);
        let wanted: Vec<u64> =
            self.missing.iter().filter(|(_, asked)| due(**asked)).map(|(n, _)| *n).collect();
        for number in &wanted {
            self.missing.insert(*number, Some(now));
        }
        let wanted: Vec<u16> = wanted.iter().map(|number| *number as u16).collect();
        wanted.chunks(100).map(|some| self.remote.nack(some)).collect()
    }

    /// As `freezeCount` counts them: a picture stands for three times as long as on average, and for
    /// 150 ms longer.
    fn freezes(&self) -> usize {
        let usual = FRAME.max(FRAME + 150 * MS).max(3 * FRAME);
        self.shown.windows(2).filter(|pair| pair[1] - pair[0] >= usual).count()
    }
}

#[test]
fn with_5_percent_lost_both_ways_the_picture_hardly_ever_stands_still() {
    let minutes = 4;
    for seed in [0x9e37_79b9_7f4a_7c15, 0x1234_5678_9abc_def1] {
        let mut sim = Sim::new(0.05, seed);
        sim.run(60 * minutes);
        let (freezes, shown) = (sim.viewer.freezes(), sim.viewer.shown.len());
        let stats = sim.paced.stream().stats();
        let again = stats.resent_packets as f64 / stats.packets as f64;
        println!("{freezes} freezes in {minutes} min, {shown} frames shown, {stats:?}");
        assert!(shown as u64 >= 60 * minutes * 30 - 30, "{shown}");
        assert!(freezes as u64 <= minutes / 2, "{freezes} freezes in {minutes} min");
        // 5 % of the packets, and 5 % of those again and again: hardly more is needed.
        assert!(again < 0.07, "{again}");
    }
}

#[test]
fn without_loss_nothing_is_sent_again() {
    let mut sim = Sim::new(0.0, 1);
    sim.run(20);
    assert_eq!(sim.viewer.freezes(), 0);
    assert_eq!(sim.paced.stream().stats().resent_packets, 0);
}
