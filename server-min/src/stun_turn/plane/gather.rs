//! When to let datagrams gather before they are read. To sleep and to be woken costs a good part of
//! what relaying a packet does, and a thread that is woken for each of many thousands a second pays it
//! each time. So while it is busy it stays away for a moment, as network cards do before they
//! interrupt (`rx-usecs`), and then reads what has come in one go.

use std::time::{Duration, Instant};

/// The longest that a datagram waits, but for the kernel's timer slack of another 50 µs.
const PAUSE: Duration = Duration::from_micros(100);
/// The same for a thread that is busy with many: for some 25,000 a second and more.
const LONG_PAUSE: Duration = Duration::from_micros(200);
const MANY: usize = 4;

pub(super) struct Gathering {
    last_turn: Instant,
}

impl Gathering {
    pub(super) fn new(now: Instant) -> Gathering {
        Gathering { last_turn: now }
    }

    /// How long to stay away after a turn that began `now` and read so many messages. A message that
    /// is alone in its time is never kept waiting: nor is a frame, which comes as one run.
    pub(super) fn pause(&mut self, now: Instant, messages: usize) -> Option<Duration> {
        let since = now.saturating_duration_since(self.last_turn);
        self.last_turn = now;
        match messages {
            0 => None,
            1 => (since < PAUSE).then_some(PAUSE),
            2..MANY => Some(PAUSE),
            _ => Some(LONG_PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any moment will do")]
    fn only_a_busy_thread_stays_away() {
        let start = Instant::now();
        let at = |us| start + Duration::from_micros(us);
        let mut gathering = Gathering::new(start);
        assert_eq!(gathering.pause(at(1000), 1), None, "one in a while");
        assert_eq!(gathering.pause(at(1300), 1), None);
        assert_eq!(gathering.pause(at(1350), 1), Some(PAUSE), "soon after the last");
        assert_eq!(gathering.pause(at(1500), 3), Some(PAUSE), "several have gathered");
        assert_eq!(gathering.pause(at(1550), 4), Some(LONG_PAUSE), "many");
        assert_eq!(gathering.pause(at(1650), 1), None, "fewer again");
        assert_eq!(gathering.pause(at(1660), 0), None, "a timer");
    }
}
