//! Data channels as the firmware's threads see them: which there are, how much waits on each, and
//! what is on its way to the agent.
//!
//! ```text
//! send ─ room? ─→ requests ─→ Input::Channel ─→ agent
//!          ↑                                      │
//!          └── released ←── Output::DataReleased ─┘
//! ```
//!
//! A message is counted from the call that sends it until the viewer has it, or it was given up. So
//! the caller hears at once that there is no room, and no message that was taken is dropped for it.
//! The lock is held for a look or a move, never while anything is done with a message.

use super::{Camera, lock};
use crate::event::{DataEvent, Event};
use crate::peer::data::{MAX_BUFFERED, MAX_CHANNELS, message_cost};
use crate::session::ChannelRequest;
use crate::wire::dcep::{ChannelInfo, MAX_NAME_LEN};
use crate::wire::sdp::MAX_MESSAGE_SIZE;
use crate::wire::signal::SessionId;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

/// The channels of all viewers.
#[derive(Default)]
pub(super) struct Channels {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    viewers: Vec<Viewer>,
    /// Bound: what the viewers' rooms let in, and one open and one close for each channel.
    requests: VecDeque<Request>,
}

/// One that takes data channels.
struct Viewer {
    session: SessionId,
    max_message: usize,
    /// Of all its channels, as [`message_cost`] counts; at most [`MAX_BUFFERED`].
    waiting: usize,
    channels: Vec<Channel>,
}

struct Channel {
    id: u16,
    waiting: usize,
    /// A message found no room, and nobody has told since that there is some again.
    refused: bool,
    /// The firmware has closed it. It stays until the viewer has too, so that nobody takes its number.
    is_closing: bool,
}

/// On its way to the agent.
pub(super) struct Request {
    pub(super) session: SessionId,
    pub(super) channel: u16,
    pub(super) request: ChannelRequest,
}

/// Why a message was not taken, or a channel not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelError {
    /// No such channel is open, or the viewer takes none.
    NoChannel,
    /// [`MAX_BUFFERED`] bytes wait for this viewer. [`DataEvent::Writable`] tells when half of it is
    /// free again.
    QueueFull,
    /// The viewer takes no message of more than `most` bytes.
    TooLong { most: usize },
    /// The viewer has [`MAX_CHANNELS`] channels.
    TooMany,
    /// The label or the protocol has more than [`MAX_NAME_LEN`] bytes.
    NameTooLong,
    /// [`Camera::shutdown`] was called.
    Closed,
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChannelError::NoChannel => f.write_str(
                "no such data channel is open: it was closed, or the viewer is gone or takes none",
            ),
            ChannelError::QueueFull => {
                write!(f, "{MAX_BUFFERED} bytes wait for this viewer: wait until it is writable")
            }
            ChannelError::TooLong { most } => {
                write!(f, "the message is too long: this viewer takes {most} bytes")
            }
            ChannelError::TooMany => {
                write!(f, "the viewer has {MAX_CHANNELS} data channels, which is the limit")
            }
            ChannelError::NameTooLong => {
                write!(f, "label or protocol is too long: expected at most {MAX_NAME_LEN} bytes")
            }
            ChannelError::Closed => f.write_str("the camera was shut down"),
        }
    }
}

impl std::error::Error for ChannelError {}

impl Camera {
    /// Sends a message on a viewer's data channel. Never blocks; the bytes are copied.
    pub fn send_data(
        &self,
        session: SessionId,
        channel: u16,
        text: bool,
        bytes: &[u8],
    ) -> Result<(), ChannelError> {
        self.with_channels(|channels| channels.send(session, channel, text, bytes))
    }

    /// Opens a data channel to a viewer that takes them ([`DataEvent::Ready`]), and says its number.
    /// Messages may be sent at once.
    pub fn open_data_channel(
        &self,
        session: SessionId,
        info: ChannelInfo,
    ) -> Result<u16, ChannelError> {
        self.with_channels(|channels| channels.open(session, info))
    }

    /// Closes a data channel behind what was sent on it.
    pub fn close_data_channel(&self, session: SessionId, channel: u16) -> Result<(), ChannelError> {
        self.with_channels(|channels| channels.close(session, channel))
    }

    fn with_channels<T>(
        &self,
        act: impl FnOnce(&Channels) -> Result<T, ChannelError>,
    ) -> Result<T, ChannelError> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(ChannelError::Closed);
        }
        let done = act(&self.shared.channels)?;
        self.shared.wake.notify_one();
        Ok(done)
    }
}

impl Channels {
    /// Takes a message, if there is room for it.
    pub(super) fn send(
        &self,
        session: SessionId,
        channel: u16,
        text: bool,
        bytes: &[u8],
    ) -> Result<(), ChannelError> {
        if bytes.len() > MAX_MESSAGE_SIZE {
            return Err(ChannelError::TooLong { most: MAX_MESSAGE_SIZE });
        }
        let cost = message_cost(bytes.len());
        // Copied before the lock is taken.
        let request = ChannelRequest::Send { text, bytes: bytes.to_vec() };
        let mut table = lock(&self.table);
        let viewer = table.viewer(session).ok_or(ChannelError::NoChannel)?;
        let most = viewer.max_message;
        let is_full = viewer.waiting + cost > MAX_BUFFERED;
        let found = viewer.channels.iter_mut().find(|c| c.id == channel && !c.is_closing);
        let found = found.ok_or(ChannelError::NoChannel)?;
        if bytes.len() > most {
            return Err(ChannelError::TooLong { most });
        }
        if is_full {
            found.refused = true;
            return Err(ChannelError::QueueFull);
        }
        found.waiting += cost;
        viewer.waiting += cost;
        table.requests.push_back(Request { session, channel, request });
        Ok(())
    }

    /// Opens a channel, and chooses its number: an odd one, since the viewer's are even.
    pub(super) fn open(&self, session: SessionId, info: ChannelInfo) -> Result<u16, ChannelError> {
        if info.label.len().max(info.protocol.len()) > MAX_NAME_LEN {
            return Err(ChannelError::NameTooLong);
        }
        let mut table = lock(&self.table);
        let viewer = table.viewer(session).ok_or(ChannelError::NoChannel)?;
        if viewer.channels.len() >= MAX_CHANNELS {
            return Err(ChannelError::TooMany);
        }
        let is_free = |id: &u16| viewer.channels.iter().all(|c| c.id != *id);
        let channel = (1..).step_by(2).find(is_free).ok_or(ChannelError::TooMany)?;
        viewer.add(channel);
        table.requests.push_back(Request { session, channel, request: ChannelRequest::Open(info) });
        Ok(channel)
    }

    /// Closes a channel behind what was sent on it.
    pub(super) fn close(&self, session: SessionId, channel: u16) -> Result<(), ChannelError> {
        let mut table = lock(&self.table);
        let viewer = table.viewer(session).ok_or(ChannelError::NoChannel)?;
        let found = viewer.channels.iter_mut().find(|c| c.id == channel && !c.is_closing);
        found.ok_or(ChannelError::NoChannel)?.is_closing = true;
        table.requests.push_back(Request { session, channel, request: ChannelRequest::Close });
        Ok(())
    }

    /// All that is on its way to the agent.
    pub(super) fn take_requests(&self) -> VecDeque<Request> {
        std::mem::take(&mut lock(&self.table).requests)
    }

    /// Notes what the firmware is about to be told, so that a callback finds it so.
    pub(super) fn on_event(&self, event: &Event) {
        match event {
            Event::Data { session, event } => self.on_data_event(*session, event),
            Event::ViewerClosed { session, .. } => {
                let mut table = lock(&self.table);
                table.viewers.retain(|viewer| viewer.session != *session);
                table.requests.retain(|request| request.session != *session);
            }
            _ => {}
        }
    }

    /// Room is free again. Gives the channels whose sender was refused and may go on now.
    pub(super) fn on_released(&self, session: SessionId, channel: u16, bytes: usize) -> Vec<u16> {
        let mut table = lock(&self.table);
        let Some(viewer) = table.viewer(session) else { return Vec::new() };
        if let Some(found) = viewer.channels.iter_mut().find(|c| c.id == channel) {
            let bytes = bytes.min(found.waiting);
            found.waiting -= bytes;
            viewer.waiting -= bytes;
        }
        viewer.take_writable()
    }

    /// A new agent knows nothing of the old one's viewers.
    pub(super) fn clear(&self) {
        *lock(&self.table) = Table::default();
    }

    fn on_data_event(&self, session: SessionId, event: &DataEvent) {
        let mut table = lock(&self.table);
        if let DataEvent::Ready { max_message } = *event {
            match table.viewer(session) {
                Some(viewer) => viewer.max_message = max_message,
                None => table.viewers.push(Viewer {
                    session,
                    max_message,
                    waiting: 0,
                    channels: Vec::new(),
                }),
            }
            return;
        }
        let Some(viewer) = table.viewer(session) else { return };
        match *event {
            DataEvent::Opened { channel, .. } => viewer.add(channel),
            DataEvent::Closed { channel } => viewer.remove(channel),
            DataEvent::Ready { .. } | DataEvent::Message { .. } | DataEvent::Writable { .. } => {}
        }
    }
}

impl Table {
    fn viewer(&mut self, session: SessionId) -> Option<&mut Viewer> {
        self.viewers.iter_mut().find(|viewer| viewer.session == session)
    }
}

impl Viewer {
    fn add(&mut self, channel: u16) {
        if self.channels.iter().all(|c| c.id != channel) {
            self.channels.push(Channel {
                id: channel,
                waiting: 0,
                refused: false,
                is_closing: false,
            });
        }
    }

    /// What waited on it waits no more.
    fn remove(&mut self, channel: u16) {
        if let Some(at) = self.channels.iter().position(|c| c.id == channel) {
            self.waiting -= self.channels.swap_remove(at).waiting;
        }
    }

    fn take_writable(&mut self) -> Vec<u16> {
        if self.waiting > MAX_BUFFERED / 2 {
            return Vec::new();
        }
        let refused = self.channels.iter_mut().filter(|c| c.refused && !c.is_closing);
        refused
            .map(|channel| {
                channel.refused = false;
                channel.id
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::CloseReason;

    const MOST: usize = 64 * 1024;

    fn ready(n: u8) -> (Channels, SessionId) {
        let channels = Channels::default();
        let session = SessionId::from_random([n; 16]);
        tell(&channels, session, DataEvent::Ready { max_message: MOST });
        (channels, session)
    }

    fn tell(channels: &Channels, session: SessionId, event: DataEvent) {
        channels.on_event(&Event::Data { session, event });
    }

    fn opened(channel: u16) -> DataEvent {
        DataEvent::Opened { channel, info: ChannelInfo::default() }
    }

    #[test]
    fn what_does_not_fit_is_refused_at_once_and_told_once_when_half_is_free() {
        let (channels, session) = ready(1);
        tell(&channels, session, opened(0));
        tell(&channels, session, opened(2));
        let message = vec![7; MOST];
        let cost = message_cost(MOST);
        for _ in 0..MAX_BUFFERED / cost {
            assert_eq!(channels.send(session, 0, false, &message), Ok(()));
        }
        for channel in [0, 0, 2] {
            let refused = channels.send(session, channel, false, &message);
            assert_eq!(refused, Err(ChannelError::QueueFull));
        }
        assert_eq!(channels.take_requests().len(), MAX_BUFFERED / cost);
        assert!(channels.on_released(session, 0, cost).is_empty());
        assert_eq!(channels.on_released(session, 0, cost), [0, 2]);
        assert!(channels.on_released(session, 0, cost).is_empty());
        assert_eq!(channels.send(session, 2, false, &message), Ok(()));
        // More than was ever taken, or for a channel that is gone: nothing.
        assert!(channels.on_released(session, 2, usize::MAX).is_empty());
        assert!(channels.on_released(session, 9, usize::MAX).is_empty());
        let mut table = lock(&channels.table);
        assert_eq!(table.viewer(session).unwrap().waiting, 0);
    }

    #[test]
    fn small_messages_count_for_more_than_their_bytes() {
        let (channels, session) = ready(1);
        tell(&channels, session, opened(0));
        let taken = (0..).take_while(|_| channels.send(session, 0, true, b"") == Ok(())).count();
        assert_eq!(taken, MAX_BUFFERED / message_cost(0));
    }

    #[test]
    fn numbers_are_odd_and_free_again_once_both_have_closed() {
        let (channels, session) = ready(1);
        let open = || channels.open(session, ChannelInfo::default());
        assert_eq!((open(), open()), (Ok(1), Ok(3)));
        assert_eq!(channels.send(session, 1, true, b"before it is answered"), Ok(()));
        assert_eq!(channels.close(session, 1), Ok(()));
        assert_eq!(channels.close(session, 1), Err(ChannelError::NoChannel));
        assert_eq!(channels.send(session, 1, true, b"x"), Err(ChannelError::NoChannel));
        assert_eq!(open(), Ok(5));
        tell(&channels, session, DataEvent::Closed { channel: 1 });
        assert_eq!(open(), Ok(1));
        for _ in 3..MAX_CHANNELS {
            assert!(open().is_ok());
        }
        assert_eq!(open(), Err(ChannelError::TooMany));
        let long = ChannelInfo { label: "x".repeat(MAX_NAME_LEN + 1), ..Default::default() };
        assert_eq!(channels.open(session, long), Err(ChannelError::NameTooLong));
    }

    #[test]
    fn a_channel_that_is_closed_gives_back_what_waited_on_it() {
        let (channels, session) = ready(1);
        tell(&channels, session, opened(0));
        channels.send(session, 0, false, &[0; 1000]).unwrap();
        tell(&channels, session, DataEvent::Closed { channel: 0 });
        assert_eq!(lock(&channels.table).viewer(session).unwrap().waiting, 0);
        tell(&channels, session, opened(0));
        assert!(channels.on_released(session, 0, 1064).is_empty());
        assert_eq!(lock(&channels.table).viewer(session).unwrap().waiting, 0);
    }

    #[test]
    fn nothing_is_left_of_a_viewer_that_is_gone() {
        let (channels, session) = ready(1);
        let other = SessionId::from_random([2; 16]);
        tell(&channels, session, opened(0));
        assert_eq!(channels.send(other, 0, true, b"x"), Err(ChannelError::NoChannel));
        assert_eq!(channels.open(other, ChannelInfo::default()), Err(ChannelError::NoChannel));
        let long = channels.send(session, 0, true, &vec![0; MOST + 1]);
        assert_eq!(long, Err(ChannelError::TooLong { most: MOST }));
        channels.send(session, 0, true, b"x").unwrap();
        channels.on_event(&Event::ViewerClosed { session, reason: CloseReason::Lost });
        assert!(channels.take_requests().is_empty());
        assert_eq!(channels.send(session, 0, true, b"x"), Err(ChannelError::NoChannel));
    }
}
