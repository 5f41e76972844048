//! Session keys from a master key (RFC 3711 4.3, with a key derivation rate of 0).

use super::{KEY_LEN, SALT_LEN};
use aes::Aes128;
use aes::cipher::{BlockEncrypt as _, KeyInit as _};

/// What a key is for: the label's upper half. RTP and RTCP have keys of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    Rtp,
    Rtcp,
}

/// The keys of one direction, for RTP or for RTCP.
pub(super) struct SessionKeys {
    pub(super) cipher_key: [u8; KEY_LEN],
    pub(super) auth_key: [u8; AUTH_KEY_LEN],
    pub(super) salt: [u8; SALT_LEN],
}

impl SessionKeys {
    /// GCM's salts of 12 bytes come padded with zeros behind, and the session salt is the first 12
    /// bytes of what comes out (RFC 7714 11).
    pub(super) fn derive(
        master_key: &[u8; KEY_LEN],
        master_salt: &[u8; SALT_LEN],
        usage: Usage,
    ) -> SessionKeys {
        let first_label = match usage {
            Usage::Rtp => 0,
            Usage::Rtcp => 3,
        };
        let prf = Aes128::new(master_key.into());
        let mut keys =
            SessionKeys { cipher_key: [0; 16], auth_key: [0; AUTH_KEY_LEN], salt: [0; SALT_LEN] };
        key_stream(&prf, master_salt, first_label, &mut keys.cipher_key);
        key_stream(&prf, master_salt, first_label + 1, &mut keys.auth_key);
        key_stream(&prf, master_salt, first_label + 2, &mut keys.salt);
        keys
    }
}

/// AES in counter mode as the pseudo-random function (RFC 3711 4.3.3).
pub(super) fn key_stream(prf: &Aes128, master_salt: &[u8; SALT_LEN], label: u8, out: &mut [u8]) {
    let mut input = [0; 16];
    input[..SALT_LEN].copy_from_slice(master_salt);
    input[LABEL_AT] ^= label;
    for (counter, chunk) in (0_u16..).zip(out.chunks_mut(16)) {
        input[SALT_LEN..].copy_from_slice(&counter.to_be_bytes());
        let mut block = input.into();
        prf.encrypt_block(&mut block);
        chunk.copy_from_slice(&block[..chunk.len()]);
    }
}

pub(super) const AUTH_KEY_LEN: usize = 20;
/// The key id is label and 48 bits of index (0 here), at the end of the salt.
const LABEL_AT: usize = SALT_LEN - 7;
