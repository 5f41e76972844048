//! Authorities and certificates for one test, in a folder that goes with it, and TLS connections.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The folder has `ca.pem` with `server.pem` and `server.key` under it for `localhost` and the
/// loopback addresses, `devices.pem` with whatever [`Pki::device`] makes, and a stranger's
/// authority, `other.pem`.
pub struct Pki {
    folder: PathBuf,
    servers: Issuer<'static, KeyPair>,
    devices: Issuer<'static, KeyPair>,
    others: Issuer<'static, KeyPair>,
}

impl Pki {
    pub fn new() -> Pki {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name =
            format!("p2pcam-pki-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let [servers, devices, others] = ["ca", "devices", "other"].map(|name| {
            let (pem, issuer) = authority(name);
            std::fs::write(folder.join(format!("{name}.pem")), pem).unwrap();
            issuer
        });
        let pki = Pki { folder, servers, devices, others };
        pki.new_server_certificate();
        pki
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.folder.join(name), text).unwrap();
        self.path(name)
    }

    /// Puts another certificate and key into the place of the server's.
    pub fn new_server_certificate(&self) {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let params = CertificateParams::new(names).unwrap();
        self.sign("server", params, &self.servers);
    }

    /// `{name}.pem` and `{name}.key` for the device `name`.
    pub fn device(&self, name: &str) -> [String; 2] {
        self.sign(name, named(name), &self.devices)
    }

    /// The same, of an authority that the server does not know.
    pub fn foreign_device(&self, name: &str) -> [String; 2] {
        self.sign("foreign", named(name), &self.others)
    }

    /// The same, over since long.
    pub fn expired_device(&self, name: &str) -> [String; 2] {
        let mut params = named(name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 1);
        self.sign("expired", params, &self.devices)
    }

    fn sign(
        &self,
        file: &str,
        params: CertificateParams,
        by: &Issuer<'static, KeyPair>,
    ) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, by).unwrap();
        [
            self.write(&format!("{file}.pem"), &certificate.pem()),
            self.write(&format!("{file}.key"), &key.serialize_pem()),
        ]
    }

    /// Settings of a server with both TLS listeners.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("tls.certificate", self.path("server.pem")),
            ("tls.key", self.path("server.key")),
            ("tls.client_ca", self.path("devices.pem")),
            ("mqtt.tls_listen", "127.0.0.1:0".into()),
            ("http.tls_listen", "127.0.0.1:0".into()),
        ]
    }

    /// A TLS connection that trusts `ca.pem`.
    pub async fn connect(&self, server: SocketAddr) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(server).await.unwrap();
        self.handshake(stream).await.unwrap()
    }

    pub async fn handshake(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(self.client()).connect(name, stream).await
    }

    /// One that trusts `ca.pem`.
    pub fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(self.folder.join("ca.pem")).unwrap();
        roots.add(authority).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// As text, which is what settings are given as.
pub fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    settings.iter().map(|(key, value)| (*key, value.as_str())).collect()
}

fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.extended_key_usages.clear();
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (pem, Issuer::new(params, key))
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    params
}
