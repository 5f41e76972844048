//! The servers that are measured, each started for one part of the benchmark, on one processor.
//!
//! They do the same work: the same credentials, the same topic rules, nothing on disk, no log but
//! warnings, no TLS.

use crate::{LOAD, SERVER};
use hil_tests::clock;
use hil_tests::firmware::{self, run};
use hil_tests::process::Process;
use hil_tests::report::Report;
use hil_tests::usage::pin;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Of the TURN servers; user names are `{expiry}:{session}`.
pub(crate) const TURN_SECRET: &str = "bench-turn-secret";
pub(crate) const DEVICE_SECRET: &str = "bench-device-secret";
pub(crate) const APP_SECRET: &str = "bench-app-secret";
pub(crate) const APP_KEY: &str = "bench-application-key";

const PATIENCE: Duration = Duration::from_secs(20);
/// server-min's, and everybody else's: relays of both have all ports of their address.
const OURS: [u8; 4] = [127, 0, 0, 1];
const THEIRS: [u8; 4] = [127, 0, 0, 2];

/// A server on a processor of its own. Ends with the value.
pub(crate) struct Running {
    process: Process,
    /// Where it listens: STUN and TURN, MQTT, or Redis.
    pub(crate) address: SocketAddr,
    _folder: Folder,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// server-min, with what of it is used.
pub(crate) struct ServerMin {
    process: Process,
    pub(crate) http: String,
    pub(crate) mqtt: SocketAddr,
    pub(crate) turn: SocketAddr,
    _folder: Folder,
}

impl ServerMin {
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// `more` is appended to its settings.
    pub(crate) async fn start(more: &str) -> Result<ServerMin, String> {
        let (folder, mut command) = ServerMin::command(more)?;
        pin(&mut command, SERVER);
        let mut process = Process::start("server-min", command)?;
        let line =
            process.line("`ready:`", PATIENCE, |line| is_ready(line).then(|| line.to_owned()));
        let line = line.await?;
        let field = |name: &str| {
            let word = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            word.map(str::to_owned).ok_or_else(|| format!("no {name} in {line:?}"))
        };
        let address = |name: &str| field(name)?.parse().map_err(|e| format!("{line:?}: {e}"));
        Ok(ServerMin {
            http: field("http=")?,
            mqtt: address("mqtt=")?,
            turn: address("stun=")?,
            process,
            _folder: folder,
        })
    }

    /// What starts it; it runs while the folder lives.
    pub(crate) fn command(more: &str) -> Result<(Folder, Command), String> {
        let binary = firmware::build_server()?;
        let folder = Folder::new("server-min")?;
        let config = format!(
            r#"
log = "warn"
public_host = "127.0.0.1"
app_keys = ["{APP_KEY}"]
[http]
listen = "127.0.0.1:0"
[mqtt]
listen = "127.0.0.1:0"
device_secret = "{DEVICE_SECRET}"
app_secret = "{APP_SECRET}"
[mqtt.limits]
max_connections = 20000
[turn]
listen = ["127.0.0.1:0"]
secrets = ["{TURN_SECRET}"]
allow_loopback_peers = true
# Above what one allocation carries here, so that the caps are counted but drop nothing.
bandwidth_bps = 20_000_000
bandwidth_burst_bytes = 10_000_000
[session]
max_sessions = 10_000_000
signing_key_file = "signing.key"
{more}
"#
        );
        folder.write("server-min.toml", &config)?;
        // Made before the first start, as in any start but the first.
        let mut command = Command::new(&binary);
        command.current_dir(&folder.0).args(["--config", "server-min.toml"]);
        run(Command::new(&binary).current_dir(&folder.0).args([
            "--config",
            "server-min.toml",
            "public-key",
        ]))?;
        Ok((folder, command))
    }
}

pub(crate) fn is_ready(line: &str) -> bool {
    line.starts_with("ready: ")
}

const COTURN: [&str; 15] = [
    "-n",
    "--use-auth-secret",
    "--realm=p2pcam",
    "--allow-loopback-peers",
    "--relay-threads=1",
    "--no-tls",
    "--no-dtls",
    "--no-cli",
    "--no-rfc5780",
    "--no-stun-backward-compatibility",
    "--response-origin-only-with-rfc5780",
    "--no-software-attribute",
    "--no-stdout-log",
    "--simple-log",
    "--log-file=/dev/null",
];

/// coturn, with one relay thread as it has one processor, and as little in its answers as it can.
pub(crate) async fn coturn() -> Result<Running, String> {
    let folder = Folder::new("coturn")?;
    let ip = std::net::Ipv4Addr::from(THEIRS);
    let free = UdpSocket::bind((ip, 0)).and_then(|socket| socket.local_addr());
    let address = free.map_err(|e| format!("{ip}: {e}"))?;
    let mut command = Command::new("turnserver");
    command
        .args(COTURN)
        .arg(format!("--static-auth-secret={TURN_SECRET}"))
        .arg(format!("--listening-ip={ip}"))
        .arg(format!("--relay-ip={ip}"))
        .arg(format!("--listening-port={}", address.port()))
        .arg(format!("--pidfile={}", folder.0.join("pid").display()))
        .arg(format!("--userdb={}", folder.0.join("users").display()));
    let running = start("turnserver", command, SERVER, address, folder)?;
    until_answered(running, crate::stun::is_answered).await
}

const MOSQUITTO: &str = "\
allow_anonymous true
persistence false
log_type none
set_tcp_nodelay true
user root
";

/// The rules of docs/signaling.md, as far as Mosquitto has them: it does not look into messages.
const MOSQUITTO_TOPICS: &str = "\
pattern readwrite p2p/signal/device/%u
pattern write p2p/signal/device/+
pattern write p2p/status/device/%u
";

pub(crate) async fn mosquitto() -> Result<Running, String> {
    let folder = Folder::new("mosquitto")?;
    let address = free_tcp(THEIRS)?;
    folder.write("topics", MOSQUITTO_TOPICS)?;
    let listener = format!("listener {} {}\nacl_file topics\n", address.port(), address.ip());
    folder.write("mosquitto.conf", &(listener + MOSQUITTO))?;
    let mut command = Command::new(mosquitto_path());
    command.current_dir(&folder.0).args(["-c", "mosquitto.conf"]);
    let running = start("mosquitto", command, SERVER, address, folder)?;
    until_answered(running, |address| TcpStream::connect(address).is_ok()).await
}

const REDIS: [&str; 4] = ["--save", "", "--appendonly", "no"];

/// Redis, on the processor of the load.
pub(crate) async fn redis() -> Result<Running, String> {
    let folder = Folder::new("redis")?;
    let address = free_tcp(OURS)?;
    let mut command = Command::new("redis-server");
    command.current_dir(&folder.0).args(REDIS).args([
        "--bind",
        "127.0.0.1",
        "--port",
        &address.port().to_string(),
    ]);
    let running = start("redis-server", command, LOAD, address, folder)?;
    until_answered(running, |address| TcpStream::connect(address).is_ok()).await
}

fn start(
    name: &str,
    mut command: Command,
    processor: usize,
    address: SocketAddr,
    folder: Folder,
) -> Result<Running, String> {
    pin(&mut command, processor);
    Ok(Running { process: Process::start(name, command)?, address, _folder: folder })
}

async fn until_answered(
    mut running: Running,
    is_answered: impl Fn(SocketAddr) -> bool,
) -> Result<Running, String> {
    let start = clock::now();
    while !is_answered(running.address) {
        if let Some(status) = running.process.has_ended() {
            return Err(format!("it ended: {status}\n{}", running.process.lines().join("\n")));
        }
        if start.elapsed() > PATIENCE {
            return Err(format!("nobody answers at {} after {PATIENCE:?}", running.address));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(running)
}

fn free_tcp(ip: [u8; 4]) -> Result<SocketAddr, String> {
    let free = TcpListener::bind(SocketAddr::from((ip, 0))).and_then(|socket| socket.local_addr());
    free.map_err(|e| format!("{ip:?}: {e}"))
}

/// Debian has it where only root looks.
fn mosquitto_path() -> &'static str {
    let known = "/usr/sbin/mosquitto";
    if Path::new(known).exists() { known } else { "mosquitto" }
}

/// A folder of one server, removed with it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Folder, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("bench-server-{}-{number}-{name}", std::process::id());
        let folder = firmware::profile_dir()?.join("hil").join(name);
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Folder(folder))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = self.0.join(name);
        // Private: server-min does not read secrets that everybody can.
        let mut options = std::fs::OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(0o600).open(&file);
        opened
            .and_then(|mut opened| std::io::Write::write_all(&mut opened, text.as_bytes()))
            .map_err(|e| format!("{}: {e}", file.display()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Versions and options, for whoever reads the report.
pub(crate) fn describe(report: &mut Report) {
    let first_line = |command: &mut Command| {
        let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned).ok_or(text)
    };
    for (name, version) in [
        ("coturn_version", first_line(Command::new("turnserver").arg("--version"))),
        ("mosquitto_version", first_line(Command::new(mosquitto_path()).arg("-h"))),
        ("redis_version", first_line(Command::new("redis-server").arg("--version"))),
    ] {
        match version {
            Ok(version) => report.text(name, version),
            Err(reason) => report.missing(name, &reason),
        }
    }
    report.text("coturn_options", COTURN.join(" "));
    let rules = format!("{MOSQUITTO}; topics: {MOSQUITTO_TOPICS}");
    report.text("mosquitto_options", rules.trim_end().replace('\n', "; "));
    report.text("redis_options", REDIS.map(|word| format!("{word:?}")).join(" "));
    report.text("processors", format!("servers on {SERVER}, load and Redis on {LOAD}"));
}
