//! Gathers what must be sent and sends it in batches: runs of equal size to one address as one
//! message (UDP_SEGMENT), messages from one socket with one call (sendmmsg).
//!
//! Nothing is copied: a datagram is put together by the kernel from a prefix of ours and a payload
//! that lies where it was received.

use super::sys::{RawAddress, set_option};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::RawFd;

pub(super) struct SendQueue {
    /// Prefixes and replies of this batch; the first bytes are zeros, for padding.
    scratch: Vec<u8>,
    pieces: Vec<Piece>,
    messages: Vec<Message>,
    vectors: Vec<libc::iovec>,
    /// Of one call; kept, because clearing them for each would cost more than a datagram does.
    headers: Vec<libc::mmsghdr>,
    controls: Box<[Control]>,
    /// A datagram that is alone, put together.
    whole: Box<[u8; MAX_SEGMENT_LEN]>,
    /// Whether the kernel splits a run into its datagrams.
    segments: bool,
    /// Datagrams that could not be sent: the socket's buffer was full, or there is no route.
    dropped: u64,
}

#[derive(Clone, Copy)]
struct Piece {
    place: Place,
    start: u32,
    len: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Scratch,
    Received,
}

struct Message {
    socket: RawFd,
    destination: SocketAddr,
    raw: (RawAddress, libc::socklen_t),
    pieces: Range<usize>,
    /// Of each datagram; the last may be shorter.
    segment: usize,
    last: usize,
    count: usize,
    total: usize,
}

const PADDING: usize = 4;
/// Messages a call.
const BATCH: usize = 64;
/// Messages and pieces that are gathered at most, so that nothing grows while it runs.
const MAX_MESSAGES: usize = 256;
const MAX_PIECES: usize = 3072;
const SCRATCH_LEN: usize = 128 * 1024;
/// The kernel's UDP_MAX_SEGMENTS before 6.9.
const MAX_SEGMENTS: usize = 64;
/// The largest UDP payload over IPv4.
const MAX_MESSAGE_LEN: usize = 65_507;
/// What is larger does not fit an Ethernet frame, and the kernel would refuse to segment it.
const MAX_SEGMENT_LEN: usize = 1472;

impl SendQueue {
    pub(super) fn new() -> SendQueue {
        let mut scratch = Vec::with_capacity(SCRATCH_LEN);
        scratch.resize(PADDING, 0);
        SendQueue {
            scratch,
            pieces: Vec::with_capacity(MAX_PIECES),
            messages: Vec::with_capacity(MAX_MESSAGES),
            vectors: Vec::with_capacity(MAX_PIECES),
            headers: Vec::with_capacity(BATCH),
            controls: vec![Control::EMPTY; BATCH].into(),
            whole: Box::new([0; MAX_SEGMENT_LEN]),
            segments: kernel_segments(),
            dropped: 0,
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether one more datagram can be gathered, with a prefix of so many bytes. If not, flush
    /// first.
    pub(super) fn has_room(&self, prefix_len: usize) -> bool {
        self.messages.len() < MAX_MESSAGES
            && self.pieces.len() + 3 <= MAX_PIECES
            && self.scratch.len() + prefix_len <= SCRATCH_LEN
    }

    /// Gathers one datagram: `prefix`, then the received bytes of `payload`, then `padding` zeros.
    pub(super) fn push(
        &mut self,
        socket: RawFd,
        destination: SocketAddr,
        prefix: &[u8],
        payload: Range<usize>,
        padding: usize,
    ) {
        let first = self.pieces.len();
        let start = self.scratch.len();
        self.scratch.extend_from_slice(prefix);
        let padding = padding.min(PADDING);
        let parts = [
            (Place::Scratch, start, prefix.len()),
            (Place::Received, payload.start, payload.len()),
            (Place::Scratch, 0, padding),
        ];
        for (place, start, len) in parts {
            if len > 0 {
                self.pieces.push(Piece { place, start: start as u32, len: len as u32 });
            }
        }
        let len = prefix.len() + payload.len() + padding;
        let end = self.pieces.len();
        if self.segments
            && let Some(message) = self.messages.last_mut()
            && message.takes(socket, destination, len)
        {
            message.pieces.end = end;
            message.last = len;
            message.count += 1;
            message.total += len;
            return;
        }
        self.messages.push(Message {
            socket,
            destination,
            raw: RawAddress::from(destination),
            pieces: first..end,
            segment: len,
            last: len,
            count: 1,
            total: len,
        });
    }

    /// Sends everything. `received` is the arena that payloads lie in.
    pub(super) fn flush(&mut self, received: &[u8]) {
        if self.messages.is_empty() {
            return;
        }
        self.vectors.clear();
        for piece in &self.pieces {
            let from = if piece.place == Place::Received { received } else { &self.scratch };
            let range = piece.start as usize..(piece.start + piece.len) as usize;
            let bytes = from.get(range).unwrap_or_default();
            self.vectors.push(libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            });
        }
        let messages = std::mem::take(&mut self.messages);
        for same_socket in messages.chunk_by(|a, b| a.socket == b.socket) {
            let mut rest = same_socket;
            while !rest.is_empty() {
                let sent = match rest {
                    [only] if only.count == 1 => self.send_one(only),
                    _ => self.send(rest),
                };
                rest = rest.get(sent..).unwrap_or_default();
            }
        }
        self.messages = messages;
        self.messages.clear();
        self.pieces.clear();
        self.scratch.truncate(PADDING);
    }

    /// Sends a datagram that is alone, by the call that costs least: `sendto` needs neither a header nor
    /// a list of pieces, and putting two pieces together costs less than having the kernel do it.
    fn send_one(&mut self, message: &Message) -> usize {
        let (start, len) = match &self.vectors[message.pieces.clone()] {
            [piece] => (piece.iov_base.cast_const(), piece.iov_len),
            pieces if message.total <= self.whole.len() => {
                let mut rest = &mut self.whole[..];
                for piece in pieces {
                    // SAFETY: the piece lies in one of the arenas, as in `send`.
                    let bytes = unsafe {
                        std::slice::from_raw_parts(piece.iov_base.cast::<u8>(), piece.iov_len)
                    };
                    let (place, after) = rest.split_at_mut(bytes.len());
                    place.copy_from_slice(bytes);
                    rest = after;
                }
                (self.whole.as_ptr().cast(), message.total)
            }
            _ => return self.send(std::slice::from_ref(message)),
        };
        // SAFETY: the bytes are in an arena or in `whole`, the address is the message's own.
        let sent = unsafe {
            let address = (&raw const message.raw.0).cast();
            libc::sendto(message.socket, start, len, libc::MSG_DONTWAIT, address, message.raw.1)
        };
        if sent >= 0 { 1 } else { self.on_refused(std::slice::from_ref(message)) }
    }

    /// Sends some of these messages, all of one socket; answers how many are dealt with.
    fn send(&mut self, messages: &[Message]) -> usize {
        let batch = messages.len().min(BATCH);
        self.headers.clear();
        for (message, control) in messages.iter().take(batch).zip(&mut self.controls) {
            let vectors = &mut self.vectors[message.pieces.clone()];
            // SAFETY: all of the header is integers and pointers, for which zero is a value.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_name = (&raw const message.raw.0).cast_mut().cast();
            header.msg_hdr.msg_namelen = message.raw.1;
            header.msg_hdr.msg_iov = vectors.as_mut_ptr();
            header.msg_hdr.msg_iovlen = vectors.len() as _;
            if message.count > 1 {
                control.segment(message.segment as u16, &mut header.msg_hdr);
            }
            self.headers.push(header);
        }
        // SAFETY: the headers point to addresses in `messages`, to vectors in `self` whose buffers
        // are in the arenas, and to `controls`; all outlive the call, none is written to.
        let sent = unsafe {
            libc::sendmmsg(
                messages[0].socket,
                self.headers.as_mut_ptr(),
                batch as libc::c_uint,
                libc::MSG_DONTWAIT as _,
            )
        };
        match usize::try_from(sent) {
            Ok(sent) if sent > 0 => sent,
            _ => self.on_refused(messages),
        }
    }

    /// The first of these messages was refused.
    fn on_refused(&mut self, messages: &[Message]) -> usize {
        let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        let message = &messages[0];
        match error {
            libc::EINTR => 0,
            libc::EAGAIN | libc::ENOBUFS => {
                self.dropped += messages.iter().map(|m| m.count as u64).sum::<u64>();
                messages.len()
            }
            _ if message.count > 1 => {
                if error == libc::EIO {
                    // This network device cannot do checksums, which segmenting builds upon.
                    self.segments = false;
                }
                self.send_one_by_one(message);
                1
            }
            _ => {
                self.dropped += 1;
                1
            }
        }
    }

    /// Without the kernel's help: each datagram by a call of its own.
    fn send_one_by_one(&mut self, message: &Message) {
        let mut from = message.pieces.start;
        while from < message.pieces.end {
            let (mut to, mut len) = (from, 0);
            while to < message.pieces.end && len < message.segment {
                len += self.vectors[to].iov_len;
                to += 1;
            }
            // SAFETY: all of the header is integers and pointers, for which zero is a value.
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            header.msg_name = (&raw const message.raw.0).cast_mut().cast();
            header.msg_namelen = message.raw.1;
            header.msg_iov = self.vectors[from..to].as_mut_ptr();
            header.msg_iovlen = (to - from) as _;
            // SAFETY: as in `send`.
            let sent = unsafe { libc::sendmsg(message.socket, &header, libc::MSG_DONTWAIT) };
            if sent < 0 {
                self.dropped += 1;
            }
            from = to;
        }
    }
}

impl Message {
    /// Whether one more datagram can ride along.
    fn takes(&self, socket: RawFd, destination: SocketAddr, len: usize) -> bool {
        self.socket == socket
            && self.last == self.segment
            && len <= self.segment
            && (1..=MAX_SEGMENT_LEN).contains(&self.segment)
            && self.count < MAX_SEGMENTS
            && self.total + len <= MAX_MESSAGE_LEN
            && self.destination == destination
    }
}

/// Ancillary data with one `u16`.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 32]);

impl Control {
    const EMPTY: Control = Control([0; 32]);

    /// Says UDP_SEGMENT in `header`, which then points to `self`.
    fn segment(&mut self, segment: u16, header: &mut libc::msghdr) {
        // SAFETY: the buffer is aligned for a header and has room for it and a `u16`, so that the
        // CMSG functions give a place in it.
        unsafe {
            let value_len = size_of::<u16>() as libc::c_uint;
            header.msg_control = self.0.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(value_len) as _;
            let control = libc::CMSG_FIRSTHDR(header);
            if let Some(head) = control.as_mut() {
                head.cmsg_level = libc::SOL_UDP;
                head.cmsg_type = libc::UDP_SEGMENT;
                head.cmsg_len = libc::CMSG_LEN(value_len) as _;
                libc::CMSG_DATA(control).cast::<u16>().write_unaligned(segment);
            }
        }
    }
}

/// Whether the kernel knows UDP_SEGMENT (4.18 and later). One that does not would ignore the
/// request and send the whole run as one datagram.
fn kernel_segments() -> bool {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|socket| set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, 1200))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    /// Sends through the queue and reads what arrives, with and without the kernel's help.
    fn arrives(datagrams: &[(&[u8], &[u8], usize)]) -> Vec<(usize, Vec<Vec<u8>>)> {
        [true, false]
            .map(|segments| {
                let from = UdpSocket::bind("127.0.0.1:0").unwrap();
                let to = UdpSocket::bind("127.0.0.1:0").unwrap();
                to.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                let mut queue = SendQueue::new();
                queue.segments &= segments;
                let mut arena = Vec::new();
                for (prefix, payload, padding) in datagrams {
                    let start = arena.len();
                    arena.extend_from_slice(payload);
                    let address = to.local_addr().unwrap();
                    let range = start..arena.len();
                    queue.push(from.as_raw_fd(), address, prefix, range, *padding);
                }
                let messages = queue.messages.len();
                queue.flush(&arena);
                assert_eq!(queue.dropped(), 0);
                assert!(queue.messages.is_empty() && queue.pieces.is_empty());
                let mut buffer = [0; 65_536];
                let got = datagrams.iter().map(|_| {
                    let len = to.recv(&mut buffer).unwrap();
                    buffer[..len].to_vec()
                });
                (messages, got.collect())
            })
            .into()
    }

    #[test]
    fn a_burst_of_equal_datagrams_is_one_message() {
        let payload = [7; 1200];
        let datagrams = [(&b"head"[..], &payload[..], 0); 20];
        let mut expected = b"head".to_vec();
        expected.extend_from_slice(&payload);
        let [(with, got), (without, same)] = arrives(&datagrams).try_into().unwrap();
        assert_eq!((with, without), (1, 20));
        assert_eq!(got, vec![expected; 20]);
        assert_eq!(got, same);
    }

    #[test]
    fn sizes_prefixes_and_padding_survive() {
        let datagrams: &[(&[u8], &[u8], usize)] = &[
            (b"a", &[1; 100], 3),
            (b"b", &[2; 100], 3),
            (b"c", &[3; 50], 0),
            (b"d", &[4; 60], 0),
            (b"reply", &[], 0),
            (b"", &[5; 1400], 0),
            (b"", &[6; 1400], 0),
            (b"", &[7; 9000], 0),
            (b"", &[8; 9000], 0),
        ];
        let expected: Vec<Vec<u8>> =
            datagrams.iter().map(|(p, d, n)| [p, *d, &[0; 4][..*n]].concat()).collect();
        let [(with, got), (_, same)] = arrives(datagrams).try_into().unwrap();
        assert_eq!(with, 5, "a to c; d and the reply; two of 1400; one; one");
        assert_eq!(got, expected);
        assert_eq!(same, expected);
    }

    #[test]
    fn what_the_kernel_refuses_to_segment_is_sent_one_by_one() {
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut queue = SendQueue::new();
        let arena = [9; 300];
        for i in 0..3 {
            let range = i * 100..(i + 1) * 100;
            queue.push(from.as_raw_fd(), to.local_addr().unwrap(), b"", range, 0);
        }
        queue.vectors.extend(queue.pieces.iter().map(|p| libc::iovec {
            iov_base: arena[p.start as usize..].as_ptr().cast_mut().cast(),
            iov_len: p.len as usize,
        }));
        let message = queue.messages.pop().unwrap();
        queue.send_one_by_one(&message);
        let mut buffer = [0; 200];
        for _ in 0..3 {
            assert_eq!(to.recv(&mut buffer).unwrap(), 100);
        }
    }
}
