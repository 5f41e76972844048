//! `[store]`: where session records live.

use crate::config::Secret;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

const DEFAULT_PORT: u16 = 6379;
const EXPECTED: &str =
    "expected redis://[user:password@]host[:port][/database], or rediss://… for TLS";

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Keeps sessions in this Redis (6.2 or later), where other nodes serve them too; in memory unless
    /// set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisUrl>,
    /// Goes before every key and channel, for a Redis that others use as well.
    pub prefix: String,
    /// PEM file with the authorities to check a `rediss://` server against; those of the system unless
    /// set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// Where Redis is, and how to sign in there. Shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    pub tls: bool,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    pub database: i64,
}

impl StoreConfig {
    /// What would not work, in words for the person who wrote it.
    pub fn check(&self) -> Result<(), String> {
        let visible = self.prefix.bytes().all(|c| c.is_ascii_graphic());
        if !visible || self.prefix.len() > 64 {
            return Err("prefix: expected up to 64 visible ASCII characters, as \"p2pcam:\"".into());
        }
        if self.ca.is_some() && !self.redis.as_ref().is_some_and(|url| url.tls) {
            return Err(
                "ca is for redis = \"rediss://…\": without TLS there is nothing to check".into()
            );
        }
        Ok(())
    }
}

impl FromStr for RedisUrl {
    type Err = String;

    /// The error never repeats the text, which may hold a password.
    fn from_str(text: &str) -> Result<RedisUrl, String> {
        let wrong = |what: &str| format!("{EXPECTED}; {what}");
        let (tls, rest) = match text.split_once("://") {
            Some(("redis", rest)) => (false, rest),
            Some(("rediss", rest)) => (true, rest),
            _ => return Err(wrong("it begins with another scheme")),
        };
        // A password may hold an @ or a / that nobody has encoded: the host begins after the last @.
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (Some(credentials), rest),
            None => (None, rest),
        };
        let (address, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = match database {
            "" => 0,
            digits => digits
                .parse()
                .ok()
                .filter(|n| *n >= 0)
                .ok_or_else(|| wrong("what follows the / is no number of a database"))?,
        };
        let (host, port) = split_port(address).ok_or_else(|| wrong("host or port are not good"))?;
        let (mut username, mut password) = (None, None);
        if let Some(credentials) = credentials {
            let (user, pass) = credentials
                .split_once(':')
                .ok_or_else(|| wrong("before the @ belongs user:password, or :password alone"))?;
            let decoded =
                |part| percent_decoded(part).ok_or_else(|| wrong("a %XX in it is not good"));
            username = Some(decoded(user)?).filter(|user| !user.is_empty());
            password = Some(Secret::new(decoded(pass)?));
        }
        Ok(RedisUrl { tls, username, password, host, port, database })
    }
}

/// `host`, `host:port`, `[::1]:port`.
fn split_port(address: &str) -> Option<(String, u16)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, rest.strip_prefix(':').or(rest.is_empty().then_some(""))?)
        }
        None => address.split_once(':').unwrap_or((address, "")),
    };
    let port = if port.is_empty() { DEFAULT_PORT } else { port.parse().ok()? };
    let good = |c: u8| c.is_ascii_alphanumeric() || b"-_.:".contains(&c);
    (!host.is_empty() && host.bytes().all(good)).then(|| (host.to_owned(), port))
}

/// RFC 3986 §2.1.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |c: u8| char::from(c).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss://" } else { "redis://" })?;
        if self.password.is_some() {
            write!(f, "{}:(hidden)@", self.username.as_deref().unwrap_or_default())?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        write!(f, ":{}/{}", self.port, self.database)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for RedisUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RedisUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<RedisUrl, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> RedisUrl {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_read_and_shown_without_their_password() {
        for (text, shown) in [
            ("redis://cache", "redis://cache:6379/0"),
            ("redis://10.0.0.1:7000/3", "redis://10.0.0.1:7000/3"),
            ("rediss://:hunter2@cache", "rediss://:(hidden)@cache:6379/0"),
            ("redis://me:hunter2@[::1]:1/", "redis://me:(hidden)@[::1]:1/0"),
            ("redis://me:hun@ter/2@[::1]", "redis://me:(hidden)@[::1]:6379/0"),
        ] {
            assert_eq!(url(text).to_string(), shown);
            assert_eq!(format!("{:?}", url(text)), shown);
        }
        let url = url("redis://m%65:a%2Fb%25@cache");
        assert_eq!(url.username.as_deref(), Some("me"));
        assert_eq!(url.password.unwrap().expose(), "a/b%");
    }

    #[test]
    fn what_is_wrong_is_said_and_the_password_is_not() {
        for text in [
            "cache:6379",
            "http://:hunter2@cache",
            "redis://",
            "redis://:hunter2@",
            "redis://hunter2@cache",
            "redis://:hunter2@cache:port",
            "redis://:hunter2@cache:70000",
            "redis://:hunter2@cache/one",
            "redis://:hunter2@cache/0?x=1",
            "redis://:hunter2@[cache]",
            "redis://:hunter2%4@cache",
            "redis://a b",
        ] {
            let error = text.parse::<RedisUrl>().unwrap_err();
            assert!(
                error.starts_with("expected redis://") && !error.contains("hunter2"),
                "{error}"
            );
        }
        let with = |redis: &str, prefix: &str, ca: Option<&str>| StoreConfig {
            redis: Some(url(redis)),
            prefix: prefix.into(),
            ca: ca.map(Into::into),
        };
        assert_eq!(with("rediss://cache", "p2p:", Some("ca.pem")).check(), Ok(()));
        assert!(with("redis://cache", "", Some("ca.pem")).check().unwrap_err().starts_with("ca"));
        assert!(with("redis://cache", "a b", None).check().unwrap_err().starts_with("prefix"));
    }
}
