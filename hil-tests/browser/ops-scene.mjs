// Sessions for the operators' page to show: some through the API, with cameras that speak only the signaling.

import { setTimeout as sleep } from 'node:timers/promises';
import { SignalingCamera } from './server.mjs';

export const TOKEN = 'operators-token-of-the-tests';

/** A session as an application asks for it. */
export async function newSession(server, deviceId, appId, more = {}) {
  const reply = await fetch(`${server.url}v1/sessions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${server.key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ deviceId, appId, ...more }),
  });
  if (reply.status !== 201) throw new Error(`no session: ${reply.status} ${await reply.text()}`);
  return (await reply.json()).sessionId;
}

/** What a camera says of one of its sessions. */
export const report = (camera, sessionId, payload) => camera.link.publish('p2p/signal/server', JSON.stringify({
  type: 'keepalive', sessionId, from: camera.sn, to: 'server', payload, timestamp: Date.now(),
}));

/** A session of a camera of its own, which says each of these one after the other. */
export async function sessionWith(server, deviceId, appId, ...payloads) {
  const camera = await SignalingCamera.start(server, deviceId);
  const sessionId = await newSession(server, deviceId, appId);
  for (const payload of payloads) {
    await report(camera, sessionId, payload);
    await sleep(20);
  }
  return { camera, sessionId };
}
