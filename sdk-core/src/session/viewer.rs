//! A viewer's share of a stream: from its first keyframe on, every train that is pushed.

use super::adapt::Capacity;
use super::audio::MediaTimes;
use super::outputs::Outputs;
use super::sound::Sound;
use crate::event::StreamId;
use crate::media::{
    AudioPacket, Companions, DropReason, PacedStream, PacketizationMode, Rtx, SendBuffer, Sources,
    SrtpKeys, Train, TrainId, VideoStream, ViewerConfig, ViewerStats, ViewerStream, media_ticks,
};
use crate::peer::Route;
use crate::random::Random;
use crate::time::{Now, earlier};
use crate::wire::audio::AudioCodec;
use crate::wire::rtcp::is_rtcp;
use crate::wire::rtp::ExtensionIds;
use crate::wire::sdp::{VideoChoice, VideoFormat};
use std::time::Instant;

pub(super) struct Viewer {
    config: ViewerConfig,
    /// What the way is taken to carry at first, in bits per second.
    start_rate: u32,
    /// There from the handshake on.
    paced: Option<PacedStream>,
    sound: Sound,
}

/// What the viewer asked for, beyond what was done at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) keyframe: bool,
}

impl Viewer {
    /// `bitrate` is the stream's, in bits per second.
    pub(super) fn new(choice: &VideoChoice, bitrate: u32, random: &mut Random) -> Viewer {
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
            sound: Sound::new([ssrc, rtx_ssrc], random),
            config,
            // The stream's rate is not in doubt at first.
            start_rate: with_overhead(bitrate),
            paced: None,
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

    pub(super) fn sound(&self) -> &Sound {
        &self.sound
    }

    pub(super) fn sound_mut(&mut self) -> &mut Sound {
        &mut self.sound
    }

    pub(super) fn stats(&self) -> Option<&ViewerStats> {
        self.stream().map(ViewerStream::stats)
    }

    /// What the encoder should make for this viewer alone, in bits per second, if that is known.
    pub(super) fn target(&self) -> Option<u32> {
        self.stream()?.bandwidth().target()
    }

    /// What the network takes, if that is known.
    pub(super) fn capacity(&self, now: Instant) -> Option<Capacity> {
        self.stream()?
            .bandwidth()
            .capacity(now)
            .map(|(estimate, promised)| Capacity { estimate, promised })
    }

    /// The viewer is to get that many bits per second from now on.
    pub(super) fn expect_rate(&mut self, now: Instant, bitrate: u32) {
        if let Some(paced) = &mut self.paced {
            paced.stream_mut().expect_rate(now, with_overhead(bitrate));
        }
    }

    fn stream(&self) -> Option<&ViewerStream> {
        self.paced.as_ref().map(PacedStream::stream)
    }

    /// Heap memory, by capacity.
    pub(super) fn held_bytes(&self) -> usize {
        self.paced.as_ref().map_or(0, PacedStream::held_bytes) + self.sound.held_bytes()
    }

    pub(super) fn on_keys(&mut self, now: Instant, keys: &SrtpKeys) {
        self.paced = Some(PacedStream::new(now, self.config.clone(), keys, self.start_rate));
    }

    /// Begins with the pictures since the last keyframe. False if they are too many, so that a new
    /// keyframe is needed.
    pub(super) fn start(&mut self, video: &VideoStream, offered_at: u64) -> bool {
        self.paced.as_mut().is_some_and(|paced| paced.start(video, offered_at))
    }

    /// A train for this viewer.
    pub(super) fn queue(&mut self, train: &Train) {
        if let Some(paced) = &mut self.paced {
            paced.queue(train);
        }
    }

    /// Seals a packet of the microphone at once; it goes out with the next [`Viewer::seal`].
    pub(super) fn send_audio(
        &mut self,
        now: Now,
        codec: AudioCodec,
        packet: &AudioPacket<'_>,
        route: Route,
    ) {
        let Some(paced) = &mut self.paced else { return };
        let srtp = paced.stream().sender();
        let Some((bytes, is_first)) = self.sound.send(codec, packet, srtp, route.channel) else {
            return;
        };
        paced.on_other_sent(now.instant, bytes);
        if is_first {
            paced.stream_mut().hurry_report(now.instant);
        }
    }

    /// Seals what may go out now into `out`. Says why if a frame had to be left out instead.
    pub(super) fn seal(
        &mut self,
        now: Now,
        sources: &dyn Sources,
        route: Route,
        out: &mut SendBuffer,
    ) -> Option<DropReason> {
        if self.sound.take_ready(out) {
            return None;
        }
        self.paced.as_mut()?.seal(now.instant, sources, route.channel, out).err()
    }

    /// The train that [`Viewer::seal`] has just sealed the last packets of, once.
    pub(super) fn take_finished(&mut self) -> Option<TrainId> {
        self.paced.as_mut()?.take_finished()
    }

    /// Takes RTP or RTCP from the viewer. What it lost goes out with the next [`Viewer::seal`].
    pub(super) fn handle_media(
        &mut self,
        now: Now,
        data: &mut [u8],
        sources: &dyn Sources,
        route: Option<Route>,
    ) -> Wish {
        let (Some(paced), Some(route)) = (&mut self.paced, route) else {
            return Wish::default();
        };
        if !is_rtcp(data) {
            let stream = paced.stream_mut();
            if self.sound.may_talk()
                && let Ok(plain) = stream.receiver().open_rtp(data)
                && self.sound.handle_rtp(now.instant, plain)
            {
                stream.on_heard(now.instant);
            }
            return Wish::default();
        }
        match paced.handle_rtcp(now.instant, data, sources, route.channel) {
            Ok(facts) => {
                self.sound.handle_rtcp(now.instant, data.get(..facts.len).unwrap_or_default());
                Wish { keyframe: paced.take_keyframe_wish(now.instant) || facts.keyframe_wanted }
            }
            // Forged or replayed: nothing was said.
            Err(_) => Wish::default(),
        }
    }

    /// When something is to be sealed: a report, or the next part of a large frame.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let paced = self.paced.as_ref()?;
        earlier(paced.stream().poll_timeout(), paced.next_release())
    }

    /// Reports on all sources, if they are due. `times` is what their clocks show, with that of the
    /// stream whose pictures were sent last. Answers the report's length.
    pub(super) fn report(
        &mut self,
        now: Now,
        times: impl FnOnce(Option<StreamId>) -> MediaTimes,
        route: Route,
        out: &mut Outputs,
    ) -> Option<usize> {
        let stream = self.paced.as_mut()?.stream_mut();
        stream.poll_timeout().filter(|due| *due <= now.instant)?;
        let (times, ntp) = (times(stream.source()), now.ntp());
        let companions = Companions {
            media_time: times.video.map(media_ticks),
            ..self.sound.report(now.instant, ntp, times.audio)
        };
        out.send_written(route, |buffer| {
            stream.write_reports(now.instant, ntp, &companions, route.channel, buffer)
        })
    }

    /// Sends RTCP BYE (RFC 3550 §6.6).
    pub(super) fn goodbye(&mut self, route: Route, out: &mut Outputs) {
        if let Some(paced) = &mut self.paced {
            let (stream, sound) = (paced.stream_mut(), self.sound.sending_ssrc());
            out.send_written(route, |buffer| stream.write_goodbye(sound, route.channel, buffer));
        }
    }
}

/// With room for headers and resends.
fn with_overhead(bitrate: u32) -> u32 {
    bitrate.saturating_add(bitrate / 4)
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
