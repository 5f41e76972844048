//! The end of a session, as every node hears of it.

use super::messages::Messages;
use crate::mqtt::Role;
use sdk_core::wire::signal::{Body, SessionId};
use serde::{Deserialize, Serialize};

/// A session that was closed, with what there is to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Closing {
    pub session_id: String,
    pub device_id: String,
    pub app_id: String,
    pub reason: String,
    pub bye: Bye,
}

/// Who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bye {
    /// Both sides; the broker keeps it for who is away.
    Both,
    /// Only those who are there: a `bye` that waits at the broker for somebody's return would end a
    /// direct connection that has outlived the broker's absence.
    Online,
    /// Nobody: they ended it themselves.
    Nobody,
}

/// On whose doing a closing is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    ThisNode,
    AnotherNode,
}

impl Messages {
    /// Frees what this node's relay holds for the session, and says goodbye. A broker that all nodes
    /// share is used by the one that closed; otherwise each has its own, and the sides are at one of
    /// them.
    pub(super) fn on_closing(&self, closing: &Closing, by: By, now_ms: u64) {
        self.links.free_relay(&closing.session_id);
        self.links.dismiss(&closing.session_id, &closing.app_id);
        let Some(id) = SessionId::parse(&closing.session_id) else { return };
        if by == By::AnotherNode && self.links.shares_broker() {
            return;
        }
        let bye = || Body::Bye { reason: closing.reason.clone() };
        let tell = |role, id: &str| match closing.bye {
            Bye::Both => true,
            Bye::Online => self.is_online(role, id) == Some(true),
            Bye::Nobody => false,
        };
        if tell(Role::Device, &closing.device_id) {
            self.to_device(id, &closing.device_id, bye(), now_ms);
        }
        if tell(Role::App, &closing.app_id) {
            self.to_app(id, &closing.app_id, bye(), now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::service::{Addresses, Links, Relay};
    use std::cell::RefCell;
    use std::rc::Rc;

    /// A node at whose broker the device is, and not the application.
    struct Neighbours {
        shares_broker: bool,
        done: RefCell<Vec<String>>,
    }

    impl Links for Neighbours {
        fn publish(&self, topic: &str, _: Vec<u8>) -> Result<(), String> {
            self.done.borrow_mut().push(topic.rsplit('/').next().unwrap().to_owned());
            Ok(())
        }

        fn is_online(&self, role: Role, _: &str) -> Option<bool> {
            Some(role == Role::Device)
        }

        fn relay_for(&self, _: &str, _: &str, _: &Addresses) -> Option<Relay> {
            None
        }

        fn free_relay(&self, session_id: &str) {
            assert_eq!(session_id, SID);
            self.done.borrow_mut().push("relay".to_owned());
        }

        fn shares_broker(&self) -> bool {
            self.shares_broker
        }
    }

    const SID: &str = "550e8400-e29b-41d4-a716-446655440000";

    #[test]
    fn each_node_frees_its_relay_and_a_bye_is_said_once() {
        for (bye, by, shares_broker, expected) in [
            (Bye::Both, By::ThisNode, false, "relay cam app"),
            (Bye::Online, By::ThisNode, false, "relay cam"),
            (Bye::Nobody, By::ThisNode, false, "relay"),
            // Each has a broker of its own, and the sides are at one of them.
            (Bye::Both, By::AnotherNode, false, "relay cam app"),
            (Bye::Online, By::AnotherNode, false, "relay cam"),
            (Bye::Nobody, By::AnotherNode, false, "relay"),
            // All have the same.
            (Bye::Both, By::ThisNode, true, "relay cam app"),
            (Bye::Both, By::AnotherNode, true, "relay"),
            (Bye::Online, By::AnotherNode, true, "relay"),
        ] {
            let node = Rc::new(Neighbours { shares_broker, done: RefCell::default() });
            let closing = Closing {
                session_id: SID.into(),
                device_id: "cam".into(),
                app_id: "app".into(),
                reason: "test".into(),
                bye,
            };
            Messages::new(node.clone()).on_closing(&closing, by, 7);
            assert_eq!(node.done.borrow().join(" "), expected, "{bye:?} {by:?} {shares_broker}");
        }
    }
}
