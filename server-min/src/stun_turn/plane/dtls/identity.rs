//! Our certificate and key as `rtc-dtls` takes them.

use crate::tls::Tls;
use rtc_dtls::crypto::Certificate;
use rtc_dtls::crypto_provider::{RTCCryptoProvider, SignatureScheme};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Certificate and key as they were last imported.
pub(super) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    pub(super) certificate: Certificate,
}

impl Identity {
    pub(super) fn of(tls: &Tls, provider: &dyn RTCCryptoProvider) -> Result<Identity, String> {
        let (chain, key) = tls.chain_and_key();
        let key = pkcs8(&key)?;
        let schemes = [
            SignatureScheme::EcdsaP256Sha256,
            SignatureScheme::RsaPkcs1Sha256,
            SignatureScheme::Ed25519,
        ];
        let import = |scheme| provider.crypto().import_signing_key(scheme, &key).ok();
        let key = schemes
            .into_iter()
            .find_map(import)
            .ok_or("DTLS needs an ECDSA P-256, RSA or Ed25519 key, and tls.key is another")?;
        Ok(Identity { certificate: Certificate::from_signing_key(chain.clone(), key), chain })
    }

    /// Takes what was read anew since the last handshake.
    pub(super) fn renew(&mut self, tls: &Tls, provider: &dyn RTCCryptoProvider) {
        if tls.chain_and_key().0 == self.chain {
            return;
        }
        match Identity::of(tls, provider) {
            Ok(identity) => *self = identity,
            Err(error) => log::error!("TURN over DTLS goes on with the old certificate: {error}"),
        }
    }
}

/// The key in PKCS#8, whichever of the usual forms its file has.
fn pkcs8(key: &PrivateKeyDer<'_>) -> Result<Vec<u8>, String> {
    /// id-ecPublicKey, prime256v1 (RFC 5480 §2.1.1).
    const EC_P256: &[u8] = &[
        0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x08, 0x2A, 0x86,
        0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07,
    ];
    /// rsaEncryption, NULL (RFC 8017 §A.1).
    const RSA: &[u8] =
        &[0x30, 0x0D, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01, 0x05, 0x00];
    let (algorithm, inner) = match key {
        PrivateKeyDer::Pkcs8(key) => return Ok(key.secret_pkcs8_der().to_vec()),
        PrivateKeyDer::Sec1(key) => (EC_P256, key.secret_sec1_der()),
        PrivateKeyDer::Pkcs1(key) => (RSA, key.secret_pkcs1_der()),
        _ => return Err("tls.key is in a form that DTLS cannot use; expected PKCS#8".into()),
    };
    let version = [0x02, 0x01, 0x00];
    let content = [&version[..], algorithm, &der(0x04, inner)].concat();
    Ok(der(0x30, &content))
}

/// One DER value.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len().to_be_bytes();
    let first = len.iter().position(|byte| *byte != 0).unwrap_or(len.len() - 1);
    let len = &len[first..];
    let mut out = vec![tag];
    if len.len() > 1 || len[0] >= 0x80 {
        out.push(0x80 | len.len() as u8);
    }
    out.extend_from_slice(len);
    out.extend_from_slice(content);
    out
}
