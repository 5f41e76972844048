//! A real coturn with the configuration that we ship, on ports of its own.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/coturn/turnserver.conf");

pub struct Coturn {
    folder: PathBuf,
    child: Option<Child>,
    pub secret: String,
    /// UDP and TCP.
    pub port: u16,
    /// TLS and DTLS.
    pub tls_port: u16,
}

impl Coturn {
    /// As shipped: it relays to public addresses only.
    pub fn start(name: &str) -> Coturn {
        Coturn::with(name, "")
    }

    /// One that relays on loopback, for tests that have no other network.
    pub fn open(name: &str) -> Coturn {
        Coturn::with(name, "allow-loopback-peers\nallowed-peer-ip=127.0.0.0-127.255.255.255\n")
    }

    fn with(name: &str, more: &str) -> Coturn {
        let folder =
            std::env::temp_dir().join(format!("p2pcam-coturn-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let certificate = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        fs::write(folder.join("cert.pem"), certificate.cert.pem()).unwrap();
        fs::write(folder.join("key.pem"), certificate.signing_key.serialize_pem()).unwrap();
        let (port, tls_port) = (free_port(), free_port());
        let secret = format!("secret-of-{name}");
        let in_folder = |file: &str| folder.join(file).display().to_string();
        let mut replaced = 0;
        let shipped = fs::read_to_string(SHIPPED).unwrap();
        let lines = shipped.lines().map(|line| {
            let here = match line.split_once('=').unwrap_or((line, "")).0 {
                "listening-port" => format!("listening-port={port}"),
                "tls-listening-port" => format!("tls-listening-port={tls_port}"),
                "static-auth-secret" => format!("static-auth-secret={secret}"),
                "cert" => format!("cert={}", in_folder("cert.pem")),
                "pkey" => format!("pkey={}", in_folder("key.pem")),
                "log-file" => format!("log-file={}", in_folder("log")),
                _ => return line.to_owned() + "\n",
            };
            replaced += 1;
            here + "\n"
        });
        let own = "listening-ip=127.0.0.1\nrelay-ip=127.0.0.1\n";
        let config = lines.collect::<String>() + own + more;
        assert_eq!(replaced, 6, "{SHIPPED} has other lines than this test knows");
        // Its pid file must not be the one of a coturn that this machine runs.
        let config = format!("{config}pidfile={}\n", in_folder("pid"));
        fs::write(folder.join("turnserver.conf"), config).unwrap();
        let mut coturn = Coturn { folder, child: None, secret, port, tls_port };
        coturn.run();
        let log = coturn.log();
        for complaint in ["Unknown", "unknown", "Bad configuration", "ERROR", "cannot"] {
            assert!(!log.contains(complaint), "coturn does not like {SHIPPED}:\n{log}");
        }
        coturn
    }

    /// Starts it, or starts it again on the same ports, and waits until it answers.
    pub fn run(&mut self) {
        let child = Command::new("turnserver")
            .args(["-c", "turnserver.conf"])
            .current_dir(&self.folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| {
                panic!("turnserver cannot be run ({e}); install it with: apt-get install coturn")
            });
        self.child = Some(child);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        // A Binding request.
        let mut request = [7; 20];
        request[..8].copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42]);
        let answered = (0..400).any(|_| {
            let _ = socket.send_to(&request, self.address());
            let answered = socket.recv(&mut [0; 200]).is_ok();
            if !answered {
                std::thread::sleep(Duration::from_millis(25));
            }
            answered
        });
        assert!(answered, "coturn does not answer:\n{}", self.log());
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it as if its machine hung, or lets it go on: its sockets stay open.
    pub fn hang(&self, hangs: bool) {
        let pid = i32::try_from(self.child.as_ref().unwrap().id()).unwrap();
        let signal = if hangs { libc::SIGSTOP } else { libc::SIGCONT };
        // SAFETY: kill takes no pointer; the child has not been waited for, so the id is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.folder.join("cert.pem")).unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Everything it serves, as server-min is told.
    pub fn urls(&self) -> [String; 3] {
        let (port, tls_port) = (self.port, self.tls_port);
        [
            format!("turn:127.0.0.1:{port}?transport=udp"),
            format!("turn:127.0.0.1:{port}?transport=tcp"),
            format!("turns:127.0.0.1:{tls_port}?transport=tcp"),
        ]
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            #[allow(clippy::print_stderr, reason = "a failed test shows what coturn said")]
            {
                eprintln!("--- coturn on {}:\n{log}", self.port);
            }
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Free for UDP and for TCP, and below the ports that the system gives to clients: coturn does not get
/// one that a connection of somebody's had a minute ago.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 1000).unwrap() * 16;
    let free = |_| {
        let port = 12_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 18_000;
        let udp = UdpSocket::bind(("127.0.0.1", port)).ok()?;
        TcpListener::bind(udp.local_addr().unwrap()).is_ok().then_some(port)
    };
    (0..1000).find_map(free).expect("a port that is free for UDP and TCP")
}
