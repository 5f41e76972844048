//! What a session counts, and how it says so.

use super::Session;
use crate::media::{SendBuffer, ViewerStats as MediaStats};
use crate::peer::Peer;
use crate::peer::data::Data;
use crate::peer::ice::Kind;
use crate::stats::{self, CandidateType, Drops, Name, Rate, Timeline, ViewerStats};
use crate::time::Now;
use crate::wire::signal::Path;
use std::time::{Duration, Instant};

pub(super) struct Counted {
    offer: Instant,
    stream_name: Name,
    timeline: Timeline,
    srtp_profile: Option<u16>,
    /// As of when the path was last told of: ICE makes copies to answer that.
    path: Option<Path>,
    candidates: Option<(Kind, Kind)>,
    media_bytes: u64,
    wire_bytes: u64,
    media: Rate,
    wire: Rate,
    /// Frames dropped by the queue so far, and those of them that had no way to go.
    queue_drops: u64,
    no_route_drops: u64,
}

impl Counted {
    pub(super) fn new(now: Now, stream_name: &str) -> Counted {
        Counted {
            offer: now.instant,
            stream_name: stats::name(stream_name),
            timeline: Timeline { offer_unix: now.wall, ..Timeline::default() },
            srtp_profile: None,
            path: None,
            candidates: None,
            media_bytes: 0,
            wire_bytes: 0,
            media: Rate::new(now.instant),
            wire: Rate::new(now.instant),
            queue_drops: 0,
            no_route_drops: 0,
        }
    }

    /// The viewer is sent this stream from now on.
    pub(super) fn on_stream(&mut self, name: &str) {
        self.stream_name = stats::name(name);
    }

    pub(super) fn on_answer(&mut self, now: Instant) {
        let since = self.since(now);
        self.timeline.answer.get_or_insert(since);
    }

    /// A check has shown that there is a path.
    pub(super) fn on_path(&mut self, now: Instant) {
        let since = self.since(now);
        self.timeline.ice.get_or_insert(since);
    }

    /// Media takes this path from now on.
    pub(super) fn on_route(&mut self, peer: &Peer) {
        self.path = peer.path();
        self.candidates = peer.candidates();
    }

    pub(super) fn on_keys(&mut self, now: Instant, profile: u16) {
        self.on_path(now);
        let since = self.since(now);
        self.timeline.dtls.get_or_insert(since);
        self.srtp_profile = Some(profile);
    }

    /// A frame was queued, which may have cost those that waited.
    pub(super) fn on_queued(&mut self, has_route: bool, media: Option<&MediaStats>) {
        let all = media.map_or(0, |media| media.drops.queue_full);
        if !has_route {
            self.no_route_drops += all.saturating_sub(self.queue_drops);
        }
        self.queue_drops = all;
    }

    /// All that is in `sealed` goes out.
    pub(super) fn on_sealed(
        &mut self,
        now: Instant,
        sealed: &SendBuffer,
        media: Option<&MediaStats>,
    ) {
        self.on_wire(now, sealed.bytes().len());
        let Some(media) = media else { return };
        self.media.add(now, media.bytes.saturating_sub(self.media_bytes));
        self.media_bytes = media.bytes;
        if media.frames > 0 {
            let since = self.since(now);
            self.timeline.first_frame.get_or_insert(since);
        }
    }

    /// A report is part of what the media costs.
    pub(super) fn on_report(&mut self, now: Instant, len: usize) {
        self.on_wire(now, len);
    }

    fn on_wire(&mut self, now: Instant, bytes: usize) {
        self.wire_bytes += bytes as u64;
        self.wire.add(now, bytes as u64);
    }

    fn since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.offer)
    }
}

impl Session {
    pub fn stats(&self, now: Now) -> ViewerStats {
        let counted = &self.counted;
        let media = self.viewer.stats().copied().unwrap_or_default();
        ViewerStats {
            session: self.id,
            app: stats::name(&self.app),
            stream: self.stream,
            stream_name: counted.stream_name.clone(),
            path: counted.path,
            local_candidate: counted.candidates.map(|(local, _)| candidate_type(local)),
            remote_candidate: counted.candidates.map(|(_, remote)| candidate_type(remote)),
            srtp_profile: counted.srtp_profile,
            timeline: Timeline { age: counted.since(now.instant), ..counted.timeline },
            rtt: media.rtt.or_else(|| self.peer.rtt()),
            jitter: media.jitter,
            fraction_lost: media.fraction_lost,
            lost_packets: media.lost_packets,
            frames: media.frames,
            packets: media.packets,
            media_bytes: media.bytes,
            wire_bytes: counted.wire_bytes,
            media_bps: 8 * counted.media.last_second(now.instant),
            wire_bps: 8 * counted.wire.last_second(now.instant),
            target_bps: self.target().map_or(0, u64::from),
            nacks: media.nacks,
            nacked_packets: media.nacked_packets,
            resent_packets: media.resent_packets,
            resends_withheld: media.resends_withheld,
            plis: media.plis,
            firs: media.firs,
            drops: Drops {
                queue_full: media.drops.queue_full.saturating_sub(counted.no_route_drops),
                no_route: counted.no_route_drops,
                ..media.drops
            },
            held_bytes: (size_of::<Session>()
                + self.viewer.held_bytes()
                + self.peer.data().map_or(0, Data::held_bytes)) as u64,
            audio: self.viewer.sound().stats(),
            talkback: self.viewer.sound().talkback_stats(),
            data: self.peer.data().map(Data::stats).unwrap_or_default(),
        }
    }
}

fn candidate_type(kind: Kind) -> CandidateType {
    match kind {
        Kind::Host => CandidateType::Host,
        Kind::ServerReflexive => CandidateType::ServerReflexive,
        Kind::PeerReflexive => CandidateType::PeerReflexive,
        Kind::Relayed => CandidateType::Relayed,
    }
}
