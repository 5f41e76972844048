//! `p2p_config_t`: how the camera reaches the service, and what it allows.

use crate::audio::p2p_talkback_fn;
use crate::callbacks::{p2p_bitrate_fn, p2p_event_fn, p2p_keyframe_fn};
use crate::data::{p2p_data_channel_fn, p2p_data_fn};
use crate::layout::Versioned;
use crate::log::p2p_log_fn;
use crate::status::{Error, p2p_status_t};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sdk_core::driver::{CameraConfig, CertificateFiles, UnsetClock};
use std::ffi::{CStr, c_char, c_void};
use std::mem::size_of;
use std::path::PathBuf;

/// What a token's expiry is worth while the device's clock is unset (before 2024). The default (0):
/// the time comes from the service's last keepalive; until there is one, viewers are refused with
/// error 401.
pub const P2P_UNSET_CLOCK_REFUSE: i32 = 0;
/// Until the service has told the time, expiry is not checked; the signature always is.
pub const P2P_UNSET_CLOCK_ACCEPT_UNTIL_KNOWN: i32 = 1;

/// Viewers at once where max_viewers is 0.
pub const P2P_DEFAULT_MAX_VIEWERS: u32 = 8;
/// The largest UDP payload where max_datagram is 0, in bytes.
pub const P2P_DEFAULT_MAX_DATAGRAM: u32 = 1200;

/// How the camera reaches the service, and what it allows. Start from P2P_CONFIG_INIT: what stays
/// zero is the default. Texts are UTF-8 and end with a zero byte; everything is copied by
/// p2p_init(), only the callbacks and their user pointer must stay valid until p2p_deinit().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct p2p_config_t {
    /// sizeof(p2p_config_t), set by P2P_CONFIG_INIT.
    pub struct_size: usize,
    /// Required. The device's serial number, its id in topics and tokens: 1 to 64 letters, digits,
    /// '-', '_', '.' or ':'.
    pub device_id: *const c_char,
    /// Required. "mqtt://host[:port]"; "mqtts://" where the library was built with TLS.
    pub broker_url: *const c_char,
    /// NULL: device_id if there is a password, else none.
    pub broker_username: *const c_char,
    /// NULL to send none.
    pub broker_password: *const c_char,
    /// PEM file with the certificates that a mqtts:// broker may be signed by. NULL: the system's.
    /// This file and the next two are read again for each connection, so they can be replaced while
    /// the agent runs; where they cannot be used then, what was read before stays in use.
    pub broker_ca_file: *const c_char,
    /// PEM file with this device's own certificate, followed by those that lead to an authority which
    /// the broker knows, for a mqtts:// broker that wants one. Then broker_password may stay NULL.
    /// NULL: none.
    pub broker_cert_file: *const c_char,
    /// PEM file with the private key of broker_cert_file, not encrypted: ECDSA P-256 or P-384, Ed25519,
    /// or RSA of 2048 to 4096 bits. Keep it at mode 0600. Set both of these files, or neither.
    pub broker_key_file: *const c_char,
    /// Required. The session service's Ed25519 public key, 32 bytes as 64 hexadecimal digits or as
    /// base64 (either alphabet, with or without padding).
    pub service_public_key: *const c_char,
    /// A file for the DTLS key and certificate (made with mode 0600), so that they need not be made
    /// at each start. NULL: in memory only.
    pub identity_file: *const c_char,
    /// Viewers at once, at most 128; further ones are told "too many" (429).
    /// 0: P2P_DEFAULT_MAX_VIEWERS.
    pub max_viewers: u32,
    /// Largest UDP payload to send, in bytes, 548 to 1472. 0: P2P_DEFAULT_MAX_DATAGRAM.
    pub max_datagram: u32,
    /// One of P2P_UNSET_CLOCK_…
    pub unset_clock: i32,
    /// 1: offers addresses on 127.0.0.1 as well, for demos and tests on one machine. Otherwise 0.
    pub include_loopback: i32,
    /// 1: hides the camera's own addresses, so that only relays are used. Otherwise 0.
    pub relay_only: i32,
    /// The most talkative P2P_LOG_ level that on_log gets. 0: P2P_LOG_INFO.
    pub log_level: i32,
    /// Given to each callback of this struct.
    pub user: *mut c_void,
    /// What happens: signaling and viewers. May be NULL.
    pub on_event: p2p_event_fn,
    /// Asks for a keyframe. May be NULL, but then a viewer waits for the encoder's next one by
    /// itself.
    pub on_keyframe_request: p2p_keyframe_fn,
    /// Says what the viewers of a stream can take. May be NULL for an encoder of a fixed rate; a
    /// viewer with less then misses frames.
    pub on_target_bitrate: p2p_bitrate_fn,
    /// Log lines. May be NULL.
    pub on_log: p2p_log_fn,
    /// What viewers say, for the loudspeaker; see p2p_start_audio(). NULL: they cannot talk.
    pub on_talkback: p2p_talkback_fn,
    /// What happens to viewers' data channels. May be NULL.
    pub on_data_channel: p2p_data_channel_fn,
    /// Messages of viewers. May be NULL.
    pub on_data: p2p_data_fn,
}

// SAFETY: pointers and integers, any of which may be zero. Six 32-bit fields between pointers leave
// no padding on 32-bit or 64-bit machines, as tests/abi.rs checks.
unsafe impl Versioned for p2p_config_t {
    const NAME: &'static str = "p2p_config_t";
    const SIZES: &'static [usize] = &[size_of::<p2p_config_t>()];
}

impl p2p_config_t {
    /// # Safety
    /// Each text is NULL or ends with a zero byte.
    pub(crate) unsafe fn to_core(self) -> Result<CameraConfig, Error> {
        // SAFETY: promised by the caller.
        let (device_id, broker_url, broker_username, broker_password) = unsafe {
            (
                required(self.device_id, "device_id")?,
                required(self.broker_url, "broker_url")?,
                text(self.broker_username, "broker_username")?,
                text(self.broker_password, "broker_password")?,
            )
        };
        // SAFETY: as above.
        let (ca_file, cert_file, key_file, service_key, identity_file) = unsafe {
            (
                text(self.broker_ca_file, "broker_ca_file")?,
                text(self.broker_cert_file, "broker_cert_file")?,
                text(self.broker_key_file, "broker_key_file")?,
                required(self.service_public_key, "service_public_key")?,
                text(self.identity_file, "identity_file")?,
            )
        };
        // MQTT 3.1.1 §3.1.2.9 knows no password without a user name.
        let broker_username =
            broker_username.or_else(|| broker_password.as_ref().map(|_| device_id.clone()));
        Ok(CameraConfig {
            device_id,
            broker_url,
            broker_username,
            broker_password,
            broker_ca_file: ca_file.map(PathBuf::from),
            broker_certificate: certificate_files(cert_file, key_file)?,
            service_public_key: parse_key(&service_key)?,
            identity_file: identity_file.map(PathBuf::from),
            max_viewers: or_default(self.max_viewers, P2P_DEFAULT_MAX_VIEWERS) as usize,
            include_loopback: flag(self.include_loopback, "include_loopback")?,
            relay_only: flag(self.relay_only, "relay_only")?,
            unset_clock: match self.unset_clock {
                P2P_UNSET_CLOCK_REFUSE => UnsetClock::Refuse,
                P2P_UNSET_CLOCK_ACCEPT_UNTIL_KNOWN => UnsetClock::AcceptUntilKnown,
                other => {
                    return Err(Error::argument(format!(
                        "unset_clock is {other}: expected one of P2P_UNSET_CLOCK_…"
                    )));
                }
            },
            max_datagram: or_default(self.max_datagram, P2P_DEFAULT_MAX_DATAGRAM) as usize,
        })
    }
}

fn certificate_files(
    chain: Option<String>,
    key: Option<String>,
) -> Result<Option<CertificateFiles>, Error> {
    let half = |missing: &str| {
        Err(Error::argument(format!(
            "{missing} is NULL: broker_cert_file and broker_key_file belong together; set both, or \
             neither"
        )))
    };
    match (chain, key) {
        (Some(chain), Some(key)) => {
            Ok(Some(CertificateFiles { chain: chain.into(), key: key.into() }))
        }
        (None, None) => Ok(None),
        (Some(_), None) => half("broker_key_file"),
        (None, Some(_)) => half("broker_cert_file"),
    }
}

/// # Safety
/// `from` is NULL or ends with a zero byte.
pub(crate) unsafe fn required(from: *const c_char, name: &str) -> Result<String, Error> {
    // SAFETY: promised by the caller.
    match unsafe { text(from, name)? } {
        Some(text) if !text.is_empty() => Ok(text),
        Some(_) => Err(Error::argument(format!("{name} is empty: it is required"))),
        None => Err(Error::argument(format!("{name} is NULL: it is required"))),
    }
}

/// # Safety
/// `from` is NULL or ends with a zero byte.
pub(crate) unsafe fn text(from: *const c_char, name: &str) -> Result<Option<String>, Error> {
    if from.is_null() {
        return Ok(None);
    }
    // SAFETY: promised by the caller.
    let text = unsafe { CStr::from_ptr(from) };
    match text.to_str() {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => Err(Error::argument(format!("{name} is not UTF-8"))),
    }
}

fn or_default(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

pub(crate) fn flag(value: i32, name: &str) -> Result<bool, Error> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Error::argument(format!("{name} is {other}: expected 0 or 1"))),
    }
}

fn parse_key(text: &str) -> Result<[u8; 32], Error> {
    let text = text.trim();
    let bytes = if text.len() == 64 { from_hex(text) } else { from_base64(text) };
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
        Error::new(
            p2p_status_t::P2P_ERR_CONFIG,
            "service_public_key: expected 32 bytes as 64 hexadecimal digits or as base64",
        )
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    Some(
        digits?.chunks(2).map(|pair| pair.iter().fold(0, |byte, d| byte << 4 | *d as u8)).collect(),
    )
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [alphabet::STANDARD, alphabet::URL_SAFE]
        .iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, config).decode(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_from_hex_and_from_both_kinds_of_base64() {
        let key: [u8; 32] = std::array::from_fn(|i| 0xff - i as u8);
        let hex: String = key.iter().map(|b| format!("{b:02x}")).collect();
        let standard = GeneralPurpose::new(&alphabet::STANDARD, Default::default()).encode(key);
        let url_safe = standard.replace('+', "-").replace('/', "_");
        assert_ne!(standard, url_safe);
        for text in [
            &hex,
            &hex.to_uppercase(),
            &standard,
            &url_safe,
            &format!("{}\n", standard.trim_end_matches('=')),
        ] {
            assert_eq!(parse_key(text).unwrap(), key, "{text}");
        }
        for bad in ["", "ff", &hex[2..], &format!("{hex}00"), &hex.replace('f', "g"), "ü", "AAAA"]
        {
            assert!(parse_key(bad).is_err(), "{bad}");
        }
    }
}
