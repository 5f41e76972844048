//! Session tokens: a compact JWS (RFC 7515) signed with Ed25519 (`EdDSA`, RFC 8037) by the session
//! service. The camera holds the service's public key and nothing else; the token both admits a
//! viewer and tells the camera which relays to use.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The session's id (a UUID).
    pub sid: String,
    /// The device that may be watched.
    pub dev: String,
    /// The application that may watch.
    pub app: String,
    /// Unix seconds after which the token opens nothing.
    pub exp: u64,
    /// STUN and TURN servers for the device's side, with its own credentials.
    #[serde(default, rename = "iceServers")]
    pub ice_servers: Vec<IceServer>,
}

/// As in WebRTC's `RTCIceServer`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceServer {
    pub urls: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

impl fmt::Debug for IceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceServer")
            .field("urls", &self.urls)
            .field("username", &self.username)
            .field("credential", &self.credential.as_ref().map(|_| "(hidden)"))
            .finish()
    }
}

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// Not a compact JWS with `alg` `EdDSA`, or its claims cannot be read.
    Malformed,
    /// Not signed by the key the verifier holds.
    Forged,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TokenError::Malformed => {
                "the token is not a signed token of the session service; create a new session"
            }
            TokenError::Forged => {
                "the token was not signed by the session service this device trusts; \
                 check the service's public key in the device's configuration"
            }
        })
    }
}

impl std::error::Error for TokenError {}

const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT"}"#;
/// A token with two servers and credentials is some 600 characters.
const MAX_TOKEN_LEN: usize = 8 * 1024;

/// Signs `claims`.
pub fn sign(claims: &impl Serialize, key: &Ed25519KeyPair) -> String {
    let claims = serde_json::to_vec(claims).unwrap_or_default();
    let mut token = URL_SAFE_NO_PAD.encode(HEADER);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut token);
    let signature = key.sign(token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    token
}

/// Checks the signature against the service's raw 32-byte public key, and reads the claims.
///
/// Whether the token has expired, and whether it is for this device and session, is the caller's
/// to check: only it knows the time and who it is.
pub fn verify(token: &str, public_key: &[u8; 32]) -> Result<Claims, TokenError> {
    let jws = Jws::parse(token)?;
    if !jws.is_signed_by(public_key) {
        return Err(TokenError::Forged);
    }
    jws.claims().map_err(|_| TokenError::Malformed)
}

/// A compact JWS taken apart. Nothing it says is to be believed before [`Jws::is_signed_by`].
pub struct Jws<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    claims: Vec<u8>,
}

impl<'a> Jws<'a> {
    /// Takes `token` apart. The algorithm is not the sender's to choose: all but `EdDSA` is
    /// malformed, and so is an extension the signer calls critical (RFC 7515 §4.1.11), since we
    /// know none.
    pub fn parse(token: &'a str) -> Result<Jws<'a>, TokenError> {
        #[derive(Deserialize)]
        struct Header {
            alg: String,
            #[serde(default)]
            crit: Option<IgnoredAny>,
        }
        if token.len() > MAX_TOKEN_LEN {
            return Err(TokenError::Malformed);
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let header: Header =
            serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Malformed)?;
        if header.alg != "EdDSA" || header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        Ok(Jws { signed, signature: decode(signature)?, claims: decode(claims)? })
    }

    pub fn is_signed_by(&self, public_key: &[u8; 32]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, public_key);
        key.verify(self.signed.as_bytes(), &self.signature).is_ok()
    }

    /// What it says. The error names the claim that is missing or of another type.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::KeyPair as _;

    fn key(seed: u8) -> (Ed25519KeyPair, [u8; 32]) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        (pair, public)
    }

    fn claims() -> Claims {
        Claims {
            sid: "550e8400-e29b-41d4-a716-446655440000".into(),
            dev: "device_1".into(),
            app: "app_1".into(),
            exp: 2_000_000_000,
            ice_servers: vec![IceServer {
                urls: vec!["turn:192.0.2.1:3478?transport=udp".into()],
                username: Some("2000000000:x".into()),
                credential: Some("secret".into()),
            }],
        }
    }

    #[test]
    fn a_signed_token_is_read_back_by_the_right_key_only() {
        let (pair, public) = key(1);
        let token = sign(&claims(), &pair);
        assert_eq!(verify(&token, &public), Ok(claims()));
        assert_eq!(verify(&token, &key(2).1), Err(TokenError::Forged));
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let (pair, public) = key(1);
        let token = sign(&claims(), &pair);
        for i in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[i] = if bytes[i] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            if changed != token {
                assert!(verify(&changed, &public).is_err(), "position {i}");
            }
        }
    }

    #[test]
    fn the_algorithm_is_not_the_senders_to_choose() {
        let (_, public) = key(1);
        let none = format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
            URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims()).unwrap())
        );
        assert_eq!(verify(&none, &public), Err(TokenError::Malformed));
        for junk in ["", ".", "..", "a.b.c", &"x".repeat(9000)] {
            assert!(verify(junk, &public).is_err());
        }
    }

    #[test]
    fn an_extension_that_must_be_understood_is_not_ignored() {
        let (pair, public) = key(1);
        let signed = |header: &str| {
            let claims = serde_json::to_vec(&claims()).unwrap();
            let signed =
                format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
            let signature = URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes()));
            format!("{signed}.{signature}")
        };
        assert!(verify(&signed(r#"{"alg":"EdDSA","kid":"1"}"#), &public).is_ok());
        let critical = signed(r#"{"alg":"EdDSA","crit":["exp"]}"#);
        assert_eq!(verify(&critical, &public), Err(TokenError::Malformed));
    }

    #[test]
    fn credentials_do_not_show_in_debug_output() {
        assert!(!format!("{:?}", claims()).contains("secret"));
    }
}
