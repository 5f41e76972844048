//! Writes one packet.

use super::reconfig::ResetResult;
use super::{DATA_HEADER_LEN, Data, HEADER_LEN, Header, Init, checksum_of, flag, kind, parameter};

/// Chunks are written in the order of the calls, padded, and never beyond the packet's limit: lists
/// are cut to what fits, and the caller looks at [`Writer::room`] before it writes a payload.
pub struct Writer {
    bytes: Vec<u8>,
    limit: usize,
}

impl Writer {
    /// A packet of at most `limit` bytes, which is as much as chunks with a fixed size need.
    pub fn new(header: Header, limit: usize) -> Writer {
        let mut bytes = Vec::with_capacity(limit);
        bytes.extend_from_slice(&header.source_port.to_be_bytes());
        bytes.extend_from_slice(&header.destination_port.to_be_bytes());
        bytes.extend_from_slice(&header.tag.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        Writer { bytes, limit }
    }

    /// Whether it has no chunk yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER_LEN
    }

    /// How long a further chunk may be, with its header.
    pub fn room(&self) -> usize {
        (self.limit & !3).saturating_sub(self.bytes.len())
    }

    /// The packet with its checksum.
    pub fn finish(mut self) -> Vec<u8> {
        if let Some((header, chunks)) = self.bytes.split_first_chunk_mut::<HEADER_LEN>() {
            let checksum = checksum_of(&header[..8], chunks);
            header[8..].copy_from_slice(&checksum);
        }
        self.bytes
    }

    /// Any chunk, as its type, flags and value.
    pub fn chunk(&mut self, kind: u8, flags: u8, value: &[u8]) {
        self.write(kind, flags, value.len(), |bytes| bytes.extend_from_slice(value));
    }

    pub fn data(&mut self, data: &Data<'_>) {
        let mut flags = 0;
        for (on, flag) in [
            (data.ending, flag::ENDING),
            (data.beginning, flag::BEGINNING),
            (data.unordered, flag::UNORDERED),
            (data.immediate, flag::IMMEDIATE),
        ] {
            flags |= if on { flag } else { 0 };
        }
        self.write(kind::DATA, flags, DATA_HEADER_LEN - 4 + data.payload.len(), |bytes| {
            bytes.extend_from_slice(&data.tsn.to_be_bytes());
            bytes.extend_from_slice(&data.stream.to_be_bytes());
            bytes.extend_from_slice(&data.ssn.to_be_bytes());
            bytes.extend_from_slice(&data.protocol.to_be_bytes());
            bytes.extend_from_slice(data.payload);
        });
    }

    /// With as many of `gaps` as fit.
    pub fn sack(&mut self, cumulative: u32, window: u32, gaps: impl Iterator<Item = (u16, u16)>) {
        const FIXED: usize = 12;
        let gaps = self.fitting(FIXED, gaps);
        self.write(kind::SACK, 0, FIXED + gaps.len(), |bytes| {
            bytes.extend_from_slice(&cumulative.to_be_bytes());
            bytes.extend_from_slice(&window.to_be_bytes());
            bytes.extend_from_slice(&((gaps.len() / 4) as u16).to_be_bytes());
            bytes.extend_from_slice(&[0; 2]);
            bytes.extend_from_slice(&gaps);
        });
    }

    /// With as many of `streams` as fit.
    pub fn forward_tsn(&mut self, cumulative: u32, streams: impl Iterator<Item = (u16, u16)>) {
        const FIXED: usize = 4;
        let streams = self.fitting(FIXED, streams);
        self.write(kind::FORWARD_TSN, 0, FIXED + streams.len(), |bytes| {
            bytes.extend_from_slice(&cumulative.to_be_bytes());
            bytes.extend_from_slice(&streams);
        });
    }

    pub fn init_ack(&mut self, init: &Init, cookie: &[u8]) {
        let mut value = Vec::with_capacity(64);
        value.extend_from_slice(&init.tag.to_be_bytes());
        value.extend_from_slice(&init.window.to_be_bytes());
        value.extend_from_slice(&init.outbound_streams.to_be_bytes());
        value.extend_from_slice(&init.inbound_streams.to_be_bytes());
        value.extend_from_slice(&init.tsn.to_be_bytes());
        put_parameter(&mut value, parameter::STATE_COOKIE, cookie);
        if init.forward_tsn {
            put_parameter(&mut value, parameter::FORWARD_TSN_SUPPORTED, &[]);
        }
        let extensions = [(init.reconfig, kind::RECONFIG), (init.forward_tsn, kind::FORWARD_TSN)];
        let extensions: Vec<u8> =
            extensions.into_iter().filter(|(on, _)| *on).map(|(_, kind)| kind).collect();
        put_parameter(&mut value, parameter::SUPPORTED_EXTENSIONS, &extensions);
        self.chunk(kind::INIT_ACK, 0, &value);
    }

    pub fn cookie_ack(&mut self) {
        self.chunk(kind::COOKIE_ACK, 0, &[]);
    }

    /// With what the HEARTBEAT had in it.
    pub fn heartbeat_ack(&mut self, information: &[u8]) {
        self.chunk(kind::HEARTBEAT_ACK, 0, information);
    }

    pub fn abort(&mut self) {
        self.chunk(kind::ABORT, 0, &[]);
    }

    pub fn shutdown_ack(&mut self) {
        self.chunk(kind::SHUTDOWN_ACK, 0, &[]);
    }

    /// Asks to reset `streams` of the sender's once all up to `last_tsn` has come (RFC 6525 §4.1).
    pub fn reset_request(&mut self, request: u32, response: u32, last_tsn: u32, streams: &[u16]) {
        let mut value = Vec::with_capacity(64);
        for number in [request, response, last_tsn] {
            value.extend_from_slice(&number.to_be_bytes());
        }
        for stream in streams {
            value.extend_from_slice(&stream.to_be_bytes());
        }
        let mut parameters = Vec::with_capacity(value.len() + 4);
        put_parameter(&mut parameters, super::reconfig::OUTGOING_RESET, &value);
        self.chunk(kind::RECONFIG, 0, &parameters);
    }

    /// Answers a request (RFC 6525 §4.4).
    pub fn reset_response(&mut self, request: u32, result: ResetResult) {
        let value = [request.to_be_bytes(), result.0.to_be_bytes()].concat();
        let mut parameters = Vec::with_capacity(16);
        put_parameter(&mut parameters, super::reconfig::RESPONSE, &value);
        self.chunk(kind::RECONFIG, 0, &parameters);
    }

    /// Pairs of numbers, as many as there is room for behind a chunk's header and `fixed` bytes.
    fn fitting(&self, fixed: usize, pairs: impl Iterator<Item = (u16, u16)>) -> Vec<u8> {
        let most = self.room().saturating_sub(4 + fixed) / 4;
        pairs.take(most).flat_map(|(a, b)| [a.to_be_bytes(), b.to_be_bytes()].concat()).collect()
    }

    /// A chunk that does not fit is left out: it would make a packet that no path carries.
    fn write(&mut self, kind: u8, flags: u8, len: usize, value: impl FnOnce(&mut Vec<u8>)) {
        let Some(total) = u16::try_from(4 + len).ok().filter(|n| usize::from(*n) <= self.room())
        else {
            return;
        };
        self.bytes.extend_from_slice(&[kind, flags]);
        self.bytes.extend_from_slice(&total.to_be_bytes());
        value(&mut self.bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

fn put_parameter(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&((4 + value.len()) as u16).to_be_bytes());
    out.extend_from_slice(value);
}
