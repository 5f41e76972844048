//! ICE (RFC 8445) by the crate `is`. This is the only file that names it.
//!
//! The camera is always controlled: the viewer offers, so the viewer nominates.

use is::stun::{StunMessage, StunPacket};
use is::{Candidate, CandidateKind, IceAgent, IceAgentEvent, IceCreds};
use is::{Protocol, Sha1HmacProvider};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// One viewer's ICE agent.
pub struct Ice {
    agent: IceAgent,
    /// What the viewer named, trickled or in its offer. The agent forgets a candidate whose address
    /// has shown itself before as peer-reflexive, and with it what kind it is.
    named: Vec<(SocketAddr, Kind)>,
    nominated: Option<Pair>,
}

/// An ICE user name fragment and password (RFC 8445 §5.3).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub ufrag: String,
    pub password: String,
}

/// The addresses that media uses: a socket's own or a relay's, and the viewer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// A STUN packet to send.
pub struct Check {
    pub pair: Pair,
    pub data: Vec<u8>,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IceEvent {
    /// Media goes here from now on. Comes again when a better pair was found.
    Nominated(Pair),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Host,
    ServerReflexive,
    PeerReflexive,
    Relayed,
}

/// Browsers send a handful; what comes beyond this is ignored.
const MAX_REMOTE_CANDIDATES: usize = 64;
/// Spacing of checks (RFC 8445 §14.2 Ta). The RFC's 50 ms is for sharing a thin link with many
/// agents; 10 ms is within what it allows for one.
const CHECK_SPACING: Duration = Duration::from_millis(10);

impl Default for Ice {
    fn default() -> Ice {
        let mut agent = IceAgent::with_hmac(IceCreds::new(), &RingHmac);
        agent.set_controlling(false);
        agent.set_timing_advance(CHECK_SPACING);
        Ice { agent, named: Vec::new(), nominated: None }
    }
}

impl Ice {
    pub fn local_credentials(&self) -> Credentials {
        let creds = self.agent.local_credentials();
        Credentials { ufrag: creds.ufrag.clone(), password: creds.pass.clone() }
    }

    pub fn set_remote_credentials(&mut self, remote: Credentials) {
        self.agent.set_remote_credentials(IceCreds { ufrag: remote.ufrag, pass: remote.password });
    }

    /// Starts over with new credentials on both sides, keeping the local candidates and, until a
    /// new pair is nominated, the path in use (RFC 8445 §9).
    pub fn restart(&mut self, remote: Credentials) {
        self.agent.ice_restart(IceCreds::new(), true);
        self.named.clear();
        self.set_remote_credentials(remote);
    }

    /// Adds one of our own addresses. The result is the candidate attribute to tell the viewer,
    /// or `None` if it adds nothing.
    ///
    /// `base` is the socket's address; for a relayed candidate, that of the socket to the relay.
    pub fn add_local(&mut self, kind: Kind, addr: SocketAddr, base: SocketAddr) -> Option<String> {
        let candidate = match kind {
            Kind::Host => Candidate::host(addr, Protocol::Udp),
            Kind::ServerReflexive => Candidate::server_reflexive(addr, base, Protocol::Udp),
            Kind::Relayed => Candidate::relayed(addr, base, Protocol::Udp),
            Kind::PeerReflexive => return None,
        };
        self.agent.add_local_candidate(candidate.ok()?).map(Candidate::to_sdp_string)
    }

    /// All local candidates so far, as attributes.
    pub fn local_candidates(&self) -> impl Iterator<Item = String> + '_ {
        self.agent.local_candidates().map(|c| c.to_sdp_string())
    }

    /// Takes one of the viewer's candidates and answers with its address, so that relays can be
    /// opened to it. What cannot be used is ignored: other transports than UDP, names instead of
    /// addresses (`.local`, RFC 8828: such a viewer is found by its checks, as peer-reflexive).
    pub fn add_remote(&mut self, attribute: &str) -> Option<SocketAddr> {
        if self.named.len() >= MAX_REMOTE_CANDIDATES {
            return None;
        }
        let candidate = Candidate::from_sdp_string(attribute).ok()?;
        if candidate.proto() != Protocol::Udp || candidate.addr().port() == 0 {
            return None;
        }
        let addr = candidate.addr();
        self.named.push((addr, kind_of(&candidate)));
        self.agent.add_remote_candidate(candidate);
        Some(addr)
    }

    /// Takes a STUN packet that came to `pair.local` from `pair.remote`. True if it belongs to
    /// this session and proved to know its password.
    pub fn handle_packet(&mut self, now: Instant, pair: Pair, data: &[u8]) -> bool {
        let Ok(message) = StunMessage::parse(data) else {
            return false;
        };
        let packet = StunPacket {
            proto: Protocol::Udp,
            source: pair.remote,
            destination: pair.local,
            message,
        };
        let accepted = self.agent.handle_packet(now, packet);
        // The answer to a nominating check decides what happens next: work on it at once.
        self.agent.handle_timeout(now);
        accepted
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.agent.handle_timeout(now);
    }

    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.agent.poll_timeout()
    }

    pub fn poll_check(&mut self) -> Option<Check> {
        self.agent.poll_transmit().map(|t| Check {
            pair: Pair { local: t.source, remote: t.destination },
            data: t.contents.into(),
        })
    }

    pub fn poll_event(&mut self) -> Option<IceEvent> {
        while let Some(event) = self.agent.poll_event() {
            // The agent's own view of its state is not asked: it goes from connected to checking
            // and back as pairs come and go, and what counts is consent (see `Peer`).
            if let IceAgentEvent::NominatedSend { source, destination, .. } = event {
                let pair = Pair { local: source, remote: destination };
                if self.nominated.replace(pair) != Some(pair) {
                    return Some(IceEvent::Nominated(pair));
                }
            }
        }
        None
    }

    /// The pair that was nominated last.
    pub fn nominated(&self) -> Option<Pair> {
        self.nominated
    }

    /// What kind of candidates the two ends of `pair` are: ours, and the viewer's.
    pub fn kinds(&self, pair: Pair) -> (Kind, Kind) {
        let local = self.agent.local_candidates().find(|c| c.addr() == pair.local);
        let named = self.named.iter().find(|(addr, _)| *addr == pair.remote);
        (
            local.map_or(Kind::PeerReflexive, |c| kind_of(&c)),
            // An address that nobody named is peer-reflexive.
            named.map_or(Kind::PeerReflexive, |(_, kind)| *kind),
        )
    }

    /// Round trip of the nominated pair's last check.
    pub fn rtt(&self) -> Option<Duration> {
        self.agent.nominated_pair_rtt()
    }
}

fn kind_of(candidate: &Candidate) -> Kind {
    match candidate.kind() {
        CandidateKind::Host => Kind::Host,
        CandidateKind::ServerReflexive => Kind::ServerReflexive,
        CandidateKind::PeerReflexive => Kind::PeerReflexive,
        CandidateKind::Relayed => Kind::Relayed,
    }
}

/// HMAC-SHA1 for STUN's MESSAGE-INTEGRITY, by ring.
#[derive(Debug)]
struct RingHmac;

impl Sha1HmacProvider for RingHmac {
    fn sha1_hmac(&self, key: &[u8], payloads: &[&[u8]]) -> [u8; 20] {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
        let mut context = ring::hmac::Context::with_key(&key);
        for payload in payloads {
            context.update(payload);
        }
        let mut out = [0; 20];
        out.copy_from_slice(context.sign().as_ref());
        out
    }
}
