//! The file with the camera's DTLS key: read at the start, made where there is none.

use crate::peer::dtls::Identity;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Loads the identity, or makes one and keeps it in `path` with mode 0600.
///
/// A file that others can read, or that cannot be understood, is replaced: viewers learn the new
/// fingerprint from the next answer.
pub(crate) fn load_or_create(path: Option<&Path>) -> io::Result<Identity> {
    let Some(path) = path else {
        return generate();
    };
    match load(path) {
        Ok(identity) => return Ok(identity),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => log::warn!("{}: {e}; a new key is made", path.display()),
    }
    let identity = generate()?;
    let pem = identity.to_pem().map_err(io::Error::other)?;
    save(path, pem.as_bytes())
        .map_err(|e| io::Error::new(e.kind(), format!("identity file {}: {e}", path.display())))?;
    Ok(identity)
}

fn generate() -> io::Result<Identity> {
    Identity::generate().map_err(io::Error::other)
}

fn load(path: &Path) -> io::Result<Identity> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(io::Error::other(format!(
            "the DTLS key can be read by others (mode {:03o}, expected 600)",
            mode & 0o777
        )));
    }
    Identity::from_pem(&fs::read_to_string(path)?).map_err(io::Error::other)
}

/// Writes beside the file and renames, so that a power cut leaves the old one or the new one.
fn save(path: &Path, pem: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    match fs::remove_file(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(pem)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_kept_private_and_used_again() {
        let folder = std::env::temp_dir().join(format!("p2pcam-identity-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("dtls.pem");
        let _ = fs::remove_file(&path);

        let first = load_or_create(Some(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let second = load_or_create(Some(&path)).unwrap();
        assert_eq!(first.fingerprint(), second.fingerprint());

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let third = load_or_create(Some(&path)).unwrap();
        assert_ne!(first.fingerprint(), third.fingerprint());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        fs::write(&path, "nonsense").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        load_or_create(Some(&path)).unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}
