// The viewer page: reads its address, runs one session after another, and shows how it goes.
//
//     /?device=SN#key=APPKEY      optional: &stream=sub  &streams=main,sub (those to choose from)
//                                           &relay=1 (only relayed paths)  &autostart=0
//
// The key is in the fragment because a browser sends that to nobody.

import { warmUp } from './api.js';
import { Bar } from './bar.js';
import { Page } from './page.js';
import { ViewerSession } from './session.js';
import { rates, readStats } from './stats.js';

const SAMPLE_EVERY_MS = 1_000;
/** A connection that worked and broke is tried again by itself, at these distances. */
const RETRY_AFTER_MS = [500, 1_000, 2_000, 5_000, 10_000, 30_000];
/** After which failures to try again, once a picture has been seen. */
const PASSING = new Set(['lost', 'server', 'signaling', 'signalingRefused', 'silent', 'timeout', 'gone']);

const parameters = new URLSearchParams(location.search);
const secrets = new URLSearchParams(location.hash.slice(1));
const options = {
  server: new URL('./', document.baseURI).href,
  device: parameters.get('device')?.trim() ?? '',
  key: secrets.get('key') ?? '',
  stream: parameters.get('stream') ?? undefined,
  streams: parameters.get('streams')?.split(',').filter(Boolean),
  relayOnly: parameters.get('relay') === '1',
  appId: `app_${randomHex(6)}`,
};

const page = new Page({ onStart: start, onReach: prepare, onConnect: connect });
const bar = new Bar();
let session = null;
let prepared = null; // the next session, before it is started
let firstFrameMs; // of the current session: from the click or the opening of the page
let failuresSincePicture = 0;
let everPlayed = false;
let retryTimer;
let lastSample = null;

/** The session's `control`, for longer than one session. Events: `message` {text}. */
const control = Object.assign(new EventTarget(), {
  open: () => session?.control?.open(),
  send: (text) => session?.control?.send(text) ?? false,
});

/** For tests, for pages around this one, and for the browser's console. */
window.p2pcam = {
  get session() { return session; },
  get sessionId() { return session?.id ?? null; },
  get state() { return session?.state ?? { name: 'idle' }; },
  get error() { return session?.state.failure?.toJSON() ?? null; },
  get pc() { return session?.pc ?? null; },
  get path() { return session?.path ?? null; },
  get streams() { return session?.streams ?? null; },
  get audio() { return session?.audio ?? null; },
  control,
  get timeline() { return session?.timeline ?? {}; },
  get firstFrameMs() { return firstFrameMs ?? null; },
  stats: async () => (session?.pc ? readStats(session.pc) : null),
  start, stop: () => session?.close(),
};

page.showTarget(options);
if (!options.device || !options.key) page.askForTarget(options);
else if (parameters.get('autostart') === '0') {
  page.offerStart();
  prepare();
  page.attach(prepared.media);
}
// From the opening of the page: what has been loaded so far counts, too.
else begin(0);

setInterval(sample, SAMPLE_EVERY_MS);
addEventListener('online', () => session?.hurry());
addEventListener('hashchange', () => location.reload());
// A page that goes into the back-forward cache comes back without its connections.
addEventListener('pagehide', () => {
  session?.close('the viewer left the page');
  prepared?.close();
  prepared = null;
});
addEventListener('pageshow', (event) => event.persisted && session && start());

/** Somebody may be about to click: what needs neither session nor camera is done by then. */
function prepare() {
  prepared ??= new ViewerSession(options);
  prepared.prepare();
  warmUp(options.server);
}

/** A click: on play, or on try again. */
function start() {
  failuresSincePicture = 0;
  begin(performance.now());
}

/** The form: the address then says what is watched, and can be kept or passed on. */
function connect({ device, key }) {
  Object.assign(options, { device, key });
  prepared?.close(); // it was for another one
  prepared = null;
  parameters.set('device', device);
  secrets.set('key', key);
  history.replaceState(null, '', `?${parameters}#${secrets}`);
  page.showTarget(options);
  start();
}

function begin(clickedAtMs) {
  clearTimeout(retryTimer);
  session?.close('started anew');
  const current = prepared ?? new ViewerSession(options);
  prepared = null;
  session = current;
  firstFrameMs = undefined;
  lastSample = null;
  const on = (target, type, run) => target?.addEventListener(type, (event) => current === session && run(event));
  on(current, 'state', onState);
  on(current, 'streams', onStreams);
  on(current, 'camera-online', start);
  current.start();
  on(current.control, 'message', ({ detail }) => control.dispatchEvent(new CustomEvent('message', { detail })));
  bar.follow(current);
  page.play(current.media, (atMs) => {
    if (current !== session || current.ended || firstFrameMs !== undefined) return;
    firstFrameMs = atMs - clickedAtMs;
    everPlayed = true;
    failuresSincePicture = 0;
    current.onFirstFrame(atMs);
  });
}

function onState() {
  const { state } = session;
  const retries = state.name === 'failed' && everPlayed && PASSING.has(state.failure.kind);
  if (retries) {
    const after = RETRY_AFTER_MS[Math.min(failuresSincePicture, RETRY_AFTER_MS.length - 1)];
    failuresSincePicture += 1;
    clearTimeout(retryTimer);
    retryTimer = setTimeout(() => begin(performance.now()), after * (0.5 + Math.random() / 2));
  }
  page.showState(state, { sessionId: session.id, firstFrameMs, path: session.path, retries });
}

function onStreams() {
  const { wanted, current } = session.streams;
  options.stream = wanted; // of the next session, too
  page.showTarget({ ...options, stream: current ?? wanted });
}

async function sample() {
  const current = session;
  if (!current?.pc || current.ended || current.timeline.connected === undefined) return;
  const now = await readStats(current.pc);
  if (current !== session || current.ended) return;
  current.path = now.path ?? current.path;
  page.showFigures({ ...now, ...(lastSample && rates(lastSample, now)), path: current.path, firstFrameMs });
  lastSample = now;
}

function randomHex(bytes) {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)),
    (byte) => byte.toString(16).padStart(2, '0')).join('');
}
