use super::*;

/// A sender report with one block and a CNAME, laid out by hand after RFC 3550 6.4.1 and 6.5.
const COMPOUND: [u8; 68] = [
    0x81, 200, 0, 12, // SR, one block
    0x11, 0x22, 0x33, 0x44, // SSRC
    0xe0, 0x00, 0x00, 0x01, 0x80, 0x00, 0x00, 0x00, // NTP
    0x00, 0x01, 0x5f, 0x90, // RTP timestamp
    0x00, 0x00, 0x00, 0x0a, // packets
    0x00, 0x00, 0x27, 0x10, // octets
    0xaa, 0xbb, 0xcc, 0xdd, // block: SSRC
    0x40, 0xff, 0xff, 0xfe, // a quarter lost; -2 in all
    0x00, 0x01, 0x00, 0x05, // highest sequence
    0x00, 0x00, 0x00, 0x09, // jitter
    0x00, 0x01, 0x80, 0x00, // LSR
    0x00, 0x00, 0x80, 0x00, // DLSR: half a second
    0x81, 202, 0, 3, // SDES, one chunk
    0x11, 0x22, 0x33, 0x44, 1, 4, b'a', b'b', b'c', b'd', 0, 0,
];

#[test]
fn a_compound_of_sr_and_sdes_is_read() {
    let mut packets = packets(&COMPOUND);
    let Some(Packet::SenderReport { ssrc, info, mut reports }) = packets.next() else { panic!() };
    assert_eq!(ssrc, 0x1122_3344);
    let expected = SenderInfo {
        ntp: 0xe000_0001_8000_0000,
        rtp_timestamp: 90_000,
        packets: 10,
        octets: 10_000,
    };
    assert_eq!(info, expected);
    let block = reports.next().unwrap();
    assert_eq!((block.ssrc, block.fraction_lost, block.cumulative_lost), (0xaabb_ccdd, 64, -2));
    assert_eq!((block.highest_sequence, block.jitter), (0x1_0005, 9));
    assert_eq!(
        (block.last_sender_report, block.delay_since_last_sender_report),
        (0x1_8000, 0x8000)
    );
    assert_eq!(reports.next(), None);
    assert_eq!(packets.next(), Some(Packet::SourceDescription));
    assert_eq!(packets.next(), None);
}

#[test]
fn what_is_written_has_the_rfcs_shape() {
    let info = SenderInfo {
        ntp: 0xe000_0001_8000_0000,
        rtp_timestamp: 90_000,
        packets: 10,
        octets: 10_000,
    };
    let mut out = Vec::new();
    write_sender_report(&mut out, 0x1122_3344, &info);
    assert_eq!(out[..4], [0x80, 200, 0, 6]);
    assert_eq!(out[4..], COMPOUND[4..28]);
    out.clear();
    write_cname(&mut out, 0x1122_3344, "abcd");
    assert_eq!(out, COMPOUND[52..]);
    for length in 0..300 {
        out.clear();
        write_cname(&mut out, 1, &"x".repeat(length));
        assert_eq!(out.len() % 4, 0);
        assert_eq!(out.len(), 4 * (usize::from(out[3]) + 1), "length {length}");
        assert_eq!(out.last(), Some(&0), "the chunk ends with a zero");
    }
    out.clear();
    write_empty_receiver_report(&mut out, 5);
    write_goodbye(&mut out, 5);
    let read: Vec<_> = packets(&out).collect();
    assert!(matches!(read[0], Packet::ReceiverReport { ssrc: 5, .. }));
    let Packet::Goodbye(sources) = &read[1] else { panic!("{read:?}") };
    assert_eq!(sources.clone().collect::<Vec<_>>(), [5]);
}

#[test]
fn a_block_that_is_written_is_read_again() {
    let block = ReportBlock {
        ssrc: 0xaabb_ccdd,
        fraction_lost: 64,
        cumulative_lost: -2,
        highest_sequence: 0x1_0005,
        jitter: 9,
        last_sender_report: 0x1_8000,
        delay_since_last_sender_report: 0x8000,
    };
    let mut out = Vec::new();
    write_receiver_report(&mut out, 0x1122_3344, &block);
    assert_eq!(out[8..], COMPOUND[28..52]);
    let Some(Packet::ReceiverReport { ssrc, reports }) = packets(&out).next() else { panic!() };
    assert_eq!((ssrc, reports.collect::<Vec<_>>()), (0x1122_3344, vec![block]));
    // 24 bits with a sign, and no more.
    for (lost, written) in [(i32::MAX, 0x7f_ffff), (i32::MIN, -0x80_0000)] {
        out.clear();
        write_receiver_report(&mut out, 1, &ReportBlock { cumulative_lost: lost, ..block });
        let Some(Packet::ReceiverReport { mut reports, .. }) = packets(&out).next() else {
            panic!()
        };
        assert_eq!(reports.next().unwrap().cumulative_lost, written);
    }
}

#[test]
fn a_nack_names_its_packet_and_those_in_its_mask() {
    let nack = [0x81, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xfe, 0x80, 0x05, 0, 9, 0, 0];
    let Some(Packet::Nack { media_ssrc: 2, lost }) = packets(&nack).next() else { panic!() };
    assert_eq!(lost.collect::<Vec<_>>(), [0xfffe, 0xffff, 1, 14, 9]);
}

#[test]
fn pictures_are_asked_for_by_pli_and_fir() {
    let pli = [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
    assert_eq!(packets(&pli).next(), Some(Packet::PictureLoss { media_ssrc: 2 }));
    let fir = [0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 77, 0, 0, 0];
    let Some(Packet::FullIntraRequests(requests)) = packets(&fir).next() else { panic!() };
    assert_eq!(requests.collect::<Vec<_>>(), [(2, 77)]);
}

#[test]
fn remb_is_a_mantissa_and_an_exponent() {
    let mut remb = [
        0x8f, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 1, 0x0b, 0xd0, 0x90, 0, 0,
        0, 2,
    ];
    let Some(Packet::MaxBitrate { bits_per_second, ssrcs }) = packets(&remb).next() else {
        panic!()
    };
    assert_eq!(bits_per_second, 0x3_d090 << 2);
    assert_eq!(ssrcs.collect::<Vec<_>>(), [2]);
    remb[17] = 0xff;
    assert!(matches!(
        packets(&remb).next(),
        Some(Packet::MaxBitrate { bits_per_second: u64::MAX, .. })
    ));
}

#[test]
fn a_compound_ends_where_it_is_cut() {
    for cut in 0..COMPOUND.len() {
        let whole = packets(&COMPOUND[..cut]).count();
        assert_eq!(whole, usize::from(cut >= 52), "cut at {cut}");
    }
    let unknown = [0x80, 210, 0, 0, 0x81, 206, 0, 0, 0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
    let read: Vec<_> = packets(&unknown).collect();
    assert_eq!(read[0], Packet::Other { payload_type: 210, count: 0 });
    assert_eq!(read[1], Packet::Other { payload_type: 206, count: 1 }, "a PLI without its SSRC");
    assert_eq!(read[2], Packet::PictureLoss { media_ssrc: 2 });
}

#[test]
fn padding_is_cut_off() {
    let padded = [0xa1, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4];
    assert_eq!(packets(&padded).next(), Some(Packet::PictureLoss { media_ssrc: 2 }));
    let wrong = [0xa1, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 200];
    assert_eq!(packets(&wrong).next(), None);
}

#[test]
fn rtcp_is_told_from_rtp_by_its_second_byte() {
    assert!(is_rtcp(&COMPOUND));
    assert!(!is_rtcp(&[0x80, 96, 0, 0]), "RTP");
    assert!(!is_rtcp(&[0x80, 96 | 0x80, 0, 0]), "RTP with the marker bit: 224");
    assert!(!is_rtcp(&[0x16, 0xfe, 0xfd]), "DTLS");
    assert!(!is_rtcp(&[0x80]) && !is_rtcp(&[]));
}
