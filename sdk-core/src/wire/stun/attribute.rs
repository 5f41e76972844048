//! Attributes: their numbers, their framing, and the values that have a shape of their own.

use super::{HEADER_LEN, MAGIC_COOKIE, TransactionId};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub const MAPPED_ADDRESS: u16 = 0x0001;
pub const USERNAME: u16 = 0x0006;
pub const MESSAGE_INTEGRITY: u16 = 0x0008;
pub const ERROR_CODE: u16 = 0x0009;
pub const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
pub const CHANNEL_NUMBER: u16 = 0x000C;
pub const LIFETIME: u16 = 0x000D;
pub const XOR_PEER_ADDRESS: u16 = 0x0012;
pub const DATA: u16 = 0x0013;
pub const REALM: u16 = 0x0014;
pub const NONCE: u16 = 0x0015;
pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
pub const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
pub const EVEN_PORT: u16 = 0x0018;
pub const REQUESTED_TRANSPORT: u16 = 0x0019;
pub const DONT_FRAGMENT: u16 = 0x001A;
pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
pub const RESERVATION_TOKEN: u16 = 0x0022;
/// ICE's four (RFC 8445 §16.1) are this, USE-CANDIDATE, ICE-CONTROLLED and ICE-CONTROLLING.
pub const PRIORITY: u16 = 0x0024;
pub const USE_CANDIDATE: u16 = 0x0025;
/// RFC 6062 §6.2.1.
pub const CONNECTION_ID: u16 = 0x002A;
pub const SOFTWARE: u16 = 0x8022;
pub const ALTERNATE_SERVER: u16 = 0x8023;
pub const FINGERPRINT: u16 = 0x8028;
pub const ICE_CONTROLLED: u16 = 0x8029;
pub const ICE_CONTROLLING: u16 = 0x802A;

/// REQUESTED-TRANSPORT's protocol numbers.
pub const TRANSPORT_TCP: u8 = 6;
pub const TRANSPORT_UDP: u8 = 17;
/// Address families as REQUESTED-ADDRESS-FAMILY and the addresses themselves write them.
pub const FAMILY_IPV4: u8 = 0x01;
pub const FAMILY_IPV6: u8 = 0x02;

/// One attribute as it lies in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    pub kind: u16,
    /// Without its padding.
    pub value: &'a [u8],
    /// Where its header begins in the message.
    pub offset: usize,
}

/// ERROR-CODE (RFC 8489 §14.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode<'a> {
    /// 300 to 699.
    pub code: u16,
    /// For the log; not always text.
    pub reason: &'a [u8],
}

impl<'a> ErrorCode<'a> {
    pub(super) fn decode(value: &'a [u8]) -> Option<ErrorCode<'a>> {
        let (head, reason) = value.split_first_chunk::<4>()?;
        let (class, number) = (u16::from(head[2] & 0x07), u16::from(head[3]));
        ((3..=6).contains(&class) && number < 100)
            .then_some(ErrorCode { code: class * 100 + number, reason })
    }
}

/// Walks a message whose attributes are known to fit it.
pub(super) struct Attributes<'a> {
    rest: &'a [u8],
    offset: usize,
    /// MESSAGE-INTEGRITY was seen: only the other integrity check and the fingerprint still count.
    sealed: bool,
}

impl<'a> Attributes<'a> {
    pub(super) fn of(message: &'a [u8]) -> Attributes<'a> {
        let rest = message.get(HEADER_LEN..).unwrap_or_default();
        Attributes { rest, offset: HEADER_LEN, sealed: false }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        loop {
            let (kind, value, rest) = split(self.rest)?;
            let offset = self.offset;
            self.offset += self.rest.len() - rest.len();
            self.rest = rest;
            let counts = match kind {
                FINGERPRINT => {
                    self.rest = &[];
                    true
                }
                MESSAGE_INTEGRITY_SHA256 => true,
                _ => !self.sealed,
            };
            self.sealed |= matches!(kind, MESSAGE_INTEGRITY | MESSAGE_INTEGRITY_SHA256);
            if counts {
                return Some(Attribute { kind, value, offset });
            }
        }
    }
}

/// The first attribute's kind and value, and what follows its padding.
pub(super) fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    let kind = u16::from_be_bytes([head[0], head[1]]);
    let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let value = rest.get(..len)?;
    Some((kind, value, rest.get(padded(len)..)?))
}

/// Attributes begin at multiples of four bytes.
pub(super) fn padded(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// Cookie and transaction id: what addresses are XOR'ed with (RFC 8489 §14.2).
pub(super) fn xor_mask(id: TransactionId) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&id.0);
    mask
}

pub(super) fn decode_address(value: &[u8], mask: &[u8; 16]) -> Option<SocketAddr> {
    let (head, address) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([head[2] ^ mask[0], head[3] ^ mask[1]]);
    let ip = match head[1] {
        FAMILY_IPV4 => {
            let mut octets: [u8; 4] = address.try_into().ok()?;
            octets.iter_mut().zip(mask).for_each(|(o, m)| *o ^= m);
            IpAddr::V4(Ipv4Addr::from(octets))
        }
        FAMILY_IPV6 => {
            let mut octets: [u8; 16] = address.try_into().ok()?;
            octets.iter_mut().zip(mask).for_each(|(o, m)| *o ^= m);
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The value's bytes, and how many of them there are.
pub(super) fn encode_address(address: SocketAddr, mask: &[u8; 16]) -> ([u8; 20], usize) {
    let mut value = [0; 20];
    let port = address.port().to_be_bytes();
    value[2] = port[0] ^ mask[0];
    value[3] = port[1] ^ mask[1];
    let len = match address.ip() {
        IpAddr::V4(ip) => {
            value[1] = FAMILY_IPV4;
            value[4..8].copy_from_slice(&ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            value[1] = FAMILY_IPV6;
            value[4..20].copy_from_slice(&ip.octets());
            20
        }
    };
    value[4..len].iter_mut().zip(mask).for_each(|(o, m)| *o ^= m);
    (value, len)
}
