//! What EMQX asks, as `deploy/emqx/p2pcam.conf` makes it ask: EMQX itself is not in Debian, so its
//! documented requests are made here from that very file.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod api_support;

use api_support::{DEVICE_SECRET, Response, new_session, request, with_server};
use serde_json::{Map, Value, json};
use server_min::session::credentials::device_password;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

const SECRET: &str = "the-text-of-mqtt.hook_secret";
// Without `external` the server has a broker of its own; another one may ask all the same.
const SETTINGS: [(&str, &str); 2] = [("mqtt.hook_secret", SECRET), ("mqtt.admin_password", "root")];

/// One `{ … type or backend = http … }` of EMQX's configuration.
struct Question {
    path: String,
    headers: Vec<String>,
    body: Vec<(String, String)>,
}

impl Question {
    /// The first is asked at a login, the second about what a client does.
    fn both() -> [Question; 2] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/emqx/p2pcam.conf");
        let text = std::fs::read_to_string(file).unwrap();
        let mut parts = text.split("method = post").skip(1).map(Question::read);
        let both = [parts.next().unwrap(), parts.next().unwrap()];
        assert!(parts.next().is_none());
        both
    }

    fn read(text: &str) -> Question {
        let block = |name: &str| -> Vec<(String, String)> {
            let (_, rest) = text.split_once(&format!("{name} {{")).unwrap();
            let lines = rest.lines().skip(1).take_while(|line| line.trim() != "}");
            lines
                .map(|line| {
                    let (key, value) = line.split_once(" = ").unwrap();
                    let bare = |text: &str| text.trim().trim_matches('"').to_owned();
                    (bare(key), bare(value))
                })
                .collect()
        };
        let (_, url) = text.split_once("url = \"https://cam.example.org").unwrap();
        let path = url.split_once('"').unwrap().0.to_owned();
        let headers = block("headers").iter().map(|(k, v)| format!("{k}: {v}")).collect();
        Question { path, headers, body: block("body") }
    }

    /// What EMQX makes of its template. What it has no value for is `undefined`.
    async fn ask(&self, server: SocketAddr, client: &HashMap<&str, String>) -> Response {
        let fill = |(key, template): &(String, String)| {
            let name = template.strip_prefix("${").and_then(|t| t.strip_suffix('}')).unwrap();
            let value = client.get(name).cloned().unwrap_or_else(|| "undefined".into());
            (key.clone(), Value::String(value))
        };
        let body: Map<String, Value> = self.body.iter().map(fill).collect();
        request(server, "POST", &self.path, &self.headers, &Value::Object(body).to_string()).await
    }
}

#[test]
fn emqx_lets_in_whom_we_let_in_and_allows_what_we_allow() {
    with_server(&SETTINGS, |server| async {
        let [login, action] = Question::both();
        let session = new_session(server.http, "cam_1", "app_1").await;
        let of_app = |key: &str| session["mqtt"][key].as_str().unwrap().to_owned();
        let clients = [
            ("cam_1".to_owned(), device_password(DEVICE_SECRET, "cam_1"), "device", "cam_1"),
            (of_app("username"), of_app("password"), "app", "app_1"),
        ];
        for (username, password, role, id) in clients {
            let mut client =
                HashMap::from([("username", username.clone()), ("password", password)]);
            client.extend([("clientid", "c".into()), ("peerhost", "192.0.2.7".into())]);
            let answer = login.ask(server.http, &client).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(
                answer.json(),
                json!({"result": "allow", "is_superuser": false,
                       "client_attrs": {"role": role, "id": id}})
            );
            client.insert("password", "wrong".into());
            let answer = login.ask(server.http, &client).await;
            assert_eq!((answer.status, answer.json()), (200, json!({"result": "deny"})));

            let (own, other) = match role {
                "device" => ("p2p/signal/device/cam_1", "p2p/signal/device/cam_2"),
                _ => ("p2p/signal/app/app_1", "p2p/signal/app/app_2"),
            };
            // With what the login's answer said, and by an EMQX that keeps no such thing.
            for with_attributes in [true, false] {
                let mut client = HashMap::from([("username", username.clone())]);
                if with_attributes {
                    client.insert("client_attrs.role", role.into());
                    client.insert("client_attrs.id", id.into());
                }
                for (does, topic, retain, result) in [
                    ("subscribe", own, "false", "allow"),
                    ("subscribe", other, "false", "deny"),
                    ("subscribe", "p2p/#", "false", "deny"),
                    ("publish", "p2p/signal/server", "false", "allow"),
                    ("publish", "p2p/signal/server", "true", "deny"),
                    ("publish", own, "false", "deny"),
                ] {
                    client.insert("action", does.into());
                    client.insert("topic", topic.into());
                    client.insert("retain", retain.into());
                    let answer = action.ask(server.http, &client).await;
                    let got = (answer.status, answer.json()["result"].clone());
                    assert_eq!(got, (200, json!(result)), "{username} {does} {topic} {retain}");
                }
            }
        }
        let admin = HashMap::from([
            ("username", "admin".into()),
            ("password", "root".into()),
            ("peerhost", "2001:db8::7".into()),
        ]);
        assert_eq!(login.ask(server.http, &admin).await.json()["is_superuser"], true);
        server
    });
}

#[test]
fn nobody_asks_without_the_secret_and_bad_questions_are_told_so() {
    let auth = "/v1/mqtt/auth";
    with_server(&SETTINGS, |server| async move {
        let with = |secret: &str| vec![format!("Authorization: Bearer {secret}")];
        for headers in [vec![], with("wrong"), with(""), with(api_support::APP_KEY)] {
            let reply = request(server.http, "POST", auth, &headers, "{}").await;
            assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")));
            assert!(reply.error().contains("mqtt.hook_secret"));
        }
        for (path, body, says) in [
            (auth, r#"{"username": "hunter2", "password": 7}"#, "username and password"),
            ("/v1/mqtt/acl", "{}", "retain"),
            ("/v1/mqtt/acl", r#"{"username":"a","action":"publish","topic":"x"}"#, "${retain}"),
        ] {
            let reply = request(server.http, "POST", path, &with(SECRET), body).await;
            assert_eq!(reply.status, 400, "{path} {body}");
            assert!(
                reply.error().contains(says) && !reply.body.contains("hunter2"),
                "{}",
                reply.body
            );
        }
        let reply = request(server.http, "POST", "/v1/mqtt/x", &with(SECRET), "{}").await;
        assert_eq!(reply.status, 404);
        let reply = request(server.http, "GET", auth, &with(SECRET), "").await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
        server
    });
    with_server(&[], |server| async move {
        let reply =
            request(server.http, "POST", auth, &[format!("Authorization: Bearer {SECRET}")], "{}")
                .await;
        assert_eq!(reply.status, 404);
        server
    });
}

#[test]
fn the_configuration_that_goes_with_it_can_be_used() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/emqx/server-min.toml");
    let config = server_min::config::load(Some(&file), &[]).unwrap();
    assert_eq!(config.mqtt.hook_secret.unwrap().expose(), SECRET);
}
