//! What opens the other side's packets, and refuses those that came before (RFC 3711 3.3).

use super::cipher::Cipher;
use super::session_keys::Usage;
use super::{RTCP_ENCRYPTED, SrtpKeys};
use crate::wire::rtp;

/// Opens RTP and RTCP of one session's remote sources.
pub struct SrtpReceiver {
    rtp: Cipher,
    rtcp: Cipher,
    rtp_sources: heapless::Vec<Source, MAX_SOURCES>,
    rtcp_sources: heapless::Vec<Source, MAX_SOURCES>,
}

/// Why a packet was not opened. It says nothing and is to be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// Not RTP or RTCP.
    Malformed,
    /// Not from the other side, or changed on its way.
    Forged,
    /// It came before, or is too old to tell.
    Replayed,
    /// More sources than a viewer has.
    TooManySources,
}

impl SrtpReceiver {
    pub fn new(keys: &SrtpKeys) -> SrtpReceiver {
        let cipher = |usage| Cipher::new(keys.profile, &keys.remote_key, &keys.remote_salt, usage);
        SrtpReceiver::from_ciphers(cipher(Usage::Rtp), cipher(Usage::Rtcp))
    }

    pub(super) fn from_ciphers(rtp: Cipher, rtcp: Cipher) -> SrtpReceiver {
        SrtpReceiver {
            rtp,
            rtcp,
            rtp_sources: heapless::Vec::new(),
            rtcp_sources: heapless::Vec::new(),
        }
    }

    /// Opens an RTP packet where it lies and gives back its plain part.
    pub fn open_rtp<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a [u8], OpenError> {
        let header_len = rtp::header_len(packet).ok_or(OpenError::Malformed)?;
        let header = packet.first_chunk::<12>().ok_or(OpenError::Malformed)?;
        let sequence = u16::from_be_bytes([header[2], header[3]]);
        let ssrc = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);

        let known = self.rtp_sources.iter().position(|source| source.ssrc == ssrc);
        let index = match known {
            Some(at) => self.rtp_sources[at].window.guess_index(sequence),
            None => u64::from(sequence),
        };
        check_source(&self.rtp_sources, known, index)?;
        let len =
            self.rtp.open_rtp(packet, header_len, ssrc, index).map_err(|_| OpenError::Forged)?;
        note_source(&mut self.rtp_sources, known, ssrc, index);
        packet.get(..len).ok_or(OpenError::Malformed)
    }

    /// Opens a compound RTCP packet where it lies and gives back its plain part.
    pub fn open_rtcp<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a [u8], OpenError> {
        let ssrc = packet.get(4..).and_then(|rest| rest.first_chunk());
        let ssrc = u32::from_be_bytes(*ssrc.ok_or(OpenError::Malformed)?);
        let word = self.rtcp.rtcp_index_word(packet).ok_or(OpenError::Malformed)?;
        let index = u64::from(word & !RTCP_ENCRYPTED);

        let known = self.rtcp_sources.iter().position(|source| source.ssrc == ssrc);
        check_source(&self.rtcp_sources, known, index)?;
        let len = self.rtcp.open_rtcp(packet).map_err(|_| OpenError::Forged)?;
        note_source(&mut self.rtcp_sources, known, ssrc, index);
        packet.get(..len).ok_or(OpenError::Malformed)
    }
}

struct Source {
    ssrc: u32,
    window: ReplayWindow,
}

type Sources = heapless::Vec<Source, MAX_SOURCES>;

/// Before opening: what is worth the work?
fn check_source(sources: &Sources, known: Option<usize>, index: u64) -> Result<(), OpenError> {
    match known {
        Some(at) if sources[at].window.has_seen(index) => Err(OpenError::Replayed),
        None if sources.is_full() => Err(OpenError::TooManySources),
        _ => Ok(()),
    }
}

/// After opening: only what is authentic may move a window or add a source.
fn note_source(sources: &mut Sources, known: Option<usize>, ssrc: u32, index: u64) {
    match known {
        Some(at) => sources[at].window.on_seen(index),
        None => {
            let window = ReplayWindow { highest: index, seen: 1 };
            // Room was checked before.
            let _ = sources.push(Source { ssrc, window });
        }
    }
}

/// Which of the last 64 indices were seen (RFC 3711 3.3.2).
struct ReplayWindow {
    highest: u64,
    /// Bit n stands for `highest - n`.
    seen: u64,
}

impl ReplayWindow {
    fn has_seen(&self, index: u64) -> bool {
        match self.highest.checked_sub(index) {
            None => false,
            Some(age @ 0..64) => self.seen >> age & 1 != 0,
            Some(_) => true,
        }
    }

    fn on_seen(&mut self, index: u64) {
        if index > self.highest {
            let step = index - self.highest;
            self.seen = if step < 64 { self.seen << step } else { 0 };
            self.highest = index;
        }
        let age = self.highest - index;
        if age < 64 {
            self.seen |= 1 << age;
        }
    }

    /// The 48-bit index nearest to the highest so far (RFC 3711 3.3.1 and appendix A).
    fn guess_index(&self, sequence: u16) -> u64 {
        let highest_sequence = self.highest as u16;
        let step = i64::from(sequence.wrapping_sub(highest_sequence) as i16);
        match self.highest.checked_add_signed(step) {
            Some(index) => index,
            // Before the very first rollover there is nothing to go back to.
            None => u64::from(sequence),
        }
    }
}

/// A browser has one or two.
const MAX_SOURCES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_knows_the_last_64() {
        let mut window = ReplayWindow { highest: 100, seen: 1 };
        assert!(window.has_seen(100) && !window.has_seen(99) && !window.has_seen(101));
        window.on_seen(98);
        window.on_seen(163);
        assert!(window.has_seen(100) && !window.has_seen(101));
        assert!(window.has_seen(99), "too old to tell");
        window.on_seen(500);
        assert!(window.has_seen(500) && !window.has_seen(499) && window.has_seen(163));
    }

    #[test]
    fn the_index_follows_the_sequence_number_over_its_rollover() {
        let window = ReplayWindow { highest: 0x1_fffe, seen: 1 };
        assert_eq!(window.guess_index(0xffff), 0x1_ffff);
        assert_eq!(window.guess_index(0x0001), 0x2_0001);
        assert_eq!(window.guess_index(0xfff0), 0x1_fff0);
        let window = ReplayWindow { highest: 0x2_0001, seen: 1 };
        assert_eq!(window.guess_index(0xffff), 0x1_ffff);
        let window = ReplayWindow { highest: 1, seen: 1 };
        assert_eq!(window.guess_index(0xffff), 0xffff);
    }
}
