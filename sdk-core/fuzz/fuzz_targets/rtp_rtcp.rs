//! RTP headers and RTCP compounds as they come out of SRTP.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sdk_core::wire::rtcp::{self, Packet};
use sdk_core::wire::rtp;

fuzz_target!(|data: &[u8]| {
    if let Some(packet) = rtp::Packet::parse(data) {
        assert!(packet.payload.len() <= data.len());
        for id in 0..=15 {
            let _ = packet.extension(id);
        }
    }
    let _ = rtp::header_len(data);
    let _ = rtcp::is_rtcp(data);
    for packet in rtcp::packets(data) {
        match packet {
            Packet::SenderReport { reports, .. } | Packet::ReceiverReport { reports, .. } => {
                assert!(reports.count() <= 31);
            }
            Packet::Nack { lost, .. } => assert!(lost.count() <= data.len() * 17),
            Packet::FullIntraRequests(requests) => assert!(requests.count() <= data.len()),
            Packet::TransportFeedback(feedback) => assert!(feedback.arrivals().count() <= 65_535),
            _ => {}
        }
    }
});
