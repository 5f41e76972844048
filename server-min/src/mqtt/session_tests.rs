use super::*;
use crate::mqtt::access::Role;
use crate::mqtt::codec::Publish;
use crate::mqtt::message::{self, Properties};

struct Rig {
    session: Session,
    link: Rc<Link>,
    counters: Rc<Counters>,
    now: Instant,
}

impl Rig {
    fn new(config: BrokerConfig) -> Self {
        let identity = Rc::new(Identity { role: Role::Device, id: "cam".into() });
        let link = Rc::new(Link::default());
        let counters = Rc::new(Counters::new());
        let mut session = Session::new(
            1,
            identity,
            "cam".into(),
            link.clone(),
            Rc::new(config),
            counters.clone(),
        );
        session.begin(link.clone(), terms());
        Self { session, link, counters, now: Instant::now() }
    }

    fn deliver(&mut self, payload: &[u8], qos: u8) {
        let publish = Publish {
            topic: "t".into(),
            payload: message::payload(payload),
            properties: Properties::default(),
            qos,
            retain: false,
            packet_id: 0,
        };
        let message = Rc::new(Message::new(publish, self.session.identity.clone(), 0, self.now));
        self.session.deliver(&message, qos, false);
    }

    /// (packet id, dup, payload) of everything that goes out now.
    fn written(&mut self) -> Vec<(u16, bool, Vec<u8>)> {
        use crate::mqtt::codec::{Inbound, parse, split};
        let mut out = Vec::new();
        self.session.write_pending(&mut out, usize::MAX, self.now);
        let mut rest = out.as_slice();
        let mut packets = Vec::new();
        while let Ok(Ok(frame)) = split(rest, u32::MAX) {
            let body = &rest[frame.header_len..frame.total_len];
            let Ok(Inbound::Publish(publish)) = parse(Version::V3, frame.first_byte, body) else {
                panic!("not a PUBLISH");
            };
            packets.push((
                publish.packet_id,
                frame.first_byte & 8 != 0,
                publish.payload.as_slice().to_vec(),
            ));
            rest = &rest[frame.total_len..];
        }
        packets
    }

    fn go_offline(&mut self) {
        self.session.presence = Presence::Offline { expires_at: self.now, will_at: None };
    }

    fn dropped(&self) -> u64 {
        self.counters.get().messages_dropped_total
    }
}

fn terms() -> Terms {
    Terms {
        version: Version::V3,
        expiry: Duration::from_secs(60),
        receive_maximum: u16::MAX,
        max_packet_size: u32::MAX,
        will: None,
    }
}

fn small(max_queued_messages: usize, max_inflight: u16) -> BrokerConfig {
    BrokerConfig {
        max_queued_messages,
        max_offline_messages: max_queued_messages,
        max_inflight,
        ..BrokerConfig::default()
    }
}

#[test]
fn the_window_holds_back_and_an_acknowledgement_opens_it() {
    let mut rig = Rig::new(small(100, 2));
    for n in 0..4 {
        rig.deliver(&[n], 1);
    }
    assert_eq!(rig.written(), [(1, false, vec![0]), (2, false, vec![1])]);
    assert!(rig.written().is_empty());
    rig.session.on_puback(7);
    assert!(rig.written().is_empty());
    rig.session.on_puback(1);
    assert_eq!(rig.written(), [(3, false, vec![2])]);
    rig.session.on_puback(2);
    rig.session.on_puback(3);
    assert_eq!(rig.written(), [(4, false, vec![3])]);
    rig.session.on_puback(4);
    assert_eq!(rig.session.held.bytes, 0);
}

#[test]
fn what_was_in_flight_goes_out_again_first_and_under_its_old_id() {
    let mut rig = Rig::new(small(100, 2));
    for n in 0..3 {
        rig.deliver(&[n], 1);
    }
    assert_eq!(rig.written().len(), 2);
    rig.go_offline();
    rig.deliver(&[3], 1);
    rig.deliver(&[9], 0);
    let link = Rc::new(Link::default());
    rig.session.begin(link, terms());
    assert_eq!(rig.written(), [(1, true, vec![0]), (2, true, vec![1])]);
    rig.session.on_puback(1);
    rig.session.on_puback(2);
    assert_eq!(rig.written(), [(3, false, vec![2]), (4, false, vec![3])]);
    assert_eq!(rig.dropped(), 1, "QoS 0 is not kept");
}

#[test]
fn packet_ids_skip_zero_and_those_in_use() {
    let mut rig = Rig::new(small(100, 4));
    rig.session.last_packet_id = u16::MAX - 1;
    rig.deliver(&[0], 1);
    rig.deliver(&[1], 1);
    assert_eq!(rig.written().iter().map(|p| p.0).collect::<Vec<_>>(), [u16::MAX, 1]);
    rig.session.last_packet_id = u16::MAX - 1;
    rig.deliver(&[2], 1);
    assert_eq!(rig.written()[0].0, 2);
}

#[test]
fn qos_0_fills_half_the_queue_and_qos_1_past_the_bound_ends_the_connection() {
    let mut rig = Rig::new(small(10, 1));
    for n in 0..8 {
        rig.deliver(&[n], 0);
    }
    assert_eq!((rig.dropped(), rig.link.close_reason()), (3, None));
    for n in 0..5 {
        rig.deliver(&[n], 1);
    }
    assert_eq!((rig.dropped(), rig.link.close_reason()), (3, None));
    rig.deliver(&[5], 1);
    assert_eq!(rig.link.close_reason(), Some(Fault::QuotaExceeded));
    assert_eq!((rig.session.pending.len(), rig.counters.get().slow_consumers_total), (10, 1));
}

#[test]
fn an_offline_queue_keeps_the_newest() {
    let mut rig = Rig::new(small(3, 10));
    rig.go_offline();
    for n in 0..7 {
        rig.deliver(&[n], 1);
    }
    assert_eq!(rig.dropped(), 4);
    rig.session.begin(Rc::new(Link::default()), terms());
    let payloads: Vec<_> = rig.written().into_iter().map(|p| p.2).collect();
    assert_eq!(payloads, [vec![4], vec![5], vec![6]]);
}

#[test]
fn bytes_are_bounded_too() {
    let config = BrokerConfig { max_offline_bytes: 10_000, ..BrokerConfig::default() };
    let mut rig = Rig::new(config);
    rig.go_offline();
    for _ in 0..100 {
        rig.deliver(&[0; 1000], 1);
    }
    assert!(rig.session.held.bytes <= 10_000 && rig.session.pending.len() == 8);
    rig.deliver(&[0; 20_000], 1);
    assert_eq!(rig.session.pending.len(), 8, "what can never fit pushes nothing out");
}

#[test]
fn qos_2_is_taken_once_and_in_bounds() {
    let mut rig = Rig::new(small(10, 10));
    assert_eq!(rig.session.on_exactly_once(5, 2), Ok(true));
    assert_eq!(rig.session.on_exactly_once(5, 2), Ok(false));
    assert_eq!(rig.session.on_exactly_once(6, 2), Ok(true));
    assert_eq!(rig.session.on_exactly_once(7, 2), Err(Fault::ReceiveMaximumExceeded));
    assert!(rig.session.on_pubrel(5) && !rig.session.on_pubrel(5));
    assert_eq!(rig.session.on_exactly_once(5, 2), Ok(true));
}

#[test]
fn all_queues_together_are_bounded_at_the_cost_of_those_who_hold_much() {
    let config = BrokerConfig {
        max_queued_bytes_total: 50_000,
        max_offline_bytes: 20_000,
        ..BrokerConfig::default()
    };
    let mut greedy = Rig::new(config);
    let modest = Rc::new(Link::default());
    let mut other = Session::new(
        2,
        greedy.session.identity.clone(),
        "other".into(),
        modest.clone(),
        greedy.session.config.clone(),
        greedy.counters.clone(),
    );
    other.begin(modest.clone(), terms());
    for _ in 0..44 {
        greedy.deliver(&[0; 1000], 1);
    }
    assert_eq!((greedy.dropped(), greedy.link.close_reason()), (0, None));
    greedy.deliver(&[0; 5000], 0);
    assert_eq!(greedy.dropped(), 1);
    let message = greedy.session.pending[0].message.clone();
    other.deliver(&message, 1, false);
    assert_eq!(modest.close_reason(), None, "who holds little is served");
    greedy.deliver(&[0; 1000], 1);
    assert_eq!(greedy.link.close_reason(), Some(Fault::QuotaExceeded));
    greedy.go_offline();
    greedy.deliver(&[0; 1000], 1);
    assert_eq!(greedy.dropped(), 2, "an offline queue takes no more");
    drop(greedy.session);
    assert_eq!(greedy.counters.get().queued_bytes, message.queue_cost() as u64);
}
