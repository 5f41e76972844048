//! Who may watch: the token's signature, whom it is for, and until when.

use crate::time::Now;
use crate::wire::signal::{ErrorCode, SessionId};
use crate::wire::token::{self, Claims};
use std::time::{Duration, Instant};

/// What a token's expiry is worth while this device's clock is unset (before 2024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnsetClock {
    /// The time comes from the service's last keepalive; until there is one, viewers are refused
    /// with 401.
    #[default]
    Refuse,
    /// Until the service has told the time, expiry is not checked; the signature always is.
    AcceptUntilKnown,
}

/// The doorkeeper: the service's public key, this device's name, and an idea of the time.
pub struct Admission {
    device_id: String,
    service_public_key: [u8; 32],
    unset_clock: UnsetClock,
    service_time: Option<ServiceTime>,
}

/// Why a viewer is not admitted; goes into an `error` signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: ErrorCode,
    pub message: String,
}

/// The time as the service last told it, to be counted on by the monotonic clock.
#[derive(Clone, Copy)]
struct ServiceTime {
    told_at: Instant,
    unix: Duration,
}

/// 2024-01-01: a clock before this has not been set.
const CLOCK_IS_SET_AFTER: Duration = Duration::from_secs(1_704_067_200);

impl Admission {
    pub fn new(
        device_id: String,
        service_public_key: [u8; 32],
        unset_clock: UnsetClock,
    ) -> Admission {
        Admission { device_id, service_public_key, unset_clock, service_time: None }
    }

    /// Takes the time from a keepalive of the session service. It only ever moves forward, so that
    /// an old message cannot bring back an expired token.
    pub fn on_service_time(&mut self, now: Now, unix_ms: u64) {
        let unix = Duration::from_millis(unix_ms);
        let known = self.service_time.map(|t| t.at(now.instant));
        if unix > CLOCK_IS_SET_AFTER && known.is_none_or(|known| unix > known) {
            self.service_time = Some(ServiceTime { told_at: now.instant, unix });
        }
    }

    /// Checks that `app` may watch this device in session `id`.
    pub fn check(
        &self,
        now: Now,
        id: SessionId,
        app: &str,
        token: &str,
    ) -> Result<Claims, Refusal> {
        let refuse = |code, message: &str| Err(Refusal { code, message: message.to_owned() });
        if token.is_empty() {
            return refuse(
                ErrorCode::Unauthorized,
                "the offer has no token; create a session first and put its token into the offer",
            );
        }
        let claims = match token::verify(token, &self.service_public_key) {
            Ok(claims) => claims,
            Err(e) => return refuse(ErrorCode::Unauthorized, &e.to_string()),
        };
        if claims.dev != self.device_id {
            return refuse(ErrorCode::Forbidden, "the token is for another device");
        }
        if SessionId::parse(&claims.sid) != Some(id) || claims.app != app {
            return refuse(
                ErrorCode::Unauthorized,
                "the token is for another session or application",
            );
        }
        let expired = match self.unix_time(now) {
            Some(time) => time >= Duration::from_secs(claims.exp),
            None if self.unset_clock == UnsetClock::AcceptUntilKnown => false,
            None => {
                return refuse(
                    ErrorCode::Unauthorized,
                    "this device's clock is unset, so no token's expiry can be checked; \
                     try again once the service has told it the time",
                );
            }
        };
        if expired {
            return refuse(ErrorCode::Unauthorized, "the token has expired; create a new session");
        }
        Ok(claims)
    }

    fn unix_time(&self, now: Now) -> Option<Duration> {
        if now.wall > CLOCK_IS_SET_AFTER {
            return Some(now.wall);
        }
        self.service_time.map(|t| t.at(now.instant))
    }
}

impl ServiceTime {
    fn at(&self, instant: Instant) -> Duration {
        self.unix + instant.saturating_duration_since(self.told_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    const TODAY: u64 = 1_800_000_000;

    struct Bench {
        admission: Admission,
        key: Ed25519KeyPair,
        id: SessionId,
        instant: Instant,
    }

    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn bench(policy: UnsetClock) -> Bench {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public = key.public_key().as_ref().try_into().unwrap();
        Bench {
            admission: Admission::new("device_1".into(), public, policy),
            key,
            id: SessionId::from_random([1; 16]),
            instant: Instant::now(),
        }
    }

    impl Bench {
        fn now(&self, unix: u64) -> Now {
            Now { instant: self.instant, wall: Duration::from_secs(unix) }
        }

        fn token(&self, change: impl Fn(&mut Claims)) -> String {
            let mut claims = Claims {
                sid: self.id.to_string(),
                dev: "device_1".into(),
                app: "app_1".into(),
                exp: TODAY + 60,
                ice_servers: Vec::new(),
            };
            change(&mut claims);
            token::sign(&claims, &self.key)
        }

        fn check(&self, unix: u64, token: &str) -> Result<(), u16> {
            self.admission
                .check(self.now(unix), self.id, "app_1", token)
                .map(|_| ())
                .map_err(|r| r.code.number())
        }
    }

    #[test]
    fn only_the_right_viewer_gets_in() {
        let b = bench(UnsetClock::Refuse);
        assert_eq!(b.check(TODAY, &b.token(|_| ())), Ok(()));
        assert_eq!(b.check(TODAY, ""), Err(401));
        assert_eq!(b.check(TODAY, "a.b.c"), Err(401));
        assert_eq!(b.check(TODAY, &b.token(|c| c.dev = "device_2".into())), Err(403));
        assert_eq!(b.check(TODAY, &b.token(|c| c.app = "app_2".into())), Err(401));
        let other = SessionId::from_random([2; 16]).to_string();
        assert_eq!(b.check(TODAY, &b.token(|c| c.sid = other.clone())), Err(401));
        assert_eq!(b.check(TODAY + 60, &b.token(|_| ())), Err(401));
    }

    #[test]
    fn a_camera_that_thinks_it_is_1970_asks_the_service() {
        let mut b = bench(UnsetClock::Refuse);
        let token = b.token(|_| ());
        assert_eq!(b.check(0, &token), Err(401));
        b.admission.on_service_time(b.now(0), TODAY * 1000);
        assert_eq!(b.check(0, &token), Ok(()));
        b.instant += Duration::from_secs(61);
        assert_eq!(b.check(61, &token), Err(401));
        // An old message does not bring the token back.
        b.admission.on_service_time(b.now(61), TODAY * 1000);
        assert_eq!(b.check(61, &token), Err(401));
    }

    #[test]
    fn the_policy_may_trust_signatures_until_the_time_is_known() {
        let mut b = bench(UnsetClock::AcceptUntilKnown);
        let old = b.token(|c| c.exp = 1);
        assert_eq!(b.check(0, &old), Ok(()));
        b.admission.on_service_time(b.now(0), TODAY * 1000);
        assert_eq!(b.check(0, &old), Err(401));
    }
}
