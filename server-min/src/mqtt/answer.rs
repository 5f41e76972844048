//! The packets the broker answers with. Acknowledgements are on the path of every message, so their
//! four bytes are written in place; the rest is built by `mqtt-protocol-core`.

use super::access::Refusal;
use super::codec::{Fault, Version};
use super::stats::RefusalReason;
use mqtt_protocol_core::mqtt::packet::{
    AssignedClientIdentifier, MaximumPacketSize, Property, ReceiveMaximum, ServerKeepAlive,
    SessionExpiryInterval, SharedSubscriptionAvailable, SubscriptionIdentifierAvailable,
    TopicAliasMaximum, v3_1_1, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::{
    ConnectReasonCode, ConnectReturnCode, SubackReasonCode, SubackReturnCode, UnsubackReasonCode,
};

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublishResult {
    Delivered = 0x00,
    NobodyListens = 0x10,
    NotAuthorized = 0x87,
}

pub(crate) fn puback(out: &mut Vec<u8>, version: Version, packet_id: u16, result: PublishResult) {
    acknowledge(out, 0x40, version, packet_id, result as u8);
}

pub(crate) fn pubrec(out: &mut Vec<u8>, version: Version, packet_id: u16, result: PublishResult) {
    acknowledge(out, 0x50, version, packet_id, result as u8);
}

pub(crate) fn pubcomp(out: &mut Vec<u8>, version: Version, packet_id: u16, found: bool) {
    acknowledge(out, 0x70, version, packet_id, if found { 0 } else { 0x92 });
}

pub(crate) fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xd0, 0]);
}

/// 3.1.1 has no room for a reason: there, a refused publish is acknowledged and dropped.
fn acknowledge(out: &mut Vec<u8>, kind: u8, version: Version, packet_id: u16, reason: u8) {
    let [high, low] = packet_id.to_be_bytes();
    if version == Version::V3 || reason == 0 {
        out.extend_from_slice(&[kind, 2, high, low]);
    } else {
        out.extend_from_slice(&[kind, 3, high, low, reason]);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnackCode {
    UnsupportedVersion,
    Malformed,
    ProtocolError,
    ClientIdInvalid,
    BadCredentials,
    Expired,
    Certificate,
    TooManyFailures,
    NotAuthorized,
    Unavailable,
    BadAuthenticationMethod,
    TopicInvalid,
    QuotaExceeded,
}

impl From<Refusal> for ConnackCode {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::BadCredentials => Self::BadCredentials,
            Refusal::Expired => Self::Expired,
            Refusal::Certificate => Self::Certificate,
            Refusal::TooManyFailures => Self::TooManyFailures,
            Refusal::NotAuthorized => Self::NotAuthorized,
            Refusal::BadClientId => Self::ClientIdInvalid,
            Refusal::Unavailable => Self::Unavailable,
        }
    }
}

impl ConnackCode {
    pub(crate) fn reason(self) -> RefusalReason {
        match self {
            Self::UnsupportedVersion
            | Self::Malformed
            | Self::ProtocolError
            | Self::BadAuthenticationMethod => RefusalReason::Malformed,
            Self::ClientIdInvalid => RefusalReason::ClientId,
            Self::BadCredentials => RefusalReason::Credentials,
            Self::Expired => RefusalReason::Expired,
            Self::Certificate => RefusalReason::Certificate,
            Self::TooManyFailures => RefusalReason::TooManyFailures,
            Self::NotAuthorized | Self::TopicInvalid => RefusalReason::NotAllowed,
            Self::Unavailable => RefusalReason::Unavailable,
            Self::QuotaExceeded => RefusalReason::Quota,
        }
    }
}

/// A 3.1.1 client gets the nearest of its five codes.
pub(crate) fn connack_refused(version: Version, code: ConnackCode) -> Vec<u8> {
    use ConnackCode as C;
    match version {
        Version::V3 => {
            let code = match code {
                C::UnsupportedVersion => ConnectReturnCode::UnacceptableProtocolVersion,
                C::ClientIdInvalid => ConnectReturnCode::IdentifierRejected,
                C::BadCredentials | C::Expired => ConnectReturnCode::BadUserNameOrPassword,
                C::NotAuthorized
                | C::Certificate
                | C::BadAuthenticationMethod
                | C::TopicInvalid => ConnectReturnCode::NotAuthorized,
                C::Unavailable
                | C::TooManyFailures
                | C::QuotaExceeded
                | C::Malformed
                | C::ProtocolError => ConnectReturnCode::ServerUnavailable,
            };
            connack_v3(false, code)
        }
        Version::V5 => {
            let code = match code {
                C::UnsupportedVersion => ConnectReasonCode::UnsupportedProtocolVersion,
                C::Malformed => ConnectReasonCode::MalformedPacket,
                C::ProtocolError => ConnectReasonCode::ProtocolError,
                C::ClientIdInvalid => ConnectReasonCode::ClientIdentifierNotValid,
                C::BadCredentials | C::Expired => ConnectReasonCode::BadUserNameOrPassword,
                C::NotAuthorized | C::Certificate => ConnectReasonCode::NotAuthorized,
                C::TooManyFailures => ConnectReasonCode::ConnectionRateExceeded,
                C::Unavailable => ConnectReasonCode::ServerUnavailable,
                C::BadAuthenticationMethod => ConnectReasonCode::BadAuthenticationMethod,
                C::TopicInvalid => ConnectReasonCode::TopicNameInvalid,
                C::QuotaExceeded => ConnectReasonCode::QuotaExceeded,
            };
            connack_v5(false, code, Vec::new())
        }
    }
}

/// What the broker grants a client (MQTT 5.0 §3.2.2.3).
pub(crate) struct Welcome<'a> {
    pub(crate) session_present: bool,
    /// Where it differs from what was asked for.
    pub(crate) keep_alive_s: Option<u16>,
    pub(crate) session_expiry_s: Option<u32>,
    pub(crate) assigned_client_id: Option<&'a str>,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet_size: u32,
}

pub(crate) fn connack_accepted(version: Version, welcome: &Welcome<'_>) -> Vec<u8> {
    if version == Version::V3 {
        return connack_v3(welcome.session_present, ConnectReturnCode::Accepted);
    }
    // A value the library does not accept (a Receive Maximum of 0, say) is left out: the standard's
    // default then holds, and the limit is kept all the same.
    let properties = [
        ReceiveMaximum::new(welcome.receive_maximum).map(Property::ReceiveMaximum).ok(),
        MaximumPacketSize::new(welcome.max_packet_size).map(Property::MaximumPacketSize).ok(),
        TopicAliasMaximum::new(0).map(Property::TopicAliasMaximum).ok(),
        SharedSubscriptionAvailable::new(0).map(Property::SharedSubscriptionAvailable).ok(),
        SubscriptionIdentifierAvailable::new(0).map(Property::SubscriptionIdentifierAvailable).ok(),
        welcome
            .keep_alive_s
            .and_then(|s| ServerKeepAlive::new(s).map(Property::ServerKeepAlive).ok()),
        welcome
            .session_expiry_s
            .and_then(|s| SessionExpiryInterval::new(s).map(Property::SessionExpiryInterval).ok()),
        welcome.assigned_client_id.and_then(|id| {
            AssignedClientIdentifier::new(id).map(Property::AssignedClientIdentifier).ok()
        }),
    ];
    connack_v5(
        welcome.session_present,
        ConnectReasonCode::Success,
        properties.into_iter().flatten().collect(),
    )
}

fn connack_v3(session_present: bool, code: ConnectReturnCode) -> Vec<u8> {
    v3_1_1::Connack::builder()
        .session_present(session_present)
        .return_code(code)
        .build()
        .expect("both fields of a CONNACK are set")
        .to_continuous_buffer()
}

fn connack_v5(
    session_present: bool,
    code: ConnectReasonCode,
    properties: Vec<Property>,
) -> Vec<u8> {
    v5_0::Connack::builder()
        .session_present(session_present)
        .reason_code(code)
        .props(properties)
        .build()
        .expect("each property occurs once and belongs to a CONNACK")
        .to_continuous_buffer()
}

/// What became of one entry of a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubscribeResult {
    Granted { qos: u8 },
    NotAuthorized,
    FilterInvalid,
    QuotaExceeded,
    SharedNotSupported,
    IdentifierNotSupported,
}

/// `results` has an entry for each filter of the SUBSCRIBE, so at least one.
pub(crate) fn suback(version: Version, packet_id: u16, results: &[SubscribeResult]) -> Vec<u8> {
    use SubscribeResult as R;
    match version {
        Version::V3 => v3_1_1::Suback::builder()
            .packet_id(packet_id)
            .return_codes(
                results
                    .iter()
                    .map(|result| match result {
                        R::Granted { qos: 0 } => SubackReturnCode::SuccessMaximumQos0,
                        R::Granted { .. } => SubackReturnCode::SuccessMaximumQos1,
                        _ => SubackReturnCode::Failure,
                    })
                    .collect(),
            )
            .build()
            .expect("the packet id is not 0 and there is a code")
            .to_continuous_buffer(),
        Version::V5 => v5_0::Suback::builder()
            .packet_id(packet_id)
            .reason_codes(
                results
                    .iter()
                    .map(|result| match result {
                        R::Granted { qos: 0 } => SubackReasonCode::GrantedQos0,
                        R::Granted { .. } => SubackReasonCode::GrantedQos1,
                        R::NotAuthorized => SubackReasonCode::NotAuthorized,
                        R::FilterInvalid => SubackReasonCode::TopicFilterInvalid,
                        R::QuotaExceeded => SubackReasonCode::QuotaExceeded,
                        R::SharedNotSupported => SubackReasonCode::SharedSubscriptionsNotSupported,
                        R::IdentifierNotSupported => {
                            SubackReasonCode::SubscriptionIdentifiersNotSupported
                        }
                    })
                    .collect(),
            )
            .build()
            .expect("the packet id is not 0 and there is a code")
            .to_continuous_buffer(),
    }
}

/// `existed` has an entry for each filter of the UNSUBSCRIBE, so at least one.
pub(crate) fn unsuback(version: Version, packet_id: u16, existed: &[bool]) -> Vec<u8> {
    match version {
        Version::V3 => v3_1_1::Unsuback::builder()
            .packet_id(packet_id)
            .build()
            .expect("the packet id is not 0")
            .to_continuous_buffer(),
        Version::V5 => v5_0::Unsuback::builder()
            .packet_id(packet_id)
            .reason_codes(
                existed
                    .iter()
                    .map(|existed| match existed {
                        true => UnsubackReasonCode::Success,
                        false => UnsubackReasonCode::NoSubscriptionExisted,
                    })
                    .collect(),
            )
            .build()
            .expect("the packet id is not 0 and there is a code")
            .to_continuous_buffer(),
    }
}

/// Only MQTT 5 lets a server say why it leaves; in 3.1.1 it just closes.
pub(crate) fn disconnect(out: &mut Vec<u8>, version: Version, reason: Fault) {
    if version == Version::V5 {
        out.extend_from_slice(&[0xe0, 1, reason as u8]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_by_hand_reads_back() {
        let mut out = Vec::new();
        puback(&mut out, Version::V5, 0x1234, PublishResult::NobodyListens);
        let (read, used) = v5_0::Puback::parse(&out[2..]).unwrap();
        assert_eq!((read.packet_id(), used, read.reason_code().unwrap() as u8), (0x1234, 3, 0x10));

        out.clear();
        pubcomp(&mut out, Version::V5, 7, false);
        let (read, _) = v5_0::Pubcomp::parse(&out[2..]).unwrap();
        assert_eq!((read.packet_id(), read.reason_code().unwrap() as u8), (7, 0x92));

        out.clear();
        disconnect(&mut out, Version::V5, Fault::SessionTakenOver);
        let (read, _) = v5_0::Disconnect::parse(&out[2..]).unwrap();
        assert_eq!(read.reason_code(), Some(Fault::SessionTakenOver));

        out.clear();
        puback(&mut out, Version::V3, 1, PublishResult::NotAuthorized);
        disconnect(&mut out, Version::V3, Fault::SessionTakenOver);
        assert_eq!(out, [0x40, 2, 0, 1]);
    }

    #[test]
    fn a_refusal_has_the_code_of_its_version() {
        assert_eq!(connack_refused(Version::V3, ConnackCode::BadCredentials), [0x20, 2, 0, 4]);
        assert_eq!(
            connack_refused(Version::V5, ConnackCode::BadCredentials),
            [0x20, 3, 0, 0x86, 0]
        );
    }
}
