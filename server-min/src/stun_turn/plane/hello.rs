//! The first words of a DTLS handshake, answered without keeping anything: a client must say back a
//! cookie that was sent to its address before a connection is made for it (RFC 6347 §4.2.1).
//!
//! A ClientHello that is cut into fragments is not answered. Its cookie could not be checked without
//! keeping a part of it, and no TURN client sends one that long.

use ring::hmac;
use std::net::{IpAddr, SocketAddr};

/// Makes and checks cookies. All shards have the same secret.
pub(super) struct Cookies {
    key: hmac::Key,
}

pub(super) type Cookie = [u8; COOKIE_LEN];
pub(super) type Random = [u8; 32];

/// What to do with a datagram from someone without a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hello {
    /// Send this HelloVerifyRequest.
    Verify([u8; VERIFY_LEN]),
    /// Send this alert: the client knows nothing newer than DTLS 1.0, which RFC 8996 forbids. Some
    /// try again with 1.2 when they are told.
    Refuse([u8; ALERT_LEN]),
    /// The client is where it says. Its first ClientHello, as it was before it knew the cookie, is
    /// put together again from the second. By its random it is known when it comes again.
    Proven { cookie: Cookie, random: Random, first: Vec<u8> },
    /// Not a ClientHello, or none that we can answer.
    Ignored,
}

/// As many as rtc-dtls makes and expects.
pub(super) const COOKIE_LEN: usize = 20;
const RECORD_HEADER: usize = 13;
const HANDSHAKE_HEADER: usize = 12;
const VERSION_LEN: usize = 2;
const BEFORE_SESSION_ID: usize = VERSION_LEN + size_of::<Random>();
const VERIFY_BODY: usize = VERSION_LEN + 1 + COOKIE_LEN;
const VERIFY_LEN: usize = RECORD_HEADER + HANDSHAKE_HEADER + VERIFY_BODY;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const HELLO_VERIFY_REQUEST: u8 = 3;
const DTLS_1_2: [u8; 2] = [254, 253];
/// RFC 6347 §4.2.1: of a HelloVerifyRequest, whatever will be agreed on.
const DTLS_1_0: [u8; 2] = [254, 255];
const ALERT: u8 = 21;
const ALERT_LEN: usize = RECORD_HEADER + 2;
/// Fatal, protocol_version.
const TOO_OLD: [u8; 2] = [2, 70];
/// A cookie is good in its period and the next.
const PERIOD_S: u64 = 30;

impl Cookies {
    pub(super) fn new(secret: [u8; 32]) -> Cookies {
        Cookies { key: hmac::Key::new(hmac::HMAC_SHA256, &secret) }
    }

    pub(super) fn answer(&self, now_s: u64, client: SocketAddr, datagram: &[u8]) -> Hello {
        let Some(hello) = ClientHello::parse(datagram) else { return Hello::Ignored };
        // Versions count downwards.
        if hello.version > DTLS_1_2 {
            return Hello::Refuse(refusal());
        }
        let period = now_s / PERIOD_S;
        if hello.cookie.is_empty() {
            return Hello::Verify(verify_request(&self.cookie(period, client)));
        }
        let good = [period, period.wrapping_sub(1)].map(|p| self.cookie(p, client));
        // Nothing is gained by timing this comparison: a cookie is no secret of its client's.
        match good.into_iter().find(|cookie| cookie == hello.cookie) {
            Some(cookie) if hello.message_seq == 1 => {
                Hello::Proven { cookie, random: hello.random, first: hello.without_cookie() }
            }
            Some(_) => Hello::Ignored,
            // Of an earlier period, or of before a restart.
            None => Hello::Verify(verify_request(&self.cookie(period, client))),
        }
    }

    fn cookie(&self, period: u64, client: SocketAddr) -> Cookie {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&period.to_be_bytes());
        match client.ip() {
            IpAddr::V4(ip) => context.update(&ip.octets()),
            IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        context.update(&client.port().to_be_bytes());
        let mut cookie = [0; COOKIE_LEN];
        cookie.copy_from_slice(&context.sign().as_ref()[..COOKIE_LEN]);
        cookie
    }
}

/// Whether a client begins anew, or says its hello again.
pub(super) fn is_client_hello(datagram: &[u8]) -> bool {
    ClientHello::parse(datagram).is_some()
}

/// One that is whole, in the first record of a datagram.
struct ClientHello<'a> {
    record: &'a [u8],
    message_seq: u16,
    version: [u8; VERSION_LEN],
    random: Random,
    cookie: &'a [u8],
    /// Where the cookie's length stands in the record.
    cookie_at: usize,
}

impl<'a> ClientHello<'a> {
    fn parse(datagram: &'a [u8]) -> Option<ClientHello<'a>> {
        let header = datagram.first_chunk::<RECORD_HEADER>()?;
        let epoch_0 = header[0] == HANDSHAKE && header[1] == 254 && header[3..5] == [0, 0];
        let len = usize::from(u16::from_be_bytes([header[11], header[12]]));
        let record = datagram.get(..RECORD_HEADER + len)?;
        let (head, body) = record[RECORD_HEADER..].split_first_chunk::<HANDSHAKE_HEADER>()?;
        let whole = head[6..9] == [0; 3] && head[9..12] == head[1..4];
        let body_len =
            usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
        if !epoch_0 || head[0] != CLIENT_HELLO || !whole || body.len() != body_len {
            return None;
        }
        let session_id_len = usize::from(*body.get(BEFORE_SESSION_ID)?);
        let cookie_at = BEFORE_SESSION_ID + 1 + session_id_len;
        let cookie_len = usize::from(*body.get(cookie_at)?);
        let cookie = body.get(cookie_at + 1..cookie_at + 1 + cookie_len)?;
        Some(ClientHello {
            record,
            message_seq: u16::from_be_bytes([head[4], head[5]]),
            version: *body.first_chunk()?,
            random: *body.get(VERSION_LEN..)?.first_chunk()?,
            cookie,
            cookie_at: RECORD_HEADER + HANDSHAKE_HEADER + cookie_at,
        })
    }

    /// As record and message number 0.
    fn without_cookie(&self) -> Vec<u8> {
        let mut first = self.record.to_vec();
        first.drain(self.cookie_at + 1..self.cookie_at + 1 + self.cookie.len());
        first[self.cookie_at] = 0;
        let record_len = first.len() - RECORD_HEADER;
        let body_len = (record_len - HANDSHAKE_HEADER).to_be_bytes();
        let body_len = &body_len[body_len.len() - 3..];
        first[5..11].fill(0);
        first[11..13].copy_from_slice(&(record_len as u16).to_be_bytes());
        let head = &mut first[RECORD_HEADER..];
        head[1..4].copy_from_slice(body_len);
        head[4..6].fill(0);
        head[9..12].copy_from_slice(body_len);
        first
    }
}

/// Always with the record number 0, which the connection that may follow will count from.
fn verify_request(cookie: &Cookie) -> [u8; VERIFY_LEN] {
    let mut out = [0; VERIFY_LEN];
    out[0] = HANDSHAKE;
    out[1..3].copy_from_slice(&DTLS_1_0);
    out[12] = (HANDSHAKE_HEADER + VERIFY_BODY) as u8;
    let head = &mut out[RECORD_HEADER..];
    head[0] = HELLO_VERIFY_REQUEST;
    head[3] = VERIFY_BODY as u8;
    head[11] = VERIFY_BODY as u8;
    let body = &mut head[HANDSHAKE_HEADER..];
    body[..2].copy_from_slice(&DTLS_1_0);
    body[2] = COOKIE_LEN as u8;
    body[3..].copy_from_slice(cookie);
    out
}

fn refusal() -> [u8; ALERT_LEN] {
    let mut out = [0; ALERT_LEN];
    out[0] = ALERT;
    out[1..3].copy_from_slice(&DTLS_1_0);
    out[12] = TOO_OLD.len() as u8;
    out[RECORD_HEADER..].copy_from_slice(&TOO_OLD);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "192.0.2.7:4711";

    fn hello(message_seq: u8, cookie: &[u8]) -> Vec<u8> {
        let mut body = [&[254, 253][..], &[7; 32], &[4, 1, 2, 3, 4]].concat();
        body.push(cookie.len() as u8);
        body.extend_from_slice(cookie);
        // Cipher suites, compression methods.
        body.extend_from_slice(&[0, 2, 0xC0, 0x2B, 1, 0]);
        let len = body.len() as u8;
        let head = [CLIENT_HELLO, 0, 0, len, 0, message_seq, 0, 0, 0, 0, 0, len];
        let header = [HANDSHAKE, 254, 255, 0, 0, 0, 0, 0, 0, 0, message_seq, 0, len + 12];
        [&header[..], &head, &body].concat()
    }

    fn cookie_of(hello: Hello) -> Cookie {
        let Hello::Verify(request) = hello else { panic!("{hello:?}") };
        assert_eq!(request.len(), 48, "less than what asked for it");
        request[28..].try_into().unwrap()
    }

    #[test]
    fn a_cookie_belongs_to_an_address_and_a_time() {
        let cookies = Cookies::new([1; 32]);
        let client: SocketAddr = CLIENT.parse().unwrap();
        let cookie = cookie_of(cookies.answer(100, client, &hello(0, b"")));
        let second = hello(1, &cookie);
        for now_s in [100, 119, 149] {
            let expected = Hello::Proven { cookie, random: [7; 32], first: hello(0, b"") };
            assert_eq!(cookies.answer(now_s, client, &second), expected, "at {now_s}");
        }
        for (now_s, address) in [(150, CLIENT), (100, "192.0.2.7:4712"), (100, "192.0.2.8:4711")] {
            let answer = cookies.answer(now_s, address.parse().unwrap(), &second);
            assert_ne!(cookie_of(answer), cookie, "{address} at {now_s}");
        }
        let other = Cookies::new([2; 32]);
        assert_ne!(cookie_of(other.answer(100, client, &second)), cookie);
        assert_eq!(cookies.answer(100, client, &hello(2, &cookie)), Hello::Ignored);
    }

    #[test]
    fn only_whole_hellos_are_answered() {
        let cookies = Cookies::new([1; 32]);
        let client = CLIENT.parse().unwrap();
        let good = hello(0, b"");
        for len in 0..good.len() {
            assert_eq!(cookies.answer(0, client, &good[..len]), Hello::Ignored, "{len}");
        }
        // Content type, epoch, handshake type, length, offset and length of the fragment.
        for at in [0, 1, 3, 4, 13, 14, 15, 16, 19, 20, 21, 22, 23, 24] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(cookies.answer(0, client, &bad), Hello::Ignored, "{at}");
        }
        let mut old = good.clone();
        old[26] = 255;
        let Hello::Refuse(alert) = cookies.answer(0, client, &old) else { panic!("DTLS 1.0") };
        assert_eq!(alert, [21, 254, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 70]);
        let mut overlong = good.clone();
        overlong[25 + BEFORE_SESSION_ID] = 255;
        assert_eq!(cookies.answer(0, client, &overlong), Hello::Ignored);
    }

    #[test]
    fn whatever_comes_is_read_within_its_bounds() {
        let cookies = Cookies::new([1; 32]);
        let client: SocketAddr = CLIENT.parse().unwrap();
        let cookie = cookie_of(cookies.answer(0, client, &hello(0, b"")));
        let mut seed = 1u32;
        let mut random = move |limit: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as usize % limit
        };
        let mut proven = 0;
        for _ in 0..50_000 {
            let mut bytes = hello(1, if random(2) == 0 { &cookie } else { b"" });
            for _ in 0..random(4) {
                let at = random(bytes.len());
                bytes[at] = random(256) as u8;
            }
            bytes.truncate(bytes.len() - random(3));
            if let Hello::Proven { first, .. } = cookies.answer(0, client, &bytes) {
                let again = ClientHello::parse(&first).expect("what was put together is whole");
                assert!(again.cookie.is_empty() && again.message_seq == 0);
                proven += 1;
            }
        }
        assert!(proven > 1000, "{proven} were still good");
    }
}
