//! UDP in batches, so that one processor can load another: many datagrams with one system call each
//! way, and runs of equal ones as a camera sends a frame (UDP_SEGMENT).

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

/// Datagrams a call.
const BATCH: usize = 64;
/// The largest run there is.
const BUFFER_LEN: usize = 65_536;

/// A socket that does not wait, bound to a free port of `ip`.
pub(crate) fn bind(ip: [u8; 4]) -> Result<UdpSocket, String> {
    let text = |e: io::Error| format!("a UDP socket on {ip:?}: {e}");
    let socket = UdpSocket::bind(SocketAddr::from((ip, 0))).map_err(text)?;
    socket.set_nonblocking(true).map_err(text)?;
    // As much as the kernel allows.
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 4 << 20).map_err(text)?;
    Ok(socket)
}

/// From now on what is sent goes out as datagrams of this size, one `send` being a run of them; 0 is
/// one datagram, as it is.
pub(crate) fn send_in_runs(socket: &UdpSocket, segment: usize) -> Result<(), String> {
    set(socket, libc::SOL_UDP, libc::UDP_SEGMENT, segment as libc::c_int)
        .map_err(|e| format!("UDP_SEGMENT: {e}"))
}

/// Whether the kernel gives runs as they came, in one piece.
pub(crate) fn receive_in_runs(socket: &UdpSocket, whole: bool) -> Result<(), String> {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, libc::c_int::from(whole))
        .map_err(|e| format!("UDP_GRO: {e}"))
}

fn set(socket: &UdpSocket, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the value is an `int`, of the length that is said.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends `datagrams` by a connected socket, at most a batch of them; how many the kernel took.
pub(crate) fn send_all(socket: &UdpSocket, datagrams: &[impl AsRef<[u8]>]) -> io::Result<usize> {
    let mut vectors = [EMPTY; BATCH];
    for (vector, datagram) in vectors.iter_mut().zip(datagrams) {
        let bytes = datagram.as_ref();
        *vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    }
    let mut headers = headers(&mut vectors);
    let count = datagrams.len().min(BATCH) as libc::c_uint;
    // SAFETY: `count` headers point to vectors of this call, and these to the datagrams, which the
    // kernel only reads.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Buffers to receive into.
pub(crate) struct Inbox {
    buffers: Vec<u8>,
    lengths: Vec<usize>,
}

impl Inbox {
    pub(crate) fn new() -> Inbox {
        Inbox { buffers: vec![0; BATCH * BUFFER_LEN], lengths: Vec::with_capacity(BATCH) }
    }

    /// What the socket has now, at most a batch of it.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> &Inbox {
        self.lengths.clear();
        let mut vectors = [EMPTY; BATCH];
        for (vector, buffer) in vectors.iter_mut().zip(self.buffers.chunks_exact_mut(BUFFER_LEN)) {
            *vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: BUFFER_LEN };
        }
        let mut headers = headers(&mut vectors);
        // SAFETY: all headers point to vectors of this call, and these to buffers of our own with
        // their true lengths.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).unwrap_or(0);
        self.lengths.extend(headers.iter().take(count).map(|h| h.msg_len as usize));
        self
    }

    pub(crate) fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let buffers = self.buffers.chunks_exact(BUFFER_LEN);
        buffers.zip(&self.lengths).map(|(buffer, len)| &buffer[..*len])
    }

    /// All that the socket has, counted in datagrams of `size` bytes.
    pub(crate) fn drain(&mut self, socket: &UdpSocket, size: usize) -> u64 {
        let mut count = 0;
        loop {
            self.receive(socket);
            count += self.lengths.iter().map(|len| len.div_ceil(size) as u64).sum::<u64>();
            if self.lengths.len() < BATCH {
                return count;
            }
        }
    }
}

const EMPTY: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// One for each vector, with nothing else in it.
fn headers(vectors: &mut [libc::iovec; BATCH]) -> [libc::mmsghdr; BATCH] {
    // SAFETY: all of the header is integers and pointers, for which zero is a value.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    for (header, vector) in headers.iter_mut().zip(vectors) {
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UdpSocket, UdpSocket) {
        let (a, b) = (bind([127, 0, 0, 1]).unwrap(), bind([127, 0, 0, 1]).unwrap());
        a.connect(b.local_addr().unwrap()).unwrap();
        (a, b)
    }

    #[test]
    fn what_is_sent_at_once_comes_one_by_one() {
        let (a, b) = pair();
        assert_eq!(send_all(&a, &[&b"one"[..], b"two!"]).unwrap(), 2);
        let mut inbox = Inbox::new();
        let got: Vec<&[u8]> = inbox.receive(&b).datagrams().collect();
        assert_eq!(got, [&b"one"[..], b"two!"]);
        assert_eq!(inbox.drain(&b, 3), 0);
    }

    #[test]
    fn a_run_is_cut_by_the_kernel_or_comes_in_one_piece() {
        let (a, b) = pair();
        send_in_runs(&a, 100).unwrap();
        a.send(&[7; 250]).unwrap();
        let mut inbox = Inbox::new();
        let lengths: Vec<usize> = inbox.receive(&b).datagrams().map(<[u8]>::len).collect();
        assert_eq!(lengths, [100, 100, 50]);
        receive_in_runs(&b, true).unwrap();
        a.send(&[7; 250]).unwrap();
        assert_eq!(inbox.drain(&b, 100), 3);
    }
}
