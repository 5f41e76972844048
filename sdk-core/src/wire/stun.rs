//! STUN messages (RFC 8489) with TURN's attributes (RFC 8656), as the camera's TURN client and the
//! server both speak them.
//!
//! A [`Message`] borrows the datagram and has been checked whole: its attributes cannot run past
//! its end. A [`Builder`] writes into the caller's buffer. [`channel_data`] is TURN's short framing
//! for payload.

pub mod attribute;
mod builder;
pub mod channel_data;
mod integrity;
mod md5;

pub use attribute::{Attribute, ErrorCode};
pub use builder::Builder;
pub use integrity::{LongTermKey, long_term_key};

use std::net::SocketAddr;

/// Bytes before the first attribute.
pub const HEADER_LEN: usize = 20;
/// RFC 8489 §5: what sets STUN apart from anything else on the same port.
pub const MAGIC_COOKIE: u32 = 0x2112_A442;
/// The port of STUN and TURN without TLS.
pub const DEFAULT_PORT: u16 = 3478;

/// RFC 8489 §5: chosen at random by the client, echoed by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

/// What kind of message of its method this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Request,
    Indication,
    Success,
    Error,
}

/// What a message is about. Numbers this crate has no name for are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Method(pub u16);

impl Method {
    pub const BINDING: Method = Method(0x001);
    pub const ALLOCATE: Method = Method(0x003);
    pub const REFRESH: Method = Method(0x004);
    pub const SEND: Method = Method(0x006);
    pub const DATA: Method = Method(0x007);
    pub const CREATE_PERMISSION: Method = Method(0x008);
    pub const CHANNEL_BIND: Method = Method(0x009);
    /// RFC 6062's three.
    pub const CONNECT: Method = Method(0x00A);
    pub const CONNECTION_BIND: Method = Method(0x00B);
    pub const CONNECTION_ATTEMPT: Method = Method(0x00C);
}

/// One message that is well-formed as a whole.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads one datagram. `None` if it is not STUN, or its lengths do not add up.
    pub fn parse(bytes: &'a [u8]) -> Option<Message<'a>> {
        let header = bytes.first_chunk::<HEADER_LEN>()?;
        let body_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let is_stun = header[0] & 0xC0 == 0
            && header[4..8] == MAGIC_COOKIE.to_be_bytes()
            && body_len.is_multiple_of(4)
            && bytes.len() == HEADER_LEN + body_len;
        if !is_stun {
            return None;
        }
        let message = Message { bytes };
        let mut rest = &bytes[HEADER_LEN..];
        while !rest.is_empty() {
            rest = attribute::split(rest)?.2;
        }
        Some(message)
    }

    /// Whether a datagram begins as a STUN message does; it may still turn out malformed.
    pub fn looks_like(bytes: &[u8]) -> bool {
        bytes.len() >= HEADER_LEN
            && bytes[0] & 0xC0 == 0
            && bytes[4..8] == MAGIC_COOKIE.to_be_bytes()
    }

    pub fn class(&self) -> Class {
        match self.message_type() & 0x0110 {
            0x0000 => Class::Request,
            0x0010 => Class::Indication,
            0x0100 => Class::Success,
            _ => Class::Error,
        }
    }

    /// RFC 8489 §5: the class's two bits lie between the method's.
    pub fn method(&self) -> Method {
        let t = self.message_type();
        Method((t & 0x000F) | ((t & 0x00E0) >> 1) | ((t & 0x3E00) >> 2))
    }

    pub fn transaction_id(&self) -> TransactionId {
        let mut id = [0; 12];
        id.copy_from_slice(&self.bytes[8..HEADER_LEN]);
        TransactionId(id)
    }

    /// The whole message.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The attributes that count, in their order: what follows the integrity check is not covered
    /// by it and is left out (RFC 8489 §14.5).
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        attribute::Attributes::of(self.bytes)
    }

    /// The value of the first attribute of this kind.
    pub fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.attributes().find(|a| a.kind == kind).map(|a| a.value)
    }

    /// A value of exactly four bytes, such as LIFETIME.
    pub fn get_u32(&self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// A value that is text, such as REALM.
    pub fn get_str(&self, kind: u16) -> Option<&'a str> {
        std::str::from_utf8(self.get(kind)?).ok()
    }

    /// One of the XOR'ed addresses, such as XOR-MAPPED-ADDRESS.
    pub fn get_xor_address(&self, kind: u16) -> Option<SocketAddr> {
        self.decode_xor_address(self.get(kind)?)
    }

    /// Undoes the XOR with the cookie and the transaction id (RFC 8489 §14.2).
    pub fn decode_xor_address(&self, value: &[u8]) -> Option<SocketAddr> {
        attribute::decode_address(value, &attribute::xor_mask(self.transaction_id()))
    }

    /// An address as it is, such as ALTERNATE-SERVER.
    pub fn get_address(&self, kind: u16) -> Option<SocketAddr> {
        attribute::decode_address(self.get(kind)?, &[0; 16])
    }

    pub fn error_code(&self) -> Option<ErrorCode<'a>> {
        ErrorCode::decode(self.get(attribute::ERROR_CODE)?)
    }

    /// Kinds that must be understood (below 0x8000) but are not in `known`: what a 420 response
    /// lists (RFC 8489 §6.3.1).
    pub fn unknown_required<'k>(
        &self,
        known: &'k [u16],
    ) -> impl Iterator<Item = u16> + use<'a, 'k> {
        self.attributes().map(|a| a.kind).filter(move |k| *k < 0x8000 && !known.contains(k))
    }

    /// Whether MESSAGE-INTEGRITY is there and was made with `key` (RFC 8489 §14.5).
    pub fn has_integrity(&self, key: &[u8]) -> bool {
        self.find(attribute::MESSAGE_INTEGRITY)
            .is_some_and(|(at, value)| integrity::verify_sha1(self.bytes, at, value, key))
    }

    /// The same for MESSAGE-INTEGRITY-SHA256 (RFC 8489 §14.6).
    pub fn has_integrity_sha256(&self, key: &[u8]) -> bool {
        self.find(attribute::MESSAGE_INTEGRITY_SHA256)
            .is_some_and(|(at, value)| integrity::verify_sha256(self.bytes, at, value, key))
    }

    /// Whether a FINGERPRINT ends the message and fits its bytes (RFC 8489 §14.7).
    pub fn has_fingerprint(&self) -> bool {
        self.find(attribute::FINGERPRINT).is_some_and(|(at, value)| {
            at + 8 == self.bytes.len()
                && value == integrity::fingerprint(&self.bytes[..at]).to_be_bytes()
        })
    }

    /// Where an attribute's header begins, and its value.
    fn find(&self, kind: u16) -> Option<(usize, &'a [u8])> {
        self.attributes().find(|a| a.kind == kind).map(|a| (a.offset, a.value))
    }

    fn message_type(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }
}

#[cfg(test)]
#[path = "stun/rfc5769.rs"]
mod rfc5769;
