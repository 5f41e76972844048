//! What a viewer was sent under which sequence number, so that a lost packet is found again in the
//! stream's history; and which packets were sent again, and how often they may be.

use super::video_stream::Train;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// One train as it was sent to one viewer. Every byte of its packets follows from this and from the
/// history: a packet that is sent again is the same packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// 48 bits: rollover counter and sequence number.
    pub(super) first_sequence: u64,
    pub(super) packets: u32,
    pub(super) train: Train,
    /// With the viewer's offset.
    pub(super) timestamp: u32,
    pub(super) abs_send_time: u32,
    /// Transport-wide number of the first packet.
    pub(super) transport_sequence: u16,
}

/// The last trains of a viewer; of fixed size.
pub(super) struct SentTrains {
    segments: VecDeque<Segment>,
}

impl SentTrains {
    pub(super) fn new() -> SentTrains {
        SentTrains { segments: VecDeque::with_capacity(MAX_SEGMENTS) }
    }

    pub(super) fn push(&mut self, segment: Segment) {
        if self.segments.len() == MAX_SEGMENTS {
            self.segments.pop_front();
        }
        self.segments.push_back(segment);
    }

    /// Heap memory, by capacity.
    pub(super) fn held_bytes(&self) -> usize {
        self.segments.capacity() * size_of::<Segment>()
    }

    /// The train that has the newest packet with this sequence number, and that packet's 48-bit
    /// number.
    pub(super) fn find(&self, sequence: u16) -> Option<(Segment, u64)> {
        let newest = self.segments.back().map(|s| s.first_sequence + u64::from(s.packets) - 1)?;
        let age = u64::from((newest as u16).wrapping_sub(sequence));
        let sequence = newest.checked_sub(age)?;
        let behind = self.segments.partition_point(|s| s.first_sequence <= sequence);
        let segment = *self.segments.get(behind.checked_sub(1)?)?;
        (sequence < segment.first_sequence + u64::from(segment.packets))
            .then_some((segment, sequence))
    }

    /// The same by the packet's transport-wide number.
    pub(super) fn find_transport(&self, transport_sequence: u16) -> Option<(Segment, u64)> {
        let place = |s: &Segment| u32::from(transport_sequence.wrapping_sub(s.transport_sequence));
        let segment = self.segments.iter().rev().find(|s| place(s) < s.packets)?;
        Some((*segment, segment.first_sequence + u64::from(place(segment))))
    }
}

/// Whether a packet may be sent again now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resend {
    No,
    First,
    /// It was before, and has not arrived.
    Repeat,
}

/// The packets that were sent again: each once per round trip, and no more than [`MAX_RESENDS`] in
/// that time.
pub(super) struct Resends {
    /// By sequence number modulo its size.
    recent: Box<[Option<Resent>; MAX_RESENDS]>,
}

#[derive(Debug, Clone, Copy)]
struct Resent {
    /// `None` once it is known that it did not arrive.
    at: Option<Instant>,
    /// The lower bits of the 48: enough for as long as it is remembered.
    sequence: u32,
    /// Its transport-wide number, if it went out under one of its own.
    transport_sequence: u16,
    is_numbered: bool,
    /// How often it went out again without being asked for.
    unasked: u8,
}

impl Resends {
    pub(super) fn new() -> Resends {
        Resends { recent: Box::new([None; MAX_RESENDS]) }
    }

    /// Heap memory.
    pub(super) fn held_bytes(&self) -> usize {
        size_of_val(&*self.recent)
    }

    /// Unless it may not, it counts as sent again.
    pub(super) fn may_resend(&mut self, now: Instant, sequence: u64, rtt: Duration) -> Resend {
        let recent = self.place_of(sequence);
        // Whether it was this packet or another one does not matter: there are enough places that
        // it is nearly always this one, and the bound holds in either case.
        if recent.and_then(|resent| resent.at).is_some_and(|at| now < at + rtt) {
            return Resend::No;
        }
        let before = recent.filter(|resent| resent.sequence == sequence as u32);
        let unasked = before.map_or(0, |resent| resent.unasked);
        *recent = Some(Resent {
            at: Some(now),
            sequence: sequence as u32,
            transport_sequence: 0,
            is_numbered: false,
            unasked,
        });
        if before.is_some() { Resend::Repeat } else { Resend::First }
    }

    /// The packet went out again under this number.
    pub(super) fn on_resent(&mut self, sequence: u64, transport_sequence: u16) {
        if let Some(resent) = self.place_of(sequence) {
            (resent.transport_sequence, resent.is_numbered) = (transport_sequence, true);
        }
    }

    pub(super) fn has(&mut self, sequence: u64) -> bool {
        self.place_of(sequence).is_some_and(|resent| resent.sequence == sequence as u32)
    }

    /// What was sent again under this number and is lost once more, if it may go out again unasked.
    /// The answer is given once.
    pub(super) fn take_lost(&mut self, transport_sequence: u16) -> Option<u16> {
        let mut resent = self.recent.iter_mut().flatten();
        let resent = resent
            .find(|resent| resent.is_numbered && resent.transport_sequence == transport_sequence)?;
        (resent.at, resent.is_numbered) = (None, false);
        resent.unasked += 1;
        (resent.unasked <= MAX_UNASKED).then_some(resent.sequence as u16)
    }

    fn place_of(&mut self, sequence: u64) -> &mut Option<Resent> {
        &mut self.recent[(sequence % MAX_RESENDS as u64) as usize]
    }
}

/// Some four seconds at 30 frames a second, of which a keyframe may take several.
const MAX_SEGMENTS: usize = 128;
const MAX_RESENDS: usize = 256;
/// A way that loses a packet that often loses it for another reason than chance.
const MAX_UNASKED: u8 = 3;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs a moment to count from")]
mod tests {
    use super::*;

    fn segment(first_sequence: u64, packets: u32) -> Segment {
        let source = crate::event::StreamId(1);
        let train =
            Train { source, first_packet: 0, packets, bytes: 0, timestamp: 0, keyframe: false };
        Segment {
            first_sequence,
            packets,
            train,
            timestamp: 0,
            abs_send_time: 0,
            transport_sequence: 0,
        }
    }

    #[test]
    fn sequence_numbers_are_found_over_the_rollover_and_no_further_back_than_held() {
        let mut sent = SentTrains::new();
        assert_eq!(sent.find(0), None);
        let mut first = 0xff00;
        for _ in 0..MAX_SEGMENTS + 10 {
            sent.push(segment(first, 3));
            first += 3;
        }
        let oldest = 0xff00 + 30;
        for sequence in oldest..first {
            let (segment, found) = sent.find(sequence as u16).unwrap();
            assert_eq!(found, sequence);
            assert!((segment.first_sequence..segment.first_sequence + 3).contains(&sequence));
        }
        assert_eq!(sent.find((oldest - 1) as u16), None);
        assert_eq!(sent.find(first as u16), None, "not sent yet");
    }

    #[test]
    fn a_packet_is_sent_again_once_per_round_trip_and_all_of_them_are_bounded() {
        let start = Instant::now();
        let rtt = Duration::from_millis(80);
        let mut resends = Resends::new();
        let mut may = |at, sequence| resends.may_resend(at, sequence, rtt);
        assert_eq!(may(start, 5), Resend::First);
        assert_eq!(may(start + Duration::from_millis(79), 5), Resend::No);
        assert_eq!(may(start + rtt, 5), Resend::Repeat);
        let many = (0..10_000).filter(|&sequence| may(start + rtt, sequence) != Resend::No);
        assert_eq!(many.count(), MAX_RESENDS - 1);
    }

    #[test]
    fn a_packet_is_found_by_its_transport_wide_number() {
        let mut sent = SentTrains::new();
        sent.push(Segment { transport_sequence: 0xfffe, ..segment(100, 4) });
        // One was sent again between them, under 2.
        sent.push(Segment { transport_sequence: 3, ..segment(104, 2) });
        let found = |number| sent.find_transport(number).map(|(_, sequence)| sequence);
        assert_eq!([0xfffe, 0xffff, 0, 1].map(found), [100, 101, 102, 103].map(Some));
        assert_eq!([3, 4].map(found), [104, 105].map(Some));
        assert_eq!([2, 5, 0xfffd].map(found), [None; 3]);
    }

    #[test]
    fn what_is_lost_again_goes_out_again_unasked_but_not_for_ever() {
        let mut resends = Resends::new();
        let (mut now, rtt, mut number) = (Instant::now(), Duration::from_millis(20), 500);
        assert!(!resends.has(70_000));
        assert_eq!(resends.take_lost(number), None);
        let mut unasked = 0;
        while resends.may_resend(now, 70_000, rtt) != Resend::No {
            resends.on_resent(70_000, number);
            assert!(resends.has(70_000) && !resends.has(70_000 + MAX_RESENDS as u64));
            now += rtt;
            let lost = resends.take_lost(number);
            assert_eq!(resends.take_lost(number), None, "said once");
            number += 1;
            match lost {
                Some(sequence) => assert_eq!(sequence, 70_000_u64 as u16),
                None => break,
            }
            unasked += 1;
        }
        assert_eq!(unasked, MAX_UNASKED);
        let asked = resends.may_resend(now, 70_000, rtt);
        assert_eq!(asked, Resend::Repeat, "the viewer may still ask");
    }
}
