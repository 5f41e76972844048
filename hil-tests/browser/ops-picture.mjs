// Draws docs/images/ops.png: node ops-picture.mjs FILE [light|dark] [WIDTH]. The page and the server are real; the
// sessions are invented, because those of a test would all be two seconds old.

import { openBrowser, openPage } from './lib.mjs';
import { TOKEN } from './ops-scene.mjs';
import { ServerMin } from './server.mjs';

const [file, colorScheme = 'light', width = '1440'] = process.argv.slice(2);
const MINUTE = 60_000;
const now = Date.UTC(2026, 10, 26, 9, 41, 7);

/** The same numbers at each run. */
let seed = 7;
const random = (below) => (seed = (seed * 48_271) % 2_147_483_647) % below;
const id = () => [8, 4, 4, 4, 12].map((n) => Array.from({ length: n }, () => random(16).toString(16)).join('')).join('-');
const someOf = (list) => list[random(list.length)];

const REGIONS = ['eu-1', 'eu-1', 'eu-1', 'us-1'];
const APPS = ['acme_', 'acme_', 'acme_', 'nord_'];
const person = () => ({
  sessionId: id(), deviceId: `CAM${100_200 + random(800)}`, appId: `${someOf(APPS)}${random(0xffffff).toString(16)}`, region: someOf(REGIONS),
});

const sessions = Array.from({ length: 12 }, (_, n) => {
  const status = n % 7 === 5 ? 'connecting' : 'connected';
  const path = status === 'connecting' ? undefined : someOf(['host', 'srflx', 'srflx', 'prflx', 'relay']);
  const ageMs = status === 'connecting' ? 1_000 + random(4_000) : random(95) * MINUTE + random(MINUTE);
  const relay = path === 'relay' ? {
    allocations: 1 + random(2), bytesToPeers: random(2e8), bytesToClients: random(1e6), bitRate: 350_000 + random(1_400_000), capBps: 2_000_000,
  } : null;
  return {
    ...person(), status, path, ageMs, relay, createdAt: now - ageMs, setupMs: status === 'connected' ? 140 + random(700) : undefined,
    updatedAt: now - Math.min(ageMs, random(20_000)), ttl: 86_400, stunServer: 'turn-1.example.org:3478', turnAllocation: null,
  };
});

const ENDS = [
  ['left', 'the viewer left', true], ['timeout', 'no way to the viewer was found within 20 s (408)', false],
  ['left', 'the viewer left', true], ['device_offline', 'gave up after 2 s', false], ['left', 'the viewer left', true],
  ['silent', 'nobody reported on it', true], ['busy', 'all 4 viewers are taken (429)', false], ['left', 'the viewer left', true],
];
const recent = ENDS.map(([reason, said, connected], n) => {
  const one = person();
  const by = reason === 'silent' ? '' : `${connected ? one.appId : one.deviceId}: `;
  return {
    ...one, reason, words: by + said, connected, path: connected ? someOf(['srflx', 'relay', 'host']) : undefined,
    endedAt: now - (n * 4 + random(4)) * 1000, ageMs: connected ? random(40) * MINUTE : 2_000 + random(20_000),
  };
});

const server = await ServerMin.start('--ops.token', TOKEN, '--region', 'eu-1');
const browser = await openBrowser({ width: Number(width), height: 1000 });
try {
  const page = await openPage(browser.context, 'about:blank');
  await page.emulateMedia({ colorScheme });
  await page.route('**/v1/ops/overview', async (route) => {
    const reply = await route.fetch();
    const real = await reply.json();
    await route.fulfill({ response: reply, json: {
      ...real,
      now, startedAt: now - 12 * 24 * 60 * MINUTE,
      sessions: { connecting: 1, connected: 11, closed: 480 },
      totals: { created: 18_204, connected: 17_911, failed: 279, direct: 15_240, relayed: 2_671 },
      turn: { allocations: 6, maxAllocations: 10_000, bytesRelayed: 4.1e11, bitRate: 3_900_000 },
      mqtt: { clients: 1_312, devices: 1_296, apps: 15 },
      nodes: [
        { name: 'turn-1.example.org:3478', region: 'eu-1', own: true, alive: true, sessions: 11_804 },
        { name: 'turn-2.example.org:3478', region: 'us-1', own: false, alive: true, sessions: 6_400 },
      ],
      ends: {
        recent, of: 1_000,
        failed: { timeout: 9, device_offline: 21, busy: 3, unauthorized: 1 },
        disconnected: { left: 884, silent: 61, api: 21 },
      },
    } });
  });
  await page.route('**/v1/ops/sessions?*', (route) => route.fulfill({ json: { now, open: sessions.length, sessions, next: null } }));
  await page.goto(`${server.url}ops`);
  await page.fill('#token', TOKEN);
  await page.press('#token', 'Enter');
  await page.locator('#ends tbody tr').first().waitFor();
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  await page.setViewportSize({ width: Number(width), height });
  await page.screenshot({ path: file });
} finally {
  await browser.close();
  await server.stop();
}
