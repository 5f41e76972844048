//! What the tests of the C API share: places, and building C programs against the library.

#![allow(dead_code, clippy::unwrap_used, reason = "tests; each takes its part of this")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;
use std::{env, fs, thread};

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

/// A folder with an authority and certificates as operators make them, for the server `localhost` and
/// the devices `CAM-TEST` and `CAM-OTHER`: server-min/deploy/make-ca.sh.
pub(crate) fn certificates(name: &str) -> PathBuf {
    let (folder, script) = (scratch(name), root().join("server-min/deploy/make-ca.sh"));
    for more in [&[][..], &["server", "localhost"], &["device", "CAM-TEST", "CAM-OTHER"]] {
        let made = Command::new(&script).arg(&folder).args(more).output();
        let made = made.unwrap_or_else(|e| panic!("{}: {e}", script.display()));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    folder
}

/// Runs a program to its end, or kills it after `limit`.
pub(crate) fn output_within(command: &mut Command, limit: Duration) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?} cannot be run: {e}"));
    let id = child.id().to_string();
    let (done, is_done) = mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        if is_done.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = Command::new("kill").args(["-9", &id]).status();
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    watch.join().unwrap();
    output
}

pub(crate) struct Library {
    pub(crate) archive: PathBuf,
    /// What rustc says the archive needs, such as `-lpthread`.
    pub(crate) system_libraries: Vec<String>,
}

/// The libp2pcam.a that cargo made for this very test: it lies beside it, and is the newest.
pub(crate) fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let beside = env::current_exe().unwrap();
        let archive = fs::read_dir(beside.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("libp2pcam") && name.ends_with(".a")
            })
            .max_by_key(|path| fs::metadata(path).and_then(|m| m.modified()).unwrap())
            .expect("cargo builds libp2pcam.a before the tests that use it");
        Library { archive, system_libraries: system_libraries() }
    })
}

/// They depend on the target only, not on the crate.
fn system_libraries() -> Vec<String> {
    let dir = scratch("system-libraries");
    let source = dir.join("empty.rs");
    fs::write(&source, "").unwrap();
    let output = Command::new("rustc")
        .args(["--crate-type", "staticlib", "--print", "native-static-libs", "-o"])
        .arg(dir.join("empty.a"))
        .arg(&source)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let (_, names) = text
        .split_once("native-static-libs:")
        .unwrap_or_else(|| panic!("rustc did not name the system libraries:\n{text}"));
    names.lines().next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}
