//! A published message, shared by everyone it goes to: the payload is the very buffer it was read
//! into, and only each receiver's few header bytes are written anew.

use super::access::Identity;
use super::codec::{Publish, Version};
use mqtt_protocol_core::mqtt::ArcPayload;
use mqtt_protocol_core::mqtt::packet::{Property, VariableByteInteger};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub(crate) type Payload = ArcPayload;

pub(crate) fn payload(bytes: &[u8]) -> Payload {
    if bytes.is_empty() {
        Payload::default()
    } else {
        Payload::new(Arc::from(bytes), 0, bytes.len())
    }
}

/// What a receiver is shown of a publish's MQTT 5 properties.
#[derive(Clone, Debug, Default)]
pub(crate) struct Properties {
    encoded: Box<[u8]>,
    expiry_s: Option<u32>,
}

impl Properties {
    /// Payload format, content type, response topic, correlation data and user properties are passed
    /// on as they came (§3.3.2.3); the expiry is counted down.
    pub(crate) fn forwarded(properties: &[Property]) -> Self {
        let mut encoded = Vec::new();
        let mut expiry_s = None;
        for property in properties {
            match property {
                Property::PayloadFormatIndicator(_)
                | Property::ContentType(_)
                | Property::ResponseTopic(_)
                | Property::CorrelationData(_)
                | Property::UserProperty(_) => {
                    encoded.extend_from_slice(&property.to_continuous_buffer())
                }
                Property::MessageExpiryInterval(v) => expiry_s = Some(v.val()),
                _ => {}
            }
        }
        Self { encoded: encoded.into(), expiry_s }
    }
}

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) topic: Rc<str>,
    pub(crate) payload: Payload,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) publisher: Rc<Identity>,
    /// The session it came from, for No Local; 0 for none.
    pub(crate) origin: u64,
    expires_at: Option<Instant>,
    properties: Box<[u8]>,
}

impl Message {
    pub(crate) fn new(
        publish: Publish,
        publisher: Rc<Identity>,
        origin: u64,
        now: Instant,
    ) -> Self {
        Self {
            topic: publish.topic.into(),
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            publisher,
            origin,
            expires_at: publish.properties.expiry_s.map(|s| now + Duration::from_secs(s.into())),
            properties: publish.properties.encoded,
        }
    }

    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// What it counts for in a queue: its bytes and a flat sum for the bookkeeping.
    pub(crate) fn queue_cost(&self) -> usize {
        self.payload.len() + self.topic.len() + self.properties.len() + 128
    }

    /// Appends the PUBLISH for one receiver (MQTT 5.0 §3.3), or nothing if that packet is over the
    /// receiver's limit; says which. `packet_id` 0 is QoS 0.
    pub(crate) fn write(&self, out: &mut Vec<u8>, how: Delivery, now: Instant) -> bool {
        let mut expiry = [2u8, 0, 0, 0, 0];
        let expiry: &[u8] = match self.expires_at {
            Some(at) => {
                let left_s =
                    u32::try_from(at.saturating_duration_since(now).as_secs()).unwrap_or(u32::MAX);
                expiry[1..].copy_from_slice(&left_s.to_be_bytes());
                &expiry
            }
            None => &[],
        };
        let topic_len = u16::try_from(self.topic.len())
            .expect("a topic was read from a field of 16-bit length");
        let properties_len = expiry.len() + self.properties.len();
        let properties_prefix = match how.version {
            Version::V3 => None,
            Version::V5 => Some(length(properties_len)),
        };
        let remaining = 2
            + self.topic.len()
            + if how.packet_id == 0 { 0 } else { 2 }
            + properties_prefix.as_ref().map_or(0, |prefix| prefix.size() + properties_len)
            + self.payload.len();
        let remaining_prefix = length(remaining);
        if 1 + remaining_prefix.size() + remaining > how.max_packet_size as usize {
            return false;
        }

        out.reserve(5 + remaining);
        let qos = u8::from(how.packet_id != 0);
        out.push(0x30 | u8::from(how.dup) << 3 | qos << 1 | u8::from(how.retain));
        out.extend_from_slice(remaining_prefix.as_bytes());
        out.extend_from_slice(&topic_len.to_be_bytes());
        out.extend_from_slice(self.topic.as_bytes());
        if how.packet_id != 0 {
            out.extend_from_slice(&how.packet_id.to_be_bytes());
        }
        if let Some(prefix) = properties_prefix {
            out.extend_from_slice(prefix.as_bytes());
            out.extend_from_slice(expiry);
            out.extend_from_slice(&self.properties);
        }
        out.extend_from_slice(self.payload.as_slice());
        true
    }
}

/// How a message goes to one receiver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) version: Version,
    pub(crate) packet_id: u16,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) max_packet_size: u32,
}

fn length(bytes: usize) -> VariableByteInteger {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    VariableByteInteger::from_u32(bytes).expect("a packet that was read is shorter than 256 MiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::access::Role;
    use crate::mqtt::codec::{self, Inbound};
    use mqtt_protocol_core::mqtt::packet::{
        MessageExpiryInterval, Qos, UserProperty, v3_1_1, v5_0,
    };

    fn reread(version: Version, packet: &[u8], now: Instant) -> Message {
        let frame = codec::split(packet, u32::MAX).unwrap().unwrap();
        match codec::parse(version, frame.first_byte, &packet[frame.header_len..frame.total_len])
            .unwrap()
        {
            Inbound::Publish(publish) => Message::new(
                publish,
                Rc::new(Identity { role: Role::Admin, id: "x".into() }),
                0,
                now,
            ),
            other => panic!("{other:?}"),
        }
    }

    fn write(message: &Message, version: Version, packet_id: u16, now: Instant) -> Vec<u8> {
        let mut out = Vec::new();
        let how =
            Delivery { version, packet_id, dup: false, retain: false, max_packet_size: u32::MAX };
        assert!(message.write(&mut out, how, now));
        out
    }

    #[test]
    fn what_is_written_is_what_the_library_would_write() {
        let now = Instant::now();
        let payload = vec![7u8; 300];
        let v3 = v3_1_1::Publish::builder()
            .topic_name("a/b")
            .unwrap()
            .qos(Qos::AtLeastOnce)
            .packet_id(9u16);
        let v3 = v3.payload(payload.clone()).build().unwrap().to_continuous_buffer();
        assert_eq!(write(&reread(Version::V3, &v3, now), Version::V3, 9, now), v3);

        let v5 = v5_0::Publish::builder()
            .topic_name("a/b")
            .unwrap()
            .qos(Qos::AtMostOnce)
            .payload(payload);
        let v5 = v5.props(vec![
            Property::MessageExpiryInterval(MessageExpiryInterval::new(60).unwrap()),
            Property::UserProperty(UserProperty::new("k", "v").unwrap()),
        ]);
        let v5 = v5.build().unwrap().to_continuous_buffer();
        let message = reread(Version::V5, &v5, now);
        assert_eq!(write(&message, Version::V5, 0, now), v5);
        assert!(!message.is_expired(now) && message.is_expired(now + Duration::from_secs(60)));
        let mut out = Vec::new();
        let how = Delivery {
            version: Version::V5,
            packet_id: 0,
            dup: false,
            retain: false,
            max_packet_size: 300,
        };
        assert!(!message.write(&mut out, how, now) && out.is_empty());
    }
}
