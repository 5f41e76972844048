//! Tokens that applications sign themselves: a vendor's back end says who of its users may watch
//! what, without asking here and without holding a key that opens every camera.

use super::record::SessionRecord;
use crate::config::AppConfig;
use sdk_core::wire::token::Jws;
use serde::{Deserialize, Deserializer};

/// How far ahead a token may end, in seconds: what leaks is of no use the day after.
pub const MAX_LIFE_S: u64 = 86_400;
/// By how much two clocks may differ where a token is not too old but too young, in seconds.
const SKEW_S: u64 = 60;

/// What a good token allows: to act for one appId, on one device or on all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppToken {
    /// Who signed it: an id of `[[apps]]`.
    pub issuer: String,
    pub app: String,
    /// The only device it may watch; every device if `None`.
    pub dev: Option<String>,
}

/// Why a token was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It proves nothing, with what is wrong with it: 401.
    Unauthorized(String),
    /// It is genuine, but does not allow this: 403.
    Forbidden(String),
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    app: String,
    /// Left out is every device, so `null`, which may be somebody's forgotten variable, is not.
    #[serde(default, deserialize_with = "not_null")]
    dev: Option<String>,
    /// Unix seconds, as RFC 7519 §2 has them: a fraction is allowed.
    exp: Option<f64>,
    nbf: Option<f64>,
}

impl AppToken {
    /// Checks a token at `now_s`. `None` if it is no application's token at all: no JWS, or without
    /// an `iss`. The `iss` chooses the keys to check with; nothing else of it is looked at before its
    /// signature is good.
    pub fn verify(
        apps: &[AppConfig],
        token: &str,
        now_s: u64,
    ) -> Result<Option<AppToken>, Refusal> {
        #[derive(Deserialize)]
        struct Issuer {
            iss: String,
        }
        let unauthorized = |text: String| Err(Refusal::Unauthorized(text));
        let Ok(jws) = Jws::parse(token) else { return Ok(None) };
        let Ok(Issuer { iss }) = jws.claims() else { return Ok(None) };
        let mut keys = apps.iter().filter(|app| app.id == iss).peekable();
        if keys.peek().is_none() {
            let iss: String = iss.chars().take(80).collect();
            return unauthorized(format!(
                "the token's iss is {iss:?}, which is not one of [[apps]] in the server's \
                 configuration"
            ));
        }
        let Some(key) = keys.find(|app| jws.is_signed_by(&app.public_key)) else {
            return unauthorized(format!(
                "the token is not signed with the key of {iss:?}; is its public_key in the \
                 server's configuration the right one?"
            ));
        };
        let claims: Claims = match jws.claims() {
            Ok(claims) => claims,
            Err(e) => return unauthorized(format!("the token's claims cannot be read: {e}")),
        };
        if let Err(text) = check_time(claims.exp, claims.nbf, now_s) {
            return unauthorized(text);
        }
        let Claims { iss: issuer, app, dev, .. } = claims;
        if !app.starts_with(&key.app_id_prefix) {
            return Err(Refusal::Forbidden(format!(
                "{issuer:?} may act for appIds that begin with {:?}, and the token's app is {app:?}",
                key.app_id_prefix
            )));
        }
        Ok(Some(AppToken { issuer, app, dev }))
    }

    /// Whether it may create a session for `app` to watch `dev`, and if not, why.
    pub fn may_watch(&self, dev: &str, app: &str) -> Result<(), Refusal> {
        if app != self.app {
            let text = format!("the token is for the appId {:?}, not for {app:?}", self.app);
            return Err(Refusal::Forbidden(text));
        }
        match &self.dev {
            Some(only) if only != dev => {
                let text = format!("the token is for the device {only:?}, not for {dev:?}");
                Err(Refusal::Forbidden(text))
            }
            _ => Ok(()),
        }
    }

    /// Whether it may read and close this session. The refusal tells a stranger nothing about it.
    pub fn may_use(&self, session: &SessionRecord) -> Result<(), Refusal> {
        self.may_watch(&session.device_id, &session.app_id).map_err(|_| {
            Refusal::Forbidden("the session is another application's or device's".into())
        })
    }
}

fn check_time(exp: Option<f64>, nbf: Option<f64>, now_s: u64) -> Result<(), String> {
    let Some(exp) = exp else {
        return Err("the token has no exp; say in Unix seconds when it ends".into());
    };
    // Casts of floats saturate: below zero is 0, which has expired.
    let exp_s = exp as u64;
    if now_s >= exp_s {
        return Err(format!("the token has expired: exp is {exp_s}, and it is {now_s} here"));
    }
    if exp_s > now_s + MAX_LIFE_S + SKEW_S {
        return Err(format!(
            "the token's exp is {exp_s}, more than 24 hours ahead ({now_s} here); exp is in \
             seconds, not milliseconds"
        ));
    }
    match nbf {
        Some(nbf) if nbf as u64 > now_s + SKEW_S => {
            Err(format!("the token is not good yet: nbf is {}, and it is {now_s} here", nbf as u64))
        }
        _ => Ok(()),
    }
}

fn not_null<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    String::deserialize(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    use sdk_core::wire::token;
    use serde_json::{Value, json};

    const NOW_S: u64 = 1_750_929_836;

    fn key(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn app(id: &str, seed: u8) -> AppConfig {
        AppConfig {
            id: id.into(),
            public_key: key(seed).public_key().as_ref().try_into().unwrap(),
            app_id_prefix: format!("{id}_"),
        }
    }

    fn verify(claims: &Value, seed: u8) -> Result<AppToken, Refusal> {
        let apps = [app("v1", 1), app("v2", 2), app("v1", 3)];
        let verified = AppToken::verify(&apps, &token::sign(claims, &key(seed)), NOW_S)?;
        Ok(verified.expect("it is an application's token"))
    }

    /// A good token's claims with `changes`; null takes a claim out.
    fn claims(changes: Value) -> Value {
        let mut claims = json!({"iss": "v1", "app": "v1_phone", "exp": NOW_S + 60});
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        claims
    }

    #[test]
    fn a_good_token_says_who_and_what() {
        let good = AppToken { issuer: "v1".into(), app: "v1_phone".into(), dev: None };
        assert_eq!(verify(&claims(json!({})), 1), Ok(good.clone()));
        // With the second key of the same application; with a fraction; with what we do not know.
        let more = json!({"exp": NOW_S as f64 + 0.9 + 1.0, "nbf": NOW_S, "sub": "alice"});
        assert_eq!(verify(&claims(more), 3), Ok(good.clone()));
        let one = verify(&claims(json!({"dev": "cam_1"})), 1).unwrap();
        assert_eq!(one.dev.as_deref(), Some("cam_1"));
        assert_eq!(one.may_watch("cam_1", "v1_phone"), Ok(()));
        assert!(matches!(one.may_watch("cam_2", "v1_phone"), Err(Refusal::Forbidden(_))));
        assert!(matches!(one.may_watch("cam_1", "v1_other"), Err(Refusal::Forbidden(_))));
        assert_eq!(good.may_watch("cam_2", "v1_phone"), Ok(()));
    }

    #[test]
    fn every_other_token_is_refused_with_what_is_wrong() {
        for (changes, seed, says) in [
            (json!({}), 2, "not signed with the key of \"v1\""),
            (json!({}), 9, "not signed"),
            (json!({"iss": "v9"}), 1, "[[apps]]"),
            (json!({"exp": null}), 1, "no exp"),
            (json!({"exp": "soon"}), 1, "claims cannot be read"),
            (json!({"exp": NOW_S}), 1, "expired"),
            (json!({"exp": 0}), 1, "expired"),
            (json!({"exp": -1}), 1, "expired"),
            (json!({"exp": NOW_S * 1000}), 1, "not milliseconds"),
            (json!({"exp": 1e300}), 1, "24 hours"),
            (json!({"exp": NOW_S + MAX_LIFE_S + SKEW_S + 1}), 1, "24 hours"),
            (json!({"nbf": NOW_S + SKEW_S + 1}), 1, "not good yet"),
            (json!({"app": null}), 1, "missing field `app`"),
            (json!({"dev": 7}), 1, "claims cannot be read"),
        ] {
            match verify(&claims(changes.clone()), seed) {
                Err(Refusal::Unauthorized(text)) => assert!(text.contains(says), "{text}"),
                other => panic!("{changes}: {other:?}"),
            }
        }
        let mut null = claims(json!({}));
        null["dev"] = Value::Null;
        assert!(matches!(verify(&null, 1), Err(Refusal::Unauthorized(_))), "dev is null");
        let foreign = verify(&claims(json!({"app": "v2_phone"})), 1);
        assert!(matches!(foreign, Err(Refusal::Forbidden(text)) if text.contains("\"v1_\"")));
        // A session's token has no iss; that is for somebody else to judge.
        for other in [&token::sign(&claims(json!({"iss": null})), &key(1)), "a.b.c", "hunter2"] {
            assert_eq!(AppToken::verify(&[app("v1", 1)], other, NOW_S), Ok(None));
        }
    }

    #[test]
    fn a_token_may_end_a_whole_day_ahead() {
        assert!(verify(&claims(json!({"exp": NOW_S + MAX_LIFE_S})), 1).is_ok());
        assert!(verify(&claims(json!({"exp": NOW_S + 1})), 1).is_ok());
    }
}
