//! Many TURN clients: each with a socket and a session of its own, as viewers and cameras have them.

use crate::datagrams::{Inbox, bind};
use crate::servers::TURN_SECRET;
use base64::Engine as _;
use hil_tests::clock;
use ring::hmac;
use sdk_core::wire::stun::attribute as attr;
use sdk_core::wire::stun::{Builder, Class, Message, Method, TransactionId, long_term_key};
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Bound to one peer in every allocation.
pub(crate) const CHANNEL: u16 = 0x4000;

/// Where clients and peers are: addresses that no server relays from.
pub(crate) const CLIENTS: [u8; 4] = [127, 0, 0, 3];
pub(crate) const PEERS: [u8; 4] = [127, 0, 0, 4];

/// An allocation that has a permission and a channel.
pub(crate) struct Allocation {
    /// Connected to the server.
    pub(crate) socket: UdpSocket,
    pub(crate) relayed: SocketAddr,
}

/// Clients that ask at the same time.
const AT_ONCE: usize = 100;
const RESEND: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes allocations for the sessions `sessions`, each by the whole exchange: refused with 401, let
/// in, permission, channel to `peer`.
pub(crate) fn allocate(
    server: SocketAddr,
    peer: SocketAddr,
    sessions: Range<usize>,
) -> Result<Vec<Allocation>, String> {
    let mut done = Vec::with_capacity(sessions.len());
    let mut inbox = Inbox::new();
    let sessions: Vec<usize> = sessions.collect();
    for some in sessions.chunks(AT_ONCE) {
        let start = clock::now();
        let mut clients = some
            .iter()
            .map(|number| Client::new(server, *number))
            .collect::<Result<Vec<_>, _>>()?;
        while clients.iter().any(|client| client.step != Step::Done) {
            for client in &mut clients {
                client.turn(&mut inbox, peer)?;
            }
            if start.elapsed() > PATIENCE {
                let open = clients.iter().find(|client| client.step != Step::Done);
                let step = open.map(|client| client.step);
                return Err(format!("{server} did not answer {step:?} in {PATIENCE:?}"));
            }
        }
        for client in clients {
            let relayed = client.relayed.ok_or("an allocation without a relayed address")?;
            done.push(Allocation { socket: client.socket, relayed });
        }
    }
    Ok(done)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Challenge,
    Allocate,
    Permit,
    Bind,
    Done,
}

/// On its way to an [`Allocation`].
struct Client {
    socket: UdpSocket,
    step: Step,
    number: usize,
    username: String,
    password: String,
    realm: String,
    nonce: Vec<u8>,
    sent_at: Option<Instant>,
    relayed: Option<SocketAddr>,
}

impl Client {
    fn new(server: SocketAddr, number: usize) -> Result<Client, String> {
        let socket = bind(CLIENTS)?;
        socket.connect(server).map_err(|e| format!("{server}: {e}"))?;
        let username = format!("{}:bench-{number}", clock::unix_ms() / 1000 + 86_400);
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, TURN_SECRET.as_bytes());
        let tag = hmac::sign(&key, username.as_bytes());
        Ok(Client {
            socket,
            step: Step::Challenge,
            number,
            username,
            password: base64::engine::general_purpose::STANDARD.encode(tag),
            realm: String::new(),
            nonce: Vec::new(),
            sent_at: None,
            relayed: None,
        })
    }

    /// Reads what came, and sends what is due.
    fn turn(&mut self, inbox: &mut Inbox, peer: SocketAddr) -> Result<(), String> {
        for datagram in inbox.receive(&self.socket).datagrams() {
            let Some(answer) = Message::parse(datagram) else { continue };
            if answer.transaction_id() == self.transaction() {
                self.on_answer(&answer)?;
                self.sent_at = None;
            }
        }
        let now = clock::now();
        if self.step != Step::Done && self.sent_at.is_none_or(|at| now - at > RESEND) {
            let mut buffer = [0; 512];
            let len = self.request(peer, &mut buffer).ok_or("a request does not fit")?;
            self.socket.send(&buffer[..len]).map_err(|e| format!("{:?}: {e}", self.step))?;
            self.sent_at = Some(now);
        }
        Ok(())
    }

    /// One for each step, so that an answer that comes twice is known as the last step's.
    fn transaction(&self) -> TransactionId {
        let mut id = [0; 12];
        id[..8].copy_from_slice(&(self.number as u64).to_be_bytes());
        id[8] = self.step as u8;
        TransactionId(id)
    }

    fn request(&self, peer: SocketAddr, buffer: &mut [u8]) -> Option<usize> {
        let method = match self.step {
            Step::Challenge | Step::Allocate => Method::ALLOCATE,
            Step::Permit => Method::CREATE_PERMISSION,
            Step::Bind | Step::Done => Method::CHANNEL_BIND,
        };
        let request = Builder::new(buffer, Class::Request, method, self.transaction());
        let request = match self.step {
            Step::Challenge | Step::Allocate => {
                request.attribute(attr::REQUESTED_TRANSPORT, &[attr::TRANSPORT_UDP, 0, 0, 0])
            }
            Step::Permit => request.xor_address(attr::XOR_PEER_ADDRESS, peer),
            Step::Bind | Step::Done => {
                request.channel_number(CHANNEL).xor_address(attr::XOR_PEER_ADDRESS, peer)
            }
        };
        if self.step == Step::Challenge {
            return request.finish();
        }
        request
            .attribute(attr::USERNAME, self.username.as_bytes())
            .attribute(attr::REALM, self.realm.as_bytes())
            .attribute(attr::NONCE, &self.nonce)
            .integrity(&long_term_key(&self.username, &self.realm, &self.password))
            .finish()
    }

    fn on_answer(&mut self, answer: &Message<'_>) -> Result<(), String> {
        let refused = answer.class() != Class::Success;
        let code = answer.error_code().map(|error| error.code);
        if refused && (self.step, code) != (Step::Challenge, Some(401)) {
            return Err(format!("{:?} was refused: {code:?}", self.step));
        }
        self.step = match self.step {
            Step::Challenge => {
                let nonce = answer.get(attr::NONCE).ok_or("a 401 without a nonce")?;
                self.nonce = nonce.to_vec();
                self.realm = answer.get_str(attr::REALM).ok_or("a 401 without a realm")?.to_owned();
                Step::Allocate
            }
            Step::Allocate => {
                self.relayed = answer.get_xor_address(attr::XOR_RELAYED_ADDRESS);
                Step::Permit
            }
            Step::Permit => Step::Bind,
            Step::Bind | Step::Done => Step::Done,
        };
        Ok(())
    }
}
