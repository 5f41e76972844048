//! A laboratory: one `server-min` and one C camera, as processes, on free ports of this machine.

use crate::api::SessionApi;
use crate::codec::Codec;
use crate::firmware::{self, Built};
use crate::process::Process;
use crate::usage;
use ring::signature::Ed25519KeyPair;
use sdk_core::wire::token::{self, Claims};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What a loaded machine may need for a step that takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(30);

const APP_KEY: &str = "lab-application-key";
const CONFIG: &str = "server-min.toml";
/// The session service's signing key. Fixed, so that a test can sign what no service would.
const SIGNING_SEED: [u8; 32] = [7; 32];

/// How the camera is started.
#[derive(Debug, Clone)]
pub struct CameraSetup {
    pub device: String,
    pub clip: PathBuf,
    pub sub_clip: Option<PathBuf>,
    /// What its microphone hears.
    pub sound: Option<PathBuf>,
    /// Where it writes what viewers say.
    pub talkback: Option<PathBuf>,
    pub max_viewers: Option<u32>,
    pub relay_only: bool,
    /// Lines for the server's `[turn]` instead of a listener of its own.
    pub turn: Option<String>,
    /// Prints statistics every so many seconds.
    pub stats_every: Option<f64>,
    /// Further options of the C camera.
    pub more: Vec<String>,
    /// Where the camera may run, and where the server.
    pub processors: Option<(usize, usize)>,
    /// Instead of the C camera: a binary that understands `device` and the same options.
    pub binary: Option<PathBuf>,
}

impl Default for CameraSetup {
    fn default() -> CameraSetup {
        CameraSetup {
            device: "camera-1".into(),
            clip: clip_path("clip-720p30.h264"),
            sub_clip: None,
            sound: None,
            talkback: None,
            max_viewers: None,
            relay_only: false,
            turn: None,
            stats_every: None,
            more: Vec::new(),
            processors: None,
            binary: None,
        }
    }
}

/// One of `testdata/h264` or `testdata/h265`, by its ending.
pub fn clip_path(name: &str) -> PathBuf {
    let folder = match Codec::of(Path::new(name)) {
        Codec::H264 => "testdata/h264",
        Codec::H265 => "testdata/h265",
    };
    firmware::root().join(folder).join(name)
}

pub struct Lab {
    // Dropped in this order: the camera says goodbye while the broker still listens.
    camera: Option<Process>,
    server: Option<Process>,
    pub api: SessionApi,
    pub setup: CameraSetup,
    built: Built,
    folder: PathBuf,
    ports: Ports,
}

/// As the server's `ready:` line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ports {
    http: String,
    mqtt: String,
    stun: String,
}

impl Lab {
    /// Starts both and waits until the camera has its link to the broker.
    pub async fn start(setup: CameraSetup) -> Result<Lab, String> {
        let mut lab = Lab::start_server(setup).await?;
        lab.start_camera().await?;
        Ok(lab)
    }

    /// Starts the server alone.
    pub async fn start_server(setup: CameraSetup) -> Result<Lab, String> {
        let built = firmware::build()?.clone();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("lab-{}-{number}", std::process::id());
        let folder = firmware::profile_dir()?.join("hil").join(name);
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        write_private(&folder.join("signing.key"), &SIGNING_SEED)?;
        let mut lab = Lab {
            camera: None,
            server: None,
            api: SessionApi { url: String::new(), app_key: APP_KEY.into() },
            setup,
            built,
            folder,
            ports: Ports::default(),
        };
        let any = "127.0.0.1:0".to_owned();
        lab.ports =
            lab.launch_server(&Ports { http: any.clone(), mqtt: any.clone(), stun: any }).await?;
        lab.api.url = format!("http://{}", lab.ports.http);
        Ok(lab)
    }

    /// Everything fixed, so that keys and credentials outlive a restart.
    fn write_config(&self, at: &Ports) -> Result<(), String> {
        let own = format!("listen = [\"{}\"]", at.stun);
        let turn = self.setup.turn.as_ref().unwrap_or(&own);
        let text = format!(
            r#"
log = "debug"
public_host = "127.0.0.1"
app_keys = ["{APP_KEY}"]
[http]
listen = "{}"
[mqtt]
listen = "{}"
device_secret = "lab-device-secret"
app_secret = "lab-app-secret"
[turn]
{turn}
secrets = ["lab-turn-secret"]
# The relay serves this machine alone: peers on loopback are the point.
allow_loopback_peers = true
allow_private_peers = true
# The clip has 2 Mbit/s before headers and before what is sent again.
bandwidth_bps = 8_000_000
[session]
signing_key_file = "signing.key"
"#,
            at.http, at.mqtt
        );
        write_private(&self.folder.join(CONFIG), text.as_bytes())
    }

    fn server_command(&self) -> Command {
        let mut command = Command::new(&self.built.server);
        command.current_dir(&self.folder).args(["--config", CONFIG]);
        command
    }

    async fn launch_server(&mut self, at: &Ports) -> Result<Ports, String> {
        self.write_config(at)?;
        let mut command = self.server_command();
        if let Some((_, processor)) = self.setup.processors {
            usage::pin(&mut command, processor);
        }
        let mut server = Process::start("server-min", command)?;
        let ports = server.line("`ready:`", PATIENCE, ready).await?;
        self.server = Some(server);
        Ok(ports)
    }

    /// Starts the camera and waits for its link to the broker.
    pub async fn start_camera(&mut self) -> Result<(), String> {
        let command = self.camera_command()?;
        let mut camera = Process::start("camera", command)?;
        camera.line("that signaling is up", PATIENCE, is_up).await?;
        // Until then a viewer is told that the stream is not running.
        camera.line("that its stream runs", PATIENCE, has_started).await?;
        self.camera = Some(camera);
        Ok(())
    }

    fn camera_command(&self) -> Result<Command, String> {
        let setup = &self.setup;
        let ask = |arguments: &[&str]| {
            let mut command = self.server_command();
            firmware::run(command.args(arguments)).map(|text| text.trim().to_owned())
        };
        let password = ask(&["device-password", &setup.device])?;
        let public_key = ask(&["public-key"])?;
        let mut command = Command::new(setup.binary.as_ref().unwrap_or(&self.built.camera));
        if setup.binary.is_some() {
            command.arg("device");
        }
        command
            .current_dir(&self.folder)
            .args(["--device", &setup.device])
            .args(["--broker", &format!("mqtt://{}", self.ports.mqtt)])
            .args(["--password", &password])
            .args(["--public-key", &public_key])
            .arg("--clip")
            .arg(&setup.clip)
            .args(["--include-loopback"]);
        if let Some(sub) = &setup.sub_clip {
            command.arg("--sub").arg(sub);
        }
        for (option, file) in [("--audio", &setup.sound), ("--talkback", &setup.talkback)] {
            if let Some(file) = file {
                command.arg(option).arg(file);
            }
        }
        if let Some(most) = setup.max_viewers {
            command.args(["--max-viewers", &most.to_string()]);
        }
        if setup.relay_only {
            command.arg("--relay-only");
        }
        if let Some((processor, _)) = setup.processors {
            usage::pin(&mut command, processor);
        }
        if let Some(seconds) = setup.stats_every {
            command.args(["--stats", &seconds.to_string()]);
        }
        command.args(&setup.more);
        Ok(command)
    }

    /// For a test's own files; removed with the lab, unless the test failed.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The running camera.
    pub fn camera(&mut self) -> &mut Process {
        self.camera.as_mut().expect("the lab was started with a camera")
    }

    pub fn server(&mut self) -> &mut Process {
        self.server.as_mut().expect("the lab has a server while it lives")
    }

    /// Where the server's STUN and TURN listen.
    pub fn turn_addr(&self) -> Result<SocketAddr, String> {
        self.ports.stun.parse().map_err(|e| format!("{}: {e}", self.ports.stun))
    }

    /// The page a person would open.
    pub fn viewer_url(&self) -> String {
        format!("{}/?device={}#key={APP_KEY}", self.api.url, self.setup.device)
    }

    /// Ends the server and starts it again on the same ports.
    pub async fn restart_server(&mut self) -> Result<(), String> {
        self.stop_server()?;
        let ports = self.ports.clone();
        let again = self.launch_server(&ports).await?;
        match again == ports {
            true => Ok(()),
            false => Err(format!("restarted on {again:?} instead of {ports:?}")),
        }
    }

    pub fn stop_server(&mut self) -> Result<(), String> {
        self.server.take().map_or(Ok(()), |mut server| server.stop().map(drop))
    }

    /// Ends the camera and says whether it ended well.
    pub fn stop_camera(&mut self) -> Result<(), String> {
        let Some(mut camera) = self.camera.take() else { return Ok(()) };
        let status = camera.stop()?;
        // The benchmark's own camera does not handle signals.
        match status.success() || self.setup.binary.is_some() {
            true => Ok(()),
            false => Err(format!("the camera ended with {status}\n{}", camera.lines().join("\n"))),
        }
    }

    /// Ends both, and checks that nothing is left behind.
    pub fn finish(mut self) -> Result<(), String> {
        self.stop_camera()?;
        self.stop_server()
    }

    /// A token as the service would sign it, with the claims of the caller's choice.
    pub fn sign(&self, claims: &Claims) -> String {
        let key = Ed25519KeyPair::from_seed_unchecked(&SIGNING_SEED)
            .expect("every 32 bytes are an Ed25519 seed");
        token::sign(claims, &key)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.camera = None;
        self.server = None;
        // Kept for a look after a failure.
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// `ready: http=127.0.0.1:1 mqtt=127.0.0.1:2 stun=127.0.0.1:3`
fn ready(line: &str) -> Option<Ports> {
    let rest = line.split_once("ready: ")?.1;
    let field = |name: &str| {
        rest.split_whitespace()
            .find_map(|word| Some(word.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    };
    Some(Ports { http: field("http")?, mqtt: field("mqtt")?, stun: field("stun")? })
}

fn is_up(line: &str) -> Option<()> {
    line.contains("signaling up").then_some(())
}

fn has_started(line: &str) -> Option<()> {
    (line.contains("stream \"main\" started")).then_some(())
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), String> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|e| format!("{}: {e}", path.display()))
}
