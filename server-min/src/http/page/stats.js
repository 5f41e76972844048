// Reads getStats: the figures the page shows, and the path the media takes.

/** One reading: totals as the browser counts them, and the path. Rates need two readings. */
export async function readStats(pc) {
  const report = [...(await pc.getStats()).values()];
  const video = report.find((s) => s.type === 'inbound-rtp' && s.kind === 'video');
  const pair = selectedPair(report);
  return {
    atMs: video?.timestamp ?? performance.timeOrigin + performance.now(),
    video,
    codec: report.find((s) => s.id === video?.codecId)?.mimeType?.replace('video/', ''),
    path: pair && pathOf(pair, report),
    roundTripMs: pair?.currentRoundTripTime === undefined ? undefined : pair.currentRoundTripTime * 1000,
  };
}

/** What happened between two readings, per second. */
export function rates(before, now) {
  const seconds = (now.atMs - before.atMs) / 1000;
  if (!now.video || !before.video || seconds <= 0) return {};
  const grown = (field) => (now.video[field] ?? 0) - (before.video[field] ?? 0);
  const lost = Math.max(0, grown('packetsLost')), received = grown('packetsReceived');
  return {
    framesPerSecond: grown('framesDecoded') / seconds,
    bitsPerSecond: (grown('bytesReceived') * 8) / seconds,
    lossRatio: lost + received > 0 ? lost / (lost + received) : 0,
  };
}

function selectedPair(report) {
  const transport = report.find((s) => s.type === 'transport' && s.selectedCandidatePairId);
  return report.find((s) => s.id === transport?.selectedCandidatePairId)
    // Firefox has no transport stats and marks the pair instead.
    ?? report.find((s) => s.type === 'candidate-pair' && s.nominated && s.state === 'succeeded');
}

/** The kind of the pair's candidate that says most about the way. */
function pathOf(pair, report) {
  const local = report.find((s) => s.id === pair.localCandidateId);
  const remote = report.find((s) => s.id === pair.remoteCandidateId);
  const types = [local?.candidateType, remote?.candidateType];
  return {
    kind: ['relay', 'srflx', 'prflx', 'host'].find((kind) => types.includes(kind)),
    relayed: types.includes('relay'),
    relayProtocol: local?.relayProtocol,
    local: local?.candidateType,
    remote: remote?.candidateType,
  };
}
