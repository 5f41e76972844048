//! TURN URIs (RFC 7065), with everything said that they may leave out.

use crate::http::split_authority;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Where a node is reached, and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct TurnUrl {
    /// A name or an address; IPv6 in brackets.
    pub host: String,
    pub port: u16,
    pub transport: Transport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
    Dtls,
}

impl TurnUrl {
    /// `host:port`
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl FromStr for TurnUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<TurnUrl, String> {
        let expected = || {
            format!(
                "expected turn:HOST:PORT?transport=udp (or tcp) or turns:HOST:PORT?transport=tcp, \
                 got {text:?}"
            )
        };
        let (scheme, rest) = text.split_once(':').ok_or_else(expected)?;
        let (authority, transport) = match rest.split_once('?') {
            None => (rest, None),
            Some((authority, query)) => {
                (authority, Some(query.strip_prefix("transport=").ok_or_else(expected)?))
            }
        };
        // RFC 7065 leaves it to the client where nothing is said; they begin with these.
        let transport = match (scheme, transport) {
            ("turn", None | Some("udp")) => Transport::Udp,
            ("turn", Some("tcp")) => Transport::Tcp,
            ("turns", None | Some("tcp")) => Transport::Tls,
            ("turns", Some("udp")) => Transport::Dtls,
            _ => return Err(expected()),
        };
        let (host, port) = split_authority(authority).ok_or_else(expected)?;
        let port = port.unwrap_or(match transport {
            Transport::Udp | Transport::Tcp => 3478,
            Transport::Tls | Transport::Dtls => 5349,
        });
        if port == 0 {
            return Err(expected());
        }
        // Names that differ in their case alone are one, also where nodes are told apart by them.
        Ok(TurnUrl { host: host.to_ascii_lowercase(), port, transport })
    }
}

/// With its port and transport, which not every client fills in alike.
impl fmt::Display for TurnUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, transport) = match self.transport {
            Transport::Udp => ("turn", "udp"),
            Transport::Tcp => ("turn", "tcp"),
            Transport::Tls => ("turns", "tcp"),
            Transport::Dtls => ("turns", "udp"),
        };
        write!(f, "{scheme}:{}:{}?transport={transport}", self.host, self.port)
    }
}

impl TryFrom<String> for TurnUrl {
    type Error = String;

    fn try_from(text: String) -> Result<TurnUrl, String> {
        text.parse()
    }
}

impl From<TurnUrl> for String {
    fn from(url: TurnUrl) -> String {
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_filled_in() {
        for (text, whole) in [
            ("turn:a.example", "turn:a.example:3478?transport=udp"),
            ("turn:A.Example", "turn:a.example:3478?transport=udp"),
            ("turn:a.example?transport=tcp", "turn:a.example:3478?transport=tcp"),
            ("turns:a.example", "turns:a.example:5349?transport=tcp"),
            ("turns:192.0.2.1:443?transport=tcp", "turns:192.0.2.1:443?transport=tcp"),
            ("turns:a.example?transport=udp", "turns:a.example:5349?transport=udp"),
            ("turn:[2001:db8::1]:4000", "turn:[2001:db8::1]:4000?transport=udp"),
            ("turn:[2001:db8::1]", "turn:[2001:db8::1]:3478?transport=udp"),
        ] {
            let url: TurnUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), whole);
            assert_eq!(whole.parse(), Ok(url));
        }
    }

    #[test]
    fn what_no_client_could_use_is_refused() {
        for text in [
            "",
            "turn",
            "turn:",
            "stun:a.example",
            "turn:a.example:0",
            "turn:a.example:70000",
            "turn:a b",
            "turn:a/b",
            "turn:2001:db8::1",
            "turn:a.example?transport=sctp",
            "turn:a.example?tcp",
            "turn://a.example",
            "turn:user@a.example",
        ] {
            let error = text.parse::<TurnUrl>().unwrap_err();
            assert!(error.contains("turn:HOST:PORT") && error.contains(text), "{error}");
        }
    }
}
