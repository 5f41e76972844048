// Opens the viewer page in Chromium and reports, as one line of JSON, what it saw.
//
//     node watch.mjs --url URL [--relay] [--turn HOST:PORT] [--seconds N] [--every MS] [--pixel X,Y]… [--click]
//                    [--screenshot FILE] [--json FILE] [--within SECONDS] [--expect-error TEXT]
//                    [--listen] [--talk SECONDS] [--command TEXT] [--stream NAME]
//
// Ends with 0 if a picture was decoded and grew over N seconds; with --expect-error if the page
// said TEXT (a part of its words, in any case); with 1 otherwise; with 2 if it was called wrongly.
// --click presses the page's play button instead of letting it start by itself, so that
// `firstFrameMs` is from the click to the first decoded frame. Once there is a picture, --listen, --talk,
// --command and --stream use what is beside it, in this order, and report under their names; whatever
// does not work ends the viewing with 1. --turn has the page look for TURN there instead of where the
// session API says.

import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { setTimeout as sleep } from 'node:timers/promises';
import { chooseStream, command, listen, talk } from './controls.mjs';
import { FAKE_MICROPHONE, openBrowser, openPage, pixels, until, videoStats, viewerState } from './lib.mjs';

const options = readOptions();
const report = await run().catch((error) => ({ ok: false, failure: error.message }));
const line = JSON.stringify(report);
console.log(line);
if (options.json) writeFileSync(options.json, `${line}\n`);
process.exitCode = report.ok ? 0 : 1;

async function run() {
  const browser = await openBrowser({ width: options.width, args: options.talk > 0 ? FAKE_MICROPHONE : [] });
  try {
    return await watch(browser.context);
  } finally {
    await browser.close();
  }
}

async function watch(context) {
  if (options.turn) await moveTurn(context, options.turn);
  const page = await openPage(context, options.url);
  const report = { ok: false };
  try {
    if (options.click) await page.click('#start', { timeout: options.withinMs });
    if (options.expectError !== undefined) await expectError(page);
    else await expectPicture(page, report);
    report.ok = true;
  } catch (error) {
    report.failure = error.message;
  }
  if (options.screenshot) await page.screenshot({ path: options.screenshot });
  const seen = await viewerState(page).catch(() => null);
  return { ...report, ...seen, words: await words(page), problems: page.problems };
}

/** Changes the address of the TURN servers in the session API's answers. */
function moveTurn(context, address) {
  return context.route('**/v1/sessions', async (route) => {
    const response = await route.fetch();
    const body = (await response.text()).replaceAll(/"(turn:)[^"?]+/g, `"$1${address}`);
    await route.fulfill({ response, body });
  });
}

async function expectPicture(page, report) {
  const decoded = (s) => s?.framesDecoded > 0;
  await until(async () => {
    const { state, error } = (await viewerState(page)) ?? {};
    if (state === 'failed') throw new Error(`the page says: ${error.title} (${error.detail})`);
    return videoStats(page);
  }, decoded, options.withinMs, 'no frame was decoded');
  await until(() => viewerState(page), (s) => s.state === 'playing', options.withinMs, 'not playing');

  const { withinMs } = options;
  if (options.listen) report.listen = await listen(page, withinMs);
  if (options.talk > 0) report.talk = await talk(page, options.talk, withinMs);
  if (options.command) report.command = await command(page, options.command, withinMs);
  if (options.stream) report.stream = await chooseStream(page, options.stream, withinMs);

  const samples = [await videoStats(page)];
  for (const end = Date.now() + options.seconds * 1000; Date.now() < end;) {
    await sleep(Math.min(options.everyMs, Math.max(1, end - Date.now())));
    samples.push(await videoStats(page));
  }
  const last = samples.at(-1);
  Object.assign(report, last, {
    framesDecoded: samples.map((s) => s.framesDecoded),
    sampledAtMs: samples.map((s) => s.atMs),
    relayed: last.local === 'relay' || last.remote === 'relay',
    pixels: options.pixels.length ? await pixels(page, options.pixels) : [],
  });
  const standing = report.framesDecoded.findIndex((n, i) => i > 0 && n <= report.framesDecoded[i - 1]);
  if (standing > 0) throw new Error(`the picture stood still before sample ${standing}`);
}

async function expectError(page) {
  const wanted = options.expectError.toLowerCase();
  await until(() => words(page), (text) => text.toLowerCase().includes(wanted), options.withinMs,
    `the page never said “${options.expectError}”`);
}

/** What a person reads on the page, apart from the figures. */
function words(page) {
  return page.evaluate(() => [...document.querySelectorAll('#state, #failure-title, #failure-advice, #failure-detail')]
    .filter((e) => e.checkVisibility()).map((e) => e.textContent).filter(Boolean).join('\n')).catch(() => '');
}

function readOptions() {
  try {
    const { values } = parseArgs({ options: {
      url: { type: 'string' }, relay: { type: 'boolean' }, turn: { type: 'string' }, click: { type: 'boolean' },
      seconds: { type: 'string', default: '3' }, every: { type: 'string', default: '1000' },
      within: { type: 'string', default: '30' }, width: { type: 'string', default: '1280' },
      pixel: { type: 'string', multiple: true, default: [] },
      listen: { type: 'boolean' }, talk: { type: 'string', default: '0' },
      command: { type: 'string' }, stream: { type: 'string' },
      screenshot: { type: 'string' }, json: { type: 'string' }, 'expect-error': { type: 'string' },
    } });
    if (!values.url) throw new Error('--url is missing');
    const url = new URL(values.url);
    if (values.relay) url.searchParams.set('relay', '1');
    if (values.click) url.searchParams.set('autostart', '0');
    const points = values.pixel.map((text) => text.split(',').map(Number));
    if (points.some((p) => p.length !== 2 || p.some((n) => !Number.isInteger(n) || n < 0))) {
      throw new Error('--pixel takes X,Y');
    }
    const numbers = { seconds: +values.seconds, everyMs: +values.every, withinMs: +values.within * 1000, width: +values.width };
    for (const [name, value] of Object.entries(numbers)) {
      if (!(value > 0)) throw new Error(`${name} must be a number above 0`);
    }
    const talkSeconds = +values.talk;
    if (!(talkSeconds >= 0)) throw new Error('talk must be a number');
    return {
      listen: values.listen, talk: talkSeconds, command: values.command, stream: values.stream,
      url: url.href, turn: values.turn, click: values.click, pixels: points, screenshot: values.screenshot,
      json: values.json, expectError: values['expect-error'], ...numbers,
    };
  } catch (error) {
    console.error(`watch.mjs: ${error.message}\nUsage: node watch.mjs --url URL [--relay] [--seconds N] …`);
    process.exit(2);
  }
}
