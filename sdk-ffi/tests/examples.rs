//! The examples compile without a warning, link with nothing but the library and the system, and the
//! camera plays every clip.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "../../sdk-core/tests/signaling_common/mod.rs"]
mod signaling_common;

use signaling_common::Mosquitto;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

#[test]
fn the_example_of_the_readme_links() {
    let dir = common::scratch("minimal");
    let root = common::root();
    let encoder = root.join("sdk-ffi/tests/c/encoder.c");
    let examples = format!("-I{}", root.join("examples/c").display());
    common::build_c(
        &root.join("examples/c/minimal.c"),
        &dir.join("minimal"),
        &[&examples, encoder.to_str().unwrap()],
    );
}

#[test]
fn the_camera_plays_every_clip() {
    let camera = build_camera("camera-plays");
    for (clip, frames) in [
        ("h264/clip-720p30.h264", 480),
        ("h264/baseline-180p30.h264", 60),
        ("h264/main-180p30.h264", 60),
        ("h264/high-180p30.h264", 60),
        ("h264/bare-180p30.h264", 60),
        ("h265/main-180p30.h265", 60),
        ("h265/cra-180p30.h265", 60),
    ] {
        let path = common::root().join("testdata").join(clip);
        let output = run(&camera, &["--file", path.to_str().unwrap(), "--duration", "0.5"]);
        let text = describe(&output);
        assert!(output.status.success(), "{clip}: {text}");
        assert!(text.contains(&format!("stream main: {frames} frames,")), "{clip}: {text}");
        assert!(pushed(&text) > 0, "{clip}: {text}");
    }
}

#[test]
fn the_camera_plays_every_sound() {
    let camera = build_camera("camera-sounds");
    let root = common::root();
    let clip = root.join("testdata/h264/main-180p30.h264");
    for name in ["glide.pcma", "glide.pcmu", "glide.opus-packets"] {
        let sound = root.join("testdata/audio").join(name);
        let heard = common::scratch("camera-heard").join(name);
        let arguments = ["--file", clip.to_str().unwrap(), "--duration", "0.5"];
        let both = ["--audio", sound.to_str().unwrap(), "--talkback", heard.to_str().unwrap()];
        let output = run(&camera, &[&arguments[..], &both].concat());
        let text = describe(&output);
        assert!(output.status.success(), "{name}: {text}");
        let line = text.lines().find(|line| line.contains("packets pushed")).unwrap();
        let pushed: u32 = line.split(' ').nth(1).unwrap().parse().unwrap();
        assert!((5..=30).contains(&pushed) && line.ends_with(" 0 dropped"), "{name}: {line}");
        assert!(text.contains("talkback: 0 packets heard, 0 lost"), "{name}: {text}");
    }
}

#[test]
fn the_camera_says_what_is_wrong() {
    let camera = build_camera("camera-errors");
    let readme = common::root().join("testdata/h264/README.md");
    let h264 = common::root().join("testdata/h264/main-180p30.h264");
    let h265 = common::root().join("testdata/h265/main-180p30.h265");
    for (arguments, words) in [
        (&["--file", "no-such-file"][..], "no-such-file"),
        (&["--file", readme.to_str().unwrap()], "begins with an IDR"),
        (&["--file", h264.to_str().unwrap(), "--codec", "h265"], "begins with an IDR"),
        (&["--file", h265.to_str().unwrap(), "--codec", "h264"], "begins with an IDR"),
        (&["--file", h264.to_str().unwrap(), "--codec", "vp8"], "expected h264 or h265"),
        (&["--file", "x", "--audio", "x.mp3"], ".opus-packets"),
        (&["--file", "x", "--audio", "no-such-file.pcma"], "no-such-file.pcma"),
        (&["--file", "x", "--talkback", "/no/such/folder/x.pcma"], "/no/such/folder/x.pcma"),
        (&["--file", "x", "--audio", "x.pcma", "--talkback", "x.pcmu"], "the same ending"),
        (&["--file", "x", "--fps", "0"], "--fps"),
        (&["--file", "x", "--broker", "http://x"], "broker_url"),
        (&["--file", "x", "--broker-cert", "x.pem"], "broker_key_file is NULL"),
        (&["--file", "x", "--broker-key", "x.key"], "broker_cert_file is NULL"),
        (&["--file", "x", "--broker-cert", "x.pem", "--broker-key", "x.key"], "expected mqtts://"),
        (&["--dance"], "unknown option"),
        (&[], "required"),
    ] {
        let output = run(&camera, arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(describe(&output).contains(words), "{arguments:?}: {}", describe(&output));
    }
}

/// Past a broker that asks for one; a library without TLS says that it has none.
#[test]
fn the_camera_signs_in_with_its_certificate() {
    let camera = build_camera("camera-certificate");
    let folder = common::certificates("certificates-camera");
    let broker = Mosquitto::start(
        &"certfile DIR/server.pem\nkeyfile DIR/server.key\ncafile DIR/ca.pem\n\
          require_certificate true\nuse_identity_as_username true"
            .replace("DIR", folder.to_str().unwrap()),
        &[],
    );
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let url = format!("mqtts://localhost:{}", broker.port);
    let clip = common::root().join("testdata/h264/main-180p30.h264");
    let play = ["--file", clip.to_str().unwrap(), "--duration", "2", "--broker", &url];
    let (ca, certificate, key) = (file("ca.pem"), file("CAM-TEST.pem"), file("CAM-TEST.key"));
    let trusting = [&play[..], &["--broker-ca", &ca]].concat();
    let own = ["--broker-cert", &certificate, "--broker-key", &key];
    for (arguments, words) in [
        (&trusting, "wants a certificate of this device"),
        (&[&trusting[..], &own].concat(), "signaling up"),
    ] {
        let text = describe(&run(&camera, arguments));
        let has_tls = !text.contains("needs a build with TLS");
        assert!(text.contains(if has_tls { words } else { "mqtts://" }), "{arguments:?}: {text}");
    }
}

#[test]
fn a_signal_ends_the_camera_in_order() {
    let camera = build_camera("camera-signal");
    let clip = common::root().join("testdata/h264/main-180p30.h264");
    for signal in ["-INT", "-TERM"] {
        let script = format!(
            "\"$0\" \"$@\" & camera=$!; sleep 1; kill {signal} $camera; wait $camera; echo ended $?"
        );
        let mut command = Command::new("bash");
        // Job control, because a script's background jobs ignore SIGINT without it.
        command
            .args(["-m", "-c", &script])
            .arg(&camera)
            .args(["--device", "CAM-TEST", "--broker", "mqtt://127.0.0.1:1", "--service-key", KEY])
            .arg("--file")
            .arg(&clip);
        let output = common::output_within(&mut command, Duration::from_secs(60));
        let text = describe(&output);
        assert!(text.contains("ended 0") && text.contains("released"), "{signal}: {text}");
    }
}

/// How many frames the camera says it pushed; all of them must have been taken and come back. A
/// machine that is held up skips some.
fn pushed(text: &str) -> u32 {
    let line = text.lines().find(|line| line.contains("frames pushed")).unwrap();
    let numbers: Vec<u32> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [pushed, dropped, released] = numbers[..] else { panic!("{line}") };
    assert_eq!((dropped, released), (0, pushed), "{line}");
    pushed
}

fn build_camera(name: &str) -> PathBuf {
    let program = common::scratch(name).join("camera");
    let examples = common::root().join("examples/c");
    let audio = examples.join("audio.c");
    common::build_c(&examples.join("camera.c"), &program, &["-Wshadow", audio.to_str().unwrap()]);
    program
}

fn run(camera: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(camera);
    command
        .args(["--device", "CAM-TEST", "--broker", "mqtt://127.0.0.1:1", "--service-key", KEY])
        .args(arguments);
    common::output_within(&mut command, Duration::from_secs(60))
}

fn describe(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}
