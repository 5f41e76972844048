//! What carries the signals, our own broker or one that is not ours; and with the relay, what the
//! session service sees of its neighbours.

use crate::clock;
use crate::counters::broker_metrics;
use crate::http::WebSocketDoor;
use crate::mqtt::{Broker, Identity, LocalClient, LocalMessage, Role};
use crate::mqtt_external::{ExternalBroker, Reports};
use crate::placement::Placement;
use crate::session::service::{Addresses, Admission, Links, Relay, SERVER_ID};
use crate::session::{Credentials, Service};
use crate::stun_turn::TurnHandle;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sdk_core::wire::signal::SERVER_TOPIC;
use std::rc::Rc;
use std::time::Duration;

/// Reports that may wait for the session service; what comes on top is dropped, and counted by the
/// broker. Each side repeats its state every 20 s.
const REPORTS_WAITING: usize = 10_000;
/// Of these, how many are under way to a shared store at a time. Which of a session's reports comes
/// first does not matter much: a state goes one way.
const REPORTS_AT_ONCE: usize = 64;

#[derive(Clone)]
pub(crate) enum Carrier {
    Own { broker: Broker, client: LocalClient },
    External(ExternalBroker),
}

impl Carrier {
    pub(crate) fn own(broker: Broker) -> Carrier {
        let client = broker.local(SERVER_ID);
        Carrier::Own { broker, client }
    }

    /// `None` if it is not ours.
    pub(crate) fn broker(&self) -> Option<&Broker> {
        match self {
            Carrier::Own { broker, .. } => Some(broker),
            Carrier::External(_) => None,
        }
    }

    pub(crate) fn metrics(&self) -> String {
        match self {
            Carrier::Own { broker, .. } => broker_metrics(&broker.stats()),
            Carrier::External(broker) => broker.metrics(),
        }
    }

    /// Where browsers reach our own broker; `None` if it is elsewhere.
    pub(crate) fn websocket_door(&self) -> Option<WebSocketDoor> {
        let broker = self.broker()?.clone();
        Some(Rc::new(move |io, peer| {
            let broker = broker.clone();
            tokio::task::spawn_local(async move { broker.serve_websocket(io, peer).await });
        }))
    }

    /// Why signals do not come through at present; `None` if they do.
    pub(crate) fn trouble(&self) -> Option<String> {
        match self {
            Carrier::Own { .. } => None,
            Carrier::External(broker) => broker.trouble(),
        }
    }

    pub(crate) async fn shutdown(&self, grace: Duration) {
        match self {
            Carrier::Own { broker, .. } => broker.shutdown(grace).await,
            Carrier::External(broker) => broker.shutdown(grace).await,
        }
    }
}

/// What the session service is told of on `p2p/signal/server`. Our own broker says who published it;
/// another one does not.
pub(crate) async fn hear_reports(
    carrier: Carrier,
    from_elsewhere: Option<Reports>,
    service: Rc<Service>,
) {
    match (carrier, from_elsewhere) {
        (_, Some(mut reports)) => {
            let next = async move || reports.recv().await;
            let take = async move |service: Rc<Service>, report: Bytes| {
                service.on_unproven_signal(&report, clock::now_ms()).await;
            };
            several_at_once(next, take, service).await;
        }
        (Carrier::Own { client, .. }, None) => {
            let Ok(mut reports) = client.subscribe(SERVER_TOPIC, REPORTS_WAITING) else {
                return log::error!(
                    "the broker refused {SERVER_TOPIC}: no session state will be known"
                );
            };
            let next = async move || reports.recv().await;
            let take = async move |service: Rc<Service>, report: LocalMessage| {
                let (publisher, payload) = (report.publisher(), report.payload());
                service.on_signal(publisher, payload, clock::now_ms()).await;
            };
            several_at_once(next, take, service).await;
        }
        (Carrier::External(_), None) => {}
    }
}

/// Until there are no more.
async fn several_at_once<R>(
    mut next: impl AsyncFnMut() -> Option<R>,
    take: impl AsyncFn(Rc<Service>, R),
    service: Rc<Service>,
) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = under_way.next() => {}
            report = next(), if under_way.len() < REPORTS_AT_ONCE => {
                let Some(report) = report else { return };
                under_way.push(take(service.clone(), report));
            }
        }
    }
}

/// The broker and the relay, as the session service sees them.
pub(crate) struct Neighbours {
    pub(crate) carrier: Carrier,
    pub(crate) placement: Rc<Placement>,
    pub(crate) turn: Option<Rc<TurnHandle>>,
}

impl Links for Neighbours {
    fn publish(&self, topic: &str, payload: Vec<u8>) -> Result<(), String> {
        match &self.carrier {
            Carrier::Own { client, .. } => {
                client.publish(topic, &payload, false).map(drop).map_err(|e| e.to_string())
            }
            Carrier::External(broker) => {
                broker.publish(topic, payload);
                Ok(())
            }
        }
    }

    fn is_online(&self, role: Role, id: &str) -> Option<bool> {
        match &self.carrier {
            Carrier::Own { broker, .. } => {
                Some(broker.is_online(&Identity { role, id: id.into() }))
            }
            Carrier::External(broker) => broker.is_online(role, id),
        }
    }

    fn relay_for(&self, session_id: &str, region: &str, own: &Addresses) -> Option<Relay> {
        self.placement.relay_for(session_id, region, own)
    }

    /// An external node is not told: it has no door for that (docs/regions.md, "The end of a session").
    fn free_relay(&self, session_id: &str) {
        if let Some(turn) = &self.turn {
            turn.close_user(session_id);
        }
    }

    fn shares_broker(&self) -> bool {
        matches!(self.carrier, Carrier::External(_))
    }

    fn admit<'a>(&'a self, session_id: &'a str, app: &'a Credentials) -> Admission<'a> {
        Box::pin(async move {
            if let Carrier::External(broker) = &self.carrier {
                broker.admit(session_id, app).await;
            }
        })
    }

    fn dismiss(&self, session_id: &str, app_id: &str) {
        if let Carrier::External(broker) = &self.carrier {
            broker.dismiss(session_id, app_id);
        }
    }
}
