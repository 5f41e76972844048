//! When a connection must act though nothing comes: one timer for all it waits for.

use super::{Connection, Stage};
use crate::mqtt::codec::Fault;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Ready with whether the connection is over. Woken up too early is harmless: the timer is set
    /// for a deadline that may have moved on since, which saves setting it at every packet.
    pub(super) fn poll_timers(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
        now: Instant,
    ) -> Poll<bool> {
        let next = self.next_deadline();
        if next <= now {
            return Poll::Ready(self.on_deadline(out, now));
        }
        if self.sleep.is_elapsed() || next < self.sleep.deadline() {
            self.sleep.as_mut().reset(next);
        }
        ready!(self.sleep.as_mut().poll(cx));
        Poll::Ready(false)
    }

    fn next_deadline(&self) -> Instant {
        let config = &self.registration.broker.0.config;
        let of_stage = match &self.stage {
            Stage::Connecting { deadline, .. }
            | Stage::Waiting { deadline, .. }
            | Stage::Closing { deadline, .. } => *deadline,
            Stage::Online(client) => self.last_packet_at + client.silence_allowed,
        };
        let stalled = self.stalled_since.map(|since| since + config.write_timeout());
        // While the client does not read, the end of its rate limit changes nothing.
        let throttled = self.throttled_until.filter(|_| !self.has_unsent());
        [stalled, throttled].into_iter().flatten().fold(of_stage, Instant::min)
    }

    fn on_deadline(&mut self, out: &mut Vec<u8>, now: Instant) -> bool {
        let config = &self.registration.broker.0.config;
        if self.stalled_since.is_some_and(|since| since + config.write_timeout() <= now) {
            log::info!(
                "mqtt: {}: took no byte for {} s, closed",
                self.peer,
                config.write_timeout_s
            );
            self.registration.broker.0.counters.update(|c| c.slow_consumers_total += 1);
            return true;
        }
        match &self.stage {
            Stage::Connecting { deadline, .. } if *deadline <= now => {
                log::info!(
                    "mqtt: {}: no CONNECT within {} s, closed",
                    self.peer,
                    config.connect_timeout_s
                );
                true
            }
            Stage::Waiting { deadline, .. } if *deadline <= now => {
                log::warn!("mqtt: {}: its password was not checked in time, closed", self.peer);
                true
            }
            Stage::Closing { deadline, .. } => *deadline <= now,
            Stage::Online(client) if self.last_packet_at + client.silence_allowed <= now => {
                self.close(Fault::KeepAliveTimeout, out, now);
                false
            }
            // The rate limit is over; the next round reads on.
            Stage::Connecting { .. } | Stage::Waiting { .. } | Stage::Online(_) => false,
        }
    }
}
