//! Why there is no relay, in words that say what to do.

use std::fmt;
use std::net::SocketAddr;

/// Why there is no relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnFailure {
    /// 401 in spite of credentials.
    Unauthorized,
    /// 438 over and over.
    StaleNonce,
    /// 403 to the allocation.
    Forbidden,
    /// 486: too many allocations for this user name.
    QuotaReached,
    /// 508: the server has no port left.
    InsufficientCapacity,
    /// 437 to Allocate: this socket has an allocation from before.
    SocketInUse,
    /// 437 later on: the server has forgotten the allocation.
    AllocationLost,
    /// 300: the server names another one.
    TryAlternate(Option<SocketAddr>),
    /// Any other error code.
    Rejected { code: u16 },
    /// No answer to any retransmission.
    Timeout,
}

impl fmt::Display for TurnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TurnFailure::Unauthorized => {
                "the TURN server refused the credentials (401); they have expired, or the session \
                 service and the server do not share the secret"
            }
            TurnFailure::StaleNonce => {
                "the TURN server took none of its own nonces (438); check its clock"
            }
            TurnFailure::Forbidden => "the TURN server forbids this allocation (403)",
            TurnFailure::QuotaReached => {
                "the TURN server's allocation quota is used up (486); raise it, or close sessions"
            }
            TurnFailure::InsufficientCapacity => {
                "the TURN server has no relay port left (508); widen its port range"
            }
            TurnFailure::SocketInUse => {
                "this socket has an allocation from before (437); take another local port"
            }
            TurnFailure::AllocationLost => {
                "the TURN server has forgotten the allocation (437); it was restarted, or our \
                 address changed"
            }
            TurnFailure::TryAlternate(Some(server)) => {
                return write!(f, "the TURN server asks to use {server} instead (300)");
            }
            TurnFailure::TryAlternate(None) => {
                "the TURN server asks to use another one, but does not name it (300)"
            }
            TurnFailure::Rejected { code } => {
                return write!(f, "the TURN server answered with error {code}");
            }
            TurnFailure::Timeout => {
                "the TURN server does not answer; check its address, and that UDP may pass"
            }
        })
    }
}

impl std::error::Error for TurnFailure {}
