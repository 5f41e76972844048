//! DATA chunks that were sent and not yet acknowledged for good (RFC 9260 §6.2.1, §7.2.4).

use crate::wire::sctp::{Data, Sack};
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub(super) struct Flight {
    /// All up to this TSN were acknowledged. The first chunk's is the next one.
    cumulative: u32,
    sent: VecDeque<Sent>,
    /// Bytes under way: neither acknowledged nor taken to be lost.
    outstanding: usize,
    lost: usize,
}

/// One chunk, and what becomes of it.
pub(super) struct Sent {
    /// Which message it belongs to.
    pub(super) message: u32,
    pub(super) stream: u16,
    pub(super) ssn: u16,
    pub(super) protocol: u32,
    pub(super) unordered: bool,
    pub(super) beginning: bool,
    pub(super) ending: bool,
    pub(super) payload: Bytes,
    /// What of the send buffer is free again once this chunk is done with.
    pub(super) cost: usize,
    pub(super) limit: Limit,
    pub(super) sends: u32,
    pub(super) sent_at: Instant,
    pub(super) state: State,
    /// How often others behind it were acknowledged and it was not.
    pub(super) missed: u8,
}

/// When a message is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Never,
    Retransmits(u32),
    At(Instant),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    UnderWay,
    Lost,
    /// Beyond a gap. The other side may change its mind, so it is kept.
    Acknowledged,
    GivenUp,
}

/// What an acknowledgement said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The cumulative TSN moved on.
    pub(super) moved: bool,
    /// Acknowledged for the first time.
    pub(super) bytes: usize,
    pub(super) round_trip: Option<Duration>,
    /// At least one chunk is taken to be lost.
    pub(super) loss: bool,
}

/// RFC 9260 §7.2.4.
const MISSED_IS_LOST: u8 = 3;

impl Flight {
    /// The first chunk will have the TSN `first`.
    pub(super) fn new(first: u32) -> Flight {
        Flight { cumulative: first.wrapping_sub(1), sent: VecDeque::new(), outstanding: 0, lost: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }

    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// The last TSN that was given to a chunk.
    pub(super) fn last_tsn(&self) -> u32 {
        self.tsn(self.sent.len()).wrapping_sub(1)
    }

    pub(super) fn capacity(&self) -> usize {
        self.sent.capacity() * size_of::<Sent>()
    }

    /// Sent for the first time, or given up before that.
    pub(super) fn push(&mut self, sent: Sent) {
        if sent.state == State::UnderWay {
            self.outstanding += sent.payload.len();
        }
        self.sent.push_back(sent);
    }

    /// The chunk at this place, as it is written. `immediate`: its acknowledgement is waited for
    /// (RFC 7053).
    pub(super) fn data(&self, at: usize, immediate: bool) -> Option<Data<'_>> {
        let sent = self.sent.get(at)?;
        Some(Data {
            tsn: self.tsn(at),
            stream: sent.stream,
            ssn: sent.ssn,
            protocol: sent.protocol,
            unordered: sent.unordered,
            beginning: sent.beginning,
            ending: sent.ending,
            immediate,
            payload: &sent.payload,
        })
    }

    /// The first chunk that has to be sent again.
    pub(super) fn first_lost(&self) -> Option<(usize, &Sent)> {
        (self.lost > 0).then_some(())?;
        self.sent.iter().enumerate().find(|(_, sent)| sent.state == State::Lost)
    }

    pub(super) fn on_sent_again(&mut self, at: usize, now: Instant) {
        let Some(sent) = self.sent.get_mut(at).filter(|sent| sent.state == State::Lost) else {
            return;
        };
        sent.state = State::UnderWay;
        sent.sends = sent.sends.saturating_add(1);
        sent.sent_at = now;
        self.lost -= 1;
        self.outstanding += sent.payload.len();
    }

    /// `None` if it is an old one, or speaks of what was never sent. What is acknowledged for good
    /// goes to `done`.
    pub(super) fn on_sack(
        &mut self,
        now: Instant,
        sack: &Sack<'_>,
        is_recovering: bool,
        mut done: impl FnMut(&Sent),
    ) -> Option<Facts> {
        let by = sack.cumulative.wrapping_sub(self.cumulative) as usize;
        if by > self.sent.len() {
            return None;
        }
        let mut facts = Facts { moved: by > 0, ..Facts::default() };
        for at in 0..by {
            self.acknowledge(at, now, &mut facts);
        }
        self.sent.drain(..by).for_each(|sent| done(&sent));
        self.cumulative = sack.cumulative;

        let (mut from, mut last, mut last_new) = (0, 0, 0);
        for (first, end) in sack.gaps() {
            let (first, end) = (usize::from(first), usize::from(end).min(self.sent.len()));
            // In order and apart, as they have to be: so this takes no longer than the flight is.
            if first <= from || end < first {
                break;
            }
            for at in first - 1..end {
                if self.acknowledge(at, now, &mut facts) {
                    last_new = at;
                }
            }
            (from, last) = (end, end - 1);
        }
        // RFC 9260 §7.2.4: while recovering, whatever is missing counts if others moved on.
        let misses_until = if is_recovering && facts.moved { last } else { last_new };
        for at in 0..misses_until {
            self.miss(at, &mut facts);
        }
        Some(facts)
    }

    /// Whatever is under way is taken to be lost. If nothing is, the other side has changed its mind
    /// about what it acknowledged beyond a gap.
    pub(super) fn lose_all(&mut self) {
        let which = if self.outstanding > 0 || self.lost > 0 {
            State::UnderWay
        } else {
            State::Acknowledged
        };
        for sent in self.sent.iter_mut().filter(|sent| sent.state == which) {
            sent.state = State::Lost;
            self.lost += 1;
        }
        self.outstanding = 0;
    }

    /// Gives up all chunks that `which` picks. True if there were any.
    pub(super) fn give_up(
        &mut self,
        which: impl Fn(&Sent) -> bool,
        mut done: impl FnMut(&Sent),
    ) -> bool {
        let mut any = false;
        let chosen = self.sent.iter_mut().filter(|s| s.state != State::GivenUp && which(s));
        for sent in chosen {
            match sent.state {
                State::UnderWay => self.outstanding -= sent.payload.len(),
                State::Lost => self.lost -= 1,
                State::Acknowledged | State::GivenUp => {}
            }
            done(sent);
            sent.state = State::GivenUp;
            sent.payload = Bytes::new();
            sent.cost = 0;
            any = true;
        }
        any
    }

    /// Chunks at the front that were given up, which the other side must be told (RFC 3758 §3.5).
    pub(super) fn given_up(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter().take_while(|sent| sent.state == State::GivenUp)
    }

    /// Up to where that goes: "Advanced.Peer.Ack.Point".
    pub(super) fn given_up_until(&self) -> Option<u32> {
        let count = self.given_up().count();
        (count > 0).then(|| self.tsn(count).wrapping_sub(1))
    }

    fn tsn(&self, at: usize) -> u32 {
        self.cumulative.wrapping_add(1).wrapping_add(at as u32)
    }

    /// True if it is news.
    fn acknowledge(&mut self, at: usize, now: Instant, facts: &mut Facts) -> bool {
        let Some(sent) = self.sent.get_mut(at) else { return false };
        match sent.state {
            State::UnderWay => self.outstanding -= sent.payload.len(),
            State::Lost => self.lost -= 1,
            State::Acknowledged | State::GivenUp => return false,
        }
        sent.state = State::Acknowledged;
        facts.bytes += sent.payload.len();
        // Of one that was sent twice, nobody knows which is meant (Karn's algorithm).
        if sent.sends == 1 {
            facts.round_trip = Some(now.saturating_duration_since(sent.sent_at));
        }
        true
    }

    fn miss(&mut self, at: usize, facts: &mut Facts) {
        let Some(sent) = self.sent.get_mut(at) else { return };
        // Once: if that is lost as well, the timer tells.
        if sent.state != State::UnderWay || sent.sends > 1 {
            return;
        }
        sent.missed += 1;
        if sent.missed >= MISSED_IS_LOST {
            sent.state = State::Lost;
            self.outstanding -= sent.payload.len();
            self.lost += 1;
            facts.loss = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sctp::{Chunk, Header, Packet, Writer};

    const FIRST: u32 = u32::MAX - 1;
    const LEN: usize = 100;

    struct Sender {
        flight: Flight,
        now: Instant,
        done: usize,
    }

    impl Sender {
        #[allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
        fn with(chunks: usize) -> Sender {
            let (mut flight, now) = (Flight::new(FIRST), Instant::now());
            for n in 0..chunks {
                flight.push(Sent {
                    message: n as u32,
                    stream: 0,
                    ssn: n as u16,
                    protocol: 51,
                    unordered: false,
                    beginning: true,
                    ending: true,
                    payload: Bytes::from(vec![7; LEN]),
                    cost: LEN,
                    limit: Limit::Never,
                    sends: 1,
                    sent_at: now,
                    state: State::UnderWay,
                    missed: 0,
                });
            }
            Sender { flight, now: now + Duration::from_millis(30), done: 0 }
        }

        /// `cumulative` as a number of this test: 0 is the first chunk.
        fn ack(&mut self, cumulative: i32, gaps: &[(u16, u16)]) -> Option<Facts> {
            let header = Header { source_port: 1, destination_port: 2, tag: 3 };
            let mut out = Writer::new(header, 1200);
            let cumulative = FIRST.wrapping_add_signed(cumulative);
            out.sack(cumulative, 1000, gaps.iter().copied());
            let bytes = out.finish();
            let chunk = Packet::parse(&bytes).unwrap().chunks().next();
            let Some(Chunk::Sack(sack)) = chunk else { panic!("{chunk:?}") };
            let Sender { flight, now, done } = self;
            flight.on_sack(*now, &sack, false, |sent| *done += sent.cost)
        }

        fn states(&self) -> Vec<State> {
            self.flight.sent.iter().map(|sent| sent.state).collect()
        }
    }

    #[test]
    fn what_others_overtook_three_times_is_lost_once() {
        use State::{Acknowledged, Lost, UnderWay};
        let mut s = Sender::with(6);
        let facts = s.ack(0, &[(2, 2)]).unwrap();
        assert_eq!((facts.moved, facts.bytes, facts.loss), (true, 2 * LEN, false));
        assert_eq!(facts.round_trip, Some(Duration::from_millis(30)));
        assert_eq!((s.done, s.flight.outstanding()), (LEN, 4 * LEN));
        assert!(!s.ack(0, &[(2, 3)]).unwrap().loss);
        // Nothing new in it, so it does not count.
        assert_eq!(s.ack(0, &[(2, 3)]), Some(Facts::default()));
        assert!(s.ack(0, &[(2, 4)]).unwrap().loss);
        assert_eq!(s.states(), [Lost, Acknowledged, Acknowledged, Acknowledged, UnderWay]);
        assert_eq!(s.flight.first_lost().map(|(at, _)| at), Some(0));
        s.flight.on_sent_again(0, s.now);
        assert_eq!((s.flight.first_lost().is_some(), s.flight.outstanding()), (false, 2 * LEN));
        // Again, it is the timer that tells. And nobody knows which of the two arrived.
        assert!(!s.ack(0, &[(2, 5)]).unwrap().loss);
        let facts = s.ack(1, &[(1, 4)]).unwrap();
        assert_eq!((facts.round_trip, facts.bytes), (None, LEN));
        assert_eq!((s.ack(5, &[]).unwrap().moved, s.flight.outstanding()), (true, 0));
        assert_eq!((s.flight.is_empty(), s.done), (true, 6 * LEN));
    }

    #[test]
    fn what_was_never_sent_cannot_be_acknowledged() {
        let mut s = Sender::with(3);
        assert_eq!(s.ack(3, &[]), None);
        assert_eq!(s.ack(-2, &[]), None);
        assert_eq!(s.ack(i32::MAX, &[]), None);
        // Backwards, on top of each other, beyond the end: read as far as it makes sense.
        for gaps in [&[(0, 2)][..], &[(3, 2)], &[(2, 2), (1, 3)], &[(2, 60_000)]] {
            let facts = s.ack(-1, gaps).unwrap();
            assert!(!facts.moved && facts.bytes <= 2 * LEN, "{gaps:?}");
        }
        assert_eq!(s.states(), [State::UnderWay, State::Acknowledged, State::Acknowledged]);
    }

    #[test]
    fn who_acknowledged_beyond_a_gap_may_change_its_mind() {
        let mut s = Sender::with(2);
        s.ack(-1, &[(1, 2)]).unwrap();
        assert_eq!(s.flight.outstanding(), 0);
        s.flight.lose_all();
        assert_eq!(s.states(), [State::Lost, State::Lost]);
        assert_eq!(s.ack(1, &[]).unwrap().bytes, 2 * LEN);
        assert!(s.flight.first_lost().is_none());
    }

    #[test]
    fn what_is_given_up_is_told_as_far_as_nothing_else_is_in_front() {
        let mut s = Sender::with(4);
        assert!(s.flight.give_up(|sent| sent.message > 1, |_| ()));
        assert_eq!((s.flight.given_up_until(), s.flight.outstanding()), (None, 2 * LEN));
        assert!(s.flight.give_up(|sent| sent.message == 0, |_| ()));
        assert!(!s.flight.give_up(|sent| sent.message == 0, |_| ()));
        assert_eq!(s.flight.given_up_until(), Some(FIRST));
        s.ack(1, &[]).unwrap();
        assert_eq!(s.flight.given_up_until(), Some(FIRST.wrapping_add(3)));
        assert_eq!(s.flight.given_up().count(), 2);
    }
}
