//! What a stream's other end has not taken yet.

use std::io::{self, Write as _};
use std::net::TcpStream;

#[derive(Default)]
pub(super) struct Backlog {
    bytes: Vec<u8>,
    sent: usize,
}

impl Backlog {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes now what the kernel takes, and keeps the rest.
    pub(super) fn write(&mut self, socket: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        let taken = if self.is_empty() { write(socket, bytes)? } else { 0 };
        let rest = bytes.get(taken..).unwrap_or_default();
        if self.sent >= self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        self.bytes.extend_from_slice(rest);
        Ok(())
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self, socket: &TcpStream) -> io::Result<()> {
        self.sent += write(socket, self.bytes.get(self.sent..).unwrap_or_default())?;
        if self.sent == self.bytes.len() {
            *self = Backlog::default();
        }
        Ok(())
    }
}

/// As many bytes as the kernel takes.
fn write(mut socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match bytes {
        [] => Ok(0),
        _ => match socket.write(bytes) {
            Err(e) if is_transient(&e) => Ok(0),
            outcome => outcome,
        },
    }
}

pub(super) fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::net::TcpListener;

    #[test]
    fn what_the_kernel_does_not_take_waits_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let from = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        from.set_nonblocking(true).unwrap();
        let (mut to, _) = listener.accept().unwrap();
        let sent: Vec<u8> = (0..20_000_000u32).map(|i| (i % 251) as u8).collect();
        let mut backlog = Backlog::default();
        sent.chunks(1_000_000).for_each(|chunk| backlog.write(&from, chunk).unwrap());
        assert!(!backlog.is_empty() && backlog.len() < sent.len());
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; 20_000_000];
            to.read_exact(&mut got).unwrap();
            got
        });
        while !backlog.is_empty() {
            backlog.flush(&from).unwrap();
        }
        assert!(reader.join().unwrap() == sent);
        assert_eq!(backlog.bytes.capacity(), 0, "nothing is kept of what is gone");
    }
}
