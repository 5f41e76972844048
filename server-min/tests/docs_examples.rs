//! What docs/signaling.md and docs/server.md show is what the server does: every example is read,
//! compared with the real thing, or run.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod api_support;

use api_support::{APP_KEY, bearer, get, new_session, request, with_server};
use sdk_core::wire::signal::{SessionId, Signal};
use sdk_core::wire::token::Claims;
use serde_json::{Value, json};
use server_min::config;
use server_min::session::{SessionRecord, credentials};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const SECRET: &str = "north";

fn doc(name: &str) -> String {
    let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The fenced blocks of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}");
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == opening {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(block.join("\n") + "\n");
        } else if line.starts_with("```") {
            lines.by_ref().find(|line| *line == "```").expect("a block ends");
        }
    }
    blocks
}

/// The names in an object and in what it holds: `mqtt.url`, `iceServers[].urls[]`.
fn names(value: &Value) -> BTreeSet<String> {
    fn add(value: &Value, path: &str, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    add(value, &format!("{path}.{key}"), into);
                }
            }
            Value::Array(list) => list.iter().for_each(|v| add(v, &format!("{path}[]"), into)),
            _ => drop(into.insert(path.to_owned())),
        }
    }
    let mut names = BTreeSet::new();
    add(value, "", &mut names);
    names
}

/// The examples of signaling.md by what they are; each must be something, and read as such.
#[derive(Default)]
struct Examples {
    signals: usize,
    request: Option<Value>,
    created: Option<Value>,
    record: Option<Value>,
    refusal: Option<Value>,
    status: Option<Value>,
    claims: Option<Value>,
    app_claims: Option<Value>,
}

fn examples() -> Examples {
    let mut found = Examples::default();
    for block in blocks(&doc("signaling.md"), "json") {
        let value: Value = serde_json::from_str(&block).unwrap_or_else(|e| panic!("{e}:\n{block}"));
        let place = if value.get("type").is_some() {
            let signal =
                Signal::parse(block.as_bytes()).unwrap_or_else(|e| panic!("{e}:\n{block}"));
            // Written again it says the same, so it holds nothing that is not read.
            let again: Value = serde_json::from_slice(&signal.to_json()).unwrap();
            assert_eq!(again, value);
            found.signals += 1;
            continue;
        } else if value.get("iss").is_some() {
            &mut found.app_claims
        } else if value.get("sid").is_some() {
            &mut found.claims
        } else if value.get("mqtt").is_some() {
            &mut found.created
        } else if value.get("status").is_some() {
            &mut found.record
        } else if value.get("error").is_some() {
            &mut found.refusal
        } else if value.get("online").is_some() {
            &mut found.status
        } else if value.get("deviceId").is_some() {
            &mut found.request
        } else {
            panic!("nothing that is known:\n{block}");
        };
        assert!(place.replace(value).is_none(), "twice:\n{block}");
    }
    found
}

#[test]
fn the_answers_shown_are_those_of_the_server() {
    let examples = examples();
    assert!(examples.signals >= 3, "{}", examples.signals);
    let (asked, shown) = (examples.request.unwrap(), examples.created.unwrap());
    let record_shown = examples.record.unwrap();
    let refusal = examples.refusal.unwrap();
    with_server(&[], |server| async move {
        let body = asked.to_string();
        let key = [bearer(APP_KEY)];
        let reply = request(server.http, "POST", "/v1/sessions", &key, &body).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        let created = reply.json();
        assert_eq!(names(&created), names(&shown));

        let path = format!("/v1/sessions/{}", created["sessionId"].as_str().unwrap());
        let record = request(server.http, "GET", &path, &key, "").await.json();
        for name in ["deviceId", "appId", "region"] {
            assert_eq!((&record[name], &record_shown[name]), (&asked[name], &asked[name]));
        }
        // Two names come with a connection.
        let mut names_of_both = names(&record);
        names_of_both.extend([".path".to_owned(), ".setupMs".to_owned()]);
        assert_eq!(names_of_both, names(&record_shown));
        assert!(serde_json::from_value::<SessionRecord>(record_shown.clone()).is_ok());

        let refused = request(server.http, "GET", &path, &[], "").await.json();
        assert_eq!(names(&refused), names(&refusal));
        server
    });
}

/// Times are in the unit the page says, and every credential follows its formula.
#[test]
fn the_numbers_shown_hang_together() {
    let examples = examples();
    let (created, record) = (examples.created.unwrap(), examples.record.unwrap());
    let claims: Claims = serde_json::from_value(examples.claims.unwrap()).unwrap();
    let sid = created["sessionId"].as_str().unwrap();
    assert!(SessionId::parse(sid).is_some());
    assert_eq!((claims.sid.as_str(), &record["sessionId"]), (sid, &json!(sid)));
    assert_eq!(created["expiresAt"], claims.exp * 1000);
    let created_s = record["createdAt"].as_u64().unwrap() / 1000;
    assert_eq!(claims.exp, created_s + 3600);
    let end_s = created_s + record["ttl"].as_u64().unwrap();

    let turn = credentials::turn(SECRET.as_bytes(), sid, end_s);
    assert_eq!(created["iceServers"][1]["username"], turn.username);
    assert_eq!(created["iceServers"][1]["credential"], turn.password);
    assert_eq!(record["turnAllocation"], turn.username);
    assert_eq!(serde_json::to_value(&claims.ice_servers).unwrap(), created["iceServers"]);
    let mqtt = credentials::mqtt_app(SECRET, record["appId"].as_str().unwrap(), end_s);
    assert_eq!(created["mqtt"]["username"], mqtt.username);
    assert_eq!(created["mqtt"]["password"], mqtt.password);
    let page = doc("signaling.md");
    for text in [
        &turn.password,
        &credentials::device_password(SECRET, record["deviceId"].as_str().unwrap()),
    ] {
        assert!(page.contains(&format!("`{text}`")), "{text}");
    }
    let status = examples.status.unwrap();
    assert!(status["online"].is_boolean() && status["timestamp"].is_u64());
}

/// The commands that make an application's key and token, as they stand on the page.
#[test]
fn a_token_made_as_shown_is_accepted() {
    let folder = std::env::temp_dir().join(format!("p2pcam-docs-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let script: String = blocks(&doc("signaling.md"), "sh").concat();
    let output = Command::new("sh").args(["-euc", &script]).current_dir(&folder).output().unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    let [public_key, token] = lines[..] else { panic!("{text}{complaints}") };

    // What the page says of the claims is what was signed.
    let shown = examples().app_claims.unwrap();
    let (app, device) = (shown["app"].as_str().unwrap(), shown["dev"].as_str().unwrap());
    let apps = format!("[{{id={}, public_key=\"{public_key}\"}}]", shown["iss"]);
    with_server(&[("apps", &apps)], |server| async move {
        let post = |device: &str, app: &str| {
            let body = json!({"deviceId": device, "appId": app}).to_string();
            let key = [bearer(token)];
            async move { request(server.http, "POST", "/v1/sessions", &key, &body).await }
        };
        assert_eq!(post(device, app).await.status, 201);
        let refused = post("device_zzz", app).await;
        assert_eq!((refused.status, refused.json()), (403, examples().refusal.unwrap()));
        server
    });
}

#[test]
fn the_configurations_shown_can_be_used() {
    let blocks = ["server.md", "regions.md"].map(|page| blocks(&doc(page), "toml"));
    assert!(blocks.iter().all(|blocks| blocks.len() >= 2));
    let blocks = blocks.concat();
    for (i, block) in blocks.iter().enumerate() {
        let path: PathBuf =
            std::env::temp_dir().join(format!("p2pcam-docs-{}-{i}.toml", std::process::id()));
        fs::write(&path, block).unwrap();
        let loaded = config::load(Some(&path), &[]);
        fs::remove_file(&path).unwrap();
        loaded.unwrap_or_else(|e| panic!("{e}:\n{block}"));
    }
}

/// The list of metrics has each that there is, and none that is not.
#[test]
fn the_metrics_listed_are_those_there_are() {
    let page = doc("server.md");
    let section = page.split("\n## Metrics\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let listed: BTreeSet<String> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" |").next())
        .flat_map(|cell| cell.split('`'))
        .map(|text| text.split('{').next().unwrap().to_owned())
        .filter(|name| name.contains('_'))
        .collect();
    with_server(&[], |server| async move {
        new_session(server.http, "cam_1", "app_1").await;
        let metrics = get(server.http, "/metrics").await.body;
        let families = metrics.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next());
        assert_eq!(families.map(str::to_owned).collect::<BTreeSet<_>>(), listed);
        server
    });
}
