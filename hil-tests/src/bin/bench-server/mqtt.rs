//! How long a signal of 1 KB takes from its publisher to its subscriber with QoS 1, fifty pairs at a
//! time, through server-min and through Mosquitto.

use crate::mqtt_wire::{Client, Login, PUBACK, PUBLISH, SUBACK};
use crate::mqtt_wire::{connect, parse_publish, puback, publish, subscribe};
use crate::rounds::{due, expect_nearly_all, median};
use crate::scale::Scale;
use crate::servers::{self, ServerMin};
use hil_tests::clock;
use hil_tests::figures::Measured;
use hil_tests::report::percentile;
use hil_tests::usage::cpu_ms;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

pub(crate) const NAMES: [&str; 2] = ["mqtt_p95_ms", "mqtt_p95_vs_mosquitto"];

const PAIRS: usize = 50;
const PAYLOAD: usize = 1024;
const ROUNDS: usize = 3;
const KEEP_ALIVE_S: u16 = 600;

/// What one round says of one broker.
struct Round {
    p50_ms: f64,
    p95_ms: f64,
    cpu_us: f64,
}

pub(crate) async fn measure(scale: &Scale) -> Measured {
    let (ours, theirs) = (ServerMin::start("").await?, servers::mosquitto().await?);
    let sides = [(ours.pid(), ours.mqtt), (theirs.pid(), theirs.address)];
    let mut pairs = [Pairs::connect(ours.mqtt)?, Pairs::connect(theirs.address)?];
    let mut rounds: [Vec<Round>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS.min(scale.rounds) {
        for ((pairs, (pid, _)), rounds) in pairs.iter_mut().zip(sides).zip(&mut rounds) {
            let before = cpu_ms(pid)?;
            let delays_ms = pairs.exchange(scale.messages_per_s, scale.messages_window)?;
            let cpu_us = (cpu_ms(pid)? - before) * 1000.0 / delays_ms.len() as f64;
            let delay = |share| percentile(&delays_ms, share).unwrap_or(f64::NAN);
            rounds.push(Round { p50_ms: delay(0.5), p95_ms: delay(0.95), cpu_us });
        }
    }
    let of = |side: usize, read: fn(&Round) -> f64| {
        median(&rounds[side].iter().map(read).collect::<Vec<_>>())
    };
    let p95 = |round: &Round| round.p95_ms;
    Ok(vec![
        ("mqtt_p50_ms", of(0, |round| round.p50_ms)),
        ("mqtt_p50_ms_mosquitto", of(1, |round| round.p50_ms)),
        ("mqtt_p95_ms", of(0, p95)),
        ("mqtt_p95_ms_mosquitto", of(1, p95)),
        ("mqtt_p95_vs_mosquitto", of(0, p95) / of(1, p95)),
        ("mqtt_cpu_us_per_message", of(0, |round| round.cpu_us)),
        ("mqtt_cpu_us_per_message_mosquitto", of(1, |round| round.cpu_us)),
    ])
}

/// Applications, each with the device it sends signals to.
struct Pairs {
    apps: Vec<(Client, Login)>,
    devices: Vec<(Client, String)>,
    epoch: Instant,
}

impl Pairs {
    fn connect(broker: SocketAddr) -> Result<Pairs, String> {
        let mut pairs = Pairs { apps: Vec::new(), devices: Vec::new(), epoch: clock::now() };
        for number in 0..PAIRS {
            let login = Login::device(number);
            let topic = format!("p2p/signal/device/{}", login.id);
            let mut device = Client::connect(broker, &connect(&login, KEEP_ALIVE_S, None))?;
            let granted = device.ask(&subscribe(1, &topic), SUBACK)?;
            if granted.last() != Some(&1) {
                return Err(format!("{broker} refused a subscription to {topic}: {granted:?}"));
            }
            let app = Login::app(number);
            let client = Client::connect(broker, &connect(&app, KEEP_ALIVE_S, None))?;
            for client in [&device, &client] {
                client.stream.set_nonblocking(true).map_err(|e| e.to_string())?;
            }
            pairs.devices.push((device, topic));
            pairs.apps.push((client, app));
        }
        Ok(pairs)
    }

    /// Sends so many a second, evenly, the pairs in turn; what each took, in milliseconds. Every
    /// message is acknowledged by its receiver.
    fn exchange(&mut self, per_s: u32, window: Duration) -> Result<Vec<f64>, String> {
        let count = (f64::from(per_s) * window.as_secs_f64()) as u64;
        let (start, mut sent, mut acknowledged) = (clock::now(), 0, 0);
        let mut delays_ms = Vec::with_capacity(count as usize);
        let mut buffer = vec![0; 64 * 1024];
        let mut polled = self.polled();
        let give_up = start + window + Duration::from_secs(3);
        while (delays_ms.len() as u64) < count || acknowledged < count {
            let now = clock::now();
            if now > give_up {
                break;
            }
            if sent < count && due(start, sent, per_s) <= now {
                self.send(sent)?;
                sent += 1;
                continue;
            }
            let next = if sent < count { due(start, sent, per_s) } else { give_up };
            wait(&mut polled, next.saturating_duration_since(now))
                .map_err(|e| format!("waiting for messages: {e}"))?;
            for i in (0..polled.len()).filter(|i| polled[*i].revents != 0) {
                match i.checked_sub(PAIRS) {
                    None => acknowledged += self.read_acknowledgements(i, &mut buffer)?,
                    Some(i) => self.read_messages(i, &mut buffer, &mut delays_ms)?,
                }
            }
        }
        expect_nearly_all("messages", count, acknowledged.min(delays_ms.len() as u64))?;
        Ok(delays_ms)
    }

    fn polled(&self) -> Vec<libc::pollfd> {
        let streams = self.apps.iter().map(|(client, _)| client);
        let streams = streams.chain(self.devices.iter().map(|(client, _)| client));
        let polled = |client: &Client| libc::pollfd {
            fd: client.stream.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        streams.map(polled).collect()
    }

    /// One candidate, with the time in it.
    fn send(&mut self, number: u64) -> Result<(), String> {
        let pair = number as usize % PAIRS;
        let ((client, login), (_, topic)) = (&mut self.apps[pair], &self.devices[pair]);
        let to = topic.rsplit('/').next().unwrap_or_default();
        let head = format!(
            r#"{{"type":"candidate","sessionId":"550e8400-e29b-41d4-a716-446655440000","from":"{}","to":"{to}","payload":{{"sdpMid":"0","sdpMLineIndex":0,"candidate":""#,
            login.id
        );
        let id = (number / PAIRS as u64 % 60_000) as u16 + 1;
        let now_ns = self.epoch.elapsed().as_nanos();
        let tail = format!(r#""}},"timestamp":{now_ns:020}}}"#);
        let fill = PAYLOAD.saturating_sub(head.len() + tail.len());
        let payload = [head.as_bytes(), &vec![b'x'; fill], tail.as_bytes()].concat();
        client
            .stream
            .write_all(&publish(PUBLISH, id, topic, &payload))
            .map_err(|e| format!("a publisher: {e}"))
    }

    fn read_acknowledgements(&mut self, app: usize, buffer: &mut [u8]) -> Result<u64, String> {
        let mut count = 0;
        let read = self.apps[app].0.read(buffer, |first, _| count += u64::from(first == PUBACK));
        until_later(read).map(|()| count)
    }

    fn read_messages(
        &mut self,
        device: usize,
        buffer: &mut [u8],
        delays_ms: &mut Vec<f64>,
    ) -> Result<(), String> {
        let (client, epoch) = (&mut self.devices[device].0, self.epoch);
        let mut answers = Vec::new();
        let read = client.read(buffer, |first, body| {
            let now_ns = epoch.elapsed().as_nanos() as f64;
            if first == PUBLISH
                && let Some((id, payload)) = parse_publish(body)
                && let Some(sent_ns) = sent_ns(payload)
            {
                delays_ms.push((now_ns - sent_ns) / 1e6);
                answers.extend_from_slice(&puback(id));
            }
        });
        until_later(read)?;
        client.stream.write_all(&answers).map_err(|e| format!("a subscriber: {e}"))
    }
}

/// The last twenty digits of a payload.
fn sent_ns(payload: &[u8]) -> Option<f64> {
    let digits = payload.get(payload.len().checked_sub(21)?..payload.len() - 1)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Nothing to read is no error.
fn until_later(read: io::Result<()>) -> Result<(), String> {
    match read {
        Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(format!("reading: {e}")),
        _ => Ok(()),
    }
}

/// Until one of them has something to read, in nanoseconds: `poll` counts milliseconds.
fn wait(polled: &mut [libc::pollfd], limit: Duration) -> io::Result<()> {
    let limit = libc::timespec {
        tv_sec: limit.as_secs() as libc::time_t,
        tv_nsec: limit.subsec_nanos() as libc::c_long,
    };
    // SAFETY: the array is as long as is said, the limit is read, and no signals are given.
    let result = unsafe {
        libc::ppoll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, &limit, std::ptr::null())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_found_at_the_end() {
        assert_eq!(sent_ns(b"{\"timestamp\":00000000000000000042}"), Some(42.0));
        assert_eq!(sent_ns(b"42}"), None);
    }
}
