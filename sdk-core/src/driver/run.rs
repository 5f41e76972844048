//! The agent's thread: waits for whatever comes first, tells the agent, does what the agent says.

use super::audio_queue::Packet;
use super::broker::{BrokerConfig, BrokerLink, LinkEvent};
use super::channels::{Channels, Request};
use super::frame_queue::Queued;
use super::published::Publisher;
use super::resolver::Resolver;
use super::udp::Sockets;
use super::{CameraConfig, Command, Handler, Shared, StartError, lock};
use crate::agent::{Agent, AgentConfig, Input, Output};
use crate::event::{DataEvent, Event};
use crate::net::Datagram;
use crate::peer::dtls::Identity;
use crate::time::{Now, earlier};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Runtime;

pub(super) struct Runner {
    config: CameraConfig,
    identity: Identity,
    handler: Arc<dyn Handler>,
    shared: Arc<Shared>,
    runtime: Runtime,
}

/// How long goodbyes may take.
const GOODBYE: Duration = Duration::from_millis(1500);
/// A pause before a new agent takes over from one that panicked.
const AFTER_PANIC: Duration = Duration::from_secs(1);

impl Runner {
    pub(super) fn new(
        config: CameraConfig,
        identity: Identity,
        handler: Arc<dyn Handler>,
        shared: Arc<Shared>,
    ) -> Result<Runner, StartError> {
        broker_link(&config)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(2)
            .thread_keep_alive(Duration::from_secs(1))
            .build()
            .map_err(StartError::Io)?;
        Ok(Runner { config, identity, handler, shared, runtime })
    }

    /// Runs until [`super::Camera::shutdown`]. A panic ends the agent with its viewers, not the
    /// vendor's process: a new one starts with the streams that were running.
    pub(super) fn run_until_closed(self) {
        loop {
            let ended = catch_unwind(AssertUnwindSafe(|| self.runtime.block_on(self.run())));
            match ended {
                Ok(Ok(())) => return,
                Ok(Err(e)) => log::error!("the agent cannot run: {e}; next try in {AFTER_PANIC:?}"),
                Err(_) => log::error!("the agent panicked; it starts anew in {AFTER_PANIC:?}"),
            }
            if self.shared.closed.load(Ordering::Acquire) {
                return;
            }
            std::thread::sleep(AFTER_PANIC);
        }
    }

    async fn run(&self) -> Result<(), StartError> {
        self.shared.started.get_or_init(|| now().instant);
        self.shared.channels.clear();
        let mut turn = Turn {
            agent: self.new_agent()?,
            sockets: Sockets::new(self.config.include_loopback, self.shared.counters.clone()),
            resolver: Resolver::default(),
            broker: broker_link(&self.config)?,
            handler: &*self.handler,
            channels: &self.shared.channels,
            deadline: None,
            publisher: Publisher::new(&self.shared),
            packet: Packet::empty(),
        };
        turn.flush(now());
        while !self.shared.closed.load(Ordering::Acquire) {
            turn.once(&self.shared).await;
        }
        turn.say_goodbye().await;
        Ok(())
    }

    fn new_agent(&self) -> Result<Agent, StartError> {
        let config = AgentConfig {
            device_id: self.config.device_id.clone(),
            service_public_key: self.config.service_public_key,
            unset_clock: self.config.unset_clock,
            max_viewers: self.config.max_viewers,
            relay_only: self.config.relay_only,
            max_datagram: self.config.max_datagram,
        };
        let mut agent = Agent::new(config, self.identity.clone(), &seed()?);
        let streams = lock(&self.shared.streams).running.clone();
        for (id, stream) in streams {
            agent.handle_input(now(), Input::StartStream { id, config: stream });
        }
        if let Some((id, format)) = self.shared.audio.running() {
            agent.handle_input(now(), Input::StartAudio { id, format });
        }
        Ok(agent)
    }
}

/// What one turn of the loop works with.
struct Turn<'a> {
    agent: Agent,
    sockets: Sockets,
    resolver: Resolver,
    broker: BrokerLink,
    handler: &'a dyn Handler,
    channels: &'a Channels,
    deadline: Option<Instant>,
    publisher: Publisher<'a>,
    /// The microphone's packet that is being sent.
    packet: Packet,
}

impl Turn<'_> {
    /// Waits for one thing, and works off what follows from it.
    async fn once(&mut self, shared: &Shared) {
        let Turn { agent, sockets, resolver, broker, deadline, .. } = self;
        let timeout = sleep_until(earlier(*deadline, self.publisher.next()));
        tokio::select! {
            biased;
            () = shared.audio.packets.wait() => self.take_audio(shared),
            () = shared.frames.wait() => {
                while let Some(frame) = shared.frames.pop() {
                    self.on_frame(&frame, shared);
                    self.take_audio(shared);
                }
            }
            () = shared.wake.notified() => {
                self.take_commands(shared);
                for Request { session, channel, request } in shared.channels.take_requests() {
                    let now = now();
                    self.agent.handle_input(now, Input::Channel { session, channel, request });
                    self.flush(now);
                }
            }
            received = sockets.receive() => {
                let now = now();
                let (socket, source, stride) = (received.socket, received.source, received.stride);
                for data in received.data.chunks_mut(stride) {
                    agent.handle_input(now, Input::Datagram(Datagram { socket, source, data }));
                }
            }
            event = broker.next() => match event {
                LinkEvent::Up => agent.handle_input(now(), Input::SignalingUp),
                LinkEvent::Down { reason } => {
                    agent.handle_input(now(), Input::SignalingDown { reason });
                }
                LinkEvent::Message { payload, .. } => {
                    agent.handle_input(now(), Input::Signal(&payload));
                }
            },
            answer = resolver.next() => {
                let (session, server, addr) = (answer.session, answer.server, answer.addr);
                agent.handle_input(now(), Input::Resolved { session, server, addr });
            }
            () = timeout => agent.handle_input(now(), Input::Timeout),
        }
        let now = now();
        self.flush(now);
        self.publisher.publish_if_due(now, &self.agent);
    }

    fn take_commands(&mut self, shared: &Shared) {
        let commands: Vec<Command> = lock(&shared.commands).drain(..).collect();
        if !commands.is_empty() {
            self.publisher.hurry();
        }
        for command in commands {
            self.on_command(command);
        }
    }

    fn on_frame(&mut self, frame: &Queued, shared: &Shared) {
        // The first of a stream may be here before the command that starts it has been read.
        if !self.agent.has_stream(frame.stream) {
            self.take_commands(shared);
        }
        let now = now();
        self.agent.handle_input(
            now,
            Input::Frame {
                stream: frame.stream,
                data: &frame.data,
                timestamp: frame.timestamp,
                after_gap: frame.after_gap,
                pushed: frame.pushed,
            },
        );
        self.flush(now);
    }

    /// Sends what the microphone has made by now.
    fn take_audio(&mut self, shared: &Shared) {
        while shared.audio.packets.pop(&mut self.packet) {
            if !self.agent.has_audio(self.packet.id) {
                self.take_commands(shared);
            }
            let now = now();
            let Packet { id, data, timestamp } = &self.packet;
            self.agent.handle_input(now, Input::Audio { id: *id, data, timestamp: *timestamp });
            self.flush(now);
        }
    }

    fn on_command(&mut self, command: Command) {
        let input = match command {
            Command::StartStream(id, config) => Input::StartStream { id, config },
            Command::StopStream(id) => Input::StopStream { id },
            Command::StartAudio(id, format) => Input::StartAudio { id, format },
            Command::StopAudio(id) => Input::StopAudio { id },
            Command::CloseViewer(session, reason) => Input::CloseViewer { session, reason },
            Command::SwitchViewer(session, stream) => Input::SwitchViewer { session, stream },
        };
        let now = now();
        self.agent.handle_input(now, input);
        self.flush(now);
    }

    /// Does what the agent says, until it only wants to be woken again.
    fn flush(&mut self, now: Now) {
        loop {
            match self.agent.poll_output(now) {
                Output::Transmit(transmit, data) => {
                    self.sockets.send(&transmit, data);
                    if let Some(pushed) = self.agent.take_sent_frame() {
                        self.publisher.on_frame_sent(pushed, self::now().instant);
                    }
                }
                Output::Signal { topic, payload } => {
                    if let Err(e) = self.broker.publish(&topic, payload) {
                        log::warn!("a signal for {topic} was not taken: {e:?}");
                    }
                }
                Output::Event(event) => self.report(now, &event),
                Output::Talkback(talkback) => {
                    let handler = self.handler;
                    contain(|| handler.on_talkback(&talkback));
                }
                Output::OpenSockets { session } => {
                    let sockets = self.sockets.open().map_err(|e| e.to_string());
                    self.agent.handle_input(now, Input::Sockets { session, sockets });
                }
                Output::CloseSockets(ids) => self.sockets.close(&ids),
                Output::DataReleased { session, channel, bytes } => {
                    for channel in self.channels.on_released(session, channel, bytes) {
                        let event = DataEvent::Writable { channel };
                        self.report(now, &Event::Data { session, event });
                    }
                }
                Output::Resolve { session, server, host, port } => {
                    self.resolver.start(session, server, host, port);
                }
                Output::Timeout(at) => {
                    self.deadline = at;
                    return;
                }
            }
        }
    }

    fn report(&mut self, now: Now, event: &Event) {
        self.channels.on_event(event);
        // So that the callback sees what it is told of.
        if !event.is_frequent() {
            self.publisher.publish(now, &self.agent);
        }
        contain(|| self.handler.on_event(event));
    }

    /// Tells all viewers and the broker that the camera goes away.
    async fn say_goodbye(&mut self) {
        let now = now();
        self.agent.handle_input(now, Input::Shutdown);
        self.flush(now);
        self.broker.shutdown(GOODBYE).await;
    }
}

/// A callback into the firmware may be a foreign language's; its panic is not the agent's.
fn contain(callback: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(callback)).is_err() {
        log::error!("a callback panicked");
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[allow(clippy::disallowed_methods, reason = "the driver's clock is the one that asks")]
pub(super) fn now() -> Now {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), wall }
}

fn seed() -> Result<[u8; 32], StartError> {
    let mut seed = [0; 32];
    SystemRandom::new()
        .fill(&mut seed)
        .map_err(|_| StartError::Io(std::io::Error::other("the system has no random numbers")))?;
    Ok(seed)
}

fn broker_link(config: &CameraConfig) -> Result<BrokerLink, StartError> {
    let [a, b, c, d, e, f, g, h, ..] = seed()?;
    BrokerLink::new(BrokerConfig {
        device_id: config.device_id.clone(),
        url: config.broker_url.clone(),
        username: config.broker_username.clone(),
        password: config.broker_password.clone(),
        ca_file: config.broker_ca_file.clone(),
        certificate: config.broker_certificate.clone(),
        seed: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        unix_millis: Box::new(|| now().unix_ms()),
    })
    .map_err(StartError::Config)
}
