//! The server's core in virtual time: who is let in, what is kept, and for how long.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod turn_support;

use sdk_core::wire::stun::attribute as attr;
use sdk_core::wire::stun::{Builder, Class, Message, Method, channel_data};
use server_min::stun_turn::core::{Client, CoreEvent};
use server_min::stun_turn::{TurnConfig, password_for};
use std::net::SocketAddr;
use std::time::Duration;
use turn_support::{
    Attr, Lab, UNIX_START_S, User, config, even_port, family, lifetime, peer, plain, request, tcp,
    udp,
};

const PEER: &str = "198.51.100.9:4000";

fn user() -> User {
    User::of_session("7c9e", "203.0.113.5:5000")
}

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

#[test]
fn anyone_learns_their_address() {
    let mut lab = Lab::new(config());
    for address in ["203.0.113.5:5000", "[2001:db8::5]:5000"] {
        let client = Client { listener: 0, address: address.parse().unwrap() };
        let mut buffer = [0; 64];
        let id = lab.next_id();
        let len = Builder::new(&mut buffer, Class::Request, Method::BINDING, id)
            .fingerprint()
            .finish()
            .unwrap();
        let answer = lab.raw(client, &buffer[..len]).unwrap();
        let mapped = answer.message().get_xor_address(attr::XOR_MAPPED_ADDRESS);
        assert_eq!((mapped, answer.code), (Some(client.address), 0));
        assert!(answer.message().has_fingerprint(), "as in the request");
    }
    assert_eq!(lab.core.stats().bindings_ok, 2);
}

#[test]
fn attributes_that_must_be_understood_are_listed() {
    let mut lab = Lab::new(config());
    let unknown = [0x0003, 0x8003, 0x7FFE].map(|kind| Attr::Bytes(kind, vec![0; 4]));
    let bytes = plain(Method::BINDING, lab.next_id(), &unknown);
    let answer = lab.raw(user().client, &bytes).unwrap();
    assert_eq!(answer.code, 420);
    let listed = answer.message().get(attr::UNKNOWN_ATTRIBUTES);
    assert_eq!(listed, Some(&[0x00, 0x03, 0x7F, 0xFE][..]));
    let code = lab.call(&mut user(), Method::ALLOCATE, &[udp(), Attr::Bytes(0x7FFE, vec![])]).code;
    assert_eq!(code, 420);
}

#[test]
fn credentials_are_time_limited_and_any_secret_is_good() {
    let secrets = vec![b"new".to_vec(), b"old".to_vec()];
    let mut lab = Lab::new(TurnConfig { secrets, ..TurnConfig::default() });
    for (i, (secret, expiry, expected)) in [
        (&b"new"[..], UNIX_START_S + 1, 0),
        (b"old", UNIX_START_S, 0),
        (b"older", UNIX_START_S + 1, 401),
        (b"new", UNIX_START_S - 1, 401),
    ]
    .into_iter()
    .enumerate()
    {
        let mut user = User::of_session("s", &format!("203.0.113.5:{}", 5000 + i));
        user.username = format!("{expiry}:s");
        user.password = password_for(secret, &user.username);
        assert_eq!(lab.allocate(&mut user).code, expected, "{i}");
    }
    // Nothing but the name is missing.
    let mut user = user();
    let bytes = request(&user, Method::ALLOCATE, lab.next_id(), &[udp()]);
    let challenge = lab.raw(user.client, &bytes);
    assert_eq!(challenge.unwrap().code, 438, "an empty nonce");
    user.username = "no-such-user".into();
    assert_eq!(lab.allocate(&mut user).code, 401);
    let stats = lab.core.stats();
    assert_eq!((stats.requests_ok, stats.requests_refused), (2, 3));
    assert_eq!(stats.requests_unauthorized, 3);
}

#[test]
fn an_allocation_outlives_the_credentials_it_was_made_with() {
    let mut lab = Lab::new(config());
    let mut user = user();
    assert_eq!(lab.allocate(&mut user).code, 0);
    for _ in 0..10 {
        lab.wait(secs(500));
        assert_eq!(lab.refresh(&mut user, 600).code, 0);
    }
    assert_eq!(lab.refresh(&mut user, 0).code, 0);
    assert_eq!(lab.allocate(&mut user).code, 401, "they are good for no new one");
}

#[test]
fn nonces_belong_to_an_address_and_a_time() {
    let mut lab = Lab::new(config());
    let (mut first, mut second) = (user(), User::of_session("7c9e", "203.0.113.5:5001"));
    assert_eq!(lab.allocate(&mut first).code, 0);
    second.nonce.clone_from(&first.nonce);
    assert_eq!(lab.once(&mut second, Method::ALLOCATE, &[udp()]).code, 438);
    assert_eq!(lab.once(&mut second, Method::ALLOCATE, &[udp()]).code, 0);
    for user in [&mut first, &mut second] {
        assert_eq!(lab.refresh(user, 3600).code, 0);
    }
    lab.wait(secs(3599));
    let old = first.nonce.clone();
    assert_eq!(lab.once(&mut first, Method::REFRESH, &[lifetime(3600)]).code, 0);
    assert_eq!(first.nonce, old);
    lab.wait(secs(2));
    assert_eq!(lab.once(&mut first, Method::REFRESH, &[]).code, 438);
    assert_ne!(first.nonce, old);
    assert_eq!(lab.once(&mut first, Method::REFRESH, &[]).code, 0);
    let mut forged = first.clone();
    forged.nonce[3] ^= 1;
    assert_eq!(lab.once(&mut forged, Method::REFRESH, &[]).code, 438);
}

#[test]
fn a_changed_request_is_not_taken() {
    let mut lab = Lab::new(config());
    let mut user = user();
    assert_eq!(lab.allocate(&mut user).code, 0);
    let bytes = request(&user, Method::REFRESH, lab.next_id(), &[lifetime(0)]);
    for i in 8..bytes.len() {
        let mut changed = bytes.clone();
        changed[i] ^= 0x10;
        let answer = lab.raw(user.client, &changed);
        assert!(answer.is_none_or(|a| a.code != 0), "byte {i}");
        assert_eq!(lab.core.allocations(), 1);
    }
    assert_eq!(lab.raw(user.client, &bytes).unwrap().code, 0);
    assert_eq!(lab.core.allocations(), 0);
}

#[test]
fn payload_passes_both_ways_by_indication_and_by_channel() {
    let mut lab = Lab::new(config());
    let mut user = user();
    let relayed = lab.allocate(&mut user).relayed();
    assert_eq!(relayed.ip().to_string(), "192.0.2.1");
    assert_eq!(lab.send_by_indication(user.client, PEER), None, "no permission yet");
    assert_eq!(lab.receive(relayed, PEER, b"hi"), None);

    assert_eq!(lab.permit(&mut user, PEER), 0);
    let (_, peer) = lab.send_by_indication(user.client, PEER).unwrap();
    assert_eq!(peer.to_string(), PEER);
    let indication = lab.receive(relayed, PEER, b"hello").unwrap();
    let message = Message::parse(&indication).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Indication, Method::DATA));
    assert_eq!(message.get(attr::DATA), Some(&b"hello"[..]));
    assert_eq!(message.get_xor_address(attr::XOR_PEER_ADDRESS), Some(peer));
    assert!(lab.receive(relayed, "198.51.100.9:1", b"x").is_some(), "any port of that address");
    assert!(lab.receive(relayed, "198.51.100.8:4000", b"x").is_none(), "no other address");

    assert_eq!(lab.bind(&mut user, 0x4001, PEER), 0);
    assert_eq!(lab.send_by_channel(user.client, 0x4001).unwrap().1, peer);
    assert_eq!(lab.send_by_channel(user.client, 0x4002), None);
    let data = lab.receive(relayed, PEER, b"hello").unwrap();
    assert_eq!(channel_data::parse(&data), Some((0x4001, &b"hello"[..])));

    assert_eq!(lab.refresh(&mut user, 0).lifetime_s(), 0);
    let events: Vec<_> = std::iter::from_fn(|| lab.core.poll_event()).collect();
    let username = user.username.as_str().into();
    assert_eq!(
        events[1],
        CoreEvent::Freed { username, relayed, bytes_to_peer: 10, bytes_to_client: 11 }
    );
    assert_eq!(events.len(), 2);
}

#[test]
fn another_client_cannot_use_an_allocation() {
    let mut lab = Lab::new(config());
    let mut owner = user();
    lab.allocate(&mut owner);
    assert_eq!(lab.bind(&mut owner, 0x4000, PEER), 0);
    for client in [
        Client { listener: 0, address: "203.0.113.5:5001".parse().unwrap() },
        Client { listener: 1, address: owner.client.address },
    ] {
        assert_eq!(lab.send_by_channel(client, 0x4000), None);
        assert_eq!(lab.send_by_indication(client, PEER), None);
    }
    // The same 5-tuple, but somebody else's credentials.
    let mut other = User::of_session("other", "203.0.113.5:5000");
    assert_eq!(lab.refresh(&mut other, 0).code, 441);
    assert_eq!(lab.core.allocations(), 1);
}

#[test]
fn everything_ends_that_is_not_refreshed() {
    let mut lab = Lab::new(config());
    let mut user = user();
    let relayed = lab.allocate(&mut user).relayed();
    assert_eq!(lab.permit(&mut user, "198.51.100.8:0"), 0);
    assert_eq!(lab.bind(&mut user, 0x4000, PEER), 0);
    lab.wait(secs(299));
    assert!(lab.receive(relayed, "198.51.100.8:9", b"x").is_some());
    assert_eq!(lab.refresh(&mut user, 3600).lifetime_s(), 3600);
    lab.wait(secs(2));
    assert!(lab.receive(relayed, "198.51.100.8:9", b"x").is_none(), "permission: 5 minutes");
    assert!(lab.receive(relayed, PEER, b"x").is_none(), "a channel's permission, too");
    assert!(lab.send_by_channel(user.client, 0x4000).is_some());
    lab.wait(secs(300));
    assert!(lab.send_by_channel(user.client, 0x4000).is_none(), "channel: 10 minutes");
    assert_eq!(lab.bind(&mut user, 0x4001, PEER), 0, "and its peer is free for another");
    lab.wait(secs(3298 - 1));
    assert_eq!((lab.core.allocations(), lab.ports.open.len()), (1, 1));
    lab.wait(secs(2));
    assert_eq!((lab.core.allocations(), lab.ports.open.len()), (0, 0));
    assert_eq!(lab.core.poll_timeout(), None);
    user.username = format!("{}:7c9e", UNIX_START_S + 7200);
    user.password = password_for(turn_support::SECRET, &user.username);
    assert_eq!(lab.refresh(&mut user, 600).code, 437);
    assert_eq!(lab.permit(&mut user, PEER), 437);
    assert_eq!(lab.bind(&mut user, 0x4000, PEER), 437);
}

#[test]
fn lifetimes_are_bounded() {
    let mut lab = Lab::new(config());
    let mut user = user();
    let answer = lab.call(&mut user, Method::ALLOCATE, &[udp(), lifetime(1)]);
    assert_eq!(answer.lifetime_s(), 600);
    assert_eq!(lab.refresh(&mut user, u32::MAX).lifetime_s(), 3600);
}

#[test]
fn a_repeated_allocate_gets_the_same_answer() {
    let mut lab = Lab::new(config());
    let mut user = user();
    assert_eq!(lab.call(&mut user, Method::REFRESH, &[]).code, 437);
    let bytes = request(&user, Method::ALLOCATE, lab.next_id(), &[udp()]);
    let first = lab.raw(user.client, &bytes).unwrap();
    assert_eq!(lab.raw(user.client, &bytes).unwrap(), first);
    assert_eq!(lab.core.allocations(), 1);
    assert_eq!(lab.allocate(&mut user).code, 437, "another transaction");
}

#[test]
fn channels_are_bound_one_to_one() {
    let mut lab = Lab::new(config());
    let mut user = user();
    lab.allocate(&mut user);
    assert_eq!(lab.bind(&mut user, 0x4000, PEER), 0);
    assert_eq!(lab.bind(&mut user, 0x4000, PEER), 0, "a refresh");
    assert_eq!(lab.bind(&mut user, 0x4000, "198.51.100.9:4001"), 400);
    assert_eq!(lab.bind(&mut user, 0x4001, PEER), 400);
    assert_eq!(lab.bind(&mut user, 0x3FFF, "198.51.100.9:4001"), 400);
    assert_eq!(lab.bind(&mut user, 0x8000, "198.51.100.9:4001"), 400);
    let codes = (1..40).map(|i| lab.bind(&mut user, 0x4000 + i, &format!("198.51.100.9:{i}")));
    assert_eq!(codes.filter(|code| *code == 508).count(), 8, "32 at most");
}

#[test]
fn permissions_are_all_or_none_and_bounded() {
    let mut lab = Lab::new(config());
    let mut user = user();
    let relayed = lab.allocate(&mut user).relayed();
    let both = |second| [peer(PEER), peer(second)];
    let code = lab.call(&mut user, Method::CREATE_PERMISSION, &both("10.0.0.1:0")).code;
    assert_eq!(code, 403);
    assert!(lab.receive(relayed, PEER, b"x").is_none());
    let code = lab.call(&mut user, Method::CREATE_PERMISSION, &both("198.51.100.8:0")).code;
    assert_eq!(code, 0);
    assert!(lab.receive(relayed, PEER, b"x").is_some());
    assert!(lab.receive(relayed, "198.51.100.8:1", b"x").is_some());
    assert_eq!(lab.call(&mut user, Method::CREATE_PERMISSION, &[]).code, 400);
    let codes = (0..100).map(|i| lab.permit(&mut user, &format!("198.51.101.{i}:0")));
    assert_eq!(codes.filter(|code| *code == 508).count(), 100 + 2 - 64);
}

#[test]
fn peers_inside_are_refused() {
    let mut lab = Lab::new(config());
    let mut user = user();
    lab.allocate(&mut user);
    for peer in ["127.0.0.1:53", "10.0.0.1:80", "169.254.169.254:80", "0.0.0.0:1", "224.0.0.1:1"] {
        assert_eq!(lab.permit(&mut user, peer), 403, "{peer}");
        assert_eq!(lab.bind(&mut user, 0x4000, peer), 403, "{peer}");
    }
    assert_eq!(lab.permit(&mut user, "[2001:4860::8]:1"), 443);
}

#[test]
fn families_and_transports() {
    let mut lab = Lab::new(config());
    let mut user = user();
    assert_eq!(lab.call(&mut user, Method::ALLOCATE, &[]).code, 400);
    let tcp = Attr::Bytes(attr::REQUESTED_TRANSPORT, vec![6, 0, 0, 0]);
    assert_eq!(lab.call(&mut user, Method::ALLOCATE, &[tcp]).code, 442);
    assert_eq!(lab.call(&mut user, Method::ALLOCATE, &[udp(), family(3)]).code, 440);
    let answer = lab.call(&mut user, Method::ALLOCATE, &[udp(), family(2)]);
    assert_eq!(answer.relayed().ip().to_string(), "2001:db8::1");
    assert_eq!(lab.call(&mut user, Method::REFRESH, &[family(1)]).code, 443);
    assert_eq!(lab.permit(&mut user, PEER), 443);
    assert_eq!(lab.permit(&mut user, "[2001:4860::8]:1"), 0);

    let mut lab = Lab::listening(config(), &["192.0.2.1:3478"]);
    user.nonce.clear();
    assert_eq!(lab.call(&mut user, Method::ALLOCATE, &[udp(), family(2)]).code, 440);
}

#[test]
fn quotas_hold_per_session_and_in_total() {
    let limits = TurnConfig { allocations_per_session: 2, allocations_total: 5, ..config() };
    let mut lab = Lab::new(limits);
    let mut users: Vec<User> = (0..9)
        .map(|i| User::of_session(&format!("s{}", i / 3), &format!("203.0.113.5:{}", 5000 + i)))
        .collect();
    let codes: Vec<u16> = users.iter_mut().map(|user| lab.allocate(user).code).collect();
    assert_eq!(codes, [0, 0, 486, 0, 0, 486, 0, 486, 486]);
    assert_eq!(lab.refresh(&mut users[0], 0).code, 0);
    assert_eq!(lab.allocate(&mut users[7]).code, 0, "what was given back is there again");
    assert_eq!(lab.core.allocations(), lab.ports.open.len());
}

#[test]
fn a_closed_session_is_freed_at_once() {
    let mut lab = Lab::new(config());
    let mut users: Vec<User> = (0..4)
        .map(|i| User::of_session(&format!("s{}", i / 2), &format!("203.0.113.5:{}", 5000 + i)))
        .collect();
    // Names of one session may differ in their expiry.
    users[1].username = format!("{}:s0", UNIX_START_S + 7200);
    users[1].password = password_for(turn_support::SECRET, &users[1].username);
    for user in &mut users {
        assert_eq!(lab.call(user, Method::ALLOCATE, &[udp(), even_port(0x80)]).code, 0);
    }
    assert_eq!(lab.ports.open.len(), 4);
    assert_eq!(lab.core.close_session("s0", &mut lab.ports), 2);
    assert_eq!((lab.core.allocations(), lab.ports.open.len()), (2, 2));
    assert_eq!(lab.core.close_session("s0", &mut lab.ports), 0);
    let name = users[2].username.clone();
    assert_eq!(lab.core.close_session(&name, &mut lab.ports), 2, "by its whole name");
    assert_eq!(lab.ports.open.len(), 0);
    assert_eq!(lab.refresh(&mut users[0], 600).code, 437);
    // Also what was reserved.
    lab.wait(secs(31));
    assert_eq!(lab.core.poll_timeout(), None);
}

#[test]
fn a_pair_of_ports_can_be_had() {
    // One even port with a neighbour.
    let mut lab = Lab::new(TurnConfig { min_port: 50_001, max_port: 50_003, ..config() });
    let (mut rtp, mut rtcp) = (user(), User::of_session("7c9e", "203.0.113.5:5001"));
    let answer = lab.call(&mut rtp, Method::ALLOCATE, &[udp(), even_port(0x80)]);
    let port = answer.relayed().port();
    assert!(port.is_multiple_of(2));
    let token = answer.message().get(attr::RESERVATION_TOKEN).unwrap().to_vec();

    let mut thief = User::of_session("another", "203.0.113.5:5002");
    let steal = [udp(), Attr::Bytes(attr::RESERVATION_TOKEN, token)];
    assert_eq!(lab.call(&mut thief, Method::ALLOCATE, &steal).code, 508);
    let both = [&steal[..], &[even_port(0)]].concat();
    assert_eq!(lab.call(&mut rtcp, Method::ALLOCATE, &both).code, 400);
    let answer = lab.call(&mut rtcp, Method::ALLOCATE, &steal);
    assert_eq!(answer.relayed().port(), port + 1);
    assert_eq!(lab.refresh(&mut rtcp, 0).code, 0);
    assert_eq!(lab.call(&mut rtcp, Method::ALLOCATE, &steal).code, 508, "once only");

    assert_eq!(lab.refresh(&mut rtp, 0).code, 0);
    assert_eq!(lab.call(&mut rtp, Method::ALLOCATE, &[udp(), even_port(0x80)]).code, 0);
    // The neighbour is held for 30 s, and then anybody's.
    let mut others = [5003, 5004].map(|i| User::of_session("7c9e", &format!("203.0.113.5:{i}")));
    assert_eq!(lab.allocate(&mut others[0]).relayed().port(), 50_001);
    assert_eq!(lab.allocate(&mut others[1]).code, 508);
    lab.wait(secs(31));
    assert_eq!(lab.allocate(&mut others[1]).relayed().port(), 50_003);
}

#[test]
fn shards_take_each_others_nonces_and_tokens() {
    let mut limits = TurnConfig { min_port: 50_002, max_port: 50_003, ..config() };
    limits.external_ip = Some("203.0.113.200".parse().unwrap());
    let mut labs = Lab::shards(limits, &["10.0.0.7:3478"], 2);
    let [one, two] = &mut labs[..] else { unreachable!() };
    let (mut rtp, mut rtcp) = (user(), User::of_session("7c9e", "203.0.113.5:5001"));
    let answer = one.call(&mut rtp, Method::ALLOCATE, &[udp(), even_port(0x80)]);
    let token = answer.message().get(attr::RESERVATION_TOKEN).unwrap().to_vec();
    let claim = [udp(), Attr::Bytes(attr::RESERVATION_TOKEN, token)];
    // A nonce of one is good at the other: no 438 here, and no 401.
    assert_eq!(one.call(&mut rtcp, Method::REFRESH, &[]).code, 437);
    let answer = two.once(&mut rtcp, Method::ALLOCATE, &claim);
    assert_eq!((answer.code, answer.relayed().port()), (0, 50_003));
    // Every port is taken, whoever took it.
    let mut third = User::of_session("7c9e", "203.0.113.5:5002");
    assert_eq!(two.allocate(&mut third).code, 508);
    // And each knows the other's relayed addresses for ours.
    assert_eq!(one.bind(&mut rtp, 0x4000, "203.0.113.200:50003"), 0);
    let (_, peer) = one.send_by_channel(rtp.client, 0x4000).unwrap();
    assert_eq!(peer.to_string(), "10.0.0.7:50003");
}

#[test]
fn the_port_range_is_kept_and_can_run_out() {
    let mut lab = Lab::new(TurnConfig { min_port: 50_000, max_port: 50_003, ..config() });
    lab.ports.taken.push("192.0.2.1:50002".parse().unwrap());
    let codes: Vec<u16> = (0..5)
        .map(|i| {
            let mut user = User::of_session("s", &format!("203.0.113.5:{}", 5000 + i));
            lab.allocate(&mut user).code
        })
        .collect();
    assert_eq!(codes, [0, 0, 0, 508, 508]);
    let mut ports: Vec<u16> = lab.ports.open.keys().map(SocketAddr::port).collect();
    ports.sort();
    assert_eq!(ports, [50_000, 50_001, 50_003]);
}

/// A port that is free by UDP may be another program's by TCP: then it is the next one.
#[test]
fn a_port_that_is_taken_by_tcp_is_passed_over() {
    let ports = TurnConfig { min_port: 50_000, max_port: 50_003, ..config() };
    let mut lab = Lab::new(TurnConfig { tcp_relay: true, ..ports });
    lab.core.set_streams(vec![true, false]);
    for port in [50_001, 50_002] {
        lab.ports.taken_by_tcp.push(SocketAddr::new("192.0.2.1".parse().unwrap(), port));
    }
    let mut allocate = |port: u16, transport: Attr| {
        let mut user = User::of_session("s", &format!("203.0.113.5:{port}"));
        lab.call(&mut user, Method::ALLOCATE, &[transport]).code
    };
    assert_eq!([5000, 5001, 5002].map(|port| allocate(port, tcp())), [0, 0, 508]);
    // Nothing is left behind of those it could not have: by UDP they are there.
    assert_eq!([5003, 5004, 5005].map(|port| allocate(port, udp())), [0, 0, 508]);
}

#[test]
fn bandwidth_is_capped_for_each_direction() {
    let limits = TurnConfig { bandwidth_bps: 80_000, bandwidth_burst_bytes: 1000, ..config() };
    let mut lab = Lab::new(limits);
    let mut user = user();
    let relayed = lab.allocate(&mut user).relayed();
    assert_eq!(lab.bind(&mut user, 0x4000, PEER), 0);
    let received = (0..20).filter(|_| lab.receive(relayed, PEER, &[0; 100]).is_some()).count();
    assert_eq!(received, 10, "the burst");
    let sent = (0..1000).filter(|_| lab.send_by_channel(user.client, 0x4000).is_some()).count();
    assert_eq!(sent, 200, "the other direction has its own");
    let mut passed = 0;
    for _ in 0..100 {
        lab.wait(Duration::from_millis(5));
        passed += usize::from(lab.receive(relayed, PEER, &[0; 100]).is_some());
    }
    assert_eq!(passed, 50, "10 kB/s for half a second");
    assert_eq!(lab.core.stats().packets_capped, 10 + 800 + 50);
}

#[test]
fn behind_a_nat_with_fixed_ports_clients_meet_inside() {
    let outside = "203.0.113.200".parse().unwrap();
    let limits = TurnConfig { external_ip: Some(outside), ..config() };
    let mut lab = Lab::listening(limits, &["10.0.0.7:3478"]);
    let (mut a, mut b) = (user(), User::of_session("7c9e", "203.0.113.6:5000"));
    let (at_a, at_b) = (lab.allocate(&mut a).relayed(), lab.allocate(&mut b).relayed());
    assert_eq!((at_a.ip(), at_b.ip()), (outside, outside));
    assert_eq!(lab.bind(&mut a, 0x4000, &at_b.to_string()), 0);
    assert_eq!(lab.bind(&mut b, 0x4000, &at_a.to_string()), 0);
    let (_, peer) = lab.send_by_channel(a.client, 0x4000).unwrap();
    let inside_b = SocketAddr::new("10.0.0.7".parse().unwrap(), at_b.port());
    assert_eq!(peer, inside_b);
    let inside_a = SocketAddr::new(inside_b.ip(), at_a.port()).to_string();
    let data = lab.receive(inside_b, &inside_a, b"media").unwrap();
    assert_eq!(channel_data::parse(&data), Some((0x4000, &b"media"[..])));
    // Something else behind the same NAT is not ours to translate.
    let other = SocketAddr::new(outside, 1024).to_string();
    assert_eq!(lab.permit(&mut a, &other), 0);
    assert_eq!(lab.send_by_indication(a.client, &other).unwrap().1.to_string(), other);
}
