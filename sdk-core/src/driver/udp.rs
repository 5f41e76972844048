//! The viewers' UDP sockets.

mod ready;
mod send;

use crate::net::{SocketId, Transmit};
use crate::peer::LocalSocket;
use quinn_udp::{RecvMeta, UdpSocketState};
use ready::{Place, ReadyList};
use send::{Sender, Way};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// All sockets of all viewers.
pub(super) struct Sockets {
    open: BTreeMap<SocketId, Socket>,
    ready: ReadyList,
    next_id: u32,
    include_loopback: bool,
    counters: Arc<Counters>,
    /// There while a socket is open.
    received: Box<[u8]>,
}

struct Socket {
    place: Place,
    /// Waited for to be readable only: a socket that is writable again after each send would wake
    /// this thread for nothing.
    udp: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    sender: Sender,
}

/// What the sockets did, for statistics and benchmarks.
#[derive(Debug, Default)]
pub struct Counters {
    /// System calls that were to send something.
    pub sends: AtomicU64,
    /// Datagrams that the kernel took.
    pub datagrams: AtomicU64,
    /// Datagrams that it had no room for, or refused.
    pub dropped: AtomicU64,
}

/// A burst of datagrams from one address, as received in one call.
pub(super) struct Received<'a> {
    pub(super) socket: SocketId,
    pub(super) source: SocketAddr,
    /// Datagrams of `stride` bytes, one behind the other; the last may be shorter.
    pub(super) data: &'a mut [u8],
    pub(super) stride: usize,
}

/// More addresses than a camera has; a host with hundreds is not asked for all of them.
const MAX_ADDRESSES: usize = 4;
/// Room in the kernel for a keyframe at once. Not memory of this process.
const SEND_BUFFER: usize = 512 * 1024;
/// What UDP GRO may put together.
const RECEIVE_BUFFER: usize = 64 * 1024;

impl Sockets {
    pub(super) fn new(include_loopback: bool, counters: Arc<Counters>) -> Sockets {
        Sockets {
            open: BTreeMap::new(),
            ready: ReadyList::default(),
            next_id: 0,
            include_loopback,
            counters,
            received: Box::default(),
        }
    }

    /// Opens one socket on each address of this machine.
    pub(super) fn open(&mut self) -> io::Result<Vec<LocalSocket>> {
        let mut opened = Vec::new();
        let mut failure = None;
        for ip in self.addresses()? {
            match self.bind(ip) {
                Ok(socket) => opened.push(socket),
                Err(e) => failure = Some(e),
            }
        }
        match failure {
            Some(e) if opened.is_empty() => Err(e),
            _ if opened.is_empty() => {
                Err(io::Error::new(io::ErrorKind::NetworkUnreachable, "no network interface is up"))
            }
            _ => Ok(opened),
        }
    }

    pub(super) fn close(&mut self, ids: &[SocketId]) {
        for id in ids {
            self.open.remove(id);
        }
        if self.open.is_empty() {
            self.received = Box::default();
        }
    }

    /// Sends a run of datagrams. What the kernel has no room for is dropped, as by any full network.
    pub(super) fn send(&mut self, transmit: &Transmit, data: &[u8]) {
        let Some(Socket { udp, state, sender, .. }) = self.open.get_mut(&transmit.socket) else {
            return;
        };
        let Transmit { destination, segment_size, .. } = *transmit;
        let sent = sender.send(udp.get_ref(), state, destination, segment_size, data);
        self.counters.sends.fetch_add(sent.calls, Ordering::Relaxed);
        self.counters.datagrams.fetch_add(sent.datagrams, Ordering::Relaxed);
        self.counters.dropped.fetch_add(sent.dropped, Ordering::Relaxed);
    }

    /// Waits for something to arrive on any socket. Cancel-safe.
    pub(super) async fn receive(&mut self) -> Received<'_> {
        let Sockets { open, ready, received, .. } = self;
        let (socket, meta) = poll_fn(|cx| {
            loop {
                let id = std::task::ready!(ready.poll_next(cx));
                // It may have been closed since.
                let Some(Socket { place, udp, state, .. }) = open.get(&id) else { continue };
                let mut own = place.take();
                while let Poll::Ready(Ok(mut guard)) = udp.poll_read_ready(&mut own) {
                    let mut meta = [RecvMeta::default()];
                    let got = guard.try_io(|udp| {
                        let mut buffers = [IoSliceMut::new(received)];
                        state.recv(udp.get_ref().into(), &mut buffers, &mut meta)
                    });
                    match got {
                        Ok(Ok(_)) => {
                            place.again();
                            return Poll::Ready((id, meta[0]));
                        }
                        // An ICMP error of an earlier send; the next call reads on.
                        Ok(Err(_)) => {}
                        // Nothing there: it is waited for.
                        Err(_would_block) => {}
                    }
                }
            }
        })
        .await;
        let len = meta.len.min(received.len());
        Received {
            socket,
            source: meta.addr,
            stride: meta.stride.max(1),
            data: &mut received[..len],
        }
    }

    fn bind(&mut self, ip: IpAddr) -> io::Result<LocalSocket> {
        let socket = UdpSocket::bind(SocketAddr::new(ip, 0))?;
        socket.set_nonblocking(true)?;
        let state = UdpSocketState::new((&socket).into())?;
        if let Err(e) = state.set_send_buffer_size((&socket).into(), SEND_BUFFER) {
            log::debug!("send buffer of {SEND_BUFFER} bytes refused: {e}");
        }
        let addr = socket.local_addr()?;
        let sender = Sender::new(&state, Way::Segmented);
        // SAFETY: it owns the socket, which stays open and the same until it is dropped.
        let udp = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE)? };
        let id = SocketId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        self.open.insert(id, Socket { place: self.ready.place(id), udp, state, sender });
        if self.received.is_empty() {
            self.received = vec![0; RECEIVE_BUFFER].into();
        }
        Ok(LocalSocket { id, addr })
    }

    /// The addresses viewers may reach us at, loopback last.
    fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for interface in if_addrs::get_if_addrs()? {
            let ip = interface.ip();
            let usable = match ip {
                IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_unspecified(),
                IpAddr::V6(v6) => !v6.is_unicast_link_local() && !v6.is_unspecified(),
            };
            if usable && (self.include_loopback || !ip.is_loopback()) && !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
        addresses.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6()));
        addresses.truncate(MAX_ADDRESSES);
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_run_arrives_at_another_socket() {
        let counters = Arc::new(Counters::default());
        let mut sockets = Sockets::new(true, counters.clone());
        let from = sockets.bind([127, 0, 0, 1].into()).unwrap();
        let to = sockets.bind([127, 0, 0, 1].into()).unwrap();
        let data: Vec<u8> = (0..5 * 1200 + 7).map(|at| (at / 1200) as u8).collect();
        let transmit = Transmit { socket: from.id, destination: to.addr, segment_size: 1200 };
        let mut got = Vec::new();
        for _ in 0..2 {
            sockets.send(&transmit, &data);
            got.clear();
            while got.len() < data.len() {
                let receive = tokio::time::timeout(Duration::from_secs(5), sockets.receive());
                let received = receive.await.unwrap();
                assert_eq!((received.socket, received.source), (to.id, from.addr));
                assert!(received.stride == 1200 || received.data.len() == received.stride);
                got.extend_from_slice(received.data);
            }
            assert_eq!(got, data);
        }
        sockets.close(&[from.id]);
        sockets.send(&transmit, &data);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!(count(&counters.sends), 2, "one a run, and none through a closed socket");
        assert_eq!((count(&counters.datagrams), count(&counters.dropped)), (12, 0));
    }

    #[tokio::test]
    async fn each_socket_has_its_turn() {
        let mut sockets = Sockets::new(true, Arc::default());
        let ours: Vec<LocalSocket> =
            (0..3).map(|_| sockets.bind([127, 0, 0, 1].into()).unwrap()).collect();
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        for socket in &ours {
            // Different sizes, so that the system does not hand them over together.
            (1..=3).for_each(|len| _ = other.send_to(&vec![0; len], socket.addr).unwrap());
        }
        let mut heard = Vec::new();
        for _ in 0..9 {
            let receive = tokio::time::timeout(Duration::from_secs(5), sockets.receive());
            heard.push(receive.await.unwrap().socket.0);
        }
        assert_eq!(heard, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    }
}
