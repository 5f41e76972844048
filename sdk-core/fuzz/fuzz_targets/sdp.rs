//! A viewer's offer, from its text to our answer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sdk_core::wire::audio::AudioCodec;
use sdk_core::wire::h265::ProfileTierLevel;
use sdk_core::wire::sdp::{
    Answer, AudioFormat, Description, Fingerprint, ProfileLevelId, StreamFormat,
};

fuzz_target!(|text: &str| {
    let Ok(offer) = Description::parse(text) else { return };
    let baseline = ProfileLevelId::new([0x42, 0xc0, 0x1f]);
    let main = ProfileTierLevel {
        profile_id: 1,
        compatible: 0x6000_0000,
        high_tier: false,
        level_id: 120,
    };
    answer(&offer, StreamFormat::H264(Some(baseline)));
    answer(&offer, StreamFormat::H265(Some(main)));
});

fn answer(offer: &Description<'_>, stream: StreamFormat) {
    let Ok(choice) = offer.choose_video(stream) else { return };
    // The same offer again has all that the first one had, whatever stream is sent by now.
    let again = offer.choose_video_again(&choice).expect("nothing is missing");
    assert_eq!((again.payload_type, again.extensions), (choice.payload_type, choice.extensions));
    let format = AudioFormat { codec: AudioCodec::Opus, sends: true, receives: true };
    let audio = offer.choose_audio(&choice, format);
    let data = offer.choose_data(&choice);
    let answer = Answer {
        offer,
        choice: &choice,
        audio: audio.as_ref(),
        data: data.as_ref(),
        session_number: 1,
        version: 1,
        ice_ufrag: "abcd",
        ice_pwd: "0123456789012345678901",
        fingerprint: Fingerprint::of(b"certificate"),
        ssrc: 1,
        rtx_ssrc: 2,
        audio_ssrc: 3,
        cname: "c",
        stream_id: "s",
        track_id: "t",
        candidates: &[],
        end_of_candidates: false,
    }
    .write();
    // What we write, we can read, and it has the offer's sections (RFC 3264 6).
    let read = Description::parse(&answer).expect("our own answer");
    assert_eq!(read.media.len(), offer.media.len());
}
