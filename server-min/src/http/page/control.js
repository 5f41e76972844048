// The data channel "control": text to the camera's firmware and back, ordered and reliable. It is opened
// when somebody wants it, by a further offer: viewings without it pay nothing for it.
//
// Events: `change` of `state`; `message` {text}.

import { Failure } from './words.js';

const LABEL = 'control';
const OPEN_WITHIN_MS = 10_000;

export class Control extends EventTarget {
  /** `closed`, `opening` or `open`. */
  state = 'closed';
  #pc;
  #negotiate;
  #channel = null;

  /** `negotiate()`: has the camera answer to what this one changes. */
  constructor(pc, negotiate) {
    super();
    this.#pc = pc;
    this.#negotiate = negotiate;
  }

  /** Resolves once text can be sent; rejects with a Failure that says why not. */
  async open() {
    if (this.state !== 'closed') return;
    if (!this.#pc.currentRemoteDescription) throw new Failure('control', 'there is no connection yet');
    const channel = this.#pc.createDataChannel(LABEL);
    this.#channel = channel;
    channel.binaryType = 'arraybuffer';
    channel.addEventListener('message', ({ data }) => this.#onMessage(data));
    channel.addEventListener('close', () => this.#channel === channel && this.close());
    this.#set('opening');
    try {
      // For a second channel there is nothing to agree on any more.
      if (!this.#pc.sctp) await this.#negotiate();
      if (!this.#pc.sctp) throw new Failure('control', 'it rejected the data channel');
      await isOpen(channel);
      this.#set('open');
    } catch (error) {
      if (this.#channel === channel) this.close();
      throw error;
    }
  }

  /** Whether the text is on its way. */
  send(text) {
    if (this.#channel?.readyState !== 'open') return false;
    this.#channel.send(text);
    return true;
  }

  close() {
    const channel = this.#channel;
    this.#channel = null;
    channel?.close();
    this.#set('closed');
  }

  #onMessage(data) {
    const text = typeof data === 'string' ? data : `(${data.byteLength} bytes)`;
    this.dispatchEvent(new CustomEvent('message', { detail: { text } }));
  }

  #set(state) {
    if (state === this.state) return;
    this.state = state;
    this.dispatchEvent(new Event('change'));
  }
}

function isOpen(channel) {
  if (channel.readyState === 'open') return Promise.resolve();
  return new Promise((resolve, reject) => {
    const failed = (detail) => reject(new Failure('control', detail));
    const timer = setTimeout(() => failed(`the channel did not open within ${OPEN_WITHIN_MS / 1000} s`), OPEN_WITHIN_MS);
    channel.addEventListener('open', () => {
      clearTimeout(timer);
      resolve();
    });
    channel.addEventListener('close', () => {
      clearTimeout(timer);
      failed('the channel was closed');
    });
  });
}
