//! How `rtc-dtls` is given a cookie that its client has already been sent.

use super::super::hello::Cookie;
use rtc_dtls::crypto_provider::{CryptoError, RTCCrypto, RTCCryptoProvider, RTCRandom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A provider whose first random bytes of a cookie's length are the cookie that the client was sent:
/// `rtc-dtls` makes one for each association, and can be given one by no other way.
pub(super) struct WithCookie {
    provider: Arc<dyn RTCCryptoProvider>,
    random: GivenCookie,
}

struct GivenCookie {
    provider: Arc<dyn RTCCryptoProvider>,
    cookie: Cookie,
    given: AtomicBool,
}

impl WithCookie {
    pub(super) fn new(provider: Arc<dyn RTCCryptoProvider>, cookie: Cookie) -> WithCookie {
        let random = GivenCookie { provider: provider.clone(), cookie, given: false.into() };
        WithCookie { provider, random }
    }
}

impl RTCCryptoProvider for WithCookie {
    fn name(&self) -> &'static str {
        self.provider.name()
    }

    fn crypto(&self) -> &dyn RTCCrypto {
        self.provider.crypto()
    }

    fn random(&self) -> &dyn RTCRandom {
        &self.random
    }
}

impl RTCRandom for GivenCookie {
    fn fill(&self, output: &mut [u8]) -> Result<(), CryptoError> {
        if output.len() == self.cookie.len() && !self.given.swap(true, Relaxed) {
            output.copy_from_slice(&self.cookie);
            return Ok(());
        }
        self.provider.random().fill(output)
    }
}
