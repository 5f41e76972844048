//! A viewer's share of a stream: from its first keyframe on, every train that is pushed.

use crate::media::{
    DropReason, PacketizationMode, Rtx, Sealed, SendBuffer, SrtpKeys, Train, VideoStream,
    ViewerConfig, ViewerStats, ViewerStream,
};
use crate::peer::{Control, Route};
use crate::random::Random;
use crate::time::Now;
use crate::wire::rtcp::is_rtcp;
use crate::wire::rtp::ExtensionIds;
use crate::wire::sdp::{VideoChoice, VideoFormat};
use std::time::Instant;

pub(super) struct Viewer {
    config: ViewerConfig,
    /// There from the handshake on.
    stream: Option<ViewerStream>,
    /// The pictures since the last keyframe shall go out first.
    starting: bool,
    /// Trains not sealed yet: usually one, for the length of one turn of the loop. They pile up
    /// only while the relay's channel is being bound.
    queue: heapless::Deque<Train, MAX_QUEUE>,
    /// Resends and reports, sealed when they were asked for.
    ready: SendBuffer,
}

/// What the viewer asked for, beyond what was done at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) keyframe: bool,
}

/// Two seconds of 30 frames each.
const MAX_QUEUE: usize = 64;

impl Viewer {
    pub(super) fn new(choice: &VideoChoice, random: &mut Random) -> Viewer {
        let ssrc = random.u32() | 1;
        // Even where the stream's is odd, so that they are never the same.
        let rtx_ssrc = random.u32() & !1;
        let config = ViewerConfig {
            ssrc,
            payload_type: choice.payload_type,
            rtx: choice.rtx_payload_type.map(|payload_type| Rtx { ssrc: rtx_ssrc, payload_type }),
            packetization_mode: packetization_mode(choice),
            extensions: extension_ids(choice),
            cname: format!("{:016x}", u64::from_be_bytes(random.bytes())),
            initial_sequence: u16::from_be_bytes(random.bytes()),
            initial_rtx_sequence: u16::from_be_bytes(random.bytes()),
            timestamp_offset: random.u32(),
        };
        Viewer {
            config,
            stream: None,
            starting: false,
            queue: heapless::Deque::new(),
            ready: SendBuffer::new(),
        }
    }

    pub(super) fn ssrc(&self) -> u32 {
        self.config.ssrc
    }

    pub(super) fn rtx_ssrc(&self) -> u32 {
        self.config.rtx.map_or(0, |rtx| rtx.ssrc)
    }

    pub(super) fn cname(&self) -> &str {
        &self.config.cname
    }

    pub(super) fn stats(&self) -> Option<&ViewerStats> {
        self.stream.as_ref().map(ViewerStream::stats)
    }

    pub(super) fn on_keys(&mut self, now: Instant, keys: &SrtpKeys) {
        self.stream = Some(ViewerStream::new(now, self.config.clone(), keys));
    }

    /// Begins with the pictures since the last keyframe. False if they are too many, so that a new
    /// keyframe is needed.
    pub(super) fn start(&mut self, video: &VideoStream) -> bool {
        self.starting = video.gop_trains().len() > 0;
        self.starting
    }

    /// A train for this viewer. If too many wait, all are dropped: half a second of the past is
    /// worth less than the next keyframe.
    pub(super) fn queue(&mut self, train: &Train) {
        // The pictures it starts with are read from the stream's history, this one among them.
        if self.starting {
            return;
        }
        if self.queue.push_back(*train).is_err() {
            self.queue.clear();
            if let Some(stream) = &mut self.stream {
                stream.skip_to_keyframe();
            }
        }
    }

    pub(super) fn has_waiting(&self) -> bool {
        self.starting || !self.queue.is_empty() || !self.ready.runs().is_empty()
    }

    /// Seals all that waits into `out`. True if a keyframe is needed to go on.
    pub(super) fn seal(
        &mut self,
        now: Now,
        video: &VideoStream,
        route: Route,
        out: &mut SendBuffer,
    ) -> Option<DropReason> {
        let stream = self.stream.as_mut()?;
        if !self.ready.runs().is_empty() {
            std::mem::swap(&mut self.ready, out);
            return None;
        }
        if std::mem::take(&mut self.starting) {
            stream.seal_gop(now.instant, video, route.channel, out);
            return None;
        }
        let train = self.queue.pop_front()?;
        match stream.seal_train(now.instant, video, &train, route.channel, out) {
            Sealed::Dropped(reason) => Some(reason),
            Sealed::Sent { .. } | Sealed::AwaitingKeyframe => None,
        }
    }

    /// Takes RTP or RTCP from the viewer. What it lost is sealed again, to go out with the next
    /// [`Viewer::seal`].
    pub(super) fn handle_media(
        &mut self,
        now: Now,
        data: &mut [u8],
        video: &VideoStream,
        route: Option<Route>,
    ) -> Wish {
        let (Some(stream), Some(route)) = (&mut self.stream, route) else {
            return Wish::default();
        };
        if !is_rtcp(data) {
            return Wish::default();
        }
        match stream.handle_rtcp(now.instant, data, video, route.channel, &mut self.ready) {
            Ok(facts) => Wish { keyframe: facts.keyframe_wanted },
            // Forged or replayed: nothing was said.
            Err(_) => Wish::default(),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.stream.as_ref().and_then(ViewerStream::poll_timeout)
    }

    /// A sender report, if one is due.
    pub(super) fn report(&mut self, now: Now, route: Route) -> Option<Control> {
        let stream = self.stream.as_mut()?;
        let mut out = SendBuffer::new();
        stream.write_report(now.instant, now.ntp(), route.channel, &mut out).then_some(())?;
        Some(control(route, &out))
    }

    /// RTCP BYE (RFC 3550 §6.6).
    pub(super) fn goodbye(&mut self, route: Route) -> Option<Control> {
        let stream = self.stream.as_mut()?;
        let mut out = SendBuffer::new();
        stream.write_goodbye(route.channel, &mut out).then_some(())?;
        Some(control(route, &out))
    }

    /// Whether media can go on under a changed offer. What is sealed into packets may not change
    /// in a session: a packet that is sent again would be another one under the same SRTP index.
    pub(super) fn fits(&self, choice: &VideoChoice) -> bool {
        choice.payload_type == self.config.payload_type
            && choice.rtx_payload_type == self.config.rtx.map(|rtx| rtx.payload_type)
            && packetization_mode(choice) == self.config.packetization_mode
            && extension_ids(choice) == self.config.extensions
    }
}

fn packetization_mode(choice: &VideoChoice) -> PacketizationMode {
    match choice.format {
        VideoFormat::H264 { packetization_mode: 0, .. } => PacketizationMode::SingleNal,
        VideoFormat::H264 { .. } | VideoFormat::H265(_) => PacketizationMode::NonInterleaved,
    }
}

fn extension_ids(choice: &VideoChoice) -> ExtensionIds {
    ExtensionIds {
        mid: choice.extensions.mid.map(|id| (id, choice.mid.clone())),
        transport_cc: choice.extensions.transport_cc,
        abs_send_time: choice.extensions.abs_send_time,
    }
}

fn control(route: Route, out: &SendBuffer) -> Control {
    Control { socket: route.socket, destination: route.destination, data: out.bytes().to_vec() }
}
