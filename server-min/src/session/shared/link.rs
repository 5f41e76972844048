//! The connection to Redis: one for commands and announcements (RESP3), given up as soon as it fails.

use super::config::{RedisUrl, StoreConfig};
use crate::session::store::{Answer, StoreError};
use crate::tls;
use redis::aio::{AsyncPushSender, MultiplexedConnection, SendError};
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, ProtocolVersion, PushInfo,
    RedisConnectionInfo, RedisError, RedisResult, ScriptInvocation, ServerErrorKind, Value,
};
use rustls::pki_types::ServerName;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// An answer that takes longer is not coming, and neither are those after it.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Commands that wait for their turn to be written; more than ask at a time.
const WAITING: usize = 2048;
/// Announcements that wait to be looked at. What comes on top is dropped, and everything read again.
const ANNOUNCEMENTS: usize = 1024;

pub(super) struct Link {
    url: RedisUrl,
    tls: Option<TlsConnector>,
    state: RefCell<State>,
    broken: Notify,
}

enum State {
    Up {
        connection: MultiplexedConnection,
        /// Tells connections apart.
        number: u64,
    },
    Down {
        why: String,
        last_number: u64,
    },
}

/// A connection before it is used, and what drives it. Dropping this ends it.
pub(super) struct Opened {
    pub(super) connection: MultiplexedConnection,
    pub(super) announcements: mpsc::Receiver<PushInfo>,
    /// Announcements were dropped.
    pub(super) missed: Arc<AtomicBool>,
    driver: JoinHandle<()>,
}

impl Link {
    pub(super) fn new(config: &StoreConfig, url: &RedisUrl) -> Result<Link, String> {
        let tls = match url.tls {
            true => Some(tls::client_config("store.ca", config.ca.as_deref())?.into()),
            false => None,
        };
        let state = State::Down { why: "not connected yet".into(), last_number: 0 };
        Ok(Link { url: url.clone(), tls, state: RefCell::new(state), broken: Notify::new() })
    }

    pub(super) fn url(&self) -> &RedisUrl {
        &self.url
    }

    /// Connects and signs in. Takes as long as it takes.
    pub(super) async fn open(&self) -> Result<Opened, String> {
        let address = (self.url.host.as_str(), self.url.port);
        let tcp = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
        tcp.set_nodelay(true).map_err(|e| e.to_string())?;
        // One type for both, or all that reads Redis' answers would be there twice.
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let name =
                    ServerName::try_from(self.url.host.clone()).map_err(|e| e.to_string())?;
                Box::new(tls.connect(name, tcp).await.map_err(|e| format!("TLS: {e}"))?)
            }
        };
        let (sender, announcements) = mpsc::channel(ANNOUNCEMENTS);
        let missed = Arc::new(AtomicBool::new(false));
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_pipeline_buffer_size(WAITING)
            .set_push_sender(Announcements { sender, missed: missed.clone() });
        let login = self.login();
        let connection = MultiplexedConnection::new_with_config(&login, stream, config);
        let (connection, driver) = connection.await.map_err(|e| e.to_string())?;
        let driver = tokio::task::spawn_local(driver);
        Ok(Opened { connection, announcements, missed, driver })
    }

    fn login(&self) -> RedisConnectionInfo {
        let mut login = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_db(self.url.database)
            .set_lib_name("server-min", env!("CARGO_PKG_VERSION"));
        if let Some(username) = &self.url.username {
            login = login.set_username(username);
        }
        if let Some(password) = &self.url.password {
            login = login.set_password(password.expose());
        }
        login
    }

    /// From now on commands go there.
    pub(super) fn use_it(&self, connection: MultiplexedConnection) {
        let number = self.number() + 1;
        self.state.replace(State::Up { connection, number });
    }

    /// From now on commands fail at once, with the reason.
    pub(super) fn give_up(&self, why: &str) {
        let last_number = self.number();
        self.state.replace(State::Down { why: why.to_owned(), last_number });
        self.broken.notify_one();
    }

    /// How many connections there were.
    pub(super) fn number(&self) -> u64 {
        match *self.state.borrow() {
            State::Up { number, .. } | State::Down { last_number: number, .. } => number,
        }
    }

    pub(super) fn ready(&self) -> Result<(), String> {
        match &*self.state.borrow() {
            State::Up { .. } => Ok(()),
            State::Down { why, .. } => Err(why.clone()),
        }
    }

    /// Waits until the connection in use has failed.
    pub(super) async fn failed(&self) -> String {
        loop {
            if let State::Down { why, .. } = &*self.state.borrow() {
                return why.clone();
            }
            self.broken.notified().await;
        }
    }

    /// Asks Redis something. Fails at once where there is no connection, and in 2 s where there is no
    /// answer; then the connection is given up, because the answers behind that one are late as well.
    pub(super) fn ask<'a>(&'a self, command: &'a Cmd) -> Answer<'a, Value> {
        Box::pin(async move {
            let (mut connection, number) = self.live()?;
            self.judged(number, command.query_async(&mut connection).await)
        })
    }

    /// Runs a script, which Redis need not know yet.
    pub(super) fn call<'a>(&'a self, script: &'a ScriptInvocation<'a>) -> Answer<'a, Value> {
        Box::pin(async move {
            let (mut connection, number) = self.live()?;
            self.judged(number, script.invoke_async(&mut connection).await)
        })
    }

    pub(super) async fn subscribe(&self, channels: &[String]) -> Result<(), StoreError> {
        let (mut connection, number) = self.live()?;
        self.judged(number, connection.subscribe(channels).await)
    }

    pub(super) async fn unsubscribe(&self, channels: &[String]) -> Result<(), StoreError> {
        let (mut connection, number) = self.live()?;
        self.judged(number, connection.unsubscribe(channels).await)
    }

    fn judged<T>(&self, connection: u64, answer: RedisResult<T>) -> Result<T, StoreError> {
        answer.map_err(|error| {
            let why = describe(&error);
            if ends_connection(&error) && self.uses(connection) {
                self.give_up(&why);
            }
            StoreError::Unavailable(why)
        })
    }

    fn uses(&self, connection: u64) -> bool {
        matches!(*self.state.borrow(), State::Up { number, .. } if number == connection)
    }

    fn live(&self) -> Result<(MultiplexedConnection, u64), StoreError> {
        match &*self.state.borrow() {
            State::Up { connection, number } => Ok((connection.clone(), *number)),
            State::Down { why, .. } => Err(StoreError::Unavailable(why.clone())),
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What an answer says.
pub(super) fn read<T: FromRedisValue>(answer: Value) -> Result<T, StoreError> {
    redis::from_redis_value(answer)
        .map_err(|e| StoreError::Unavailable(format!("an answer of Redis cannot be read: {e}")))
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

struct Announcements {
    sender: mpsc::Sender<PushInfo>,
    missed: Arc<AtomicBool>,
}

impl AsyncPushSender for Announcements {
    fn send(&self, announcement: PushInfo) -> Result<(), SendError> {
        self.sender.try_send(announcement).map_err(|_| {
            self.missed.store(true, Relaxed);
            SendError
        })
    }
}

/// Whether another connection may fare better: this one is dead, or leads to a Redis that only reads
/// (a replica, after a failover) or does not serve yet.
fn ends_connection(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Io | ErrorKind::Parse | ErrorKind::AuthenticationFailed => true,
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::ReadOnly | ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown
        ),
        _ => false,
    }
}

fn describe(error: &RedisError) -> String {
    match error.is_timeout() {
        true => format!("Redis did not answer in {} s", RESPONSE_TIMEOUT.as_secs()),
        false => error.to_string(),
    }
}
