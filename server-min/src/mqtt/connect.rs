//! The first packet of a connection. `mqtt-protocol-core` reads its fields; the reserved flags, which
//! it leaves to its caller, are checked here.

use super::answer::{ConnackCode, connack_refused};
use super::codec::{Publish, Version, whole};
use super::message::{self, Properties};
use mqtt_protocol_core::mqtt::packet::{Property, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::MqttError;
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
    pub(crate) clean_start: bool,
    pub(crate) keep_alive_s: u16,
    /// MQTT 5 only; `None` where the client did not say.
    pub(crate) session_expiry_s: Option<u32>,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet_size: u32,
    pub(crate) wants_enhanced_authentication: bool,
    pub(crate) will: Option<WillFields>,
}

#[derive(Debug)]
pub(crate) struct WillFields {
    pub(crate) publish: Publish,
    pub(crate) delay: Duration,
}

/// What is wrong with a first packet, and the answer it gets, if any.
#[derive(Debug)]
pub(crate) struct BadConnect {
    pub(crate) answer: Vec<u8>,
    pub(crate) what: &'static str,
}

pub(crate) fn parse(first_byte: u8, body: &[u8]) -> Result<Connect, BadConnect> {
    let silent = |what| BadConnect { answer: Vec::new(), what };
    if first_byte != 0x10 {
        return Err(silent("the first packet is not a CONNECT"));
    }
    // Protocol name, level and flags stand at fixed places (MQTT 5.0 §3.1.2).
    let (level, flags) = match body {
        [0, 4, b'M', b'Q', b'T', b'T', level, flags, ..] => (*level, *flags),
        [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', ..] => (3, 0),
        _ => return Err(silent("the protocol name is not MQTT")),
    };
    let bad_flags =
        flags & 1 != 0 || flags & 0x18 == 0x18 || (flags & 0x04 == 0 && flags & 0x38 != 0);
    let parsed = match level {
        _ if bad_flags => Err(MqttError::MalformedPacket),
        4 => whole(v3_1_1::Connect::parse(body), body.len()).map(connect_v3),
        5 => whole(v5_0::Connect::parse(body), body.len()).map(connect_v5),
        _ => {
            let version = if level > 5 { Version::V5 } else { Version::V3 };
            return Err(BadConnect {
                answer: connack_refused(version, ConnackCode::UnsupportedVersion),
                what: "neither MQTT 3.1.1 nor 5",
            });
        }
    };
    parsed.map_err(|error| BadConnect {
        answer: match (level, error) {
            (5, MqttError::ProtocolError) => {
                connack_refused(Version::V5, ConnackCode::ProtocolError)
            }
            (5, _) => connack_refused(Version::V5, ConnackCode::Malformed),
            _ => Vec::new(),
        },
        what: "malformed CONNECT",
    })
}

fn connect_v3(packet: v3_1_1::Connect) -> Connect {
    Connect {
        version: Version::V3,
        client_id: packet.client_id().to_owned(),
        username: packet.user_name().map(str::to_owned),
        password: packet.password().map(<[u8]>::to_vec),
        clean_start: packet.clean_session(),
        keep_alive_s: packet.keep_alive(),
        session_expiry_s: None,
        receive_maximum: u16::MAX,
        max_packet_size: u32::MAX,
        wants_enhanced_authentication: false,
        will: packet.will_topic().map(|topic| WillFields {
            publish: Publish {
                topic: topic.to_owned(),
                payload: message::payload(packet.will_payload().unwrap_or_default()),
                properties: Properties::default(),
                qos: packet.will_qos() as u8,
                retain: packet.will_retain(),
                packet_id: 0,
            },
            delay: Duration::ZERO,
        }),
    }
}

fn connect_v5(packet: v5_0::Connect) -> Connect {
    let mut connect = Connect {
        version: Version::V5,
        client_id: packet.client_id().to_owned(),
        username: packet.user_name().map(str::to_owned),
        password: packet.password().map(<[u8]>::to_vec),
        clean_start: packet.clean_start(),
        keep_alive_s: packet.keep_alive(),
        session_expiry_s: None,
        receive_maximum: u16::MAX,
        max_packet_size: u32::MAX,
        wants_enhanced_authentication: false,
        will: None,
    };
    for property in &packet.props {
        match property {
            Property::SessionExpiryInterval(v) => connect.session_expiry_s = Some(v.val()),
            Property::ReceiveMaximum(v) => connect.receive_maximum = v.val().max(1),
            Property::MaximumPacketSize(v) => connect.max_packet_size = v.val(),
            Property::AuthenticationMethod(_) => connect.wants_enhanced_authentication = true,
            _ => {}
        }
    }
    connect.will = packet.will_topic().map(|topic| WillFields {
        publish: Publish {
            topic: topic.to_owned(),
            payload: message::payload(packet.will_payload().unwrap_or_default()),
            properties: Properties::forwarded(&packet.will_props),
            qos: packet.will_qos() as u8,
            retain: packet.will_retain(),
            packet_id: 0,
        },
        delay: packet
            .will_props
            .iter()
            .find_map(|p| match p {
                Property::WillDelayInterval(v) => Some(Duration::from_secs(v.val().into())),
                _ => None,
            })
            .unwrap_or_default(),
    });
    connect
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_or_future_protocol_is_told_so() {
        let old = parse(0x10, b"\0\x06MQIsdp\x03\x02\0\x0a\0\x01a").unwrap_err();
        assert_eq!(old.answer, [0x20, 2, 0, 1]);
        let future = parse(0x10, b"\0\x04MQTT\x06\x02\0\x0a\0\0\x01a").unwrap_err();
        assert_eq!(future.answer, [0x20, 3, 0, 0x84, 0]);
    }
}
