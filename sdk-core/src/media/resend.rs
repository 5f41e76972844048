//! What a viewer was sent under which sequence number, so that a lost packet is found again in the
//! stream's history; and how often it may be sent again.

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
}

/// Lets a packet be sent again once per round trip, and no more than [`MAX_RESENDS`] packets in
/// that time.
pub(super) struct ResendLimiter {
    /// By sequence number modulo its size: what was sent again, and when.
    recent: Box<[Option<Instant>; MAX_RESENDS]>,
}

impl ResendLimiter {
    pub(super) fn new() -> ResendLimiter {
        ResendLimiter { recent: Box::new([None; MAX_RESENDS]) }
    }

    /// Heap memory.
    pub(super) fn held_bytes(&self) -> usize {
        size_of_val(&*self.recent)
    }

    pub(super) fn may_resend(&mut self, now: Instant, sequence: u64, rtt: Duration) -> bool {
        let recent = &mut self.recent[(sequence % MAX_RESENDS as u64) as usize];
        // Whether it was this packet or another one does not matter: there are enough places that
        // it is nearly always this one, and the bound holds in either case.
        if recent.is_some_and(|sent| now < sent + rtt) {
            return false;
        }
        *recent = Some(now);
        true
    }
}

/// Some four seconds at 30 frames a second, of which a keyframe may take several.
const MAX_SEGMENTS: usize = 128;
const MAX_RESENDS: usize = 256;

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
        let mut limiter = ResendLimiter::new();
        assert!(limiter.may_resend(start, 5, rtt));
        assert!(!limiter.may_resend(start + Duration::from_millis(79), 5, rtt));
        assert!(limiter.may_resend(start + rtt, 5, rtt));
        let many = (0..10_000).filter(|&sequence| limiter.may_resend(start + rtt, sequence, rtt));
        assert_eq!(many.count(), MAX_RESENDS - 1);
    }
}
