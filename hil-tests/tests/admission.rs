//! Who may watch: every refusal comes back as an `error` with the contract's code, and costs the
//! camera nothing.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]

use hil_tests::api::{ApiError, Session};
use hil_tests::broker::Broker;
use hil_tests::clock;
use hil_tests::lab::{CameraSetup, Lab, PATIENCE};
use hil_tests::viewer::{Options, Viewer, login};
use sdk_core::wire::signal::{SessionId, app_topic, device_topic};
use sdk_core::wire::token::Claims;
use serde_json::{Value, json};
use tokio::time::timeout;

mod common;
use common::{expect_refused, join, play};

/// A camera with a small clip: nothing here looks at the picture's size.
async fn lab() -> Lab {
    let clip = hil_tests::lab::clip_path("baseline-180p30.h264");
    Lab::start(CameraSetup { clip, ..CameraSetup::default() }).await.unwrap()
}

async fn session(lab: &Lab) -> Session {
    lab.api.create(&lab.setup.device, "app-1").await.unwrap()
}

async fn refused(session: Session, code: u16) {
    let viewer = Viewer::join_session(session, Options::default()).await.unwrap();
    expect_refused(&viewer, code).await;
}

/// Whatever was refused before, the next viewer plays.
async fn still_plays(lab: Lab) {
    let viewer = join(&lab, Options::default()).await;
    play(&lab, &viewer, 10).await;
    viewer.leave().await;
    lab.finish().unwrap();
}

fn claims(session: &Session) -> Claims {
    Claims {
        sid: session.session_id.clone(),
        dev: session.device.clone(),
        app: session.app.clone(),
        exp: clock::unix_ms() / 1000 + 600,
        ice_servers: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_open_nothing() {
    let lab = lab().await;

    // Missing, nonsense, forged by one character of its signature.
    let good = session(&lab).await;
    refused(Session { token: String::new(), ..good.clone() }, 401).await;
    let other = session(&lab).await;
    refused(Session { token: "a.b.c".into(), ..other }, 401).await;
    let mut forged = session(&lab).await;
    let swapped = if forged.token.ends_with('A') { "B" } else { "A" };
    let cut = forged.token.len() - 20;
    forged.token.replace_range(cut..=cut, swapped);
    refused(forged, 401).await;

    // Signed by the service, but expired.
    let expired = session(&lab).await;
    let token = lab.sign(&Claims { exp: clock::unix_ms() / 1000 - 60, ..claims(&expired) });
    refused(Session { token, ..expired }, 401).await;

    // Signed by the service, but for another device.
    let elsewhere = session(&lab).await;
    let token = lab.sign(&Claims { dev: "camera-2".into(), ..claims(&elsewhere) });
    refused(Session { token, ..elsewhere }, 403).await;

    // And the same way of signing opens the camera when the claims are right: the refusals above
    // were for what they claim to be.
    let right = session(&lab).await;
    let token = lab.sign(&claims(&right));
    let viewer =
        Viewer::join_session(Session { token, ..right }, Options::default()).await.unwrap();
    viewer.frames(5, PATIENCE).await.unwrap();
    viewer.leave().await;
    still_plays(lab).await;
}

/// A token is for its own session: stolen by an application that has another one, it opens nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_session_or_application_opens_nothing() {
    let lab = lab().await;
    let stolen = session(&lab).await;
    let own = session(&lab).await;
    let viewer =
        Viewer::join_session(Session { token: stolen.token.clone(), ..own }, Options::default())
            .await
            .unwrap();
    expect_refused_with_one_of(&viewer, &[401, 403]).await;

    let thief = lab.api.create(&lab.setup.device, "app-2").await.unwrap();
    let viewer = Viewer::join_session(
        Session { token: stolen.token, session_id: stolen.session_id, ..thief },
        Options::default(),
    )
    .await
    .unwrap();
    expect_refused_with_one_of(&viewer, &[401, 403]).await;
    still_plays(lab).await;
}

async fn expect_refused_with_one_of(viewer: &Viewer, codes: &[u16]) {
    let end = viewer.until_ended(PATIENCE).await;
    let hil_tests::viewer::ViewerError::Refused { code, .. } = end.unwrap() else {
        panic!("expected to be refused with one of {codes:?}");
    };
    assert!(codes.contains(&code), "{code}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_stream_is_not_running() {
    let lab = lab().await;
    let viewer = join(&lab, Options { stream: Some("attic".into()), ..Options::default() }).await;
    expect_refused(&viewer, 503).await;
    still_plays(lab).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_api_wants_its_key() {
    let lab = lab().await;
    let mut api = lab.api.clone();
    api.app_key = "wrong".into();
    match api.create(&lab.setup.device, "app-1").await {
        Err(ApiError::Status { status: 401, .. }) => {}
        other => panic!("{other:?}"),
    }
    still_plays(lab).await;
}

/// Sends bytes as they are to the camera, and gives its next answer.
async fn exchange(lab: &Lab, session: &Session, messages: &[Vec<u8>]) -> Value {
    let (broker, mut inbox) =
        Broker::connect(&login(session), &[app_topic(&session.app)]).await.unwrap();
    for message in messages {
        broker.publish(&device_topic(&lab.setup.device), message.clone()).await.unwrap();
    }
    let answer = timeout(PATIENCE, inbox.recv()).await.expect("the camera answers").unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

fn message(lab: &Lab, session: &Session, kind: &str, payload: Value) -> Vec<u8> {
    json!({
        "type": kind,
        "sessionId": session.session_id,
        "from": session.app,
        "to": lab.setup.device,
        "payload": payload,
        "timestamp": clock::unix_ms(),
    })
    .to_string()
    .into_bytes()
}

fn expect_error(answer: &Value, code: u16) {
    assert_eq!(answer["type"], "error", "{answer}");
    assert_eq!(answer["payload"]["code"], code, "{answer}");
    assert!(answer["payload"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_is_answered_where_it_can_be_and_hurts_nobody() {
    let lab = lab().await;

    // No session to answer in: ignored. The readable one after it is answered.
    let s = session(&lab).await;
    let nonsense = [
        b"".to_vec(),
        b"{".to_vec(),
        vec![0xff; 300],
        b"[]".to_vec(),
        br#"{"type":"offer"}"#.to_vec(),
        vec![b'['; 60_000],
    ];
    let mut messages = nonsense.to_vec();
    messages.push(message(&lab, &s, "dance", json!({})));
    expect_error(&exchange(&lab, &s, &messages).await, 400);

    let s = session(&lab).await;
    let no_sdp = message(&lab, &s, "offer", json!({ "token": s.token }));
    expect_error(&exchange(&lab, &s, &[no_sdp]).await, 400);

    let s = session(&lab).await;
    let bad_sdp = json!({ "token": s.token, "sdp": "v=1\r\nnonsense" });
    expect_error(&exchange(&lab, &s, &[message(&lab, &s, "offer", bad_sdp)]).await, 400);

    // Nothing in it can be played.
    let s = session(&lab).await;
    let vp8 = OFFER.replace("H264/90000", "VP8/90000");
    let offer = message(&lab, &s, "offer", json!({ "token": s.token, "sdp": vp8 }));
    expect_error(&exchange(&lab, &s, &[offer]).await, 406);

    // A candidate for a session that the camera has never heard of.
    let mut unknown = session(&lab).await;
    unknown.session_id = SessionId::from_random([9; 16]).to_string();
    let candidate =
        json!({ "candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMid": "0" });
    let stray = message(&lab, &unknown, "candidate", candidate);
    // It may be early (an answer is then due to nobody) or unknown (404): either way the camera
    // goes on, which the offer after it shows.
    let s = session(&lab).await;
    let offer = message(&lab, &s, "offer", json!({ "token": s.token, "sdp": OFFER }));
    let (broker, mut inbox) = Broker::connect(&login(&s), &[app_topic(&s.app)]).await.unwrap();
    for bytes in [stray, offer] {
        broker.publish(&device_topic(&lab.setup.device), bytes).await.unwrap();
    }
    loop {
        let answer = timeout(PATIENCE, inbox.recv()).await.expect("an answer").unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        match answer["sessionId"] == s.session_id.as_str() {
            true if answer["type"] == "answer" => break,
            true => assert_eq!(answer["type"], "candidate", "{answer}"),
            false => expect_error(&answer, 404),
        }
    }
    still_plays(lab).await;
}

/// An offer that was repeated, by QoS 1 or by the viewer's own retry, gets the same answer; it does
/// not make a second session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_offer_gets_the_same_answer() {
    let lab = lab().await;
    let s = session(&lab).await;
    let offer = message(&lab, &s, "offer", json!({ "token": s.token, "sdp": OFFER }));
    let (broker, mut inbox) = Broker::connect(&login(&s), &[app_topic(&s.app)]).await.unwrap();
    for _ in 0..3 {
        broker.publish(&device_topic(&lab.setup.device), offer.clone()).await.unwrap();
    }
    let mut answers = Vec::new();
    let listen = async {
        while let Some(got) = inbox.recv().await {
            let got: Value = serde_json::from_slice(&got.payload).unwrap();
            assert_ne!(got["type"], "error", "{got}");
            if got["type"] == "answer" {
                answers.push(got["payload"]["sdp"].as_str().unwrap().to_owned());
            }
        }
    };
    // The camera repeats its answer too, until it hears more from this viewer, which says nothing.
    let _ = timeout(std::time::Duration::from_secs(4), listen).await;
    assert!(!answers.is_empty());
    assert!(answers.iter().all(|sdp| *sdp == answers[0]), "{answers:#?}");
    assert!(answers[0].contains("a=setup:passive"), "{}", answers[0]);
    still_plays(lab).await;
}

/// An offer of no browser in particular; its ICE credentials and fingerprint belong to nobody.
const OFFER: &str = "v=0\r\n\
o=- 1 2 IN IP4 127.0.0.1\r\n\
s=-\r\n\
t=0 0\r\n\
a=group:BUNDLE 0\r\n\
m=video 9 UDP/TLS/RTP/SAVPF 96\r\n\
c=IN IP4 0.0.0.0\r\n\
a=rtcp:9 IN IP4 0.0.0.0\r\n\
a=ice-ufrag:abcd\r\n\
a=ice-pwd:abcdefghijklmnopqrstuvwx\r\n\
a=ice-options:trickle\r\n\
a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
a=setup:actpass\r\n\
a=mid:0\r\n\
a=recvonly\r\n\
a=rtcp-mux\r\n\
a=rtpmap:96 H264/90000\r\n\
a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
a=rtcp-fb:96 nack pli\r\n";
