//! From ready to stopped: what each signal does.
//!
//! | Signal | |
//! |---|---|
//! | SIGHUP | the configuration is read again, see [`Reload`](super::Reload) |
//! | SIGTERM | nobody new is taken; those who are there have `drain_s` to leave |
//! | SIGINT, or a second signal | the end, at once |

use crate::config::{Loaded, Source};
use crate::logger;
use crate::server::Server;
use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that the process listens to, from the moment on that this is made.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

enum Wish {
    Reload,
    Drain,
    Stop,
}

/// How often a draining server looks whether somebody is left.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Signals {
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Drain,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hang_up.recv() => Wish::Reload,
        }
    }

    /// The next one that means the end.
    async fn end(&mut self) {
        while let Wish::Reload = self.next().await {}
    }
}

/// Serves until a signal ends it.
pub async fn run(server: Server, source: Source, mut loaded: Loaded, mut signals: Signals) {
    server.ops.reload.add(&["log", "log_format", "log_limit"], |config| {
        logger::init(config.logging());
        Ok(())
    });
    // Read where it is needed, below.
    server.ops.reload.add(&["drain_s"], |_| Ok(()));
    loop {
        match signals.next().await {
            Wish::Reload => reload(&server, &source, &mut loaded),
            Wish::Drain => {
                let patience = Duration::from_secs(loaded.config.drain_s);
                tokio::select! {
                    () = drain(&server, patience) => {}
                    () = signals.end() => log::info!("a second signal: no more waiting"),
                }
                break;
            }
            Wish::Stop => break,
        }
    }
    log::info!("stopping");
    tokio::select! {
        () = server.stop() => {}
        () = signals.end() => log::info!("one more signal: stopped at once"),
    }
    logger::flush();
}

fn reload(server: &Server, source: &Source, loaded: &mut Loaded) {
    match source.load() {
        Ok(new) => {
            server.ops.reload.apply(loaded, &new).log();
            *loaded = new;
        }
        Err(error) => {
            server.ops.reload.on_outcome(false);
            log::error!("reload: {error}; everything stays as it was");
        }
    }
}

/// Lets those who are there finish: ends when nobody is left, or when `patience` is over.
async fn drain(server: &Server, patience: Duration) {
    server.ops.health.drain();
    if server.is_idle() {
        return;
    }
    log::info!("draining: no new sessions; {patience:?} for {}", server.who_is_here());
    let nobody_left = async {
        while !server.is_idle() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    if tokio::time::timeout(patience, nobody_left).await.is_err() {
        log::info!("draining: {patience:?} are over; still here: {}", server.who_is_here());
    }
}
