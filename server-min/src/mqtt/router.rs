//! Sessions, subscriptions and retained messages: what happens to a message between the connection
//! it came from and those it goes to. It owns no socket and no clock, and calls nobody: it queues,
//! and wakes the connections concerned.

use super::access::{Identity, Role};
use super::answer::SubscribeResult;
use super::codec::{Fault, RetainedAtSubscribe, SubscribeOptions};
use super::config::BrokerConfig;
use super::local::LocalSubscriber;
use super::message::Message;
use super::session::{Link, Presence, Session, Terms};
use super::stats::Counters;
use super::subscriptions::{SessionIndex, Subscriber, Subscriptions};
use super::topic;
use slab::Slab;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

pub(crate) struct Router {
    config: Rc<BrokerConfig>,
    counters: Rc<Counters>,
    sessions: Slab<Box<Session>>,
    by_client: HashMap<(Rc<Identity>, Rc<str>), SessionIndex>,
    by_identity: HashMap<Rc<Identity>, Vec<SessionIndex>>,
    subscriptions: Subscriptions,
    retained: HashMap<Rc<str>, Rc<Message>>,
    retained_bytes: usize,
    locals: Vec<LocalSubscriber>,
    /// Offline sessions by the time something is due: their end, or their will.
    due: BTreeSet<(Instant, SessionIndex)>,
    last_serial: u64,
    found: Vec<Subscriber>,
}

/// What [`Router::open`] gave a connection.
pub(crate) struct Opened {
    pub(crate) index: SessionIndex,
    pub(crate) serial: u64,
    pub(crate) identity: Rc<Identity>,
    pub(crate) session_present: bool,
}

impl Router {
    pub(crate) fn new(config: Rc<BrokerConfig>, counters: Rc<Counters>) -> Self {
        Self {
            config,
            counters,
            sessions: Slab::new(),
            by_client: HashMap::new(),
            by_identity: HashMap::new(),
            subscriptions: Subscriptions::default(),
            retained: HashMap::new(),
            retained_bytes: 0,
            locals: Vec::new(),
            due: BTreeSet::new(),
            last_serial: 0,
            found: Vec::new(),
        }
    }

    /// Begins or resumes a client's session for a new connection, which an older one gives way to.
    /// `None` if the identity has as many connections as it may.
    pub(crate) fn open(
        &mut self,
        identity: Identity,
        client_id: &str,
        clean: bool,
        link: Rc<Link>,
        terms: Terms,
        now: Instant,
    ) -> Option<Opened> {
        let identity = match self.by_identity.get_key_value(&identity) {
            Some((known, _)) => known.clone(),
            None => Rc::new(identity),
        };
        let key = (identity.clone(), Rc::from(client_id));
        let existing = self.by_client.get(&key).copied();
        if let Some(index) = existing {
            self.take_over(index, clean, now);
        } else if !self.make_room(&identity) {
            return None;
        }
        let resumed = existing.filter(|_| !clean);
        if let (Some(index), true) = (existing, clean) {
            self.remove(index);
        }
        let index = resumed.unwrap_or_else(|| self.insert(key, link.clone()));
        let session = self.sessions.get_mut(index as usize)?;
        session.begin(link, terms);
        let serial = session.serial;
        Some(Opened { index, serial, identity, session_present: resumed.is_some() })
    }

    /// Ends `link`'s hold on its session. `graceful` leaves the will unsaid.
    pub(crate) fn close(
        &mut self,
        index: SessionIndex,
        link: &Rc<Link>,
        graceful: bool,
        now: Instant,
    ) {
        let Some(session) = self.session_mut(index) else { return };
        // After a take-over the session belongs to another connection.
        if !session.link().is_some_and(|held| Rc::ptr_eq(held, link)) {
            return;
        }
        if graceful {
            session.will = None;
        }
        let expires_at = now + session.expiry;
        // §3.1.3.2.2: the will waits for its delay or the session's end, whichever comes first.
        let will_at = session.will.as_ref().map(|will| (now + will.delay).min(expires_at));
        session.presence = Presence::Offline { expires_at, will_at };
        let due_at = will_at.unwrap_or(expires_at);
        if due_at <= now {
            self.on_due(index, now);
        } else {
            self.due.insert((due_at, index));
        }
    }

    /// Says the wills and ends the sessions whose time has come; when to look again.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Instant> {
        while let Some(&(at, index)) = self.due.first() {
            if at > now {
                return Some(at);
            }
            self.due.remove(&(at, index));
            self.on_due(index, now);
        }
        None
    }

    /// Sends a message to everyone who listens and keeps it if it is retained; says whether anyone did.
    pub(crate) fn publish(&mut self, message: Message, now: Instant) -> bool {
        let message = Rc::new(message);
        self.counters.update(|c| {
            c.messages_in_total += 1;
            c.payload_bytes_in_total += message.payload.len() as u64;
        });
        if message.retain {
            self.keep(&message, now);
        }
        let mut found = std::mem::take(&mut self.found);
        self.subscriptions.find(&message.topic, &mut found);
        let mut heard = false;
        for subscriber in &found {
            let Some(session) = self.sessions.get_mut(subscriber.session as usize) else {
                continue;
            };
            heard = true;
            if subscriber.no_local && session.serial == message.origin {
                continue;
            }
            let retain = message.retain && subscriber.retain_as_published;
            session.deliver(&message, message.qos.min(subscriber.qos), retain);
        }
        self.found = found;
        self.locals.retain(|local| !local.is_closed());
        for local in
            self.locals.iter().filter(|local| topic::matches(&local.filter, &message.topic))
        {
            heard = true;
            local.deliver(&message, &self.counters);
        }
        heard
    }

    /// Adds a filter that is well formed and allowed.
    pub(crate) fn subscribe(
        &mut self,
        index: SessionIndex,
        filter: &str,
        options: SubscribeOptions,
        now: Instant,
    ) -> SubscribeResult {
        let limit = self.config.max_subscriptions_per_session;
        let Some(session) = self.session_mut(index) else { return SubscribeResult::NotAuthorized };
        let known = session.subscriptions.iter().find(|known| &***known == filter).cloned();
        let filter: Rc<str> = match &known {
            Some(known) => known.clone(),
            None if session.subscriptions.len() >= limit => return SubscribeResult::QuotaExceeded,
            None => {
                let filter: Rc<str> = filter.into();
                if session.subscriptions.is_empty() {
                    session.subscriptions.reserve_exact(1);
                }
                session.subscriptions.push(filter.clone());
                filter
            }
        };
        let subscriber = Subscriber {
            session: index,
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
        };
        self.subscriptions.insert(&filter, subscriber);
        let wanted = match options.retained {
            RetainedAtSubscribe::Send => true,
            RetainedAtSubscribe::SendIfNew => known.is_none(),
            RetainedAtSubscribe::Skip => false,
        };
        if wanted {
            self.send_retained(index, &filter, options.qos, now);
        }
        SubscribeResult::Granted { qos: options.qos }
    }

    /// Says whether there was such a subscription.
    pub(crate) fn unsubscribe(&mut self, index: SessionIndex, filter: &str) -> bool {
        let Some(session) = self.session_mut(index) else { return false };
        let position = session.subscriptions.iter().position(|known| &**known == filter);
        let Some(position) = position else { return false };
        session.subscriptions.swap_remove(position);
        self.subscriptions.remove(filter, index);
        true
    }

    /// The session, while `link` is the one that holds it.
    pub(crate) fn held_by(&mut self, index: SessionIndex, link: &Rc<Link>) -> Option<&mut Session> {
        self.session_mut(index)
            .filter(|session| session.link().is_some_and(|held| Rc::ptr_eq(held, link)))
    }

    pub(crate) fn add_local(&mut self, local: LocalSubscriber, now: Instant) {
        for message in self.retained.values() {
            if topic::matches(&local.filter, &message.topic) && !message.is_expired(now) {
                local.deliver(message, &self.counters);
            }
        }
        self.locals.push(local);
    }

    /// Ends the connections of the sessions that `matches` picks; how many.
    pub(crate) fn disconnect(
        &self,
        reason: Fault,
        matches: impl Fn(&Identity, &str) -> bool,
    ) -> usize {
        let mut count = 0;
        for (_, session) in &self.sessions {
            if let Some(link) = session.link()
                && matches(&session.identity, &session.client_id)
            {
                link.close(reason);
                count += 1;
            }
        }
        count
    }

    pub(crate) fn is_online(&self, identity: &Identity) -> bool {
        let mut sessions = self.by_identity.get(identity).into_iter().flatten();
        sessions.any(|index| {
            self.sessions.get(*index as usize).is_some_and(|session| session.link().is_some())
        })
    }

    /// Sessions, subscriptions and retained messages.
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        (self.sessions.len(), self.subscriptions.len(), self.retained.len())
    }

    fn session_mut(&mut self, index: SessionIndex) -> Option<&mut Session> {
        self.sessions.get_mut(index as usize).map(Box::as_mut)
    }

    fn take_over(&mut self, index: SessionIndex, clean: bool, now: Instant) {
        let Some(session) = self.session_mut(index) else { return };
        let due = match &session.presence {
            Presence::Online(link) => {
                link.close(Fault::SessionTakenOver);
                None
            }
            Presence::Offline { expires_at, will_at } => {
                Some((will_at.unwrap_or(*expires_at), index))
            }
        };
        // §3.1.3.2.2: a session that goes on within the will's delay has not ended.
        let goes_on = !clean && session.will.as_ref().is_some_and(|will| !will.delay.is_zero());
        if goes_on {
            session.will = None;
        }
        if let Some(due) = due {
            self.due.remove(&due);
        }
        self.say_will(index, now);
    }

    /// Room for one more session of `identity`, at the cost of its oldest offline one.
    fn make_room(&mut self, identity: &Rc<Identity>) -> bool {
        if matches!(identity.role, Role::Service | Role::Admin) {
            return true;
        }
        let Some(indices) = self.by_identity.get(identity) else { return true };
        if indices.len() < self.config.max_sessions_per_identity.max(1) {
            return true;
        }
        let oldest = indices
            .iter()
            .filter_map(|index| match self.sessions.get(*index as usize)?.presence {
                Presence::Offline { expires_at, .. } => Some((expires_at, *index)),
                Presence::Online(_) => None,
            })
            .min();
        match oldest {
            Some((_, index)) => {
                self.remove(index);
                true
            }
            None => false,
        }
    }

    fn insert(&mut self, key: (Rc<Identity>, Rc<str>), link: Rc<Link>) -> SessionIndex {
        self.last_serial += 1;
        let (identity, client_id) = key.clone();
        let session = Session::new(
            self.last_serial,
            identity.clone(),
            client_id,
            link,
            self.config.clone(),
            self.counters.clone(),
        );
        let index = SessionIndex::try_from(self.sessions.insert(Box::new(session)))
            .expect("max_connections and memory end long before 2^32 sessions");
        self.by_client.insert(key, index);
        self.by_identity.entry(identity).or_default().push(index);
        index
    }

    fn remove(&mut self, index: SessionIndex) {
        let Some(session) = self.sessions.try_remove(index as usize) else { return };
        if let Presence::Offline { expires_at, will_at } = session.presence {
            self.due.remove(&(will_at.unwrap_or(expires_at), index));
        }
        for filter in &session.subscriptions {
            self.subscriptions.remove(filter, index);
        }
        if let Some(indices) = self.by_identity.get_mut(&session.identity) {
            indices.retain(|other| *other != index);
            if indices.is_empty() {
                self.by_identity.remove(&session.identity);
            }
        }
        self.by_client.remove(&(session.identity, session.client_id));
    }

    fn on_due(&mut self, index: SessionIndex, now: Instant) {
        self.say_will(index, now);
        let Some(session) = self.session_mut(index) else { return };
        let Presence::Offline { expires_at, will_at } = &mut session.presence else { return };
        *will_at = None;
        let expires_at = *expires_at;
        if expires_at <= now {
            self.remove(index);
        } else {
            self.due.insert((expires_at, index));
        }
    }

    fn say_will(&mut self, index: SessionIndex, now: Instant) {
        let Some(session) = self.session_mut(index) else { return };
        let Some(will) = session.will.take() else { return };
        let message = Message::new(will.publish, session.identity.clone(), session.serial, now);
        self.publish(message, now);
    }

    /// §3.3.1.3: an empty payload removes what was kept.
    fn keep(&mut self, message: &Rc<Message>, now: Instant) {
        if let Some(old) = self.retained.remove(&message.topic) {
            self.retained_bytes -= old.queue_cost();
        }
        if message.payload.is_empty() {
            return;
        }
        if self.is_full_of_retained(message) {
            self.retained.retain(|_, old| !old.is_expired(now));
            self.retained_bytes = self.retained.values().map(|old| old.queue_cost()).sum();
        }
        if self.is_full_of_retained(message) {
            log::warn!("mqtt: no room to keep the retained message on {}", message.topic);
            self.counters.update(|c| c.messages_dropped_total += 1);
        } else {
            self.retained_bytes += message.queue_cost();
            self.retained.insert(message.topic.clone(), message.clone());
        }
    }

    fn is_full_of_retained(&self, message: &Message) -> bool {
        self.retained.len() >= self.config.max_retained_messages
            || self.retained_bytes + message.queue_cost() > self.config.max_retained_bytes
    }

    fn send_retained(&mut self, index: SessionIndex, filter: &str, qos: u8, now: Instant) {
        let Some(session) = self.sessions.get_mut(index as usize) else { return };
        let mut send = |message: &Rc<Message>| {
            if !message.is_expired(now) {
                session.deliver_retained(message, message.qos.min(qos));
            }
        };
        if topic::has_wildcard(filter) {
            self.retained.values().filter(|m| topic::matches(filter, &m.topic)).for_each(&mut send);
        } else if let Some(message) = self.retained.get(filter) {
            send(message);
        }
    }
}

/// How long the housekeeper may sleep, so that what became due meanwhile is not late by more.
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_secs(1);
