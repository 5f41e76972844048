//! Certificate fingerprints (RFC 8122): how signaling vouches for the DTLS handshake.

use super::SdpError;
use ring::digest;
use std::fmt;

/// The longest digest: SHA-512.
const MAX_DIGEST_LEN: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashFunction {
    Sha256,
    Sha384,
    Sha512,
}

impl HashFunction {
    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            HashFunction::Sha256 => &digest::SHA256,
            HashFunction::Sha384 => &digest::SHA384,
            HashFunction::Sha512 => &digest::SHA512,
        }
    }

    fn name(self) -> &'static str {
        match self {
            HashFunction::Sha256 => "sha-256",
            HashFunction::Sha384 => "sha-384",
            HashFunction::Sha512 => "sha-512",
        }
    }
}

/// The digest of a DER certificate. `Display` writes the value of `a=fingerprint`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    function: HashFunction,
    bytes: [u8; MAX_DIGEST_LEN],
}

impl Fingerprint {
    /// The SHA-256 fingerprint of a certificate.
    pub fn of(certificate_der: &[u8]) -> Fingerprint {
        Fingerprint::compute(HashFunction::Sha256, certificate_der)
    }

    /// Whether this is the fingerprint of that certificate.
    pub fn matches(&self, certificate_der: &[u8]) -> bool {
        *self == Fingerprint::compute(self.function, certificate_der)
    }

    pub fn function(&self) -> HashFunction {
        self.function
    }

    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.function.algorithm().output_len()).unwrap_or(&self.bytes)
    }

    /// Reads `sha-256 AA:BB:…`. `None` for a function that is unknown or too weak to be trusted
    /// (RFC 8122 §5): such lines are passed over, since an offer may carry several.
    pub fn parse(value: &str) -> Result<Option<Fingerprint>, SdpError> {
        let (name, hex) = value.trim().split_once(' ').ok_or_else(|| bad("no digest"))?;
        let function = [HashFunction::Sha256, HashFunction::Sha384, HashFunction::Sha512]
            .into_iter()
            .find(|f| name.eq_ignore_ascii_case(f.name()));
        let Some(function) = function else { return Ok(None) };
        let mut bytes = [0; MAX_DIGEST_LEN];
        let mut parts = hex.trim().split(':');
        for slot in bytes.iter_mut().take(function.algorithm().output_len()) {
            let part = parts.next().ok_or_else(|| bad("the digest is too short"))?;
            let is_hex = part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit());
            *slot = u8::from_str_radix(part, 16)
                .ok()
                .filter(|_| is_hex)
                .ok_or_else(|| bad("not pairs of hexadecimal digits"))?;
        }
        if parts.next().is_some() {
            return Err(bad("the digest is too long"));
        }
        Ok(Some(Fingerprint { function, bytes }))
    }

    fn compute(function: HashFunction, certificate_der: &[u8]) -> Fingerprint {
        let mut bytes = [0; MAX_DIGEST_LEN];
        let digest = digest::digest(function.algorithm(), certificate_der);
        for (slot, byte) in bytes.iter_mut().zip(digest.as_ref()) {
            *slot = *byte;
        }
        Fingerprint { function, bytes }
    }
}

fn bad(why: &str) -> SdpError {
    SdpError::malformed(format!("a=fingerprint: {why}; expected `sha-256 AA:BB:…` (RFC 8122)"))
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.function.name())?;
        for (i, byte) in self.bytes().iter().enumerate() {
            write!(f, "{}{byte:02X}", if i == 0 { ' ' } else { ':' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of "abc" (FIPS 180-2, appendix B.1).
    const ABC: &str = "sha-256 BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD";

    #[test]
    fn a_fingerprint_is_the_digest_of_the_certificate() {
        let own = Fingerprint::of(b"abc");
        assert_eq!(own.to_string(), ABC);
        assert_eq!(Fingerprint::parse(ABC).unwrap(), Some(own));
        let lower = Fingerprint::parse(&ABC.to_lowercase()).unwrap().unwrap();
        assert!(lower.matches(b"abc"));
        assert!(!lower.matches(b"abd"));
    }

    #[test]
    fn weak_functions_are_passed_over_and_broken_digests_refused() {
        assert_eq!(Fingerprint::parse("sha-1 00:11"), Ok(None));
        for bad in ["", "sha-256", "sha-256 AA", "sha-256 +A:AA", &format!("{ABC}:00")] {
            assert!(Fingerprint::parse(bad).is_err(), "{bad}");
        }
    }
}
