//! A viewer that has got through DTLS and then sends what no SCTP stack would.

use crate::data_support::Random;
use crate::world::MAX_PACKET;
use sdk_core::peer::data::{Data, DataEvent, DataTerms, MAX_CHANNELS};
use sdk_core::wire::dcep::{ChannelInfo, Control};
use sdk_core::wire::sctp::{self, Chunk, Header, Packet, Writer, kind};
use std::time::{Duration, Instant};

/// What a viewer may make us hold: what it sends, what is sent to it twice over, and what both cost
/// beside their bytes.
const MOST_HELD: usize = 1024 * 1024;

/// Writes packets by hand.
struct Attacker {
    camera: Data,
    now: Instant,
    header: Header,
    tsn: u32,
    /// What the camera sent last.
    heard: Vec<Vec<u8>>,
}

impl Attacker {
    /// Through the handshake.
    #[allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
    fn new(first_tsn: u32) -> Attacker {
        let terms = DataTerms { seed: [7, 0, 0, 0, 9, 0, 0, 0], max_packet: MAX_PACKET };
        let mut attacker = Attacker {
            camera: Data::new(&terms),
            now: Instant::now(),
            header: Header { source_port: 5000, destination_port: 5000, tag: 0 },
            tsn: first_tsn,
            heard: Vec::new(),
        };
        attacker.handshake(0xABCD);
        attacker
    }

    fn handshake(&mut self, tag: u32) {
        let mut init = tag.to_be_bytes().to_vec();
        init.extend(100_000_u32.to_be_bytes());
        init.extend([0xff; 4]);
        init.extend(self.tsn.to_be_bytes());
        init.extend([0xC0, 0, 0, 4, 0x80, 8, 0, 6, 130, 192, 0, 0]);
        self.header.tag = 0;
        self.send(|out| out.chunk(kind::INIT, 0, &init));
        let answer = self.heard.last().unwrap();
        let chunk = &answer[sctp::HEADER_LEN..];
        assert_eq!(chunk[0], kind::INIT_ACK);
        self.header.tag = u32::from_be_bytes(chunk[4..8].try_into().unwrap());
        let cookie = chunk[24..24 + 25].to_vec();
        self.send(|out| out.chunk(kind::COOKIE_ECHO, 0, &cookie));
        let ready = std::iter::from_fn(|| self.camera.poll_event()).last();
        assert_eq!(ready, Some(DataEvent::Ready));
    }

    fn send(&mut self, write: impl FnOnce(&mut Writer)) {
        let mut out = Writer::new(self.header, 60_000);
        write(&mut out);
        self.send_bytes(&out.finish());
    }

    fn send_bytes(&mut self, packet: &[u8]) {
        self.camera.handle_packet(self.now, packet);
        self.heard.clear();
        while let Some(packet) = self.camera.poll_packet(self.now) {
            assert!(packet.len() <= MAX_PACKET && Packet::parse(&packet).is_some());
            self.heard.push(packet);
            assert!(self.heard.len() <= 64, "one packet is answered by a few");
        }
        assert!(self.camera.held_bytes() <= MOST_HELD, "{} bytes", self.camera.held_bytes());
    }

    fn data(&mut self, tsn: u32, stream: u16, ssn: u16, flags: u8, protocol: u32, bytes: &[u8]) {
        let mut value = tsn.to_be_bytes().to_vec();
        value.extend(stream.to_be_bytes());
        value.extend(ssn.to_be_bytes());
        value.extend(protocol.to_be_bytes());
        value.extend(bytes);
        self.send(|out| out.chunk(kind::DATA, flags, &value));
    }

    fn open(&mut self, stream: u16) {
        let open = Control::Open(ChannelInfo::default()).to_bytes();
        let tsn = self.tsn;
        self.data(tsn, stream, 0, 3, 50, &open);
        self.tsn = self.tsn.wrapping_add(1);
    }

    fn events(&mut self) -> Vec<DataEvent> {
        std::iter::from_fn(|| self.camera.poll_event()).collect()
    }
}

/// A TSN near something that matters, more often than not.
fn some_tsn(random: &mut Random, around: u32) -> u32 {
    let n = random.below(2000) as u32;
    match random.below(8) {
        0 => random.next() as u32,
        1 => around.wrapping_add(0x7fff_fff0).wrapping_add(n % 32),
        2 => around.wrapping_sub(n),
        _ => around.wrapping_add(n),
    }
}

fn some_bytes(random: &mut Random, most: u64) -> Vec<u8> {
    (0..random.below(most + 1)).map(|_| random.next() as u8).collect()
}

/// A chunk that is right in its form, but for one in eight. `theirs` is the viewer's next TSN, `ours`
/// the camera's last one.
fn some_chunk(random: &mut Random, theirs: &mut u32, ours: u32) -> (u8, u8, Vec<u8>) {
    let mut value = Vec::new();
    let kind = match random.below(14) {
        0..=4 => {
            value.extend(some_tsn(random, *theirs).to_be_bytes());
            value.extend((random.below(20) as u16).to_be_bytes());
            value.extend((random.below(4) as u16).to_be_bytes());
            value.extend([0, 0, 0, random.one_of(&[50, 51, 53, 56, 57, 99])]);
            let most = random.one_of(&[4, 40, 1400]);
            value.extend(some_bytes(random, most));
            value.push(3);
            *theirs = theirs.wrapping_add(random.below(2) as u32);
            kind::DATA
        }
        5..=6 => {
            value.extend(some_tsn(random, ours).to_be_bytes());
            value.extend((random.next() as u32).to_be_bytes());
            let gaps = random.below(6) as u8;
            value.extend([0, gaps, 0, 0]);
            for _ in 0..2 * gaps {
                value.extend((random.below(200) as u16).to_be_bytes());
            }
            kind::SACK
        }
        7 => {
            value.extend(some_tsn(random, *theirs).to_be_bytes());
            for _ in 0..random.below(4) {
                value.extend((random.below(20) as u16).to_be_bytes());
                value.extend((random.next() as u16).to_be_bytes());
            }
            kind::FORWARD_TSN
        }
        8..=9 => {
            let streams = random.below(40);
            value.extend([0, random.one_of(&[13, 13, 14, 15, 16, 17, 18])]);
            value.extend((16 + 2 * streams as u16).to_be_bytes());
            for around in [*theirs, ours, *theirs] {
                value.extend(some_tsn(random, around).to_be_bytes());
            }
            for _ in 0..streams {
                value.extend((random.below(20) as u16).to_be_bytes());
            }
            kind::RECONFIG
        }
        10 => {
            value = some_bytes(random, 100);
            kind::HEARTBEAT
        }
        11 => {
            value = some_bytes(random, 40);
            let ends = [kind::SHUTDOWN, kind::ABORT];
            let others = [kind::INIT, kind::COOKIE_ECHO, 11, 9, 0xC5, 0x45];
            if random.below(40) == 0 { random.one_of(&ends) } else { random.one_of(&others) }
        }
        _ => {
            value = some_bytes(random, 64);
            random.next() as u8
        }
    };
    if random.below(8) == 0 {
        value.truncate(random.below(value.len() as u64 + 1) as usize);
    }
    (kind, random.next() as u8, value)
}

#[test]
fn nothing_makes_it_panic_or_hold_more_than_its_share() {
    for seed in 1..=60 {
        let first = if seed % 3 == 0 { u32::MAX - 200 } else { seed as u32 * 1000 };
        let mut attacker = Attacker::new(first);
        let (mut random, mut ours) = (Random::new(seed), 0x0900_0000_u32);
        attacker.open(0);
        attacker.open(2);
        for round in 0..1500 {
            if round % 7 == 0 {
                let bytes = some_bytes(&mut random, 5000);
                let channel = random.one_of(&[0, 2]);
                attacker.camera.send(attacker.now, channel, round % 2 == 0, bytes);
            }
            if round % 50 == 0 {
                let channel = random.below(9) as u16;
                attacker.camera.open(attacker.now, channel, ChannelInfo::default());
                attacker.camera.close(random.below(9) as u16);
            }
            let chunks: Vec<_> = (0..=random.below(4))
                .map(|_| some_chunk(&mut random, &mut attacker.tsn, ours))
                .collect();
            attacker.send(|out| {
                for (kind, flags, value) in &chunks {
                    out.chunk(*kind, *flags, value);
                }
            });
            for packet in &attacker.heard {
                for chunk in Packet::parse(packet).unwrap().chunks() {
                    if let Chunk::Data(data) = chunk {
                        ours = data.tsn;
                    }
                }
            }
            assert!(attacker.events().len() < 2500);
            attacker.now += Duration::from_millis(random.below(300));
            attacker.camera.handle_timeout(attacker.now);
        }
        // Whatever it was told, another association can be opened.
        attacker.handshake(0x1234);
        attacker.open(0);
        let opened =
            attacker.events().into_iter().filter(|e| matches!(e, DataEvent::Opened { .. }));
        assert_eq!(opened.count(), 1, "seed {seed}");
    }
}

#[test]
fn changed_bytes_and_wrong_tags_are_as_if_they_had_not_come() {
    let mut attacker = Attacker::new(1000);
    attacker.open(0);
    attacker.events();
    let mut out = Writer::new(attacker.header, 1200);
    let mut value = 1001_u32.to_be_bytes().to_vec();
    value.extend([0, 0, 0, 1, 0, 0, 0, 51]);
    value.extend(b"ptz left");
    out.chunk(kind::DATA, 3, &value);
    let packet = out.finish();
    for i in 0..packet.len() {
        let mut changed = packet.clone();
        changed[i] ^= 1 << (i % 8);
        attacker.send_bytes(&changed);
        attacker.send_bytes(&packet[..i]);
    }
    for tag in [0, 1, attacker.header.tag ^ 1, 0xABCD] {
        attacker.header.tag = tag;
        attacker.data(1001, 0, 1, 3, 51, b"x");
    }
    assert_eq!(attacker.events(), []);
    attacker.send_bytes(&packet);
    assert_eq!(attacker.events().len(), 1);
}

#[test]
fn what_comes_beyond_a_gap_has_a_bound() {
    let mut attacker = Attacker::new(1000);
    attacker.open(0);
    // From the far end towards the gap, so that each one fills a gap itself.
    for n in (1..5000).rev() {
        attacker.data(1001 + n, 0, n as u16, 3, 53, &[0; 1000]);
    }
    assert!(attacker.camera.held_bytes() < 300_000, "{}", attacker.camera.held_bytes());
    for stream in 0..5000 {
        attacker.data(1002 + u32::from(stream % 1000), stream, 1, 2, 53, &[0; 100]);
    }
    assert!(attacker.camera.held_bytes() < 300_000, "{}", attacker.camera.held_bytes());
}

#[test]
fn a_skip_of_half_the_numbers_there_are_costs_nothing() {
    let mut attacker = Attacker::new(1000);
    for n in 1..1000_u32 {
        let cumulative = 1000_u32.wrapping_add(n.wrapping_mul(0x7fff_ffff));
        attacker.send(|out| out.forward_tsn(cumulative, [(0, n as u16)].into_iter()));
        attacker.tsn = cumulative.wrapping_add(1);
    }
    attacker.open(4);
    assert_eq!(attacker.events().len(), 1);
}

#[test]
fn more_than_there_is_room_for_ends_the_association() {
    let mut attacker = Attacker::new(1000);
    attacker.open(0);
    attacker.events();
    for n in 0..2000_u32 {
        attacker.data(1001 + n, 0, 1, if n == 0 { 2 } else { 0 }, 53, &[0; 10]);
        if !attacker.heard.is_empty() && attacker.heard[0][sctp::HEADER_LEN] == kind::ABORT {
            break;
        }
    }
    let events = attacker.events();
    let [DataEvent::Warning(why), DataEvent::Closed { channel: 0 }] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(why.contains("room"), "{why}");
    attacker.handshake(9);
}

#[test]
fn requests_to_reset_are_answered_one_by_one_and_kept_in_bounds() {
    let mut attacker = Attacker::new(1000);
    for n in 0..MAX_CHANNELS as u16 {
        attacker.open(2 * n);
    }
    attacker.events();
    // For what was never sent, with many streams, with numbers from anywhere.
    let streams: Vec<u16> = (0..500).collect();
    for n in 0..5000_u32 {
        let request = 1000 + n;
        attacker
            .send(|out| out.reset_request(request, 0, 0x1000_0000, &streams[..(n % 500) as usize]));
    }
    assert_eq!(attacker.events(), []);
    assert_eq!(attacker.camera.stats().channels as usize, MAX_CHANNELS);
}
