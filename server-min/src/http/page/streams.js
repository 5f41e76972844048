// Which of the camera's streams is watched, and which there are: what the viewer asks for and what
// the camera says, both in keepalives.

/** A camera that knows the request answers it with its next keyframe. */
export const SWITCH_WITHIN_MS = 10_000;
const MAX_NAMES = 16;

export class Streams {
  /** In the camera's order; empty until it has told them. */
  names = [];
  /** What the camera says it is sending; undefined until it does. */
  current;
  /** What the viewer asked for last: the camera may send another one, as the network takes it. */
  wanted;
  /** Why the last request failed, in words. */
  problem = '';
  #pending = false;

  /** `wanted`: what the offer asks for; `names`: those known from elsewhere. */
  constructor({ wanted, names = [] }) {
    this.wanted = wanted;
    this.names = names;
  }

  /** A request is under way. */
  get pending() {
    return this.#pending;
  }

  /** What is chosen, as far as anybody can say. */
  get chosen() {
    return this.#pending ? this.wanted : this.current ?? this.wanted ?? this.names[0];
  }

  want(name) {
    this.wanted = name;
    this.problem = '';
    this.#pending = name !== this.current;
  }

  /** What a keepalive to the camera carries: nothing, unless there is something to ask for. */
  get request() {
    return this.#pending ? { stream: this.wanted } : {};
  }

  /** Takes the camera's word; whether it said anything new. */
  onKeepalive({ stream, streams, streamError }) {
    const before = JSON.stringify([this.names, this.current, this.#pending, this.problem]);
    if (Array.isArray(streams)) this.names = streams.filter((name) => typeof name === 'string' && name).slice(0, MAX_NAMES);
    if (typeof stream === 'string' && stream) this.current = stream;
    if (streamError) this.giveUp(String(streamError));
    else if (this.current === this.wanted) this.#pending = false;
    return before !== JSON.stringify([this.names, this.current, this.#pending, this.problem]);
  }

  /** The request will not be met. */
  giveUp(problem) {
    if (!this.#pending) return;
    this.#pending = false;
    this.problem = problem;
    this.wanted = this.current ?? this.wanted;
  }
}
