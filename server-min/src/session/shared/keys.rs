//! What is called how in Redis.

use crate::session::record::SessionRecord;

/// The names of keys and channels, with the prefix of the configuration.
pub(super) struct Keys {
    prefix: String,
    /// Sorted set: an entry for each open session, by the time of its last sign of life.
    pub(super) open: String,
    /// Set: the same entries, of those that are connected.
    pub(super) connected: String,
    /// Hash: how many are closed, by the time (Unix seconds) until which Redis has forgotten them.
    pub(super) closed: String,
    /// Stream of closings; each is announced on the channel of the same name.
    pub(super) closings: String,
    /// Held by the node that sweeps.
    pub(super) sweep_lock: String,
    /// Deleted now and then, to know whether Redis takes writes. It is never there.
    pub(super) check: String,
}

/// What stands for a session in the set of open ones: enough to say goodbye when its record has
/// expired.
pub(super) struct Entry<'a> {
    pub(super) session_id: &'a str,
    pub(super) device_id: &'a str,
    pub(super) app_id: &'a str,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Keys {
        Keys {
            prefix: prefix.to_owned(),
            open: format!("{prefix}sessions"),
            connected: format!("{prefix}sessions:connected"),
            closed: format!("{prefix}sessions:closed"),
            closings: format!("{prefix}session_closed"),
            sweep_lock: format!("{prefix}sessions:sweep"),
            check: format!("{prefix}sessions:check"),
        }
    }

    pub(super) fn record(&self, session_id: &str) -> String {
        self.prefix.clone() + &SessionRecord::key(session_id)
    }

    pub(super) fn updates(&self, session_id: &str) -> String {
        self.prefix.clone() + &SessionRecord::updates_channel(session_id)
    }

    /// The session whose changes are announced on `channel`.
    pub(super) fn session_of<'a>(&self, channel: &'a str) -> Option<&'a str> {
        channel.strip_prefix(&self.prefix)?.strip_prefix(&SessionRecord::updates_channel(""))
    }
}

impl<'a> Entry<'a> {
    pub(super) fn of(record: &'a SessionRecord) -> Entry<'a> {
        Entry {
            session_id: &record.session_id,
            device_id: &record.device_id,
            app_id: &record.app_id,
        }
    }

    /// Ids have no spaces.
    pub(super) fn parse(text: &'a str) -> Option<Entry<'a>> {
        let mut parts = text.splitn(3, ' ');
        let (session_id, device_id, app_id) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Entry { session_id, device_id, app_id })
    }
}

impl std::fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.session_id, self.device_id, self.app_id)
    }
}
