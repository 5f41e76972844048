//! How many sessions a second are created through the API, kept in memory and in Redis.

use crate::rounds::median;
use crate::scale::Scale;
use crate::servers::{self, APP_KEY, Running, ServerMin};
use hil_tests::clock;
use hil_tests::figures::Measured;
use hil_tests::http::Connection;
use hil_tests::report::Report;
use hil_tests::usage::{cpu_ms, memory};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tokio::task::JoinSet;

pub(crate) const NAMES: [&str; 1] = ["sessions_per_s_memory"];
const REDIS_NAMES: [&str; 1] = ["sessions_per_s"];

/// Applications' servers, each with a connection that it keeps.
const CALLERS: usize = 16;

pub(crate) async fn measure(scale: &Scale, report: &mut Report) -> Measured {
    let redis = with_redis(scale).await;
    if let Err(reason) = &redis {
        REDIS_NAMES.iter().for_each(|name| report.missing(name, reason));
    }
    let server = ServerMin::start("").await?;
    let rss_before = memory(server.pid())?.rss_kb;
    let created = create(&server, scale).await?;
    let rss_kb = (memory(server.pid())?.rss_kb - rss_before) as f64;
    let mut values = vec![
        ("sessions_per_s_memory", created.per_s),
        ("session_cpu_us_memory", created.cpu_us),
        ("session_rss_kb_memory", rss_kb / created.count as f64),
    ];
    values.extend(redis.unwrap_or_default());
    Ok(values)
}

async fn with_redis(scale: &Scale) -> Measured {
    let redis = servers::redis().await?;
    let store = format!("[store]\nredis = \"redis://{}\"", redis.address);
    let server = ServerMin::start(&store).await?;
    let (bytes, redis_cpu) = (redis_bytes(&redis)?, cpu_ms(redis.pid())?);
    let created = create(&server, scale).await?;
    let count = created.count as f64;
    Ok(vec![
        ("sessions_per_s", created.per_s),
        ("session_cpu_us", created.cpu_us),
        ("session_cpu_us_redis_server", (cpu_ms(redis.pid())? - redis_cpu) * 1000.0 / count),
        ("session_bytes_redis", (redis_bytes(&redis)? - bytes) / count),
    ])
}

struct Created {
    per_s: f64,
    cpu_us: f64,
    /// In all rounds.
    count: u64,
}

async fn create(server: &ServerMin, scale: &Scale) -> Result<Created, String> {
    let (mut per_s, mut cpu_us, mut count) = (Vec::new(), Vec::new(), 0);
    for round in 0..scale.rounds {
        let (start, before) = (clock::now(), cpu_ms(server.pid())?);
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let name = format!("{round}-{caller}");
            callers.spawn(call(server.http.clone(), name, scale.window));
        }
        let mut created = 0;
        for caller in callers.join_all().await {
            created += caller?;
        }
        per_s.push(created as f64 / start.elapsed().as_secs_f64());
        cpu_us.push((cpu_ms(server.pid())? - before) * 1000.0 / created as f64);
        count += created;
    }
    Ok(Created { per_s: median(&per_s), cpu_us: median(&cpu_us), count })
}

/// One session after the other, each of another viewer and camera.
async fn call(server: String, name: String, window: Duration) -> Result<u64, String> {
    let text = |e: std::io::Error| format!("the session API: {e}");
    let mut connection = Connection::open(&server).await.map_err(text)?;
    let key = format!("Bearer {APP_KEY}");
    let headers = [("Authorization", key.as_str()), ("Content-Type", "application/json")];
    let (start, mut count) = (clock::now(), 0);
    while start.elapsed() < window {
        let body =
            format!(r#"{{"deviceId":"camera-{name}-{count}","appId":"app-{name}-{count}"}}"#);
        let answer = connection.request("POST", "/v1/sessions", &headers, body.as_bytes());
        let answer = answer.await.map_err(text)?;
        if answer.status != 201 {
            return Err(format!("the session API: {}: {}", answer.status, answer.text()));
        }
        count += 1;
    }
    Ok(count)
}

/// What Redis says it holds.
fn redis_bytes(redis: &Running) -> Result<f64, String> {
    info(redis.address).map_err(|e| format!("Redis: {e}"))
}

fn info(redis: SocketAddr) -> std::io::Result<f64> {
    let mut stream = TcpStream::connect(redis)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"INFO memory\r\nQUIT\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let line = text.lines().find_map(|line| line.strip_prefix("used_memory:"));
    line.and_then(|number| number.trim().parse().ok())
        .ok_or_else(|| std::io::Error::other(format!("no used_memory in {text:?}")))
}
