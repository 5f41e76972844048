//! Mosquitto keeps a list of who may sign in and do what (its dynamic security plugin), and takes
//! changes as messages. Here is what it is told: what applications may do, that there is one with each
//! session, and that it is gone when the last session of it is over. Devices stand in its password
//! and access files instead, since it writes its whole list down with every change.

use crate::session::Credentials;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub(super) const COMMANDS: &str = "$CONTROL/dynamic-security/v1";
pub(super) const ANSWERS: &str = "$CONTROL/dynamic-security/v1/response";
/// How long an application may still be connected after its last session: it must hear the `bye`.
const LINGER: Duration = Duration::from_secs(5);
/// How often what is remembered of applications is looked through.
const LOOK_INTERVAL_S: u64 = 600;
/// Names in one answer, so that it stays below our packet size; and removals in one message.
const PAGE: usize = 200;
/// With other rights the number is another one: a role that is changed may end its clients'
/// connections.
const APP_ROLE: &str = "p2pcam-app-1";
const SERVICE_ROLE: &str = "p2pcam-service-1";
const GIVE_ROLE: &str = "addClientRole";
/// An application's own role: this and its user name.
const ROLE_PREFIX: &str = "p2pcam:";

pub(super) struct Dynsec {
    /// Under which name we sign in.
    username: String,
    /// Marks our questions among those of other nodes: answers go to all.
    tag: String,
    number: u64,
    /// Who waits for an answer, by its mark.
    waiting: HashMap<String, oneshot::Sender<()>>,
    /// By their id; those of sessions that this node has given out and that may still be open.
    apps: HashMap<String, App>,
    /// Unix seconds at which sessions are looked through whose end nobody told us.
    next_look_s: u64,
    /// Apps whose last session ended, and until when they linger.
    leaving: VecDeque<(Instant, String)>,
    expired: Vec<String>,
}

#[derive(Default)]
struct App {
    /// And the Unix second at which each is over, whatever becomes of it.
    sessions: HashMap<String, u64>,
    usernames: BTreeSet<String>,
}

impl Dynsec {
    pub(super) fn new(username: &str, tag: &str) -> Dynsec {
        Dynsec {
            username: username.into(),
            tag: tag.into(),
            number: 0,
            waiting: HashMap::new(),
            apps: HashMap::new(),
            next_look_s: 0,
            leaving: VecDeque::new(),
            expired: Vec::new(),
        }
    }

    /// What must be there before anything else: the rights of applications, and our own. We are
    /// disconnected once when we are given ours.
    pub(super) fn set_up(&self) -> Vec<u8> {
        commands(&[
            json!({"command": "createRole", "rolename": APP_ROLE, "acls": app_rights()}),
            json!({"command": "createRole", "rolename": SERVICE_ROLE, "acls": service_rights()}),
            json!({"command": GIVE_ROLE, "username": self.username, "rolename": SERVICE_ROLE}),
        ])
    }

    /// Lets the application of a new session in; the receiver hears when that is done.
    pub(super) fn admit(
        &mut self,
        session_id: &str,
        app: &Credentials,
        now_s: u64,
        now: Instant,
    ) -> Option<(Vec<u8>, oneshot::Receiver<()>)> {
        if now_s >= self.next_look_s {
            self.next_look_s = now_s + LOOK_INTERVAL_S;
            self.dismiss_expired(now_s, now);
        }
        let Credentials { username, password } = app;
        let (expiry, app_id) = username.split_once(':')?;
        let entry = self.apps.entry(app_id.to_owned()).or_default();
        entry.sessions.insert(session_id.into(), expiry.parse().ok()?);
        entry.usernames.insert(username.clone());
        let role = role_of(username);
        let own = [
            right("subscribeLiteral", &format!("p2p/signal/app/{app_id}"), 0, true),
            right("publishClientReceive", &format!("p2p/signal/app/{app_id}"), 0, true),
        ];
        let (mark, done) = self.mark();
        // Its own topic is looked for first: the common rights end with what is denied.
        let roles =
            json!([{"rolename": role, "priority": 1}, {"rolename": APP_ROLE, "priority": 0}]);
        let told = commands(&[
            json!({"command": "createRole", "rolename": role, "acls": own, "correlationData": mark}),
            json!({"command": "createClient", "username": username, "password": password,
                   "roles": roles, "correlationData": mark}),
        ]);
        Some((told, done))
    }

    /// A session is over.
    pub(super) fn dismiss(&mut self, session_id: &str, app_id: &str, now: Instant) {
        if let Some(app) = self.apps.get_mut(app_id)
            && app.sessions.remove(session_id).is_some()
            && app.sessions.is_empty()
        {
            self.leaving.push_back((now + LINGER, app_id.into()));
        }
    }

    /// Where nodes share their sessions, another one may have ended it.
    fn dismiss_expired(&mut self, now_s: u64, now: Instant) {
        for (app_id, app) in &mut self.apps {
            let had_any = !app.sessions.is_empty();
            app.sessions.retain(|_, expiry_s| *expiry_s > now_s);
            if had_any && app.sessions.is_empty() {
                self.leaving.push_back((now + LINGER, app_id.clone()));
            }
        }
    }

    /// When [`Dynsec::poll_removals`] has something to say.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.leaving.front().map(|(due, _)| *due)
    }

    /// Takes those out of the list whose time has come and who have no new session.
    pub(super) fn poll_removals(&mut self, now: Instant) -> Option<Vec<u8>> {
        let mut gone = Vec::new();
        while gone.len() < PAGE
            && let Some((due, app_id)) = self.leaving.front()
            && *due <= now
        {
            if self.apps.get(app_id).is_some_and(|app| app.sessions.is_empty())
                && let Some(app) = self.apps.remove(app_id)
            {
                gone.extend(app.usernames);
            }
            self.leaving.pop_front();
        }
        (!gone.is_empty()).then(|| removals(&gone))
    }

    /// Asks for everybody in the list, to find those whom a node that is gone has left there. User
    /// names of the form `{Unix seconds}:…` are applications', and nobody else's.
    pub(super) fn ask_for_list(&mut self) -> Vec<u8> {
        self.expired.clear();
        self.ask_for_page(0)
    }

    /// What is to be said to an answer.
    pub(super) fn on_answer(&mut self, payload: &[u8], now_s: u64) -> Vec<Vec<u8>> {
        let Ok(answer) = serde_json::from_slice::<Answer>(payload) else { return Vec::new() };
        let mut say = Vec::new();
        for response in answer.responses {
            let Response { command, error, correlation_data: mark, data } = response;
            // What is there already is as good; of a role that was given already it says "Internal error".
            if let Some(error) = error
                && !error.contains("already")
                && command != GIVE_ROLE
            {
                log::warn!("Mosquitto's dynamic security refuses {command}: {error}");
            }
            let Some(mark) = mark else { continue };
            if let Some(waiting) = self.waiting.remove(&mark) {
                // Whoever waited may have given up.
                let _ = waiting.send(());
            }
            let is_ours = mark.strip_prefix(self.tag.as_str()).is_some_and(|m| m.starts_with('/'));
            if let (true, Some(page)) = (is_ours, data) {
                say.extend(self.on_page(&mark, page, now_s));
            }
        }
        say
    }

    fn on_page(&mut self, mark: &str, page: Page, now_s: u64) -> Vec<Vec<u8>> {
        let offset = mark.rsplit_once('@').and_then(|(_, n)| n.parse::<usize>().ok()).unwrap_or(0);
        let next = offset + page.clients.len();
        let is_expired = |name: &String| {
            let expiry = name.split_once(':').and_then(|(expiry, _)| expiry.parse::<u64>().ok());
            expiry.is_some_and(|expiry_s| expiry_s <= now_s)
        };
        self.expired.extend(page.clients.into_iter().filter(is_expired));
        if next > offset && next < page.total {
            return vec![self.ask_for_page(next)];
        }
        let expired = std::mem::take(&mut self.expired);
        if !expired.is_empty() {
            log::info!("{} expired applications taken out of Mosquitto's list", expired.len());
        }
        expired.chunks(PAGE).map(removals).collect()
    }

    fn ask_for_page(&mut self, offset: usize) -> Vec<u8> {
        let mark = format!("{}/list@{offset}", self.tag);
        commands(&[json!({"command": "listClients", "count": PAGE, "offset": offset,
                          "correlationData": mark})])
    }

    fn mark(&mut self) -> (String, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        // Those that nobody waits for any more: the broker was away.
        self.waiting.retain(|_, waiting| !waiting.is_closed());
        self.number += 1;
        let mark = format!("{}/{}", self.tag, self.number);
        self.waiting.insert(mark.clone(), sender);
        (mark, receiver)
    }
}

#[derive(Deserialize)]
struct Answer {
    responses: Vec<Response>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    command: String,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    correlation_data: Option<String>,
    #[serde(default)]
    data: Option<Page>,
}

#[derive(Deserialize, Default)]
struct Page {
    #[serde(default, rename = "totalCount")]
    total: usize,
    #[serde(default)]
    clients: Vec<String>,
}

fn commands(list: &[Value]) -> Vec<u8> {
    json!({ "commands": list }).to_string().into_bytes()
}

fn removals(usernames: &[String]) -> Vec<u8> {
    let of_one = |name: &String| {
        [
            json!({"command": "deleteClient", "username": name}),
            json!({"command": "deleteRole", "rolename": role_of(name)}),
        ]
    };
    commands(&usernames.iter().flat_map(of_one).collect::<Vec<_>>())
}

fn role_of(username: &str) -> String {
    format!("{ROLE_PREFIX}{username}")
}

/// The first that matches counts, by descending priority. What is not allowed is denied by name,
/// because the access file, which speaks of devices, is asked about what is not mentioned here.
fn app_rights() -> Value {
    json!([
        right("publishClientSend", "p2p/signal/device/+", 1, true),
        right("publishClientSend", "p2p/signal/server", 1, true),
        right("publishClientSend", "#", 0, false),
        right("publishClientReceive", "p2p/status/device/+", 1, true),
        right("publishClientReceive", "#", 0, false),
        // One device at a time: a wildcard would list every camera.
        right("subscribeLiteral", "p2p/status/device/+", 2, false),
        right("subscribePattern", "p2p/status/device/+", 1, true),
        right("subscribePattern", "#", 0, false),
    ])
}

fn service_rights() -> Value {
    json!([
        right("publishClientSend", "p2p/signal/device/+", 0, true),
        right("publishClientSend", "p2p/signal/app/+", 0, true),
        right("publishClientReceive", "p2p/#", 0, true),
        right("subscribePattern", "p2p/#", 0, true),
    ])
}

fn right(kind: &str, topic: &str, priority: u8, allow: bool) -> Value {
    json!({"acltype": kind, "topic": topic, "priority": priority, "allow": allow})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(username: &str) -> Credentials {
        Credentials { username: username.into(), password: "pw".into() }
    }

    fn names(told: &[u8]) -> Vec<String> {
        let value: Value = serde_json::from_slice(told).unwrap();
        let list = value["commands"].as_array().unwrap().clone();
        list.iter().filter_map(|c| Some(c["username"].as_str()?.to_owned())).collect()
    }

    #[test]
    fn an_application_stays_as_long_as_any_of_its_sessions() {
        let mut dynsec = Dynsec::new("me", "node");
        let now = Instant::now();
        for (session, username) in
            [("s1", "100:a"), ("s2", "100:a"), ("s3", "101:a"), ("s4", "101:b")]
        {
            assert!(dynsec.admit(session, &app(username), 1, now).is_some());
        }
        dynsec.dismiss("s1", "a", now);
        dynsec.dismiss("s3", "a", now);
        dynsec.dismiss("of another node", "a", now);
        assert_eq!(dynsec.poll_timeout(), None);
        dynsec.dismiss("s2", "a", now);
        assert_eq!(dynsec.poll_timeout(), Some(now + LINGER));
        assert_eq!(dynsec.poll_removals(now), None);
        let told = dynsec.poll_removals(now + LINGER).unwrap();
        assert_eq!(names(&told), ["100:a", "101:a"]);
        assert_eq!((dynsec.poll_timeout(), dynsec.apps.len()), (None, 1));
        // One that is back in time stays.
        dynsec.dismiss("s4", "b", now);
        dynsec.admit("s5", &app("102:b"), 1, now);
        assert_eq!(dynsec.poll_removals(now + LINGER), None);
        assert_eq!(dynsec.apps.len(), 1);
    }

    #[test]
    fn a_session_that_another_node_ended_ends_with_its_time() {
        let mut dynsec = Dynsec::new("me", "node");
        let now = Instant::now();
        dynsec.admit("s1", &app("100:a"), 1, now);
        dynsec.admit("s2", &app("900:b"), 2, now);
        assert_eq!(dynsec.poll_timeout(), None);
        dynsec.admit("s3", &app("900:c"), 1 + LOOK_INTERVAL_S, now);
        let told = dynsec.poll_removals(now + LINGER).unwrap();
        assert_eq!((names(&told), dynsec.apps.len()), (vec!["100:a".to_owned()], 2));
    }

    #[test]
    fn an_answer_is_heard_by_who_asked() {
        let mut dynsec = Dynsec::new("me", "node");
        let (told, mut done) = dynsec.admit("s1", &app("100:a"), 1, Instant::now()).unwrap();
        let mark =
            serde_json::from_slice::<Value>(&told).unwrap()["commands"][1]["correlationData"]
                .clone();
        let answer = |mark: &Value| {
            json!({"responses": [{"command": "createRole", "correlationData": mark},
                                 {"command": "createClient", "error": "Client already exists",
                                  "correlationData": mark}]})
            .to_string()
        };
        dynsec.on_answer(answer(&json!("another/1")).as_bytes(), 0);
        assert!(done.try_recv().is_err());
        dynsec.on_answer(b"no JSON", 0);
        dynsec.on_answer(answer(&mark).as_bytes(), 0);
        assert_eq!(done.try_recv(), Ok(()));
        // Who gives up is forgotten with the next one.
        drop(dynsec.admit("s2", &app("100:b"), 1, Instant::now()));
        let waits = dynsec.admit("s3", &app("100:c"), 1, Instant::now());
        assert_eq!(dynsec.waiting.len(), 1);
        drop(waits);
    }

    #[test]
    fn whom_a_lost_node_left_is_found_page_by_page() {
        let mut dynsec = Dynsec::new("me", "node");
        dynsec.ask_for_list();
        let page = |tag: &str, offset: usize, clients: &[&str]| {
            json!({"responses": [{"command": "listClients", "correlationData": format!("{tag}/list@{offset}"),
                                  "data": {"totalCount": 4, "clients": clients}}]})
            .to_string()
        };
        assert!(dynsec.on_answer(page("other", 0, &["9:x"]).as_bytes(), 50).is_empty());
        let say = dynsec.on_answer(page("node", 0, &["admin", "50:a", "51:b"]).as_bytes(), 50);
        assert!(String::from_utf8_lossy(&say[0]).contains(r#""offset":3"#));
        let say = dynsec.on_answer(page("node", 3, &["7:c"]).as_bytes(), 50);
        assert_eq!(say.len(), 1);
        assert_eq!(names(&say[0]), ["50:a", "7:c"]);
    }
}
