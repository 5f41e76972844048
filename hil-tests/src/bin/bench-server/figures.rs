//! The figures that are asked for, and what each may be.

use hil_tests::figures::{Figure, Limit, figure};

/// Every run says something about each of these: a number, or why there is none.
pub(crate) const FIGURES: [Figure; 16] = [
    figure(
        "stun_cpu_vs_coturn",
        Limit::AtMost(0.6),
        "CPU time of a Binding request against coturn's",
    ),
    figure(
        "relay_cpu_vs_coturn",
        Limit::AtMost(0.7),
        "CPU time of a relayed packet against coturn's, worst of 200 and 1200 bytes, both ways",
    ),
    figure(
        "relay_burst_cpu_vs_coturn",
        Limit::AtMost(0.25),
        "the same in bursts of 20 of 1200 bytes, worse of both ways",
    ),
    figure(
        "relay_cpu_5000_vs_64",
        Limit::AtMost(1.1),
        "CPU time of a relayed packet among 5000 allocations against 64",
    ),
    figure("rss_per_allocation_kb", Limit::AtMost(2.0), "kB resident for each further allocation"),
    figure("allocations_held", Limit::AtLeast(5000.0), "allocations, each with a channel"),
    figure("allocations_setup_s", Limit::AtMost(5.0), "s to set them up, authentication included"),
    figure(
        "mqtt_p95_ms",
        Limit::AtMost(5.0),
        "ms from publisher to subscriber, QoS 1, 2000 a second, 95th percentile",
    ),
    figure("mqtt_p95_vs_mosquitto", Limit::AtMost(1.0), "the same against Mosquitto"),
    figure(
        "rss_per_idle_mqtt_connection_kb",
        Limit::AtMost(4.0),
        "kB resident for each camera that waits",
    ),
    figure("idle_mqtt_connections", Limit::AtLeast(10_000.0), "cameras that waited then"),
    figure("idle_mqtt_cpu_ms_per_s", Limit::None, "ms of CPU time a second of all these"),
    figure("sessions_per_s", Limit::None, "sessions a second through the API, in Redis"),
    figure("sessions_per_s_memory", Limit::None, "the same in memory"),
    figure("binary_mb", Limit::AtMost(6.0), "MB of server-min, stripped"),
    figure("start_ms", Limit::AtMost(100.0), "ms from its start until it is ready, median"),
];
