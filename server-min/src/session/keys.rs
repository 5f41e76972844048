//! The session service's signing key (Ed25519). Cameras hold its public half and nothing else.

use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sdk_core::wire::token::{self, Claims};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Signs session tokens.
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// A key that lives as long as the process: for tests and demos.
    pub fn in_memory() -> io::Result<SigningKey> {
        SigningKey::from_seed(&random::<32>()?)
    }

    pub fn from_seed(seed: &[u8; 32]) -> io::Result<SigningKey> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|_| io::Error::other("ring refused an Ed25519 seed"))?;
        Ok(SigningKey { pair })
    }

    /// Reads the key at `path`: PKCS#8 (DER or PEM, as `openssl genpkey -algorithm ed25519` writes
    /// it) or a raw 32-byte seed. Where there is no file, one is made that only its owner can read.
    pub fn load_or_create(path: &Path) -> io::Result<SigningKey> {
        let wrong = |text: String| {
            let name = path.display();
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("session.signing_key_file {name}: {text}"),
            )
        };
        let mut bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let seed = random::<32>()?;
                let mut file = fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)
                    .map_err(|e| wrong(format!("cannot be made: {e}")))?;
                file.write_all(&seed).and_then(|()| file.sync_all())?;
                return SigningKey::from_seed(&seed);
            }
            Err(e) => return Err(wrong(format!("cannot be read: {e}"))),
        };
        let mode = fs::metadata(path)?.permissions().mode();
        if mode & 0o077 != 0 {
            log::warn!("{} can be read by others than its owner: chmod 600 it", path.display());
        }
        if let Some(der) = pem_body(&bytes) {
            bytes = der;
        }
        if let Ok(seed) = <[u8; 32]>::try_from(bytes.as_slice()) {
            return SigningKey::from_seed(&seed);
        }
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&bytes).map_err(|_| {
            wrong(format!(
                "expected an Ed25519 key as PKCS#8 or a raw seed of 32 bytes, found {} bytes that \
                 are neither; move it away and a new key is made",
                bytes.len()
            ))
        })?;
        Ok(SigningKey { pair })
    }

    /// The raw public key that devices are configured with.
    pub fn public(&self) -> [u8; 32] {
        self.pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
    }

    pub fn sign(&self, claims: &Claims) -> String {
        token::sign(claims, &self.pair)
    }
}

/// Bytes of the system's random source.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the system's random source failed"))?;
    Ok(bytes)
}

/// What stands between a PEM file's first BEGIN and END line (RFC 7468), if it is one.
fn pem_body(bytes: &[u8]) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let text = std::str::from_utf8(bytes).ok()?;
    let body = text.split_once("-----BEGIN PRIVATE KEY-----")?.1;
    let body: String = body.split_once("-----END")?.0.split_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_key_file_is_made_private_and_read_back() {
        let folder = std::env::temp_dir().join(format!("p2pcam-key-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("signing.key");
        let made = SigningKey::load_or_create(&path).unwrap().public();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(SigningKey::load_or_create(&path).unwrap().public(), made);
        fs::write(&path, b"no key").unwrap();
        let err = SigningKey::load_or_create(&path).err().unwrap().to_string();
        assert!(err.contains("session.signing_key_file") && err.contains("PKCS#8"), "{err}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn pkcs8_is_read_as_der_and_as_pem() {
        // RFC 8410 §10.3, with the public key that its §10.1 gives.
        let pem = "-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                   -----END PRIVATE KEY-----\n";
        let path = std::env::temp_dir().join(format!("p2pcam-pem-{}", std::process::id()));
        fs::write(&path, pem).unwrap();
        let from_pem = SigningKey::load_or_create(&path).unwrap().public();
        fs::write(&path, pem_body(pem.as_bytes()).unwrap()).unwrap();
        let from_der = SigningKey::load_or_create(&path).unwrap().public();
        fs::remove_file(&path).unwrap();
        assert_eq!(from_pem, from_der);
        assert_eq!(from_pem[..4], [0x19, 0xbf, 0x44, 0x09]);
    }
}
