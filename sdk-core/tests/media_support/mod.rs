//! The other side for the media tests: makes access units, and receives as a viewer does.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use sdk_core::media::srtp::{SrtpReceiver, SrtpSender};
use sdk_core::media::{
    PacketizationMode, SendBuffer, SrtpKeys, SrtpProfile, ViewerConfig, ViewerStream,
};
use sdk_core::wire::h264::Payload;
use sdk_core::wire::{rtcp, rtp};
use std::time::Instant;

pub(crate) const SPS: [u8; 8] = [0x67, 0x42, 0xe0, 0x1f, 0xda, 0x01, 0x40, 0x16];
pub(crate) const PPS: [u8; 4] = [0x68, 0xce, 0x38, 0x80];
pub(crate) const SSRC: u32 = 0x1234_5678;
pub(crate) const RTX_SSRC: u32 = 0x8765_4321;

/// xorshift: a failing run can be played again.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// A NAL unit of `len` bytes without a start code in it; what is in it depends on `seed`.
pub(crate) fn nal(header: u8, len: usize, seed: u8) -> Vec<u8> {
    let mut nal = vec![header];
    nal.extend((1..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed) | 1));
    nal
}

/// Joins units with start codes of three and four bytes in turn.
pub(crate) fn annex_b<N: AsRef<[u8]>>(nals: &[N]) -> Vec<u8> {
    let mut data = Vec::new();
    for (i, nal) in nals.iter().enumerate() {
        data.extend_from_slice(if i % 2 == 0 { &[0, 0, 0, 1] } else { &[0, 0, 1] });
        data.extend_from_slice(nal.as_ref());
    }
    data
}

/// An IDR picture with its parameter sets.
pub(crate) fn idr(len: usize) -> Vec<u8> {
    annex_b(&[&SPS[..], &PPS, &nal(0x65, len, 3)])
}

/// A picture that refers to others.
pub(crate) fn delta(len: usize, seed: u8) -> Vec<u8> {
    annex_b(&[nal(0x41, len, seed)])
}

pub(crate) fn keys(profile: SrtpProfile, is_client: bool) -> SrtpKeys {
    let material: Vec<u8> = (0..profile.exporter_len() as u8).collect();
    SrtpKeys::from_exporter(profile, &material, is_client).unwrap()
}

pub(crate) fn viewer_config() -> ViewerConfig {
    ViewerConfig {
        ssrc: SSRC,
        payload_type: 96,
        rtx: None,
        packetization_mode: PacketizationMode::NonInterleaved,
        extensions: rtp::ExtensionIds::default(),
        cname: "camera".into(),
        initial_sequence: 1000,
        initial_rtx_sequence: 77,
        timestamp_offset: 0xffff_0000,
    }
}

#[allow(clippy::disallowed_methods, reason = "virtual time needs a moment to count from")]
pub(crate) fn start_of_time() -> Instant {
    Instant::now()
}

/// One RTP packet as a viewer has it after opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) ssrc: u32,
    pub(crate) payload_type: u8,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) payload: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    pub(crate) sequence: u16,
    pub(crate) transport_sequence: u16,
}

/// The viewer's end of the session.
pub(crate) struct Remote {
    pub(crate) receiver: SrtpReceiver,
    pub(crate) sender: SrtpSender,
}

impl Remote {
    pub(crate) fn new(profile: SrtpProfile) -> Remote {
        let keys = keys(profile, true);
        Remote { receiver: SrtpReceiver::new(&keys), sender: SrtpSender::new(&keys) }
    }

    /// An RTP packet's numbers, with the transport-wide one of extension 3.
    pub(crate) fn open_packet(&mut self, datagram: &[u8]) -> Numbers {
        let mut datagram = datagram.to_vec();
        let packet = rtp::Packet::parse(self.receiver.open_rtp(&mut datagram).unwrap()).unwrap();
        let transport = packet.extension(3).unwrap().try_into().unwrap();
        Numbers { sequence: packet.sequence, transport_sequence: u16::from_be_bytes(transport) }
    }

    pub(crate) fn open(&mut self, datagram: &[u8]) -> Received {
        let mut datagram = datagram.to_vec();
        let plain = self.receiver.open_rtp(&mut datagram).unwrap();
        let packet = rtp::Packet::parse(plain).unwrap();
        Received {
            ssrc: packet.ssrc,
            payload_type: packet.payload_type,
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            marker: packet.marker,
            payload: packet.payload.to_vec(),
        }
    }

    /// Opens all RTP that was sealed, and empties the buffer.
    pub(crate) fn open_all(&mut self, out: &mut SendBuffer) -> Vec<Received> {
        let received = datagrams(out).iter().map(|datagram| self.open(datagram)).collect();
        out.clear();
        received
    }

    pub(crate) fn seal(&mut self, compound: &[u8]) -> Vec<u8> {
        let mut datagram = compound.to_vec();
        self.sender.seal_rtcp(&mut datagram, 0).unwrap();
        datagram
    }

    pub(crate) fn nack(&mut self, sequences: &[u16]) -> Vec<u8> {
        let mut compound = Vec::new();
        rtcp::write_empty_receiver_report(&mut compound, 1);
        compound.extend([0x81, 205, 0, 2 + sequences.len() as u8, 0, 0, 0, 1]);
        compound.extend(SSRC.to_be_bytes());
        for sequence in sequences {
            compound.extend(sequence.to_be_bytes());
            compound.extend([0, 0]);
        }
        self.seal(&compound)
    }
}

/// Each datagram on its own, as the network carries them.
pub(crate) fn datagrams(out: &SendBuffer) -> Vec<Vec<u8>> {
    out.runs()
        .iter()
        .flat_map(|run| run.datagrams())
        .map(|range| out.bytes()[range].to_vec())
        .collect()
}

/// Puts NAL units together from payloads in order (RFC 6184).
#[derive(Default)]
pub(crate) struct Depacketizer {
    pub(crate) nals: Vec<Vec<u8>>,
    fragments: Option<Vec<u8>>,
}

impl Depacketizer {
    pub(crate) fn push(&mut self, payload: &[u8]) {
        match Payload::parse(payload).expect("a payload of mode 0 or 1") {
            Payload::Single(nal) => self.nals.push(nal.to_vec()),
            Payload::StapA(nals) => self.nals.extend(nals.map(<[u8]>::to_vec)),
            Payload::FuA { header, start, end, fragment } => {
                if start {
                    assert!(!end, "a unit in one fragment is forbidden (RFC 6184 5.8)");
                    assert!(self.fragments.is_none(), "the unit before has no end");
                    self.fragments = Some(vec![header.0]);
                }
                let nal = self.fragments.as_mut().expect("a first fragment");
                assert_eq!(nal[0], header.0);
                nal.extend_from_slice(fragment);
                if end {
                    self.nals.extend(self.fragments.take());
                }
            }
        }
    }
}

pub(crate) fn depacketize<'a>(payloads: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let mut depacketizer = Depacketizer::default();
    payloads.into_iter().for_each(|payload| depacketizer.push(payload));
    depacketizer.nals
}

pub(crate) fn nals_of(received: &[Received]) -> Vec<Vec<u8>> {
    depacketize(received.iter().map(|packet| &packet.payload[..]))
}

pub(crate) fn viewer(
    now: Instant,
    config: ViewerConfig,
    profile: SrtpProfile,
) -> (ViewerStream, Remote) {
    let viewer = ViewerStream::new(now, config, &keys(profile, false));
    (viewer, Remote::new(profile))
}
