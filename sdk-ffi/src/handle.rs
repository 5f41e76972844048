//! Handles: what C holds is a number, looked up here and never dereferenced. A stale, foreign or
//! made-up handle is therefore an error and not a crash, for as long as the process lives.

use crate::callbacks::Callbacks;
use crate::status::{Error, p2p_status_t};
use sdk_core::driver::Camera;
use sdk_core::event::{AudioId, StreamId};
use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A running camera agent: made by p2p_init(), ended by p2p_deinit(). The pointer is a number in
/// disguise: never dereference it.
pub struct p2p_agent_t {
    _opaque: [u8; 0],
}

/// One running stream of an agent: made by p2p_start_stream(), ended by p2p_stop_stream() or by its
/// agent's p2p_deinit(). The pointer is a number in disguise: never dereference it.
pub struct p2p_stream_t {
    _opaque: [u8; 0],
}

/// The microphone and loudspeaker of an agent: made by p2p_start_audio(), ended by p2p_stop_audio() or by
/// its agent's p2p_deinit(). The pointer is a number in disguise: never dereference it.
pub struct p2p_audio_t {
    _opaque: [u8; 0],
}

/// What an agent's handle stands for.
pub(crate) struct Agent {
    pub(crate) handle: usize,
    pub(crate) callbacks: Callbacks,
    /// Held from before the core numbers a stream until its handle is known, so that no callback
    /// meets a stream without one.
    pub(crate) starting: Mutex<()>,
}

/// What a stream's handle stands for.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    pub(crate) handle: usize,
    pub(crate) agent: usize,
    pub(crate) id: StreamId,
    /// `p2p_stream_config_t.user`, kept as a number because only C knows what it means.
    pub(crate) user: usize,
}

/// What an audio handle stands for.
#[derive(Clone, Copy)]
pub(crate) struct Audio {
    pub(crate) handle: usize,
    pub(crate) agent: usize,
    pub(crate) id: AudioId,
}

/// The agent of one call, counted, so that p2p_deinit() can wait until nobody uses it any more.
pub(crate) struct Call {
    agent: Arc<Agent>,
    camera: Arc<Camera>,
}

impl Call {
    pub(crate) fn agent(&self) -> &Agent {
        &self.agent
    }

    pub(crate) fn camera(&self) -> &Camera {
        &self.camera
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut registry = lock();
        if let Some(slot) = registry.slot(self.agent.handle) {
            slot.calls -= 1;
            // Waking nobody is a system call too, and would be one for each frame.
            if slot.calls == 0 && matches!(slot.state, State::Closing) {
                CHANGED.notify_all();
            }
        }
    }
}

struct Registry {
    /// A handful at most: searching a short list costs less than hashing.
    agents: Vec<Slot>,
    streams: Vec<Stream>,
    audios: Vec<Audio>,
    last_number: usize,
}

struct Slot {
    agent: Arc<Agent>,
    state: State,
    calls: usize,
}

enum State {
    Starting,
    Running(Arc<Camera>),
    Closing,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    agents: Vec::new(),
    streams: Vec::new(),
    audios: Vec::new(),
    last_number: 0,
});
/// An agent was started, failed to, or has no calls left.
static CHANGED: Condvar = Condvar::new();

/// How long a callback that comes before p2p_init() has returned waits for it. Microseconds are
/// enough; the bound is there so that no fault can make it a deadlock.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// Registers an agent whose camera is about to be started.
pub(crate) fn add_agent(callbacks: Callbacks) -> Result<Arc<Agent>, Error> {
    let mut registry = lock();
    let handle = registry.next_handle(AGENT)?;
    let agent = Arc::new(Agent { handle, callbacks, starting: Mutex::new(()) });
    registry.agents.push(Slot { agent: agent.clone(), state: State::Starting, calls: 0 });
    Ok(agent)
}

/// Lets calls in: the camera runs.
pub(crate) fn agent_started(agent: &Agent, camera: Camera) {
    let mut registry = lock();
    if let Some(slot) = registry.slot(agent.handle) {
        slot.state = State::Running(Arc::new(camera));
    }
    CHANGED.notify_all();
}

/// Takes back `add_agent`: the camera could not be started, or is gone.
pub(crate) fn remove_agent(agent: &Agent) {
    lock().agents.retain(|slot| slot.agent.handle != agent.handle);
    CHANGED.notify_all();
}

/// Finds a running agent for one call.
pub(crate) fn agent(handle: *const p2p_agent_t) -> Result<Call, Error> {
    let handle = handle.addr();
    let mut registry = lock();
    let starting =
        |r: &mut Registry| matches!(r.slot(handle), Some(Slot { state: State::Starting, .. }));
    if starting(&mut registry) {
        let waited = CHANGED.wait_timeout_while(registry, START_PATIENCE, starting);
        registry = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    registry.enter(handle).ok_or_else(|| registry.explain(handle, AGENT))
}

/// Finds a stream and its running agent for one call.
pub(crate) fn stream(handle: *const p2p_stream_t) -> Result<(Call, Stream), Error> {
    let handle = handle.addr();
    let mut registry = lock();
    let stream = registry.streams.iter().find(|s| s.handle == handle).copied();
    stream
        .and_then(|stream| Some((registry.enter(stream.agent)?, stream)))
        .ok_or_else(|| registry.explain(handle, STREAM))
}

/// Finds an agent's audio and its running agent for one call.
pub(crate) fn audio(handle: *const p2p_audio_t) -> Result<(Call, Audio), Error> {
    let handle = handle.addr();
    let mut registry = lock();
    let audio = registry.audios.iter().find(|a| a.handle == handle).copied();
    audio
        .and_then(|audio| Some((registry.enter(audio.agent)?, audio)))
        .ok_or_else(|| registry.explain(handle, AUDIO))
}

/// Gives an agent's audio its handle.
pub(crate) fn add_audio(call: &Call, id: AudioId) -> Result<Audio, Error> {
    let mut registry = lock();
    let handle = registry.next_handle_of(call, AUDIO)?;
    let audio = Audio { handle, agent: call.agent.handle, id };
    registry.audios.push(audio);
    Ok(audio)
}

/// Ends an audio handle. False if another thread was faster.
pub(crate) fn remove_audio(audio: Audio) -> bool {
    let mut registry = lock();
    let before = registry.audios.len();
    registry.audios.retain(|a| a.handle != audio.handle);
    registry.audios.len() < before
}

/// Whether this agent's audio was not stopped yet.
pub(crate) fn has_audio(agent: &Agent) -> bool {
    lock().audios.iter().any(|a| a.agent == agent.handle)
}

/// Gives a new stream its handle.
pub(crate) fn add_stream(call: &Call, id: StreamId, user: *mut c_void) -> Result<Stream, Error> {
    let mut registry = lock();
    let handle = registry.next_handle_of(call, STREAM)?;
    let stream = Stream { handle, agent: call.agent.handle, id, user: user.expose_provenance() };
    registry.streams.push(stream);
    Ok(stream)
}

/// Ends a stream's handle. False if another thread was faster.
pub(crate) fn remove_stream(stream: Stream) -> bool {
    let mut registry = lock();
    let before = registry.streams.len();
    registry.streams.retain(|s| s.handle != stream.handle);
    registry.streams.len() < before
}

/// The stream that the core of this agent calls `id`.
pub(crate) fn find_stream(agent: &Agent, id: StreamId) -> Option<Stream> {
    let _started = agent.starting.lock().unwrap_or_else(PoisonError::into_inner);
    lock().streams.iter().find(|s| s.agent == agent.handle && s.id == id).copied()
}

/// Ends an agent's handle and those of its streams, so that no call is let in any more; shuts its
/// camera down, and waits for the calls that were already under way.
pub(crate) fn end_agent(handle: *const p2p_agent_t) -> Result<Arc<Agent>, Error> {
    let handle = handle.addr();
    let mut registry = lock();
    let Some(call) = registry.enter(handle) else { return Err(registry.explain(handle, AGENT)) };
    if let Some(slot) = registry.slot(handle) {
        slot.state = State::Closing;
    }
    registry.streams.retain(|s| s.agent != handle);
    registry.audios.retain(|a| a.agent != handle);
    drop(registry);

    let (agent, camera) = (call.agent.clone(), call.camera.clone());
    drop(call);
    camera.shutdown();
    let busy = |r: &mut Registry| r.slot(handle).is_some_and(|slot| slot.calls > 0);
    drop(CHANGED.wait_while(lock(), busy).unwrap_or_else(PoisonError::into_inner));
    // Once more, for a frame that a call which was under way pushed meanwhile.
    camera.shutdown();
    remove_agent(&agent);
    Ok(agent)
}

impl Registry {
    fn slot(&mut self, agent: usize) -> Option<&mut Slot> {
        self.agents.iter_mut().find(|slot| slot.agent.handle == agent)
    }

    /// Counts a call in, if the agent runs.
    fn enter(&mut self, agent: usize) -> Option<Call> {
        let slot = self.slot(agent)?;
        let State::Running(camera) = &slot.state else { return None };
        slot.calls += 1;
        Some(Call { agent: slot.agent.clone(), camera: camera.clone() })
    }

    /// A handle for something of a running agent.
    fn next_handle_of(&mut self, call: &Call, kind: usize) -> Result<usize, Error> {
        let slot = self.slot(call.agent.handle);
        if !matches!(slot, Some(Slot { state: State::Running(_), .. })) {
            return Err(Error::new(
                p2p_status_t::P2P_ERR_CLOSED,
                "the agent is being de-initialised by another thread",
            ));
        }
        self.next_handle(kind)
    }

    /// Numbers are never used twice; a process that runs out of them (a thousand million handles)
    /// is told so.
    fn next_handle(&mut self, kind: usize) -> Result<usize, Error> {
        let number = self.last_number + 1;
        if number > usize::MAX >> KIND_BITS {
            return Err(Error::new(p2p_status_t::P2P_ERR_BUSY, "all handle numbers are used up"));
        }
        self.last_number = number;
        Ok(number << KIND_BITS | kind)
    }

    fn explain(&self, handle: usize, kind: usize) -> Error {
        let (name, maker, ender) = NAMES[kind - 1];
        let number = handle >> KIND_BITS;
        let issued = number >= 1 && number <= self.last_number;
        let text = match handle & KIND_MASK {
            _ if handle == 0 => format!("{name} is NULL: call {maker} first"),
            k if k == kind && issued => {
                format!("{name} is stale: it was ended by {ender}, or its start failed")
            }
            k if (k == AGENT || k == STREAM || k == AUDIO) && issued => {
                format!("expected a {name}, came a {}", NAMES[k - 1].0)
            }
            _ => format!("{name} {handle:#x} was never given out: use what {maker} gave"),
        };
        Error::new(p2p_status_t::P2P_ERR_HANDLE, text)
    }
}

fn lock() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

// The lowest bits say what a handle is. They are never both zero, as those of pointers to memory are.
const KIND_BITS: u32 = 2;
const KIND_MASK: usize = 3;
const AGENT: usize = 1;
const STREAM: usize = 2;
const AUDIO: usize = 3;
const NAMES: [(&str, &str, &str); 3] = [
    ("p2p_agent_t", "p2p_init", "p2p_deinit"),
    ("p2p_stream_t", "p2p_start_stream", "p2p_stop_stream or p2p_deinit"),
    ("p2p_audio_t", "p2p_start_audio", "p2p_stop_audio or p2p_deinit"),
];
