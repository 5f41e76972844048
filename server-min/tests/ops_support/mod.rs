//! The real binary on free ports, with a configuration file that can be changed, and what a test needs
//! around it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(clippy::disallowed_methods, reason = "tests of the whole run in real time")]

use std::fs;
use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A folder that is removed with the value.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("p2pcam-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A certificate that is good until this year, as `cert.pem` and `key.pem`.
    pub fn certificate(&self, until_year: i32) {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.not_after = rcgen::date_time_ymd(until_year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        self.write("cert.pem", &params.self_signed(&key).unwrap().pem());
        self.write("key.pem", &key.serialize_pem());
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running server-min. Killed when dropped.
pub struct Binary {
    child: Child,
    pub http: SocketAddr,
    pub mqtt: SocketAddr,
    pub stun: SocketAddr,
    /// Where `http.tls_listen` is set.
    pub https: Option<SocketAddr>,
    log: Arc<Mutex<String>>,
}

/// Free loopback ports, and the secrets that `api_support` knows. Sections may be added after it, top
/// level settings before it.
pub const SECTIONS: &str = r#"
[http]
listen = "127.0.0.1:0"
[mqtt]
listen = "127.0.0.1:0"
device_secret = "device-secret"
app_secret = "app-secret"
[turn]
listen = ["127.0.0.1:0"]
secrets = ["north"]
allow_loopback_peers = true
"#;

impl Binary {
    /// With `server.toml` in `folder`, which the test has written.
    pub fn start(folder: &Folder) -> Binary {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server-min"));
        command.arg("--config").arg(folder.path("server.toml"));
        for (name, _) in std::env::vars() {
            if name.starts_with("SERVER_MIN_") || name == "P2PCAM_APP_KEY" {
                command.env_remove(name);
            }
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, lines) = (BufReader::new(child.stderr.take().unwrap()), log.clone());
        std::thread::spawn(move || {
            for line in stderr.lines() {
                let Ok(line) = line else { return };
                let mut lines = lines.lock().unwrap();
                lines.push_str(&line);
                lines.push('\n');
            }
        });
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let address = |name: &str| -> SocketAddr {
            let found = ready.split_whitespace().find_map(|part| part.strip_prefix(name));
            let log = || log.lock().unwrap().clone();
            found.unwrap_or_else(|| panic!("{ready:?}; {}", log())).parse().unwrap()
        };
        let (http, mqtt, stun) = (address("http="), address("mqtt="), address("stun="));
        let https = ready.contains("https=").then(|| address("https="));
        Binary { child, http, mqtt, stun, https, log }
    }

    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).unwrap();
        // SAFETY: kill takes no pointer; the child has not been waited for, so the id is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log has this text.
    pub fn until_log(&self, text: &str) {
        let give_up = Instant::now() + Duration::from_secs(20);
        while !self.log().contains(text) {
            assert!(Instant::now() < give_up, "{text:?} is not in the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its exit code and its whole log. It must end within `patience`.
    pub fn ended(mut self, patience: Duration) -> (Option<i32>, String) {
        let give_up = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // The thread that reads it needs a moment to see its end.
                std::thread::sleep(Duration::from_millis(100));
                return (status.code(), self.log());
            }
            assert!(Instant::now() < give_up, "it goes on:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a test's asynchronous part.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(60), test).await.unwrap()
    })
}

/// promtool, with what it says if it does not like what it is given.
pub fn promtool(arguments: &[&str], input: &str) -> Output {
    use std::io::Write as _;
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (Debian package prometheus)");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
