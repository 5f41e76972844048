//! The nodes there are, what is thought of them, and the choice between them.

use super::config::NodeConfig;
use super::health::Health;
use super::{probe, rendezvous};
use crate::config::Config;
use crate::http::bracketed;
use crate::metrics::{Kind, Text};
use crate::session::service::{Addresses, Relay};
use crate::stun_turn::TurnConfig;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::AbortHandle;

/// A node that answered otherwise than expected is asked again after this part of the interval.
const SOONER: u32 = 5;

/// Every TURN node of this server: at most one of its own, and those of `[turn] external`.
pub struct Pool {
    entries: RefCell<Vec<Entry>>,
}

/// What a pool is made of.
pub struct PoolConfig<'a> {
    pub turn: &'a TurnConfig,
    /// This server's region, and of the nodes that name none.
    pub region: &'a str,
    /// The name of our own relay, if there is one: the address that others list it under, so that all
    /// choose alike.
    pub own: Option<String>,
}

impl<'a> PoolConfig<'a> {
    /// `listening` is where our own relay does.
    pub fn of(config: &'a Config, listening: Option<SocketAddr>) -> PoolConfig<'a> {
        let own = listening.map(|address| {
            let ip = config.turn.external_ip.unwrap_or(address.ip()).to_string();
            let host = bracketed(config.public_host.as_deref().unwrap_or(&ip));
            format!("{host}:{}", address.port())
        });
        PoolConfig { turn: &config.turn, region: &config.region, own }
    }
}

struct Entry {
    node: Rc<Node>,
    /// Asks it; our own relay is not asked.
    watch: Option<Watch>,
}

struct Node {
    name: String,
    region: String,
    key: u64,
    weight: u32,
    secret: Rc<[u8]>,
    /// `None` for our own relay, whose addresses depend on the request.
    external: Option<NodeConfig>,
    health: Cell<Health>,
    sessions: Cell<u64>,
    failed_checks: Cell<u64>,
}

/// Ends the task with the node.
struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Pool {
    /// Starts asking. Within a `LocalSet`.
    pub fn start(config: &PoolConfig<'_>) -> Pool {
        let pool = Pool { entries: RefCell::default() };
        pool.reload(config);
        pool
    }

    /// Takes a new list of nodes. Of those that stay as they are, what is known is kept; sessions that
    /// were given a node which is gone keep their credentials for it.
    pub fn reload(&self, config: &PoolConfig<'_>) {
        let interval = Duration::from_secs(config.turn.check_interval_s);
        let mut before = std::mem::take(&mut *self.entries.borrow_mut());
        let entries = Node::all(config).map(|node| {
            match before.iter().position(|entry| entry.node.is_same_as(&node)) {
                Some(i) => before.swap_remove(i),
                None => Entry::start(node, interval),
            }
        });
        let entries: Vec<Entry> = entries.collect();
        *self.entries.borrow_mut() = entries;
    }

    /// Asks no more.
    pub fn stop(&self) {
        self.entries.borrow_mut().iter_mut().for_each(|entry| entry.watch = None);
    }

    /// The node of a session: the first alive one of its own order, nearer regions before farther ones.
    /// `distance` says how far a region is, 0 for the nearest; `own` is where our own relay is reached.
    pub fn pick(
        &self,
        session_id: &str,
        distance: impl Fn(&str) -> usize,
        own: &Addresses,
    ) -> Option<Relay> {
        let session = rendezvous::key(session_id);
        let entries = self.entries.borrow();
        let order = |node: &Node| {
            let dead = !node.health.get().is_alive();
            let score = rendezvous::score(session, node.key, node.weight);
            // Scores are positive, and positive floats are ordered as their bits are.
            (dead, distance(&node.region), Reverse(score.to_bits()))
        };
        let node = entries.iter().map(|entry| &entry.node).min_by_key(|node| order(node))?;
        if !node.health.get().is_alive() {
            // A direct connection may still come about; and it may be us who reach nobody.
            log::warn!("sessionId={session_id} no TURN node answers; it is given {}", node.name);
        } else if entries.len() > 1 || node.external.is_some() {
            log::info!("sessionId={session_id} relay {} in {}", node.name, node.region);
        }
        node.sessions.set(node.sessions.get() + 1);
        Some(node.relay(own))
    }

    /// Each node, and what is thought of it.
    pub fn describe(&self) -> Vec<Value> {
        let entries = self.entries.borrow();
        let describe = |Entry { node, .. }: &Entry| {
            json!({
                "name": node.name,
                "region": node.region,
                "own": node.external.is_none(),
                "alive": node.health.get().is_alive(),
                "sessions": node.sessions.get(),
            })
        };
        entries.iter().map(describe).collect()
    }

    /// Everything counted.
    pub fn write_metrics(&self, text: &mut Text) {
        let entries = self.entries.borrow();
        type Value = fn(&Node) -> u64;
        let families: [(&str, Kind, &str, Value); 3] = [
            ("turn_node_up", Kind::Gauge, "Whether a TURN node answers", |node| {
                node.health.get().is_alive().into()
            }),
            ("turn_node_sessions_total", Kind::Counter, "Sessions given a TURN node", |node| {
                node.sessions.get()
            }),
            (
                "turn_node_failed_checks_total",
                Kind::Counter,
                "Checks a TURN node did not answer",
                |node| node.failed_checks.get(),
            ),
        ];
        for (name, kind, help, value) in families {
            text.family(name, kind, help);
            for Entry { node, .. } in entries.iter() {
                text.sample(name, &[("node", &node.name), ("region", &node.region)], value(node));
            }
        }
    }
}

impl Entry {
    fn start(node: Node, interval: Duration) -> Entry {
        let node = Rc::new(node);
        let watch = node.external.is_some().then(|| {
            let task = tokio::task::spawn_local(watch(node.clone(), interval));
            Watch(task.abort_handle())
        });
        Entry { node, watch }
    }
}

async fn watch(node: Rc<Node>, interval: Duration) {
    let Some(url) = node.external.as_ref().and_then(NodeConfig::asked_at) else { return };
    loop {
        let outcome = probe::ask(url).await;
        node.on_check(outcome);
        let settled = node.health.get().is_settled();
        tokio::time::sleep(if settled { interval } else { interval / SOONER }).await;
    }
}

impl Node {
    fn all<'a>(config: &'a PoolConfig<'a>) -> impl Iterator<Item = Node> + 'a {
        let common: Rc<[u8]> = config.turn.secrets.first().map_or(Rc::default(), |s| s[..].into());
        let node = |name: String, region: &str, weight, secret, external| Node {
            key: rendezvous::key(&name),
            name,
            region: region.to_owned(),
            weight,
            secret,
            external,
            health: Cell::default(),
            sessions: Cell::default(),
            failed_checks: Cell::default(),
        };
        let own = {
            let common = common.clone();
            config.own.iter().map(move |name| {
                node(name.clone(), config.region, config.turn.weight, common.clone(), None)
            })
        };
        own.chain(config.turn.external.iter().map(move |external| {
            let region = external.region.as_deref().unwrap_or(config.region);
            let given = external.secret.as_ref().map(|secret| secret.expose().as_bytes().into());
            let secret = given.unwrap_or_else(|| common.clone());
            node(external.name(), region, external.weight, secret, Some(external.clone()))
        }))
    }

    fn is_same_as(&self, other: &Node) -> bool {
        let all = |node: &Node| {
            (node.name.clone(), node.region.clone(), node.weight, node.external.clone())
        };
        all(self) == all(other) && self.secret == other.secret
    }

    fn on_check(&self, outcome: Result<(), String>) {
        let mut health = self.health.get();
        let changed = health.on_check(outcome.is_ok());
        self.health.set(health);
        let (name, region) = (&self.name, &self.region);
        if let Err(why) = &outcome {
            self.failed_checks.set(self.failed_checks.get() + 1);
            log::debug!("TURN node {name} did not answer ({why})");
        }
        match (changed, outcome) {
            (Some(false), Err(why)) => log::warn!(
                "TURN node {name} in {region} is dead ({why}); new sessions go to others until it answers"
            ),
            (Some(true), _) => log::info!("TURN node {name} in {region} is alive"),
            _ => {}
        }
    }

    fn relay(&self, own: &Addresses) -> Relay {
        let (stun, turn_urls) = match &self.external {
            None => (Some(own.stun.clone()), own.turn_urls.clone()),
            Some(node) => (node.stun(), node.urls.iter().map(ToString::to_string).collect()),
        };
        Relay { stun, turn_urls, secret: self.secret.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use std::collections::BTreeMap;
    use tokio::task::LocalSet;

    const OWN: &str = "own.example.org:3478";

    fn turn(external: &[(&str, &str)]) -> TurnConfig {
        let external = external.iter().map(|(host, region)| NodeConfig {
            urls: vec![format!("turn:{host}").parse().unwrap()],
            secret: Some(Secret::new(format!("secret of {host}"))),
            region: Some((*region).into()),
            weight: 1,
        });
        TurnConfig {
            external: external.collect(),
            secrets: vec![b"common".to_vec()],
            ..TurnConfig::default()
        }
    }

    /// A pool whose nodes are never asked: the test says what they answer.
    fn pool(turn: &TurnConfig, own: Option<&str>) -> Pool {
        let pool = Pool { entries: RefCell::default() };
        replace(&pool, turn, own);
        pool
    }

    fn replace(pool: &Pool, turn: &TurnConfig, own: Option<&str>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            pool.reload(&PoolConfig { turn, region: "eu", own: own.map(str::to_owned) });
            pool.stop();
        });
    }

    fn answers(pool: &Pool, host: &str, checks: &[bool]) {
        let entries = pool.entries.borrow();
        let entry = entries.iter().find(|entry| entry.node.name.starts_with(host)).unwrap();
        for answered in checks {
            entry.node.on_check(if *answered { Ok(()) } else { Err("silence".into()) });
        }
    }

    fn own() -> Addresses {
        Addresses {
            stun: "192.0.2.1:3478".into(),
            turn_urls: vec!["turn:192.0.2.1:3478?transport=udp".into()],
            mqtt_url: String::new(),
            ws_url: String::new(),
        }
    }

    fn near(region: &str) -> usize {
        ["eu", "us", "ap"].iter().position(|other| *other == region).unwrap()
    }

    /// Which node each of many sessions gets, by its STUN address.
    fn chosen(pool: &Pool) -> BTreeMap<usize, String> {
        let pick = |i| pool.pick(&format!("session-{i}"), near, &own()).unwrap();
        (0..300).map(|i| (i, pick(i).stun.unwrap())).collect()
    }

    fn hosts(chosen: &BTreeMap<usize, String>) -> Vec<&str> {
        let mut hosts: Vec<&str> = chosen.values().map(String::as_str).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    #[test]
    fn a_session_gets_one_node_with_its_urls_and_its_secret() {
        let pool = pool(&turn(&[("a", "eu")]), None);
        let relay = pool.pick("s", near, &own()).unwrap();
        assert_eq!(relay.stun.as_deref(), Some("a:3478"));
        assert_eq!(relay.turn_urls, ["turn:a:3478?transport=udp"]);
        assert_eq!(*relay.secret, *b"secret of a");
        let alone = self::pool(&turn(&[]), Some(OWN)).pick("s", near, &own()).unwrap();
        assert_eq!((alone.stun, alone.turn_urls), (Some(own().stun), own().turn_urls));
        assert_eq!(*alone.secret, *b"common");
        assert!(self::pool(&turn(&[]), None).pick("s", near, &own()).is_none());
    }

    #[test]
    fn every_server_chooses_alike_whatever_the_order_of_its_list() {
        let one = pool(&turn(&[("a", "eu"), ("b", "eu"), ("c", "eu")]), None);
        let other = pool(&turn(&[("c", "eu"), ("a", "eu"), ("b", "eu")]), None);
        assert_eq!(chosen(&one), chosen(&other));
        assert_eq!(hosts(&chosen(&one)), ["a:3478", "b:3478", "c:3478"]);
        // And a server whose own relay is one of them, as long as it goes by the name others know.
        let third = pool(&turn(&[("a", "eu"), ("b", "eu")]), Some("c:3478"));
        let as_c = |host: &String| if *host == own().stun { "c:3478".into() } else { host.clone() };
        let third: Vec<String> = chosen(&third).values().map(as_c).collect();
        assert_eq!(third, chosen(&one).into_values().collect::<Vec<_>>());
    }

    #[test]
    fn a_dead_node_is_skipped_and_comes_back_with_its_own_sessions() {
        let pool = pool(&turn(&[("a", "eu"), ("b", "eu"), ("c", "eu")]), None);
        for host in ["a", "b", "c"] {
            answers(&pool, host, &[true]);
        }
        let before = chosen(&pool);
        answers(&pool, "b", &[false]);
        assert_eq!(chosen(&pool), before, "one answer that is missing says nothing");
        answers(&pool, "b", &[false]);
        let without = chosen(&pool);
        assert_eq!(hosts(&without), ["a:3478", "c:3478"]);
        for (session, host) in &before {
            assert!(host == "b:3478" || without[session] == *host, "{session} moved");
        }
        answers(&pool, "b", &[true, true]);
        assert_eq!(chosen(&pool), before);
    }

    #[test]
    fn nearer_regions_go_first_and_the_next_one_steps_in() {
        let pool = pool(&turn(&[("u1", "us"), ("u2", "us"), ("x", "ap"), ("e", "eu")]), None);
        assert_eq!(hosts(&chosen(&pool)), ["e:3478"]);
        answers(&pool, "e", &[false]);
        assert_eq!(hosts(&chosen(&pool)), ["u1:3478", "u2:3478"]);
        answers(&pool, "u1", &[false]);
        answers(&pool, "u2", &[false]);
        assert_eq!(hosts(&chosen(&pool)), ["x:3478"]);
        // Where nobody answers, the nearest is as good as any.
        answers(&pool, "x", &[false]);
        assert_eq!(hosts(&chosen(&pool)), ["e:3478"]);
    }

    #[test]
    fn a_new_list_keeps_what_is_known_of_those_that_stay() {
        let pool = pool(&turn(&[("a", "eu"), ("b", "eu")]), None);
        answers(&pool, "b", &[false]);
        let before = chosen(&pool);
        assert_eq!(hosts(&before), ["a:3478"]);
        replace(&pool, &turn(&[("b", "eu"), ("a", "eu"), ("c", "eu")]), None);
        let after = chosen(&pool);
        assert_eq!(hosts(&after), ["a:3478", "c:3478"]);
        assert!(after.iter().all(|(session, host)| host == "c:3478" || before[session] == *host));
        // Another secret makes another node of it: it is asked anew.
        let mut changed = turn(&[("b", "eu")]);
        changed.external[0].secret = Some(Secret::new("another"));
        replace(&pool, &changed, None);
        assert_eq!(*pool.pick("s", near, &own()).unwrap().secret, *b"another");
        let mut text = Text::default();
        pool.write_metrics(&mut text);
        let text = text.into_string();
        assert!(text.contains("turn_node_up{node=\"b:3478\",region=\"eu\"} 1"), "{text}");
        assert!(text.contains("turn_node_sessions_total{node=\"b:3478\",region=\"eu\"} 1"));
    }
}
