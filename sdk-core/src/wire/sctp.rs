//! SCTP packets (RFC 9260) with partial reliability (RFC 3758) and stream resets (RFC 6525): as much
//! of it as data channels need (RFC 8831).
//!
//! Reading is tolerant of what is not known and strict about what is: a chunk that is cut or has a
//! wrong length ends its packet, as does an unknown one whose type says so (RFC 9260 §3.2).

mod reconfig;
mod write;

pub use reconfig::{Parameter, Parameters, Reset, ResetResult};
pub use write::Writer;

use super::crc32::{CASTAGNOLI, crc32};

/// The common header of each packet, in bytes.
pub const HEADER_LEN: usize = 12;
/// In front of a DATA chunk's payload, in bytes.
pub const DATA_HEADER_LEN: usize = 16;

/// Of each packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub source_port: u16,
    pub destination_port: u16,
    /// What the receiver chose, so that it knows the association; 0 in front of an INIT.
    pub tag: u32,
}

/// A packet whose checksum is right.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    pub header: Header,
    chunks: &'a [u8],
}

impl<'a> Packet<'a> {
    pub fn parse(bytes: &'a [u8]) -> Option<Packet<'a>> {
        let (header, chunks) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let &[s0, s1, d0, d1, t0, t1, t2, t3, ref checksum @ ..] = header;
        if *checksum != checksum_of(&header[..8], chunks) {
            return None;
        }
        let header = Header {
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
            tag: u32::from_be_bytes([t0, t1, t2, t3]),
        };
        Some(Packet { header, chunks })
    }

    pub fn chunks(&self) -> Chunks<'a> {
        Chunks { rest: self.chunks }
    }
}

/// As it is in the packet, with the checksum's own place taken to be zero.
fn checksum_of(header: &[u8], chunks: &[u8]) -> [u8; 4] {
    crc32(&CASTAGNOLI, &[header, &[0; 4], chunks]).to_le_bytes()
}

/// One chunk. What a camera, which only answers, has no use for is [`Chunk::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk<'a> {
    Data(Data<'a>),
    Init(Init),
    Sack(Sack<'a>),
    /// To be sent back as it is.
    Heartbeat(&'a [u8]),
    Abort,
    Shutdown,
    ShutdownComplete,
    CookieEcho(&'a [u8]),
    Reconfig(Parameters<'a>),
    ForwardTsn(ForwardTsn<'a>),
    Other(u8),
}

/// A message or a part of it (RFC 9260 §3.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data<'a> {
    pub tsn: u32,
    pub stream: u16,
    /// Its number in the stream; without a meaning for an unordered one.
    pub ssn: u16,
    /// What the payload is: RFC 8831 §8.
    pub protocol: u32,
    pub unordered: bool,
    pub beginning: bool,
    pub ending: bool,
    /// The sender waits for the acknowledgement (RFC 7053).
    pub immediate: bool,
    /// Never empty.
    pub payload: &'a [u8],
}

/// INIT, and what an INIT ACK has beside its cookie (RFC 9260 §3.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Init {
    /// What the other side puts into its packets to the sender; never 0.
    pub tag: u32,
    /// Bytes that the sender has room for.
    pub window: u32,
    pub outbound_streams: u16,
    pub inbound_streams: u16,
    /// Of its first DATA chunk.
    pub tsn: u32,
    /// It understands FORWARD TSN.
    pub forward_tsn: bool,
    /// It understands RE-CONFIG.
    pub reconfig: bool,
}

/// RFC 9260 §3.3.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sack<'a> {
    /// All up to this one have come.
    pub cumulative: u32,
    pub window: u32,
    gaps: &'a [u8],
}

impl<'a> Sack<'a> {
    /// First and last of each run that came beyond, counted from `cumulative`, as they are written:
    /// not checked for order.
    pub fn gaps(&self) -> impl Iterator<Item = (u16, u16)> + 'a {
        pairs(self.gaps)
    }
}

/// The sender will not repeat what is up to `cumulative` (RFC 3758 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardTsn<'a> {
    pub cumulative: u32,
    streams: &'a [u8],
}

impl<'a> ForwardTsn<'a> {
    /// Ordered streams that are skipped, and the number of the last message skipped in each.
    pub fn streams(&self) -> impl Iterator<Item = (u16, u16)> + 'a {
        pairs(self.streams)
    }
}

/// See [`Packet::chunks`].
#[derive(Debug, Clone)]
pub struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        let rest = std::mem::take(&mut self.rest);
        let &[kind, flags, l0, l1] = rest.first_chunk()?;
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let value = rest.get(4..len)?;
        let chunk = Chunk::parse(kind, flags, value)?;
        // The last chunk's padding may have been left out.
        self.rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(chunk)
    }
}

impl<'a> Chunk<'a> {
    fn parse(kind: u8, flags: u8, value: &'a [u8]) -> Option<Chunk<'a>> {
        Some(match kind {
            kind::DATA => Chunk::Data(Data::parse(flags, value)?),
            kind::INIT => Chunk::Init(Init::parse(value)?),
            kind::SACK => {
                let (&[c0, c1, c2, c3, w0, w1, w2, w3, g0, g1, _, _], rest) =
                    value.split_first_chunk()?;
                let gaps = 4 * usize::from(u16::from_be_bytes([g0, g1]));
                Chunk::Sack(Sack {
                    cumulative: u32::from_be_bytes([c0, c1, c2, c3]),
                    window: u32::from_be_bytes([w0, w1, w2, w3]),
                    gaps: rest.get(..gaps)?,
                })
            }
            kind::HEARTBEAT => Chunk::Heartbeat(value),
            kind::ABORT => Chunk::Abort,
            kind::SHUTDOWN => Chunk::Shutdown,
            kind::SHUTDOWN_COMPLETE => Chunk::ShutdownComplete,
            kind::COOKIE_ECHO => Chunk::CookieEcho(value),
            kind::RECONFIG => Chunk::Reconfig(Parameters::new(value)),
            kind::FORWARD_TSN => {
                let (cumulative, streams) = value.split_first_chunk()?;
                let cumulative = u32::from_be_bytes(*cumulative);
                Chunk::ForwardTsn(ForwardTsn { cumulative, streams })
            }
            // RFC 9260 §3.2: with this bit an unknown chunk is passed over.
            kind if kind & 0x80 != 0 => Chunk::Other(kind),
            kind if kind <= kind::LAST_KNOWN => Chunk::Other(kind),
            _ => return None,
        })
    }
}

impl<'a> Data<'a> {
    fn parse(flags: u8, value: &'a [u8]) -> Option<Data<'a>> {
        let (&[t0, t1, t2, t3, s0, s1, n0, n1, p0, p1, p2, p3], payload) =
            value.split_first_chunk()?;
        if payload.is_empty() {
            return None;
        }
        Some(Data {
            tsn: u32::from_be_bytes([t0, t1, t2, t3]),
            stream: u16::from_be_bytes([s0, s1]),
            ssn: u16::from_be_bytes([n0, n1]),
            protocol: u32::from_be_bytes([p0, p1, p2, p3]),
            unordered: flags & flag::UNORDERED != 0,
            beginning: flags & flag::BEGINNING != 0,
            ending: flags & flag::ENDING != 0,
            immediate: flags & flag::IMMEDIATE != 0,
            payload,
        })
    }
}

impl Init {
    fn parse(value: &[u8]) -> Option<Init> {
        let (&[t0, t1, t2, t3, w0, w1, w2, w3, o0, o1, i0, i1, n0, n1, n2, n3], rest) =
            value.split_first_chunk()?;
        let mut init = Init {
            tag: u32::from_be_bytes([t0, t1, t2, t3]),
            window: u32::from_be_bytes([w0, w1, w2, w3]),
            outbound_streams: u16::from_be_bytes([o0, o1]),
            inbound_streams: u16::from_be_bytes([i0, i1]),
            tsn: u32::from_be_bytes([n0, n1, n2, n3]),
            forward_tsn: false,
            reconfig: false,
        };
        for (kind, value) in (Values { rest }) {
            match kind {
                parameter::FORWARD_TSN_SUPPORTED => init.forward_tsn = true,
                parameter::SUPPORTED_EXTENSIONS => {
                    init.forward_tsn |= value.contains(&kind::FORWARD_TSN);
                    init.reconfig |= value.contains(&kind::RECONFIG);
                }
                _ => {}
            }
        }
        // RFC 9260 §3.3.2: none of them may be 0.
        let valid = init.tag != 0 && init.outbound_streams != 0 && init.inbound_streams != 0;
        valid.then_some(init)
    }
}

/// Parameters: type and value each.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Values<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Values<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let rest = std::mem::take(&mut self.rest);
        let &[k0, k1, l0, l1] = rest.first_chunk()?;
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let value = rest.get(4..len)?;
        self.rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_be_bytes([k0, k1]), value))
    }
}

fn pairs(bytes: &[u8]) -> impl Iterator<Item = (u16, u16)> + '_ {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&[a, b, c, d]| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// Chunk types.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const INIT: u8 = 1;
    pub const INIT_ACK: u8 = 2;
    pub const SACK: u8 = 3;
    pub const HEARTBEAT: u8 = 4;
    pub const HEARTBEAT_ACK: u8 = 5;
    pub const ABORT: u8 = 6;
    pub const SHUTDOWN: u8 = 7;
    pub const SHUTDOWN_ACK: u8 = 8;
    pub const COOKIE_ECHO: u8 = 10;
    pub const COOKIE_ACK: u8 = 11;
    pub const SHUTDOWN_COMPLETE: u8 = 14;
    /// Of the types without the highest bit.
    pub(super) const LAST_KNOWN: u8 = SHUTDOWN_COMPLETE;
    pub const RECONFIG: u8 = 130;
    pub const FORWARD_TSN: u8 = 192;
}

mod flag {
    pub(super) const ENDING: u8 = 1;
    pub(super) const BEGINNING: u8 = 2;
    pub(super) const UNORDERED: u8 = 4;
    pub(super) const IMMEDIATE: u8 = 8;
}

mod parameter {
    pub(super) const STATE_COOKIE: u16 = 7;
    pub(super) const SUPPORTED_EXTENSIONS: u16 = 0x8008;
    pub(super) const FORWARD_TSN_SUPPORTED: u16 = 0xC000;
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { source_port: 5000, destination_port: 5001, tag: 0x1234_5678 };

    /// An INIT of usrsctp, Firefox's implementation, from the tests of pion and of rtc-sctp.
    const USRSCTP_INIT: [u8; 100] = [
        0x13, 0x88, 0x13, 0x88, 0x00, 0x00, 0x00, 0x00, 0x81, 0x46, 0x9d, 0xfc, 0x01, 0x00, 0x00,
        0x56, 0x55, 0xb9, 0x64, 0xa5, 0x00, 0x02, 0x00, 0x00, 0x04, 0x00, 0x08, 0x00, 0xe8, 0x6d,
        0x10, 0x30, 0xc0, 0x00, 0x00, 0x04, 0x80, 0x08, 0x00, 0x09, 0xc0, 0x0f, 0xc1, 0x80, 0x82,
        0x00, 0x00, 0x00, 0x80, 0x02, 0x00, 0x24, 0x9f, 0xeb, 0xbb, 0x5c, 0x50, 0xc9, 0xbf, 0x75,
        0x9c, 0xb1, 0x2c, 0x57, 0x4f, 0xa4, 0x5a, 0x51, 0xba, 0x60, 0x17, 0x78, 0x27, 0x94, 0x5c,
        0x31, 0xe6, 0x5d, 0x5b, 0x09, 0x47, 0xe2, 0x22, 0x06, 0x80, 0x04, 0x00, 0x06, 0x00, 0x01,
        0x00, 0x00, 0x80, 0x03, 0x00, 0x06, 0x80, 0xc1, 0x00, 0x00,
    ];

    fn data(payload: &[u8]) -> Data<'_> {
        Data {
            tsn: 0xFFFF_FFFE,
            stream: 2,
            ssn: 7,
            protocol: 51,
            unordered: true,
            beginning: true,
            ending: false,
            immediate: true,
            payload,
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut writer = Writer::new(HEADER, 1200);
        assert!(writer.is_empty());
        writer.sack(9, 131_072, [(2, 3), (5, 5)].into_iter());
        writer.forward_tsn(11, [(1, 2), (3, 4)].into_iter());
        writer.data(&data(b"odd"));
        writer.data(&data(b"even"));
        writer.abort();
        assert!(!writer.is_empty());
        let bytes = writer.finish();
        assert_eq!(bytes.len() % 4, 0);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.header, HEADER);
        let chunks: Vec<Chunk<'_>> = packet.chunks().collect();
        let [Chunk::Sack(sack), Chunk::ForwardTsn(forward), first, second, Chunk::Abort] =
            chunks[..]
        else {
            panic!("{chunks:?}")
        };
        assert_eq!((sack.cumulative, sack.window), (9, 131_072));
        assert_eq!(sack.gaps().collect::<Vec<_>>(), [(2, 3), (5, 5)]);
        assert_eq!(forward.cumulative, 11);
        assert_eq!(forward.streams().collect::<Vec<_>>(), [(1, 2), (3, 4)]);
        assert_eq!(first, Chunk::Data(data(b"odd")));
        assert_eq!(second, Chunk::Data(data(b"even")));
    }

    #[test]
    fn the_init_of_another_implementation_is_read_and_any_changed_byte_noticed() {
        let mut packet = USRSCTP_INIT;
        let init = Init {
            tag: 0x55b9_64a5,
            window: 0x2_0000,
            outbound_streams: 0x400,
            inbound_streams: 0x800,
            tsn: 0xe86d_1030,
            forward_tsn: true,
            reconfig: true,
        };
        let chunks: Vec<Chunk<'_>> = Packet::parse(&packet).unwrap().chunks().collect();
        assert_eq!(chunks, [Chunk::Init(init)]);
        for i in 0..packet.len() {
            packet[i] ^= 0x10;
            assert!(Packet::parse(&packet).is_none(), "byte {i}");
            packet[i] ^= 0x10;
        }
    }

    #[test]
    fn a_writer_stays_within_its_limit() {
        for limit in HEADER_LEN..120 {
            let mut writer = Writer::new(HEADER, limit);
            writer.sack(1, 2, (0..50).map(|i| (2 * i, 2 * i)));
            writer.forward_tsn(1, (0..50).map(|i| (i, i)));
            while writer.room() > DATA_HEADER_LEN {
                let payload = vec![7; writer.room() - DATA_HEADER_LEN];
                writer.data(&data(&payload[..payload.len().min(9)]));
            }
            let bytes = writer.finish();
            assert!(bytes.len() <= limit, "{} > {limit}", bytes.len());
            assert!(Packet::parse(&bytes).unwrap().chunks().count() <= 8);
        }
    }

    #[test]
    fn an_init_and_its_answer_have_the_same_layout() {
        let init = Init {
            tag: 1,
            window: 2,
            outbound_streams: 3,
            inbound_streams: 4,
            tsn: 5,
            forward_tsn: true,
            reconfig: true,
        };
        let mut writer = Writer::new(HEADER, 1200);
        writer.init_ack(&init, b"cookie");
        let mut bytes = writer.finish();
        let chunk = bytes[HEADER_LEN..].to_vec();
        assert_eq!((chunk[0], &chunk[4 + 16..4 + 16 + 4]), (kind::INIT_ACK, &[0, 7, 0, 10][..]));
        // The same bytes with the other type.
        bytes[HEADER_LEN] = kind::INIT;
        let checksum = checksum_of(&bytes[..8], &bytes[HEADER_LEN..]);
        bytes[8..HEADER_LEN].copy_from_slice(&checksum);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.chunks().collect::<Vec<_>>(), [Chunk::Init(init)]);
    }

    #[test]
    fn what_is_cut_or_unknown_ends_the_packet_or_is_passed_over() {
        let chunks = |bytes: &[u8]| {
            let mut packet = [&[0; HEADER_LEN], bytes].concat();
            let checksum = checksum_of(&packet[..8], bytes);
            packet[8..HEADER_LEN].copy_from_slice(&checksum);
            Packet::parse(&packet).unwrap().chunks().map(|c| format!("{c:?}")).collect::<Vec<_>>()
        };
        let abort = [kind::ABORT, 0, 0, 4];
        let then_abort = |first: &[u8]| chunks(&[first, &abort].concat());
        // Type, flags, length.
        assert_eq!(then_abort(&[0xC1, 0, 0, 7, 1, 2, 3, 0]), ["Other(193)", "Abort"]);
        assert_eq!(then_abort(&[kind::COOKIE_ACK, 0, 0, 4]), ["Other(11)", "Abort"]);
        assert!(then_abort(&[0x41, 0, 0, 4]).is_empty());
        for len in 0..4 {
            assert!(then_abort(&[0xC1, 0, 0, len]).is_empty());
        }
        assert!(chunks(&[0xC1, 0, 0, 9, 1, 2, 3, 4]).is_empty());
        // No payload, no tag, one gap announced and none there.
        assert!(then_abort(&[&[kind::DATA, 3, 0, 16][..], &[0; 12]].concat()).is_empty());
        assert!(then_abort(&[&[kind::INIT, 0, 0, 20][..], &[0; 16]].concat()).is_empty());
        let sack = [0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0, 0];
        assert!(chunks(&[&[kind::SACK, 0, 0, 16][..], &sack].concat()).is_empty());
        // The last one's padding may be missing.
        assert_eq!(chunks(&[0xC1, 0, 0, 5, 9]), ["Other(193)"]);
        assert!(chunks(&[]).is_empty() && chunks(&[1, 2, 3]).is_empty());
    }
}
