//! A viewer's stream with the frames that wait for their time: small ones go out at once and whole,
//! large ones in parts, and what would wait too long is left out up to the next keyframe.
//!
//! ```text
//! Train ─→ queue ─→ begun ─ as the Pacer grants ─→ ViewerStream::seal_part ─→ SendBuffer
//! RTCP ──→ ready (packets sent again) ── first ──────────────────────────────→ SendBuffer
//! ```

use super::pacer::Pacer;
use super::send_buffer::SendBuffer;
use super::srtp::{OpenError, SrtpKeys};
use super::video_stream::{Sources, Train, TrainId, VideoStream};
use super::viewer_stream::{
    DropReason, Part, RtcpFacts, Sealed, ViewerConfig, ViewerStream, gop_timestamp,
};
use crate::event::StreamId;
use std::time::{Duration, Instant};

/// See the module.
pub struct PacedStream {
    stream: ViewerStream,
    pacer: Pacer,
    /// What is left of the train that is being sent: once begun, it is finished.
    begun: Option<Part>,
    /// Whether that one is of the past.
    begun_is_past: bool,
    /// The train whose last packet was sealed last, unless it was of the past.
    finished: Option<TrainId>,
    past: Option<Past>,
    queue: heapless::Deque<Train, MAX_QUEUE>,
    /// Packets sent again: sealed when they were asked for, since they go first.
    ready: SendBuffer,
    /// Trains were left out, so that only a keyframe is of use.
    awaiting_keyframe: bool,
    /// When a keyframe was asked for last because of that.
    asked: Option<Instant>,
    /// When the next part may go out, if one waits.
    release: Option<Instant>,
}

/// The pictures since the last keyframe, with which a viewer starts.
#[derive(Debug, Clone, Copy)]
struct Past {
    source: StreamId,
    /// First packet of its next train, and the one behind its last.
    next: u64,
    end: u64,
    /// Trains left.
    left: u32,
    newest_timestamp: u32,
}

impl PacedStream {
    /// `start_rate` is what the way is taken to carry until the viewer says something about it, in
    /// bits per second.
    pub fn new(
        now: Instant,
        config: ViewerConfig,
        keys: &SrtpKeys,
        start_rate: u32,
    ) -> PacedStream {
        let mut stream = ViewerStream::new(now, config, keys);
        stream.set_start_rate(start_rate);
        PacedStream {
            stream,
            pacer: Pacer::new(now),
            begun: None,
            begun_is_past: false,
            finished: None,
            past: None,
            queue: heapless::Deque::new(),
            ready: SendBuffer::new(),
            awaiting_keyframe: false,
            asked: None,
            release: None,
        }
    }

    /// Heap memory, by capacity.
    pub fn held_bytes(&self) -> usize {
        self.stream.held_bytes() + self.ready.held_bytes()
    }

    pub fn stream(&self) -> &ViewerStream {
        &self.stream
    }

    pub fn stream_mut(&mut self) -> &mut ViewerStream {
        &mut self.stream
    }

    /// Begins with the pictures since the last keyframe. False if there are none, or too many: then
    /// it begins with the next keyframe. `offered_at`: as in [`VideoStream::trains_for_viewer`].
    pub fn start(&mut self, video: &VideoStream, offered_at: u64) -> bool {
        let mut trains = video.trains_for_viewer(offered_at);
        let left = trains.len() as u32;
        let first = trains.next();
        self.past = first.map(|first| {
            let newest = trains.next_back().unwrap_or(first);
            Past {
                source: first.source,
                next: first.first_packet,
                end: newest.first_packet + u64::from(newest.packets),
                left,
                newest_timestamp: newest.timestamp,
            }
        });
        self.past.is_some()
    }

    /// A train for this viewer. If it would wait for longer than [`super::pacer::MAX_WAIT`], it is
    /// left out, and so is all that follows it up to a keyframe. A keyframe is always taken, then
    /// in the place of all that waits.
    pub fn queue(&mut self, train: &Train) {
        let fits = self.fits(train);
        if train.keyframe {
            if !fits || self.awaiting_keyframe {
                self.stream.on_frames_dropped(self.queue.len());
                self.queue.clear();
                self.past = None;
            }
            self.awaiting_keyframe = false;
        } else if self.awaiting_keyframe {
            self.stream.on_frames_useless(1);
            return;
        } else if !fits {
            self.awaiting_keyframe = true;
            self.stream.on_frames_dropped(1);
            return;
        }
        // There is room: it fits, or the queue was emptied.
        let _ = self.queue.push_back(*train);
    }

    fn fits(&self, train: &Train) -> bool {
        let waiting = self.waiting_bytes();
        // The pictures a viewer starts with may take longer: without them it sees nothing.
        let soon = self.past.is_some() || !self.pacer.is_too_much(waiting + bytes_of(train));
        (soon || waiting == 0) && !self.queue.is_full()
    }

    fn waiting_bytes(&self) -> usize {
        let begun =
            self.begun.as_ref().map_or(0, |rest| rest.packets.len() * per_packet(&rest.train));
        begun + self.queue.iter().map(bytes_of).sum::<usize>()
    }

    /// Whether a keyframe would help now: some frames were left out, and the way is free again. Then
    /// it counts as asked for.
    pub fn take_keyframe_wish(&mut self, now: Instant) -> bool {
        let is_free = self.begun.is_none()
            && self.queue.is_empty()
            && self.stream.bandwidth().drain().is_none();
        let may_ask = self.asked.is_none_or(|at| now >= at + ASK_INTERVAL);
        let asks = self.awaiting_keyframe && is_free && may_ask;
        if asks {
            self.asked = Some(now);
        }
        asks
    }

    /// Seals what may go out now into `out`, which is empty: packets sent again, or some of one
    /// train. Nothing if nothing waits, or not before [`Self::next_release`].
    pub fn seal(
        &mut self,
        now: Instant,
        sources: &dyn Sources,
        channel: Option<u16>,
        out: &mut SendBuffer,
    ) -> Result<(), DropReason> {
        self.release = None;
        if !self.ready.runs().is_empty() {
            out.take_from(&mut self.ready);
            return Ok(());
        }
        let bandwidth = self.stream.bandwidth();
        self.pacer.set_estimate(now, bandwidth.estimate(), bandwidth.drain());
        while let Some(rest) = self.begun.take().or_else(|| self.next_train(sources)) {
            let waiting = rest.packets.len() * per_packet(&rest.train);
            let granted = self.pacer.grant(now, waiting);
            if granted == 0 {
                self.release = Some(self.pacer.next_release(now, waiting));
                self.begun = Some(rest);
                return Ok(());
            }
            let (part, left) = self.split(rest, granted);
            match self.stream.seal_part(now, sources, &part, channel, out) {
                Sealed::Sent { .. } => {
                    let is_finished = left.is_none() && !self.begun_is_past;
                    self.finished = is_finished.then(|| part.train.id());
                    self.begun = left;
                    self.pacer.on_sent(out.bytes().len());
                    return Ok(());
                }
                Sealed::AwaitingKeyframe => self.awaiting_keyframe |= self.queue.is_empty(),
                Sealed::Dropped(reason) => {
                    self.awaiting_keyframe = true;
                    self.stream.on_frames_useless(self.queue.len());
                    self.queue.clear();
                    self.past = None;
                    return Err(reason);
                }
            }
        }
        Ok(())
    }

    /// What of `rest` goes out with `granted` bytes, and what is left then.
    fn split(&self, rest: Part, granted: usize) -> (Part, Option<Part>) {
        let packets = (granted / per_packet(&rest.train)).max(1);
        if packets >= rest.packets.len() || !self.stream.takes_parts() {
            return (rest, None);
        }
        let middle = rest.packets.start + packets as u32;
        let first = Part { packets: rest.packets.start..middle, ..rest.clone() };
        (first, Some(Part { packets: middle..rest.packets.end, ..rest }))
    }

    /// The train that [`Self::seal`] has just sealed the last packets of, once. None for the trains
    /// that a viewer starts with.
    pub fn take_finished(&mut self) -> Option<TrainId> {
        self.finished.take()
    }

    fn next_train(&mut self, sources: &dyn Sources) -> Option<Part> {
        self.begun_is_past = false;
        let Some(past) = &mut self.past else {
            return self.queue.pop_front().map(|train| Part::all_of(&train));
        };
        let video = sources.video(past.source);
        let Some(train) = video.and_then(|video| video.train_at(past.next)) else {
            // It is not held any more, and what follows refers to it.
            self.past = None;
            self.stream.skip_to_keyframe();
            return self.queue.pop_front().map(|train| Part::all_of(&train));
        };
        past.left = past.left.saturating_sub(1);
        past.next += u64::from(train.packets);
        let timestamp = gop_timestamp(past.newest_timestamp, train.timestamp, past.left);
        if past.next >= past.end {
            self.past = None;
        }
        self.begun_is_past = true;
        Some(Part { timestamp, ..Part::all_of(&train) })
    }

    /// Notes what went out to the viewer beside the stream: it takes of the same path.
    pub fn on_other_sent(&mut self, now: Instant, bytes: usize) {
        self.pacer.on_sent(bytes);
        self.stream.on_other_sent(now, bytes);
    }

    /// When [`Self::seal`] has something to seal, as far as that is a matter of time.
    pub fn next_release(&self) -> Option<Instant> {
        self.release
    }

    /// Takes RTCP from the viewer, as [`ViewerStream::handle_rtcp`] does. What it lost goes out
    /// with the next [`Self::seal`].
    pub fn handle_rtcp(
        &mut self,
        now: Instant,
        datagram: &mut [u8],
        sources: &dyn Sources,
        channel: Option<u16>,
    ) -> Result<RtcpFacts, OpenError> {
        self.stream.set_resend_allowance(self.pacer.resend_allowance(now));
        let before = self.ready.bytes().len();
        let facts = self.stream.handle_rtcp(now, datagram, sources, channel, &mut self.ready)?;
        self.pacer.on_sent(self.ready.bytes().len() - before);
        Ok(facts)
    }
}

/// One packet's datagram, about: all packets of a train have much the same size.
fn per_packet(train: &Train) -> usize {
    train.bytes as usize / train.packets.max(1) as usize + HEADERS
}

fn bytes_of(train: &Train) -> usize {
    train.packets as usize * per_packet(train)
}

/// Two seconds of 30 frames each: more than ever waits but behind the pictures a viewer starts with.
const MAX_QUEUE: usize = 64;
/// Of RTP with extensions, and SRTP's tag.
const HEADERS: usize = 48;
/// A viewer whose way is too slow for the stream must not cost the others a keyframe each moment.
const ASK_INTERVAL: Duration = Duration::from_secs(2);
