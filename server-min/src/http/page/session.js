// One viewing of one camera, from the request for a session to its end. It speaks the contract in
// docs/signaling.md and shows nothing: the page listens to its events.
//
//     POST /v1/sessions ──────────→ grant ─→ CONNECT, SUBSCRIBE, offer ─→ answer ─→ ICE ─→ picture
//     WebSocket opens ──────────────────────┘                │
//     createOffer (makes the DTLS key) ──→ setLocalDescription → candidates, each as it is found
//
// The three lines on the left run side by side. Only setLocalDescription waits for the grant: it
// starts the gathering, which needs the ICE servers, and setConfiguration can still bring them
// until then without an ICE restart (JSEP, RFC 8829 section 4.1.18).
//
// A session is used once; whoever wants to try again makes a new one.
//
// Events: `state`; `stream` {stream}; `camera-online`: a camera that was offline has come back.

import { createSession, deleteSession } from './api.js';
import { createPeer, useIceServers } from './peer.js';
import { SignalLink } from './signals.js';
import { readStats } from './stats.js';
import { Failure, kindOfError } from './words.js';

const OFFER_REPEAT_AFTER_MS = [1_000, 2_000, 4_000];
const ANSWER_WITHIN_MS = 10_000;
/** Shorter: a camera that has started anew knows nothing of us, and only a new session helps. */
const RESTART_ANSWER_WITHIN_MS = 5_000;
const CONNECT_WITHIN_MS = 15_000;
const PICTURE_WITHIN_MS = 10_000;
const KEEPALIVE_EVERY_MS = 20_000;
/** A retained "offline" can be the will of a connection that has already been replaced. */
const OFFLINE_GRACE_MS = 1_500;
/** Without a retained status this long after subscribing, the camera has never been here. */
const UNKNOWN_GRACE_MS = 4_000;
/** ICE often finds its way back by itself within this time. */
const DISCONNECTED_GRACE_MS = 1_000;

export class ViewerSession extends EventTarget {
  /** `server`: base URL of the session API. `stream`: `main`, `sub`, or nothing. */
  constructor({ server, device, key, appId, stream, relayOnly = false }) {
    super();
    Object.assign(this, { server, device, key, appId, streamName: stream, relayOnly });
    this.id = null;
    this.pc = null;
    /** `{name}`, with `step` while connecting and `failure` when failed. */
    this.state = { name: 'idle' };
    /** When each step was reached, in `performance.now()` milliseconds. */
    this.timeline = {};
    this.path = null;
  }

  #grant = null;
  #link = null;
  #abort = new AbortController();
  #timers = new Map();
  #negotiation = null; // {offer, candidates, remoteCandidates, restart} until the answer is in
  #answerSdp = null;
  #heard = false; // anything from the camera in this session
  #cameraOnline; // true, false, or unknown
  #hadPicture = false;
  #setupMs;

  get ended() {
    return this.state.name === 'failed' || this.state.name === 'closed';
  }

  async start() {
    this.#mark('start');
    this.#setState({ name: 'connecting', step: 'session' });
    try {
      if (typeof RTCPeerConnection === 'undefined') throw new Failure('unsupported');
      const { server, key, device, appId } = this;
      const grantComes = createSession({ server, key, device, appId, signal: this.#abort.signal });
      grantComes.catch(() => {}); // heard below; until then it must not count as unhandled
      this.#openLink();
      this.#openPeer();
      const offerComes = this.pc.createOffer();
      offerComes.catch(() => {});
      this.#onGrant(await grantComes);
      await this.#negotiate(offerComes, false);
    } catch (error) {
      this.#fail(asFailure(error));
    }
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
    this.#stop('picture');
    this.#settle();
  }

  /** The network has come back: do not sit out the back-off. */
  hurry() {
    this.#link?.hurry();
  }

  // ---- Signaling -------------------------------------------------------------------------------

  #openLink() {
    const { server, device, appId } = this;
    this.#link = new SignalLink({ server, device, appId });
    const on = (type, run) => this.#link.addEventListener(type, ({ detail }) => run(detail));
    on('online', () => this.timeline.broker === undefined && this.#mark('broker'));
    on('signal', (signal) => this.#onSignal(signal));
    on('status', (status) => this.#onStatus(status));
    on('status-known-by-now', () => {
      // The retained status may well have come before the grant of its topic.
      if (this.#cameraOnline !== undefined || this.#heard || this.ended) return;
      this.#after('status', UNKNOWN_GRACE_MS, () =>
        this.#fail(new Failure('offline', 'it has never reported to this server')));
    });
    on('refused', ({ reason }) => {
      // With a picture running, the broker is not needed until something has to be said.
      if (!this.#hadPicture) this.#fail(new Failure('signalingRefused', reason));
    });
    this.#link.open();
  }

  #onGrant(grant) {
    if (this.ended) return;
    this.#mark('grant');
    this.#grant = grant;
    this.id = grant.sessionId;
    useIceServers(this.pc, grant.iceServers ?? []);
    this.#link.enter(grant);
    this.#setState({ name: 'connecting', step: 'signaling' });
    if (grant.deviceOnline === false) this.#onStatus({ online: false });
    this.#every('keepalive', KEEPALIVE_EVERY_MS, () => this.#sendKeepalive());
  }

  #onSignal({ type, payload, fromCamera }) {
    if (this.ended) return;
    if (fromCamera) {
      this.#heard = true;
      this.#stop('status');
      this.#stop('offline');
    }
    switch (type) {
      case 'answer':
        if (fromCamera) this.#onAnswer(payload);
        break;
      case 'candidate':
        if (fromCamera) this.#onCandidate(payload);
        break;
      // These two can also come from the session service.
      case 'bye':
        this.#fail(new Failure('ended', payload.reason));
        break;
      case 'error':
        this.#onError(payload);
        break;
      // `keepalive` needs no answer: that it came is all it says.
    }
  }

  #onStatus({ online }) {
    this.#cameraOnline = online;
    this.#stop('status');
    if (online) {
      this.#stop('offline');
      if (this.ended) this.dispatchEvent(new Event('camera-online'));
    } else if (!this.#heard && !this.ended) {
      this.#after('offline', OFFLINE_GRACE_MS, () =>
        this.#fail(new Failure('offline', 'its last report says so')));
    }
  }

  #onError({ code, message }) {
    // An ICE restart that comes too late for the camera or the token: a new session mends it.
    if (this.#hadPicture && (code === 401 || code === 404)) return this.#fail(new Failure('lost', message, code));
    this.#fail(new Failure(kindOfError(code), message, code));
  }

  #sendKeepalive(toServerOnly = false) {
    const connected = this.pc?.connectionState === 'connected';
    const payload = {
      state: connected ? 'connected' : 'connecting',
      ...(connected && this.path && { path: this.path.kind }),
      ...(this.#setupMs !== undefined && { setupMs: this.#setupMs }),
    };
    if (!toServerOnly) this.#link?.toCamera('keepalive', payload);
    this.#link?.toServer(payload);
  }

  #sayBye(reason) {
    if (!this.#grant) return;
    this.#link?.toCamera('bye', { reason });
    this.#link?.toServer({ state: 'closed' });
    // The page may be going away before the broker has these: this request outlives it.
    deleteSession({ server: this.server, sessionId: this.id, token: this.#grant.token });
  }

  // ---- Negotiation -----------------------------------------------------------------------------

  #openPeer() {
    const pc = createPeer({ relayOnly: this.relayOnly });
    this.pc = pc;
    pc.addEventListener('track', ({ track, streams }) => this.dispatchEvent(
      new CustomEvent('stream', { detail: { stream: streams[0] ?? new MediaStream([track]) } })));
    pc.addEventListener('icecandidate', ({ candidate }) => this.#onLocalCandidate(candidate));
    pc.addEventListener('connectionstatechange', () => this.#onConnectionState());
  }

  async #negotiate(offerComes, restart) {
    const negotiation = { offer: null, applied: null, candidates: [], remoteCandidates: [], restart };
    this.#negotiation = negotiation;
    const offer = await offerComes;
    if (this.ended) return;
    // Sent before setLocalDescription has done its work: the camera can begin, and the candidates
    // follow on the same connection, so in order.
    negotiation.offer = { sdp: offer.sdp, token: this.#grant.token };
    if (this.streamName) negotiation.offer.stream = this.streamName;
    this.#link?.toCamera('offer', negotiation.offer);
    if (!restart) this.#mark('offer');
    this.#repeatOffer(negotiation, 0);
    this.#after('answer', restart ? RESTART_ANSWER_WITHIN_MS : ANSWER_WITHIN_MS, () => this.#onNoAnswer());
    negotiation.applied = this.pc.setLocalDescription(offer);
    await negotiation.applied;
  }

  /** The same offer again, and the candidates so far: the camera may have missed them all. */
  #repeatOffer(negotiation, round) {
    if (round >= OFFER_REPEAT_AFTER_MS.length) return;
    this.#after('offer', OFFER_REPEAT_AFTER_MS[round], () => {
      // While offline it still waits in the outbox, and a copy of it would say nothing new.
      if (this.#link?.online) {
        this.#link?.toCamera('offer', negotiation.offer);
        for (const candidate of negotiation.candidates) this.#link?.toCamera('candidate', candidate);
      }
      this.#repeatOffer(negotiation, round + 1);
    });
  }

  #onLocalCandidate(candidate) {
    if (this.ended || !this.#grant) return;
    const { candidate: text = '', sdpMid = '0', sdpMLineIndex = 0 } = candidate ?? {};
    // The end comes as an empty candidate and then as null; once is enough.
    if (candidate && text === '') return;
    const payload = { candidate: text, sdpMid, sdpMLineIndex };
    this.#negotiation?.candidates.push(payload);
    this.#link?.toCamera('candidate', payload);
  }

  async #onAnswer({ sdp }) {
    const negotiation = this.#negotiation;
    // Answers repeat. The same text as last time is a late copy, not the answer to a new offer.
    if (!negotiation?.offer || typeof sdp !== 'string' || sdp === this.#answerSdp) return;
    this.#answerSdp = sdp;
    this.#stop('answer');
    this.#stop('offer');
    try {
      await negotiation.applied;
      await this.pc.setRemoteDescription({ type: 'answer', sdp });
    } catch (error) {
      return this.#fail(new Failure(negotiation.restart ? 'lost' : 'codec', `its answer: ${error.message}`));
    }
    this.#negotiation = null;
    if (this.ended) return;
    if (/^m=video 0 /m.test(sdp)) return this.#fail(new Failure('codec', 'its answer rejects the video', 406));
    for (const candidate of negotiation.remoteCandidates) this.#addCandidate(candidate);
    // So that the camera knows its answer has come, and the service that we are at it.
    this.#sendKeepalive();
    if (!negotiation.restart) {
      this.#mark('answer');
      if (this.state.step === 'signaling') this.#setState({ name: 'connecting', step: 'answer' });
    }
    // An ICE restart need not change the connection's state: the old pair may work again meanwhile.
    if (this.pc.connectionState === 'connected') return this.#settle();
    this.#after('connect', CONNECT_WITHIN_MS, () => this.#fail(new Failure(
      negotiation.restart ? 'lost' : 'timeout', `ICE is still “${this.pc.iceConnectionState}”`, 408)));
  }

  /** A candidate belongs to the description it was sent with: before its answer, it waits. */
  #onCandidate(candidate) {
    if (this.#negotiation) this.#negotiation.remoteCandidates.push(candidate);
    else this.#addCandidate(candidate);
  }

  #addCandidate({ candidate = '', sdpMid = null, sdpMLineIndex = null }) {
    const init = { candidate, sdpMid, sdpMLineIndex };
    if (sdpMid === null && sdpMLineIndex === null) init.sdpMLineIndex = 0;
    this.pc.addIceCandidate(init).catch((error) =>
      console.warn('p2pcam: candidate not taken:', candidate, error.message));
  }

  #onNoAnswer() {
    if (this.#hadPicture) return this.#fail(new Failure('lost', 'the camera does not answer'));
    if (this.timeline.broker === undefined) return this.#fail(new Failure('signaling', 'not connected within 10 s'));
    this.#fail(new Failure(this.#cameraOnline === false ? 'offline' : 'silent', 'no answer within 10 s', 408));
  }

  // ---- Connection ------------------------------------------------------------------------------

  #onConnectionState() {
    if (this.ended) return;
    switch (this.pc.connectionState) {
      case 'connected':
        this.#stop('connect');
        this.#stop('restart');
        if (this.timeline.connected === undefined) {
          this.#mark('connected');
          this.#setupMs = Math.round(this.timeline.connected - this.timeline.offer);
        }
        this.#settle();
        this.#reportPath();
        break;
      case 'disconnected':
        this.#after('restart', DISCONNECTED_GRACE_MS, () => this.#restartIce());
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
    this.#after('picture', PICTURE_WITHIN_MS, async () => {
      const { framesReceived = 0, framesDecoded = 0 } = (await readStats(this.pc)).video ?? {};
      if (framesDecoded > 0) return this.onFirstFrame(performance.now());
      this.#fail(framesReceived > 0
        ? new Failure('codec', `${framesReceived} frames came, none could be decoded`, 406)
        : new Failure('black', `no frame within ${PICTURE_WITHIN_MS / 1000} s`));
    });
  }

  async #reportPath() {
    this.path = (await readStats(this.pc)).path;
    if (this.ended) return;
    this.#sendKeepalive();
    this.#changed();
  }

  async #restartIce() {
    if (this.ended || this.#negotiation) return;
    if (!this.#hadPicture && this.timeline.connected === undefined) {
      return this.#fail(new Failure('timeout', 'no pair of addresses works', 408));
    }
    this.#stop('restart');
    this.#stop('picture');
    this.#setState({ name: 'recovering' });
    this.#sendKeepalive(true);
    this.#link?.hurry();
    try {
      await this.#negotiate(this.pc.createOffer({ iceRestart: true }), true);
    } catch (error) {
      this.#fail(new Failure('lost', error.message));
    }
  }

  // ---- State and timers ------------------------------------------------------------------------

  #fail(failure) {
    if (this.ended) return;
    this.#sayBye(`${failure.title}: ${failure.message}`);
    this.#setState({ name: 'failed', failure });
    this.#release();
    // Only an offline camera is worth listening for: its status says when to try again.
    if (failure.kind === 'offline') return;
    this.#link?.close();
    this.#link = null;
  }

  #release() {
    this.#abort.abort();
    for (const name of [...this.#timers.keys()]) this.#stop(name);
    this.#negotiation = null;
    this.pc?.close();
  }

  #setState(state) {
    this.state = state;
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event('state'));
  }

  #mark(step) {
    this.timeline[step] = performance.now();
  }

  #after(name, ms, run) {
    this.#stop(name);
    this.#timers.set(name, setTimeout(() => {
      this.#timers.delete(name);
      run();
    }, ms));
  }

  #every(name, ms, run) {
    this.#stop(name);
    this.#timers.set(name, setInterval(run, ms));
  }

  #stop(name) {
    clearTimeout(this.#timers.get(name)); // clears intervals too
    this.#timers.delete(name);
  }
}

function asFailure(error) {
  return error instanceof Failure ? error : new Failure('internal', `${error.name}: ${error.message}`);
}
