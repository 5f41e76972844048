//! The C API as firmware sees it: C programs linked with libp2pcam.a, run as they are, with their own
//! side under AddressSanitizer and UBSan, and wholly under Valgrind.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const ASAN: &[&str] =
    &["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];

#[test]
fn wrong_arguments_get_an_error() {
    run(&build("arguments", "plain", &[]), "arguments: ok");
}

#[test]
fn wrong_arguments_under_asan() {
    run(&build("arguments", "asan", ASAN), "arguments: ok");
}

#[test]
fn wrong_arguments_under_valgrind() {
    valgrind(&build("arguments", "valgrind", &[]), "arguments: ok");
}

#[test]
fn agents_come_and_go() {
    run(&build("lifecycle", "plain", &[]), "lifecycle: ok");
}

#[test]
fn agents_come_and_go_under_asan() {
    run(&build("lifecycle", "asan", ASAN), "lifecycle: ok");
}

#[test]
fn agents_come_and_go_under_valgrind() {
    valgrind(&build("lifecycle", "valgrind", &["-DROUNDS=20", "-DSTOPS=3"]), "lifecycle: ok");
}

#[test]
fn callbacks_keep_their_rules() {
    run(&build("callbacks", "plain", &[]), "callbacks: ok");
}

#[test]
fn callbacks_under_asan() {
    run(&build("callbacks", "asan", ASAN), "callbacks: ok");
}

#[test]
fn callbacks_under_valgrind() {
    valgrind(&build("callbacks", "valgrind", &[]), "callbacks: ok");
}

#[test]
fn data_channels_refuse_what_cannot_be() {
    run(&build("data", "plain", &[]), "data: ok");
}

#[test]
fn data_channels_under_asan() {
    run(&build("data", "asan", ASAN), "data: ok");
}

#[test]
fn data_channels_under_valgrind() {
    valgrind(&build("data", "valgrind", &[]), "data: ok");
}

#[test]
fn a_device_s_certificate_is_looked_at_before_it_is_shown() {
    certificate("plain", &[]);
}

#[test]
fn a_device_s_certificate_under_asan() {
    certificate("asan", ASAN);
}

fn certificate(variant: &str, flags: &[&str]) {
    let mut command = Command::new(build("certificate", variant, flags));
    command.current_dir(common::certificates(&format!("certificates-{variant}")));
    check(command, "certificate: ok");
}

fn build(name: &str, variant: &str, flags: &[&str]) -> PathBuf {
    let source = common::root().join("sdk-ffi/tests/c").join(format!("{name}.c"));
    let program = common::scratch(&format!("{name}-{variant}")).join(name);
    let flags = [&["-pthread"], flags].concat();
    common::build_c(&source, &program, &flags);
    program
}

fn run(program: &Path, expected: &str) {
    check(Command::new(program), expected);
}

/// Any invalid access and any definite leak fails.
fn valgrind(program: &Path, expected: &str) {
    let mut command = Command::new("valgrind");
    command
        .args(["--quiet", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=definite"])
        .args(["--errors-for-leak-kinds=definite", "--fair-sched=yes", "--num-callers=30"])
        .arg(program);
    check(command, expected);
}

fn check(mut command: Command, expected: &str) {
    // What hangs must fail: no program takes a tenth of this.
    let output = common::output_within(&mut command, Duration::from_secs(300));
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains(expected),
        "{command:?}: {}\n{text}\n{errors}",
        output.status
    );
}
