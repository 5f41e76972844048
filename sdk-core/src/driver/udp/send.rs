//! How a run of equal datagrams goes to the kernel: with one call where that is possible.
//!
//! Linux cuts a run itself since 4.18 (UDP_SEGMENT). Many cameras run older kernels; those take the
//! datagrams one behind the other in one `sendmmsg`, which costs more than cutting but far less than
//! a call for each. What the kernel has no room for is dropped, as by any full network.

use quinn_udp::{Transmit, UdpSocketState};
use socket2::SockAddr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

/// Best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// One `sendmsg` for a run, which the kernel cuts.
    Segmented,
    /// One `sendmmsg` for a run.
    Batched,
    /// One `sendmsg` for each datagram.
    Single,
}

/// One socket's way. It only ever gets worse: a kernel or a network device that has refused one is
/// not asked again.
#[derive(Debug)]
pub(super) struct Sender {
    way: Way,
}

/// What became of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// System calls.
    pub(super) calls: u64,
    /// Datagrams that the kernel took.
    pub(super) datagrams: u64,
    /// Datagrams that it had no room for, or refused.
    pub(super) dropped: u64,
}

/// The kernel's UDP_MAX_SEGMENTS before 6.9; the headers of so many fit on the stack.
const MAX_BATCH: usize = 64;
/// The largest UDP payload that every kernel takes in one UDP_SEGMENT send.
const MAX_RUN_LEN: usize = 65_000;

impl Sender {
    /// The best way that the kernel has for this socket, but none better than `best`.
    pub(super) fn new(state: &UdpSocketState, best: Way) -> Sender {
        // A kernel that does not know UDP_SEGMENT ignores it in a send, and the run goes out as one
        // huge datagram. So it was asked when the socket's state was made.
        let kernel = if state.max_gso_segments() > 1 { Way::Segmented } else { Way::Batched };
        Sender { way: kernel.max(best) }
    }

    /// Sends `data`, a run of datagrams of `segment` bytes of which the last may be shorter.
    pub(super) fn send(
        &mut self,
        socket: &impl AsFd,
        state: &UdpSocketState,
        destination: SocketAddr,
        segment: usize,
        data: &[u8],
    ) -> Sent {
        let segment = segment.max(1);
        let out = Out { socket: socket.as_fd(), state, destination, segment };
        let mut sent = Sent::default();
        // Whole datagrams only: none may be cut in two.
        let together = (MAX_RUN_LEN / segment).clamp(1, MAX_BATCH);
        for part in data.chunks(together * segment) {
            self.send_part(&out, part, &mut sent);
        }
        sent
    }

    /// Sends what goes in one call, if the way allows.
    fn send_part(&mut self, out: &Out<'_>, data: &[u8], sent: &mut Sent) {
        let is_run = data.len() > out.segment;
        if is_run && self.way == Way::Segmented {
            match out.sendmsg(data, Some(out.segment), sent) {
                Err(e) if cannot_cut(&e) => {
                    log::info!("the system does not cut runs of datagrams any more: {e}");
                    self.way = Way::Batched;
                }
                result => return out.note(data, result, sent),
            }
        }
        if is_run && self.way == Way::Batched {
            match out.send_batch(data, sent, |rest| out.sendmmsg(rest)) {
                Ok(()) => return,
                Err(NoBatches) => self.way = Way::Single,
            }
        }
        for datagram in data.chunks(out.segment) {
            let result = out.sendmsg(datagram, None, sent);
            out.note(datagram, result, sent);
        }
    }
}

/// Of a run: the network device cannot do what cutting builds upon, or the path's MTU is too small.
fn cannot_cut(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}

/// The kernel has no `sendmmsg`: it is older than 3.0, or built without it.
struct NoBatches;

/// Where datagrams go.
struct Out<'a> {
    socket: BorrowedFd<'a>,
    state: &'a UdpSocketState,
    destination: SocketAddr,
    segment: usize,
}

impl Out<'_> {
    fn sendmsg(&self, data: &[u8], segment: Option<usize>, sent: &mut Sent) -> io::Result<()> {
        sent.calls += 1;
        let message = Transmit {
            destination: self.destination,
            ecn: None,
            contents: data,
            segment_size: segment,
            src_ip: None,
        };
        self.state.try_send((&self.socket).into(), &message)
    }

    /// Has `take` send datagrams until none is left. It says how many from the first on it took.
    fn send_batch(
        &self,
        data: &[u8],
        sent: &mut Sent,
        mut take: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> Result<(), NoBatches> {
        let mut rest = data;
        while !rest.is_empty() {
            sent.calls += 1;
            let taken = match take(rest) {
                Ok(count) => {
                    sent.datagrams += count as u64;
                    (count * self.segment).min(rest.len())
                }
                Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => return Err(NoBatches),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
                // The first one was refused, so that nothing was sent.
                Err(e) => {
                    let lost = if is_full(&e) { rest.len() } else { self.segment.min(rest.len()) };
                    self.note(&rest[..lost], Err(e), sent);
                    lost
                }
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// How many of these datagrams, from the first on, the kernel took; the error of the first if
    /// none.
    fn sendmmsg(&self, data: &[u8]) -> io::Result<usize> {
        let destination = SockAddr::from(self.destination);
        // SAFETY: both are integers and pointers, for which zero is a value.
        let (mut headers, mut pieces): ([libc::mmsghdr; MAX_BATCH], [libc::iovec; MAX_BATCH]) =
            unsafe { std::mem::zeroed() };
        let mut count = 0;
        let datagrams = data.chunks(self.segment);
        for ((datagram, piece), header) in datagrams.zip(&mut pieces).zip(&mut headers) {
            piece.iov_base = datagram.as_ptr().cast_mut().cast();
            piece.iov_len = datagram.len();
            let header = &mut header.msg_hdr;
            header.msg_name = destination.as_ptr().cast_mut().cast();
            header.msg_namelen = destination.len();
            header.msg_iov = piece;
            header.msg_iovlen = 1;
            count += 1;
        }
        let flags = libc::MSG_DONTWAIT as _;
        // SAFETY: the first `count` headers point to the address and to pieces of `data`, which
        // outlive the call; the kernel writes nothing but the headers' own lengths.
        let taken =
            unsafe { libc::sendmmsg(self.socket.as_raw_fd(), headers.as_mut_ptr(), count, flags) };
        usize::try_from(taken).map_err(|_| io::Error::last_os_error())
    }

    /// Counts what became of `data`, which one call was to send.
    fn note(&self, data: &[u8], result: io::Result<()>, sent: &mut Sent) {
        let datagrams = data.len().div_ceil(self.segment) as u64;
        match result {
            Ok(()) => sent.datagrams += datagrams,
            Err(e) => {
                sent.dropped += datagrams;
                log::debug!("send to {}: {e}", self.destination);
            }
        }
    }
}

/// Whether the kernel has no room, so that the next datagram would find none either.
fn is_full(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::WouldBlock || e.raw_os_error() == Some(libc::ENOBUFS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::net::UdpSocket;
    use std::time::Duration;

    /// A socket to send from, and one on loopback that hears it.
    struct Pair {
        from: UdpSocket,
        state: UdpSocketState,
        to: UdpSocket,
        sender: Sender,
    }

    impl Pair {
        fn new(address: &str, best: Way) -> Pair {
            let from = UdpSocket::bind(address).unwrap();
            let to = UdpSocket::bind(address).unwrap();
            SockRef::from(&to).set_recv_buffer_size(4 << 20).unwrap();
            to.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let state = UdpSocketState::new((&from).into()).unwrap();
            let sender = Sender::new(&state, best);
            Pair { from, state, to, sender }
        }

        fn send(&mut self, segment: usize, data: &[u8]) -> Sent {
            let to = self.to.local_addr().unwrap();
            self.sender.send(&self.from, &self.state, to, segment, data)
        }

        /// Sends a run and checks that all of it arrives as it was cut.
        fn passes(&mut self, segment: usize, len: usize) -> Sent {
            let data: Vec<u8> = (0..len).map(|at| (at / segment + at) as u8).collect();
            let sent = self.send(segment, &data);
            let mut buffer = [0; 65_536];
            for expected in data.chunks(segment) {
                let len = self.to.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..len], expected);
            }
            sent
        }
    }

    fn all(calls: u64, datagrams: u64) -> Sent {
        Sent { calls, datagrams, dropped: 0 }
    }

    const WAYS: [Way; 3] = [Way::Segmented, Way::Batched, Way::Single];
    const CHANNEL_DATA: usize = 4 + 1200;

    #[test]
    fn each_way_delivers_a_run_as_it_was_cut() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            for way in WAYS {
                let mut pair = Pair::new(address, way);
                assert_eq!(pair.sender.way, way, "this kernel has all three");
                let calls = |run| if way == Way::Single { run } else { 1 };
                assert_eq!(pair.passes(1200, 8 * 1200), all(calls(8), 8), "{way:?}");
                assert_eq!(pair.passes(CHANNEL_DATA, 9 * CHANNEL_DATA), all(calls(9), 9));
                assert_eq!(pair.passes(1200, 7 * 1200 + 1), all(calls(8), 8), "a shorter last");
                assert_eq!(pair.passes(1200, 1200), all(1, 1));
                assert_eq!(pair.passes(1200, 5), all(1, 1), "one, shorter than it might be");
                assert_eq!(pair.sender.way, way);
            }
        }
    }

    #[test]
    fn a_long_run_takes_a_few_calls() {
        for way in WAYS {
            let mut pair = Pair::new("127.0.0.1:0", way);
            let calls =
                |run: u64, most: u64| if way == Way::Single { run } else { run.div_ceil(most) };
            assert_eq!(pair.passes(100, 150 * 100), all(calls(150, 64), 150), "{way:?}");
            assert_eq!(pair.passes(1200, 120 * 1200 - 7), all(calls(120, 54), 120), "65,000 bytes");
            assert_eq!(pair.passes(1, 65), all(calls(65, 64), 65));
        }
    }

    #[test]
    fn a_kernel_that_does_not_cut_gets_batches_from_then_on() {
        let mut pair = Pair::new("127.0.0.1:0", Way::Segmented);
        // Linux cuts no runs without checksums.
        let on: libc::c_int = 1;
        // SAFETY: the value is a local of the length said.
        let set = unsafe {
            libc::setsockopt(
                pair.from.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NO_CHECK,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        assert_eq!(set, 0);
        assert_eq!(pair.passes(1200, 5000), all(2, 5), "refused once, then as a batch");
        assert_eq!(pair.sender.way, Way::Batched);
        assert_eq!(pair.passes(1200, 5000), all(1, 5));
    }

    #[test]
    fn a_refused_datagram_does_not_change_the_way() {
        // From loopback there is no way out: EINVAL, as where runs are not cut.
        let mut pair = Pair::new("127.0.0.1:0", Way::Segmented);
        let out = "192.0.2.1:9".parse().unwrap();
        let sent = pair.sender.send(&pair.from, &pair.state, out, 100, &[0; 100]);
        assert_eq!(sent, Sent { calls: 1, datagrams: 0, dropped: 1 });
        assert_eq!(pair.sender.way, Way::Segmented);
        assert_eq!(pair.passes(1200, 5000), all(1, 5));
    }

    /// Runs `test` in a thread in which the kernel answers `call` with `error`.
    fn refusing(call: libc::c_long, error: i32, test: impl FnOnce() + Send + 'static) {
        let statement = |code: u32, k, jt| libc::sock_filter { code: code as u16, jt, jf: 0, k };
        let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        let jump = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        let answer = libc::BPF_RET | libc::BPF_K;
        let mut filter = [
            statement(load, 0, 0),
            statement(jump, call as u32, 1),
            statement(answer, libc::SECCOMP_RET_ALLOW, 0),
            statement(answer, libc::SECCOMP_RET_ERRNO | error as u32, 0),
        ];
        let mut refuse = move || {
            let len = filter.len() as u16;
            let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
            // SAFETY: the program and its filter outlive the calls, which bind this thread alone.
            unsafe {
                assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
                let mode = libc::SECCOMP_MODE_FILTER;
                assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
            }
        };
        let thread = std::thread::spawn(move || {
            refuse();
            test();
        });
        thread.join().unwrap();
    }

    #[test]
    fn a_kernel_without_sendmmsg_gets_one_datagram_a_call() {
        refusing(libc::SYS_sendmmsg, libc::ENOSYS, || {
            let mut pair = Pair::new("127.0.0.1:0", Way::Batched);
            assert_eq!(pair.passes(1200, 5000), all(1 + 5, 5), "asked once");
            assert_eq!(pair.sender.way, Way::Single);
            assert_eq!(pair.passes(1200, 5000), all(5, 5));
        });
    }

    #[test]
    fn what_there_is_no_room_for_is_counted_by_the_datagram() {
        let lost = |calls| Sent { calls, datagrams: 0, dropped: 70 };
        for (way, call, calls) in [
            (Way::Segmented, libc::SYS_sendmsg, 2),
            (Way::Batched, libc::SYS_sendmmsg, 2),
            (Way::Single, libc::SYS_sendmsg, 70),
        ] {
            for error in [libc::EAGAIN, libc::ENOBUFS] {
                refusing(call, error, move || {
                    let mut pair = Pair::new("127.0.0.1:0", way);
                    assert_eq!(pair.send(900, &[0; 70 * 900 - 1]), lost(calls), "{way:?}");
                    assert_eq!(pair.sender.way, way, "there may be room again");
                });
            }
        }
    }

    #[test]
    fn what_the_kernel_takes_in_part_is_gone_on_with() {
        let pair = Pair::new("127.0.0.1:0", Way::Batched);
        let destination = pair.to.local_addr().unwrap();
        let out = Out { socket: pair.from.as_fd(), state: &pair.state, destination, segment: 100 };
        let error = |number| Err(io::Error::from_raw_os_error(number));
        let send = |answers: &[Result<usize, i32>]| {
            let mut answers = answers.iter();
            let mut sent = Sent::default();
            let mut rests = Vec::new();
            let result = out.send_batch(&[0; 950], &mut sent, |rest| {
                rests.push(rest.len());
                answers.next().unwrap().map_or_else(error, Ok)
            });
            assert_eq!(answers.next(), None);
            (result.is_ok(), sent, rests)
        };
        let some = |calls, datagrams, dropped| Sent { calls, datagrams, dropped };
        assert_eq!(send(&[Ok(10)]), (true, some(1, 10, 0), vec![950]));
        assert_eq!(
            send(&[Ok(3), Err(libc::EINTR), Err(libc::EPERM), Ok(5), Ok(1)]),
            (true, some(5, 9, 1), vec![950, 650, 650, 550, 50]),
            "one that is refused is like one lost on the way"
        );
        assert_eq!(send(&[Ok(9), Err(libc::EPERM)]), (true, some(2, 9, 1), vec![950, 50]));
        assert_eq!(
            send(&[Ok(4), Err(libc::EAGAIN)]),
            (true, some(2, 4, 6), vec![950, 550]),
            "the rest would find no room either"
        );
        assert_eq!(send(&[Err(libc::ENOSYS)]), (false, some(1, 0, 0), vec![950]));
    }
}
