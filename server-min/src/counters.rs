//! The relay's and the broker's counters, as Prometheus reads them.

use crate::mqtt::{BrokerStats, RefusalReason};
use crate::session::metrics::Text;
use crate::stun_turn::TurnCounters;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(crate) fn relay_metrics(counters: &TurnCounters, region: &str) -> String {
    let mut text = Text(String::new());
    text.family("stun_requests_total", "counter", "STUN and TURN requests by their answer");
    let sum = |a: &AtomicU64, b: &AtomicU64| a.load(Relaxed) + b.load(Relaxed);
    let unauthorized = counters.requests_unauthorized.load(Relaxed);
    let refused = sum(&counters.bindings_refused, &counters.requests_refused);
    for (status, count) in [
        ("success", sum(&counters.bindings_ok, &counters.requests_ok)),
        ("error", refused.saturating_sub(unauthorized)),
        ("unauthorized", unauthorized),
    ] {
        let labels = format!("{{status=\"{status}\",region=\"{region}\"}}");
        text.sample("stun_requests_total", &labels, count);
    }
    for (name, kind, help, counter) in [
        ("turn_sessions_active", "gauge", "TURN allocations now", &counters.allocations),
        ("turn_sessions_total", "counter", "TURN allocations made", &counters.allocations_created),
        ("turn_relayed_bytes_total", "counter", "Payload relayed", &counters.bytes_relayed),
        ("turn_relayed_packets_total", "counter", "Packets relayed", &counters.packets_relayed),
        (
            "turn_capped_packets_total",
            "counter",
            "Packets over a bandwidth cap",
            &counters.packets_capped,
        ),
        ("turn_capped_bytes_total", "counter", "Payload over a cap", &counters.bytes_capped),
        (
            "turn_capped_by_node_packets_total",
            "counter",
            "Packets over turn.total_bandwidth_bps",
            &counters.packets_capped_by_node,
        ),
        (
            "turn_denied_packets_total",
            "counter",
            "Packets without a permission or channel",
            &counters.packets_denied,
        ),
        (
            "turn_malformed_packets_total",
            "counter",
            "Packets that are no client's",
            &counters.packets_malformed,
        ),
        ("turn_connections", "gauge", "Clients by TCP, TLS and DTLS now", &counters.connections),
        (
            "turn_connections_refused_total",
            "counter",
            "Connections over turn.max_connections or of one address",
            &counters.connections_refused,
        ),
    ] {
        text.family(name, kind, help);
        text.sample(name, "", counter.load(Relaxed));
    }
    text.family("turn_requests_refused_total", "counter", "Requests refused, by reason");
    for (reason, count) in counters.refused.by_reason() {
        text.sample("turn_requests_refused_total", &format!("{{reason=\"{reason}\"}}"), count);
    }
    text.0
}

pub(crate) fn broker_metrics(stats: &BrokerStats) -> String {
    let mut text = Text(String::new());
    for (name, kind, help, value) in [
        ("mqtt_connections", "gauge", "Clients connected", stats.connections),
        ("mqtt_sessions", "gauge", "MQTT sessions, online and offline", stats.sessions),
        (
            "mqtt_connections_refused_total",
            "counter",
            "Connections closed at once, over a limit",
            stats.connections_refused_total,
        ),
        (
            "mqtt_tls_handshakes_failed_total",
            "counter",
            "TLS connections that did not come to be",
            stats.tls_handshakes_failed_total,
        ),
        ("mqtt_messages_in_total", "counter", "Messages from clients", stats.messages_in_total),
        ("mqtt_messages_out_total", "counter", "Messages to clients", stats.messages_out_total),
        (
            "mqtt_messages_dropped_total",
            "counter",
            "Messages lost to a limit",
            stats.messages_dropped_total,
        ),
        (
            "mqtt_access_denied_total",
            "counter",
            "Publishes and subscriptions refused",
            stats.access_denied_total,
        ),
    ] {
        text.family(name, kind, help);
        text.sample(name, "", value);
    }
    text.family("mqtt_logins_refused_total", "counter", "Logins refused, by reason");
    for reason in RefusalReason::ALL {
        let labels = format!("{{reason=\"{}\"}}", reason.name());
        text.sample("mqtt_logins_refused_total", &labels, stats.logins_refused_for(reason));
    }
    text.0
}
