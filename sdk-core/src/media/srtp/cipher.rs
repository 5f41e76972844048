//! One direction's transform for RTP or RTCP: the two profiles behind one face.

use super::session_keys::{AUTH_KEY_LEN, SessionKeys, Usage};
use super::{KEY_LEN, RTCP_ENCRYPTED, RTCP_HEADER_LEN, RTCP_INDEX_LEN, SALT_LEN, SrtpProfile};
use aes::Aes128;
use aes::cipher::{InnerIvInit as _, KeyInit as _, StreamCipher as _, StreamCipherCoreWrapper};
use ctr::CtrCore;
use ctr::flavors::Ctr128BE;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use ring::hmac;

/// The packet is not what the keys say, or is too short to be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forged;

pub(super) enum Cipher {
    Gcm { key: Box<LessSafeKey>, salt: [u8; GCM_SALT_LEN] },
    Cm { cipher: Box<Aes128>, auth: hmac::Key, salt: [u8; SALT_LEN] },
}

impl Cipher {
    pub(super) fn new(
        profile: SrtpProfile,
        master_key: &[u8; KEY_LEN],
        master_salt: &[u8; SALT_LEN],
        usage: Usage,
    ) -> Cipher {
        Cipher::from_session(profile, &SessionKeys::derive(master_key, master_salt, usage))
    }

    pub(super) fn from_session(profile: SrtpProfile, keys: &SessionKeys) -> Cipher {
        match profile {
            SrtpProfile::AeadAes128Gcm => {
                let key = UnboundKey::new(&AES_128_GCM, &keys.cipher_key)
                    .expect("AES-128-GCM takes any 16 bytes as its key");
                let mut salt = [0; GCM_SALT_LEN];
                salt.copy_from_slice(&keys.salt[..GCM_SALT_LEN]);
                Cipher::Gcm { key: Box::new(LessSafeKey::new(key)), salt }
            }
            SrtpProfile::AesCm128HmacSha1_80 => {
                let key: &[u8; AUTH_KEY_LEN] = &keys.auth_key;
                Cipher::Cm {
                    cipher: Box::new(Aes128::new(&keys.cipher_key.into())),
                    auth: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key),
                    salt: keys.salt,
                }
            }
        }
    }

    /// Seals `packet`, whose last bytes are room for the tag.
    pub(super) fn seal_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), Forged> {
        let body_len = packet.len().checked_sub(self.tag_len()).ok_or(Forged)?;
        let (body, tag) = packet.split_at_mut(body_len);
        let (header, payload) = body.split_at_mut_checked(header_len).ok_or(Forged)?;
        match self {
            Cipher::Gcm { key, salt } => {
                let sealed = gcm_seal(key, gcm_rtp_nonce(salt, ssrc, index), header, payload)?;
                tag.copy_from_slice(sealed.as_ref());
            }
            Cipher::Cm { cipher, auth, salt } => {
                cm_apply(cipher, salt, ssrc, index, payload);
                tag.copy_from_slice(&cm_rtp_tag(auth, body, index));
            }
        }
        Ok(())
    }

    /// Opens `packet`; its plain bytes are the first ones, of the length given back.
    pub(super) fn open_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<usize, Forged> {
        let body_len = packet.len().checked_sub(self.tag_len()).ok_or(Forged)?;
        if header_len > body_len {
            return Err(Forged);
        }
        match self {
            Cipher::Gcm { key, salt } => {
                let (header, sealed) = packet.split_at_mut(header_len);
                gcm_open(key, gcm_rtp_nonce(salt, ssrc, index), header, sealed)?;
            }
            Cipher::Cm { cipher, auth, salt } => {
                let (body, tag) = packet.split_at_mut(body_len);
                verify(&cm_rtp_tag(auth, body, index), tag)?;
                cm_apply(cipher, salt, ssrc, index, &mut body[header_len..]);
            }
        }
        Ok(body_len)
    }

    /// Seals `packet`, whose last bytes are room for the tag and the index.
    pub(super) fn seal_rtcp(&self, packet: &mut [u8], index: u32) -> Result<(), Forged> {
        let body_len = packet.len().checked_sub(self.tag_len() + RTCP_INDEX_LEN).ok_or(Forged)?;
        let ssrc = rtcp_ssrc(packet)?;
        let (body, trailer) = packet.split_at_mut(body_len);
        let (header, payload) = body.split_at_mut_checked(RTCP_HEADER_LEN).ok_or(Forged)?;
        let index_word = (index | RTCP_ENCRYPTED).to_be_bytes();
        match self {
            Cipher::Gcm { key, salt } => {
                let aad = gcm_rtcp_aad(header, index_word);
                let sealed = gcm_seal(key, gcm_rtcp_nonce(salt, ssrc, index), &aad, payload)?;
                trailer[..GCM_TAG_LEN].copy_from_slice(sealed.as_ref());
                trailer[GCM_TAG_LEN..].copy_from_slice(&index_word);
            }
            Cipher::Cm { cipher, auth, salt } => {
                cm_apply(cipher, salt, ssrc, u64::from(index), payload);
                trailer[..RTCP_INDEX_LEN].copy_from_slice(&index_word);
                trailer[RTCP_INDEX_LEN..].copy_from_slice(&cm_rtcp_tag(auth, body, index_word));
            }
        }
        Ok(())
    }

    /// The index of a sealed RTCP packet with its E flag. Not yet authenticated.
    pub(super) fn rtcp_index_word(&self, packet: &[u8]) -> Option<u32> {
        let behind = match self {
            Cipher::Gcm { .. } => 0,
            Cipher::Cm { .. } => CM_TAG_LEN,
        };
        let end = packet.len().checked_sub(behind)?;
        packet.get(..end)?.last_chunk().map(|word| u32::from_be_bytes(*word))
    }

    /// Opens `packet`; its plain bytes are the first ones, of the length given back.
    pub(super) fn open_rtcp(&self, packet: &mut [u8]) -> Result<usize, Forged> {
        let word = self.rtcp_index_word(packet).ok_or(Forged)?;
        let (encrypted, index) = (word & RTCP_ENCRYPTED != 0, word & !RTCP_ENCRYPTED);
        let ssrc = rtcp_ssrc(packet)?;
        let body_len = packet.len().checked_sub(self.tag_len() + RTCP_INDEX_LEN).ok_or(Forged)?;
        if body_len < RTCP_HEADER_LEN {
            return Err(Forged);
        }
        match self {
            Cipher::Gcm { key, salt } => {
                let nonce = gcm_rtcp_nonce(salt, ssrc, index);
                let sealed_len = body_len + GCM_TAG_LEN;
                if encrypted {
                    let (header, sealed) = packet[..sealed_len].split_at_mut(RTCP_HEADER_LEN);
                    let aad = gcm_rtcp_aad(header, word.to_be_bytes());
                    gcm_open(key, nonce, &aad, sealed)?;
                } else {
                    // Authenticated only (RFC 7714 9.3): all of the packet is associated data,
                    // and so is the index behind the tag. No browser does it.
                    return Err(Forged);
                }
            }
            Cipher::Cm { cipher, auth, salt } => {
                let (body, trailer) = packet.split_at_mut(body_len);
                let expected = cm_rtcp_tag(auth, body, word.to_be_bytes());
                verify(&expected, &trailer[RTCP_INDEX_LEN..])?;
                if encrypted {
                    let payload = &mut body[RTCP_HEADER_LEN..];
                    cm_apply(cipher, salt, ssrc, u64::from(index), payload);
                }
            }
        }
        Ok(body_len)
    }

    fn tag_len(&self) -> usize {
        match self {
            Cipher::Gcm { .. } => GCM_TAG_LEN,
            Cipher::Cm { .. } => CM_TAG_LEN,
        }
    }
}

/// RFC 7714 8.1: two zeros, SSRC, rollover counter and sequence number, mixed with the salt.
fn gcm_rtp_nonce(salt: &[u8; GCM_SALT_LEN], ssrc: u32, index: u64) -> Nonce {
    let mut nonce = *salt;
    xor(&mut nonce[2..6], &ssrc.to_be_bytes());
    xor(&mut nonce[6..12], &index.to_be_bytes()[2..]);
    Nonce::assume_unique_for_key(nonce)
}

/// RFC 7714 9.1: two zeros, SSRC, two zeros, index, mixed with the salt.
fn gcm_rtcp_nonce(salt: &[u8; GCM_SALT_LEN], ssrc: u32, index: u32) -> Nonce {
    let mut nonce = *salt;
    xor(&mut nonce[2..6], &ssrc.to_be_bytes());
    xor(&mut nonce[8..12], &index.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn gcm_rtcp_aad(header: &[u8], index_word: [u8; 4]) -> [u8; RTCP_HEADER_LEN + RTCP_INDEX_LEN] {
    let mut aad = [0; RTCP_HEADER_LEN + RTCP_INDEX_LEN];
    aad[..RTCP_HEADER_LEN].copy_from_slice(header);
    aad[RTCP_HEADER_LEN..].copy_from_slice(&index_word);
    aad
}

fn gcm_seal(
    key: &LessSafeKey,
    nonce: Nonce,
    aad: &[u8],
    payload: &mut [u8],
) -> Result<Tag, Forged> {
    key.seal_in_place_separate_tag(nonce, Aad::from(aad), payload).map_err(|_| Forged)
}

fn gcm_open(key: &LessSafeKey, nonce: Nonce, aad: &[u8], sealed: &mut [u8]) -> Result<(), Forged> {
    key.open_in_place(nonce, Aad::from(aad), sealed).map(|_| ()).map_err(|_| Forged)
}

/// AES in counter mode (RFC 3711 4.1.1), which seals and opens alike.
fn cm_apply(cipher: &Aes128, salt: &[u8; SALT_LEN], ssrc: u32, index: u64, payload: &mut [u8]) {
    let mut iv = [0; 16];
    iv[..SALT_LEN].copy_from_slice(salt);
    xor(&mut iv[4..8], &ssrc.to_be_bytes());
    xor(&mut iv[8..14], &index.to_be_bytes()[2..]);
    let core = CtrCore::<&Aes128, Ctr128BE>::inner_iv_init(cipher, &iv.into());
    StreamCipherCoreWrapper::from_core(core).apply_keystream(payload);
}

/// RFC 3711 4.2: the packet and the rollover counter.
fn cm_rtp_tag(auth: &hmac::Key, body: &[u8], index: u64) -> [u8; CM_TAG_LEN] {
    let rollover_counter = (index >> 16) as u32;
    cm_rtcp_tag(auth, body, rollover_counter.to_be_bytes())
}

/// RFC 3711 3.4: the packet, the E flag and the index.
fn cm_rtcp_tag(auth: &hmac::Key, body: &[u8], word: [u8; 4]) -> [u8; CM_TAG_LEN] {
    let mut context = hmac::Context::with_key(auth);
    context.update(body);
    context.update(&word);
    let mut tag = [0; CM_TAG_LEN];
    tag.copy_from_slice(&context.sign().as_ref()[..CM_TAG_LEN]);
    tag
}

/// In constant time, so that a tag cannot be guessed byte by byte.
fn verify(expected: &[u8; CM_TAG_LEN], found: &[u8]) -> Result<(), Forged> {
    let difference = expected.iter().zip(found).fold(0, |sum, (a, b)| sum | (a ^ b));
    let equal = std::hint::black_box(difference) == 0 && found.len() == expected.len();
    equal.then_some(()).ok_or(Forged)
}

fn rtcp_ssrc(packet: &[u8]) -> Result<u32, Forged> {
    let ssrc = packet.get(4..).and_then(|rest| rest.first_chunk()).ok_or(Forged)?;
    Ok(u32::from_be_bytes(*ssrc))
}

fn xor(to: &mut [u8], with: &[u8]) {
    for (to, with) in to.iter_mut().zip(with) {
        *to ^= with;
    }
}

const GCM_SALT_LEN: usize = 12;
const GCM_TAG_LEN: usize = 16;
const CM_TAG_LEN: usize = 10;
