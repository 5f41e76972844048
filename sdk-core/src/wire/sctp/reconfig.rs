//! The RE-CONFIG chunk (RFC 6525 §3): how a stream, and with it a data channel, is closed.

use super::Values;

/// What a RE-CONFIG chunk asks or answers; one or two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters<'a> {
    value: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter<'a> {
    Reset(Reset<'a>),
    Response {
        /// The number of what it answers.
        request: u32,
        result: ResetResult,
    },
    /// Something else is asked for, which has to be answered.
    Other {
        request: u32,
    },
}

/// The sender starts its `streams` anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset<'a> {
    pub request: u32,
    /// The last one that was sent before it.
    pub last_tsn: u32,
    streams: &'a [u8],
}

impl<'a> Reset<'a> {
    /// None are all (RFC 6525 §4.1).
    pub fn streams(&self) -> impl Iterator<Item = u16> + 'a {
        self.streams.as_chunks().0.iter().map(|pair| u16::from_be_bytes(*pair))
    }
}

/// RFC 6525 §4.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetResult(pub u32);

impl ResetResult {
    pub const PERFORMED: ResetResult = ResetResult(1);
    pub const DENIED: ResetResult = ResetResult(2);
    pub const BAD_SEQUENCE_NUMBER: ResetResult = ResetResult(5);
    pub const IN_PROGRESS: ResetResult = ResetResult(6);
}

pub(super) const OUTGOING_RESET: u16 = 13;
pub(super) const RESPONSE: u16 = 16;
const OTHER_REQUESTS: [u16; 4] = [14, 15, 17, 18];

impl<'a> Parameters<'a> {
    pub(super) fn new(value: &'a [u8]) -> Parameters<'a> {
        Parameters { value }
    }

    /// Those that are whole and known.
    pub fn iter(&self) -> impl Iterator<Item = Parameter<'a>> + use<'a> {
        Values { rest: self.value }
            .take(2)
            .filter_map(|(kind, value)| Parameter::parse(kind, value))
    }
}

impl<'a> Parameter<'a> {
    fn parse(kind: u16, value: &'a [u8]) -> Option<Parameter<'a>> {
        let (request, rest) = value.split_first_chunk()?;
        let request = u32::from_be_bytes(*request);
        match kind {
            OUTGOING_RESET => {
                // Between them is the number of a request that this may be an answer to.
                let (&[_, _, _, _, l0, l1, l2, l3], streams) = rest.split_first_chunk()?;
                let last_tsn = u32::from_be_bytes([l0, l1, l2, l3]);
                Some(Parameter::Reset(Reset { request, last_tsn, streams }))
            }
            RESPONSE => {
                let result = ResetResult(u32::from_be_bytes(*rest.first_chunk()?));
                Some(Parameter::Response { request, result })
            }
            _ => OTHER_REQUESTS.contains(&kind).then_some(Parameter::Other { request }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Chunk, Header, Packet, Writer};
    use super::*;

    #[test]
    fn requests_and_responses_come_back() {
        let header = Header { source_port: 1, destination_port: 2, tag: 3 };
        let mut writer = Writer::new(header, 200);
        writer.reset_request(10, 20, 30, &[1, 5, 7]);
        writer.reset_response(11, ResetResult::IN_PROGRESS);
        writer.chunk(super::super::kind::RECONFIG, 0, &[0, 17, 0, 12, 0, 0, 0, 9, 0, 1, 0, 0]);
        let bytes = writer.finish();
        let mut all = Vec::new();
        for chunk in Packet::parse(&bytes).unwrap().chunks() {
            let Chunk::Reconfig(parameters) = chunk else { panic!("{chunk:?}") };
            all.extend(parameters.iter());
        }
        let [Parameter::Reset(reset), response, other] = all[..] else { panic!("{all:?}") };
        assert_eq!((reset.request, reset.last_tsn), (10, 30));
        assert_eq!(reset.streams().collect::<Vec<_>>(), [1, 5, 7]);
        let result = ResetResult::IN_PROGRESS;
        assert_eq!(response, Parameter::Response { request: 11, result });
        assert_eq!(other, Parameter::Other { request: 9 });
    }

    #[test]
    fn what_is_cut_is_passed_over() {
        for value in [&[0, 13, 0, 8, 0, 0, 0, 1][..], &[0, 16, 0, 8, 0, 0, 0, 1], &[0, 13, 0, 99]] {
            assert_eq!(Parameters::new(value).iter().count(), 0, "{value:?}");
        }
    }
}
