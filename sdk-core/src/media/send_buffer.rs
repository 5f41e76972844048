//! Sealed packets on their way out: one buffer that the caller owns and uses again and again.

/// Datagrams of one destination, lying one behind the other: all of `segment_size` bytes but the
/// last, which may be shorter. What UDP_SEGMENT sends with one system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Where it starts in [`SendBuffer::bytes`].
    pub offset: usize,
    pub len: usize,
    pub segment_size: usize,
}

impl Run {
    /// The datagrams of the run, each by its range in [`SendBuffer::bytes`].
    pub fn datagrams(self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let end = self.offset + self.len;
        (self.offset..end)
            .step_by(self.segment_size.max(1))
            .map(move |start| start..(start + self.segment_size).min(end))
    }
}

/// See the module. Once it has grown to the size of the largest batch it allocates no more.
#[derive(Debug, Default)]
pub struct SendBuffer {
    bytes: Vec<u8>,
    runs: Vec<Run>,
    /// Whether the next datagram may join the last run: it goes to the same destination.
    joinable: bool,
}

/// A state to go back to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    bytes: usize,
    runs: usize,
}

/// A datagram that is being written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    start: usize,
    channel: Option<u16>,
}

impl SendBuffer {
    pub fn new() -> SendBuffer {
        SendBuffer::default()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Heap memory, by capacity.
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity() + self.runs.capacity() * size_of::<Run>()
    }

    /// In the order in which they are to be sent.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.runs.clear();
        self.joinable = false;
    }

    /// Adds a datagram that is ready, as a run of its own.
    ///
    /// With a channel it becomes TURN ChannelData (RFC 8656 12.4). Over UDP that has no padding.
    pub fn push(&mut self, channel: Option<u16>, datagram: &[u8]) {
        self.start_group();
        let open = self.open(channel);
        self.bytes.extend_from_slice(datagram);
        self.close(open);
        self.start_group();
    }

    /// Takes all that `other` holds. A copy, so that each buffer keeps the size that it needs.
    pub fn take_from(&mut self, other: &mut SendBuffer) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        let moved = other.runs.iter().map(|run| Run { offset: start + run.offset, ..*run });
        self.runs.extend(moved);
        self.joinable = false;
        other.clear();
    }

    /// What follows goes to another destination, or must not be sent together with what came.
    pub(super) fn start_group(&mut self) {
        self.joinable = false;
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { bytes: self.bytes.len(), runs: self.runs.len() }
    }

    pub(super) fn bytes_since(&self, mark: Mark) -> usize {
        self.bytes.len() - mark.bytes
    }

    /// The datagrams since `mark`, which must be of the start of a group.
    pub(super) fn datagrams_since(
        &self,
        mark: Mark,
    ) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        self.runs.iter().skip(mark.runs).flat_map(|run| run.datagrams())
    }

    /// Takes back all since `mark`, which must be of the start of a group.
    pub(super) fn rewind(&mut self, mark: Mark) {
        self.bytes.truncate(mark.bytes);
        self.runs.truncate(mark.runs);
        self.joinable = false;
    }

    pub(super) fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Starts a datagram; its bytes are then written with [`Self::write`].
    pub(super) fn open(&mut self, channel: Option<u16>) -> Open {
        let start = self.bytes.len();
        if channel.is_some() {
            self.bytes.extend_from_slice(&[0; CHANNEL_HEADER_LEN]);
        }
        Open { start, channel }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Room for what sealing adds.
    pub(super) fn write_zeros(&mut self, count: usize) {
        self.bytes.resize(self.bytes.len() + count, 0);
    }

    /// All bytes, for those who append and seal in place.
    pub(super) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The bytes of the datagram so far, without the channel's header.
    pub(super) fn body_mut(&mut self, open: Open) -> &mut [u8] {
        let start = open.body_start();
        &mut self.bytes[start..]
    }

    pub(super) fn close(&mut self, open: Open) {
        if let Some(channel) = open.channel {
            let len = (self.bytes.len() - open.body_start()) as u16;
            let header = &mut self.bytes[open.start..open.start + CHANNEL_HEADER_LEN];
            header[..2].copy_from_slice(&channel.to_be_bytes());
            header[2..].copy_from_slice(&len.to_be_bytes());
        }
        let len = self.bytes.len() - open.start;
        match self.runs.last_mut() {
            Some(run) if self.joinable && run.takes(len) => run.len += len,
            _ => self.runs.push(Run { offset: open.start, len, segment_size: len }),
        }
        self.joinable = true;
    }
}

impl Open {
    pub(super) fn body_start(self) -> usize {
        self.start + if self.channel.is_some() { CHANNEL_HEADER_LEN } else { 0 }
    }
}

impl Run {
    fn takes(&self, len: usize) -> bool {
        // Nothing may follow a short segment.
        self.len.is_multiple_of(self.segment_size)
            && len <= self.segment_size
            && self.len + len <= MAX_RUN_LEN
            && self.len / self.segment_size < MAX_SEGMENTS
    }
}

pub(super) const CHANNEL_HEADER_LEN: usize = 4;
/// What Linux takes at once: UDP_MAX_SEGMENTS, and the length of one UDP datagram.
const MAX_SEGMENTS: usize = 64;
const MAX_RUN_LEN: usize = 65_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn add(out: &mut SendBuffer, channel: Option<u16>, len: usize) {
        let open = out.open(channel);
        out.write(&vec![7; len]);
        out.close(open);
    }

    fn shape(out: &SendBuffer) -> Vec<(usize, usize)> {
        out.runs().iter().map(|run| (run.len, run.segment_size)).collect()
    }

    #[test]
    fn a_run_ends_behind_a_shorter_datagram_and_before_a_longer_one() {
        let mut out = SendBuffer::new();
        for len in [100, 100, 60, 60, 80, 80] {
            add(&mut out, None, len);
        }
        assert_eq!(shape(&out), [(260, 100), (60, 60), (160, 80)]);
        let datagrams: Vec<_> = out.runs()[0].datagrams().collect();
        assert_eq!(datagrams, [0..100, 100..200, 200..260]);
    }

    #[test]
    fn a_run_stays_within_what_linux_takes() {
        let mut out = SendBuffer::new();
        (0..100).for_each(|_| add(&mut out, None, 1200));
        assert_eq!(shape(&out), [(54 * 1200, 1200), (46 * 1200, 1200)]);
        out.clear();
        (0..100).for_each(|_| add(&mut out, None, 100));
        assert_eq!(shape(&out), [(6400, 100), (3600, 100)]);
    }

    #[test]
    fn groups_stay_apart_and_can_be_taken_back() {
        let mut out = SendBuffer::new();
        add(&mut out, None, 100);
        out.start_group();
        let mark = out.mark();
        add(&mut out, None, 100);
        assert_eq!(shape(&out), [(100, 100), (100, 100)]);
        out.rewind(mark);
        out.push(None, &[1; 100]);
        out.push(None, &[2; 100]);
        assert_eq!(shape(&out), [(100, 100); 3]);
    }

    #[test]
    fn a_channel_puts_its_number_and_the_length_before_each_datagram() {
        let mut out = SendBuffer::new();
        add(&mut out, Some(0x4001), 5);
        add(&mut out, Some(0x4001), 3);
        assert_eq!(shape(&out), [(16, 9)]);
        assert_eq!(out.bytes(), [0x40, 1, 0, 5, 7, 7, 7, 7, 7, 0x40, 1, 0, 3, 7, 7, 7]);
    }
}
