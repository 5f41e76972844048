//! Sessions on the authority of a token that an application signed itself, over real HTTP.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod api_support;

use api_support::{APP_KEY, Mqtt, Response, bearer, new_session, request, with_server};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sdk_core::wire::token;
use serde_json::{Value, json};
use server_min::clock;
use server_min::server::Server;
use server_min::session::credentials::hex;
use std::future::Future;

fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

/// Runs `test` beside a server that knows two vendors and one application key.
fn with_vendors<F: Future<Output = Server>>(test: impl FnOnce(Server) -> F) {
    let public = |seed| hex(key(seed).public_key().as_ref());
    let apps = format!(
        r#"[{{id="v1", public_key="{}"}}, {{id="v2", public_key="{}", app_id_prefix="other-"}}]"#,
        public(1),
        public(2)
    );
    with_server(&[("apps", &apps)], test);
}

fn now_s() -> u64 {
    clock::now_ms() / 1000
}

/// The claims of a good token of `v1`.
fn claims() -> Value {
    json!({"iss": "v1", "app": "v1_phone", "exp": now_s() + 600})
}

fn changed(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[name] = value.into();
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name).unwrap();
    claims
}

fn signed(claims: &Value) -> String {
    token::sign(claims, &key(1))
}

async fn post(server: &Server, token: &str, device: &str, app: &str) -> Response {
    let body = json!({"deviceId": device, "appId": app}).to_string();
    request(server.http, "POST", "/v1/sessions", &[bearer(token)], &body).await
}

#[test]
fn a_token_of_a_vendor_opens_what_it_says() {
    with_vendors(|server| async {
        let token = signed(&claims());
        for device in ["cam_1", "cam_2"] {
            let reply = post(&server, &token, device, "v1_phone").await;
            assert_eq!(reply.status, 201, "{}", reply.body);
        }
        // What came with it is good at the broker, for this appId.
        let session = post(&server, &token, "cam_1", "v1_phone").await.json();
        Mqtt::app(server.mqtt, &session, "v1_phone").await;
        // One for a device; the last moment that is allowed; another vendor with a prefix of its own.
        let mut day = changed("exp", now_s() + 86_400);
        day["dev"] = "cam_1".into();
        assert_eq!(post(&server, &signed(&day), "cam_1", "v1_phone").await.status, 201);
        let v2 = json!({"iss": "v2", "app": "other-7", "exp": now_s() + 60});
        let v2 = token::sign(&v2, &key(2));
        assert_eq!(post(&server, &v2, "cam_1", "other-7").await.status, 201);
        // The application key is as good as before.
        new_session(server.http, "cam_1", "v1_phone").await;
        server
    });
}

#[test]
fn what_proves_nothing_is_401() {
    with_vendors(|server| async {
        let good = signed(&claims());
        let (head, signature) = good.rsplit_once('.').unwrap();
        let unsigned = |header: &str| {
            let claims = serde_json::to_vec(&claims()).unwrap();
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
        };
        let none = unsigned(r#"{"alg":"none"}"#);
        // A public key taken for an HMAC's secret: the classic confusion of algorithms.
        let hs256 = unsigned(r#"{"alg":"HS256"}"#);
        let mac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key(1).public_key().as_ref());
        let mac = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&mac, hs256.as_bytes()));
        let key_missing = "Authorization: Bearer KEY";
        for (token, says) in [
            (token::sign(&claims(), &key(2)), "not signed with the key of \"v1\""),
            (token::sign(&changed("iss", "v2"), &key(1)), "not signed with the key of \"v2\""),
            (signed(&changed("iss", "v3")), "\"v3\", which is not one of [[apps]]"),
            (signed(&changed("exp", now_s() - 1)), "has expired"),
            (signed(&changed("exp", now_s())), "has expired"),
            (signed(&without("exp")), "has no exp"),
            (signed(&changed("exp", now_s() + 2 * 86_400)), "more than 24 hours ahead"),
            (signed(&changed("exp", clock::now_ms())), "in seconds, not milliseconds"),
            (signed(&changed("nbf", now_s() + 300)), "not good yet"),
            (signed(&without("app")), "missing field `app`"),
            (signed(&changed("dev", Value::Null)), "cannot be read"),
            (signed(&without("iss")), key_missing),
            (format!("{none}."), key_missing),
            (format!("{none}.{signature}"), key_missing),
            (format!("{hs256}.{mac}"), key_missing),
            (format!("{head}."), "not signed"),
            (head.to_owned(), key_missing),
            (format!("{good}."), key_missing),
            (format!("{good}A"), "not signed"),
        ] {
            let reply = post(&server, &token, "cam_1", "v1_phone").await;
            assert_eq!(reply.status, 401, "{says}: {}", reply.body);
            assert!(reply.error().contains(says), "{says}: {}", reply.body);
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        }
        assert_eq!(post(&server, &good, "cam_1", "v1_phone").await.status, 201);
        server
    });
}

#[test]
fn what_is_not_the_token_s_to_allow_is_403() {
    with_vendors(|server| async {
        let one_device = signed(&changed("dev", "cam_1"));
        let foreign = signed(&changed("app", "other-7"));
        for (token, device, app, says) in [
            (signed(&claims()), "cam_1", "v1_tablet", "the appId \"v1_phone\", not for"),
            (one_device, "cam_2", "v1_phone", "the device \"cam_1\", not for \"cam_2\""),
            (foreign, "cam_1", "other-7", "appIds that begin with \"v1_\""),
        ] {
            let reply = post(&server, &token, device, app).await;
            assert_eq!(reply.status, 403, "{}", reply.body);
            assert!(reply.error().contains(says), "{}", reply.body);
        }
        server
    });
}

#[test]
fn a_session_is_shown_and_closed_for_its_own_application_only() {
    with_vendors(|server| async {
        let session = post(&server, &signed(&claims()), "cam_1", "v1_phone").await.json();
        let path = format!("/v1/sessions/{}", session["sessionId"].as_str().unwrap());
        let v2 = json!({"iss": "v2", "app": "other-7", "exp": now_s() + 60});
        for (token, status) in [
            (token::sign(&v2, &key(2)), 403),
            (signed(&changed("app", "v1_tablet")), 403),
            (signed(&changed("dev", "cam_2")), 403),
            (signed(&changed("app", "other-7")), 403),
            (token::sign(&claims(), &key(2)), 401),
            (signed(&changed("exp", now_s() - 1)), 401),
            (signed(&without("iss")), 401),
        ] {
            for method in ["GET", "DELETE"] {
                let reply = request(server.http, method, &path, &[bearer(&token)], "").await;
                assert_eq!(reply.status, status, "{method} {}", reply.body);
                assert!(!reply.error().contains("v1_phone"), "{}", reply.body);
            }
        }
        let own = [bearer(&signed(&changed("dev", "cam_1")))];
        let record = request(server.http, "GET", &path, &own, "").await;
        assert_eq!((record.status, &record.json()["status"]), (200, &json!("connecting")));
        assert_eq!(request(server.http, "DELETE", &path, &own, "").await.status, 204);
        let record = request(server.http, "GET", &path, &[bearer(APP_KEY)], "").await;
        assert_eq!(record.json()["status"], "closed");
        let nobody = "/v1/sessions/550e8400-e29b-41d4-a716-446655440000";
        assert_eq!(request(server.http, "GET", nobody, &own, "").await.status, 404);
        // A session's own token still reads it, and creates nothing.
        let token = session["token"].as_str().unwrap();
        assert_eq!(request(server.http, "GET", &path, &[bearer(token)], "").await.status, 200);
        assert_eq!(post(&server, token, "cam_1", "v1_phone").await.status, 401);
        server
    });
}
