//! Access units in, packets out, access units again.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod media_support;

use media_support::*;
use sdk_core::media::{FrameError, Train, VideoConfig, VideoStream};
use std::time::Duration;

fn stream() -> VideoStream {
    VideoStream::new(VideoConfig::new(2_000_000, 1200))
}

fn payloads<'a>(stream: &'a VideoStream, train: &Train) -> Vec<&'a [u8]> {
    (train.first_packet..train.first_packet + u64::from(train.packets))
        .map(|index| stream.packet(index).unwrap().payload)
        .collect()
}

fn nals(stream: &VideoStream, train: &Train) -> Vec<Vec<u8>> {
    depacketize(payloads(stream, train))
}

fn push(stream: &mut VideoStream, access_unit: &[u8]) -> Train {
    stream.push(access_unit, Duration::ZERO).unwrap().expect("a picture")
}

#[test]
fn units_of_every_length_come_out_as_they_went_in() {
    let mut stream = stream();
    for len in 1..5000 {
        let unit = nal(0x41, len, len as u8);
        let train = push(&mut stream, &annex_b(&[&unit]));
        assert_eq!(nals(&stream, &train), [unit], "length {len}");
    }
}

#[test]
fn any_mix_of_units_comes_out_in_order_and_no_payload_is_too_long() {
    let mut random = Random(42);
    for max_payload in [64, 100, 500, 1146] {
        let config = VideoConfig { max_payload, ..VideoConfig::new(2_000_000, 1200) };
        let mut stream = VideoStream::new(config);
        for _ in 0..500 {
            let count = 1 + random.below(12);
            let units: Vec<Vec<u8>> = (0..count)
                .map(|_| {
                    let longest = [5, 60, 700, 4000][random.below(4)];
                    let len = 1 + random.below(longest);
                    nal(0x41, len, random.next() as u8)
                })
                .collect();
            let train = push(&mut stream, &annex_b(&units));
            assert_eq!(nals(&stream, &train), units);
            let payloads = payloads(&stream, &train);
            assert!(payloads.iter().all(|payload| payload.len() <= max_payload));
            assert_eq!(payloads.iter().map(|p| p.len()).sum::<usize>(), train.bytes as usize);
            for index in 0..train.packets {
                let packet = stream.packet(train.first_packet + u64::from(index)).unwrap();
                assert_eq!(packet.marker, index + 1 == train.packets);
            }
        }
    }
}

#[test]
fn a_pictures_fragments_have_one_size_but_the_last() {
    let mut stream = stream();
    for len in [1147, 1148, 2289, 5000, 100_000] {
        let train = push(&mut stream, &delta(len, 1));
        let sizes: Vec<_> = payloads(&stream, &train).iter().map(|p| p.len()).collect();
        let (last, others) = sizes.split_last().unwrap();
        assert!(others.iter().all(|size| *size == others[0]) && *last <= others[0], "{sizes:?}");
        assert_eq!(sizes.len(), (len - 1).div_ceil(1144));
    }
}

#[test]
fn delimiters_filler_and_sei_are_dropped_and_sei_is_kept_on_demand() {
    let sei = nal(0x06, 20, 1);
    let slice = nal(0x41, 50, 2);
    let unit = annex_b(&[&[0x09, 0xf0][..], &sei, &slice, &nal(0x0c, 300, 0), &[0x0b]]);
    let mut stream = stream();
    let train = push(&mut stream, &unit);
    assert_eq!(nals(&stream, &train), [&slice[..]]);
    let config = VideoConfig { keep_sei: true, ..stream.config().clone() };
    let mut stream = VideoStream::new(config);
    let train = push(&mut stream, &unit);
    assert_eq!(nals(&stream, &train), [&sei[..], &slice]);
}

#[test]
fn parameter_sets_go_before_each_idr_picture_whether_repeated_or_not() {
    let mut stream = stream();
    let slice = nal(0x65, 3000, 5);
    let expected = [&SPS[..], &PPS, &slice];

    // By themselves, as some encoders hand them over.
    assert_eq!(stream.push(&annex_b(&[SPS]), Duration::ZERO), Ok(None));
    assert_eq!(stream.sps(), Some(&SPS[..]));
    let idr = annex_b(&[&slice]);
    assert_eq!(stream.push(&idr, Duration::ZERO), Err(FrameError::NoParameterSets));
    assert_eq!(stream.push(&annex_b(&[PPS]), Duration::ZERO), Ok(None));

    let train = push(&mut stream, &idr);
    assert!(train.keyframe);
    assert_eq!(nals(&stream, &train), expected);
    assert_eq!(payloads(&stream, &train)[0][0] & 0x1f, 24, "together in a STAP-A");

    // In the wrong order and twice.
    let train = push(&mut stream, &annex_b(&[&PPS[..], &SPS, &SPS, &slice]));
    assert_eq!(nals(&stream, &train), expected);

    // Another resolution: the newest are used from then on.
    let mut new_sps = SPS;
    new_sps[6] ^= 2;
    let train = push(&mut stream, &annex_b(&[&new_sps[..], &PPS, &slice]));
    assert_eq!(nals(&stream, &train)[0], new_sps);
    let train = push(&mut stream, &idr);
    assert_eq!(nals(&stream, &train)[0], new_sps);

    let train = push(&mut stream, &delta(100, 1));
    assert!(!train.keyframe);
    assert_eq!(nals(&stream, &train).len(), 1, "no parameter sets before other pictures");
}

#[test]
fn timestamps_are_ticks_of_the_encoders_clock() {
    let mut stream = stream();
    let mut at = |timestamp| stream.push(&delta(10, 0), timestamp).unwrap().unwrap().timestamp;
    assert_eq!(at(Duration::ZERO), 0);
    assert_eq!(at(Duration::from_millis(40)), 3600);
    assert_eq!(at(Duration::from_nanos(33_366_667)), 3003);
    assert_eq!(at(Duration::from_secs(50_000)), (50_000_u64 * 90_000) as u32);
    at(Duration::MAX);
}

#[test]
fn bad_frames_are_refused_and_leave_the_stream_as_it_was() {
    let config = VideoConfig { history_bytes: 64 << 10, ..VideoConfig::new(2_000_000, 1200) };
    let mut stream = VideoStream::new(config);
    let good = nal(0x65, 3000, 1);
    let first = push(&mut stream, &annex_b(&[&SPS[..], &PPS, &good]));

    for junk in [&[][..], &[0, 0, 1], &[0, 0, 0, 9, 0x65, 1, 2, 3], &[0xff; 100]] {
        assert_eq!(stream.push(junk, Duration::ZERO), Err(FrameError::NoNalUnit));
    }
    let many = annex_b(&vec![[0x41, 1]; 1000]);
    assert_eq!(stream.push(&many, Duration::ZERO), Err(FrameError::TooManyNalUnits));
    let large = stream.push(&delta(64 << 10, 1), Duration::ZERO);
    assert!(matches!(large, Err(FrameError::TooLarge { limit, .. }) if limit < 64 << 10));
    assert!(large.unwrap_err().to_string().contains("bitrate"));

    assert!(stream.holds(&first));
    assert_eq!(nals(&stream, &first)[2], good);
    let next = push(&mut stream, &delta(3000, 2));
    assert_eq!(next.first_packet, first.first_packet + u64::from(first.packets));
}

#[test]
fn the_history_is_bounded_and_holds_whole_frames_up_to_its_limit() {
    let config = VideoConfig {
        history_bytes: 100_000,
        history_packets: 200,
        ..VideoConfig::new(2_000_000, 1200)
    };
    let mut stream = VideoStream::new(config);
    let mut random = Random(9);
    let mut trains: Vec<(Train, Vec<u8>)> = Vec::new();
    for round in 0..2000 {
        let unit = nal(0x41, 1 + random.below(98_000), round as u8);
        match stream.push(&annex_b(&[&unit]), Duration::ZERO) {
            Ok(Some(train)) => trains.push((train, unit)),
            Ok(None) => panic!("a picture was taken for none"),
            Err(error) => assert!(unit.len() > 97_000, "{error}: {}", unit.len()),
        }
        let (newest, unit) = trains.last().unwrap();
        assert_eq!(nals(&stream, newest), [&unit[..]], "the newest frame is always whole");
        let held: Vec<_> = trains.iter().filter(|(train, _)| stream.holds(train)).collect();
        assert!(held.iter().map(|(train, _)| train.bytes).sum::<u32>() <= 100_000);
        assert!(held.iter().map(|(train, _)| train.packets).sum::<u32>() <= 200);
        for (train, unit) in held {
            assert_eq!(nals(&stream, train), [&unit[..]]);
        }
        trains.drain(..trains.len().saturating_sub(300));
    }
}

#[test]
fn the_group_of_pictures_is_kept_while_it_is_whole_and_small_enough() {
    let config = VideoConfig { gop_bytes: 50_000, ..VideoConfig::new(2_000_000, 1200) };
    let mut stream = VideoStream::new(config.clone());
    push(&mut stream, &delta(100, 0));
    assert_eq!(stream.gop_trains().len(), 0, "no keyframe yet");
    let mut expected = vec![push(&mut stream, &idr(5000))];
    for seed in 0..10 {
        expected.push(push(&mut stream, &delta(1000, seed)));
        assert_eq!(stream.gop_trains().collect::<Vec<_>>(), expected);
    }
    push(&mut stream, &delta(40_000, 0));
    assert_eq!(stream.gop_trains().len(), 0, "too large");
    let expected = push(&mut stream, &idr(5000));
    assert_eq!(stream.gop_trains().collect::<Vec<_>>(), [expected]);

    let mut off = VideoStream::new(VideoConfig { gop_bytes: 0, ..config.clone() });
    push(&mut off, &idr(100));
    assert_eq!(off.gop_trains().len(), 0);

    let mut few = VideoStream::new(VideoConfig { history_trains: 4, ..config.clone() });
    push(&mut few, &idr(100));
    (0..3).for_each(|seed| _ = push(&mut few, &delta(10, seed)));
    assert_eq!(few.gop_trains().len(), 4);
    push(&mut few, &delta(10, 9));
    assert_eq!(few.gop_trains().len(), 0, "the keyframe is not known any more");

    let mut small = VideoStream::new(VideoConfig { history_bytes: 20_000, ..config });
    push(&mut small, &idr(10_000));
    push(&mut small, &delta(5000, 1));
    assert_eq!(small.gop_trains().len(), 2);
    push(&mut small, &delta(10_000, 1));
    assert_eq!(small.gop_trains().len(), 0, "the keyframe is not held any more");
}
