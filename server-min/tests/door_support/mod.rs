//! Every way into the server: MQTT over TCP, TLS and both kinds of WebSocket, HTTP and HTTPS.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use crate::packets;
use crate::tls_support::Pki;
use server_min::server::Server;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub const PATIENCE: Duration = Duration::from_secs(10);
/// Far less than any silent client is given, and enough on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(6);
pub const ADMIN_PASSWORD: &str = "root";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Tcp,
    Tls,
    Ws,
    Wss,
    Http,
    Https,
}

use Door::{Http, Https, Tcp, Tls, Ws, Wss};

pub const DOORS: [Door; 6] = [Tcp, Tls, Ws, Wss, Http, Https];
/// Those behind which the broker is.
pub const MQTT_DOORS: [Door; 4] = [Tcp, Tls, Ws, Wss];

pub trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}
pub type BoxedIo = Box<dyn Io>;

impl Door {
    pub fn address(self, server: &Server) -> SocketAddr {
        match self {
            Tcp => server.bound.mqtt,
            Tls => server.bound.mqtts,
            Ws | Http => server.bound.http,
            Wss | Https => server.bound.https,
        }
        .unwrap()
    }

    pub fn is_tls(self) -> bool {
        matches!(self, Tls | Wss | Https)
    }

    pub fn is_websocket(self) -> bool {
        matches!(self, Ws | Wss)
    }

    pub async fn knock(self, server: &Server) -> TcpStream {
        TcpStream::connect(self.address(server)).await.unwrap()
    }

    /// A connection on which MQTT or HTTP may begin: TLS and the upgrade are done.
    pub async fn open(self, server: &Server, pki: &Pki) -> std::io::Result<BoxedIo> {
        let stream = self.knock(server).await;
        let mut stream: BoxedIo = match self.is_tls() {
            true => Box::new(pki.handshake(stream).await?),
            false => Box::new(stream),
        };
        if self.is_websocket() {
            stream.write_all(UPGRADE).await?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        }
        Ok(stream)
    }

    /// MQTT's `bytes` as they travel through this door.
    pub fn wrap(self, bytes: &[u8]) -> Vec<u8> {
        if !self.is_websocket() {
            return bytes.to_vec();
        }
        // A whole binary frame; masked with zeros, which changes nothing (RFC 6455 §5.3).
        let len = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        [&[0x82, 0x80 | 126, len[0], len[1], 0, 0, 0, 0], bytes].concat()
    }

    /// Reads exactly `len` bytes of MQTT. Small answers come in small frames.
    pub async fn read(self, stream: &mut BoxedIo, len: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        if self.is_websocket() {
            let mut header = [0; 2];
            stream.read_exact(&mut header).await?;
            assert_eq!((header[0], usize::from(header[1])), (0x82, len));
        }
        stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    /// Signs in as the administrator; a session of its own, empty.
    pub async fn sign_in(
        self,
        server: &Server,
        pki: &Pki,
        client_id: &str,
    ) -> std::io::Result<BoxedIo> {
        self.sign_in_with(server, pki, &connect(client_id)).await
    }

    /// Signs in with this CONNECT.
    pub async fn sign_in_with(
        self,
        server: &Server,
        pki: &Pki,
        connect: &[u8],
    ) -> std::io::Result<BoxedIo> {
        let mut stream = self.open(server, pki).await?;
        stream.write_all(&self.wrap(connect)).await?;
        let connack = self.read(&mut stream, 4).await?;
        assert_eq!(connack, packets::CONNACK);
        Ok(stream)
    }

    /// What everyone else wants of the server is done in time.
    pub async fn serves(self, server: &Server, pki: &Pki) {
        let served = async {
            if MQTT_DOORS.contains(&self) {
                self.sign_in(server, pki, "good").await.unwrap();
                return;
            }
            let mut stream = self.open(server, pki).await.unwrap();
            stream.write_all(REQUEST).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        };
        timeout(AT_ONCE, served).await.unwrap_or_else(|_| panic!("{self:?} does not serve"));
    }
}

/// Settings of a server with every door, and an administrator.
pub fn settings(pki: &Pki) -> Vec<(&'static str, String)> {
    let mut settings = pki.settings();
    settings.push(("mqtt.admin_password", ADMIN_PASSWORD.into()));
    settings
}

/// The administrator's CONNECT.
pub fn connect(client_id: &str) -> Vec<u8> {
    packets::connect(client_id, "admin", ADMIN_PASSWORD)
}

pub const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
pub const UPGRADE: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
