//! The relay's settings, with defaults that are safe on the open internet.

use super::peers::PeerRange;
use crate::nodes::NodeConfig;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TurnConfig {
    /// Addresses to serve, each by UDP and TCP. An unspecified address (`0.0.0.0`, `[::]`) stands
    /// for every address this machine has at the start.
    pub listen: Vec<SocketAddr>,
    /// Addresses to serve by TLS (over TCP) and DTLS (over UDP), with the certificate of `[tls]`.
    pub tls_listen: Vec<SocketAddr>,
    /// Lets clients connect peers by TCP (RFC 6062), from the relayed ports. Browsers and cameras do
    /// not.
    pub tcp_relay: bool,
    /// Threads that share the clients; 0 is one for each core, at most 16.
    pub shards: usize,
    /// Clients by TCP, TLS and DTLS at a time, and of these how many from one address (or from one
    /// /64 of IPv6).
    pub max_connections: usize,
    pub max_connections_per_address: usize,
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
    /// More peers that clients may not reach, as ranges. Those that no host of the internet has are
    /// denied without being named.
    pub denied_peers: Vec<PeerRange>,
    /// Peers that clients may reach, whatever denies them.
    pub allowed_peers: Vec<PeerRange>,
    /// Allocations of one session, or of one static user.
    pub allocations_per_session: usize,
    pub allocations_total: usize,
    /// Of each session (or static user) and direction, in bits per second of payload, unless the
    /// session's record says otherwise; 0 is no limit.
    pub bandwidth_bps: u64,
    /// What may pass at once above `bandwidth_bps`: a keyframe or two. More in proportion for a
    /// session that has more.
    pub bandwidth_burst_bytes: u64,
    /// The most a session may be given; 0 is no limit.
    pub max_bandwidth_bps: u64,
    /// Of all sessions together, both directions; 0 is no limit.
    pub total_bandwidth_bps: u64,
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
            tls_listen: Vec::new(),
            tcp_relay: false,
            shards: 0,
            max_connections: 10_000,
            max_connections_per_address: 256,
            external_ip: None,
            relay_ips: Vec::new(),
            realm: "p2pcam".into(),
            secrets: Vec::new(),
            static_users: Vec::new(),
            min_port: 49_152,
            max_port: 65_535,
            allow_loopback_peers: false,
            allow_private_peers: false,
            denied_peers: Vec::new(),
            allowed_peers: Vec::new(),
            allocations_per_session: 16,
            allocations_total: 10_000,
            bandwidth_bps: 2_000_000,
            bandwidth_burst_bytes: 512 * 1024,
            max_bandwidth_bps: 20_000_000,
            total_bandwidth_bps: 0,
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
            let text = "listen is empty, and so is external; expected at least one address such as \
                        0.0.0.0:3478, or a node that relays instead";
            return Err(text.into());
        }
        if self.listen.is_empty() && !self.tls_listen.is_empty() {
            let text = "tls_listen belongs to a relay of our own, and listen is empty: give it an \
                        address such as 0.0.0.0:3478, or take tls_listen out";
            return Err(text.into());
        }
        if self.shards > MAX_SHARDS {
            return Err(format!("shards is {}; expected 0 to {MAX_SHARDS}", self.shards));
        }
        if self.max_connections == 0 || self.max_connections_per_address == 0 {
            return Err("max_connections and max_connections_per_address must be at least 1".into());
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
        if self.realm.is_empty() || self.realm.len() > MAX_REALM_LEN {
            return Err(format!(
                "realm has {} bytes; expected 1 to {MAX_REALM_LEN}, because it is sent to whoever asks",
                self.realm.len()
            ));
        }
        let (default_bps, max_bps) = (self.bandwidth_bps, self.max_bandwidth_bps);
        if max_bps > 0 && default_bps > max_bps {
            return Err(format!(
                "max_bandwidth_bps is {max_bps}, which is less than what every session has \
                 (bandwidth_bps, {default_bps}); raise it, or set it to 0 for no limit"
            ));
        }
        check_secrets(&self.secrets)
    }
}

/// What would not work about secrets of time-limited credentials.
pub(super) fn check_secrets(secrets: &[Vec<u8>]) -> Result<(), String> {
    if secrets.len() > MAX_SECRETS {
        return Err(format!("secrets has {} entries; at most {MAX_SECRETS}", secrets.len()));
    }
    if secrets.iter().any(Vec::is_empty) {
        return Err("secrets has an empty entry; anyone could make credentials with it".into());
    }
    Ok(())
}

impl fmt::Debug for TurnConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnConfig")
            .field("listen", &self.listen)
            .field("tls_listen", &self.tls_listen)
            .field("tcp_relay", &self.tcp_relay)
            .field("shards", &self.shards)
            .field("max_connections", &self.max_connections)
            .field("max_connections_per_address", &self.max_connections_per_address)
            .field("external_ip", &self.external_ip)
            .field("relay_ips", &self.relay_ips)
            .field("realm", &self.realm)
            .field("secrets", &format_args!("({} hidden)", self.secrets.len()))
            .field("static_users", &format_args!("({} hidden)", self.static_users.len()))
            .field("ports", &(self.min_port..=self.max_port))
            .field("allow_loopback_peers", &self.allow_loopback_peers)
            .field("allow_private_peers", &self.allow_private_peers)
            .field("denied_peers", &self.denied_peers)
            .field("allowed_peers", &self.allowed_peers)
            .field("allocations_per_session", &self.allocations_per_session)
            .field("allocations_total", &self.allocations_total)
            .field("bandwidth_bps", &self.bandwidth_bps)
            .field("bandwidth_burst_bytes", &self.bandwidth_burst_bytes)
            .field("max_bandwidth_bps", &self.max_bandwidth_bps)
            .field("total_bandwidth_bps", &self.total_bandwidth_bps)
            .field("max_lifetime_s", &self.max_lifetime_s)
            .field("external", &self.external)
            .field("weight", &self.weight)
            .field("check_interval_s", &self.check_interval_s)
            .finish()
    }
}

/// Past this many, sharing the sockets costs more than it brings.
pub(super) const MAX_SHARDS: usize = 16;
/// Each secret is tried for a name that is not known yet, so their number is part of the cost of
/// a forged request.
const MAX_SECRETS: usize = 8;
/// A challenge is then at most twice as long as the shortest Allocate, headers of IP and UDP
/// included. With 8 bytes and less that holds without the headers.
const MAX_REALM_LEN: usize = 36;

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
            denied_peers = ["8.8.8.0/24", "2001:4860::/32"]
        "#;
        let config: TurnConfig = toml::from_str(text).unwrap();
        assert_eq!(config.secrets, [b"new".to_vec(), b"old".to_vec()]);
        assert_eq!(config.static_users, [("u".into(), "p".into())]);
        assert_eq!((config.min_port, config.allow_loopback_peers), (49_152, false));
        assert_eq!(config.denied_peers.len(), 2);
        assert_eq!(config.check(), Ok(()));
        assert!(!format!("{config:?}").contains("old"), "secrets stay out of logs");
        assert!(toml::from_str::<TurnConfig>("listne = []").is_err());
        let error = toml::from_str::<TurnConfig>("allowed_peers = [\"10.0.0.0/33\"]").unwrap_err();
        assert!(error.message().contains("10.0.0.0/8"), "{error}");
    }

    #[test]
    fn what_cannot_work_is_said() {
        let broken = |change: fn(&mut TurnConfig)| {
            let mut config = TurnConfig::default();
            change(&mut config);
            config.check().unwrap_err()
        };
        assert!(broken(|c| c.listen.clear()).contains("listen is empty, and so is external"));
        let tls_alone = |c: &mut TurnConfig| {
            c.tls_listen = std::mem::take(&mut c.listen);
            c.external = toml::from_str::<TurnConfig>("external = [{ urls = ['turn:a'] }]")
                .unwrap()
                .external;
        };
        assert!(broken(tls_alone).contains("tls_listen belongs to"));
        assert!(broken(|c| c.shards = 17).contains("shards"));
        assert!(broken(|c| c.max_connections = 0).contains("max_connections"));
        assert!(broken(|c| c.min_port = 0).contains("min_port"));
        assert!(broken(|c| c.secrets.push(Vec::new())).contains("secrets"));
        assert!(broken(|c| c.relay_ips.push([0; 4].into())).contains("relay_ips"));
        assert!(broken(|c| c.external_ip = Some([0; 4].into())).contains("external_ip"));
        assert!(broken(|c| c.realm.clear()).contains("realm"));
        assert!(broken(|c| c.realm = "x".repeat(37)).contains("realm"));
        assert!(broken(|c| c.bandwidth_bps = 20_000_001).contains("max_bandwidth_bps"));
    }
}
