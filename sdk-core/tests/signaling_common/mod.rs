//! A real broker for the tests of the broker link.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A Mosquitto on a port of its own, ended with the value.
pub(crate) struct Mosquitto {
    process: Child,
    pub(crate) port: u16,
    pub(crate) dir: PathBuf,
}

impl Mosquitto {
    /// `extra` are further lines of its configuration, which may name files by `DIR`.
    pub(crate) fn start(extra: &str, files: &[(&str, &str)]) -> Mosquitto {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("broker-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.to_str().unwrap();
        for (name, text) in files {
            std::fs::write(dir.join(name), text).unwrap();
        }
        // Port 0 is not for Mosquitto: take one that was free a moment ago, and another if it is
        // not any more.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let file = dir.join("mosquitto.conf");
            let extra = extra.replace("DIR", path);
            // Started as root, it would give up the rights to its own files.
            let text = format!("user root\nlistener {port} 127.0.0.1\n{extra}\n");
            std::fs::write(&file, text).unwrap();
            let mut process = Command::new("mosquitto")
                .arg("-c")
                .arg(&file)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("mosquitto is needed: install the Debian package `mosquitto`");
            for _ in 0..100 {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Mosquitto { process, port, dir };
                }
                if process.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        panic!("mosquitto does not start");
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
