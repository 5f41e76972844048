//! ChannelData (RFC 8656 §12.4): four bytes in front of a payload.

/// Bytes in front of the payload.
pub const HEADER_LEN: usize = 4;
/// The channels RFC 8656 §12 hands out.
pub const FIRST_CHANNEL: u16 = 0x4000;
pub const LAST_CHANNEL: u16 = 0x4FFF;
/// RFC 5766 went up to here, and clients in use still do.
pub const LAST_CHANNEL_RFC5766: u16 = 0x7FFF;

/// The channel and its payload. What follows the payload is padding (§12.5) and is left out.
pub fn parse(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
    let channel = u16::from_be_bytes([head[0], head[1]]);
    let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
    (FIRST_CHANNEL..=LAST_CHANNEL_RFC5766).contains(&channel).then_some(())?;
    Some((channel, rest.get(..len)?))
}

/// What to put in front of `len` bytes of payload.
pub fn header(channel: u16, len: u16) -> [u8; HEADER_LEN] {
    let (c, l) = (channel.to_be_bytes(), len.to_be_bytes());
    [c[0], c[1], l[0], l[1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_framed_and_read_back() {
        let mut packet = header(0x4001, 5).to_vec();
        packet.extend_from_slice(b"hello\0\0\0");
        assert_eq!(parse(&packet), Some((0x4001, &b"hello"[..])));
        assert_eq!(parse(&packet[..9]), Some((0x4001, &b"hello"[..])));
        assert_eq!(parse(&packet[..8]), None, "shorter than it says");
        assert_eq!(parse(&header(0x3FFF, 0)), None);
        assert_eq!(parse(&header(0x8000, 0)), None);
        assert_eq!(parse(&[0x40]), None);
    }
}
