//! One channel of the camera as its viewers share it: packets, and one wish for keyframes.

use super::outputs::Outputs;
use super::target::{Demand, TargetBitrate};
use crate::config::StreamConfig;
use crate::event::{Event, StreamId};
use crate::media::{
    CaptureClock, FrameClock, FrameError, KeyframeGovernor, Reading, Train, VideoConfig,
    VideoStream,
};
use crate::stats::{self, Rate, Refused, StreamStats};
use crate::time::Now;
use crate::wire::codec::Codec;
use crate::wire::sdp::{ProfileLevelId, StreamFormat};
use crate::wire::{h264, h265};
use std::time::{Duration, Instant};

pub struct Stream {
    id: StreamId,
    name: String,
    codec: Codec,
    video: VideoStream,
    clock: FrameClock,
    /// Of the stream's own time line, and of the encoder's clock, which sound may share.
    capture: CaptureClock,
    encoder: CaptureClock,
    /// The last frame's moment on both.
    placed: Option<(Duration, Duration)>,
    bitrate: u32,
    fallback: Option<String>,
    target: TargetBitrate,
    governor: KeyframeGovernor,
    /// A frame was lost on the way in: what follows it cannot be shown before the next keyframe.
    broken: bool,
    /// When a frame came last that somebody watched.
    watched_at: Option<Instant>,
    /// The last complaint about a frame, so that a broken encoder does not fill the log.
    complained_at: Option<Instant>,
    counted: Counted,
}

/// For [`StreamStats`].
#[derive(Default)]
struct Counted {
    frames: u64,
    bytes: u64,
    keyframes: u64,
    refused: Refused,
    keyframe_requests: u64,
    /// Frames and bytes of the last second; there from the first frame on.
    rates: Option<(Rate, Rate)>,
}

/// Viewers that lose pictures ask often; a keyframe costs as much as ten other frames.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);
/// A viewer that went to another stream may ask for packets of this one again for a while.
const AFTER_VIEWERS: Duration = Duration::from_secs(5);
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(5);

impl Stream {
    pub fn new(id: StreamId, config: &StreamConfig, max_datagram: usize) -> Stream {
        Stream {
            id,
            name: config.name.clone(),
            codec: config.codec,
            video: VideoStream::new(VideoConfig {
                source: id,
                codec: config.codec,
                gop_bytes: config.gop_cache,
                ..VideoConfig::new(config.bitrate, max_datagram)
            }),
            clock: FrameClock::default(),
            capture: CaptureClock::default(),
            encoder: CaptureClock::default(),
            placed: None,
            bitrate: config.bitrate,
            fallback: config.fallback.clone(),
            target: TargetBitrate::new(config.bitrate, config.min_bitrate, config.max_bitrate),
            governor: KeyframeGovernor::new(KEYFRAME_INTERVAL),
            broken: false,
            watched_at: None,
            complained_at: None,
            counted: Counted::default(),
        }
    }

    pub fn id(&self) -> StreamId {
        self.id
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the encoder was said to make, in bits per second.
    pub fn bitrate(&self) -> u32 {
        self.bitrate
    }

    /// The least that the encoder is asked for, in bits per second.
    pub fn floor(&self) -> u32 {
        self.target.floor()
    }

    /// The stream for viewers whose network does not take that.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    pub fn video(&self) -> &VideoStream {
        &self.video
    }

    /// What the encoder's clock shows, once there was a frame.
    pub fn encoder_reading(&self) -> Option<Reading> {
        self.encoder.reading()
    }

    /// The present moment on the stream's time line. `encoder` says it if it is known what the
    /// encoder's clock shows, as it is where sound has the same clock.
    pub fn media_time(&self, now: Now, encoder: Option<Reading>) -> Option<Duration> {
        let Some(encoder) = encoder else {
            return Some(self.capture.reading()?.time_at(now.instant));
        };
        let (timestamp, media) = self.placed?;
        let captured = encoder.time_at(now.instant);
        Some(match captured.checked_sub(timestamp) {
            Some(later) => media.saturating_add(later),
            None => media.saturating_sub(timestamp - captured),
        })
    }

    /// What the encoder makes: in full once it has shown its parameter sets.
    pub fn format(&self) -> StreamFormat {
        let sps = self.video.sps();
        match self.video.config().codec {
            Codec::H264 => {
                let id = sps.and_then(h264::ProfileLevelId::from_sps);
                StreamFormat::H264(id.map(|id| ProfileLevelId::new(id.0)))
            }
            Codec::H265 => StreamFormat::H265(sps.and_then(h265::ProfileTierLevel::from_sps)),
        }
    }

    /// Cuts a frame into packets: the train for all viewers, if there is something to send.
    pub fn on_frame(
        &mut self,
        now: Now,
        data: &[u8],
        timestamp: Duration,
        after_gap: bool,
        is_watched: bool,
        out: &mut Outputs,
    ) -> Option<Train> {
        self.watched_at = if is_watched { Some(now.instant) } else { self.watched_at };
        let of_use = self.watched_at.is_some_and(|at| now.instant < at + AFTER_VIEWERS);
        self.video.set_watched(of_use);
        let place = self.clock.place(now.instant, timestamp);
        if place.jumped {
            log::debug!("stream {:?}: the frames' clock jumped to {timestamp:?}", self.name);
        }
        self.broken |= after_gap || place.jumped;
        self.capture.on_frame(now.instant, place.media);
        self.encoder.on_frame(now.instant, timestamp);
        self.placed = Some((timestamp, place.media));
        let train = match self.video.push(data, place.media) {
            Ok(train) => train?,
            Err(e) => {
                self.counted.on_refused(&e);
                self.complain(now, &e, out);
                return None;
            }
        };
        if train.keyframe {
            self.broken = false;
            self.governor.on_keyframe();
        } else if self.broken {
            self.counted.refused.awaiting_keyframe += 1;
            self.want_keyframe(now, out);
            return None;
        }
        self.counted.on_frame(now.instant, data.len() as u64, train.keyframe);
        Some(train)
    }

    /// A viewer starts or has lost a picture: the encoder is asked, but not more often than it is
    /// good for the others.
    pub fn want_keyframe(&mut self, now: Now, out: &mut Outputs) {
        if self.governor.on_wanted(now.instant) {
            self.ask_for_keyframe(out);
        }
    }

    /// Tells the encoder what its viewers can take, if that has changed enough.
    pub fn on_demand(&mut self, now: Now, demand: Demand, out: &mut Outputs) {
        if let Some(bits_per_second) = self.target.on_demand(now.instant, demand) {
            out.event(Event::TargetBitrate { stream: self.id, bits_per_second });
        }
    }

    pub fn handle_timeout(&mut self, now: Now, out: &mut Outputs) {
        if self.governor.handle_timeout(now.instant) {
            self.ask_for_keyframe(out);
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.governor.poll_timeout()
    }

    /// What the stream has counted. Its viewers, and the frames that did not get as far as the
    /// agent, are others' to know.
    pub fn stats(&self, now: Now) -> StreamStats {
        let counted = &self.counted;
        let rates = counted.rates.as_ref();
        let per_second = |rate: &Rate| rate.last_second(now.instant);
        StreamStats {
            id: self.id,
            name: stats::name(&self.name),
            codec: self.codec,
            frames: counted.frames,
            bytes: counted.bytes,
            keyframes: counted.keyframes,
            refused: counted.refused,
            keyframe_requests: counted.keyframe_requests,
            frame_rate: rates.map_or(0, |(frames, _)| per_second(frames)),
            bps: rates.map_or(0, |(_, bytes)| 8 * per_second(bytes)),
            history_bytes: self.video.held_bytes() as u64,
            viewers: 0,
        }
    }

    fn ask_for_keyframe(&mut self, out: &mut Outputs) {
        self.counted.keyframe_requests += 1;
        out.event(Event::KeyframeRequest { stream: self.id });
    }

    /// A frame that could not be taken is missing to the ones that follow it.
    fn complain(&mut self, now: Now, e: &dyn std::error::Error, out: &mut Outputs) {
        self.broken = true;
        self.want_keyframe(now, out);
        if self.complained_at.is_none_or(|at| now.instant >= at + COMPLAINT_INTERVAL) {
            self.complained_at = Some(now.instant);
            log::warn!("stream {:?}: {e}", self.name);
        }
    }
}

impl Counted {
    fn on_frame(&mut self, now: Instant, bytes: u64, keyframe: bool) {
        self.frames += 1;
        self.bytes += bytes;
        self.keyframes += u64::from(keyframe);
        let (frame_rate, byte_rate) =
            self.rates.get_or_insert_with(|| (Rate::new(now), Rate::new(now)));
        frame_rate.add(now, 1);
        byte_rate.add(now, bytes);
    }

    fn on_refused(&mut self, why: &FrameError) {
        *match why {
            FrameError::TooLarge { .. } => &mut self.refused.too_large,
            FrameError::NoParameterSets => &mut self.refused.no_parameter_sets,
            _ => &mut self.refused.malformed,
        } += 1;
    }
}
