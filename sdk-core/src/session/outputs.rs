//! What sessions want done, in the order in which it shall happen.

use crate::event::Event;
use crate::media::SendBuffer;
use crate::net::{SocketId, Transmit};
use crate::peer::Route;
use crate::time::Now;
use crate::wire::signal::{Body, SERVER_NAME, SERVER_TOPIC, SessionId, Signal, app_topic};
use std::collections::VecDeque;

/// The queue between sessions and whoever does what they want. It is emptied after every input,
/// so its bound is what one input can cause.
#[derive(Default)]
pub struct Outputs {
    queue: VecDeque<Want>,
    /// The datagrams in the queue, one behind the other: used again and again, so that a report
    /// allocates nothing.
    datagrams: SendBuffer,
    device_id: String,
}

#[derive(Debug)]
pub enum Want {
    /// Send the datagram that [`Outputs::datagram`] gives.
    Send {
        transmit: Transmit,
        start: usize,
    },
    /// Publish a signal.
    Signal {
        topic: String,
        payload: Vec<u8>,
    },
    /// Tell the firmware.
    Event(Event),
    /// Open sockets for a session, and say which.
    OpenSockets {
        session: SessionId,
    },
    CloseSockets(Vec<SocketId>),
    /// So much of what was sent on a data channel needs no room any more.
    DataReleased {
        session: SessionId,
        channel: u16,
        bytes: usize,
    },
    /// Look up a server's name.
    Resolve {
        session: SessionId,
        server: usize,
        host: String,
        port: u16,
    },
}

/// Who is told.
#[derive(Debug, Clone, Copy)]
pub enum To<'a> {
    App(&'a str),
    /// The session service.
    Service,
}

impl Outputs {
    pub fn new(device_id: String) -> Outputs {
        Outputs { queue: VecDeque::new(), datagrams: SendBuffer::new(), device_id }
    }

    pub fn push(&mut self, want: Want) {
        self.queue.push_back(want);
    }

    pub fn pop(&mut self) -> Option<Want> {
        self.queue.pop_front()
    }

    /// Sends a datagram of no viewer's media.
    pub fn send(&mut self, transmit: Transmit, data: &[u8]) {
        let start = self.next_datagram();
        self.datagrams.push(None, data);
        self.push(Want::Send { transmit, start });
    }

    /// Sends the datagram that `write` writes, if it does. Answers its length.
    pub fn send_written(
        &mut self,
        route: Route,
        write: impl FnOnce(&mut SendBuffer) -> bool,
    ) -> Option<usize> {
        let start = self.next_datagram();
        if !write(&mut self.datagrams) {
            return None;
        }
        let len = self.datagrams.bytes().len() - start;
        let Route { socket, destination, .. } = route;
        let transmit = Transmit { socket, destination, segment_size: len };
        self.push(Want::Send { transmit, start });
        Some(len)
    }

    /// The bytes of a [`Want::Send`], until the next thing is wanted.
    pub fn datagram(&self, transmit: &Transmit, start: usize) -> &[u8] {
        let all = self.datagrams.bytes();
        all.get(start..start + transmit.segment_size).unwrap_or_default()
    }

    /// Heap memory of the datagrams, by capacity.
    pub fn held_bytes(&self) -> usize {
        self.datagrams.held_bytes()
    }

    /// Where the next datagram will begin.
    fn next_datagram(&mut self) -> usize {
        if self.queue.is_empty() {
            self.datagrams.clear();
        }
        self.datagrams.bytes().len()
    }

    pub fn event(&mut self, event: Event) {
        self.push(Want::Event(event));
    }

    pub fn signal(&mut self, now: Now, session: SessionId, to: To<'_>, body: Body) {
        let (topic, to) = match to {
            To::App(app) => (app_topic(app), app),
            To::Service => (SERVER_TOPIC.to_owned(), SERVER_NAME),
        };
        let signal = Signal {
            session_id: session,
            from: self.device_id.clone(),
            to: to.to_owned(),
            body,
            timestamp: now.unix_ms(),
        };
        self.push(Want::Signal { topic, payload: signal.to_json() });
    }
}
