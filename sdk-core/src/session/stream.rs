//! One channel of the camera as its viewers share it: packets, and one wish for keyframes.

use super::outputs::Outputs;
use super::table::Table;
use super::target::{Demand, TargetBitrate};
use crate::driver::StreamConfig;
use crate::event::{Event, StreamId};
use crate::media::{KeyframeGovernor, VideoConfig, VideoStream};
use crate::time::Now;
use crate::wire::sdp::ProfileLevelId;
use std::time::{Duration, Instant};

pub struct Stream {
    id: StreamId,
    name: String,
    video: VideoStream,
    bitrate: u32,
    target: TargetBitrate,
    governor: KeyframeGovernor,
    /// A frame was lost on the way in: what follows it cannot be shown before the next keyframe.
    broken: bool,
    /// The last complaint about a frame, so that a broken encoder does not fill the log.
    complained_at: Option<Instant>,
}

/// Viewers that lose pictures ask often; a keyframe costs as much as ten other frames.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(5);

impl Stream {
    pub fn new(id: StreamId, config: &StreamConfig, max_datagram: usize) -> Stream {
        Stream {
            id,
            name: config.name.clone(),
            video: VideoStream::new(VideoConfig::new(config.bitrate, max_datagram)),
            bitrate: config.bitrate,
            target: TargetBitrate::new(config.bitrate, config.min_bitrate, config.max_bitrate),
            governor: KeyframeGovernor::new(KEYFRAME_INTERVAL),
            broken: false,
            complained_at: None,
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

    pub fn video(&self) -> &VideoStream {
        &self.video
    }

    /// What the encoder makes, once it has shown its parameter sets.
    pub fn profile_level_id(&self) -> Option<ProfileLevelId> {
        self.video.profile_level_id().map(|p| ProfileLevelId::new(p.0))
    }

    /// Cuts a frame into packets and queues them for all viewers that are connected.
    pub fn on_frame(
        &mut self,
        now: Now,
        data: &[u8],
        timestamp: Duration,
        after_gap: bool,
        sessions: &mut Table,
        out: &mut Outputs,
    ) {
        self.broken |= after_gap;
        let train = match self.video.push(data, timestamp) {
            Ok(Some(train)) => train,
            Ok(None) => return,
            Err(e) => return self.complain(now, &e, out),
        };
        if train.keyframe {
            self.broken = false;
            self.governor.on_keyframe();
        } else if self.broken {
            return self.want_keyframe(now, out);
        }
        for session in sessions.iter_mut().filter(|s| s.stream() == self.id) {
            session.queue(&train);
        }
    }

    /// A viewer starts or has lost a picture: the encoder is asked, but not more often than it is
    /// good for the others.
    pub fn want_keyframe(&mut self, now: Now, out: &mut Outputs) {
        if self.governor.on_wanted(now.instant) {
            out.event(Event::KeyframeRequest { stream: self.id });
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
            out.event(Event::KeyframeRequest { stream: self.id });
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.governor.poll_timeout()
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
