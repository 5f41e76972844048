//! How much may be under way (RFC 9260 §7.2): slow start, congestion avoidance, and less after a loss.
//!
//! Control messages shall get through beside the video, not take its place: the window never grows
//! beyond [`MAX_WINDOW`].

pub(super) struct Congestion {
    window: usize,
    /// Up to here the window doubles in a round trip, beyond it grows by a packet.
    threshold: usize,
    /// Acknowledged since the window last grew, beyond the threshold.
    acknowledged: usize,
    packet: usize,
    /// Losses up to this TSN were answered for.
    recovering_until: Option<u32>,
}

/// In bytes: 2.6 Mbit/s at a round trip of 100 ms.
const MAX_WINDOW: usize = 32 * 1024;

impl Congestion {
    /// `packet` is the largest one's size.
    pub(super) fn new(packet: usize) -> Congestion {
        Congestion {
            window: initial(packet),
            threshold: MAX_WINDOW,
            acknowledged: 0,
            packet,
            recovering_until: None,
        }
    }

    /// What may be under way, in bytes.
    pub(super) fn window(&self) -> usize {
        self.window
    }

    pub(super) fn is_recovering(&self) -> bool {
        self.recovering_until.is_some()
    }

    /// The cumulative TSN moved on, to `cumulative`. `was_full`: the window was all that held more
    /// back.
    pub(super) fn on_acknowledged(&mut self, cumulative: u32, bytes: usize, was_full: bool) {
        if let Some(until) = self.recovering_until {
            if super::is_before(cumulative, until) {
                return;
            }
            self.recovering_until = None;
        }
        if !was_full {
            return;
        }
        if self.window <= self.threshold {
            self.window += bytes.min(self.packet);
        } else {
            self.acknowledged += bytes;
            if self.acknowledged >= self.window {
                self.acknowledged -= self.window;
                self.window += self.packet;
            }
        }
        self.window = self.window.min(MAX_WINDOW);
    }

    /// Others got through behind it; `last` was sent last.
    pub(super) fn on_loss(&mut self, last: u32) {
        if self.recovering_until.is_none() {
            self.recovering_until = Some(last);
            self.shrink();
            self.window = self.threshold;
        }
    }

    /// Nothing got through.
    pub(super) fn on_timeout(&mut self) {
        self.shrink();
        self.window = self.packet;
        self.recovering_until = None;
    }

    /// Nothing is known of the path.
    pub(super) fn on_path_changed(&mut self) {
        *self = Congestion::new(self.packet);
    }

    fn shrink(&mut self) {
        self.threshold = (self.window / 2).max(4 * self.packet);
        self.acknowledged = 0;
    }
}

/// RFC 9260 §7.2.1.
fn initial(packet: usize) -> usize {
    (4 * packet).min((2 * packet).max(4404))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: usize = 1128;

    #[test]
    fn it_grows_while_it_is_used_and_has_a_bound() {
        let mut c = Congestion::new(PACKET);
        let initial = c.window();
        assert_eq!(initial, 4404);
        c.on_acknowledged(1, 5000, false);
        assert_eq!(c.window(), initial);
        c.on_acknowledged(2, 5000, true);
        assert_eq!(c.window(), initial + PACKET);
        for n in 0..100 {
            c.on_acknowledged(n, 5000, true);
        }
        assert_eq!(c.window(), MAX_WINDOW);
    }

    #[test]
    fn a_loss_halves_it_once_and_a_timeout_leaves_one_packet() {
        let mut c = Congestion::new(PACKET);
        for n in 0..100 {
            c.on_acknowledged(n, 5000, true);
        }
        c.on_loss(200);
        c.on_loss(210);
        assert_eq!((c.window(), c.is_recovering()), (MAX_WINDOW / 2, true));
        c.on_acknowledged(199, 50_000, true);
        assert_eq!((c.window(), c.is_recovering()), (MAX_WINDOW / 2, true));
        c.on_acknowledged(200, 0, true);
        assert!(!c.is_recovering());
        // By one packet in a round trip from here on.
        for n in 0..16 {
            c.on_acknowledged(201 + n, 1100, true);
        }
        assert!(c.window() <= MAX_WINDOW / 2 + 2 * PACKET);
        c.on_timeout();
        assert_eq!(c.window(), PACKET);
        c.on_path_changed();
        assert_eq!(c.window(), 4404);
    }
}
