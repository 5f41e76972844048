//! Encrypted packets from anywhere: opened where they lie, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sdk_core::media::srtp::{SrtpKeys, SrtpProfile, SrtpReceiver, SrtpSender};

fuzz_target!(|data: &[u8]| {
    for profile in SrtpProfile::ALL {
        let material: Vec<u8> = (0..profile.exporter_len() as u8).collect();
        let client = SrtpKeys::from_exporter(profile, &material, true).expect("right length");
        let server = SrtpKeys::from_exporter(profile, &material, false).expect("right length");
        let mut receiver = SrtpReceiver::new(&server);
        assert!(receiver.open_rtp(&mut data.to_vec()).is_err(), "forged");
        assert!(receiver.open_rtcp(&mut data.to_vec()).is_err(), "forged");
        // What the other side seals opens to what it was.
        let mut packet = [&[0x80, 200, 0, 1, 0, 0, 0, 1], data].concat();
        let plain = packet.clone();
        if SrtpSender::new(&client).seal_rtcp(&mut packet, 0).is_ok() {
            assert_eq!(receiver.open_rtcp(&mut packet), Ok(&plain[..]));
        }
    }
});
