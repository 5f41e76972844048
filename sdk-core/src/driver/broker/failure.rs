//! Why there is no connection, in words: what went wrong, and what to do about it.

use super::CONNECT_TIMEOUT;
use super::endpoint::Endpoint;
use rumqttc::{ConnectReturnCode, ConnectionError, StateError};
#[cfg(feature = "tls")]
use rustls::AlertDescription;
use std::io;

pub(super) fn describe(e: &ConnectionError, at: &Endpoint) -> String {
    #[cfg(feature = "tls")]
    if let Some(text) = alert(e).and_then(|alert| refused_certificate(alert, at)) {
        return text;
    }
    match e {
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
        ) => refused_sign_in(at),
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

fn refused_sign_in(at: &Endpoint) -> String {
    let mut text = format!("the broker at {at} refused the user name or password");
    text.push_str(if at.shows_certificate {
        ", or this device's certificate for them: check broker_username and broker_password, and \
         whether device_id is the common name of the certificate in broker_cert_file"
    } else if at.is_secure() {
        ": check broker_username and broker_password; if it wants a certificate, set \
         broker_cert_file and broker_key_file"
    } else {
        ": check broker_username and broker_password"
    });
    text
}

/// What the broker says of our certificate, or of there being none; `None` if the alert is about
/// something else.
#[cfg(feature = "tls")]
fn refused_certificate(alert: AlertDescription, at: &Endpoint) -> Option<String> {
    use AlertDescription as A;
    if !at.shows_certificate {
        let does = match alert {
            A::CertificateRequired => "wants a certificate of this device",
            // TLS 1.2 has no word of its own for it.
            A::HandshakeFailure => {
                "broke off the handshake; it may want a certificate of this device"
            }
            _ => return None,
        };
        return Some(format!(
            "the broker at {at} {does} ({alert:?}): set broker_cert_file and broker_key_file"
        ));
    }
    let why = match alert {
        // The latter where another authority has the name of one that it knows.
        A::UnknownCA | A::DecryptError => {
            "expected one of an authority that the broker knows; see whether the file has all \
             certificates up to it"
        }
        A::CertificateExpired => "it is over, or not good yet: renew it, and check the clocks",
        A::CertificateRevoked => "it was revoked: get a new one",
        A::BadCertificate | A::UnsupportedCertificate | A::CertificateUnknown | A::AccessDenied => {
            "expected one that may be used by TLS clients, of an authority that the broker knows; \
             its log says more"
        }
        _ => return None,
    };
    Some(format!(
        "the broker at {at} refused the certificate in broker_cert_file ({alert:?}): {why}"
    ))
}

/// The alert by which the broker ended the connection. In TLS 1.3 a client's certificate is looked at
/// when the client has done its part of the handshake: the alert then comes in the place of CONNACK.
#[cfg(feature = "tls")]
fn alert(e: &ConnectionError) -> Option<AlertDescription> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(e);
    while let Some(e) = cause {
        let inner = e.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(rustls::Error::AlertReceived(alert)) = inner.and_then(|e| e.downcast_ref()) {
            return Some(*alert);
        }
        cause = e.source();
    }
    None
}
