//! What comes: which DATA chunks have come, messages put together from them, and what is to be
//! acknowledged (RFC 9260 §6).
//!
//! ```text
//! DATA ─→ fragments ─ all of a message there ─→ unordered ────────────────────────→ delivered
//!                                               ordered ─→ waiting ─ its turn came ─↗
//! ```
//!
//! Bounds: `held` counts the payloads and something for each, and never passes [`MAX_HELD`]. What the
//! sender may have in flight is [`RECEIVE_WINDOW`] less that; beyond it only the very next chunk is
//! taken, without which nothing could be put together any more. TSNs further ahead than [`AHEAD`] are
//! passed over as if they had been lost.

use super::{Message, is_before};
use crate::wire::sctp::{Data, ForwardTsn, Writer};
use crate::wire::sdp::MAX_MESSAGE_SIZE;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

pub(super) struct Inbound {
    /// All up to this TSN have come, or were given up by the sender.
    cumulative: u32,
    /// Which of those behind it have come: the lowest bit of the first word is the next one.
    received: [u64; WORDS],
    /// Parts of messages that are not whole, by TSN.
    fragments: Vec<Fragment>,
    /// Ordered messages that are whole, by TSN.
    waiting: Vec<Waiting>,
    /// The number of the next message of each ordered stream; 0 for those that are not in it.
    next: Vec<(u16, u16)>,
    /// Of fragments and what waits.
    held: usize,
    delivered: VecDeque<Message>,
    /// Streams on which a message was too long.
    too_long: Vec<u16>,
    ack: Ack,
    /// Packets to acknowledge since the last acknowledgement.
    unacknowledged: u32,
}

struct Fragment {
    tsn: u32,
    stream: u16,
    ssn: u16,
    protocol: u32,
    unordered: bool,
    beginning: bool,
    ending: bool,
    payload: Vec<u8>,
}

struct Waiting {
    /// Of its last fragment.
    tsn: u32,
    ssn: u16,
    message: Message,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ack {
    Nothing,
    At(Instant),
    Now,
}

/// The sender holds more in flight than it was told that there is room for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overrun;

/// What the sender is told at most that there is room for, in bytes: two of the longest messages.
pub(super) const RECEIVE_WINDOW: usize = 2 * MAX_MESSAGE_SIZE;
/// With one more message that is put together beyond it, and what each fragment costs beside its
/// payload.
const MAX_HELD: usize = RECEIVE_WINDOW + 2 * MAX_MESSAGE_SIZE;
/// What a fragment or a message costs beside its payload, in bytes.
const OVERHEAD: usize = 64;
/// A sender's fragments are as long as its path carries, so that a message has some 60.
const MAX_FRAGMENTS: usize = 512;
/// How far a TSN may be ahead: more than a window of fragments, and of messages of a hundred bytes.
const AHEAD: usize = 1024;
const WORDS: usize = AHEAD / 64;
/// RFC 9260 §6.2: no later than this, and at least for every second packet.
const ACK_DELAY: Duration = Duration::from_millis(200);
/// Ordered streams that are kept count of: twice as many as there are channels. A sender with more
/// gets the messages of the others delivered without regard to gaps.
const MAX_STREAMS: usize = 32;

impl Inbound {
    /// The sender's first chunk has the TSN `first`.
    pub(super) fn new(first: u32) -> Inbound {
        Inbound {
            cumulative: first.wrapping_sub(1),
            received: [0; WORDS],
            fragments: Vec::new(),
            waiting: Vec::new(),
            next: Vec::new(),
            held: 0,
            delivered: VecDeque::new(),
            too_long: Vec::new(),
            ack: Ack::Nothing,
            unacknowledged: 0,
        }
    }

    pub(super) fn on_data(&mut self, data: &Data<'_>) -> Result<(), Overrun> {
        let ahead = data.tsn.wrapping_sub(self.cumulative).wrapping_sub(1) as usize;
        if ahead >= AHEAD || self.has(ahead) {
            // A duplicate tells that an acknowledgement was lost (RFC 9260 §6.2).
            self.ack = Ack::Now;
            return Ok(());
        }
        let is_full = self.held + data.payload.len() + OVERHEAD
            > if ahead == 0 { MAX_HELD } else { RECEIVE_WINDOW }
            || self.fragments.len() >= MAX_FRAGMENTS;
        if is_full {
            self.ack = Ack::Now;
            return if ahead == 0 { Err(Overrun) } else { Ok(()) };
        }
        if data.immediate || ahead > 0 {
            self.ack = Ack::Now;
        }
        if let Some(word) = self.received.get_mut(ahead / 64) {
            *word |= 1 << (ahead % 64);
        }
        self.held += data.payload.len() + OVERHEAD;
        let at = self.fragments.partition_point(|f| is_before(f.tsn, data.tsn));
        self.fragments.insert(
            at,
            Fragment {
                tsn: data.tsn,
                stream: data.stream,
                ssn: data.ssn,
                protocol: data.protocol,
                unordered: data.unordered,
                beginning: data.beginning,
                ending: data.ending,
                payload: data.payload.to_vec(),
            },
        );
        self.put_together(at);
        Ok(())
    }

    /// The sender gives up what it has not got through.
    pub(super) fn on_forward_tsn(&mut self, forward: &ForwardTsn<'_>) {
        if !is_before(self.cumulative, forward.cumulative) {
            return;
        }
        self.ack = Ack::Now;
        let by = forward.cumulative.wrapping_sub(self.cumulative) as usize;
        self.shift(by);
        self.cumulative = forward.cumulative;
        let given_up = self.until(forward.cumulative);
        self.drop_fragments(0..given_up);
        for (stream, ssn) in forward.streams().take(MAX_STREAMS) {
            let next = ssn.wrapping_add(1);
            if is_before_16(self.next_in(stream), next) {
                self.set_next(stream, next);
            }
        }
        self.settle();
    }

    /// All chunks of a packet have been taken. `is_to_ack`: DATA and FORWARD TSN were among them, which
    /// are acknowledged also where they say nothing new; the last acknowledgement was lost then.
    pub(super) fn on_packet_end(&mut self, now: Instant, is_to_ack: bool) {
        self.settle();
        if !is_to_ack {
            return;
        }
        self.unacknowledged += 1;
        let has_gap = self.received.iter().any(|word| *word != 0);
        if has_gap || self.unacknowledged >= 2 {
            self.ack = Ack::Now;
        } else if self.ack == Ack::Nothing {
            self.ack = Ack::At(now + ACK_DELAY);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.ack {
            Ack::At(at) => Some(at),
            Ack::Nothing | Ack::Now => None,
        }
    }

    /// Whether an acknowledgement should go out by itself. With other chunks it may go sooner.
    pub(super) fn ack_is_due(&self, now: Instant) -> bool {
        match self.ack {
            Ack::Nothing => false,
            Ack::At(at) => at <= now,
            Ack::Now => true,
        }
    }

    /// Acknowledges, if there is anything to acknowledge.
    pub(super) fn write_ack(&mut self, out: &mut Writer) {
        if self.ack == Ack::Nothing {
            return;
        }
        self.ack = Ack::Nothing;
        self.unacknowledged = 0;
        let window = RECEIVE_WINDOW.saturating_sub(self.held) as u32;
        out.sack(self.cumulative, window, self.gaps());
    }

    /// All up to here have come.
    pub(super) fn cumulative(&self) -> u32 {
        self.cumulative
    }

    pub(super) fn poll_message(&mut self) -> Option<Message> {
        self.delivered.pop_front()
    }

    /// A stream on which a message was longer than [`MAX_MESSAGE_SIZE`]. It was dropped.
    pub(super) fn poll_too_long(&mut self) -> Option<u16> {
        self.too_long.pop()
    }

    /// The sender numbers the stream's messages from 0 again (RFC 6525 §5.2.2).
    pub(super) fn restart(&mut self, stream: u16) {
        self.next.retain(|(id, _)| *id != stream);
    }

    pub(super) fn restart_all(&mut self) {
        self.next.clear();
    }

    /// Heap memory, by capacity or by what is in it.
    pub(super) fn held_bytes(&self) -> usize {
        self.held
            + self.fragments.capacity() * size_of::<Fragment>()
            + self.waiting.capacity() * size_of::<Waiting>()
            + self.next.capacity() * size_of::<(u16, u16)>()
    }

    fn has(&self, ahead: usize) -> bool {
        self.received.get(ahead / 64).is_some_and(|word| word >> (ahead % 64) & 1 == 1)
    }

    /// How many fragments are up to this TSN.
    fn until(&self, tsn: u32) -> usize {
        self.fragments.partition_point(|f| !is_before(tsn, f.tsn))
    }

    /// Moves the window on, by any distance.
    fn shift(&mut self, by: usize) {
        let (words, bits) = (by / 64, by % 64);
        for i in 0..WORDS {
            let word = |i: usize| self.received.get(i).copied().unwrap_or_default();
            let low = word(i.saturating_add(words)) >> bits;
            // In two steps: by all 64 bits there is no shift.
            let high = word(i.saturating_add(words).saturating_add(1)) << (63 - bits) << 1;
            self.received[i] = low | high;
        }
    }

    /// First and last of each run beyond the cumulative TSN, counted from it.
    fn gaps(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let first = (at..AHEAD).find(|n| self.has(*n))?;
            let end = (first..AHEAD).find(|n| !self.has(*n)).unwrap_or(AHEAD);
            at = end;
            Some((first as u16 + 1, end as u16))
        })
    }

    /// The fragments of one message around `at` that lie one behind the other.
    fn run(&self, at: usize) -> Range<usize> {
        let belongs = |pair: &[Fragment]| match pair {
            [a, b] => {
                b.tsn == a.tsn.wrapping_add(1)
                    && !a.ending
                    && !b.beginning
                    && (a.stream, a.unordered) == (b.stream, b.unordered)
                    && (a.unordered || a.ssn == b.ssn)
            }
            _ => false,
        };
        let mut start = at;
        while start > 0 && self.fragments.get(start - 1..=start).is_some_and(belongs) {
            start -= 1;
        }
        let behind = self.fragments.get(at..).unwrap_or_default();
        start..at + 1 + behind.windows(2).take_while(|pair| belongs(pair)).count()
    }

    /// Takes the message out to which the fragment at `at` belongs, if it is whole now.
    fn put_together(&mut self, at: usize) {
        let run = self.run(at);
        let parts = self.fragments.get(run.clone()).unwrap_or_default();
        let len: usize = parts.iter().map(|f| f.payload.len()).sum();
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return };
        if len > MAX_MESSAGE_SIZE {
            // What still comes of it has no beginning any more, and goes the same way.
            let stream = first.stream;
            self.drop_fragments(run);
            if !self.too_long.contains(&stream) && self.too_long.len() < MAX_STREAMS {
                self.too_long.push(stream);
            }
            return;
        }
        if !(first.beginning && last.ending) {
            return;
        }
        let (tsn, ssn, unordered) = (last.tsn, first.ssn, first.unordered);
        let (stream, protocol) = (first.stream, first.protocol);
        let count = parts.len();
        let mut parts = self.fragments.drain(run).map(|f| f.payload);
        let mut payload = parts.next().unwrap_or_default();
        payload.reserve_exact(len - payload.len());
        parts.for_each(|part| payload.extend_from_slice(&part));
        let message = Message { stream, protocol, payload };
        if unordered {
            self.held -= len + count * OVERHEAD;
            self.delivered.push_back(message);
        } else {
            self.held -= (count - 1) * OVERHEAD;
            let at = self.waiting.partition_point(|w| is_before(w.tsn, tsn));
            self.waiting.insert(at, Waiting { tsn, ssn, message });
        }
    }

    /// Moves on over what has come, and delivers what had to wait for that.
    fn settle(&mut self) {
        while self.has(0) {
            let by = self.received[0].trailing_ones() as usize;
            self.shift(by);
            self.cumulative = self.cumulative.wrapping_add(by as u32);
        }
        self.drop_orphans();
        self.deliver();
    }

    /// Nothing more comes in front of the cumulative TSN: of what is there, only one message can still
    /// become whole, the one that goes on behind it.
    fn drop_orphans(&mut self) {
        let behind = self.until(self.cumulative);
        let Some(last) = behind.checked_sub(1) else { return };
        let goes_on = |f: &Fragment| f.tsn == self.cumulative && !f.ending;
        let keep = match self.fragments.get(last) {
            Some(fragment) if goes_on(fragment) => {
                let start = self.run(last).start;
                let begins = self.fragments.get(start).is_some_and(|f| f.beginning);
                if begins { start } else { behind }
            }
            _ => behind,
        };
        self.drop_fragments(0..keep);
    }

    fn drop_fragments(&mut self, range: Range<usize>) {
        let freed: usize = self.fragments.drain(range).map(|f| f.payload.len() + OVERHEAD).sum();
        self.held -= freed;
    }

    /// Whose turn is it? The next of its stream's; and whoever has nothing missing in front of it, so
    /// that a sender that leaves numbers out blocks nobody.
    fn deliver(&mut self) {
        let mut i = 0;
        while let Some(waiting) = self.waiting.get(i) {
            let (stream, ssn) = (waiting.message.stream, waiting.ssn);
            let nothing_missing = !is_before(self.cumulative, waiting.tsn);
            if ssn != self.next_in(stream) && !nothing_missing {
                i += 1;
                continue;
            }
            self.set_next(stream, ssn.wrapping_add(1));
            let message = self.waiting.remove(i).message;
            self.held -= message.payload.len() + OVERHEAD;
            self.delivered.push_back(message);
        }
    }

    fn next_in(&self, stream: u16) -> u16 {
        self.next.iter().find(|(id, _)| *id == stream).map_or(0, |(_, next)| *next)
    }

    fn set_next(&mut self, stream: u16, next: u16) {
        if let Some((_, known)) = self.next.iter_mut().find(|(id, _)| *id == stream) {
            *known = next;
        } else if self.next.len() < MAX_STREAMS {
            self.next.push((stream, next));
        }
    }
}

/// Stream sequence numbers begin again at 0 after 65535.
fn is_before_16(a: u16, b: u16) -> bool {
    (b.wrapping_sub(a) as i16) > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sctp::{Chunk, Header, Packet};

    const FIRST: u32 = u32::MAX - 5;

    fn data(n: u32, flags: &str, payload: &[u8]) -> (u32, u16, u16, String, Vec<u8>) {
        (FIRST.wrapping_add(n), 0, 0, flags.to_owned(), payload.to_vec())
    }

    struct Receiver {
        inbound: Inbound,
        now: Instant,
    }

    impl Receiver {
        #[allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
        fn new() -> Receiver {
            Receiver { inbound: Inbound::new(FIRST), now: Instant::now() }
        }

        /// `flags` of B, E, U; one packet.
        fn take(&mut self, n: u32, stream: u16, ssn: u16, flags: &str, payload: &[u8]) {
            let (tsn, _, _, flags, payload) = data(n, flags, payload);
            let data = Data {
                tsn,
                stream,
                ssn,
                protocol: 51,
                unordered: flags.contains('U'),
                beginning: flags.contains('B'),
                ending: flags.contains('E'),
                immediate: false,
                payload: &payload,
            };
            self.inbound.on_data(&data).unwrap();
            self.inbound.on_packet_end(self.now, true);
        }

        fn forward(&mut self, n: u32, streams: &[(u16, u16)]) {
            let header = Header { source_port: 1, destination_port: 2, tag: 3 };
            let mut out = Writer::new(header, 1200);
            out.forward_tsn(FIRST.wrapping_add(n), streams.iter().copied());
            let bytes = out.finish();
            let chunk = Packet::parse(&bytes).unwrap().chunks().next();
            let Some(Chunk::ForwardTsn(forward)) = chunk else { panic!("{chunk:?}") };
            self.inbound.on_forward_tsn(&forward);
            self.inbound.on_packet_end(self.now, true);
        }

        fn delivered(&mut self) -> Vec<(u16, String)> {
            std::iter::from_fn(|| self.inbound.poll_message())
                .map(|m| (m.stream, String::from_utf8(m.payload).unwrap()))
                .collect()
        }

        /// Cumulative TSN as a number of this test, window, gaps.
        fn ack(&mut self) -> (u32, u32, Vec<(u16, u16)>) {
            let header = Header { source_port: 1, destination_port: 2, tag: 3 };
            let mut out = Writer::new(header, 1200);
            self.inbound.write_ack(&mut out);
            let bytes = out.finish();
            let chunk = Packet::parse(&bytes).unwrap().chunks().next();
            let Some(Chunk::Sack(sack)) = chunk else { panic!("{chunk:?}") };
            (sack.cumulative.wrapping_sub(FIRST), sack.window, sack.gaps().collect())
        }
    }

    #[test]
    fn fragments_in_any_order_make_the_message_and_wait_for_their_turn() {
        let mut r = Receiver::new();
        r.take(4, 0, 1, "BE", b"second");
        r.take(2, 0, 0, "", b"rs");
        r.take(3, 0, 0, "E", b"t");
        r.take(1, 0, 0, "B", b"fi");
        assert_eq!(r.delivered(), [(0, "first".into()), (0, "second".into())]);
        assert_eq!(r.ack(), (u32::MAX, RECEIVE_WINDOW as u32, vec![(2, 5)]));
        r.take(0, 3, 0, "BEU", b"x");
        assert_eq!(r.delivered(), [(3, "x".into())]);
        assert_eq!(r.ack(), (4, RECEIVE_WINDOW as u32, vec![]));
        assert_eq!((r.inbound.held, r.inbound.fragments.len()), (0, 0));
    }

    #[test]
    fn unordered_messages_and_other_streams_wait_for_nobody() {
        let mut r = Receiver::new();
        r.take(1, 0, 1, "BE", b"waits");
        r.take(2, 0, 0, "BEU", b"unordered");
        r.take(3, 4, 0, "BE", b"other stream");
        assert_eq!(r.delivered(), [(0, "unordered".into()), (4, "other stream".into())]);
        assert_eq!(r.ack().2, [(2, 4)]);
        r.take(0, 0, 0, "BE", b"late");
        assert_eq!(r.delivered(), [(0, "late".into()), (0, "waits".into())]);
    }

    #[test]
    fn what_the_sender_gives_up_is_dropped_and_skipped() {
        let mut r = Receiver::new();
        // The first message's end is missing, the second one is there, the third is lost whole.
        r.take(0, 0, 0, "B", b"cut");
        r.take(2, 0, 1, "BE", b"two");
        r.take(4, 0, 3, "BE", b"four");
        assert!(r.delivered().is_empty());
        r.forward(1, &[(0, 0)]);
        assert_eq!(r.delivered(), [(0, "two".into())]);
        assert_eq!(r.ack().0, 2);
        r.forward(3, &[(0, 2)]);
        assert_eq!(r.delivered(), [(0, "four".into())]);
        assert_eq!((r.ack().0, r.inbound.held), (4, 0));
        // An old one is only acknowledged, and one from far away costs nothing.
        r.forward(2, &[]);
        assert_eq!(r.ack().0, 4);
        r.forward(4 + 0x7fff_0000, &[]);
        assert_eq!(r.ack().0, 4 + 0x7fff_0000);
        assert_eq!(r.inbound.received, [0; WORDS]);
    }

    #[test]
    fn a_number_left_out_blocks_nobody_once_nothing_is_missing() {
        let mut r = Receiver::new();
        r.take(0, 0, 5, "BE", b"jump");
        r.take(1, 0, 6, "BE", b"on");
        assert_eq!(r.delivered(), [(0, "jump".into()), (0, "on".into())]);
        // A part without a beginning can never become a message.
        r.take(2, 0, 7, "E", b"orphan");
        r.take(3, 0, 8, "", b"orphan");
        assert_eq!((r.inbound.held, r.inbound.fragments.len()), (0, 0));
        // Nor one whose next part belongs to another stream.
        r.take(4, 0, 9, "B", b"a");
        r.take(5, 2, 9, "E", b"b");
        assert_eq!((r.inbound.held, r.delivered()), (0, vec![]));
    }

    #[test]
    fn every_second_packet_is_acknowledged_and_the_others_soon() {
        let mut r = Receiver::new();
        r.take(0, 0, 0, "BE", b"a");
        assert_eq!(r.inbound.poll_timeout(), Some(r.now + ACK_DELAY));
        assert!(!r.inbound.ack_is_due(r.now) && r.inbound.ack_is_due(r.now + ACK_DELAY));
        r.take(1, 0, 1, "BE", b"b");
        assert!(r.inbound.ack_is_due(r.now));
        assert_eq!(r.ack(), (1, RECEIVE_WINDOW as u32, vec![]));
        assert!(!r.inbound.ack_is_due(r.now + ACK_DELAY));
        // A duplicate, and what is too far ahead, at once.
        r.take(1, 0, 1, "BE", b"b");
        assert!(r.inbound.ack_is_due(r.now));
        r.ack();
        r.take(2 + AHEAD as u32, 0, 1, "BE", b"far");
        assert!(r.inbound.ack_is_due(r.now));
        assert_eq!(r.ack(), (1, RECEIVE_WINDOW as u32, vec![]));
        r.take(1 + AHEAD as u32, 0, 1, "BE", b"far");
        assert_eq!(r.ack().2, [(AHEAD as u16, AHEAD as u16)]);
    }

    #[test]
    fn a_message_that_is_too_long_is_dropped_and_told_once() {
        let mut r = Receiver::new();
        let part = vec![b'x'; 1100];
        let parts = 2 * (MAX_MESSAGE_SIZE / part.len()) as u32;
        r.take(0, 6, 0, "B", &part);
        for n in 1..parts {
            r.take(n, 6, 0, "", &part);
        }
        r.take(parts, 6, 0, "E", &part);
        assert_eq!((r.inbound.poll_too_long(), r.inbound.poll_too_long()), (Some(6), None));
        r.take(parts + 1, 4, 0, "BE", b"goes on");
        assert_eq!(r.delivered(), [(4, "goes on".into())]);
        assert_eq!((r.inbound.held, r.inbound.fragments.len()), (0, 0));
    }

    #[test]
    fn what_is_held_has_a_bound_and_the_next_chunk_is_still_taken() {
        let mut r = Receiver::new();
        let part = vec![b'x'; 1000];
        for n in 1..400 {
            r.take(n, 0, n as u16, "BE", &part);
        }
        assert!(r.inbound.held <= RECEIVE_WINDOW);
        let (_, window, gaps) = r.ack();
        assert!(window < 1064, "{window}");
        let taken = gaps[0].1 - gaps[0].0 + 1;
        assert_eq!(usize::from(taken), RECEIVE_WINDOW / 1064);
        r.take(0, 0, 0, "BE", &part);
        assert_eq!(r.delivered().len(), usize::from(taken) + 1);
        assert_eq!(r.inbound.held, 0);
    }

    #[test]
    fn tiny_fragments_without_end_are_an_overrun() {
        let mut inbound = Inbound::new(0);
        let overrun = (0..70_000).find(|n| {
            let data = Data {
                tsn: *n,
                stream: 0,
                ssn: 0,
                protocol: 51,
                unordered: false,
                beginning: *n == 0,
                ending: false,
                immediate: false,
                payload: b"x",
            };
            let result = inbound.on_data(&data);
            inbound.settle();
            result == Err(Overrun)
        });
        assert_eq!(overrun, Some(MAX_FRAGMENTS as u32));
    }
}
