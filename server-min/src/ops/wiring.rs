//! What the server's parts register: their numbers, their checks, and what they can change.

use super::{Desk, Ops, process};
use crate::carrier::Carrier;
use crate::config::Config;
use crate::counters::relay_metrics;
use crate::placement::Placement;
use crate::session::{Access, Service, SessionStore};
use crate::stun_turn::TurnHandle;
use crate::tls::Tls;
use std::cell::Cell;
use std::rc::Rc;
use tokio::task::JoinHandle;

/// The parts of a running server.
pub(crate) struct Parts<'a> {
    pub(crate) service: &'a Rc<Service>,
    pub(crate) store: &'a Rc<dyn SessionStore>,
    pub(crate) carrier: &'a Carrier,
    pub(crate) placement: &'a Rc<Placement>,
    /// `None` where all relaying is done by others.
    pub(crate) turn: Option<&'a Rc<TurnHandle>>,
    pub(crate) access: &'a Rc<Access>,
    pub(crate) tls: Option<&'a Tls>,
    pub(crate) sweep_interval_s: &'a Rc<Cell<u64>>,
    pub(crate) config: &'a Config,
}

impl Ops {
    /// For an operator, a desk with all of them.
    pub(crate) fn register(self: &Rc<Self>, parts: &Parts<'_>) -> Rc<Desk> {
        self.register_metrics(parts);
        self.register_changes(parts);
        let store = parts.store.clone();
        self.health.add("store", move || store.ready());
        let carrier = parts.carrier.clone();
        self.health.add("broker", move || carrier.trouble().map_or(Ok(()), Err));
        if let Some(turn) = parts.turn.cloned() {
            self.health.add("turn", move || match turn.is_running() {
                true => Ok(()),
                false => Err("a thread of the relay has ended; the log says why".into()),
            });
        }
        Rc::new(Desk::new(self.clone(), parts))
    }

    /// Tasks that serve until the server stops: one that ended before has failed.
    pub(crate) fn register_tasks(&self, tasks: &[JoinHandle<()>]) {
        let tasks: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
        self.health.add("listeners", move || match tasks.iter().any(|task| task.is_finished()) {
            false => Ok(()),
            true => Err("one of HTTP, MQTT, reports and sweep has ended; the log says why".into()),
        });
    }

    fn register_metrics(&self, parts: &Parts<'_>) {
        let service = parts.service.clone();
        self.registry.add(move |text| service.write_metrics(text));
        if let Some(turn) = parts.turn.cloned() {
            let region = parts.config.region.clone();
            let max_allocations = parts.config.turn.allocations_total;
            self.registry.add(move |text| {
                relay_metrics(text, turn.counters(), &region, max_allocations);
            });
        }
        let (placement, carrier) = (parts.placement.clone(), parts.carrier.clone());
        self.registry.add(move |text| placement.write_metrics(text));
        self.registry.add(move |text| carrier.write_metrics(text));
        if let Some(tls) = parts.tls.cloned() {
            self.registry.add(move |text| {
                if let Some(not_after_s) = tls.not_after_s() {
                    let help = "When the first certificate of our chain expires, since 1970";
                    text.gauge("tls_certificate_not_after_seconds", help, not_after_s);
                }
            });
        }
        self.registry.add(process::write_metrics);
    }

    fn register_changes(&self, parts: &Parts<'_>) {
        let service = parts.service.clone();
        let of_service = &[
            "session.token_ttl_s",
            "session.ttl_s",
            "session.stale_after_s",
            "turn.max_bandwidth_bps",
        ];
        self.reload.add(of_service, move |config| {
            service.reconfigure(|to| {
                to.token_ttl_s = config.session.token_ttl_s;
                to.ttl_s = config.session.ttl_s;
                to.stale_after_s = config.session.stale_after_s;
                to.max_bandwidth_bps = config.turn.max_bandwidth_bps;
            });
            Ok(())
        });
        let store = parts.store.clone();
        self.reload.add(&["session.max_sessions"], move |config| {
            store.set_max(config.session.max_sessions);
            Ok(())
        });
        let interval_s = parts.sweep_interval_s.clone();
        self.reload.add(&["session.sweep_interval_s"], move |config| {
            interval_s.set(config.session.sweep_interval_s);
            Ok(())
        });
        let (turn, placement) = (parts.turn.cloned(), parts.placement.clone());
        let at_start = parts.config.turn.secrets.clone();
        self.reload.add(&["turn.secrets", "turn.external"], move |config| {
            let mut config = config.clone();
            if config.turn.secrets.is_empty() {
                // The one that was made at the start stays where none is written.
                config.turn.secrets.clone_from(&at_start);
            }
            if let Some(turn) = &turn {
                let taken = turn.set_secrets(&config.turn.secrets);
                taken.map_err(|text| format!("turn.secrets: {text}"))?;
            }
            let placement = placement.clone();
            // It reads a file, which may take a while.
            tokio::task::spawn_local(async move {
                if let Err(why) = placement.reload(&config).await {
                    log::error!("reload: {why}; what held before holds on");
                }
            });
            Ok(())
        });
        // The content of files. Other files wait for the next start.
        let access = parts.access.clone();
        self.reload.add(&[], move |_| access.reload());
        if let Some(tls) = parts.tls.cloned() {
            self.reload.add(&[], move |_| tls.reload());
        }
    }
}
