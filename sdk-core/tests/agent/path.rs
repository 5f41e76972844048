//! A viewer's path after it was found: kept by checks while the ICE agent rests, and left when the
//! viewer says so.

use crate::viewer::{FakeViewer, GCM_AND_CM};
use crate::world::World;
use crate::{delta, idr};
use sdk_core::wire::sdp::Description;
use sdk_core::wire::stun::attribute as attr;
use sdk_core::wire::stun::{Builder, Class, Message, Method, TransactionId};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What passes: when, from, to, bytes.
type Passed = Rc<RefCell<Vec<(SocketAddr, SocketAddr, Vec<u8>)>>>;

/// A viewer that has watched for half a minute, and all that passes from now on.
fn watching() -> (World, Passed) {
    let mut world = World::new(|_| ());
    world.push_frame(&idr(3000, 1), Duration::ZERO);
    let id = world.join(FakeViewer::new("198.51.100.1:5000", GCM_AND_CM), 1);
    world.run(Duration::from_secs(30));
    assert!(world.is_connected(id));
    let passed = Passed::default();
    let note = passed.clone();
    world.lose = Box::new(move |from, to, data| {
        note.borrow_mut().push((from, to, data.to_vec()));
        false
    });
    (world, passed)
}

/// The STUN messages of this class among them.
fn stun(passed: &Passed, class: Class) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
    let is_of_class =
        |data: &[u8]| Message::parse(data).is_some_and(|message| message.class() == class);
    passed.borrow().iter().filter(|(.., data)| is_of_class(data)).cloned().collect()
}

#[test]
fn a_path_that_works_takes_a_check_now_and_then_from_each_side() {
    let (mut world, passed) = watching();
    let (camera, viewer) = (world.open_sockets[0].1, world.viewers[0].addr);
    world.run(Duration::from_secs(60));
    let requests = stun(&passed, Class::Request);
    let from = |side| requests.iter().filter(|(from, ..)| *from == side).count();
    // Ours every 2.5 s, those of the crate that is the viewer every 3 s.
    assert!((22..=25).contains(&from(camera)), "{}", from(camera));
    assert!((18..=22).contains(&from(viewer)), "{}", from(viewer));
    assert_eq!(stun(&passed, Class::Success).len(), requests.len(), "each is answered");
}

#[test]
fn a_lost_check_is_soon_repeated_and_nobody_notices() {
    let (mut world, passed) = watching();
    let camera = world.open_sockets[0].1;
    let (note, mut lost) = (passed.clone(), 0);
    let start: Instant = world.now.instant;
    world.lose = Box::new(move |from, to, data| {
        let is_check = from == camera && data[0] == 0;
        lost += u32::from(is_check);
        note.borrow_mut().push((from, to, data.to_vec()));
        is_check && lost <= 2
    });
    world.run(Duration::from_secs(10));
    let sent = stun(&passed, Class::Request).iter().filter(|(from, ..)| *from == camera).count();
    assert!((5..=7).contains(&sent), "{sent} in {:?}", world.now.instant - start);
}

/// The viewer gets another address, as when a phone leaves the Wi-Fi, and nominates that.
#[test]
fn a_nomination_of_another_pair_wakes_the_agent_and_media_follows() {
    let (mut world, passed) = watching();
    let (camera, old) = (world.open_sockets[0].1, world.viewers[0].addr);
    let new: SocketAddr = "198.51.100.77:6000".parse().unwrap();
    let (viewer_user, viewer_password) = world.viewers[0].credentials();
    let answer = world.answer_to("app_1").unwrap();
    let answer = Description::parse(&answer).unwrap();
    let (user, password) = (answer.media[0].ice_ufrag, answer.media[0].ice_pwd.to_owned());

    let mut buffer = [0; 500];
    let id = TransactionId([5; 12]);
    let len = Builder::new(&mut buffer, Class::Request, Method::BINDING, id)
        .attribute(attr::USERNAME, format!("{user}:{viewer_user}").as_bytes())
        .u32(attr::PRIORITY, 0x7FFF_FFFF)
        .attribute(attr::ICE_CONTROLLING, &[1; 8])
        .attribute(attr::USE_CANDIDATE, &[])
        .integrity(password.as_bytes())
        .fingerprint()
        .finish()
        .unwrap();
    world.send(new, camera, buffer[..len].to_vec());

    let to_new: Vec<_> = passed
        .borrow()
        .iter()
        .filter(|(_, to, _)| *to == new)
        .map(|(.., data)| data.clone())
        .collect();
    let answered =
        to_new.iter().filter_map(|data| Message::parse(data)).find(|m| m.class() == Class::Success);
    assert!(answered.is_some_and(|m| m.has_integrity(password.as_bytes())));
    // A pair is used once our own check on it was answered (RFC 8445 §7.3.1.5).
    let check =
        to_new.iter().filter_map(|data| Message::parse(data)).find(|m| m.class() == Class::Request);
    let mut buffer = [0; 500];
    let len =
        Builder::new(&mut buffer, Class::Success, Method::BINDING, check.unwrap().transaction_id())
            .xor_address(attr::XOR_MAPPED_ADDRESS, camera)
            .integrity(viewer_password.as_bytes())
            .fingerprint()
            .finish()
            .unwrap();
    world.send(new, camera, buffer[..len].to_vec());

    let mark = passed.borrow().len();
    world.push_frame(&delta(3000, 1), Duration::from_secs(31));
    let media = |to| {
        let passed = passed.borrow();
        let is_media = |data: &[u8]| (128..=191).contains(&data[0]);
        passed[mark..].iter().filter(|(_, t, data)| *t == to && is_media(data)).count()
    };
    assert_eq!((media(old), media(new)), (0, 3));
}
