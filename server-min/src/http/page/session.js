// One viewing of one camera, from the request for a session to its end. It speaks the contract in
// docs/signaling.md and shows nothing: the page listens to its events.
//
//     before the click: createOffer (makes the DTLS key), WebSocket, the element that will show it
//     the click: POST /v1/sessions ─→ grant ─→ CONNECT, SUBSCRIBE, offer ─→ answer ─→ ICE ─→ picture
//                                       └──→ setLocalDescription → candidates, each as it is found
//
// What needs neither session nor camera can be done by `prepare`, ahead of the click. Only
// setLocalDescription waits for the grant: it starts the gathering, which needs the ICE servers, and
// setConfiguration can still bring them until then without an ICE restart (JSEP, RFC 8829 section 4.1.18).
//
// A session is used once; whoever wants to try again makes a new one.
//
// Events: `state`; `streams`: what is in `streams` has changed; `sound`: whether there is any, or
// whether somebody talks, has changed; `camera-online`: a camera that was offline has come back.

import { createSession, deleteSession } from './api.js';
import { AudioSection } from './audio.js';
import { Control } from './control.js';
import { Negotiation, NoAnswer } from './negotiation.js';
import { createPeer, useIceServers } from './peer.js';
import { SignalLink } from './signals.js';
import { readStats } from './stats.js';
import { Streams, SWITCH_WITHIN_MS } from './streams.js';
import { Timers } from './timers.js';
import { Failure, kindOfError } from './words.js';

const ANSWER_WITHIN_MS = 10_000;
/** Shorter: a camera that has started anew knows nothing of us, and only a new session helps. */
const RESTART_ANSWER_WITHIN_MS = 5_000;
const CONNECT_WITHIN_MS = 15_000;
const PICTURE_WITHIN_MS = 10_000;
const KEEPALIVE_EVERY_MS = 20_000;
/** What is only told to others can wait this long for the picture, which needs the same processor. */
const PICTURE_FIRST_MS = 500;
/** A retained "offline" can be the will of a connection that has already been replaced. */
const OFFLINE_GRACE_MS = 1_500;
/** Without a retained status this long after subscribing, the camera has never been here. */
const UNKNOWN_GRACE_MS = 4_000;
/** ICE often finds its way back by itself within this time. */
const DISCONNECTED_GRACE_MS = 1_000;

export class ViewerSession extends EventTarget {
  /** `server`: base URL of the session API. `stream`, `streams`: names, such as `main` and `sub`. */
  constructor({ server, device, key, appId, stream, streams, relayOnly = false }) {
    super();
    Object.assign(this, { server, device, key, appId, relayOnly });
    this.id = null;
    this.pc = null;
    /** The MediaStream to show: there from `prepare` or `start` on, the sound once there is some. */
    this.media = null;
    /** An AudioSection and a Control, once there is a peer connection. */
    this.audio = null;
    this.control = null;
    this.streams = new Streams({ wanted: stream, names: streams });
    /** `{name}`, with `step` while connecting and `failure` when failed. */
    this.state = { name: 'idle' };
    /** When each step was reached, in `performance.now()` milliseconds. */
    this.timeline = {};
    this.path = null;
  }

  #grant = null;
  #link = null;
  #negotiation = null;
  #abort = new AbortController();
  #timers = new Timers();
  #heard = false; // anything from the camera in this session
  #cameraOnline; // true, false, or unknown
  #hadPicture = false;
  #restarting = false;
  #setupMs;

  get ended() {
    return this.state.name === 'failed' || this.state.name === 'closed';
  }

  /** Does what needs no session yet, to make the start quick. May be called again, and need not be. */
  prepare() {
    if (this.state.name !== 'idle') return;
    try {
      this.#prepare();
    } catch {
      // `start` meets the same obstacle, and says so.
    }
  }

  async start() {
    this.#mark('start');
    try {
      if (typeof RTCPeerConnection === 'undefined') throw new Failure('unsupported');
      const { server, key, device, appId } = this;
      // First of all: whatever else there is to do fits into the wait for it.
      const grantComes = createSession({ server, key, device, appId, signal: this.#abort.signal });
      grantComes.catch(() => {}); // heard below; until then it must not count as unhandled
      this.#prepare();
      this.#setState({ name: 'connecting', step: 'session' });
      this.#onGrant(await grantComes);
      await this.#connect();
    } catch (error) {
      this.#fail(asFailure(error));
    }
  }

  /** Asks the camera for another of its streams, while this one plays. */
  selectStream(name) {
    if (this.ended) return;
    this.streams.want(name);
    this.#sendKeepalive();
    if (this.streams.pending) {
      this.#timers.after('stream', SWITCH_WITHIN_MS, () => {
        this.streams.giveUp(`the camera did not change to “${name}”`);
        this.#emit('streams');
      });
    }
    this.#emit('streams');
  }

  /** Ends the session and tells the camera and the service why. */
  close(reason = 'closed by the viewer') {
    if (!this.ended) {
      this.#sayBye(reason);
      this.#setState({ name: 'closed', reason });
    }
    this.#release();
    this.#link?.close();
    this.#link = null;
  }

  /** The page has seen the first decoded frame, at `atMs` of performance.now(). */
  onFirstFrame(atMs) {
    if (this.ended || this.#hadPicture) return;
    this.#hadPicture = true;
    this.timeline.firstFrame = atMs;
    this.#timers.stop('picture');
    this.#settle();
    this.#takeSound();
    this.#reportPath();
  }

  /** The network has come back: do not sit out the back-off. */
  hurry() {
    this.#link?.hurry();
  }

  // ---- Signaling -------------------------------------------------------------------------------

  #prepare() {
    this.#link ??= this.#newLink();
    this.#link.open();
    if (!this.pc) this.#openPeer();
  }

  #newLink() {
    const { server, device, appId } = this;
    const link = new SignalLink({ server, device, appId });
    const on = (type, run) => link.addEventListener(type, ({ detail }) => run(detail));
    on('online', () => this.timeline.broker === undefined && this.#mark('broker'));
    on('signal', (signal) => this.#onSignal(signal));
    on('status', (status) => this.#onStatus(status));
    on('status-known-by-now', () => {
      // The retained status may well have come before the grant of its topic.
      if (this.#cameraOnline !== undefined || this.#heard || this.ended) return;
      this.#timers.after('status', UNKNOWN_GRACE_MS, () =>
        this.#fail(new Failure('offline', 'it has never reported to this server')));
    });
    on('refused', ({ reason }) => {
      // With a picture running, the broker is not needed until something has to be said.
      if (!this.#hadPicture) this.#fail(new Failure('signalingRefused', reason));
    });
    return link;
  }

  #onGrant(grant) {
    if (this.ended) return;
    this.#mark('grant');
    this.#grant = grant;
    this.id = grant.sessionId;
    useIceServers(this.pc, grant.iceServers ?? []);
    this.#link.join(this.id);
    if (grant.deviceOnline === false) this.#onStatus({ online: false });
    this.#timers.every('keepalive', KEEPALIVE_EVERY_MS, () => this.#sendKeepalive());
  }

  #onSignal({ type, payload, fromCamera }) {
    if (this.ended) return;
    if (fromCamera) {
      this.#heard = true;
      this.#timers.stop('status');
      this.#timers.stop('offline');
    }
    switch (type) {
      case 'answer':
        if (fromCamera) this.#negotiation.onAnswer(payload);
        break;
      case 'candidate':
        if (fromCamera) this.#negotiation.onCandidate(payload);
        break;
      case 'keepalive': // needs no answer
        if (fromCamera && this.streams.onKeepalive(payload)) this.#emit('streams');
        break;
      // These two can also come from the session service.
      case 'bye':
        this.#fail(new Failure('ended', payload.reason));
        break;
      case 'error':
        this.#onError(payload);
        break;
    }
  }

  #onStatus({ online }) {
    this.#cameraOnline = online;
    this.#timers.stop('status');
    if (online) {
      this.#timers.stop('offline');
      if (this.ended) this.#emit('camera-online');
    } else if (!this.#heard && !this.ended) {
      this.#timers.after('offline', OFFLINE_GRACE_MS, () =>
        this.#fail(new Failure('offline', 'its last report says so')));
    }
  }

  #onError({ code, message }) {
    // An ICE restart that comes too late for the camera or the token, or an offer that no longer has
    // what this session uses: a new session mends it.
    if (this.#hadPicture && [401, 404, 406].includes(code)) return this.#fail(new Failure('lost', message, code));
    this.#fail(new Failure(kindOfError(code), message, code));
  }

  #sendKeepalive(toServerOnly = false) {
    const connected = this.pc?.connectionState === 'connected';
    const payload = {
      state: connected ? 'connected' : 'connecting',
      ...(connected && this.path && { path: this.path.kind }),
      ...(this.#setupMs !== undefined && { setupMs: this.#setupMs }),
    };
    if (!toServerOnly) this.#link?.toCamera('keepalive', { ...payload, ...this.streams.request });
    this.#link?.toServer(payload);
  }

  /** `code`: the number of what went wrong, for the service's statistics. */
  #sayBye(reason, code) {
    if (!this.#grant) return;
    this.#link?.toCamera('bye', { reason });
    this.#link?.toServer({ state: 'closed', reason, code });
    // The page may be going away before the broker has these: this request outlives it.
    deleteSession({ server: this.server, sessionId: this.id, token: this.#grant.token, code });
  }

  // ---- Negotiation -----------------------------------------------------------------------------

  #openPeer() {
    const { pc, video, audio } = createPeer({ relayOnly: this.relayOnly });
    this.pc = pc;
    this.media = new MediaStream([video.receiver.track]);
    pc.addEventListener('connectionstatechange', () => this.#onConnectionState());
    this.#negotiation = new Negotiation(pc, {
      send: (type, payload) => this.#link?.toCamera(type, payload),
      isOnline: () => this.#link?.online ?? false,
    });
    this.#negotiation.prepare();
    const change = () => this.#change();
    this.audio = new AudioSection(audio, change);
    this.audio.addEventListener('change', () => this.#emit('sound'));
    this.control = new Control(pc, change);
  }

  /** The first offer. What follows its answer comes as events of the peer connection. */
  async #connect() {
    if (this.ended) return;
    let sdp;
    try {
      sdp = await this.#negotiate({
        withinMs: ANSWER_WITHIN_MS,
        onSent: () => {
          this.#link?.enter(this.#grant.mqtt);
          this.#mark('offer');
          this.#setState({ name: 'connecting', step: 'signaling' });
        },
      });
    } catch (error) {
      if (error instanceof NoAnswer) throw this.#noAnswer();
      throw this.timeline.offer === undefined ? error : new Failure('codec', `its answer: ${error.message}`);
    }
    if (this.ended) return;
    this.#mark('answer');
    if (/^m=video 0 /m.test(sdp)) throw new Failure('codec', 'its answer rejects the video', 406);
    this.#expectConnection('timeout');
  }

  /** A further offer, for what somebody wants beside the picture. If it fails, the picture goes on. */
  async #change() {
    try {
      await this.#negotiate({ withinMs: ANSWER_WITHIN_MS });
    } catch (error) {
      throw error instanceof NoAnswer ? this.#noAnswer() : asFailure(error);
    }
  }

  async #restartIce() {
    if (this.ended || this.#restarting) return;
    if (!this.#hadPicture && this.timeline.connected === undefined) {
      return this.#fail(new Failure('timeout', 'no pair of addresses works', 408));
    }
    this.#restarting = true;
    this.#timers.stop('restart');
    this.#timers.stop('picture');
    this.#setState({ name: 'recovering' });
    this.#sendKeepalive(true);
    this.#link?.hurry();
    try {
      await this.#negotiate({ withinMs: RESTART_ANSWER_WITHIN_MS, iceRestart: true });
      if (!this.ended) this.#expectConnection('lost');
    } catch (error) {
      this.#fail(new Failure('lost', error instanceof NoAnswer ? 'the camera does not answer' : error.message));
    } finally {
      this.#restarting = false;
    }
  }

  async #negotiate(offer) {
    const { wanted } = this.streams;
    const about = { token: this.#grant.token, ...(wanted && { stream: wanted }) };
    const sdp = await this.#negotiation.offer({ about, ...offer });
    if (this.#hadPicture && !this.ended) {
      this.#takeSound();
      this.#sendKeepalive(); // so that the camera knows its answer has come
    }
    return sdp;
  }

  /** The answer is in. */
  #expectConnection(otherwise) {
    // An ICE restart need not change the connection's state: the old pair may work again meanwhile.
    if (this.pc.connectionState === 'connected') return this.#settle();
    if (this.state.step === 'signaling') this.#setState({ name: 'connecting', step: 'answer' });
    // A check tells the camera that its answer has come; where none gets through, this does.
    this.#timers.after('heard', PICTURE_FIRST_MS, () => this.#sendKeepalive());
    this.#timers.after('connect', CONNECT_WITHIN_MS, () => this.#fail(new Failure(
      otherwise, `ICE is still “${this.pc.iceConnectionState}”`, 408)));
  }

  #noAnswer() {
    if (this.timeline.broker === undefined) return new Failure('signaling', 'not connected within 10 s');
    return new Failure(this.#cameraOnline === false ? 'offline' : 'silent', 'no answer within 10 s', 408);
  }

  // ---- Connection ------------------------------------------------------------------------------

  #onConnectionState() {
    if (this.ended) return;
    switch (this.pc.connectionState) {
      case 'connected':
        for (const name of ['connect', 'restart', 'heard']) this.#timers.stop(name);
        if (this.timeline.connected === undefined) {
          this.#mark('connected');
          this.#setupMs = Math.round(this.timeline.connected - this.timeline.offer);
        }
        this.#settle();
        this.#timers.after('report', this.#hadPicture ? 0 : PICTURE_FIRST_MS, () => this.#reportPath());
        break;
      case 'disconnected':
        this.#timers.after('restart', DISCONNECTED_GRACE_MS, () => this.#restartIce());
        break;
      case 'failed':
        this.#restartIce();
        break;
    }
  }

  /** Connected: what is still missing is at most the picture. */
  #settle() {
    if (this.#hadPicture) {
      this.#setState({ name: 'playing' });
      return;
    }
    this.#setState({ name: 'connecting', step: 'media' });
    this.#timers.after('picture', PICTURE_WITHIN_MS, async () => {
      const { framesReceived = 0, framesDecoded = 0 } = (await readStats(this.pc)).video ?? {};
      if (framesDecoded > 0) return this.onFirstFrame(performance.now());
      this.#fail(framesReceived > 0
        ? new Failure('codec', `${framesReceived} frames came, none could be decoded`, 406)
        : new Failure('black', `no frame within ${PICTURE_WITHIN_MS / 1000} s`));
    });
  }

  /** After the picture: until it is there, the sound would only be in its way. */
  #takeSound() {
    if (this.audio.heard) this.media.addTrack(this.audio.track);
    this.#emit('sound');
  }

  async #reportPath() {
    this.#timers.stop('report');
    this.path = (await readStats(this.pc)).path ?? this.path;
    if (this.ended) return;
    this.#sendKeepalive();
    this.#emit('state');
  }

  // ---- State -----------------------------------------------------------------------------------

  #fail(failure) {
    if (this.ended) return;
    this.#sayBye(`${failure.title}: ${failure.message}`, failure.number);
    this.#setState({ name: 'failed', failure });
    this.#release();
    // Only an offline camera is worth listening for: its status says when to try again.
    if (failure.kind === 'offline') return;
    this.#link?.close();
    this.#link = null;
  }

  #release() {
    this.#abort.abort();
    this.#timers.stopAll();
    this.#negotiation?.close();
    this.audio?.close();
    this.control?.close();
    this.pc?.close();
  }

  #setState(state) {
    this.state = state;
    this.#emit('state');
  }

  #emit(type) {
    this.dispatchEvent(new Event(type));
  }

  #mark(step) {
    this.timeline[step] = performance.now();
  }
}

function asFailure(error) {
  return error instanceof Failure ? error : new Failure('internal', `${error.name}: ${error.message}`);
}
