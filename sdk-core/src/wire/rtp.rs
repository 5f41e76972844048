//! RTP packets (RFC 3550 5.1) and one-byte header extensions (RFC 8285 4.2).

/// The fixed header without CSRCs.
pub const FIXED_HEADER_LEN: usize = 12;

/// Longest `mid` that [`HeaderTemplate`] puts into packets, in bytes. Browsers use one or two; a
/// longer one stays out, since receivers also know the packets by their SSRC.
pub const MAX_MID_LEN: usize = 8;

/// Longest header that [`HeaderTemplate`] makes: with all three extensions.
pub const MAX_HEADER_LEN: usize = FIXED_HEADER_LEN + EXTENSION_HEADER_LEN + 16;

/// The header extensions that the answer agreed on, each by its id (1 to 14).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtensionIds {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid` (RFC 8843 15) and the m-section's mid.
    pub mid: Option<(u8, String)>,
    /// `…/abs-send-time`.
    pub abs_send_time: Option<u8>,
    /// `…/draft-holmer-rmcat-transport-wide-cc-extensions-01`.
    pub transport_cc: Option<u8>,
}

/// What changes from packet to packet of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeaderFields {
    pub marker: bool,
    pub sequence: u16,
    pub timestamp: u32,
    /// 24 bits, see [`abs_send_time`]. Ignored without the extension.
    pub abs_send_time: u32,
    /// Ignored without the extension.
    pub transport_sequence: u16,
}

/// A source's header, laid out once: writing a packet's header is a copy and a few patches.
#[derive(Debug, Clone)]
pub struct HeaderTemplate {
    bytes: [u8; MAX_HEADER_LEN],
    len: usize,
    abs_send_time_at: Option<usize>,
    transport_sequence_at: Option<usize>,
}

impl HeaderTemplate {
    /// Extensions with an id outside of 1 to 14 are left out.
    pub fn new(ssrc: u32, payload_type: u8, extensions: &ExtensionIds) -> HeaderTemplate {
        let mut template = HeaderTemplate {
            bytes: [0; MAX_HEADER_LEN],
            len: FIXED_HEADER_LEN,
            abs_send_time_at: None,
            transport_sequence_at: None,
        };
        template.bytes[0] = VERSION_2;
        template.bytes[1] = payload_type & !MARKER_BIT;
        template.bytes[8..12].copy_from_slice(&ssrc.to_be_bytes());

        let data_at = FIXED_HEADER_LEN + EXTENSION_HEADER_LEN;
        let mut end = data_at;
        if let Some(id) = valid_id(extensions.abs_send_time) {
            template.bytes[end] = id << 4 | 2;
            template.abs_send_time_at = Some(end + 1);
            end += 4;
        }
        if let Some(id) = valid_id(extensions.transport_cc) {
            template.bytes[end] = id << 4 | 1;
            template.transport_sequence_at = Some(end + 1);
            end += 3;
        }
        if let Some((id, mid)) = &extensions.mid
            && let Some(id) = valid_id(Some(*id))
            && (1..=MAX_MID_LEN).contains(&mid.len())
        {
            template.bytes[end] = id << 4 | (mid.len() - 1) as u8;
            template.bytes[end + 1..end + 1 + mid.len()].copy_from_slice(mid.as_bytes());
            end += 1 + mid.len();
        }
        if end > data_at {
            let words = (end - data_at).div_ceil(4);
            template.bytes[0] |= EXTENSION_BIT;
            template.bytes[12..14].copy_from_slice(&ONE_BYTE_PROFILE.to_be_bytes());
            template.bytes[14..16].copy_from_slice(&(words as u16).to_be_bytes());
            template.len = data_at + words * 4;
        }
        template
    }

    /// Length of the header in bytes, the same for each packet.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a header has at least [`FIXED_HEADER_LEN`] bytes.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The packet's header is the first [`Self::len`] bytes of what this gives back.
    pub fn fill(&self, fields: &HeaderFields) -> [u8; MAX_HEADER_LEN] {
        let mut bytes = self.bytes;
        if fields.marker {
            bytes[1] |= MARKER_BIT;
        }
        bytes[2..4].copy_from_slice(&fields.sequence.to_be_bytes());
        bytes[4..8].copy_from_slice(&fields.timestamp.to_be_bytes());
        if let Some(at) = self.abs_send_time_at {
            bytes[at..at + 3].copy_from_slice(&fields.abs_send_time.to_be_bytes()[1..]);
        }
        if let Some(at) = self.transport_sequence_at {
            bytes[at..at + 2].copy_from_slice(&fields.transport_sequence.to_be_bytes());
        }
        bytes
    }
}

/// abs-send-time: seconds as a 6.18 fixed-point number, in 24 bits. Only differences count, so any
/// monotonic clock will do.
pub fn abs_send_time(since_start: std::time::Duration) -> u32 {
    let seconds = (since_start.as_secs() & 63) as u32;
    let fraction = (u64::from(since_start.subsec_nanos()) << 18) / 1_000_000_000;
    seconds << 18 | fraction as u32
}

/// A packet as received. `None` from [`Packet::parse`] if it is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    pub marker: bool,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// The header's length with CSRCs and extensions: where SRTP's encryption starts.
    pub header_len: usize,
    /// Without padding.
    pub payload: &'a [u8],
    extensions: &'a [u8],
}

impl<'a> Packet<'a> {
    pub fn parse(data: &'a [u8]) -> Option<Packet<'a>> {
        let header = header(data)?;
        let payload = &data[header.len..];
        let padding = match payload.last() {
            Some(&last) if data[0] & PADDING_BIT != 0 => usize::from(last),
            None if data[0] & PADDING_BIT != 0 => return None,
            _ => 0,
        };
        if data[0] & PADDING_BIT != 0 && padding == 0 {
            return None;
        }
        Some(Packet {
            marker: data[1] & MARKER_BIT != 0,
            payload_type: data[1] & !MARKER_BIT,
            sequence: u16::from_be_bytes([data[2], data[3]]),
            timestamp: u32::from_be_bytes([data[4], data[5], data[6], data[7]]),
            ssrc: u32::from_be_bytes([data[8], data[9], data[10], data[11]]),
            header_len: header.len,
            payload: payload.get(..payload.len().checked_sub(padding)?)?,
            extensions: header.one_byte_extensions,
        })
    }

    /// The data of the one-byte extension `id`.
    pub fn extension(&self, id: u8) -> Option<&'a [u8]> {
        let mut rest = self.extensions;
        while let Some((&first, data)) = rest.split_first() {
            if first == 0 {
                rest = data;
                continue;
            }
            let (element, behind) = data.split_at_checked(usize::from(first & 0x0f) + 1)?;
            // 15 ends the list (RFC 8285 4.2).
            match first >> 4 {
                15 => return None,
                found if found == id => return Some(element),
                _ => rest = behind,
            }
        }
        None
    }
}

/// Length of the header of an RTP packet, with CSRCs and extensions. It stays readable when the
/// packet is encrypted.
pub fn header_len(data: &[u8]) -> Option<usize> {
    header(data).map(|header| header.len)
}

struct Header<'a> {
    len: usize,
    one_byte_extensions: &'a [u8],
}

fn header(data: &[u8]) -> Option<Header<'_>> {
    let first = *data.first()?;
    if data.len() < FIXED_HEADER_LEN || first & VERSION_MASK != VERSION_2 {
        return None;
    }
    let mut len = FIXED_HEADER_LEN + 4 * usize::from(first & CSRC_COUNT_MASK);
    let mut one_byte_extensions = &[][..];
    if first & EXTENSION_BIT != 0 {
        let [p0, p1, w0, w1] = *data.get(len..)?.first_chunk::<EXTENSION_HEADER_LEN>()?;
        let start = len + EXTENSION_HEADER_LEN;
        len = start + 4 * usize::from(u16::from_be_bytes([w0, w1]));
        let extensions = data.get(start..len)?;
        if u16::from_be_bytes([p0, p1]) == ONE_BYTE_PROFILE {
            one_byte_extensions = extensions;
        }
    }
    (data.len() >= len).then_some(Header { len, one_byte_extensions })
}

fn valid_id(id: Option<u8>) -> Option<u8> {
    id.filter(|id| (1..=14).contains(id))
}

const VERSION_2: u8 = 0x80;
const VERSION_MASK: u8 = 0xc0;
const PADDING_BIT: u8 = 0x20;
const EXTENSION_BIT: u8 = 0x10;
const CSRC_COUNT_MASK: u8 = 0x0f;
const MARKER_BIT: u8 = 0x80;
const EXTENSION_HEADER_LEN: usize = 4;
const ONE_BYTE_PROFILE: u16 = 0xbede;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn extensions() -> ExtensionIds {
        ExtensionIds {
            mid: Some((4, "video".into())),
            abs_send_time: Some(2),
            transport_cc: Some(3),
        }
    }

    #[test]
    fn a_plain_header_is_the_rfcs_twelve_bytes() {
        let template = HeaderTemplate::new(0x1122_3344, 96, &ExtensionIds::default());
        let fields = HeaderFields {
            marker: true,
            sequence: 0xabcd,
            timestamp: 0x0102_0304,
            ..HeaderFields::default()
        };
        assert_eq!(
            template.fill(&fields)[..template.len()],
            [0x80, 0xe0, 0xab, 0xcd, 1, 2, 3, 4, 0x11, 0x22, 0x33, 0x44]
        );
    }

    #[test]
    fn extensions_are_written_and_found_again() {
        let template = HeaderTemplate::new(7, 96, &extensions());
        let fields = HeaderFields {
            sequence: 9,
            abs_send_time: 0x00ab_cdef,
            transport_sequence: 0x1234,
            ..HeaderFields::default()
        };
        let mut data = template.fill(&fields)[..template.len()].to_vec();
        assert_eq!(data.len() % 4, 0);
        data.extend([0x65, 1, 2]);
        let packet = Packet::parse(&data).unwrap();
        assert_eq!(packet.payload, [0x65, 1, 2]);
        assert_eq!(packet.extension(4), Some(&b"video"[..]));
        assert_eq!(packet.extension(2), Some(&[0xab, 0xcd, 0xef][..]));
        assert_eq!(packet.extension(3), Some(&[0x12, 0x34][..]));
        assert_eq!(packet.extension(5), None);
    }

    #[test]
    fn a_mid_or_an_id_that_does_not_fit_stays_out() {
        let longest = ExtensionIds { mid: Some((14, "12345678".into())), ..extensions() };
        assert_eq!(HeaderTemplate::new(7, 96, &longest).len(), MAX_HEADER_LEN);
        let too_long = ExtensionIds { mid: Some((4, "123456789".into())), ..Default::default() };
        assert_eq!(HeaderTemplate::new(7, 96, &too_long).len(), FIXED_HEADER_LEN);
        for id in [0, 15, 200] {
            let ids = ExtensionIds { abs_send_time: Some(id), ..Default::default() };
            assert_eq!(HeaderTemplate::new(7, 96, &ids).len(), FIXED_HEADER_LEN);
        }
    }

    #[test]
    fn csrcs_padding_and_foreign_extensions_are_passed_over() {
        let mut data = vec![0x80 | 0x20 | 0x10 | 2, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        data.extend([0; 8]); // two CSRCs
        data.extend([0x10, 0x00, 0, 1, 9, 9, 9, 9]); // a two-byte extension
        data.extend([0xaa, 0xbb, 0, 0, 3]);
        let packet = Packet::parse(&data).unwrap();
        assert_eq!(packet.payload, [0xaa, 0xbb]);
        assert_eq!(packet.header_len, 28);
        assert_eq!(packet.extension(9), None);
    }

    #[test]
    fn cut_packets_and_wrong_padding_are_refused() {
        let template = HeaderTemplate::new(7, 96, &extensions());
        let data = template.fill(&HeaderFields::default())[..template.len()].to_vec();
        for cut in 0..data.len() {
            assert_eq!(Packet::parse(&data[..cut]), None);
        }
        let mut padded = vec![0xa0, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        assert_eq!(Packet::parse(&padded), None, "padding without a byte");
        padded.push(0);
        assert_eq!(Packet::parse(&padded), None, "padding of zero bytes");
        *padded.last_mut().unwrap() = 2;
        assert_eq!(Packet::parse(&padded), None, "more padding than payload");
        *padded.last_mut().unwrap() = 1;
        assert!(Packet::parse(&padded).unwrap().payload.is_empty());
    }

    #[test]
    fn abs_send_time_is_6_18_fixed_point() {
        assert_eq!(abs_send_time(Duration::from_millis(1500)), 3 << 17);
        assert_eq!(abs_send_time(Duration::from_secs(64)), 0);
        assert!(abs_send_time(Duration::from_nanos(63_999_999_999)) < 1 << 24);
    }
}
