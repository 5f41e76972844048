// What is seen: puts states and figures into the page's elements. Decides nothing.

import { pathInWords, stateInWords } from './words.js';

const NOTHING = '–';
const COPIED_FOR_MS = 1_500;

const element = (id) => document.getElementById(id);

export class Page {
  #video = element('video');
  #stage = element('stage');

  /** `onStart()`: play or try again was pressed. `onConnect({device, key})`: the form was sent. */
  constructor({ onStart, onConnect }) {
    element('start').addEventListener('click', onStart);
    element('retry').addEventListener('click', onStart);
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

  showState(state, { sessionId, firstFrameMs, path, retries }) {
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

  /** Plays; calls back once with the time the first frame was there. */
  play(stream, onFirstFrame) {
    const video = this.#video;
    video.srcObject = stream;
    if (video.requestVideoFrameCallback) {
      video.requestVideoFrameCallback((now, frame) => onFirstFrame(Math.min(now, frame.presentationTime)));
    }
    // A page in the background shows no frames, but it does load them. Without any, the event says
    // only that the stream has ended.
    video.addEventListener('loadeddata', () => video.videoWidth > 0 && onFirstFrame(performance.now()), { once: true });
    video.play().catch(() => {}); // interrupted by a new stream, or not visible: it starts later
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
