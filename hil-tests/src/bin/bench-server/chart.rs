//! The report as a page for people: server-min beside coturn and Mosquitto.

use crate::figures::FIGURES;
use hil_tests::chart::{self, Bars};
use hil_tests::report::Report;

pub(crate) fn page(report: &Report) -> String {
    chart::page("make bench-server", report, &FIGURES, &[REQUESTS, RELAYED, BROKER, MEMORY])
}

const REQUESTS: Bars<'_> = Bars {
    title: "STUN",
    text: "Binding requests a second that one processor answers.",
    unit: "/s",
    entries: &[("server-min", "stun_requests_per_s"), ("coturn", "stun_requests_per_s_coturn")],
};

const RELAYED: Bars<'_> = Bars {
    title: "CPU time of a relayed packet",
    text: "Microseconds, from client to peer.",
    unit: "µs",
    entries: &[
        ("server-min, 200 bytes", "relay_cpu_us_200"),
        ("coturn, 200 bytes", "relay_cpu_us_200_coturn"),
        ("server-min, 1200 bytes", "relay_cpu_us_1200"),
        ("coturn, 1200 bytes", "relay_cpu_us_1200_coturn"),
        ("server-min, bursts of 20", "relay_burst_cpu_us"),
        ("coturn, bursts of 20", "relay_burst_cpu_us_coturn"),
    ],
};

const BROKER: Bars<'_> = Bars {
    title: "From publisher to subscriber",
    text: "Milliseconds, 2000 messages of 1 KB a second with QoS 1.",
    unit: "ms",
    entries: &[
        ("server-min, median", "mqtt_p50_ms"),
        ("Mosquitto, median", "mqtt_p50_ms_mosquitto"),
        ("server-min, 95th percentile", "mqtt_p95_ms"),
        ("Mosquitto, 95th percentile", "mqtt_p95_ms_mosquitto"),
    ],
};

const MEMORY: Bars<'_> = Bars {
    title: "Memory",
    text: "Resident kB for each.",
    unit: "kB",
    entries: &[
        ("server-min, allocation", "rss_per_allocation_kb"),
        ("coturn, allocation", "rss_per_allocation_kb_coturn"),
        ("server-min, camera at the broker", "rss_per_idle_mqtt_connection_kb"),
        ("Mosquitto, camera at the broker", "rss_per_idle_mqtt_connection_kb_mosquitto"),
    ],
};
