//! What a viewer says, as a hostile viewer would say it: any numbers, any times, any loss. The jitter
//! buffer keeps its bounds, and hands on nothing that did not come.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sdk_core::media::jitter::{Arrival, JitterBuffer, MAX_DELAY, MAX_PAYLOAD, SLOTS};
use sdk_core::wire::audio::AudioCodec;
use std::time::{Duration, Instant};

/// A packet is nine bytes: how long after the one before it it comes, what its numbers are, its length.
const STEP: usize = 9;
const MS: Duration = Duration::from_millis(1);

fuzz_target!(|data: &[u8]| {
    let Some((first, steps)) = data.split_first() else { return };
    let codec = if first & 1 == 0 { AudioCodec::Opus } else { AudioCodec::Pcma };
    let mut now = Instant::now();
    let (mut sequence, mut timestamp) = (0_u16, 0_u32);
    let mut buffer: Option<JitterBuffer> = None;
    let (mut pushed, mut played, mut payload) = (0_u64, 0_u64, Vec::new());
    let mut was_said = [false; 256];
    for step in steps.chunks_exact(STEP) {
        let &[after, flags, s0, s1, t0, t1, t2, t3, length] = step else { return };
        now += MS * u32::from(after);
        // Mostly steps, as real ones have; now and then a jump to anywhere.
        sequence = match flags & 3 {
            0 | 1 => sequence.wrapping_add(1),
            2 => sequence.wrapping_add_signed(i16::from(s0 as i8)),
            _ => u16::from_be_bytes([s0, s1]),
        };
        timestamp = match flags >> 2 & 3 {
            0 | 1 => timestamp.wrapping_add(codec.clock_rate() / 50),
            2 => timestamp.wrapping_add_signed(i32::from(t0 as i8) * 160),
            _ => u32::from_be_bytes([t0, t1, t2, t3]),
        };
        // The first byte tells it from others; of Opus it says one frame of some length.
        let mark = (pushed as u8) & !3;
        let bytes = vec![mark; (usize::from(length) * 6).min(MAX_PAYLOAD + 1)];
        let packet = Arrival { sequence, timestamp, payload: &bytes };
        let buffer = buffer.get_or_insert_with(|| JitterBuffer::new(now, codec, &packet));
        buffer.push(now, &packet);
        was_said[usize::from(mark)] = true;
        pushed += 1;
        assert!(buffer.delay() <= MAX_DELAY, "{:?}", buffer.delay());
        if flags & 0x10 != 0 {
            continue;
        }
        let mut pieces = 0;
        while let Some(piece) = buffer.poll(now, &mut payload) {
            pieces += 1;
            assert!(pieces <= 9 * SLOTS, "one packet, and few losses before it, for each place");
            if piece.lost == 0 {
                assert!(was_said[usize::from(payload[0])] && codec.ticks(&payload).is_some());
                played += 1;
            } else {
                assert!(piece.duration > Duration::ZERO);
            }
        }
        assert!(buffer.poll_timeout().is_none_or(|due| due > now), "there was more");
    }
    let Some(mut buffer) = buffer else { return };
    // Nothing waits for longer than that, whatever the numbers say.
    now += 2 * MAX_DELAY;
    while let Some(piece) = buffer.poll(now, &mut payload) {
        played += u64::from(piece.lost == 0);
    }
    assert_eq!(buffer.poll_timeout(), None, "it waits for ever");
    assert!(played <= pushed && buffer.stats().played == played);
});
