//! What goes: messages cut into DATA chunks, sent again, or given up where the channel says so
//! (RFC 9260 §6.1 and §6.9, RFC 3758).
//!
//! ```text
//! send ─→ queue ─ as the windows allow ─→ flight ─ acknowledged, given up ─→ released
//! ```
//!
//! Bound: the caller's, by what [`Outbound::buffered`] says: payloads and [`MESSAGE_OVERHEAD`] for
//! each message, from [`Outbound::send`] until it is acknowledged or given up.

use super::congestion::Congestion;
use super::flight::{Flight, Limit};
use super::queued::Queued;
use super::room::Room;
use super::rto::Rto;
use super::{MESSAGE_OVERHEAD, Outgoing};
use crate::wire::dcep::Reliability;
use crate::wire::sctp::{DATA_HEADER_LEN, HEADER_LEN, Sack, Writer};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub(super) struct Outbound {
    /// The longest payload of a chunk.
    max_payload: usize,
    /// The other side understands FORWARD TSN. If not, everything is reliable.
    may_give_up: bool,
    /// Not yet sent, or only in part.
    queue: VecDeque<Queued>,
    flight: Flight,
    /// The number of the next message of each ordered stream that has had any.
    next: Vec<(u16, u16)>,
    messages: u32,
    /// What the other side has room for, less what is under way to it.
    window: usize,
    congestion: Congestion,
    rto: Rto,
    /// When what is in flight is taken to be lost.
    deadline: Option<Instant>,
    /// The other side is to be told of what was given up.
    forward_is_due: bool,
    /// What it was told last.
    told: u32,
    /// What was found missing is sent again even if the window is full, once.
    hurries: bool,
    room: Room,
}

impl Outbound {
    pub(super) fn new(
        first_tsn: u32,
        max_packet: usize,
        window: u32,
        may_give_up: bool,
    ) -> Outbound {
        Outbound {
            max_payload: max_packet.saturating_sub(HEADER_LEN + DATA_HEADER_LEN).max(4) & !3,
            may_give_up,
            queue: VecDeque::new(),
            flight: Flight::new(first_tsn),
            next: Vec::new(),
            messages: 0,
            window: window as usize,
            congestion: Congestion::new(max_packet),
            rto: Rto::new(),
            deadline: None,
            forward_is_due: false,
            told: first_tsn.wrapping_sub(1),
            hurries: false,
            room: Room::default(),
        }
    }

    pub(super) fn send(&mut self, now: Instant, message: Outgoing) {
        self.messages = self.messages.wrapping_add(1);
        self.room.take(message.payload.len() + MESSAGE_OVERHEAD);
        let limit = match message.reliability {
            Reliability::MaxRetransmits(most) if self.may_give_up => Limit::Retransmits(most),
            Reliability::MaxLifetimeMs(ms) if self.may_give_up => {
                let lifetime = Duration::from_millis(ms.into());
                now.checked_add(lifetime).map_or(Limit::Never, Limit::At)
            }
            _ => Limit::Never,
        };
        self.queue.push_back(Queued { number: self.messages, message, offset: 0, ssn: 0, limit });
    }

    pub(super) fn on_sack(&mut self, now: Instant, sack: &Sack<'_>) {
        let was_full = self.flight.outstanding() + self.max_payload > self.congestion.window()
            || !self.queue.is_empty();
        let is_recovering = self.congestion.is_recovering();
        let (flight, room) = (&mut self.flight, &mut self.room);
        let facts =
            flight.on_sack(now, sack, is_recovering, |sent| room.free(sent.stream, sent.cost));
        let Some(facts) = facts else { return };
        self.window = (sack.window as usize).saturating_sub(self.flight.outstanding());
        if let Some(round_trip) = facts.round_trip {
            self.rto.on_round_trip(round_trip);
        }
        if facts.moved {
            self.congestion.on_acknowledged(sack.cumulative, facts.bytes, was_full);
            self.deadline = None;
        }
        if facts.loss {
            self.hurries = !is_recovering;
            self.congestion.on_loss(self.flight.last_tsn());
        }
        self.on_given_up(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|at| at > now) {
            return;
        }
        self.rto.back_off();
        self.congestion.on_timeout();
        self.send_all_again(now);
    }

    /// There is another path: what was under way on the old one is sent again at once, without
    /// waiting for a timer that has grown with the old one's failure.
    pub(super) fn on_path_changed(&mut self, now: Instant) {
        self.rto.settle();
        self.congestion.on_path_changed();
        self.send_all_again(now);
    }

    pub(super) fn timeout(&self) -> Duration {
        self.rto.get()
    }

    /// Whether [`Self::write`] would write something.
    pub(super) fn has_something(&self) -> bool {
        let outstanding = self.flight.outstanding();
        let fits = |len: usize| outstanding == 0 || outstanding + len <= self.congestion.window();
        let lost = self
            .flight
            .first_lost()
            .is_some_and(|(_, sent)| self.hurries || fits(sent.payload.len()));
        let new = self.queue.front().is_some_and(|queued| {
            let len = queued.next_len(self.max_payload);
            fits(len) && (outstanding == 0 || len <= self.window)
        });
        self.forward_is_due || lost || new
    }

    /// Writes what may go out now and fits. True if there was DATA in it.
    pub(super) fn write(&mut self, now: Instant, out: &mut Writer) -> bool {
        let again = self.write_lost(now, out);
        let new = self.write_new(now, out);
        if again || new {
            self.hurries = false;
            self.arm(now);
        }
        again || new
    }

    /// Tells the other side what it need not wait for, which goes before DATA.
    pub(super) fn write_forward(&mut self, out: &mut Writer) {
        if !std::mem::take(&mut self.forward_is_due) {
            return;
        }
        let Some(until) = self.flight.given_up_until() else { return };
        self.told = until;
        let mut streams: Vec<(u16, u16)> = Vec::new();
        for sent in self.flight.given_up().filter(|sent| !sent.unordered) {
            // In the order they were sent in, so the last one is the highest.
            match streams.iter_mut().find(|(stream, _)| *stream == sent.stream) {
                Some((_, ssn)) => *ssn = sent.ssn,
                None => streams.push((sent.stream, sent.ssn)),
            }
        }
        out.forward_tsn(until, streams.into_iter());
    }

    /// Whether messages of this stream have not been sent in full.
    pub(super) fn has_unsent(&self, stream: u16) -> bool {
        self.queue.iter().any(|queued| queued.message.stream == stream)
    }

    pub(super) fn last_tsn(&self) -> u32 {
        self.flight.last_tsn()
    }

    /// Nobody reads this stream any more.
    pub(super) fn give_up_stream(&mut self, now: Instant, stream: u16) {
        let room = &mut self.room;
        let partly = self.queue.front().filter(|q| q.offset > 0).map(|q| q.number);
        self.queue.retain(|queued| {
            let stays = queued.message.stream != stream || Some(queued.number) == partly;
            if !stays {
                room.free(stream, queued.cost());
            }
            stays
        });
        if !self.may_give_up {
            return;
        }
        if let Some(front) = self.queue.front()
            && front.message.stream == stream
        {
            self.give_up(now, front.number);
        }
        let any = self
            .flight
            .give_up(|sent| sent.stream == stream, |sent| self.room.free(sent.stream, sent.cost));
        if any {
            self.on_given_up(now);
        }
    }

    /// Its messages are numbered from 0 again (RFC 6525 §5.1.2).
    pub(super) fn restart(&mut self, stream: u16) {
        self.next.retain(|(id, _)| *id != stream);
    }

    pub(super) fn buffered(&self) -> usize {
        self.room.in_use()
    }

    /// By stream: what of the send buffer is free again.
    pub(super) fn poll_released(&mut self) -> Option<(u16, usize)> {
        self.room.poll_released()
    }

    /// Heap memory, by capacity or by what is in it.
    pub(super) fn held_bytes(&self) -> usize {
        self.room.in_use()
            + self.flight.capacity()
            + self.queue.capacity() * size_of::<Queued>()
            + self.next.capacity() * size_of::<(u16, u16)>()
    }

    fn send_all_again(&mut self, now: Instant) {
        self.flight.lose_all();
        self.window = self.window.max(self.max_payload);
        self.hurries = false;
        self.forward_is_due = self.flight.given_up().next().is_some();
        self.deadline = None;
        self.arm(now);
    }

    /// The timer runs while anything is in flight.
    fn arm(&mut self, now: Instant) {
        if self.flight.is_empty() {
            self.deadline = None;
        } else {
            self.deadline.get_or_insert(now + self.rto.get());
        }
    }

    fn write_lost(&mut self, now: Instant, out: &mut Writer) -> bool {
        let mut any = false;
        while let Some((at, sent)) = self.flight.first_lost() {
            let exhausted = match sent.limit {
                Limit::Never => false,
                Limit::Retransmits(most) => sent.sends > most,
                Limit::At(at) => at <= now,
            };
            if exhausted {
                let number = sent.message;
                self.give_up(now, number);
                continue;
            }
            let (len, outstanding) = (sent.payload.len(), self.flight.outstanding());
            let fits = outstanding == 0 || outstanding + len <= self.congestion.window();
            if out.room() < DATA_HEADER_LEN + len || !(fits || self.hurries) {
                break;
            }
            if let Some(data) = self.flight.data(at, true) {
                out.data(&data);
            }
            self.flight.on_sent_again(at, now);
            any = true;
        }
        any
    }

    fn write_new(&mut self, now: Instant, out: &mut Writer) -> bool {
        let mut any = false;
        while let Some(front) = self.queue.front() {
            if matches!(front.limit, Limit::At(at) if at < now) {
                let number = front.number;
                self.give_up(now, number);
                continue;
            }
            let (len, outstanding) = (front.next_len(self.max_payload), self.flight.outstanding());
            let fits = outstanding + len <= self.congestion.window() && len <= self.window;
            // One chunk may always be under way: it finds out whether there is room again.
            if out.room() < DATA_HEADER_LEN + len || !(fits || outstanding == 0) {
                break;
            }
            if front.offset == 0 && front.message.ordered {
                let ssn = self.take_ssn(front.message.stream);
                if let Some(front) = self.queue.front_mut() {
                    front.ssn = ssn;
                }
            }
            let Some(front) = self.queue.front_mut() else { break };
            let sent = front.next_chunk(len, now);
            if sent.ending {
                self.queue.pop_front();
            }
            self.window = self.window.saturating_sub(len);
            self.flight.push(sent);
            // What the window holds back would wait for an acknowledgement that may be delayed.
            let outstanding = self.flight.outstanding();
            let is_held_back = self.queue.front().is_some_and(|next| {
                outstanding + next.next_len(self.max_payload) > self.congestion.window()
            });
            if let Some(data) = self.flight.data(self.flight.len() - 1, is_held_back) {
                out.data(&data);
            }
            any = true;
        }
        any
    }

    /// A message is given up: what of it is in flight, and what was not sent yet.
    fn give_up(&mut self, now: Instant, number: u32) {
        let (flight, room) = (&mut self.flight, &mut self.room);
        flight.give_up(|sent| sent.message == number, |sent| room.free(sent.stream, sent.cost));
        if let Some(rest) = self.queue.pop_front_if(|queued| queued.number == number) {
            self.room.free(rest.message.stream, rest.cost());
            if rest.offset > 0 {
                // The other side may have all that was sent of it. Only an end that is given up
                // tells it that no more will come.
                self.flight.push(rest.given_up_end(now));
            }
        }
        self.on_given_up(now);
    }

    /// What it was told already is told again when nothing comes back, by the timer. Not for each
    /// acknowledgement, as RFC 3758 §3.5 has it: each would be answered by another one.
    fn on_given_up(&mut self, now: Instant) {
        self.forward_is_due = self.flight.given_up_until().is_some_and(|tsn| tsn != self.told);
        self.arm(now);
    }

    fn take_ssn(&mut self, stream: u16) -> u16 {
        match self.next.iter_mut().find(|(id, _)| *id == stream) {
            Some((_, next)) => {
                let ssn = *next;
                *next = next.wrapping_add(1);
                ssn
            }
            None => {
                self.next.push((stream, 1));
                0
            }
        }
    }
}
