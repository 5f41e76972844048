//! What strangers can make the relay do: nothing that grows, nothing that amplifies, no panic. And
//! what its own clients make it do per packet: no allocation.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod turn_support;

use sdk_core::wire::stun::attribute as attr;
use sdk_core::wire::stun::{Builder, Class, Method, channel_data};
use server_min::stun_turn::core::{Action, Client};
use server_min::stun_turn::{MAX_REPLY_LEN, RelayId};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use turn_support::{Attr, Lab, User, config, even_port, plain, request, udp};

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

/// IPv4 and UDP headers, which both directions carry.
const PACKET_OVERHEAD: usize = 28;

#[test]
fn a_flood_of_strangers_leaves_nothing_and_gains_little() {
    let mut lab = Lab::new(config());
    let user = User::of_session("7c9e", "203.0.113.5:5000");
    let methods = [
        Method::BINDING,
        Method::ALLOCATE,
        Method::REFRESH,
        Method::CREATE_PERMISSION,
        Method::CHANNEL_BIND,
        Method::SEND,
        Method(0x7FF),
    ];
    let mut requests = Vec::new();
    for method in methods {
        let id = lab.next_id();
        requests.push(plain(method, id, &[]));
        requests.push(plain(method, id, &[udp()]));
        requests.push(plain(method, id, &[Attr::Bytes(0x7FFE, vec![0; 4])]));
        // With credentials that would be good, if only the nonce were this address's.
        requests.push(request(&user, method, id, &[udp()]));
    }
    requests.push(channel_data::header(0x4000, 0).to_vec());

    let mut reply = [0; MAX_REPLY_LEN];
    let (live, mut answered) = (LIVE.get(), 0);
    for i in 0..200_000u32 {
        let bytes = &requests[i as usize % requests.len()];
        let port = 1024 + (i % 60_000) as u16;
        let ip = Ipv4Addr::from(0xCB00_7100 | (i >> 8));
        let client = Client { listener: 0, address: SocketAddr::from((ip, port)) };
        let action = lab.core.handle_client(lab.now, client, bytes, &mut lab.ports, &mut reply);
        if let Action::Reply { len } = action {
            answered += 1;
            let (sent, received) = (len + PACKET_OVERHEAD, bytes.len() + PACKET_OVERHEAD);
            assert!(sent <= 2 * received, "{len} bytes for {}", bytes.len());
        }
    }
    assert!(answered > 100_000);
    assert_eq!(LIVE.get(), live, "bytes kept");
    assert_eq!((lab.core.allocations(), lab.ports.open.len()), (0, 0));
    assert_eq!((lab.core.poll_timeout(), lab.core.poll_event()), (None, None));

    let client = Client { listener: 1, address: (Ipv6Addr::LOCALHOST, 9).into() };
    let Action::Reply { len } =
        lab.core.handle_client(lab.now, client, &requests[0], &mut lab.ports, &mut reply)
    else {
        panic!("Binding is answered")
    };
    assert!(len + 48 <= 2 * (requests[0].len() + 48), "over IPv6");
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
        6 => drop(lab.core.close_session(&format!("s{}", random.below(4)), &mut lab.ports)),
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
