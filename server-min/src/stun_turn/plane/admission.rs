//! How many clients may hold a connection, all in all and from one address, and for how long without
//! being of use.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Places for clients by TCP, TLS and DTLS; all shards share it. Touched when a connection begins
/// or ends.
pub(super) struct Admission {
    max_total: usize,
    max_per_address: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place; dropping it gives it back.
pub(super) struct Place {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Admission {
    pub(super) fn new(max_total: usize, max_per_address: usize) -> Arc<Admission> {
        Arc::new(Admission { max_total, max_per_address, taken: Mutex::default() })
    }

    pub(super) fn admit(self: &Arc<Admission>, address: IpAddr) -> Option<Place> {
        let address = one_host(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let from_there = taken.by_address.get(&address).copied().unwrap_or(0);
        if taken.total >= self.max_total || from_there >= self.max_per_address {
            return None;
        }
        taken.total += 1;
        taken.by_address.insert(address, from_there + 1);
        Some(Place { admission: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.admission.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// One subscriber of IPv6 has a /64 and more addresses than we could count.
fn one_host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
    }
}

/// When a connection began, and when it last brought a whole message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Age {
    began: Instant,
    heard: Option<Instant>,
}

/// From the connection's begin, handshakes included, to its first whole message.
const FIRST_MESSAGE_WITHIN: Duration = Duration::from_secs(10);
/// Without an allocation. Those who keep a STUN binding ask every 15 to 30 s.
const IDLE_WITHIN: Duration = Duration::from_secs(60);

impl Age {
    pub(super) fn new(now: Instant) -> Age {
        Age { began: now, heard: None }
    }

    pub(super) fn on_message(&mut self, now: Instant) {
        self.heard = Some(now);
    }

    /// When to look at the connection again; `None` if it is to end now.
    pub(super) fn check(&self, now: Instant, has_allocation: bool) -> Option<Instant> {
        let ends = match self.heard {
            // The allocation ends by itself where it is not refreshed.
            Some(_) if has_allocation => now + IDLE_WITHIN,
            Some(heard) => heard + IDLE_WITHIN,
            None => self.began + FIRST_MESSAGE_WITHIN,
        };
        (ends > now).then_some(ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_host_and_given_back() {
        let admission = Admission::new(4, 2);
        let admit = |ip: &str| admission.admit(ip.parse().unwrap());
        let first = admit("192.0.2.1").unwrap();
        let mapped = admit("::ffff:192.0.2.1").unwrap();
        assert!(admit("192.0.2.1").is_none());
        let a = admit("2001:db8::1").unwrap();
        let b = admit("2001:db8::2:0:0:1").unwrap();
        assert!(admit("192.0.2.2").is_none(), "all four are taken");
        drop(first);
        assert!(admit("2001:db8::3").is_none(), "two of this /64");
        let again = admit("192.0.2.1").unwrap();
        drop((mapped, a, b, again));
        let taken = admission.taken.lock().unwrap();
        assert_eq!((taken.total, taken.by_address.len()), (0, 0));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn the_silent_and_the_idle_go() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut age = Age::new(start);
        assert_eq!(age.check(at(3), false), Some(at(10)));
        assert_eq!(age.check(at(10), false), None, "silent from the beginning");
        age.on_message(at(9));
        assert_eq!(age.check(at(10), false), Some(at(69)));
        assert_eq!(age.check(at(69), false), None, "of no use any more");
        assert_eq!(age.check(at(69), true), Some(at(129)));
    }
}
