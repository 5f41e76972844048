// Sound, both ways, on one transceiver: the camera's, which is offered from the beginning, and the
// viewer's own microphone, which is opened and offered only while somebody talks.
//
// Events: `change`.

import { Failure } from './words.js';

const MICROPHONE = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };

export class AudioSection extends EventTarget {
  /** `off`, `starting` or `on`. */
  talking = 'off';
  #transceiver;
  #negotiate;
  #microphone = null; // a track
  #attempt = null; // to talk: one object each

  /** `negotiate()`: has the camera answer to what this one changes. */
  constructor(transceiver, negotiate) {
    super();
    this.#transceiver = transceiver;
    this.#negotiate = negotiate;
  }

  get track() {
    return this.#transceiver.receiver.track;
  }

  /** Whether the camera sends sound. */
  get heard() {
    return ['recvonly', 'sendrecv'].includes(this.#transceiver.currentDirection);
  }

  /** Whether the camera has anything to do with sound: then it may listen, too. */
  get accepted() {
    const { currentDirection } = this.#transceiver;
    return currentDirection !== null && currentDirection !== 'stopped';
  }

  /** Opens the microphone and offers it. Rejects with a Failure that says why the camera hears nothing. */
  async talk() {
    if (this.#attempt) return;
    if (!this.accepted) throw new Failure('mute', 'it has not taken the offered sound');
    const attempt = {};
    this.#attempt = attempt;
    this.#set('starting');
    try {
      const microphone = await openMicrophone();
      if (this.#attempt !== attempt) return microphone.stop(); // hushed meanwhile
      this.#microphone = microphone;
      microphone.addEventListener('ended', () => this.hush()); // unplugged, or its permission taken back
      await this.#transceiver.sender.replaceTrack(microphone);
      await this.#offer('sendrecv');
      if (this.#attempt !== attempt) return;
      if (!['sendrecv', 'sendonly'].includes(this.#transceiver.currentDirection)) {
        throw new Failure('mute', 'it took the pictures, but not the microphone');
      }
      this.#set('on');
    } catch (error) {
      if (this.#attempt === attempt) this.hush();
      throw error;
    }
  }

  /** Ends talking: the microphone at once, then what the camera knows of it. */
  async hush() {
    if (!this.#attempt) return;
    this.close();
    if (this.#transceiver.direction === 'sendrecv') await this.#offer('recvonly').catch(() => {});
  }

  /** Lets the microphone go. */
  close() {
    this.#attempt = null;
    this.#microphone?.stop();
    this.#microphone = null;
    this.#set('off');
  }

  async #offer(direction) {
    if (this.#transceiver.currentDirection === 'stopped') return;
    this.#transceiver.direction = direction;
    if (direction === 'recvonly') await this.#transceiver.sender.replaceTrack(null);
    await this.#negotiate();
  }

  #set(talking) {
    if (talking === this.talking) return;
    this.talking = talking;
    this.dispatchEvent(new Event('change'));
  }
}

async function openMicrophone() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Failure('microphone', 'browsers open the microphone only for pages that come by https, or from localhost');
  }
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: MICROPHONE });
    return stream.getAudioTracks()[0];
  } catch (error) {
    const why = {
      NotAllowedError: 'it was not allowed; the browser’s address bar has the permission',
      NotFoundError: 'there is none',
    };
    throw new Failure('microphone', why[error.name] ?? error.message);
  }
}
