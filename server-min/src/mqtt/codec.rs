//! Bytes ⇄ packets, for MQTT 3.1.1 and 5 alike. `mqtt-protocol-core` reads and builds the packets;
//! what it leaves to its caller (framing, reserved bits, packet id 0) is checked here. After this
//! module the two versions differ in reason codes only.

use super::message::{Payload, Properties};
use mqtt_protocol_core::mqtt::packet::{Property, Qos, RetainHandling, SubEntry, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::{DisconnectReasonCode, MqttError};
use std::sync::Arc;

/// Why a connection ends; the MQTT 5 code that the client is told.
pub(crate) type Fault = DisconnectReasonCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V3,
    V5,
}

/// A complete packet's place in the bytes read so far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) first_byte: u8,
    pub(crate) header_len: usize,
    pub(crate) total_len: usize,
}

/// The first packet of `bytes`, or how many bytes it will take once that is known.
pub(crate) fn split(bytes: &[u8], max_size: u32) -> Result<Result<Frame, Option<usize>>, Fault> {
    let Some((&first_byte, rest)) = bytes.split_first() else { return Ok(Err(None)) };
    let mut remaining = 0usize;
    for (position, &byte) in rest.iter().take(4).enumerate() {
        remaining |= usize::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            let header_len = position + 2;
            let total_len = header_len + remaining;
            if total_len > max_size as usize {
                return Err(Fault::PacketTooLarge);
            }
            let frame = Frame { first_byte, header_len, total_len };
            return Ok(if total_len <= bytes.len() { Ok(frame) } else { Err(Some(total_len)) });
        }
    }
    if rest.len() >= 4 { Err(Fault::MalformedPacket) } else { Ok(Err(None)) }
}

#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Payload,
    pub(crate) properties: Properties,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// 0 exactly where `qos` is 0.
    pub(crate) packet_id: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubscribeOptions {
    pub(crate) qos: u8,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retained: RetainedAtSubscribe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetainedAtSubscribe {
    Send,
    SendIfNew,
    Skip,
}

#[derive(Debug)]
pub(crate) enum Inbound {
    Publish(Publish),
    Puback(u16),
    Pubrel(u16),
    Subscribe { packet_id: u16, entries: Vec<(String, SubscribeOptions)>, has_identifier: bool },
    Unsubscribe { packet_id: u16, filters: Vec<String> },
    Pingreq,
    Disconnect { with_will: bool, session_expiry_s: Option<u32> },
}

/// Any packet after the CONNECT.
pub(crate) fn parse(version: Version, first_byte: u8, body: &[u8]) -> Result<Inbound, Fault> {
    let flags = first_byte & 0x0f;
    let kind = first_byte >> 4;
    let required_flags = match kind {
        3 => flags,
        6 | 8 | 10 => 2,
        _ => 0,
    };
    if flags != required_flags {
        return Err(Fault::MalformedPacket);
    }
    let inbound = match (kind, version) {
        (3, _) => publish(version, flags, body)?,
        (4, _) => Inbound::Puback(acknowledged(version, body, |b| {
            v5_0::Puback::parse(b).map(|(_, n)| n)
        })?),
        (6, _) => Inbound::Pubrel(acknowledged(version, body, |b| {
            v5_0::Pubrel::parse(b).map(|(_, n)| n)
        })?),
        (8, Version::V3) => {
            let packet = whole(v3_1_1::Subscribe::parse(body), body.len()).map_err(fault)?;
            subscribe(version, packet.packet_id(), packet.entries(), false)?
        }
        (8, Version::V5) => {
            let packet = whole(v5_0::Subscribe::parse(body), body.len()).map_err(fault)?;
            let has_identifier =
                packet.props.iter().any(|p| matches!(p, Property::SubscriptionIdentifier(_)));
            subscribe(version, packet.packet_id(), packet.entries(), has_identifier)?
        }
        (10, Version::V3) => {
            let packet = whole(v3_1_1::Unsubscribe::parse(body), body.len()).map_err(fault)?;
            unsubscribe(
                packet.packet_id(),
                packet.entries().iter().map(|f| f.as_str().to_owned()).collect(),
            )?
        }
        (10, Version::V5) => {
            let packet = whole(v5_0::Unsubscribe::parse(body), body.len()).map_err(fault)?;
            unsubscribe(
                packet.packet_id(),
                packet.entries().iter().map(|f| f.as_str().to_owned()).collect(),
            )?
        }
        (12, _) if body.is_empty() => Inbound::Pingreq,
        (14, Version::V3) if body.is_empty() => {
            Inbound::Disconnect { with_will: false, session_expiry_s: None }
        }
        (14, Version::V5) => {
            let packet = whole(v5_0::Disconnect::parse(body), body.len()).map_err(fault)?;
            let session_expiry_s = packet.props().iter().flatten().find_map(|p| match p {
                Property::SessionExpiryInterval(v) => Some(v.val()),
                _ => None,
            });
            let normal = packet.reason_code().is_none_or(|code| code == Fault::NormalDisconnection);
            Inbound::Disconnect { with_will: !normal, session_expiry_s }
        }
        (12 | 14, _) => return Err(Fault::MalformedPacket),
        // A second CONNECT, AUTH, and acknowledgements of QoS 2, which is never sent.
        _ => return Err(Fault::ProtocolError),
    };
    Ok(inbound)
}

fn publish(version: Version, flags: u8, body: &[u8]) -> Result<Inbound, Fault> {
    let qos = (flags >> 1) & 3;
    // QoS 3 does not exist, and DUP means nothing without an acknowledgement (§3.3.1).
    if qos == 3 || (qos == 0 && flags & 0x08 != 0) {
        return Err(Fault::MalformedPacket);
    }
    let shared: Arc<[u8]> = Arc::from(body);
    let (topic, payload, properties, packet_id) = match version {
        Version::V3 => {
            let packet = whole(v3_1_1::Publish::parse(flags, shared), body.len()).map_err(fault)?;
            let topic = packet.topic_name().to_owned();
            (topic, packet.payload().clone(), Properties::default(), packet.packet_id())
        }
        Version::V5 => {
            let packet = whole(v5_0::Publish::parse(flags, shared), body.len()).map_err(fault)?;
            for property in &packet.props {
                match property {
                    // The announced Topic Alias Maximum is 0 (§3.1.2.11.5).
                    Property::TopicAlias(_) => return Err(Fault::TopicAliasInvalid),
                    // Only a server may send one (§3.3.4).
                    Property::SubscriptionIdentifier(_) => return Err(Fault::ProtocolError),
                    _ => {}
                }
            }
            let topic = packet.topic_name().to_owned();
            let properties = Properties::forwarded(&packet.props);
            (topic, packet.payload().clone(), properties, packet.packet_id())
        }
    };
    let packet_id = packet_id.unwrap_or(0);
    if (packet_id == 0) != (qos == 0) {
        return Err(Fault::ProtocolError);
    }
    Ok(Inbound::Publish(Publish {
        topic,
        payload,
        properties,
        qos,
        retain: flags & 1 != 0,
        packet_id,
    }))
}

/// The packet id of a PUBACK or PUBREL. Their usual form is two bytes; the longer one of MQTT 5 is
/// checked by the library and says nothing that matters here.
fn acknowledged(
    version: Version,
    body: &[u8],
    parse_v5: impl FnOnce(&[u8]) -> Result<usize, MqttError>,
) -> Result<u16, Fault> {
    let packet_id = match body {
        [high, low] => u16::from_be_bytes([*high, *low]),
        [high, low, ..] if version == Version::V5 => {
            if parse_v5(body).map_err(fault)? != body.len() {
                return Err(Fault::MalformedPacket);
            }
            u16::from_be_bytes([*high, *low])
        }
        _ => return Err(Fault::MalformedPacket),
    };
    if packet_id == 0 { Err(Fault::ProtocolError) } else { Ok(packet_id) }
}

fn subscribe(
    version: Version,
    packet_id: u16,
    entries: &[SubEntry],
    has_identifier: bool,
) -> Result<Inbound, Fault> {
    if packet_id == 0 || entries.is_empty() {
        return Err(Fault::ProtocolError);
    }
    // The upper six bits are reserved in 3.1.1 (§3.8.3.1).
    if version == Version::V3
        && entries.iter().any(|entry| entry.sub_opts().to_buffer()[0] & 0xfc != 0)
    {
        return Err(Fault::MalformedPacket);
    }
    let entries = entries.iter().map(|entry| {
        let options = entry.sub_opts();
        let options = SubscribeOptions {
            // QoS 2 is taken from publishers but delivered as QoS 1.
            qos: if options.qos() == Qos::AtMostOnce { 0 } else { 1 },
            no_local: options.nl(),
            retain_as_published: options.rap(),
            retained: match options.rh() {
                RetainHandling::SendRetained => RetainedAtSubscribe::Send,
                RetainHandling::SendRetainedIfNotExists => RetainedAtSubscribe::SendIfNew,
                RetainHandling::DoNotSendRetained => RetainedAtSubscribe::Skip,
            },
        };
        (entry.topic_filter().to_owned(), options)
    });
    Ok(Inbound::Subscribe { packet_id, entries: entries.collect(), has_identifier })
}

fn unsubscribe(packet_id: u16, filters: Vec<String>) -> Result<Inbound, Fault> {
    if packet_id == 0 || filters.is_empty() {
        return Err(Fault::ProtocolError);
    }
    Ok(Inbound::Unsubscribe { packet_id, filters })
}

/// The library's parsers say how much they used; what is left over makes the packet malformed.
pub(crate) fn whole<T>(parsed: Result<(T, usize), MqttError>, len: usize) -> Result<T, MqttError> {
    match parsed {
        Ok((packet, used)) if used == len => Ok(packet),
        Ok(_) => Err(MqttError::MalformedPacket),
        Err(error) => Err(error),
    }
}

fn fault(error: MqttError) -> Fault {
    match error {
        MqttError::ProtocolError => Fault::ProtocolError,
        MqttError::TopicNameInvalid => Fault::TopicNameInvalid,
        MqttError::TopicFilterInvalid => Fault::TopicFilterInvalid,
        _ => Fault::MalformedPacket,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_bit_by_bit() {
        let packet = [0x30, 0x81, 0x01];
        assert_eq!(split(&[], 1000), Ok(Err(None)));
        assert_eq!(split(&packet[..2], 1000), Ok(Err(None)));
        assert_eq!(split(&packet, 1000), Ok(Err(Some(3 + 129))));
        assert_eq!(split(&packet, 100), Err(Fault::PacketTooLarge));
        assert_eq!(split(&[0x30, 0xff, 0xff, 0xff, 0xff], u32::MAX), Err(Fault::MalformedPacket));
        let ping = [0xc0, 0, 0xc0];
        assert_eq!(
            split(&ping, 10),
            Ok(Ok(Frame { first_byte: 0xc0, header_len: 2, total_len: 2 }))
        );
    }

    #[test]
    fn reserved_bits_and_packet_id_zero_are_refused() {
        for (first_byte, body) in [
            (0x38, &b"\0\x01a"[..]),
            (0x36, b"\0\x01a\0\x01"),
            (0x32, b"\0\x01a\0\0"),
            (0xc1, b""),
            (0xc0, b"x"),
            (0x80, b"\0\x01\0\x01a\0"),
            (0x82, b"\0\0\0\x01a\0"),
            (0x82, b"\0\x01"),
            (0x40, b"\0\0"),
            (0x40, b"\0\x01\0\0\0"),
            (0x60, b"\0\x01"),
            (0xf0, b""),
            (0x10, b""),
            (0x50, b"\0\x01"),
            (0x70, b"\0\x01"),
        ] {
            assert!(parse(Version::V3, first_byte, body).is_err(), "{first_byte:x} {body:?}");
        }
    }
}
