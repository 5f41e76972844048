//! No bytes, from an encoder or from the network, may make the media path panic or grow.
//! Seeded: a run that fails fails again.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod media_support;

use media_support::*;
use sdk_core::media::{
    PacketizationMode, SendBuffer, SrtpProfile, VideoConfig, VideoStream, ViewerConfig,
};
use sdk_core::wire::codec::Codec;
use sdk_core::wire::{annexb, h264, h265, rtcp, rtp};
use std::time::Duration;

/// Changes a few bytes, cuts, repeats or doubles a part.
fn mutate(random: &mut Random, data: &mut Vec<u8>) {
    for _ in 0..1 + random.below(4) {
        let len = data.len().max(1);
        let at = random.below(len).min(data.len());
        match random.below(6) {
            0 => data.truncate(at),
            1 => data.insert(at, random.next() as u8),
            2 => data.extend_from_within(at..),
            _ => {
                let byte = [0, 1, 0xff, random.next() as u8][random.below(4)];
                if let Some(place) = data.get_mut(at) {
                    *place = byte;
                }
            }
        }
        data.truncate(4000);
    }
}

/// Reads all that there is in a compound packet.
fn read_rtcp(data: &[u8]) -> usize {
    rtcp::packets(data)
        .map(|packet| match packet {
            rtcp::Packet::SenderReport { reports, .. }
            | rtcp::Packet::ReceiverReport { reports, .. } => reports.count(),
            rtcp::Packet::Goodbye(ssrcs) | rtcp::Packet::MaxBitrate { ssrcs, .. } => ssrcs.count(),
            rtcp::Packet::Nack { lost, .. } => lost.count(),
            rtcp::Packet::FullIntraRequests(requests) => requests.count(),
            rtcp::Packet::TransportFeedback(feedback) => feedback.arrivals().count(),
            _ => 1,
        })
        .sum()
}

fn rtcp_examples() -> Vec<Vec<u8>> {
    let mut report = Vec::new();
    rtcp::write_sender_report(
        &mut report,
        SSRC,
        &rtcp::SenderInfo { ntp: 1, rtp_timestamp: 2, packets: 3, octets: 4 },
    );
    rtcp::write_cname(&mut report, SSRC, "camera");
    rtcp::write_goodbye(&mut report, SSRC);
    let mut receiver_report = vec![0x81, 201, 0, 7, 0, 0, 0, 1];
    receiver_report.extend(SSRC.to_be_bytes());
    receiver_report.extend([1; 20]);
    let with_ssrc = |mut start: Vec<u8>, end: &[u8]| {
        start.extend(SSRC.to_be_bytes());
        start.extend(end);
        start
    };
    vec![
        report,
        receiver_report,
        with_ssrc(vec![0x81, 205, 0, 4, 0, 0, 0, 1], &[3, 0xe8, 0xff, 0xff, 3, 0xf9, 0, 1]),
        with_ssrc(vec![0x81, 206, 0, 2, 0, 0, 0, 1], &[]),
        with_ssrc(vec![0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0], &[1, 0, 0, 0]),
        with_ssrc(
            vec![0x8f, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 1, 11, 0, 9],
            &[],
        ),
        with_ssrc(
            vec![0x8f, 205, 0, 5, 0, 0, 0, 1],
            &[0, 1, 0, 9, 0, 0, 1, 1, 0x20, 2, 0xd5, 0x55, 1, 2, 3, 4],
        ),
    ]
}

#[test]
fn parsers_take_any_bytes() {
    let mut random = Random(1);
    let template = rtp::HeaderTemplate::new(
        SSRC,
        96,
        &rtp::ExtensionIds {
            mid: Some((1, "0".into())),
            abs_send_time: Some(2),
            transport_cc: Some(3),
        },
    );
    let mut rtp_example = template.fill(&rtp::HeaderFields::default())[..template.len()].to_vec();
    rtp_example.extend([1, 2, 3]);
    let mut examples = rtcp_examples();
    examples.push(rtp_example);
    examples.push(idr(100));
    examples.push(vec![0x78, 0, 3, 1, 2, 3, 0, 1, 9]);
    examples.push(vec![0x60, 1, 0, 3, 0x42, 1, 3, 0, 2, 0x44, 1]);
    examples.push(vec![0x62, 1, 0x93, 1, 2, 3]);
    examples.push(H265_SPS.to_vec());
    // Sub-layers with profiles and levels of their own.
    examples.push([&[0x42, 1, 0x0d][..], &H265_SPS[3..16], &[0xff; 80]].concat());
    let mut understood = 0;
    for round in 0..200_000 {
        let mut data = examples[round % examples.len()].clone();
        if random.below(4) == 0 {
            let other = random.below(examples.len());
            data.extend_from_slice(&examples[other]);
        }
        mutate(&mut random, &mut data);
        understood += read_rtcp(&data);
        if let Some(packet) = rtp::Packet::parse(&data) {
            understood += (0..16).filter_map(|id| packet.extension(id)).count();
        }
        understood += annexb::nal_units(&data).count();
        match h264::Payload::parse(&data) {
            Some(h264::Payload::StapA(units)) => understood += units.count(),
            payload => understood += usize::from(payload.is_some()),
        }
        match h265::Payload::parse(&data) {
            Some(h265::Payload::Aggregation(units)) => understood += units.count(),
            payload => understood += usize::from(payload.is_some()),
        }
        understood += usize::from(h265::ProfileTierLevel::from_sps(&data).is_some());
        h265::parameter_set_id(&data);
        h264::ProfileLevelId::from_sps(&data);
        h264::parameter_set_id(&data);
    }
    assert!(understood > 100_000, "most of it is still partly read: {understood}");
}

#[test]
fn a_viewer_takes_any_datagram_and_any_authentic_rtcp() {
    for mode in [PacketizationMode::NonInterleaved, PacketizationMode::SingleNal] {
        for profile in SrtpProfile::ALL {
            let mut random = Random(2);
            let mut now = start_of_time();
            let config = ViewerConfig { packetization_mode: mode, ..viewer_config() };
            let (mut viewer, mut remote) = viewer(now, config, profile);
            let mut stream = VideoStream::new(VideoConfig::new(2_000_000, 1200));
            let mut out = SendBuffer::new();
            let examples = rtcp_examples();
            for round in 0..4000_u32 {
                now += Duration::from_millis(u64::from(round % 40));
                if round % 10 == 0 {
                    let frame = if round % 300 == 0 { idr(3000) } else { delta(2000, 1) };
                    let train = stream.push(&frame, Duration::from_millis(u64::from(round)));
                    viewer.seal_train(now, &stream, &train.unwrap().unwrap(), None, &mut out);
                }
                // Authentic, from a viewer that may be anyone's program.
                let mut compound = examples[round as usize % examples.len()].clone();
                mutate(&mut random, &mut compound);
                compound.resize(compound.len().max(8), 0);
                compound[4..8].copy_from_slice(&1_u32.to_be_bytes());
                let mut datagram = remote.seal(&compound);
                let mut changed = datagram.clone();
                mutate(&mut random, &mut changed);
                if changed != datagram {
                    let heard = viewer.handle_rtcp(now, &mut changed, &stream, None, &mut out);
                    assert!(heard.is_err(), "a changed datagram was believed");
                }
                let _ = viewer.receiver().open_rtp(&mut changed);
                out.clear();
                let _ = viewer.handle_rtcp(now, &mut datagram, &stream, None, &mut out);
                assert!(out.bytes().len() < 1 << 20, "what one datagram can make us send");
                viewer.write_report(now, u64::from(round), None, &mut out);
                out.clear();
            }
            assert!(viewer.stats().resent_packets > 0 && viewer.stats().plis > 0);
        }
    }
}

#[test]
fn a_stream_takes_any_access_unit_and_goes_on() {
    let mut random = Random(3);
    let config = VideoConfig {
        history_bytes: 30_000,
        history_packets: 100,
        max_payload: 200,
        keep_sei: true,
        ..VideoConfig::new(2_000_000, 1200)
    };
    let mut stream = VideoStream::new(config);
    let now = start_of_time();
    let (mut whole, mut remote) = viewer(now, viewer_config(), SrtpProfile::AeadAes128Gcm);
    let single = PacketizationMode::SingleNal;
    let single = ViewerConfig { packetization_mode: single, ..viewer_config() };
    let (mut single, mut single_remote) = viewer(now, single, SrtpProfile::AeadAes128Gcm);
    let mut out = SendBuffer::new();
    for round in 0..20_000 {
        let mut frame = match round % 3 {
            0 => idr(300),
            1 => annex_b(&[&[0x09, 0xf0][..], &nal(0x06, 30, 1), &nal(0x41, 900, 1)]),
            _ => delta(2000, round as u8),
        };
        mutate(&mut random, &mut frame);
        if let Ok(Some(train)) = stream.push(&frame, Duration::from_millis(round)) {
            whole.seal_train(now, &stream, &train, None, &mut out);
            let received = remote.open_all(&mut out);
            single.seal_train(now, &stream, &train, None, &mut out);
            let singles = single_remote.open_all(&mut out);
            let units: Vec<_> = singles.into_iter().map(|packet| packet.payload).collect();
            assert_eq!(nals_of(&received), units, "both modes carry the same");
        }
        let _ = stream.gop_trains().count();
    }
    assert!(whole.stats().frames > 10_000, "{:?}", whole.stats());
}

#[test]
fn an_h265_stream_takes_any_access_unit_and_goes_on() {
    let mut random = Random(4);
    let config = VideoConfig {
        codec: Codec::H265,
        history_bytes: 30_000,
        history_packets: 100,
        max_payload: 200,
        keep_sei: true,
        ..VideoConfig::new(2_000_000, 1200)
    };
    let mut stream = VideoStream::new(config);
    let now = start_of_time();
    let (mut viewer, mut remote) = viewer(now, viewer_config(), SrtpProfile::AeadAes128Gcm);
    let mut out = SendBuffer::new();
    for round in 0..20_000 {
        let mut frame = match round % 3 {
            0 => h265_idr(300),
            1 => annex_b(&[&[0x46, 1, 0x50][..], &h265_nal(39, 30, 1), &h265_nal(1, 900, 1)]),
            _ => annex_b(&[h265_nal(1, 2000, round as u8)]),
        };
        mutate(&mut random, &mut frame);
        if let Ok(Some(train)) = stream.push(&frame, Duration::from_millis(round)) {
            viewer.seal_train(now, &stream, &train, None, &mut out);
            let received = remote.open_all(&mut out);
            let units = depacketize_h265(received.iter().map(|packet| &packet.payload[..]));
            assert!(units.iter().all(|unit| unit.len() >= 2));
        }
        let _ = stream.gop_trains().count();
    }
    assert!(viewer.stats().frames > 10_000, "{:?}", viewer.stats());
}
