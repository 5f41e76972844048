//! What sessions want done, in the order in which it shall happen.

use crate::event::Event;
use crate::net::SocketId;
use crate::peer::Control;
use crate::time::Now;
use crate::wire::signal::{Body, SERVER_NAME, SERVER_TOPIC, SessionId, Signal, app_topic};
use std::collections::VecDeque;

/// The queue between sessions and whoever does what they want. It is emptied after every input,
/// so its bound is what one input can cause.
#[derive(Default)]
pub struct Outputs {
    queue: VecDeque<Want>,
    device_id: String,
}

#[derive(Debug)]
pub enum Want {
    /// Send a datagram.
    Send(Control),
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
        Outputs { queue: VecDeque::new(), device_id }
    }

    pub fn push(&mut self, want: Want) {
        self.queue.push_back(want);
    }

    pub fn pop(&mut self) -> Option<Want> {
        self.queue.pop_front()
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
