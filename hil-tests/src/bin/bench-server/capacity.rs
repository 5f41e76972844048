//! What a hundred thousand cameras need, from what was measured: the tables of docs/capacity.md.
//! `bench-server capacity` writes them anew from the report; a test checks that those in the page
//! follow from the figures that stand there.

use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::path::Path;

const CAMERAS: f64 = 100_000.0;
const SESSIONS_PER_DAY: f64 = 10.0;
const SESSION_S: f64 = 180.0;
/// The busiest minutes of a day against its average.
const PEAK: f64 = 4.0;
const RELAYED: f64 = 0.25;
const BIT_PER_S: f64 = 2e6;
/// RTP payload and headers of a full packet; and what goes back, resends included.
const PACKET_BYTES: f64 = 1200.0;
const MORE_PACKETS: f64 = 1.1;
/// Offer, answer, candidates of both sides, and the end.
const SIGNALS: f64 = 20.0;
/// Both sides report to the session service.
const REPORT_EVERY_S: f64 = 20.0;
const KEEP_ALIVE_S: f64 = 60.0;
/// Binding requests of both sides.
const BINDINGS: f64 = 4.0;
/// Viewer and camera both ask for a relay, whether they need it or not.
const ALLOCATIONS: f64 = 2.0;
/// What of a processor or of a network card is planned for.
const BUSY: f64 = 0.6;
const NIC_BIT_PER_S: f64 = 10e9;
const CORES_PER_NODE: f64 = 4.0;
const NODE_PRICE: f64 = 60.0;
const TB_PRICES: [f64; 2] = [5.0, 80.0];
const DAY_S: f64 = 86_400.0;
const MONTH_S: f64 = 30.4 * DAY_S;

/// A figure of the report, its unit, and what is assumed where it was not measured.
const INPUTS: [(&str, &str, f64); 12] = [
    ("relay_cpu_us_1200", "µs", 6.0),
    ("relay_burst_cpu_us", "µs", 2.0),
    ("allocations_held", "", 5000.0),
    ("rss_per_allocation_kb", "kB", 1.2),
    ("kernel_kb_per_allocation", "kB", 2.0),
    ("stun_cpu_us", "µs", 6.0),
    ("idle_mqtt_connections", "", 10_000.0),
    ("rss_per_idle_mqtt_connection_kb", "kB", 3.0),
    ("kernel_kb_per_idle_mqtt_connection", "kB", 4.0),
    ("idle_mqtt_ping_cpu_ms_per_s", "ms/s", 5.0),
    ("mqtt_cpu_us_per_message", "µs", 60.0),
    ("session_bytes_redis", "bytes", 1000.0),
];
/// Of the store that is in Redis, or else in memory.
const SESSION_CPU: [&str; 2] = ["session_cpu_us", "session_cpu_us_memory"];

const BEGIN: &str = "<!-- written by `bench-server capacity` -->\n";
const END: &str = "<!-- end of what is written -->\n";

/// Replaces the tables of `page` by what follows from `report`.
pub(crate) fn write(report: &Path, page: &Path) -> Result<(), String> {
    let read =
        |file: &Path| std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()));
    let report: Map<String, Value> =
        serde_json::from_str(&read(report)?).map_err(|e| format!("{}: {e}", report.display()))?;
    let text = read(page)?;
    let (before, _, after) = parts(&text)
        .ok_or_else(|| format!("{}: expected the lines {BEGIN:?} and {END:?}", page.display()))?;
    let tables = tables(&|name| report.get(name).and_then(Value::as_f64));
    std::fs::write(page, format!("{before}{BEGIN}{tables}{END}{after}"))
        .map_err(|e| format!("{}: {e}", page.display()))
}

fn parts(page: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (tables, after) = rest.split_once(END)?;
    Some((before, tables, after))
}

/// Both tables: what goes in, and what follows. A figure is used as it is shown.
fn tables(measured: &dyn Fn(&str) -> Option<f64>) -> String {
    let mut text = "| Figure in server.json | Value | |\n|---|---|---|\n".to_owned();
    let mut shown = |name: &str, value: Option<f64>, unit: &str, assumed: f64| {
        let kind = if value.is_some() { "measured" } else { "assumed: not measured yet" };
        let value = value.unwrap_or(assumed);
        let value_unit = format!("{value} {unit}");
        let _ = writeln!(text, "| `{name}` | {} | {kind} |", value_unit.trim_end());
        value
    };
    let [
        packet_us,
        burst_us,
        held,
        rss_kb,
        socket_kb,
        stun_us,
        connections,
        mqtt_kb,
        kernel_kb,
        ping_ms,
        message_us,
        redis_bytes,
    ] = INPUTS.map(|(name, unit, assumed)| shown(name, measured(name), unit, assumed));
    let [with_redis, in_memory] = SESSION_CPU;
    let session_us = match measured(with_redis) {
        Some(us) => shown(with_redis, Some(us), "µs", us),
        None => shown(in_memory, measured(in_memory), "µs", 200.0),
    };

    let mut rows = Rows("\n| What | Arithmetic | Result | |\n|---|---|---|---|\n".to_owned());
    let per_day = CAMERAS * SESSIONS_PER_DAY;
    let at_once = rows.row(
        "sessions at once, on average",
        &format!("{} × {} × {} s / 86,400 s", n(CAMERAS), n(SESSIONS_PER_DAY), n(SESSION_S)),
        per_day * SESSION_S / DAY_S,
        "",
        "from assumptions",
    );
    let peak = rows.row(
        "… at the peak",
        &format!("{} × {}", n(at_once), n(PEAK)),
        at_once * PEAK,
        "",
        "from assumptions",
    );
    let new_per_s = rows.row(
        "new sessions a second, at the peak",
        &format!("{} / 86,400 s × {}", n(per_day), n(PEAK)),
        per_day / DAY_S * PEAK,
        "/s",
        "from assumptions",
    );

    let relayed = rows.row(
        "relayed at once, at the peak",
        &format!("{} × {}", n(peak), RELAYED),
        peak * RELAYED,
        "",
        "from assumptions",
    );
    let each_per_s = rows.row(
        "packets a second of one",
        &format!("2 Mbit/s / 8 / {} bytes × {}", n(PACKET_BYTES), MORE_PACKETS),
        BIT_PER_S / 8.0 / PACKET_BYTES * MORE_PACKETS,
        "/s",
        "from assumptions",
    );
    let per_s = rows.row(
        "packets a second, all",
        &format!("{} × {}", n(relayed), n(each_per_s)),
        relayed * each_per_s,
        "/s",
        "from assumptions",
    );
    let most = rows.row(
        "processors for relaying, if every packet came alone",
        &format!("{} × {packet_us} µs / {BUSY}", n(per_s)),
        per_s * packet_us / 1e6 / BUSY,
        "",
        "extrapolated from one processor",
    );
    rows.row(
        "… if they came in bursts of twenty",
        &format!("{} × {burst_us} µs / {BUSY}", n(per_s)),
        per_s * burst_us / 1e6 / BUSY,
        "",
        "extrapolated from one processor",
    );
    let bit_per_s = rows.row(
        "bandwidth at the relays, each way, at the peak",
        &format!("{} × 2 Mbit/s", n(relayed)),
        relayed * BIT_PER_S / 1e9,
        "Gbit/s",
        "from assumptions",
    );
    let allocations = rows.row(
        "allocations at the peak",
        &format!("{} × {}", n(peak), n(ALLOCATIONS)),
        peak * ALLOCATIONS,
        "",
        "from assumptions",
    );
    rows.row(
        "memory of these",
        &format!("{} × ({rss_kb} + {socket_kb}) kB", n(allocations)),
        allocations * (rss_kb + socket_kb) / 1000.0,
        "MB",
        "extrapolated",
    );
    let by_cpu = rows.row(
        "relay nodes by processors, of four each",
        &format!("{} / {}, rounded up", n(most), n(CORES_PER_NODE)),
        (most / CORES_PER_NODE).ceil(),
        "",
        "extrapolated",
    );
    let by_nic = rows.row(
        "… by network, 10 Gbit/s each",
        &format!("{} / (10 × {BUSY}), rounded up", n(bit_per_s)),
        (bit_per_s * 1e9 / NIC_BIT_PER_S / BUSY).ceil(),
        "",
        "assumed: no network card was measured",
    );
    let by_held = rows.row(
        "… by allocations, as many as were held",
        &format!("{} / {}, rounded up", n(allocations), n(held)),
        (allocations / held).ceil(),
        "",
        "measured for one node",
    );
    let relays = rows.row(
        "relay nodes, with one to spare",
        "the most of these + 1",
        by_cpu.max(by_nic).max(by_held) + 1.0,
        "",
        "",
    );

    rows.row(
        "memory of the broker's connections",
        &format!("{} × ({mqtt_kb} + {kernel_kb}) kB", n(CAMERAS)),
        CAMERAS * (mqtt_kb + kernel_kb) / 1e6,
        "GB",
        &format!("extrapolated from {}", n(connections)),
    );
    rows.row(
        "keepalives a second",
        &format!("{} / {} s", n(CAMERAS), n(KEEP_ALIVE_S)),
        CAMERAS / KEEP_ALIVE_S,
        "/s",
        "from assumptions",
    );
    let ping_cores = rows.row(
        "processors for these",
        &format!("{ping_ms} ms × {} / {} / 1000", n(CAMERAS), n(connections)),
        ping_ms * CAMERAS / connections / 1000.0,
        "",
        "extrapolated",
    );
    let signals = rows.row(
        "signals and reports a second, at the peak",
        &format!("{} × {} + {} × 2 / {} s", n(new_per_s), n(SIGNALS), n(peak), n(REPORT_EVERY_S)),
        new_per_s * SIGNALS + peak * 2.0 / REPORT_EVERY_S,
        "/s",
        "from assumptions",
    );
    let signal_cores = rows.row(
        "processors for these",
        &format!("{} × {message_us} µs", n(signals)),
        signals * message_us / 1e6,
        "",
        "extrapolated from 2,000 a second",
    );
    let session_cores = rows.row(
        "processors for new sessions",
        &format!("{} × {session_us} µs", n(new_per_s)),
        new_per_s * session_us / 1e6,
        "",
        "measured above this rate",
    );
    let stun_cores = rows.row(
        "processors for STUN",
        &format!("{} × {} × {stun_us} µs", n(new_per_s), n(BINDINGS)),
        new_per_s * BINDINGS * stun_us / 1e6,
        "",
        "measured above this rate",
    );
    let control = rows.row(
        "signaling nodes by processors, with one to spare",
        "the sum of these four / 0.6, rounded up, + 1",
        ((ping_cores + signal_cores + session_cores + stun_cores) / BUSY).ceil() + 1.0,
        "",
        "extrapolated; see below about one broker",
    );
    let brokers = rows.row(
        "… by connections, as many as were held",
        &format!("{} / {}", n(CAMERAS), n(connections)),
        (CAMERAS / connections).ceil(),
        "",
        "measured for one node",
    );
    rows.row(
        "Redis: records of a day",
        &format!("{} × {} bytes", n(per_day), n(redis_bytes)),
        per_day * redis_bytes / 1e9,
        "GB",
        "extrapolated",
    );

    let tb = rows.row(
        "traffic of a month out of the relays",
        &format!("{} × {} × 2 Mbit/s / 8 × 30.4 days", n(at_once), RELAYED),
        at_once * RELAYED * BIT_PER_S / 8.0 * MONTH_S / 1e12,
        "TB",
        "from assumptions",
    );
    let nodes = relays + control.max(brokers) + 3.0;
    let servers = rows.row(
        "nodes a month",
        &format!("({} + {} + 3 for Redis) × {}", n(relays), n(control.max(brokers)), n(NODE_PRICE)),
        nodes * NODE_PRICE,
        "",
        "at an assumed price",
    );
    for price in TB_PRICES {
        let traffic = rows.row(
            &format!("traffic a month at {} a TB", n(price)),
            &format!("{} × {}", n(tb), n(price)),
            tb * price,
            "",
            "at an assumed price",
        );
        rows.row(
            "… with the nodes, for each camera",
            &format!("({} + {}) / {}", n(servers), n(traffic), n(CAMERAS)),
            (servers + traffic) / CAMERAS,
            "",
            "at assumed prices",
        );
    }
    text + &rows.0
}

struct Rows(String);

impl Rows {
    /// Goes on with what is shown, so that whoever follows the arithmetic comes to the same.
    fn row(&mut self, what: &str, arithmetic: &str, value: f64, unit: &str, kind: &str) -> f64 {
        let value = shown(value);
        let number = n(value);
        let _ = writeln!(
            self.0,
            "| {what} | {arithmetic} | {} | {kind} |",
            format!("{number} {unit}").trim_end()
        );
        value
    }
}

/// Three digits, or a whole number.
fn shown(value: f64) -> f64 {
    match value.abs() {
        large if large >= 100.0 => value.round(),
        small if small >= 1.0 => (value * 100.0).round() / 100.0,
        _ => (value * 10_000.0).round() / 10_000.0,
    }
}

/// With commas between thousands.
fn n(value: f64) -> String {
    let text = value.to_string();
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use hil_tests::firmware::root;
    use std::collections::HashMap;

    #[test]
    fn the_page_follows_from_its_figures() {
        let page = std::fs::read_to_string(root().join("docs/capacity.md")).unwrap();
        let (_, written, _) = parts(&page).expect("docs/capacity.md has its tables");
        let measured: HashMap<&str, f64> = written
            .lines()
            .filter(|line| line.ends_with("| measured |"))
            .filter_map(|line| {
                let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
                Some((name, rest.split(' ').next()?.parse().ok()?))
            })
            .collect();
        assert!(measured.len() > INPUTS.len() / 2, "{measured:?}");
        let follows = tables(&|name| measured.get(name).copied());
        assert!(follows == written, "docs/capacity.md: run `bench-server capacity`");
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([n(1234567.0), n(46.3), n(999.0)], ["1,234,567", "46.3", "999"]);
        assert_eq!([shown(46.2963), shown(2083.33), shown(0.01234567)], [46.3, 2083.0, 0.0123]);
    }
}
