//! The `server-min` command.

use base64::Engine as _;
use sdk_core::wire::signal::is_valid_id;
use server_min::config::{self, Action, Command, Config, ConfigError, HELP};
use server_min::logger;
use server_min::server::Server;
use server_min::session::credentials::{device_password, hex};
use server_min::session::credentials_file;
use server_min::session::keys::{SigningKey, random};
use server_min::session::passwords::PasswordHash;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

/// What was asked for cannot be done as it was asked (a wrong flag or setting).
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let done = config::parse_args(std::env::args_os().skip(1)).and_then(run);
    match done {
        Ok(code) => code,
        Err(e) => {
            complain(&e.to_string());
            ExitCode::from(USAGE)
        }
    }
}

fn run(command: Command) -> Result<ExitCode, ConfigError> {
    match &command.action {
        Action::Help => return Ok(say(HELP)),
        Action::Version => {
            return Ok(say(concat!("server-min ", env!("CARGO_PKG_VERSION"), "\n")));
        }
        Action::HashPassword { role, id } => return print_credentials_line(role, id),
        _ => {}
    }
    let mut settings = config::from_environment(environment());
    settings.extend(command.settings);
    let from_env = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(Into::into);
    let file = command.config_file.or_else(|| from_env("SERVER_MIN_CONFIG"));
    let ready_file = command.ready_file.or_else(|| from_env("SERVER_MIN_READY_FILE"));
    let config = config::load(file.as_deref(), &settings)?;
    match command.action {
        Action::CheckConfig => Ok(say(&config.describe())),
        Action::DevicePassword { sn } => print_device_password(&config, &sn),
        Action::PublicKey { base64 } => print_public_key(&config, base64),
        _ => Ok(serve(config, ready_file.as_deref())),
    }
}

fn serve(config: Config, ready_file: Option<&Path>) -> ExitCode {
    // validate() has read the level already.
    let _ = logger::init(&config.log);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = match runtime {
        Ok(runtime) => LocalSet::new().block_on(&runtime, serve_until_told(config, ready_file)),
        Err(e) => Err(e.to_string()),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain(&e);
            ExitCode::FAILURE
        }
    }
}

async fn serve_until_told(config: Config, ready_file: Option<&Path>) -> Result<(), String> {
    // Before anything is ready, so that no signal is lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
    let server = Server::start(config).await.map_err(|e| e.to_string())?;
    let ready = server.ready_line() + "\n";
    log::info!("public key {}", hex(&server.public_key));
    say(&ready);
    if let Some(path) = ready_file {
        write_whole(path, &ready)
            .map_err(|e| format!("ready file {} cannot be written: {e}", path.display()))?;
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    log::info!("stopping");
    server.stop().await;
    Ok(())
}

/// Whoever waits for the file sees it whole or not at all.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path)
}

fn print_device_password(config: &Config, sn: &str) -> Result<ExitCode, ConfigError> {
    let Some(secret) = &config.mqtt.device_secret else {
        return Err(ConfigError::new(
            "mqtt.device_secret is not set, and passwords follow from it",
        ));
    };
    if !is_valid_id(sn) {
        let text =
            format!("{sn:?} cannot be a device: expected 1 to 64 letters, digits, - _ . or :");
        return Err(ConfigError::new(text));
    }
    Ok(say(&(device_password(secret.expose(), sn) + "\n")))
}

/// One line of `mqtt.credentials_file`. The password comes over standard input, so that it stands
/// neither in the shell's history nor in the list of processes.
fn print_credentials_line(role: &str, id: &str) -> Result<ExitCode, ConfigError> {
    let mut line = String::new();
    io::stdin()
        .read_line(&mut line)
        .map_err(|e| ConfigError::new(format!("standard input: {e}; expected the password")))?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(ConfigError::new("expected the password as one line on standard input"));
    }
    let salt = random().map_err(|e| ConfigError::new(e.to_string()))?;
    let line = format!("{role} {id} {}\n", PasswordHash::new(password.as_bytes(), salt));
    // What the server would not read is not printed.
    credentials_file::check_line(&line)
        .map_err(|e| ConfigError::new(format!("hash-password: {e}")))?;
    Ok(say(&line))
}

fn print_public_key(config: &Config, base64: bool) -> Result<ExitCode, ConfigError> {
    let Some(path) = &config.session.signing_key_file else {
        return Err(ConfigError::new(
            "session.signing_key_file is not set: without it each start makes a new key",
        ));
    };
    let key = SigningKey::load_or_create(path).map_err(|e| ConfigError::new(e.to_string()))?;
    let text = match base64 {
        true => base64::engine::general_purpose::STANDARD.encode(key.public()),
        false => hex(&key.public()),
    };
    Ok(say(&(text + "\n")))
}

/// Variables whose names and values are text; others cannot be settings.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
}

fn say(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "server-min: {text}");
}
