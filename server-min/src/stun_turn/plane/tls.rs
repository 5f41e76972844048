//! TLS between a stream and its messages, by rustls without any I/O of its own.

use rustls::server::{ServerConfig, ServerConnection};
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

pub(super) struct Tls(Box<ServerConnection>);

/// Why no more will come.
#[derive(Debug)]
pub(super) enum TlsEnd {
    /// The client said so.
    Closed,
    Broken(String),
}

impl Tls {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Tls, String> {
        let mut connection = ServerConnection::new(config).map_err(|e| e.to_string())?;
        // Every record leaves it at once; what a slow client is owed is bounded where it waits.
        connection.set_buffer_limit(None);
        Ok(Tls(Box::new(connection)))
    }

    /// Deciphers `input` into `plain`, from `len` on, and moves `len` on. There is room: plain text
    /// is shorter than its cipher text, but for one record that may have waited for its end.
    pub(super) fn receive(
        &mut self,
        mut input: &[u8],
        plain: &mut [u8],
        len: &mut usize,
    ) -> Result<(), TlsEnd> {
        let broken = |e: &dyn std::fmt::Display| TlsEnd::Broken(e.to_string());
        while !input.is_empty() {
            self.0.read_tls(&mut input).map_err(|e| broken(&e))?;
            let state = self.0.process_new_packets().map_err(|e| broken(&e))?;
            while *len < plain.len() {
                match self.0.reader().read(&mut plain[*len..]) {
                    Ok(0) => break,
                    Ok(count) => *len += count,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) => return Err(broken(&e)),
                }
            }
            if state.peer_has_closed() {
                return Err(TlsEnd::Closed);
            }
        }
        Ok(())
    }

    pub(super) fn seal(&mut self, plain: &[u8]) {
        // Without a limit it takes everything.
        let _ = self.0.writer().write_all(plain);
    }

    /// Appends the records that are to be sent.
    pub(super) fn take_records(&mut self, out: &mut Vec<u8>) {
        while self.0.wants_write() {
            // A Vec never fails.
            let _ = self.0.write_tls(out);
        }
    }

    pub(super) fn close(&mut self) {
        self.0.send_close_notify();
    }
}
