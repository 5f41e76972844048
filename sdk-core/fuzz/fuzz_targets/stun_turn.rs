//! Datagrams from a TURN server, a STUN server or ICE's other end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sdk_core::peer::turn::{Received, StunProbe, TurnClient};
use sdk_core::wire::stun::{Message, channel_data};
use std::time::{Duration, Instant};

fuzz_target!(|data: &[u8]| {
    let _ = Message::parse(data);
    let _ = channel_data::parse(data);
    // A client that lives through a sequence of datagrams: each is a length byte and its bytes.
    let mut now = Instant::now();
    let server = "192.0.2.1:3478".parse().expect("an address");
    let mut turn = TurnClient::new(server, "u", "p", [1; 32], now);
    let mut probe = StunProbe::new([2; 32], now);
    let mut out = [0; 1500];
    let mut rest = data;
    while let Some((len, bytes)) = rest.split_first() {
        let (datagram, after) = bytes.split_at(usize::from(*len).min(bytes.len()));
        rest = after;
        if let Received::Data { offset, len, .. } = turn.handle_datagram(now, datagram) {
            assert!(offset + len <= datagram.len());
        }
        probe.handle_datagram(datagram);
        now += Duration::from_millis(50);
        turn.handle_timeout(now);
        probe.handle_timeout(now);
        while turn.poll_transmit(&mut out).is_some() {}
        while turn.poll_event().is_some() {}
    }
});
