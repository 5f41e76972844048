//! Which devices are connected to the broker, by what they keep retained on their status topics.

use sdk_core::wire::signal::is_valid_id;
use serde::Deserialize;
use std::collections::HashMap;

/// Of every device there is; what comes on top is not known (`deviceOnline` is left out then).
pub(super) const STATUS_FILTER: &str = "p2p/status/device/+";
const STATUS_PREFIX: &str = "p2p/status/device/";
/// Devices remembered. About 100 bytes each.
const MAX_DEVICES: usize = 250_000;

#[derive(Default)]
pub(super) struct Presence {
    is_online: HashMap<Box<str>, bool>,
}

impl Presence {
    /// Takes a message of a status topic. What is none is ignored; an empty one takes the device out.
    pub(super) fn on_status(&mut self, topic: &str, payload: &[u8]) {
        #[derive(Deserialize)]
        struct Status {
            online: bool,
        }
        let Some(id) = topic.strip_prefix(STATUS_PREFIX).filter(|id| is_valid_id(id)) else {
            return;
        };
        if payload.is_empty() {
            self.is_online.remove(id);
        } else if let Ok(Status { online }) = serde_json::from_slice(payload) {
            if let Some(known) = self.is_online.get_mut(id) {
                *known = online;
            } else if self.is_online.len() < MAX_DEVICES {
                self.is_online.insert(id.into(), online);
            }
        }
    }

    /// `None` for a device that never said so.
    pub(super) fn is_online(&self, device_id: &str) -> Option<bool> {
        self.is_online.get(device_id).copied()
    }

    pub(super) fn online(&self) -> usize {
        self.is_online.values().filter(|online| **online).count()
    }

    /// With each connection everything is told anew.
    pub(super) fn clear(&mut self) {
        self.is_online.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_what_it_last_said() {
        let mut presence = Presence::default();
        let topic = "p2p/status/device/cam_1";
        assert_eq!(presence.is_online("cam_1"), None);
        presence.on_status(topic, br#"{"online":true,"timestamp":1}"#);
        assert_eq!((presence.is_online("cam_1"), presence.online()), (Some(true), 1));
        for nothing in [&b"{"[..], br#"{"online":"no"}"#, b"false"] {
            presence.on_status(topic, nothing);
        }
        presence.on_status("p2p/status/device/a/b", br#"{"online":true}"#);
        assert_eq!((presence.is_online("cam_1"), presence.online()), (Some(true), 1));
        presence.on_status(topic, br#"{"online":false}"#);
        assert_eq!((presence.is_online("cam_1"), presence.online()), (Some(false), 0));
        presence.on_status(topic, b"");
        assert_eq!(presence.is_online("cam_1"), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut presence = Presence::default();
        for n in 0..=MAX_DEVICES {
            presence.on_status(&format!("{STATUS_PREFIX}{n}"), br#"{"online":true}"#);
        }
        assert_eq!(presence.online(), MAX_DEVICES);
        assert_eq!(presence.is_online(&MAX_DEVICES.to_string()), None);
        presence.on_status("p2p/status/device/0", br#"{"online":false}"#);
        assert_eq!(presence.is_online("0"), Some(false));
    }
}
