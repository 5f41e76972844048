//! Reads a batch of datagrams with one system call. Where the kernel has UDP_GRO, each message may
//! be a run of datagrams from one sender.

use super::sys::RawAddress;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};

pub(super) struct Receiver {
    /// [`BATCH`] buffers of [`BUFFER_LEN`] bytes.
    arena: Vec<u8>,
    slots: Slots,
    messages: Vec<Run>,
    more: bool,
    /// Messages since somebody asked.
    received: usize,
}

/// What the kernel is told of the buffers, and writes beside them. Made once: to write it anew for
/// each call would cost more than a datagram does.
struct Slots {
    names: Vec<RawAddress>,
    /// Pointed to by `headers`, as the names are, and the vectors.
    _controls: Vec<Control>,
    _vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

/// Datagrams of one sender, one behind the other in the arena.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) source: SocketAddr,
    pub(super) offset: usize,
    pub(super) len: usize,
    /// Of each datagram; the last may be shorter.
    pub(super) segment: usize,
}

/// Messages a call.
const BATCH: usize = 32;
/// The largest datagram there is, and the largest run.
const BUFFER_LEN: usize = 65_536;

/// Room for one `int` of ancillary data.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

impl Run {
    /// Where its datagrams lie.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (end, segment) = (self.offset + self.len, self.segment);
        (self.offset..end).step_by(segment).map(move |start| start..(start + segment).min(end))
    }
}

impl Slots {
    /// For the buffers of this arena, which must neither move nor go before.
    fn new(arena: &mut [u8]) -> Slots {
        let mut names = vec![RawAddress::zeroed(); BATCH];
        let mut controls = vec![Control([0; 64]); BATCH];
        let mut vectors: Vec<libc::iovec> = arena
            .chunks_exact_mut(BUFFER_LEN)
            .map(|b| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: BUFFER_LEN })
            .collect();
        let headers = (0..BATCH).map(|i| {
            // SAFETY: all of the header is integers and pointers, for which zero is a value.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_name = (&raw mut names[i]).cast();
            header.msg_hdr.msg_iov = &raw mut vectors[i];
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = (&raw mut controls[i]).cast();
            header
        });
        let headers = headers.collect();
        let mut slots = Slots { names, _controls: controls, _vectors: vectors, headers };
        slots.reset(BATCH);
        slots
    }

    /// Tells the kernel again how much room the first slots have: it has written what it took.
    fn reset(&mut self, count: usize) {
        for header in self.headers.iter_mut().take(count) {
            header.msg_hdr.msg_namelen = RawAddress::LEN;
            header.msg_hdr.msg_controllen = size_of::<Control>() as _;
        }
    }
}

impl Receiver {
    pub(super) fn new() -> Receiver {
        let mut arena = vec![0; BATCH * BUFFER_LEN];
        let slots = Slots::new(&mut arena);
        Receiver { arena, slots, messages: Vec::with_capacity(BATCH), more: false, received: 0 }
    }

    /// Where the runs lie.
    pub(super) fn arena(&self) -> &[u8] {
        &self.arena
    }

    pub(super) fn runs(&self) -> &[Run] {
        &self.messages
    }

    /// Whether the last call filled the batch, so that there may be more at once.
    pub(super) fn may_have_more(&self) -> bool {
        self.more
    }

    /// How many messages came since this was asked last, from all sockets.
    pub(super) fn take_received(&mut self) -> usize {
        std::mem::take(&mut self.received)
    }

    /// Replaces the runs by what the socket has now. Errors of single datagrams (ICMP) are dropped.
    pub(super) fn receive(&mut self, socket: &impl AsRawFd) {
        self.receive_at_most(BATCH, socket);
    }

    /// The same for a socket that is likely to have just one message: it is not asked whether there is
    /// another. If there is, epoll will say so.
    pub(super) fn receive_one(&mut self, socket: &impl AsRawFd) {
        self.receive_at_most(1, socket);
        self.more = false;
    }

    fn receive_at_most(&mut self, most: usize, socket: &impl AsRawFd) {
        self.messages.clear();
        let count = receive_messages(socket.as_raw_fd(), &mut self.slots.headers[..most]);
        self.more = count == most;
        self.received += count;
        for (i, header) in self.slots.headers.iter().enumerate().take(count) {
            let len = (header.msg_len as usize).min(BUFFER_LEN);
            let source = self.slots.names[i].get();
            let Some(source) = source.filter(|_| len > 0) else { continue };
            let segment = gro_segment(&header.msg_hdr).unwrap_or(len).clamp(1, len);
            self.messages.push(Run { source, offset: i * BUFFER_LEN, len, segment });
        }
        self.slots.reset(count);
    }
}

fn receive_messages(fd: RawFd, headers: &mut [libc::mmsghdr]) -> usize {
    loop {
        // SAFETY: the headers point to buffers that live as long as they do, in the receiver, with
        // their true sizes; nobody reads or writes them during the call.
        let count = unsafe {
            libc::recvmmsg(
                fd,
                headers.as_mut_ptr(),
                headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        match usize::try_from(count) {
            Ok(count) => return count,
            Err(_) if last_error() == libc::EINTR => {}
            Err(_) => return 0,
        }
    }
}

/// The size of the datagrams in a message, if the kernel has merged several.
fn gro_segment(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel has just filled the header's control buffer, of the length that the header
    // says; the CMSG functions stay within it, and the value is read only if it is all there.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            let head = &*control;
            let is_gro = head.cmsg_level == libc::SOL_UDP && head.cmsg_type == libc::UDP_GRO;
            let int_len = libc::CMSG_LEN(size_of::<libc::c_int>() as libc::c_uint) as usize;
            if is_gro && head.cmsg_len as usize >= int_len {
                let value = libc::CMSG_DATA(control).cast::<libc::c_int>().read_unaligned();
                return usize::try_from(value).ok().filter(|value| *value > 0);
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    None
}

fn last_error() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::listeners::bind_udp;
    use super::super::sys::set_option;
    use super::*;
    use std::net::UdpSocket;
    use std::time::Duration;

    /// What arrives of bursts that left as one, read with and without the kernel's help.
    #[test]
    fn merged_datagrams_and_single_ones_read_the_same() {
        let burst: Vec<u8> = (0..1000u32).map(|i| i as u8).collect();
        let mut receiver = Receiver::new();
        for merged in [true, false] {
            let to = bind_udp(([127, 0, 0, 1], 0).into(), None).unwrap();
            set_option(&to, libc::SOL_UDP, libc::UDP_GRO, merged.into()).unwrap();
            let from = UdpSocket::bind("127.0.0.1:0").unwrap();
            set_option(&from, libc::SOL_UDP, libc::UDP_SEGMENT, 300).unwrap();
            from.send_to(&burst, to.local_addr().unwrap()).unwrap();
            let (mut datagrams, mut runs) = (Vec::new(), 0);
            while datagrams.len() < 4 {
                receiver.receive(&to);
                for run in receiver.runs() {
                    assert_eq!(run.source, from.local_addr().unwrap());
                    runs += 1;
                    datagrams.extend(run.datagrams().map(|d| receiver.arena()[d].to_vec()));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            let expected: Vec<&[u8]> = burst.chunks(300).collect();
            assert_eq!(datagrams, expected);
            assert_eq!(runs, if merged { 1 } else { 4 });
        }
    }
}
