//! The relay's and the broker's counters, as Prometheus reads them.

use crate::metrics::{Kind, Text};
use crate::mqtt::{BrokerStats, RefusalReason};
use crate::stun_turn::TurnCounters;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(crate) fn relay_metrics(
    text: &mut Text,
    counters: &TurnCounters,
    region: &str,
    max_allocations: usize,
) {
    let of = |counter: &AtomicU64| counter.load(Relaxed);
    let name = "stun_requests_total";
    text.family(name, Kind::Counter, "STUN and TURN requests by their answer");
    let unauthorized = of(&counters.requests_unauthorized);
    let refused = of(&counters.bindings_refused) + of(&counters.requests_refused);
    for (status, count) in [
        ("success", of(&counters.bindings_ok) + of(&counters.requests_ok)),
        ("error", refused.saturating_sub(unauthorized)),
        ("unauthorized", unauthorized),
    ] {
        text.sample(name, &[("status", status), ("region", region)], count);
    }
    let name = "turn_requests_refused_total";
    text.family(name, Kind::Counter, "STUN and TURN requests refused, by reason");
    for (reason, count) in counters.refused.by_reason() {
        text.sample(name, &[("reason", reason)], count);
    }
    text.gauge("turn_sessions_active", "TURN allocations now", of(&counters.allocations));
    text.gauge(
        "turn_sessions_max",
        "TURN allocations there may be (turn.allocations_total)",
        max_allocations,
    );
    text.gauge("turn_connections", "Clients by TCP, TLS and DTLS now", of(&counters.connections));
    for (name, help, counter) in [
        ("turn_sessions_total", "TURN allocations made", &counters.allocations_created),
        ("turn_relayed_bytes_total", "Payload relayed", &counters.bytes_relayed),
        ("turn_relayed_packets_total", "Packets relayed", &counters.packets_relayed),
        ("turn_capped_bytes_total", "Payload over a bandwidth cap", &counters.bytes_capped),
        ("turn_capped_packets_total", "Packets over a bandwidth cap", &counters.packets_capped),
        (
            "turn_unsent_packets_total",
            "Packets the kernel did not take: no buffer, or no route",
            &counters.packets_unsent,
        ),
        (
            "turn_capped_by_node_packets_total",
            "Packets over turn.total_bandwidth_bps",
            &counters.packets_capped_by_node,
        ),
        (
            "turn_denied_packets_total",
            "Packets without a permission or channel",
            &counters.packets_denied,
        ),
        (
            "turn_malformed_packets_total",
            "Packets that are no client's",
            &counters.packets_malformed,
        ),
        (
            "turn_connections_refused_total",
            "Connections over turn.max_connections or of one address",
            &counters.connections_refused,
        ),
    ] {
        text.counter(name, help, of(counter));
    }
}

pub(crate) fn broker_metrics(text: &mut Text, stats: &BrokerStats, max_connections: usize) {
    let name = "mqtt_clients";
    text.family(name, Kind::Gauge, "MQTT clients signed in, by role");
    for (role, count) in [("device", stats.devices), ("app", stats.apps), ("other", stats.others)] {
        text.sample(name, &[("role", role)], count);
    }
    for (name, help, value) in [
        ("mqtt_connections", "MQTT connections open", stats.connections),
        (
            "mqtt_connections_max",
            "MQTT connections there may be (mqtt.limits.max_connections)",
            max_connections as u64,
        ),
        ("mqtt_sessions", "MQTT sessions, online and offline", stats.sessions),
        ("mqtt_subscriptions", "Topic filters subscribed to", stats.subscriptions),
        ("mqtt_retained_messages", "Retained messages kept", stats.retained_messages),
        ("mqtt_queued_bytes", "Bytes waiting or in flight in all sessions", stats.queued_bytes),
    ] {
        text.gauge(name, help, value);
    }
    for (name, help, value) in [
        ("mqtt_connections_total", "MQTT connections taken", stats.connections_total),
        (
            "mqtt_connections_refused_total",
            "MQTT connections closed at once, over a limit",
            stats.connections_refused_total,
        ),
        (
            "mqtt_tls_handshakes_failed_total",
            "TLS connections to the broker that did not come to be",
            stats.tls_handshakes_failed_total,
        ),
        (
            "mqtt_protocol_errors_total",
            "Connections ended for breaking the protocol or a limit",
            stats.protocol_errors_total,
        ),
        ("mqtt_messages_in_total", "Messages from clients", stats.messages_in_total),
        ("mqtt_messages_out_total", "Messages to clients", stats.messages_out_total),
        ("mqtt_payload_bytes_in_total", "Payload from clients", stats.payload_bytes_in_total),
        ("mqtt_payload_bytes_out_total", "Payload to clients", stats.payload_bytes_out_total),
        ("mqtt_messages_dropped_total", "Messages lost to a limit", stats.messages_dropped_total),
        (
            "mqtt_access_denied_total",
            "Publishes and subscriptions refused",
            stats.access_denied_total,
        ),
        (
            "mqtt_slow_consumers_total",
            "Clients disconnected because they did not read",
            stats.slow_consumers_total,
        ),
    ] {
        text.counter(name, help, value);
    }
    let name = "mqtt_logins_refused_total";
    text.family(name, Kind::Counter, "Logins refused, by reason");
    for reason in RefusalReason::ALL {
        text.sample(name, &[("reason", reason.name())], stats.logins_refused_for(reason));
    }
}
