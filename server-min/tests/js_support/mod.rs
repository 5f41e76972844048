//! Runs mqtt.js (tests/mqtt-js/client.mjs), which is installed where it is missing.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// Lets the client do all it does against `url`; `more` are further arguments, and `authority` is who
/// signed the certificate it will see.
pub(crate) async fn everything_arrives(url: &str, more: &[&str], authority: Option<&str>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mqtt-js");
    if !folder.join("node_modules/mqtt").exists() {
        let installed = Command::new("npm").arg("ci").current_dir(&folder).status().await;
        let installed = installed.expect("npm is missing: install the packages nodejs and npm");
        assert!(installed.success(), "npm ci in server-min/tests/mqtt-js failed");
    }
    let child = Command::new("node")
        .arg("client.mjs")
        .arg(url)
        .args(more)
        .envs(authority.map(|file| ("NODE_EXTRA_CA_CERTS", file)))
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(Duration::from_secs(60), child).await.expect("client.mjs ends in time");
    let output = output.expect("node is missing: install the package nodejs");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("all arrived"), "{text}");
}
