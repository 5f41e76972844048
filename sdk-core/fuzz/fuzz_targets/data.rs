//! Data channels: SCTP and RFC 8832 from a viewer that got through DTLS and is a stranger all the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sdk_core::peer::data::{Data, DataTerms};
use sdk_core::wire::dcep::{ChannelInfo, Control, Reliability};
use sdk_core::wire::sctp::{Chunk, HEADER_LEN, Header, Packet, Writer, kind};
use std::time::{Duration, Instant};

const MAX_PACKET: usize = 1128;
/// As in tests/data_channels/hostile.rs.
const MOST_HELD: usize = 1024 * 1024;

fuzz_target!(|data: &[u8]| {
    // What is read must not depend on the checksum, which nobody guesses.
    if let Some(Control::Open(info)) = Control::parse(data) {
        let again = Control::Open(info).to_bytes();
        assert_eq!(Control::parse(&again).map(|c| c.to_bytes()), Some(again));
    }
    let mut viewer = Viewer::new();
    viewer.open_association();
    let mut rest = data;
    while let Some((&[what, flags, len], after)) = rest.split_first_chunk() {
        let len = usize::from(len) << (what & 3);
        let (value, after) = after.split_at(len.min(after.len()));
        rest = after;
        viewer.act(what >> 2, flags, value);
    }
    // Whatever there was, a viewer may begin anew.
    viewer.open_association();
    assert!(viewer.camera.poll_timeout().is_none_or(|at| at > viewer.now));
});

struct Viewer {
    camera: Data,
    now: Instant,
    header: Header,
    /// Of its next chunk.
    tsn: u32,
    /// Of the camera's last one.
    heard_tsn: u32,
    /// Chunks of the packet that is being made.
    pending: Vec<(u8, u8, Vec<u8>)>,
    cookie: Vec<u8>,
}

impl Viewer {
    fn new() -> Viewer {
        let terms = DataTerms { seed: [1, 2, 3, 4, 5, 6, 7, 8], max_packet: MAX_PACKET };
        Viewer {
            camera: Data::new(&terms),
            now: Instant::now(),
            header: Header { source_port: 5000, destination_port: 5000, tag: 0 },
            tsn: u32::MAX - 3,
            heard_tsn: 0x0506_0708,
            pending: Vec::new(),
            cookie: Vec::new(),
        }
    }

    fn open_association(&mut self) {
        let mut init = vec![0, 0, 0xAB, 0xCD, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff];
        init.extend(self.tsn.to_be_bytes());
        init.extend([0xC0, 0, 0, 4, 0x80, 8, 0, 6, 130, 192, 0, 0]);
        // Another one each time.
        init[1] = self.tsn as u8;
        self.header.tag = 0;
        self.send(&[(kind::INIT, 0, init)]);
        assert!(!self.cookie.is_empty(), "an INIT is answered");
        self.send(&[(kind::COOKIE_ECHO, 0, self.cookie.clone())]);
        assert!(self.camera.held_bytes() > 0);
    }

    /// Either something happens to the camera, or a chunk comes; several may be in one packet.
    fn act(&mut self, what: u8, flags: u8, value: &[u8]) {
        let channel = u16::from(flags % 20);
        let word = value.first_chunk().map_or(0, |word| u32::from_be_bytes(*word));
        // Where a number matters, small ones are the likely ones.
        let offset = if flags & 0x80 == 0 { word % 64 } else { word };
        let tail = value.get(4..).unwrap_or_default();
        match what % 16 {
            0 => self.camera.send(self.now, channel, flags & 0x40 != 0, value.to_vec()),
            1 => {
                let reliability = match flags >> 6 {
                    0 => Reliability::Reliable,
                    1 => Reliability::MaxRetransmits(word % 4),
                    _ => Reliability::MaxLifetimeMs(word % 1000),
                };
                let unordered = flags & 0x20 != 0;
                let info = ChannelInfo { unordered, reliability, ..ChannelInfo::default() };
                self.camera.open(self.now, channel, info);
            }
            2 => self.camera.close(channel),
            3 => self.camera.on_path_changed(self.now),
            4 => {
                self.now += Duration::from_millis(u64::from(word % 5000));
                self.camera.handle_timeout(self.now);
            }
            5 => self.camera.handle_packet(self.now, value),
            6..=8 => {
                let mut chunk = self.tsn.wrapping_add(offset).to_be_bytes().to_vec();
                chunk.extend([0, flags % 24, 0, tail.first().copied().unwrap_or(0) % 4]);
                chunk.extend([0, 0, 0, [50, 51, 53, 56, 57, 1][usize::from(flags % 6)]]);
                chunk.extend(tail);
                chunk.push(0);
                if offset == 0 {
                    self.tsn = self.tsn.wrapping_add(1);
                }
                self.pending.push((kind::DATA, what.wrapping_mul(37) ^ flags, chunk));
            }
            9 => {
                let mut chunk = self.heard_tsn.wrapping_sub(offset).to_be_bytes().to_vec();
                chunk.extend(tail);
                self.pending.push((kind::SACK, 0, chunk));
            }
            10 => {
                self.tsn = self.tsn.wrapping_add(offset);
                let mut chunk = self.tsn.wrapping_sub(1).to_be_bytes().to_vec();
                chunk.extend(tail);
                self.pending.push((kind::FORWARD_TSN, 0, chunk));
            }
            11 => {
                let mut chunk = vec![0, [13, 14, 16, 17][usize::from(flags % 4)], 0, 16];
                chunk.extend(self.tsn.wrapping_sub(offset).to_be_bytes());
                chunk.extend(tail);
                self.pending.push((kind::RECONFIG, 0, chunk));
            }
            _ => self.pending.push((flags, what, value.to_vec())),
        }
        if flags & 1 == 0 || self.pending.len() > 8 {
            let chunks = std::mem::take(&mut self.pending);
            self.send(&chunks);
        }
    }

    fn send(&mut self, chunks: &[(u8, u8, Vec<u8>)]) {
        let mut out = Writer::new(self.header, 60_000);
        for (kind, flags, value) in chunks {
            out.chunk(*kind, *flags, value);
        }
        self.camera.handle_packet(self.now, &out.finish());
        let mut packets = 0;
        while let Some(bytes) = self.camera.poll_packet(self.now) {
            packets += 1;
            assert!(packets < 64 && bytes.len() <= MAX_PACKET);
            let packet = Packet::parse(&bytes).expect("our own packet");
            for chunk in packet.chunks() {
                match chunk {
                    Chunk::Data(data) => self.heard_tsn = data.tsn,
                    Chunk::Other(kind::INIT_ACK) => {
                        let chunk = &bytes[HEADER_LEN..];
                        let tag = chunk[4..8].try_into().expect("four bytes");
                        self.header.tag = u32::from_be_bytes(tag);
                        self.cookie = chunk[24..24 + 25].to_vec();
                    }
                    _ => {}
                }
            }
        }
        while self.camera.poll_event().is_some() {}
        assert!(self.camera.held_bytes() <= MOST_HELD, "{} bytes", self.camera.held_bytes());
    }
}
