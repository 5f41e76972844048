//! How large server-min is, what is in it, and how soon it is ready.

use crate::SERVER;
use crate::rounds::median;
use crate::scale::Scale;
use crate::servers::{ServerMin, is_ready};
use hil_tests::clock;
use hil_tests::figures::Measured;
use hil_tests::firmware::{build_server, profile_dir, run};
use hil_tests::report::Report;
use hil_tests::usage::{memory, pin};
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

pub(crate) const NAMES: [&str; 2] = ["binary_mb", "start_ms"];

/// Named in the report.
const LARGEST: usize = 15;

pub(crate) async fn measure(scale: &Scale, report: &mut Report) -> Measured {
    let binary = build_server()?;
    let stripped = profile_dir()?.join("hil").join("server-min.stripped");
    if let Some(folder) = stripped.parent() {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    run(Command::new("strip").arg("-o").arg(&stripped).arg(&binary))?;
    let bytes = std::fs::metadata(&stripped).map_err(|e| e.to_string())?.len();
    report.text(
        "binary_crates_kb",
        largest(&run(Command::new("nm").args(["-S", "-C"]).arg(&binary))?),
    );
    let (folder, mut command) = ServerMin::command("")?;
    pin(&mut command, SERVER);
    let (mut times, mut rss) = (Vec::new(), 0);
    for _ in 0..scale.starts {
        let (ms, kb) = start(&mut command)?;
        times.push(ms);
        rss = kb;
    }
    drop(folder);
    Ok(vec![
        ("binary_mb", bytes as f64 / 1e6),
        ("start_ms", median(&times)),
        ("rss_kb_at_start", rss as f64),
    ])
}

/// From its start to its `ready:` line, in milliseconds; and its memory then, in kB.
fn start(command: &mut Command) -> Result<(f64, u64), String> {
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let start = clock::now();
    let mut child = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
    let mut line = String::new();
    let read = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
    let ms = start.elapsed().as_secs_f64() * 1000.0;
    let memory = memory(child.id());
    let killed = child.kill().and_then(|()| child.wait());
    match (read, killed, memory) {
        (Some(Ok(_)), Ok(_), Ok(memory)) if is_ready(&line) => Ok((ms, memory.rss_kb)),
        other => Err(format!("server-min said {line:?} at its start: {other:?}")),
    }
}

/// Code and data by crate, from what `nm -S -C` says: `address size kind name`. What has no name of a
/// crate is C's, or the compiler's.
fn largest(symbols: &str) -> String {
    let mut crates: HashMap<&str, u64> = HashMap::new();
    for line in symbols.lines() {
        let mut words = line.splitn(4, ' ');
        let (_, size, _, name) = (words.next(), words.next(), words.next(), words.next());
        if let (Some(size), Some(name)) = (size, name)
            && let Ok(size) = u64::from_str_radix(size, 16)
        {
            *crates.entry(crate_of(name)).or_default() += size;
        }
    }
    let mut crates: Vec<_> = crates.into_iter().collect();
    crates.sort_by_key(|(name, size)| (std::cmp::Reverse(*size), *name));
    let one = |(name, size): &(&str, u64)| format!("{name} {}", size.div_ceil(1024));
    crates.iter().take(LARGEST).map(one).collect::<Vec<_>>().join(", ")
}

/// `core` of `<core::fmt::Formatter as …>::pad`; whoever a trait is implemented for.
fn crate_of(symbol: &str) -> &str {
    let path = symbol.trim_start_matches(['<', '&', '*', '[', '(', ' ']);
    let path = path.strip_prefix("dyn ").or_else(|| path.strip_prefix("mut ")).unwrap_or(path);
    match path.find("::") {
        Some(end) if path[..end].bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') => {
            &path[..end]
        }
        _ if path.starts_with("ring_core") || path.contains("p256") => "ring",
        _ => "(others)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_belongs_to_a_crate() {
        let symbols = "\
0000000000001000 0000000000000c00 t <core::fmt::Formatter as core::fmt::Write>::write_str
0000000000002000 0000000000000400 t core::str::from_utf8
0000000000003000 0000000000000400 T ring_core_0_17_14__aes_gcm_enc
0000000000004000 0000000000000300 t <&mut tokio::net::TcpStream as std::io::Read>::read
                 U malloc
0000000000005000 0000000000000200 T memcpy
0000000000005000 t no_size";
        assert_eq!(largest(symbols), "core 4, ring 1, tokio 1, (others) 1");
    }
}
