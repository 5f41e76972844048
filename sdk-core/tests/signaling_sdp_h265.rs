//! H.265 in offers of browsers: which payload type is taken, what the answer says, what is refused.

#![allow(clippy::unwrap_used, reason = "a test")]

use sdk_core::wire::h265::ProfileTierLevel;
use sdk_core::wire::sdp::{
    Answer, Description, Fingerprint, H265Format, SdpError, StreamFormat, VideoChoice, VideoFormat,
};

const CHROMIUM: &str = include_str!("../../testdata/sdp/chromium_h265_video.sdp");
const SAFARI: &str = include_str!("../../testdata/sdp/safari_video.sdp");
const WITHOUT: &str = include_str!("../../testdata/sdp/chromium_video.sdp");

/// Main, level 4: 1080p.
const MAIN: ProfileTierLevel =
    ProfileTierLevel { profile_id: 1, compatible: 0x6000_0000, high_tier: false, level_id: 120 };
const MAIN_10: ProfileTierLevel =
    ProfileTierLevel { profile_id: 2, compatible: 0x2000_0000, ..MAIN };

fn try_choose(text: &str, stream: Option<ProfileTierLevel>) -> Result<VideoChoice, SdpError> {
    Description::parse(text).unwrap().choose_video(StreamFormat::H265(stream))
}

fn choose(text: &str, stream: Option<ProfileTierLevel>) -> VideoChoice {
    try_choose(text, stream).unwrap()
}

fn refusal(text: &str, stream: Option<ProfileTierLevel>) -> String {
    let error = try_choose(text, stream).unwrap_err();
    assert_eq!(error.code.number(), 406);
    error.message
}

fn answer(text: &str, choice: &VideoChoice) -> String {
    Answer {
        offer: &Description::parse(text).unwrap(),
        choice,
        audio: None,
        data: None,
        session_number: 1,
        version: 1,
        ice_ufrag: "camU",
        ice_pwd: "0123456789012345678901",
        fingerprint: Fingerprint::of(b"certificate"),
        ssrc: 1111,
        rtx_ssrc: 2222,
        audio_ssrc: 3333,
        cname: "camera",
        stream_id: "main",
        track_id: "video",
        candidates: &[],
        end_of_candidates: false,
    }
    .write()
}

#[test]
fn the_answer_repeats_chromiums_parameters_for_the_streams_profile() {
    for (stream, pt, profile) in [(None, 50, 1), (Some(MAIN), 50, 1), (Some(MAIN_10), 52, 2)] {
        let choice = choose(CHROMIUM, stream);
        assert_eq!((choice.payload_type, choice.rtx_payload_type), (pt, Some(pt + 1)));
        let written = answer(CHROMIUM, &choice);
        let fmtp =
            format!("a=fmtp:{pt} level-id=180;profile-id={profile};tier-flag=0;tx-mode=SRST\r\n");
        for part in [
            format!("m=video 9 UDP/TLS/RTP/SAVPF {pt} {}\r\n", pt + 1),
            format!("a=rtpmap:{pt} H265/90000\r\n"),
            format!("a=rtcp-fb:{pt} nack pli\r\n"),
            format!("a=fmtp:{} apt={pt}\r\n", pt + 1),
            fmtp.clone(),
        ] {
            assert!(written.contains(&part), "{part} in {written}");
        }
        assert!(CHROMIUM.contains(&fmtp));
        assert!(!written.contains("H264") && !written.contains("packetization-mode"));
    }
}

#[test]
fn safaris_level_does_not_keep_a_larger_picture_away() {
    let choice = choose(SAFARI, Some(MAIN));
    assert_eq!((choice.payload_type, choice.rtx_payload_type), (106, Some(107)));
    let expected = H265Format { level_id: Some(93), tx_mode: true, ..H265Format::default() };
    assert_eq!(choice.format, VideoFormat::H265(expected));
    assert!(answer(SAFARI, &choice).contains("a=fmtp:106 level-id=93;tx-mode=SRST\r\n"));
}

#[test]
fn of_several_levels_and_tiers_the_one_that_covers_the_stream_is_taken() {
    let offer = |first: &str, second: &str| {
        CHROMIUM
            .replace("level-id=180;profile-id=1;tier-flag=0", first)
            .replace("level-id=180;profile-id=2;tier-flag=0", second)
    };
    let low_and_high = offer("level-id=93;profile-id=1", "level-id=120;profile-id=1");
    assert_eq!(choose(&low_and_high, Some(MAIN)).payload_type, 52);
    let small = ProfileTierLevel { level_id: 60, ..MAIN };
    assert_eq!(choose(&low_and_high, Some(small)).payload_type, 50);
    let tiers = offer("level-id=120;tier-flag=0", "level-id=120;tier-flag=1");
    let high_tier = ProfileTierLevel { high_tier: true, ..MAIN };
    assert_eq!(choose(&tiers, Some(high_tier)).payload_type, 52);
    assert_eq!(choose(&tiers, Some(MAIN)).payload_type, 50);
    // Main 10 contains Main.
    let main_10_only = offer("profile-id=4", "profile-id=2");
    assert_eq!(choose(&main_10_only, Some(MAIN)).payload_type, 52);
}

#[test]
fn an_offer_without_parameters_is_answered_without() {
    let bare = SAFARI.replace("a=fmtp:106", "a=x-fmtp:106");
    let choice = choose(&bare, Some(MAIN));
    assert_eq!(choice.payload_type, 106);
    let written = answer(&bare, &choice);
    assert!(written.contains("a=rtpmap:106 H265/90000\r\n") && !written.contains("a=fmtp:106"));
}

#[test]
fn a_viewer_without_the_codec_is_told_what_would_help() {
    for stream in [None, Some(MAIN)] {
        let text = refusal(WITHOUT, stream);
        assert!(text.contains("H.265, which the viewer does not offer"), "{text}");
        assert!(text.contains("`sub`") && text.contains("H.264"), "{text}");
    }
}

#[test]
fn a_viewer_with_another_profile_or_mode_is_told_so() {
    let other = "H.265 of another profile or transmission mode";
    let main_only = CHROMIUM.replace("profile-id=2", "profile-id=1");
    assert!(refusal(&main_only, Some(MAIN_10)).contains(other));
    assert!(refusal(SAFARI, Some(MAIN_10)).contains(other), "left out, Main is meant");
    for broken in ["tx-mode=MRST", "tx-mode=SRST;profile-space=1"] {
        let text = CHROMIUM.replace("tx-mode=SRST", broken);
        assert!(refusal(&text, Some(MAIN)).contains(other), "{broken}");
    }
    for wrong in ["profile-id=32", "profile-id=256", "profile-id=", "tier-flag=x", "tier-flag=2"] {
        let text = SAFARI.replace("level-id=93", &format!("level-id=93;{wrong}"));
        assert!(refusal(&text, Some(MAIN)).contains(other), "{wrong}");
    }
}

#[test]
fn damaged_offers_never_panic() {
    let mut state = 7u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as usize % below
    };
    let mut chosen = 0;
    for text in [CHROMIUM, SAFARI] {
        for _ in 0..3000 {
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                bytes[at] = b" \r\n=:/;0129azAZ\x7f-"[random(17)];
            }
            let damaged = std::str::from_utf8(&bytes).unwrap();
            let Ok(sdp) = Description::parse(damaged) else { continue };
            if let Ok(choice) = sdp.choose_video(StreamFormat::H265(Some(MAIN))) {
                chosen += 1;
                Description::parse(&answer(damaged, &choice)).expect("the own answer can be read");
            }
        }
    }
    assert!(chosen > 1000, "most are still understood: {chosen}");
}
