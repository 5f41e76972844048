//! Sessions served by TURN nodes that are not ours: real coturns, with the configuration we ship.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod api_support;
mod coturn_support;

use api_support::{
    TURN_SECRET, allocate_at, config, metric, new_session, until_metric, with_server,
};
use coturn_support::Coturn;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use sdk_core::peer::turn::TurnEvent;
use sdk_core::wire::stun::{
    Builder, Class, Message, Method, TransactionId, attribute, long_term_key,
};
use sdk_core::wire::token;
use serde_json::{Value, json};
use server_min::server::Server;
use server_min::session::service::Addresses;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

/// `turn.external` with these, all in our own region.
fn external(nodes: &[&Coturn]) -> String {
    let entry = |node: &&Coturn| {
        let [udp, tcp, tls] = node.urls();
        format!("{{urls=['{udp}','{tcp}','{tls}'],secret='{}'}}", node.secret)
    };
    format!("[{}]", nodes.iter().map(entry).collect::<Vec<_>>().join(","))
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// The node that a session was given; everything it says must be of this one.
fn node_of(session: &Value, nodes: &[&Coturn]) -> usize {
    let ice = &session["iceServers"];
    let stun = strings(&ice[0]["urls"]);
    let is_it = |node: &&Coturn| stun == [format!("stun:127.0.0.1:{}", node.port)];
    let i = nodes.iter().position(is_it).unwrap_or_else(|| panic!("{ice}"));
    assert_eq!(strings(&ice[1]["urls"]), nodes[i].urls(), "only what is served is offered");
    assert_eq!(ice.as_array().unwrap().len(), 2);
    i
}

#[test]
fn sessions_spread_over_coturns_and_relay_where_they_are_told() {
    let (a, b, c) = (Coturn::open("a"), Coturn::open("b"), Coturn::open("c"));
    let nodes = [&a, &b, &c];
    let list = external(&nodes);
    with_server(&[("turn.listen", "[]"), ("turn.external", &list)], |server| async move {
        assert!(server.stun.is_empty(), "no relay of our own");
        let mut given: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
        for i in 0..45 {
            let session = new_session(server.http, "cam_1", &format!("app_{i}")).await;
            // The camera is told the same by the token.
            let claims = token::verify(session["token"].as_str().unwrap(), &server.public_key);
            let told = serde_json::to_value(claims.unwrap().ice_servers).unwrap();
            assert_eq!(told, session["iceServers"]);
            given.entry(node_of(&session, &nodes)).or_default().push(session);
        }
        let counts: Vec<usize> = given.values().map(Vec::len).collect();
        println!("sessions of each coturn: {counts:?}");
        assert!(counts.len() == 3 && counts.iter().all(|n| *n >= 5), "{counts:?}");
        for (i, sessions) in &given {
            let node = nodes[*i];
            let name = format!("127.0.0.1:{}", node.port);
            let counted = format!("turn_node_sessions_total{{node=\"{name}\",region=\"eu-1\"}}");
            assert_eq!(metric(server.http, &counted).await, sessions.len() as f64);
            for session in &sessions[..3] {
                let event = allocate_at(node.address(), session).await;
                assert!(matches!(event, TurnEvent::Allocated { .. }), "{event:?}");
            }
            // Its credentials open no other node.
            let event = allocate_at(nodes[(i + 1) % 3].address(), &sessions[0]).await;
            assert!(matches!(event, TurnEvent::Failed { .. }), "{event:?}");
        }
        // Over everything that was offered; with another's client where that can be relied on.
        let session = |i: usize| &given[&i][3];
        tokio::join!(
            relays_everything(session(0), nodes[0].port, &[]),
            relays_everything(session(1), nodes[1].port, &["-t"]),
            allocates_over_tls(session(2), nodes[2]),
        );
        // coturn's log names sessions as ours does.
        for (i, sessions) in &given {
            for session in &sessions[..3] {
                let sid = session["sessionId"].as_str().unwrap();
                assert!(nodes[*i].log().contains(sid), "{sid}");
            }
        }
        server
    });
}

async fn relays_everything(session: &Value, port: u16, arguments: &[&str]) {
    let (sent, received, text) = relayed(session, port, arguments).await;
    assert!(sent.is_some_and(|n| n > 0) && sent == received, "{arguments:?}: {text}");
}

/// coturn's own client sends through the relay to a peer on loopback that sends everything back: the
/// bytes of both directions, and what it said.
async fn relayed(
    session: &Value,
    port: u16,
    arguments: &[&str],
) -> (Option<u64>, Option<u64>, String) {
    let turn = &session["iceServers"][1];
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let peer_port = peer.local_addr().unwrap().port().to_string();
    let echo = async {
        let mut buffer = [0; 1500];
        loop {
            let (len, from) = peer.recv_from(&mut buffer).await.unwrap();
            peer.send_to(&buffer[..len], from).await.unwrap();
        }
    };
    let child = tokio::process::Command::new("turnutils_uclient")
        .args(["-e", "127.0.0.1", "-r", &peer_port, "-p", &port.to_string()])
        .args(["-c", "-n", "10", "-m", "2", "-l", "170"])
        .args(["-u", turn["username"].as_str().unwrap()])
        .args(["-w", turn["credential"].as_str().unwrap()])
        .args(arguments)
        .arg("127.0.0.1")
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .output();
    let output = tokio::select! {
        output = timeout(Duration::from_secs(60), child) => output.unwrap().unwrap(),
        () = echo => unreachable!("it echoes for ever"),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let total = |name: &str| -> Option<u64> {
        let rest = text.lines().rfind(|line| line.contains(name))?.split_once(name)?.1;
        rest.trim_start_matches([' ', '~']).split(',').next()?.trim().parse().ok()
    };
    (total("tot_send_bytes"), total("tot_recv_bytes"), text)
}

/// By hand: `turnutils_uclient -t -S` waits for ever on a machine that is busy, whatever coturn is told.
async fn allocates_over_tls(session: &Value, node: &Coturn) {
    let mut roots = RootCertStore::empty();
    roots.add(node.certificate()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", node.tls_port)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();

    let turn = &session["iceServers"][1];
    let (username, credential) =
        (turn["username"].as_str().unwrap(), turn["credential"].as_str().unwrap());
    let mut nonce: Option<Vec<u8>> = None;
    let mut buffer = [0; 1500];
    loop {
        let builder =
            Builder::new(&mut buffer, Class::Request, Method::ALLOCATE, TransactionId([3; 12]))
                .attribute(attribute::REQUESTED_TRANSPORT, &[attribute::TRANSPORT_UDP, 0, 0, 0]);
        let len = match &nonce {
            None => builder.finish(),
            Some(nonce) => builder
                .attribute(attribute::USERNAME, username.as_bytes())
                .attribute(attribute::REALM, b"p2pcam")
                .attribute(attribute::NONCE, nonce)
                .integrity(&long_term_key(username, "p2pcam", credential))
                .finish(),
        };
        stream.write_all(&buffer[..len.unwrap()]).await.unwrap();
        stream.read_exact(&mut buffer[..20]).await.unwrap();
        let len = 20 + usize::from(u16::from_be_bytes([buffer[2], buffer[3]]));
        stream.read_exact(&mut buffer[20..len]).await.unwrap();
        let answer = Message::parse(&buffer[..len]).unwrap();
        match answer.error_code().map(|error| error.code) {
            None => break assert!(answer.get(attribute::XOR_RELAYED_ADDRESS).is_some()),
            Some(401) if nonce.is_none() => {
                nonce = Some(answer.get(attribute::NONCE).unwrap().to_vec());
            }
            Some(code) => panic!("refused with {code}"),
        }
    }
}

fn nowhere() -> Addresses {
    Addresses {
        stun: "own".into(),
        turn_urls: Vec::new(),
        mqtt_url: String::new(),
        ws_url: String::new(),
    }
}

/// The nodes of many sessions whose ids are always the same, by their STUN addresses.
fn placed(server: &Server) -> BTreeMap<usize, String> {
    let relay =
        |i| server.placement.relay_for(&format!("session-{i}"), "eu-1", &nowhere()).unwrap();
    (0..200).map(|i| (i, relay(i).stun.unwrap_or_else(|| "none".into()))).collect()
}

fn used(placed: &BTreeMap<usize, String>) -> BTreeSet<String> {
    placed.values().cloned().collect()
}

fn up(node: &Coturn) -> String {
    format!("turn_node_up{{node=\"127.0.0.1:{}\",region=\"eu-1\"}}", node.port)
}

/// What the health check promises: an interval, a fifth of it, and two checks without an answer.
const NOTICED_AFTER: Duration = Duration::from_millis(1000 + 200 + 2 * 2000);

#[test]
fn a_coturn_that_dies_is_skipped_and_comes_back() {
    let (a, mut b, c) = (Coturn::start("dies-a"), Coturn::start("dies-b"), Coturn::start("dies-c"));
    let list = external(&[&a, &b, &c]);
    let settings =
        [("turn.listen", "[]"), ("turn.external", &list), ("turn.check_interval_s", "1")];
    with_server(&settings, |server| async move {
        let of_b = b.address().to_string();
        until_metric(server.http, &up(&b), 1.0).await;
        let before = placed(&server);
        assert_eq!(used(&before).len(), 3);

        for hangs in [false, true] {
            // Ends, or stands still with its sockets open.
            let begin = Instant::now();
            if hangs {
                b.hang(true)
            } else {
                b.kill()
            }
            until_metric(server.http, &up(&b), 0.0).await;
            let noticed = begin.elapsed();
            println!("noticed after {noticed:?} (hangs: {hangs})");
            assert!(noticed < NOTICED_AFTER + Duration::from_secs(2), "{noticed:?}");
            let without = placed(&server);
            for (session, node) in &before {
                match *node == of_b {
                    true => assert_ne!(without[session], of_b),
                    false => assert_eq!(without[session], *node, "{session} moved"),
                }
            }
            let heirs: BTreeSet<String> = before
                .iter()
                .filter(|(_, n)| **n == of_b)
                .map(|(s, _)| without[s].clone())
                .collect();
            assert_eq!(heirs.len(), 2, "both others take over: {heirs:?}");
            // Sessions made now work.
            for i in 0..10 {
                let session = new_session(server.http, "cam_1", &format!("app_{i}")).await;
                let node = [&a, &c][node_of(&session, &[&a, &c])];
                let event = allocate_at(node.address(), &session).await;
                assert!(matches!(event, TurnEvent::Allocated { .. }), "{event:?}");
            }

            let begin = Instant::now();
            if hangs {
                b.hang(false)
            } else {
                b.run()
            }
            until_metric(server.http, &up(&b), 1.0).await;
            println!("back after {:?}", begin.elapsed());
            assert_eq!(placed(&server), before, "its own sessions come back, and no others");
        }
        let failed = up(&b).replace("turn_node_up", "turn_node_failed_checks_total");
        assert!(metric(server.http, &failed).await >= 3.0);
        server
    });
}

/// Over TCP as well: the kernel takes connections for a process that hangs, so it must speak.
#[test]
fn a_node_of_tcp_alone_is_asked_over_tcp() {
    let (a, b) = (Coturn::start("tcp-a"), Coturn::start("tcp-b"));
    let list = format!(
        "[{{urls=['{}'],secret='{}'}},{{urls=['{}'],secret='x'}}]",
        a.urls()[1],
        a.secret,
        b.urls()[2]
    );
    let settings =
        [("turn.listen", "[]"), ("turn.external", &list), ("turn.check_interval_s", "1")];
    with_server(&settings, |server| async move {
        // Nobody's STUN is offered: over TCP it would tell nothing that helps.
        assert_eq!(used(&placed(&server)), BTreeSet::from(["none".into()]));
        let session = new_session(server.http, "cam_1", "app_1").await;
        assert_eq!(session["iceServers"].as_array().unwrap().len(), 1);
        let of_b = up(&b).replace(&b.port.to_string(), &b.tls_port.to_string());
        for node in [&up(&a), &of_b] {
            until_metric(server.http, node, 1.0).await;
        }
        a.hang(true);
        until_metric(server.http, &up(&a), 0.0).await;
        a.hang(false);
        until_metric(server.http, &up(&a), 1.0).await;
        drop(b);
        until_metric(server.http, &of_b, 0.0).await;
        server
    });
}

/// As shipped, a relay is no way into the network it stands in.
#[test]
fn a_coturn_as_shipped_relays_to_no_private_address() {
    let coturn = Coturn::start("closed");
    let list = external(&[&coturn]);
    with_server(&[("turn.listen", "[]"), ("turn.external", &list)], |server| async move {
        let session = new_session(server.http, "cam_1", "app_1").await;
        let (_, received, text) = relayed(&session, coturn.port, &[]).await;
        assert_eq!(received.unwrap_or(0), 0, "{text}");
        let log = coturn.log();
        assert!(log.contains("403: Forbidden IP"), "{log}");
        server
    });
}

#[test]
fn our_own_relay_is_one_of_the_nodes() {
    let coturn = Coturn::start("beside");
    let list = external(&[&coturn]);
    with_server(&[("turn.external", &list)], |server| async move {
        let mut counts = [0, 0];
        for i in 0..24 {
            let session = new_session(server.http, "cam_1", &format!("app_{i}")).await;
            let stun = session["iceServers"][0]["urls"][0].as_str().unwrap();
            let is_own = stun == format!("stun:{}", server.stun[0]);
            counts[usize::from(is_own)] += 1;
            let relay = if is_own { server.stun[0] } else { coturn.address() };
            let event = allocate_at(relay, &session).await;
            assert!(matches!(event, TurnEvent::Allocated { .. }), "{event:?}");
        }
        println!("coturn and our own: {counts:?}");
        assert!(counts.iter().all(|n| *n >= 3), "{counts:?}");
        server
    });
}

/// Another server-min as a node, found by a third that relays nothing itself; both choose alike.
#[test]
fn server_mins_can_be_each_others_nodes() {
    let one_secret = [("turn.secrets", TURN_SECRET)];
    with_server(&one_secret, |relay| async move {
        let coturn = Coturn::start("third");
        let own = relay.stun[0];
        let beside = format!("[{{urls=['turn:{own}']}},{}", &external(&[&coturn])[1..]);
        let api = Server::start(config(&[("turn.listen", "[]"), ("turn.external", &beside)]));
        let api = api.await.unwrap();
        relay.placement.reload(&config(&[("turn.external", &external(&[&coturn]))])).await.unwrap();
        let here = placed(&api);
        assert_eq!(used(&here).len(), 2);
        let there: Vec<bool> = placed(&relay).values().map(|stun| stun == "own").collect();
        assert_eq!(here.values().map(|stun| *stun == own.to_string()).collect::<Vec<_>>(), there);
        loop {
            let session = new_session(api.http, "cam_1", "app_1").await;
            if session["iceServers"][0]["urls"][0] == json!(format!("stun:{own}")) {
                let event = allocate_at(own, &session).await;
                assert!(matches!(event, TurnEvent::Allocated { .. }), "{event:?}");
                break;
            }
        }
        api.stop().await;
        relay
    });
}

#[test]
fn a_list_can_change_while_sessions_run() {
    let (a, b) = (Coturn::start("old"), Coturn::start("new"));
    with_server(
        &[("turn.listen", "[]"), ("turn.external", &external(&[&a]))],
        |server| async move {
            assert_eq!(used(&placed(&server)), BTreeSet::from([a.address().to_string()]));
            let both = config(&[("turn.listen", "[]"), ("turn.external", &external(&[&a, &b]))]);
            server.placement.reload(&both).await.unwrap();
            let after = placed(&server);
            let moved = after.values().filter(|stun| **stun == b.address().to_string()).count();
            assert!((60..140).contains(&moved), "{moved} of 200 moved to the new one");
            until_metric(server.http, &up(&b), 1.0).await;
            let alone = config(&[("turn.listen", "[]"), ("turn.external", &external(&[&b]))]);
            server.placement.reload(&alone).await.unwrap();
            assert_eq!(used(&placed(&server)), BTreeSet::from([b.address().to_string()]));
            // The one that left is not asked any more.
            let text = api_support::get(server.http, "/metrics").await.body;
            assert!(!text.contains(&a.address().to_string()), "{text}");
            drop(a);
            sleep(Duration::from_millis(50)).await;
            server
        },
    );
}

#[test]
fn secrets_of_nodes_are_never_shown() {
    let list = "[{urls=['turn:a.example'],secret='hunter2',region='us'}]";
    let config = config(&[("turn.external", list)]);
    let shown = [config.describe(), format!("{config:?}")].concat();
    assert!(shown.contains("turn:a.example:3478?transport=udp"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    let file = std::env::temp_dir().join(format!("p2pcam-external-{}.toml", std::process::id()));
    for (list, says) in [
        ("[{urls=['hunter1']}]", "expected turn:HOST:PORT"),
        ("[{urls=['turn:a'],secret=5}]", "turn.external"),
        ("[{urls=['turn:a'],secret=['hunter2']}]", "turn.external"),
        ("[{urls=['turn:a'],sekret='hunter2'}]", "secret"),
        ("[{urls=['turn:a']}]", "turn.external[0] (a:3478): has no secret"),
    ] {
        std::fs::write(&file, format!("[turn]\nexternal = {list}")).unwrap();
        let error = server_min::config::load(Some(&file), &[]).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
    }
    std::fs::remove_file(&file).unwrap();
}
