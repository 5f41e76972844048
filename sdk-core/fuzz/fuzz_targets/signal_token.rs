//! Messages from the broker, and the tokens in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sdk_core::wire::signal::Signal;
use sdk_core::wire::token;

fuzz_target!(|data: &[u8]| {
    if let Ok(signal) = Signal::parse(data) {
        let again = Signal::parse(&signal.to_json()).expect("our own message");
        assert_eq!(again, signal);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(token::verify(text, &[7; 32]).is_err(), "nobody has that key");
    }
});
