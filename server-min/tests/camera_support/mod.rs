//! The camera's TURN client on a UDP socket of its own, in real time.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(clippy::disallowed_methods, reason = "it drives clients over real sockets")]

use sdk_core::peer::turn::{Received, TurnClient, TurnEvent};
use serde_json::Value;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// With an allocation and a channel to its peer.
pub struct Camera {
    pub socket: UdpSocket,
    pub turn: TurnClient,
    pub relayed: SocketAddr,
}

impl Camera {
    /// The reason, where it is refused.
    pub fn connect(
        server: SocketAddr,
        username: &str,
        password: &str,
        peer: SocketAddr,
    ) -> Result<Camera, String> {
        let socket = bind(server);
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&socket.local_addr().unwrap().port().to_be_bytes());
        let begin = Instant::now();
        let mut turn = TurnClient::new(server, username, password, seed, begin);
        turn.bind(begin, peer);
        let mut camera = Camera { socket, turn, relayed: server };
        loop {
            assert!(begin.elapsed() < Duration::from_secs(10), "no answer");
            camera.exchange();
            while let Some(event) = camera.turn.poll_event() {
                match event {
                    TurnEvent::Allocated { relayed, mapped } => {
                        assert_eq!(mapped, camera.socket.local_addr().ok());
                        camera.relayed = relayed;
                    }
                    TurnEvent::ChannelBound { .. } => return Ok(camera),
                    TurnEvent::Failed { reason } => return Err(format!("{reason:?}")),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn exchange(&mut self) {
        let mut buffer = [0; 2048];
        while let Some(len) = self.turn.poll_transmit(&mut buffer) {
            self.socket.send_to(&buffer[..len], self.turn.server()).unwrap();
        }
        if let Ok((len, _)) = self.socket.recv_from(&mut buffer) {
            self.turn.handle_datagram(Instant::now(), &buffer[..len]);
        }
        self.turn.handle_timeout(Instant::now());
    }

    pub fn send(&mut self, peer: SocketAddr, payload: &[u8]) {
        let mut buffer = [0; 2048];
        let len = self.turn.wrap(peer, payload, &mut buffer).unwrap();
        self.socket.send_to(&buffer[..len], self.turn.server()).unwrap();
    }

    /// What a peer has sent; `None` where nothing comes.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        let (len, _) = self.socket.recv_from(&mut buffer).ok()?;
        match self.turn.handle_datagram(Instant::now(), &buffer[..len]) {
            Received::Data { offset, len, .. } => Some(buffer[offset..offset + len].to_vec()),
            other => panic!("{other:?}"),
        }
    }
}

/// One side of a session, with a channel to a peer of our own.
pub struct Side {
    pub camera: Camera,
    pub peer: UdpSocket,
}

impl Side {
    /// The reason, where it is refused.
    pub fn connect(server: SocketAddr, username: &str, password: &str) -> Result<Side, String> {
        let peer = bind(server);
        let address = peer.local_addr().unwrap();
        Ok(Side { camera: Camera::connect(server, username, password, address)?, peer })
    }

    /// With the credentials that came with `session`.
    pub fn of(server: SocketAddr, session: &Value) -> Side {
        Side::tried(server, session).expect("the credentials are good")
    }

    pub fn tried(server: SocketAddr, session: &Value) -> Result<Side, String> {
        let text = |key: &str| session["iceServers"][1][key].as_str().unwrap();
        Side::connect(server, text("username"), text("credential"))
    }

    /// Whether a packet comes through, and back.
    pub fn relays(&mut self) -> bool {
        for socket in [&self.camera.socket, &self.peer] {
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        }
        self.camera.send(self.peer.local_addr().unwrap(), b"there");
        let mut buffer = [0; 64];
        let Ok((len, relayed)) = self.peer.recv_from(&mut buffer) else { return false };
        assert_eq!(&buffer[..len], b"there");
        self.peer.send_to(b"back", relayed).unwrap();
        self.camera.receive().is_some_and(|payload| payload == b"back")
    }
}

/// Beside the server, and not waiting long for what comes.
fn bind(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((server.ip(), 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket
}
