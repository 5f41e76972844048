//! The listeners of HTTP and MQTT, with TLS and without: bound all together before any serves.

use crate::config::Config;
use crate::http::Front;
use crate::mqtt::Broker;
use crate::start_error::StartError;
use crate::tls::Tls;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) struct Listeners {
    http: Option<TcpListener>,
    https: Option<TcpListener>,
    mqtt: Option<TcpListener>,
    mqtts: Option<TcpListener>,
}

/// Where each listens; `None` where it is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    pub http: Option<SocketAddr>,
    pub https: Option<SocketAddr>,
    pub mqtt: Option<SocketAddr>,
    pub mqtts: Option<SocketAddr>,
}

impl Listeners {
    pub(crate) async fn bind(config: &Config) -> Result<Listeners, StartError> {
        let (http, mqtt) = (&config.http, &config.mqtt);
        let of_ours = |address: Option<SocketAddr>| address.filter(|_| mqtt.external.is_none());
        Ok(Listeners {
            http: bind("http.listen", http.listen).await?,
            https: bind("http.tls_listen", http.tls_listen).await?,
            mqtt: bind("mqtt.listen", of_ours(mqtt.listen)).await?,
            mqtts: bind("mqtt.tls_listen", of_ours(mqtt.tls_listen)).await?,
        })
    }

    pub(crate) fn bound(&self) -> Bound {
        let address = |listener: &Option<TcpListener>| listener.as_ref()?.local_addr().ok();
        Bound {
            http: address(&self.http),
            https: address(&self.https),
            mqtt: address(&self.mqtt),
            mqtts: address(&self.mqtts),
        }
    }

    /// Serves all of them, each in a task of its own. Within a `LocalSet`.
    pub(crate) fn serve(
        self,
        tls: Option<Tls>,
        front: &Front,
        broker: Option<&Broker>,
    ) -> Vec<JoinHandle<()>> {
        let mut tasks = Vec::new();
        let front = |listener, tls| tokio::task::spawn_local(front.clone().serve(listener, tls));
        tasks.extend(self.http.map(|listener| front(listener, None)));
        let broker = |listener, tls| {
            let broker = broker?.clone();
            Some(tokio::task::spawn_local(async move { broker.serve(listener, tls).await }))
        };
        tasks.extend(self.mqtt.and_then(|listener| broker(listener, None)));
        // The configuration has been checked: with these listeners there is a certificate.
        if let Some(tls) = tls {
            tasks.extend(self.https.map(|listener| front(listener, Some(tls.clone()))));
            tasks.extend(self.mqtts.and_then(|listener| broker(listener, Some(tls))));
        }
        tasks
    }
}

impl Bound {
    /// The line that says that everything listens; what `others` do stands where it always stood, so
    /// that whoever reads this by position still can.
    ///
    /// `broker` is the one in our own one's place.
    pub(crate) fn describe(&self, broker: Option<&str>, others: &str) -> String {
        let part = |name: &str, address: Option<SocketAddr>| {
            address.map(|address| format!(" {name}={address}")).unwrap_or_default()
        };
        let http = part("http", self.http);
        let mqtt = match broker {
            Some(broker) => format!(" mqtt={broker}"),
            None => part("mqtt", self.mqtt),
        };
        let [mqtts, https] = [part("mqtts", self.mqtts), part("https", self.https)];
        format!("ready:{http}{mqtt} {others}{mqtts}{https}")
    }
}

async fn bind(
    setting: &'static str,
    address: Option<SocketAddr>,
) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = address else { return Ok(None) };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) => Err(StartError::Listen { setting, address, error }),
    }
}
