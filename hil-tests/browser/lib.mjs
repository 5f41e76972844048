// Chromium with the viewer page in it, and what tests read from the page.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { chromium } from 'playwright-core';

const CHROMIUM = process.env.P2PCAM_CHROMIUM ?? '/usr/bin/chromium';
const ARGS = [
  '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];
/** A microphone that beeps, and that pages may have without asking. */
export const FAKE_MICROPHONE = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'];
const LAUNCH_WITHIN_MS = 60_000;
const POLL_EVERY_MS = 50;

/** A Chromium with an empty profile: {context, close()}. `args`: flags beside the usual ones. */
export async function openBrowser({ width = 1280, height = 900, args = [] } = {}) {
  const profile = mkdtempSync(path.join(tmpdir(), 'p2pcam-chromium-'));
  const forget = () => rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  try {
    const context = await chromium.launchPersistentContext(profile, {
      executablePath: CHROMIUM,
      headless: false, // ARGS say so themselves, with the headless mode that renders as the real one
      args: [...ARGS, ...args],
      viewport: { width, height },
      timeout: LAUNCH_WITHIN_MS,
    });
    const close = async () => {
      await context.close().catch(() => {});
      forget();
    };
    return { context, close };
  } catch (error) {
    forget();
    throw error;
  }
}

/** A new page whose console errors are kept in `page.problems`. */
export async function openPage(context, url) {
  const page = await context.newPage();
  page.problems = [];
  page.on('pageerror', (error) => page.problems.push(error.message));
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) page.problems.push(message.text());
  });
  await page.goto(url, { waitUntil: 'commit' });
  return page;
}

/** Asks until `found(value)` holds; fails with the last value. */
export async function until(ask, found, withinMs, what) {
  let value;
  for (const end = Date.now() + withinMs; Date.now() < end; await sleep(POLL_EVERY_MS)) {
    value = await ask();
    if (found(value)) return value;
  }
  throw new Error(`${what}: not within ${withinMs} ms; last seen: ${JSON.stringify(value)}`);
}

/** What the page says of itself. */
export const viewerState = (page) => page.evaluate(() => {
  const { p2pcam } = window;
  return p2pcam && {
    state: p2pcam.state.name, step: p2pcam.state.step ?? null, error: p2pcam.error,
    sessionId: p2pcam.sessionId, firstFrameMs: p2pcam.firstFrameMs, timeline: { ...p2pcam.timeline },
    path: p2pcam.path,
  };
});

/** Figures of the picture now, from getStats alone. */
export const videoStats = (page) => page.evaluate(async () => {
  if (!window.p2pcam?.pc) return null;
  const report = [...(await window.p2pcam.pc.getStats()).values()];
  const video = report.find((s) => s.type === 'inbound-rtp' && s.kind === 'video') ?? {};
  const transport = report.find((s) => s.type === 'transport') ?? {};
  const pair = report.find((s) => s.id === transport.selectedCandidatePairId) ?? {};
  const end = (id) => report.find((s) => s.id === id)?.candidateType ?? null;
  return {
    atMs: Math.round(performance.now()),
    framesDecoded: video.framesDecoded ?? 0,
    keyFramesDecoded: video.keyFramesDecoded ?? 0,
    framesDropped: video.framesDropped ?? 0,
    width: video.frameWidth ?? 0,
    height: video.frameHeight ?? 0,
    freezeCount: video.freezeCount ?? 0,
    totalFreezesDuration: video.totalFreezesDuration ?? 0,
    bytesReceived: video.bytesReceived ?? 0,
    packetsReceived: video.packetsReceived ?? 0,
    packetsLost: video.packetsLost ?? 0,
    retransmittedPacketsReceived: video.retransmittedPacketsReceived ?? 0,
    nackCount: video.nackCount ?? 0,
    pliCount: video.pliCount ?? 0,
    jitterBufferMs: video.jitterBufferEmittedCount
      ? (1000 * video.jitterBufferDelay) / video.jitterBufferEmittedCount : null,
    codec: report.find((s) => s.id === video.codecId)?.mimeType ?? null,
    dtlsCipher: transport.dtlsCipher ?? null,
    srtpCipher: transport.srtpCipher ?? null,
    local: end(pair.localCandidateId),
    remote: end(pair.remoteCandidateId),
    roundTripMs: pair.currentRoundTripTime === undefined ? null : pair.currentRoundTripTime * 1000,
  };
});

/** Colours [r, g, b] of the frame on show, at points in the video's own pixels. */
export const pixels = (page, points) => page.evaluate((wanted) => {
  const video = document.getElementById('video');
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  const draw = canvas.getContext('2d', { willReadFrequently: true });
  draw.drawImage(video, 0, 0);
  return wanted.map(([x, y]) => [...draw.getImageData(x, y, 1, 1).data.slice(0, 3)]);
}, points);
