//! Credentials that are derived and never stored: TURN's time-limited ones, an application's for
//! the broker, and a device's password. Each can be checked by whoever holds the secret.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use std::fmt::Write as _;

/// A user name and what proves it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

/// Time-limited TURN credentials: `username = "{expiry}:{session}"`, `password =
/// base64(HMAC-SHA1(secret, username))`, the form coturn knows as `use-auth-secret`. `session` is its id,
/// or what [`with_bandwidth`] makes of it.
pub fn turn(secret: &[u8], session: &str, expiry_s: u64) -> Credentials {
    let username = format!("{expiry_s}:{session}");
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let password = STANDARD.encode(hmac::sign(&key, username.as_bytes()));
    Credentials { username, password }
}

/// A session in TURN credentials: `{id}`, or `{id}:{kbit/s}` where its record gives it a bandwidth of its
/// own. So each relay knows it without asking, and no client can change it.
pub fn with_bandwidth(session_id: &str, bandwidth_bps: Option<u64>) -> String {
    match bandwidth_bps {
        Some(bps) => format!("{session_id}:{}", bps.div_ceil(1000)),
        None => session_id.to_owned(),
    }
}

/// An application's credentials for the broker: `username = "{expiry}:{app}"`, `password =
/// base64url(HMAC-SHA256(secret, username))`. The broker keeps nothing about them.
pub fn mqtt_app(secret: &str, app_id: &str, expiry_s: u64) -> Credentials {
    let username = format!("{expiry_s}:{app_id}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let password = URL_SAFE_NO_PAD.encode(hmac::sign(&key, username.as_bytes()));
    Credentials { username, password }
}

/// Why an application's credentials were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppRefusal {
    /// Not `{expiry}:{app}`, or the password was not made with this secret.
    Wrong,
    /// Right, but its time has passed: a new session brings new ones.
    Expired,
}

/// Checks credentials made by [`mqtt_app`]; the application's id. In constant time.
pub fn check_mqtt_app<'a>(
    secret: &str,
    username: &'a str,
    password: &[u8],
    now_s: u64,
) -> Result<&'a str, AppRefusal> {
    let (expiry, app_id) = username.split_once(':').ok_or(AppRefusal::Wrong)?;
    let expiry_s: u64 = expiry.parse().map_err(|_| AppRefusal::Wrong)?;
    let given = URL_SAFE_NO_PAD.decode(password).map_err(|_| AppRefusal::Wrong)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::verify(&key, username.as_bytes(), &given).map_err(|_| AppRefusal::Wrong)?;
    if now_s >= expiry_s { Err(AppRefusal::Expired) } else { Ok(app_id) }
}

/// The broker password of the device `sn`: lower-case hex of HMAC-SHA256(secret, sn).
pub fn device_password(secret: &str, sn: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hex(hmac::sign(&key, sn.as_bytes()).as_ref())
}

/// Whether two secrets are the same, in a time that tells nothing about where they differ: what
/// is compared are their MACs under a key of this call's own.
pub fn same_secret(expected: &[u8], given: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"compare");
    let tag = hmac::sign(&key, given);
    hmac::verify(&key, expected, tag.as_ref()).is_ok()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SID: &str = "550e8400-e29b-41d4-a716-446655440000";

    #[test]
    fn turn_credentials_follow_the_formula() {
        // Made with: printf '%s' "1750933436:$SID" | openssl dgst -sha1 -hmac north -binary | base64
        let made = turn(b"north", SID, 1_750_933_436);
        assert_eq!(made.username, format!("1750933436:{SID}"));
        assert_eq!(made.password, "jrwXWktd/uF/kuk0q+pkSgmksFA=");
    }

    #[test]
    fn a_sessions_bandwidth_is_part_of_its_name() {
        assert_eq!(with_bandwidth(SID, None), SID);
        assert_eq!(with_bandwidth(SID, Some(4_000_001)), format!("{SID}:4001"));
    }

    #[test]
    fn a_device_password_is_an_hmac_in_hex() {
        // RFC 4231 §4.3 (test case 2): key "Jefe", data "what do ya want for nothing?".
        assert_eq!(
            device_password("Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn an_applications_credentials_hold_until_they_expire() {
        let made = mqtt_app("north", "app_1", 1000);
        let check = |secret, user: &str, password: &str, now_s| {
            check_mqtt_app(secret, user, password.as_bytes(), now_s).map(str::to_owned)
        };
        assert_eq!(check("north", &made.username, &made.password, 999), Ok("app_1".to_owned()));
        assert_eq!(check("north", &made.username, &made.password, 1000), Err(AppRefusal::Expired));
        assert_eq!(check("south", &made.username, &made.password, 1), Err(AppRefusal::Wrong));
        assert_eq!(check("north", "2000:app_1", &made.password, 1), Err(AppRefusal::Wrong));
        assert_eq!(check("north", "1000:app_2", &made.password, 1), Err(AppRefusal::Wrong));
        for user in ["", "app_1", ":app_1", "-1:app_1", "99999999999999999999:app_1"] {
            assert_eq!(check("north", user, &made.password, 1), Err(AppRefusal::Wrong), "{user}");
        }
    }

    #[test]
    fn secrets_are_compared_whole() {
        assert!(same_secret(b"abc", b"abc"));
        for other in ["", "ab", "abcd", "abd"] {
            assert!(!same_secret(b"abc", other.as_bytes()));
        }
    }
}
