//! MESSAGE-INTEGRITY and FINGERPRINT, and the key that long-term credentials give.

use super::md5::md5;
use crate::wire::crc32::{ETHERNET, crc32};
use ring::hmac;

/// The HMAC key of long-term credentials.
pub type LongTermKey = [u8; 16];

/// MD5 of `username:realm:password` (RFC 8489 §9.2.2), the strings prepared as OpaqueString, which
/// leaves ASCII as it is.
pub fn long_term_key(username: &str, realm: &str, password: &str) -> LongTermKey {
    let parts = [username, ":", realm, ":", password];
    md5(parts.iter().flat_map(|part| part.bytes()))
}

/// The tag of an attribute that begins where `covered` ends and itself ends at `end`.
pub(super) fn sha1(covered: &[u8], end: usize, key: &[u8]) -> [u8; 20] {
    let mut tag = [0; 20];
    tag.copy_from_slice(sign(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, covered, end, key).as_ref());
    tag
}

pub(super) fn sha256(covered: &[u8], end: usize, key: &[u8]) -> [u8; 32] {
    let mut tag = [0; 32];
    tag.copy_from_slice(sign(hmac::HMAC_SHA256, covered, end, key).as_ref());
    tag
}

pub(super) fn verify_sha1(message: &[u8], at: usize, tag: &[u8], key: &[u8]) -> bool {
    let expected = sha1(&message[..at], at + 4 + tag.len(), key);
    equal_in_constant_time(&expected, tag)
}

/// The tag may be cut to 16 bytes and more (RFC 8489 §14.6).
pub(super) fn verify_sha256(message: &[u8], at: usize, tag: &[u8], key: &[u8]) -> bool {
    if !(16..=32).contains(&tag.len()) || !tag.len().is_multiple_of(4) {
        return false;
    }
    let expected = sha256(&message[..at], at + 4 + tag.len(), key);
    equal_in_constant_time(&expected[..tag.len()], tag)
}

/// CRC-32 of what precedes the attribute, so marked that it cannot be taken for another
/// protocol's. The header's length already counts the attribute.
pub(super) fn fingerprint(covered: &[u8]) -> u32 {
    crc32(&ETHERNET, &[covered]) ^ 0x5354_554E
}

/// The header's length is taken as if the message ended with this attribute, whatever follows.
fn sign(algorithm: hmac::Algorithm, covered: &[u8], end: usize, key: &[u8]) -> hmac::Tag {
    let key = hmac::Key::new(algorithm, key);
    let mut context = hmac::Context::with_key(&key);
    let body_len = end.saturating_sub(super::HEADER_LEN) as u16;
    context.update(covered.get(..2).unwrap_or_default());
    context.update(&body_len.to_be_bytes());
    context.update(covered.get(4..).unwrap_or_default());
    context.sign()
}

fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
}
