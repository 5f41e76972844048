//! Starting, watching and stopping the relay.

use super::shard::{Command, Shard, bind_listener, now};
use super::sys::{Waker, raise_file_limit};
use crate::stun_turn::config::TurnConfig;
use crate::stun_turn::core::{Core, CoreEvent, CoreStats};
use crate::stun_turn::credentials::session_of;
use crate::stun_turn::refusals::SharedRefused;
use crate::stun_turn::shared::Shared;
use ring::rand::{SecureRandom as _, SystemRandom};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

pub struct TurnServer;

/// The running relay. Dropping it stops it as well.
pub struct TurnHandle {
    common: Arc<Shared>,
    local_addrs: Vec<SocketAddr>,
    counters: Arc<TurnCounters>,
    waker: Arc<Waker>,
    /// `None` once stopped. Calls are rare, so a lock does.
    commands: Mutex<Option<Sender<Command>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Is told about allocations, on the relay's thread: it must not block.
pub trait TurnObserver: Send + Sync + 'static {
    fn allocation_created(&self, allocation: &AllocationInfo<'_>);
    fn allocation_freed(&self, allocation: &AllocationInfo<'_>, relayed: Relayed);
}

/// For whoever does not care.
impl TurnObserver for () {
    fn allocation_created(&self, _: &AllocationInfo<'_>) {}
    fn allocation_freed(&self, _: &AllocationInfo<'_>, _: Relayed) {}
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllocationInfo<'a> {
    pub username: &'a str,
    /// The part after the expiry; the whole name if it has none.
    pub session_id: &'a str,
    pub relayed: SocketAddr,
}

/// Payload bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed {
    pub to_peers: u64,
    pub to_client: u64,
}

/// Running totals, but for `allocations`. Written by the relay's thread once a wake-up.
#[derive(Debug, Default)]
pub struct TurnCounters {
    /// Alive now.
    pub allocations: AtomicU64,
    pub allocations_created: AtomicU64,
    pub bindings_ok: AtomicU64,
    pub bindings_refused: AtomicU64,
    /// All but Binding.
    pub requests_ok: AtomicU64,
    pub requests_refused: AtomicU64,
    /// Those of `requests_refused` with wrong or expired credentials.
    pub requests_unauthorized: AtomicU64,
    /// Bindings and others, by their error.
    pub refused: SharedRefused,
    pub packets_relayed: AtomicU64,
    pub bytes_relayed: AtomicU64,
    /// Over the bandwidth cap of a session, or of the node.
    pub packets_capped: AtomicU64,
    pub bytes_capped: AtomicU64,
    /// Those of `packets_capped` that were over the node's.
    pub packets_capped_by_node: AtomicU64,
    /// Payload that no permission or channel lets through, or to our own listeners.
    pub packets_denied: AtomicU64,
    /// Neither STUN nor ChannelData, or STUN that no client sends.
    pub packets_malformed: AtomicU64,
    /// Refused by the kernel: a full buffer, or no route.
    pub packets_unsent: AtomicU64,
}

impl TurnServer {
    /// Binds all listeners and starts the relay's thread. Errors say which setting to change.
    pub fn start(config: TurnConfig, observer: Arc<dyn TurnObserver>) -> io::Result<TurnHandle> {
        config
            .check()
            .map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, format!("turn.{text}")))?;
        raise_file_limit();
        let listeners = listen(&config.listen)?;
        let local_addrs =
            listeners.iter().map(UdpSocket::local_addr).collect::<io::Result<Vec<_>>>()?;
        let mut seed = [0; 32];
        SystemRandom::new()
            .fill(&mut seed)
            .map_err(|_| io::Error::other("the system has no randomness to give"))?;
        let common = Arc::new(Shared::new(&config, &local_addrs, seed, now().instant));
        let core = Core::of_shard(config, local_addrs.clone(), common.clone(), 0);
        let counters = Arc::new(TurnCounters::default());
        let waker = Arc::new(Waker::new()?);
        let (commands, inbox) = channel();
        let (shared, watched) = (Arc::clone(&counters), Arc::clone(&waker));
        // Made on its own thread, because its buffers hold raw pointers while a call lasts.
        let (started, outcome) = channel();
        let thread =
            std::thread::Builder::new().name("turn".into()).spawn(move || {
                match Shard::new(core, listeners, inbox, watched, Observers { observer }, shared) {
                    Ok(plane) => {
                        let _ = started.send(Ok(()));
                        plane.run();
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            })?;
        outcome.recv().map_err(|_| io::Error::other("the TURN thread ended at once"))??;
        log::info!("STUN and TURN on UDP {local_addrs:?}");
        Ok(TurnHandle {
            common,
            local_addrs,
            counters,
            waker,
            commands: Mutex::new(Some(commands)),
            thread: Mutex::new(Some(thread)),
        })
    }
}

impl TurnHandle {
    /// One for each listener; an unspecified address was replaced by this machine's own.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// Frees all allocations of a session at once; `name` is its id, or a static user's name.
    pub fn close_user(&self, name: &str) {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(commands) = &*commands {
            let _ = commands.send(Command::CloseSession(name.to_owned()));
            self.waker.wake();
        }
    }

    /// Exchanges the secrets of the credentials. No allocation ends by it; new ones must be proven by
    /// one of these. The error says what is wrong with them.
    pub fn set_secrets(&self, secrets: &[Vec<u8>]) -> Result<(), String> {
        self.common.secrets.replace(secrets)
    }

    /// Alive now.
    pub fn allocations(&self) -> u64 {
        self.counters.allocations.load(Relaxed)
    }

    pub fn counters(&self) -> &Arc<TurnCounters> {
        &self.counters
    }

    /// Ends the relay and waits for its thread. A second call does nothing.
    pub fn shutdown(&self) {
        drop(self.commands.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.waker.wake();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            log::error!("the TURN thread panicked");
        }
    }
}

impl Drop for TurnHandle {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl TurnCounters {
    pub(super) fn publish(&self, stats: &CoreStats, allocations: usize, unsent: u64) {
        let pairs = [
            (&self.allocations, allocations as u64),
            (&self.allocations_created, stats.allocations_created),
            (&self.bindings_ok, stats.bindings_ok),
            (&self.bindings_refused, stats.bindings_refused),
            (&self.requests_ok, stats.requests_ok),
            (&self.requests_refused, stats.requests_refused),
            (&self.requests_unauthorized, stats.requests_unauthorized),
            (&self.packets_relayed, stats.packets_relayed),
            (&self.bytes_relayed, stats.bytes_relayed),
            (&self.packets_capped, stats.packets_capped),
            (&self.bytes_capped, stats.bytes_capped),
            (&self.packets_capped_by_node, stats.packets_capped_by_node),
            (&self.packets_denied, stats.packets_denied),
            (&self.packets_malformed, stats.packets_malformed),
            (&self.packets_unsent, unsent),
        ];
        for (counter, value) in pairs {
            counter.store(value, Relaxed);
        }
        self.refused.publish(&stats.refused);
    }
}

/// The log, and the server's own observer.
pub(super) struct Observers {
    observer: Arc<dyn TurnObserver>,
}

impl Observers {
    pub(super) fn tell(&self, event: CoreEvent) {
        match event {
            CoreEvent::Created { username, relayed } => {
                let session_id = session_of(&username);
                log::info!("sessionId={session_id} TURN allocation {relayed}");
                let info = AllocationInfo { username: &username, session_id, relayed };
                self.observer.allocation_created(&info);
            }
            CoreEvent::Freed { username, relayed, bytes_to_peer, bytes_to_client } => {
                let session_id = session_of(&username);
                log::info!(
                    "sessionId={session_id} TURN allocation {relayed} freed; {bytes_to_peer} bytes \
                     to peers, {bytes_to_client} to the client"
                );
                let info = AllocationInfo { username: &username, session_id, relayed };
                let relayed = Relayed { to_peers: bytes_to_peer, to_client: bytes_to_client };
                self.observer.allocation_freed(&info, relayed);
            }
        }
    }
}

fn listen(addresses: &[SocketAddr]) -> io::Result<Vec<UdpSocket>> {
    let mut sockets = Vec::new();
    for &address in addresses {
        let mut port = address.port();
        for ip in local_ips(address.ip())? {
            let address = SocketAddr::new(ip, port);
            let socket = bind_listener(address).map_err(|error| {
                let text = format!(
                    "cannot serve STUN and TURN on {address}/udp: {error}; \
                     change turn.listen, or stop what uses the port"
                );
                io::Error::new(error.kind(), text)
            })?;
            // Port 0 is chosen once for all addresses that one entry stands for.
            port = socket.local_addr()?.port();
            sockets.push(socket);
        }
    }
    if sockets.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            format!("turn.listen is {addresses:?}, and this machine has no such address"),
        ));
    }
    Ok(sockets)
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
