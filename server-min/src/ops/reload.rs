//! A new configuration for a server that runs: each part takes what it can, and what nobody takes is
//! named, so that the operator knows that it waits for a restart.

use crate::config::{Config, Loaded};
use crate::metrics::{Kind, Text};
use std::cell::{Cell, RefCell};

/// Those who can take new settings while they run.
#[derive(Default)]
pub struct Reload {
    takers: RefCell<Vec<Taker>>,
    succeeded: Cell<u64>,
    failed: Cell<u64>,
    last_failed: Cell<bool>,
}

struct Taker {
    /// The settings that it takes: `app_keys`, `session.ttl_s`, or a section such as `geoip`.
    settings: &'static [&'static str],
    take: Take,
}

type Take = Box<dyn Fn(&Config) -> Result<(), String>>;

/// What became of a new configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Settings that have changed and hold now.
    pub taken: Vec<String>,
    /// Settings that have changed and wait for the next start.
    pub waiting: Vec<String>,
    /// What could not be taken, in words. What held before holds on there.
    pub failed: Vec<String>,
}

impl Reload {
    /// `take` is called at every reload, whether or not these settings have changed: the files they
    /// name may have. On an error it must have changed nothing.
    pub fn add(
        &self,
        settings: &'static [&'static str],
        take: impl Fn(&Config) -> Result<(), String> + 'static,
    ) {
        self.takers.borrow_mut().push(Taker { settings, take: Box::new(take) });
    }

    /// Gives `new`, which is valid, to all who take part of it.
    pub fn apply(&self, old: &Loaded, new: &Loaded) -> Reloaded {
        let mut reloaded = Reloaded::default();
        let takers = self.takers.borrow();
        let changed = old.changes(new);
        let mut refused: Vec<&str> = Vec::new();
        for taker in takers.iter() {
            if let Err(why) = (taker.take)(&new.config) {
                reloaded.failed.push(why);
                refused.extend(taker.settings);
            }
        }
        for key in changed {
            let is_in = |settings: &[&str]| settings.iter().any(|setting| covers(setting, &key));
            if is_in(&refused) {
                continue;
            }
            match takers.iter().any(|taker| is_in(taker.settings)) {
                true => reloaded.taken.push(key),
                false => reloaded.waiting.push(key),
            }
        }
        self.on_outcome(reloaded.failed.is_empty());
        reloaded
    }

    /// A configuration that cannot be used counts too.
    pub fn on_outcome(&self, good: bool) {
        let counter = if good { &self.succeeded } else { &self.failed };
        counter.update(|n| n + 1);
        self.last_failed.set(!good);
    }

    pub fn write_metrics(&self, text: &mut Text) {
        let name = "server_min_config_reloads_total";
        text.family(name, Kind::Counter, "Reloads of the configuration (SIGHUP), by their outcome");
        text.sample(name, &[("outcome", "success")], self.succeeded.get());
        text.sample(name, &[("outcome", "failure")], self.failed.get());
        text.gauge(
            "server_min_config_last_reload_successful",
            "Whether the last reload of the configuration was good (1, also before the first) or not (0)",
            u8::from(!self.last_failed.get()),
        );
    }
}

impl Reloaded {
    /// For the operator who sent the signal.
    pub fn log(&self) {
        for why in &self.failed {
            log::error!("reload: {why}; what held before holds on");
        }
        for key in &self.waiting {
            log::warn!("reload: {key} changed: takes effect at the next start");
        }
        match self.taken.as_slice() {
            [] => log::info!("reload: done"),
            taken => log::info!("reload: done; changed: {}", taken.join(", ")),
        }
    }
}

/// Whether `key` is `setting`, or in the section of that name.
fn covers(setting: &str, key: &str) -> bool {
    key.strip_prefix(setting).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Setting, Source};
    use std::rc::Rc;

    fn loaded(settings: &[(&str, &str)]) -> Loaded {
        let settings = settings
            .iter()
            .map(|(key, value)| Setting {
                key: (*key).into(),
                value: (*value).into(),
                source: (*key).into(),
            })
            .collect();
        Source { file: None, settings }.load().unwrap()
    }

    #[test]
    fn each_change_is_taken_refused_or_waits() {
        let reload = Reload::default();
        let ttl = Rc::new(Cell::new(0));
        let seen = ttl.clone();
        reload.add(&["session.ttl_s"], move |config| {
            seen.set(config.session.ttl_s);
            Ok(())
        });
        reload.add(&["tls"], |_| Err("tls.key: is not there".into()));
        let old = loaded(&[("mqtt.device_secret", "north"), ("session.ttl_s", "7200")]);
        let new = loaded(&[
            ("mqtt.device_secret", "south"),
            ("session.ttl_s", "8000"),
            ("http.listen", "127.0.0.1:1"),
            // As it was before, but written down.
            ("session.token_ttl_s", "3600"),
            ("tls.key", "k"),
            ("tls.certificate", "c"),
        ]);
        let outcome = reload.apply(&old, &new);
        assert_eq!(ttl.get(), 8000);
        assert_eq!(outcome.taken, ["session.ttl_s"]);
        assert_eq!(outcome.waiting, ["http.listen", "mqtt.device_secret"]);
        assert_eq!(outcome.failed, ["tls.key: is not there"]);
        // Nothing has changed, and files are read again all the same.
        ttl.set(0);
        let outcome = reload.apply(&new, &new);
        assert_eq!((ttl.get(), outcome.taken.len(), outcome.waiting.len()), (8000, 0, 0));
        let mut text = Text::default();
        reload.write_metrics(&mut text);
        assert!(text.into_string().contains("{outcome=\"failure\"} 2\n"));
    }
}
