//! What seals our packets.

use super::SrtpKeys;
use super::cipher::Cipher;
use super::session_keys::Usage;

/// Seals RTP and RTCP of one session's local sources.
///
/// RTP's packet index (rollover counter and sequence number, 48 bits) is the caller's, who knows
/// it best; RTCP's is counted here.
pub struct SrtpSender {
    rtp: Cipher,
    rtcp: Cipher,
    next_rtcp_index: u32,
    rtp_overhead: usize,
    rtcp_overhead: usize,
}

/// Why a packet was not sealed. It must not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealError {
    /// No RTP or RTCP packet with room for what sealing adds.
    Malformed,
    /// The key has sealed as many packets as it may (RFC 3711 9.2); the session must end.
    KeyWornOut,
}

impl SrtpSender {
    pub fn new(keys: &SrtpKeys) -> SrtpSender {
        let cipher = |usage| Cipher::new(keys.profile, &keys.local_key, &keys.local_salt, usage);
        SrtpSender::from_ciphers(keys, cipher(Usage::Rtp), cipher(Usage::Rtcp))
    }

    pub(super) fn from_ciphers(keys: &SrtpKeys, rtp: Cipher, rtcp: Cipher) -> SrtpSender {
        SrtpSender {
            rtp,
            rtcp,
            next_rtcp_index: 1,
            rtp_overhead: keys.profile.rtp_overhead(),
            rtcp_overhead: keys.profile.rtcp_overhead(),
        }
    }

    /// By how many bytes [`Self::seal_rtp`] makes a packet longer.
    pub fn rtp_overhead(&self) -> usize {
        self.rtp_overhead
    }

    /// Seals a packet in place. Its last [`Self::rtp_overhead`] bytes are room for the tag;
    /// `header_len` bytes stay readable.
    ///
    /// The same `index` and `ssrc` must never come with other bytes: under GCM that would give
    /// away the key that authenticates. The same bytes again are harmless.
    pub fn seal_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), SealError> {
        if index >> 48 != 0 {
            return Err(SealError::KeyWornOut);
        }
        self.rtp.seal_rtp(packet, header_len, ssrc, index).map_err(|_| SealError::Malformed)
    }

    /// Seals the compound RTCP packet that starts at `start` of `buffer`, which gets longer.
    pub fn seal_rtcp(&mut self, buffer: &mut Vec<u8>, start: usize) -> Result<(), SealError> {
        if self.next_rtcp_index >> 31 != 0 {
            return Err(SealError::KeyWornOut);
        }
        buffer.resize(buffer.len() + self.rtcp_overhead, 0);
        let packet = buffer.get_mut(start..).ok_or(SealError::Malformed)?;
        self.rtcp.seal_rtcp(packet, self.next_rtcp_index).map_err(|_| SealError::Malformed)?;
        self.next_rtcp_index += 1;
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn next_rtcp_index_for_test(&mut self, index: u32) {
        self.next_rtcp_index = index;
    }
}
