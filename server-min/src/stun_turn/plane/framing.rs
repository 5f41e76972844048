//! Messages in a stream: STUN says its length itself (RFC 8489 §6.2.2), and so does ChannelData,
//! which is padded to a multiple of four bytes there (RFC 8656 §12.5).

use sdk_core::wire::stun::{HEADER_LEN, MAGIC_COOKIE, channel_data};

/// What a stream goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    /// A whole message: so many of the bytes, its padding among them.
    Message { len: usize },
    /// The beginning of a message that will be so long, as far as one can say yet.
    Incomplete { len: usize },
    /// Neither STUN nor ChannelData: where the next message begins can never be known.
    Malformed,
}

/// The longest message there is, by either of the two length fields.
pub(super) const MAX_MESSAGE_LEN: usize = HEADER_LEN + 65_532 + channel_data::HEADER_LEN;

/// Looks at what has come of a stream and was not taken yet.
pub(super) fn next(bytes: &[u8]) -> Frame {
    let Some(head) = bytes.first_chunk::<4>() else {
        return match bytes.first() {
            Some(first) if first & 0xC0 > 0x40 => Frame::Malformed,
            _ => Frame::Incomplete { len: 4 },
        };
    };
    let body = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let len = match head[0] & 0xC0 {
        0x00 => {
            let cookie = bytes.get(4..8.min(bytes.len())).unwrap_or_default();
            if !body.is_multiple_of(4) || !MAGIC_COOKIE.to_be_bytes().starts_with(cookie) {
                return Frame::Malformed;
            }
            HEADER_LEN + body
        }
        0x40 => channel_data::HEADER_LEN + body.next_multiple_of(4),
        _ => return Frame::Malformed,
    };
    if bytes.len() < len { Frame::Incomplete { len } } else { Frame::Message { len } }
}

/// Zeros that follow a message of so many bytes.
pub(super) fn padding(len: usize) -> usize {
    len.next_multiple_of(4) - len
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdk_core::wire::stun::{Builder, Class, Method, TransactionId};

    fn binding() -> Vec<u8> {
        let mut buffer = [0; 64];
        let id = TransactionId([9; 12]);
        let builder = Builder::new(&mut buffer, Class::Request, Method::BINDING, id);
        let len = builder.fingerprint().finish().unwrap();
        buffer[..len].to_vec()
    }

    fn channel(payload: &[u8]) -> Vec<u8> {
        let mut bytes = channel_data::header(0x4001, payload.len() as u16).to_vec();
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len() + padding(bytes.len()), 0);
        bytes
    }

    /// Takes a stream apart that comes in pieces of `step` bytes.
    fn messages(stream: &[u8], step: usize) -> Vec<Vec<u8>> {
        let (mut waiting, mut found) = (Vec::new(), Vec::new());
        for piece in stream.chunks(step) {
            waiting.extend_from_slice(piece);
            loop {
                match next(&waiting) {
                    Frame::Message { len } => found.push(waiting.drain(..len).collect()),
                    Frame::Incomplete { len } => {
                        assert!(waiting.len() < len && len <= MAX_MESSAGE_LEN);
                        break;
                    }
                    Frame::Malformed => panic!("{waiting:?}"),
                }
            }
        }
        assert!(waiting.is_empty());
        found
    }

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let sent = [binding(), channel(b"12345"), channel(b""), channel(&[7; 1200]), binding()];
        let stream = sent.concat();
        for step in [1, 2, 3, 5, 7, 100, 1199, stream.len()] {
            assert_eq!(messages(&stream, step), sent, "{step} bytes at a time");
        }
        assert_eq!(sent[1].len(), 12, "padded");
    }

    #[test]
    fn the_longest_messages_fit() {
        let longest = [&channel_data::header(0x4000, u16::MAX)[..], &[0; 65_536]].concat();
        assert_eq!(next(&longest), Frame::Message { len: 65_540 });
        let head = [0, 1, 0xFF, 0xFC];
        assert_eq!(next(&head), Frame::Incomplete { len: HEADER_LEN + 65_532 });
    }

    #[test]
    fn what_is_neither_ends_the_stream_at_once() {
        for bytes in [
            &[0x80][..],
            &[0xC0, 0, 0, 0],
            &[0, 1, 0, 3],
            &[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x43],
            &[0, 1, 0, 0, 0x22],
        ] {
            assert_eq!(next(bytes), Frame::Malformed, "{bytes:?}");
        }
        // "GET " is ChannelData by its first bits, and longer than any stranger's message may be.
        assert_eq!(next(b"GET / HTTP/1.1"), Frame::Incomplete { len: 4 + 0x5420 });
        assert_eq!(next(&[0, 1, 0, 0, 0x21, 0x12]), Frame::Incomplete { len: HEADER_LEN });
        assert_eq!(next(&[]), Frame::Incomplete { len: 4 });
    }

    #[test]
    fn whatever_comes_it_goes_forward_or_asks_for_more() {
        let mut seed = 7u32;
        let mut random = move || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) as u8
        };
        for _ in 0..100_000 {
            let mut bytes = [0; 40].map(|_: u8| random());
            if random() % 2 == 0 {
                bytes[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
                bytes[2] = 0;
            }
            let bytes = &bytes[..usize::from(random()) % 41];
            match next(bytes) {
                Frame::Message { len } => assert!((4..=bytes.len()).contains(&len)),
                Frame::Incomplete { len } => assert!((bytes.len() + 1..=65_556).contains(&len)),
                Frame::Malformed => {}
            }
        }
    }
}
