//! The `server-min` command as its users meet it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use server_min::session::credentials::device_password;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const PORTS: [&str; 6] = [
    "--http.listen",
    "127.0.0.1:0",
    "--mqtt.listen",
    "127.0.0.1:0",
    "--turn.listen",
    "127.0.0.1:0",
];

fn server_min(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server-min"));
    command.args(args);
    // What the machine that runs the test sets is not the test's.
    for (name, _) in std::env::vars() {
        if name.starts_with("SERVER_MIN_") || name == "P2PCAM_APP_KEY" {
            command.env_remove(name);
        }
    }
    command
}

fn run(args: &[&str]) -> Output {
    ended(&mut server_min(args))
}

/// What a command that ends by itself says. One that serves instead is killed, and fails the test.
fn ended(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut running = Running(child);
    for _ in 0..400 {
        if running.0.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    let _ = running.0.kill();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    running.0.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
    running.0.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
    let status = running.0.wait().unwrap();
    assert!(status.code().is_some(), "it went on: {}", String::from_utf8_lossy(&stderr));
    Output { status, stdout, stderr }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A folder that is removed with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("p2pcam-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server process that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_says_when_it_is_ready_and_ends_cleanly_on_both_signals() {
    let folder = Folder::new("ready");
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let ready_file = folder.file("ready");
        let mut command = server_min(&PORTS);
        command.args([
            "--app_key",
            "very-secret-key",
            "--ready-file",
            &ready_file,
            "--log",
            "debug",
        ]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut running = Running(child);
        let mut line = String::new();
        BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let rest = line.strip_prefix("ready: ").unwrap_or_else(|| panic!("{line:?}"));
        let parts: Vec<(&str, &str)> =
            rest.split_whitespace().map(|part| part.split_once('=').unwrap()).collect();
        let names: Vec<&str> = parts.iter().map(|part| part.0).collect();
        assert_eq!(names, ["http", "mqtt", "stun"]);
        for (name, address) in parts {
            let address: std::net::SocketAddr = address.parse().unwrap();
            assert_ne!(address.port(), 0);
            if name != "stun" {
                std::net::TcpStream::connect(address).unwrap();
            }
        }
        let pid = i32::try_from(running.0.id()).unwrap();
        // SAFETY: kill takes no pointer; the child has not been waited for, so the id is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        let mut log = String::new();
        running.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        assert_eq!(running.0.wait().unwrap().code(), Some(0), "{log}");
        // Written before the signal could be answered, so it is there now.
        assert_eq!(fs::read_to_string(&ready_file).unwrap(), line);
        assert!(log.contains("stopping") && !log.contains("very-secret-key"), "{log}");
        fs::remove_file(&ready_file).unwrap();
    }
}

#[test]
fn a_port_in_use_is_named_with_the_setting_that_changes_it() {
    let (tcp, udp) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    for (setting, address) in [
        ("http.listen", tcp.local_addr().unwrap()),
        ("mqtt.listen", tcp.local_addr().unwrap()),
        ("turn.listen", udp.local_addr().unwrap()),
    ] {
        let mut command = server_min(&PORTS);
        let output = ended(command.args([format!("--{setting}"), address.to_string()]));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let port = address.port();
        assert!(text.contains(&format!("port {port} ({setting}) is in use")), "{text}");
        let variable = setting.replace('.', "_").to_ascii_uppercase();
        assert!(text.contains(&format!("SERVER_MIN_{variable}")), "{text}");
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn a_device_password_can_be_printed() {
    let args = ["--mqtt.device_secret", "s3", "device-password", "cam_1"];
    assert_eq!(stdout(&run(&args)).trim(), device_password("s3", "cam_1"));
    let output = run(&["device-password", "cam_1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("mqtt.device_secret is not set"));
    let output = run(&["--mqtt.device_secret", "s3", "device-password", "a/b"]);
    assert!(stderr(&output).contains("\"a/b\" cannot be a device"));
}

#[test]
fn the_public_key_can_be_printed_and_stays() {
    let folder = Folder::new("key");
    let file = folder.file("signing.key");
    let hex = stdout(&run(&["--session.signing_key_file", &file, "public-key"]));
    assert_eq!(hex.trim().len(), 64);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let base64 = stdout(&run(&["--session.signing_key_file", &file, "public-key", "--base64"]));
    assert_eq!(base64.trim().len(), 44);
    assert_eq!(stdout(&run(&["--session.signing_key_file", &file, "public-key"])), hex);
    let output = run(&["public-key"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("session.signing_key_file is not set"));
}

#[test]
fn check_config_shows_what_would_be_used_without_secrets() {
    let folder = Folder::new("check");
    let file = folder.file("server.toml");
    fs::write(&file, "app_keys = [\"hunter2\"]\n[http]\nlisten = \"127.0.0.1:81\"\n[turn]\nsecrets = [\"hunter2\"]\n")
        .unwrap();
    let mut command = server_min(&["--config", &file, "--check-config", "--log", "warn"]);
    let output = ended(command.env("SERVER_MIN_HTTP_LISTEN", "127.0.0.1:82"));
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        text.contains("listen = \"127.0.0.1:82\"") && text.contains("log = \"warn\""),
        "{text}"
    );
    assert!(text.contains("(hidden)") && !text.contains("hunter2"), "{text}");

    // An address with a password in it shows the rest; one that is wrong shows nothing.
    let url = "redis://me:hunter2@cache:7000/1";
    let text = stdout(&run(&["--store.redis", url, "--check-config"]));
    assert!(text.contains("redis = \"redis://me:(hidden)@cache:7000/1\""), "{text}");
    fs::write(&file, format!("[store]\nredis = \"{url}x\"\n")).unwrap();
    for args in [vec!["--config", &file], vec!["--store.redis", "http://hunter2"]] {
        let output = run(&[&args[..], &["--check-config"]].concat());
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("store.redis") && text.contains("expected redis://"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    // Who may sign tokens is no secret: each id with its key and what it may act for.
    let key = "GUQCHSI0NjBkc2FkZmpoa2poYXNkZmtqaGFzZGZramg=";
    let vendor = format!("[[apps]]\nid = \"vendor1\"\npublic_key = \"{key}\"\n");
    fs::write(&file, &vendor).unwrap();
    let text = stdout(&run(&["--config", &file, "--check-config"]));
    for line in ["[[apps]]", "id = \"vendor1\"", "app_id_prefix = \"vendor1_\""] {
        assert!(text.lines().any(|l| l == line), "{line}: {text}");
    }
    for (written, says) in [
        (vendor.replace(key, "x"), "line 1, [apps]: the public_key of \"vendor1\""),
        (vendor.replace("vendor1", "a/b"), "the id of an application is \"a/b\""),
        (vendor.replace("id =", "name ="), "unknown field `name`"),
        (
            format!("{vendor}app_id_prefix = \"\"\n{}", vendor.replace("vendor1", "v2")),
            "apps: \"vendor1\" and \"v2\" could act for the same appIds",
        ),
    ] {
        fs::write(&file, &written).unwrap();
        let output = run(&["--config", &file, "--check-config"]);
        assert_eq!(output.status.code(), Some(2), "{written}");
        assert!(stderr(&output).contains(says), "{says}: {}", stderr(&output));
    }

    fs::write(&file, "[turn]\nmin_prt = 5\n").unwrap();
    let output = run(&["--config", &file, "--check-config"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("line 2, turn.min_prt: unknown field `min_prt`"), "{text}");
    let mut command = server_min(&["--check-config"]);
    let output = ended(command.env("SERVER_MIN_HTTP_PROT", "1"));
    assert!(stderr(&output).contains("SERVER_MIN_HTTP_PROT"), "{}", stderr(&output));
    let output = run(&["--turn.min_port", "0", "--check-config"]);
    assert!(stderr(&output).contains("turn.min_port"), "{}", stderr(&output));
}

#[test]
fn the_example_file_names_every_setting_with_its_default() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/server-min.example.toml");
    let output = run(&["--config", example, "--check-config"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    // With its comments taken off where they hold a setting, it is still valid, and complete.
    let folder = Folder::new("example");
    let whole: String = fs::read_to_string(example)
        .unwrap()
        .lines()
        .map(|line| line.strip_prefix("#").filter(|l| !l.starts_with(' ')).unwrap_or(line))
        .flat_map(|line| [line, "\n"])
        .collect();
    let file = folder.file("whole.toml");
    fs::write(&file, &whole).unwrap();
    let output = run(&["--config", &file, "--check-config"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    // What differs from the defaults is what has no default: those lines hold examples.
    let (whole, defaults) = (stdout(&output), stdout(&run(&["--check-config"])));
    let differing: Vec<&str> = whole
        .lines()
        .filter(|line| !defaults.lines().any(|default| default == *line))
        .filter_map(|line| line.split(" = ").next())
        .collect();
    let examples = [
        "public_host",
        "app_keys",
        "[[apps]]",
        "id",
        "public_key",
        "app_id_prefix",
        "public_url",
        "public_url",
        "credentials_file",
        "device_secret",
        "app_secret",
        "admin_password",
        "public_ws_url",
        "external",
        "external_username",
        "external_password",
        "external_ca",
        "external_certificate",
        "external_key",
        "external_client_id",
        "external_provisioning",
        "hook_secret",
        "external_ip",
        "[[turn.external]]",
        "urls",
        "secret",
        "signing_key_file",
        "redis",
        "ca",
        "certificate",
        "key",
        "client_ca",
        "[[regions]]",
        "name",
        "latitude",
        "longitude",
        "countries",
        "continents",
        "mqtt_public_url",
        "http_public_url",
        "database",
        "\"10.1.0.0/16\"",
        "token",
    ];
    assert_eq!(differing, examples, "{whole}");
    let lost: Vec<&str> =
        defaults.lines().filter(|line| !whole.lines().any(|l| l == *line)).collect();
    assert_eq!(lost, ["app_keys = []"]);
}

/// Each setting that `--check-config` shows stands in the example file.
#[test]
fn no_setting_is_missing_from_the_example_file() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/server-min.example.toml");
    let example = fs::read_to_string(example).unwrap();
    for line in stdout(&run(&["--check-config"])).lines() {
        if let Some((key, _)) = line.split_once(" = ") {
            assert!(example.contains(&format!("\n#{key} = ")), "{key} is not in it");
        }
    }
}

#[test]
fn help_and_version_need_no_configuration() {
    let help = run(&["--help", "--config", "/nonexistent"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(stdout(&help).contains("--check-config") && stdout(&help).contains("device-password"));
    assert!(stdout(&help).contains("hash-password"));
    assert!(stdout(&run(&["--version"])).starts_with("server-min 0."));
    let output = run(&["--dance"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--help"), "{}", stderr(&output));
}
