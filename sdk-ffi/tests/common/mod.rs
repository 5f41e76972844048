//! What the tests of the C API share: places, and building C programs against the library.

#![allow(dead_code, reason = "each test takes its part of this")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// An empty folder of one test's own, below the target folder.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Builds a C program with these extra flags, linked with libp2pcam.a.
pub(crate) fn build_c(source: &Path, program: &Path, flags: &[&str]) {
    let library = library();
    let output = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-g", "-O1"])
        .args(flags)
        .arg("-I")
        .arg(root().join("include"))
        .arg(source)
        .arg("-o")
        .arg(program)
        .arg(&library.archive)
        .args(&library.system_libraries)
        .output()
        .unwrap_or_else(|e| panic!("cc is missing ({e}): apt-get install gcc"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cc {}:\n{errors}", source.display());
}

pub(crate) struct Library {
    pub(crate) archive: PathBuf,
    /// What rustc says the archive needs, such as `-lpthread`.
    pub(crate) system_libraries: Vec<String>,
}

/// Builds libp2pcam.a as a vendor would, in the profile of this test run; `cargo test` by itself
/// builds only the rlib.
pub(crate) fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        let output = Command::new(env!("CARGO"))
            .args(["rustc", "--locked", "-p", "sdk-ffi", "--lib", "--crate-type", "staticlib"])
            .args(["--profile", profile, "--target-dir"])
            .arg(target_dir)
            .args(["--", "--print", "native-static-libs"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "building libp2pcam.a failed:\n{text}");
        let system_libraries = text
            .lines()
            .find_map(|line| line.split_once("native-static-libs:"))
            .unwrap_or_else(|| panic!("rustc did not name the system libraries:\n{text}"))
            .1
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        let folder = if cfg!(debug_assertions) { "debug" } else { "release" };
        Library { archive: target_dir.join(folder).join("libp2pcam.a"), system_libraries }
    })
}
