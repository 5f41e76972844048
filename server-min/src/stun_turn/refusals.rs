//! Refused requests, counted by their error code.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The codes there are (RFC 8489 §14.8, RFC 8656 §19), and as metrics name them. The last one stands
/// for all others.
const REASONS: [(u16, &str); 12] = [
    (400, "bad_request"),
    (401, "unauthorized"),
    (403, "peer_denied"),
    (420, "unknown_attribute"),
    (437, "allocation_mismatch"),
    (440, "address_family"),
    (441, "wrong_credentials"),
    (442, "transport"),
    (443, "peer_address_family"),
    (486, "quota"),
    (508, "capacity"),
    (0, "other"),
];

/// Running totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refused([u64; REASONS.len()]);

impl Refused {
    pub(super) fn count(&mut self, code: u16) {
        let index = REASONS.iter().position(|(known, _)| *known == code);
        self.0[index.unwrap_or(REASONS.len() - 1)] += 1;
    }
}

/// The same, for other threads to read.
#[derive(Debug, Default)]
pub struct SharedRefused([AtomicU64; REASONS.len()]);

impl SharedRefused {
    pub(super) fn publish(&self, totals: &Refused) {
        for (shared, total) in self.0.iter().zip(totals.0) {
            shared.store(total, Relaxed);
        }
    }

    /// Each reason there is, with its count.
    pub fn by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        REASONS.iter().zip(&self.0).map(|((_, reason), count)| (*reason, count.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_counted_under_one_reason() {
        let (mut totals, shared) = (Refused::default(), SharedRefused::default());
        for code in [486, 486, 401, 999] {
            totals.count(code);
        }
        shared.publish(&totals);
        let counted: Vec<_> = shared.by_reason().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("unauthorized", 1), ("quota", 2), ("other", 1)]);
    }
}
