// What is seen: puts states and figures into the page's elements. Decides nothing.

import { pathInWords, stateInWords } from './words.js';

const NOTHING = '–';
const COPIED_FOR_MS = 1_500;
/** A connection that is there sooner shows none of its steps. */
const STEPS_AFTER_MS = 250;

const element = (id) => document.getElementById(id);

export class Page {
  #video = element('video');
  #stage = element('stage');
  #media = null; // what the video shows, or will
  #steps; // timer: the steps of a connection are shown from then on
  #step = null; // what it will show

  /**
   * `onStart()`: play or try again was pressed; `onReach()`: somebody is about to. `onConnect({device,
   * key})`: the form was sent.
   */
  constructor({ onStart, onReach, onConnect }) {
    for (const id of ['start', 'retry']) {
      element(id).addEventListener('click', () => this.#stage.dataset.view !== 'calling' && onStart());
      for (const type of ['pointerenter', 'focus']) element(id).addEventListener(type, onReach);
    }
    element('form').addEventListener('submit', (event) => {
      event.preventDefault();
      const device = element('device').value.trim(), key = element('key').value.trim();
      if (device && key) onConnect({ device, key });
    });
    element('fullscreen').addEventListener('click', () => this.#toggleFullscreen());
    this.#video.addEventListener('dblclick', () => this.#toggleFullscreen());
    element('copy').addEventListener('click', () => this.#copySessionId());
  }

  showTarget({ device, stream, relayOnly }) {
    element('name').textContent = device;
    document.title = device ? `${device} – camera` : 'Camera viewer';
    element('variant').textContent =
      [stream && `stream ${stream}`, relayOnly && 'relay only'].filter(Boolean).join(' · ');
  }

  askForTarget({ device, key }) {
    element('device').value = device;
    element('key').value = key;
    this.#view('form');
    element(device ? 'key' : 'device').focus({ preventScroll: true });
    element('state').textContent = 'Which camera?';
  }

  offerStart() {
    this.#view('start');
    element('state').textContent = stateInWords({ name: 'idle' });
  }

  /**
   * To draw the first steps of a connection takes the processor as long as they last, and from the
   * picture. So the play button goes at once, and the steps are shown if they go on for a while.
   */
  showState(state, about) {
    if (state.name !== 'connecting') {
      clearTimeout(this.#steps);
      this.#steps = undefined;
      return this.#show(state, about);
    }
    this.#step = [state, about];
    if (this.#stage.dataset.view === 'waiting') return this.#show(state, about);
    this.#stage.dataset.view = 'calling';
    this.#steps ??= setTimeout(() => {
      this.#steps = undefined;
      this.#show(...this.#step);
    }, STEPS_AFTER_MS);
  }

  #show(state, { sessionId, firstFrameMs, path, retries }) {
    const words = stateInWords(state);
    document.body.dataset.state = state.name;
    if (element('state').textContent !== words) element('state').textContent = words;
    element('session').textContent = sessionId ?? NOTHING;
    element('copy').disabled = !sessionId;
    element('first').textContent = milliseconds(firstFrameMs);
    element('path').textContent = pathInWords(path);
    element('path').dataset.relayed = path?.relayed ?? false;
    switch (state.name) {
      case 'failed':
        if (firstFrameMs === undefined) this.attach(null); // not even black
        this.#showFailure(state.failure, retries);
        break;
      case 'closed':
        this.#view('start');
        break;
      case 'playing':
        this.#view('video');
        break;
      default:
        element('waiting-text').textContent = words;
        this.#view(state.name === 'recovering' ? 'recovering' : 'waiting');
    }
  }

  showFigures({ video, codec, framesPerSecond, bitsPerSecond, lossRatio, roundTripMs, path, firstFrameMs }) {
    element('size').textContent = video?.frameWidth ? `${video.frameWidth} × ${video.frameHeight}` : NOTHING;
    element('codec').textContent = codec?.replace(/^H26/, 'H.26') ?? NOTHING;
    element('rate').textContent = number(framesPerSecond, 0, 'fps');
    element('bits').textContent = bitRate(bitsPerSecond);
    element('rtt').textContent = number(roundTripMs, roundTripMs < 10 ? 1 : 0, 'ms');
    element('loss').textContent = number(lossRatio === undefined ? undefined : lossRatio * 100, 1, '%');
    element('first').textContent = milliseconds(firstFrameMs);
    element('path').textContent = pathInWords(path);
    element('path').dataset.relayed = path?.relayed ?? false;
  }

  /** Has `media` in the picture's place, before there is anything in it: players are slow to begin. */
  attach(media) {
    if (this.#media === media) return;
    this.#media = media;
    const load = () => {
      if (this.#media !== media) return;
      this.#video.srcObject = media;
      this.#video.play().catch(() => {}); // interrupted by the next one, or not visible: it starts later
    };
    // A player that waits for its first frame would keep the page from being loaded.
    if (document.readyState === 'complete') load();
    else addEventListener('load', load, { once: true });
  }

  /** Plays; calls back once with the time the first frame was there. */
  play(media, onFirstFrame) {
    const video = this.#video;
    this.attach(media);
    if (video.requestVideoFrameCallback) {
      video.requestVideoFrameCallback((now, frame) => onFirstFrame(Math.min(now, frame.presentationTime)));
    }
    // A page in the background shows no frames, but it does load them. Without any, the event says
    // only that the stream has ended.
    video.addEventListener('loadeddata', () => video.videoWidth > 0 && onFirstFrame(performance.now()), { once: true });
  }

  #showFailure(failure, retries) {
    element('failure-title').textContent = failure.title;
    element('failure-advice').textContent = retries ? 'Trying again by itself.' : failure.advice;
    const code = failure.code ? ` (${failure.code})` : '';
    element('failure-detail').textContent = failure.message ? `${failure.message}${code}` : '';
    element('retry').textContent = retries ? 'Try now' : 'Try again';
    this.#view('failure');
    for (const id of ['rate', 'bits', 'size', 'codec', 'rtt', 'loss']) element(id).textContent = NOTHING;
  }

  /** Shows one of the stage's layers: form, start, waiting, recovering, failure, video. */
  #view(name) {
    this.#stage.dataset.view = name;
    for (const layer of this.#stage.querySelectorAll('[data-layer]')) {
      layer.hidden = !layer.dataset.layer.split(' ').includes(name);
    }
  }

  #toggleFullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (this.#stage.requestFullscreen) this.#stage.requestFullscreen().catch(() => {});
    else this.#video.webkitEnterFullscreen?.(); // iPhones put only the video itself on full screen
  }

  async #copySessionId() {
    const id = element('session').textContent;
    try {
      await navigator.clipboard.writeText(id);
    } catch {
      // No clipboard without https: select it, so that the user's own copy works.
      getSelection().selectAllChildren(element('session'));
      return;
    }
    element('copy').textContent = 'Copied';
    setTimeout(() => (element('copy').textContent = 'Copy'), COPIED_FOR_MS);
  }
}

const number = (value, digits, unit) =>
  (value === undefined || !Number.isFinite(value) ? NOTHING : `${value.toFixed(digits)} ${unit}`);

const milliseconds = (value) => number(value, 0, 'ms');

function bitRate(bitsPerSecond) {
  if (bitsPerSecond === undefined) return NOTHING;
  return bitsPerSecond >= 1e6 ? `${(bitsPerSecond / 1e6).toFixed(2)} Mbit/s` : `${Math.round(bitsPerSecond / 1e3)} kbit/s`;
}
