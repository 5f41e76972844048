//! The thread between the sockets and the core.

use super::receive::Receiver;
use super::send::SendQueue;
use super::server::{Observers, TurnCounters};
use super::sys::{Epoll, Waker, set_option};
use crate::stun_turn::answers::MAX_REPLY_LEN;
use crate::stun_turn::core::{Action, Client, Core, Now};
use crate::stun_turn::relays::{Opened, RelayId, RelayPorts};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Inbox, TryRecvError};
use std::time::{Instant, SystemTime};

pub(super) struct Shard {
    core: Core,
    sockets: Sockets,
    listeners: Vec<UdpSocket>,
    inbox: Inbox<Command>,
    waker: Arc<Waker>,
    observers: Observers,
    counters: Arc<TurnCounters>,
    receiver: Receiver,
    queue: SendQueue,
    reply: Box<[u8; MAX_REPLY_LEN]>,
}

/// From other threads. The end of the channel ends the thread.
pub(super) enum Command {
    CloseSession(String),
}

/// What the core's relay ids stand for.
struct Sockets {
    epoll: Epoll,
    relays: Vec<Option<RelaySocket>>,
}

struct RelaySocket {
    socket: UdpSocket,
    dont_fragment: bool,
}

const WAKER_TOKEN: u64 = u64::MAX;
const RELAY_TOKENS: u64 = 1 << 32;
/// Batches from one busy socket before the others have their turn.
const MAX_BATCHES: usize = 4;
/// Bytes the kernel may hold for the sockets all clients share, if it allows as many.
const LISTENER_BUFFER: usize = 4 << 20;

impl Shard {
    pub(super) fn new(
        core: Core,
        listeners: Vec<UdpSocket>,
        inbox: Inbox<Command>,
        waker: Arc<Waker>,
        observers: Observers,
        counters: Arc<TurnCounters>,
    ) -> io::Result<Shard> {
        let epoll = Epoll::new()?;
        epoll.add(&*waker, WAKER_TOKEN)?;
        for (i, socket) in listeners.iter().enumerate() {
            epoll.add(socket, i as u64)?;
        }
        Ok(Shard {
            core,
            sockets: Sockets { epoll, relays: Vec::new() },
            listeners,
            inbox,
            waker,
            observers,
            counters,
            receiver: Receiver::new(),
            queue: SendQueue::new(),
            reply: Box::new([0; MAX_REPLY_LEN]),
        })
    }

    /// Until the channel of commands ends.
    pub(super) fn run(mut self) {
        let mut tokens = Vec::new();
        loop {
            let wait =
                self.core.poll_timeout().map(|at| at.saturating_duration_since(now().instant));
            if let Err(error) = self.sockets.epoll.wait(&mut tokens, wait) {
                log::error!("TURN stops: waiting for datagrams failed: {error}");
                break;
            }
            let now = now();
            let mut ended = false;
            for &token in &tokens {
                match token {
                    WAKER_TOKEN => ended = self.on_wake(),
                    token if token >= RELAY_TOKENS => {
                        self.on_relay(now, RelayId((token - RELAY_TOKENS) as u32));
                    }
                    listener => self.on_listener(now, listener as usize),
                }
            }
            self.core.handle_timeout(now.instant, &mut self.sockets);
            self.report();
            if ended {
                break;
            }
        }
    }

    /// Whether it was the last time.
    fn on_wake(&mut self) -> bool {
        self.waker.clear();
        loop {
            match self.inbox.try_recv() {
                Ok(Command::CloseSession(name)) => {
                    let count = self.core.close_session(&name, &mut self.sockets);
                    if count > 0 {
                        log::info!("sessionId={name} closed: {count} TURN allocations freed");
                    }
                }
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
    }

    fn on_listener(&mut self, now: Now, index: usize) {
        let Some(listener) = self.listeners.get(index) else { return };
        for _ in 0..MAX_BATCHES {
            self.receiver.receive(listener);
            let arena = self.receiver.arena();
            for run in self.receiver.runs() {
                let client = Client { listener: index as u16, address: run.source };
                let end = run.offset + run.len;
                for start in (run.offset..end).step_by(run.segment) {
                    let data = &arena[start..(start + run.segment).min(end)];
                    if !self.queue.has_room() {
                        self.queue.flush(arena);
                    }
                    let reply = &mut self.reply[..];
                    match self.core.handle_client(now, client, data, &mut self.sockets, reply) {
                        Action::None => {}
                        Action::Reply { len } => {
                            let (fd, reply) = (listener.as_raw_fd(), &self.reply[..len]);
                            self.queue.push(fd, client.address, reply, 0..0, 0);
                        }
                        Action::ToPeer { relay, peer, payload, dont_fragment } => {
                            let Some(relay) = self.sockets.get(relay) else { continue };
                            if relay.dont_fragment != dont_fragment {
                                // The option is the socket's: what was gathered goes out before.
                                self.queue.flush(arena);
                                relay.set_dont_fragment(dont_fragment);
                            }
                            let start = payload.as_ptr() as usize - arena.as_ptr() as usize;
                            let range = start..start + payload.len();
                            self.queue.push(relay.socket.as_raw_fd(), peer, &[], range, 0);
                        }
                    }
                }
            }
            self.queue.flush(arena);
            if !self.receiver.may_have_more() {
                break;
            }
        }
    }

    fn on_relay(&mut self, now: Now, id: RelayId) {
        for _ in 0..MAX_BATCHES {
            // Closed by an event before this one.
            let Some(relay) = self.sockets.get(id) else { return };
            self.receiver.receive(&relay.socket);
            let arena = self.receiver.arena();
            for run in self.receiver.runs() {
                let end = run.offset + run.len;
                for start in (run.offset..end).step_by(run.segment) {
                    let range = start..(start + run.segment).min(end);
                    let Some(out) = self.core.handle_peer(now, id, run.source, range.len()) else {
                        continue;
                    };
                    let Some(listener) = self.listeners.get(usize::from(out.client.listener))
                    else {
                        continue;
                    };
                    if !self.queue.has_room() {
                        self.queue.flush(arena);
                    }
                    let (fd, client) = (listener.as_raw_fd(), out.client.address);
                    self.queue.push(fd, client, out.prefix(), range, out.padding);
                }
            }
            self.queue.flush(arena);
            if !self.receiver.may_have_more() {
                break;
            }
        }
    }

    fn report(&mut self) {
        while let Some(event) = self.core.poll_event() {
            self.observers.tell(event);
        }
        self.counters.publish(&self.core.stats(), self.core.allocations(), self.queue.dropped());
    }
}

impl Sockets {
    fn get(&mut self, id: RelayId) -> Option<&mut RelaySocket> {
        self.relays.get_mut(id.0 as usize)?.as_mut()
    }
}

impl RelayPorts for Sockets {
    fn open(&mut self, id: RelayId, address: SocketAddr) -> Opened {
        let socket = match bind(address, None) {
            Ok(socket) => socket,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Opened::Taken,
            Err(error) => {
                log::warn!("TURN cannot relay from {address}: {error}");
                return Opened::Impossible;
            }
        };
        if let Err(error) = self.epoll.add(&socket, RELAY_TOKENS + u64::from(id.0)) {
            log::warn!("TURN cannot watch {address}: {error}");
            return Opened::Impossible;
        }
        let index = id.0 as usize;
        if self.relays.len() <= index {
            self.relays.resize_with(index + 1, || None);
        }
        self.relays[index] = Some(RelaySocket { socket, dont_fragment: false });
        Opened::Here
    }

    fn close(&mut self, id: RelayId) {
        if let Some(relay) = self.relays.get_mut(id.0 as usize) {
            *relay = None;
        }
    }
}

impl RelaySocket {
    /// RFC 8656 §14: the client finds the path's MTU by it. Over IPv6 only senders fragment.
    fn set_dont_fragment(&mut self, on: bool) {
        self.dont_fragment = on;
        let mode = if on { libc::IP_PMTUDISC_PROBE } else { libc::IP_PMTUDISC_DONT };
        if let Err(error) = set_option(&self.socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, mode)
        {
            log::debug!("TURN cannot set Don't Fragment: {error}");
        }
    }
}

/// A UDP socket for the plane: non-blocking, of one family only, with merged reads if possible.
pub(super) fn bind(address: SocketAddr, buffer: Option<usize>) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
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

pub(super) fn bind_listener(address: SocketAddr) -> io::Result<UdpSocket> {
    bind(address, Some(LISTENER_BUFFER))
}

/// The server's clock: everything below is told the time.
#[allow(clippy::disallowed_methods, reason = "this thread is the relay's driver")]
pub(super) fn now() -> Now {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), unix_s: unix.as_secs() }
}
