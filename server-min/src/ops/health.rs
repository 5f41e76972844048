//! Whether this node should be given work: `/readyz`. (`/healthz` says that the process lives, and
//! needs no more than its answer.)

use crate::metrics::{Kind, Text};
use std::cell::{Cell, RefCell};

/// Named checks of everything that must work for a new session to work. Parts add their own.
#[derive(Default)]
pub struct Health {
    checks: RefCell<Vec<Check>>,
    draining: Cell<bool>,
}

struct Check {
    name: &'static str,
    /// The error says what is wrong.
    run: Box<dyn Fn() -> Result<(), String>>,
}

/// What is not ready, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady {
    pub name: &'static str,
    pub why: String,
}

impl Health {
    /// `check` is asked at each look, so it must answer from what it knows. Its name is a label of
    /// metrics.
    pub fn add(&self, name: &'static str, check: impl Fn() -> Result<(), String> + 'static) {
        self.checks.borrow_mut().push(Check { name, run: Box::new(check) });
    }

    /// From now on nobody new is to come. There is no way back.
    pub fn drain(&self) {
        self.draining.set(true);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Everything that is not ready; nothing if all is.
    pub fn not_ready(&self) -> Vec<NotReady> {
        let draining = NotReady { name: DRAINING, why: "the server is stopping".into() };
        let draining = self.is_draining().then_some(draining);
        let checks = self.checks.borrow();
        let failed = checks.iter().filter_map(|check| {
            let why = (check.run)().err()?;
            Some(NotReady { name: check.name, why })
        });
        draining.into_iter().chain(failed).collect()
    }

    /// Each check by its name; the error says what is wrong.
    pub fn all(&self) -> Vec<(&'static str, Result<(), String>)> {
        self.checks.borrow().iter().map(|check| (check.name, (check.run)())).collect()
    }

    pub fn write_metrics(&self, text: &mut Text) {
        let name = "server_min_ready";
        text.family(name, Kind::Gauge, "Whether each part of readiness holds (1) or not (0)");
        for check in self.checks.borrow().iter() {
            let ready = u8::from((check.run)().is_ok());
            text.sample(name, &[("check", check.name)], ready);
        }
        text.sample(name, &[("check", DRAINING)], u8::from(!self.is_draining()));
    }
}

const DRAINING: &str = "draining";

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn what_is_not_ready_is_named() {
        let (health, store_up) = (Health::default(), Rc::new(Cell::new(true)));
        let up = store_up.clone();
        health.add("store", move || if up.get() { Ok(()) } else { Err("refused".into()) });
        health.add("listeners", || Ok(()));
        assert_eq!(health.not_ready(), []);
        store_up.set(false);
        let store = NotReady { name: "store", why: "refused".into() };
        assert_eq!(health.not_ready(), [store]);
        store_up.set(true);
        health.drain();
        assert_eq!(health.not_ready()[0].name, "draining");
        let mut text = Text::default();
        health.write_metrics(&mut text);
        let text = text.into_string();
        assert!(text.contains("server_min_ready{check=\"store\"} 1\n"), "{text}");
        assert!(text.contains("server_min_ready{check=\"draining\"} 0\n"), "{text}");
    }
}
