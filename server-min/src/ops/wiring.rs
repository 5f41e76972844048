//! What the server's parts register: their numbers, their checks, and what they can change.

use super::{Ops, process};
use crate::config::Config;
use crate::counters::{broker_metrics, relay_metrics};
use crate::mqtt::Broker;
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
    pub(crate) broker: &'a Broker,
    pub(crate) turn: &'a Rc<TurnHandle>,
    pub(crate) access: &'a Rc<Access>,
    pub(crate) tls: Option<&'a Tls>,
    pub(crate) sweep_interval_s: &'a Rc<Cell<u64>>,
    pub(crate) config: &'a Config,
}

impl Ops {
    pub(crate) fn register(&self, parts: &Parts<'_>) {
        self.register_metrics(parts);
        self.register_changes(parts);
        let store = parts.store.clone();
        self.health.add("store", move || store.ready());
        let turn = parts.turn.clone();
        self.health.add("turn", move || match turn.is_running() {
            true => Ok(()),
            false => Err("a thread of the relay has ended; the log says why".into()),
        });
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
        let (turn, region) = (parts.turn.clone(), parts.config.region.clone());
        let max_allocations = parts.config.turn.allocations_total;
        self.registry.add(move |text| {
            relay_metrics(text, turn.counters(), &region, max_allocations);
        });
        let (broker, max) = (parts.broker.clone(), parts.config.mqtt.limits.max_connections);
        self.registry.add(move |text| broker_metrics(text, &broker.stats(), max));
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
        let (turn, service) = (parts.turn.clone(), parts.service.clone());
        self.reload.add(&["turn.secrets"], move |config| {
            // The one that was made at the start stays where none is written.
            let Some(first) = config.turn.secrets.first() else { return Ok(()) };
            turn.set_secrets(&config.turn.secrets)
                .map_err(|text| format!("turn.secrets: {text}"))?;
            service.reconfigure(|to| to.turn_secret.clone_from(first));
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
