//! A camera and its viewers in virtual time: every datagram and signal goes through here.

use crate::allocations::counted;
use crate::bottleneck::Link;
use crate::viewer::FakeViewer;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sdk_core::agent::{Agent, AgentConfig, Input, Output};
use sdk_core::driver::{Codec, DEFAULT_GOP_CACHE, StreamConfig, UnsetClock};
use sdk_core::event::{Event, StreamId};
use sdk_core::net::{Datagram, SocketId};
use sdk_core::peer::LocalSocket;
use sdk_core::peer::dtls::Identity;
use sdk_core::time::Now;
use sdk_core::wire::signal::{Body, Offer, SessionId, Signal};
use sdk_core::wire::token::{self, Claims};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

type Lose = dyn FnMut(SocketAddr, SocketAddr, &[u8]) -> bool;

pub(crate) const TODAY: Duration = Duration::from_secs(1_800_000_000);
pub(crate) const STREAM: StreamId = StreamId(1);

pub(crate) struct World {
    pub(crate) agent: Agent,
    pub(crate) key: Ed25519KeyPair,
    pub(crate) now: Now,
    pub(crate) viewers: Vec<FakeViewer>,
    /// Signals the camera sent, with their topics.
    pub(crate) signals: Vec<(String, Signal)>,
    pub(crate) events: Vec<Event>,
    pub(crate) spoken: Vec<Spoken>,
    /// What of data channels' send buffers was said to be free again.
    pub(crate) released: Vec<(SessionId, u16, usize)>,
    /// How long each frame took to be sent, for each viewer.
    pub(crate) sent_frames: Vec<Duration>,
    pub(crate) open_sockets: Vec<(SocketId, SocketAddr)>,
    next_socket: u32,
    /// Drops a datagram if it says so: from, to, bytes.
    pub(crate) lose: Box<Lose>,
    on_the_way: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// What all that goes to a viewer passes through, by the viewer's address.
    pub(crate) links: Vec<(SocketAddr, Link)>,
    /// What passes through a link, by when it arrives.
    in_links: VecDeque<(Instant, SocketAddr, SocketAddr, Vec<u8>)>,
    start: Instant,
    deadline: Option<Instant>,
}

/// What a viewer said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spoken {
    pub(crate) at: Instant,
    pub(crate) session: SessionId,
    pub(crate) data: Vec<u8>,
    pub(crate) lost: u32,
    pub(crate) timestamp: Duration,
    pub(crate) duration: Duration,
}

impl World {
    pub(crate) fn new(change: impl FnOnce(&mut AgentConfig)) -> World {
        World::with_bitrate(2_000_000, change)
    }

    #[allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
    pub(crate) fn with_bitrate(bitrate: u32, change: impl FnOnce(&mut AgentConfig)) -> World {
        let start = Instant::now();
        let key = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
        let mut config = AgentConfig {
            device_id: "cam_1".into(),
            service_public_key: key.public_key().as_ref().try_into().unwrap(),
            unset_clock: UnsetClock::Refuse,
            max_viewers: 8,
            relay_only: false,
            max_datagram: 1200,
        };
        change(&mut config);
        let mut world = World {
            agent: Agent::new(config, Identity::generate().unwrap(), &[3; 32]),
            key,
            now: Now { instant: start, wall: TODAY },
            viewers: Vec::new(),
            signals: Vec::new(),
            events: Vec::new(),
            spoken: Vec::new(),
            released: Vec::new(),
            sent_frames: Vec::new(),
            open_sockets: Vec::new(),
            next_socket: 0,
            lose: Box::new(|_, _, _| false),
            on_the_way: VecDeque::new(),
            links: Vec::new(),
            in_links: VecDeque::new(),
            start,
            deadline: None,
        };
        let config = StreamConfig {
            name: "main".into(),
            codec: Codec::H264,
            bitrate,
            min_bitrate: None,
            max_bitrate: None,
            fallback: None,
            gop_cache: DEFAULT_GOP_CACHE,
        };
        world.input(Input::StartStream { id: STREAM, config });
        world
    }

    pub(crate) fn token(&self, id: SessionId, app: &str) -> String {
        let claims = Claims {
            sid: id.to_string(),
            dev: "cam_1".into(),
            app: app.into(),
            exp: TODAY.as_secs() + 600,
            ice_servers: Vec::new(),
        };
        token::sign(&claims, &self.key)
    }

    pub(crate) fn input(&mut self, input: Input<'_>) {
        counted(|| self.agent.handle_input(self.now, input));
        self.drain();
    }

    pub(crate) fn signal(&mut self, id: SessionId, from: &str, body: Body) {
        let signal = Signal {
            session_id: id,
            from: from.into(),
            to: "cam_1".into(),
            body,
            timestamp: self.now.unix_ms(),
        };
        self.input(Input::Signal(&signal.to_json()));
    }

    /// A viewer joins by the contract: offer with token, then its candidate.
    pub(crate) fn join(&mut self, viewer: FakeViewer, n: u8) -> SessionId {
        let id = SessionId::from_random([n; 16]);
        let app = format!("app_{n}");
        let offer = Offer { sdp: viewer.offer(), token: self.token(id, &app), stream: None };
        let candidate = viewer.candidate();
        self.viewers.push(viewer);
        self.signal(id, &app, Body::Offer(offer));
        self.signal(
            id,
            &app,
            Body::Candidate(sdk_core::wire::signal::Candidate {
                candidate,
                sdp_mid: Some("0".into()),
                sdp_m_line_index: Some(0),
            }),
        );
        if let Some(answer) = self.answer_to(&app) {
            self.viewers.last_mut().unwrap().on_answer(&answer);
        }
        id
    }

    /// The last answer to an application.
    pub(crate) fn answer_to(&self, app: &str) -> Option<String> {
        self.bodies_to(app)
            .filter_map(|b| match b {
                Body::Answer { sdp } => Some(sdp.clone()),
                _ => None,
            })
            .last()
    }

    /// The last error to an application.
    pub(crate) fn error_to(&self, app: &str) -> Option<u16> {
        self.bodies_to(app)
            .filter_map(|b| match b {
                Body::Error { code, .. } => Some(code.number()),
                _ => None,
            })
            .last()
    }

    pub(crate) fn bodies_to<'a>(&'a self, app: &str) -> impl Iterator<Item = &'a Body> {
        let topic = format!("p2p/signal/app/{app}");
        self.signals.iter().filter(move |(t, _)| *t == topic).map(|(_, s)| &s.body)
    }

    /// Lets time pass, delivering all that is sent.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now.instant + duration;
        loop {
            self.deliver();
            let viewers = self.viewers.iter_mut().filter_map(FakeViewer::poll_timeout);
            let arrival = self.in_links.front().map(|(at, ..)| *at);
            let next = viewers.chain(self.deadline).chain(arrival).min().filter(|at| *at <= end);
            let Some(next) = next else { break };
            self.advance_to(next.max(self.now.instant + Duration::from_millis(1)));
            for viewer in &mut self.viewers {
                viewer.handle_timeout(self.now.instant);
            }
            if self.deadline.is_some_and(|at| at <= self.now.instant) {
                self.input(Input::Timeout);
            }
        }
        self.advance_to(end);
        self.deliver();
    }

    pub(crate) fn push_frame(&mut self, data: &[u8], timestamp: Duration) {
        self.push(STREAM, data, timestamp);
        self.deliver();
    }

    /// A frame of one of the streams; what comes of it stays on the way.
    pub(crate) fn push(&mut self, stream: StreamId, data: &[u8], timestamp: Duration) {
        let pushed = self.now.instant;
        self.input(Input::Frame { stream, data, timestamp, after_gap: false, pushed });
    }

    pub(crate) fn is_connected(&self, id: SessionId) -> bool {
        self.events
            .iter()
            .any(|e| matches!(e, Event::ViewerConnected { session, .. } if *session == id))
    }

    /// Sends a datagram of a viewer to the camera.
    pub(crate) fn send(&mut self, from: SocketAddr, to: SocketAddr, data: Vec<u8>) {
        self.on_the_way.push_back((from, to, data));
        self.deliver();
    }

    /// How long a datagram to this viewer would wait in its link.
    pub(crate) fn queue_to(&mut self, viewer: SocketAddr) -> Duration {
        let now = self.now.instant - self.start;
        let link = self.links.iter_mut().find(|(addr, _)| *addr == viewer);
        link.map_or(Duration::ZERO, |(_, link)| link.queue(now))
    }

    /// The rate of a viewer's link from now on, in bits per second.
    pub(crate) fn set_link_rate(&mut self, viewer: SocketAddr, rate: f64) {
        let now = self.now.instant - self.start;
        let link = self.links.iter_mut().find(|(addr, _)| *addr == viewer);
        link.unwrap().1.set_rate(now, rate);
    }

    fn advance_to(&mut self, instant: Instant) {
        let passed = instant.saturating_duration_since(self.now.instant);
        self.now = Now { instant: self.now.instant + passed, wall: self.now.wall + passed };
    }

    fn deliver(&mut self) {
        loop {
            for viewer in &mut self.viewers {
                while let Some((to, data)) = viewer.poll_transmit(self.now.instant) {
                    self.on_the_way.push_back((viewer.addr, to, data));
                }
            }
            let now = self.now.instant;
            let arrived = self.in_links.pop_front_if(|(at, ..)| *at <= now);
            let arrived = arrived.map(|(_, from, to, data)| (from, to, data));
            let was_in_link = arrived.is_some();
            let Some((from, to, mut data)) = arrived.or_else(|| self.on_the_way.pop_front()) else {
                return;
            };
            if !was_in_link && (self.lose)(from, to, &data) {
                continue;
            }
            let link = self.links.iter_mut().find(|(addr, _)| *addr == to);
            if let Some((_, link)) = link.filter(|_| !was_in_link) {
                if let Some(at) = link.send(now - self.start, data.len()) {
                    let at = self.start + at;
                    let place = self.in_links.partition_point(|(other, ..)| *other <= at);
                    self.in_links.insert(place, (at, from, to, data));
                }
                continue;
            }
            if let Some(viewer) = self.viewers.iter_mut().find(|v| v.addr == to) {
                viewer.handle_datagram(self.now.instant, from, &mut data);
            } else if let Some((socket, _)) = self.open_sockets.iter().find(|(_, a)| *a == to) {
                let datagram = Datagram { socket: *socket, source: from, data: &mut data };
                counted(|| self.agent.handle_input(self.now, Input::Datagram(datagram)));
                self.drain();
            }
        }
    }

    fn drain(&mut self) {
        loop {
            let opened = match counted(|| self.agent.poll_output(self.now)) {
                Output::Transmit(transmit, data) => {
                    let from = self.open_sockets.iter().find(|(id, _)| *id == transmit.socket);
                    let from = from.expect("sent on a socket that is open").1;
                    for datagram in data.chunks(transmit.segment_size) {
                        self.on_the_way.push_back((from, transmit.destination, datagram.to_vec()));
                    }
                    let pushed = self.agent.take_sent_frame();
                    self.sent_frames.extend(pushed.map(|pushed| self.now.instant - pushed));
                    continue;
                }
                Output::Signal { topic, payload } => {
                    self.signals.push((topic, Signal::parse(&payload).unwrap()));
                    continue;
                }
                Output::Event(event) => {
                    self.events.push(event);
                    continue;
                }
                Output::Talkback(talkback) => {
                    self.spoken.push(Spoken {
                        at: self.now.instant,
                        session: talkback.session,
                        data: talkback.data.to_vec(),
                        lost: talkback.lost,
                        timestamp: talkback.timestamp,
                        duration: talkback.duration,
                    });
                    continue;
                }
                Output::CloseSockets(ids) => {
                    self.open_sockets.retain(|(id, _)| !ids.contains(id));
                    continue;
                }
                Output::Resolve { .. } => continue,
                Output::DataReleased { session, channel, bytes } => {
                    self.released.push((session, channel, bytes));
                    continue;
                }
                Output::OpenSockets { session } => session,
                Output::Timeout(at) => {
                    self.deadline = at;
                    return;
                }
            };
            self.next_socket += 1;
            let id = SocketId(self.next_socket);
            let addr = SocketAddr::from(([192, 0, 2, 1], 40_000 + self.next_socket as u16));
            self.open_sockets.push((id, addr));
            let sockets = Ok(vec![LocalSocket { id, addr }]);
            self.agent.handle_input(self.now, Input::Sockets { session: opened, sockets });
        }
    }
}
