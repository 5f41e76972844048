//! How a data channel is opened (RFC 8832), and what its messages are marked as (RFC 8831 §8).

/// What a message is, as SCTP's payload protocol identifier.
pub mod protocol {
    /// A message of this file.
    pub const CONTROL: u32 = 50;
    pub const TEXT: u32 = 51;
    pub const BINARY: u32 = 53;
    /// One byte stands for none, since SCTP sends no empty messages.
    pub const EMPTY_TEXT: u32 = 56;
    pub const EMPTY_BINARY: u32 = 57;
}

/// The longest label and the longest sub-protocol taken, in bytes.
pub const MAX_NAME_LEN: usize = 255;

/// A control message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    Open(ChannelInfo),
    Acknowledge,
}

/// What a channel is opened as: the arguments of `createDataChannel`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChannelInfo {
    pub label: String,
    /// Of the application, beside the label; often empty.
    pub protocol: String,
    /// Messages may arrive in another order than they were sent in.
    pub unordered: bool,
    pub reliability: Reliability,
}

/// How long a lost message is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reliability {
    #[default]
    Reliable,
    MaxRetransmits(u32),
    /// In milliseconds since it was handed over.
    MaxLifetimeMs(u32),
}

const OPEN: u8 = 3;
const ACKNOWLEDGE: u8 = 2;
const UNORDERED: u8 = 0x80;

impl Control {
    /// `None` for what is cut, unknown, not UTF-8 or longer than [`MAX_NAME_LEN`].
    pub fn parse(message: &[u8]) -> Option<Control> {
        let (&kind, rest) = message.split_first()?;
        match kind {
            ACKNOWLEDGE => Some(Control::Acknowledge),
            OPEN => {
                // Between them is a priority.
                let (&[channel, _, _, r0, r1, r2, r3, l0, l1, p0, p1], names) =
                    rest.split_first_chunk()?;
                let value = u32::from_be_bytes([r0, r1, r2, r3]);
                let (label, rest) =
                    names.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
                let protocol = rest.get(..usize::from(u16::from_be_bytes([p0, p1])))?;
                Some(Control::Open(ChannelInfo {
                    label: name(label)?,
                    protocol: name(protocol)?,
                    unordered: channel & UNORDERED != 0,
                    reliability: match channel & !UNORDERED {
                        0 => Reliability::Reliable,
                        1 => Reliability::MaxRetransmits(value),
                        2 => Reliability::MaxLifetimeMs(value),
                        _ => return None,
                    },
                }))
            }
            _ => None,
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let info = match self {
            Control::Acknowledge => return vec![ACKNOWLEDGE],
            Control::Open(info) => info,
        };
        let (channel, value) = match info.reliability {
            Reliability::Reliable => (0, 0),
            Reliability::MaxRetransmits(value) => (1, value),
            Reliability::MaxLifetimeMs(value) => (2, value),
        };
        let unordered = if info.unordered { UNORDERED } else { 0 };
        let mut out = vec![OPEN, channel | unordered];
        out.extend_from_slice(&NORMAL_PRIORITY.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
        for name in [&info.label, &info.protocol] {
            out.extend_from_slice(&(name.len() as u16).to_be_bytes());
        }
        out.extend_from_slice(info.label.as_bytes());
        out.extend_from_slice(info.protocol.as_bytes());
        out
    }
}

/// RFC 8832 §8.2.1 has no numbers; RFC 8831 §6.4 does.
const NORMAL_PRIORITY: u16 = 256;

fn name(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    (text.len() <= MAX_NAME_LEN).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_message_is_as_in_the_rfc() {
        let info = ChannelInfo {
            label: "control".into(),
            protocol: "ptz".into(),
            unordered: true,
            reliability: Reliability::MaxRetransmits(2),
        };
        let bytes = Control::Open(info.clone()).to_bytes();
        let expected = b"\x03\x81\x01\x00\x00\x00\x00\x02\x00\x07\x00\x03controlptz";
        assert_eq!(bytes, expected);
        assert_eq!(Control::parse(&bytes), Some(Control::Open(info)));
        for cut in 0..bytes.len() {
            assert_eq!(Control::parse(&bytes[..cut]), None, "{cut}");
        }
        assert_eq!(Control::parse(&Control::Acknowledge.to_bytes()), Some(Control::Acknowledge));
    }

    #[test]
    fn all_kinds_of_reliability_come_back() {
        for reliability in [
            Reliability::Reliable,
            Reliability::MaxRetransmits(0),
            Reliability::MaxRetransmits(u32::MAX),
            Reliability::MaxLifetimeMs(1500),
        ] {
            for unordered in [false, true] {
                let open =
                    Control::Open(ChannelInfo { unordered, reliability, ..Default::default() });
                assert_eq!(Control::parse(&open.to_bytes()), Some(open));
            }
        }
    }

    #[test]
    fn what_nobody_should_send_is_refused() {
        let open = |channel, label: &[u8]| {
            let len = (label.len() as u16).to_be_bytes();
            let header = [3, channel, 0, 0, 0, 0, 0, 0, len[0], len[1], 0, 0];
            Control::parse(&[&header, label].concat())
        };
        assert!(open(0, b"ok").is_some());
        assert!(open(3, b"ok").is_none());
        assert!(open(0, b"\xff").is_none());
        assert!(open(0, &[b'x'; MAX_NAME_LEN + 1]).is_none());
        assert!(Control::parse(&[7]).is_none());
    }
}
