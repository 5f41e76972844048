//! What a session may take, and where it may send, in virtual time: bandwidth and quotas over several
//! shards, exchanged secrets, ranges of peers, and what is counted where something is refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod turn_support;

use sdk_core::wire::stun::Method;
use server_min::stun_turn::{Reason, TurnConfig, password_for};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;
use turn_support::{Attr, Lab, SECRET, UNIX_START_S, User, config, even_port, peer, udp};

const PEER: &str = "198.51.100.9:4000";
const LISTENERS: &[&str] = &["192.0.2.1:3478", "[2001:db8::1]:3478"];

/// 10 kB/s, and 1000 bytes at once.
fn slow() -> TurnConfig {
    TurnConfig { bandwidth_bps: 80_000, bandwidth_burst_bytes: 1000, ..config() }
}

/// Somebody of `session`, with a channel to [`PEER`]; the name has `more` behind it.
fn bound(lab: &mut Lab, session: &str, more: &str, port: u16) -> (User, SocketAddr) {
    let mut user = User::of_session(&format!("{session}{more}"), &format!("203.0.113.5:{port}"));
    let answer = lab.allocate(&mut user);
    assert_eq!(answer.code, 0, "{}", user.username);
    assert_eq!(lab.bind(&mut user, 0x4000, PEER), 0);
    (user, answer.relayed())
}

/// How many of 100 packets of 100 bytes reach the client.
fn received_of_100(lab: &mut Lab, relayed: SocketAddr) -> usize {
    (0..100).filter(|_| lab.receive(relayed, PEER, &[0; 100]).is_some()).count()
}

#[test]
fn a_session_has_one_cap_however_many_allocations_and_shards_it_uses() {
    let mut labs = Lab::shards(slow(), LISTENERS, 2);
    let [one, two] = &mut labs[..] else { unreachable!() };
    let (_, a) = bound(one, "s", "", 5000);
    let (_, b) = bound(one, "s", "", 5001);
    let (user, c) = bound(two, "s", "", 5002);
    let (_, other) = bound(two, "other", "", 5003);
    assert_eq!(received_of_100(one, a), 10, "the burst");
    assert_eq!(received_of_100(one, b), 0, "is the session's");
    assert_eq!(received_of_100(two, c), 0, "in every shard");
    assert_eq!(received_of_100(two, other), 10, "another session has its own");
    let sent = (0..1000).filter(|_| two.send_by_channel(user.client, 0x4000).is_some()).count();
    assert_eq!(sent, 200, "and so has the other direction");

    let mut passed = 0;
    for i in 0..100 {
        one.wait(Duration::from_millis(5));
        two.wait(Duration::from_millis(5));
        let relayed = [a, b, c][i % 3];
        let lab = if relayed == c { &mut *two } else { &mut *one };
        passed += usize::from(lab.receive(relayed, PEER, &[0; 100]).is_some());
    }
    assert_eq!(passed, 50, "10 kB/s for half a second");
    let (one, two) = (one.core.stats(), two.core.stats());
    assert_eq!(one.packets_capped + two.packets_capped, 90 + 100 + 100 + 90 + 800 + 50);
    assert_eq!(one.bytes_capped + two.bytes_capped, (90 + 100 + 100 + 90 + 50) * 100 + 800 * 5);
    assert_eq!(one.packets_capped_by_node + two.packets_capped_by_node, 0);
}

#[test]
fn a_packet_between_two_allocations_of_a_session_counts_once_in_each_direction() {
    let mut lab = Lab::new(slow());
    let (mut camera, at_camera) = bound(&mut lab, "s", "", 5000);
    let (mut viewer, at_viewer) = bound(&mut lab, "s", "", 5001);
    assert_eq!(lab.bind(&mut camera, 0x4001, &at_viewer.to_string()), 0);
    assert_eq!(lab.bind(&mut viewer, 0x4001, &at_camera.to_string()), 0);
    let mut passed = 0;
    for _ in 0..1000 {
        if lab.send_by_channel(camera.client, 0x4001).is_some() {
            let through = lab.receive(at_viewer, &at_camera.to_string(), b"media");
            passed += usize::from(through.is_some());
        }
    }
    assert_eq!(passed, 200, "1000 bytes of 5, not half of it");
}

#[test]
fn the_session_s_record_sets_its_cap_through_the_signed_name() {
    let limits = TurnConfig { max_bandwidth_bps: 800_000, ..slow() };
    let mut lab = Lab::new(limits);
    let mut burst = |session: &str, more: &str, port| {
        let (_, relayed) = bound(&mut lab, session, more, port);
        received_of_100(&mut lab, relayed)
    };
    assert_eq!(burst("default", "", 5000), 10);
    assert_eq!(burst("twice", ":160", 5001), 20, "the burst grows with the rate");
    assert_eq!(burst("less", ":40", 5002), 10, "and does not shrink");
    assert_eq!(burst("most", ":800", 5003), 100);
    assert_eq!(burst("beyond", ":999999", 5004), 100, "bounded by max_bandwidth_bps");
    // The first name of a session counts while it holds anything.
    assert_eq!(burst("twice", ":40", 5005), 0);

    // Nobody can write another rate into a name.
    let mut forger = User::of_session("s:40", "203.0.113.5:5006");
    forger.username = forger.username.replace(":40", ":800");
    assert_eq!(lab.allocate(&mut forger).code, 401);

    // The session is the same with and without it.
    assert_eq!(lab.core.close_session("twice", &mut lab.ports), 2);
    assert_eq!(lab.core.close_session(&format!("{}:less:40", UNIX_START_S), &mut lab.ports), 1);
    assert_eq!(lab.core.allocations(), 3);
}

#[test]
fn a_static_user_has_one_cap() {
    let users = vec![("tester".into(), "password".into())];
    let mut lab = Lab::new(TurnConfig { static_users: users, ..slow() });
    let mut relayed = Vec::new();
    for port in [5000, 5001] {
        let mut user = User::of_session("-", &format!("203.0.113.5:{port}"));
        (user.username, user.password) = ("tester".into(), "password".into());
        relayed.push(lab.allocate(&mut user).relayed());
        assert_eq!(lab.bind(&mut user, 0x4000, PEER), 0);
    }
    assert_eq!(received_of_100(&mut lab, relayed[0]), 10);
    assert_eq!(received_of_100(&mut lab, relayed[1]), 0);
}

#[test]
fn the_node_can_have_a_cap_for_all_sessions() {
    let limits = TurnConfig { total_bandwidth_bps: 160_000, ..slow() };
    let mut labs = Lab::shards(limits, LISTENERS, 2);
    let [one, two] = &mut labs[..] else { unreachable!() };
    let (_, a) = bound(one, "a", "", 5000);
    let (_, b) = bound(two, "b", "", 5001);
    let (_, c) = bound(two, "c", "", 5002);
    // 2000 bytes for all: a session that is over its own cap takes nothing from the others.
    assert_eq!(received_of_100(one, a), 10);
    assert_eq!(received_of_100(two, b), 10);
    assert_eq!(received_of_100(two, c), 0);
    assert_eq!((one.core.stats().packets_capped, two.core.stats().packets_capped), (90, 190));
    let by_node = two.core.stats().packets_capped_by_node;
    assert_eq!((one.core.stats().packets_capped_by_node, by_node), (0, 100));
    // What the node did not let through was not taken from the session.
    one.wait(Duration::from_millis(10));
    two.wait(Duration::from_millis(10));
    assert_eq!(received_of_100(two, c), 2);
    assert_eq!(two.core.stats().packets_capped_by_node, 198);
}

#[test]
fn quotas_hold_over_all_shards() {
    let limits = TurnConfig { allocations_per_session: 2, allocations_total: 3, ..config() };
    let mut labs = Lab::shards(limits, LISTENERS, 2);
    let [one, two] = &mut labs[..] else { unreachable!() };
    let mut users: Vec<User> = ["s", "s", "s", "t", "u"]
        .iter()
        .enumerate()
        .map(|(i, session)| User::of_session(session, &format!("203.0.113.5:{}", 5000 + i)))
        .collect();
    assert_eq!(one.allocate(&mut users[0]).code, 0);
    assert_eq!(two.allocate(&mut users[1]).code, 0);
    assert_eq!(one.allocate(&mut users[2]).code, 486);
    assert_eq!(two.allocate(&mut users[2]).code, 486);
    assert_eq!(one.core.stats().refused.of(Reason::SessionQuota), 1);
    assert_eq!(one.allocate(&mut users[3]).code, 0);
    assert_eq!(two.allocate(&mut users[4]).code, 486);
    assert_eq!(two.core.stats().refused.of(Reason::TotalQuota), 1);
    assert_eq!(one.refresh(&mut users[0], 0).code, 0);
    assert_eq!(two.allocate(&mut users[4]).code, 0, "what was given back is there again");
    // A reserved port counts, until nobody has come for it.
    assert_eq!(two.refresh(&mut users[4], 0).code, 0);
    assert_eq!(two.refresh(&mut users[1], 0).code, 0);
    assert_eq!(two.call(&mut users[1], Method::ALLOCATE, &[udp(), even_port(0x80)]).code, 0);
    assert_eq!(one.allocate(&mut users[0]).code, 486);
    two.wait(Duration::from_secs(31));
    one.wait(Duration::from_secs(31));
    assert_eq!(one.allocate(&mut users[0]).code, 0);
    // Closing a session gives back all of it, in each shard.
    assert_eq!(one.core.close_session("s", &mut one.ports), 1);
    assert_eq!(two.core.close_session("s", &mut two.ports), 1);
    let codes = [3, 4, 5].map(|i| {
        let mut user = User::of_session("v", &format!("203.0.113.6:{}", 5000 + i));
        two.allocate(&mut user).code
    });
    assert_eq!(codes, [0, 0, 486]);
}

/// What this process has logged, for who looks for its own.
struct Lines(Mutex<Vec<String>>);

static LINES: Lines = Lines(Mutex::new(Vec::new()));

impl log::Log for Lines {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Info
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push(format!("{} {}", record.level(), record.args()));
        }
    }

    fn flush(&self) {}
}

impl Lines {
    /// Those of one session since the last call, by how many times more it was refused.
    fn take(&self, session: &str, says: &str) -> Vec<usize> {
        let (of_session, mut refused) = (format!(" sessionId={session} "), Vec::new());
        self.0.lock().unwrap().retain(|line| {
            let is_wanted = line.contains(&of_session) && line.contains(says);
            if is_wanted {
                let more = line.split(": refused ").nth(1);
                refused
                    .push(more.map_or(0, |more| more.split(' ').next().unwrap().parse().unwrap()));
            }
            !is_wanted
        });
        refused
    }
}

/// Whoever is refused tries again at once: that must not fill the log, and still be known.
#[test]
fn a_session_that_is_refused_again_and_again_has_one_line_a_minute() {
    log::set_logger(&LINES).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    const MINUTE: Duration = Duration::from_secs(60);
    let limits = TurnConfig { allocations_per_session: 1, allocations_total: 2, ..config() };
    let mut labs = Lab::shards(limits, LISTENERS, 2);
    let [one, two] = &mut labs[..] else { unreachable!() };
    let user = |session, port| User::of_session(session, &format!("203.0.113.5:{port}"));
    let mut users = [user("greedy", 5000), user("greedy", 5001), user("greedy", 5002)];
    assert_eq!(one.allocate(&mut users[0]).code, 0);
    for _ in 0..50 {
        assert_eq!(one.allocate(&mut users[1]).code, 486);
        assert_eq!(two.allocate(&mut users[2]).code, 486);
    }
    assert_eq!(LINES.take("greedy", "turn.allocations_per_session"), [0]);
    assert_eq!(one.core.stats().refused.of(Reason::SessionQuota), 50, "each is counted");
    // Another session has its own, and so has another reason.
    let mut other = user("other", 5003);
    assert_eq!(two.allocate(&mut other).code, 0);
    for _ in 0..3 {
        assert_eq!(one.allocate(&mut user("third", 5004)).code, 486);
    }
    assert_eq!(LINES.take("third", "turn.allocations_total"), [0]);
    // A client tries each address that its peer has.
    for n in 1..=5 {
        assert_eq!(two.permit(&mut other, &format!("10.0.0.{n}:4000")), 403);
    }
    assert_eq!(LINES.take("other", "TURN peer 10.0.0.1 is in a range"), [0]);

    for lab in [&mut *one, &mut *two] {
        lab.wait(MINUTE);
    }
    assert_eq!(LINES.take("greedy", "turn.allocations_per_session"), [99]);
    assert_eq!(LINES.take("third", "turn.allocations_total"), [2]);
    assert_eq!(LINES.take("other", "TURN peer 10.0.0.5 is in a range"), [4]);
    // It goes on for a while, then it ends.
    assert_eq!(two.refresh(&mut other, 0).code, 0);
    for _ in 0..7 {
        assert_eq!(two.allocate(&mut users[2]).code, 486);
    }
    two.wait(MINUTE);
    assert_eq!(LINES.take("greedy", ""), [7]);
    two.wait(3 * MINUTE);
    one.wait(3 * MINUTE);
    for session in ["greedy", "third", "other"] {
        assert!(LINES.take(session, "TURN").is_empty(), "{session}");
    }
    assert_eq!(two.allocate(&mut users[2]).code, 486);
    assert_eq!(LINES.take("greedy", ""), [0], "and then it is news again");
}

#[test]
fn a_closed_session_stays_closed_in_every_shard() {
    let users = vec![("tester".into(), "password".into())];
    let mut labs = Lab::shards(TurnConfig { static_users: users, ..config() }, LISTENERS, 2);
    let [one, two] = &mut labs[..] else { unreachable!() };
    let mut user = User::of_session("s", "203.0.113.5:5000");
    assert_eq!(one.allocate(&mut user).code, 0);
    assert_eq!(one.core.close_session("s", &mut one.ports), 1);
    // Its credentials are good for a while yet, also with a later expiry or a bandwidth.
    for (i, lab) in [one, two].into_iter().enumerate() {
        for (j, more) in ["", ":4000"].iter().enumerate() {
            let address = format!("203.0.113.5:{}", 6000 + 10 * i + j);
            let mut again = User::of_session(&format!("s{more}"), &address);
            assert_eq!(lab.allocate(&mut again).code, 403);
        }
        assert_eq!(lab.core.stats().refused.of(Reason::SessionClosed), 2);
        assert_eq!(lab.allocate(&mut User::of_session("t", "203.0.113.5:7000")).code, 0);
        // A static user is no session.
        let mut tester = User::of_session("-", "203.0.113.5:8000");
        (tester.username, tester.password) = ("tester".into(), "password".into());
        assert_eq!(lab.allocate(&mut tester).code, 0);
        assert_eq!(lab.core.close_session("tester", &mut lab.ports), 1);
        assert_eq!(lab.allocate(&mut tester).code, 0);
    }
}

#[test]
fn secrets_are_exchanged_while_allocations_live_on() {
    let mut labs = Lab::shards(config(), LISTENERS, 2);
    let with = |secret: &[u8], port: u16| {
        let mut user = User::of_session("s", &format!("203.0.113.5:{port}"));
        user.password = password_for(secret, &user.username);
        user
    };
    let mut early = with(SECRET, 5000);
    assert_eq!(labs[0].allocate(&mut early).code, 0);
    // Both are good for a day, and then the old one goes.
    let set = |lab: &Lab, secrets: &[&[u8]]| {
        lab.shared.secrets.replace(&secrets.iter().map(|s| s.to_vec()).collect::<Vec<_>>())
    };
    assert_eq!(set(&labs[0], &[b"new", SECRET]), Ok(()));
    for (i, lab) in labs.iter_mut().enumerate() {
        let port = 6000 + 10 * i as u16;
        assert_eq!(lab.allocate(&mut with(b"new", port)).code, 0);
        assert_eq!(lab.allocate(&mut with(SECRET, port + 1)).code, 0);
        assert_eq!(lab.allocate(&mut with(b"newer", port + 2)).code, 401);
    }
    assert_eq!(set(&labs[1], &[b"newer", b"new"]), Ok(()));
    for (i, lab) in labs.iter_mut().enumerate() {
        let port = 7000 + 10 * i as u16;
        assert_eq!(lab.allocate(&mut with(b"new", port)).code, 0);
        assert_eq!(lab.allocate(&mut with(SECRET, port + 1)).code, 401);
        assert_eq!(lab.allocate(&mut with(b"newer", port + 2)).code, 0);
    }
    // What was made with a secret that is gone goes on as long as it is refreshed.
    for _ in 0..10 {
        labs[0].wait(Duration::from_secs(500));
        assert_eq!(labs[0].refresh(&mut early, 600).code, 0);
    }
    assert_eq!(labs[0].bind(&mut early, 0x4000, PEER), 0);
    assert!(labs[0].send_by_channel(early.client, 0x4000).is_some());
    // What cannot be meant is refused, and changes nothing.
    let cases: [&[&[u8]]; 3] = [&[], &[b""], &[&b"x"[..]; 9]];
    for wrong in cases {
        assert!(set(&labs[0], wrong).unwrap_err().contains("secrets"));
    }
    let username = format!("{}:s", labs[0].now.unix_s + 60);
    let mut user = with(b"newer", 8000);
    user.password = password_for(b"newer", &username);
    user.username = username;
    assert_eq!(labs[0].allocate(&mut user).code, 0);
}

#[test]
fn ranges_of_peers_are_denied_and_allowed() {
    let ranges = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let mut lab = Lab::new(TurnConfig {
        denied_peers: ranges(&["8.8.0.0/16", "9.9.9.1-9.9.9.9"]),
        allowed_peers: ranges(&["8.8.8.0/24", "10.1.2.3"]),
        ..config()
    });
    let mut user = User::of_session("s", "203.0.113.5:5000");
    lab.allocate(&mut user);
    let cases = [
        ("8.8.7.1:1", 403),
        ("8.8.8.8:1", 0),
        ("9.9.9.5:1", 403),
        ("9.9.9.10:1", 0),
        ("10.1.2.3:1", 0),
        ("10.1.2.4:1", 403),
        ("198.51.100.9:1", 403),
        ("127.0.0.1:1", 403),
    ];
    for (i, (address, expected)) in cases.into_iter().enumerate() {
        assert_eq!(lab.permit(&mut user, address), expected, "{address}");
        assert_eq!(lab.bind(&mut user, 0x4000 + i as u16, address), expected, "{address}");
    }
    assert_eq!(lab.core.stats().refused.of(Reason::PeerDenied), 10);

    let mut user = User::of_session("six", "203.0.113.5:5001");
    lab.call(&mut user, Method::ALLOCATE, &[udp(), turn_support::family(2)]);
    for (address, expected) in [
        ("[::ffff:8.8.7.1]:1", 403),
        ("[::ffff:8.8.8.8]:1", 0),
        ("[64:ff9b::a01:204]:1", 403),
        ("[64:ff9b::a01:203]:1", 0),
        ("[2002:7f00:1::]:1", 403),
        ("[::1]:1", 403),
        ("[2001:4860::8]:1", 0),
    ] {
        assert_eq!(lab.permit(&mut user, address), expected, "{address}");
    }
}

#[test]
fn nobody_reaches_our_own_listeners_through_us() {
    let outside = "203.0.113.200";
    let mut limits = config();
    limits.external_ip = Some(outside.parse().unwrap());
    let mut lab = Lab::new(limits);
    let mut user = User::of_session("s", "203.0.113.5:5000");
    lab.allocate(&mut user);
    for ip in ["192.0.2.1", outside] {
        let at = |port| format!("{ip}:{port}");
        assert_eq!(lab.bind(&mut user, 0x4000, &at(3478)), 403);
        // Its relayed addresses are other clients: they may be reached.
        assert_eq!(lab.permit(&mut user, &at(0)), 0);
        assert!(lab.send_by_indication(user.client, &at(50_000)).is_some());
        assert_eq!(lab.send_by_indication(user.client, &at(3478)), None);
    }
    assert_eq!(lab.core.stats().packets_denied, 2);
}

#[test]
fn each_refusal_is_counted_by_its_reason() {
    let limits = TurnConfig { min_port: 50_000, max_port: 50_000, ..config() };
    let mut lab = Lab::new(limits);
    let mut user = User::of_session("s", "203.0.113.5:5000");
    lab.allocate(&mut user);
    let mut next = User::of_session("s", "203.0.113.5:5001");
    assert_eq!(lab.allocate(&mut next).code, 508);
    assert_eq!(lab.refresh(&mut next, 600).code, 437);
    let tcp = Attr::Bytes(sdk_core::wire::stun::attribute::REQUESTED_TRANSPORT, vec![6, 0, 0, 0]);
    assert_eq!(lab.call(&mut next, Method::ALLOCATE, &[tcp]).code, 442);
    let family = turn_support::family(3);
    assert_eq!(lab.call(&mut next, Method::ALLOCATE, &[udp(), family]).code, 440);
    assert_eq!(
        lab.call(&mut next, Method::ALLOCATE, &[udp(), even_port(0), even_port(0)]).code,
        508
    );
    assert_eq!(lab.permit(&mut user, "[2001:4860::8]:1"), 443);
    assert_eq!(lab.permit(&mut user, "10.0.0.1:1"), 403);
    assert_eq!(lab.call(&mut user, Method::CREATE_PERMISSION, &[]).code, 400);
    let unknown = [peer(PEER), Attr::Bytes(0x7FFE, vec![])];
    assert_eq!(lab.call(&mut user, Method::CREATE_PERMISSION, &unknown).code, 420);
    let mut thief = User::of_session("other", "203.0.113.5:5000");
    assert_eq!(lab.refresh(&mut thief, 0).code, 441);
    thief.password.push('x');
    assert_eq!(lab.refresh(&mut thief, 0).code, 401);
    lab.wait(Duration::from_secs(300));
    user.nonce.reverse();
    assert_eq!(lab.once(&mut user, Method::REFRESH, &[]).code, 438);

    let refused = lab.core.stats().refused;
    let counts: Vec<(&str, u64)> =
        Reason::ALL.iter().map(|r| (r.name(), refused.of(*r))).filter(|(_, n)| *n > 0).collect();
    assert_eq!(
        counts,
        [
            ("bad_request", 1),
            ("unauthorized", 1),
            ("peer_denied", 1),
            ("unknown_attribute", 1),
            ("allocation_mismatch", 1),
            ("stale_nonce", 1),
            ("address_family", 1),
            ("wrong_credentials", 1),
            ("transport", 1),
            ("peer_address_family", 1),
            ("capacity", 2),
        ]
    );

    // Packets without a permission, and what is no packet of a client's.
    assert_eq!(lab.send_by_indication(user.client, PEER), None);
    assert_eq!(lab.send_by_channel(user.client, 0x4000), None);
    assert!(lab.raw(user.client, b"GET / HTTP/1.1\r\n\r\n").is_none());
    assert_eq!((lab.core.stats().packets_denied, lab.core.stats().packets_malformed), (2, 1));
}
