//! What the server's answers mean for a job, and for the allocation.

use super::job::{Step, Target};
use super::{Auth, LIFETIME_S, Phase, TurnClient, TurnEvent, TurnFailure};
use crate::wire::stun::attribute as attr;
use crate::wire::stun::{self, Class, Message, Method};
use std::time::{Duration, Instant};

/// RFC 8489 §9.2: realms and nonces have fewer than 128 characters, here of up to 4 bytes.
const MAX_TEXT_LEN: usize = 512;
/// Permissions live 5 minutes (RFC 8656 §9), and a channel's refresh is one of its permission too.
const PEER_REFRESH: Duration = Duration::from_secs(240);
/// An answered nonce may be stale again at once, but not for ever.
const MAX_STALE_NONCES: u8 = 4;

impl TurnClient {
    pub(super) fn on_response(&mut self, now: Instant, message: &Message<'_>, method: Method) {
        let id = message.transaction_id();
        let Some(i) = self.jobs.iter().position(|job| job.is_waiting_for(id)) else { return };
        let sealed = self.auth.as_ref().map(|auth| message.has_integrity(&auth.key));
        match message.error_code() {
            None if message.class() == Class::Error => {}
            None => {
                // RFC 8489 §9.2.5: what is not proven is as if it never came.
                if sealed != Some(false) {
                    self.on_success(now, i, message, method);
                }
            }
            Some(error) => {
                // An error need not be sealed: 401 and 438 cannot be, and some servers seal none.
                let tampered =
                    sealed == Some(false) && message.get(attr::MESSAGE_INTEGRITY).is_some();
                if message.class() == Class::Error && !tampered {
                    self.on_error(now, i, message, error.code);
                }
            }
        }
    }

    fn on_success(&mut self, now: Instant, i: usize, message: &Message<'_>, method: Method) {
        let job = &mut self.jobs[i];
        job.stale_nonces = 0;
        match (job.target, self.phase) {
            (Target::Allocation, Phase::Closing) => self.end(TurnEvent::Closed),
            (Target::Allocation, phase) => {
                let lifetime_s = message.get_u32(attr::LIFETIME).unwrap_or(LIFETIME_S);
                job.step = Step::Done { refresh_at: now + refresh_after(lifetime_s) };
                if phase != Phase::Allocating {
                    return;
                }
                let relayed = message
                    .get_xor_address(attr::XOR_RELAYED_ADDRESS)
                    .filter(|_| method == Method::ALLOCATE);
                let Some(relayed) = relayed else {
                    return self.fail(TurnFailure::Rejected { code: 500 });
                };
                self.phase = Phase::Allocated { relayed };
                let mapped = message.get_xor_address(attr::XOR_MAPPED_ADDRESS);
                self.events.push_back(TurnEvent::Allocated { relayed, mapped });
                for job in self.jobs.iter_mut().filter(|job| job.step == Step::Waiting) {
                    job.start(now, &mut self.ids);
                }
            }
            (Target::Permission(peer), _) => {
                if job.confirm(now + PEER_REFRESH) {
                    self.events.push_back(TurnEvent::Permitted { peer });
                }
            }
            (Target::Channel { peer, channel }, _) => {
                if job.confirm(now + PEER_REFRESH) {
                    self.events.push_back(TurnEvent::ChannelBound { peer, channel });
                }
            }
        }
    }

    fn on_error(&mut self, now: Instant, i: usize, message: &Message<'_>, code: u16) {
        let failure = match (code, self.phase) {
            (401, _) if self.auth.is_none() => match self.learn_realm(message) {
                true => return self.jobs[i].start(now, &mut self.ids),
                false => TurnFailure::Unauthorized,
            },
            (438, _) => {
                let job = &mut self.jobs[i];
                job.stale_nonces += 1;
                if job.stale_nonces <= MAX_STALE_NONCES && self.learn_nonce(message) {
                    return self.jobs[i].start(now, &mut self.ids);
                }
                TurnFailure::StaleNonce
            }
            (300, _) => TurnFailure::TryAlternate(message.get_address(attr::ALTERNATE_SERVER)),
            (401, _) => TurnFailure::Unauthorized,
            (437, Phase::Allocating) => TurnFailure::SocketInUse,
            (437, _) => TurnFailure::AllocationLost,
            (403, _) => TurnFailure::Forbidden,
            (486, _) => TurnFailure::QuotaReached,
            (508, _) => TurnFailure::InsufficientCapacity,
            (code, _) => TurnFailure::Rejected { code },
        };
        let job = &mut self.jobs[i];
        let ends_all = matches!(
            failure,
            TurnFailure::Unauthorized | TurnFailure::StaleNonce | TurnFailure::AllocationLost
        );
        match job.target.ip() {
            Some(peer) if !ends_all => {
                job.step = Step::Refused;
                job.confirmed = false;
                self.events.push_back(TurnEvent::PeerRefused { peer, code });
            }
            _ if self.phase == Phase::Closing => self.end(TurnEvent::Closed),
            _ => self.fail(failure),
        }
    }

    fn learn_realm(&mut self, message: &Message<'_>) -> bool {
        let (realm, nonce) = (message.get_str(attr::REALM), message.get(attr::NONCE));
        let (Some(realm), Some(nonce)) = (realm, nonce.filter(|n| n.len() <= MAX_TEXT_LEN)) else {
            return false;
        };
        if realm.len() > MAX_TEXT_LEN {
            return false;
        }
        let key = stun::long_term_key(&self.username, realm, &self.password);
        self.auth = Some(Auth { realm: realm.to_owned(), nonce: nonce.to_vec(), key });
        true
    }

    fn learn_nonce(&mut self, message: &Message<'_>) -> bool {
        let nonce = message.get(attr::NONCE).filter(|n| n.len() <= MAX_TEXT_LEN);
        let (Some(auth), Some(nonce)) = (&mut self.auth, nonce) else { return false };
        auth.nonce = nonce.to_vec();
        true
    }
}

/// Early enough for a whole round of retransmissions before the allocation ends.
fn refresh_after(lifetime_s: u32) -> Duration {
    let lifetime = Duration::from_secs(u64::from(lifetime_s));
    lifetime.saturating_sub(Duration::from_secs(60)).max(lifetime / 2).max(Duration::from_secs(1))
}
