//! The camera's microphone and loudspeaker, as the firmware's threads see them.

use super::audio_queue::AudioQueue;
use super::{Camera, Command, PushError, StartError, lock};
use crate::event::AudioId;
use crate::wire::sdp::AudioFormat;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The longest packet taken, in bytes: that of Opus (RFC 6716 §3.4), and 159 ms of G.711.
pub const MAX_AUDIO_LEN: usize = 1275;

/// What the firmware's threads and the agent's have in common.
pub(super) struct Audio {
    pub(super) packets: AudioQueue,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Kept so that an agent that had to be made anew has it as well.
    running: Option<(AudioId, AudioFormat)>,
    started: u32,
}

impl Audio {
    pub(super) fn new() -> Audio {
        Audio { packets: AudioQueue::new(), state: Mutex::default() }
    }

    pub(super) fn running(&self) -> Option<(AudioId, AudioFormat)> {
        lock(&self.state).running
    }

    fn start(&self, format: AudioFormat) -> Option<AudioId> {
        let mut state = lock(&self.state);
        if state.running.is_some() {
            return None;
        }
        state.started = state.started.checked_add(1).unwrap_or(1);
        let id = AudioId(state.started);
        state.running = Some((id, format));
        Some(id)
    }

    fn stop(&self, id: AudioId) -> bool {
        lock(&self.state).running.take_if(|(running, _)| *running == id).is_some()
    }
}

impl Camera {
    /// Gives viewers the camera's microphone, its loudspeaker, or both. Those that watch already get
    /// them when they offer again.
    pub fn start_audio(&self, format: AudioFormat) -> Result<AudioId, StartError> {
        if !format.sends && !format.receives {
            let text = "audio has neither a microphone nor a loudspeaker: expected one at least";
            return Err(StartError::Config(text.into()));
        }
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(StartError::Closed);
        }
        let Some(id) = self.shared.audio.start(format) else {
            return Err(StartError::Busy("the camera's audio runs already: stop it first".into()));
        };
        self.shared.command(Command::StartAudio(id, format));
        Ok(id)
    }

    /// Hands over one packet of the microphone's encoder, which is copied. Never blocks.
    /// `timestamp` is when its first sample was captured, on the clock of the video's frames.
    pub fn push_audio(
        &self,
        audio: AudioId,
        data: &[u8],
        timestamp: Duration,
    ) -> Result<(), PushError> {
        let running = self.shared.audio.running();
        let Some((_, format)) = running.filter(|(id, format)| *id == audio && format.sends) else {
            return Err(PushError::NoStream);
        };
        if data.len() > MAX_AUDIO_LEN || format.codec.ticks(data).is_none() {
            return Err(PushError::BadAudio);
        }
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(PushError::Closed);
        }
        let taken = self.shared.audio.packets.push(audio, data, timestamp);
        taken.then_some(()).ok_or(PushError::QueueFull)
    }

    /// Takes them away again. False if they do not run.
    pub fn stop_audio(&self, audio: AudioId) -> bool {
        self.shared.audio.stop(audio) && self.shared.command(Command::StopAudio(audio))
    }
}
