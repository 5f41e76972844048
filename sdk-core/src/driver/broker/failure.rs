//! Why there is no connection, in words: what went wrong, and what to do about it.

use super::CONNECT_TIMEOUT;
use super::endpoint::Endpoint;
use rumqttc::{ConnectReturnCode, ConnectionError, StateError};
use std::io;

pub(super) fn describe(e: &ConnectionError, at: &Endpoint) -> String {
    match e {
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
        ) => format!(
            "the broker at {at} refused the user name or password: check broker_username and \
             broker_password"
        ),
        ConnectionError::ConnectionRefused(ConnectReturnCode::BadClientId) => {
            format!("the broker at {at} refused the client id: check device_id")
        }
        ConnectionError::ConnectionRefused(code) => {
            format!("the broker at {at} refused the connection: {code:?}")
        }
        ConnectionError::NetworkTimeout => format!(
            "no answer from {at} within {} s: check broker_url and the network",
            CONNECT_TIMEOUT.as_secs()
        ),
        ConnectionError::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            format!("nothing listens at {at}: check broker_url, and whether the broker runs")
        }
        ConnectionError::Io(e) => {
            format!("cannot reach {at}: {e}; check broker_url and the network")
        }
        ConnectionError::MqttState(
            StateError::ConnectionAborted | StateError::Io(_) | StateError::Deserialization(_),
        ) => format!(
            "the connection to {at} broke ({e}); if this repeats, see whether another client \
             uses the same device_id"
        ),
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            format!("{at} does not answer any more")
        }
        #[cfg(feature = "tls")]
        ConnectionError::Tls(e) => format!(
            "no secure connection to {at}: {e}; check broker_ca_file, the name in broker_url, \
             and this device's clock"
        ),
        e => format!("the connection to {at} failed: {e}"),
    }
}
