//! Trains for viewers that take packetization-mode 0 only: each NAL unit in a packet of its own. Of
//! H.264; H.265 has no such mode.
//!
//! The history is cut for mode 1, so the units are put together again here. No browser needs it.

use super::video_stream::{Train, VideoStream};
use crate::wire::h264::{NalHeader, Payload};

/// A NAL unit as it lies in the history.
#[derive(Debug, Clone)]
pub(super) enum SingleNal<'a> {
    Whole(&'a [u8]),
    /// In the FU-As of these packets.
    Fragments {
        header: NalHeader,
        first: u64,
        last: u64,
    },
}

impl SingleNal<'_> {
    /// Gives its bytes out in pieces.
    pub(super) fn write(&self, stream: &VideoStream, mut put: impl FnMut(&[u8])) {
        match *self {
            SingleNal::Whole(nal) => put(nal),
            SingleNal::Fragments { header, first, last } => {
                put(&[header.0]);
                for index in first..=last {
                    put(fragment(stream, index).unwrap_or_default());
                }
            }
        }
    }

    pub(super) fn len(&self, stream: &VideoStream) -> usize {
        let mut len = 0;
        self.write(stream, |piece| len += piece.len());
        len
    }
}

/// The units of a train, which must be held. `each` says whether to go on.
pub(super) fn for_each<'a>(
    stream: &'a VideoStream,
    train: &Train,
    mut each: impl FnMut(SingleNal<'a>) -> bool,
) {
    let mut first_fragment = train.first_packet;
    for index in train.first_packet..train.first_packet + u64::from(train.packets) {
        let goes_on = match stream.packet(index).and_then(|p| Payload::parse(p.payload)) {
            Some(Payload::Single(nal)) => each(SingleNal::Whole(nal)),
            Some(Payload::StapA(mut nals)) => nals.all(|nal| each(SingleNal::Whole(nal))),
            Some(Payload::FuA { header, start, end, .. }) => {
                if start {
                    first_fragment = index;
                }
                let (first, last) = (first_fragment, index);
                !end || each(SingleNal::Fragments { header, first, last })
            }
            None => true,
        };
        if !goes_on {
            return;
        }
    }
}

fn fragment(stream: &VideoStream, index: u64) -> Option<&[u8]> {
    match Payload::parse(stream.packet(index)?.payload)? {
        Payload::FuA { fragment, .. } => Some(fragment),
        _ => None,
    }
}
