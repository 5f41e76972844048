//! What a process uses, as the kernel counts it, and where it may run.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has the process that `command` starts, with all its threads, run on one processor only.
pub fn pin(command: &mut Command, processor: usize) {
    // SAFETY: `pin_here` makes one system call, and touches only the child.
    unsafe {
        command.pre_exec(move || pin_here(processor));
    }
}

/// The same for the calling thread, and those it starts from now on.
pub fn pin_here(processor: usize) -> io::Result<()> {
    // SAFETY: a set of processors is bits, all of which may be zero; the call reads no more than its
    // size says.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Fails where there is one processor only: what is measured has one to itself.
pub fn expect_two_processors() -> Result<(), String> {
    match std::thread::available_parallelism().map_or(1, usize::from) {
        0 | 1 => Err("needs two processors, one of them for the load".into()),
        _ => Ok(()),
    }
}

/// Processor time since its start, in milliseconds: the sum over its threads, from
/// `/proc/PID/task/*/schedstat`, which counts nanoseconds where `stat` counts ticks of 10 ms.
pub fn cpu_ms(pid: u32) -> Result<f64, String> {
    let folder = format!("/proc/{pid}/task");
    let tasks = fs::read_dir(&folder).map_err(|e| format!("{folder}: {e}"))?;
    let mut nanoseconds = 0.0;
    for task in tasks {
        let file = task.map_err(|e| e.to_string())?.path().join("schedstat");
        let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let first = text.split_whitespace().next().and_then(|n| n.parse::<f64>().ok());
        nanoseconds += first.ok_or_else(|| format!("{}: {text:?}", file.display()))?;
    }
    Ok(nanoseconds / 1e6)
}

/// Memory in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    pub rss_kb: u64,
    /// The part that is the process's own: heap, stacks, changed data.
    pub anonymous_kb: u64,
}

pub fn memory(pid: u32) -> Result<Memory, String> {
    let file = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&file).map_err(|e| format!("{file}: {e}"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.ok_or_else(|| format!("{file}: no {name}"))
    };
    Ok(Memory { rss_kb: field("VmRSS:")?, anonymous_kb: field("RssAnon:")? })
}

/// What the kernel holds for all processes together, sockets among it, in kB.
pub fn kernel_kb() -> Result<f64, String> {
    let file = "/proc/meminfo";
    let text = fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Slab:"));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| format!("{file}: no Slab"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_process_says_where_it_is() {
        let mut command = Command::new("grep");
        command.args(["Cpus_allowed_list:", "/proc/self/status"]);
        pin(&mut command, 0);
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "Cpus_allowed_list:\t0");
    }

    #[test]
    fn a_process_can_read_its_own() {
        let pid = std::process::id();
        let before = cpu_ms(pid).unwrap();
        let mut sum = 0u64;
        for i in 0..50_000_000u64 {
            sum = std::hint::black_box(sum ^ i);
        }
        assert!(cpu_ms(pid).unwrap() > before, "{sum}");
        let memory = memory(pid).unwrap();
        assert!(memory.rss_kb > 1000 && memory.anonymous_kb <= memory.rss_kb, "{memory:?}");
        assert!(kernel_kb().unwrap() > 1000.0);
    }
}
