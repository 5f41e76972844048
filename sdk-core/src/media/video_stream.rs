//! One channel of the camera: takes access units, cuts each into packets once, and keeps the
//! packets for all its viewers.

use super::history::{History, HistoryPacket};
use super::packetizer::{Shape, shapes};
use super::parameter_sets::{MAX_SETS, ParameterSets};
use super::srtp::MAX_RTP_OVERHEAD;
use crate::config::DEFAULT_GOP_CACHE;
use crate::event::StreamId;
use crate::wire::annexb::nal_units;
use crate::wire::codec::{Codec, ParameterSetKind, Unit};
use crate::wire::rtp::MAX_HEADER_LEN;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// How a stream is cut and how much of it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoConfig {
    /// Names the stream in its trains.
    pub source: StreamId,
    pub codec: Codec,
    /// Longest RTP payload in bytes.
    pub max_payload: usize,
    /// Bounds of the history. A frame that does not fit into it alone is refused.
    pub history_bytes: usize,
    pub history_packets: usize,
    pub history_trains: usize,
    /// A new viewer may start from the pictures since the last keyframe if these are no more
    /// bytes than this; 0 turns it off.
    pub gop_bytes: usize,
    /// Sends SEI units (captions, time codes, vendors' own data) instead of dropping them.
    pub keep_sei: bool,
}

impl VideoConfig {
    /// For H.264: four seconds of history at `bitrate` (bits per second) within 512 KiB and 4 MiB, and packets
    /// that fit into UDP payloads of `max_datagram` bytes whatever a viewer's session adds to them.
    pub fn new(bitrate: u32, max_datagram: usize) -> VideoConfig {
        let history_bytes = (bitrate as usize / 8 * 4).clamp(512 << 10, 4 << 20);
        VideoConfig {
            source: StreamId::default(),
            codec: Codec::H264,
            max_payload: max_datagram.saturating_sub(MAX_PACKET_OVERHEAD),
            history_bytes,
            history_packets: history_bytes / 512,
            history_trains: 256,
            gop_bytes: DEFAULT_GOP_CACHE,
            keep_sei: false,
        }
    }
}

/// The packets of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Train {
    /// The stream whose history holds the packets.
    pub source: StreamId,
    /// Index of the first packet in the stream; the others follow.
    pub first_packet: u64,
    pub packets: u32,
    /// Payload bytes of all packets.
    pub bytes: u32,
    /// Media time in units of 1/90000 s, before a viewer's own offset.
    pub timestamp: u32,
    /// An IDR picture (in H.265 any random access picture) with its parameter sets: a viewer may
    /// start here.
    pub keyframe: bool,
}

/// Names one train of all that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainId {
    source: StreamId,
    first_packet: u64,
}

impl Train {
    pub fn id(&self) -> TrainId {
        TrainId { source: self.source, first_packet: self.first_packet }
    }
}

/// Why a frame was not taken. The stream goes on with the next one as if it had not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    NoNalUnit,
    TooManyNalUnits,
    /// Its packets are more, or have more bytes, than the history may hold.
    TooLarge {
        bytes: usize,
        limit: usize,
    },
    /// A keyframe, but neither it nor a frame before it brought SPS and PPS, and for H.265 VPS.
    NoParameterSets,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::NoNalUnit => f.write_str(
                "the frame has no NAL unit; expected Annex B with start codes 00 00 01 or \
                 00 00 00 01, not length prefixes",
            ),
            FrameError::TooManyNalUnits => {
                write!(f, "the frame has more than {MAX_NALS} NAL units; use fewer slices")
            }
            FrameError::TooLarge { bytes, limit } => write!(
                f,
                "the frame makes {bytes} bytes of packets, the stream keeps at most {limit}; raise \
                 the stream's bitrate setting or lower the encoder's",
            ),
            FrameError::NoParameterSets => f.write_str(
                "a keyframe came without parameter sets (SPS, PPS, and for H.265 VPS), and not all \
                 of them came before it; push the encoder's parameter sets first",
            ),
        }
    }
}

impl std::error::Error for FrameError {}

/// Where the packets of trains lie: a stream, or several, of which each train names one.
pub trait Sources {
    fn video(&self, source: StreamId) -> Option<&VideoStream>;
}

/// The one stream there is.
impl Sources for VideoStream {
    fn video(&self, _source: StreamId) -> Option<&VideoStream> {
        Some(self)
    }
}

/// See the module.
pub struct VideoStream {
    config: VideoConfig,
    parameter_sets: ParameterSets,
    history: History,
    /// The history's size while nobody watches, in bytes and packets, and whether it has it.
    rest_size: (usize, usize),
    is_at_rest: bool,
    /// Nobody watches.
    may_rest: bool,
    trains: VecDeque<Train>,
    /// How many trains since (and with) the last keyframe, and their bytes.
    since_keyframe: Option<(usize, usize)>,
    /// The frame's units while it is cut; kept for its memory.
    nals: Vec<Nal>,
}

/// A unit to be sent: where its bytes are.
#[derive(Debug, Clone, Copy)]
enum Nal {
    /// `known` if the parameter sets have it too.
    OfFrame {
        start: usize,
        len: usize,
        known: bool,
    },
    OfParameterSets {
        at: usize,
        len: usize,
    },
}

impl VideoStream {
    pub fn new(mut config: VideoConfig) -> VideoStream {
        config.max_payload = config.max_payload.clamp(MIN_PAYLOAD, MAX_PAYLOAD);
        config.history_trains = config.history_trains.max(1);
        VideoStream {
            parameter_sets: ParameterSets::new(config.codec),
            history: History::new(config.history_bytes, config.history_packets),
            rest_size: rest_size(&config, 0, 0),
            is_at_rest: false,
            may_rest: false,
            trains: VecDeque::with_capacity(config.history_trains),
            since_keyframe: None,
            nals: Vec::with_capacity(MAX_NALS + MAX_SETS),
            config,
        }
    }

    /// Takes one access unit in Annex B. `timestamp` is on the encoder's own clock.
    ///
    /// Gives nothing when there was nothing to send: an encoder may hand over its parameter sets
    /// by themselves, and they are then sent with the next keyframe.
    pub fn push(
        &mut self,
        access_unit: &[u8],
        timestamp: Duration,
    ) -> Result<Option<Train>, FrameError> {
        let mut nals = std::mem::take(&mut self.nals);
        let keyframe = self.gather(access_unit, &mut nals);
        let train = keyframe.and_then(|keyframe| match keyframe {
            Some(keyframe) => self.cut(access_unit, &nals, timestamp, keyframe).map(Some),
            None => Ok(None),
        });
        nals.clear();
        self.nals = nals;
        train
    }

    /// While nobody watches, only the pictures that a viewer would start with are of use: the memory
    /// of the others is given back at the next keyframe, and taken again when somebody does.
    pub fn set_watched(&mut self, watched: bool) {
        self.may_rest = !watched;
        if watched && self.is_at_rest {
            self.history.resize(self.config.history_bytes, self.config.history_packets);
            self.is_at_rest = false;
        }
    }

    /// A packet's payload, while it is held.
    pub fn packet(&self, index: u64) -> Option<HistoryPacket<'_>> {
        self.history.packet(index)
    }

    /// Whether all packets of the train are still held.
    pub fn holds(&self, train: &Train) -> bool {
        train.first_packet >= self.history.first_index()
            && train.first_packet + u64::from(train.packets) <= self.history.next_index()
    }

    /// The trains since the last keyframe, beginning with it: what a new viewer needs to show the
    /// present picture at once. None of them if they are too many, or no longer held.
    pub fn gop_trains(
        &self,
    ) -> impl ExactSizeIterator<Item = Train> + DoubleEndedIterator + Clone + '_ {
        self.trains_for_viewer(u64::MAX)
    }

    /// The same for a viewer whose offer came when this was the number of the next packet. A keyframe
    /// that has come since was asked for on its account, and is not too large for it.
    pub fn trains_for_viewer(
        &self,
        offered_at: u64,
    ) -> impl ExactSizeIterator<Item = Train> + DoubleEndedIterator + Clone + '_ {
        let group = self.since_keyframe.and_then(|(count, bytes)| {
            let first = self.trains.len().checked_sub(count)?;
            let keyframe = self.trains.get(first).filter(|train| train.keyframe)?;
            let is_its_own = keyframe.first_packet >= offered_at;
            let serves = bytes <= self.config.gop_bytes || is_its_own;
            (serves && self.holds(keyframe)).then_some(first)
        });
        self.trains.range(group.unwrap_or(self.trains.len())..).copied()
    }

    /// Number of the packet that comes next.
    pub fn next_packet(&self) -> u64 {
        self.history.next_index()
    }

    /// The train that begins with this packet, while it is held.
    pub fn train_at(&self, first_packet: u64) -> Option<Train> {
        let at = self.trains.partition_point(|train| train.first_packet < first_packet);
        let train = self.trains.get(at).filter(|train| train.first_packet == first_packet)?;
        self.holds(train).then_some(*train)
    }

    /// The sequence parameter set, once it came: it says what the stream is.
    pub fn sps(&self) -> Option<&[u8]> {
        self.parameter_sets.first(ParameterSetKind::Sps)
    }

    /// Heap memory of the history and its lists, by capacity.
    pub fn held_bytes(&self) -> usize {
        self.history.held_bytes()
            + self.trains.capacity() * size_of::<Train>()
            + self.nals.capacity() * size_of::<Nal>()
    }

    pub fn config(&self) -> &VideoConfig {
        &self.config
    }

    /// Lists the units to send; `None` when there is no picture among them, otherwise whether it is
    /// a keyframe.
    fn gather(
        &mut self,
        access_unit: &[u8],
        nals: &mut Vec<Nal>,
    ) -> Result<Option<bool>, FrameError> {
        let (mut any, mut slices, mut keyframe) = (false, false, false);
        for (count, nal) in nal_units(access_unit).enumerate() {
            if count == MAX_NALS {
                return Err(FrameError::TooManyNalUnits);
            }
            any = true;
            let unit = self.config.codec.unit(nal);
            slices |= matches!(unit, Unit::Slice | Unit::KeySlice);
            keyframe |= unit == Unit::KeySlice;
            let dropped = match unit {
                Unit::Useless => true,
                Unit::Sei => !self.config.keep_sei,
                Unit::Slice | Unit::KeySlice | Unit::Other => false,
            };
            if !dropped {
                // The unit is a part of the access unit.
                let start = nal.as_ptr().addr() - access_unit.as_ptr().addr();
                let known = self.parameter_sets.note(nal);
                nals.push(Nal::OfFrame { start, len: nal.len(), known });
            }
        }
        if !any {
            return Err(FrameError::NoNalUnit);
        }
        if !keyframe {
            return Ok(slices.then_some(false));
        }
        if !self.parameter_sets.are_complete() {
            return Err(FrameError::NoParameterSets);
        }
        // All sets that are known go before the picture, in order, whether this frame repeats them
        // or not.
        nals.retain(|nal| !matches!(nal, Nal::OfFrame { known: true, .. }));
        let sets = &self.parameter_sets;
        let known = (0..sets.len()).map(|at| Nal::OfParameterSets { at, len: sets.get(at).len() });
        nals.splice(0..0, known);
        Ok(Some(true))
    }

    fn cut(
        &mut self,
        access_unit: &[u8],
        nals: &[Nal],
        timestamp: Duration,
        keyframe: bool,
    ) -> Result<Train, FrameError> {
        let nal_len = |nal: usize| match nals[nal] {
            Nal::OfFrame { len, .. } | Nal::OfParameterSets { len, .. } => len,
        };
        let VideoConfig { codec, max_payload, .. } = self.config;
        let plan = || shapes(codec, nals.len(), nal_len, max_payload);
        let measure = plan();
        let (packets, bytes) = plan().fold((0, 0), |(packets, bytes), shape| {
            (packets + 1, bytes + measure.payload_len(&shape))
        });
        if keyframe && self.may_rest && !self.is_at_rest {
            // Nobody needs what came before it.
            self.history.clear();
            self.history.resize(self.rest_size.0, self.rest_size.1);
            self.is_at_rest = true;
        }
        if self.is_at_rest && !self.history.can_hold(packets, bytes, max_payload) {
            // For this one, and from now on, so that it does not go to and fro.
            self.rest_size = rest_size(&self.config, bytes, packets);
            self.history.resize(self.rest_size.0, self.rest_size.1);
        }
        if !self.history.can_hold(packets, bytes, max_payload) {
            let limit = self.config.history_bytes.saturating_sub(max_payload);
            return Err(FrameError::TooLarge { bytes, limit });
        }

        let sets = &self.parameter_sets;
        let nal = |at: usize| bytes_of(&nals[at], access_unit, sets);
        let train = Train {
            source: self.config.source,
            first_packet: self.history.next_index(),
            packets: packets as u32,
            bytes: bytes as u32,
            timestamp: media_ticks(timestamp),
            keyframe,
        };
        for (at, shape) in plan().enumerate() {
            let len = measure.payload_len(&shape);
            self.history.append(len, at + 1 == packets, |payload| {
                write(codec, &shape, nal, payload);
            });
        }
        if self.trains.len() == self.config.history_trains {
            self.trains.pop_front();
        }
        self.trains.push_back(train);
        self.since_keyframe = match self.since_keyframe {
            _ if keyframe => Some((1, bytes)),
            since => since.map(|(count, sum)| (count + 1, sum + bytes)),
        };
        Ok(train)
    }
}

/// What of the history is enough for the pictures that a viewer starts with, and for a frame of so many
/// bytes and packets: in bytes and packets.
fn rest_size(config: &VideoConfig, bytes: usize, packets: usize) -> (usize, usize) {
    let all = config.history_bytes.max(1);
    // Up to one payload's bytes are wasted at the ring's end.
    let bytes = config.gop_bytes.max(bytes).min(all) + config.max_payload;
    let bytes = bytes.next_multiple_of(REST_STEP).min(all);
    // Packets on the average are as large as in the full history.
    let share = (config.history_packets as u64 * bytes as u64).div_ceil(all as u64);
    (bytes, packets.max(share as usize).min(config.history_packets))
}

const REST_STEP: usize = 64 << 10;

/// Media time of a moment on the encoder's clock, in units of 1/90000 s; it wraps every 13 hours.
pub fn media_ticks(timestamp: Duration) -> u32 {
    let fraction = u64::from(timestamp.subsec_nanos()) * 9 / 100_000;
    timestamp.as_secs().wrapping_mul(90_000).wrapping_add(fraction) as u32
}

fn bytes_of<'a>(nal: &Nal, access_unit: &'a [u8], sets: &'a ParameterSets) -> &'a [u8] {
    match *nal {
        Nal::OfFrame { start, len, .. } => &access_unit[start..start + len],
        Nal::OfParameterSets { at, .. } => sets.get(at),
    }
}

/// Writes one payload.
fn write<'a>(codec: Codec, shape: &Shape, nal: impl Fn(usize) -> &'a [u8], mut payload: &mut [u8]) {
    let mut put = |bytes: &[u8]| {
        let (place, rest) = std::mem::take(&mut payload).split_at_mut(bytes.len());
        place.copy_from_slice(bytes);
        payload = rest;
    };
    match *shape {
        Shape::Single { nal: at } => put(nal(at)),
        Shape::Aggregate { first, count } => {
            let units = first..first + count;
            codec.write_aggregate_header(units.clone().map(&nal), &mut put);
            for at in units {
                put(&(nal(at).len() as u16).to_be_bytes());
                put(nal(at));
            }
        }
        Shape::Fragment { nal: at, offset, len, end } => {
            let unit = nal(at);
            codec.write_fragment_header(unit, offset == 0, end, &mut put);
            put(&unit[codec.unit_header_len()..][offset..offset + len]);
        }
    }
}

/// What a viewer's session may add to a payload: RTP's header with extensions, the original
/// sequence number of a retransmission (RFC 4588), SRTP's tag, and a relay's channel number.
pub const MAX_PACKET_OVERHEAD: usize = MAX_HEADER_LEN + 2 + MAX_RTP_OVERHEAD + 4;
const MIN_PAYLOAD: usize = 64;
const MAX_PAYLOAD: usize = 60_000;
/// H.264 level 5.2 has at most that many slices worth having; H.265 level 5.2 has 200.
const MAX_NALS: usize = 256;
