//! Clients by stream: TCP, and TLS over it. What is read of all of them lies in one buffer; a
//! connection has one of its own only for the beginning of a message, and for what its client is too
//! slow to take.
//!
//! A client that does not read is sent nothing more once [`MAX_BACKLOG`] bytes wait for it: what does
//! not fit is dropped by whole messages, as by a full network. If even answers do not fit, the
//! connection ends.

use super::admission::{Admission, Age, Place};
use super::backlog::{Backlog, is_transient};
use super::framing;
use super::sys::{Epoll, Interest};
use super::tls::{Tls, TlsEnd};
use crate::stun_turn::connections::ConnectionId;
use crate::stun_turn::core::Client;
use slab::Slab;
use std::collections::{BTreeSet, HashMap};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// Names a connection. Used again after it was closed.
pub(super) type StreamId = usize;

pub(super) struct Streams {
    epoll: Rc<Epoll>,
    /// Added to an id to give what epoll says of it.
    first_token: u64,
    admission: Arc<Admission>,
    streams: Slab<Stream>,
    by_client: HashMap<Client, StreamId>,
    timers: BTreeSet<(Instant, StreamId)>,
    /// What was read of the stream that is being served.
    plain: Box<[u8]>,
    cipher: Box<[u8]>,
    /// What is to be written next, and to whom.
    gathered: Vec<u8>,
    writing_to: Option<StreamId>,
    /// One message, put together for its record.
    message: Vec<u8>,
    dropped: u64,
    refused: u64,
}

struct Stream {
    socket: TcpStream,
    client: Client,
    tls: Option<Tls>,
    /// The beginning of a message.
    partial: Vec<u8>,
    backlog: Backlog,
    age: Age,
    check_at: Instant,
    ended: bool,
    /// It is joined with this peer's: its bytes are no messages any more (RFC 6062).
    peer: Option<ConnectionId>,
    /// Not read from while its peer is slow.
    paused: bool,
    /// Ends when what waits for it was taken.
    finishing: bool,
    place: Place,
}

/// A stream on its way to another shard, and what was read of it.
pub(super) struct Detached {
    socket: TcpStream,
    client: Client,
    tls: Option<Tls>,
    place: Place,
    bytes: Vec<u8>,
}

/// What is there of a stream now.
pub(super) struct Received {
    pub(super) client: Client,
    /// Of the arena.
    pub(super) len: usize,
    /// No more will come.
    pub(super) ended: bool,
}

/// The longest message of a client without an allocation.
const MAX_UNPROVEN_LEN: usize = 2048;
/// Bytes read with one call.
const READ_LEN: usize = 64 * 1024;
/// A record that waited for its end, and then came whole.
const RECORD_LEN: usize = 20 * 1024;
const PLAIN_LEN: usize = framing::MAX_MESSAGE_LEN + READ_LEN + RECORD_LEN;
/// Bytes that wait for one client, beside the kernel's: the longest message and as much again.
const MAX_BACKLOG: usize = 128 * 1024;
/// Answers to requests may add so much.
const ANSWERS_BACKLOG: usize = 8 * 1024;
/// Bytes gathered before they are written.
const GATHERED: usize = 64 * 1024;
/// A buffer that has become larger is not kept while nothing is in it.
const KEPT: usize = 4096;

impl Streams {
    pub(super) fn new(epoll: Rc<Epoll>, first_token: u64, admission: Arc<Admission>) -> Streams {
        Streams {
            epoll,
            first_token,
            admission,
            streams: Slab::new(),
            by_client: HashMap::new(),
            timers: BTreeSet::new(),
            plain: vec![0; PLAIN_LEN].into(),
            cipher: vec![0; READ_LEN].into(),
            gathered: Vec::with_capacity(GATHERED),
            writing_to: None,
            message: Vec::new(),
            dropped: 0,
            refused: 0,
        }
    }

    /// A place for one more connection, if there is one.
    pub(super) fn admit(&mut self, address: IpAddr) -> Option<Place> {
        let place = self.admission.admit(address);
        self.refused += u64::from(place.is_none());
        place
    }

    /// Takes a connection that was accepted.
    pub(super) fn open(
        &mut self,
        now: Instant,
        socket: TcpStream,
        client: Client,
        tls: Option<Tls>,
        place: Place,
    ) {
        if let Err(error) = socket.set_nonblocking(true) {
            return log::warn!("TURN cannot serve a connection: {error}");
        }
        self.adopt(now, Detached { socket, client, tls, place, bytes: Vec::new() });
    }

    /// Takes a stream from another shard.
    pub(super) fn adopt(&mut self, now: Instant, from: Detached) -> Option<StreamId> {
        let Detached { socket, client, tls, place, bytes } = from;
        let entry = self.streams.vacant_entry();
        let id = entry.key();
        if let Err(error) = self.epoll.add(&socket, self.first_token + id as u64, Interest::Read) {
            log::warn!("TURN cannot watch a connection: {error}");
            return None;
        }
        let age = Age::new(now);
        let check_at = age.check(now, false)?;
        self.timers.insert((check_at, id));
        self.by_client.insert(client, id);
        entry.insert(Stream {
            socket,
            client,
            tls,
            partial: bytes,
            backlog: Backlog::default(),
            age,
            check_at,
            ended: false,
            peer: None,
            paused: false,
            finishing: false,
            place,
        });
        Some(id)
    }

    /// Gives a stream away, with what was read of it.
    pub(super) fn detach(&mut self, id: StreamId, rest: &[u8]) -> Option<Detached> {
        let stream = self.streams.try_remove(id)?;
        self.timers.remove(&(stream.check_at, id));
        self.by_client.remove(&stream.client);
        self.epoll.remove(&stream.socket).ok()?;
        let Stream { socket, client, tls, place, .. } = stream;
        Some(Detached { socket, client, tls, place, bytes: rest.to_vec() })
    }

    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Where what was received lies. Put it back when it was served.
    pub(super) fn take_arena(&mut self) -> Box<[u8]> {
        std::mem::take(&mut self.plain)
    }

    pub(super) fn put_arena(&mut self, arena: Box<[u8]>) {
        self.plain = arena;
    }

    /// Writes what waits and reads what is there, behind what was kept of it. `None` for a stream
    /// that is gone.
    pub(super) fn receive(&mut self, id: StreamId, arena: &mut [u8]) -> Option<Received> {
        self.flush();
        let token = self.first_token + id as u64;
        let stream = self.streams.get_mut(id)?;
        if !stream.backlog.is_empty() {
            stream.write_backlog(&self.epoll, token);
        }
        if stream.paused {
            // Not watched for reading: if nothing was to be written, the client has broken off.
            stream.ended |= !matches!(stream.socket.take_error(), Ok(None));
            return Some(Received { client: stream.client, len: 0, ended: stream.ended });
        }
        let mut len = stream.partial.len();
        arena.get_mut(..len)?.copy_from_slice(&stream.partial);
        stream.partial.clear();
        stream.partial.shrink_to(KEPT);
        let into = match stream.tls {
            None => &mut arena[len..len + READ_LEN],
            Some(_) => &mut self.cipher[..],
        };
        match (&stream.socket).read(into) {
            Ok(0) => stream.ended = true,
            Ok(count) => match &mut stream.tls {
                None => len += count,
                Some(tls) => {
                    let outcome = tls.receive(&self.cipher[..count], arena, &mut len);
                    if let Err(end) = &outcome {
                        stream.ended = true;
                        if let TlsEnd::Broken(why) = end {
                            log::debug!("TURN over TLS with {}: {why}", stream.client.address);
                        }
                    }
                    // A handshake's answer, tickets, alerts.
                    tls.take_records(&mut self.gathered);
                    self.writing_to = Some(id);
                }
            },
            Err(e) if is_transient(&e) => {}
            Err(_) => stream.ended = true,
        }
        let received = Received { client: stream.client, len, ended: stream.ended };
        self.flush();
        Some(received)
    }

    /// Notes how far the stream's bytes were served. False if it is to end: more would have to be
    /// kept than is worth it.
    pub(super) fn keep(
        &mut self,
        now: Instant,
        id: StreamId,
        rest: &[u8],
        had_message: bool,
        has_allocation: bool,
        message_len: usize,
    ) -> bool {
        let Some(stream) = self.streams.get_mut(id) else { return false };
        if had_message {
            stream.age.on_message(now);
        }
        let longest = if has_allocation { framing::MAX_MESSAGE_LEN } else { MAX_UNPROVEN_LEN };
        if message_len > longest {
            return false;
        }
        stream.partial.extend_from_slice(rest);
        !stream.ended
    }

    /// Gathers an answer to a request.
    pub(super) fn answer(&mut self, id: StreamId, message: &[u8]) {
        if !self.gather(id, message, &[], MAX_BACKLOG + ANSWERS_BACKLOG)
            && let Some(stream) = self.streams.get_mut(id)
        {
            // It asks and does not listen.
            stream.ended = true;
        }
    }

    /// Gathers a peer's payload for a client.
    pub(super) fn relay(&mut self, client: Client, prefix: &[u8], payload: &[u8]) {
        let Some(&id) = self.by_client.get(&client) else { return };
        if !self.gather(id, prefix, payload, MAX_BACKLOG) {
            self.dropped += 1;
        }
    }

    fn gather(&mut self, id: StreamId, prefix: &[u8], payload: &[u8], limit: usize) -> bool {
        if self.writing_to != Some(id) || self.gathered.len() >= GATHERED {
            self.flush();
        }
        let Some(stream) = self.streams.get_mut(id) else { return false };
        let waiting = stream.backlog.len() + self.gathered.len();
        let len = prefix.len() + payload.len();
        let padding = framing::padding(len);
        if stream.ended || waiting + len + padding > limit {
            return false;
        }
        self.writing_to = Some(id);
        let parts = [prefix, payload, &[0; 4][..padding]];
        match &mut stream.tls {
            None => parts.iter().for_each(|part| self.gathered.extend_from_slice(part)),
            // A record for each message: some clients (coturn's) read no second one out of it.
            Some(tls) => {
                self.message.clear();
                parts.iter().for_each(|part| self.message.extend_from_slice(part));
                tls.seal(&self.message);
                tls.take_records(&mut self.gathered);
            }
        }
        true
    }

    /// Gathers bytes of a peer by TCP. All of them: a peer that is too fast is not read from.
    pub(super) fn pass_on(&mut self, id: StreamId, bytes: &[u8]) {
        self.flush();
        let Some(stream) = self.streams.get_mut(id) else { return };
        self.writing_to = Some(id);
        match &mut stream.tls {
            None => self.gathered.extend_from_slice(bytes),
            Some(tls) => {
                tls.seal(bytes);
                tls.take_records(&mut self.gathered);
            }
        }
        self.flush();
    }

    pub(super) fn join(&mut self, id: StreamId, peer: ConnectionId) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.peer = Some(peer);
        }
    }

    pub(super) fn peer_of(&self, id: StreamId) -> Option<ConnectionId> {
        self.streams.get(id)?.peer
    }

    pub(super) fn id_of(&self, client: Client) -> Option<StreamId> {
        self.by_client.get(&client).copied()
    }

    pub(super) fn has_backlog(&self, id: StreamId) -> bool {
        self.streams.get(id).is_some_and(|stream| !stream.backlog.is_empty())
    }

    /// Stops reading, or goes on.
    pub(super) fn pause(&mut self, id: StreamId, paused: bool) {
        let token = self.first_token + id as u64;
        if let Some(stream) = self.streams.get_mut(id).filter(|stream| stream.paused != paused) {
            stream.paused = paused;
            stream.watch(&self.epoll, token);
        }
    }

    /// Ends a stream as soon as what waits for it was taken; true if that is now.
    pub(super) fn finish(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.streams.get_mut(id) else { return false };
        stream.finishing = true;
        stream.backlog.is_empty()
    }

    /// Writes what was gathered.
    pub(super) fn flush(&mut self) {
        let Some(id) = self.writing_to.take() else { return };
        let token = self.first_token + id as u64;
        if let Some(stream) = self.streams.get_mut(id) {
            stream.write(&self.gathered, &self.epoll, token);
        }
        self.gathered.clear();
        self.gathered.shrink_to(2 * GATHERED);
    }

    /// Whether a stream has come to its end while it was written to.
    pub(super) fn has_ended(&self, id: StreamId) -> bool {
        self.streams.get(id).is_none_or(|stream| stream.ended)
    }

    /// Forgets a stream and closes it; whose it was.
    pub(super) fn close(&mut self, id: StreamId) -> Option<Client> {
        let mut stream = self.streams.try_remove(id)?;
        if let Some(tls) = &mut stream.tls {
            let mut farewell = Vec::new();
            tls.close();
            tls.take_records(&mut farewell);
            if stream.backlog.is_empty() {
                // As far as the kernel takes it: the client will notice anyway.
                let _ = stream.socket.write(&farewell);
            }
        }
        self.timers.remove(&(stream.check_at, id));
        self.by_client.remove(&stream.client);
        Some(stream.client)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The next stream that has been of no use for too long.
    pub(super) fn poll_expired(
        &mut self,
        now: Instant,
        has_allocation: impl Fn(Client) -> bool,
    ) -> Option<StreamId> {
        while let Some(&(at, id)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            let Some(stream) = self.streams.get_mut(id) else { continue };
            let is_joined = stream.peer.is_some() && !stream.finishing;
            let in_use = is_joined || has_allocation(stream.client);
            match stream.age.check(now, in_use) {
                None => return Some(id),
                Some(next) => {
                    stream.check_at = next;
                    self.timers.insert((next, id));
                }
            }
        }
        None
    }
}

impl Stream {
    fn write(&mut self, bytes: &[u8], epoll: &Epoll, token: u64) {
        let waited = !self.backlog.is_empty();
        self.ended |= self.backlog.write(&self.socket, bytes).is_err();
        if self.backlog.is_empty() == waited {
            self.watch(epoll, token);
        }
    }

    fn write_backlog(&mut self, epoll: &Epoll, token: u64) {
        self.ended |= self.backlog.flush(&self.socket).is_err();
        if self.backlog.is_empty() {
            self.ended |= self.finishing;
            self.watch(epoll, token);
        }
    }

    fn watch(&mut self, epoll: &Epoll, token: u64) {
        let interest = Interest::of(!self.paused, !self.backlog.is_empty());
        self.ended |= epoll.set(&self.socket, token, interest).is_err();
    }
}
