//! What the shards of one relay share: secrets, quotas, and the ports they relay from. Touched when an
//! allocation is made or ends; a packet reads at most one bit of it, and counts on two meters.

use super::allocation::ReservationToken;
use super::complaints::Complaints;
use super::config::TurnConfig;
use super::credentials::Secrets;
use super::quota::{Place, Quota};
use ring::hmac;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub struct Shared {
    pub(super) quota: Arc<Quota>,
    pub(super) complaints: Complaints,
    /// Of the credentials; may be replaced at any time.
    pub secrets: Arc<Secrets>,
    seed: hmac::Key,
    /// What nonces count their age from.
    pub(super) started: Instant,
    taken: Vec<(IpAddr, PortSet)>,
    reserved: Mutex<HashMap<ReservationToken, Reserved>>,
}

/// One bit for each port of an address.
struct PortSet(Box<[AtomicU64]>);

/// The odd neighbour of an even port, held for a while (RFC 8656 §7.2). No socket is open for it, so
/// that whichever shard the token comes to can open one.
struct Reserved {
    local: SocketAddr,
    /// Counts as an allocation, and names its session.
    place: Place,
    expires: Instant,
}

impl Shared {
    /// `listeners` are the addresses clients come to; `seed` is secret randomness.
    pub fn new(
        config: &TurnConfig,
        listeners: &[SocketAddr],
        seed: [u8; 32],
        now: Instant,
    ) -> Shared {
        let mut ips: Vec<IpAddr> = config.relay_ips.clone();
        ips.extend(listeners.iter().map(SocketAddr::ip));
        ips.sort();
        ips.dedup();
        Shared {
            quota: Quota::new(config, now),
            complaints: Complaints::default(),
            secrets: Arc::new(Secrets::new(&config.secrets)),
            seed: hmac::Key::new(hmac::HMAC_SHA256, &seed),
            started: now,
            taken: ips.into_iter().map(|ip| (ip, PortSet::new())).collect(),
            reserved: Mutex::default(),
        }
    }

    /// 32 secret bytes: the same for the same purpose and number, others for any other.
    pub(super) fn secret(&self, purpose: &str, number: u16) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.seed);
        context.update(&number.to_be_bytes());
        context.update(purpose.as_bytes());
        let mut secret = [0; 32];
        secret.copy_from_slice(context.sign().as_ref());
        secret
    }

    /// Marks a port as one that we relay from; false if it is that already.
    pub(super) fn take(&self, local: SocketAddr) -> bool {
        self.ports(local.ip()).is_none_or(|ports| ports.set(local.port()))
    }

    pub(super) fn give_back(&self, local: SocketAddr) {
        if let Some(ports) = self.ports(local.ip()) {
            ports.clear(local.port());
        }
    }

    /// Whether this is a relayed address of ours.
    pub(super) fn is_taken(&self, local: SocketAddr) -> bool {
        self.ports(local.ip()).is_some_and(|ports| ports.contains(local.port()))
    }

    /// Keeps a port that was taken for whoever brings the token.
    pub(super) fn reserve(
        &self,
        token: ReservationToken,
        local: SocketAddr,
        place: Place,
        expires: Instant,
    ) {
        self.reserved().insert(token, Reserved { local, place, expires });
    }

    /// Hands a reserved port out; only its own session may have it.
    pub(super) fn claim(
        &self,
        token: &ReservationToken,
        session: &str,
        now: Instant,
    ) -> Option<(SocketAddr, Place)> {
        let mut reserved = self.reserved();
        let entry = reserved.get(token)?;
        if entry.place.name.session() != session || entry.expires <= now {
            return None;
        }
        reserved.remove(token).map(|entry| (entry.local, entry.place))
    }

    /// Gives back what nobody claimed in time.
    pub(super) fn expire(&self, token: &ReservationToken) {
        if let Some(reserved) = self.reserved().remove(token) {
            self.give_back(reserved.local);
        }
    }

    /// Gives back all that is held for a session, and lets it take nothing more; how many ports that
    /// were.
    pub(super) fn close(&self, session: &str) -> usize {
        self.quota.close(session);
        let mut count = 0;
        self.reserved().retain(|_, r| {
            let goes = r.place.name.session() == session;
            if goes {
                self.give_back(r.local);
                count += 1;
            }
            !goes
        });
        count
    }

    fn ports(&self, ip: IpAddr) -> Option<&PortSet> {
        self.taken.iter().find(|(other, _)| *other == ip).map(|(_, ports)| ports)
    }

    fn reserved(&self) -> MutexGuard<'_, HashMap<ReservationToken, Reserved>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PortSet {
    fn new() -> PortSet {
        PortSet((0..=u16::MAX >> 6).map(|_| AtomicU64::new(0)).collect())
    }

    /// False if it was set already.
    fn set(&self, port: u16) -> bool {
        let (word, bit) = self.place(port);
        word.fetch_or(bit, Relaxed) & bit == 0
    }

    fn clear(&self, port: u16) {
        let (word, bit) = self.place(port);
        word.fetch_and(!bit, Relaxed);
    }

    fn contains(&self, port: u16) -> bool {
        let (word, bit) = self.place(port);
        word.load(Relaxed) & bit != 0
    }

    fn place(&self, port: u16) -> (&AtomicU64, u64) {
        (&self.0[usize::from(port >> 6)], 1 << (port & 63))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[allow(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn shared() -> (Shared, Instant) {
        let now = Instant::now();
        let listeners = ["192.0.2.1:3478".parse().unwrap()];
        (Shared::new(&TurnConfig::default(), &listeners, [7; 32], now), now)
    }

    #[test]
    fn a_port_is_taken_once() {
        let (shared, _) = shared();
        for port in [0, 63, 64, 49_152, 65_535] {
            let local = SocketAddr::from(([192, 0, 2, 1], port));
            assert!(!shared.is_taken(local));
            assert!(shared.take(local) && shared.is_taken(local));
            assert!(!shared.take(local));
            shared.give_back(local);
            assert!(!shared.is_taken(local));
        }
        let foreign = "198.51.100.1:49152".parse().unwrap();
        assert!(shared.take(foreign) && !shared.is_taken(foreign));
    }

    #[test]
    fn a_reservation_is_its_sessions_alone_and_ends() {
        let (shared, now) = shared();
        let local: SocketAddr = "192.0.2.1:50001".parse().unwrap();
        let expires = now + Duration::from_secs(30);
        for token in [[1; 8], [2; 8], [3; 8]] {
            let place = shared.quota.take(&"99:a".into()).unwrap();
            shared.reserve(token, local, place, expires);
        }
        let claim = |token, session, now| shared.claim(token, session, now).map(|c| c.0);
        assert_eq!(claim(&[1; 8], "b", now), None);
        assert_eq!(claim(&[1; 8], "a", expires), None);
        assert_eq!(claim(&[1; 8], "a", now), Some(local));
        assert_eq!(claim(&[1; 8], "a", now), None);
        assert!(shared.take(local));
        shared.expire(&[2; 8]);
        assert!(!shared.is_taken(local));
        assert_eq!(shared.quota.places(), 1);
        assert_eq!((shared.close("b"), shared.close("a"), shared.close("a")), (0, 1, 0));
        assert_eq!(shared.quota.places(), 0);
        assert!(shared.quota.take(&"99:a".into()).is_err(), "it is over");
        assert!(shared.quota.take(&"99:c".into()).is_ok());
    }

    #[test]
    fn secrets_differ_by_purpose_and_number() {
        let (shared, _) = shared();
        assert_eq!(shared.secret("nonce", 0), shared.secret("nonce", 0));
        assert_ne!(shared.secret("nonce", 0), shared.secret("nonce", 1));
        assert_ne!(shared.secret("nonce", 0), shared.secret("ports", 0));
    }
}
