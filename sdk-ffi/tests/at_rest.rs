//! `at-rest.ld`, with which a firmware has what runs while nobody watches side by side: it links, and
//! knows the functions there are.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::process::Command;

#[test]
fn the_functions_of_a_camera_at_rest_lie_side_by_side() {
    let root = common::root();
    let program = common::scratch("at-rest").join("camera");
    let script = format!("-Wl,--gc-sections,-T,{}", root.join("sdk-ffi/at-rest.ld").display());
    let audio = root.join("examples/c/audio.c");
    common::build_c(
        &root.join("examples/c/camera.c"),
        &program,
        &["-pthread", &script, audio.to_str().unwrap()],
    );
    let output = Command::new(&program).arg("--help").output().unwrap();
    assert!(output.status.success());

    let output = Command::new("size").arg("-A").arg(&program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let size = |section: &str| -> u64 {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(section));
        line.unwrap_or_else(|| panic!("no {section} in:\n{text}"))
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    };
    let (at_rest, other) = (size(".text.at_rest"), size(".text"));
    println!("{at_rest} bytes at rest, {other} others");
    // Much less means that the functions have other names now: run scripts/at-rest.sh.
    assert!(at_rest > 200_000 && at_rest < other, "{at_rest} of {other}");
}
