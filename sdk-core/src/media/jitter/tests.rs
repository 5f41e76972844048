#![allow(clippy::disallowed_methods, reason = "virtual time needs a moment to count from")]

use super::*;

const MS: Duration = Duration::from_millis(1);
/// 20 ms of PCMU.
const STEP: u32 = 160;

/// A packet on its way: when it comes, in microseconds, and its number.
#[derive(Debug, Clone, Copy)]
struct Sent {
    at: u64,
    sequence: u16,
    timestamp: u32,
}

/// What was heard: when, and which packet, or how many were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heard {
    at: u64,
    what: Result<u16, u32>,
    timestamp: Duration,
    duration: Duration,
}

/// Packets `0..count`, each `late(n)` ms after its time; `None` is lost.
fn talk(count: u16, late: impl Fn(u16) -> Option<u64>) -> Vec<Sent> {
    let packet = |n: u16| {
        let at = u64::from(n) * 20_000 + late(n)? * 1000;
        Some(Sent { at, sequence: n, timestamp: u32::from(n) * STEP })
    };
    (0..count).filter_map(packet).collect()
}

fn payload(sequence: u16) -> Vec<u8> {
    sequence.to_be_bytes().repeat(STEP as usize / 2)
}

/// Plays all of it, waking up for nothing but what is due.
fn listen(mut sent: Vec<Sent>) -> (Vec<Heard>, JitterBuffer) {
    sent.sort_by_key(|packet| packet.at);
    let start = Instant::now();
    let mut buffer: Option<JitterBuffer> = None;
    let (mut heard, mut bytes) = (Vec::new(), Vec::new());
    let mut sent = sent.into_iter().peekable();
    loop {
        let arrival = sent.peek().map(|packet| start + Duration::from_micros(packet.at));
        let due = buffer.as_ref().and_then(JitterBuffer::poll_timeout);
        let Some(now) = arrival.into_iter().chain(due).min() else { break };
        while let Some(packet) =
            sent.next_if(|packet| start + Duration::from_micros(packet.at) <= now)
        {
            let bytes = payload(packet.sequence);
            let arrival =
                Arrival { sequence: packet.sequence, timestamp: packet.timestamp, payload: &bytes };
            buffer
                .get_or_insert_with(|| JitterBuffer::new(now, AudioCodec::Pcmu, &arrival))
                .push(now, &arrival);
        }
        let buffer = buffer.as_mut().unwrap();
        let before = heard.len();
        while let Some(piece) = buffer.poll(now, &mut bytes) {
            let what = match piece.lost {
                0 => Ok(u16::from_be_bytes([bytes[0], bytes[1]])),
                lost => Err(lost),
            };
            let at = (now - start).as_micros() as u64;
            heard.push(Heard { at, what, timestamp: piece.timestamp, duration: piece.duration });
        }
        let is_done = heard.len() > before || arrival == Some(now);
        assert!(is_done || due != Some(now), "woken up for nothing");
    }
    (heard, buffer.unwrap())
}

fn numbers(heard: &[Heard]) -> Vec<Result<u16, u32>> {
    heard.iter().map(|piece| piece.what).collect()
}

#[test]
fn what_comes_in_time_is_heard_in_time() {
    let (heard, buffer) = listen(talk(100, |_| Some(0)));
    assert_eq!(numbers(&heard), (0..100).map(Ok).collect::<Vec<_>>());
    for (n, piece) in (0..).zip(&heard) {
        assert_eq!((piece.timestamp, piece.duration), (20 * MS * n, 20 * MS));
    }
    assert_eq!(heard[0].at, 60_000, "at first nothing is known of the way");
    assert_eq!(buffer.delay(), 30 * MS, "and then that it is a good one");
    assert!(heard.windows(2).all(|pair| (19_000..=20_000).contains(&(pair[1].at - pair[0].at))));
    assert_eq!(buffer.stats().lost + buffer.stats().late, 0);
}

#[test]
fn the_delay_follows_the_jitter_and_nothing_is_lost_to_it() {
    // Up to 90 ms late, in no order.
    let late = |n: u16| u64::from(n) * 7919 % 91;
    let (heard, buffer) = listen(talk(500, |n| Some(late(n))));
    let lost: u32 = heard.iter().filter_map(|piece| piece.what.err()).sum();
    assert!(lost <= 15, "{lost} lost of 500");
    assert!((80 * MS..=92 * MS).contains(&buffer.delay()), "{:?}", buffer.delay());
    let order: Vec<u16> = heard.iter().filter_map(|piece| piece.what.ok()).collect();
    assert!(order.is_sorted());
    assert_eq!(order.len() as u64 + u64::from(lost), 500);
}

#[test]
fn a_better_way_is_noticed_slowly() {
    let (heard, buffer) =
        listen(talk(600, |n| Some(if n < 100 { u64::from(n % 4) * 40 } else { 5 })));
    assert_eq!(buffer.delay(), 30 * MS);
    let steps = heard.windows(2).skip(130).map(|pair| pair[1].at - pair[0].at);
    assert!(steps.clone().all(|step| (19_000..=21_000).contains(&step)), "{:?}", steps.min());
}

#[test]
fn a_loss_is_told_when_the_packet_should_have_been_heard() {
    let (heard, buffer) = listen(talk(100, |n| (n != 80 && n != 90 && n != 91).then_some(0)));
    assert_eq!(numbers(&heard)[79..82], [Ok(79), Err(1), Ok(81)]);
    assert_eq!(heard[80].at - heard[79].at, 20_000, "no later than the packet");
    assert_eq!((heard[80].timestamp, heard[80].duration), (1600 * MS, 20 * MS));
    assert_eq!(numbers(&heard)[89..93], [Ok(89), Err(1), Err(1), Ok(92)]);
    assert_eq!((buffer.stats().lost, buffer.stats().late, buffer.stats().played), (3, 0, 97));
}

#[test]
fn a_long_gap_is_told_at_once() {
    let (heard, _) =
        listen(talk(100, |n| (!(60..68).contains(&n) && !(80..90).contains(&n)).then_some(0)));
    let lost: Vec<u32> = heard.iter().filter_map(|piece| piece.what.err()).collect();
    assert_eq!(lost.iter().sum::<u32>(), 18);
    // Behind so many nothing is in time to say when the first of them should have been heard.
    let gap = heard.iter().position(|piece| piece.what == Err(10)).unwrap();
    assert_eq!((heard[gap].timestamp, heard[gap].duration), (1600 * MS, 200 * MS));
    assert_eq!(heard[gap + 1].what, Ok(90));
}

#[test]
fn a_silent_microphone_loses_nothing() {
    // Timestamps go on while nothing is sent (DTX); then with a loss just before the pause.
    let mut sent = talk(150, |_| Some(0));
    for packet in sent.iter_mut().skip(50) {
        packet.at += 400_000;
        packet.timestamp += 20 * STEP;
    }
    let (heard, buffer) = listen(sent.clone());
    assert_eq!(numbers(&heard), (0..150).map(Ok).collect::<Vec<_>>());
    assert_eq!(heard[50].timestamp, 1400 * MS);
    assert_eq!(buffer.stats().lost, 0);

    sent.remove(49);
    let (heard, _) = listen(sent);
    assert_eq!(numbers(&heard)[48..51], [Ok(48), Err(1), Ok(50)]);
    assert_eq!((heard[49].timestamp, heard[49].duration), (980 * MS, 20 * MS), "not all the pause");
    assert_eq!(heard[50].timestamp, 1400 * MS);
}

#[test]
fn after_a_pause_the_delay_is_at_once_what_it_should_be() {
    // A bad second, a good one behind which the bad one is forgotten, a pause.
    let mut sent = talk(300, |n| Some(if n < 50 { u64::from(n % 3) * 60 } else { 0 }));
    for packet in sent.iter_mut().skip(185) {
        packet.at += 1_000_000;
        packet.timestamp += 50 * STEP;
    }
    let (heard, _) = listen(sent);
    let waited = |n: usize| heard[n].at - n as u64 * 20_000 - if n < 185 { 0 } else { 1_000_000 };
    assert!(waited(184) > 40_000, "{}", waited(184));
    assert_eq!(waited(185), 30_000);
}

#[test]
fn packets_that_come_together_after_a_stall_are_heard_one_after_the_other() {
    // A quarter of a second without a packet, as when Wi-Fi looks for another channel.
    let late = |n: u16| if (100..112).contains(&n) { 20 * (112 - u64::from(n)) } else { 0 };
    let (heard, buffer) = listen(talk(400, |n| Some(late(n))));
    assert_eq!(numbers(&heard), (0..400).map(Ok).collect::<Vec<_>>());
    let steps = heard[100..].windows(2).map(|pair| pair[1].at - pair[0].at);
    assert!(steps.clone().all(|step| step >= 18_000), "{:?}", steps.min());
    assert!(buffer.delay() < 60 * MS, "and then it hurries a little: {:?}", buffer.delay());
}

#[test]
fn the_delay_has_a_bound_and_what_is_later_is_dropped() {
    // Two seconds without a packet, then all at once.
    let late = |n: u16| if (100..200).contains(&n) { 20 * (200 - u64::from(n)) } else { 0 };
    let (heard, buffer) = listen(talk(400, |n| Some(late(n))));
    let lost: u32 = heard.iter().filter_map(|piece| piece.what.err()).sum();
    assert!((60..=80).contains(&lost), "{lost}");
    assert!(heard.iter().any(|piece| piece.what.is_err_and(|lost| lost > 30)), "told in one call");
    for piece in &heard {
        let Ok(n) = piece.what else { continue };
        let age = piece.at - u64::from(n) * 20_000;
        assert!(age <= 500_000 + 100_000 || n < 101, "packet {n} is {age} us old");
    }
    assert!(buffer.delay() <= MAX_DELAY);
}

#[test]
fn more_packets_than_there_are_places_drop_the_oldest() {
    let mut sent = talk(200, |_| Some(0));
    sent.iter_mut().skip(1).for_each(|packet| packet.at = 20_000);
    let (heard, buffer) = listen(sent);
    assert_eq!(buffer.slots.len(), SLOTS);
    assert_eq!(heard.last().unwrap().what, Ok(199));
    assert_eq!(buffer.stats().played + buffer.stats().lost, 200);
}

#[test]
fn what_comes_twice_or_too_late_is_not_heard_again() {
    let mut sent = talk(60, |n| Some(if n == 40 { 200 } else { 0 }));
    sent.extend(sent.clone().into_iter().map(|packet| Sent { at: packet.at + 1000, ..packet }));
    let (heard, buffer) = listen(sent);
    assert_eq!(numbers(&heard)[39..42], [Ok(39), Err(1), Ok(41)]);
    assert_eq!(heard.len(), 60);
    // Number 40 twice; SRTP does not even let the second one through.
    assert_eq!((buffer.stats().late, buffer.stats().lost), (2, 1));
}

#[test]
fn numbers_wrap() {
    let mut sent = talk(400, |n| (n % 50 != 49).then_some(u64::from(n % 3) * 5));
    for packet in &mut sent {
        packet.sequence = packet.sequence.wrapping_sub(200);
        packet.timestamp = packet.timestamp.wrapping_sub(150 * STEP);
    }
    let (heard, buffer) = listen(sent);
    assert_eq!(heard.len(), 399);
    assert_eq!(buffer.stats().lost, 7);
    for (n, piece) in (0..).zip(&heard) {
        assert_eq!(piece.timestamp, 20 * MS * n);
        assert_eq!(piece.what.is_err(), n % 50 == 49);
    }
}

#[test]
fn a_source_that_begins_anew_or_sets_its_clock_goes_on() {
    let mut sent = talk(300, |_| Some(0));
    for packet in sent.iter_mut().skip(100) {
        packet.sequence += 20_000;
        packet.timestamp = packet.timestamp.wrapping_sub(1 << 30);
    }
    for packet in sent.iter_mut().skip(200) {
        packet.timestamp = packet.timestamp.wrapping_add(100_000_000);
    }
    let (heard, buffer) = listen(sent);
    assert!(heard.iter().all(|piece| piece.what.is_ok()));
    // The one that waited was of another count.
    assert_eq!(heard.len(), 299);
    assert!(heard.windows(2).all(|pair| pair[0].timestamp < pair[1].timestamp), "no step back");
    assert!(heard.windows(2).all(|pair| pair[1].at - pair[0].at <= 80_000));
    assert_eq!((buffer.stats().lost, buffer.stats().late), (0, 0));
}

#[test]
fn what_is_no_sound_is_neither_heard_nor_lost() {
    let start = Instant::now();
    let bytes = payload(0);
    let packet = |sequence, timestamp, payload| Arrival { sequence, timestamp, payload };
    let first = packet(0, 0, &bytes[..]);
    let mut buffer = JitterBuffer::new(start, AudioCodec::Pcmu, &first);
    buffer.push(start, &first);
    buffer.push(start, &packet(1, 160, &[]));
    buffer.push(start, &packet(2, 160, &[0; MAX_PAYLOAD + 1]));
    // Number 3 never comes, and has no time of its own.
    buffer.push(start, &packet(4, 160, &bytes));
    let (now, mut out) = (start + 90 * MS, Vec::new());
    let pieces: Vec<_> = std::iter::from_fn(|| buffer.poll(now, &mut out)).collect();
    assert_eq!(pieces.iter().map(|piece| piece.lost).collect::<Vec<_>>(), [0, 0]);
    assert_eq!(pieces[1].timestamp, 20 * MS);
    assert_eq!(buffer.poll_timeout(), None);
}

#[test]
fn memory_is_used_again() {
    let (_, mut buffer) = listen(talk(200, |n| Some(u64::from(n % 5) * 10)));
    let held = buffer.held_bytes();
    assert!(held < 24 << 10, "{held}");
    let now = buffer.started + 4000 * MS;
    let (bytes, mut out) = (payload(200), Vec::new());
    for n in 200..400 {
        let now = now + 20 * MS * (n - 200);
        let timestamp = n * STEP;
        buffer.push(now, &Arrival { sequence: n as u16, timestamp, payload: &bytes });
        while buffer.poll(now, &mut out).is_some() {}
    }
    assert_eq!(buffer.held_bytes(), held);
}
