//! TLS to the broker: whose certificates are trusted (`broker_ca_file`), and which one this device
//! shows (`broker_cert_file`, `broker_key_file`).
//!
//! Certificates are renewed while a camera runs for years, so the files are read again for each
//! connection. Where they are not good then, what was read before stays in use: a renewal that is
//! half done, the new certificate beside the old key, keeps nobody out.

use super::CertificateFiles;
use ring::digest;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, RootCertStore};
use std::fmt::Display;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) struct Tls {
    files: Files,
    /// Kept while the files stay the same, and with it what TLS sessions can be resumed.
    config: Arc<ClientConfig>,
    /// Of what `config` was made from.
    digest: digest::Digest,
    /// What was said about the files last, so that it is not said at each attempt.
    complaint: Option<String>,
}

/// Where things are.
struct Files {
    ca: Option<PathBuf>,
    certificate: Option<CertificateFiles>,
}

/// What is in them.
struct Contents {
    ca: Option<Vec<u8>>,
    certificate: Option<Certificate>,
}

struct Certificate {
    chain: Vec<u8>,
    key: Vec<u8>,
    /// The permissions of the key's file.
    mode: u32,
}

const AUTHORITIES: &str =
    "PEM certificates of the authorities that may have signed the broker's (\"BEGIN CERTIFICATE\")";
const CHAIN: &str = "this device's certificate as PEM (\"BEGIN CERTIFICATE\"), followed by those \
                     that lead to an authority which the broker knows, if there are any";
const KEY: &str = "the private key of broker_cert_file as PEM (\"BEGIN PRIVATE KEY\"), not \
                   encrypted, of ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits; \
                   `openssl pkey -in OLD -out NEW` writes it so";

impl Tls {
    /// Reads the files. An error names the one that cannot be used, what is expected, and never what
    /// is inside.
    pub(super) fn load(
        ca: Option<&Path>,
        certificate: Option<&CertificateFiles>,
    ) -> Result<Tls, String> {
        let files = Files { ca: ca.map(Path::to_owned), certificate: certificate.cloned() };
        let contents = files.read()?;
        let config = Arc::new(files.client_config(&contents)?);
        Ok(Tls { files, config, digest: contents.digest(), complaint: None })
    }

    /// For the next connection. Some kilobytes are read and compared; only what has changed is
    /// parsed.
    pub(super) fn config(&mut self) -> Arc<ClientConfig> {
        let complaint = match self.read_again() {
            Ok(complaint) => complaint,
            Err(e) => Some(format!("{e}. What was read before stays in use")),
        };
        if let Some(text) = &complaint
            && self.complaint != complaint
        {
            log::warn!("broker: {text}");
        }
        self.complaint = complaint;
        self.config.clone()
    }

    /// What is good enough to be used, but should be otherwise.
    fn read_again(&mut self) -> Result<Option<String>, String> {
        let contents = self.files.read()?;
        let digest = contents.digest();
        if digest.as_ref() != self.digest.as_ref() {
            self.config = Arc::new(self.files.client_config(&contents)?);
            self.digest = digest;
            log::info!("broker: the certificates were read again: their files have changed");
        }
        Ok(self.files.exposed_key(&contents))
    }
}

impl Files {
    fn read(&self) -> Result<Contents, String> {
        let ca = match &self.ca {
            Some(path) => Some(read("broker_ca_file", path, AUTHORITIES)?.0),
            None => None,
        };
        let certificate = match &self.certificate {
            Some(files) => {
                let (chain, _) = read("broker_cert_file", &files.chain, CHAIN)?;
                let (key, mode) = read("broker_key_file", &files.key, KEY)?;
                Some(Certificate { chain, key, mode })
            }
            None => None,
        };
        Ok(Contents { ca, certificate })
    }

    fn client_config(&self, contents: &Contents) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("TLS: {e}"))?
            .with_root_certificates(self.roots(contents)?);
        let (Some(files), Some(Certificate { chain, key, .. })) =
            (&self.certificate, &contents.certificate)
        else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates("broker_cert_file", &files.chain, chain, CHAIN)?;
        for certificate in &chain {
            ParsedCertificate::try_from(certificate)
                .map_err(|e| bad("broker_cert_file", &files.chain, e, CHAIN))?;
        }
        let bad_key = |what: &dyn Display| bad("broker_key_file", &files.key, what, KEY);
        // The parser's own errors quote the file.
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| bad_key(&"there is no private key in it"))?;
        builder.with_client_auth_cert(chain, key).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => format!(
                "broker_cert_file {} and broker_key_file {} do not belong together: expected the \
                 key of the first certificate in the file; see whether both are this device's, of \
                 the same renewal, and whether its own certificate comes before its issuers'",
                files.chain.display(),
                files.key.display()
            ),
            e => bad_key(&e),
        })
    }

    fn roots(&self, contents: &Contents) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        match (&self.ca, &contents.ca) {
            (Some(path), Some(pem)) => {
                for certificate in certificates("broker_ca_file", path, pem, AUTHORITIES)? {
                    roots
                        .add(certificate)
                        .map_err(|e| bad("broker_ca_file", path, e, AUTHORITIES))?;
                }
            }
            _ => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() {
            return Err(
                "this system knows no authorities to check a mqtts:// broker against: set \
                        broker_ca_file to a PEM file with those that signed its certificate"
                    .into(),
            );
        }
        Ok(roots)
    }

    fn exposed_key(&self, contents: &Contents) -> Option<String> {
        let (files, Certificate { mode, .. }) =
            self.certificate.as_ref().zip(contents.certificate.as_ref())?;
        (mode & 0o077 != 0).then(|| {
            format!(
                "broker_key_file {} can be read by others than its owner (mode {:04o}): chmod 0600 \
                 it",
                files.key.display(),
                mode & 0o7777
            )
        })
    }
}

impl Contents {
    /// With the lengths, so that nothing can move from one file to the next unseen.
    fn digest(&self) -> digest::Digest {
        let own = self.certificate.as_ref();
        let mut context = digest::Context::new(&digest::SHA256);
        for file in [self.ca.as_ref(), own.map(|own| &own.chain), own.map(|own| &own.key)] {
            let bytes = file.map_or(&[][..], Vec::as_slice);
            context.update(&bytes.len().to_ne_bytes());
            context.update(bytes);
        }
        context.finish()
    }
}

/// The file's bytes and permissions.
fn read(setting: &str, path: &Path, expected: &str) -> Result<(Vec<u8>, u32), String> {
    let read = || {
        let (mut file, mut bytes) = (File::open(path)?, Vec::new());
        file.read_to_end(&mut bytes)?;
        Ok((bytes, file.metadata()?.permissions().mode()))
    };
    read().map_err(|e: std::io::Error| bad(setting, path, e, expected))
}

fn certificates(
    setting: &str,
    path: &Path,
    pem: &[u8],
    expected: &str,
) -> Result<Vec<CertificateDer<'static>>, String> {
    // The parser's own errors quote the file, which may be that of a key.
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| bad(setting, path, "its PEM text is damaged", expected))?;
    if certificates.is_empty() {
        return Err(bad(setting, path, "there is no certificate in it", expected));
    }
    Ok(certificates)
}

fn bad(setting: &str, path: &Path, what: impl Display, expected: &str) -> String {
    format!("{setting} {}: {what}; expected {expected}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use std::fs::{self, Permissions};

    /// A folder with `own.pem` and `own.key`, which goes with the value.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("p2pcam-broker-tls-{}-{name}", std::process::id());
            let folder = Folder(std::env::temp_dir().join(name));
            fs::create_dir_all(&folder.0).unwrap();
            folder.renew("own");
            folder
        }

        /// Writes another certificate and key, and gives back the key.
        fn renew(&self, name: &str) -> String {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(&key);
            self.write(&format!("{name}.pem"), &certificate.unwrap().pem());
            self.write(&format!("{name}.key"), &key.serialize_pem());
            key.serialize_pem()
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap()
        }

        /// Trusts its own certificate, for want of another one.
        fn load(&self, chain: &str, key: &str) -> Result<Tls, String> {
            let own = CertificateFiles { chain: self.0.join(chain), key: self.0.join(key) };
            Tls::load(Some(&self.0.join("own.pem")), Some(&own))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn files_are_read_again_and_bad_ones_not_used() {
        let folder = Folder::new("again");
        let mut tls = folder.load("own.pem", "own.key").unwrap();
        let first = tls.config();
        assert!(first.client_auth_cert_resolver.has_certs());
        assert!(Arc::ptr_eq(&first, &tls.config()), "with its sessions, while nothing changes");

        let old_key = folder.read("own.key");
        folder.renew("own");
        let second = tls.config();
        assert!(!Arc::ptr_eq(&first, &second));
        // Half of a renewal, then rubbish, then nothing at all.
        let key = folder.read("own.key");
        for bad in [&old_key, "rubbish"] {
            folder.write("own.key", bad);
            assert!(Arc::ptr_eq(&second, &tls.config()));
            let complaint = tls.complaint.take().unwrap();
            assert!(complaint.contains("own.key") && complaint.contains("stays in use"));
        }
        fs::remove_file(folder.0.join("own.key")).unwrap();
        assert!(Arc::ptr_eq(&second, &tls.config()));
        folder.write("own.key", &key);
        assert!(Arc::ptr_eq(&second, &tls.config()), "the same files as before");
        assert_eq!(tls.complaint, None);
    }

    #[test]
    fn a_key_that_others_can_read_is_told_of() {
        let folder = Folder::new("mode");
        let mut tls = folder.load("own.pem", "own.key").unwrap();
        tls.config();
        assert_eq!(tls.complaint, None);
        fs::set_permissions(folder.0.join("own.key"), Permissions::from_mode(0o640)).unwrap();
        tls.config();
        let complaint = tls.complaint.unwrap();
        assert!(complaint.contains("mode 0640") && complaint.contains("chmod 0600"), "{complaint}");
    }

    #[test]
    fn what_cannot_be_used_is_said_without_a_word_of_the_key() {
        let folder = Folder::new("bad");
        let own = folder.read("own.key");
        let other = folder.renew("other");
        let line = own.replace('\n', "");
        let half = own.replace("-----END", "");
        let encrypted = own.replace("PRIVATE", "ENCRYPTED PRIVATE");
        let damaged = folder.read("own.pem").replace("MII", "MI!");
        let cut = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        let (pem, both) = (folder.read("own.pem"), folder.read("other.pem"));
        for (name, text) in [
            ("line.key", line.as_str()),
            ("half.key", &half),
            ("encrypted.key", &encrypted),
            ("damaged.pem", &damaged),
            ("cut.pem", cut),
            ("issuer-first.pem", &format!("{both}{pem}")),
            ("both.pem", &format!("{pem}{both}")),
            ("key-behind.pem", &format!("{pem}{line}")),
        ] {
            folder.write(name, text);
        }
        for (chain, key, words) in [
            ("none.pem", "own.key", "broker_cert_file"),
            ("own.key", "own.key", "no certificate in it"),
            ("line.key", "own.key", "broker_cert_file"),
            ("damaged.pem", "own.key", "broker_cert_file"),
            ("key-behind.pem", "own.key", "PEM text is damaged"),
            ("cut.pem", "own.key", "broker_cert_file"),
            ("own.pem", "none.key", "broker_key_file"),
            ("own.pem", "own.pem", "no private key in it"),
            ("own.pem", "line.key", "no private key in it"),
            ("own.pem", "half.key", "no private key in it"),
            ("own.pem", "encrypted.key", "not encrypted"),
            ("own.pem", "other.key", "do not belong together"),
            ("issuer-first.pem", "own.key", "do not belong together"),
        ] {
            let text = folder.load(chain, key).map(|_| ()).unwrap_err();
            assert!(text.contains(words) && text.contains("expected"), "{chain} {key}: {text}");
            assert!(!text.contains("[45, 45"), "its bytes: {text}");
            for line in own.lines().chain(other.lines()).filter(|line| !line.starts_with('-')) {
                assert!(!text.contains(line), "{chain} {key}: {text}");
            }
        }
        assert!(folder.load("both.pem", "own.key").is_ok());
    }

    #[test]
    fn authorities_come_from_the_file() {
        let folder = Folder::new("authorities");
        for name in ["none.pem", "own.key"] {
            let text = Tls::load(Some(&folder.0.join(name)), None).map(|_| ()).unwrap_err();
            assert!(text.contains("broker_ca_file") && text.contains("expected"), "{text}");
        }
        let tls = Tls::load(Some(&folder.0.join("own.pem")), None).unwrap();
        assert!(!tls.config.client_auth_cert_resolver.has_certs());
    }
}
