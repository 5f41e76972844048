//! Chromium with the viewer page, by way of `browser/watch.mjs`, which reports what `getStats` and
//! the page itself say.

use crate::firmware::root;
use crate::process::Process;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// What the browser shall do.
#[derive(Debug, Clone)]
pub struct Watch {
    pub url: String,
    /// `iceTransportPolicy: "relay"`.
    pub relay: bool,
    /// Where TURN is, instead of what the session API says.
    pub turn: Option<SocketAddr>,
    /// Presses the page's button, so that times count from the click.
    pub click: bool,
    /// How long to watch after the first frame.
    pub seconds: u32,
    pub pixels: Vec<(u32, u32)>,
    pub screenshot: Option<PathBuf>,
    /// Wait for these words on the page instead of a picture.
    pub expect_error: Option<String>,
}

impl Watch {
    pub fn new(url: String) -> Watch {
        Watch {
            url,
            relay: false,
            turn: None,
            click: false,
            seconds: 3,
            pixels: Vec::new(),
            screenshot: None,
            expect_error: None,
        }
    }

    /// Runs the browser to its end; the report, if it was content with what it saw.
    pub async fn run(&self) -> Result<Value, String> {
        let mut command = Command::new("node");
        command.current_dir(root().join("hil-tests/browser"));
        command.args(["watch.mjs", "--url", &self.url]);
        command.args(["--seconds", &self.seconds.to_string(), "--within", "60"]);
        for (is_set, flag) in [(self.relay, "--relay"), (self.click, "--click")] {
            if is_set {
                command.arg(flag);
            }
        }
        if let Some(turn) = self.turn {
            command.args(["--turn", &turn.to_string()]);
        }
        for (x, y) in &self.pixels {
            command.args(["--pixel", &format!("{x},{y}")]);
        }
        if let Some(file) = &self.screenshot {
            let folder = file.parent().ok_or("the screenshot has no folder")?;
            std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
            command.arg("--screenshot").arg(file);
        }
        if let Some(words) = &self.expect_error {
            command.args(["--expect-error", words]);
        }
        let mut browser = Process::start("browser", command)?;
        let limit = Duration::from_secs(150) + Duration::from_secs(self.seconds.into());
        let status = browser.wait(limit).await?;
        let report = browser
            .line("its report", Duration::from_secs(5), |line| serde_json::from_str(line).ok())
            .await?;
        match status.success() {
            true => Ok(report),
            false => Err(format!("the browser ended with {status}: {report:#}")),
        }
    }
}
