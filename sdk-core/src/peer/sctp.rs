//! One SCTP association over DTLS (RFC 8261), as the side that answers: the viewer opens it.
//!
//! ```text
//! packet ─ checksum, tag ─┬ INIT, COOKIE ECHO ─→ the association is made; nothing is kept before
//!                         ├ DATA, FORWARD TSN ─→ inbound ──→ messages
//!                         ├ SACK ──────────────→ outbound ←─ messages
//!                         └ RE-CONFIG ─────────→ resets ───→ streams closed
//! ```
//!
//! Of our own: `rtc-sctp` 0.21 weighs 270 KB, and takes from whoever has got through DTLS as many
//! streams, as much data beyond a gap and as long a message as that cares to send. What is left out is
//! what WebRTC does not use: several addresses, ECN, authentication of chunks, opening and ending an
//! association by ourselves, heartbeats (ICE knows whether the path lives), reports of parameters and
//! chunks we do not know.

mod congestion;
mod cookie;
mod flight;
mod inbound;
mod outbound;
mod queued;
mod resets;
mod room;
mod rto;

use crate::time::earlier;
use crate::wire::dcep::Reliability;
use crate::wire::sctp::{Chunk, Header, Init, Packet, Writer};
use bytes::Bytes;
use cookie::Cookie;
use inbound::{Inbound, RECEIVE_WINDOW};
use outbound::Outbound;
use resets::{ResetEvent, Resets};
use std::collections::VecDeque;
use std::time::Instant;

pub(super) struct Association {
    /// Our tag and first TSN in the next association that the viewer opens.
    tag: u32,
    first_tsn: u32,
    max_packet: usize,
    state: State,
    /// Packets that answer to one of the viewer's: at most [`MAX_REPLIES`].
    replies: VecDeque<Vec<u8>>,
    events: VecDeque<AssociationEvent>,
    /// Packets with messages that may still go out before something happens.
    burst: u32,
}

enum State {
    Waiting,
    Established(Box<Established>),
    /// The viewer has shut it down, and may ask again whether we have heard.
    Ended {
        tag: u32,
        header: Header,
    },
}

struct Established {
    /// Our tag, in each of the viewer's packets.
    tag: u32,
    /// In front of each of ours.
    header: Header,
    inbound: Inbound,
    outbound: Outbound,
    resets: Resets,
    /// The viewer understands RE-CONFIG.
    can_reset: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum AssociationEvent {
    Up,
    /// It is gone, and with it all streams. The text is for the log.
    Down(&'static str),
    Message(Message),
    /// A message on this stream was longer than we take.
    TooLong(u16),
    /// The viewer has closed its direction of this stream.
    ResetByPeer(u16),
    /// It has closed its direction of all streams.
    AllResetByPeer,
    /// Our direction of this stream is closed.
    ResetDone(u16),
}

/// A message that has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) stream: u16,
    pub(super) protocol: u32,
    pub(super) payload: Vec<u8>,
}

/// A message to send.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) stream: u16,
    pub(super) protocol: u32,
    /// Not empty.
    pub(super) payload: Bytes,
    pub(super) ordered: bool,
    pub(super) reliability: Reliability,
}

/// What each message takes of the send buffer beside its payload, in bytes.
pub(super) const MESSAGE_OVERHEAD: usize = 64;
const MAX_REPLIES: usize = 8;
/// RFC 9260 §7.2.4 recommends this many packets at a time.
const MAX_BURST: u32 = 4;
/// RFC 8831 §6.2 wants all there are.
const MAX_STREAMS: u16 = u16::MAX;

impl Association {
    /// `seed` is random; `max_packet` in bytes.
    pub(super) fn new(seed: [u8; 8], max_packet: usize) -> Association {
        let [t0, t1, t2, t3, n0, n1, n2, n3] = seed;
        Association {
            tag: u32::from_be_bytes([t0, t1, t2, t3]) | 1,
            first_tsn: u32::from_be_bytes([n0, n1, n2, n3]),
            max_packet,
            state: State::Waiting,
            replies: VecDeque::new(),
            events: VecDeque::new(),
            burst: 0,
        }
    }

    pub(super) fn handle_packet(&mut self, now: Instant, bytes: &[u8]) {
        let Some(packet) = Packet::parse(bytes) else { return };
        self.burst = MAX_BURST;
        if packet.header.tag == 0 {
            // RFC 9260 §8.5.1: an INIT is alone in its packet.
            let mut chunks = packet.chunks();
            if let (Some(Chunk::Init(init)), None) = (chunks.next(), chunks.next()) {
                self.on_init(packet.header, &init);
            }
            return;
        }
        let mut is_to_ack = false;
        for chunk in packet.chunks() {
            is_to_ack |= matches!(chunk, Chunk::Data(_) | Chunk::ForwardTsn(_));
            self.on_chunk(now, packet.header, &chunk);
        }
        let State::Established(e) = &mut self.state else { return };
        if packet.header.tag != e.tag {
            return;
        }
        e.inbound.on_packet_end(now, is_to_ack);
        let events = &mut self.events;
        events
            .extend(std::iter::from_fn(|| e.inbound.poll_message()).map(AssociationEvent::Message));
        events.extend(
            std::iter::from_fn(|| e.inbound.poll_too_long()).map(AssociationEvent::TooLong),
        );
        let reconfig = packet.chunks().filter_map(|chunk| match chunk {
            Chunk::Reconfig(parameters) => Some(parameters),
            _ => None,
        });
        let Established { inbound, outbound, resets, .. } = &mut **e;
        resets.handle(reconfig, inbound, outbound, |event| {
            events.push_back(match event {
                ResetEvent::ByPeer(stream) => AssociationEvent::ResetByPeer(stream),
                ResetEvent::AllByPeer => AssociationEvent::AllResetByPeer,
                ResetEvent::Done(stream) => AssociationEvent::ResetDone(stream),
            });
        });
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.burst = MAX_BURST;
        let State::Established(e) = &mut self.state else { return };
        e.outbound.handle_timeout(now);
        for stream in e.resets.handle_timeout(now, &mut e.outbound) {
            self.events.push_back(AssociationEvent::ResetDone(stream));
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let State::Established(e) = &self.state else { return None };
        let timeout = earlier(e.inbound.poll_timeout(), e.outbound.poll_timeout());
        earlier(timeout, e.resets.poll_timeout())
    }

    pub(super) fn poll_event(&mut self) -> Option<AssociationEvent> {
        self.events.pop_front()
    }

    /// The next packet for the viewer.
    pub(super) fn poll_packet(&mut self, now: Instant) -> Option<Vec<u8>> {
        if let Some(reply) = self.replies.pop_front() {
            return Some(reply);
        }
        let State::Established(e) = &mut self.state else { return None };
        let mut out = Writer::new(e.header, self.max_packet);
        let has_data = self.burst > 0 && e.outbound.has_something();
        if has_data || e.inbound.ack_is_due(now) {
            e.inbound.write_ack(&mut out);
        }
        e.resets.write(now, &e.outbound, &mut out);
        e.outbound.write_forward(&mut out);
        if has_data && e.outbound.write(now, &mut out) {
            self.burst -= 1;
        }
        (!out.is_empty()).then(|| out.finish())
    }

    /// Queues a message. False if there is no association.
    pub(super) fn send(&mut self, now: Instant, message: Outgoing) -> bool {
        self.burst = MAX_BURST;
        let State::Established(e) = &mut self.state else { return false };
        e.outbound.send(now, message);
        true
    }

    /// Closes our direction of a stream, once what was sent on it is on its way.
    pub(super) fn reset(&mut self, stream: u16) {
        let State::Established(e) = &mut self.state else { return };
        if e.can_reset {
            e.resets.reset(stream);
        } else {
            self.events.push_back(AssociationEvent::ResetDone(stream));
            self.events.push_back(AssociationEvent::ResetByPeer(stream));
        }
    }

    /// Nobody reads this stream any more: what waits for it is dropped.
    pub(super) fn give_up_stream(&mut self, now: Instant, stream: u16) {
        if let State::Established(e) = &mut self.state {
            e.outbound.give_up_stream(now, stream);
        }
    }

    /// What was under way on another path is sent again.
    pub(super) fn on_path_changed(&mut self, now: Instant) {
        self.burst = MAX_BURST;
        if let State::Established(e) = &mut self.state {
            e.outbound.on_path_changed(now);
            e.resets.on_path_changed();
        }
    }

    /// The send buffer in use, in bytes.
    pub(super) fn buffered(&self) -> usize {
        self.established().map_or(0, |e| e.outbound.buffered())
    }

    /// What of the send buffer is free again, by stream.
    pub(super) fn poll_released(&mut self) -> Option<(u16, usize)> {
        match &mut self.state {
            State::Established(e) => e.outbound.poll_released(),
            State::Waiting | State::Ended { .. } => None,
        }
    }

    /// Heap memory, by capacity or by what is in it.
    pub(super) fn held_bytes(&self) -> usize {
        self.established().map_or(0, |e| {
            size_of::<Established>() + e.inbound.held_bytes() + e.outbound.held_bytes()
        })
    }

    fn established(&self) -> Option<&Established> {
        match &self.state {
            State::Established(e) => Some(e),
            State::Waiting | State::Ended { .. } => None,
        }
    }

    fn on_chunk(&mut self, now: Instant, header: Header, chunk: &Chunk<'_>) {
        if let Chunk::CookieEcho(cookie) = chunk {
            return self.on_cookie(header, cookie);
        }
        if let State::Ended { tag, header: ours } = self.state
            && header.tag == tag
            && *chunk == Chunk::Shutdown
        {
            return self.reply(ours, Writer::shutdown_ack);
        }
        let State::Established(e) = &mut self.state else { return };
        let ours = e.header;
        // RFC 9260 §8.5.1: an ABORT may carry either tag.
        if header.tag != e.tag && !(*chunk == Chunk::Abort && header.tag == ours.tag) {
            return;
        }
        match chunk {
            Chunk::Data(data) => {
                if e.inbound.on_data(data).is_err() {
                    self.reply(ours, Writer::abort);
                    self.end(State::Waiting, "the viewer sends more than there is room for");
                }
            }
            Chunk::Sack(sack) => e.outbound.on_sack(now, sack),
            Chunk::ForwardTsn(forward) => e.inbound.on_forward_tsn(forward),
            Chunk::Heartbeat(information) => {
                self.reply(ours, |out| out.heartbeat_ack(information));
            }
            Chunk::Abort => self.end(State::Waiting, "the viewer has ended it"),
            Chunk::Shutdown => {
                let ended = State::Ended { tag: e.tag, header: ours };
                self.reply(ours, Writer::shutdown_ack);
                self.end(ended, "the viewer has shut it down");
            }
            // RE-CONFIG comes behind all others.
            Chunk::Reconfig(_) | Chunk::CookieEcho(_) | Chunk::Init(_) => {}
            Chunk::ShutdownComplete | Chunk::Other(_) => {}
        }
    }

    /// Nothing is kept: the cookie has it all (RFC 9260 §5.1.3). It need not be sealed, since DTLS
    /// says who echoes it, and whoever changes it could have sent another INIT.
    fn on_init(&mut self, header: Header, init: &Init) {
        let answer = Init {
            tag: self.tag,
            window: RECEIVE_WINDOW as u32,
            outbound_streams: init.inbound_streams,
            inbound_streams: MAX_STREAMS,
            tsn: self.first_tsn,
            forward_tsn: true,
            reconfig: true,
        };
        let cookie = Cookie { tag: self.tag, first_tsn: self.first_tsn, init: *init }.to_bytes();
        let header = reply_header(header, init.tag);
        self.reply(header, |out| out.init_ack(&answer, &cookie));
    }

    fn on_cookie(&mut self, header: Header, cookie: &[u8]) {
        let Some(cookie) = Cookie::parse(cookie).filter(|c| c.tag == header.tag) else { return };
        let peer_tag = cookie.init.tag;
        let is_known =
            self.established().is_some_and(|e| (e.tag, e.header.tag) == (cookie.tag, peer_tag));
        let header = reply_header(header, peer_tag);
        if is_known {
            return self.reply(header, Writer::cookie_ack);
        }
        if (cookie.tag, cookie.first_tsn) != (self.tag, self.first_tsn) {
            return;
        }
        if self.established().is_some() {
            self.end(State::Waiting, "the viewer has started another one");
        }
        let (init, first_tsn) = (cookie.init, self.first_tsn);
        self.state = State::Established(Box::new(Established {
            tag: self.tag,
            header,
            inbound: Inbound::new(init.tsn),
            outbound: Outbound::new(first_tsn, self.max_packet, init.window, init.forward_tsn),
            resets: Resets::new(first_tsn, init.tsn),
            can_reset: init.reconfig,
        }));
        // Another one gets other numbers.
        self.tag = self.tag.wrapping_mul(0x9E37_79B1) | 1;
        self.first_tsn = self.first_tsn.wrapping_add(0x4000_0000);
        self.events.push_back(AssociationEvent::Up);
        self.reply(header, Writer::cookie_ack);
    }

    fn end(&mut self, state: State, why: &'static str) {
        self.state = state;
        self.events.push_back(AssociationEvent::Down(why));
    }

    fn reply(&mut self, header: Header, write: impl FnOnce(&mut Writer)) {
        let mut out = Writer::new(header, self.max_packet);
        write(&mut out);
        if !out.is_empty() && self.replies.len() < MAX_REPLIES {
            self.replies.push_back(out.finish());
        }
    }
}

fn reply_header(header: Header, tag: u32) -> Header {
    Header { source_port: header.destination_port, destination_port: header.source_port, tag }
}

/// Serial number arithmetic (RFC 1982): TSNs begin again at 0.
fn is_before(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) > 0
}
