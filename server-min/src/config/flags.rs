//! The command line.

use super::ConfigError;
use super::load::Setting;
use lexopt::prelude::*;
use std::ffi::OsString;
use std::path::PathBuf;

pub const HELP: &str = "\
server-min: STUN, TURN, MQTT broker and session API in one small binary

Usage:
  server-min [options]                     serve until SIGTERM or SIGINT
  server-min [options] device-password SN  print the MQTT password of the device SN
  server-min hash-password ROLE ID         read a password from standard input and print its line for
                                           mqtt.credentials_file
  server-min [options] public-key          print the key that devices check tokens with (hex)

Options:
  --config FILE      read settings from FILE (TOML); also SERVER_MIN_CONFIG
  --check-config     print what would be used, secrets hidden, and exit
  --ready-file FILE  write the addresses there once everything listens; also SERVER_MIN_READY_FILE
  --base64           with public-key: print base64 instead of hex
  --KEY VALUE        any setting of the file, for example:
    --http.listen 0.0.0.0:8080      --mqtt.listen 0.0.0.0:1883    --turn.listen 0.0.0.0:3478
    --public_host cam.example.org   --app_key KEY (one more)      --log info,mqtt=debug
  -h, --help         this text
  -V, --version      the version

Each setting can also come from the environment: http.listen is SERVER_MIN_HTTP_LISTEN. Flags win
over the environment, which wins over the file. P2PCAM_APP_KEY adds an application key.
server-min.example.toml lists every setting.
";

/// What to do, and with which settings.
#[derive(Debug, PartialEq)]
pub struct Command {
    pub action: Action,
    pub config_file: Option<PathBuf>,
    pub ready_file: Option<PathBuf>,
    pub settings: Vec<Setting>,
}

#[derive(Debug, PartialEq)]
pub enum Action {
    Serve,
    CheckConfig,
    DevicePassword { sn: String },
    HashPassword { role: String, id: String },
    PublicKey { base64: bool },
    Help,
    Version,
}

/// Reads the command line, without the program's name.
pub fn parse_args(args: impl IntoIterator<Item = OsString>) -> Result<Command, ConfigError> {
    let mut parser = lexopt::Parser::from_args(args);
    let wrong = |e: lexopt::Error| ConfigError::new(format!("{e} (see --help)"));
    let mut command = Command {
        action: Action::Serve,
        config_file: None,
        ready_file: None,
        settings: Vec::new(),
    };
    let mut base64 = false;
    while let Some(arg) = parser.next().map_err(wrong)? {
        match arg {
            Short('h') | Long("help") => command.action = Action::Help,
            Short('V') | Long("version") => command.action = Action::Version,
            Long("check-config") => command.action = Action::CheckConfig,
            Long("base64") => base64 = true,
            Long("config") => command.config_file = Some(parser.value().map_err(wrong)?.into()),
            Long("ready-file") => command.ready_file = Some(parser.value().map_err(wrong)?.into()),
            Long(name) => {
                let source = format!("--{name}");
                let key = name.replace('-', "_");
                let value = parser.value().map_err(wrong)?.string().map_err(wrong)?;
                command.settings.push(Setting { key, value, source });
            }
            Value(name) if name == "public-key" => {
                command.action = Action::PublicKey { base64: false }
            }
            Value(name) if name == "hash-password" => {
                let mut word = || {
                    let text = "hash-password: name the role and the user: hash-password ROLE ID";
                    let value = parser.value().map_err(|_| ConfigError::new(text))?;
                    value.string().map_err(wrong)
                };
                command.action = Action::HashPassword { role: word()?, id: word()? };
            }
            Value(name) if name == "device-password" => {
                let sn = parser.value().map_err(|_| {
                    ConfigError::new("device-password: name the device: device-password SN")
                })?;
                let sn = sn.string().map_err(wrong)?;
                command.action = Action::DevicePassword { sn };
            }
            other => return Err(wrong(other.unexpected())),
        }
    }
    match &mut command.action {
        Action::PublicKey { base64: chosen } => *chosen = base64,
        _ if base64 => return Err(ConfigError::new("--base64 belongs to public-key")),
        _ => {}
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, ConfigError> {
        parse_args(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn flags_become_settings() {
        let command = parse("--http.listen 127.0.0.1:0 --public-host=cam --config f.toml").unwrap();
        assert_eq!(command.action, Action::Serve);
        assert_eq!(command.config_file, Some("f.toml".into()));
        let settings: Vec<(&str, &str)> =
            command.settings.iter().map(|s| (s.key.as_str(), s.value.as_str())).collect();
        assert_eq!(settings, [("http.listen", "127.0.0.1:0"), ("public_host", "cam")]);
        assert_eq!(command.settings[1].source, "--public-host");
    }

    #[test]
    fn sub_commands_and_mistakes() {
        let sn = "cam_1".to_owned();
        assert_eq!(parse("device-password cam_1").unwrap().action, Action::DevicePassword { sn });
        assert_eq!(
            parse("public-key --base64").unwrap().action,
            Action::PublicKey { base64: true }
        );
        let (role, id) = ("app".to_owned(), "wall".to_owned());
        assert_eq!(
            parse("hash-password app wall").unwrap().action,
            Action::HashPassword { role, id }
        );
        for bad in ["device-password", "hash-password app", "dance", "--config", "-x", "--base64"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
