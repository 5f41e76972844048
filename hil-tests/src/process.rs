//! A child process whose output is kept, and which leaves nothing behind.

use crate::clock;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::sleep;

/// Between SIGTERM and SIGKILL.
const PATIENCE: Duration = Duration::from_secs(8);

pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<String>>>,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it in a process group of its own, so that its children can be found again; it dies
    /// with the thread that started it.
    pub fn start(name: &str, mut command: Command) -> Result<Process, String> {
        command.stdin(Stdio::null());
        Process::spawn(name, command)
    }

    /// Starts one that is told things with [`Process::say`].
    pub fn start_listening(name: &str, mut command: Command) -> Result<Process, String> {
        command.stdin(Stdio::piped());
        Process::spawn(name, command)
    }

    fn spawn(name: &str, mut command: Command) -> Result<Process, String> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        // SAFETY: prctl is async-signal-safe and touches only the child.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command.spawn().map_err(|e| format!("{name}: {command:?}: {e}"))?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        if let Some(stdout) = child.stdout.take() {
            read_lines(stdout, lines.clone());
        }
        if let Some(stderr) = child.stderr.take() {
            read_lines(stderr, lines.clone());
        }
        let stdin = child.stdin.take();
        Ok(Process { name: name.to_owned(), child, stdin, lines, ended: None })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many lines there are: a mark to give to [`Process::line_after`].
    pub fn mark(&self) -> usize {
        self.lines().len()
    }

    /// The first line that `wanted` likes, from the beginning.
    pub async fn line<T>(
        &mut self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&str) -> Option<T>,
    ) -> Result<T, String> {
        self.line_after(0, what, limit, wanted).await
    }

    /// The first line after `mark` that `wanted` likes.
    pub async fn line_after<T>(
        &mut self,
        mark: usize,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&str) -> Option<T>,
    ) -> Result<T, String> {
        let start = clock::now();
        loop {
            // Whether it ended is asked first: its last lines may still be on their way.
            let ended = self.has_ended();
            if let Some(found) = self.lines().iter().skip(mark).find_map(|line| wanted(line)) {
                return Ok(found);
            }
            let why = match ended {
                Some(status) if start.elapsed() > Duration::from_millis(300) => {
                    format!("it ended: {status}")
                }
                _ if start.elapsed() > limit => format!("it did not in {limit:?}"),
                _ => {
                    sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            return Err(format!(
                "{} should have said {what}; {why}\n{}",
                self.name,
                self.lines().join("\n")
            ));
        }
    }

    /// Writes one line to its standard input.
    pub fn say(&mut self, line: &str) -> Result<(), String> {
        let Process { name, stdin, .. } = self;
        let stdin = stdin.as_mut().ok_or_else(|| format!("{name} was not started to listen"))?;
        writeln!(stdin, "{line}").map_err(|e| format!("{name} does not listen: {e}"))
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Waits for it to end by itself.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus, String> {
        let start = clock::now();
        loop {
            if let Some(status) = self.has_ended() {
                return Ok(status);
            }
            if start.elapsed() > limit {
                return Err(format!(
                    "{} still runs after {limit:?}\n{}",
                    self.name,
                    self.lines().join("\n")
                ));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn signal(&self, signal: i32) {
        if self.ended.is_none()
            && let Ok(pid) = i32::try_from(self.pid())
        {
            // SAFETY: the child has not been waited for, so the id is still its own.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// Asks it to end, and kills what does not. Errs if it had to be killed, or if a process of
    /// its group is still there.
    pub fn stop(&mut self) -> Result<ExitStatus, String> {
        self.signal(libc::SIGTERM);
        let start = clock::now();
        let mut killed = false;
        let status = loop {
            if let Some(status) = self.has_ended() {
                break status;
            }
            if !killed && start.elapsed() > PATIENCE {
                killed = true;
                self.signal(libc::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        if killed {
            return Err(format!("{} had to be killed: SIGTERM did not end it", self.name));
        }
        self.expect_nothing_left()?;
        Ok(status)
    }

    /// Whether any process of its group is left. Only meaningful after it has ended.
    pub fn expect_nothing_left(&self) -> Result<(), String> {
        let group = i32::try_from(self.pid()).map_err(|e| e.to_string())?;
        // SAFETY: signal 0 only asks whether somebody is there.
        match unsafe { libc::kill(-group, 0) } {
            0 => Err(format!("{} left processes of its group {group} behind", self.name)),
            _ => Ok(()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let result = self.stop();
        if std::thread::panicking() {
            let lines = self.lines();
            #[allow(clippy::print_stderr, reason = "a failed test shows what the processes said")]
            {
                eprintln!("--- {} ({} lines, {result:?}):", self.name, lines.len());
                for line in lines.iter().skip(lines.len().saturating_sub(120)) {
                    eprintln!("    {line}");
                }
            }
        }
    }
}

fn read_lines(from: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn lines_are_found_and_the_end_is_noticed() {
        let mut process = Process::start("sh", shell("echo one; echo two >&2; exit 3")).unwrap();
        let limit = Duration::from_secs(20);
        process.line("two", limit, |line| (line == "two").then_some(())).await.unwrap();
        assert_eq!(process.wait(limit).await.unwrap().code(), Some(3));
        let none = process.line("three", limit, |line| (line == "three").then_some(())).await;
        assert!(none.unwrap_err().contains("exit status: 3"));
    }

    #[tokio::test]
    async fn what_is_said_to_it_is_heard() {
        let mut process = Process::start_listening("cat", Command::new("cat")).unwrap();
        process.say("good day").unwrap();
        let heard = |line: &str| (line == "good day").then_some(());
        process.line("an echo", Duration::from_secs(20), heard).await.unwrap();
        let mut deaf = Process::start("sh", shell("exit 0")).unwrap();
        assert!(deaf.say("good day").is_err());
    }

    #[tokio::test]
    async fn a_process_left_behind_is_noticed() {
        let mut process = Process::start("sh", shell("sleep 60 & echo $!; exit 0")).unwrap();
        let limit = Duration::from_secs(20);
        let pid = process.line("a pid", limit, |line| line.parse::<i32>().ok()).await.unwrap();
        process.wait(limit).await.unwrap();
        assert!(process.expect_nothing_left().is_err());
        // SAFETY: the `sleep` that this test has started.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}
