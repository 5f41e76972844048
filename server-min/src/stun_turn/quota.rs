//! How much a session and the whole node may take: relay sockets, and bandwidth. A session's
//! allocations may lie in different shards of the relay, so this is one thing for all of them.
//!
//! Its lock is taken where something is allocated or freed, never for a packet: a packet meets its
//! session's [`Account`] through the relay socket it passes.

use super::bandwidth::{Cap, Meter};
use super::closed::Closed;
use super::config::TurnConfig;
use super::credentials::{Name, session_of};
use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// One for all cores of a relay.
pub(super) struct Quota {
    per_session: usize,
    total: usize,
    bandwidth: Bandwidth,
    /// All sessions together.
    node_cap: Cap,
    node: Meter,
    /// The meters count from here.
    epoch: Instant,
    sessions: Mutex<Sessions>,
}

/// The settings that a session's cap follows from.
struct Bandwidth {
    default_bps: u64,
    max_bps: u64,
    burst_bytes: u64,
}

#[derive(Default)]
struct Sessions {
    /// Of all sessions.
    places: usize,
    by_name: HashMap<SessionName, Held>,
    closed: Closed,
}

struct Held {
    account: Arc<Account>,
    places: usize,
}

/// What a session's bandwidth is counted on, wherever its allocations are: one meter for what
/// clients send into the relay, one for what it hands to clients.
#[derive(Debug)]
pub(super) struct Account {
    cap: Cap,
    to_peers: Meter,
    to_clients: Meter,
}

/// The right to one relay socket. It is given back by being dropped.
pub(super) struct Place {
    quota: Arc<Quota>,
    pub(super) name: SessionName,
    account: Arc<Account>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// The session, or the relay, has as many as it may have.
    SessionFull,
    RelayFull,
    /// The session has ended.
    Closed,
}

/// Whose bandwidth cap a packet is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Session,
    Node,
}

/// A user name that is the same key as every other one of its session.
#[derive(Debug, Clone)]
pub(super) struct SessionName(Arc<str>);

impl Quota {
    pub(super) fn new(config: &TurnConfig, now: Instant) -> Arc<Quota> {
        let bandwidth = Bandwidth {
            default_bps: config.bandwidth_bps,
            max_bps: config.max_bandwidth_bps,
            burst_bytes: config.bandwidth_burst_bytes,
        };
        Arc::new(Quota {
            per_session: config.allocations_per_session,
            total: config.allocations_total,
            node_cap: bandwidth.cap(config.total_bandwidth_bps),
            bandwidth,
            node: Meter::default(),
            epoch: now,
            sessions: Mutex::default(),
        })
    }

    /// A place for one more relay socket of the session that this user name belongs to. The first
    /// name of a session says its bandwidth, for as long as the session holds anything.
    pub(super) fn take(self: &Arc<Self>, username: &Arc<str>) -> Result<Place, NoPlace> {
        let mut sessions = self.sessions();
        let who = Name::parse(username);
        if who.expiry_s.is_some() && sessions.closed.contains(who.session) {
            return Err(NoPlace::Closed);
        }
        if sessions.places >= self.total {
            return Err(NoPlace::RelayFull);
        }
        let name = SessionName(username.clone());
        let held = match sessions.by_name.entry(name.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if self.per_session == 0 => return Err(NoPlace::SessionFull),
            Entry::Vacant(entry) => {
                let account = Arc::new(Account::new(self.bandwidth.cap_of(username)));
                entry.insert(Held { account, places: 0 })
            }
        };
        if held.places >= self.per_session {
            return Err(NoPlace::SessionFull);
        }
        held.places += 1;
        let account = held.account.clone();
        sessions.places += 1;
        Ok(Place { quota: self.clone(), name, account })
    }

    /// Gives this session no more places. A static user may come back.
    pub(super) fn close(&self, session: &str) {
        self.sessions().closed.insert(session);
    }

    /// Taken now, of all sessions.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.sessions().places
    }

    fn give_back(&self, name: &SessionName) {
        let mut sessions = self.sessions();
        sessions.places -= 1;
        if let Entry::Occupied(mut entry) = sessions.by_name.entry(name.clone()) {
            entry.get_mut().places -= 1;
            if entry.get().places == 0 {
                entry.remove();
            }
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bandwidth {
    /// What the name says, which whoever holds the secret has signed; but never above the bound.
    fn cap_of(&self, username: &str) -> Cap {
        self.cap(match (Name::parse(username).bandwidth_bps, self.max_bps) {
            (None, _) => self.default_bps,
            (Some(bps), 0) => bps,
            (Some(bps), max) => bps.min(max),
        })
    }

    /// Faster streams have larger keyframes: the burst grows with the rate.
    fn cap(&self, bps: u64) -> Cap {
        let times = if self.default_bps == 0 { 1.0 } else { bps as f64 / self.default_bps as f64 };
        Cap::new(bps, (self.burst_bytes as f64 * times.max(1.0)) as u64)
    }
}

impl Account {
    fn new(cap: Cap) -> Account {
        Account { cap, to_peers: Meter::default(), to_clients: Meter::default() }
    }
}

impl Place {
    /// Counts a packet from a client on its way to a peer; it passes unless this is an error.
    pub(super) fn to_peer(&self, now: Instant, bytes: usize) -> Result<(), Over> {
        self.pass(&self.account.to_peers, now, bytes)
    }

    /// The same for the other way.
    pub(super) fn to_client(&self, now: Instant, bytes: usize) -> Result<(), Over> {
        self.pass(&self.account.to_clients, now, bytes)
    }

    /// The session's cap comes first, so that a session over its own takes nothing from the others;
    /// and what the node does not let through is not taken from the session.
    fn pass(&self, meter: &Meter, now: Instant, bytes: usize) -> Result<(), Over> {
        let since = now.saturating_duration_since(self.quota.epoch);
        let now_ns = since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos());
        if !meter.take(now_ns, bytes, &self.account.cap) {
            return Err(Over::Session);
        }
        if !self.quota.node.take(now_ns, bytes, &self.quota.node_cap) {
            meter.give_back(bytes, &self.account.cap);
            return Err(Over::Node);
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.quota.give_back(&self.name);
    }
}

impl SessionName {
    pub(super) fn session(&self) -> &str {
        session_of(&self.0)
    }
}

impl Borrow<str> for SessionName {
    fn borrow(&self) -> &str {
        self.session()
    }
}

impl Hash for SessionName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.session().hash(state);
    }
}

impl PartialEq for SessionName {
    fn eq(&self, other: &SessionName) -> bool {
        self.session() == other.session()
    }
}

impl Eq for SessionName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn quota(per_session: usize, total: usize) -> Arc<Quota> {
        let config = TurnConfig {
            allocations_per_session: per_session,
            allocations_total: total,
            ..TurnConfig::default()
        };
        Quota::new(&config, Instant::now())
    }

    #[test]
    fn places_come_back_when_they_are_dropped() {
        let quota = quota(2, 3);
        let take = |name: &str| quota.take(&name.into());
        let (one, two) = (take("99:a").unwrap(), take("98:a:500").unwrap());
        assert_eq!(take("99:a").err(), Some(NoPlace::SessionFull));
        let three = take("99:b").unwrap();
        assert_eq!(take("99:c").err(), Some(NoPlace::RelayFull));
        drop((one, three));
        assert_eq!(quota.places(), 1);
        assert!(take("99:c").is_ok());
        assert!(take("99:a").is_ok());
        drop(two);
        assert_eq!(quota.places(), 0);
        assert!(quota.sessions().by_name.is_empty());
    }

    #[test]
    fn threads_take_no_more_than_there_is() {
        let quota = quota(8, 20);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let quota = &quota;
                scope.spawn(move || {
                    for i in 0..2000 {
                        let name: Arc<str> = format!("99:{}", (thread + i) % 5).into();
                        let places: Vec<Place> = (0..4).flat_map(|_| quota.take(&name)).collect();
                        assert!(quota.places() <= 20);
                        drop(places);
                    }
                });
            }
        });
        assert_eq!(quota.places(), 0);
        assert!(quota.sessions().by_name.is_empty());
    }
}
