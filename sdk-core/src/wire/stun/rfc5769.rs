//! RFC 5769's test vectors, and what a hostile sender may try.

use super::attribute as attr;
use super::*;

const REQUEST: &[u8] = &[
    0x00, 0x01, 0x00, 0x58, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86,
    0xfa, 0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x10, 0x53, 0x54, 0x55, 0x4e, 0x20, 0x74, 0x65, 0x73,
    0x74, 0x20, 0x63, 0x6c, 0x69, 0x65, 0x6e, 0x74, 0x00, 0x24, 0x00, 0x04, 0x6e, 0x00, 0x01, 0xff,
    0x80, 0x29, 0x00, 0x08, 0x93, 0x2f, 0xf9, 0xb1, 0x51, 0x26, 0x3b, 0x36, 0x00, 0x06, 0x00, 0x09,
    0x65, 0x76, 0x74, 0x6a, 0x3a, 0x68, 0x36, 0x76, 0x59, 0x20, 0x20, 0x20, 0x00, 0x08, 0x00, 0x14,
    0x9a, 0xea, 0xa7, 0x0c, 0xbf, 0xd8, 0xcb, 0x56, 0x78, 0x1e, 0xf2, 0xb5, 0xb2, 0xd3, 0xf2, 0x49,
    0xc1, 0xb5, 0x71, 0xa2, 0x80, 0x28, 0x00, 0x04, 0xe5, 0x7a, 0x3b, 0xcf,
];

const RESPONSE_IPV4: &[u8] = &[
    0x01, 0x01, 0x00, 0x3c, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86,
    0xfa, 0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63,
    0x74, 0x6f, 0x72, 0x20, 0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43,
    0x00, 0x08, 0x00, 0x14, 0x2b, 0x91, 0xf5, 0x99, 0xfd, 0x9e, 0x90, 0xc3, 0x8c, 0x74, 0x89, 0xf9,
    0x2a, 0xf9, 0xba, 0x53, 0xf0, 0x6b, 0xe7, 0xd7, 0x80, 0x28, 0x00, 0x04, 0xc0, 0x7d, 0x4c, 0x96,
];

const RESPONSE_IPV6: &[u8] = &[
    0x01, 0x01, 0x00, 0x48, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86,
    0xfa, 0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63,
    0x74, 0x6f, 0x72, 0x20, 0x00, 0x20, 0x00, 0x14, 0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa,
    0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9, 0x00, 0x08, 0x00, 0x14,
    0xa3, 0x82, 0x95, 0x4e, 0x4b, 0xe6, 0x7b, 0xf1, 0x17, 0x84, 0xc9, 0x7c, 0x82, 0x92, 0xc2, 0x75,
    0xbf, 0xe3, 0xed, 0x41, 0x80, 0x28, 0x00, 0x04, 0xc8, 0xfb, 0x0b, 0x4c,
];

const LONG_TERM_REQUEST: &[u8] = &[
    0x00, 0x01, 0x00, 0x60, 0x21, 0x12, 0xa4, 0x42, 0x78, 0xad, 0x34, 0x33, 0xc6, 0xad, 0x72, 0xc0,
    0x29, 0xda, 0x41, 0x2e, 0x00, 0x06, 0x00, 0x12, 0xe3, 0x83, 0x9e, 0xe3, 0x83, 0x88, 0xe3, 0x83,
    0xaa, 0xe3, 0x83, 0x83, 0xe3, 0x82, 0xaf, 0xe3, 0x82, 0xb9, 0x00, 0x00, 0x00, 0x15, 0x00, 0x1c,
    0x66, 0x2f, 0x2f, 0x34, 0x39, 0x39, 0x6b, 0x39, 0x35, 0x34, 0x64, 0x36, 0x4f, 0x4c, 0x33, 0x34,
    0x6f, 0x4c, 0x39, 0x46, 0x53, 0x54, 0x76, 0x79, 0x36, 0x34, 0x73, 0x41, 0x00, 0x14, 0x00, 0x0b,
    0x65, 0x78, 0x61, 0x6d, 0x70, 0x6c, 0x65, 0x2e, 0x6f, 0x72, 0x67, 0x00, 0x00, 0x08, 0x00, 0x14,
    0xf6, 0x70, 0x24, 0x65, 0x6d, 0xd6, 0x4a, 0x3e, 0x02, 0xb8, 0xe0, 0x71, 0x2e, 0x85, 0xc9, 0xa2,
    0x8c, 0xa8, 0x96, 0x66,
];

const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";
const ID: TransactionId =
    TransactionId([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);

#[test]
fn sample_request_2_1() {
    let message = Message::parse(REQUEST).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Request, Method::BINDING));
    assert_eq!(message.transaction_id(), ID);
    assert_eq!(message.get_str(attr::SOFTWARE), Some("STUN test client"));
    assert_eq!(message.get_str(attr::USERNAME), Some("evtj:h6vY"));
    assert_eq!(message.get_u32(0x0024), Some(0x6e00_01ff));
    assert!(message.has_integrity(PASSWORD));
    assert!(!message.has_integrity(b"another"));
    assert!(message.has_fingerprint());
    let known = [attr::USERNAME, attr::MESSAGE_INTEGRITY];
    assert_eq!(message.unknown_required(&known).collect::<Vec<_>>(), [0x0024]);
}

#[test]
fn sample_responses_2_2_and_2_3() {
    let cases = [
        (RESPONSE_IPV4, "192.0.2.1:32853"),
        (RESPONSE_IPV6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ];
    for (bytes, address) in cases {
        let message = Message::parse(bytes).unwrap();
        assert_eq!((message.class(), message.method()), (Class::Success, Method::BINDING));
        assert_eq!(message.transaction_id(), ID);
        assert_eq!(message.get_str(attr::SOFTWARE), Some("test vector"));
        let address: SocketAddr = address.parse().unwrap();
        assert_eq!(message.get_xor_address(attr::XOR_MAPPED_ADDRESS), Some(address));
        assert!(message.has_integrity(PASSWORD) && message.has_fingerprint());

        // The vectors pad with spaces, we with zeros: the address must come out the same.
        let mut buffer = [0; 64];
        let len = Builder::new(&mut buffer, Class::Success, Method::BINDING, ID)
            .xor_address(attr::XOR_MAPPED_ADDRESS, address)
            .finish()
            .unwrap();
        assert_eq!(buffer[20..len], bytes[36..36 + len - 20]);
    }
}

#[test]
fn sample_request_with_long_term_authentication_2_4() {
    // The password as OpaqueString leaves it.
    let (username, realm) = ("マトリックス", "example.org");
    let key = long_term_key(username, realm, "TheMatrIX");
    let message = Message::parse(LONG_TERM_REQUEST).unwrap();
    assert_eq!(message.get_str(attr::USERNAME), Some(username));
    assert_eq!(message.get_str(attr::REALM), Some(realm));
    assert_eq!(message.get_str(attr::NONCE), Some("f//499k954d6OL34oL9FSTvy64sA"));
    assert!(message.has_integrity(&key));
    assert!(!message.has_integrity(&long_term_key(username, realm, "TheMatrix")));

    let mut buffer = [0xee; 200];
    let id = message.transaction_id();
    let len = Builder::new(&mut buffer, Class::Request, Method::BINDING, id)
        .attribute(attr::USERNAME, username.as_bytes())
        .attribute(attr::NONCE, b"f//499k954d6OL34oL9FSTvy64sA")
        .attribute(attr::REALM, realm.as_bytes())
        .integrity(&key)
        .finish();
    assert_eq!(&buffer[..len.unwrap()], LONG_TERM_REQUEST);
}

#[test]
fn any_changed_bit_is_noticed() {
    for i in 0..REQUEST.len() * 8 {
        let mut bytes = REQUEST.to_vec();
        bytes[i / 8] ^= 1 << (i % 8);
        let whole = Message::parse(&bytes)
            .is_some_and(|m| m.has_integrity(PASSWORD) && m.has_fingerprint());
        assert!(!whole, "bit {i}");
    }
}

#[test]
fn what_follows_the_integrity_check_does_not_count() {
    let mut buffer = [0; 200];
    let len = Builder::new(&mut buffer, Class::Request, Method::REFRESH, ID)
        .integrity(b"key")
        .u32(attr::LIFETIME, 0)
        .integrity_sha256(b"key")
        .fingerprint()
        .finish()
        .unwrap();
    let message = Message::parse(&buffer[..len]).unwrap();
    assert_eq!(message.get(attr::LIFETIME), None);
    assert!(message.has_integrity(b"key"));
    assert!(message.has_integrity_sha256(b"key") && !message.has_integrity_sha256(b"yek"));
    assert!(message.has_fingerprint());
}

#[test]
fn error_codes_and_types_survive_the_round_trip() {
    let methods = [Method::BINDING, Method::CHANNEL_BIND, Method(0xABC), Method(0xFFF)];
    let classes = [Class::Request, Class::Indication, Class::Success, Class::Error];
    for (method, class) in methods.iter().flat_map(|m| classes.iter().map(move |c| (*m, *c))) {
        let mut buffer = [0; 200];
        let len = Builder::new(&mut buffer, class, method, ID)
            .error(438, "Stale Nonce")
            .channel_number(0x4001)
            .finish()
            .unwrap();
        let message = Message::parse(&buffer[..len]).unwrap();
        assert_eq!((message.class(), message.method()), (class, method));
        let error = message.error_code().unwrap();
        assert_eq!((error.code, error.reason), (438, &b"Stale Nonce"[..]));
        assert_eq!(message.get(attr::CHANNEL_NUMBER), Some(&[0x40, 1, 0, 0][..]));
    }
}

#[test]
fn a_value_may_be_sent_from_elsewhere() {
    for len in [0, 1, 2, 3, 4, 1200] {
        let value = vec![7; len];
        let peer = "192.0.2.1:9".parse().unwrap();
        let (mut whole, mut head) = ([0; 1300], [0; 48]);
        let start = |buffer| {
            Builder::new(buffer, Class::Indication, Method::DATA, ID)
                .xor_address(attr::XOR_PEER_ADDRESS, peer)
        };
        let end = start(&mut whole[..]).attribute(attr::DATA, &value).finish().unwrap();
        let (head_len, padding) =
            start(&mut head[..]).finish_before_value(attr::DATA, len).unwrap();
        let sent = [&head[..head_len], &value, &[0; 3][..padding]].concat();
        assert_eq!(sent, &whole[..end]);
    }
    let mut head = [0; 48];
    let message = Builder::new(&mut head, Class::Indication, Method::DATA, ID);
    assert_eq!(message.finish_before_value(attr::DATA, 65_530), None);
}

#[test]
fn nothing_is_written_past_the_buffer() {
    for size in 0..64 {
        let mut buffer = vec![0; size];
        let written = Builder::new(&mut buffer, Class::Request, Method::BINDING, ID)
            .attribute(attr::SOFTWARE, b"seven b")
            .integrity(b"key")
            .fingerprint()
            .finish();
        assert_eq!(written, None, "{size} bytes cannot hold 64");
    }
    let mut large = vec![0; 200_000];
    let written = Builder::new(&mut large, Class::Request, Method::BINDING, ID)
        .attribute(attr::DATA, &vec![1; 70_000])
        .finish();
    assert_eq!(written, None);
}

#[test]
fn no_input_makes_the_parser_panic() {
    let mut seed = 7u32;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        seed
    };
    for vector in [REQUEST, RESPONSE_IPV4, RESPONSE_IPV6, LONG_TERM_REQUEST] {
        for cut in 0..vector.len() {
            exercise(&vector[..cut]);
        }
        for _ in 0..20_000 {
            let mut bytes = vector.to_vec();
            for _ in 0..1 + random() % 4 {
                let at = random() as usize % bytes.len();
                bytes[at] = random() as u8;
            }
            let keep = bytes.len() & !(random() as usize & 3);
            bytes.truncate(keep);
            exercise(&bytes);
        }
    }
}

fn exercise(bytes: &[u8]) {
    let _ = (Message::looks_like(bytes), channel_data::parse(bytes));
    let Some(message) = Message::parse(bytes) else { return };
    let _ = (message.class(), message.method(), message.error_code());
    let _ = (message.has_integrity(PASSWORD), message.has_fingerprint());
    let _ = message.has_integrity_sha256(PASSWORD);
    for attribute in message.attributes() {
        let _ = message.decode_xor_address(attribute.value);
        assert!(attribute.offset + 4 + attribute.value.len() <= bytes.len());
    }
}
