// The viewer page while it plays: what signals in the wrong order, copies of them, and lost
// connections do to it. The camera is a browser page, so that it can be told to do all that.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { startBrowserCamera } from './browser-camera.mjs';
import { openBrowser, openPage, pixels, until, videoStats, viewerState } from './lib.mjs';
import { ServerMin } from './server.mjs';

const TIMEOUT = { timeout: 90_000 };
const PLAYING_WITHIN_MS = 25_000;
let server;
let browser;
before(async () => {
  server = await ServerMin.start();
  browser = await openBrowser();
}, TIMEOUT);
after(async () => {
  await browser?.close();
  await server?.stop();
});

const startCamera = async (t, sn, options) => {
  const camera = await startBrowserCamera(browser.context, server, sn, options);
  t.after(() => camera.stop());
  return camera;
};
const watch = async (t, sn, query = '') => {
  const page = await openPage(browser.context, server.viewer(sn, { query }));
  t.after(() => page.close());
  return page;
};
const playing = (page, and = () => true) => until(() => viewerState(page),
  (s) => s?.state === 'playing' && and(s), PLAYING_WITHIN_MS, 'it does not play');
const framesGrow = async (page, by = 10) => {
  const { framesDecoded: before } = await videoStats(page);
  await until(() => videoStats(page), (s) => s.framesDecoded >= before + by, 10_000, 'the picture stands still');
};

async function watchCli(...args) {
  const child = spawn(process.execPath, [fileURLToPath(new URL('watch.mjs', import.meta.url)), ...args],
    { stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.on('data', (text) => (out += text));
  const [code] = await once(child, 'close');
  return { code, report: JSON.parse(out) };
}

test('it plays, and says how', TIMEOUT, async (t) => {
  const camera = await startCamera(t, 'cam_plays');
  const page = await watch(t, 'cam_plays');
  const { firstFrameMs, timeline } = await playing(page);
  await framesGrow(page);
  // The picture can be there before the browser says that it is connected.
  const order = ['start', 'grant', 'offer', 'answer', 'connected'].map((step) => timeline[step]);
  assert.deepEqual(order, [...order].sort((a, b) => a - b));
  assert.ok(Math.abs(firstFrameMs - timeline.firstFrame) < 1, 'counted from the opening of the page');

  const [red, green] = await until(async () => {
    const { width, height } = await videoStats(page);
    return pixels(page, [[width / 8, height / 5], [width * 0.6, height * 0.3]].map((p) => p.map(Math.round)));
  }, ([r, g]) => r[0] > 150 && r[1] < 90 && g[1] > 110 && g[0] < 80, 10_000, 'not the camera’s picture');
  assert.ok(red && green);

  const figures = () => page.evaluate(() => Object.fromEntries(
    ['state', 'path', 'first', 'rate', 'bits', 'size', 'codec', 'rtt', 'loss', 'session'].map((id) => [id, document.getElementById(id).textContent])));
  const shown = await until(figures, (f) => /[1-9]/.test(f.rate) && f.bits !== '–' && f.rtt !== '–', 10_000, 'figures are missing');
  assert.equal(shown.state, 'Live');
  assert.match(shown.path, /^direct/);
  assert.match(shown.first, /^\d+ ms$/);
  assert.match(shown.size, /^\d+ × \d+$/);
  assert.equal(shown.codec, 'H.264');
  assert.match(shown.loss, /^\d+\.\d %$/);
  assert.match(shown.session, /^[0-9a-f-]{36}$/);

  const reports = (await camera.heard()).filter((m) => m.type === 'keepalive').map((m) => m.payload);
  const connected = reports.find((r) => r.state === 'connected');
  assert.ok(['host', 'prflx', 'srflx'].includes(connected.path), connected.path);
  assert.ok(connected.setupMs > 0 && connected.setupMs < 20_000, connected.setupMs);
  const record = () => fetch(`${server.url}v1/sessions/${shown.session}`, {
    headers: { authorization: `Bearer ${server.key}` },
  }).then((r) => r.json());
  await until(record, (r) => r.status === 'connected', 5_000, 'the service does not know it is connected');
});

test('with relay=1 and no UDP it goes through the relay by TCP, and says so', TIMEOUT, async (t) => {
  await startCamera(t, 'cam_relay_tcp');
  // As where a network lets no UDP out: the other ways are taken out of the answer.
  const byTcp = async (route) => {
    const response = await route.fetch();
    const json = await response.json();
    json.iceServers = json.iceServers
      .map((server) => ({ ...server, urls: server.urls.filter((url) => url.endsWith('?transport=tcp')) }))
      .filter((server) => server.urls.length);
    await route.fulfill({ response, json });
  };
  await browser.context.route('**/v1/sessions', byTcp);
  t.after(() => browser.context.unroute('**/v1/sessions', byTcp));
  const page = await watch(t, 'cam_relay_tcp', '&relay=1');
  await playing(page);
  await framesGrow(page);
  assert.equal((await videoStats(page)).local, 'relay');
  await until(() => page.locator('#path').textContent(), (text) => text === 'relayed over TCP', 5_000, 'not said');
});

test('with relay=1 it goes through the relay, and says so', TIMEOUT, async (t) => {
  const camera = await startCamera(t, 'cam_relay');
  const page = await watch(t, 'cam_relay', '&relay=1');
  await playing(page);
  await framesGrow(page);
  assert.equal((await videoStats(page)).local, 'relay');
  await until(() => page.locator('#path').textContent(), (text) => text === 'relayed over UDP', 5_000, 'not said');
  const reports = (await camera.heard()).filter((m) => m.type === 'keepalive').map((m) => m.payload);
  assert.equal(reports.find((r) => r.state === 'connected').path, 'relay');
});

test('where no way is found, it says so', TIMEOUT, async (t) => {
  await startCamera(t, 'cam_unreachable', { unreachable: true });
  const page = await watch(t, 'cam_unreachable');
  const { error, firstFrameMs } = await until(() => viewerState(page), (s) => s?.state === 'failed', 30_000, 'it goes on');
  assert.deepEqual([error.kind, error.code], ['timeout', 408]);
  assert.equal(await page.locator('#failure-title').innerText(), 'Nothing connected in time');
  await sleep(500); // an ended stream can look like a loaded one
  assert.equal(firstFrameMs, null);
  assert.equal((await viewerState(page)).firstFrameMs, null);
});

test('watch.mjs reports a viewing as JSON', TIMEOUT, async (t) => {
  await startCamera(t, 'cam_watch');
  const { code, report } = await watchCli('--url', server.viewer('cam_watch'), '--seconds', '2', '--click', '--pixel', '1,1');
  assert.equal(code, 0, JSON.stringify(report));
  assert.equal(report.state, 'playing');
  assert.equal(report.relayed, false);
  assert.ok(report.framesDecoded.length >= 3 && report.framesDecoded.at(-1) > report.framesDecoded[0] + 10);
  assert.ok(report.keyFramesDecoded >= 1 && report.width > 0 && report.bytesReceived > 0);
  assert.ok(report.firstFrameMs > 0 && report.firstFrameMs < PLAYING_WITHIN_MS, 'from the click');
  const [[, green]] = report.pixels;
  assert.ok(green > 110, `${report.pixels}`);

  const wrong = server.viewer('cam_watch', { key: 'wrong' });
  const refused = await watchCli('--url', wrong, '--expect-error', 'key was refused');
  assert.deepEqual([refused.code, refused.report.error.kind], [0, 'key']);
  const failed = await watchCli('--url', wrong, '--seconds', '1');
  assert.equal(failed.code, 1);
  assert.match(failed.report.failure, /key was refused/);
});

test('watch.mjs uses what is beside the picture', TIMEOUT, async (t) => {
  const abilities = { audio: 'microphone loudspeaker', data: true, streams: ['main', 'sub'] };
  await startCamera(t, 'cam_used', abilities);
  const { code, report } = await watchCli('--url', server.viewer('cam_used'), '--seconds', '1',
    '--listen', '--talk', '1', '--command', 'ptz up', '--stream', 'sub');
  assert.equal(code, 0, JSON.stringify(report));
  assert.equal(report.listen.codec, 'audio/opus');
  assert.ok(report.listen.energy > 0 && report.listen.packetsReceived > 0);
  assert.ok(report.talk.packetsSent > 20, `${report.talk.packetsSent}`);
  assert.equal(report.command.reply, 'done: ptz up');
  assert.deepEqual([report.stream.current, report.stream.names], ['sub', ['main', 'sub']]);

  const { code: failed, report: why } = await watchCli('--url', server.viewer('cam_used'), '--within', '5', '--stream', 'third');
  assert.equal(failed, 1);
  assert.match(why.failure, /third|option/);
});

test('candidates before the answer, and everything twice', TIMEOUT, async (t) => {
  await startCamera(t, 'cam_disorder', { answerDelayMs: 400, copies: 2 });
  const page = await watch(t, 'cam_disorder');
  await playing(page);
  await framesGrow(page);
  assert.deepEqual(page.problems, []);
});

test('an answer slower than the offer’s repetition still counts once', TIMEOUT, async (t) => {
  const camera = await startCamera(t, 'cam_slow', { answerDelayMs: 1_500, copies: 2 });
  const page = await watch(t, 'cam_slow');
  await playing(page);
  await framesGrow(page);
  assert.ok((await camera.heard()).filter((m) => m.type === 'offer').length >= 2);
  assert.deepEqual(page.problems, []);
});

test('a lost path is replaced by an ICE restart in the same session', TIMEOUT, async (t) => {
  const camera = await startCamera(t, 'cam_restart', { answerDelayMs: 300, copies: 2 });
  const page = await watch(t, 'cam_restart');
  const { sessionId } = await playing(page);
  await sleep(1_000); // late copies of the first answer are through
  const ufrag = () => page.evaluate(() => window.p2pcam.pc.remoteDescription.sdp.match(/a=ice-ufrag:(\S+)/)[1]);
  const old = await ufrag();
  // A browser cannot be made to lose its path from outside without touching the machine's network.
  await page.evaluate(() => {
    const { pc } = window.p2pcam;
    Object.defineProperty(pc, 'connectionState', { configurable: true, get: () => 'failed' });
    pc.dispatchEvent(new Event('connectionstatechange'));
    delete pc.connectionState;
  });
  assert.equal((await viewerState(page)).state, 'recovering');
  await until(ufrag, (now) => now !== old, 8_000, 'no ICE restart');
  await playing(page, (s) => s.sessionId === sessionId);
  await framesGrow(page);
  const offers = (await camera.heard()).filter((m) => m.type === 'offer').map((m) => m.payload.sdp);
  assert.equal(new Set(offers).size, 2);
});

test('a camera that starts anew is called again by itself', TIMEOUT, async (t) => {
  const camera = await startCamera(t, 'cam_anew');
  const page = await watch(t, 'cam_anew');
  const { sessionId } = await playing(page);
  await camera.loseConnections();
  await playing(page, (s) => s.sessionId !== sessionId);
  await framesGrow(page);
});

test('a camera that cannot go on with a further offer is called again by itself', TIMEOUT, async (t) => {
  const camera = await startCamera(t, 'cam_other_numbers');
  const page = await watch(t, 'cam_other_numbers');
  const { sessionId } = await playing(page);
  await camera.say('error', { code: 406, message: 'the new offer has another meaning for payload type 108' });
  await playing(page, (s) => s.sessionId !== sessionId);
  await framesGrow(page);
});

test('a camera’s bye is final until someone asks for more', TIMEOUT, async (t) => {
  const camera = await startCamera(t, 'cam_ends');
  const page = await watch(t, 'cam_ends');
  await playing(page);
  await camera.say('bye', { reason: 'switched off by its owner' });
  await until(() => viewerState(page), (s) => s.error?.kind === 'ended', 5_000, 'the bye was not heard');
  assert.equal(await page.locator('#failure-detail').textContent(), 'switched off by its owner');
  await page.click('#retry');
  await playing(page);
});

test('the broker may restart without disturbing the picture', TIMEOUT, async (t) => {
  const own = await ServerMin.start('--mqtt.app_secret', 'stays-the-same');
  t.after(() => own.stop());
  const camera = await startBrowserCamera(browser.context, own, 'cam_broker');
  t.after(() => camera.stop());
  const page = await openPage(browser.context, own.viewer('cam_broker'));
  t.after(() => page.close());
  const { sessionId } = await playing(page);
  await own.restart();
  await framesGrow(page, 30);
  await playing(page, (s) => s.sessionId === sessionId);
  // Connected to the broker again, it can say goodbye.
  await until(() => camera.page.evaluate(() => window.camera.link.online), Boolean, 20_000, 'the camera stays offline');
  await sleep(3_000);
  await page.evaluate(() => window.p2pcam.stop());
  await until(camera.heard, (all) => all.some((m) => m.type === 'bye'), 10_000, 'no bye after the restart');
});
