//! `[turn] external`: the nodes that are not ours.

use super::url::{Transport, TurnUrl};
use crate::config::Secret;
use sdk_core::wire::signal::is_valid_id;
use serde::{Deserialize, Serialize};

/// More than these would be looked at for each session.
const MAX_NODES: usize = 256;
const MAX_URLS: usize = 8;

/// One TURN server that knows time-limited credentials by shared secret, as coturn does with
/// `use-auth-secret`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Everything it serves, and nothing else: clients are given these as they are.
    pub urls: Vec<TurnUrl>,
    /// Its `static-auth-secret`; the first of `turn.secrets` where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// Where it stands; this server's own `region` where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Its share of the sessions, compared with the others'.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

impl NodeConfig {
    /// What tells it from the others, on every server-min alike: the address it is first reached at.
    pub fn name(&self) -> String {
        self.urls.first().map(TurnUrl::authority).unwrap_or_default()
    }

    /// How it is asked whether it is there: over UDP if it can be, since that is what media takes.
    pub(super) fn asked_at(&self) -> Option<&TurnUrl> {
        [Transport::Udp, Transport::Tcp, Transport::Tls]
            .into_iter()
            .find_map(|transport| self.at(transport))
    }

    /// The STUN server that comes with TURN over UDP.
    pub(super) fn stun(&self) -> Option<String> {
        self.at(Transport::Udp).map(TurnUrl::authority)
    }

    fn at(&self, transport: Transport) -> Option<&TurnUrl> {
        self.urls.iter().find(|url| url.transport == transport)
    }
}

/// What would not work, in words for the person who wrote it.
pub fn check(nodes: &[NodeConfig], has_common_secret: bool) -> Result<(), String> {
    if nodes.len() > MAX_NODES {
        return Err(format!("external has {} nodes; at most {MAX_NODES}", nodes.len()));
    }
    for (i, node) in nodes.iter().enumerate() {
        let name = node.name();
        let wrong = |text: &str| Err(format!("external[{i}] ({name}): {text}"));
        if node.asked_at().is_none() {
            return wrong(
                "urls needs at least one that can be asked whether it is there: UDP, TCP or TLS",
            );
        }
        if node.urls.len() > MAX_URLS {
            return wrong("urls has more entries than clients would try; give at most 8");
        }
        match &node.secret {
            Some(secret) if secret.expose().is_empty() => {
                return wrong("secret is empty; leave it out or give it a value");
            }
            None if !has_common_secret => {
                return wrong("has no secret, and turn.secrets is empty: give one of them");
            }
            _ => {}
        }
        if node.region.as_deref().is_some_and(|region| !is_valid_id(region)) {
            return wrong("region: expected 1 to 64 letters, digits, - or _");
        }
        if !(1..=1000).contains(&node.weight) {
            return wrong("weight: expected 1 to 1000; to take a node out, remove it");
        }
        if nodes.iter().take(i).any(|other| other.name() == name) {
            return wrong("is there twice; list all its urls in one entry");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(urls: &[&str]) -> NodeConfig {
        let urls = urls.iter().map(|url| url.parse().unwrap()).collect();
        NodeConfig { urls, secret: None, region: None, weight: 1 }
    }

    #[test]
    fn a_node_is_named_and_asked_by_what_it_serves() {
        let all = node(&["turns:a.example:443", "turn:a.example?transport=tcp", "turn:a.example"]);
        assert_eq!(all.name(), "a.example:443");
        assert_eq!(all.asked_at().unwrap().to_string(), "turn:a.example:3478?transport=udp");
        assert_eq!(all.stun().as_deref(), Some("a.example:3478"));
        let tcp = node(&["turns:a.example", "turn:a.example?transport=tcp"]);
        assert_eq!(tcp.asked_at().unwrap().transport, Transport::Tcp);
        assert_eq!(tcp.stun(), None);
    }

    #[test]
    fn what_cannot_work_is_said() {
        let good = || node(&["turn:a.example"]);
        assert_eq!(check(&[good(), node(&["turn:b.example"])], true), Ok(()));
        let with = |change: fn(&mut NodeConfig)| {
            let mut node = good();
            change(&mut node);
            check(&[node], true).unwrap_err()
        };
        assert!(check(&[good()], false).unwrap_err().contains("turn.secrets"));
        assert!(check(&[good(), good()], true).unwrap_err().contains("external[1]"));
        assert!(with(|n| n.urls.clear()).contains("urls"));
        assert!(
            with(|n| n.urls = vec!["turns:a?transport=udp".parse().unwrap()]).contains("asked")
        );
        assert!(with(|n| n.secret = Some(Secret::new(""))).contains("secret is empty"));
        assert!(with(|n| n.region = Some("a b".into())).contains("region"));
        assert!(with(|n| n.weight = 0).contains("weight"));
    }
}
