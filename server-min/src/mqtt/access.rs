//! Who may connect, and which topics a role may use (docs/signaling.md, "Topics and delivery").
//!
//! Whether a login is genuine is the [`Authenticator`]'s business; which topics follow from it is
//! decided here and nowhere else.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

/// What a client may do on the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A camera: its own signal and status topics.
    Device,
    /// A viewer: its own signal topic, and the cameras it speaks to.
    App,
    /// The session service: every topic.
    Service,
    /// An operator or a test: every topic.
    Admin,
}

impl Role {
    pub fn from_name(name: &str) -> Option<Role> {
        Some(match name {
            "device" => Role::Device,
            "app" => Role::App,
            "service" => Role::Service,
            "admin" => Role::Admin,
            _ => return None,
        })
    }
}

/// Who a client is, once its login was accepted. Sessions belong to an identity: the same client id
/// under another identity is another session, so nobody can take over a stranger's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub role: Role,
    /// The device's or app's id as it stands in topics.
    pub id: String,
}

/// What a client says of itself in its CONNECT.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    pub client_id: &'a str,
    pub username: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    /// The common name of the certificate that it presented and the TLS handshake verified; empty
    /// where that certificate names nobody.
    pub certificate: Option<&'a str>,
    pub peer: SocketAddr,
}

/// Why a login is refused; each has a CONNACK code, and a name in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    BadCredentials,
    /// They were right once.
    Expired,
    /// The certificate is somebody else's, or missing where one is required.
    Certificate,
    /// Too many attempts from there failed of late.
    TooManyFailures,
    NotAuthorized,
    BadClientId,
    Unavailable,
}

/// What became of a login.
pub enum Verdict {
    Now(Result<Identity, Refusal>),
    /// Where finding out takes longer than others should wait. Runs within the broker's `LocalSet`,
    /// and is dropped where the client's time to connect is over.
    Later(PendingVerdict),
}

pub type PendingVerdict = Pin<Box<dyn Future<Output = Result<Identity, Refusal>>>>;

impl From<Result<Identity, Refusal>> for Verdict {
    fn from(result: Result<Identity, Refusal>) -> Verdict {
        Verdict::Now(result)
    }
}

/// The application's side of access. Called on the broker's thread, so it must not block; it may
/// call the broker.
pub trait Authenticator {
    fn authenticate(&self, login: &Login<'_>) -> Verdict;

    /// Asked after the topic rules allowed a publish; for rules about what is inside.
    fn may_publish(&self, _who: &Identity, _topic: &str, _payload: &[u8]) -> bool {
        true
    }

    /// Asked where the topic rules refuse a publish: topics given to this one beyond its role.
    fn may_publish_too(&self, _who: &Identity, _topic: &str) -> bool {
        false
    }

    /// The same for a subscription.
    fn may_subscribe_too(&self, _who: &Identity, _filter: &str) -> bool {
        false
    }

    /// Asked when an app subscribes to the status of a device.
    fn may_watch(&self, _who: &Identity, _device_id: &str) -> bool {
        true
    }
}

pub(crate) enum Grant {
    Yes,
    No,
    /// If [`Authenticator::may_watch`] says so for this device.
    IfMayWatch,
}

/// An id must be one plain topic level, or it could name someone else's topics.
pub(crate) fn is_valid_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= 256 && !id.contains(['/', '+', '#', '\0'])
}

/// Retained messages outlive their sender, so a device keeps only its status, and an app nothing.
pub(crate) fn may_publish(who: &Identity, topic: &str, retain: bool) -> bool {
    match who.role {
        Role::Service | Role::Admin => true,
        Role::Device => {
            is_own(topic, DEVICE_STATUS, who)
                || (!retain && (topic == SERVER_SIGNAL || level_after(topic, APP_SIGNAL).is_some()))
        }
        Role::App => {
            !retain && (topic == SERVER_SIGNAL || level_after(topic, DEVICE_SIGNAL).is_some())
        }
    }
}

pub(crate) fn may_subscribe(who: &Identity, filter: &str) -> Grant {
    match who.role {
        Role::Service | Role::Admin => Grant::Yes,
        Role::Device if is_own(filter, DEVICE_SIGNAL, who) => Grant::Yes,
        Role::App if is_own(filter, APP_SIGNAL, who) => Grant::Yes,
        Role::App if watched_device(filter).is_some() => Grant::IfMayWatch,
        Role::Device | Role::App => Grant::No,
    }
}

/// The one device whose status `filter` names. A wildcard would list every camera of the service.
pub(crate) fn watched_device(filter: &str) -> Option<&str> {
    level_after(filter, DEVICE_STATUS)
}

fn is_own(topic: &str, prefix: &str, who: &Identity) -> bool {
    topic.strip_prefix(prefix) == Some(who.id.as_str())
}

fn level_after<'a>(topic: &'a str, prefix: &str) -> Option<&'a str> {
    topic.strip_prefix(prefix).filter(|id| is_valid_id(id))
}

const DEVICE_SIGNAL: &str = "p2p/signal/device/";
const APP_SIGNAL: &str = "p2p/signal/app/";
const SERVER_SIGNAL: &str = "p2p/signal/server";
const DEVICE_STATUS: &str = "p2p/status/device/";

#[cfg(test)]
mod tests {
    use super::*;

    fn who(role: Role, id: &str) -> Identity {
        Identity { role, id: id.into() }
    }

    fn subscribes(who: &Identity, filter: &str) -> bool {
        !matches!(may_subscribe(who, filter), Grant::No)
    }

    #[test]
    fn a_device_uses_its_own_topics_only() {
        let cam = who(Role::Device, "cam1");
        assert!(subscribes(&cam, "p2p/signal/device/cam1"));
        for filter in [
            "p2p/signal/device/cam2",
            "p2p/signal/device/+",
            "p2p/signal/device/cam1/#",
            "#",
            "p2p/signal/app/cam1",
            "p2p/status/device/cam1",
            "p2p/signal/server",
            "",
        ] {
            assert!(!subscribes(&cam, filter), "{filter}");
        }
        assert!(may_publish(&cam, "p2p/signal/app/a", false));
        assert!(may_publish(&cam, "p2p/signal/server", false));
        assert!(may_publish(&cam, "p2p/status/device/cam1", true));
        for topic in [
            "p2p/signal/device/cam1",
            "p2p/signal/device/cam2",
            "p2p/status/device/cam2",
            "p2p/signal/app/",
            "p2p/signal/app/a/b",
            "p2p/signal/server/x",
            "x",
            "",
        ] {
            assert!(!may_publish(&cam, topic, false), "{topic}");
        }
        assert!(!may_publish(&cam, "p2p/signal/app/a", true));
    }

    #[test]
    fn an_app_reaches_every_device_and_hears_only_itself() {
        let app = who(Role::App, "a1");
        assert!(matches!(may_subscribe(&app, "p2p/signal/app/a1"), Grant::Yes));
        assert!(matches!(may_subscribe(&app, "p2p/status/device/cam1"), Grant::IfMayWatch));
        for filter in [
            "p2p/signal/app/a2",
            "p2p/signal/app/+",
            "p2p/status/device/+",
            "p2p/#",
            "p2p/signal/device/cam1",
            "$SYS/#",
        ] {
            assert!(!subscribes(&app, filter), "{filter}");
        }
        assert!(may_publish(&app, "p2p/signal/device/cam1", false));
        assert!(may_publish(&app, "p2p/signal/server", false));
        assert!(!may_publish(&app, "p2p/status/device/cam1", true));
        assert!(!may_publish(&app, "p2p/signal/app/a2", false));
        assert!(!may_publish(&app, "p2p/signal/device/cam1", true));
    }

    #[test]
    fn an_id_is_one_topic_level() {
        assert!(is_valid_id("cam-1"));
        for id in ["", "a/b", "+", "#", "a+", "a\0"] {
            assert!(!is_valid_id(id), "{id:?}");
        }
    }
}
