//! The viewers' UDP sockets: batch sends with UDP_SEGMENT where the kernel has it.

use crate::net::{SocketId, Transmit};
use crate::peer::LocalSocket;
use quinn_udp::{RecvMeta, UdpSocketState};
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// All sockets of all viewers.
pub(super) struct Sockets {
    open: Vec<Socket>,
    next_id: u32,
    include_loopback: bool,
    counters: Arc<Counters>,
    received: Box<[u8]>,
}

struct Socket {
    id: SocketId,
    udp: UdpSocket,
    state: UdpSocketState,
}

/// What the sockets did, for statistics and benchmarks.
#[derive(Debug, Default)]
pub struct Counters {
    /// System calls that sent something.
    pub sends: AtomicU64,
    /// Datagrams in them.
    pub datagrams: AtomicU64,
    /// Runs of datagrams that the kernel had no room for, or refused.
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
            open: Vec::new(),
            next_id: 0,
            include_loopback,
            counters,
            received: vec![0; RECEIVE_BUFFER].into(),
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
        self.open.retain(|s| !ids.contains(&s.id));
    }

    /// Sends a run of datagrams: one system call where the kernel cuts it (UDP_SEGMENT), else one
    /// for each. What the kernel has no room for is dropped, as by any full network.
    pub(super) fn send(&self, transmit: &Transmit, data: &[u8]) {
        let Some(socket) = self.open.iter().find(|s| s.id == transmit.socket) else {
            return;
        };
        // Whole segments only: a run may not end inside one.
        let segment = transmit.segment_size.max(1);
        let segments = socket.state.max_gso_segments().min(MAX_RUN / segment).max(1);
        for part in data.chunks(segments * segment) {
            self.send_run(socket, transmit, part);
        }
    }

    fn send_run(&self, socket: &Socket, transmit: &Transmit, data: &[u8]) {
        let run = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: None,
            contents: data,
            segment_size: (data.len() > transmit.segment_size).then_some(transmit.segment_size),
            src_ip: None,
        };
        let result = socket
            .udp
            .try_io(Interest::WRITABLE, || socket.state.try_send((&socket.udp).into(), &run));
        self.counters.sends.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(()) => {
                let datagrams = data.len().div_ceil(transmit.segment_size.max(1)) as u64;
                self.counters.datagrams.fetch_add(datagrams, Ordering::Relaxed);
            }
            Err(_) if run.segment_size.is_some() && socket.state.max_gso_segments() == 1 => {
                // The kernel has just said that it cannot cut runs: from now on it need not.
                for datagram in data.chunks(transmit.segment_size.max(1)) {
                    self.send_run(socket, transmit, datagram);
                }
            }
            Err(e) => {
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
                log::debug!("send to {}: {e}", transmit.destination);
            }
        }
    }

    /// Waits for something to arrive on any socket. Cancel-safe.
    pub(super) async fn receive(&mut self) -> Received<'_> {
        let Sockets { open, received, .. } = self;
        let (socket, meta) = poll_fn(|cx| {
            for socket in open.iter() {
                while socket.udp.poll_recv_ready(cx).is_ready() {
                    let mut meta = [RecvMeta::default()];
                    let got = socket.udp.try_io(Interest::READABLE, || {
                        let mut buffers = [IoSliceMut::new(received)];
                        socket.state.recv((&socket.udp).into(), &mut buffers, &mut meta)
                    });
                    match got {
                        Ok(_) => return Poll::Ready((socket.id, meta[0])),
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                        // An ICMP error of an earlier send; the next call reads on.
                        Err(_) => {}
                    }
                }
            }
            Poll::Pending
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
        let socket = std::net::UdpSocket::bind(SocketAddr::new(ip, 0))?;
        socket.set_nonblocking(true)?;
        let udp = UdpSocket::from_std(socket)?;
        let state = UdpSocketState::new((&udp).into())?;
        if let Err(e) = state.set_send_buffer_size((&udp).into(), SEND_BUFFER) {
            log::debug!("send buffer of {SEND_BUFFER} bytes refused: {e}");
        }
        let addr = udp.local_addr()?;
        let id = SocketId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        self.open.push(Socket { id, udp, state });
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

/// The largest UDP payload that every kernel takes in one UDP_SEGMENT send.
const MAX_RUN: usize = 65_000;
