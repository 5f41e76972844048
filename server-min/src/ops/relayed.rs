//! What sessions relay now: their bytes as the relay counts them, and from two looks, how fast.

use crate::stun_turn::{MAX_ASKED, Traffic, TurnHandle};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The relay's threads are asked about a session no more often than this, however many operators look.
const ASK_EVERY_MS: u64 = 1_000;
/// A look so long ago says nothing about now.
const FORGET_AFTER_MS: u64 = 30_000;
/// Sessions that looks are kept of. With more of them, all begin anew.
const MAX_LOOKS: usize = 10_000;
/// The relay's threads answer within one turn of theirs. Who does not, is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks at our own relay. Keeps what it saw within half a minute, of those that were asked about.
pub(super) struct Relayed {
    turn: Rc<TurnHandle>,
    looks: RefCell<HashMap<String, Look>>,
}

/// What was seen, and how fast it grew since the look before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    at_ms: u64,
    pub(super) traffic: Traffic,
    /// Bits per second, both directions together; `None` at the first look.
    pub(super) bit_rate: Option<u64>,
}

impl Relayed {
    pub(super) fn new(turn: Rc<TurnHandle>) -> Relayed {
        Relayed { turn, looks: RefCell::default() }
    }

    /// What these sessions relay, of those that relay through us; at most [`MAX_ASKED`] are looked at.
    pub(super) async fn of(&self, sessions: &[&str], now_ms: u64) -> HashMap<String, Look> {
        let sessions = &sessions[..sessions.len().min(MAX_ASKED)];
        let due: Arc<[String]> = {
            let mut looks = self.looks.borrow_mut();
            if looks.len() >= MAX_LOOKS {
                looks.clear();
            }
            looks.retain(|_, look| now_ms.saturating_sub(look.at_ms) < FORGET_AFTER_MS);
            let is_due = |id: &&&str| looks.get(**id).is_none_or(|look| look.is_old(now_ms));
            sessions.iter().filter(is_due).map(|id| (*id).to_owned()).collect()
        };
        if !due.is_empty()
            && let Ok(all) = tokio::time::timeout(PATIENCE, self.turn.traffic(due.clone())).await
        {
            let mut looks = self.looks.borrow_mut();
            for (id, traffic) in due.iter().zip(all) {
                let look = Look::after(looks.get(id), traffic, now_ms);
                looks.insert(id.clone(), look);
            }
        }
        let looks = self.looks.borrow();
        let seen = sessions.iter().filter_map(|id| looks.get_key_value(*id));
        seen.filter(|(_, look)| look.traffic.allocations > 0)
            .map(|(id, look)| (id.clone(), *look))
            .collect()
    }
}

impl Look {
    pub(super) fn after(before: Option<&Look>, traffic: Traffic, now_ms: u64) -> Look {
        let bit_rate = before.and_then(|before| {
            let ms = now_ms.checked_sub(before.at_ms).filter(|ms| *ms > 0)?;
            // Allocations that ended took their bytes with them.
            let bytes = traffic.bytes().saturating_sub(before.traffic.bytes());
            Some(bytes.saturating_mul(8_000) / ms)
        });
        Look { at_ms: now_ms, traffic, bit_rate }
    }

    pub(super) fn is_old(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.at_ms) >= ASK_EVERY_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_looks_make_a_rate() {
        let traffic = |allocations, bytes| Traffic {
            allocations,
            bytes_to_peers: bytes,
            bytes_to_clients: bytes,
        };
        let first = Look::after(None, traffic(1, 1_000), 5_000);
        assert_eq!(first.bit_rate, None);
        assert!(!first.is_old(5_999) && first.is_old(6_000));
        let second = Look::after(Some(&first), traffic(1, 126_000), 7_000);
        assert_eq!(second.bit_rate, Some(1_000_000));
        // An allocation went, and nothing runs backwards; nor does a clock that was set back divide by 0.
        assert_eq!(Look::after(Some(&second), traffic(1, 5), 8_000).bit_rate, Some(0));
        for at_ms in [7_000, 6_000] {
            assert_eq!(Look::after(Some(&second), traffic(1, 5), at_ms).bit_rate, None);
        }
    }
}
