//! Builds what the tests run, once per test run: `server-min`, `libp2pcam.a`, and the C examples
//! linked with it as a vendor would.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the pieces are.
#[derive(Debug, Clone)]
pub struct Built {
    pub server: PathBuf,
    pub camera: PathBuf,
}

/// The workspace's top.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// `target/<profile>` of the running test or benchmark.
pub fn profile_dir() -> Result<PathBuf, String> {
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut dir = exe.parent().ok_or("the test has no folder")?;
    if dir.ends_with("deps") {
        dir = dir.parent().ok_or("the test's folder has no parent")?;
    }
    Ok(dir.to_path_buf())
}

/// Builds in the profile that the caller itself was built in.
pub fn build() -> Result<&'static Built, String> {
    static BUILT: OnceLock<Result<Built, String>> = OnceLock::new();
    BUILT.get_or_init(build_now).as_ref().map_err(Clone::clone)
}

/// The server alone, likewise; or the one that `P2PCAM_SERVER_MIN` names.
pub fn build_server() -> Result<PathBuf, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if let Some(binary) = std::env::var_os("P2PCAM_SERVER_MIN") {
        return Ok(binary.into());
    }
    let build = || Ok(build_package("server-min")?.join("server-min"));
    BUILT.get_or_init(build).clone()
}

fn build_now() -> Result<Built, String> {
    // One by one: together, each would have the features that the other needs of the crates they share.
    let server = build_package("server-min")?.join("server-min");
    let out = build_package("sdk-ffi")?;
    let camera = out.join("hil").join("camera");
    link_camera(&out.join("libp2pcam.a"), &camera)?;
    Ok(Built { server, camera })
}

/// Where it is then.
fn build_package(package: &str) -> Result<PathBuf, String> {
    let out = profile_dir()?;
    let mut cargo = cargo();
    cargo.args(["build", "--quiet", "--locked", "-p", package]);
    match out.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(profile) => {
            cargo.args(["--profile", profile]);
        }
    }
    run(&mut cargo)?;
    Ok(out)
}

/// Cargo at the workspace's top, without what the cargo that runs us has set for this crate: build
/// scripts look at it, and would have everything built anew.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let of_this_crate = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"];
        if of_this_crate.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    cargo.current_dir(root());
    cargo
}

/// Compiles the example camera and links it, with nothing but what docs/c-api.md tells a vendor whose
/// device is short of memory.
pub fn link_camera(archive: &Path, camera: &Path) -> Result<(), String> {
    let folder = camera.parent().ok_or("the camera has no folder")?;
    std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    // Linked under another name first: another test run may be using the old one.
    let fresh = folder.join(format!("camera.{}", std::process::id()));
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-O2", "-Wall", "-Wextra"])
        .arg("-I")
        .arg(root().join("include"))
        .args(camera_sources())
        .arg(archive)
        .arg("-Wl,--gc-sections,-z,pack-relative-relocs")
        .arg(format!("-Wl,-T,{}", root().join("sdk-ffi/at-rest.ld").display()))
        .args(["-static-libgcc", "-lpthread", "-ldl", "-o"])
        .arg(&fresh);
    run(&mut cc)?;
    std::fs::rename(&fresh, camera).map_err(|e| format!("{}: {e}", camera.display()))
}

/// The example camera's own files.
pub fn camera_sources() -> [PathBuf; 2] {
    ["camera.c", "audio.c"].map(|name| root().join("examples/c").join(name))
}

/// Runs a build step; what it wrote is the error's text.
pub fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!(
            "{command:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}
