//! The broker's limits. Every one of them bounds memory or time that a client could otherwise take.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// All limits, with defaults for a small deployment. In TOML: a table with any of these names.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerConfig {
    /// Open connections of every transport together; further ones are closed at once.
    pub max_connections: usize,
    /// Of these, how many may be before their CONNECT, so that silent clients cannot take all places.
    pub max_connecting: usize,
    /// Of all, how many may come from one address; 0 for no limit. Cameras behind one NAT, and all
    /// clients of a proxy, have one address.
    pub max_connections_per_address: usize,
    /// Failed sign-ins from one address in a minute. Past that, passwords that could be guessed (the
    /// administrator's, those of the credentials file) are not looked at; 0 for no limit.
    pub failed_logins_per_minute: u32,
    /// Sessions, online and offline, one device or app may have; its oldest offline one is discarded
    /// to make room. Service and Admin are not limited.
    pub max_sessions_per_identity: usize,
    /// A whole packet from a client, in bytes: 64 KiB of payload and its overhead.
    pub max_packet_size: u32,
    /// A CONNECT, in bytes: what a client that nobody knows yet may make the broker hold.
    pub max_connect_size: u32,
    /// From accept to a complete CONNECT, a TLS handshake included, in seconds.
    pub connect_timeout_s: u32,
    /// How long a client may take no byte of what is written to it, in seconds.
    pub write_timeout_s: u32,
    /// The longest keepalive, in seconds; also used where a client asks for none. A client is gone
    /// after one and a half times its keepalive.
    pub max_keep_alive_s: u16,
    /// The longest life of a session without a connection, in seconds; a 3.1.1 client that does not
    /// ask for a clean session gets this.
    pub max_session_expiry_s: u32,
    /// Messages waiting for one client that is online (not counting those in flight). See
    /// `session.rs` for the rule.
    pub max_queued_messages: usize,
    /// Bytes waiting or in flight for one client that is online.
    pub max_queued_bytes: usize,
    /// The same for a session whose client is away.
    pub max_offline_messages: usize,
    pub max_offline_bytes: usize,
    /// Bytes in the queues of all sessions together; past that, QoS 0 and what is for clients that
    /// are away is dropped, and clients that are online are disconnected as slow.
    pub max_queued_bytes_total: usize,
    /// QoS 1 messages in flight to one client before its acknowledgement.
    pub max_inflight: u16,
    /// QoS 2 messages one client may have begun and not released (announced as Receive Maximum).
    pub receive_maximum: u16,
    pub max_subscriptions_per_session: usize,
    /// Retained messages and their bytes; past that, a retained message is delivered but not kept.
    pub max_retained_messages: usize,
    pub max_retained_bytes: usize,
    /// Packets a second from one client, on average and at once. Past that the broker reads no
    /// further from it for a while: nothing is lost, the client's own socket fills up.
    pub packets_per_second: u32,
    pub packet_burst: u32,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connecting: 1_000,
            max_connections_per_address: 0,
            failed_logins_per_minute: 20,
            max_sessions_per_identity: 32,
            max_packet_size: 68 * 1024,
            max_connect_size: 16 * 1024,
            connect_timeout_s: 8,
            write_timeout_s: 20,
            max_keep_alive_s: 1_200,
            max_session_expiry_s: 3_600,
            max_queued_messages: 10_000,
            max_queued_bytes: 4 * 1024 * 1024,
            max_offline_messages: 200,
            max_offline_bytes: 512 * 1024,
            max_queued_bytes_total: 256 * 1024 * 1024,
            max_inflight: 128,
            receive_maximum: 64,
            max_subscriptions_per_session: 64,
            max_retained_messages: 100_000,
            max_retained_bytes: 64 * 1024 * 1024,
            packets_per_second: 200,
            packet_burst: 1_000,
        }
    }
}

impl BrokerConfig {
    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout_s.max(1).into())
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        Duration::from_secs(self.write_timeout_s.max(1).into())
    }

    /// One and a half times the keepalive that holds for a client that asked for `asked_s`.
    pub(crate) fn silence_allowed(&self, asked_s: u16) -> Duration {
        Duration::from_millis(u64::from(self.keep_alive_s(asked_s)) * 1_500)
    }

    /// The keepalive that holds for a client that asked for `asked_s`; 0 asks for none.
    pub(crate) fn keep_alive_s(&self, asked_s: u16) -> u16 {
        let longest = self.max_keep_alive_s.max(1);
        if asked_s == 0 { longest } else { asked_s.min(longest) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_table_keeps_the_other_defaults_and_a_typo_is_refused() {
        let config: BrokerConfig = toml::from_str("max_connections = 7").unwrap();
        assert_eq!(config.max_connections, 7);
        assert_eq!(config.max_inflight, BrokerConfig::default().max_inflight);
        assert!(toml::from_str::<BrokerConfig>("max_conections = 7").is_err());
    }

    #[test]
    fn no_keepalive_means_the_longest_one() {
        let config = BrokerConfig::default();
        assert_eq!(config.keep_alive_s(0), 1_200);
        assert_eq!(config.keep_alive_s(20), 20);
        assert_eq!(config.silence_allowed(20), Duration::from_secs(30));
        assert_eq!(config.keep_alive_s(u16::MAX), 1_200);
    }
}
