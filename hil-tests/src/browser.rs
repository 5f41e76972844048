//! Chromium with the viewer page, by way of `browser/watch.mjs`, which reports what `getStats` and
//! the page itself say; and with a viewer of the tests' own.

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
    /// Turns the sound on and waits until something is heard: `listen` in the report.
    pub listen: bool,
    /// Talks so many seconds into a microphone that beeps: `talk` in the report.
    pub talk: Option<u32>,
    /// Sends this text through the control channel and waits for one: `command` in the report.
    pub command: Option<String>,
    /// Chooses this stream and waits until the camera says that it sends it: `stream` in the report.
    pub stream: Option<String>,
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
            listen: false,
            talk: None,
            command: None,
            stream: None,
            expect_error: None,
        }
    }

    /// Runs the browser to its end; the report, if it was content with what it saw.
    pub async fn run(&self) -> Result<Value, String> {
        let mut command = Command::new("node");
        command.current_dir(root().join("hil-tests/browser"));
        command.args(["watch.mjs", "--url", &self.url]);
        command.args(["--seconds", &self.seconds.to_string(), "--within", "60"]);
        let flags = [(self.relay, "--relay"), (self.click, "--click"), (self.listen, "--listen")];
        for (is_set, flag) in flags {
            if is_set {
                command.arg(flag);
            }
        }
        if let Some(seconds) = self.talk {
            command.args(["--talk", &seconds.to_string()]);
        }
        for (value, flag) in [(&self.command, "--command"), (&self.stream, "--stream")] {
            if let Some(value) = value {
                command.args([flag, value]);
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
        run(command, Duration::from_secs(150) + Duration::from_secs(self.seconds.into())).await
    }
}

/// Chromium with a small viewer of its own, `browser/listen.mjs`, that asks for sound and then talks.
#[derive(Debug, Clone)]
pub struct Listen {
    pub url: String,
    /// How long it listens, and how long it talks then.
    pub seconds: u32,
}

impl Listen {
    pub fn new(url: String) -> Listen {
        Listen { url, seconds: 5 }
    }

    /// Runs the browser to its end; what `getStats` said.
    pub async fn run(&self) -> Result<Value, String> {
        let seconds = self.seconds.to_string();
        script("listen.mjs", &["--url", &self.url, "--seconds", &seconds]).await
    }
}

/// Runs one of the scripts of `browser/`; its report, if it was content.
pub async fn script(name: &str, arguments: &[&str]) -> Result<Value, String> {
    let mut command = Command::new("node");
    command.current_dir(root().join("hil-tests/browser")).arg(name).args(arguments);
    run(command, Duration::from_secs(150)).await
}

/// The one line of JSON that a script in `browser/` ends with.
async fn run(command: Command, limit: Duration) -> Result<Value, String> {
    let mut browser = Process::start("browser", command)?;
    let status = browser.wait(limit).await?;
    let report = browser
        .line("its report", Duration::from_secs(5), |line| serde_json::from_str(line).ok())
        .await?;
    match status.success() {
        true => Ok(report),
        false => Err(format!("the browser ended with {status}: {report:#}")),
    }
}
