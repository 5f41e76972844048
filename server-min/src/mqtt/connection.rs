//! One client's connection: reads packets, hands them to [`Client`], writes what waits for it.
//!
//! A single poll does everything that can be done: it reads what is there, answers, and sends the
//! answers and all waiting messages in one write. Between polls an idle connection holds no buffer;
//! reading and writing share the broker's scratch space. Nothing is read while the client does not
//! take what was written, so its socket, not our memory, bounds what it can cause.

mod timers;

use super::access::PendingVerdict;
use super::answer;
use super::broker::{Registration, Scratch};
use super::client::{Admission, Applicant, Client, Denied, Ending};
use super::codec::{self, Fault};
use super::rate::Bucket;
use super::stats::RefusalReason;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

pub(crate) struct Connection<S> {
    io: S,
    peer: SocketAddr,
    registration: Registration,
    stage: Stage,
    /// The beginning of a packet that is not complete yet, or packets that wait for the rate limit.
    incomplete: Vec<u8>,
    unsent: Vec<u8>,
    unsent_from: usize,
    must_flush: bool,
    /// Since when the client takes no byte.
    stalled_since: Option<Instant>,
    throttled_until: Option<Instant>,
    bucket: Bucket,
    last_packet_at: Instant,
    sleep: Pin<Box<Sleep>>,
}

enum Stage {
    Connecting {
        deadline: Instant,
        certificate: Option<Box<str>>,
    },
    /// Nothing is read until it is known whether this client may come in.
    Waiting {
        deadline: Instant,
        applicant: Applicant,
        verdict: PendingVerdict,
    },
    Online(Client),
    /// The last bytes are written; then whatever still comes is read and ignored, since closing on
    /// unread bytes would reset the connection and could take our last words with it.
    Closing {
        deadline: Instant,
        said_all: bool,
    },
}

enum Step {
    Idle,
    Progress,
    Ended,
}

/// What is known of a client before its first packet.
pub(crate) struct Arrival {
    pub(crate) peer: SocketAddr,
    /// For its CONNECT.
    pub(crate) deadline: Instant,
    /// Whose certificate it has presented, by its common name.
    pub(crate) certificate: Option<Box<str>>,
}

/// Ready once the connection has ended.
impl<S: AsyncRead + AsyncWrite + Unpin> Future for Connection<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.get_mut().poll_all(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn new(io: S, arrival: Arrival, registration: Registration) -> Self {
        let now = Instant::now();
        let config = &registration.broker.0.config;
        let Arrival { peer, deadline, certificate } = arrival;
        Self {
            io,
            peer,
            bucket: Bucket::new(config.packets_per_second, config.packet_burst, now),
            registration,
            stage: Stage::Connecting { deadline, certificate },
            incomplete: Vec::new(),
            unsent: Vec::new(),
            unsent_from: 0,
            must_flush: false,
            stalled_since: None,
            throttled_until: None,
            last_packet_at: now,
            sleep: Box::pin(tokio::time::sleep_until(deadline)),
        }
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.registration.link.register(cx.waker());
        let shared = self.registration.broker.0.clone();
        let mut scratch = shared.scratch.take();
        let result = self.run(cx, &mut scratch);
        scratch.write.clear();
        scratch.write.shrink_to(2 * WRITE_BATCH);
        shared.scratch.set(scratch);
        if result.is_ready() {
            self.leave(Ending::Lost, Instant::now());
        }
        result
    }

    fn run(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<()> {
        for _ in 0..ROUNDS {
            let now = Instant::now();
            if let Some(reason) = self.registration.link.close_reason() {
                self.close(reason, &mut scratch.write, now);
            }
            let input = self.poll_input(cx, scratch, now);
            if self.gives_way() && !scratch.write.is_empty() {
                self.unsent.append(&mut scratch.write);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let output = self.poll_output(cx, &mut scratch.write, now);
            match (input, output) {
                (Step::Ended, _) | (_, Step::Ended) => return Poll::Ready(()),
                (Step::Idle, Step::Idle) => {
                    if ready!(self.poll_timers(cx, &mut scratch.write, now)) {
                        return Poll::Ready(());
                    }
                }
                _ => {}
            }
        }
        // A busy client; let the others have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_input(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch, now: Instant) -> Step {
        match self.stage {
            Stage::Closing { said_all: false, .. } => return Step::Idle,
            Stage::Closing { .. } => {}
            Stage::Waiting { .. } => return self.poll_verdict(cx, &mut scratch.write, now),
            _ if self.has_unsent() => return Step::Idle,
            _ => match self.throttled_until {
                Some(until) if until > now => return Step::Idle,
                Some(_) => {
                    self.throttled_until = None;
                    self.handle_bytes(&[], &mut scratch.write, now);
                    return Step::Progress;
                }
                None => {}
            },
        }
        scratch.read.resize(READ_BATCH, 0);
        let mut read = ReadBuf::new(&mut scratch.read);
        let result = Pin::new(&mut self.io).poll_read(cx, &mut read);
        let filled = read.filled().len();
        match result {
            Poll::Pending => Step::Idle,
            Poll::Ready(Ok(())) if filled == 0 => Step::Ended,
            Poll::Ready(Ok(())) if matches!(self.stage, Stage::Closing { .. }) => Step::Progress,
            Poll::Ready(Ok(())) => {
                let Scratch { read, write } = scratch;
                self.handle_bytes(&read[..filled], write, now);
                Step::Progress
            }
            // A WebSocket frame that is larger than any packet may be.
            Poll::Ready(Err(error))
                if error.kind() == io::ErrorKind::FileTooLarge
                    && matches!(self.stage, Stage::Online(_)) =>
            {
                self.close(Fault::PacketTooLarge, &mut scratch.write, now);
                Step::Progress
            }
            Poll::Ready(Err(error)) => self.on_io_error("read", &error),
        }
    }

    /// Whether others have been given messages, which they send before this one acknowledges them:
    /// their connections were woken first.
    fn gives_way(&mut self) -> bool {
        match &mut self.stage {
            Stage::Online(client) => std::mem::take(&mut client.has_delivered),
            _ => false,
        }
    }

    fn poll_verdict(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>, now: Instant) -> Step {
        let Stage::Waiting { verdict, .. } = &mut self.stage else { return Step::Idle };
        let Poll::Ready(verdict) = verdict.as_mut().poll(cx) else { return Step::Idle };
        let closing = Stage::Closing { deadline: now + LAST_WORDS, said_all: false };
        if let Stage::Waiting { applicant, .. } = std::mem::replace(&mut self.stage, closing) {
            let registration = &self.registration;
            match Client::admit(registration, self.peer, applicant, verdict, out, now) {
                Ok(client) => {
                    self.on_admitted(client);
                    // What came meanwhile.
                    self.handle_bytes(&[], out, now);
                }
                Err(denied) => self.on_denied(&denied, now),
            }
        }
        Step::Progress
    }

    /// Takes the packets out of what came so far and keeps the incomplete rest.
    fn handle_bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>, now: Instant) {
        let mut kept = std::mem::take(&mut self.incomplete);
        let bytes = if kept.is_empty() {
            bytes
        } else {
            kept.extend_from_slice(bytes);
            kept.as_slice()
        };
        let mut rest = bytes;
        let mut expected_len = 0;
        while !rest.is_empty() {
            let frame = match codec::split(rest, self.max_packet_size()) {
                Ok(Ok(frame)) => frame,
                Ok(Err(total_len)) => {
                    expected_len = total_len.unwrap_or(0);
                    break;
                }
                Err(reason) => return self.close(reason, out, now),
            };
            // Acknowledgements are as many as the messages we send, so the limit is not theirs.
            if frame.first_byte != PUBACK
                && let Err(until) = self.bucket.take(now)
            {
                self.throttled_until = Some(until);
                break;
            }
            let (packet, later) = rest.split_at(frame.total_len);
            rest = later;
            self.last_packet_at = now;
            self.handle_packet(frame.first_byte, &packet[frame.header_len..], out, now);
            match self.stage {
                Stage::Closing { .. } => return,
                Stage::Waiting { .. } => break,
                Stage::Connecting { .. } | Stage::Online(_) => {}
            }
            if let Some(reason) = self.registration.link.close_reason() {
                return self.close(reason, out, now);
            }
        }
        if !rest.is_empty() {
            let mut incomplete = Vec::with_capacity(expected_len.max(rest.len()));
            incomplete.extend_from_slice(rest);
            self.incomplete = incomplete;
        }
    }

    fn handle_packet(&mut self, first_byte: u8, body: &[u8], out: &mut Vec<u8>, now: Instant) {
        match &mut self.stage {
            Stage::Connecting { deadline, certificate } => {
                let (deadline, certificate) = (*deadline, certificate.take());
                let arrival = Arrival { peer: self.peer, deadline, certificate };
                match Client::connect(&self.registration, &arrival, first_byte, body, out, now) {
                    Ok(Admission::Online(client)) => self.on_admitted(client),
                    Ok(Admission::Waiting(applicant, verdict)) => {
                        self.stage = Stage::Waiting { deadline, applicant, verdict };
                    }
                    Err(denied) => self.on_denied(&denied, now),
                }
            }
            Stage::Online(client) => match client.handle_packet(first_byte, body, out, now) {
                Ok(None) => {}
                Ok(Some(ending)) => {
                    self.leave(ending, now);
                    self.begin_closing(now);
                }
                Err(reason) => self.close(reason, out, now),
            },
            Stage::Waiting { .. } | Stage::Closing { .. } => {}
        }
    }

    fn on_admitted(&mut self, client: Client) {
        self.registration.on_connected();
        if client.is_trusted() {
            self.bucket = Bucket::unlimited();
        }
        self.stage = Stage::Online(client);
        self.registration.broker.keep_house();
    }

    fn on_denied(&mut self, denied: &Denied, now: Instant) {
        // Who hammers at the door is not to fill the log.
        let hammers = denied.reason == RefusalReason::TooManyFailures;
        let level = if hammers { log::Level::Debug } else { log::Level::Info };
        log::log!(level, "mqtt: {}: refused: {}", self.peer, denied.what);
        self.registration.broker.0.counters.update(|c| c.on_login_refused(denied.reason));
        self.begin_closing(now);
    }

    fn poll_output(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>, now: Instant) -> Step {
        let mut step = Step::Idle;
        loop {
            if self.has_unsent() {
                self.unsent.append(out);
            } else {
                if let Stage::Online(client) = &mut self.stage {
                    client.write_pending(out, WRITE_BATCH, now);
                }
                if out.is_empty() {
                    break;
                }
            }
            let bytes =
                if self.has_unsent() { &self.unsent[self.unsent_from..] } else { out.as_slice() };
            match Pin::new(&mut self.io).poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => return Step::Ended,
                Poll::Ready(Ok(written)) => {
                    step = Step::Progress;
                    self.must_flush = true;
                    self.stalled_since = None;
                    self.on_written(written, out);
                }
                Poll::Pending => {
                    self.on_written(0, out);
                    self.stalled_since.get_or_insert(now);
                    return step;
                }
                Poll::Ready(Err(error)) => return self.on_io_error("write", &error),
            }
        }
        if self.must_flush {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.must_flush = false;
                    self.stalled_since = None;
                }
                Poll::Pending => {
                    self.stalled_since.get_or_insert(now);
                    return step;
                }
                Poll::Ready(Err(error)) => return self.on_io_error("flush", &error),
            }
        }
        if let Stage::Closing { said_all, .. } = &mut self.stage
            && !*said_all
        {
            match Pin::new(&mut self.io).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => {
                    *said_all = true;
                    step = Step::Progress;
                }
                Poll::Ready(Err(_)) => return Step::Ended,
                Poll::Pending => {}
            }
        }
        step
    }

    /// `written` bytes are gone; what is left of them becomes `unsent`, and `out` is empty.
    fn on_written(&mut self, written: usize, out: &mut Vec<u8>) {
        if self.has_unsent() {
            self.unsent_from += written;
            if !self.has_unsent() {
                self.unsent = Vec::new();
                self.unsent_from = 0;
            }
        } else if written < out.len() {
            self.unsent = out[written..].to_vec();
            self.unsent_from = 0;
        }
        out.clear();
    }

    fn has_unsent(&self) -> bool {
        self.unsent_from < self.unsent.len()
    }

    /// Ends the connection for a reason of ours, which the client is told if it understands.
    fn close(&mut self, reason: Fault, out: &mut Vec<u8>, now: Instant) {
        if let Stage::Online(client) = &self.stage {
            answer::disconnect(out, client.version(), reason);
        }
        if matches!(self.stage, Stage::Closing { .. }) {
            return;
        }
        match reason {
            Fault::ServerShuttingDown | Fault::SessionTakenOver | Fault::AdministrativeAction => {
                log::debug!("mqtt: {}: closed: {reason}", self.peer);
            }
            _ => {
                log::info!("mqtt: {}: closed: {reason}", self.peer);
                self.registration.broker.0.counters.update(|c| c.protocol_errors_total += 1);
            }
        }
        let ending =
            if reason == Fault::ServerShuttingDown { Ending::Graceful } else { Ending::Lost };
        self.leave(ending, now);
        self.begin_closing(now);
    }

    fn begin_closing(&mut self, now: Instant) {
        self.throttled_until = None;
        self.incomplete = Vec::new();
        self.stage = Stage::Closing { deadline: now + LAST_WORDS, said_all: false };
    }

    /// Gives the session back, once.
    fn leave(&mut self, ending: Ending, now: Instant) {
        if let Stage::Online(client) = &mut self.stage {
            client.leave(ending, now);
            self.registration.broker.keep_house();
        }
    }

    fn max_packet_size(&self) -> u32 {
        let config = &self.registration.broker.0.config;
        match self.stage {
            Stage::Connecting { .. } => config.max_connect_size,
            _ => config.max_packet_size,
        }
    }

    fn on_io_error(&self, doing: &str, error: &io::Error) -> Step {
        if !is_ordinary_end(error) {
            log::info!("mqtt: {}: {doing}: {error}", self.peer);
        }
        Step::Ended
    }
}

/// Ends that every network has; not worth a log line.
pub(super) fn is_ordinary_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

const PUBACK: u8 = 0x40;
/// Bytes per read; also the most of a client's packets that are handled in one go.
const READ_BATCH: usize = 16 * 1024;
/// Enough waiting messages for one write.
const WRITE_BATCH: usize = 32 * 1024;
/// Reads and writes per poll before other connections have their turn.
const ROUNDS: usize = 4;
/// For the last bytes of a connection to be taken.
const LAST_WORDS: Duration = Duration::from_secs(1);
