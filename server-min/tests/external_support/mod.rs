//! A real Mosquitto on ports of its own, which can go away and come back, and a wire to it that can
//! be cut.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::cell::RefCell;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::api_support::PATIENCE;

/// A folder of the test's own, which its Mosquitto can write to as well.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let path = std::env::temp_dir()
            .join(format!("p2pcam-external-{}-{number}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        Folder(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Readable for Mosquitto's own user.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub struct Mosquitto {
    /// The first listener.
    pub address: SocketAddr,
    configuration: String,
    child: Option<Child>,
}

impl Mosquitto {
    pub async fn start(folder: &Folder, configuration: &str, port: u16) -> Mosquitto {
        let configuration = folder.write("mosquitto.conf", configuration);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut mosquitto = Mosquitto { address, configuration, child: None };
        mosquitto.begin().await;
        mosquitto
    }

    pub async fn begin(&mut self) {
        let log = fs::File::create(Path::new(&self.configuration).with_extension("log")).unwrap();
        let child = Command::new("mosquitto")
            .env("PATH", format!("/usr/sbin:{}", std::env::var("PATH").unwrap_or_default()))
            .args(["-v", "-c", &self.configuration])
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("mosquitto: {error}; install the package mosquitto"));
        self.child = Some(child);
        let listens = async {
            while TcpStream::connect(self.address).await.is_err() {
                let ended = self.child.as_mut().unwrap().try_wait().unwrap();
                assert!(ended.is_none(), "mosquitto ended: {}", self.log());
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, listens).await.unwrap();
    }

    /// By SIGTERM: it writes down what it must keep.
    pub fn end(&mut self) {
        let mut child = self.child.take().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let told = Command::new("kill").arg(pid.to_string()).status().unwrap();
        assert!(told.success());
        child.wait().unwrap();
    }

    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(Path::new(&self.configuration).with_extension("log")).unwrap()
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A wire to `to` that can be cut. Within a `LocalSet`.
pub struct Wire {
    pub address: SocketAddr,
    connections: Rc<RefCell<Vec<AbortHandle>>>,
}

impl Wire {
    pub async fn to(to: SocketAddr) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Rc::new(RefCell::new(Vec::new()));
        let all = connections.clone();
        tokio::task::spawn_local(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let copying = tokio::task::spawn_local(async move {
                    let mut far = TcpStream::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
                all.borrow_mut().push(copying.abort_handle());
            }
        });
        Wire { address, connections }
    }

    /// Ends every connection without a word. How many there were.
    pub fn cut(&self) -> usize {
        let open: Vec<_> =
            self.connections.borrow_mut().drain(..).filter(|c| !c.is_finished()).collect();
        open.iter().for_each(AbortHandle::abort);
        open.len()
    }
}

/// Signs certificates.
pub struct Authority {
    pub file: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub fn new(folder: &Folder, name: &str) -> Authority {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let file = folder.write(&format!("{name}.pem"), &certificate.pem());
        Authority { file, issuer: rcgen::Issuer::new(params, key) }
    }

    /// A certificate for `name`, and its key.
    pub fn issue(&self, folder: &Folder, name: &str) -> [String; 2] {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.into()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        [
            folder.write(&format!("{name}-cert.pem"), &certificate.pem()),
            folder.write(&format!("{name}-key.pem"), &key.serialize_pem()),
        ]
    }
}
