//! A viewer's share of the camera's sound: what it hears, and what it says.

use crate::media::jitter::Piece;
use crate::media::srtp::SrtpSender;
use crate::media::{AudioConfig, AudioPacket, AudioSender, Companions, SendBuffer, Talkback};
use crate::random::Random;
use crate::stats::{AudioStats, TalkbackStats};
use crate::wire::audio::AudioCodec;
use crate::wire::rtcp;
use crate::wire::rtp;
use crate::wire::sdp::AudioChoice;
use std::time::Instant;

pub(super) struct Sound {
    /// Random numbers of this session, whether it ever has sound or not.
    ssrc: u32,
    initial_sequence: u16,
    timestamp_offset: u32,
    /// What the first offer with sound agreed on. It is not unlearned: packet indices go on.
    first: Option<AudioChoice>,
    /// The viewer hears the microphone.
    listens: bool,
    sender: Option<AudioSender>,
    /// The viewer may talk.
    talkback: Option<Talkback>,
    /// Of microphones it had before it stopped talking.
    talked: TalkbackStats,
    /// Sealed packets on their way out: not more than what was pushed at one time.
    ready: SendBuffer,
}

/// Most bytes that may wait in [`Sound::ready`]; they leave before the next input comes.
const MAX_READY: usize = 4096;

impl Sound {
    /// `others` are the session's other sources.
    pub(super) fn new(others: [u32; 2], random: &mut Random) -> Sound {
        let mut ssrc = random.u32();
        while others.contains(&ssrc) {
            ssrc = ssrc.wrapping_add(1);
        }
        Sound {
            ssrc,
            initial_sequence: u16::from_be_bytes(random.bytes()),
            timestamp_offset: random.u32(),
            first: None,
            listens: false,
            sender: None,
            talkback: None,
            talked: TalkbackStats::default(),
            ready: SendBuffer::new(),
        }
    }

    pub(super) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// The source of what is sent, if anything was.
    pub(super) fn sending_ssrc(&self) -> Option<u32> {
        self.sender.as_ref().filter(|sender| sender.stats().packets > 0).map(AudioSender::ssrc)
    }

    /// Whether sound can go on under a changed offer: numbers keep their meaning in a session.
    pub(super) fn fits(&self, choice: &AudioChoice) -> bool {
        self.first.as_ref().is_none_or(|first| {
            (first.payload_type, first.codec) == (choice.payload_type, choice.codec)
                && (&first.mid, first.mid_extension) == (&choice.mid, choice.mid_extension)
        })
    }

    /// Takes what the newest offer agreed on, `None` for no sound.
    pub(super) fn agree(&mut self, choice: Option<&AudioChoice>) {
        self.listens = choice.is_some_and(|choice| choice.sends);
        match choice.filter(|choice| choice.receives) {
            Some(choice) => {
                let new = || Talkback::new(choice.codec, choice.payload_type);
                self.talkback.get_or_insert_with(new);
            }
            None => {
                self.talked = self.talkback_stats();
                self.talkback = None;
            }
        }
        if let Some(choice) = choice {
            self.first.get_or_insert_with(|| choice.clone());
        }
    }

    /// Seals a packet of the microphone; gives how many bytes, and whether it is the first one.
    pub(super) fn send(
        &mut self,
        codec: AudioCodec,
        packet: &AudioPacket<'_>,
        srtp: &SrtpSender,
        channel: Option<u16>,
    ) -> Option<(usize, bool)> {
        let first = self.first.as_ref().filter(|first| self.listens && first.codec == codec)?;
        let sender = self.sender.get_or_insert_with(|| {
            AudioSender::new(AudioConfig {
                ssrc: self.ssrc,
                payload_type: first.payload_type,
                mid: first.mid_extension.map(|id| (id, first.mid.clone())),
                initial_sequence: self.initial_sequence,
                timestamp_offset: self.timestamp_offset,
            })
        });
        let before = self.ready.bytes().len();
        if before >= MAX_READY {
            return None;
        }
        sender.seal(packet, srtp, channel, &mut self.ready).ok()?;
        Some((self.ready.bytes().len() - before, sender.stats().packets == 1))
    }

    /// Moves what is sealed into `out`. False if there is nothing.
    pub(super) fn take_ready(&mut self, out: &mut SendBuffer) -> bool {
        let any = !self.ready.runs().is_empty();
        if any {
            out.take_from(&mut self.ready);
        }
        any
    }

    /// Whether RTP from the viewer is worth opening.
    pub(super) fn may_talk(&self) -> bool {
        self.talkback.is_some()
    }

    /// Takes an RTP packet that was opened; false if it is no sound.
    pub(super) fn handle_rtp(&mut self, now: Instant, plain: &[u8]) -> bool {
        let (Some(talkback), Some(packet)) = (&mut self.talkback, rtp::Packet::parse(plain)) else {
            return false;
        };
        talkback.handle_rtp(now, &packet)
    }

    /// Takes a compound RTCP packet that was opened.
    pub(super) fn handle_rtcp(&mut self, now: Instant, compound: &[u8]) {
        if let Some(talkback) = &mut self.talkback {
            talkback.handle_rtcp(now, compound);
        }
        let Some(sender) = &mut self.sender else { return };
        for packet in rtcp::packets(compound) {
            if let rtcp::Packet::SenderReport { reports, .. }
            | rtcp::Packet::ReceiverReport { reports, .. } = packet
            {
                reports.for_each(|block| sender.on_report_block(&block));
            }
        }
    }

    /// The sound's part of a report; `timestamp` is what the microphone's clock shows now.
    pub(super) fn report(&mut self, now: Instant, ntp: u64, timestamp: Option<u32>) -> Companions {
        let sender = self.sender.as_ref().filter(|_| self.listens);
        let info = |sender: &AudioSender| Some((sender.ssrc(), sender.info(ntp, timestamp?)));
        Companions {
            audio: sender.and_then(info),
            heard: self.talkback.as_mut().and_then(|talkback| talkback.report(now)),
            ..Companions::default()
        }
    }

    /// What the loudspeaker is to play by now, one piece a call.
    pub(super) fn poll_talkback(
        &mut self,
        now: Instant,
        payload: &mut Vec<u8>,
    ) -> Option<(AudioCodec, Piece)> {
        let talkback = self.talkback.as_mut()?;
        let piece = talkback.poll(now, payload)?;
        Some((talkback.codec(), piece))
    }

    /// When [`Self::poll_talkback`] has something next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.talkback.as_ref()?.poll_timeout()
    }

    pub(super) fn stats(&self) -> AudioStats {
        self.sender.as_ref().map_or(AudioStats::default(), |sender| *sender.stats())
    }

    pub(super) fn talkback_stats(&self) -> TalkbackStats {
        let now = self.talkback.as_ref().map(Talkback::stats).unwrap_or_default();
        TalkbackStats {
            packets: self.talked.packets + now.packets,
            lost: self.talked.lost + now.lost,
            late: self.talked.late + now.late,
            ..now
        }
    }

    /// Heap memory, by capacity.
    pub(super) fn held_bytes(&self) -> usize {
        self.ready.held_bytes() + self.talkback.as_ref().map_or(0, Talkback::held_bytes)
    }
}
