// The buttons on the picture: sound, talking, another stream, and the pad that moves the camera. What
// they do is the session's; here they are shown, pressed, and say what came of it.

import { Failure } from './words.js';

const NOTE_FOR_MS = 8_000;
const MAX_NOTE_LENGTH = 300;

const element = (id) => document.getElementById(id);

export class Bar {
  #video = element('video');
  #session = null;
  #moving = null; // the pad's button that is held
  #noteTimer;

  constructor() {
    element('sound').addEventListener('click', () => {
      this.#video.muted = !this.#video.muted;
      this.#show(); // at once: `volumechange` comes a task later
    });
    this.#video.addEventListener('volumechange', () => this.#show());
    element('talk').addEventListener('click', () => this.#toggleTalking());
    element('controls').addEventListener('click', () => this.#toggleControls());
    element('quality').addEventListener('change', ({ target }) => this.#session?.selectStream(target.value));
    for (const button of element('pad').querySelectorAll('button')) this.#wirePadButton(button);
  }

  /** Belongs to another session from now on. */
  follow(session) {
    this.#session = session;
    const of = (target, type, run) => target.addEventListener(type, (event) => this.#session === session && run(event));
    of(session, 'sound', () => this.#show());
    of(session, 'streams', () => {
      this.#show();
      if (session.streams.problem) this.note(session.streams.problem);
    });
    if (session.control) {
      of(session.control, 'change', () => this.#show());
      of(session.control, 'message', ({ detail }) => this.note(`Camera: ${detail.text}`));
    }
    this.note('');
  }

  /** One line on the picture, for a while. */
  note(text) {
    clearTimeout(this.#noteTimer);
    element('note').textContent = text.slice(0, MAX_NOTE_LENGTH);
    element('note').hidden = !text;
    if (text) this.#noteTimer = setTimeout(() => this.note(''), NOTE_FOR_MS);
  }

  #show() {
    const { audio, control, streams } = this.#session ?? {};
    if (!control) return; // no session, or one that failed before there was a peer connection
    element('sound').hidden = !audio.heard;
    element('sound').ariaPressed = String(!this.#video.muted);
    element('talk').hidden = !audio.accepted;
    element('talk').ariaPressed = String(audio.talking === 'on');
    element('talk').ariaBusy = String(audio.talking === 'starting');
    element('controls').ariaExpanded = String(control.state === 'open');
    element('controls').ariaBusy = String(control.state === 'opening');
    element('pad').hidden = control.state !== 'open';
    this.#showStreams(streams);
  }

  #showStreams({ names, chosen, pending }) {
    const quality = element('quality');
    quality.hidden = names.length < 2;
    if (names.join() !== [...quality.options].map(({ value }) => value).join()) {
      quality.replaceChildren(...names.map((name) => new Option(name)));
    }
    quality.value = chosen;
    quality.ariaBusy = String(pending);
  }

  async #toggleTalking() {
    const { audio } = this.#session;
    if (audio.talking !== 'off') return audio.hush();
    await audio.talk().catch((error) => this.#noteFailure(error));
  }

  async #toggleControls() {
    const { control } = this.#session;
    if (control.state === 'open') return control.close();
    await control.open().catch((error) => this.#noteFailure(error));
  }

  #noteFailure(error) {
    this.note(error instanceof Failure ? `${error.title}: ${error.message}` : `${error.name}: ${error.message}`);
  }

  /** Moves while it is held, by whatever means. */
  #wirePadButton(button) {
    button.addEventListener('pointerdown', (event) => {
      if (event.button !== 0) return;
      button.setPointerCapture(event.pointerId);
      this.#move(button);
    });
    button.addEventListener('keydown', (event) => {
      if ((event.key === 'Enter' || event.key === ' ') && !event.repeat) this.#move(button);
    });
    for (const type of ['pointerup', 'pointercancel', 'lostpointercapture', 'keyup', 'blur']) {
      button.addEventListener(type, () => this.#stop(button));
    }
  }

  #move(button) {
    if (this.#session.control.send(`ptz ${button.dataset.ptz}`)) this.#moving = button;
  }

  #stop(button) {
    if (this.#moving !== button) return;
    this.#moving = null;
    this.#session.control.send('ptz stop');
  }
}
