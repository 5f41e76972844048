//! SRTP and SRTCP (RFC 3711) with keys from DTLS (RFC 5764): packets are sealed and opened where
//! they lie, without an allocation.
//!
//! AEAD_AES_128_GCM (RFC 7714) by ring is preferred: on a Cortex-A7 it costs a fifth of
//! AES_CM_128_HMAC_SHA1_80, which RFC 8827 6.5 makes everyone speak.

mod cipher;
mod receiver;
mod sender;
mod session_keys;

pub use receiver::{OpenError, SrtpReceiver};
pub use sender::{SealError, SrtpSender};

use std::fmt;

/// A protection profile, as negotiated by DTLS's `use_srtp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SrtpProfile {
    AeadAes128Gcm,
    AesCm128HmacSha1_80,
}

impl SrtpProfile {
    /// In the order of our preference.
    pub const ALL: [SrtpProfile; 2] =
        [SrtpProfile::AeadAes128Gcm, SrtpProfile::AesCm128HmacSha1_80];

    /// Its number in IANA's registry of DTLS-SRTP protection profiles.
    pub const fn id(self) -> u16 {
        match self {
            SrtpProfile::AeadAes128Gcm => 0x0007,
            SrtpProfile::AesCm128HmacSha1_80 => 0x0001,
        }
    }

    pub fn from_id(id: u16) -> Option<SrtpProfile> {
        SrtpProfile::ALL.into_iter().find(|profile| profile.id() == id)
    }

    /// How many bytes to take from the DTLS exporter `EXTRACTOR-dtls_srtp` (RFC 5764 4.2).
    pub const fn exporter_len(self) -> usize {
        2 * (KEY_LEN + self.salt_len())
    }

    pub const fn salt_len(self) -> usize {
        match self {
            SrtpProfile::AeadAes128Gcm => 12,
            SrtpProfile::AesCm128HmacSha1_80 => 14,
        }
    }

    /// By how many bytes sealing makes an RTP packet longer.
    pub const fn rtp_overhead(self) -> usize {
        match self {
            SrtpProfile::AeadAes128Gcm => 16,
            SrtpProfile::AesCm128HmacSha1_80 => 10,
        }
    }

    /// By how many bytes sealing makes an RTCP packet longer.
    pub const fn rtcp_overhead(self) -> usize {
        self.rtp_overhead() + RTCP_INDEX_LEN
    }
}

/// The longest [`SrtpProfile::rtp_overhead`].
pub const MAX_RTP_OVERHEAD: usize = 16;

/// The master keys and salts of both directions.
#[derive(Clone)]
pub struct SrtpKeys {
    pub profile: SrtpProfile,
    /// What we send with.
    pub local_key: [u8; KEY_LEN],
    /// GCM uses the first 12 bytes; the rest is 0.
    pub local_salt: [u8; SALT_LEN],
    /// What the other side sends with.
    pub remote_key: [u8; KEY_LEN],
    pub remote_salt: [u8; SALT_LEN],
}

impl SrtpKeys {
    /// Takes the exporter's bytes apart: client's key, server's key, client's salt, server's salt
    /// (RFC 5764 4.2). `is_client` says whether we are the DTLS client.
    ///
    /// None if there are not [`SrtpProfile::exporter_len`] bytes.
    pub fn from_exporter(
        profile: SrtpProfile,
        material: &[u8],
        is_client: bool,
    ) -> Option<SrtpKeys> {
        if material.len() != profile.exporter_len() {
            return None;
        }
        let (client_key, rest) = material.split_first_chunk::<KEY_LEN>()?;
        let (server_key, rest) = rest.split_first_chunk::<KEY_LEN>()?;
        let (client_salt, server_salt) = rest.split_at_checked(profile.salt_len())?;
        let padded = |salt: &[u8]| {
            let mut bytes = [0; SALT_LEN];
            bytes[..salt.len()].copy_from_slice(salt);
            bytes
        };
        let client = (*client_key, padded(client_salt));
        let server = (*server_key, padded(server_salt));
        let (local, remote) = if is_client { (client, server) } else { (server, client) };
        Some(SrtpKeys {
            profile,
            local_key: local.0,
            local_salt: local.1,
            remote_key: remote.0,
            remote_salt: remote.1,
        })
    }
}

impl fmt::Debug for SrtpKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SrtpKeys").field("profile", &self.profile).finish_non_exhaustive()
    }
}

pub const KEY_LEN: usize = 16;
pub const SALT_LEN: usize = 14;
/// The E flag and the index at the end of an SRTCP packet (RFC 3711 3.4).
const RTCP_INDEX_LEN: usize = 4;
const RTCP_ENCRYPTED: u32 = 1 << 31;
/// What stays readable of an RTCP packet: its first header and SSRC.
const RTCP_HEADER_LEN: usize = 8;

#[cfg(test)]
mod tests;
