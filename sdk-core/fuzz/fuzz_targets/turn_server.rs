//! The TURN server's core: two shards of one relay live through a sequence of operations, of clients
//! with good credentials, of strangers, of peers, and of the clock.
#![no_main]

#[path = "../../../server-min/tests/turn_support/mod.rs"]
mod turn_support;

use libfuzzer_sys::fuzz_target;
use sdk_core::wire::stun::{Method, channel_data};
use server_min::stun_turn::core::Action;
use server_min::stun_turn::{MAX_REPLY_LEN, RelayId, TurnConfig};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use turn_support::{
    Attr, Lab, SECRET, User, channel, config, even_port, family, lifetime, peer, plain, request, udp,
};

const METHODS: [Method; 5] = [
    Method::ALLOCATE,
    Method::REFRESH,
    Method::CREATE_PERMISSION,
    Method::CHANNEL_BIND,
    Method::BINDING,
];
const PEERS: [&str; 6] = [
    "198.51.100.9:4000",
    "198.51.100.8:4000",
    "10.0.0.1:4000",
    "192.0.2.1:3478",
    "[2001:db8::9]:4000",
    "[::ffff:10.0.0.1]:4000",
];
const TOTAL: usize = 5;

fuzz_target!(|data: &[u8]| {
    let limits = TurnConfig {
        allocations_per_session: 3,
        allocations_total: TOTAL,
        min_port: 50_000,
        max_port: 50_007,
        bandwidth_burst_bytes: 4096,
        ..config()
    };
    let mut labs = Lab::shards(limits, &["192.0.2.1:3478", "[2001:db8::1]:3478"], 2);
    let mut users: Vec<User> = ["a", "a:100", "b"]
        .iter()
        .enumerate()
        .map(|(i, name)| User::of_session(name, &format!("203.0.113.5:{}", 5000 + i)))
        .collect();
    let mut input = Input(data);
    while let Some(operation) = input.byte() {
        // A client's datagrams come to the same shard again, as the kernel shares them out.
        let who = input.below(users.len());
        let (lab, user) = (&mut labs[who % 2], &mut users[who]);
        step(operation, &mut input, lab, user);
        let open: usize = labs.iter().map(|lab| lab.ports.open.len()).sum();
        let allocations: usize = labs.iter().map(|lab| lab.core.allocations()).sum();
        assert_eq!(open, allocations);
        assert!(open <= TOTAL);
    }
    for lab in &mut labs {
        lab.wait(Duration::from_secs(4000));
        assert_eq!((lab.core.allocations(), lab.ports.open.len()), (0, 0));
        assert_eq!(lab.core.poll_timeout(), None);
    }
    // Everything is there again.
    lab_is_whole(&mut labs[0]);
});

fn step(operation: u8, input: &mut Input, lab: &mut Lab, user: &mut User) {
    match operation % 12 {
        0 => allocate(lab, user, &[udp()]),
        1 => allocate(lab, user, &[udp(), even_port(input.pick(&[0x80, 0]))]),
        2 => allocate(lab, user, &[udp(), family(input.pick(&[1, 2, 3]))]),
        3 => drop(lab.refresh(user, input.pick(&[0, 1, 600, 3600]))),
        4 => {
            lab.permit(user, input.pick(&PEERS));
        }
        5 => {
            let number = 0x4000 + u16::from(input.byte().unwrap_or(0) % 4);
            lab.bind(user, number, input.pick(&PEERS));
        }
        // A request with all kinds of attributes, and then with some of its bytes changed.
        6 => {
            let attributes: Vec<Attr> = (0..input.below(4)).map(|_| attribute(input)).collect();
            let method = input.pick(&METHODS);
            let id = lab.next_id();
            let mut bytes = match input.byte() {
                Some(0..128) => request(user, method, id, &attributes),
                _ => plain(method, id, &attributes),
            };
            for _ in 0..input.below(4) {
                let at = input.below(bytes.len());
                bytes[at] = input.byte().unwrap_or(0);
            }
            datagram(lab, user, &bytes);
        }
        7 => {
            let len = input.below(64);
            let bytes = input.take(len).to_vec();
            datagram(lab, user, &bytes);
        }
        8 => {
            let (number, len) = (0x4000 + input.below(4) as u16, input.below(256));
            let mut bytes = channel_data::header(number, len as u16).to_vec();
            bytes.resize(4 + input.below(260), 7);
            datagram(lab, user, &bytes);
        }
        9 => {
            let id = RelayId(input.below(8) as u32);
            let from: SocketAddr = input.pick(&PEERS).parse().unwrap();
            let len = input.below(256) * 300;
            if let Some(out) = lab.core.handle_peer(lab.now, id, from, len) {
                assert!(out.prefix().len() <= 48 && out.padding < 4);
            }
        }
        10 => lab.wait(Duration::from_secs(input.pick(&[0, 1, 29, 301, 601, 3601]))),
        _ => match input.byte().unwrap_or(0) % 3 {
            0 => {
                // A closed session stays closed; its client goes on in another one.
                lab.core.close_session(&user.username, &mut lab.ports);
                let session = input.pick(&["a", "b", "c", "d:100", "e:", ""]);
                *user = User::of_session(session, &user.client.address.to_string());
            }
            1 => lab.shared.secrets.replace(&[b"another".to_vec()]).unwrap(),
            _ => lab.shared.secrets.replace(&[SECRET.to_vec()]).unwrap(),
        },
    }
}

fn allocate(lab: &mut Lab, user: &mut User, attributes: &[Attr]) {
    let answer = lab.call(user, Method::ALLOCATE, attributes);
    assert!([0, 401, 403, 437, 440, 486, 508].contains(&answer.code), "{}", answer.code);
}

fn attribute(input: &mut Input) -> Attr {
    match input.byte().unwrap_or(0) % 8 {
        0 => udp(),
        1 => lifetime(input.pick(&[0, 600, u32::MAX])),
        2 => peer(input.pick(&PEERS)),
        3 => channel(0x3FFF + input.below(5) as u16),
        4 => family(input.byte().unwrap_or(0)),
        5 => even_port(input.byte().unwrap_or(0)),
        _ => {
            let kind = u16::from_be_bytes([input.byte().unwrap_or(0) & 0x80, input.byte().unwrap_or(0)]);
            let len = input.below(24);
            Attr::Bytes(kind, input.take(len).to_vec())
        }
    }
}

/// What must hold whatever comes.
fn datagram(lab: &mut Lab, user: &User, bytes: &[u8]) {
    let mut reply = [0; MAX_REPLY_LEN];
    match lab.core.handle_client(lab.now, user.client, bytes, &mut lab.ports, &mut reply) {
        Action::None => {}
        Action::Reply { len } => assert!(len <= 2 * bytes.len(), "{len} bytes for {}", bytes.len()),
        Action::ToPeer { peer, payload, .. } => {
            assert!(payload.len() <= bytes.len());
            assert!(!matches!(peer.ip(), IpAddr::V4(ip) if ip.is_private()), "{peer}");
            assert_ne!(peer, SocketAddr::from(([192, 0, 2, 1], 3478)));
        }
        Action::Bound { .. } | Action::OfShard(_) => panic!("peers by TCP are for streams"),
    }
}

fn lab_is_whole(lab: &mut Lab) {
    lab.shared.secrets.replace(&[SECRET.to_vec()]).unwrap();
    for i in 0..TOTAL {
        let mut user = User::of_session(&format!("last{i}"), &format!("203.0.113.9:{i}"));
        user.username = format!("{}:last{i}", lab.now.unix_s + 60);
        user.password = server_min::stun_turn::password_for(SECRET, &user.username);
        assert_eq!(lab.allocate(&mut user).code, 0);
    }
}

/// The bytes that are left.
struct Input<'d>(&'d [u8]);

impl<'d> Input<'d> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte().unwrap_or(0)) % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn take(&mut self, len: usize) -> &'d [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
