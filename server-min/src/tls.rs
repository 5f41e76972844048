//! Our certificate, for every listener that speaks TLS or DTLS. One set of files serves all of them; it
//! can be read again while the server runs, and connections that are open stay as they are.

mod expiry;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with our certificate and the chain that leads to its root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file with its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// PEM file with the authorities whose certificates devices may sign in with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

/// The certificate as it was last read. Clones share it.
#[derive(Clone)]
pub struct Tls {
    config: TlsConfig,
    loaded: Arc<RwLock<Loaded>>,
}

struct Loaded {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    plain: Arc<ServerConfig>,
    with_clients: Option<Arc<ServerConfig>>,
}

impl TlsConfig {
    /// What would not work, in words for the person who wrote it.
    pub fn check(&self) -> Result<(), String> {
        match (&self.certificate, &self.key) {
            (Some(_), None) => Err("key is missing: name the file of the certificate's key".into()),
            (None, Some(_)) => {
                Err("certificate is missing: name the file that key belongs to".into())
            }
            (None, None) if self.client_ca.is_some() => {
                Err("client_ca needs a certificate and a key of the server's own".into())
            }
            _ => Ok(()),
        }
    }
}

impl Tls {
    /// Reads the files; `None` where none are named. Errors say which file, and what is wrong with it.
    pub fn load(config: &TlsConfig) -> Result<Option<Tls>, String> {
        let (Some(certificate), Some(key)) = (&config.certificate, &config.key) else {
            return Ok(None);
        };
        let loaded = Loaded::read(certificate, key, config.client_ca.as_deref())?;
        Ok(Some(Tls { config: config.clone(), loaded: Arc::new(RwLock::new(loaded)) }))
    }

    /// Reads the files again. Where they are not good, what was read before stays in use.
    pub fn reload(&self) -> Result<(), String> {
        let (Some(certificate), Some(key)) = (&self.config.certificate, &self.config.key) else {
            return Ok(());
        };
        let loaded = Loaded::read(certificate, key, self.config.client_ca.as_deref())?;
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// For one new connection of a listener that asks nobody for a certificate.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.read(|loaded| loaded.plain.clone())
    }

    /// For one new connection of a listener that asks for a certificate of `client_ca`. Who presents
    /// none may still sign in by other means; who presents a wrong one may not. The same as
    /// [`server`](Tls::server) where no `client_ca` is set.
    pub fn server_with_clients(&self) -> Arc<ServerConfig> {
        self.read(|loaded| loaded.with_clients.as_ref().unwrap_or(&loaded.plain).clone())
    }

    /// The chain, ours first, and the key, for DTLS.
    pub fn chain_and_key(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        self.read(|loaded| (loaded.chain.clone(), loaded.key.clone_key()))
    }

    /// Until when the chain is good: Unix seconds at which the first of its certificates expires.
    pub fn not_after_s(&self) -> Option<u64> {
        self.read(|loaded| loaded.chain.iter().filter_map(|der| expiry::not_after_s(der)).min())
    }

    fn read<T>(&self, of: impl FnOnce(&Loaded) -> T) -> T {
        of(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.config.certificate).finish()
    }
}

impl Loaded {
    fn read(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Loaded, String> {
        let chain = certificates("tls.certificate", certificate)?;
        let key_file = key;
        let key = private_key("tls.key", key_file)?;
        let mismatch = |e: rustls::Error| {
            format!(
                "tls.certificate {} and tls.key {} cannot be used: {e}",
                certificate.display(),
                key_file.display()
            )
        };
        let plain = builder()?
            .with_no_client_auth()
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(mismatch)?;
        let with_clients = match client_ca {
            None => None,
            Some(path) => {
                let roots = Arc::new(authorities("tls.client_ca", path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                    .allow_unauthenticated()
                    .build()
                    .map_err(|e| format!("tls.client_ca {}: {e}", path.display()))?;
                let mut config = builder()?
                    .with_client_cert_verifier(verifier)
                    .with_single_cert(chain.clone(), key.clone_key())
                    .map_err(mismatch)?;
                // A resumed session is not verified again: a certificate could outlive its end.
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
                Some(Arc::new(config))
            }
        };
        Ok(Loaded { chain, key, plain: Arc::new(plain), with_clients })
    }
}

fn builder() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, String> {
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS cannot be set up: {e}"))
}

/// For our side of somebody else's listener: its certificate is checked against the authorities in the
/// file that the setting named `ca_setting` names, or against the system's.
pub fn client_config(ca_setting: &str, ca: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let roots = roots(ca_setting, ca)?;
    Ok(Arc::new(client_builder()?.with_root_certificates(roots).with_no_client_auth()))
}

/// The same, for who has more to say.
pub(crate) fn client_builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, String> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS cannot be set up: {e}"))
}

pub(crate) fn roots(ca_setting: &str, ca: Option<&Path>) -> Result<RootCertStore, String> {
    if let Some(path) = ca {
        return authorities(ca_setting, path);
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(format!(
            "{ca_setting} is missing: this system knows no authorities to check a certificate \
             against; install ca-certificates, or name a PEM file with those of its issuer"
        ));
    }
    Ok(roots)
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn authorities(setting: &str, path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(setting, path)? {
        roots.add(authority).map_err(|e| format!("{setting} {}: {e}", path.display()))?;
    }
    Ok(roots)
}

pub(crate) fn private_key(setting: &str, path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| {
        format!(
            "{setting} {}: {}; expected a PEM private key, not encrypted",
            path.display(),
            without_its_text(e)
        )
    })
}

pub(crate) fn certificates(
    setting: &str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path)
        .and_then(|all| all.collect::<Result<Vec<_>, _>>())
        .map_err(|e| format!("{setting} {}: {}", path.display(), without_its_text(e)))?;
    if read.is_empty() {
        return Err(format!("{setting} {}: has no PEM certificate", path.display()));
    }
    Ok(read)
}

/// The parser's own errors quote lines of the file, which may be a key's.
fn without_its_text(e: pem::Error) -> String {
    match e {
        pem::Error::Io(e) => e.to_string(),
        pem::Error::NoItemsFound => "there is none in it".into(),
        _ => "its PEM text is damaged".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path =
                std::env::temp_dir().join(format!("p2pcam-tls-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, text).unwrap();
            path
        }

        fn certificate(&self) -> TlsConfig {
            let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
            TlsConfig {
                certificate: Some(self.write("cert.pem", &made.cert.pem())),
                key: Some(self.write("key.pem", &made.signing_key.serialize_pem())),
                client_ca: None,
            }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn files_are_read_and_read_again() {
        let folder = Folder::new("reload");
        let mut config = folder.certificate();
        config.client_ca.clone_from(&config.certificate);
        let tls = Tls::load(&config).unwrap().unwrap();
        assert!(!Arc::ptr_eq(&tls.server(), &tls.server_with_clients()));
        assert_eq!(tls.server_with_clients().send_tls13_tickets, 0);
        assert!(!tls.server_with_clients().session_storage.can_cache());
        let (before, _) = tls.chain_and_key();
        folder.certificate();
        tls.reload().unwrap();
        let (after, _) = tls.clone().chain_and_key();
        assert_ne!(before, after);
        // A file that is not good changes nothing.
        folder.write("key.pem", "none");
        assert!(tls.reload().unwrap_err().contains("key.pem"));
        assert_eq!(tls.chain_and_key().0, after);
    }

    #[test]
    fn what_cannot_work_is_said() {
        let folder = Folder::new("wrong");
        let good = folder.certificate();
        assert!(Tls::load(&TlsConfig::default()).unwrap().is_none());
        let half = TlsConfig { key: None, ..good.clone() };
        assert!(half.check().unwrap_err().contains("key is missing"));
        let missing = TlsConfig { certificate: Some("nowhere.pem".into()), ..good.clone() };
        assert!(Tls::load(&missing).unwrap_err().contains("tls.certificate nowhere.pem"));
        // Without its line breaks, as it may come from an environment variable.
        let line = std::fs::read_to_string(good.key.as_ref().unwrap()).unwrap().replace('\n', "");
        let line = Some(folder.write("line.pem", &line));
        for wrong in [
            TlsConfig { key: line.clone(), ..good.clone() },
            TlsConfig { certificate: line, ..good.clone() },
        ] {
            let text = Tls::load(&wrong).unwrap_err();
            assert!(text.contains("line.pem: its PEM text is damaged"), "{text}");
        }
        let other = rcgen::KeyPair::generate().unwrap();
        let other =
            TlsConfig { key: Some(folder.write("other.pem", &other.serialize_pem())), ..good };
        assert!(Tls::load(&other).unwrap_err().contains("cannot be used"));
    }
}
