//! The camera's microphone and loudspeaker, as all its viewers share them: one codec, one timeline.

use super::stream::Stream;
use super::table::Table;
use crate::event::AudioId;
use crate::media::{AudioTimeline, CaptureClock, Reading};
use crate::time::Now;
use crate::wire::audio::AudioCodec;
use crate::wire::sdp::AudioFormat;
use std::time::{Duration, Instant};

/// See the module. There is at most one at a time.
#[derive(Default)]
pub struct AudioSource {
    running: Option<(AudioId, AudioFormat)>,
    /// Of the codec it had last: it goes on if the same one is started again, since viewers that stay
    /// know its count.
    timeline: Option<(AudioCodec, AudioTimeline)>,
    clock: CaptureClock,
    /// Taken so far.
    packets: u64,
    /// The last complaint about a packet.
    complained_at: Option<Instant>,
}

/// What the clocks of a viewer's sources show at one moment, in ticks of their codecs and before the
/// viewer's own offsets: in step with each other where both have one clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MediaTimes {
    pub video: Option<Duration>,
    pub audio: Option<u32>,
}

const COMPLAINT_INTERVAL: Duration = Duration::from_secs(5);

impl AudioSource {
    /// Packets that were taken so far.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Viewers that offer from now on get sound.
    pub fn start(&mut self, id: AudioId, format: AudioFormat, sessions: &mut Table) {
        // An agent that is made while it is started hears of it twice.
        if self.is_running(id) {
            return;
        }
        log::info!("audio started: {format}");
        self.running = Some((id, format));
        if self.timeline.as_ref().is_none_or(|(codec, _)| *codec != format.codec) {
            self.timeline = Some((format.codec, AudioTimeline::new(format.codec)));
        }
        self.clock = CaptureClock::default();
        sessions.set_audio(Some(format));
    }

    /// Whether this is the microphone and loudspeaker that there is.
    pub fn is_running(&self, id: AudioId) -> bool {
        self.running.is_some_and(|(running, _)| running == id)
    }

    pub fn stop(&mut self, id: AudioId, sessions: &mut Table) {
        if self.is_running(id) {
            log::info!("audio stopped");
            self.running = None;
            sessions.set_audio(None);
        }
    }

    /// Sends one of the microphone's packets to all viewers that listen.
    pub fn on_packet(
        &mut self,
        now: Now,
        id: AudioId,
        data: &[u8],
        captured: Duration,
        sessions: &mut Table,
    ) {
        let (Some((running, format)), Some((_, timeline))) = (self.running, &mut self.timeline)
        else {
            return;
        };
        // One of a source that was stopped meanwhile; or there is no microphone to have sent it.
        if running != id || !format.sends {
            return;
        }
        let Some(packet) = timeline.place(data, captured) else {
            return self.complain(now.instant, format.codec);
        };
        self.packets += 1;
        self.clock.on_frame(now.instant, captured);
        for session in sessions.iter_mut() {
            session.send_audio(now, format.codec, &packet);
        }
    }

    /// What the clocks show now, of the sound and of this stream's pictures.
    pub fn media_times(&self, now: Now, video: Option<&Stream>) -> MediaTimes {
        let own = self.clock.reading().filter(|_| self.running.is_some());
        let common = own
            .zip(video.and_then(Stream::encoder_reading))
            .and_then(|(own, encoder)| own.common(encoder));
        let timestamp =
            |reading: Reading| self.timeline.as_ref()?.1.timestamp_at(reading.time_at(now.instant));
        MediaTimes {
            video: video.and_then(|video| video.media_time(now, common)),
            audio: common.or(own).and_then(timestamp),
        }
    }

    fn complain(&mut self, now: Instant, codec: AudioCodec) {
        if self.complained_at.is_none_or(|at| now >= at + COMPLAINT_INTERVAL) {
            self.complained_at = Some(now);
            log::warn!("audio: what was pushed is no packet of {}", codec.encoding());
        }
    }
}
