//! Refused requests, counted by their reason.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a request was refused; the error codes of RFC 8489 §14.8 and RFC 8656 §19.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// 400.
    BadRequest,
    /// 401: credentials that are wrong or expired.
    Unauthorized,
    /// 403 to a peer.
    PeerDenied,
    /// 403 to a session that has been closed.
    SessionClosed,
    /// 420.
    UnknownAttribute,
    /// 437.
    AllocationMismatch,
    /// 438. A client whose nonce is old tries again with a new one, so some are normal.
    StaleNonce,
    /// 440.
    AddressFamily,
    /// 441: good credentials, but not those the allocation was made with.
    WrongCredentials,
    /// 442.
    Transport,
    /// 443.
    PeerAddressFamily,
    /// 446, RFC 6062: the peer is connected already.
    ConnectionExists,
    /// 447, RFC 6062: the peer does not answer.
    ConnectionFailed,
    /// 486, by `allocations_per_session` and by `allocations_total`.
    SessionQuota,
    TotalQuota,
    /// 508: no relay port, or as many permissions or channels as one allocation may have.
    Capacity,
}

/// Running totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refused([u64; Reason::ALL.len()]);

/// The same, for other threads to read.
#[derive(Debug, Default)]
pub struct SharedRefused([AtomicU64; Reason::ALL.len()]);

impl Reason {
    /// In the order of their numbers.
    pub const ALL: [Reason; 16] = [
        Reason::BadRequest,
        Reason::Unauthorized,
        Reason::PeerDenied,
        Reason::SessionClosed,
        Reason::UnknownAttribute,
        Reason::AllocationMismatch,
        Reason::StaleNonce,
        Reason::AddressFamily,
        Reason::WrongCredentials,
        Reason::Transport,
        Reason::PeerAddressFamily,
        Reason::ConnectionExists,
        Reason::ConnectionFailed,
        Reason::SessionQuota,
        Reason::TotalQuota,
        Reason::Capacity,
    ];

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Reason::BadRequest => "bad_request",
            Reason::Unauthorized => "unauthorized",
            Reason::PeerDenied => "peer_denied",
            Reason::SessionClosed => "session_closed",
            Reason::UnknownAttribute => "unknown_attribute",
            Reason::AllocationMismatch => "allocation_mismatch",
            Reason::StaleNonce => "stale_nonce",
            Reason::AddressFamily => "address_family",
            Reason::WrongCredentials => "wrong_credentials",
            Reason::Transport => "transport",
            Reason::PeerAddressFamily => "peer_address_family",
            Reason::ConnectionExists => "connection_exists",
            Reason::ConnectionFailed => "connection_failed",
            Reason::SessionQuota => "session_quota",
            Reason::TotalQuota => "total_quota",
            Reason::Capacity => "capacity",
        }
    }
}

impl Refused {
    pub(super) fn count(&mut self, reason: Reason) {
        if let Some(count) = self.0.get_mut(reason as usize) {
            *count += 1;
        }
    }

    pub fn of(&self, reason: Reason) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or_default()
    }
}

impl SharedRefused {
    /// Adds what one shard has counted since `before`.
    pub(super) fn publish(&self, before: &Refused, now: &Refused) {
        if before == now {
            return;
        }
        for ((shared, old), new) in self.0.iter().zip(before.0).zip(now.0) {
            shared.fetch_add(new - old, Relaxed);
        }
    }

    /// Each reason there is, with its count.
    pub fn by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Reason::ALL.iter().zip(&self.0).map(|(reason, count)| (reason.name(), count.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_and_a_name_of_its_own() {
        let (mut refused, shared) = (Refused::default(), SharedRefused::default());
        for (i, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
            (0..=i).for_each(|_| refused.count(reason));
            assert_eq!(refused.of(reason), i as u64 + 1);
        }
        shared.publish(&Refused::default(), &refused);
        let (mut names, counts): (Vec<_>, Vec<_>) = shared.by_reason().unzip();
        assert_eq!(counts, (1..=Reason::ALL.len() as u64).collect::<Vec<_>>());
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
