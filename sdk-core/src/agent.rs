//! The agent: routes inputs to streams and sessions, and gathers what they want done. No policy,
//! no socket, no clock.
//!
//! The run loop is: [`Agent::handle_input`], then [`Agent::poll_output`] until it answers
//! [`Output::Timeout`]. An input never fails; a viewer's failure ends that viewer's session and
//! comes out as an event.

use crate::config::StreamConfig;
use crate::event::{AudioId, CloseReason, Event, StreamId, Talkback};
use crate::media::{Run, SendBuffer, TrainId};
use crate::net::{Datagram, SocketId, Transmit};
use crate::peer::dtls::Identity;
use crate::peer::{LocalSocket, Route};
use crate::random::Random;
use crate::session::admission::{Admission, UnsetClock};
use crate::session::table::{Table, TableConfig};
use crate::session::{AudioSource, ChannelRequest, Outputs, Stream, Streams, Want};
use crate::stats::{Snapshot, StreamStats};
use crate::time::{Now, earlier};
use crate::wire::sdp::AudioFormat;
use crate::wire::signal::SessionId;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub struct Agent {
    streams: Streams,
    audio: AudioSource,
    max_datagram: usize,
    sessions: Table,
    random: Random,
    out: Outputs,
    /// One viewer's sealed packets, on their way out.
    sealed: SendBuffer,
    /// How many of its runs have been handed out.
    sent_runs: usize,
    /// The train whose last packets are among them.
    finishes: Option<TrainId>,
    /// The last frames, and when they were pushed.
    pushed: heapless::Deque<(TrainId, Instant), MAX_PUSHED>,
    /// Where the sealed packets go.
    route: Option<Route>,
    /// What a viewer says, on its way to the loudspeaker.
    spoken: Vec<u8>,
    signaling_up: bool,
    /// How often the link to the broker came up.
    signaling_ups: u32,
}

/// Frames of which it is remembered when they were pushed: a second of two streams.
const MAX_PUSHED: usize = 64;

#[derive(Debug, Clone)]
pub struct AgentConfig {
    pub device_id: String,
    /// The session service's raw Ed25519 public key.
    pub service_public_key: [u8; 32],
    pub unset_clock: UnsetClock,
    pub max_viewers: usize,
    pub relay_only: bool,
    /// Largest UDP payload to send, in bytes.
    pub max_datagram: usize,
}

/// Whatever can happen to a camera.
pub enum Input<'a> {
    SignalingUp,
    SignalingDown {
        reason: String,
    },
    /// A message on the device's topic.
    Signal(&'a [u8]),
    Datagram(Datagram<'a>),
    /// Answers [`Output::OpenSockets`].
    Sockets {
        session: SessionId,
        sockets: Result<Vec<LocalSocket>, String>,
    },
    /// Answers [`Output::Resolve`].
    Resolved {
        session: SessionId,
        server: usize,
        addr: Option<SocketAddr>,
    },
    StartStream {
        id: StreamId,
        config: StreamConfig,
    },
    StopStream {
        id: StreamId,
    },
    /// One access unit (Annex B).
    Frame {
        stream: StreamId,
        data: &'a [u8],
        timestamp: Duration,
        after_gap: bool,
        /// When the firmware handed it over.
        pushed: Instant,
    },
    /// Shows a viewer another stream from that one's next keyframe on.
    SwitchViewer {
        session: SessionId,
        stream: StreamId,
    },
    StartAudio {
        id: AudioId,
        format: AudioFormat,
    },
    StopAudio {
        id: AudioId,
    },
    /// One packet of the microphone.
    Audio {
        id: AudioId,
        data: &'a [u8],
        timestamp: Duration,
    },
    CloseViewer {
        session: SessionId,
        reason: CloseReason,
    },
    /// What the firmware wants of a viewer's data channel.
    Channel {
        session: SessionId,
        channel: u16,
        request: ChannelRequest,
    },
    Timeout,
    /// Say goodbye to everybody.
    Shutdown,
}

/// What the driver is to do.
pub enum Output<'a> {
    /// Send these bytes, which are a run of datagrams.
    Transmit(Transmit, &'a [u8]),
    Signal {
        topic: String,
        payload: Vec<u8>,
    },
    Event(Event),
    /// For the loudspeaker.
    Talkback(Talkback<'a>),
    OpenSockets {
        session: SessionId,
    },
    CloseSockets(Vec<SocketId>),
    /// So much of what was sent on a data channel needs no room any more: as
    /// [`crate::peer::data::message_cost`] counts.
    DataReleased {
        session: SessionId,
        channel: u16,
        bytes: usize,
    },
    Resolve {
        session: SessionId,
        server: usize,
        host: String,
        port: u16,
    },
    /// Nothing more until this moment, or the next input.
    Timeout(Option<Instant>),
}

impl Agent {
    pub fn new(config: AgentConfig, identity: Identity, seed: &[u8; 32]) -> Agent {
        let admission =
            Admission::new(config.device_id.clone(), config.service_public_key, config.unset_clock);
        let table = TableConfig {
            max_viewers: config.max_viewers,
            relay_only: config.relay_only,
            max_datagram: config.max_datagram,
        };
        Agent {
            streams: Streams::default(),
            audio: AudioSource::default(),
            max_datagram: config.max_datagram,
            sessions: Table::new(admission, identity, table),
            random: Random::new(seed),
            out: Outputs::new(config.device_id),
            sealed: SendBuffer::default(),
            sent_runs: 0,
            finishes: None,
            pushed: heapless::Deque::new(),
            route: None,
            spoken: Vec::new(),
            signaling_up: false,
            signaling_ups: 0,
        }
    }

    pub fn handle_input(&mut self, now: Now, input: Input<'_>) {
        let Agent {
            streams,
            audio,
            sessions,
            random,
            out,
            pushed: pushed_frames,
            max_datagram,
            signaling_up,
            signaling_ups,
            ..
        } = self;
        match input {
            Input::SignalingUp => {
                *signaling_up = true;
                *signaling_ups = signaling_ups.saturating_add(1);
                out.event(Event::SignalingUp);
            }
            Input::SignalingDown { reason } => {
                *signaling_up = false;
                out.event(Event::SignalingDown { reason });
            }
            Input::Signal(bytes) => sessions.handle_signal(now, bytes, streams, random, out),
            Input::Datagram(datagram) => {
                sessions.handle_datagram(now, datagram, streams, out);
            }
            Input::Sockets { session, sockets: opened } => {
                sessions.on_sockets(now, session, opened, random, out);
            }
            Input::Resolved { session, server, addr } => {
                sessions.on_resolved(now, session, server, addr, random, out);
            }
            // An agent that is made while a stream is started hears of it twice.
            Input::StartStream { id, .. } if streams.get(id).is_some() => {}
            Input::StartStream { id, config } => {
                let stream = Stream::new(id, &config, *max_datagram);
                log::info!("stream {:?} started", stream.name());
                streams.add(stream);
            }
            Input::StopStream { id } => {
                sessions.on_stream_stopped(now, id, out);
                streams.remove(id);
            }
            Input::Frame { stream, data, timestamp, after_gap, pushed } => {
                let is_watched = sessions.iter().any(|session| session.stream() == stream);
                let train = streams.get_mut(stream).and_then(|stream| {
                    stream.on_frame(now, data, timestamp, after_gap, is_watched, out)
                });
                if let Some(train) = train {
                    if pushed_frames.is_full() {
                        pushed_frames.pop_front();
                    }
                    // Cannot fail: room was just made.
                    let _ = pushed_frames.push_back((train.id(), pushed));
                    sessions.on_train(now, &train, streams, out);
                }
            }
            Input::SwitchViewer { session, stream } => {
                sessions.switch(now, session, stream, streams, out);
            }
            Input::StartAudio { id, format } => audio.start(id, format, sessions),
            Input::StopAudio { id } => audio.stop(id, sessions),
            Input::Audio { id, data, timestamp } => {
                audio.on_packet(now, id, data, timestamp, sessions);
            }
            Input::CloseViewer { session, reason } => sessions.close(now, session, reason, out),
            Input::Channel { session, channel, request } => {
                sessions.on_channel_request(now, session, channel, request, out);
            }
            Input::Timeout => {
                let times = |id| audio.media_times(now, streams.get(id));
                sessions.handle_timeout(now, &times, out);
                for stream in streams.iter_mut() {
                    stream.handle_timeout(now, out);
                }
            }
            Input::Shutdown => {
                let reason = CloseReason::ClosedByDevice("the camera is shutting down");
                sessions.close_all(now, &reason, |_| true, out);
            }
        }
        if self.sessions.take_targets_moved() {
            for stream in self.streams.iter_mut() {
                stream.on_demand(now, self.sessions.demand(stream.id()), &mut self.out);
            }
        }
    }

    /// The next thing to do. Call it until it answers [`Output::Timeout`].
    pub fn poll_output(&mut self, now: Now) -> Output<'_> {
        loop {
            if let Some(want) = self.out.pop() {
                return self.output(want);
            }
            let run = self.sealed.runs().get(self.sent_runs).copied();
            if let (Some(run), Some(route)) = (run, self.route) {
                return self.next_run(run, route);
            }
            if !self.seal_next(now) {
                break;
            }
        }
        match self.sessions.speak_next(now, &mut self.spoken) {
            Some((session, codec, piece)) => Output::Talkback(Talkback {
                session,
                codec,
                data: if piece.lost == 0 { &self.spoken } else { &[] },
                lost: piece.lost,
                timestamp: piece.timestamp,
                duration: piece.duration,
            }),
            None => Output::Timeout(self.poll_timeout()),
        }
    }

    /// When the frame was pushed whose last packet for some viewer was in the [`Output::Transmit`] that
    /// was handed out last, if it was one. A frame that waited for longer than that is too many
    /// behind to be of interest.
    pub fn take_sent_frame(&mut self) -> Option<Instant> {
        if self.sent_runs < self.sealed.runs().len() {
            return None;
        }
        let train = self.finishes.take()?;
        self.pushed.iter().rev().find(|(id, _)| *id == train).map(|(_, pushed)| *pushed)
    }

    /// Writes what was counted so far over `snapshot`, whose memory is used again. What the driver
    /// counts stays as it is.
    pub fn write_stats(&self, now: Now, snapshot: &mut Snapshot) {
        snapshot.agent.audio_packets = self.audio.packets();
        snapshot.agent.signaling_up = self.signaling_up;
        snapshot.agent.signaling_reconnects = self.signaling_ups.saturating_sub(1);
        let own = self.sealed.held_bytes() + self.out.held_bytes() + self.spoken.capacity();
        snapshot.agent.held_bytes = own as u64;
        snapshot.viewers.clear();
        snapshot.viewers.extend(self.sessions.iter().map(|session| session.stats(now)));
        snapshot.streams.clear();
        for stream in self.streams.iter() {
            let viewers = self.sessions.iter().filter(|s| s.stream() == stream.id()).count();
            snapshot.streams.push(StreamStats { viewers: viewers as u32, ..stream.stats(now) });
        }
    }

    fn output(&mut self, want: Want) -> Output<'_> {
        match want {
            Want::Send { transmit, start } => {
                Output::Transmit(transmit, self.out.datagram(&transmit, start))
            }
            Want::Signal { topic, payload } => Output::Signal { topic, payload },
            Want::Event(event) => Output::Event(event),
            Want::OpenSockets { session } => Output::OpenSockets { session },
            Want::CloseSockets(ids) => Output::CloseSockets(ids),
            Want::DataReleased { session, channel, bytes } => {
                Output::DataReleased { session, channel, bytes }
            }
            Want::Resolve { session, server, host, port } => {
                Output::Resolve { session, server, host, port }
            }
        }
    }

    /// Hands out the next run of the viewer whose packets are sealed.
    fn next_run(&mut self, run: Run, route: Route) -> Output<'_> {
        self.sent_runs += 1;
        let transmit = Transmit {
            socket: route.socket,
            destination: route.destination,
            segment_size: run.segment_size,
        };
        let end = run.offset + run.len;
        Output::Transmit(transmit, self.sealed.bytes().get(run.offset..end).unwrap_or_default())
    }

    /// Seals what waits for one viewer. One at a time, so that the buffer need not be larger than
    /// one viewer's share. False when nothing waits any more.
    fn seal_next(&mut self, now: Now) -> bool {
        self.sealed.clear();
        self.sent_runs = 0;
        let Some((route, finishes)) = self.sessions.seal_next(now, &self.streams, &mut self.sealed)
        else {
            return false;
        };
        (self.route, self.finishes) = (Some(route), finishes);
        true
    }

    /// Whether it has been told of this stream.
    pub fn has_stream(&self, id: StreamId) -> bool {
        self.streams.get(id).is_some()
    }

    /// The same for a microphone.
    pub fn has_audio(&self, id: AudioId) -> bool {
        self.audio.is_running(id)
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        let streams = self.streams.iter().map(Stream::poll_timeout).fold(None, earlier);
        earlier(self.sessions.poll_timeout(), streams)
    }
}
