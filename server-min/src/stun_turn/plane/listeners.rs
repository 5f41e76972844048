//! The sockets that clients come to. Each shard has one of each address and transport; the kernel
//! says which of them a client's packets go to (SO_REUSEPORT), always the same.

use super::sys::set_option;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

/// One shard's socket for one address and transport.
pub(super) enum Listener {
    Udp(UdpSocket),
    Dtls(UdpSocket),
    Tcp(TcpListener),
    Tls(TcpListener),
}

/// What listens for each shard, in the same order for all, and where.
pub(super) struct Listeners {
    pub(super) shards: Vec<Vec<Listener>>,
    /// One for each of a shard's listeners.
    pub(super) addresses: Vec<SocketAddr>,
}

/// With or without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    Plain,
    Tls { dtls: bool },
}

/// Bytes the kernel may hold for the UDP sockets that all clients share, if it allows as many.
const UDP_BUFFER: usize = 4 << 20;
/// Bytes the kernel may hold for one client by TCP: half a second of video, which is late enough.
const TCP_SEND_BUFFER: usize = 128 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Ports tried where any will do: UDP may have one that TCP has not.
const ANY_PORT_TRIES: usize = 16;

impl Listener {
    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Listener::Tcp(_) | Listener::Tls(_))
    }
}

impl Listeners {
    pub(super) fn new(shards: usize) -> Listeners {
        Listeners { shards: (0..shards).map(|_| Vec::new()).collect(), addresses: Vec::new() }
    }

    /// Listens on these addresses by UDP and TCP; `setting` is what errors name. Answers with the
    /// addresses, each once.
    pub(super) fn listen(
        &mut self,
        setting: &str,
        addresses: &[SocketAddr],
        security: Security,
    ) -> io::Result<Vec<SocketAddr>> {
        let mut bound = Vec::new();
        for &address in addresses {
            let mut port = address.port();
            for ip in local_ips(address.ip())? {
                let local = self.bind_pair(setting, SocketAddr::new(ip, port), security)?;
                // Port 0 is chosen once for all addresses that one entry stands for.
                port = local.port();
                bound.push(local);
            }
        }
        if bound.is_empty() && !addresses.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!("{setting} is {addresses:?}, and this machine has no such address"),
            ));
        }
        Ok(bound)
    }

    fn bind_pair(
        &mut self,
        setting: &str,
        address: SocketAddr,
        security: Security,
    ) -> io::Result<SocketAddr> {
        let count = self.shards.len();
        let tries = if address.port() == 0 { ANY_PORT_TRIES } else { 1 };
        let wants_udp = security != Security::Tls { dtls: false };
        let mut refused = None;
        for _ in 0..tries {
            let pair = bind_all(address, count, wants_udp);
            let (local, udp, tcp) = match pair {
                Ok(pair) => pair,
                Err((protocol, error)) => {
                    let text = format!(
                        "cannot serve STUN and TURN on {address}/{protocol}: {error}; change \
                         {setting}, or stop what uses the port"
                    );
                    refused = Some(io::Error::new(error.kind(), text));
                    continue;
                }
            };
            if wants_udp {
                self.addresses.push(local);
            }
            self.addresses.push(local);
            let mut udp = udp.into_iter();
            for (shard, tcp) in self.shards.iter_mut().zip(tcp) {
                let plain = security == Security::Plain;
                shard.extend(udp.next().map(if plain { Listener::Udp } else { Listener::Dtls }));
                shard.push(if plain { Listener::Tcp(tcp) } else { Listener::Tls(tcp) });
            }
            return Ok(local);
        }
        Err(refused.unwrap_or_else(|| io::Error::other("no port was tried")))
    }
}

type Pair = (SocketAddr, Vec<UdpSocket>, Vec<TcpListener>);

/// All shards' sockets of one address. Errors name the protocol.
fn bind_all(
    address: SocketAddr,
    count: usize,
    wants_udp: bool,
) -> Result<Pair, (&'static str, io::Error)> {
    let mut local = address;
    let mut udp = Vec::new();
    for i in 0..if wants_udp { count } else { 0 } {
        let socket = bind_udp_of(local, Some(UDP_BUFFER), sharing(i, count)).map_err(of("udp"))?;
        local = socket.local_addr().map_err(of("udp"))?;
        udp.push(socket);
    }
    let mut tcp = Vec::new();
    for i in 0..count {
        let socket = bind_tcp(local, sharing(i, count)).map_err(of("tcp"))?;
        local = socket.local_addr().map_err(of("tcp"))?;
        tcp.push(socket);
    }
    Ok((local, udp, tcp))
}

fn of(protocol: &'static str) -> impl Fn(io::Error) -> (&'static str, io::Error) {
    move |error| (protocol, error)
}

/// Whether others may bind the same address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sharing {
    No,
    /// The first of several: it finds out whether another program has the port, which would share
    /// it as well.
    FromNowOn,
    Yes,
}

fn sharing(index: usize, count: usize) -> Sharing {
    match index {
        _ if count == 1 => Sharing::No,
        0 => Sharing::FromNowOn,
        _ => Sharing::Yes,
    }
}

/// Whether the kernel shares a port between sockets (3.9 and later).
pub(super) fn kernel_shares_ports() -> bool {
    Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))
        .and_then(|socket| socket.set_reuse_port(true))
        .is_ok()
}

/// A UDP socket for a shard: non-blocking, of one family only, with merged reads if possible.
pub(super) fn bind_udp(address: SocketAddr, buffer: Option<usize>) -> io::Result<UdpSocket> {
    bind_udp_of(address, buffer, Sharing::No)
}

fn bind_udp_of(
    address: SocketAddr,
    buffer: Option<usize>,
    sharing: Sharing,
) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    bind(&socket, address, sharing)?;
    if let Some(bytes) = buffer {
        // As much as the kernel allows; less is no error.
        let _ = socket.set_recv_buffer_size(bytes);
        let _ = socket.set_send_buffer_size(bytes);
    }
    // Kernels before 5.0 deliver one by one.
    let _ = set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    if address.is_ipv4() {
        let _ =
            set_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT);
    }
    Ok(socket.into())
}

fn bind_tcp(address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of the process before us, which the kernel remembers, are no hindrance.
    socket.set_reuse_address(true)?;
    bind(&socket, address, sharing)?;
    // What is accepted inherits both. Media waits for nothing, and nothing waits for media for long.
    socket.set_tcp_nodelay(true)?;
    let _ = socket.set_send_buffer_size(TCP_SEND_BUFFER);
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A TCP socket that listens on a relayed address. Connections to peers leave from it as well, so it
/// is shared; what was accepted on it before is no hindrance.
pub(super) fn listen_for_peers(address: SocketAddr) -> io::Result<TcpListener> {
    bind_tcp(address, Sharing::FromNowOn)
}

/// Begins to connect a peer from a relayed address that is listened on.
pub(super) fn connect_peer(from: SocketAddr, peer: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(from), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    bind(&socket, from, Sharing::Yes)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&peer.into()) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
        _ => Ok(socket.into()),
    }
}

fn bind(socket: &Socket, address: SocketAddr, sharing: Sharing) -> io::Result<()> {
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    if sharing == Sharing::Yes {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    if sharing == Sharing::FromNowOn {
        socket.set_reuse_port(true)?;
    }
    Ok(())
}

/// An unspecified address stands for all of the machine's: answers then leave from the address
/// that was asked, and a relayed address is one that peers can reach.
fn local_ips(ip: IpAddr) -> io::Result<Vec<IpAddr>> {
    if !ip.is_unspecified() {
        return Ok(vec![ip]);
    }
    let usable = |other: &IpAddr| match other {
        IpAddr::V4(v4) => ip.is_ipv4() && !v4.is_unspecified(),
        IpAddr::V6(v6) => ip.is_ipv6() && !v6.is_unicast_link_local(),
    };
    let mut ips: Vec<IpAddr> =
        if_addrs::get_if_addrs()?.into_iter().map(|i| i.ip()).filter(usable).collect();
    ips.sort();
    ips.dedup();
    Ok(ips)
}
