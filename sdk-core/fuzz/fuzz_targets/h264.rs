//! Annex B and the payloads of RFC 6184: what an encoder or a viewer's test may hand over.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sdk_core::wire::annexb::nal_units;
use sdk_core::wire::h264::{NalHeader, Payload, ProfileLevelId, parameter_set_id};

fuzz_target!(|data: &[u8]| {
    for nal in nal_units(data) {
        assert!(!nal.is_empty());
        let _ = NalHeader::of(nal).map(NalHeader::kind);
        let _ = ProfileLevelId::from_sps(nal);
        let _ = parameter_set_id(nal);
    }
    if let Some(Payload::StapA(units)) = Payload::parse(data) {
        let total: usize = units.map(<[u8]>::len).sum();
        assert!(total <= data.len());
    }
});
