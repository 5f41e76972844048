//! The state cookie (RFC 9260 §5.1.3): what a viewer's INIT and our answer said, given to the viewer to
//! keep until it sends it back.

use crate::wire::sctp::Init;

/// All there is to know of an association that is being opened.
pub(super) struct Cookie {
    /// Ours.
    pub(super) tag: u32,
    pub(super) first_tsn: u32,
    /// The viewer's.
    pub(super) init: Init,
}

const LEN: usize = 25;

impl Cookie {
    pub(super) fn to_bytes(&self) -> [u8; LEN] {
        let Cookie { tag, first_tsn, init } = self;
        let mut bytes = [0; LEN];
        let flags = u8::from(init.forward_tsn) | u8::from(init.reconfig) << 1;
        let parts: [&[u8]; 8] = [
            &tag.to_be_bytes(),
            &first_tsn.to_be_bytes(),
            &init.tag.to_be_bytes(),
            &init.window.to_be_bytes(),
            &init.outbound_streams.to_be_bytes(),
            &init.inbound_streams.to_be_bytes(),
            &init.tsn.to_be_bytes(),
            &[flags],
        ];
        let all = parts.into_iter().flatten();
        bytes.iter_mut().zip(all).for_each(|(to, from)| *to = *from);
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Cookie> {
        let words: &[u8; LEN] = bytes.try_into().ok()?;
        let word = |at: usize| {
            words.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)
        };
        let streams = word(16)?;
        Some(Cookie {
            tag: word(0)?,
            first_tsn: word(4)?,
            init: Init {
                tag: word(8)?,
                window: word(12)?,
                outbound_streams: (streams >> 16) as u16,
                inbound_streams: streams as u16,
                tsn: word(20)?,
                forward_tsn: words[24] & 1 != 0,
                reconfig: words[24] & 2 != 0,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_comes_out() {
        for (forward_tsn, reconfig) in [(false, true), (true, false)] {
            let init = Init {
                tag: 3,
                window: 4,
                outbound_streams: 5,
                inbound_streams: u16::MAX,
                tsn: u32::MAX,
                forward_tsn,
                reconfig,
            };
            let bytes = Cookie { tag: 1, first_tsn: 2, init }.to_bytes();
            let cookie = Cookie::parse(&bytes).unwrap();
            assert_eq!((cookie.tag, cookie.first_tsn, cookie.init), (1, 2, init));
            assert!(Cookie::parse(&bytes[1..]).is_none());
        }
    }
}
