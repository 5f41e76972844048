//! Sound both ways, between the C camera and an independent viewer, and with a browser.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]

use hil_tests::browser::Listen;
use hil_tests::lab::{CameraSetup, Lab, PATIENCE, clip_path};
use hil_tests::peer::SoundOptions;
use hil_tests::sound::{HeardPacket, SoundCodec};
use hil_tests::viewer::{Options, Viewer};
use std::path::PathBuf;
use std::time::Duration;

mod common;
use common::{join, play};

const PACKET: Duration = Duration::from_millis(20);

fn camera(codec: SoundCodec, talkback: Option<PathBuf>) -> CameraSetup {
    CameraSetup {
        clip: clip_path("baseline-180p30.h264"),
        sound: Some(codec.clip()),
        talkback,
        stats_every: Some(0.5),
        ..CameraSetup::default()
    }
}

fn listening(codec: SoundCodec) -> Options {
    Options { sound: Some(SoundOptions { codec, talks: false }), ..Options::default() }
}

fn talking(codec: SoundCodec) -> Options {
    Options { sound: Some(SoundOptions { codec, talks: true }), ..Options::default() }
}

async fn hear(viewer: &Viewer, packets: usize) {
    let what = format!("{packets} packets of sound");
    viewer.until(&what, PATIENCE, |state| state.heard.packets.len() >= packets).await.unwrap();
}

/// Every packet of the microphone, as it is, in order, with its time; and the pictures beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_hears_what_the_camera_plays() {
    for codec in SoundCodec::ALL {
        let lab = Lab::start(camera(codec, None)).await.unwrap();
        let viewer = join(&lab, listening(codec)).await;
        // More than the clip has: it goes on where it begins.
        hear(&viewer, 270).await;
        let lost = viewer.look(|state| state.heard.expect_clip(codec)).unwrap();
        viewer.look(|state| assert!(state.heard.packets[0].marker, "it follows on silence"));
        println!("{codec:?}: {lost} packets lost");
        assert!(lost <= 5, "{codec:?}: {lost} lost of 270");
        play(&lab, &viewer, 100).await;
        viewer.leave().await;
        lab.finish().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_goes_through_a_relay_and_to_many() {
    let codec = SoundCodec::Opus;
    let lab = Lab::start(camera(codec, None)).await.unwrap();
    let mut viewers = Vec::new();
    for relay_only in [true, false, false] {
        viewers.push(join(&lab, Options { relay_only, ..listening(codec) }).await);
    }
    // And one who asks for none.
    let silent = join(&lab, Options::default()).await;
    for viewer in &viewers {
        hear(viewer, 100).await;
        let lost = viewer.look(|state| state.heard.expect_clip(codec)).unwrap();
        assert!(lost <= 5, "{lost} lost");
    }
    assert_eq!(viewers[0].selected().await.unwrap().local, "relay");
    play(&lab, &silent, 60).await;
    silent.look(|state| assert!(state.heard.packets.is_empty()));
    for viewer in viewers {
        viewer.leave().await;
    }
    silent.leave().await;
    lab.finish().unwrap();
}

/// A viewer that cannot decode the camera's sound sees the picture, and the camera's log says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_without_the_codec_sees_the_picture() {
    let mut lab = Lab::start(camera(SoundCodec::Opus, None)).await.unwrap();
    let viewer = join(&lab, listening(SoundCodec::Pcmu)).await;
    play(&lab, &viewer, 60).await;
    viewer.look(|state| assert!(state.heard.packets.is_empty()));
    let id = viewer.session.session_id.clone();
    let says = |line: &str| {
        (line.contains(&id) && line.contains("no sound: the viewer does not offer")).then_some(())
    };
    lab.camera().line("why there is no sound", PATIENCE, says).await.unwrap();
    viewer.leave().await;
    lab.finish().unwrap();
}

/// What a viewer says comes out of the loudspeaker, which here is a file: each packet in its place, and
/// what was lost as silence, or as an empty packet for the decoder to conceal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_viewer_says_comes_out_of_the_loudspeaker() {
    for (codec, relay_only) in
        [(SoundCodec::Opus, false), (SoundCodec::Pcma, false), (SoundCodec::Pcmu, true)]
    {
        let file = format!("heard.{}", codec.ending());
        let mut lab = Lab::start(camera(codec, Some(file.clone().into()))).await.unwrap();
        let viewer = join(&lab, Options { relay_only, ..talking(codec) }).await;
        hear(&viewer, 10).await;
        let words = codec.clip_packets().unwrap();
        let mut tick = tokio::time::interval(PACKET);
        for (n, word) in words.iter().enumerate().take(200) {
            tick.tick().await;
            let ticks = n as u32 * codec.clock_rate() / 50;
            let packet = HeardPacket {
                payload_type: codec.payload_type(),
                // Both wrap on the way.
                sequence: 65_500_u16.wrapping_add(n as u16),
                timestamp: (u32::MAX - 20_000).wrapping_add(ticks),
                marker: n == 0,
                payload: word.clone(),
            };
            viewer.talk_packet(packet).await.unwrap();
        }
        let id = viewer.session.session_id.clone();
        let counted = |line: &str| {
            let (_, rest) = line.split_once(&format!("stats viewer {id}: "))?;
            let number = |name: &str| -> Option<u64> {
                let words = rest.split_whitespace();
                words
                    .filter_map(|word| word.split_once('='))
                    .find(|(n, _)| *n == name)?
                    .1
                    .parse()
                    .ok()
            };
            let (heard, lost) = (number("talkback")?, number("talkback_lost")?);
            (heard + lost >= 200).then_some((heard, lost, number("talkback_delay_us")?))
        };
        let (heard, lost, delay_us) =
            lab.camera().line("the viewer's words", PATIENCE, counted).await.unwrap();
        println!("{codec:?}: {heard} heard, {lost} lost, delay {delay_us} us");
        assert!(lost <= 4, "{lost} lost of 200");
        assert!(delay_us <= 300_000, "{delay_us} us on loopback");
        // The last ones may still wait in the jitter buffer.
        tokio::time::sleep(Duration::from_millis(600)).await;
        let written = codec.packets(&std::fs::read(lab.folder().join(&file)).unwrap());
        assert_eq!(written.len(), 200, "{codec:?}: each has its place");
        let same = written.iter().zip(&words).filter(|(written, said)| written == said).count();
        assert!(same as u64 >= 200 - lost, "{codec:?}: {same} of 200 are as they were said");
        viewer.leave().await;
        lab.finish().unwrap();
    }
}

/// Chromium hears the camera in time with its pictures, begins to talk in the same session, and what it
/// says is decodable sound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_listens_and_talks() {
    for codec in [SoundCodec::Opus, SoundCodec::Pcmu] {
        let file = format!("heard.{}", codec.ending());
        let lab = Lab::start(camera(codec, Some(file.clone().into()))).await.unwrap();
        let report = Listen::new(lab.viewer_url()).run().await.unwrap();
        println!("{codec:?}: {report}");
        let number = |name: &str| report[name].as_f64().unwrap_or_else(|| panic!("no {name}"));
        assert!(number("packetsReceived") > 150.0);
        assert!(number("totalAudioEnergy") > 0.0, "it hears something");
        // A machine that is busier than it can be plays with holes, and no sender can help it.
        assert!(number("concealedShare") < 0.5, "and most of it is what was sent");
        assert!(number("framesDecoded") > 50.0);
        // Chromium plays them together by the sender reports, and takes its time to get there. What it
        // says of itself: how much further the picture is than the sound.
        assert!(number("skewMs").abs() < 120.0, "sound and picture belong together");
        assert_eq!(
            report["mimeType"].as_str().unwrap().to_lowercase(),
            match codec {
                SoundCodec::Opus => "audio/opus",
                _ => "audio/pcmu",
            }
        );
        assert!(number("packetsSent") > 100.0);
        assert!(number("reportedRoundTrips") >= 1.0, "the camera reports on what it hears");

        let written = codec.packets(&std::fs::read(lab.folder().join(&file)).unwrap());
        let heard = written.iter().filter(|packet| !packet.is_empty()).count();
        assert!(heard > 100, "{codec:?}: {heard} packets came out of the loudspeaker");
        if codec == SoundCodec::Pcmu {
            // Chromium's own microphone beeps; silence is 0xff or 0x7f throughout.
            let loud = written.concat().iter().filter(|byte| **byte & 0x7f < 0x60).count();
            assert!(loud > 1000, "{loud} loud samples");
        }
        lab.finish().unwrap();
    }
}
