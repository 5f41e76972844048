//! Where the broker is, and how it is spoken to: `broker_url`.

use rumqttc::Transport;
use std::fmt;
use std::path::Path;

/// A broker's address. `Display` writes `host:port`.
pub(super) struct Endpoint {
    /// IPv6 addresses keep their brackets, as `rumqttc` wants them.
    pub(super) host: String,
    pub(super) port: u16,
    security: Security,
}

enum Security {
    None,
    #[cfg(feature = "tls")]
    Tls(std::sync::Arc<rustls::ClientConfig>),
}

impl Endpoint {
    /// Reads `mqtt://host[:port]` or `mqtts://host[:port]`, and the certificates for the latter.
    pub(super) fn parse(url: &str, ca_file: Option<&Path>) -> Result<Endpoint, String> {
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
        let security = if scheme == "mqtts" { tls(ca_file)? } else { Security::None };
        Ok(Endpoint { host: host.to_owned(), port, security })
    }

    pub(super) fn transport(&self) -> Transport {
        match &self.security {
            Security::None => Transport::Tcp,
            #[cfg(feature = "tls")]
            Security::Tls(config) => {
                Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(config.clone()))
            }
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(not(feature = "tls"))]
fn tls(_ca_file: Option<&Path>) -> Result<Security, String> {
    Err("broker_url: mqtts:// needs a build with TLS (cargo feature `tls`); this build has none"
        .into())
}

#[cfg(feature = "tls")]
fn tls(ca_file: Option<&Path>) -> Result<Security, String> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    use std::sync::Arc;

    let mut roots = rustls::RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let bad = |e: &dyn fmt::Display| format!("broker_ca_file {}: {e}", path.display());
            let certificates = CertificateDer::pem_file_iter(path).map_err(|e| bad(&e))?;
            for certificate in certificates {
                roots.add(certificate.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err("no certificates to check a mqtts:// broker against: set broker_ca_file to a \
                    PEM file with those of its issuer"
            .into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS: {e}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Security::Tls(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        for (url, expected) in [
            ("mqtt://broker.example", "broker.example:1883"),
            ("mqtt://192.0.2.1:11883/", "192.0.2.1:11883"),
            ("mqtt://[2001:db8::1]", "[2001:db8::1]:1883"),
            ("mqtt://[::1]:1884", "[::1]:1884"),
        ] {
            let endpoint = Endpoint::parse(url, None).map(|e| e.to_string());
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
            let text = Endpoint::parse(bad, None).err().expect(bad);
            assert!(text.contains("broker_url") && !text.contains("secret"), "{text}");
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn a_build_without_tls_says_so() {
        let text = Endpoint::parse("mqtts://broker.example", None).err().unwrap();
        assert!(text.contains("feature `tls`"), "{text}");
    }

    #[cfg(feature = "tls")]
    #[test]
    fn certificates_come_from_the_file() {
        let missing = Path::new("/nonexistent/ca.pem");
        let text = Endpoint::parse("mqtts://broker.example", Some(missing)).err().unwrap();
        assert!(text.contains("broker_ca_file"), "{text}");
        let empty = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        let text = Endpoint::parse("mqtts://broker.example", Some(empty)).err().unwrap();
        assert!(text.contains("broker_ca_file"), "{text}");
    }
}
