//! Access units from a broken encoder, packetised, sealed and asked for again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sdk_core::media::{VideoConfig, VideoStream};
use sdk_core::wire::codec::Codec;
use std::time::Duration;

fuzz_target!(|data: &[u8]| {
    push(Codec::H264, data);
    push(Codec::H265, data);
});

fn push(codec: Codec, data: &[u8]) {
    let mut stream = VideoStream::new(VideoConfig { codec, ..VideoConfig::new(64_000, 1200) });
    for (n, unit) in data.chunks(1 + data.len() / 4).enumerate() {
        let at = Duration::from_millis(33 * n as u64);
        if let Ok(Some(train)) = stream.push(unit, at) {
            assert!(stream.holds(&train));
            for index in train.first_packet..train.first_packet + u64::from(train.packets) {
                let packet = stream.packet(index).expect("it was just pushed");
                assert!(packet.payload.len() <= stream.config().max_payload);
            }
        }
    }
}
