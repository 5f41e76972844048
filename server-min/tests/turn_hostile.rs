//! What strangers can make the relay do: nothing that grows, nothing that amplifies, no panic. And
//! what its own clients make it do per packet: no allocation.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod turn_support;

use sdk_core::wire::stun::attribute as attr;
use sdk_core::wire::stun::{Builder, Class, Message, Method, TransactionId, channel_data};
use server_min::stun_turn::core::{Action, Client};
use server_min::stun_turn::{MAX_REPLY_LEN, Opened, RelayId, RelayPorts, TurnConfig};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use turn_support::{Attr, Lab, User, channel, config, even_port, peer, plain, request, udp};

/// Counts what this thread allocates and keeps.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

// SAFETY: everything is the system allocator's; the counters are plain cells.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        LIVE.set(LIVE.get() + layout.size() as i64);
        // SAFETY: as our caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - layout.size() as i64);
        // SAFETY: as our caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What there is, and one that there is not.
const METHODS: [Method; 7] = [
    Method::BINDING,
    Method::ALLOCATE,
    Method::REFRESH,
    Method::CREATE_PERMISSION,
    Method::CHANNEL_BIND,
    Method::SEND,
    Method(0x7FF),
];

/// Requests of the flood. TURN_FLOOD=10000000 takes a minute or two.
const FLOOD: u32 = 1_000_000;

/// IPv4 and UDP headers, which both directions carry.
const PACKET_OVERHEAD: usize = 28;

/// Each from an address that nobody had before.
#[test]
fn a_flood_of_strangers_leaves_nothing() {
    let flood = std::env::var("TURN_FLOOD").map_or(FLOOD, |text| text.parse().unwrap());
    let mut lab = Lab::new(config());
    let mut user = User::of_session("7c9e", "203.0.113.5:5000");
    let mut requests = Vec::new();
    for method in METHODS {
        let id = lab.next_id();
        requests.push(plain(method, id, &[]));
        requests.push(plain(method, id, &[udp()]));
        requests.push(plain(method, id, &[Attr::Bytes(0x7FFE, vec![0; 4])]));
        // With credentials that would be good, if only the nonce were this address's.
        requests.push(request(&user, method, id, &[udp()]));
    }
    requests.push(channel_data::header(0x4000, 0).to_vec());
    user.password = "wrong".into();

    let mut reply = [0; MAX_REPLY_LEN];
    let (live, mut answered) = (LIVE.get(), 0);
    for i in 0..flood {
        let bytes = &requests[i as usize % requests.len()];
        let address = (Ipv4Addr::from(0x0100_0000 + i), 1024 + (i % 60_000) as u16);
        let client = Client { listener: 0, address: address.into() };
        let action = lab.core.handle_client(lab.now, client, bytes, &mut lab.ports, &mut reply);
        answered += u32::from(matches!(action, Action::Reply { .. }));
        if i % 100 == 0 {
            // One that goes as far as a nonce of its own.
            user.client = client;
            user.nonce.clear();
            assert_eq!(lab.allocate(&mut user).code, 401);
        }
    }
    user.nonce = Vec::new();
    assert!(answered > flood / 2);
    assert_eq!(LIVE.get(), live, "bytes kept after {flood} requests");
    assert_eq!((lab.core.allocations(), lab.ports.open.len()), (0, 0));
    assert_eq!((lab.core.poll_timeout(), lab.core.poll_event()), (None, None));
}

#[test]
fn no_answer_is_longer_than_twice_the_request() {
    let mut random = Random(1);
    let mut longest = (0, 0, 0);
    // The default realm, and the longest there may be.
    for realm in ["p2pcam", "abcdefghijklmnopqrstuvwxyz0123456789"] {
        let mut lab = Lab::new(TurnConfig { realm: realm.into(), ..config() });
        assert_eq!(TurnConfig { realm: realm.into(), ..config() }.check(), Ok(()));
        for i in 0..50_000 {
            let address = ["203.0.113.5:5000", "[2001:db8::5]:5000"][i % 2];
            let mut user = User::of_session("s", address);
            user.client.listener = (i % 2) as u16;
            let bytes = any_request(&mut lab, &mut user, &mut random);
            let Some(answer) = lab.raw(user.client, &bytes) else { continue };
            let (sent, received) = (answer.bytes.len(), bytes.len());
            let on_wire = (sent + PACKET_OVERHEAD, received + PACKET_OVERHEAD);
            assert!(on_wire.0 <= 2 * on_wire.1, "{sent} bytes for {received}: {answer:?}");
            // Without the headers it holds as well, but for what cannot be shorter: an IPv6 address in
            // answer to a bare Binding, and the nonce behind a long realm.
            let bare_binding = address.starts_with('[') && received == 20 && sent == 44;
            let long_realm = realm.len() > 8 && answer.message().get(attr::REALM).is_some();
            assert!(
                sent <= 2 * received || bare_binding || long_realm,
                "{sent} bytes for {received}: {answer:?}"
            );
            if sent * longest.1 > longest.0 * received || longest.1 == 0 {
                longest = (sent, received, answer.code);
            }
        }
    }
    println!("the most: {} bytes for {}, code {}", longest.0, longest.1, longest.2);
}

/// With or without credentials, complete or cut down to nothing; good ones are rare.
fn any_request(lab: &mut Lab, user: &mut User, random: &mut Random) -> Vec<u8> {
    let method = METHODS[random.below(METHODS.len() as u32) as usize];
    let kinds = [
        attr::USERNAME,
        attr::MESSAGE_INTEGRITY,
        attr::MESSAGE_INTEGRITY_SHA256,
        attr::LIFETIME,
        attr::XOR_PEER_ADDRESS,
        attr::REALM,
        attr::NONCE,
        attr::REQUESTED_TRANSPORT,
        attr::REQUESTED_ADDRESS_FAMILY,
        attr::EVEN_PORT,
        0x7FFE,
        0x8022,
    ];
    let attributes: Vec<Attr> = (0..random.below(6))
        .map(|_| {
            let kind = kinds[random.below(kinds.len() as u32) as usize];
            Attr::Bytes(kind, vec![1; random.below(9) as usize])
        })
        .collect();
    let id = lab.next_id();
    match random.below(4) {
        0 => {
            // Good to the nonce: what is answered to those who are proven.
            user.nonce.clear();
            let first = plain(Method::ALLOCATE, id, &[udp()]);
            let challenge = lab.raw(user.client, &first).unwrap();
            let message = challenge.message();
            if let Some(nonce) = message.get(attr::NONCE) {
                user.nonce = nonce.to_vec();
            }
            request(user, method, id, &[&[udp()], &attributes[..]].concat())
        }
        1 => {
            user.nonce = vec![b'x'; random.below(20) as usize];
            request(user, method, id, &attributes)
        }
        2 => {
            let mut buffer = [0; 512];
            let builder = Builder::new(&mut buffer, Class::Request, method, id);
            let len = builder.fingerprint().finish().unwrap();
            buffer[..len].to_vec()
        }
        _ => plain(method, id, &attributes),
    }
}

/// Ideas of coturn's own fuzzers (fuzzing/*.c): lengths that lie, attributes that run over, numbers
/// that are no channels, and protocols that come to the wrong port.
#[test]
fn malformed_packets_do_nothing() {
    let mut lab = Lab::new(config());
    let mut user = User::of_session("7c9e", "203.0.113.5:5000");
    lab.allocate(&mut user);
    assert_eq!(lab.bind(&mut user, 0x4000, "198.51.100.9:4000"), 0);
    let good = request(&user, Method::REFRESH, lab.next_id(), &[]);
    let with_len = |len: usize| {
        let mut bytes = good.clone();
        bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        bytes
    };
    let header = |kind: u16, len: u16| [kind.to_be_bytes(), len.to_be_bytes()].concat();
    // A request with these attributes, as they are.
    let stun = |attributes: &[u8]| {
        let mut bytes = plain(Method::ALLOCATE, sdk_core::wire::stun::TransactionId([1; 12]), &[]);
        bytes[2..4].copy_from_slice(&(attributes.len() as u16).to_be_bytes());
        bytes.extend_from_slice(attributes);
        bytes
    };
    let body = good.len() - 20;
    let mut cases: Vec<Vec<u8>> = vec![
        vec![],
        vec![0],
        vec![0xFF; 1500],
        good[..19].to_vec(),
        good[..good.len() - 4].to_vec(),
        [&good[..], &[0; 4]].concat(),
        [&good[..], &good[..]].concat(),
        with_len(body - 4),
        with_len(body + 4),
        with_len(body + 1),
        with_len(0),
        with_len(0xFFFC),
        with_len(0xFFFF),
        // An attribute that says more than there is, by one, by much, and by its padding.
        stun(&header(attr::USERNAME, 1)),
        stun(&[header(attr::USERNAME, 5), vec![0; 4]].concat()),
        stun(&header(attr::USERNAME, 0xFFFF)),
        stun(&[header(attr::NONCE, 0xFFFD), vec![0; 8]].concat()),
        stun(&[header(attr::LIFETIME, 4), vec![0; 4], header(attr::DATA, 4)].concat()),
        // Less than an attribute's header.
        [&stun(&[0; 2])[..]].concat(),
        // The first two bits, and the cookie.
        [&[0x80], &good[1..]].concat(),
        [&[0xC0], &good[1..]].concat(),
        [&good[..4], &[0; 4], &good[8..]].concat(),
        // ChannelData that is shorter than it says, and numbers that are none.
        channel_data::header(0x4000, 1).to_vec(),
        channel_data::header(0x4000, 0xFFFF).to_vec(),
        channel_data::header(0x4000, 0xFFFC).to_vec(),
        channel_data::header(0x8000, 0).to_vec(),
        channel_data::header(0x3FFF, 0).to_vec(),
        channel_data::header(0x4000, 0)[..3].to_vec(),
        // A message of STUN over TCP, with its length in front of it (RFC 4571).
        [&(good.len() as u16).to_be_bytes()[..], &good].concat(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        // The beginnings of TLS, DTLS and RTP.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"\x16\xfe\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10".to_vec(),
        b"\x80\x60\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01payload".to_vec(),
    ];
    // STUN within STUN: as an attribute it is only bytes.
    let nested = stun(&[header(attr::DATA, good.len() as u16), good.clone()].concat());
    // Answers and indications that no client sends.
    for message_type in [0x0101u16, 0x0111, 0x0103, 0x0113, 0x0017, 0x0013, 0x3FFF] {
        let mut bytes = good.clone();
        bytes[..2].copy_from_slice(&message_type.to_be_bytes());
        cases.push(bytes);
    }
    let (live, before) = (LIVE.get(), lab.core.stats());
    for bytes in &cases {
        assert_eq!(lab.raw(user.client, bytes), None, "{bytes:02x?}");
    }
    assert_eq!(LIVE.get(), live);
    let after = lab.core.stats();
    assert_eq!(
        (after.requests_ok, after.requests_refused),
        (before.requests_ok, before.requests_refused)
    );
    assert_eq!(after.packets_relayed, 0);
    let counted = after.packets_malformed + after.packets_denied
        - before.packets_malformed
        - before.packets_denied;
    assert_eq!(counted, cases.len() as u64, "each is counted");
    assert_eq!(lab.raw(user.client, &nested).unwrap().code, 401, "and does not prove anything");
    assert_eq!(lab.core.allocations(), 1);
    // The channel still works, also with an odd length and without padding.
    let odd = [&channel_data::header(0x4000, 5)[..], b"media"].concat();
    let mut reply = [0; MAX_REPLY_LEN];
    for bytes in [odd.clone(), [&odd[..], &[0; 3]].concat()] {
        let action =
            lab.core.handle_client(lab.now, user.client, &bytes, &mut lab.ports, &mut reply);
        assert!(matches!(action, Action::ToPeer { payload: b"media", .. }));
    }
}

/// What the relay itself keeps, without the kernel's sockets.
#[test]
fn an_allocation_keeps_less_than_a_kilobyte() {
    const COUNT: usize = 5000;
    let mut lab = Lab::new(config());
    let mut ports = NoPorts;
    let mut reply = [0; MAX_REPLY_LEN];
    let mut users: Vec<User> = (0..COUNT)
        .map(|i| {
            // As long as a real one.
            let session = format!("550e8400-e29b-41d4-a716-{i:012}");
            User::of_session(&session, &format!("203.0.113.5:{}", 5000 + i))
        })
        .collect();
    for user in &mut users {
        let challenge =
            lab.raw(user.client, &plain(Method::ALLOCATE, lab_id(1), &[udp()])).unwrap();
        user.nonce = challenge.message().get(attr::NONCE).unwrap().to_vec();
    }
    let live = LIVE.get();
    for user in &users {
        for (method, attributes) in [
            (Method::ALLOCATE, vec![udp()]),
            (Method::CREATE_PERMISSION, vec![peer("198.51.100.8:4000")]),
            (Method::CHANNEL_BIND, vec![channel(0x4000), peer("198.51.100.9:4000")]),
        ] {
            let bytes = request(user, method, lab_id(2), &attributes);
            let action =
                lab.core.handle_client(lab.now, user.client, &bytes, &mut ports, &mut reply);
            let Action::Reply { len } = action else { panic!("no answer") };
            assert!(Message::parse(&reply[..len]).unwrap().error_code().is_none());
        }
        while lab.core.poll_event().is_some() {}
    }
    let each = (LIVE.get() - live) / COUNT as i64;
    println!("heap_per_allocation_bytes {each}");
    assert!(each < 1024, "{each} bytes for each allocation");
    assert_eq!(lab.core.allocations(), COUNT);
}

fn lab_id(number: u8) -> TransactionId {
    TransactionId([number; 12])
}

/// Sockets that nothing is kept for.
struct NoPorts;

impl RelayPorts for NoPorts {
    fn open(&mut self, _: RelayId, _: SocketAddr) -> Opened {
        Opened::Here
    }

    fn close(&mut self, _: RelayId) {}
}

#[test]
fn relaying_allocates_nothing() {
    let mut lab = Lab::new(config());
    let mut user = User::of_session("7c9e", "203.0.113.5:5000");
    let relayed = lab.allocate(&mut user).relayed();
    let (channel_peer, plain_peer) = ("198.51.100.9:4000", "198.51.100.8:4000");
    assert_eq!(lab.bind(&mut user, 0x4000, channel_peer), 0);
    assert_eq!(lab.permit(&mut user, plain_peer), 0);
    let relay = lab.ports.open[&relayed];
    let peers: [SocketAddr; 2] = [channel_peer, plain_peer].map(|p| p.parse().unwrap());
    let mut by_channel = channel_data::header(0x4000, 100).to_vec();
    by_channel.extend([0; 100]);
    let mut indication = [0; 200];
    let len = Builder::new(&mut indication, Class::Indication, Method::SEND, lab.next_id())
        .xor_address(attr::XOR_PEER_ADDRESS, peers[1])
        .attribute(attr::DATA, &[0; 100])
        .finish()
        .unwrap();
    let mut reply = [0; MAX_REPLY_LEN];

    let before = CALLS.get();
    for _ in 0..1000 {
        for bytes in [&by_channel, &indication[..len]] {
            let action =
                lab.core.handle_client(lab.now, user.client, bytes, &mut lab.ports, &mut reply);
            assert!(matches!(action, Action::ToPeer { .. }));
        }
        for peer in peers {
            assert!(lab.core.handle_peer(lab.now, relay, peer, 100).is_some());
        }
    }
    assert_eq!(CALLS.get() - before, 0);
}

#[test]
fn any_sequence_of_operations_leaves_the_books_balanced() {
    for seed in 1..=30 {
        let mut random = Random(seed);
        let mut limits = config();
        limits.allocations_per_session = 4;
        limits.allocations_total = 12;
        limits.min_port = 50_000;
        limits.max_port = 50_015;
        let mut lab = Lab::new(limits);
        let mut users: Vec<User> = (0..12)
            .map(|i| User::of_session(&format!("s{}", i % 4), &format!("203.0.113.5:{}", 5000 + i)))
            .collect();
        for _ in 0..500 {
            let user = random.below(users.len() as u32) as usize;
            step(&mut lab, &mut users[user], &mut random);
            assert!(lab.core.allocations() <= lab.ports.open.len());
            assert!(lab.ports.open.len() <= 12);
        }
        lab.wait(std::time::Duration::from_secs(4000));
        assert_eq!((lab.core.allocations(), lab.ports.open.len()), (0, 0), "seed {seed}");
        assert_eq!(lab.core.poll_timeout(), None);
        let events: Vec<_> = std::iter::from_fn(|| lab.core.poll_event()).collect();
        assert!(events.len().is_multiple_of(2), "each creation has its end");
    }
}

fn step(lab: &mut Lab, user: &mut User, random: &mut Random) {
    let peer = SocketAddr::from(([198, 51, 100, random.below(4) as u8], random.below(3) as u16));
    match random.below(12) {
        0 | 1 => {
            let flags = [0x80u8, 0x00][random.below(2) as usize];
            lab.call(user, Method::ALLOCATE, &[udp(), even_port(flags)]);
        }
        2 => drop(lab.allocate(user)),
        3 => drop(lab.refresh(user, [0, 600, 3600][random.below(3) as usize])),
        4 => drop(lab.permit(user, &peer.to_string())),
        5 => drop(lab.bind(user, 0x4000 + random.below(3) as u16, &peer.to_string())),
        6 => {
            // A closed session stays closed, so its client goes on in another one.
            lab.core.close_session(&user.username, &mut lab.ports);
            let session = format!("s{}", random.below(1000));
            *user = User::of_session(&session, &user.client.address.to_string());
        }
        7 => lab.wait(std::time::Duration::from_secs(random.below(400).into())),
        8 => drop(lab.send_by_channel(user.client, 0x4000 + random.below(3) as u16)),
        9 => {
            let id = RelayId(random.below(16));
            lab.core.handle_peer(lab.now, id, peer, random.below(70_000) as usize);
        }
        _ => {
            // A good request with some bytes changed.
            let method = [Method::ALLOCATE, Method::REFRESH, Method::CHANNEL_BIND];
            let method = method[random.below(3) as usize];
            let mut bytes = request(user, method, lab.next_id(), &[udp()]);
            for _ in 0..random.below(4) {
                let at = random.below(bytes.len() as u32) as usize;
                bytes[at] = random.below(256) as u8;
            }
            lab.raw(user.client, &bytes);
        }
    }
}

/// xorshift: the same sequence for the same seed.
struct Random(u32);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % limit
    }
}
