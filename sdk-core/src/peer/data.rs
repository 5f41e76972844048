//! A viewer's data channels (RFC 8831, RFC 8832) over its SCTP association.
//!
//! The viewer opens the association, which browsers do as soon as DTLS is done if there is a data
//! section. From then on both sides may open channels: the viewer with even numbers, the camera with
//! odd ones.

use super::sctp::{Association, AssociationEvent, MESSAGE_OVERHEAD, Message, Outgoing};
use crate::stats::DataStats;
use crate::time::earlier;
use crate::wire::dcep::{ChannelInfo, Control, Reliability, protocol};
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub struct Data {
    association: Association,
    channels: Vec<Channel>,
    events: VecDeque<DataEvent>,
    stats: DataStats,
    warnings: u32,
}

struct Channel {
    id: u16,
    info: ChannelInfo,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The viewer has not yet said anything to our OPEN.
    Opening,
    Open,
    /// We close it, and wait for the viewer to do so too; once ours is closed, not for ever.
    Closing {
        until: Option<Instant>,
    },
    /// The viewer has closed it, which was told; ours is on its way.
    ClosedByViewer,
}

/// What is agreed on with the viewer, and random.
#[derive(Debug, Clone, Copy)]
pub struct DataTerms {
    /// Of the association's numbers.
    pub seed: [u8; 8],
    /// The longest SCTP packet, in bytes.
    pub max_packet: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub enum DataEvent {
    /// The association is there: channels can be opened.
    Ready,
    /// The viewer has opened a channel, or answered to ours.
    Opened {
        channel: u16,
        info: ChannelInfo,
    },
    Message {
        channel: u16,
        text: bool,
        bytes: Vec<u8>,
    },
    /// Nothing more comes or goes on it.
    Closed {
        channel: u16,
    },
    /// So much of what was sent needs no room any more: as [`message_cost`] counts.
    Released {
        channel: u16,
        bytes: usize,
    },
    /// Something was refused. The text is for the log.
    Warning(String),
}

/// Channels of one viewer at once; further ones are closed at once.
pub const MAX_CHANNELS: usize = 16;
/// What may wait to be sent to one viewer, in bytes as [`message_cost`] counts them. Whoever sends
/// keeps to it by way of [`DataEvent::Released`]; twice as much is never held, whatever comes.
pub const MAX_BUFFERED: usize = 256 * 1024;

/// Log lines about what was refused, in a session.
const MAX_WARNINGS: u32 = 32;
/// How long a viewer may take to close what we have closed. `rtc-sctp` says so once, and if that is
/// lost, never.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// What a message of `len` bytes takes of the send buffer.
pub fn message_cost(len: usize) -> usize {
    // Nothing is sent as one byte.
    len.max(1) + MESSAGE_OVERHEAD
}

impl Data {
    pub fn new(terms: &DataTerms) -> Data {
        Data {
            association: Association::new(terms.seed, terms.max_packet),
            channels: Vec::new(),
            events: VecDeque::new(),
            stats: DataStats::default(),
            warnings: 0,
        }
    }

    /// Takes an SCTP packet, as it came out of DTLS.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        self.association.handle_packet(now, packet);
        self.settle(now);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        self.association.handle_timeout(now);
        let events = &mut self.events;
        self.channels.retain(|channel| {
            let is_over = channel.patience_ends().is_some_and(|at| at <= now);
            if is_over {
                events.push_back(DataEvent::Closed { channel: channel.id });
            }
            !is_over
        });
        self.settle(now);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let patience = self.channels.iter().filter_map(Channel::patience_ends).min();
        earlier(self.association.poll_timeout(), patience)
    }

    /// The next packet for the viewer.
    pub fn poll_packet(&mut self, now: Instant) -> Option<Vec<u8>> {
        let packet = self.association.poll_packet(now);
        if packet.is_none() {
            // Sending may have given up what was too old for it.
            self.release();
        }
        packet
    }

    pub fn poll_event(&mut self) -> Option<DataEvent> {
        self.events.pop_front()
    }

    /// Opens a channel with a number that the caller chose: an odd one that is not in use. Messages
    /// may be sent at once. If it cannot be opened, it is reported as closed.
    pub fn open(&mut self, now: Instant, channel: u16, info: ChannelInfo) {
        let is_free = channel % 2 == 1 && self.find(channel).is_none();
        let has_room = self.channels.len() < MAX_CHANNELS;
        let open = Control::Open(info.clone());
        if !(is_free && has_room && self.control(now, channel, &open)) {
            let why = format!("data channel {channel} was not opened: no association, or no room");
            self.warn(why);
            self.events.push_back(DataEvent::Closed { channel });
            return;
        }
        self.channels.push(Channel { id: channel, info, state: State::Opening });
    }

    /// Sends a message on an open channel. One that finds none is dropped: it was closed meanwhile.
    pub fn send(&mut self, now: Instant, channel: u16, text: bool, bytes: Vec<u8>) {
        let cost = message_cost(bytes.len());
        let (ordered, reliability) = match self.find(channel) {
            // RFC 8832 §6: in order until the viewer has shown that it knows the channel.
            Some(Channel { state: State::Opening, info, .. }) => (true, info.reliability),
            Some(Channel { state: State::Open, info, .. }) => (!info.unordered, info.reliability),
            Some(Channel { state: State::Closing { .. }, .. }) => {
                return self.events.push_back(DataEvent::Released { channel, bytes: cost });
            }
            Some(Channel { state: State::ClosedByViewer, .. }) | None => return,
        };
        if self.association.buffered() + cost > 2 * MAX_BUFFERED {
            let why = format!("a message on data channel {channel} was dropped: too much waits");
            self.warn(why);
            self.events.push_back(DataEvent::Released { channel, bytes: cost });
            return;
        }
        self.stats.sent_messages += 1;
        self.stats.sent_bytes += bytes.len() as u64;
        let (protocol, payload) = match (text, bytes.is_empty()) {
            (true, false) => (protocol::TEXT, Bytes::from(bytes)),
            (false, false) => (protocol::BINARY, Bytes::from(bytes)),
            (true, true) => (protocol::EMPTY_TEXT, EMPTY),
            (false, true) => (protocol::EMPTY_BINARY, EMPTY),
        };
        let message = Outgoing { stream: channel, protocol, payload, ordered, reliability };
        self.association.send(now, message);
    }

    /// Closes a channel behind what was sent on it.
    pub fn close(&mut self, channel: u16) {
        if let Some(found) = self.find(channel)
            && matches!(found.state, State::Opening | State::Open)
        {
            found.state = State::Closing { until: None };
            self.association.reset(channel);
        }
    }

    /// The session ends, or the viewer wants no data any more.
    pub fn close_all(&mut self) {
        for channel in self.channels.drain(..).filter(|c| c.state != State::ClosedByViewer) {
            self.events.push_back(DataEvent::Closed { channel: channel.id });
        }
    }

    /// Packets take another path from now on.
    pub fn on_path_changed(&mut self, now: Instant) {
        self.association.on_path_changed(now);
    }

    pub fn stats(&self) -> DataStats {
        let open = |c: &&Channel| matches!(c.state, State::Opening | State::Open);
        DataStats {
            channels: self.channels.iter().filter(open).count() as u32,
            buffered_bytes: self.association.buffered() as u64,
            ..self.stats
        }
    }

    /// By capacity or by what is in it.
    pub fn held_bytes(&self) -> usize {
        size_of::<Data>()
            + self.channels.capacity() * size_of::<Channel>()
            + self.association.held_bytes()
    }

    fn find(&mut self, channel: u16) -> Option<&mut Channel> {
        self.channels.iter_mut().find(|c| c.id == channel)
    }

    /// A viewer that provokes one after the other does not fill the log.
    fn warn(&mut self, why: String) {
        self.warnings += 1;
        if self.warnings <= MAX_WARNINGS {
            self.events.push_back(DataEvent::Warning(why));
        }
    }

    /// Sends a message of RFC 8832: always reliable and in order.
    fn control(&mut self, now: Instant, channel: u16, control: &Control) -> bool {
        self.association.send(
            now,
            Outgoing {
                stream: channel,
                protocol: protocol::CONTROL,
                payload: control.to_bytes().into(),
                ordered: true,
                reliability: Reliability::Reliable,
            },
        )
    }

    fn settle(&mut self, now: Instant) {
        while let Some(event) = self.association.poll_event() {
            match event {
                AssociationEvent::Up => self.events.push_back(DataEvent::Ready),
                AssociationEvent::Down(why) => {
                    self.warn(format!("the SCTP association is gone: {why}"));
                    self.close_all();
                }
                AssociationEvent::Message(message) => self.on_message(now, message),
                AssociationEvent::TooLong(stream) => {
                    self.warn(format!(
                        "a message on data channel {stream} is longer than the {} bytes that the \
                         answer allows: the channel is closed",
                        crate::wire::sdp::MAX_MESSAGE_SIZE
                    ));
                    self.close(stream);
                }
                AssociationEvent::ResetByPeer(stream) => self.on_reset(now, stream),
                AssociationEvent::AllResetByPeer => {
                    let all: Vec<u16> = self.channels.iter().map(|c| c.id).collect();
                    all.into_iter().for_each(|stream| self.on_reset(now, stream));
                }
                AssociationEvent::ResetDone(stream) => self.on_reset_done(now, stream),
            }
        }
        self.release();
    }

    fn release(&mut self) {
        while let Some((channel, bytes)) = self.association.poll_released() {
            // Of those that were closed, nobody counts any more.
            if self.find(channel).is_some_and(|c| c.state != State::ClosedByViewer) {
                self.events.push_back(DataEvent::Released { channel, bytes });
            }
        }
    }

    fn on_message(&mut self, now: Instant, message: Message) {
        let Message { stream, protocol, mut payload } = message;
        let text = match protocol {
            protocol::CONTROL => return self.on_control(now, stream, &payload),
            protocol::TEXT | protocol::EMPTY_TEXT => true,
            protocol::BINARY | protocol::EMPTY_BINARY => false,
            // Nothing that a browser sends.
            _ => return,
        };
        if matches!(protocol, protocol::EMPTY_TEXT | protocol::EMPTY_BINARY) {
            payload.clear();
        }
        self.on_acknowledged(stream);
        let is_open = self.find(stream).is_some_and(|c| c.state == State::Open);
        if is_open {
            self.stats.received_messages += 1;
            self.stats.received_bytes += payload.len() as u64;
            self.events.push_back(DataEvent::Message { channel: stream, text, bytes: payload });
        }
    }

    fn on_control(&mut self, now: Instant, stream: u16, message: &[u8]) {
        match Control::parse(message) {
            Some(Control::Acknowledge) => self.on_acknowledged(stream),
            Some(Control::Open(info)) => self.on_open(now, stream, info),
            None => {
                self.warn(format!("data channel {stream} was opened in a way we cannot read"));
                if self.find(stream).is_none() {
                    self.association.reset(stream);
                }
            }
        }
    }

    /// The viewer knows the channel that we have opened.
    fn on_acknowledged(&mut self, stream: u16) {
        if let Some(channel) = self.find(stream).filter(|c| c.state == State::Opening) {
            channel.state = State::Open;
            let info = channel.info.clone();
            self.events.push_back(DataEvent::Opened { channel: stream, info });
        }
    }

    fn on_open(&mut self, now: Instant, stream: u16, info: ChannelInfo) {
        // It has our reset, though not yet we its answer: the number is free for it.
        self.channels.retain(|c| c.id != stream || c.state != State::ClosedByViewer);
        if self.find(stream).is_some() {
            return self.warn(format!("data channel {stream} was opened twice"));
        }
        // RFC 8832 §6: as the DTLS client it uses the even numbers.
        if stream % 2 == 1 || self.channels.len() >= MAX_CHANNELS {
            self.warn(format!(
                "data channel {stream} was refused: expected an even number and at most \
                 {MAX_CHANNELS} at once"
            ));
            return self.association.reset(stream);
        }
        self.control(now, stream, &Control::Acknowledge);
        self.channels.push(Channel { id: stream, info: info.clone(), state: State::Open });
        self.events.push_back(DataEvent::Opened { channel: stream, info });
    }

    /// The viewer has closed its direction of a stream.
    fn on_reset(&mut self, now: Instant, stream: u16) {
        let Some(channel) = self.find(stream) else { return };
        match channel.state {
            State::Opening | State::Open => {
                channel.state = State::ClosedByViewer;
                self.association.give_up_stream(now, stream);
                self.association.reset(stream);
            }
            State::Closing { until: None } => {
                channel.state = State::ClosedByViewer;
                self.association.give_up_stream(now, stream);
            }
            State::Closing { until: Some(_) } => self.channels.retain(|c| c.id != stream),
            State::ClosedByViewer => return,
        }
        self.events.push_back(DataEvent::Closed { channel: stream });
    }

    fn on_reset_done(&mut self, now: Instant, stream: u16) {
        let Some(channel) = self.find(stream) else { return };
        match &mut channel.state {
            State::ClosedByViewer => self.channels.retain(|c| c.id != stream),
            State::Closing { until } => *until = Some(now + CLOSE_PATIENCE),
            State::Opening | State::Open => {}
        }
    }
}

impl Channel {
    fn patience_ends(&self) -> Option<Instant> {
        match self.state {
            State::Closing { until } => until,
            State::Opening | State::Open | State::ClosedByViewer => None,
        }
    }
}

const EMPTY: Bytes = Bytes::from_static(&[0]);
