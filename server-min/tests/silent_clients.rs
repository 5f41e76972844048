//! Clients that stop in the middle of something, at every door and at each stage: nobody else waits
//! for them, and the server lets go of them.

#![allow(clippy::unwrap_used, reason = "clippy sees tests only in functions marked as such")]

mod api_support;
mod door_support;
mod packets;
mod tls_support;

use door_support::Door::{self, Http, Https, Tcp, Tls, Ws, Wss};
use door_support::{BoxedIo, DOORS, REQUEST, UPGRADE, connect, settings};
use server_min::server::Server;
use std::time::Duration;
use tls_support::{Pki, borrowed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// How far a client comes before it falls silent.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Connected,
    HalfClientHello,
    /// TLS, or the upgrade, is done, and then nothing.
    Open,
    HalfConnect,
    HalfFrame,
    HalfHead,
    HalfBody,
}

use Stage::{Connected, HalfBody, HalfClientHello, HalfConnect, HalfFrame, HalfHead, Open};

const STAGES: &[(Door, &[Stage])] = &[
    (Tcp, &[Connected, HalfConnect]),
    (Tls, &[Connected, HalfClientHello, Open, HalfConnect]),
    (Ws, &[HalfHead, Open, HalfFrame, HalfConnect]),
    (Wss, &[HalfHead, Open, HalfFrame, HalfConnect]),
    (Http, &[Connected, HalfHead, HalfBody]),
    (Https, &[Connected, HalfClientHello, Open, HalfHead, HalfBody]),
];

/// At each stage.
const SILENT: usize = 20;
/// The longest time the server gives any of them, and some.
const PATIENCE: Duration = Duration::from_secs(25);

#[test]
fn nobody_waits_for_a_silent_client() {
    let pki = Pki::new();
    let mut settings = settings(&pki);
    settings.push(("mqtt.limits.connect_timeout_s", "8".into()));
    api_support::with_server(&borrowed(&settings), |server| async {
        let mut silent = Vec::new();
        for (door, stages) in STAGES {
            for stage in *stages {
                for _ in 0..SILENT {
                    silent.push((*door, *stage, fall_silent(*door, *stage, &server, &pki).await));
                }
                for other in DOORS {
                    other.serves(&server, &pki).await;
                }
            }
        }
        for (door, stage, mut stream) in silent {
            let mut rest = Vec::new();
            // An end of any kind.
            let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "{stage:?} at {door:?} is held for ever");
        }
        let connections = async {
            while server.broker().unwrap().stats().connections > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, connections).await.expect("the broker lets go of all of them");
        server
    });
}

async fn fall_silent(door: Door, stage: Stage, server: &Server, pki: &Pki) -> BoxedIo {
    let half = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    let bytes = match stage {
        Connected => return Box::new(door.knock(server).await),
        HalfClientHello => {
            let mut stream = door.knock(server).await;
            stream.write_all(&half(CLIENT_HELLO)).await.unwrap();
            return Box::new(stream);
        }
        HalfHead if door.is_websocket() => {
            let before = if door == Wss { Https } else { Http };
            let mut stream = before.open(server, pki).await.unwrap();
            stream.write_all(&half(UPGRADE)).await.unwrap();
            return stream;
        }
        Open => Vec::new(),
        HalfConnect => door.wrap(&half(&connect("silent"))),
        HalfFrame => half(&door.wrap(&connect("silent"))),
        HalfHead => half(REQUEST),
        HalfBody => {
            b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer test-key\r\n\
            Content-Length: 100\r\n\r\n{\"deviceId\""
                .to_vec()
        }
    };
    let mut stream = door.open(server, pki).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    stream
}

/// The head of a record of 512 bytes, a ClientHello of 508 in it, and its version: where a client
/// that stops has come is what counts.
const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and its random bytes";
