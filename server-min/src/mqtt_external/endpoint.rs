//! Where the broker is, how it is spoken to, and who we are to it: `[mqtt] external…`.

use crate::config::MqttConfig;
use crate::tls::{certificates, private_key};
use rumqttc::{TlsConfiguration, Transport};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// `Display` writes `mqtts://host:port`.
pub(super) struct Endpoint {
    /// IPv6 addresses keep their brackets, as `rumqttc` wants them.
    pub(super) host: String,
    pub(super) port: u16,
    tls: Option<Arc<ClientConfig>>,
}

impl Endpoint {
    /// Reads the address, and the certificates where it is `mqtts://`. Errors name the setting.
    pub(super) fn new(url: &str, config: &MqttConfig) -> Result<Endpoint, String> {
        let Address { host, port, is_tls } = Address::parse(url)?;
        let tls = if is_tls { Some(Arc::new(client_config(config)?)) } else { None };
        Ok(Endpoint { host: host.into(), port, tls })
    }

    pub(super) fn transport(&self) -> Transport {
        match &self.tls {
            None => Transport::Tcp,
            Some(config) => Transport::tls_with_config(TlsConfiguration::Rustls(config.clone())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "mqtts" } else { "mqtt" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

struct Address<'a> {
    host: &'a str,
    port: u16,
    is_tls: bool,
}

impl Address<'_> {
    fn parse(url: &str) -> Result<Address<'_>, String> {
        if url.contains('@') {
            return Err("external must not contain credentials: set external_username and \
                        external_password"
                .into());
        }
        let bad =
            || format!("external {url:?}: expected mqtt://host[:port] or mqtts://host[:port]");
        let (is_tls, rest) = match url.split_once("://").ok_or_else(bad)? {
            ("mqtt", rest) => (false, rest),
            ("mqtts", rest) => (true, rest),
            _ => return Err(bad()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // The brackets of an IPv6 address have colons inside.
        let after_host = rest.rfind(']').map_or(0, |end| end + 1);
        let colon = rest.get(after_host..).and_then(|tail| tail.rfind(':'));
        let (host, port) = match colon.and_then(|at| rest.split_at_checked(after_host + at)) {
            Some((host, port)) => {
                let port = port.trim_start_matches(':').parse::<u16>().map_err(|_| bad())?;
                (host, port)
            }
            None => (rest, if is_tls { 8883 } else { 1883 }),
        };
        let is_host = if host.contains(':') {
            host.starts_with('[') && crate::http::is_valid_host(host)
        } else {
            crate::http::is_valid_host(host)
        };
        if !is_host || port == 0 {
            return Err(bad());
        }
        Ok(Address { host, port, is_tls })
    }
}

/// What would not work, in words for the person who wrote it. Reads no file.
pub fn check(config: &MqttConfig) -> Result<(), String> {
    let Some(url) = &config.external else {
        let used = [
            ("external_username", config.external_username.is_some()),
            ("external_password", config.external_password.is_some()),
            ("external_ca", config.external_ca.is_some()),
            ("external_certificate", config.external_certificate.is_some()),
            ("external_key", config.external_key.is_some()),
            ("external_insecure", config.external_insecure),
            ("external_client_id", config.external_client_id.is_some()),
            ("external_share", config.external_share),
            ("external_provisioning", config.external_provisioning.is_some()),
        ];
        return match used.iter().find(|(_, is_set)| *is_set) {
            Some((name, _)) => Err(format!(
                "{name} is for a broker that is not ours: set external to its address, or leave \
                 {name} out"
            )),
            None => Ok(()),
        };
    };
    let address = Address::parse(url)?;
    for (name, value, example) in [
        ("public_url", &config.public_url, "mqtts://mqtt.example.org:8883"),
        ("public_ws_url", &config.public_ws_url, "wss://mqtt.example.org/mqtt"),
    ] {
        if value.is_none() {
            return Err(format!(
                "{name} is missing: with external set, applications must be told where that broker \
                 is, for example {example}"
            ));
        }
    }
    if config.external_certificate.is_some() != config.external_key.is_some() {
        return Err(
            "external_certificate and external_key belong together: set both, or none".into()
        );
    }
    if config.external_password.is_some() && config.external_username.is_none() {
        return Err("external_username is missing: whose password is external_password?".into());
    }
    if config.external_provisioning.is_some() && config.external_username.is_none() {
        return Err(
            "external_username is missing: external_provisioning needs the administrator of \
                    Mosquitto's dynamic security plugin"
                .into(),
        );
    }
    let of_tls = config.external_ca.is_some()
        || config.external_certificate.is_some()
        || config.external_insecure;
    if of_tls && !address.is_tls {
        return Err(
            "external_ca, external_certificate and external_insecure are for TLS: expected \
                    external = \"mqtts://…\""
                .into(),
        );
    }
    if config.external_insecure && config.external_ca.is_some() {
        return Err("external_insecure checks no certificate, external_ca says against what: set \
                    one of them"
            .into());
    }
    if let Some(id) = &config.external_client_id
        && !sdk_core::wire::signal::is_valid_id(id)
    {
        return Err(format!(
            "external_client_id {id:?}: expected 1 to 64 letters, digits, - _ . or :"
        ));
    }
    Ok(())
}

fn client_config(config: &MqttConfig) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS cannot be set up: {e}"))?;
    let builder = match &config.external_ca {
        _ if config.external_insecure => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate::new(&provider))),
        Some(path) => builder.with_root_certificates(roots_of(path)?),
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err("external: this system has no root certificates to check it against; \
                            install ca-certificates, or set external_ca"
                    .into());
            }
            builder.with_root_certificates(roots)
        }
    };
    match (&config.external_certificate, &config.external_key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates("external_certificate", certificate)?;
            let key = private_key("external_key", key)?;
            builder.with_client_auth_cert(chain, key).map_err(|e| {
                format!("external_certificate {} cannot be used: {e}", certificate.display())
            })
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn roots_of(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("external_ca", path)? {
        roots.add(certificate).map_err(|e| format!("external_ca {}: {e}", path.display()))?;
    }
    Ok(roots)
}

/// `external_insecure`: takes whatever certificate the broker shows. That the broker holds its key
/// is checked all the same.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl AnyCertificate {
    fn new(provider: &CryptoProvider) -> AnyCertificate {
        AnyCertificate(provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn config(external: &str) -> MqttConfig {
        MqttConfig {
            external: Some(external.into()),
            public_url: Some("mqtts://mqtt.example.org".into()),
            public_ws_url: Some("wss://mqtt.example.org/mqtt".into()),
            ..MqttConfig::default()
        }
    }

    #[test]
    fn addresses_are_read() {
        for (url, expected) in [
            ("mqtt://broker.example", "mqtt://broker.example:1883"),
            ("mqtt://192.0.2.1:11883/", "mqtt://192.0.2.1:11883"),
            ("mqtt://[2001:db8::1]", "mqtt://[2001:db8::1]:1883"),
            ("mqtt://[::1]:1884", "mqtt://[::1]:1884"),
        ] {
            let endpoint = Endpoint::new(url, &config(url)).map(|e| e.to_string());
            assert_eq!(endpoint.as_deref(), Ok(expected));
        }
        for bad in [
            "mqtt.example.org:1883",
            "wss://mqtt.example.org/mqtt",
            "mqtts://",
            "mqtts://mqtt.example.org:x",
            "mqtts://mqtt.example.org:0",
            "mqtts://mqtt.example.org/topic",
            "mqtt://[::1",
            "mqtt://::1:1883",
            "mqtt://user:secret@mqtt.example.org",
        ] {
            let text = check(&config(bad)).expect_err(bad);
            assert!(text.contains("external") && !text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn what_cannot_work_is_said() {
        assert_eq!(check(&config("mqtts://b")), Ok(()));
        assert_eq!(check(&MqttConfig::default()), Ok(()));
        type Wrong = fn(&mut MqttConfig);
        let wrong: [(Wrong, &str); 7] = [
            (|c| c.public_url = None, "public_url is missing"),
            (|c| c.public_ws_url = None, "public_ws_url is missing"),
            (|c| c.external_key = Some("k".into()), "belong together"),
            (|c| c.external_password = Some(Secret::new("x")), "external_username"),
            (|c| c.external = Some("mqtt://b".into()), "mqtts://"),
            (|c| c.external_insecure = true, "set one of them"),
            (|c| c.external_client_id = Some("a/b".into()), "external_client_id"),
        ];
        for (change, says) in wrong {
            let mut config = MqttConfig { external_ca: Some("ca".into()), ..config("mqtts://b") };
            change(&mut config);
            let text = check(&config).expect_err(says);
            assert!(text.contains(says), "{text}");
        }
        let alone = MqttConfig { external_share: true, ..MqttConfig::default() };
        assert!(check(&alone).unwrap_err().contains("set external to its address"));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let config = MqttConfig { external_ca: Some("nowhere.pem".into()), ..config("mqtts://b") };
        let text = Endpoint::new("mqtts://b", &config).err().unwrap();
        assert!(text.contains("external_ca nowhere.pem"), "{text}");
    }
}
