//! Streams that are started anew, which is how a data channel is closed (RFC 6525, RFC 8831 §6.7).

use super::inbound::Inbound;
use super::is_before;
use super::outbound::Outbound;
use super::rto;
use crate::wire::sctp::{Parameter, Parameters, Reset, ResetResult, Writer};
use std::time::Instant;

pub(super) struct Resets {
    /// Our next request's number.
    next: u32,
    /// Streams whose last messages are still to be sent.
    waiting: Vec<u16>,
    /// One at a time (RFC 6525 §5.1.1).
    asked: Option<Asked>,
    /// The other side's next request's number.
    expected: u32,
    /// What its last one was answered with, in case it did not hear that.
    last_result: ResetResult,
    /// What it has asked for before all came that was sent on those streams.
    deferred: heapless::Vec<Deferred, 4>,
    answers: heapless::Vec<(u32, ResetResult), 2>,
}

struct Deferred {
    request: u32,
    last_tsn: u32,
    /// None are all.
    streams: heapless::Vec<u16, MAX_STREAMS>,
}

struct Asked {
    request: u32,
    last_tsn: u32,
    streams: Vec<u16>,
    /// When it is asked again; `None` if that is now.
    again_at: Option<Instant>,
    /// How often it was asked.
    tries: u32,
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResetEvent {
    /// The other side has closed its direction.
    ByPeer(u16),
    /// It has closed all that there are.
    AllByPeer,
    /// Our direction is closed.
    Done(u16),
}

/// Requests are numbered without gaps, and each is repeated until it is answered. But `rtc-sctp`
/// repeats only those that its application has made, and goes on with the next number.
const MAX_SKIPPED: u32 = 16;
/// As often as it is asked before no answer, or "in progress", is taken for a yes. Some never
/// finish: `rtc-sctp` waits for its application to read what came, and lets it not read a stream that
/// it has closed.
const MAX_TRIES: u32 = 8;
/// All channels there can be.
const MAX_STREAMS: usize = 32;

impl Resets {
    /// Both sides number their requests from their first TSN on.
    pub(super) fn new(our_first_tsn: u32, their_first_tsn: u32) -> Resets {
        Resets {
            next: our_first_tsn,
            waiting: Vec::new(),
            asked: None,
            expected: their_first_tsn,
            last_result: ResetResult::BAD_SEQUENCE_NUMBER,
            deferred: heapless::Vec::new(),
            answers: heapless::Vec::new(),
        }
    }

    /// Closes our direction of a stream, behind what was sent on it.
    pub(super) fn reset(&mut self, stream: u16) {
        let is_asked = self.asked.as_ref().is_some_and(|asked| asked.streams.contains(&stream));
        if !is_asked && !self.waiting.contains(&stream) && self.waiting.len() < MAX_STREAMS {
            self.waiting.push(stream);
        }
    }

    /// Takes what the RE-CONFIG chunks of a packet say, once the rest of it was taken; and performs
    /// what had to wait for that rest.
    pub(super) fn handle<'a>(
        &mut self,
        chunks: impl Iterator<Item = Parameters<'a>>,
        inbound: &mut Inbound,
        outbound: &mut Outbound,
        mut on_event: impl FnMut(ResetEvent),
    ) {
        for parameter in chunks.flat_map(|parameters| parameters.iter()) {
            match parameter {
                Parameter::Reset(reset) => {
                    self.answer(reset.request, |this| this.defer(&reset));
                }
                Parameter::Other { request } => self.answer(request, |_| Some(ResetResult::DENIED)),
                Parameter::Response { request, result } => {
                    let is_answered = |asked: &mut Asked| {
                        asked.request == request
                            && (result != ResetResult::IN_PROGRESS || asked.tries >= MAX_TRIES)
                    };
                    // Refused or not: nobody reads them any more.
                    for stream in
                        self.asked.take_if(is_answered).into_iter().flat_map(|a| a.streams)
                    {
                        outbound.restart(stream);
                        on_event(ResetEvent::Done(stream));
                    }
                }
            }
        }
        self.perform(inbound, &mut on_event);
    }

    /// Streams of ours that count as closed, since nobody answers.
    pub(super) fn handle_timeout(&mut self, now: Instant, outbound: &mut Outbound) -> Vec<u16> {
        let is_hopeless = |asked: &mut Asked| {
            asked.tries >= MAX_TRIES && asked.again_at.is_some_and(|at| at <= now)
        };
        let streams = self.asked.take_if(is_hopeless).map_or(Vec::new(), |asked| asked.streams);
        streams.iter().for_each(|stream| outbound.restart(*stream));
        streams
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.asked.as_ref().and_then(|asked| asked.again_at)
    }

    /// There is another path: what was asked may be lost.
    pub(super) fn on_path_changed(&mut self) {
        if let Some(asked) = &mut self.asked {
            asked.again_at = None;
        }
    }

    /// Writes answers, and what is to be asked now.
    pub(super) fn write(&mut self, now: Instant, outbound: &Outbound, out: &mut Writer) {
        for (request, result) in std::mem::take(&mut self.answers) {
            out.reset_response(request, result);
        }
        if self.asked.is_none() {
            let ready = |stream: &u16| !outbound.has_unsent(*stream);
            let streams: Vec<u16> = self.waiting.iter().copied().filter(ready).collect();
            if !streams.is_empty() {
                self.waiting.retain(|stream| !streams.contains(stream));
                let (request, last_tsn) = (self.next, outbound.last_tsn());
                self.next = self.next.wrapping_add(1);
                self.asked = Some(Asked { request, last_tsn, streams, again_at: None, tries: 0 });
            }
        }
        if let Some(asked) = &mut self.asked
            && asked.again_at.is_none_or(|at| at <= now)
        {
            let pause = (outbound.timeout() * (1 << asked.tries.min(8))).min(rto::MAX);
            asked.again_at = Some(now + pause);
            asked.tries += 1;
            let response = self.expected.wrapping_sub(1);
            out.reset_request(asked.request, response, asked.last_tsn, &asked.streams);
        }
    }

    /// Answers a request: a new one by what `act` says, if that is anything; the last one by what it
    /// was answered with.
    fn answer(&mut self, request: u32, act: impl FnOnce(&mut Self) -> Option<ResetResult>) {
        let is_new = request.wrapping_sub(self.expected) < MAX_SKIPPED;
        let result = if is_new {
            let Some(result) = act(self) else { return };
            self.expected = request.wrapping_add(1);
            self.last_result = result;
            result
        } else if request == self.expected.wrapping_sub(1) {
            self.last_result
        } else {
            ResetResult::BAD_SEQUENCE_NUMBER
        };
        // Two parameters a chunk; of more chunks in a packet only the first is answered.
        let _ = self.answers.push((request, result));
    }

    /// Too many streams at once, or too many requests: no answer, so that it asks again.
    fn defer(&mut self, reset: &Reset<'_>) -> Option<ResetResult> {
        let mut streams = heapless::Vec::new();
        for stream in reset.streams() {
            streams.push(stream).ok()?;
        }
        let Reset { request, last_tsn, .. } = *reset;
        self.deferred.push(Deferred { request, last_tsn, streams }).ok()?;
        Some(ResetResult::IN_PROGRESS)
    }

    /// Performs what was asked for as soon as all has come, and says so.
    fn perform(&mut self, inbound: &mut Inbound, on_event: &mut impl FnMut(ResetEvent)) {
        while let Some(at) =
            self.deferred.iter().position(|d| !is_before(inbound.cumulative(), d.last_tsn))
        {
            let Deferred { request, streams, .. } = self.deferred.remove(at);
            if streams.is_empty() {
                inbound.restart_all();
                on_event(ResetEvent::AllByPeer);
            }
            for stream in streams {
                inbound.restart(stream);
                on_event(ResetEvent::ByPeer(stream));
            }
            if request == self.expected.wrapping_sub(1) {
                self.last_result = ResetResult::PERFORMED;
            }
            match self.answers.iter_mut().find(|(number, _)| *number == request) {
                Some((_, result)) => *result = ResetResult::PERFORMED,
                None => drop(self.answers.push((request, ResetResult::PERFORMED))),
            }
        }
    }
}
