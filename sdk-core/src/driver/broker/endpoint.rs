//! Where the broker is, and how it is spoken to: `broker_url`.

use super::CertificateFiles;
#[cfg(feature = "tls")]
use super::tls::Tls;
use rumqttc::Transport;
use std::fmt;
use std::path::Path;

/// A broker's address. `Display` writes `host:port`.
pub(super) struct Endpoint {
    /// IPv6 addresses keep their brackets, as `rumqttc` wants them.
    pub(super) host: String,
    pub(super) port: u16,
    security: Security,
    /// Whether it is shown a certificate of ours.
    pub(super) shows_certificate: bool,
}

enum Security {
    None,
    #[cfg(feature = "tls")]
    Tls(Tls),
}

impl Endpoint {
    /// Reads `mqtt://host[:port]` or `mqtts://host[:port]`, and the certificates for the latter.
    pub(super) fn parse(
        url: &str,
        ca_file: Option<&Path>,
        certificate: Option<&CertificateFiles>,
    ) -> Result<Endpoint, String> {
        if url.contains('@') {
            return Err("broker_url must not contain credentials: set broker_username and \
                        broker_password"
                .into());
        }
        let bad = |what: &str| {
            format!(
                "broker_url {url:?}: {what}; expected mqtt://host[:port] or mqtts://host[:port]"
            )
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("no scheme"))?;
        let default_port = match scheme {
            "mqtt" => 1883,
            "mqtts" => 8883,
            _ => return Err(bad("unknown scheme")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // The brackets of an IPv6 address have colons inside.
        let after_host = rest.rfind(']').map_or(0, |i| i + 1);
        let (host, port) = match rest.get(after_host..).and_then(|tail| tail.rfind(':')) {
            Some(i) => rest.split_at(after_host + i),
            None => (rest, ""),
        };
        let port = match port.strip_prefix(':') {
            None => default_port,
            Some(text) => {
                text.parse().ok().filter(|p| *p != 0).ok_or_else(|| bad("the port is no port"))?
            }
        };
        let is_ipv6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let is_host = match is_ipv6 {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
                (1..=253).contains(&host.len()) && host.bytes().all(allowed)
            }
        };
        if !is_host {
            return Err(bad("the host is no name or address"));
        }
        let security = match scheme {
            "mqtts" => tls(ca_file, certificate)?,
            _ if certificate.is_some() => {
                return Err(format!(
                    "broker_cert_file and broker_key_file are for TLS, and broker_url is {url:?}: \
                     expected mqtts://host[:port], or neither of the two files"
                ));
            }
            _ => Security::None,
        };
        let shows_certificate = certificate.is_some();
        Ok(Endpoint { host: host.to_owned(), port, security, shows_certificate })
    }

    /// For the next connection.
    pub(super) fn transport(&mut self) -> Transport {
        match &mut self.security {
            Security::None => Transport::Tcp,
            #[cfg(feature = "tls")]
            Security::Tls(tls) => {
                Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(tls.config()))
            }
        }
    }

    pub(super) fn is_secure(&self) -> bool {
        !matches!(self.security, Security::None)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(not(feature = "tls"))]
fn tls(_ca: Option<&Path>, _certificate: Option<&CertificateFiles>) -> Result<Security, String> {
    Err("broker_url: mqtts:// needs a build with TLS (cargo feature `tls`); this build has none"
        .into())
}

#[cfg(feature = "tls")]
fn tls(ca: Option<&Path>, certificate: Option<&CertificateFiles>) -> Result<Security, String> {
    Tls::load(ca, certificate).map(Security::Tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Endpoint, String> {
        Endpoint::parse(url, None, None)
    }

    #[test]
    fn urls_are_read() {
        for (url, expected) in [
            ("mqtt://broker.example", "broker.example:1883"),
            ("mqtt://192.0.2.1:11883/", "192.0.2.1:11883"),
            ("mqtt://[2001:db8::1]", "[2001:db8::1]:1883"),
            ("mqtt://[::1]:1884", "[::1]:1884"),
        ] {
            let endpoint = parse(url).map(|e| e.to_string());
            assert_eq!(endpoint.as_deref(), Ok(expected));
        }
        for bad in [
            "",
            "broker",
            "http://broker",
            "mqtt://",
            "mqtt://:1883",
            "mqtt://broker:0",
            "mqtt://broker:65536",
            "mqtt://a b",
            "mqtt://[::1",
            "mqtt://[x]",
            "mqtt://b/x",
            "mqtt://user:secret@broker",
        ] {
            let text = parse(bad).err().expect(bad);
            assert!(text.contains("broker_url") && !text.contains("secret"), "{text}");
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn a_build_without_tls_says_so() {
        let text = parse("mqtts://broker.example").err().unwrap();
        assert!(text.contains("feature `tls`"), "{text}");
    }

    #[test]
    fn a_certificate_is_for_tls() {
        let files = CertificateFiles { chain: "own.pem".into(), key: "own.key".into() };
        let text = Endpoint::parse("mqtt://broker.example", None, Some(&files)).err().unwrap();
        assert!(text.contains("broker_cert_file") && text.contains("mqtts://"), "{text}");
    }
}
