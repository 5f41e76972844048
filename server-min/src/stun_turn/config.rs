//! The relay's settings, with defaults that are safe on the open internet.

use crate::nodes::NodeConfig;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TurnConfig {
    /// UDP addresses to serve. An unspecified address (`0.0.0.0`, `[::]`) stands for every address
    /// this machine has at the start.
    pub listen: Vec<SocketAddr>,
    /// The address peers reach this machine by, where a NAT with fixed ports stands in front of it.
    pub external_ip: Option<IpAddr>,
    /// Local addresses to relay from; those of `listen` if empty.
    pub relay_ips: Vec<IpAddr>,
    pub realm: String,
    /// Secrets of the time-limited credentials. Several are valid at once, so that they can be
    /// exchanged without ending a session.
    #[serde(deserialize_with = "read_secrets", serialize_with = "write_secrets")]
    pub secrets: Vec<Vec<u8>>,
    /// User names with passwords that never expire; for tests.
    pub static_users: Vec<(String, String)>,
    /// The ports to relay from.
    pub min_port: u16,
    pub max_port: u16,
    /// Lets clients reach services of this very machine. For demos and tests only.
    pub allow_loopback_peers: bool,
    /// Lets clients reach private address ranges (RFC 1918, RFC 6598, RFC 4193).
    pub allow_private_peers: bool,
    /// Allocations of one session, or of one static user.
    pub allocations_per_session: usize,
    pub allocations_total: usize,
    /// Of each allocation and direction, in bits per second of payload; 0 is no limit.
    pub bandwidth_bps: u64,
    /// What may pass at once above `bandwidth_bps`: a keyframe or two.
    pub bandwidth_burst_bytes: u64,
    /// The longest an allocation lives without being refreshed; RFC 8656 says at least 600.
    pub max_lifetime_s: u32,
    /// Nodes that are not ours: each session is served by one of them, or by ours.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<NodeConfig>,
    /// Our own share of the sessions, compared with theirs.
    pub weight: u32,
    /// How often each of them is asked whether it is there.
    pub check_interval_s: u64,
}

impl Default for TurnConfig {
    fn default() -> Self {
        TurnConfig {
            listen: vec![
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 3478),
                SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 3478),
            ],
            external_ip: None,
            relay_ips: Vec::new(),
            realm: "p2pcam".into(),
            secrets: Vec::new(),
            static_users: Vec::new(),
            min_port: 49_152,
            max_port: 65_535,
            allow_loopback_peers: false,
            allow_private_peers: false,
            allocations_per_session: 16,
            allocations_total: 10_000,
            bandwidth_bps: 2_000_000,
            bandwidth_burst_bytes: 512 * 1024,
            max_lifetime_s: 3600,
            external: Vec::new(),
            weight: 1,
            check_interval_s: 5,
        }
    }
}

impl TurnConfig {
    /// What would not work, in words for the person who wrote it.
    pub fn check(&self) -> Result<(), String> {
        if self.listen.is_empty() && self.external.is_empty() {
            return Err(
                "listen is empty, and so is external; expected at least one address such as \
                        0.0.0.0:3478, or a node that relays instead"
                    .into(),
            );
        }
        if !(1..=1000).contains(&self.weight) {
            return Err(format!("weight: {}: expected 1 to 1000", self.weight));
        }
        if !(1..=3600).contains(&self.check_interval_s) {
            return Err(format!("check_interval_s: {}: expected 1 to 3600", self.check_interval_s));
        }
        if self.min_port == 0 || self.min_port > self.max_port {
            return Err(format!(
                "min_port is {} and max_port {}; expected 1 ≤ min_port ≤ max_port",
                self.min_port, self.max_port
            ));
        }
        if self.relay_ips.iter().chain(&self.external_ip).any(IpAddr::is_unspecified) {
            return Err("relay_ips and external_ip must be addresses that peers can reach".into());
        }
        if self.realm.is_empty() || self.realm.len() > 64 {
            return Err("realm must have 1 to 64 bytes".into());
        }
        if self.secrets.len() > MAX_SECRETS {
            return Err(format!(
                "secrets has {} entries; at most {MAX_SECRETS}",
                self.secrets.len()
            ));
        }
        if self.secrets.iter().any(Vec::is_empty) {
            return Err("secrets has an empty entry; anyone could make credentials with it".into());
        }
        Ok(())
    }
}

impl fmt::Debug for TurnConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnConfig")
            .field("listen", &self.listen)
            .field("external_ip", &self.external_ip)
            .field("relay_ips", &self.relay_ips)
            .field("realm", &self.realm)
            .field("secrets", &format_args!("({} hidden)", self.secrets.len()))
            .field("static_users", &format_args!("({} hidden)", self.static_users.len()))
            .field("ports", &(self.min_port..=self.max_port))
            .field("allow_loopback_peers", &self.allow_loopback_peers)
            .field("allow_private_peers", &self.allow_private_peers)
            .field("allocations_per_session", &self.allocations_per_session)
            .field("allocations_total", &self.allocations_total)
            .field("bandwidth_bps", &self.bandwidth_bps)
            .field("bandwidth_burst_bytes", &self.bandwidth_burst_bytes)
            .field("max_lifetime_s", &self.max_lifetime_s)
            .field("external", &self.external)
            .field("weight", &self.weight)
            .field("check_interval_s", &self.check_interval_s)
            .finish()
    }
}

/// Each secret is tried for a name that is not known yet, so their number is part of the cost of
/// a forged request.
const MAX_SECRETS: usize = 8;

fn read_secrets<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Vec<u8>>, D::Error> {
    Ok(Vec::<String>::deserialize(from)?.into_iter().map(String::into_bytes).collect())
}

fn write_secrets<S: Serializer>(secrets: &[Vec<u8>], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(secrets.iter().map(|secret| String::from_utf8_lossy(secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_needs_to_name_only_what_differs() {
        let text = r#"
            listen = ["127.0.0.1:3478"]
            secrets = ["new", "old"]
            static_users = [["u", "p"]]
        "#;
        let config: TurnConfig = toml::from_str(text).unwrap();
        assert_eq!(config.secrets, [b"new".to_vec(), b"old".to_vec()]);
        assert_eq!(config.static_users, [("u".into(), "p".into())]);
        assert_eq!((config.min_port, config.allow_loopback_peers), (49_152, false));
        assert_eq!(config.check(), Ok(()));
        assert!(!format!("{config:?}").contains("old"), "secrets stay out of logs");
        assert!(toml::from_str::<TurnConfig>("listne = []").is_err());
    }

    #[test]
    fn what_cannot_work_is_said() {
        let broken = |change: fn(&mut TurnConfig)| {
            let mut config = TurnConfig::default();
            change(&mut config);
            config.check().unwrap_err()
        };
        assert!(broken(|c| c.listen.clear()).contains("listen"));
        assert!(broken(|c| c.min_port = 0).contains("min_port"));
        assert!(broken(|c| c.secrets.push(Vec::new())).contains("secrets"));
        assert!(broken(|c| c.relay_ips.push([0; 4].into())).contains("relay_ips"));
        assert!(broken(|c| c.external_ip = Some([0; 4].into())).contains("external_ip"));
        assert!(broken(|c| c.realm.clear()).contains("realm"));
    }
}
