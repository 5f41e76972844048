//! Passwords as the credentials file keeps them: salted and slow to guess (PBKDF2-HMAC-SHA256,
//! RFC 8018), in the form that password libraries share:
//! `$pbkdf2-sha256$i=100000$salt$hash`, salt and hash in base64 without padding.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::pbkdf2;
use std::num::NonZeroU32;

/// Some 30 ms of one core for each guess.
const ROUNDS: u32 = 100_000;
/// What a file may ask for: one check is not to take the thread that makes them for long.
const MOST_ROUNDS: u32 = 2_000_000;
const SALT_LEN: usize = 16;
const HASH_LEN: usize = 32;
const NAME: &str = "$pbkdf2-sha256$";

#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    rounds: NonZeroU32,
    salt: Vec<u8>,
    hash: [u8; HASH_LEN],
}

impl PasswordHash {
    pub fn new(password: &[u8], salt: [u8; SALT_LEN]) -> PasswordHash {
        let rounds = NonZeroU32::new(ROUNDS).unwrap_or(NonZeroU32::MIN);
        let mut hash = [0; HASH_LEN];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password, &mut hash);
        PasswordHash { rounds, salt: salt.into(), hash }
    }

    /// The error says what was expected, and nothing of the hash.
    pub fn parse(text: &str) -> Result<PasswordHash, String> {
        let expected =
            || format!("expected {NAME}i=…$salt$hash, as server-min hash-password prints");
        let rest = text.strip_prefix(NAME).ok_or_else(expected)?;
        let mut parts = rest.split('$');
        let (Some(rounds), Some(salt), Some(hash), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(expected());
        };
        let rounds = rounds.strip_prefix("i=").and_then(|n| n.parse::<u32>().ok());
        let rounds = rounds.filter(|n| *n <= MOST_ROUNDS).and_then(NonZeroU32::new);
        let rounds =
            rounds.ok_or_else(|| format!("expected i=1 to i={MOST_ROUNDS} in the hash"))?;
        let salt = STANDARD_NO_PAD.decode(salt).map_err(|_| expected())?;
        let hash = STANDARD_NO_PAD.decode(hash).ok().and_then(|hash| hash.try_into().ok());
        let hash = hash.ok_or_else(|| format!("expected a hash of {HASH_LEN} bytes in base64"))?;
        Ok(PasswordHash { rounds, salt, hash })
    }

    /// Takes its time, on purpose; not for a thread that others wait for.
    pub fn matches(&self, password: &[u8]) -> bool {
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::verify(algorithm, self.rounds, &self.salt, password, &self.hash).is_ok()
    }
}

impl std::fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [salt, hash] = [&self.salt[..], &self.hash].map(|b| STANDARD_NO_PAD.encode(b));
        write!(f, "{NAME}i={}${salt}${hash}", self.rounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_other_libraries() {
        // Made with Python: hashlib.pbkdf2_hmac("sha256", b"north", b"0123456789abcdef", 1000)
        let text = "$pbkdf2-sha256$i=1000$MDEyMzQ1Njc4OWFiY2RlZg$raqTeJSO55miHkKDFVsJ6UsGdazOV76yFUX5PzpHPNA";
        let hash = PasswordHash::parse(text).unwrap();
        assert!(hash.matches(b"north") && !hash.matches(b"south"));
        assert_eq!(hash.to_string(), text);
    }

    #[test]
    fn what_is_made_can_be_read_and_nothing_else() {
        let made = PasswordHash::new(b"secret", [7; SALT_LEN]);
        let read = PasswordHash::parse(&made.to_string()).unwrap();
        assert!(read == made && read.matches(b"secret") && !read.matches(b""));
        assert_ne!(made.to_string(), PasswordHash::new(b"secret", [8; SALT_LEN]).to_string());
        let good = made.to_string();
        for bad in [
            "",
            "secret",
            &good[1..],
            &good[..good.len() - 1],
            &format!("{good}$"),
            &good.replace("i=100000", "i=0"),
            &good.replace("i=100000", "i=4000000000"),
            &good.replace("i=", "r="),
        ] {
            assert!(PasswordHash::parse(bad).is_err(), "{bad}");
        }
    }
}
