//! Which of the camera's streams a viewer is sent, and how it comes to another one: at that stream's
//! next keyframe, in the same session, as if it were one stream.

use super::{Phase, Session};
use crate::event::{Event, StreamId};
use crate::media::Train;
use crate::session::adapt::Move;
use crate::session::outputs::{Outputs, To};
use crate::session::streams::Streams;
use crate::time::Now;
use crate::wire::signal::{Body, Keepalive, SessionState};

impl Session {
    /// A frame of any of the camera's streams was cut into packets.
    pub fn on_train(&mut self, now: Now, train: &Train, streams: &Streams, out: &mut Outputs) {
        if self.wanted == Some(train.source) && train.keyframe && self.is_connected() {
            self.wanted = None;
            self.show(now, train.source, streams);
            log::info!("sessionId={} goes on with stream {}", self.id, self.stream.0);
            out.event(Event::ViewerStream { session: self.id, stream: self.stream });
            self.tell_stream(now, streams, None, out);
        }
        if train.source == self.stream && self.is_connected() {
            self.viewer.queue(train);
            self.counted.on_queued(self.peer.route().is_some(), self.viewer.stats());
        }
    }

    /// The viewer asks for a stream by its name.
    pub fn on_stream_asked(
        &mut self,
        now: Now,
        name: &str,
        streams: &mut Streams,
        out: &mut Outputs,
    ) {
        let asked = match streams.named(name).map(|stream| stream.id()) {
            Some(id) => self.switch(now, id, streams, out),
            None => Err(format!("the stream {name:?} is not running on this device")),
        };
        if let Err(e) = &asked {
            log::warn!("sessionId={} stays with its stream: {e}", self.id);
        }
        // What is under way is told when it is done.
        if self.wanted.is_none() || asked.is_err() {
            self.tell_stream(now, streams, asked.err(), out);
        }
    }

    /// Somebody wants this viewer to see that stream, and there it is at home from now on.
    pub fn switch(
        &mut self,
        now: Now,
        to: StreamId,
        streams: &mut Streams,
        out: &mut Outputs,
    ) -> Result<(), String> {
        self.want(now, to, streams, out)?;
        self.home = to;
        self.adapt.on_asked();
        Ok(())
    }

    /// The stream is gone.
    pub fn on_stream_stopped(&mut self, stream: StreamId) {
        self.wanted = self.wanted.filter(|wanted| *wanted != stream);
    }

    /// Goes to the fallback of the viewer's stream, or back, as its network wants it.
    pub(super) fn adapt(&mut self, now: Now, streams: &mut Streams, out: &mut Outputs) {
        let Some(home) = streams.get(self.home) else { return };
        let fallback = home.fallback().and_then(|name| streams.named(name));
        let (Some(fallback), Some(capacity)) = (fallback, self.viewer.capacity(now.instant)) else {
            return;
        };
        let to = match self.adapt.on_capacity(now.instant, capacity, home.floor()) {
            Some(Move::Away) => fallback.id(),
            Some(Move::Back) => home.id(),
            None => return,
        };
        let (name, estimate) = (streams.get(to).map_or("", |s| s.name()), capacity.estimate / 1000);
        log::info!("sessionId={} its network takes {estimate} kbit/s: to stream {name:?}", self.id);
        if let Err(e) = self.want(now, to, streams, out) {
            log::warn!("sessionId={} stays with its stream: {e}", self.id);
        }
    }

    /// Tells the viewer which stream it is sent, and which there are.
    pub(super) fn tell_stream(
        &self,
        now: Now,
        streams: &Streams,
        error: Option<String>,
        out: &mut Outputs,
    ) {
        let (path, setup_ms) = match self.phase {
            Phase::Connected { path, setup_ms } => (Some(path), Some(setup_ms)),
            _ => return,
        };
        let keepalive = Keepalive {
            state: Some(SessionState::Connected),
            path,
            setup_ms,
            stream: streams.get(self.stream).map(|stream| stream.name().to_owned()),
            streams: streams.names(),
            stream_error: error,
            ..Keepalive::default()
        };
        out.signal(now, self.id, To::App(&self.app), Body::Keepalive(keepalive));
    }

    fn want(
        &mut self,
        now: Now,
        to: StreamId,
        streams: &mut Streams,
        out: &mut Outputs,
    ) -> Result<(), String> {
        let Some(stream) = streams.get_mut(to) else {
            return Err("that stream is not running on this device".into());
        };
        let (codec, agreed) = (stream.format().codec(), self.offer.choice().format.codec());
        if codec != agreed {
            return Err(format!(
                "the stream {:?} is {}, and this session agreed on {}: open a new session for it",
                stream.name(),
                codec.encoding(),
                agreed.encoding()
            ));
        }
        self.wanted = None;
        if self.is_connected() && to != self.stream {
            self.wanted = Some(to);
            stream.want_keyframe(now, out);
        } else {
            self.show(now, to, streams);
        }
        Ok(())
    }

    fn show(&mut self, now: Now, to: StreamId, streams: &Streams) {
        let Some(stream) = streams.get(to) else { return };
        if to != self.stream {
            // Else a stream that its network has room for would begin with what the other one needed.
            self.viewer.expect_rate(now.instant, stream.bitrate());
        }
        self.stream = to;
        self.counted.on_stream(stream.name());
    }
}
