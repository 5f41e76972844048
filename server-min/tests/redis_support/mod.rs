//! A real Redis of the test's own, on a port of its own, that can be stopped and come back.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use sdk_core::wire::signal::SessionId;
use serde_json::json;
use server_min::session::closing::{By, Bye, Closing};
use server_min::session::shared::StoreConfig;
use server_min::session::{RedisStore, SessionRecord, SessionStore};
use std::cell::RefCell;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(10);

/// As the server runs: on one thread.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        timeout(Duration::from_secs(90), test).await.unwrap();
    });
}

pub async fn until<F: Future<Output = bool>>(what: &str, reached: impl Fn() -> F) {
    let reached = async {
        while !reached().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Ended with the value; its data too.
pub struct Redis {
    child: Option<Child>,
    folder: PathBuf,
    file: Option<String>,
    more: Vec<String>,
    pub port: u16,
}

impl Redis {
    pub fn start() -> Redis {
        Redis::start_with(&[])
    }

    /// With more arguments on its command line.
    pub fn start_with(more: &[&str]) -> Redis {
        Redis::start_as(None, more)
    }

    /// As a configuration file says, but for the port and the folder.
    pub fn start_from(file: &str) -> Redis {
        Redis::start_as(Some(file), &[])
    }

    fn start_as(file: Option<&str>, more: &[&str]) -> Redis {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("p2pcam-redis-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        let more = more.iter().map(|arg| (*arg).to_owned()).collect();
        let file = file.map(str::to_owned);
        let mut redis = Redis { child: None, folder, file, more, port: 0 };
        for _ in 0..10 {
            // Somebody else may take the port between the two: then it ends, and another is tried.
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            redis.port = free.local_addr().unwrap().port();
            drop(free);
            if redis.begin() {
                return redis;
            }
        }
        panic!("redis-server does not start: {}", redis.log());
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A file beside its data.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// In order: everything is on disk.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            self.signal_to(&child, libc::SIGTERM);
            child.wait().unwrap();
        }
    }

    pub fn start_again(&mut self) {
        assert!(self.begin(), "redis-server does not start again: {}", self.log());
    }

    /// As one whose disk was lost.
    pub fn start_again_empty(&mut self) {
        fs::remove_dir_all(self.folder.join("appendonlydir")).unwrap();
        self.start_again();
    }

    /// It keeps its connections and answers nothing.
    pub fn pause(&self) {
        self.signal_to(self.child.as_ref().unwrap(), libc::SIGSTOP);
    }

    pub fn go_on(&self) {
        self.signal_to(self.child.as_ref().unwrap(), libc::SIGCONT);
    }

    /// One command, as somebody else would ask.
    pub fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let mut connection = self.connection();
        let mut asked = redis::cmd(command[0]);
        asked.arg(&command[1..]).query(&mut connection).unwrap()
    }

    pub fn connection(&self) -> redis::Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    fn begin(&mut self) -> bool {
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let child = Command::new("redis-server")
            .args(&self.file)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--dir", self.folder.to_str().unwrap(), "--appendonly", "yes", "--save", ""])
            .args(&self.more)
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .expect("redis-server is missing: apt-get install redis-server");
        self.child = Some(child);
        for _ in 0..400 {
            if self.log().contains("Ready to accept connections") {
                return true;
            }
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        false
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn signal_to(&self, child: &Child, signal: i32) {
        let pid = i32::try_from(child.id()).unwrap();
        // SAFETY: kill takes no pointer; the child has not been waited for, so the id is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// One node's view of it, connected.
pub async fn store(redis: &Redis, max: usize) -> RedisStore {
    store_at(&redis.url(), &StoreConfig::default(), max).await
}

pub async fn store_at(url: &str, config: &StoreConfig, max: usize) -> RedisStore {
    let store = RedisStore::start(config, &url.parse().unwrap(), max).await.unwrap();
    until("the store is connected", async || store.ready().is_ok()).await;
    store
}

/// The same, with one session.
pub async fn store_with_one(redis: &Redis) -> (RedisStore, SessionRecord) {
    let store = store(redis, 9).await;
    let made = record(1, 0);
    store.create(made.clone(), 0).await.unwrap();
    (store, made)
}

/// A session as it is created.
pub fn record(n: u8, now_ms: u64) -> SessionRecord {
    let id = SessionId::from_random([n; 16]).to_string();
    serde_json::from_value(json!({
        "sessionId": id, "deviceId": "cam_1", "appId": "app_1", "status": "connecting",
        "stunServer": "192.0.2.1:3478", "turnAllocation": format!("9:{id}"),
        "createdAt": now_ms, "updatedAt": now_ms, "ttl": 86_400,
    }))
    .unwrap()
}

pub fn closing(record: &SessionRecord) -> Closing {
    Closing {
        session_id: record.session_id.clone(),
        device_id: record.device_id.clone(),
        app_id: record.app_id.clone(),
        reason: "test".into(),
        bye: Bye::Both,
    }
}

/// What the store says of closings.
pub fn listen(store: &dyn SessionStore) -> Rc<RefCell<Vec<(Closing, By)>>> {
    let heard: Rc<RefCell<Vec<(Closing, By)>>> = Rc::default();
    let hear = heard.clone();
    store.on_closing(Rc::new(move |closing, by, _| hear.borrow_mut().push((closing.clone(), by))));
    heard
}
