//! Pacing of whole frames: what goes out when, what is left out, and that a viewer gets each frame
//! whole or not at all.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod media_support;

use media_support::*;
use sdk_core::media::{
    PacedStream, Rtx, SendBuffer, SrtpProfile, VideoConfig, VideoStream, ViewerConfig,
};
use sdk_core::wire::rtcp;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);
const PROFILE: SrtpProfile = SrtpProfile::AeadAes128Gcm;

struct Bench {
    start: Instant,
    now: Instant,
    video: VideoStream,
    paced: PacedStream,
    remote: Remote,
    frame: u32,
    /// Runs with the time since the start.
    sends: Vec<(Duration, usize)>,
    received: Vec<(Duration, Received)>,
}

impl Bench {
    fn new(config: ViewerConfig) -> Bench {
        let start = start_of_time();
        Bench {
            start,
            now: start,
            video: VideoStream::new(VideoConfig::new(4_000_000, 1200)),
            paced: PacedStream::new(start, config, &keys(PROFILE, false), 2_500_000),
            remote: Remote::new(PROFILE),
            frame: 0,
            sends: Vec::new(),
            received: Vec::new(),
        }
    }

    /// The viewer says how much it can take.
    fn remb(&mut self, bits_per_second: u32) {
        let mut compound = Vec::new();
        rtcp::write_empty_receiver_report(&mut compound, 1);
        let exponent = (32 - bits_per_second.leading_zeros()).saturating_sub(18);
        let value = exponent << 18 | bits_per_second >> exponent;
        compound.extend([0x8f, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0]);
        compound.extend(*b"REMB");
        compound.extend((1 << 24 | value).to_be_bytes());
        compound.extend(SSRC.to_be_bytes());
        self.rtcp(&compound);
    }

    fn rtcp(&mut self, compound: &[u8]) {
        let mut datagram = self.remote.seal(compound);
        self.paced.handle_rtcp(self.now, &mut datagram, &self.video, None).unwrap();
    }

    /// Pushes the next frame; its first bytes tell its number.
    fn push(&mut self, keyframe: bool, len: usize) {
        let number = self.frame;
        self.frame += 1;
        let mut slice = nal(if keyframe { 0x65 } else { 0x41 }, len, number as u8);
        // Without a zero, which could look like a start code.
        slice[1..3].copy_from_slice(&[(number / 100) as u8 + 1, (number % 100) as u8 + 1]);
        let unit = match keyframe {
            true => annex_b(&[&SPS[..], &PPS, &slice]),
            false => annex_b(&[slice]),
        };
        let train = self.video.push(&unit, 33 * MS * number).unwrap().unwrap();
        self.paced.queue(&train);
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        let mut out = SendBuffer::new();
        loop {
            out.clear();
            self.paced.seal(self.now, &self.video, None, &mut out).unwrap();
            let since = self.now - self.start;
            for run in out.runs() {
                self.sends.push((since, run.datagrams().count()));
            }
            if !out.runs().is_empty() {
                for packet in self.remote.open_all(&mut out) {
                    self.received.push((since, packet));
                }
                continue;
            }
            match self.paced.next_release().filter(|at| *at <= end) {
                Some(at) => {
                    assert!(at > self.now, "a release that has passed: the caller would spin");
                    self.now = at;
                }
                None => break,
            }
        }
        self.now = end;
    }

    /// The frames that came, by their numbers, each checked to be whole and in one piece.
    fn frames(&self) -> Vec<u32> {
        let (mut frames, mut packets) = (Vec::new(), Vec::new());
        for (_, packet) in self.received.iter().filter(|(_, p)| p.ssrc == SSRC) {
            packets.push(packet.clone());
            assert_eq!(packet.timestamp, packets[0].timestamp, "another frame between");
            if packet.marker {
                let nals = nals_of(&packets);
                let slice = nals.last().unwrap();
                frames.push(100 * u32::from(slice[1] - 1) + u32::from(slice[2] - 1));
                packets.clear();
            }
        }
        assert!(packets.is_empty(), "half a frame");
        let sequences: Vec<u16> =
            self.received.iter().filter(|(_, p)| p.ssrc == SSRC).map(|(_, p)| p.sequence).collect();
        assert!(sequences.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)));
        frames
    }
}

#[test]
fn frames_of_eight_packets_go_out_as_one_run_at_once() {
    let mut bench = Bench::new(viewer_config());
    bench.push(true, 40_000);
    bench.remb(3_000_000);
    bench.run(100 * MS);
    bench.sends.clear();
    for _ in 0..60 {
        let pushed = bench.now - bench.start;
        bench.push(false, 8 * 1100);
        bench.run(33 * MS);
        assert_eq!(bench.sends.last().unwrap().0, pushed, "at once");
    }
    assert_eq!(bench.sends.len(), 60, "one send for each frame: {:?}", bench.sends);
    assert_eq!(bench.frames().len(), 61);
}

#[test]
fn a_large_keyframe_is_spread_and_finished_before_what_follows() {
    let mut bench = Bench::new(viewer_config());
    bench.remb(2_000_000);
    bench.push(true, 80_000);
    bench.push(false, 3000);
    bench.run(500 * MS);
    assert_eq!(bench.frames(), [0, 1]);
    let runs = &bench.sends;
    assert!((6..20).contains(&runs.len()), "{runs:?}");
    assert!(runs.iter().all(|(_, packets)| *packets <= 17), "{runs:?}");
    let last = runs.last().unwrap().0;
    assert!((80 * MS..150 * MS).contains(&last), "80 kB at 5 Mbit/s took {last:?}");
}

#[test]
fn the_first_picture_is_not_held_back() {
    let mut bench = Bench::new(viewer_config());
    bench.push(true, 40_000);
    bench.run(100 * MS);
    let at_once = bench.sends.iter().filter(|(at, _)| *at == Duration::ZERO);
    assert!(at_once.map(|(_, packets)| packets).sum::<usize>() >= 10, "{:?}", bench.sends);
    assert!(bench.sends.last().unwrap().0 < 20 * MS, "{:?}", bench.sends);
}

#[test]
fn a_way_that_is_too_slow_gets_whole_frames_up_to_a_gap_and_on_from_a_keyframe() {
    let mut bench = Bench::new(viewer_config());
    bench.remb(300_000);
    let (mut pushed, mut asked) = (Vec::new(), 0);
    for number in 0..300 {
        pushed.push(bench.now - bench.start);
        // 2 Mbit/s, and a keyframe each second.
        bench.push(number % 30 == 0, if number % 30 == 0 { 20_000 } else { 8000 });
        bench.run(33 * MS);
        asked += u32::from(bench.paced.take_keyframe_wish(bench.now));
    }
    bench.run(500 * MS);
    let frames = bench.frames();
    assert!((20..150).contains(&frames.len()), "{frames:?}");
    for pair in frames.windows(2) {
        assert!(pair[1] == pair[0] + 1 || pair[1] % 30 == 0, "a gap without a keyframe: {pair:?}");
    }
    let dropped = bench.paced.stream().stats().dropped_frames;
    assert_eq!(dropped as usize + frames.len(), 300);
    assert!((1..=6).contains(&asked), "{asked} keyframes asked for in 10 s");
    // 300 ms of waiting, and the time that the frame itself takes at the pace.
    let ends = bench.received.iter().filter(|(_, packet)| packet.marker).map(|(at, _)| *at);
    for (at, frame) in ends.zip(&frames) {
        let waited = at - pushed[*frame as usize];
        assert!(waited < 550 * MS, "frame {frame} waited {waited:?}");
    }
}

#[test]
fn a_viewer_starts_with_the_pictures_since_the_keyframe_spread_and_goes_on() {
    let mut bench = Bench::new(viewer_config());
    let mut early = Bench::new(viewer_config());
    std::mem::swap(&mut bench.video, &mut early.video);
    for number in 0..20 {
        bench.push(number == 0, if number == 0 { 60_000 } else { 6000 });
    }
    // A viewer that comes only now.
    bench.paced = early.paced;
    assert!(bench.paced.start(&bench.video, u64::MAX));
    bench.run(5 * MS);
    assert!(!bench.received.is_empty());
    // A new picture, and even a new keyframe, come while the past is still going out.
    bench.push(false, 5000);
    bench.run(2 * MS);
    bench.push(true, 30_000);
    bench.push(false, 5000);
    bench.run(300 * MS);
    assert_eq!(bench.frames(), (0..23).collect::<Vec<_>>());
    let largest = bench.sends.iter().map(|(_, packets)| *packets).max().unwrap();
    assert!(largest <= 16, "{largest} packets at once");
}

#[test]
fn what_was_lost_goes_out_before_the_rest_of_a_large_frame() {
    for rtx in [None, Some(Rtx { ssrc: RTX_SSRC, payload_type: 97 })] {
        let config = ViewerConfig { rtx, ..viewer_config() };
        let first = config.initial_sequence;
        let mut bench = Bench::new(config);
        bench.remb(2_000_000);
        bench.push(true, 80_000);
        bench.run(60 * MS);
        let before = bench.received.len();
        assert!((40..70).contains(&before), "on its way: {before}");
        // One of the first part, and one of a later one.
        let lost = [3, 35].map(|place| first.wrapping_add(place));
        let nack = bench.remote.nack(&lost);
        let mut nack = nack;
        bench.paced.handle_rtcp(bench.now, &mut nack, &bench.video, None).unwrap();
        let mut out = SendBuffer::new();
        bench.paced.seal(bench.now, &bench.video, None, &mut out).unwrap();
        let sent = datagrams(&out);
        assert_eq!(sent.len(), 2);
        for (datagram, place) in sent.iter().zip([3, 35]) {
            let original = &bench.received[place].1;
            if rtx.is_some() {
                let again = bench.remote.open(datagram);
                assert_eq!(again.payload[..2], original.sequence.to_be_bytes());
                assert_eq!(again.payload[2..], original.payload);
                assert_eq!((again.ssrc, again.marker), (RTX_SSRC, false));
            } else {
                assert_eq!(datagram[2..4], original.sequence.to_be_bytes());
            }
        }
        bench.run(500 * MS);
        assert_eq!(bench.frames(), [0]);
    }
}
