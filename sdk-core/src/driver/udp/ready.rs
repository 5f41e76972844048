//! Which sockets may have something to read, so that those of all the other viewers need not be asked
//! on every turn; and whose turn it is, so that one that is never empty does not keep the others
//! from being read.

use crate::net::SocketId;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// See the module.
#[derive(Default)]
pub(super) struct ReadyList(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// At most once each.
    ready: VecDeque<SocketId>,
    /// Who wants to know when there is one.
    reader: Option<Waker>,
}

/// A socket's place in the list. Dropped with the socket; the list passes over what is gone.
pub(super) struct Place {
    flag: Arc<Flag>,
    waker: Waker,
}

struct Flag {
    id: SocketId,
    is_listed: AtomicBool,
    list: Arc<Mutex<State>>,
}

impl ReadyList {
    /// For a socket of which nothing is known yet: it is asked once.
    pub(super) fn place(&self, id: SocketId) -> Place {
        let flag = Arc::new(Flag { id, is_listed: AtomicBool::new(false), list: self.0.clone() });
        flag.wake_by_ref();
        Place { waker: flag.clone().into(), flag }
    }

    /// The socket whose turn it is.
    pub(super) fn poll_next(&self, cx: &Context<'_>) -> Poll<SocketId> {
        let mut state = lock(&self.0);
        if let Some(id) = state.ready.pop_front() {
            return Poll::Ready(id);
        }
        match &mut state.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            None => state.reader = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Place {
    /// The turn has come: what happens from now on lists the socket again.
    pub(super) fn take(&self) -> Context<'_> {
        self.flag.is_listed.store(false, Ordering::Release);
        Context::from_waker(&self.waker)
    }

    /// There may be more, when it is this one's turn again.
    pub(super) fn again(&self) {
        self.flag.wake_by_ref();
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_listed.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut state = lock(&self.list);
        state.ready.push_back(self.id);
        // Woken without the lock: it may run at once.
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Reader(Mutex<u32>);

    impl Wake for Reader {
        fn wake(self: Arc<Self>) {
            *self.0.lock().unwrap() += 1;
        }
    }

    #[test]
    fn each_has_its_turn_and_is_listed_once_however_often_it_is_woken() {
        let list = ReadyList::default();
        let reader = Arc::new(Reader::default());
        let waker = Waker::from(reader.clone());
        let cx = Context::from_waker(&waker);
        let next = || match list.poll_next(&cx) {
            Poll::Ready(SocketId(id)) => Some(id),
            Poll::Pending => None,
        };
        let (one, two) = (list.place(SocketId(1)), list.place(SocketId(2)));
        assert_eq!([next(), next(), next()], [Some(1), Some(2), None], "each is asked once");
        let wakers = [one.take().waker().clone(), two.take().waker().clone()];
        let woken = || *reader.0.lock().unwrap();
        wakers[1].wake_by_ref();
        wakers[1].wake_by_ref();
        wakers[0].wake_by_ref();
        assert_eq!(woken(), 1, "it comes at once, and sees both");
        assert_eq!(next(), Some(2));
        two.take();
        two.again();
        assert_eq!([next(), next()], [Some(1), Some(2)], "behind the one that waited");
        one.take();
        two.take();
        assert_eq!(next(), None);
        wakers[0].wake_by_ref();
        assert_eq!((woken(), next()), (2, Some(1)));
    }
}
