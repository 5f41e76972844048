//! What a viewer is told about its stream: sender reports, and goodbye.

use super::{SendBuffer, ViewerStream};
use crate::media::video_stream::media_ticks;
use crate::wire::rtcp::{self, ReportBlock, SenderInfo};
use std::time::Instant;

/// What goes into a report beside the stream's own part.
#[derive(Debug, Clone, Copy, Default)]
pub struct Companions {
    /// What the stream's clock shows now, in units of 1/90000 s and before the viewer's offset, where
    /// that is known better than from when the newest picture was sent.
    pub media_time: Option<u32>,
    /// The sound's source, and its part.
    pub audio: Option<(u32, SenderInfo)>,
    /// About the viewer's own source.
    pub heard: Option<ReportBlock>,
}

impl ViewerStream {
    /// When [`Self::write_report`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.reports.next()
    }

    /// Another source of the session begins to send: the next report is due at once.
    pub fn hurry_report(&mut self, now: Instant) {
        self.reports.hurry(now);
    }

    /// A source of the viewer's is heard: reports are due, also if nothing is sent.
    pub fn on_heard(&mut self, now: Instant) {
        self.reports.on_media(now);
    }

    /// Writes a sender report if one is due. `ntp` is the wall clock in NTP's format (seconds since
    /// 1900, 32.32 bits); if it is not set, any clock that goes forward will do.
    pub fn write_report(
        &mut self,
        now: Instant,
        ntp: u64,
        channel: Option<u16>,
        out: &mut SendBuffer,
    ) -> bool {
        self.write_reports(now, ntp, &Companions::default(), channel, out)
    }

    /// Writes a report if one is due: all sources of the session in one packet, of one moment, so that
    /// the viewer can play them in time with each other.
    pub fn write_reports(
        &mut self,
        now: Instant,
        ntp: u64,
        companions: &Companions,
        channel: Option<u16>,
        out: &mut SendBuffer,
    ) -> bool {
        if self.reports.next().is_none_or(|due| now < due) {
            return false;
        }
        let Companions { audio, heard, .. } = companions;
        let video = self.newest.map(|newest| {
            let rtp_timestamp = self.rtp_time(now, newest, companions.media_time);
            let (packets, octets) = (self.stats.packets as u32, self.stats.bytes as u32);
            SenderInfo { ntp, rtp_timestamp, packets, octets }
        });
        if video.is_none() && audio.is_none() && heard.is_none() {
            self.reports.put_off(now);
            return false;
        }
        self.reports.on_report(now, ntp);
        let ssrc = self.config.ssrc;
        let reports = |bytes: &mut Vec<u8>| {
            if let Some(info) = &video {
                rtcp::write_sender_report(bytes, ssrc, info);
            }
            if let Some((ssrc, info)) = audio {
                rtcp::write_sender_report(bytes, *ssrc, info);
            }
            if let Some(block) = heard {
                rtcp::write_receiver_report(bytes, ssrc, block);
            }
        };
        self.write_rtcp(channel, out, reports, |bytes, cname| {
            if let Some((ssrc, _)) = audio {
                rtcp::write_cname(bytes, *ssrc, cname);
            }
        })
    }

    /// The stream's RTP timestamp of `now`.
    fn rtp_time(&self, now: Instant, newest: (u32, Instant), media_time: Option<u32>) -> u32 {
        let (timestamp, sent) = newest;
        match media_time {
            Some(media_time) => media_time.wrapping_add(self.timestamp_offset),
            None => timestamp.wrapping_add(media_ticks(now.saturating_duration_since(sent))),
        }
    }

    /// Writes a goodbye for the viewer's tracks, that of another source among them. False if it cannot
    /// be sealed any more.
    pub fn write_goodbye(
        &mut self,
        other: Option<u32>,
        channel: Option<u16>,
        out: &mut SendBuffer,
    ) -> bool {
        let ssrc = self.config.ssrc;
        let rtx = self.rtx.as_ref().map(|rtx| rtx.ssrc);
        self.write_rtcp(
            channel,
            out,
            |bytes| rtcp::write_empty_receiver_report(bytes, ssrc),
            |bytes, _| {
                let all = [Some(ssrc), rtx, other];
                all.into_iter().flatten().for_each(|ssrc| rtcp::write_goodbye(bytes, ssrc));
            },
        )
    }

    /// A compound packet: a report, the CNAME, and what follows (RFC 3550 6.1).
    fn write_rtcp(
        &mut self,
        channel: Option<u16>,
        out: &mut SendBuffer,
        report: impl FnOnce(&mut Vec<u8>),
        rest: impl FnOnce(&mut Vec<u8>, &str),
    ) -> bool {
        out.start_group();
        let mark = out.mark();
        let open = out.open(channel);
        let start = open.body_start();
        report(out.bytes_mut());
        rtcp::write_cname(out.bytes_mut(), self.config.ssrc, &self.config.cname);
        rest(out.bytes_mut(), &self.config.cname);
        if self.sender.seal_rtcp(out.bytes_mut(), start).is_err() {
            out.rewind(mark);
            return false;
        }
        out.close(open);
        out.start_group();
        true
    }
}
