//! As much of MQTT 3.1.1 as a load needs: packets to bytes, and packets out of bytes.

use crate::servers::{APP_SECRET, DEVICE_SECRET};
use base64::Engine as _;
use ring::hmac;
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub(crate) const CONNACK: u8 = 0x20;
/// QoS 1, neither retained nor a duplicate.
pub(crate) const PUBLISH: u8 = 0x32;
pub(crate) const PUBLISH_RETAINED: u8 = 0x33;
pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const SUBACK: u8 = 0x90;
pub(crate) const PINGREQ: [u8; 2] = [0xc0, 0];
pub(crate) const PINGRESP: u8 = 0xd0;

/// As docs/signaling.md has it, "Connect to the broker".
pub(crate) struct Login {
    pub(crate) id: String,
    username: String,
    password: String,
}

impl Login {
    pub(crate) fn device(number: usize) -> Login {
        let id = format!("bench-camera-{number}");
        let key = hmac::Key::new(hmac::HMAC_SHA256, DEVICE_SECRET.as_bytes());
        let tag = hmac::sign(&key, id.as_bytes());
        let password = tag.as_ref().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        Login { username: id.clone(), password, id }
    }

    pub(crate) fn app(number: usize) -> Login {
        let id = format!("bench-app-{number}");
        let username = format!("{}:{id}", hil_tests::clock::unix_ms() / 1000 + 86_400);
        let key = hmac::Key::new(hmac::HMAC_SHA256, APP_SECRET.as_bytes());
        let tag = hmac::sign(&key, username.as_bytes());
        let password = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(tag);
        Login { username, password, id }
    }
}

pub(crate) struct Will<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
}

/// With a clean session; the will, as a camera's, is retained with QoS 1.
pub(crate) fn connect(login: &Login, keep_alive_s: u16, will: Option<&Will<'_>>) -> Vec<u8> {
    let will_flags = if will.is_some() { 0x04 | 0x08 | 0x20 } else { 0 };
    let mut body = b"\0\x04MQTT\x04".to_vec();
    body.push(0xc2 | will_flags);
    body.extend_from_slice(&keep_alive_s.to_be_bytes());
    field(&mut body, login.id.as_bytes());
    if let Some(will) = will {
        field(&mut body, will.topic.as_bytes());
        field(&mut body, will.payload);
    }
    field(&mut body, login.username.as_bytes());
    field(&mut body, login.password.as_bytes());
    packet(0x10, &body)
}

/// To one topic, with QoS 1.
pub(crate) fn subscribe(id: u16, topic: &str) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    field(&mut body, topic.as_bytes());
    body.push(1);
    packet(0x82, &body)
}

pub(crate) fn publish(first_byte: u8, id: u16, topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(topic.len() + payload.len() + 4);
    field(&mut body, topic.as_bytes());
    body.extend_from_slice(&id.to_be_bytes());
    body.extend_from_slice(payload);
    packet(first_byte, &body)
}

pub(crate) fn puback(id: u16) -> Vec<u8> {
    packet(PUBACK, &id.to_be_bytes())
}

/// The packet id and the payload of a message with QoS 1.
pub(crate) fn parse_publish(body: &[u8]) -> Option<(u16, &[u8])> {
    let (len, rest) = body.split_first_chunk()?;
    let rest = rest.get(usize::from(u16::from_be_bytes(*len))..)?;
    let (id, payload) = rest.split_first_chunk()?;
    Some((u16::from_be_bytes(*id), payload))
}

fn field(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    body.extend_from_slice(bytes);
}

fn packet(first_byte: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first_byte];
    let mut rest = body.len();
    loop {
        let more = if rest > 127 { 0x80 } else { 0 };
        packet.push((rest & 127) as u8 | more);
        rest >>= 7;
        if rest == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

/// The first packet's first byte, its body, and what follows it; `None` if it is not whole.
fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let mut len = 0;
    for (i, byte) in rest.iter().enumerate().take(4) {
        len |= usize::from(byte & 127) << (7 * i);
        if byte & 128 == 0 {
            let body = rest.get(i + 1..i + 1 + len)?;
            return Some((*first, body, &rest[i + 1 + len..]));
        }
    }
    None
}

/// A connection, and what of its next packet has come.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    incomplete: Vec<u8>,
}

impl Client {
    /// Waits until the broker has let it in.
    pub(crate) fn connect(broker: SocketAddr, packet: &[u8]) -> Result<Client, String> {
        let text = |e: io::Error| format!("{broker}: {e}");
        let stream = TcpStream::connect(broker).map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(text)?;
        let mut client = Client { stream, incomplete: Vec::new() };
        let answer = client.ask(packet, CONNACK)?;
        match answer[..] {
            [_, 0] => Ok(client),
            _ => Err(format!("{broker} refused a connection: {answer:?}")),
        }
    }

    /// Sends `packet` and waits for the answer of this kind; its body.
    pub(crate) fn ask(&mut self, packet: &[u8], kind: u8) -> Result<Vec<u8>, String> {
        self.stream.write_all(packet).map_err(|e| e.to_string())?;
        let mut buffer = [0; 4096];
        loop {
            let mut found = None;
            let end = self.read(&mut buffer, |first, body| {
                if first == kind {
                    found = Some(body.to_vec());
                }
            });
            match (found, end) {
                (Some(body), _) => return Ok(body),
                (None, Ok(())) => {}
                (None, Err(e)) => return Err(format!("waiting for {kind:#x}: {e}")),
            }
        }
    }

    /// Reads once, and hands on each whole packet: first byte and body.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        mut on_packet: impl FnMut(u8, &[u8]),
    ) -> io::Result<()> {
        let len = self.stream.read(buffer)?;
        if len == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the broker hung up"));
        }
        let mut kept = std::mem::take(&mut self.incomplete);
        let bytes = if kept.is_empty() {
            &buffer[..len]
        } else {
            kept.extend_from_slice(&buffer[..len]);
            &kept
        };
        let mut rest = bytes;
        while let Some((first, body, after)) = split(rest) {
            on_packet(first, body);
            rest = after;
        }
        self.incomplete.extend_from_slice(rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let sent = publish(PUBLISH, 7, "a/b", &[9; 300]);
        let (first, body, rest) = split(&sent).unwrap();
        assert_eq!((first, rest.len()), (PUBLISH, 0));
        assert_eq!(parse_publish(body), Some((7, &[9; 300][..])));
        assert_eq!(split(&sent[..sent.len() - 1]), None);
        assert_eq!(split(&[0x30, 0xff]), None);
        assert_eq!(puback(0x102), [0x40, 2, 1, 2]);
    }

    #[test]
    fn a_login_is_what_the_signaling_page_says() {
        let login = Login::device(1);
        assert_eq!((login.username.as_str(), login.password.len()), ("bench-camera-1", 64));
        let will = Will { topic: "t", payload: b"p" };
        for (will, flags) in [(None, 0xc2), (Some(&will), 0xee)] {
            let sent = connect(&login, 60, will);
            let (first, body, _) = split(&sent).unwrap();
            assert_eq!(
                (first, &body[..10]),
                (0x10, &[0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 60][..])
            );
        }
    }
}
