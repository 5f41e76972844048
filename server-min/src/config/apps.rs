//! Applications that sign their own tokens: whose key is believed, and for which appIds.

use crate::session::credentials::hex;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sdk_core::wire::signal::is_valid_id;
use serde::{Deserialize, Serialize};

/// One entry of `[[apps]]`: a vendor's back end, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct AppConfig {
    /// Its tokens' `iss`.
    pub id: String,
    /// Raw Ed25519 public key: what it signs is believed.
    pub public_key: [u8; 32],
    /// It may act for appIds that begin so; empty is all of them.
    pub app_id_prefix: String,
}

/// As it stands in the file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    public_key: String,
    /// `{id}_` where it is left out, so that nobody speaks for another's viewers by mistake.
    app_id_prefix: Option<String>,
}

impl TryFrom<Written> for AppConfig {
    type Error = String;

    fn try_from(written: Written) -> Result<AppConfig, String> {
        let Written { id, public_key, app_id_prefix } = written;
        if !is_valid_id(&id) {
            return Err(format!(
                "the id of an application is {id:?}; expected 1 to 64 letters, digits, - _ . or :"
            ));
        }
        let public_key = read_key(&public_key).ok_or_else(|| {
            format!(
                "the public_key of {id:?} is no Ed25519 key; expected 32 bytes as hex or base64, \
                 or what `openssl pkey -pubout` prints, without its first and last line"
            )
        })?;
        let app_id_prefix = app_id_prefix.unwrap_or_else(|| format!("{id}_"));
        // One character must be left for the appId itself.
        let can_begin_an_id = app_id_prefix.is_empty() || is_valid_id(&format!("{app_id_prefix}x"));
        if !can_begin_an_id {
            return Err(format!(
                "the app_id_prefix of {id:?} is {app_id_prefix:?}; expected at most 63 letters, \
                 digits, - _ . or :"
            ));
        }
        Ok(AppConfig { id, public_key, app_id_prefix })
    }
}

impl From<AppConfig> for Written {
    fn from(app: AppConfig) -> Written {
        let AppConfig { id, public_key, app_id_prefix } = app;
        Written { id, public_key: hex(&public_key), app_id_prefix: Some(app_id_prefix) }
    }
}

/// What must hold between entries: an appId belongs to one application. The same `id` may stand
/// there twice, with its old key and its new one.
pub(super) fn check(apps: &[AppConfig]) -> Result<(), String> {
    for (i, one) in apps.iter().enumerate() {
        for other in apps.iter().skip(i + 1) {
            let (a, b) = (&one.app_id_prefix, &other.app_id_prefix);
            if one.id == other.id && a != b {
                return Err(format!("{:?} has two prefixes, {a:?} and {b:?}; give one", one.id));
            }
            if one.id != other.id && (a.starts_with(b.as_str()) || b.starts_with(a.as_str())) {
                return Err(format!(
                    "{:?} and {:?} could act for the same appIds ({a:?} and {b:?}); give each an \
                     app_id_prefix that does not begin with the other's",
                    one.id, other.id
                ));
            }
        }
    }
    Ok(())
}

/// What stands before the key in a SubjectPublicKeyInfo (RFC 8410 §4): the OID 1.3.101.112.
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

fn read_key(text: &str) -> Option<[u8; 32]> {
    let bytes = from_hex(text).or_else(|| from_base64(text))?;
    let key = <[u8; 32]>::try_from(bytes.strip_prefix(&SPKI).unwrap_or(&bytes)).ok()?;
    // A placeholder of zeros is a point of small order, which anybody can sign for.
    (key != [0; 32]).then_some(key)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| digit.try_into().ok())).collect();
    let digits = digits.filter(|digits| digits.len() == 64)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// In either alphabet, with or without its padding.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [&alphabet::STANDARD, &alphabet::URL_SAFE]
        .into_iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, config).decode(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8410 §10.1.
    const PEM_BODY: &str = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
    const HEX: &str = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";

    fn app(id: &str, prefix: Option<&str>) -> AppConfig {
        let written = Written {
            id: id.into(),
            public_key: HEX.into(),
            app_id_prefix: prefix.map(str::to_owned),
        };
        written.try_into().unwrap()
    }

    #[test]
    fn a_key_is_read_in_every_form_it_is_printed_in() {
        let key = read_key(HEX).unwrap();
        assert_eq!(key[..4], [0x19, 0xbf, 0x44, 0x09]);
        let base64 = "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE";
        let same = [PEM_BODY, base64, &format!("{base64}="), &HEX.to_uppercase()];
        for text in same {
            assert_eq!(read_key(text), Some(key), "{text}");
        }
        let zeros = "0".repeat(64);
        for text in ["", "19bf", &HEX[1..], "not a key", &base64[1..], &zeros] {
            assert_eq!(read_key(text), None, "{text}");
        }
    }

    #[test]
    fn an_app_id_belongs_to_one_application() {
        assert_eq!(app("vendor1", None).app_id_prefix, "vendor1_");
        let ok = [app("a", None), app("a", None), app("b", None), app("c", Some("x-"))];
        assert_eq!(check(&ok), Ok(()));
        for pair in [
            [app("a", Some("x")), app("b", Some("xy"))],
            [app("a", Some("")), app("b", None)],
            [app("a", Some("x")), app("b", Some("x"))],
            [app("a", Some("x")), app("a", Some("y"))],
        ] {
            assert!(check(&pair).is_err(), "{pair:?}");
        }
    }
}
