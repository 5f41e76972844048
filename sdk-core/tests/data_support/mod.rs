//! A viewer's side of data channels, on the `webrtc` project's SCTP and RFC 8832, which are not ours.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use bytes::Bytes;
use rtc_datachannel::data_channel::DataChannel;
use rtc_datachannel::message::Message;
use rtc_datachannel::message::message_channel_ack::DataChannelAck;
pub(crate) use rtc_datachannel::message::message_channel_open::{ChannelType, DataChannelOpen};
pub(crate) use rtc_sctp::PayloadProtocolIdentifier as Kind;
use rtc_sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event,
    Payload, ReliabilityType, StreamEvent, TimerConfig, TransportConfig, max_payload_size_for_mtu,
};
use rtc_shared::TransportProtocol;
use rtc_shared::marshal::{Marshal as _, Unmarshal as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

/// xorshift: a failing run can be played again.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len() as u64) as usize]
    }
}

pub(crate) struct Browser {
    endpoint: Endpoint,
    handle: AssociationHandle,
    association: Association,
    pub(crate) connected: bool,
    /// Channels that the camera opened.
    pub(crate) opened: Vec<(u16, DataChannelOpen)>,
    /// Channels of ours that it knows.
    pub(crate) acknowledged: Vec<u16>,
    pub(crate) closed: Vec<u16>,
    pub(crate) received: Vec<(u16, Kind, Vec<u8>)>,
    packets: Vec<Bytes>,
}

const CAMERA: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

impl Browser {
    /// Opens the association.
    pub(crate) fn new(now: Instant, max_packet: usize) -> Browser {
        let mut config = EndpointConfig::new();
        config.max_payload_size(max_payload_size_for_mtu(max_packet as u32));
        let us = SocketAddr::from(([127, 0, 0, 1], 2));
        let mut endpoint = Endpoint::new(us, TransportProtocol::UDP, Arc::new(config), None);
        // It gives up after five timeouts if not told otherwise, and then says nothing any more.
        let timers = TimerConfig {
            max_t3_rtx_retrans: usize::MAX,
            max_reconfig_retrans: usize::MAX,
            ..TimerConfig::default()
        };
        let transport = TransportConfig::default().with_timer_config(timers);
        let client = ClientConfig::new(transport);
        let (handle, association) = endpoint.connect(now, client, CAMERA).unwrap();
        Browser {
            endpoint,
            handle,
            association,
            connected: false,
            opened: Vec::new(),
            acknowledged: Vec::new(),
            closed: Vec::new(),
            received: Vec::new(),
            packets: Vec::new(),
        }
    }

    pub(crate) fn open(
        &mut self,
        now: Instant,
        id: u16,
        label: &str,
        kind: ChannelType,
        value: u32,
    ) {
        self.association.open_stream(id, Kind::Binary).unwrap();
        self.set_reliability(id, kind, value);
        let open = Message::DataChannelOpen(DataChannelOpen {
            channel_type: kind,
            priority: 256,
            reliability_parameter: value,
            label: label.into(),
            protocol: Vec::new(),
        });
        self.send(now, id, Kind::Dcep, &open.marshal().unwrap());
    }

    pub(crate) fn send(&mut self, now: Instant, id: u16, kind: Kind, bytes: &[u8]) {
        let mut stream = self.association.stream(id).unwrap();
        assert_eq!(stream.write_with_ppi(now, bytes, kind).unwrap(), bytes.len());
    }

    pub(crate) fn close(&mut self, now: Instant, id: u16) {
        self.association.stream(id).unwrap().close(now).unwrap();
    }

    pub(crate) fn abort(&mut self) {
        self.association.abort().unwrap();
    }

    pub(crate) fn shutdown(&mut self) {
        self.association.shutdown().unwrap();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.association.is_closed()
    }

    pub(crate) fn buffered(&mut self, id: u16) -> usize {
        self.association.stream(id).unwrap().buffered_amount().unwrap()
    }

    /// The texts that came on a channel.
    pub(crate) fn texts(&self, id: u16) -> Vec<&str> {
        let of_channel = self.received.iter().filter(|(channel, ..)| *channel == id);
        of_channel.map(|(_, _, bytes)| std::str::from_utf8(bytes).unwrap()).collect()
    }

    pub(crate) fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        let packet = Bytes::copy_from_slice(packet);
        match self.endpoint.handle(now, CAMERA, None, packet) {
            Some((_, DatagramEvent::AssociationEvent(event))) => {
                self.association.handle_event(event);
            }
            Some(_) => panic!("the camera opens no association"),
            None => {}
        }
        self.settle(now);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.association.handle_timeout(now);
        self.settle(now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.association.poll_timeout()
    }

    pub(crate) fn poll_packet(&mut self, now: Instant) -> Option<Bytes> {
        if self.packets.is_empty()
            && let Some(transmit) = self.association.poll_transmit(now)
            && let Payload::RawEncode(packets) = transmit.message
        {
            self.packets = packets;
            self.packets.reverse();
        }
        self.packets.pop()
    }

    fn settle(&mut self, now: Instant) {
        while let Some(event) = self.association.poll() {
            match event {
                Event::Connected => self.connected = true,
                Event::AssociationLost { id, .. } => self.closed.push(id),
                Event::Stream(StreamEvent::Readable { id }) => self.read(now, id),
                Event::HandshakeFailed { reason } => panic!("{reason}"),
                _ => {}
            }
        }
        while let Some(event) = self.association.poll_endpoint_event() {
            self.endpoint.handle_event(self.handle, event);
        }
    }

    fn read(&mut self, now: Instant, id: u16) {
        while let Ok(mut stream) = self.association.stream(id)
            && let Ok(Some(chunks)) = stream.read_sctp()
        {
            let bytes = chunks.to_payload(1 << 20).unwrap();
            if chunks.ppi != Kind::Dcep {
                let bytes = match chunks.ppi {
                    Kind::StringEmpty | Kind::BinaryEmpty => Vec::new(),
                    _ => bytes.to_vec(),
                };
                self.received.push((id, chunks.ppi, bytes));
                continue;
            }
            match Message::unmarshal(&mut bytes.freeze()).unwrap() {
                Message::DataChannelAck(_) => self.acknowledged.push(id),
                Message::DataChannelOpen(open) => {
                    self.set_reliability(id, open.channel_type, open.reliability_parameter);
                    self.opened.push((id, open));
                    let ack = Message::DataChannelAck(DataChannelAck {}).marshal().unwrap();
                    self.send(now, id, Kind::Dcep, &ack);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn set_reliability(&mut self, id: u16, kind: ChannelType, value: u32) {
        let (unordered, reliability): (bool, ReliabilityType) =
            DataChannel::get_reliability_params(kind);
        let mut stream = self.association.stream(id).unwrap();
        stream.set_reliability_params(unordered, reliability, value).unwrap();
    }
}
