//! The camera's TURN client against the server's core, in virtual time, over a network that loses
//! what the test tells it to.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod turn_support;

use sdk_core::peer::turn::{
    MAX_OVERHEAD, Received, StunProbe, StunProbeEvent, TurnClient, TurnEvent, TurnFailure,
};
use sdk_core::wire::stun::{Builder, Class, Message, Method};
use server_min::stun_turn::core::{Action, Client};
use server_min::stun_turn::{MAX_REPLY_LEN, RelayId, TurnConfig};
use std::net::SocketAddr;
use std::time::Duration;
use turn_support::{Lab, User, config};

const PEER: &str = "198.51.100.9:4000";

struct World {
    lab: Lab,
    turn: TurnClient,
    address: Client,
    /// Decides about each datagram, either way: `true` loses it.
    lose: Box<dyn FnMut() -> bool>,
    sent: usize,
}

impl World {
    fn new(config: TurnConfig) -> World {
        World::with_user(config, &User::of_session("7c9e", "203.0.113.5:5000"))
    }

    fn with_user(config: TurnConfig, user: &User) -> World {
        let lab = Lab::new(config);
        let server = "192.0.2.1:3478".parse().unwrap();
        let now = lab.now.instant;
        let turn = TurnClient::new(server, &user.username, &user.password, [9; 32], now);
        World { lab, turn, address: user.client, lose: Box::new(|| false), sent: 0 }
    }

    /// Sends what the client has to say until it is silent.
    fn exchange(&mut self) {
        let mut buffer = [0; 1200];
        while let Some(len) = self.turn.poll_transmit(&mut buffer) {
            self.sent += 1;
            if (self.lose)() {
                continue;
            }
            let answer = self.lab.raw(self.address, &buffer[..len]);
            if let Some(answer) = answer.filter(|_| !(self.lose)()) {
                let received = self.turn.handle_datagram(self.lab.now.instant, &answer.bytes);
                assert_eq!(received, Received::Control);
            }
        }
    }

    /// Lets time pass, with all timers of both sides.
    fn wait(&mut self, duration: Duration) {
        let end = self.lab.now.instant + duration;
        self.exchange();
        while let Some(at) = self.turn.poll_timeout().filter(|at| *at <= end) {
            self.lab.wait(at.saturating_duration_since(self.lab.now.instant));
            self.turn.handle_timeout(at);
            self.exchange();
        }
        self.lab.wait(end - self.lab.now.instant);
    }

    fn events(&mut self) -> Vec<TurnEvent> {
        std::iter::from_fn(|| self.turn.poll_event()).collect()
    }

    fn allocated(config: TurnConfig) -> (World, SocketAddr) {
        let mut world = World::new(config);
        world.exchange();
        let relayed = world.turn.relayed().expect("allocated");
        let mapped = Some(world.address.address);
        assert_eq!(world.events(), [TurnEvent::Allocated { relayed, mapped }]);
        (world, relayed)
    }

    fn failure(&mut self) -> TurnFailure {
        match self.events()[..] {
            [TurnEvent::Failed { reason }] => reason,
            ref other => panic!("expected a failure, got {other:?}"),
        }
    }

    /// What the server does with a payload of the client's.
    fn send(&mut self, peer: SocketAddr, payload: &[u8]) -> Option<(RelayId, SocketAddr)> {
        let mut buffer = vec![0; payload.len() + MAX_OVERHEAD];
        let len = self.turn.wrap(peer, payload, &mut buffer).unwrap();
        let (lab, mut reply) = (&mut self.lab, [0; MAX_REPLY_LEN]);
        let bytes = &buffer[..len];
        match lab.core.handle_client(lab.now, self.address, bytes, &mut lab.ports, &mut reply) {
            Action::ToPeer { relay, peer, payload: got, .. } => {
                assert_eq!(got, payload);
                Some((relay, peer))
            }
            _ => None,
        }
    }

    /// What the client makes of a peer's payload.
    fn receive(&mut self, relayed: SocketAddr, payload: &[u8]) -> Option<SocketAddr> {
        let data = self.lab.receive(relayed, PEER, payload)?;
        match self.turn.handle_datagram(self.lab.now.instant, &data) {
            Received::Data { peer, offset, len } => {
                assert_eq!(&data[offset..offset + len], payload);
                Some(peer)
            }
            other => panic!("expected data, got {other:?}"),
        }
    }
}

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

#[test]
fn payload_passes_by_indication_and_then_by_channel() {
    let (mut world, relayed) = World::allocated(config());
    assert_eq!(world.sent, 2, "one round trip to learn the realm, one to allocate");
    let peer: SocketAddr = PEER.parse().unwrap();
    let now = world.lab.now.instant;
    assert!(world.turn.permit(now, peer.ip()) && world.turn.permit(now, peer.ip()));
    assert_eq!(world.send(peer, b"too early"), None);
    world.exchange();
    assert_eq!(world.events(), [TurnEvent::Permitted { peer: peer.ip() }]);
    for len in [0, 1, 2, 3, 4, 1200] {
        assert_eq!(world.send(peer, &vec![7; len]).unwrap().1, peer, "{len} bytes");
        assert_eq!(world.receive(relayed, &vec![8; len]), Some(peer), "{len} bytes");
    }

    assert_eq!(world.turn.channel(peer), None);
    assert!(world.turn.bind(now, peer));
    assert_eq!(world.turn.channel(peer), None, "not before the server has said so");
    world.exchange();
    let channel = world.turn.channel(peer).unwrap();
    assert_eq!(world.events(), [TurnEvent::ChannelBound { peer, channel }]);
    let mut buffer = [0; 64];
    assert_eq!(world.turn.wrap(peer, b"hello", &mut buffer), Some(9));
    assert_eq!(world.turn.wrap(peer, b"hello", &mut buffer[..8]), None);
    for len in [0, 1, 1200] {
        assert_eq!(world.send(peer, &vec![7; len]).unwrap().1, peer, "{len} bytes");
        assert_eq!(world.receive(relayed, &vec![8; len]), Some(peer), "{len} bytes");
    }
    let other = "198.51.100.9:4001".parse().unwrap();
    assert_eq!(world.send(other, b"by indication").unwrap().1, other);
}

#[test]
fn what_is_asked_for_early_happens_once_there_is_an_allocation() {
    let mut world = World::new(config());
    let now = world.lab.now.instant;
    let peer: SocketAddr = PEER.parse().unwrap();
    let other: SocketAddr = "198.51.100.8:1".parse().unwrap();
    assert!(world.turn.permit(now, other.ip()) && world.turn.bind(now, peer));
    world.exchange();
    let events = world.events();
    assert!(matches!(events[0], TurnEvent::Allocated { .. }));
    assert_eq!(events[1], TurnEvent::Permitted { peer: other.ip() });
    assert!(matches!(events[2], TurnEvent::ChannelBound { .. }));
}

#[test]
fn all_of_it_is_kept_alive_for_hours() {
    let (mut world, relayed) = World::allocated(config());
    let peer: SocketAddr = PEER.parse().unwrap();
    let now = world.lab.now.instant;
    world.turn.permit(now, "198.51.100.8".parse().unwrap());
    world.turn.bind(now, peer);
    world.exchange();
    world.events();
    world.sent = 0;
    for minute in 0..300 {
        world.wait(secs(60));
        assert!(world.send(peer, b"x").is_some(), "minute {minute}");
        assert!(world.send("198.51.100.8:7".parse().unwrap(), b"x").is_some(), "{minute}");
        assert_eq!(world.receive(relayed, b"x"), Some(peer), "minute {minute}");
    }
    assert_eq!(world.events(), [], "past every refresh and stale nonce");
    // 75 of each permission, 33 of the allocation, a few stale nonces.
    assert!((180..200).contains(&world.sent), "{} requests in five hours", world.sent);
}

#[test]
fn loss_is_survived() {
    for seed in 1..=20u32 {
        let mut world = World::new(config());
        let mut state = seed;
        world.lose = Box::new(move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state % 100 < 30
        });
        let peer: SocketAddr = PEER.parse().unwrap();
        world.turn.bind(world.lab.now.instant, peer);
        world.wait(secs(30));
        assert!(world.turn.channel(peer).is_some(), "seed {seed}: {:?}", world.events());
        assert_eq!(world.lab.core.allocations(), 1, "a lost answer makes no second one");
    }
}

#[test]
fn a_server_that_is_not_there_is_given_up() {
    let mut world = World::new(config());
    world.lose = Box::new(|| true);
    world.wait(Duration::from_millis(19_700));
    assert_eq!((world.sent, world.events()), (7, vec![]));
    world.wait(Duration::from_millis(100));
    assert_eq!(world.failure(), TurnFailure::Timeout);
    assert_eq!(world.turn.poll_timeout(), None);
    assert!(!world.turn.bind(world.lab.now.instant, PEER.parse().unwrap()));
}

#[test]
fn each_refusal_has_its_reason() {
    let mut wrong = User::of_session("7c9e", "203.0.113.5:5000");
    wrong.password = "guess".into();
    let mut world = World::with_user(config(), &wrong);
    world.exchange();
    assert_eq!((world.failure(), world.sent), (TurnFailure::Unauthorized, 2));

    let mut world = World::new(TurnConfig { allocations_per_session: 0, ..config() });
    world.exchange();
    assert_eq!(world.failure(), TurnFailure::QuotaReached);

    let mut world = World::new(TurnConfig { min_port: 50_000, max_port: 50_000, ..config() });
    world.lab.ports.taken.push("192.0.2.1:50000".parse().unwrap());
    world.exchange();
    assert_eq!(world.failure(), TurnFailure::InsufficientCapacity);

    let (mut world, _) = World::allocated(config());
    let user = User::of_session("7c9e", "203.0.113.5:5000");
    let server = world.turn.server();
    let now = world.lab.now.instant;
    world.turn = TurnClient::new(server, user.username, user.password, [8; 32], now);
    world.exchange();
    assert_eq!(world.failure(), TurnFailure::SocketInUse);
}

#[test]
fn a_refused_peer_does_not_end_the_allocation() {
    let (mut world, relayed) = World::allocated(config());
    let now = world.lab.now.instant;
    let inside = "10.0.0.1:80".parse::<SocketAddr>().unwrap();
    world.turn.permit(now, inside.ip());
    world.turn.bind(now, inside);
    world.exchange();
    let refused = TurnEvent::PeerRefused { peer: inside.ip(), code: 403 };
    assert_eq!(world.events(), [refused.clone(), refused]);
    assert_eq!(world.turn.relayed(), Some(relayed));
    assert_eq!(world.turn.channel(inside), None);
}

#[test]
fn a_server_that_forgot_us_is_noticed() {
    let (mut world, _) = World::allocated(config());
    world.lab.core.close_session("7c9e", &mut world.lab.ports);
    world.wait(secs(600));
    assert_eq!(world.failure(), TurnFailure::AllocationLost);
}

#[test]
fn closing_gives_the_allocation_back() {
    let (mut world, _) = World::allocated(config());
    world.turn.bind(world.lab.now.instant, PEER.parse().unwrap());
    world.exchange();
    world.events();
    world.turn.close(world.lab.now.instant);
    world.exchange();
    assert_eq!(world.events(), [TurnEvent::Closed]);
    assert_eq!((world.lab.core.allocations(), world.turn.poll_timeout()), (0, None));
}

#[test]
fn forged_answers_are_not_believed() {
    let (mut world, _) = World::allocated(config());
    let now = world.lab.now.instant;
    world.turn.close(now);
    let mut buffer = [0; 1200];
    let len = world.turn.poll_transmit(&mut buffer).unwrap();
    let id = Message::parse(&buffer[..len]).unwrap().transaction_id();
    for sealed in [false, true] {
        let mut forged = [0; 128];
        let builder = Builder::new(&mut forged, Class::Success, Method::REFRESH, id);
        let builder = if sealed { builder.integrity(b"a guess") } else { builder };
        let len = builder.finish().unwrap();
        assert_eq!(world.turn.handle_datagram(now, &forged[..len]), Received::Control);
        assert_eq!(world.events(), []);
    }
}

#[test]
fn what_is_no_turn_is_left_to_others() {
    let (mut world, _) = World::allocated(config());
    let now = world.lab.now.instant;
    for data in [&[][..], &[22, 254, 253], &[0x80, 96, 0, 1, 2, 3], &[0; 40]] {
        assert_eq!(world.turn.handle_datagram(now, data), Received::NotTurn, "{data:?}");
    }
    assert_eq!(world.turn.handle_datagram(now, &[0x40, 0, 0, 1, 7]), Received::Control);
}

#[test]
fn the_number_of_peers_is_bounded() {
    let (mut world, _) = World::allocated(config());
    let now = world.lab.now.instant;
    let permitted =
        (0..100).filter(|i| world.turn.permit(now, [198, 51, 100, *i as u8].into())).count();
    let bound = (1..100).filter(|i| world.turn.bind(now, ([198, 51, 100, 1], *i).into())).count();
    assert_eq!((permitted, bound), (32, 8));
    world.exchange();
    assert_eq!(world.events().len(), 40);
}

#[test]
fn a_probe_learns_our_address_or_gives_up_in_five_seconds() {
    let mut lab = Lab::new(config());
    let client = User::of_session("x", "203.0.113.5:5000").client;
    let mut buffer = [0; 64];
    let mut probe = StunProbe::new([1; 32], lab.now.instant);
    let len = probe.poll_transmit(&mut buffer).unwrap();
    assert_eq!(probe.poll_transmit(&mut buffer), None, "once");
    let answer = lab.raw(client, &buffer[..len]).unwrap();
    assert!(!probe.handle_datagram(&[0; 30]), "somebody else's");
    assert!(probe.handle_datagram(&answer.bytes));
    assert!(!probe.handle_datagram(&answer.bytes), "answered already");
    assert_eq!(probe.poll_event(), Some(StunProbeEvent::Mapped(client.address)));
    assert_eq!((probe.poll_event(), probe.poll_timeout()), (None, None));

    let start = lab.now.instant;
    let (mut probe, mut sent) = (StunProbe::new([2; 32], start), 0);
    let mut end = start;
    while let Some(at) = probe.poll_timeout() {
        sent += usize::from(probe.poll_transmit(&mut buffer).is_some());
        probe.handle_timeout(at);
        end = at;
    }
    assert_eq!((sent, end - start), (5, secs(5)));
    assert_eq!(probe.poll_event(), Some(StunProbeEvent::Failed));
}
