//! How often sign-ins from one address failed of late: at the broker, and at the operators' page. Who fails too often is not listened to for a
//! while where a password could be guessed.

use crate::per_address::network;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

/// Addresses remembered one by one. With more of them at a time, the others share one account: under
/// attack from everywhere, passwords that could be guessed open nothing for strangers.
const MOST_ADDRESSES: usize = 10_000;
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const MINUTE_MS: u64 = 60_000;

pub(crate) struct Failures {
    per_minute: u32,
    /// When each address would have made its failures at exactly the rate allowed.
    paid_until_ms: HashMap<IpAddr, u64>,
}

impl Failures {
    /// `per_minute` failures are as many as may come at once, too; 0 for no limit.
    pub(crate) fn new(per_minute: u32) -> Failures {
        Failures { per_minute, paid_until_ms: HashMap::new() }
    }

    /// Whether `ip` has failed too often to be listened to.
    pub(crate) fn is_over(&self, ip: IpAddr, now_ms: u64) -> bool {
        let account = self.account(ip);
        let paid_until_ms = self.paid_until_ms.get(&account).copied().unwrap_or(0);
        self.per_minute != 0 && paid_until_ms + self.cost_ms() > now_ms + MINUTE_MS
    }

    /// Notes a failure.
    pub(crate) fn note(&mut self, ip: IpAddr, now_ms: u64) {
        if self.per_minute == 0 {
            return;
        }
        if self.paid_until_ms.len() >= MOST_ADDRESSES {
            self.paid_until_ms.retain(|_, paid_until_ms| *paid_until_ms > now_ms);
        }
        let (account, cost_ms) = (self.account(ip), self.cost_ms());
        let paid_until_ms = self.paid_until_ms.entry(account).or_default();
        // No further than a minute and one failure ahead: whoever stops is listened to again.
        *paid_until_ms = ((*paid_until_ms).max(now_ms) + cost_ms).min(now_ms + MINUTE_MS + cost_ms);
    }

    fn account(&self, ip: IpAddr) -> IpAddr {
        let ip = network(ip);
        let is_full = self.paid_until_ms.len() >= MOST_ADDRESSES;
        if is_full && !self.paid_until_ms.contains_key(&ip) { OTHERS } else { ip }
    }

    fn cost_ms(&self) -> u64 {
        MINUTE_MS / u64::from(self.per_minute.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_750_929_836_097;

    #[test]
    fn whoever_fails_too_often_waits_and_neighbours_do_not() {
        let ip = |last| IpAddr::from([192, 0, 2, last]);
        let mut failures = Failures::new(20);
        for n in 0..20 {
            assert!(!failures.is_over(ip(1), NOW_MS), "{n}");
            failures.note(ip(1), NOW_MS);
        }
        assert!(failures.is_over(ip(1), NOW_MS) && !failures.is_over(ip(2), NOW_MS));
        // One more try every three seconds, however often it was tried meanwhile.
        assert!(failures.is_over(ip(1), NOW_MS + 2_999));
        assert!(!failures.is_over(ip(1), NOW_MS + 3_000));
        for _ in 0..1_000 {
            failures.note(ip(1), NOW_MS);
        }
        assert!(!failures.is_over(ip(1), NOW_MS + 6_000));
    }

    #[test]
    fn the_table_is_bounded_and_strangers_share_what_is_left() {
        let mut failures = Failures::new(2);
        for n in 0..3 * MOST_ADDRESSES as u32 {
            failures.note(IpAddr::from(n.to_be_bytes()), NOW_MS);
        }
        assert!(failures.paid_until_ms.len() <= MOST_ADDRESSES + 1);
        let stranger = IpAddr::from([203, 0, 113, 1]);
        assert!(failures.is_over(stranger, NOW_MS));
        failures.note(stranger, NOW_MS + 2 * MINUTE_MS);
        assert_eq!(failures.paid_until_ms.len(), 1, "what is long ago is forgotten");
        assert!(!failures.is_over(stranger, NOW_MS + 2 * MINUTE_MS));
    }

    #[test]
    fn without_a_limit_nothing_is_kept() {
        let mut failures = Failures::new(0);
        (0..100).for_each(|_| failures.note([192, 0, 2, 1].into(), NOW_MS));
        assert!(
            failures.paid_until_ms.is_empty() && !failures.is_over([192, 0, 2, 1].into(), NOW_MS)
        );
    }
}
