// The viewer page in Chromium against the real server-min: what it says when there is nothing to
// show, and how it looks on a phone. The picture itself is tested with the real camera.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { openBrowser, openPage, until, viewerState } from './lib.mjs';
import { ServerMin, SignalingCamera } from './server.mjs';

const TIMEOUT = { timeout: 90_000 };
const PHONE = { width: 360, height: 740 };
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

const open = async (t, url) => {
  const page = await openPage(browser.context, url);
  t.after(() => page.close());
  return page;
};
const failed = (page, withinMs = 10_000) =>
  until(() => viewerState(page), (s) => s?.state === 'failed', withinMs, 'the page did not fail');
const shown = (page, id) => page.locator(`#${id}`);
const camera = async (t, sn, onSignal) => {
  const started = await SignalingCamera.start(server, sn, onSignal);
  t.after(() => started.stop());
  await started.status(true);
  return started;
};
/** A camera that refuses every offer with this error. */
const refusing = (code, message) => (signal, camera) =>
  signal.type === 'offer' && camera.answer(signal, 'error', { code, message });

test('without a camera in the address it asks for one, and then keeps it there', TIMEOUT, async (t) => {
  const page = await open(t, server.url);
  await shown(page, 'form').waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), 'device');
  await page.fill('#device', 'cam_form');
  await page.fill('#key', server.key);
  await page.keyboard.press('Enter');
  await failed(page); // no such camera has been here
  const url = new URL(page.url());
  assert.deepEqual([url.search, url.hash], ['?device=cam_form', `#key=${server.key}`]);
});

test('a wrong key is said in words', TIMEOUT, async (t) => {
  const page = await open(t, server.viewer('cam', { key: 'wrong' }));
  const { error } = await failed(page);
  assert.deepEqual([error.kind, error.code], ['key', 401]);
  assert.equal(await shown(page, 'failure-title').innerText(), 'The key was refused');
  assert.equal(await shown(page, 'retry').innerText(), 'Try again');
});

test('an impossible device name is said in words', TIMEOUT, async (t) => {
  const page = await open(t, server.viewer('no%20such%23name'));
  assert.equal((await failed(page)).error.kind, 'request');
});

test('a camera that was never here is said to be offline within seconds', TIMEOUT, async (t) => {
  const page = await open(t, server.viewer('cam_never'));
  const { error, sessionId } = await failed(page);
  assert.equal(error.kind, 'offline');
  assert.match(await shown(page, 'failure-title').innerText(), /offline/);
  assert.equal(await shown(page, 'session').innerText(), sessionId);
  assert.match(sessionId, /^[0-9a-f-]{36}$/);
});

test('a camera known to be offline is said to be, and called when it comes back', TIMEOUT, async (t) => {
  const gone = await SignalingCamera.start(server, 'cam_back');
  await gone.status(false);
  gone.stop();
  const page = await open(t, server.viewer('cam_back'));
  const offline = await failed(page, 5_000);
  assert.equal(offline.error.kind, 'offline');
  await camera(t, 'cam_back', refusing(429, 'it is back, but full'));
  await until(() => viewerState(page), (s) => s.error?.kind === 'full' && s.sessionId !== offline.sessionId,
    10_000, 'it was not called again');
});

/** Sessions that ended without having connected, as the server counts them by their reason. */
const failures = async (reason) => {
  const metrics = await (await fetch(new URL('metrics', server.url))).text();
  return Number(metrics.match(`p2p_connection_failures_total{reason="${reason}"} (\\d+)`)[1]);
};

for (const [code, kind, title, reason] of [
  [401, 'token', 'The camera refused access', 'unauthorized'],
  [406, 'codec', 'This browser cannot play the camera’s video', 'unplayable'],
  [429, 'full', 'Too many viewers', 'busy'],
  [503, 'stream', 'No such stream', 'unavailable'],
  [599, 'internal', 'Something went wrong', 'internal'],
]) {
  test(`the camera’s error ${code} becomes “${title}”, and the server counts it`, TIMEOUT, async (t) => {
    const before = await failures(reason);
    await camera(t, `cam_${code}`, refusing(code, `because of ${code}`));
    const page = await open(t, server.viewer(`cam_${code}`, { query: '&stream=sub' }));
    const { error } = await failed(page);
    assert.deepEqual([error.kind, error.code, error.title], [kind, code, title]);
    assert.match(await shown(page, 'failure-detail').textContent(), new RegExp(`because of ${code}`));
    await until(() => failures(reason), (count) => count === before + 1, 5_000, `it is not counted as ${reason}`);
  });
}

test('the offer is the contract’s, and is repeated until it is answered', TIMEOUT, async (t) => {
  const cam = await camera(t, 'cam_deaf', () => {});
  const page = await open(t, server.viewer('cam_deaf', { query: '&stream=sub' }));
  const { error } = await failed(page, 20_000);
  assert.deepEqual([error.kind, error.code], ['silent', 408]);
  const offers = cam.heard.filter((m) => m.type === 'offer');
  assert.equal(offers.length, 4, 'at once and after 1, 2 and 4 s');
  assert.equal(new Set(offers.map((m) => JSON.stringify(m.payload))).size, 1, 'the same each time');
  const [{ sessionId, from, to, payload, timestamp }] = offers;
  assert.match(from, /^app_[0-9a-f]{12}$/);
  assert.equal(to, 'cam_deaf');
  assert.ok(Math.abs(Date.now() - timestamp) < 60_000);
  assert.equal(payload.stream, 'sub');
  assert.equal(payload.token.split('.').length, 3);
  assert.match(payload.sdp, /^m=video .*\r\n/m);
  assert.match(payload.sdp, /a=recvonly/);
  assert.match(payload.sdp, /H264\/90000/);
  const candidates = cam.heard.filter((m) => m.type === 'candidate');
  assert.ok(candidates.some((m) => m.payload.candidate.startsWith('candidate:') && m.payload.sdpMid === '0'));
  assert.ok(candidates.some((m) => m.payload.candidate === ''), 'the end of the candidates');
  const bye = await until(() => cam.heard.find((m) => m.type === 'bye'), Boolean, 5_000, 'no bye');
  assert.equal(bye.sessionId, sessionId);
});

test('leaving the page says bye and closes the session’s record', TIMEOUT, async (t) => {
  const cam = await camera(t, 'cam_bye', () => {});
  const page = await open(t, server.viewer('cam_bye'));
  const offer = await until(() => cam.heard.find((m) => m.type === 'offer'), Boolean, 10_000, 'no offer');
  await page.goto('about:blank');
  await until(() => cam.heard.find((m) => m.type === 'bye'), Boolean, 5_000, 'no bye');
  const record = () => fetch(`${server.url}v1/sessions/${offer.sessionId}`, {
    headers: { authorization: `Bearer ${server.key}` },
  }).then((r) => r.json());
  await until(record, (r) => r.status === 'closed', 5_000, 'the record is not closed');
});

test('retry starts a new session', TIMEOUT, async (t) => {
  await camera(t, 'cam_retry', refusing(429, 'full'));
  const page = await open(t, server.viewer('cam_retry'));
  const first = await failed(page);
  await page.click('#retry');
  await until(() => viewerState(page), (s) => s.state === 'failed' && s.sessionId !== first.sessionId, 10_000, 'no second session');
});

test('with autostart=0 it waits for a click', TIMEOUT, async (t) => {
  const cam = await camera(t, 'cam_click', refusing(429, 'full'));
  const page = await open(t, 'about:blank');
  const asked = [];
  page.on('request', (request) => asked.push(`${request.method()} ${new URL(request.url()).pathname}`));
  const said = [];
  page.on('websocket', (socket) => socket.on('framesent', () => said.push(1)));
  // `goto` ends with the page's load: what is prepared does not hold that up.
  await page.goto(server.viewer('cam_click', { query: '&autostart=0' }));
  await shown(page, 'start').waitFor();
  await page.hover('#start');
  await sleep(500);
  assert.deepEqual(asked.filter((request) => !request.startsWith('GET ')), [], 'no session before the click');
  assert.deepEqual(said, [], 'nothing to the broker');
  assert.equal(cam.heard.length, 0, 'nothing to the camera');
  await page.click('#start');
  await failed(page);
  assert.equal(asked.filter((request) => request === 'POST /v1/sessions').length, 1);
});

test('what was prepared and is lost by the time of the click is made anew', TIMEOUT, async (t) => {
  const own = await ServerMin.start();
  t.after(() => own.stop());
  const page = await open(t, own.viewer('cam_late', { query: '&autostart=0' }));
  await shown(page, 'start').waitFor();
  await sleep(300);
  await own.restart(); // its end of the socket is gone
  const cam = await SignalingCamera.start(own, 'cam_late', refusing(429, 'full'));
  t.after(() => cam.stop());
  await page.click('#start');
  const { error } = await failed(page);
  assert.equal(error.kind, 'full');
});

test('a server that goes away is said in words', TIMEOUT, async (t) => {
  const own = await ServerMin.start();
  t.after(() => own.stop());
  const page = await open(t, own.viewer('cam', { query: '&autostart=0' }));
  await shown(page, 'start').waitFor();
  await own.stop();
  await page.click('#start');
  assert.equal((await failed(page)).error.kind, 'server');
});

test('nothing outside its own server is asked for, and its policy allows what it does', TIMEOUT, async (t) => {
  await camera(t, 'cam_policy', refusing(429, 'full'));
  const page = await browser.context.newPage();
  t.after(() => page.close());
  const hosts = new Set(), complaints = [];
  page.on('request', (request) => hosts.add(new URL(request.url()).host));
  page.on('websocket', (socket) => hosts.add(new URL(socket.url()).host));
  page.on('console', (message) => complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(error.message));
  const response = await page.goto(server.viewer('cam_policy'));
  assert.match(response.headers()['content-security-policy'], /default-src 'self'/);
  await failed(page);
  assert.deepEqual([...hosts], [server.host]);
  assert.deepEqual(complaints, []);
});

test('on a phone nothing sticks out, in any state', TIMEOUT, async (t) => {
  await camera(t, 'cam_phone', refusing(503, 'there is no stream called “sub”; a rather long sentence about it'));
  const urls = {
    form: server.url,
    start: server.viewer('cam_phone', { query: '&autostart=0' }),
    failure: server.viewer('cam_phone_with_a_very_long_serial_number_0123456789', { query: '&relay=1&stream=sub' }),
    refused: server.viewer('cam_phone', { query: '&stream=sub' }),
  };
  for (const [name, url] of Object.entries(urls)) {
    const page = await open(t, 'about:blank');
    await page.setViewportSize(PHONE);
    await page.goto(url);
    if (name === 'failure' || name === 'refused') await failed(page);
    const { wide, cut, small } = await page.evaluate(() => {
      const visible = [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility());
      return {
        wide: document.documentElement.scrollWidth,
        cut: visible.filter((e) => e.closest('.layer, form') && e.tagName !== 'OPTION').filter((e) => {
          const inner = e.getBoundingClientRect(), stage = document.getElementById('stage').getBoundingClientRect();
          return inner.top < stage.top - 1 || inner.bottom > stage.bottom + 1 || inner.right > innerWidth;
        }).map((e) => e.id || e.tagName),
        small: visible.filter((e) => e.tagName === 'BUTTON' && e.getBoundingClientRect().height < 30).map((e) => e.id),
      };
    });
    assert.deepEqual({ wide, cut, small }, { wide: PHONE.width, cut: [], small: [] }, name);
  }
});
