//! Annex B, parameter sets and the payloads of RFC 7798.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sdk_core::wire::annexb::nal_units;
use sdk_core::wire::codec::Codec;
use sdk_core::wire::h265::{Payload, ProfileTierLevel, parameter_set_id};

fuzz_target!(|data: &[u8]| {
    for nal in nal_units(data) {
        let _ = Codec::H265.unit(nal);
        let profile = ProfileTierLevel::from_sps(nal);
        // An SPS is read up to its id, or not at all.
        assert!(profile.is_none() || parameter_set_id(nal).is_some());
    }
    if let Some(Payload::Aggregation(units)) = Payload::parse(data) {
        let total: usize = units.map(<[u8]>::len).sum();
        assert!(total <= data.len());
    }
});
