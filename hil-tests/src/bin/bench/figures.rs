//! The figures that are asked for, and what each may be.

use hil_tests::figures::{Figure, Limit, figure};

/// Every run says something about each of these: a number, or why there is none.
pub(crate) const FIGURES: [Figure; 13] = [
    figure(
        "allocs_per_packet",
        Limit::AtMost(0.0),
        "allocations a packet, worse of 1 and 8 viewers",
    ),
    figure(
        "sends_per_frame_per_viewer",
        Limit::AtMost(1.2),
        "send calls a frame and viewer, worse of 1 and 8 viewers",
    ),
    figure(
        "cpu_vs_webrtc_crate",
        Limit::AtMost(0.25),
        "CPU time against the webrtc crate, 10 viewers",
    ),
    figure("cpu_vs_str0m", Limit::AtMost(0.7), "CPU time against str0m, 10 viewers"),
    figure(
        "rss_idle_kb",
        Limit::AtMost(3500.0),
        "kB resident without viewers and without the clip",
    ),
    figure("rss_per_viewer_kb", Limit::AtMost(96.0), "kB resident for each further viewer"),
    figure(
        "first_frame_ms_p50",
        Limit::AtMost(90.0),
        "ms from the click to the first picture in Chromium, median",
    ),
    figure(
        "push_to_wire_us_p99",
        Limit::AtMost(2000.0),
        "us from push to the kernel, 1 viewer, 99th percentile",
    ),
    figure(
        "loss_freezes",
        Limit::AtMost(1.0),
        "freezes in Chromium in a minute with 5 % loss both ways",
    ),
    figure("loss_decoded_percent", Limit::AtLeast(97.0), "% of the frames decoded in that minute"),
    figure("viewers_per_core", Limit::None, "viewers at 2 Mbit/s that one core carries"),
    figure(
        "fan_out_slope_ratio",
        Limit::AtMost(1.1),
        "CPU of a further viewer, 50 to 100 viewers against 10 to 50",
    ),
    figure("linked_delta_kb", Limit::None, "kB that the SDK adds to a firmware on this machine"),
];
