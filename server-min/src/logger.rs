//! Log lines on stderr, one event a line. What belongs to a session carries `sessionId=…`, so that
//! its whole path can be found by one search; secrets and tokens are never given to the logger.

use crate::clock;
use log::{LevelFilter, Log, Metadata, Record};
use std::io::Write as _;

/// Sets the process's logger up. `spec` is a level (`info`), optionally followed by levels of
/// single modules: `info,mqtt=debug,stun_turn=warn`.
pub fn init(spec: &str) -> Result<(), String> {
    let levels = Levels::parse(spec)?;
    let most = levels.most();
    // A second logger in one process (a test) is not an error: the first one stays.
    if log::set_boxed_logger(Box::new(Stderr { levels })).is_ok() {
        log::set_max_level(most);
    }
    Ok(())
}

/// Which levels are written, by module.
#[derive(Debug, PartialEq)]
pub struct Levels {
    general: LevelFilter,
    modules: Vec<(String, LevelFilter)>,
}

impl Levels {
    pub fn parse(spec: &str) -> Result<Levels, String> {
        let level = |text: &str| {
            text.trim().parse::<LevelFilter>().map_err(|_| {
                format!("{text:?} is no log level; use off, error, warn, info, debug or trace")
            })
        };
        let mut levels = Levels { general: LevelFilter::Info, modules: Vec::new() };
        // It warns of what any stranger may send.
        levels.modules.push(("rtc_dtls".into(), LevelFilter::Error));
        for part in spec.split(',').filter(|p| !p.trim().is_empty()) {
            match part.split_once('=') {
                Some((module, text)) => {
                    levels.modules.push((module.trim().to_owned(), level(text)?))
                }
                None => levels.general = level(part)?,
            }
        }
        Ok(levels)
    }

    fn most(&self) -> LevelFilter {
        self.modules.iter().map(|(_, level)| *level).fold(self.general, Ord::max)
    }

    fn of(&self, target: &str) -> LevelFilter {
        let target = short(target);
        let named = self.modules.iter().rfind(|(module, _)| {
            let module = short(module);
            target
                .strip_prefix(module)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        });
        named.map_or(self.general, |(_, level)| *level)
    }
}

struct Stderr {
    levels: Levels,
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.levels.of(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        // One event stays one line, whatever a client put into it.
        let text: String =
            text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        let line = format!(
            "{} {:<5} {}: {text}\n",
            clock::rfc3339(clock::now_ms()),
            record.level(),
            short(record.target()),
        );
        // A closed stderr is no reason to stop serving.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

fn short(target: &str) -> &str {
    target.strip_prefix("server_min::").unwrap_or(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_by_module() {
        let levels = Levels::parse("warn, mqtt=debug").unwrap();
        assert_eq!(levels.of("server_min::mqtt::router"), LevelFilter::Debug);
        assert_eq!(levels.of("server_min::mqtt_other"), LevelFilter::Warn);
        assert_eq!(levels.of("server_min::http"), LevelFilter::Warn);
        assert_eq!(levels.most(), LevelFilter::Debug);
        assert_eq!(levels.of("rtc_dtls::conn"), LevelFilter::Error);
        assert_eq!(Levels::parse("rtc_dtls=info").unwrap().of("rtc_dtls"), LevelFilter::Info);
        assert!(Levels::parse("loud").unwrap_err().contains("\"loud\""));
        assert_eq!(Levels::parse("").unwrap().general, LevelFilter::Info);
    }
}
