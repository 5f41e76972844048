//! Starting, watching and stopping the relay.

use super::admission::Admission;
use super::counters::TurnCounters;
use super::dtls;
use super::listeners::{Listener, Listeners, Security, kernel_shares_ports};
use super::observers::{Observers, TurnObserver};
use super::shard::{Command, Parts, Remote, Shard, now};
use super::sys::{Waker, raise_file_limit};
use crate::stun_turn::config::{MAX_SHARDS, TurnConfig};
use crate::stun_turn::core::Core;
use crate::stun_turn::shared::Shared;
use crate::stun_turn::traffic::Traffic;
use crate::tls::Tls;
use ring::rand::{SecureRandom as _, SystemRandom};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

pub struct TurnServer;

/// The running relay. Dropping it stops it as well.
pub struct TurnHandle {
    shared: Arc<Shared>,
    local_addrs: Vec<SocketAddr>,
    tls_addrs: Vec<SocketAddr>,
    counters: Arc<TurnCounters>,
    shards: Arc<[Remote]>,
    /// Empty once stopped. Calls are rare, so a lock does.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl TurnServer {
    /// As [`start_with_tls`](TurnServer::start_with_tls), without a certificate.
    pub fn start(config: TurnConfig, observer: Arc<dyn TurnObserver>) -> io::Result<TurnHandle> {
        TurnServer::start_with_tls(config, None, observer)
    }

    /// Binds all listeners and starts the relay's threads. Errors say which setting to change.
    pub fn start_with_tls(
        config: TurnConfig,
        tls: Option<Tls>,
        observer: Arc<dyn TurnObserver>,
    ) -> io::Result<TurnHandle> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
        config.check().map_err(|text| invalid(format!("turn.{text}")))?;
        if tls.is_none() && !config.tls_listen.is_empty() {
            let text = "turn.tls_listen needs a certificate: set tls.certificate and tls.key";
            return Err(invalid(text.into()));
        }
        raise_file_limit();
        let count = shard_count(&config);
        let mut listeners = Listeners::new(count);
        let local_addrs = listeners.listen("turn.listen", &config.listen, Security::Plain)?;
        let security = Security::Tls { dtls: tls.as_ref().is_some_and(serves_dtls) };
        let tls_addrs = listeners.listen("turn.tls_listen", &config.tls_listen, security)?;

        let mut seed = [0; 32];
        SystemRandom::new()
            .fill(&mut seed)
            .map_err(|_| io::Error::other("the system has no randomness to give"))?;
        let started = now().instant;
        let shared = Arc::new(Shared::new(&config, &listeners.addresses, seed, started));
        let admission = Admission::new(config.max_connections, config.max_connections_per_address);
        let counters = Arc::new(TurnCounters::default());
        let (mut remotes, mut inboxes) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (commands, inbox) = channel();
            remotes.push(Remote { commands, waker: Arc::new(Waker::new()?) });
            inboxes.push(inbox);
        }
        let handle = TurnHandle {
            shared: shared.clone(),
            local_addrs,
            tls_addrs,
            counters: counters.clone(),
            shards: remotes.into(),
            threads: Mutex::default(),
        };
        for ((number, own), inbox) in listeners.shards.into_iter().enumerate().zip(inboxes) {
            let addresses = listeners.addresses.clone();
            let mut core = Core::of_shard(config.clone(), addresses, shared.clone(), number as u16);
            core.set_streams(own.iter().map(Listener::is_stream).collect());
            let parts = Parts {
                core,
                listeners: own,
                tls: tls.clone(),
                cookie_secret: shared.secret("cookies", 0),
                started,
                admission: admission.clone(),
                inbox,
                siblings: handle.shards.clone(),
                waker: handle.shards[number].waker.clone(),
                observers: Observers { observer: observer.clone() },
                counters: counters.clone(),
            };
            let thread = start_shard(number, parts)?;
            handle.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        log::info!("STUN and TURN on UDP and TCP {:?}, {count} shards", handle.local_addrs);
        if !handle.tls_addrs.is_empty() {
            let dtls = if security == (Security::Tls { dtls: true }) { " and DTLS" } else { "" };
            log::info!("STUN and TURN by TLS{dtls} on {:?}", handle.tls_addrs);
        }
        Ok(handle)
    }
}

/// One for each core that this process may use, and only one where they cannot share a port.
fn shard_count(config: &TurnConfig) -> usize {
    if !kernel_shares_ports() {
        return 1;
    }
    match config.shards {
        0 => std::thread::available_parallelism().map_or(1, usize::from).min(MAX_SHARDS),
        count => count,
    }
}

/// Whether the key is one that DTLS can use; TLS can use more.
fn serves_dtls(tls: &Tls) -> bool {
    match dtls::check(tls) {
        Ok(()) => true,
        Err(error) => {
            log::warn!("turn.tls_listen serves TLS and not DTLS: {error}");
            false
        }
    }
}

fn start_shard(number: usize, parts: Parts) -> io::Result<JoinHandle<()>> {
    // Made on its own thread, because its buffers hold raw pointers while a call lasts.
    let (started, outcome) = channel();
    let name = format!("turn-{number}");
    let thread = std::thread::Builder::new().name(name).spawn(move || match Shard::new(parts) {
        Ok(shard) => {
            let _ = started.send(Ok(()));
            shard.run();
        }
        Err(error) => {
            let _ = started.send(Err(error));
        }
    })?;
    outcome.recv().map_err(|_| io::Error::other("a TURN thread ended at once"))??;
    Ok(thread)
}

impl TurnHandle {
    /// Where UDP and TCP are served; an unspecified address was replaced by this machine's own.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// Where TLS is served, and DTLS if the key is one for it.
    pub fn tls_addrs(&self) -> &[SocketAddr] {
        &self.tls_addrs
    }

    /// Frees all allocations of a session at once; `name` is its id, or a static user's name.
    pub fn close_user(&self, name: &str) {
        for shard in &*self.shards {
            shard.send(Command::CloseSession(name.to_owned()));
        }
    }

    /// What each of these sessions has relayed here, in their order; of the first
    /// [`MAX_ASKED`](crate::stun_turn::MAX_ASKED). A shard that has ended has relayed nothing.
    pub async fn traffic(&self, sessions: Arc<[String]>) -> Vec<Traffic> {
        let asked = self.shards.iter().map(|shard| {
            let (answer, answered) = oneshot::channel();
            shard.send(Command::Tell { sessions: sessions.clone(), answer });
            answered
        });
        // All of them first, so that they look at the same time.
        let asked: Vec<_> = asked.collect();
        let mut all = vec![Traffic::default(); sessions.len()];
        for answered in asked {
            let of_shard = answered.await.unwrap_or_default();
            all.iter_mut().zip(of_shard).for_each(|(sum, traffic)| *sum += traffic);
        }
        all
    }

    /// Exchanges the secrets of the credentials. No allocation ends by it; new ones must be proven by
    /// one of these. The error says what is wrong with them.
    pub fn set_secrets(&self, secrets: &[Vec<u8>]) -> Result<(), String> {
        self.shared.secrets.replace(secrets)
    }

    /// Alive now.
    pub fn allocations(&self) -> u64 {
        self.counters.allocations.load(Relaxed)
    }

    /// Whether all of the relay's threads still run.
    pub fn is_running(&self) -> bool {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        !threads.is_empty() && threads.iter().all(|thread| !thread.is_finished())
    }

    pub fn counters(&self) -> &Arc<TurnCounters> {
        &self.counters
    }

    /// Ends the relay and waits for its threads. A second call does nothing.
    pub fn shutdown(&self) {
        for shard in &*self.shards {
            shard.send(Command::Stop);
        }
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a TURN thread panicked");
            }
        }
    }
}

impl Drop for TurnHandle {
    fn drop(&mut self) {
        self.shutdown();
    }
}
