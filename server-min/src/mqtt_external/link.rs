//! The connection to the broker, and its successors.
//!
//! ```text
//! pause ─→ Connecting ─ CONNACK ─→ Subscribing ─ SUBACK ─→ Up
//!   └───────────── anything fails, with a reason ──────────┘
//! ```

use super::backoff::Backoff;
use super::presence::STATUS_FILTER;
use super::{Shared, add_one, dynsec};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, ConnectReturnCode, DisconnectReasonCode, Filter, PubAck, PubAckReason,
    SubAck, SubscribeReasonCode,
};
use rumqttc::v5::{
    AsyncClient, ConnectionError, Event, EventLoop, Incoming, MqttOptions, StateError,
};
use rumqttc::{NetworkOptions, Outgoing};
use sdk_core::wire::signal::{MAX_SIGNAL_LEN, SERVER_TOPIC};
use std::io;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// An idle connection is probed after this long, and given up after as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// For the TCP connection, TLS and CONNACK together, and again for SUBACK.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that lived so long was a good one: the next pause is a short one.
const STABLE: Duration = Duration::from_secs(30);
/// How long the broker keeps what comes for us while we are away. Not where several nodes share the
/// reports: there another one takes them.
const SESSION_EXPIRY_S: u32 = 300;
/// A signal, its topic and MQTT's own bytes.
const MAX_PACKET_LEN: u32 = MAX_SIGNAL_LEN as u32 + 4096;
/// Requests that may wait in `rumqttc`: more than the outbox has on its way.
const REQUESTS: usize = 64;
/// The name of the group that the nodes of one service take their reports as.
const SHARE: &str = "$share/server-min/";

/// Until the broker was left in order.
pub(super) async fn run(shared: &Shared) {
    let mut backoff = Backoff::new(shared.seed);
    loop {
        let mut connection = Connection::open(shared);
        let reason = match connection.serve().await {
            Ok(Left) => return,
            Err(reason) => reason,
        };
        if connection.up_since.is_some_and(|since| since.elapsed() >= STABLE) {
            backoff.reset();
        }
        drop(connection);
        shared.outbox.borrow_mut().on_connection_lost();
        if shared.is_closing.get() {
            return;
        }
        let pause = backoff.next_pause();
        let text = format!("{reason}; next attempt in {} ms", pause.as_millis());
        let is_news = shared.trouble.borrow().as_ref() != Some(&reason);
        log::log!(if is_news { log::Level::Warn } else { log::Level::Debug }, "{text}");
        *shared.trouble.borrow_mut() = Some(reason);
        let pause = sleep(pause);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                () = shared.wake.notified() => if shared.is_closing.get() { return },
            }
        }
    }
}

/// The connection was ended by us, in order.
struct Left;

struct Connection<'a> {
    shared: &'a Shared,
    client: AsyncClient,
    events: EventLoop,
    /// SUBACK must be there by then.
    subscribed_by: Option<Instant>,
    up_since: Option<Instant>,
    was_refused: bool,
    is_leaving: bool,
}

impl<'a> Connection<'a> {
    fn open(shared: &'a Shared) -> Connection<'a> {
        let endpoint = &shared.endpoint;
        let mut options = MqttOptions::new(&shared.client_id, &endpoint.host, endpoint.port);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        let mut properties = ConnectProperties::new();
        properties.session_expiry_interval =
            Some(if shared.is_sharing { 0 } else { SESSION_EXPIRY_S });
        properties.max_packet_size = Some(MAX_PACKET_LEN);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
            .set_network_options(network)
            .set_transport(endpoint.transport())
            .set_clean_start(false)
            .set_connect_properties(properties)
            .set_outgoing_inflight_upper_limit(REQUESTS as u16);
        if let Some((username, password)) = &shared.credentials {
            options.set_credentials(username, password.expose());
        }
        // One for each connection: `rumqttc`'s own idea of what is to be sent again is not used.
        let (client, events) = AsyncClient::new(options, REQUESTS);
        Connection {
            shared,
            client,
            events,
            subscribed_by: None,
            up_since: None,
            was_refused: false,
            is_leaving: false,
        }
    }

    /// Until the connection is lost, with the reason, or was left.
    async fn serve(&mut self) -> Result<Left, String> {
        loop {
            let event = self.next_event().await?;
            match event {
                Event::Incoming(Incoming::ConnAck(_)) => self.subscribe(),
                Event::Incoming(Incoming::SubAck(ack)) => self.on_subscribed(&ack)?,
                Event::Incoming(Incoming::Publish(publish)) => {
                    let topic = String::from_utf8_lossy(&publish.topic);
                    self.shared.on_message(&topic, publish.payload);
                }
                Event::Incoming(Incoming::PubAck(ack)) => self.on_acknowledged(&ack),
                Event::Outgoing(Outgoing::Publish(packet_id)) => {
                    self.shared.outbox.borrow_mut().on_sent(packet_id);
                }
                Event::Outgoing(Outgoing::Disconnect) => return Ok(Left),
                _ => {}
            }
            self.hand_over();
        }
    }

    /// What happens next on the connection. Meanwhile what is queued is handed over: `poll` must
    /// not be dropped half-way, or packets are lost.
    async fn next_event(&mut self) -> Result<Event, String> {
        let Connection { shared, client, events, subscribed_by, up_since, is_leaving, .. } = self;
        let mut poll = pin!(events.poll());
        loop {
            let until = subscribed_by.unwrap_or_else(Instant::now);
            let removals = shared.dynsec.as_ref().and_then(|it| it.borrow().poll_timeout());
            let removals = removals.filter(|_| up_since.is_some());
            tokio::select! {
                polled = &mut poll => {
                    return polled.map_err(|error| describe(&error, shared));
                }
                () = shared.wake.notified() => {
                    if up_since.is_some() {
                        hand_over(shared, client, is_leaving);
                    } else if shared.is_closing.get() {
                        return Err("not connected".into());
                    }
                }
                () = sleep_until(removals.unwrap_or(until)), if removals.is_some() => {
                    remove_departed(shared);
                    hand_over(shared, client, is_leaving);
                }
                () = sleep_until(until), if subscribed_by.is_some() => {
                    return Err(format!("{} does not answer the subscription", shared.endpoint));
                }
            }
        }
    }

    fn hand_over(&mut self) {
        if self.up_since.is_some() {
            hand_over(self.shared, &self.client, &mut self.is_leaving);
        }
    }

    fn subscribe(&mut self) {
        self.shared.presence.borrow_mut().clear();
        let reports = match self.shared.is_sharing {
            true => format!("{SHARE}{SERVER_TOPIC}"),
            false => SERVER_TOPIC.to_owned(),
        };
        let answers = self.shared.dynsec.as_ref().map(|_| dynsec::ANSWERS);
        let filters = [reports.as_str(), STATUS_FILTER].into_iter().chain(answers);
        let filters: Vec<_> = filters.map(|f| Filter::new(f, QoS::AtLeastOnce)).collect();
        // A new connection's channel is empty.
        let _ = self.client.try_subscribe_many(filters);
        self.subscribed_by = Some(Instant::now() + CONNECT_TIMEOUT);
    }

    fn on_subscribed(&mut self, ack: &SubAck) -> Result<(), String> {
        let shared = self.shared;
        let refused = |at: usize| match ack.return_codes.get(at) {
            Some(SubscribeReasonCode::Success(_)) => None,
            code => Some(format!("{code:?}")),
        };
        if let Some(code) = refused(0) {
            let what = if shared.is_sharing { SHARE } else { "" };
            return Err(format!(
                "{} does not let {} subscribe to {what}{SERVER_TOPIC} ({code}): give it the rights of \
                 the session service (docs/external-broker.md)",
                shared.endpoint,
                shared.credentials.as_ref().map_or("an anonymous client", |(name, _)| name),
            ));
        }
        if let Some(code) = refused(1) {
            log::warn!(
                "{} does not let us subscribe to {STATUS_FILTER} ({code}): whether a device is online \
                 will not be known",
                shared.endpoint
            );
        }
        if shared.dynsec.is_some()
            && let Some(code) = refused(2)
        {
            return Err(format!(
                "{} does not let us subscribe to {} ({code}): sign in as the administrator of its \
                 dynamic security plugin",
                shared.endpoint,
                dynsec::ANSWERS
            ));
        }
        self.subscribed_by = None;
        self.up_since = Some(Instant::now());
        add_one(&shared.counters.connects);
        *shared.trouble.borrow_mut() = None;
        let now = Instant::now();
        let mut outbox = shared.outbox.borrow_mut();
        outbox.expire(now);
        if let Some(dynsec) = &shared.dynsec {
            let mut dynsec = dynsec.borrow_mut();
            outbox.push(now, dynsec::COMMANDS, dynsec.ask_for_list());
            outbox.push_first(now, dynsec::COMMANDS, dynsec.set_up());
        }
        log::info!("connected to {} as {}", shared.endpoint, shared.client_id);
        Ok(())
    }

    fn on_acknowledged(&mut self, ack: &PubAck) {
        let shared = self.shared;
        let Some(topic) = shared.outbox.borrow_mut().on_acknowledged(ack.pkid) else { return };
        match ack.reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => {
                add_one(&shared.counters.acknowledged);
            }
            reason => {
                add_one(&shared.counters.refused);
                // Once for each connection: the rules are the same for all that follow.
                if !std::mem::replace(&mut self.was_refused, true) {
                    log::error!(
                        "{} refuses what the session service publishes to {topic} ({reason:?}): give \
                         it the rights of the session service (docs/external-broker.md)",
                        shared.endpoint
                    );
                }
            }
        }
    }
}

/// Applications whose last session ended a while ago.
fn remove_departed(shared: &Shared) {
    let now = Instant::now();
    if let Some(dynsec) = &shared.dynsec
        && let Some(told) = dynsec.borrow_mut().poll_removals(now)
    {
        shared.outbox.borrow_mut().push(now, dynsec::COMMANDS, told);
    }
}

/// Hands over what the window has room for; and the farewell, once everything is acknowledged.
fn hand_over(shared: &Shared, client: &AsyncClient, is_leaving: &mut bool) {
    let mut outbox = shared.outbox.borrow_mut();
    outbox.hand_over(|topic, payload| {
        client.try_publish(topic, QoS::AtLeastOnce, false, payload.to_vec()).is_ok()
    });
    if shared.is_closing.get() && outbox.len() == 0 && !*is_leaving {
        *is_leaving = client.try_disconnect().is_ok();
    }
}

/// What went wrong and what to do about it.
fn describe(error: &ConnectionError, shared: &Shared) -> String {
    let at = &shared.endpoint;
    match error {
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
        ) => format!(
            "{at} refused the user name or password: check mqtt.external_username and \
             mqtt.external_password"
        ),
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::UnsupportedProtocolVersion
            | ConnectReturnCode::RefusedProtocolVersion,
        ) => format!("{at} does not speak MQTT 5: expected Mosquitto 2, EMQX 5 or the like"),
        ConnectionError::ConnectionRefused(code) => {
            format!("{at} refused the connection: {code:?}")
        }
        ConnectionError::Timeout(_) => format!(
            "no answer from {at} within {} s: check mqtt.external and the network",
            CONNECT_TIMEOUT.as_secs()
        ),
        ConnectionError::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            format!("nothing listens at {at}: check mqtt.external, and whether the broker runs")
        }
        ConnectionError::Io(e) => {
            format!("cannot reach {at}: {e}; check mqtt.external and the network")
        }
        ConnectionError::Tls(e) => format!(
            "no secure connection to {at}: {e}; check mqtt.external_ca, the name in mqtt.external, \
             and the clock"
        ),
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::SessionTakenOver,
            ..
        }) => format!(
            "another client of {at} has our id ({}): give each node its own mqtt.external_client_id, \
             or none",
            shared.client_id
        ),
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            format!("{at} does not answer any more")
        }
        ConnectionError::MqttState(e) => format!("the connection to {at} broke: {e}"),
        e => format!("the connection to {at} failed: {e}"),
    }
}
