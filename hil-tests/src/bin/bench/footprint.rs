//! What the SDK adds to a firmware image: the C example linked with it, less the same example
//! linked with functions that do nothing.

use hil_tests::firmware::{cargo, root, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// In kilobytes of the stripped file, built in the `firmware` profile for this machine.
pub(crate) fn linked_delta_kb() -> Result<f64, String> {
    let build = ["build", "--quiet", "--locked", "--profile", "firmware", "-p", "sdk-ffi"];
    run(cargo().args(build))?;
    let out = hil_tests::firmware::profile_dir()?;
    let target = out.parent().ok_or("no target folder")?;
    let archive = target.join("firmware/libp2pcam.a");
    let with = link("camera-with-sdk", &archive)?;
    let without = link("camera-without-sdk", &root().join("hil-tests/c/without_sdk.c"))?;
    Ok((size(&with)? - size(&without)?) / 1024.0)
}

fn link(name: &str, sdk: &Path) -> Result<PathBuf, String> {
    let folder = hil_tests::firmware::profile_dir()?.join("hil");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let program = folder.join(name);
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Os", "-ffunction-sections", "-fdata-sections", "-s"])
        .arg("-Wl,--gc-sections")
        .arg("-I")
        .arg(root().join("include"))
        .args(hil_tests::firmware::camera_sources())
        .arg(sdk)
        .args(["-lpthread", "-ldl", "-lm", "-o"])
        .arg(&program);
    run(&mut cc)?;
    Ok(program)
}

fn size(file: &Path) -> Result<f64, String> {
    let data = std::fs::metadata(file).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(data.len() as f64)
}
