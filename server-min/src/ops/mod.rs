//! Running the server: what is counted, whether it is ready, how it takes a new configuration and how
//! it ends.
//!
//! ```text
//! GET /metrics ─→ Registry ─→ each part's own numbers
//! GET /readyz ──→ Health ───→ each part's own check
//! GET /v1/ops/… ─→ Desk ────→ all of it, and the sessions themselves
//! SIGHUP ───────→ lifecycle ─→ Source::load ─→ Reload ─→ each part's own change
//! SIGTERM ──────→ lifecycle ─→ Health::drain ─→ drain_s, or until nobody is left ─→ Server::stop
//! ```

mod config;
mod desk;
mod health;
pub mod lifecycle;
pub mod process;
mod relayed;
mod reload;
mod wiring;

pub use config::OpsConfig;
pub use desk::Desk;
pub use health::{Health, NotReady};
pub use reload::{Reload, Reloaded};
pub(crate) use wiring::Parts;

use crate::metrics::Registry;
use std::rc::Rc;

/// What parts register themselves with when the server starts.
pub struct Ops {
    pub registry: Registry,
    pub health: Health,
    pub reload: Reload,
}

impl Ops {
    pub fn new() -> Rc<Ops> {
        let ops = Rc::new(Ops {
            registry: Registry::default(),
            health: Health::default(),
            reload: Reload::default(),
        });
        let weak = Rc::downgrade(&ops);
        ops.registry.add(move |text| {
            if let Some(ops) = weak.upgrade() {
                ops.health.write_metrics(text);
                ops.reload.write_metrics(text);
            }
        });
        ops
    }
}
