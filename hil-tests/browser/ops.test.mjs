// The operators' page in Chromium against the real server-min: who gets in, whether what it shows is what
// there is, and how it looks on a phone.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startBrowserCamera } from './browser-camera.mjs';
import { openBrowser, openPage, until, viewerState } from './lib.mjs';
import { TOKEN, newSession, sessionWith } from './ops-scene.mjs';
import { ServerMin } from './server.mjs';

const TIMEOUT = { timeout: 90_000 };
const PHONE = { width: 360, height: 740 };
/** Two rounds of the page, and a slow machine. */
const SEEN_WITHIN_MS = 15_000;
let server;
let browser;
before(async () => {
  server = await ServerMin.start('--ops.token', TOKEN);
  browser = await openBrowser();
}, TIMEOUT);
after(async () => {
  await browser?.close();
  await server?.stop();
});

const openOps = async (t, from = server) => {
  const page = await openPage(browser.context, `${from.url}ops`);
  t.after(() => page.close());
  return page;
};
const signIn = async (page, token = TOKEN) => {
  await page.fill('#token', token);
  await page.press('#token', 'Enter');
};
const enter = async (t, from = server) => {
  const page = await openOps(t, from);
  await signIn(page);
  await page.locator('#desk').waitFor();
  return page;
};
/** The rows of a table: each cell's text by its column. */
const rows = (page, id) => page.evaluate((table) =>
  [...document.getElementById(table).tBodies[0].rows].map((row) =>
    Object.fromEntries([...row.cells].map((cell) => [cell.dataset.label, cell.textContent]))), id);
const row = (page, id, device, and = () => true) => until(
  async () => (await rows(page, id)).find((one) => one.Device === device), (one) => one && and(one),
  SEEN_WITHIN_MS, `${device} is not in ${id}`);
const figure = (page, name) => page.evaluate((wanted) => {
  const all = [...document.querySelectorAll('#figures div')];
  return all.find((div) => div.children[0].textContent === wanted)?.children[1].textContent;
}, name);
/** One live session that has connected. */
const connected = async (t, device, app = 'app_ops', more = {}) => {
  const one = await sessionWith(server, device, app, { state: 'connected', path: 'host', setupMs: 180, ...more });
  t.after(() => one.camera.stop());
  return one;
};

test('it asks for the token, refuses a wrong one in words, and keeps the right one in the tab', TIMEOUT, async (t) => {
  const page = await openOps(t);
  const asked = [];
  page.on('request', (request) => asked.push(request.url()));
  await page.locator('#login').waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), 'token');
  await signIn(page, 'not-the-right-token');
  await page.locator('#login-error').waitFor();
  assert.match(await page.locator('#login-error').innerText(), /token is wrong/i);
  assert.equal(await page.locator('#desk').isVisible(), false);
  assert.equal(await page.evaluate(() => sessionStorage.length), 0, 'a wrong one is not kept');

  await signIn(page);
  await page.locator('#desk').waitFor();
  assert.equal(await page.inputValue('#token'), '');
  await page.reload();
  await page.locator('#desk').waitFor();
  assert.equal(await page.evaluate(() => localStorage.length), 0);
  assert.equal((await browser.context.cookies()).length, 0);
  assert.ok(asked.every((url) => !url.includes(TOKEN)) && asked.length > 3, 'the token is in no address');
  // Another tab is another matter.
  const other = await openOps(t);
  await other.locator('#login').waitFor();

  await page.click('#sign-out');
  await page.locator('#login').waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  const before = asked.length;
  await sleep(2_500);
  assert.equal(asked.length, before, 'and nothing is asked any more');
});

test('whoever guesses too often is told to wait', TIMEOUT, async (t) => {
  const own = await ServerMin.start('--ops.token', TOKEN);
  t.after(() => own.stop());
  const page = await openOps(t, own);
  const said = () => page.locator('#login-error').innerText();
  for (let n = 0; n < 10; n++) {
    const answered = page.waitForResponse((reply) => reply.url().includes('/v1/ops/'));
    await signIn(page, `wrong-wrong-wrong-${n}`);
    assert.equal((await answered).status(), 401);
    await page.locator('#login button:enabled').waitFor();
  }
  await signIn(page);
  await until(said, (text) => /too many wrong tokens/i.test(text), SEEN_WITHIN_MS, 'it does not say so');
  await until(async () => {
    await signIn(page);
    await sleep(500);
    return page.locator('#desk').isVisible();
  }, Boolean, SEEN_WITHIN_MS, 'it stays shut');
});

test('without a token in the configuration there is no page', TIMEOUT, async (t) => {
  const own = await ServerMin.start();
  t.after(() => own.stop());
  assert.equal((await fetch(`${own.url}ops`)).status, 404);
});

test('live sessions are there, are found by a part of any id, and are sorted', TIMEOUT, async (t) => {
  const page = await enter(t);
  await connected(t, 'cam_find_1', 'app_blue', { setupMs: 400 });
  const two = await connected(t, 'cam_find_2', 'app_red', { setupMs: 90, path: 'srflx' });
  await newSession(server, 'cam_find_3', 'app_red');
  const first = await row(page, 'sessions', 'cam_find_1', (one) => one.State === 'connected');
  assert.deepEqual([first.App, first.Region, first.Path, first['Set-up'], first.Relay],
    ['app_blue', 'local', 'direct', '400 ms', '–']);
  assert.equal((await row(page, 'sessions', 'cam_find_3')).State, 'connecting');

  const devices = async () => (await rows(page, 'sessions')).map((one) => one.Device);
  const shows = (wanted) => until(devices, (now) => JSON.stringify(now) === JSON.stringify(wanted),
    SEEN_WITHIN_MS, `not ${wanted}`);
  await page.fill('#find', 'cam_find');
  await page.getByRole('button', { name: 'Device' }).click();
  await shows(['cam_find_1', 'cam_find_2', 'cam_find_3']);
  await page.getByRole('button', { name: 'Device' }).click();
  await shows(['cam_find_3', 'cam_find_2', 'cam_find_1']);
  assert.equal(await page.locator('th[aria-sort="descending"]').innerText(), 'Device');
  await page.getByRole('button', { name: 'Set-up' }).click();
  await shows(['cam_find_3', 'cam_find_2', 'cam_find_1']);
  await page.selectOption('#wanted-state', 'connected');
  await shows(['cam_find_2', 'cam_find_1']);
  await page.fill('#find', two.sessionId.slice(9, 30));
  await shows(['cam_find_2']);
  await page.fill('#find', 'pp_blu');
  await shows(['cam_find_1']);
  for (const nobody of ['cam_find_9', '<b>%20&after=1']) {
    await page.fill('#find', nobody);
    await page.locator('#nobody').waitFor();
    assert.match(await page.locator('#nobody').innerText(), /No live session is like this/);
  }
  assert.deepEqual(page.problems, []);
});

test('a real session through the relay shows its path and its rate, and its detail says where to look', TIMEOUT, async (t) => {
  const camera = await startBrowserCamera(browser.context, server, 'cam_relayed');
  t.after(() => camera.stop());
  const viewer = await openPage(browser.context, server.viewer('cam_relayed', { query: '&relay=1' }));
  t.after(() => viewer.close());
  await until(() => viewerState(viewer), (s) => s?.state === 'playing', 25_000, 'it does not play');
  const { sessionId } = await viewerState(viewer);
  const page = await enter(t);
  await row(page, 'sessions', 'cam_relayed',
    (one) => one.Path === 'relayed' && /^[1-9].*bit\/s$/.test(one.Relay));
  await until(() => figure(page, 'TURN allocations'), (n) => Number(n) > 0, SEEN_WITHIN_MS, 'no allocations');
  await until(() => figure(page, 'Relay'), (n) => /bit\/s/.test(n), SEEN_WITHIN_MS, 'no rate of the node');

  await page.getByRole('button', { name: `Session ${sessionId}` }).click();
  const record = () => page.evaluate(() => Object.fromEntries(
    [...document.querySelectorAll('#record div')].map((div) => [...div.children].map((c) => c.textContent))));
  const lines = await until(record, (now) => now.Relay, SEEN_WITHIN_MS, 'no record');
  assert.match(lines.Path, /^relayed/);
  assert.match(lines.Relay, /^\d+ allocations, .*bit\/s$/);
  assert.match(lines.Relayed, /B from its clients, .*B to them/);
  assert.equal(lines.Cap, '2 Mbit/s each way');
  assert.deepEqual([lines['Device at the broker'], lines['App at the broker']], ['yes', 'yes']);
  assert.equal(await page.locator('#grep').innerText(), `grep sessionId=${sessionId} server.log`);
  await page.keyboard.press('Escape');
  await page.locator('#detail').waitFor({ state: 'hidden' });
  assert.deepEqual(page.problems, []);
});

test('a session is closed by keyboard alone, after a second question', TIMEOUT, async (t) => {
  const { camera, sessionId } = await connected(t, 'cam_close');
  const page = await enter(t);
  await row(page, 'sessions', 'cam_close');
  await page.getByRole('button', { name: `Session ${sessionId}` }).focus();
  await page.keyboard.press('Enter');
  await page.locator('#end').waitFor();
  await page.locator('#end').focus();
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'end-no', 'the harmless answer is at hand');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'end');
  assert.ok(!camera.heard.some((m) => m.type === 'bye'), 'not closed yet');
  await page.keyboard.press('Enter');
  await page.keyboard.press('Shift+Tab');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'end-yes');
  await page.keyboard.press('Enter');
  const bye = await until(() => camera.heard.find((m) => m.type === 'bye'), Boolean, SEEN_WITHIN_MS, 'no bye');
  assert.deepEqual([bye.sessionId, bye.payload.reason], [sessionId, 'closed by an operator']);
  const ended = await row(page, 'ends', 'cam_close');
  assert.match(ended.Reason, /^api closed by an operator/);
  await until(() => page.locator('#record').innerText(), (text) => /closed by API or operator/.test(text), SEEN_WITHIN_MS, 'the detail does not know');
  assert.equal(await page.locator('#end').isVisible(), false);
  assert.ok(!(await rows(page, 'sessions')).some((one) => one.Device === 'cam_close'));
});

test('one that failed shows why, in its own words, and as text', TIMEOUT, async (t) => {
  const page = await enter(t);
  const words = '<img src=x onerror=alert(1)> no way';
  const one = await sessionWith(server, 'cam_failed', 'app_ops', { state: 'closed', code: 408, reason: words });
  t.after(() => one.camera.stop());
  const ended = await row(page, 'ends', 'cam_failed');
  assert.equal(ended.Reason, `timeout cam_failed: ${words} (408)`);
  assert.equal(await page.locator('#ends img').count(), 0);
  const bars = await page.locator('#failed li').allInnerTexts();
  assert.ok(bars.some((text) => /no way between the two\s+1$/.test(text)), bars.join('; '));
  assert.match(await figure(page, 'Success'), /^\d+(\.\d)? %$/);
  // One that has ended is found by its id as well.
  await page.getByRole('button', { name: `Session ${one.sessionId}` }).click();
  await until(() => page.locator('#record').innerText(), (text) => text.includes(words), SEEN_WITHIN_MS, 'its record does not say');
  assert.deepEqual(page.problems, []);
});

test('nothing is asked while nobody can see it, and at once when somebody can again', TIMEOUT, async (t) => {
  const page = await enter(t);
  await until(() => page.locator('#state').innerText(), (text) => /^\d\d:/.test(text), SEEN_WITHIN_MS, 'it does not live');
  const hide = (hidden) => page.evaluate((value) => {
    Object.defineProperty(document, 'hidden', { configurable: true, get: () => value });
    document.dispatchEvent(new Event('visibilitychange'));
  }, hidden);
  await hide(true);
  assert.equal(await page.locator('#state').innerText(), 'paused');
  await sleep(500); // what was under way
  let asked = 0;
  page.on('request', () => (asked += 1));
  await sleep(5_000);
  assert.equal(asked, 0);
  await hide(false);
  await until(() => asked, (n) => n >= 2, 1_000, 'it does not ask');
});

test('a server that goes away is said to, and shown again when it is back', TIMEOUT, async (t) => {
  const own = await ServerMin.start('--ops.token', TOKEN);
  t.after(() => own.stop());
  const page = await enter(t, own);
  await own.halt();
  await until(() => page.locator('#notice').innerText(), (text) => /does not answer/.test(text), SEEN_WITHIN_MS, 'it is not said');
  assert.equal(await page.evaluate(() => document.body.dataset.state), 'failed');
  await own.restart();
  await until(() => page.evaluate(() => document.body.dataset.state), (s) => s === 'live', SEEN_WITHIN_MS, 'it does not come back');
  assert.equal(await page.locator('#notice').isVisible(), false);
});

test('nothing outside its own server is asked for, and its policy allows what it does', TIMEOUT, async (t) => {
  const page = await browser.context.newPage();
  t.after(() => page.close());
  const hosts = new Set(), complaints = [];
  page.on('request', (request) => hosts.add(new URL(request.url()).host));
  page.on('console', (message) => complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(error.message));
  const response = await page.goto(`${server.url}ops`);
  assert.match(response.headers()['content-security-policy'], /default-src 'none'/);
  await signIn(page);
  await until(() => page.locator('#figures div').count(), (n) => n === 8, SEEN_WITHIN_MS, 'no numbers');
  await until(() => page.locator('#reasons .bar').first().evaluate((bar) => getComputedStyle(bar, '::before').width),
    (width) => parseFloat(width) > 3, SEEN_WITHIN_MS, 'the bars have no length');
  assert.deepEqual([...hosts], [server.host]);
  assert.deepEqual(complaints, []);
});

test('on a phone nothing sticks out, light or dark', TIMEOUT, async (t) => {
  const device = 'cam_with_a_very_long_serial_number_0123456789_0123456789';
  await connected(t, device, 'app_with_a_very_long_name_0123456789');
  const failed = await sessionWith(server, 'cam_phone', 'app_ops', { state: 'closed', code: 503, reason: 'x'.repeat(200) });
  t.after(() => failed.camera.stop());
  for (const colorScheme of ['light', 'dark']) {
    const page = await openOps(t);
    await page.setViewportSize(PHONE);
    await page.emulateMedia({ colorScheme });
    const judge = (what) => page.evaluate(() => {
      const visible = [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && !e.closest('.unseen'));
      return {
        sticksOut: document.documentElement.scrollWidth > innerWidth,
        out: visible.filter((e) => e.tagName !== 'OPTION' && e.getBoundingClientRect().right > innerWidth + 1)
          .map((e) => `${e.tagName} ${e.id} ${e.className}`),
        unnamed: visible.filter((e) => ['INPUT', 'SELECT'].includes(e.tagName) && !e.labels.length).map((e) => e.id),
      };
    }).then((found) => assert.deepEqual(found, { sticksOut: false, out: [], unnamed: [] }, `${what}, ${colorScheme}`));
    await page.locator('#login').waitFor();
    await judge('login');
    await signIn(page);
    await row(page, 'sessions', device);
    await row(page, 'ends', 'cam_phone');
    await judge('desk');
    await page.getByRole('button', { name: 'Device' }).click();
    assert.equal(await page.locator('th[aria-sort="ascending"]').innerText(), 'Device', 'it can be sorted');
    await page.locator('#sessions tbody button').first().click();
    await page.locator('#end').waitFor();
    await page.click('#end');
    await judge('detail');
  }
});
