//! Answers on the wire: grants, refusals and challenges.

use super::connections::ConnectionId;
use super::core::{AllocationId, Client, Core, Now};
use super::credentials::{Unproven, session_of};
use super::refusals::Reason;
use sdk_core::wire::stun::attribute as attr;
use sdk_core::wire::stun::{Builder, Class, LongTermKey, Message, Method};

/// Room a reply may need; what is longer is not sent.
pub const MAX_REPLY_LEN: usize = 512;
/// The shortest request that asks to be challenged: Allocate with REQUESTED-TRANSPORT.
const MIN_CHALLENGED_LEN: usize = 28;
/// Kinds listed in one 420.
const MAX_UNKNOWN_LISTED: usize = 8;

/// What the server understands; everything else below 0x8000 earns a 420.
pub(super) const KNOWN: &[u16] = &[
    attr::USERNAME,
    attr::MESSAGE_INTEGRITY,
    attr::MESSAGE_INTEGRITY_SHA256,
    attr::CHANNEL_NUMBER,
    attr::LIFETIME,
    attr::XOR_PEER_ADDRESS,
    attr::DATA,
    attr::REALM,
    attr::NONCE,
    attr::REQUESTED_ADDRESS_FAMILY,
    attr::EVEN_PORT,
    attr::REQUESTED_TRANSPORT,
    attr::DONT_FRAGMENT,
    attr::RESERVATION_TOKEN,
    attr::CONNECTION_ID,
];

/// What a request was granted.
pub(super) enum Granted {
    Mapped,
    Allocated(AllocationId),
    Lifetime(u32),
    Connected(ConnectionId),
    Done,
}

/// An error code, with its reason phrase, and what it is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) phrase: &'static str,
    pub(super) reason: Reason,
}

const fn refusal(code: u16, phrase: &'static str, reason: Reason) -> Refusal {
    Refusal { code, phrase, reason }
}

pub(super) const BAD_REQUEST: Refusal = refusal(400, "Bad Request", Reason::BadRequest);
pub(super) const FORBIDDEN: Refusal = refusal(403, "Forbidden", Reason::PeerDenied);
pub(super) const SESSION_CLOSED: Refusal = refusal(403, "Forbidden", Reason::SessionClosed);
pub(super) const UNKNOWN_ATTRIBUTE: Refusal =
    refusal(420, "Unknown Attribute", Reason::UnknownAttribute);
pub(super) const MISMATCH: Refusal =
    refusal(437, "Allocation Mismatch", Reason::AllocationMismatch);
pub(super) const FAMILY_NOT_SUPPORTED: Refusal =
    refusal(440, "Address Family not Supported", Reason::AddressFamily);
pub(super) const WRONG_CREDENTIALS: Refusal =
    refusal(441, "Wrong Credentials", Reason::WrongCredentials);
pub(super) const TRANSPORT_NOT_SUPPORTED: Refusal =
    refusal(442, "Unsupported Transport Protocol", Reason::Transport);
pub(super) const FAMILY_MISMATCH: Refusal =
    refusal(443, "Peer Address Family Mismatch", Reason::PeerAddressFamily);
pub(super) const CONNECTION_EXISTS: Refusal =
    refusal(446, "Connection Already Exists", Reason::ConnectionExists);
pub(super) const CONNECTION_FAILED: Refusal =
    refusal(447, "Connection Timeout or Failure", Reason::ConnectionFailed);
pub(super) const SESSION_QUOTA: Refusal =
    refusal(486, "Allocation Quota Reached", Reason::SessionQuota);
pub(super) const TOTAL_QUOTA: Refusal =
    refusal(486, "Allocation Quota Reached", Reason::TotalQuota);
pub(super) const NO_CAPACITY: Refusal = refusal(508, "Insufficient Capacity", Reason::Capacity);

impl Core {
    /// 401, 438 or 400 for someone unproven: nothing is kept, and as little as possible is sent,
    /// because the sender's address may be forged: never more than twice what came. Hence no reason
    /// phrase, and neither realm nor nonce for what is shorter than any Allocate.
    pub(super) fn challenge(
        &mut self,
        now: Now,
        client: Client,
        request: &Message<'_>,
        unproven: Unproven,
        out: &mut [u8],
    ) -> Option<usize> {
        let code = match unproven {
            Unproven::Unauthorized => 401,
            Unproven::StaleNonce => 438,
            Unproven::Malformed => 400,
        };
        let is_first_try = request.get(attr::USERNAME).is_none();
        if code == 438 {
            self.stats.refused.count(Reason::StaleNonce);
        } else if !is_first_try {
            self.stats.requests_refused += 1;
            self.stats.requests_unauthorized += u64::from(code == 401);
            self.stats.refused.count(match code {
                401 => Reason::Unauthorized,
                _ => Reason::BadRequest,
            });
            // A stranger's text: only what can be printed reaches the log.
            let name = request.get_str(attr::USERNAME).unwrap_or("-");
            let (id, address) = (session_of(name).escape_debug(), client.address);
            log::debug!("sessionId={id} TURN answers {code} to {address}");
        }
        // A fingerprint is answered by one.
        let fingerprint_len = request.get(attr::FINGERPRINT).map_or(0, |value| 4 + value.len());
        let is_too_short = request.bytes().len() < MIN_CHALLENGED_LEN + fingerprint_len;
        let response = self.respond(request, Class::Error, out).error(code, "");
        let response = match code {
            400 => response,
            _ if is_too_short => response,
            _ => response
                .attribute(attr::REALM, self.credentials.realm().as_bytes())
                .attribute(attr::NONCE, &self.credentials.nonce(now, client.address)),
        };
        seal(response, request, None).finish()
    }

    pub(super) fn answer(
        &mut self,
        client: Client,
        request: &Message<'_>,
        outcome: Result<Granted, Refusal>,
        key: Option<&LongTermKey>,
        out: &mut [u8],
    ) -> Option<usize> {
        let stats = &mut self.stats;
        let (class, counter) = match (&outcome, request.method()) {
            (Ok(_), Method::BINDING) => (Class::Success, &mut stats.bindings_ok),
            (Ok(_), _) => (Class::Success, &mut stats.requests_ok),
            (Err(_), Method::BINDING) => (Class::Error, &mut stats.bindings_refused),
            (Err(_), _) => (Class::Error, &mut stats.requests_refused),
        };
        *counter += 1;
        if let Err(refusal) = outcome {
            stats.refused.count(refusal.reason);
        }
        let response = self.respond(request, class, out);
        let response = match outcome {
            Ok(Granted::Done) => response,
            Ok(Granted::Connected(id)) => response.u32(attr::CONNECTION_ID, id.0),
            Ok(Granted::Mapped) => response.xor_address(attr::XOR_MAPPED_ADDRESS, client.address),
            Ok(Granted::Lifetime(lifetime_s)) => response.u32(attr::LIFETIME, lifetime_s),
            Ok(Granted::Allocated(id)) => {
                let allocation = self.allocations.get(id)?;
                response
                    .xor_address(attr::XOR_RELAYED_ADDRESS, allocation.relayed)
                    .u32(attr::LIFETIME, self.lifetime_s(request))
                    .xor_address(attr::XOR_MAPPED_ADDRESS, client.address)
                    .maybe(attr::RESERVATION_TOKEN, allocation.reservation.as_ref().map(|t| &t[..]))
            }
            Err(refusal) if refusal == UNKNOWN_ATTRIBUTE => {
                let mut listed = [0; 2 * MAX_UNKNOWN_LISTED];
                let kinds = request.unknown_required(KNOWN);
                let count = listed
                    .chunks_exact_mut(2)
                    .zip(kinds)
                    .map(|(slot, kind)| slot.copy_from_slice(&kind.to_be_bytes()))
                    .count();
                // Binding's 420 goes to anyone: no reason phrase there either.
                let phrase = if key.is_some() { refusal.phrase } else { "" };
                response
                    .error(refusal.code, phrase)
                    .attribute(attr::UNKNOWN_ATTRIBUTES, &listed[..2 * count])
            }
            Err(refusal) => response.error(refusal.code, refusal.phrase),
        };
        seal(response, request, key).finish()
    }

    fn respond<'b>(&self, request: &Message<'_>, class: Class, out: &'b mut [u8]) -> Builder<'b> {
        Builder::new(out, class, request.method(), request.transaction_id())
    }
}

/// The same integrity check as the request's, and a fingerprint where the request had one.
fn seal<'b>(
    response: Builder<'b>,
    request: &Message<'_>,
    key: Option<&LongTermKey>,
) -> Builder<'b> {
    let response = match key {
        None => response,
        Some(key) if request.get(attr::MESSAGE_INTEGRITY_SHA256).is_some() => {
            response.integrity_sha256(key)
        }
        Some(key) => response.integrity(key),
    };
    match request.get(attr::FINGERPRINT) {
        Some(_) => response.fingerprint(),
        None => response,
    }
}
