//! The viewer's data channels, by the `webrtc` crate: what was asked for, what came, and what is sent.

use bytes::BytesMut;
use rtc::data_channel::RTCDataChannelInit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use webrtc::data_channel::{DataChannel, DataChannelEvent};
use webrtc::peer_connection::PeerConnection;

/// One that the viewer opens with its offer.
#[derive(Debug, Clone, Default)]
pub struct ChannelOptions {
    pub label: String,
    pub unordered: bool,
    pub max_retransmits: Option<u16>,
    pub max_lifetime_ms: Option<u16>,
}

/// What a channel has come to.
#[derive(Debug, Clone, Default)]
pub struct ChannelState {
    pub label: String,
    /// The camera has opened it.
    pub by_camera: bool,
    pub ordered: bool,
    pub open: bool,
    pub closed: bool,
    /// Whether it was text, and its bytes.
    pub messages: Vec<(bool, Vec<u8>)>,
}

impl ChannelState {
    pub fn texts(&self) -> Vec<String> {
        let texts = self.messages.iter().filter(|(is_text, _)| *is_text);
        texts.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect()
    }
}

/// All channels of a connection. Clones are the same ones.
#[derive(Clone, Default)]
pub struct Channels {
    all: Arc<Mutex<Vec<Followed>>>,
}

type Followed = (Arc<dyn DataChannel>, Arc<Mutex<ChannelState>>);

impl Channels {
    /// Makes a channel, before the offer or while the connection lives.
    pub async fn create(
        &self,
        connection: &dyn PeerConnection,
        options: &ChannelOptions,
    ) -> Result<(), String> {
        let init = RTCDataChannelInit {
            ordered: !options.unordered,
            max_packet_life_time: options.max_lifetime_ms,
            max_retransmits: options.max_retransmits,
            ..RTCDataChannelInit::default()
        };
        let channel = connection.create_data_channel(&options.label, Some(init)).await;
        self.follow(channel.map_err(|e| e.to_string())?, false).await;
        Ok(())
    }

    /// Notes what happens on a channel.
    pub(crate) async fn follow(&self, channel: Arc<dyn DataChannel>, by_camera: bool) {
        let state = Arc::new(Mutex::new(ChannelState {
            label: channel.label().await.unwrap_or_default(),
            by_camera,
            ordered: channel.ordered().await.unwrap_or_default(),
            ..ChannelState::default()
        }));
        lock(&self.all).push((channel.clone(), state.clone()));
        tokio::spawn(async move {
            while let Some(event) = channel.poll().await {
                let mut state = lock(&state);
                match event {
                    DataChannelEvent::OnOpen => state.open = true,
                    DataChannelEvent::OnClose => state.closed = true,
                    DataChannelEvent::OnMessage(m) => {
                        state.messages.push((m.is_string, m.data.to_vec()));
                    }
                    _ => {}
                }
            }
        });
    }

    /// The last one of that name.
    pub fn state(&self, label: &str) -> Option<ChannelState> {
        let all = lock(&self.all);
        let mut states = all.iter().rev().map(|(_, state)| lock(state).clone());
        states.find(|state| state.label == label)
    }

    pub async fn send_text(&self, label: &str, text: &str) -> Result<(), String> {
        self.find(label)?.send_text(text).await.map_err(|e| e.to_string())
    }

    pub async fn send(&self, label: &str, bytes: &[u8]) -> Result<(), String> {
        self.find(label)?.send(BytesMut::from(bytes)).await.map_err(|e| e.to_string())
    }

    pub async fn close(&self, label: &str) -> Result<(), String> {
        self.find(label)?.close().await.map_err(|e| e.to_string())
    }

    fn find(&self, label: &str) -> Result<Arc<dyn DataChannel>, String> {
        let all = lock(&self.all);
        let found = all.iter().rev().find(|(_, state)| lock(state).label == label);
        found.map(|(channel, _)| channel.clone()).ok_or(format!("no channel {label:?}"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
