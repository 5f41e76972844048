//! Cameras that wait: what memory a connection to the broker takes, and what CPU time thousands of
//! them take together, silent and with their keepalive.

use crate::mqtt_wire::{Client, Login, PINGREQ, PINGRESP, PUBACK, PUBLISH_RETAINED, SUBACK, Will};
use crate::mqtt_wire::{connect, publish, subscribe};
use crate::rounds::{due, expect_nearly_all};
use crate::scale::Scale;
use crate::servers::{self, ServerMin};
use hil_tests::clock;
use hil_tests::figures::Measured;
use hil_tests::usage::{cpu_ms, kernel_kb, memory};
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

pub(crate) const NAMES: [&str; 3] =
    ["rss_per_idle_mqtt_connection_kb", "idle_mqtt_connections", "idle_mqtt_cpu_ms_per_s"];

/// What a camera asks for; once in this time each says that it is there.
const KEEP_ALIVE_S: u16 = 60;
/// Windows that CPU time is measured in: of silence, and of keepalives.
const WINDOWS: u32 = 5;

pub(crate) async fn measure(scale: &Scale) -> Measured {
    let theirs = {
        let server = servers::mosquitto().await?;
        Held::fill(server.pid(), server.address, scale)?
    };
    let server = ServerMin::start("").await?;
    let ours = Held::fill(server.pid(), server.mqtt, scale)?;
    Ok(vec![
        ("idle_mqtt_connections", scale.connections as f64),
        ("idle_mqtt_connect_s", ours.connect_s),
        ("idle_mqtt_connect_s_mosquitto", theirs.connect_s),
        ("rss_per_idle_mqtt_connection_kb", ours.rss_kb_each),
        ("rss_per_idle_mqtt_connection_kb_mosquitto", theirs.rss_kb_each),
        ("kernel_kb_per_idle_mqtt_connection", ours.kernel_kb_each),
        ("idle_mqtt_cpu_ms_per_s", ours.silent_ms_per_s),
        ("idle_mqtt_cpu_ms_per_s_mosquitto", theirs.silent_ms_per_s),
        ("idle_mqtt_ping_cpu_ms_per_s", ours.ping_ms_per_s),
        ("idle_mqtt_ping_cpu_ms_per_s_mosquitto", theirs.ping_ms_per_s),
    ])
}

/// What a broker took for its connections.
struct Held {
    connect_s: f64,
    rss_kb_each: f64,
    kernel_kb_each: f64,
    silent_ms_per_s: f64,
    ping_ms_per_s: f64,
}

impl Held {
    fn fill(pid: u32, broker: SocketAddr, scale: &Scale) -> Result<Held, String> {
        let count = scale.connections;
        // What the first one needs, the others have.
        let first = camera(broker, count)?;
        let rss_kb = || memory(pid).map(|memory| memory.rss_kb as f64);
        let (rss_before, kernel_before) = (rss_kb()?, kernel_kb()?);
        let start = clock::now();
        let mut cameras =
            (0..count - 1).map(|number| camera(broker, number)).collect::<Result<Vec<_>, _>>()?;
        cameras.push(first);
        let connect_s = start.elapsed().as_secs_f64();
        let more = (count - 1) as f64;
        let rss_kb_each = (rss_kb()? - rss_before) / more;
        // Both ends of each connection are in this machine.
        let kernel_kb_each = (kernel_kb()? - kernel_before) / more / 2.0;
        std::thread::sleep(scale.settle);
        let window = scale.window * WINDOWS;
        let cpu_ms_per_s = |work: &mut dyn FnMut() -> Result<(), String>| {
            let (start, before) = (clock::now(), cpu_ms(pid)?);
            work()?;
            Ok::<f64, String>((cpu_ms(pid)? - before) / start.elapsed().as_secs_f64())
        };
        let silent_ms_per_s = cpu_ms_per_s(&mut || {
            std::thread::sleep(window);
            Ok(())
        })?;
        let ping_ms_per_s = cpu_ms_per_s(&mut || keep_alive(&mut cameras, window))?;
        Ok(Held { connect_s, rss_kb_each, kernel_kb_each, silent_ms_per_s, ping_ms_per_s })
    }
}

/// A camera as docs/signaling.md has it: with its last will, subscribed to its signals, its status
/// retained.
fn camera(broker: SocketAddr, number: usize) -> Result<Client, String> {
    let login = Login::device(number);
    let status = format!("p2p/status/device/{}", login.id);
    let online = |online: bool| format!(r#"{{"online":{online},"timestamp":1750929836097}}"#);
    let gone = online(false);
    let will = Will { topic: &status, payload: gone.as_bytes() };
    let mut camera = Client::connect(broker, &connect(&login, KEEP_ALIVE_S, Some(&will)))
        .map_err(|e| format!("connection {number}: {e}"))?;
    camera.ask(&subscribe(1, &format!("p2p/signal/device/{}", login.id)), SUBACK)?;
    camera.ask(&publish(PUBLISH_RETAINED, 2, &status, online(true).as_bytes()), PUBACK)?;
    Ok(camera)
}

/// As many of them as do in this time say that they are there, evenly.
fn keep_alive(cameras: &mut [Client], window: Duration) -> Result<(), String> {
    let per_s = (cameras.len() as u32 / u32::from(KEEP_ALIVE_S)).max(1);
    let count = u64::from(per_s) * window.as_secs().max(1);
    let start = clock::now();
    for i in 0..count {
        std::thread::sleep(due(start, i, per_s).saturating_duration_since(clock::now()));
        let camera = &mut cameras[i as usize];
        camera.stream.write_all(&PINGREQ).map_err(|e| format!("a keepalive: {e}"))?;
    }
    let mut answered = 0;
    for camera in cameras.iter_mut().take(count as usize) {
        answered += u64::from(camera.ask(&[], PINGRESP).is_ok());
    }
    expect_nearly_all("keepalives", count, answered).map(drop)
}
