//! What the service says through the broker, in its own name.

use super::service::{Links, SERVER_ID};
use crate::mqtt::Role;
use sdk_core::wire::signal::{Body, SessionId, Signal, app_topic, device_topic};
use std::rc::Rc;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Messages {
    pub(super) links: Rc<dyn Links>,
}

impl Messages {
    pub(super) fn new(links: Rc<dyn Links>) -> Messages {
        Messages { links }
    }

    pub(super) fn to_app(&self, id: SessionId, app_id: &str, body: Body, now_ms: u64) {
        self.send(id, &app_topic(app_id), app_id, body, now_ms);
    }

    pub(super) fn to_device(&self, id: SessionId, device_id: &str, body: Body, now_ms: u64) {
        self.send(id, &device_topic(device_id), device_id, body, now_ms);
    }

    pub(super) fn is_online(&self, role: Role, id: &str) -> Option<bool> {
        self.links.is_online(role, id)
    }

    fn send(&self, session_id: SessionId, topic: &str, to: &str, body: Body, now_ms: u64) {
        let from = SERVER_ID.to_owned();
        let signal = Signal { session_id, from, to: to.to_owned(), body, timestamp: now_ms };
        if let Err(e) = self.links.publish(topic, signal.to_json()) {
            log::error!("sessionId={session_id} nothing sent to {topic}: {e}");
        }
    }
}
