// What numbers and codes are called.

const DASH = '–';

export const count = (n) => (n ?? null) === null ? DASH : n.toLocaleString('en');

export const percent = (part, whole) => whole > 0
  ? `${(100 * part / whole).toLocaleString('en', { maximumFractionDigits: 1 })} %` : DASH;

/** `4 s`, `12 min`, `3 h 05`, `2 d 4 h`. */
export function age(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  const min = Math.floor(s / 60);
  if (min < 60) return `${min} min`;
  const h = Math.floor(min / 60);
  return h < 24 ? `${h} h ${String(min % 60).padStart(2, '0')}` : `${Math.floor(h / 24)} d ${h % 24} h`;
}

export function bits(bps) {
  if ((bps ?? null) === null) return DASH;
  if (bps < 1e6) return `${Math.round(bps / 1e3).toLocaleString('en')} kbit/s`;
  return `${(bps / 1e6).toLocaleString('en', { maximumFractionDigits: bps < 1e8 ? 1 : 0 })} Mbit/s`;
}

export function bytes(n) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  while (n >= 1000 && unit < units.length - 1) {
    n /= 1000;
    unit += 1;
  }
  return `${n.toLocaleString('en', { maximumFractionDigits: unit && n < 100 ? 1 : 0 })} ${units[unit]}`;
}

export const setup = (ms) => (ms ?? null) === null ? DASH : `${ms.toLocaleString('en')} ms`;

/** In UTC, as the log has it. */
export const clock = (ms) => new Date(ms).toISOString().slice(11, 19);

export const moment = (ms) => new Date(ms).toISOString().replace('T', ' ').replace(/\.\d+Z$/, ' UTC');

export const route = (path) => !path ? DASH : path === 'relay' ? 'relayed' : 'direct';

const KINDS = {
  host: 'in the same network', srflx: 'through NATs', prflx: 'through NATs', relay: 'through a TURN relay',
};
export const routeInFull = (path) => path ? `${route(path)}, ${KINDS[path] ?? path} (${path})` : 'not known yet';

const REASONS = {
  left: 'goodbye of a side',
  api: 'closed by API or operator',
  device_offline: 'device was offline',
  unauthorized: 'token refused',
  unplayable: 'nothing to play it with',
  timeout: 'no way between the two',
  busy: 'too many viewers',
  unavailable: 'stream not running',
  bad_signal: 'message not understood',
  internal: 'internal error',
  silent: 'both fell silent',
  expired: 'its time was over',
};
export const reason = (label) => REASONS[label] ?? label;
