//! Names of STUN and TURN servers, looked up without holding anything up.

use crate::wire::signal::SessionId;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinSet;

/// Look-ups under way. Bound: four a session, by what the agent asks for.
#[derive(Default)]
pub(super) struct Resolver {
    lookups: JoinSet<Answer>,
}

pub(super) struct Answer {
    pub(super) session: SessionId,
    /// Which of the session's servers this is.
    pub(super) server: usize,
    pub(super) addr: Option<SocketAddr>,
}

/// A camera with broken DNS must not wait for its resolver's own 30 seconds.
const TIMEOUT: Duration = Duration::from_secs(5);

impl Resolver {
    pub(super) fn start(&mut self, session: SessionId, server: usize, host: String, port: u16) {
        self.lookups.spawn(async move {
            let lookup = tokio::net::lookup_host((host.as_str(), port));
            let addr = match tokio::time::timeout(TIMEOUT, lookup).await {
                Ok(Ok(addrs)) => pick(addrs),
                Ok(Err(e)) => {
                    log::warn!("sessionId={session} looking up {host}: {e}");
                    None
                }
                Err(_) => {
                    log::warn!("sessionId={session} looking up {host}: no answer in {TIMEOUT:?}");
                    None
                }
            };
            Answer { session, server, addr }
        });
    }

    /// The next answer. Waits for ever while nothing is asked. Cancel-safe.
    pub(super) async fn next(&mut self) -> Answer {
        loop {
            match self.lookups.join_next().await {
                Some(Ok(answer)) => return answer,
                Some(Err(e)) => log::error!("a look-up failed: {e}"),
                None => std::future::pending::<()>().await,
            }
        }
    }
}

/// IPv4 first: relays give out IPv4 addresses unless asked otherwise.
fn pick(addrs: impl Iterator<Item = SocketAddr>) -> Option<SocketAddr> {
    let mut fallback = None;
    for addr in addrs {
        if addr.is_ipv4() {
            return Some(addr);
        }
        fallback.get_or_insert(addr);
    }
    fallback
}
