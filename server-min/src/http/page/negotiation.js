// Offers to the camera and its answers: one at a time, each repeated until it is answered, with the
// candidates of both sides in the order the contract wants. Knows nothing of why an offer is made.
//
//     createOffer ─→ send ─→ setLocalDescription ─→ candidates, each as it is found
//                      └──→ answer ─→ setRemoteDescription ─→ the camera's candidates, which waited

import { Timers } from './timers.js';

const REPEAT_AFTER_MS = [1_000, 2_000, 4_000];

/** The camera did not answer in time; what was agreed on before still holds. */
export class NoAnswer extends Error {}

export class Negotiation {
  #pc;
  #send;
  #isOnline;
  #firstOffer = null; // a promise
  #current = null; // {offer, applied, candidates, remoteCandidates, answered} until the answer is in
  #last = Promise.resolve();
  #answerSdp = null;
  #timers = new Timers();
  #closed = false;

  /** `send(type, payload)` to the camera; `isOnline()`: whether that leaves at once. */
  constructor(pc, { send, isOnline }) {
    this.#pc = pc;
    this.#send = send;
    this.#isOnline = isOnline;
    pc.addEventListener('icecandidate', ({ candidate }) => this.#onLocalCandidate(candidate));
  }

  /** Makes the first offer already: that needs nothing from anybody. */
  prepare() {
    this.#firstOffer = this.#pc.createOffer();
    this.#firstOffer.catch(() => {}); // heard in `#run`; until then it must not count as unhandled
  }

  /**
   * Offers what the peer connection has, after the offers that are still under way. `about`: what
   * goes with the SDP. `onSent()` is called when it is out. Resolves to the answer's SDP; rejects with
   * NoAnswer, or with what the browser says against the answer.
   */
  offer({ about, withinMs, iceRestart = false, onSent = () => {} }) {
    const run = this.#last.then(() => this.#run(about, withinMs, iceRestart, onSent));
    this.#last = run.catch(() => {});
    return run;
  }

  onAnswer({ sdp }) {
    // Answers repeat. The same text as last time is a late copy, not the answer to a new offer.
    if (!this.#current || typeof sdp !== 'string' || sdp === this.#answerSdp) return;
    this.#answerSdp = sdp;
    this.#current.answered(sdp);
  }

  /** A candidate belongs to the description it was sent with: before its answer, it waits. */
  onCandidate(candidate) {
    if (this.#current) this.#current.remoteCandidates.push(candidate);
    else this.#addCandidate(candidate);
  }

  /** No offer, repetition or candidate leaves any more. */
  close() {
    this.#closed = true;
    this.#timers.stopAll();
    this.#current = null;
  }

  async #run(about, withinMs, iceRestart, onSent) {
    const { sdp } = await (this.#firstOffer ?? this.#pc.createOffer({ iceRestart }));
    this.#firstOffer = null;
    if (this.#closed) return new Promise(() => {}); // whoever waits has been told already
    const current = { offer: { sdp, ...about }, candidates: [], remoteCandidates: [] };
    const answer = new Promise((resolve, reject) => {
      current.answered = resolve;
      this.#timers.after('answer', withinMs, () => reject(new NoAnswer(`no answer within ${withinMs / 1000} s`)));
    });
    answer.catch(() => {}); // heard below
    this.#current = current;
    // Sent before setLocalDescription has done its work: the camera can begin, and the candidates
    // follow on the same connection, so in order.
    this.#send('offer', current.offer);
    onSent();
    this.#repeat(current, 0);
    try {
      await this.#pc.setLocalDescription({ type: 'offer', sdp });
      const answerSdp = await answer;
      this.#stopRepeating();
      await this.#pc.setRemoteDescription({ type: 'answer', sdp: answerSdp });
      return answerSdp;
    } catch (error) {
      // Back to what was agreed on before. Not after a first offer, which has nothing before it.
      if (this.#pc.currentRemoteDescription) await this.#pc.setLocalDescription({ type: 'rollback' }).catch(() => {});
      throw error;
    } finally {
      this.#stopRepeating();
      if (this.#current === current) this.#current = null;
      if (!this.#closed) current.remoteCandidates.forEach((candidate) => this.#addCandidate(candidate));
    }
  }

  /** The same offer again, and the candidates so far: the camera may have missed them all. */
  #repeat(current, round) {
    if (round >= REPEAT_AFTER_MS.length) return;
    this.#timers.after('repeat', REPEAT_AFTER_MS[round], () => {
      // While offline it still waits in the outbox, and a copy of it would say nothing new.
      if (this.#isOnline()) {
        this.#send('offer', current.offer);
        for (const candidate of current.candidates) this.#send('candidate', candidate);
      }
      this.#repeat(current, round + 1);
    });
  }

  #stopRepeating() {
    this.#timers.stop('answer');
    this.#timers.stop('repeat');
  }

  #onLocalCandidate(candidate) {
    if (this.#closed) return;
    const { candidate: text = '', sdpMid = '0', sdpMLineIndex = 0 } = candidate ?? {};
    // The end comes as an empty candidate and then as null; once is enough.
    if (candidate && text === '') return;
    const payload = { candidate: text, sdpMid, sdpMLineIndex };
    this.#current?.candidates.push(payload);
    this.#send('candidate', payload);
  }

  #addCandidate({ candidate = '', sdpMid = null, sdpMLineIndex = null }) {
    const init = { candidate, sdpMid, sdpMLineIndex };
    if (sdpMid === null && sdpMLineIndex === null) init.sdpMLineIndex = 0;
    this.#pc.addIceCandidate(init).catch((error) =>
      console.warn('p2pcam: candidate not taken:', candidate, error.message));
  }
}
