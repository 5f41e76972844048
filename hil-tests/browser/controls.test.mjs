// What the viewer page has beside the picture: sound, talking, moving the camera, other streams. The
// camera is a browser page that has all of that, or not.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startBrowserCamera } from './browser-camera.mjs';
import { FAKE_MICROPHONE, openBrowser, openPage, pixels, until, videoStats, viewerState } from './lib.mjs';
import { ServerMin } from './server.mjs';

const TIMEOUT = { timeout: 90_000 };
const PLAYING_WITHIN_MS = 25_000;
const SOON_MS = 10_000;
let server;
let browser;
before(async () => {
  server = await ServerMin.start();
  browser = await openBrowser({ args: FAKE_MICROPHONE });
}, TIMEOUT);
after(async () => {
  await browser?.close();
  await server?.stop();
});

/** The page, playing what a camera with these abilities sends: {camera, page}. */
async function playing(t, sn, abilities, query = '', before = () => {}) {
  const camera = await startBrowserCamera(browser.context, server, sn, abilities);
  t.after(() => camera.stop());
  const page = await openPage(browser.context, 'about:blank');
  t.after(() => page.close());
  await page.addInitScript(before);
  await page.goto(server.viewer(sn, { query }));
  await until(() => viewerState(page), (s) => s?.state === 'playing', PLAYING_WITHIN_MS, 'it does not play');
  return { camera, page };
}

const offers = async (camera) => {
  const texts = (await camera.heard()).filter((m) => m.type === 'offer').map((m) => m.payload.sdp);
  return [...new Set(texts)];
};
const section = (sdp, kind) => sdp.split(/^(?=m=)/m).find((part) => part.startsWith(`m=${kind} `));
const soundStats = (page) => page.evaluate(async () => {
  const report = [...(await window.p2pcam.pc.getStats()).values()];
  return report.find((s) => s.type === 'inbound-rtp' && s.kind === 'audio') ?? {};
});
const microphones = (page) => page.evaluate(() => window.microphones.map(({ readyState }) => readyState));
/** Keeps the tracks that the page's microphone gave. */
const countMicrophones = () => {
  window.microphones = [];
  const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (constraints) => {
    const stream = await open(constraints);
    window.microphones.push(...stream.getTracks());
    window.microphoneConstraints = constraints;
    return stream;
  };
};
const note = (page, pattern) => until(
  () => page.evaluate(() => (document.getElementById('note').checkVisibility() ? document.getElementById('note').textContent : '')),
  (text) => pattern.test(text), SOON_MS, `the note does not say ${pattern}`);
const stillPlaying = async (page) => {
  const { framesDecoded } = await videoStats(page);
  await until(() => videoStats(page), (s) => s.framesDecoded > framesDecoded + 10, SOON_MS, 'the picture stands still');
};

test('the offer’s sound is what cameras speak, in this order', TIMEOUT, async (t) => {
  const { camera, page } = await playing(t, 'cam_silent', {});
  const [sdp] = await offers(camera);
  const audio = section(sdp, 'audio');
  assert.match(audio, /^a=recvonly/m);
  assert.deepEqual([...audio.matchAll(/^a=rtpmap:\d+ (\S+)/gm)].map((m) => m[1]), ['opus/48000/2', 'PCMU/8000', 'PCMA/8000']);
  assert.equal(section(sdp, 'application'), undefined, 'no data channel that nobody has asked for');
  assert.match(sdp, /^a=group:BUNDLE 0 1/m);
  // This camera rejects the section: there is nothing to press for it.
  for (const id of ['sound', 'talk', 'quality']) assert.equal(await page.locator(`#${id}`).isVisible(), false, id);
  assert.deepEqual(page.problems, []);
});

test('sound comes with the picture, and is heard after a press of the button', TIMEOUT, async (t) => {
  const { page } = await playing(t, 'cam_sound', { audio: 'microphone' });
  const sound = page.locator('#sound');
  await sound.waitFor();
  const muted = () => page.evaluate(() => document.getElementById('video').muted);
  assert.deepEqual([await muted(), await sound.getAttribute('aria-pressed')], [true, 'false']);
  assert.equal((await soundStats(page)).totalAudioEnergy, 0);
  await sound.click();
  assert.deepEqual([await muted(), await sound.getAttribute('aria-pressed')], [false, 'true']);
  await until(() => soundStats(page), (s) => s.totalAudioEnergy > 0 && s.totalSamplesReceived > 8_000, SOON_MS, 'nothing is heard');
  assert.equal(await page.evaluate(() => document.getElementById('video').srcObject.getAudioTracks().length), 1);
  await stillPlaying(page);
  assert.deepEqual(page.problems, []);
});

test('talking offers the microphone, and ends with it', TIMEOUT, async (t) => {
  const { camera, page } = await playing(t, 'cam_talk', { audio: 'microphone loudspeaker' }, '', countMicrophones);
  const talk = page.locator('#talk');
  await talk.waitFor();
  assert.deepEqual(await microphones(page), []);
  assert.equal((await camera.listen()).packets, 0);

  await talk.click();
  await until(() => page.evaluate(() => window.p2pcam.audio.talking), (s) => s === 'on', SOON_MS, 'it does not talk');
  assert.equal(await talk.getAttribute('aria-pressed'), 'true');
  const { echoCancellation } = await page.evaluate(() => window.microphoneConstraints.audio);
  assert.equal(echoCancellation, true);
  await until(() => camera.listen(), ({ packets, energy }) => packets > 50 && energy > 0, SOON_MS, 'the camera hears nothing');
  await stillPlaying(page);

  await talk.click();
  assert.deepEqual(await microphones(page), ['ended'], 'at once');
  const all = await until(() => offers(camera), ({ length }) => length === 3, SOON_MS, 'the camera was not told of the end');
  assert.deepEqual(all.map((sdp) => section(sdp, 'audio').match(/^a=(recvonly|sendrecv)/m)[1]), ['recvonly', 'sendrecv', 'recvonly']);
  const ufrags = new Set(all.map((sdp) => sdp.match(/a=ice-ufrag:(\S+)/)[1]));
  assert.equal(ufrags.size, 1, 'the same session goes on');
  await stillPlaying(page);

  // And again.
  const { packets } = await camera.listen();
  await talk.click();
  await until(() => camera.listen(), (now) => now.packets > packets + 20, SOON_MS, 'it does not talk a second time');
  assert.deepEqual(await microphones(page), ['ended', 'live']);
  await page.evaluate(() => window.p2pcam.stop());
  assert.deepEqual(await microphones(page), ['ended', 'ended'], 'with the session');
  assert.deepEqual(page.problems, []);
});

test('a camera that does not listen gets no microphone for long', TIMEOUT, async (t) => {
  const { page } = await playing(t, 'cam_deaf', { audio: 'microphone' }, '', countMicrophones);
  await page.click('#talk');
  await note(page, /does not listen/);
  assert.deepEqual(await microphones(page), ['ended']);
  assert.equal(await page.locator('#talk').getAttribute('aria-pressed'), 'false');
  await stillPlaying(page);
});

test('without https, the button says why it cannot', TIMEOUT, async (t) => {
  const insecure = () => Object.defineProperty(navigator, 'mediaDevices', { value: undefined });
  const { camera, page } = await playing(t, 'cam_insecure', { audio: 'microphone loudspeaker' }, '', insecure);
  await page.click('#talk');
  await note(page, /microphone.*https/);
  assert.equal((await offers(camera)).length, 1);
});

test('a microphone that is refused is said to be', TIMEOUT, async (t) => {
  const refused = () => {
    navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', 'NotAllowedError'));
  };
  const { page } = await playing(t, 'cam_refused', { audio: 'microphone loudspeaker' }, '', refused);
  await page.click('#talk');
  await note(page, /not allowed/);
  assert.equal(await page.evaluate(() => window.p2pcam.audio.talking), 'off');
});

test('the pad opens the control channel and moves the camera while it is held', TIMEOUT, async (t) => {
  const { camera, page } = await playing(t, 'cam_ptz', { data: true });
  assert.equal(await page.locator('#pad').isVisible(), false);
  await page.click('#controls');
  await page.locator('#pad').waitFor();
  const channel = await page.evaluate(() => window.p2pcam.session.control.state);
  assert.equal(channel, 'open');

  const { x, y, width, height } = await page.locator('[data-ptz="left"]').boundingBox();
  await page.mouse.move(x + width / 2, y + height / 2);
  await page.mouse.down();
  await until(camera.texts, ({ length }) => length === 1, SOON_MS, 'nothing came');
  await page.mouse.move(x + 300, y + 300); // it slips off, and is let go there
  await page.mouse.up();
  await page.focus('[data-ptz="zoom-in"]');
  await page.keyboard.down('Enter');
  await page.keyboard.up('Enter');
  const texts = await until(camera.texts, ({ length }) => length >= 4, SOON_MS, 'too little came');
  assert.deepEqual(texts, ['ptz left', 'ptz stop', 'ptz zoom-in', 'ptz stop']);
  await note(page, /done: ptz stop/);
  assert.equal((await offers(camera)).length, 2, 'opened by a further offer');

  await page.click('#controls');
  await page.locator('#pad').waitFor({ state: 'hidden' });
  await page.click('#controls');
  await page.locator('#pad').waitFor();
  await page.click('[data-ptz="up"]');
  await until(camera.texts, (all) => all.includes('ptz up'), SOON_MS, 'the second channel does not work');
  assert.equal((await offers(camera)).length, 2, 'which needs no offer');
  await stillPlaying(page);
  assert.deepEqual(page.problems, []);
});

test('on a phone nothing sticks out while it plays', TIMEOUT, async (t) => {
  const abilities = { audio: 'microphone loudspeaker', data: true, streams: ['main', 'sub'] };
  const { page } = await playing(t, 'cam_phone', abilities);
  await page.setViewportSize({ width: 360, height: 740 });
  await page.click('#controls');
  await page.locator('#pad').waitFor();
  const { wide, cut, covered } = await page.evaluate(() => {
    const stage = document.getElementById('stage').getBoundingClientRect();
    const pressed = [...document.querySelectorAll('.tools button, .tools select')].filter((e) => e.checkVisibility());
    const named = (elements) => elements.map((e) => e.id || e.dataset.ptz);
    return {
      wide: document.documentElement.scrollWidth,
      cut: named(pressed.filter((e) => {
        const { left, right, top, bottom } = e.getBoundingClientRect();
        return left < stage.left || right > stage.right || top < stage.top || bottom > stage.bottom;
      })),
      covered: named(pressed.filter((e) => {
        const { left, top, width, height } = e.getBoundingClientRect();
        return e !== document.elementFromPoint(left + width / 2, top + height / 2)?.closest('button, select');
      })),
    };
  });
  assert.deepEqual({ fits: wide <= 360, cut, covered }, { fits: true, cut: [], covered: [] });
});

test('p2pcam.control is for pages around this one', TIMEOUT, async (t) => {
  const { camera, page } = await playing(t, 'cam_embedded', { data: true });
  assert.equal(await page.evaluate(() => window.p2pcam.control.send('too early')), false);
  await page.evaluate(async () => {
    window.replies = [];
    window.p2pcam.control.addEventListener('message', ({ detail }) => window.replies.push(detail.text));
    await window.p2pcam.control.open();
    window.p2pcam.control.send('relay 1 on');
  });
  const replies = () => page.evaluate(() => window.replies);
  await until(replies, (all) => all.includes('done: relay 1 on'), SOON_MS, 'no reply');
  await camera.tell('door: open');
  await until(replies, (all) => all.includes('door: open'), SOON_MS, 'not told');
  await note(page, /door: open/);
  assert.deepEqual(await camera.texts(), ['relay 1 on']);
});

test('a camera without commands says so, and goes on', TIMEOUT, async (t) => {
  const { page } = await playing(t, 'cam_fixed', { data: false });
  await page.click('#controls');
  await note(page, /takes no commands/);
  assert.equal(await page.locator('#pad').isVisible(), false);
  await stillPlaying(page);
  const { state } = await viewerState(page);
  assert.equal(state, 'playing');
});

test('everything at once: talking, controls, an ICE restart', TIMEOUT, async (t) => {
  const { camera, page } = await playing(t, 'cam_all', { audio: 'microphone loudspeaker', data: true, copies: 2 });
  const { sessionId } = await viewerState(page);
  await page.evaluate(() => {
    const { audio, session, pc } = window.p2pcam;
    audio.talk();
    session.control.open();
    Object.defineProperty(pc, 'connectionState', { configurable: true, get: () => 'failed' });
    pc.dispatchEvent(new Event('connectionstatechange'));
    delete pc.connectionState;
  });
  await page.locator('#pad').waitFor();
  await until(() => camera.listen(), ({ packets }) => packets > 20, SOON_MS, 'the camera hears nothing');
  await page.click('[data-ptz="down"]');
  await until(camera.texts, (all) => all.includes('ptz down'), SOON_MS, 'nothing came');
  await until(() => viewerState(page), (s) => s.state === 'playing' && s.sessionId === sessionId, SOON_MS, 'it does not play');
  await stillPlaying(page);
  assert.deepEqual(page.problems, []);
});

const isGreen = ([r, g, b]) => g > 110 && r < 90 && b < 120;
const isBlue = ([r, g, b]) => b > 130 && r < 90 && g < 120;
const background = async (page) => {
  const { width, height } = await videoStats(page);
  return (await pixels(page, [[Math.round(width * 0.6), Math.round(height * 0.3)]]))[0];
};

test('another stream is chosen while it plays', TIMEOUT, async (t) => {
  const { camera, page } = await playing(t, 'cam_streams', { streams: ['main', 'sub'] });
  const quality = page.locator('#quality');
  await quality.waitFor();
  assert.deepEqual(await quality.locator('option').allTextContents(), ['main', 'sub']);
  assert.equal(await quality.inputValue(), 'main');
  await until(() => background(page), isGreen, SOON_MS, 'not the main stream');

  await quality.selectOption('sub');
  await until(() => background(page), isBlue, SOON_MS, 'not the sub stream');
  await until(() => page.locator('#variant').textContent(), (text) => /sub/.test(text), SOON_MS, 'not said');
  const asked = (await camera.heard()).filter((m) => m.type === 'keepalive' && m.payload.stream);
  assert.deepEqual(asked.map((m) => [m.payload.stream, m.payload.state]), [['sub', 'connected']]);
  assert.equal((await offers(camera)).length, 1, 'no further offer is needed for it');

  // A new session begins with what was chosen.
  await camera.loseConnections();
  await until(async () => (await offers(camera)).length, (n) => n >= 2, PLAYING_WITHIN_MS, 'not called again');
  const last = (await camera.heard()).filter((m) => m.type === 'offer').at(-1);
  assert.equal(last.payload.stream, 'sub');
});

test('a stream that cannot be had is said, and the old one stays', TIMEOUT, async (t) => {
  const { page } = await playing(t, 'cam_no_sub', { streams: ['main', 'sub'], streamError: 'the sub stream is not running' });
  await page.locator('#quality').waitFor();
  await page.selectOption('#quality', 'sub');
  await note(page, /sub stream is not running/);
  assert.equal(await page.locator('#quality').inputValue(), 'main');
  await stillPlaying(page);
  assert.ok(isGreen(await background(page)));
});

test('the camera may change by itself, and the address may name the streams', TIMEOUT, async (t) => {
  const { camera, page } = await playing(t, 'cam_told', {}, '&streams=main,sub');
  const quality = page.locator('#quality');
  await quality.waitFor();
  assert.equal(await quality.inputValue(), 'main');
  await camera.say('keepalive', { stream: 'sub', streams: ['main', 'sub', 'mini'] });
  await until(() => quality.inputValue(), (value) => value === 'sub', SOON_MS, 'not shown');
  assert.deepEqual(await quality.locator('option').allTextContents(), ['main', 'sub', 'mini']);
  await camera.say('keepalive', { stream: 'main', streams: ['main'] });
  await quality.waitFor({ state: 'hidden' });
});
