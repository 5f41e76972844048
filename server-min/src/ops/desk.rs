//! What an operator sees and does: one picture of this node, the open sessions, and the end of one.
//!
//! ```text
//! overview ─→ Metrics, Recent, Health, TURN nodes, broker, relay: all from memory
//! sessions ─→ SessionStore::list ─→ TurnHandle::traffic (a command to the relay's threads)
//! ```

use super::Ops;
use super::relayed::{Look, Relayed};
use crate::carrier::Carrier;
use crate::clock;
use crate::config::Config;
use crate::mqtt::Role;
use crate::placement::Placement;
use crate::session::{Ended, Ending, Reason, Service, SessionRecord, StoreError, Wanted};
use crate::stun_turn::{Traffic, TurnHandle};
use sdk_core::wire::signal::SessionId;
use serde_json::{Map, Value, json};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

/// Sessions that ended lately, in one picture.
const ENDS_SHOWN: usize = 50;

pub struct Desk {
    pub(crate) ops: Rc<Ops>,
    pub(crate) service: Rc<Service>,
    pub(crate) placement: Rc<Placement>,
    carrier: Carrier,
    turn: Option<Rc<TurnHandle>>,
    relayed: Option<Relayed>,
    /// The whole relay, as it was seen last.
    node: Cell<Option<Look>>,
    region: String,
    started_ms: u64,
    max_allocations: usize,
    /// What a session that names no bandwidth may relay, and what none may exceed; 0 is no cap.
    bandwidth_bps: u64,
    max_bandwidth_bps: u64,
}

impl Desk {
    pub(super) fn new(ops: Rc<Ops>, parts: &super::Parts<'_>) -> Desk {
        let Config { region, turn, .. } = parts.config;
        Desk {
            ops,
            service: parts.service.clone(),
            placement: parts.placement.clone(),
            carrier: parts.carrier.clone(),
            turn: parts.turn.cloned(),
            relayed: parts.turn.cloned().map(Relayed::new),
            node: Cell::default(),
            region: region.clone(),
            started_ms: clock::now_ms(),
            max_allocations: turn.allocations_total,
            bandwidth_bps: turn.bandwidth_bps,
            max_bandwidth_bps: turn.max_bandwidth_bps,
        }
    }

    /// This node, from what it knows by itself.
    pub(crate) fn overview(&self, now_ms: u64) -> Value {
        let totals = self.service.totals();
        let sessions = self.service.counts().map(|counts| {
            json!({
                "connecting": counts.connecting,
                "connected": counts.connected,
                "closed": counts.closed,
            })
        });
        let checks: Vec<Value> = self
            .ops
            .health
            .all()
            .into_iter()
            .map(|(name, outcome)| json!({ "name": name, "why": outcome.err() }))
            .collect();
        json!({
            "now": now_ms,
            "startedAt": self.started_ms,
            "version": env!("CARGO_PKG_VERSION"),
            "region": self.region,
            "draining": self.ops.health.is_draining(),
            "sessions": sessions,
            "totals": {
                "created": totals.created,
                "connected": totals.connected,
                "failed": totals.failed,
                "direct": totals.direct,
                "relayed": totals.relayed,
            },
            "turn": self.turn.as_deref().map(|turn| self.relay(turn, now_ms)),
            "mqtt": self.carrier.broker().map(|broker| {
                let stats = broker.stats();
                json!({
                    "clients": stats.connections,
                    "devices": stats.devices,
                    "apps": stats.apps,
                })
            }),
            "checks": checks,
            "nodes": self.placement.describe_nodes(),
            "ends": self.ends(),
        })
    }

    fn relay(&self, turn: &TurnHandle, now_ms: u64) -> Value {
        let counters = turn.counters();
        let bytes = counters.bytes_relayed.load(Relaxed);
        let traffic = Traffic { bytes_to_peers: bytes, ..Traffic::default() };
        let look = match self.node.get() {
            Some(look) if !look.is_old(now_ms) => look,
            before => Look::after(before.as_ref(), traffic, now_ms),
        };
        self.node.set(Some(look));
        json!({
            "allocations": turn.allocations(),
            "maxAllocations": self.max_allocations,
            "bytesRelayed": bytes,
            "bitRate": look.bit_rate,
        })
    }

    fn ends(&self) -> Value {
        let (mut failed, mut disconnected) = ([0u64; Reason::ALL.len()], [0u64; Reason::ALL.len()]);
        let (mut recent, mut of) = (Vec::new(), 0);
        self.service.recent().each(|ended| {
            let counts = if ended.connected { &mut disconnected } else { &mut failed };
            counts[ended.ending.reason as usize] += 1;
            of += 1;
            if recent.len() < ENDS_SHOWN {
                recent.push(end(ended));
            }
        });
        let by_reason = |counts: [u64; Reason::ALL.len()]| -> Map<String, Value> {
            let named = Reason::ALL.iter().zip(counts).filter(|(_, count)| *count > 0);
            named.map(|(reason, count)| (reason.label().to_owned(), count.into())).collect()
        };
        json!({
            "recent": recent,
            "of": of,
            "failed": by_reason(failed),
            "disconnected": by_reason(disconnected),
        })
    }

    /// A page of open sessions.
    pub(crate) async fn sessions(&self, wanted: &Wanted, now_ms: u64) -> Result<Value, StoreError> {
        let listed = self.service.list(wanted, now_ms).await?;
        let sessions = self.shown(&listed.sessions, now_ms).await;
        Ok(json!({
            "now": now_ms,
            "open": listed.open,
            "sessions": sessions,
            "next": listed.next.map(|place| place.to_string()),
        }))
    }

    /// All that is known of one session; `None` if that is nothing.
    pub(crate) async fn session(
        &self,
        id: SessionId,
        now_ms: u64,
    ) -> Result<Option<Value>, StoreError> {
        let record = self.service.get(id, now_ms).await?;
        let name = id.to_string();
        let mut ended = Value::Null;
        self.service.recent().each(|one| {
            if ended.is_null() && one.session_id == name {
                ended = end(one);
            }
        });
        let Some(record) = record else {
            return Ok((!ended.is_null()).then(|| json!({ "session": null, "ended": ended })));
        };
        let online = |role, id: &str| self.service.is_online(role, id);
        let (device, app) =
            (online(Role::Device, &record.device_id), online(Role::App, &record.app_id));
        let mut shown = self.shown(std::slice::from_ref(&record), now_ms).await;
        Ok(Some(json!({
            "now": now_ms,
            "session": shown.pop(),
            "ended": ended,
            "deviceOnline": device,
            "appOnline": app,
        })))
    }

    /// Ends a session on the word of the operator at `by`. `false` where there is none that is open.
    pub(crate) async fn close(
        &self,
        id: SessionId,
        by: &str,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        let Some(record) = self.service.get(id, now_ms).await? else { return Ok(false) };
        let ending = Ending::new(Reason::Api, "closed by an operator");
        let closed = self.service.close(&record, ending, now_ms).await?;
        if closed {
            log::info!("sessionId={id} was closed by an operator at {by}");
        }
        Ok(closed)
    }

    /// Their records, their age, and what they relay here.
    async fn shown(&self, records: &[SessionRecord], now_ms: u64) -> Vec<Value> {
        let ids: Vec<&str> = records.iter().map(|record| record.session_id.as_str()).collect();
        let mut looks = match &self.relayed {
            Some(relayed) => relayed.of(&ids, now_ms).await,
            None => Default::default(),
        };
        let show = |record: &SessionRecord| {
            let mut shown = serde_json::to_value(record).unwrap_or_default();
            shown["ageMs"] = now_ms.saturating_sub(record.created_at).into();
            shown["relay"] = match looks.remove(&record.session_id) {
                None => Value::Null,
                Some(Look { traffic, bit_rate, .. }) => json!({
                    "allocations": traffic.allocations,
                    "bytesToPeers": traffic.bytes_to_peers,
                    "bytesToClients": traffic.bytes_to_clients,
                    "bitRate": bit_rate,
                    "capBps": self.cap_bps(record),
                }),
            };
            shown
        };
        records.iter().map(show).collect()
    }

    /// In each direction; `None` is no cap.
    fn cap_bps(&self, record: &SessionRecord) -> Option<u64> {
        let bps = match (record.bandwidth_bps, self.max_bandwidth_bps) {
            (None, _) => self.bandwidth_bps,
            (Some(bps), 0) => bps,
            (Some(bps), max) => bps.min(max),
        };
        (bps > 0).then_some(bps)
    }
}

fn end(ended: &Ended) -> Value {
    json!({
        "sessionId": ended.session_id,
        "deviceId": ended.device_id,
        "appId": ended.app_id,
        "region": ended.region,
        "path": ended.path,
        "setupMs": ended.setup_ms,
        "connected": ended.connected,
        "reason": ended.ending.reason.label(),
        "words": ended.ending.words,
        "endedAt": ended.ended_at,
        "ageMs": ended.age_ms(),
    })
}
