//! Writes one message into the caller's buffer.

use super::attribute::{self, encode_address, padded, xor_mask};
use super::{Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId, integrity};
use std::net::SocketAddr;

/// Attributes are written in the order of the calls; `integrity` and then `fingerprint` come last.
///
/// What does not fit is not written, and [`finish`](Builder::finish) then answers `None`: a message
/// is whole or it is not sent.
pub struct Builder<'a> {
    buffer: &'a mut [u8],
    len: usize,
    id: TransactionId,
    fits: bool,
}

impl<'a> Builder<'a> {
    pub fn new(buffer: &'a mut [u8], class: Class, method: Method, id: TransactionId) -> Self {
        let fits = buffer.len() >= HEADER_LEN;
        if fits {
            buffer[..2].copy_from_slice(&message_type(class, method).to_be_bytes());
            buffer[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
            buffer[8..HEADER_LEN].copy_from_slice(&id.0);
        }
        let mut builder = Builder { buffer, len: HEADER_LEN, id, fits };
        builder.write_length(HEADER_LEN);
        builder
    }

    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.append(kind, value);
        self
    }

    /// As [`attribute`](Builder::attribute), where there is a value.
    pub fn maybe(self, kind: u16, value: Option<&[u8]>) -> Self {
        match value {
            Some(value) => self.attribute(kind, value),
            None => self,
        }
    }

    pub fn u32(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    pub fn xor_address(self, kind: u16, address: SocketAddr) -> Self {
        let (value, len) = encode_address(address, &xor_mask(self.id));
        self.attribute(kind, &value[..len])
    }

    /// An address as it is, such as ALTERNATE-SERVER or MAPPED-ADDRESS.
    pub fn address(self, kind: u16, address: SocketAddr) -> Self {
        let (value, len) = encode_address(address, &[0; 16]);
        self.attribute(kind, &value[..len])
    }

    /// RFC 8656 §18.1: the number and two bytes that are not used yet.
    pub fn channel_number(self, channel: u16) -> Self {
        self.u32(attribute::CHANNEL_NUMBER, u32::from(channel) << 16)
    }

    /// `reason` is cut to what a datagram should carry.
    pub fn error(self, code: u16, reason: &str) -> Self {
        const MAX_REASON: usize = 124;
        let mut value = [0; 4 + MAX_REASON];
        value[2] = (code / 100) as u8 & 0x07;
        value[3] = (code % 100) as u8;
        let mut end = reason.len().min(MAX_REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        value[4..4 + end].copy_from_slice(&reason.as_bytes()[..end]);
        self.attribute(attribute::ERROR_CODE, &value[..4 + end])
    }

    /// MESSAGE-INTEGRITY over all that was written so far (RFC 8489 §14.5).
    pub fn integrity(mut self, key: &[u8]) -> Self {
        let at = self.len;
        if let Some(value) = self.append(attribute::MESSAGE_INTEGRITY, &[0; 20]) {
            let tag = integrity::sha1(&self.buffer[..at], value, key);
            self.buffer[at + 4..value].copy_from_slice(&tag);
        }
        self
    }

    /// MESSAGE-INTEGRITY-SHA256 over all that was written so far (RFC 8489 §14.6).
    pub fn integrity_sha256(mut self, key: &[u8]) -> Self {
        let at = self.len;
        if let Some(value) = self.append(attribute::MESSAGE_INTEGRITY_SHA256, &[0; 32]) {
            let tag = integrity::sha256(&self.buffer[..at], value, key);
            self.buffer[at + 4..value].copy_from_slice(&tag);
        }
        self
    }

    /// FINGERPRINT over all that was written so far (RFC 8489 §14.7).
    pub fn fingerprint(mut self) -> Self {
        let at = self.len;
        if let Some(end) = self.append(attribute::FINGERPRINT, &[0; 4]) {
            let crc = integrity::fingerprint(&self.buffer[..at]).to_be_bytes();
            self.buffer[at + 4..end].copy_from_slice(&crc);
        }
        self
    }

    /// Ends the message with the head of an attribute whose value the caller sends from elsewhere,
    /// uncopied: answers what was written, and how many zeros must follow the value.
    pub fn finish_before_value(mut self, kind: u16, value_len: usize) -> Option<(usize, usize)> {
        let padding = padded(value_len.min(1 << 16)) - value_len.min(1 << 16);
        self.append(kind, &[])?;
        let body = (self.len - HEADER_LEN).checked_add(value_len)?.checked_add(padding)?;
        let (body, value_len) = (u16::try_from(body).ok()?, u16::try_from(value_len).ok()?);
        self.buffer[2..4].copy_from_slice(&body.to_be_bytes());
        self.buffer[self.len - 2..self.len].copy_from_slice(&value_len.to_be_bytes());
        Some((self.len, padding))
    }

    /// The message's length in the buffer, or `None` if it did not fit.
    pub fn finish(self) -> Option<usize> {
        self.fits.then_some(self.len)
    }

    /// The end of what was written, if it fits.
    fn append(&mut self, kind: u16, value: &[u8]) -> Option<usize> {
        let end = self.len.saturating_add(4).saturating_add(padded(value.len().min(1 << 16)));
        let (Ok(value_len), true) = (u16::try_from(value.len()), self.fits) else {
            self.fits = false;
            return None;
        };
        let Some(target) = self
            .buffer
            .get_mut(self.len..end)
            .filter(|_| end - HEADER_LEN <= usize::from(u16::MAX))
        else {
            self.fits = false;
            return None;
        };
        target[..2].copy_from_slice(&kind.to_be_bytes());
        target[2..4].copy_from_slice(&value_len.to_be_bytes());
        target[4..4 + value.len()].copy_from_slice(value);
        target[4 + value.len()..].fill(0);
        self.len = end;
        self.write_length(end);
        Some(end)
    }

    fn write_length(&mut self, end: usize) {
        if self.fits {
            let body = (end - HEADER_LEN) as u16;
            self.buffer[2..4].copy_from_slice(&body.to_be_bytes());
        }
    }
}

fn message_type(class: Class, method: Method) -> u16 {
    let class = match class {
        Class::Request => 0x0000,
        Class::Indication => 0x0010,
        Class::Success => 0x0100,
        Class::Error => 0x0110,
    };
    let m = method.0;
    class | (m & 0x000F) | ((m & 0x0070) << 1) | ((m & 0x0F80) << 2)
}
