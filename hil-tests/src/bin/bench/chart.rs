//! The report as a page for people: the camera against the senders it is compared with, and the cost
//! of a viewer among many.

use crate::figures::FIGURES;
use hil_tests::chart::{self, Bars};
use hil_tests::report::Report;

pub(crate) fn page(report: &Report) -> String {
    chart::page("make bench", report, &FIGURES, &[SENDERS, FAN_OUT])
}

const SENDERS: Bars<'_> = Bars {
    title: "CPU time, ten viewers",
    text: "Milliseconds in a second; the same clip and the same viewers.",
    unit: "ms/s",
    entries: &[
        ("this camera", "cpu_ms_per_s_10_viewers"),
        ("str0m", "cpu_ms_per_s_10_viewers_str0m"),
        ("str0m, datagrams in runs", "cpu_ms_per_s_10_viewers_str0m_runs"),
        ("webrtc crate", "cpu_ms_per_s_10_viewers_webrtc_crate"),
    ],
};

const FAN_OUT: Bars<'_> = Bars {
    title: "CPU time of one viewer among many",
    text: "Milliseconds in a second.",
    unit: "ms/s",
    entries: &[
        ("1 viewer", "fan_out_cpu_ms_per_s_per_viewer_1"),
        ("10 viewers", "fan_out_cpu_ms_per_s_per_viewer_10"),
        ("25 viewers", "fan_out_cpu_ms_per_s_per_viewer_25"),
        ("50 viewers", "fan_out_cpu_ms_per_s_per_viewer_50"),
        ("100 viewers", "fan_out_cpu_ms_per_s_per_viewer_100"),
    ],
};
