//! Offers of real browsers and libraries (`testdata/sdp`) through the parser, the H.264 choice and
//! the answer.

#![allow(clippy::unwrap_used, reason = "a test")]

use sdk_core::wire::audio::AudioCodec;
use sdk_core::wire::sdp::{
    Answer, AudioFormat, Description, Direction, Fingerprint, MediaKind, Payload, ProfileLevelId,
    Setup, StreamFormat, VideoChoice, VideoFormat, ice_ufrag,
};
use sdk_core::wire::signal::ErrorCode;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/sdp")
}

fn offer(name: &str) -> String {
    std::fs::read_to_string(testdata().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn choose(text: &str, stream: &str) -> VideoChoice {
    let stream = StreamFormat::H264(ProfileLevelId::parse(stream));
    Description::parse(text).unwrap().choose_video(stream).unwrap()
}

fn answer(text: &str, choice: &VideoChoice) -> String {
    answer_of(&Description::parse(text).unwrap(), choice).write()
}

fn answer_of<'a>(offer: &'a Description<'a>, choice: &'a VideoChoice) -> Answer<'a> {
    Answer {
        offer,
        choice,
        audio: None,
        data: None,
        session_number: 4_611_686_018_427_387_904,
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
        candidates: CANDIDATES.get_or_init(|| {
            vec!["candidate:1 1 udp 2122260223 192.0.2.1 40000 typ host".to_owned()]
        }),
        end_of_candidates: true,
    }
}

static CANDIDATES: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();

const PLAYABLE: [&str; 10] = [
    "chromium_video.sdp",
    "chromium_video_gathered.sdp",
    "chromium_h265_video.sdp",
    "chromium_video_audio_data.sdp",
    "chromium_max_bundle.sdp",
    "firefox_video.sdp",
    "firefox_max_bundle.sdp",
    "safari_video.sdp",
    "libdatachannel_video.sdp",
    "webrtc_rs_video.sdp",
];

#[test]
fn chromiums_offer_is_read_in_full() {
    let text = offer("chromium_video_audio_data.sdp");
    let sdp = Description::parse(&text).unwrap();
    assert_eq!(sdp.bundle, ["0", "1", "2"]);
    assert!(sdp.extmap_allow_mixed && !sdp.ice_lite);
    let kinds: Vec<_> = sdp.media.iter().map(|m| m.kind).collect();
    assert_eq!(kinds, [MediaKind::Audio, MediaKind::Video, MediaKind::DataChannel]);
    let video = &sdp.media[1];
    assert_eq!((video.port, video.mid, video.setup), (9, "1", Some(Setup::ActPass)));
    assert!(video.rtcp_mux && video.rtcp_rsize && video.ice_options.trickle && video.receives());
    assert_eq!(ice_ufrag(&text), Some(video.ice_ufrag));
    assert_eq!(video.ice_pwd.len(), 24);
    assert_eq!(video.fingerprints.len(), 1);
    assert_eq!(video.payloads.len(), 34);
    let h264 = video.payloads.iter().find(|p| p.payload_type == 108).unwrap();
    assert_eq!((h264.encoding, h264.clock_rate), ("H264", 90_000));
    assert_eq!(h264.parameter("Profile-Level-Id"), Some("42e01f"));
    let fb = h264.feedback;
    assert!(fb.nack && fb.pli && fb.fir && fb.remb && fb.transport_cc);
    assert_eq!(sdp.media[2].sctp_port, Some(5000));
    let audio = &sdp.media[0];
    assert!(audio.msid.is_some());
    let pcmu = audio.payloads.iter().find(|p| p.payload_type == 0).unwrap();
    assert_eq!((pcmu.encoding, pcmu.clock_rate), ("PCMU", 8000));
}

#[test]
fn candidates_in_an_offer_are_kept_as_they_are() {
    let text = offer("chromium_video_gathered.sdp");
    let sdp = Description::parse(&text).unwrap();
    assert_eq!(sdp.media[0].candidates.len(), 2);
    assert!(sdp.media[0].candidates.iter().all(|c| c.starts_with("candidate:")));
    let text = offer("libdatachannel_video.sdp");
    let sdp = Description::parse(&text).unwrap();
    let first = "candidate:1 1 UDP 2122317823 192.0.2.10 53911 typ host";
    assert_eq!(sdp.media[0].candidates[0], first);
    assert!(sdp.media[0].end_of_candidates && sdp.media[0].ice_options.trickle);
}

#[test]
fn every_offer_gets_an_answer_that_keeps_to_the_offers_order_and_words() {
    for name in PLAYABLE {
        let text = offer(name);
        let choice = choose(&text, "64001f");
        let written = answer(&text, &choice);
        let offered = Description::parse(&text).unwrap();
        let answered = Description::parse(&written).unwrap();
        assert!(!written.replace("\r\n", "").contains('\n'), "{name}: CRLF line ends");
        assert_eq!(offered.media.len(), answered.media.len(), "{name}");
        // The bundle's first section stays in it, as inactive if it is not the chosen one.
        let tag = offered.bundle[0];
        let mut bundle = vec![tag, choice.mid.as_str()];
        bundle.dedup();
        assert_eq!(answered.bundle, bundle, "{name}");
        for (i, (o, a)) in offered.media.iter().zip(&answered.media).enumerate() {
            assert_eq!((o.kind, o.proto, o.mid), (a.kind, a.proto, a.mid), "{name} section {i}");
            if i != choice.section && o.mid == tag {
                assert_eq!((a.port, a.direction), (9, Direction::Inactive), "{name}");
                assert_eq!((a.ice_ufrag, a.setup), ("camU", Some(Setup::Passive)), "{name}");
                continue;
            }
            if i != choice.section {
                assert_eq!(a.port, 0, "{name}: section {i} is rejected");
                continue;
            }
            assert_eq!(a.port, 9, "{name}");
            assert_eq!(a.setup, Some(Setup::Passive), "{name}");
            assert!(written.contains("a=sendonly\r\n") && a.rtcp_mux, "{name}");
            assert_eq!(a.rtcp_rsize, o.rtcp_rsize, "{name}");
            assert_eq!((a.ice_ufrag, a.ice_pwd), ("camU", "0123456789012345678901"), "{name}");
            assert!(a.fingerprints[0].matches(b"certificate"), "{name}");
            assert_eq!(a.candidates.len(), 1, "{name}");
            for p in &a.payloads {
                assert_offered(p, &o.payloads, name);
            }
            for e in &a.extmaps {
                assert!(o.extmaps.contains(e), "{name}: {}", e.uri);
            }
        }
    }
}

/// Everything the answer says of a payload type was offered in just this way.
fn assert_offered(answered: &Payload<'_>, offered: &[Payload<'_>], name: &str) {
    let same = offered.iter().find(|p| p.payload_type == answered.payload_type).unwrap();
    assert_eq!(answered.encoding, same.encoding, "{name}");
    for parameter in ["apt", "profile-level-id", "level-asymmetry-allowed"] {
        assert_eq!(answered.parameter(parameter), same.parameter(parameter), "{name}");
    }
    if answered.encoding == "H264" {
        let mode = "packetization-mode";
        let offered_mode = same.parameter(mode).unwrap_or("0");
        assert_eq!(answered.parameter(mode), Some(offered_mode), "{name}");
        assert_eq!(answered.feedback, same.feedback, "{name}");
    }
}

#[test]
fn the_payload_type_is_the_one_browsers_play_best() {
    for (name, stream, payload_type, rtx, profile) in [
        // This Chromium has no High: a High stream is nearest to Main.
        ("chromium_video.sdp", "64001f", 116, Some(117), "4d001f"),
        ("chromium_video.sdp", "4d0029", 116, Some(117), "4d001f"),
        ("chromium_video.sdp", "42c01e", 108, Some(109), "42e01f"),
        ("chromium_video.sdp", "42001e", 102, Some(103), "42001f"),
        ("chromium_video.sdp", "", 108, Some(109), "42e01f"),
        ("firefox_video.sdp", "64001f", 126, Some(127), "42e01f"),
        ("firefox_video.sdp", "4d001f", 126, Some(127), "42e01f"),
        ("safari_video.sdp", "64001f", 96, Some(97), "640c1f"),
        ("safari_video.sdp", "4d001f", 96, Some(97), "640c1f"),
        ("safari_video.sdp", "42e01f", 98, Some(99), "42e01f"),
        ("webrtc_rs_video.sdp", "640028", 123, Some(124), "640032"),
        ("webrtc_rs_video.sdp", "42e01f", 125, Some(105), "42e01f"),
        ("libdatachannel_video.sdp", "640028", 96, None, "42e01f"),
    ] {
        let choice = choose(&offer(name), stream);
        let got = (choice.payload_type, choice.rtx_payload_type);
        assert_eq!(got, (payload_type, rtx), "{name} {stream}");
        let format = VideoFormat::H264 {
            packetization_mode: 1,
            profile_level_id: ProfileLevelId::parse(profile),
            level_asymmetry_allowed: true,
        };
        assert_eq!(choice.format, format, "{name} {stream}");
    }
}

fn mode_and_profile(choice: &VideoChoice) -> (u8, Option<ProfileLevelId>) {
    match choice.format {
        VideoFormat::H264 { packetization_mode, profile_level_id, .. } => {
            (packetization_mode, profile_level_id)
        }
        VideoFormat::H265(_) => panic!("H.265 was chosen for an H.264 stream"),
    }
}

#[test]
fn packetization_mode_0_is_taken_where_nothing_else_is_offered() {
    let text = offer("safari_video.sdp").replace("packetization-mode=1", "packetization-mode=0");
    let choice = choose(&text, "42e01f");
    assert_eq!((choice.payload_type, mode_and_profile(&choice).0), (98, 0));
    let bare = offer("libdatachannel_video.sdp").replace("a=fmtp:96", "a=x-fmtp:96");
    let choice = choose(&bare, "42e01f");
    assert_eq!(mode_and_profile(&choice), (0, None));
    let written = answer(&bare, &choice);
    assert!(written.contains("a=fmtp:96 packetization-mode=0\r\n"), "{written}");
}

#[test]
fn what_is_agreed_on_besides_the_codec() {
    let choice = choose(&offer("firefox_video.sdp"), "42e01f");
    let e = choice.extensions;
    assert_eq!((e.mid, e.transport_cc, e.abs_send_time), (Some(3), Some(7), Some(4)));
    assert!(choice.feedback.nack && choice.feedback.transport_cc && choice.rtcp_rsize);
    let choice = choose(&offer("libdatachannel_video.sdp"), "42e01f");
    assert_eq!(choice.extensions, Default::default());
    assert!(choice.feedback.pli && !choice.feedback.fir && !choice.feedback.transport_cc);
    assert_eq!((choice.ice_ufrag.as_str(), choice.fingerprints.len()), ("kaQj", 1));
}

#[test]
fn a_bundle_only_section_has_the_transport_of_the_bundle() {
    let choice = choose(&offer("firefox_max_bundle.sdp"), "42e01f");
    assert_eq!((choice.section, choice.mid.as_str()), (1, "1"));
    assert_eq!(choice.ice_ufrag, "4f1c2b9e");
    assert_eq!(choice.fingerprints.len(), 1);
}

#[test]
fn retransmissions_are_answered_only_where_the_camera_wants_them() {
    let text = offer("chromium_video.sdp");
    let mut choice = choose(&text, "42e01f");
    let written = answer(&text, &choice);
    assert!(written.contains("m=video 9 UDP/TLS/RTP/SAVPF 108 109\r\n"));
    assert!(written.contains("a=ssrc-group:FID 1111 2222\r\n"));
    assert!(written.contains("a=rtpmap:109 rtx/90000\r\na=fmtp:109 apt=108\r\n"));
    choice.rtx_payload_type = None;
    let written = answer(&text, &choice);
    assert!(written.contains("m=video 9 UDP/TLS/RTP/SAVPF 108\r\n"));
    assert!(!written.contains("2222") && !written.contains("rtx"));
}

#[test]
fn sections_that_are_not_accepted_are_rejected_in_place() {
    let rejected_audio =
        "m=audio 0 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=inactive\r\n";
    let rejected_data =
        "m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:2\r\n";
    let text = offer("chromium_video_audio_data.sdp");
    // Audio first in the bundle: Chromium wants it kept.
    let written = answer(&text, &choose(&text, "42e01f"));
    for part in [
        "a=group:BUNDLE 0 1\r\n",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
        "a=rtpmap:111 opus/48000/2\r\n",
        rejected_data,
    ] {
        assert!(written.contains(part), "{written}");
    }
    // Not first.
    let text = text.replace("BUNDLE 0 1 2", "BUNDLE 1 0 2");
    let written = answer(&text, &choose(&text, "42e01f"));
    for part in ["a=group:BUNDLE 1\r\n", rejected_audio, rejected_data] {
        assert!(written.contains(part), "{written}");
    }
    // No bundle at all.
    let text = text.replace("a=group:BUNDLE", "a=x-group:BUNDLE");
    let written = answer(&text, &choose(&text, "42e01f"));
    assert!(written.contains(rejected_audio) && !written.contains("BUNDLE"), "{written}");
}

#[test]
fn an_offer_without_video_is_not_acceptable() {
    let text = offer("chromium_audio_only.sdp");
    let err =
        Description::parse(&text).unwrap().choose_video(StreamFormat::H264(None)).unwrap_err();
    assert_eq!(err.code.number(), 406);
}

#[derive(serde::Deserialize)]
struct Expected {
    code: u16,
    says: String,
}

#[test]
fn broken_offers_are_refused_with_a_code_and_a_reason() {
    let dir = testdata().join("malformed");
    let index = std::fs::read(dir.join("index.json")).unwrap();
    let index: BTreeMap<String, Expected> = serde_json::from_slice(&index).unwrap();
    let files = std::fs::read_dir(&dir).unwrap().count() - 1;
    assert_eq!(files, index.len(), "each file is listed");
    for (name, expected) in index {
        let text = std::fs::read_to_string(dir.join(&name)).unwrap();
        let err = Description::parse(&text)
            .and_then(|sdp| sdp.choose_video(StreamFormat::H264(None)))
            .expect_err(&format!("{name} is refused"));
        assert_eq!(err.code.number(), expected.code, "{name}: {err}");
        assert!(err.message.contains(&expected.says), "{name}: {err}");
    }
}

#[test]
fn everything_is_bounded() {
    let head = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";
    let media = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n";
    let repeat = |line: &str, n: usize| format!("{head}{media}{}", line.repeat(n));
    let too_much = [
        repeat(media, 32),
        repeat("a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n", 65),
        repeat("a=extmap:1 urn:x\r\n", 33),
        repeat(&format!("a=fingerprint:{}\r\n", Fingerprint::of(b"x")), 9),
        format!("{head}m=video 9 UDP/TLS/RTP/SAVPF{}\r\n", " 96".repeat(129)),
        format!("{head}a=x:{}\r\n", "y".repeat(4096)),
    ];
    for text in &too_much {
        let err = Description::parse(text).unwrap_err();
        assert_eq!(err.code.number(), 400, "{err}");
    }
    let err = Description::parse(&" ".repeat(64 * 1024 + 1)).unwrap_err();
    assert_eq!(err.code.number(), 413);
}

/// Every offer, cut at many lengths and with single bytes changed: whatever comes of it, nothing
/// panics, and what is accepted can be answered.
#[test]
fn damaged_offers_never_panic() {
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(0x14057b7ef767814f);
        (state >> 33) as usize % below
    };
    let try_it = |text: &str| {
        if let Ok(sdp) = Description::parse(text)
            && let Ok(choice) =
                sdp.choose_video(StreamFormat::H264(ProfileLevelId::parse("64001f")))
        {
            let written = answer(text, &choice);
            Description::parse(&written).expect("the own answer can be read");
        }
    };
    for name in PLAYABLE {
        let text = offer(name);
        for end in (0..text.len()).step_by(13) {
            try_it(&text[..end]);
        }
        for _ in 0..500 {
            let mut bytes = text.clone().into_bytes();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                bytes[at] = b" \r\n=:/;0129azAZ\x7f-"[random(17)];
            }
            try_it(std::str::from_utf8(&bytes).unwrap());
        }
    }
}

/// The answer of a camera with a microphone, a loudspeaker and data channels.
fn full_answer(text: &str, audio: AudioFormat) -> String {
    let offer = Description::parse(text).unwrap();
    let choice = choose(text, "42c01f");
    let (audio, data) = (offer.choose_audio(&choice, audio), offer.choose_data(&choice));
    let audio = audio.as_ref();
    let data = data.as_ref();
    Answer { audio, data, ..answer_of(&offer, &choice) }.write()
}

#[test]
fn sound_and_data_are_accepted_in_the_videos_bundle() {
    let text = offer("chromium_video_audio_data.sdp");
    let both = AudioFormat { codec: AudioCodec::Opus, sends: true, receives: true };
    let written = full_answer(&text, both);
    let read = Description::parse(&written).unwrap();
    assert_eq!(read.bundle, ["0", "1", "2"]);
    let [audio, video, data] = &read.media[..] else { panic!("{written}") };
    assert_eq!(
        (audio.kind, audio.port, audio.direction),
        (MediaKind::Audio, 9, Direction::SendRecv)
    );
    assert_eq!(audio.msid, Some("main audio"));
    assert_eq!((audio.payloads.len(), audio.payloads[0].encoding), (1, "opus"));
    assert_eq!((audio.payloads[0].clock_rate, audio.payloads[0].channels), (48_000, 2));
    assert_eq!((video.port, video.direction), (9, Direction::SendOnly));
    assert_eq!((data.kind, data.port), (MediaKind::DataChannel, 9));
    assert_eq!((data.sctp_port, data.max_message_size), (Some(5000), Some(64 * 1024)));
    for section in &read.media {
        assert_eq!((section.ice_ufrag, section.setup), ("camU", Some(Setup::Passive)));
        assert_eq!(section.fingerprints.len(), 1);
    }
    assert!(written.contains("a=ssrc:3333 cname:camera\r\n"));
}

#[test]
fn the_log_says_why_there_is_no_sound() {
    let text = offer("chromium_video_audio_data.sdp");
    let camera = AudioFormat { codec: AudioCodec::Pcma, sends: true, receives: false };
    let why = |text: &str, format| {
        let offer = Description::parse(text).unwrap();
        let choice = offer.choose_video(StreamFormat::H264(None)).unwrap();
        assert_eq!(offer.choose_audio(&choice, format), None);
        offer.why_no_audio(&choice, format)
    };
    assert!(why(&offer("chromium_video.sdp"), camera).contains("asks for none"));
    let without = text.replace("a=rtpmap:8 PCMA/8000\r\n", "").replace(" 0 8 13", " 0 13");
    assert!(why(&without, camera).contains("codec"));
    let apart = text.replace("a=group:BUNDLE 0 1 2", "a=group:BUNDLE 1");
    assert!(why(&apart, camera).contains("BUNDLE"));
    let talking = text.replacen("a=sendrecv", "a=sendonly", 1);
    assert!(why(&talking, camera).contains("direction"));
}

#[test]
fn sound_goes_only_the_ways_that_both_sides_have() {
    let text = offer("chromium_video_audio_data.sdp");
    let listening = text.replacen("a=sendrecv", "a=recvonly", 1);
    let camera = |sends, receives| AudioFormat { codec: AudioCodec::Pcma, sends, receives };
    let direction = |text: &str, format| {
        let written = full_answer(text, format);
        let audio = Description::parse(&written).unwrap().media[0].clone().direction;
        (audio, written.contains("a=ssrc:3333"))
    };
    assert_eq!(direction(&text, camera(true, false)), (Direction::SendOnly, true));
    assert_eq!(direction(&text, camera(false, true)), (Direction::RecvOnly, false));
    assert_eq!(direction(&listening, camera(true, true)), (Direction::SendOnly, true));
    // Nothing in common: the section is there for the bundle only.
    assert_eq!(direction(&listening, camera(false, true)), (Direction::Inactive, false));
}

#[test]
fn sound_or_data_outside_of_the_bundle_has_no_transport_and_is_rejected() {
    let text =
        offer("chromium_video_audio_data.sdp").replace("a=group:BUNDLE 0 1 2", "a=group:BUNDLE 1");
    let both = AudioFormat { codec: AudioCodec::Pcmu, sends: true, receives: true };
    let written = full_answer(&text, both);
    let ports: Vec<u16> =
        Description::parse(&written).unwrap().media.iter().map(|m| m.port).collect();
    assert_eq!(ports, [0, 9, 0]);
}

/// Chromium's offer before it has asked its decoders about Main.
fn chromium_without_main() -> String {
    offer("chromium_video.sdp").replace("profile-level-id=4d001f", "profile-level-id=58001f")
}

#[test]
fn a_further_offer_with_more_in_it_keeps_the_session_as_it_is() {
    let (first, second) = (chromium_without_main(), offer("chromium_video.sdp"));
    let more = second.replace(
        "a=extmap:9 ",
        "a=extmap:12 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=extmap:9 ",
    );
    let without_transport_cc = first.replace("a=extmap:4 ", "a=extmap:4 urn:x-not-");
    for first in [&first, &without_transport_cc] {
        let before = choose(first, "4d401f");
        // A stream of Main would have another payload type, had this been the first offer.
        assert_ne!(before.payload_type, choose(&more, "4d401f").payload_type);
        let after = Description::parse(&more).unwrap().choose_video_again(&before).unwrap();
        assert_eq!(before, after);
        let written = answer(&more, &after);
        assert_eq!(written.matches("a=rtpmap").count(), 2, "the stream and its rtx: {written}");
        assert_eq!(written.contains("transport-wide-cc"), before.extensions.transport_cc.is_some());
    }
}

#[test]
fn a_further_offer_without_what_the_session_uses_is_told_what_is_missing() {
    let text = offer("chromium_video.sdp");
    let before = choose(&text, "42e01f");
    assert_eq!((before.payload_type, before.rtx_payload_type), (108, Some(109)));
    let swaps = [
        ("a=mid:0", "a=mid:7", "section elsewhere"),
        ("a=recvonly", "a=inactive", "does not want to receive"),
        ("a=rtpmap:108 H264", "a=rtpmap:108 VP8", "payload type 108"),
        (
            "packetization-mode=1;profile-level-id=42e01f",
            "packetization-mode=0",
            "payload type 108",
        ),
        ("a=fmtp:109 apt=108", "a=fmtp:109 apt=102", "rtx"),
        ("a=extmap:4 ", "a=extmap:13 ", "extmap"),
        ("a=extmap:9 ", "a=extmap:9 urn:x-not-", "extmap"),
    ];
    for (from, to, words) in swaps {
        let changed = text.replace(from, to);
        assert_ne!(changed, text, "{from}");
        let refusal =
            Description::parse(&changed).unwrap().choose_video_again(&before).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::NotAcceptable, "{from}");
        assert!(refusal.message.contains(words), "{from}: {}", refusal.message);
        assert!(refusal.message.contains("open a new session"), "{}", refusal.message);
    }
}
