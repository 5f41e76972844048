//! RTCP: reports and goodbyes (RFC 3550 6), feedback (RFC 4585, RFC 5104, REMB, transport-wide
//! congestion control). Reading is tolerant: what cannot be understood is passed over, and what is
//! cut ends the compound packet there.

pub mod transport_feedback;

pub use transport_feedback::TransportFeedback;

/// Whether a datagram on a port shared with RTP, STUN and DTLS is RTCP (RFC 5761 4, RFC 7983 7).
pub fn is_rtcp(datagram: &[u8]) -> bool {
    matches!(datagram, [first, kind, ..]
        if (128..192).contains(first) && (192..=223).contains(kind))
}

/// The packets of a compound packet, in order.
pub fn packets(compound: &[u8]) -> Packets<'_> {
    Packets { rest: compound }
}

/// See [`packets`].
#[derive(Debug, Clone)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

/// One RTCP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    SenderReport {
        ssrc: u32,
        info: SenderInfo,
        reports: ReportBlocks<'a>,
    },
    ReceiverReport {
        ssrc: u32,
        reports: ReportBlocks<'a>,
    },
    /// Source description; nothing in it is of use here.
    SourceDescription,
    /// These sources are gone.
    Goodbye(Ssrcs<'a>),
    Nack {
        media_ssrc: u32,
        lost: NackedSequences<'a>,
    },
    PictureLoss {
        media_ssrc: u32,
    },
    FullIntraRequests(FullIntraRequests<'a>),
    /// Receiver estimated maximum bitrate (draft-alvestrand-rmcat-remb-03).
    MaxBitrate {
        bits_per_second: u64,
        ssrcs: Ssrcs<'a>,
    },
    TransportFeedback(TransportFeedback<'a>),
    /// Something else, or something malformed.
    Other {
        payload_type: u8,
        count: u8,
    },
}

/// The sender's part of a sender report (RFC 3550 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderInfo {
    /// NTP format: seconds since 1900 in the upper half, their fraction in the lower.
    pub ntp: u64,
    pub rtp_timestamp: u32,
    pub packets: u32,
    /// Payload bytes.
    pub octets: u32,
}

/// What a receiver says about one source (RFC 3550 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportBlock {
    pub ssrc: u32,
    /// Of 256, since the last report.
    pub fraction_lost: u8,
    /// Negative when there were more duplicates than losses.
    pub cumulative_lost: i32,
    pub highest_sequence: u32,
    /// In timestamp units.
    pub jitter: u32,
    /// The middle 32 bits of the last sender report's NTP time; 0 if there was none.
    pub last_sender_report: u32,
    /// In units of 1/65536 s.
    pub delay_since_last_sender_report: u32,
}

impl<'a> Iterator for Packets<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        let &[first, payload_type, w0, w1] = self.rest.first_chunk::<4>()?;
        if first & 0xc0 != 0x80 {
            return None;
        }
        let len = 4 * (usize::from(u16::from_be_bytes([w0, w1])) + 1);
        let (packet, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        let mut body = &packet[4..];
        if first & 0x20 != 0 {
            let padding = usize::from(*body.last()?);
            body = body.get(..body.len().checked_sub(padding)?)?;
        }
        let count = first & 0x1f;
        Some(
            Packet::parse(payload_type, count, body)
                .unwrap_or(Packet::Other { payload_type, count }),
        )
    }
}

impl<'a> Packet<'a> {
    fn parse(payload_type: u8, count: u8, body: &'a [u8]) -> Option<Packet<'a>> {
        match (payload_type, count) {
            (SENDER_REPORT, _) => {
                let (info, blocks) = body.get(4..)?.split_first_chunk::<20>()?;
                let info = SenderInfo {
                    ntp: u64::from(u32_at(info, 0)?) << 32 | u64::from(u32_at(info, 4)?),
                    rtp_timestamp: u32_at(info, 8)?,
                    packets: u32_at(info, 12)?,
                    octets: u32_at(info, 16)?,
                };
                let reports = ReportBlocks::new(blocks, count);
                Some(Packet::SenderReport { ssrc: u32_at(body, 0)?, info, reports })
            }
            (RECEIVER_REPORT, _) => Some(Packet::ReceiverReport {
                ssrc: u32_at(body, 0)?,
                reports: ReportBlocks::new(body.get(4..)?, count),
            }),
            (SOURCE_DESCRIPTION, _) => Some(Packet::SourceDescription),
            (GOODBYE, _) => Some(Packet::Goodbye(Ssrcs {
                // The sources may be followed by a reason.
                rest: body.get(..4 * usize::from(count)).unwrap_or(body),
            })),
            (TRANSPORT_FEEDBACK, FMT_NACK) => Some(Packet::Nack {
                media_ssrc: u32_at(body, 4)?,
                lost: NackedSequences { rest: body.get(8..)?, first: 0, mask: 0 },
            }),
            (TRANSPORT_FEEDBACK, FMT_TRANSPORT_CC) => {
                TransportFeedback::parse(body).map(Packet::TransportFeedback)
            }
            (PAYLOAD_FEEDBACK, FMT_PLI) => {
                Some(Packet::PictureLoss { media_ssrc: u32_at(body, 4)? })
            }
            (PAYLOAD_FEEDBACK, FMT_FIR) => {
                Some(Packet::FullIntraRequests(FullIntraRequests { rest: body.get(8..)? }))
            }
            (PAYLOAD_FEEDBACK, FMT_APPLICATION) => {
                let [b'R', b'E', b'M', b'B', count, e, m0, m1] = *body.get(8..)?.first_chunk()?
                else {
                    return None;
                };
                let mantissa = u64::from(e & 3) << 16 | u64::from(m0) << 8 | u64::from(m1);
                let bits_per_second = mantissa.checked_shl(u32::from(e >> 2)).filter(|rate| {
                    // An exponent that shifts bits out stands for more than anyone sends.
                    rate >> (e >> 2) == mantissa
                });
                let ssrcs = body.get(16..)?;
                Some(Packet::MaxBitrate {
                    bits_per_second: bits_per_second.unwrap_or(u64::MAX),
                    ssrcs: Ssrcs { rest: ssrcs.get(..4 * usize::from(count)).unwrap_or(ssrcs) },
                })
            }
            _ => None,
        }
    }
}

/// The report blocks of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportBlocks<'a> {
    rest: &'a [u8],
}

impl<'a> ReportBlocks<'a> {
    fn new(blocks: &'a [u8], count: u8) -> ReportBlocks<'a> {
        // Behind the blocks there may be profile-specific extensions.
        ReportBlocks { rest: blocks.get(..24 * usize::from(count)).unwrap_or(blocks) }
    }
}

impl Iterator for ReportBlocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let (block, rest) = self.rest.split_first_chunk::<24>()?;
        self.rest = rest;
        let lost = u32_at(block, 4)?;
        Some(ReportBlock {
            ssrc: u32_at(block, 0)?,
            fraction_lost: block[4],
            // 24 bits with a sign.
            cumulative_lost: (lost << 8) as i32 >> 8,
            highest_sequence: u32_at(block, 8)?,
            jitter: u32_at(block, 12)?,
            last_sender_report: u32_at(block, 16)?,
            delay_since_last_sender_report: u32_at(block, 20)?,
        })
    }
}

/// Sequence numbers of a generic NACK (RFC 4585 6.2.1): 17 for each of its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NackedSequences<'a> {
    rest: &'a [u8],
    first: u16,
    mask: u32,
}

impl Iterator for NackedSequences<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        while self.mask == 0 {
            let (&[p0, p1, m0, m1], rest) = self.rest.split_first_chunk::<4>()?;
            self.rest = rest;
            self.first = u16::from_be_bytes([p0, p1]);
            self.mask = u32::from(u16::from_be_bytes([m0, m1])) << 1 | 1;
        }
        let offset = self.mask.trailing_zeros() as u16;
        self.mask &= self.mask - 1;
        Some(self.first.wrapping_add(offset))
    }
}

/// FIR entries (RFC 5104 4.3.1): the source that is meant, and a number that tells a repetition
/// from a new request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullIntraRequests<'a> {
    rest: &'a [u8],
}

impl Iterator for FullIntraRequests<'_> {
    type Item = (u32, u8);

    fn next(&mut self) -> Option<(u32, u8)> {
        let (entry, rest) = self.rest.split_first_chunk::<8>()?;
        self.rest = rest;
        Some((u32_at(entry, 0)?, entry[4]))
    }
}

/// A list of sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssrcs<'a> {
    rest: &'a [u8],
}

impl Iterator for Ssrcs<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (ssrc, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        Some(u32::from_be_bytes(*ssrc))
    }
}

/// Appends a sender report without report blocks.
pub fn write_sender_report(out: &mut Vec<u8>, ssrc: u32, info: &SenderInfo) {
    out.extend_from_slice(&[0x80, SENDER_REPORT, 0, 6]);
    out.extend_from_slice(&ssrc.to_be_bytes());
    out.extend_from_slice(&info.ntp.to_be_bytes());
    out.extend_from_slice(&info.rtp_timestamp.to_be_bytes());
    out.extend_from_slice(&info.packets.to_be_bytes());
    out.extend_from_slice(&info.octets.to_be_bytes());
}

/// Appends a receiver report without report blocks: what a compound packet starts with when there
/// is nothing to report (RFC 3550 6.1).
pub fn write_empty_receiver_report(out: &mut Vec<u8>, ssrc: u32) {
    out.extend_from_slice(&[0x80, RECEIVER_REPORT, 0, 1]);
    out.extend_from_slice(&ssrc.to_be_bytes());
}

/// Appends a receiver report about one source.
pub fn write_receiver_report(out: &mut Vec<u8>, ssrc: u32, block: &ReportBlock) {
    out.extend_from_slice(&[0x81, RECEIVER_REPORT, 0, 7]);
    out.extend_from_slice(&ssrc.to_be_bytes());
    out.extend_from_slice(&block.ssrc.to_be_bytes());
    let lost = block.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
    out.extend_from_slice(&(u32::from(block.fraction_lost) << 24 | lost).to_be_bytes());
    for word in [
        block.highest_sequence,
        block.jitter,
        block.last_sender_report,
        block.delay_since_last_sender_report,
    ] {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

/// Appends a source description with one CNAME, cut to its 255 bytes (RFC 3550 6.5.1).
pub fn write_cname(out: &mut Vec<u8>, ssrc: u32, cname: &str) {
    let cname = &cname.as_bytes()[..cname.len().min(255)];
    // The chunk ends with one to four zeros, up to the next word.
    let chunk = (4 + 2 + cname.len() + 1).next_multiple_of(4);
    out.extend_from_slice(&[0x81, SOURCE_DESCRIPTION, 0, (chunk / 4) as u8]);
    out.extend_from_slice(&ssrc.to_be_bytes());
    out.extend_from_slice(&[SDES_CNAME, cname.len() as u8]);
    out.extend_from_slice(cname);
    out.resize(out.len() + chunk - 6 - cname.len(), 0);
}

/// Appends a goodbye for one source (RFC 3550 6.6).
pub fn write_goodbye(out: &mut Vec<u8>, ssrc: u32) {
    out.extend_from_slice(&[0x81, GOODBYE, 0, 1]);
    out.extend_from_slice(&ssrc.to_be_bytes());
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;
const FMT_NACK: u8 = 1;
const FMT_TRANSPORT_CC: u8 = 15;
const FMT_PLI: u8 = 1;
const FMT_FIR: u8 = 4;
const FMT_APPLICATION: u8 = 15;
const SDES_CNAME: u8 = 1;

#[cfg(test)]
mod tests;
