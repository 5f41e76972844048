//! A coturn as a relay that is not the server's own (`[turn] external`), on loopback.

use crate::process::Process;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;

const SECRET: &str = "secret-of-coturn";

pub struct Coturn {
    process: Process,
    port: u16,
}

impl Coturn {
    /// Starts it in `folder`, where it keeps its database and its pid.
    pub fn start(folder: &Path) -> Result<Coturn, String> {
        let port = free_port()?;
        let mut command = Command::new("turnserver");
        command.current_dir(folder).args([
            "-n",
            "--no-cli",
            "--no-tls",
            "--no-dtls",
            "--no-rfc5780",
        ]);
        command.args(["--use-auth-secret", "--static-auth-secret", SECRET, "--realm", "p2pcam"]);
        command.args(["--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1"]);
        command.args(["--listening-port", &port.to_string(), "--pidfile", "coturn.pid"]);
        command.args(["--allow-loopback-peers", "--log-file", "stdout", "--verbose"]);
        Ok(Coturn { process: Process::start("turnserver", command)?, port })
    }

    /// What stands in the server's `[turn]` instead of a relay of its own.
    pub fn as_setting(&self) -> String {
        let port = self.port;
        format!(
            "listen = []\nexternal = [{{ urls = [\"turn:127.0.0.1:{port}?transport=udp\"], \
             secret = \"{SECRET}\" }}]\n"
        )
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Below the ports that the system gives to clients: coturn does not get one that somebody's connection
/// had a minute ago.
fn free_port() -> Result<u16, String> {
    let first = 12_000 + u16::try_from(std::process::id() % 1000).unwrap_or(0) * 18;
    let free = |port: &u16| {
        UdpSocket::bind(("127.0.0.1", *port)).is_ok()
            && TcpListener::bind(("127.0.0.1", *port)).is_ok()
    };
    (first..first + 1000).find(free).ok_or_else(|| "no port for coturn is free".into())
}
