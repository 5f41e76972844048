//! What one viewer says: its packets on their way to the loudspeaker, and the reports about them.

use super::jitter::{Arrival, JitterBuffer, Piece};
use super::reception::Reception;
use crate::stats::TalkbackStats;
use crate::wire::audio::AudioCodec;
use crate::wire::rtcp::{self, ReportBlock};
use crate::wire::rtp;
use std::time::Instant;

/// From when the viewer may talk. It costs nothing before it does.
#[derive(Debug)]
pub struct Talkback {
    codec: AudioCodec,
    payload_type: u8,
    source: Option<Box<Source>>,
    /// Of sources that are gone.
    counted: TalkbackStats,
}

/// A viewer has one microphone; if it takes another one, that takes the place of the first.
#[derive(Debug)]
struct Source {
    reception: Reception,
    jitter: JitterBuffer,
    packets: u64,
    /// Something came since the last report.
    heard: bool,
}

impl Talkback {
    pub fn new(codec: AudioCodec, payload_type: u8) -> Talkback {
        Talkback { codec, payload_type, source: None, counted: TalkbackStats::default() }
    }

    pub fn codec(&self) -> AudioCodec {
        self.codec
    }

    /// Takes an RTP packet that was opened. False if it is none of this section's.
    pub fn handle_rtp(&mut self, now: Instant, packet: &rtp::Packet<'_>) -> bool {
        if packet.payload_type != self.payload_type {
            return false;
        }
        let arrival = Arrival {
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            payload: packet.payload,
        };
        match &mut self.source {
            Some(source) if source.reception.ssrc() == packet.ssrc => {
                source.reception.on_packet(now, packet.sequence, packet.timestamp);
                source.take(now, &arrival);
            }
            _ => {
                self.counted = self.stats();
                let rate = self.codec.clock_rate();
                let mut source = Source {
                    reception: Reception::new(
                        now,
                        packet.ssrc,
                        rate,
                        packet.sequence,
                        packet.timestamp,
                    ),
                    jitter: JitterBuffer::new(now, self.codec, &arrival),
                    packets: 0,
                    heard: false,
                };
                source.take(now, &arrival);
                self.source = Some(Box::new(source));
            }
        }
        true
    }

    /// Takes a compound RTCP packet that was opened.
    pub fn handle_rtcp(&mut self, now: Instant, compound: &[u8]) {
        let Some(source) = &mut self.source else { return };
        for packet in rtcp::packets(compound) {
            if let rtcp::Packet::SenderReport { ssrc, info, .. } = packet
                && ssrc == source.reception.ssrc()
            {
                source.reception.on_sender_report(now, info.ntp);
            }
        }
    }

    /// What to tell the viewer about its packets; nothing as long as none comes.
    pub fn report(&mut self, now: Instant) -> Option<ReportBlock> {
        let source = self.source.as_mut().filter(|source| source.heard)?;
        source.heard = false;
        Some(source.reception.report(now))
    }

    /// What is to be heard by now, one piece a call; a packet's bytes are written over `payload`.
    pub fn poll(&mut self, now: Instant, payload: &mut Vec<u8>) -> Option<Piece> {
        self.source.as_mut()?.jitter.poll(now, payload)
    }

    /// When [`Self::poll`] has something next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.source.as_ref()?.jitter.poll_timeout()
    }

    pub fn stats(&self) -> TalkbackStats {
        let Some(source) = &self.source else { return self.counted };
        let jitter = source.jitter.stats();
        TalkbackStats {
            packets: self.counted.packets + source.packets,
            lost: self.counted.lost + jitter.lost,
            late: self.counted.late + jitter.late,
            delay: source.jitter.delay(),
            jitter: source.reception.jitter(),
        }
    }

    /// Heap memory, by capacity.
    pub fn held_bytes(&self) -> usize {
        self.source.as_ref().map_or(0, |source| size_of::<Source>() + source.jitter.held_bytes())
    }
}

impl Source {
    fn take(&mut self, now: Instant, arrival: &Arrival<'_>) {
        self.packets += 1;
        self.heard = true;
        self.jitter.push(now, arrival);
    }
}
