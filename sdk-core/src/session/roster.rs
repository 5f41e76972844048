//! The sessions in the order in which they came, with what would otherwise be asked of every one of
//! them on every turn of the agent, although only one of them has changed: whose a datagram is,
//! when it wants to be woken, and whether it may have something to say.

use super::states::Session;
use crate::event::StreamId;
use crate::net::SocketId;
use crate::wire::signal::SessionId;
use std::ops::{Deref, DerefMut};
use std::time::Instant;

/// See the module.
#[derive(Default)]
pub(super) struct Roster {
    entries: Vec<Entry>,
    /// By socket, where its session is.
    places: Vec<(SocketId, usize)>,
}

/// A session. Whoever has a hand in it has it asked again.
pub(super) struct Entry {
    session: Box<Session>,
    /// Not known since it changed.
    known: Option<Known>,
    /// It may have something to send, or to say, since it changed.
    may_send: bool,
    may_speak: bool,
}

/// What a session answers as long as it does not change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// When it wants to be woken.
    pub(super) timeout: Option<Instant>,
    /// Once it is connected: what it watches, and what its encoder should make for it alone.
    pub(super) watches: Option<(StreamId, Option<u32>)>,
}

impl Deref for Entry {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for Entry {
    fn deref_mut(&mut self) -> &mut Session {
        self.known = None;
        (self.may_send, self.may_speak) = (true, true);
        &mut self.session
    }
}

impl Entry {
    pub(super) fn known(&mut self) -> Known {
        let Entry { session, known, .. } = self;
        *known.get_or_insert_with(|| Known {
            timeout: session.poll_timeout(),
            watches: session.is_connected().then(|| (session.stream(), session.target())),
        })
    }
}

impl Roster {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Entry> {
        self.entries.iter_mut()
    }

    pub(super) fn push(&mut self, session: Session) {
        let session = Box::new(session);
        self.entries.push(Entry { session, known: None, may_send: true, may_speak: true });
    }

    pub(super) fn find(&mut self, id: SessionId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.id() == id)
    }

    /// Whose socket that is.
    pub(super) fn owner(&mut self, socket: SocketId) -> Option<&mut Entry> {
        let at = self.places.binary_search_by_key(&socket, |(socket, _)| *socket).ok()?;
        self.entries.get_mut(self.places[at].1)
    }

    /// After a session was given sockets.
    pub(super) fn on_sockets(&mut self) {
        let Roster { entries, places } = self;
        places.clear();
        for (at, entry) in entries.iter().enumerate() {
            places.extend(entry.sockets().iter().map(|socket| (*socket, at)));
        }
        places.sort_unstable();
    }

    /// Takes out the sessions that have ended. True if there were any.
    pub(super) fn remove_closed(&mut self, mut each: impl FnMut(&Session)) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| {
            if entry.is_closed() {
                each(entry);
            }
            !entry.is_closed()
        });
        let any = self.entries.len() < before;
        if any {
            self.on_sockets();
        }
        any
    }

    /// Asks those that may have something to send, until `seal` says that one has.
    pub(super) fn seal_next<T>(
        &mut self,
        mut seal: impl FnMut(&mut Session) -> Option<T>,
    ) -> Option<T> {
        self.entries.iter_mut().filter(|entry| entry.may_send).find_map(|entry| {
            let sealed = seal(&mut entry.session);
            entry.known = None;
            entry.may_send = sealed.is_some();
            sealed
        })
    }

    /// The same for what viewers say.
    pub(super) fn speak_next<T>(
        &mut self,
        mut speak: impl FnMut(&mut Session) -> Option<T>,
    ) -> Option<T> {
        self.entries.iter_mut().filter(|entry| entry.may_speak).find_map(|entry| {
            let said = speak(&mut entry.session);
            entry.known = None;
            entry.may_speak = said.is_some();
            said
        })
    }
}
