//! Log lines on stderr, one event a line. What belongs to a session begins with `sessionId=…`, so that
//! its whole path can be found by one search; secrets and tokens are never given to the logger.

mod flood;
mod format;

pub use format::Format;

use crate::clock;
use flood::{Flood, LeftOut, Site};
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::io::Write as _;
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};

/// How to log.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub levels: Levels,
    pub format: Format,
    /// Lines a second from one place in the program, see [`flood`]; 0 is no limit.
    pub limit: u32,
}

/// Sets the process's logger up; called again, it changes how that one logs.
pub fn init(settings: Settings) {
    let most = settings.levels.most();
    let mut first = Some(settings);
    let logger = LOGGER.get_or_init(|| Stderr {
        settings: RwLock::new(first.take().unwrap_or_default()),
        flood: Mutex::default(),
    });
    if let Some(settings) = first {
        *logger.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }
    // A second logger in one process (a test's own) is not an error: the first one stays.
    let _ = log::set_logger(logger);
    log::set_max_level(most);
}

/// Writes down how many lines were left out. To be called now and then, and at the end.
pub fn flush() {
    log::logger().flush();
}

static LOGGER: OnceLock<Stderr> = OnceLock::new();

impl Default for Settings {
    fn default() -> Settings {
        Settings { levels: Levels::default(), format: Format::Text, limit: 10 }
    }
}

impl Default for Levels {
    fn default() -> Levels {
        Levels { general: LevelFilter::Info, modules: Vec::new() }
    }
}

/// Which levels are written, by module.
#[derive(Debug, Clone, PartialEq)]
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
        let mut levels = Levels::default();
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
    settings: RwLock<Settings>,
    flood: Mutex<Flood>,
}

impl Stderr {
    fn settings<T>(&self, of: impl FnOnce(&Settings) -> T) -> T {
        of(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.settings(|settings| metadata.level() <= settings.levels.of(metadata.target()))
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (format, limit) = self.settings(|settings| (settings.format, settings.limit));
        let (now_ms, target) = (clock::now_ms(), short(record.target()));
        let text = record.args().to_string();
        let site = Site {
            file: record.file_static().unwrap_or_default(),
            line: record.line().unwrap_or_default(),
            of_session: format::split_session(&text).0.is_some(),
        };
        let mut flood = self.flood.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = flood.admits(site, target, limit, now_ms);
        drop(flood);
        if admitted {
            write(&format::line(format, now_ms, record.level(), target, &text));
        }
    }

    fn flush(&self) {
        let left_out = self.flood.lock().unwrap_or_else(PoisonError::into_inner).take_left_out();
        let format = self.settings(|settings| settings.format);
        for LeftOut { target, line, count } in left_out {
            let text = format!("{count} more lines of {target}:{line} left out (log_limit)");
            write(&format::line(format, clock::now_ms(), Level::Warn, "logger", &text));
        }
    }
}

fn write(line: &str) {
    // A closed stderr is no reason to stop serving.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
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
