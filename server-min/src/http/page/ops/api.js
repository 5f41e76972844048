// What the server answers to whoever has the token. The token lives in this tab's sessionStorage, and goes
// out in a header: it stands in no address, no history and no log.

const KEY = 'p2pcam.ops.token';
const ANSWERED_WITHIN_MS = 8_000;

/** `status` is 0 where nothing was answered. */
export class Refused extends Error {
  constructor(status, message, retryAfterS = 0) {
    super(message);
    Object.assign(this, { status, retryAfterS });
  }
}

export class Api {
  get token() {
    return sessionStorage.getItem(KEY) ?? '';
  }

  set token(token) {
    if (token) sessionStorage.setItem(KEY, token);
    else sessionStorage.removeItem(KEY);
  }

  overview() {
    return this.ask('GET', 'overview');
  }

  /** A page of open sessions; `after` is what `next` of the page before said. */
  sessions({ q = '', state = '', after = '', limit = 100 }) {
    return this.ask('GET', `sessions?${new URLSearchParams({ q, state, after, limit })}`);
  }

  session(id) {
    return this.ask('GET', `sessions/${encodeURIComponent(id)}`);
  }

  close(id) {
    return this.ask('DELETE', `sessions/${encodeURIComponent(id)}`);
  }

  async ask(method, path) {
    let reply;
    try {
      reply = await fetch(`v1/ops/${path}`, {
        method,
        headers: { authorization: `Bearer ${this.token}` },
        cache: 'no-store',
        credentials: 'omit',
        signal: AbortSignal.timeout(ANSWERED_WITHIN_MS),
      });
    } catch {
      throw new Refused(0, 'the server does not answer');
    }
    if (reply.status === 204) return null;
    const body = await reply.json().catch(() => ({}));
    if (reply.ok) return body;
    const message = body.error?.message ?? `the server answered ${reply.status}`;
    throw new Refused(reply.status, message, Number(reply.headers.get('retry-after')) || 0);
  }
}
