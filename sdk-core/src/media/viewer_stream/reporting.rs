//! What a viewer is told about its stream: sender reports, and goodbye.

use super::{SendBuffer, ViewerStream};
use crate::media::video_stream::media_ticks;
use crate::wire::rtcp;
use std::time::Instant;

impl ViewerStream {
    /// When [`Self::write_report`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.reports.next()
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
        let (Some(due), Some((timestamp, at))) = (self.reports.next(), self.newest) else {
            return false;
        };
        if now < due {
            return false;
        }
        let since = media_ticks(now.saturating_duration_since(at));
        let info = rtcp::SenderInfo {
            ntp,
            rtp_timestamp: timestamp.wrapping_add(since),
            packets: self.stats.packets as u32,
            octets: self.stats.bytes as u32,
        };
        self.reports.on_report(now, ntp);
        let ssrc = self.config.ssrc;
        self.write_rtcp(channel, out, |bytes| rtcp::write_sender_report(bytes, ssrc, &info))
    }

    /// Writes a goodbye for the viewer's tracks. False if it cannot be sealed any more.
    pub fn write_goodbye(&mut self, channel: Option<u16>, out: &mut SendBuffer) -> bool {
        let ssrc = self.config.ssrc;
        let rtx = self.rtx.as_ref().map(|rtx| rtx.ssrc);
        self.write_rtcp_with(
            channel,
            out,
            |bytes| rtcp::write_empty_receiver_report(bytes, ssrc),
            |bytes| {
                rtcp::write_goodbye(bytes, ssrc);
                rtx.into_iter().for_each(|rtx| rtcp::write_goodbye(bytes, rtx));
            },
        )
    }

    fn write_rtcp(
        &mut self,
        channel: Option<u16>,
        out: &mut SendBuffer,
        report: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        self.write_rtcp_with(channel, out, report, |_| ())
    }

    /// A compound packet: a report, the CNAME, and what follows (RFC 3550 6.1).
    fn write_rtcp_with(
        &mut self,
        channel: Option<u16>,
        out: &mut SendBuffer,
        report: impl FnOnce(&mut Vec<u8>),
        rest: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        out.start_group();
        let mark = out.mark();
        let open = out.open(channel);
        let start = open.body_start();
        report(out.bytes_mut());
        rtcp::write_cname(out.bytes_mut(), self.config.ssrc, &self.config.cname);
        rest(out.bytes_mut());
        if self.sender.seal_rtcp(out.bytes_mut(), start).is_err() {
            out.rewind(mark);
            return false;
        }
        out.close(open);
        out.start_group();
        true
    }
}
