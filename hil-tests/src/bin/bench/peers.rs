//! The programs of `hil-tests/bench-peers`: built when they are first needed, and each started on
//! a processor of its own.

use hil_tests::firmware::{cargo, profile_dir, root, run};
use hil_tests::process::Process;
use hil_tests::usage::pin;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The processor of what is measured: a camera, or a sender it is compared with.
pub(crate) const SENDER: usize = 0;
/// The processor of everything else.
pub(crate) const VIEWERS: usize = 1;

pub(crate) fn start(arguments: &[&str], processor: usize) -> Result<Process, String> {
    let mut command = Command::new(build()?);
    command.args(arguments);
    pin(&mut command, processor);
    Process::start_listening("bench-peers", command)
}

/// In the profile of the benchmark itself, as the camera is.
fn build() -> Result<PathBuf, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(build_now).clone()
}

fn build_now() -> Result<PathBuf, String> {
    let out = profile_dir()?;
    let profile = match out.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let target = out.parent().ok_or("the benchmark has no target folder")?.join("bench-peers");
    let manifest = root().join("hil-tests/bench-peers/Cargo.toml");
    let mut build = cargo();
    build.args(["build", "--quiet", "--locked", "--profile", profile]);
    run(build.arg("--manifest-path").arg(manifest).arg("--target-dir").arg(&target))?;
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(target.join(folder).join("bench-peers"))
}
