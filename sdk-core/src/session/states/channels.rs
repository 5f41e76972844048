//! A session's data channels: what the firmware wants of them, and what it hears.

use super::super::outputs::{Outputs, Want};
use super::{Session, Settings};
use crate::event::{DataEvent as Told, Event};
use crate::log_scope;
use crate::peer::data::{Data, DataEvent, DataTerms};
use crate::peer::{PeerEvent, dtls};
use crate::random::Random;
use crate::time::Now;
use crate::wire::dcep::ChannelInfo;
use crate::wire::sdp::MAX_MESSAGE_SIZE;
use crate::wire::stun::channel_data;

/// What the firmware wants of a data channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelRequest {
    /// With an odd number that is not in use.
    Open(ChannelInfo),
    Send {
        text: bool,
        bytes: Vec<u8>,
    },
    /// Behind what was sent on it.
    Close,
}

/// An SCTP packet is one DTLS record, and that one datagram, perhaps through a TURN channel.
pub(super) fn terms(settings: &Settings<'_>, random: &mut Random) -> DataTerms {
    let overhead = dtls::MAX_OVERHEAD + channel_data::HEADER_LEN;
    let max_packet = settings.max_datagram.saturating_sub(overhead);
    DataTerms { seed: random.bytes(), max_packet }
}

impl Session {
    /// What is for a channel that has gone meanwhile is dropped.
    pub fn on_channel_request(
        &mut self,
        now: Now,
        channel: u16,
        request: ChannelRequest,
        out: &mut Outputs,
    ) {
        let _scope = log_scope::enter(self.id);
        self.peer.with_data(now.instant, |data: &mut Data| match request {
            ChannelRequest::Open(info) => data.open(now.instant, channel, info),
            ChannelRequest::Send { text, bytes } => data.send(now.instant, channel, text, bytes),
            ChannelRequest::Close => data.close(channel),
        });
        self.settle(now, out);
    }

    pub(super) fn on_data_event(&mut self, event: DataEvent, out: &mut Outputs) {
        let session = self.id;
        let told = match event {
            DataEvent::Ready => {
                let theirs = self.offer.data().map_or(0, |data| data.max_message_size);
                log::debug!("sessionId={session} data channels can be opened");
                Told::Ready { max_message: theirs.min(MAX_MESSAGE_SIZE) }
            }
            DataEvent::Opened { channel, info } => {
                log::debug!("sessionId={session} data channel {channel} {:?} is open", info.label);
                Told::Opened { channel, info }
            }
            DataEvent::Message { channel, text, bytes } => Told::Message { channel, text, bytes },
            DataEvent::Closed { channel } => {
                log::debug!("sessionId={session} data channel {channel} is closed");
                Told::Closed { channel }
            }
            DataEvent::Released { channel, bytes } => {
                return out.push(Want::DataReleased { session, channel, bytes });
            }
            DataEvent::Warning(text) => return log::warn!("sessionId={session} {text}"),
        };
        out.event(Event::Data { session, event: told });
    }

    /// The transport is closed: its channels are told to be, before the viewer is.
    pub(super) fn end_channels(&mut self, out: &mut Outputs) {
        while let Some(event) = self.peer.poll_event() {
            if let PeerEvent::Data(event) = event {
                self.on_data_event(event, out);
            }
        }
    }
}
