//! MQTT packets byte by byte, for clients that need no library.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

/// MQTT 3.1.1's CONNECT, with a clean session and a keepalive of 600 s.
pub(crate) fn connect(client_id: &str, user: &str, password: &str) -> Vec<u8> {
    let head = b"\0\x04MQTT\x04\xc2\x02\x58".to_vec();
    packet(0x10, [head, text(client_id), text(user), text(password)].concat())
}

/// For one filter, with QoS 1 and packet id 1.
pub(crate) fn subscribe(filter: &str) -> Vec<u8> {
    packet(0x82, [vec![0, 1], text(filter), vec![1]].concat())
}

pub(crate) const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
/// The answer to [`subscribe`].
pub(crate) const SUBACK: [u8; 5] = [0x90, 3, 0, 1, 1];
pub(crate) const PINGREQ: [u8; 2] = [0xc0, 0];
pub(crate) const PINGRESP: [u8; 2] = [0xd0, 0];

fn packet(first: u8, body: Vec<u8>) -> Vec<u8> {
    let len = u8::try_from(body.len()).ok().filter(|len| *len < 128).unwrap();
    [vec![first, len], body].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}
