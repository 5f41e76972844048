//! Why a server does not start, in words that say what to change.

use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Why the server did not start.
#[derive(Debug)]
pub enum StartError {
    /// The address of this setting could not be bound.
    Listen {
        setting: &'static str,
        address: SocketAddr,
        error: io::Error,
    },
    Other(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (setting, address, error) = match self {
            StartError::Listen { setting, address, error } => (setting, address, error),
            StartError::Other(error) => return error.fmt(f),
        };
        let variable = setting.replace('.', "_").to_ascii_uppercase();
        let how = format!("set {setting} in the file, --{setting}, or SERVER_MIN_{variable}");
        let port = address.port();
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "port {port} ({setting}) is in use: stop what uses it, or {how} to another"
                )
            }
            io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "port {port} ({setting}) needs more rights than this user has: {how} to one above 1023"
                )
            }
            io::ErrorKind::AddrNotAvailable => {
                write!(
                    f,
                    "{} ({setting}) is no address of this machine: {how} to one, or to 0.0.0.0",
                    address.ip()
                )
            }
            _ => write!(f, "{address} ({setting}) cannot be listened on: {error}; {how}"),
        }
    }
}

impl std::error::Error for StartError {}
