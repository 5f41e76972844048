// The session API over HTTP: asks for a session, closes one. What goes wrong is a Failure.

import { Failure } from './words.js';

const CREATE_WITHIN_MS = 10_000;

/** Has the browser connect to the server already, should it not be. */
export function warmUp(server) {
  const link = Object.assign(document.createElement('link'), { rel: 'preconnect', href: server });
  document.head.append(link);
  link.remove();
}

/** Asks for a session. Resolves to the API's answer: sessionId, token, iceServers, mqtt. */
export async function createSession({ server, key, device, appId, signal }) {
  const abort = new AbortController();
  signal.addEventListener('abort', () => abort.abort());
  const timer = setTimeout(() => abort.abort(new Error('no answer in time')), CREATE_WITHIN_MS);
  let response;
  try {
    response = await fetch(new URL('v1/sessions', server), {
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      body: JSON.stringify({ deviceId: device, appId }),
      cache: 'no-store',
      signal: abort.signal,
    });
  } catch (error) {
    throw new Failure('server', `the session API did not answer: ${error.message}`);
  } finally {
    clearTimeout(timer);
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) {
    const text = body?.error?.message ?? response.statusText;
    throw new Failure(kindOfStatus(response.status), text, response.status);
  }
  if (!body?.sessionId || !body.token || !body.mqtt) {
    throw new Failure('internal', 'the session API answered without sessionId, token or mqtt');
  }
  return body;
}

/** Closes a session while the page goes away; the request outlives the page. */
export function deleteSession({ server, sessionId, token, code }) {
  const query = code === undefined ? '' : `?code=${code}`;
  fetch(new URL(`v1/sessions/${sessionId}${query}`, server), {
    method: 'DELETE', headers: { authorization: `Bearer ${token}` }, keepalive: true,
  }).catch(() => {});
}

/** Where the broker is, in the order to try. */
export function brokerUrls(wsUrl, server) {
  const own = ownBrokerUrl(server);
  if (!wsUrl) return [own];
  const told = new URL(wsUrl), here = new URL(own);
  // Behind a proxy the server knows neither the outer port nor whether TLS is spoken there.
  if (told.hostname === here.hostname) {
    here.pathname = told.pathname;
    return told.host === here.host ? [here.href] : [here.href, told.href];
  }
  return [told.href, own];
}

/** The broker beside the session API. */
export function ownBrokerUrl(server) {
  const url = new URL('mqtt', server);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  url.search = url.hash = '';
  return url.href;
}

function kindOfStatus(status) {
  if (status === 401 || status === 403) return 'key';
  if (status === 404) return 'device';
  if (status === 400 || status === 413) return 'request';
  if (status === 429) return 'full';
  return 'internal';
}
