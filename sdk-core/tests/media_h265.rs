//! H.265 access units in, packets out, access units again (RFC 7798).
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod media_support;

use media_support::*;
use sdk_core::media::{FrameError, Train, VideoConfig, VideoStream};
use sdk_core::wire::annexb::nal_units;
use sdk_core::wire::codec::Codec;
use sdk_core::wire::h265::{NalHeader, NalKind, ProfileTierLevel};
use std::time::Duration;

fn config() -> VideoConfig {
    VideoConfig { codec: Codec::H265, ..VideoConfig::new(2_000_000, 1200) }
}

fn payloads<'a>(stream: &'a VideoStream, train: &Train) -> Vec<&'a [u8]> {
    (train.first_packet..train.first_packet + u64::from(train.packets))
        .map(|index| stream.packet(index).unwrap().payload)
        .collect()
}

fn nals(stream: &VideoStream, train: &Train) -> Vec<Vec<u8>> {
    depacketize_h265(payloads(stream, train))
}

fn push<N: AsRef<[u8]>>(stream: &mut VideoStream, units: &[N]) -> Train {
    stream.push(&annex_b(units), Duration::ZERO).unwrap().expect("a picture")
}

#[test]
fn units_of_every_length_come_out_as_they_went_in() {
    let mut stream = VideoStream::new(config());
    for len in 2..5000 {
        let unit = h265_nal(1, len, len as u8);
        let train = push(&mut stream, std::slice::from_ref(&unit));
        assert_eq!(nals(&stream, &train), [unit], "length {len}");
    }
}

#[test]
fn any_mix_of_units_comes_out_in_order_and_no_payload_is_too_long() {
    let mut random = Random(42);
    for max_payload in [64, 100, 500, 1146] {
        let mut stream = VideoStream::new(VideoConfig { max_payload, ..config() });
        for _ in 0..500 {
            let units: Vec<Vec<u8>> = (0..1 + random.below(12))
                .map(|_| {
                    let longest = [5, 60, 700, 4000][random.below(4)];
                    let len = 2 + random.below(longest);
                    let mut unit = h265_nal(random.below(10) as u8, len, random.next() as u8);
                    unit[1] = 1 + random.below(7) as u8;
                    unit
                })
                .collect();
            let train = push(&mut stream, &units);
            assert_eq!(nals(&stream, &train), units);
            let payloads = payloads(&stream, &train);
            assert!(payloads.iter().all(|payload| payload.len() <= max_payload));
            assert_eq!(payloads.iter().map(|p| p.len()).sum::<usize>(), train.bytes as usize);
        }
    }
}

#[test]
fn all_that_a_viewer_cannot_use_is_dropped_and_sei_is_kept_on_demand() {
    let slice = h265_nal(1, 50, 2);
    let (before, after) = (h265_nal(39, 20, 1), h265_nal(40, 20, 1));
    let mut other_layer = h265_nal(1, 30, 1);
    other_layer[1] = 0x09;
    let unit = [
        vec![0x46, 1, 0x50],
        before.clone(),
        slice.clone(),
        other_layer,
        after.clone(),
        h265_nal(38, 300, 0),
        h265_nal(48, 9, 0),
        h265_nal(50, 9, 0),
        vec![0x4a],
        vec![0x48, 1],
    ];
    let mut stream = VideoStream::new(config());
    let train = push(&mut stream, &unit);
    assert_eq!(nals(&stream, &train), [&slice[..]]);
    let mut stream = VideoStream::new(VideoConfig { keep_sei: true, ..config() });
    let train = push(&mut stream, &unit);
    assert_eq!(nals(&stream, &train), [before, slice, after]);
}

#[test]
fn parameter_sets_go_before_each_picture_that_a_viewer_may_start_with() {
    let mut stream = VideoStream::new(config());
    let slice = h265_nal(20, 3000, 5);
    let alone = annex_b(&[&slice]);
    for (set, complete) in [(&H265_SPS[..], false), (&H265_PPS, false), (&H265_VPS, true)] {
        assert_eq!(stream.push(&annex_b(&[set]), Duration::ZERO), Ok(None));
        let pushed = stream.push(&alone, Duration::ZERO);
        assert_eq!(pushed == Err(FrameError::NoParameterSets), !complete);
    }
    let expected = [&H265_VPS[..], &H265_SPS, &H265_PPS];
    // BLA, IDR, CRA, with sets in the wrong order, twice, or not at all.
    for unit_type in 16..=21 {
        let slice = h265_nal(unit_type, 3000, 5);
        let expected = [&expected[..], &[&slice]].concat();
        let train = push(&mut stream, &[&slice]);
        assert!(train.keyframe);
        assert_eq!(nals(&stream, &train), expected);
        let header = NalHeader::of(payloads(&stream, &train)[0]).unwrap();
        assert_eq!(header.kind(), NalKind::Other(48), "together in an aggregation packet");
        let train = push(&mut stream, &[&H265_PPS[..], &H265_VPS, &H265_SPS, &H265_SPS, &slice]);
        assert_eq!(nals(&stream, &train), expected);
    }
    assert_eq!(stream.gop_trains().len(), 1, "the last one");
    for unit_type in (0..16).chain(22..32) {
        let train = push(&mut stream, &[h265_nal(unit_type, 100, 1)]);
        assert!(!train.keyframe);
        assert_eq!(nals(&stream, &train).len(), 1, "no parameter sets before other pictures");
    }
    let sps = stream.sps().unwrap();
    assert_eq!(ProfileTierLevel::from_sps(sps).unwrap().level_id, 60);
}

#[test]
fn the_clips_come_out_as_they_went_in() {
    let clips: [(&[u8], _); 2] = [
        (include_bytes!("../../testdata/h265/main-180p30.h265"), 2),
        (include_bytes!("../../testdata/h265/cra-180p30.h265"), 2),
    ];
    for (clip, keyframes) in clips {
        let mut stream = VideoStream::new(config());
        let (mut sets, mut pictures): (Vec<&[u8]>, Vec<Vec<&[u8]>>) = (Vec::new(), Vec::new());
        for nal in nal_units(clip) {
            match nal[0] >> 1 {
                32..=34 if !sets.contains(&nal) => sets.push(nal),
                // first_slice_segment_in_pic_flag
                0..=31 if nal[2] & 0x80 != 0 => pictures.push(vec![nal]),
                0..=31 => pictures.last_mut().unwrap().push(nal),
                _ => {}
            }
        }
        assert_eq!(stream.push(&annex_b(&sets), Duration::ZERO), Ok(None));
        let mut keys = 0;
        for picture in &pictures {
            let train = push(&mut stream, picture);
            keys += u32::from(train.keyframe);
            let sets = if train.keyframe { &sets[..] } else { &[] };
            assert_eq!(nals(&stream, &train), [sets, picture].concat());
        }
        assert_eq!((pictures.len(), keys), (60, keyframes));
    }
}
