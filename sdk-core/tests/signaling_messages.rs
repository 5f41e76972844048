//! The golden messages of `testdata/signaling` through `wire::signal` and `wire::token`.

#![allow(clippy::unwrap_used, reason = "a test")]

use sdk_core::wire::sdp::{Description, StreamFormat};
use sdk_core::wire::signal::{
    Body, Candidate, ErrorCode, Keepalive, Offer, Path as MediaPath, SessionId, SessionState,
    Signal,
};
use sdk_core::wire::token::{self, TokenError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const ID: &str = "550e8400-e29b-41d4-a716-446655440000";

/// The public half of the example key, 32 bytes `01`.
const SERVICE_KEY: [u8; 32] = [
    0x8a, 0x88, 0xe3, 0xdd, 0x74, 0x09, 0xf1, 0x95, 0xfd, 0x52, 0xdb, 0x2d, 0x3c, 0xba, 0x5d, 0x72,
    0xca, 0x67, 0x09, 0xbf, 0x1d, 0x94, 0x12, 0x1b, 0xf3, 0x74, 0x88, 0x01, 0xb4, 0x0f, 0x6f, 0x5c,
];

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/signaling")
}

fn golden(name: &str) -> Signal {
    let bytes = std::fs::read(testdata().join(name)).unwrap();
    Signal::parse(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn json_files(dir: &Path) -> BTreeSet<String> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json") && name != "index.json")
        .collect()
}

fn app_says(body: Body, timestamp: u64) -> Signal {
    Signal {
        session_id: SessionId::parse(ID).unwrap(),
        from: "app_yyy".into(),
        to: "device_xxx".into(),
        body,
        timestamp,
    }
}

fn device_says(to: &str, body: Body, timestamp: u64) -> Signal {
    Signal { from: "device_xxx".into(), to: to.into(), ..app_says(body, timestamp) }
}

fn candidate(text: &str) -> Body {
    Body::Candidate(Candidate {
        candidate: text.into(),
        sdp_mid: Some("video".into()),
        sdp_m_line_index: Some(0),
    })
}

#[test]
fn each_message_says_what_it_should() {
    let expected = [
        (
            "candidate.json",
            device_says(
                "app_yyy",
                candidate("candidate:1 1 udp 2122260223 192.0.2.20 40000 typ host"),
                1750929836133,
            ),
        ),
        ("end_of_candidates.json", device_says("app_yyy", candidate(""), 1750929836240)),
        ("bye.json", app_says(Body::Bye { reason: "the page was closed".into() }, 1750929901000)),
        ("keepalive.json", app_says(Body::Keepalive(Keepalive::default()), 1750929856097)),
        (
            "keepalive_state.json",
            device_says(
                "server",
                Body::Keepalive(Keepalive {
                    state: Some(SessionState::Connected),
                    path: Some(MediaPath::Srflx),
                    setup_ms: Some(312),
                    ..Keepalive::default()
                }),
                1750929836412,
            ),
        ),
        (
            "keepalive_wish.json",
            app_says(
                Body::Keepalive(Keepalive {
                    state: Some(SessionState::Connected),
                    stream: Some("sub".into()),
                    ..Keepalive::default()
                }),
                1750929860000,
            ),
        ),
        (
            "keepalive_stream.json",
            device_says(
                "app_yyy",
                Body::Keepalive(Keepalive {
                    state: Some(SessionState::Connected),
                    path: Some(MediaPath::Host),
                    setup_ms: Some(95),
                    stream: Some("sub".into()),
                    streams: vec!["main".into(), "sub".into()],
                    stream_error: Some("the stream \"attic\" is not running on this device".into()),
                    ..Keepalive::default()
                }),
                1750929860120,
            ),
        ),
        (
            "keepalive_closed.json",
            device_says(
                "server",
                Body::Keepalive(Keepalive {
                    state: Some(SessionState::Closed),
                    code: Some(408),
                    reason: Some("no way to the viewer was found within 20 s".into()),
                    ..Keepalive::default()
                }),
                1750929856120,
            ),
        ),
        (
            "error.json",
            device_says(
                "app_yyy",
                Body::Error {
                    code: ErrorCode::Unauthorized,
                    message: "the token has expired; create a new session".into(),
                },
                1750929836120,
            ),
        ),
        ("unknown_fields.json", app_says(Body::Bye { reason: "done".into() }, 1750929836097)),
        (
            "upper_case_session_id.json",
            app_says(Body::Keepalive(Keepalive::default()), 1750929836097),
        ),
    ];
    for (name, signal) in &expected {
        assert_eq!(golden(name), *signal, "{name}");
    }
    let mut names: BTreeSet<String> = expected.iter().map(|(name, _)| name.to_string()).collect();
    names.extend(["offer.json".into(), "answer.json".into()]);
    assert_eq!(json_files(&testdata()), names, "each example is read by a test");
}

#[test]
fn the_offer_and_the_answer_carry_descriptions_and_a_token() {
    let Body::Offer(Offer { sdp, token, stream }) = golden("offer.json").body else { panic!() };
    let offered = Description::parse(&sdp).unwrap();
    assert!(offered.choose_video(StreamFormat::H264(None)).is_ok());
    assert_eq!(stream.as_deref(), Some("main"));
    let claims = token::verify(&token, &SERVICE_KEY).unwrap();
    assert_eq!((claims.sid.as_str(), claims.dev.as_str()), (ID, "device_xxx"));
    assert_eq!((claims.app.as_str(), claims.exp), ("app_yyy", 1_750_933_436));
    let turn = &claims.ice_servers[1];
    assert_eq!(turn.username, Some(format!("{}:{ID}", claims.exp)));
    // As docs/signaling.md computes it, with the secret `north`.
    assert_eq!(turn.credential.as_deref(), Some("jrwXWktd/uF/kuk0q+pkSgmksFA="));
    assert_eq!(token::verify(&token, &[1; 32]), Err(TokenError::Forged));

    let Body::Answer { sdp } = golden("answer.json").body else { panic!() };
    let answered = Description::parse(&sdp).unwrap();
    assert_eq!(answered.media.len(), offered.media.len());
    assert_eq!(answered.media[0].mid, offered.media[0].mid);
}

#[test]
fn what_is_read_is_written_back_the_same() {
    for name in json_files(&testdata()) {
        let signal = golden(&name);
        assert_eq!(Signal::parse(&signal.to_json()).unwrap(), signal, "{name}");
        if name.starts_with("unknown") || name.starts_with("upper") {
            continue;
        }
        // Field by field, since this is what other implementations see.
        let file = std::fs::read(testdata().join(&name)).unwrap();
        let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
        let written: serde_json::Value = serde_json::from_slice(&signal.to_json()).unwrap();
        assert_eq!(written, file, "{name}");
    }
}

#[derive(serde::Deserialize)]
struct Expected {
    code: u16,
    #[serde(rename = "sessionId")]
    session_id: Option<String>,
}

#[test]
fn malformed_messages_are_refused_with_their_code() {
    let dir = testdata().join("malformed");
    let index = std::fs::read(dir.join("index.json")).unwrap();
    let index: BTreeMap<String, Expected> = serde_json::from_slice(&index).unwrap();
    assert_eq!(json_files(&dir), index.keys().cloned().collect(), "each file is listed");
    for (name, expected) in index {
        let bytes = std::fs::read(dir.join(&name)).unwrap();
        let err = Signal::parse(&bytes).expect_err(&name);
        assert_eq!(err.code.number(), expected.code, "{name}: {err}");
        assert_eq!(err.session_id.map(|id| id.to_string()), expected.session_id, "{name}: {err}");
        assert!(!err.message.is_empty());
    }
}
