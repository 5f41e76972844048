// Opens data channels of every kind beside the viewer page's own, exchanges messages with the example
// camera on them, and reports, as one line of JSON, what came.
//
//     node data.mjs --url URL [--within SECONDS]
//
// Ends with 0 if all that was waited for came; with 1 otherwise.

import { parseArgs } from 'node:util';
import { openBrowser, openPage, until, videoStats } from './lib.mjs';

const { values } = parseArgs({ options: { url: { type: 'string' }, within: { type: 'string', default: '60' } } });
const withinMs = Number(values.within) * 1000;

const KINDS = {
  control: {},
  unordered: { ordered: false },
  retransmits: { maxRetransmits: 2 },
  lifetime: { ordered: false, maxPacketLifeTime: 500 },
};

const report = await run().catch((error) => ({ ok: false, failure: error.message }));
console.log(JSON.stringify(report));
process.exitCode = report.ok ? 0 : 1;

async function run() {
  const browser = await openBrowser();
  try {
    await browser.context.addInitScript(addChannels, KINDS);
    const page = await openPage(browser.context, values.url);
    return await exchange(page);
  } finally {
    await browser.close();
  }
}

/** In the page: each connection has the test's channels in its first offer. */
function addChannels(kinds) {
  const test = { channels: {}, tell(channel, by) {
    const seen = { channel, by, open: channel.readyState === 'open', closed: false, messages: [] };
    channel.binaryType = 'arraybuffer';
    channel.addEventListener('open', () => { seen.open = true; });
    channel.addEventListener('close', () => { seen.closed = true; });
    channel.addEventListener('message', ({ data }) => seen.messages.push(data));
    test.channels[channel.label] = seen;
    return channel;
  } };
  window.dataTest = test;
  const Original = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Original {
    constructor(...args) {
      super(...args);
      test.connection = this;
      for (const [label, init] of Object.entries(kinds)) test.tell(this.createDataChannel(label, init), 'us');
      this.addEventListener('datachannel', ({ channel }) => test.tell(channel, 'camera'));
    }
  };
}

async function exchange(page) {
  const seen = (label) => page.evaluate((name) => {
    const it = window.dataTest?.channels[name];
    if (!it) return null;
    const { channel, open, closed, by, messages } = it;
    const texts = messages.filter((m) => typeof m === 'string');
    return {
      open, closed, by, texts: texts.map((t) => t.slice(0, 40)), count: messages.length,
      bytes: messages.filter((m) => typeof m !== 'string').map((m) => m.byteLength),
      textBytes: texts.reduce((sum, t) => sum + t.length, 0),
      ordered: channel.ordered, maxRetransmits: channel.maxRetransmits,
    };
  }, label);
  const send = (label, ...messages) => page.evaluate(([name, all]) => {
    for (const m of all) {
      window.dataTest.channels[name].channel.send(typeof m === 'string' ? m : new Uint8Array(m.bytes).fill(7));
    }
  }, [label, messages]);
  const wait = (label, what, done) => until(() => seen(label), (s) => s && done(s), withinMs, `${label}: ${what}`);

  const result = { ok: false, channels: {} };
  for (const label of Object.keys(KINDS)) {
    await wait(label, 'open', (s) => s.open);
    // One after the other, since some channels are not ordered.
    let count = 0;
    for (const message of ['ptz left', 'ptz home', '', { bytes: 3 }, { bytes: 0 }, { bytes: 65536 }]) {
      await send(label, message);
      count += 1;
      await wait(label, `answer ${count}`, (s) => s.count >= count);
    }
    const { texts, bytes } = await seen(label);
    result.channels[label] = { texts, bytes };
  }

  await send('control', 'watch');
  await wait('position', 'the first position', (s) => s.texts.length >= 1);
  await send('control', 'ptz right');
  result.position = await wait('position', 'a new position', (s) => s.texts.includes('pan=10 tilt=0'));

  const before = await seen('unordered');
  await send('retransmits', 'hello');
  await send('control', 'log');
  const all = await wait('control', 'the log', (s) => s.texts.filter((t) => t.startsWith('log ')).length >= 128);
  const parts = all.texts.filter((t) => t.startsWith('log '));
  result.log = {
    parts: parts.length,
    inOrder: parts.every((t, i) => t.startsWith(`log ${i + 1} of 128\n`)),
    bytes: await page.evaluate(() => window.dataTest.channels.control.messages
      .filter((m) => typeof m === 'string' && m.startsWith('log ')).reduce((sum, t) => sum + t.length, 0)),
  };
  if (before.closed) throw new Error('a channel was closed that nobody closed');

  // A camera takes 16 channels; whoever opens more sees the last ones closed, and only those.
  await page.evaluate(() => {
    const { connection } = window.dataTest;
    for (let n = 0; n < 16; n += 1) window.dataTest.tell(connection.createDataChannel(`many ${n}`), 'us');
  });
  await wait('many 15', 'closed', (s) => s.closed);
  const control = await seen('control');
  result.refused = { closed: true, othersOpen: control.open && !control.closed };

  // Numbers of closed channels are used again.
  await page.evaluate(() => {
    for (const [label, { channel }] of Object.entries(window.dataTest.channels)) {
      if (label.startsWith('many') || label === 'control') channel.close();
    }
  });
  await wait('control', 'closed', (s) => s.closed);
  await wait('many 0', 'closed', (s) => s.closed);
  await page.evaluate(() => window.dataTest.tell(window.dataTest.connection.createDataChannel('again'), 'us'));
  await wait('again', 'open', (s) => s.open);
  await send('again', 'hello');
  result.again = (await wait('again', 'its echo', (s) => s.count >= 1)).texts;
  // All of this may have taken less than a second of the picture.
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  result.framesDecoded = (await videoStats(page))?.framesDecoded ?? 0;
  result.problems = page.problems;
  result.ok = true;
  return result;
}
