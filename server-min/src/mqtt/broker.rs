//! The broker's handle: what the rest of the server calls, and what its connections share.

use super::access::{Authenticator, Identity};
use super::codec::{Fault, Publish};
use super::config::BrokerConfig;
use super::local::{LocalClient, LocalSubscriber};
use super::message::Message;
use super::router::{LONGEST_SLEEP, Router};
use super::session::Link;
use super::stats::{BrokerStats, Counters};
use crate::per_address::{PerAddress, Place};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A cheap handle. The broker lives on one thread: it is not `Send`, and its futures must run in a
/// [`tokio::task::LocalSet`], since connections and the housekeeper are spawned with `spawn_local`.
#[derive(Clone)]
pub struct Broker(pub(crate) Rc<Shared>);

pub(crate) struct Shared {
    pub(crate) config: Rc<BrokerConfig>,
    pub(crate) counters: Rc<Counters>,
    pub(crate) authenticator: Rc<dyn Authenticator>,
    /// Never borrowed while the authenticator is called, which may call the broker.
    pub(crate) router: RefCell<Router>,
    /// One pair of buffers for all connections: each uses it within a poll and leaves it empty.
    pub(crate) scratch: Cell<Scratch>,
    links: RefCell<Slab<Rc<Link>>>,
    pub(crate) connecting: Cell<usize>,
    addresses: Rc<PerAddress>,
    pub(super) is_shutting_down: Cell<bool>,
    pub(super) shutdown: Notify,
    last_connection: Notify,
    is_housekeeping: Cell<bool>,
}

#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) read: Vec<u8>,
    pub(crate) write: Vec<u8>,
}

impl Broker {
    pub fn new(mut config: BrokerConfig, authenticator: Rc<dyn Authenticator>) -> Self {
        config.max_packet_size = config.max_packet_size.min(LARGEST_PACKET);
        let config = Rc::new(config);
        let counters = Rc::new(Counters::new());
        let addresses = PerAddress::new(config.max_connections_per_address);
        Self(Rc::new(Shared {
            router: RefCell::new(Router::new(config.clone(), counters.clone())),
            config,
            counters,
            authenticator,
            scratch: Cell::new(Scratch::default()),
            links: RefCell::new(Slab::new()),
            connecting: Cell::new(0),
            addresses,
            is_shutting_down: Cell::new(false),
            shutdown: Notify::new(),
            last_connection: Notify::new(),
            is_housekeeping: Cell::new(false),
        }))
    }

    /// A client within the process, in the name of a service.
    pub fn local(&self, id: &str) -> LocalClient {
        LocalClient::new(self.clone(), id)
    }

    pub fn stats(&self) -> BrokerStats {
        let (sessions, subscriptions, retained) = self.0.router.borrow().sizes();
        BrokerStats {
            connections: self.0.links.borrow().len() as u64,
            sessions: sessions as u64,
            subscriptions: subscriptions as u64,
            retained_messages: retained as u64,
            ..self.0.counters.get()
        }
    }

    /// Whether any client of this identity is connected.
    pub fn is_online(&self, identity: &Identity) -> bool {
        self.0.router.borrow().is_online(identity)
    }

    /// Ends all connections of an identity (MQTT 5: "administrative action"); how many.
    pub fn disconnect(&self, identity: &Identity) -> usize {
        self.0.router.borrow().disconnect(Fault::AdministrativeAction, |who, _| who == identity)
    }

    /// Ends the connections with this client id, under whichever identity; how many.
    pub fn disconnect_client(&self, client_id: &str) -> usize {
        self.0.router.borrow().disconnect(Fault::AdministrativeAction, |_, id| id == client_id)
    }

    /// Accepts no more, tells MQTT 5 clients that the server is shutting down, and waits at most
    /// `grace` for the connections to end. Wills stay unsaid: nobody would be left to hear them.
    pub async fn shutdown(&self, grace: Duration) {
        self.0.is_shutting_down.set(true);
        self.0.shutdown.notify_waiters();
        for (_, link) in self.0.links.borrow().iter() {
            link.close(Fault::ServerShuttingDown);
        }
        let all_gone = async {
            loop {
                let gone = self.0.last_connection.notified();
                if self.0.links.borrow().is_empty() {
                    return;
                }
                gone.await;
            }
        };
        if tokio::time::timeout(grace, all_gone).await.is_err() {
            log::warn!(
                "mqtt: {} connections had not ended after {grace:?}",
                self.0.links.borrow().len()
            );
        }
    }

    pub(crate) fn publish(&self, publish: Publish, publisher: Rc<Identity>) -> bool {
        let now = Instant::now();
        self.0.router.borrow_mut().publish(Message::new(publish, publisher, 0, now), now)
    }

    pub(crate) fn add_local(&self, local: LocalSubscriber) {
        self.0.router.borrow_mut().add_local(local, Instant::now());
    }

    /// Starts the housekeeper unless it runs: it ends offline sessions and says delayed wills, and
    /// stops when there are none.
    pub(crate) fn keep_house(&self) {
        if self.0.is_housekeeping.replace(true) {
            return;
        }
        let weak: Weak<Shared> = Rc::downgrade(&self.0);
        tokio::task::spawn_local(async move {
            while let Some(shared) = weak.upgrade() {
                let now = Instant::now();
                let Some(next) = shared.router.borrow_mut().handle_timeout(now) else {
                    shared.is_housekeeping.set(false);
                    return;
                };
                drop(shared);
                tokio::time::sleep_until(next.min(now + LONGEST_SLEEP)).await;
            }
        });
    }

    /// A place among the connections for a client from `ip`, while there is one.
    pub(super) fn register(&self, ip: IpAddr) -> Option<Registration> {
        let shared = &self.0;
        let connecting = shared.connecting.get();
        if shared.is_shutting_down.get()
            || shared.links.borrow().len() >= shared.config.max_connections
            || connecting >= shared.config.max_connecting
        {
            return None;
        }
        let place = shared.addresses.take(ip)?;
        shared.connecting.set(connecting + 1);
        shared.counters.update(|c| c.connections_total += 1);
        let link = Rc::new(Link::default());
        let key = shared.links.borrow_mut().insert(link.clone());
        Some(Registration { broker: self.clone(), link, key, is_connecting: true, _place: place })
    }
}

/// A connection's place among all; given back when dropped.
pub(crate) struct Registration {
    pub(crate) broker: Broker,
    pub(crate) link: Rc<Link>,
    key: usize,
    is_connecting: bool,
    _place: Place,
}

impl Registration {
    /// The client is known now.
    pub(crate) fn on_connected(&mut self) {
        if std::mem::replace(&mut self.is_connecting, false) {
            let connecting = &self.broker.0.connecting;
            connecting.set(connecting.get().saturating_sub(1));
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.on_connected();
        let mut links = self.broker.0.links.borrow_mut();
        links.try_remove(self.key);
        if links.is_empty() {
            self.broker.0.last_connection.notify_waiters();
        }
    }
}

/// What can be asked for with `max_packet_size`, far below what MQTT's length field can say.
const LARGEST_PACKET: u32 = 16 * 1024 * 1024;
