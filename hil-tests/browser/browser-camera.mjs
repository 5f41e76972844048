// A camera made of a browser page: another implementation of the device's side of the contract,
// which can be told to misbehave in ways a network does (late, repeated, out of order).

import { openPage, until } from './lib.mjs';

const READY_WITHIN_MS = 20_000;

/**
 * `answerDelayMs`: how long after its candidates the answer follows. `copies`: of each signal.
 * `unreachable`: it answers, but no packet will ever find a way.
 */
export async function startBrowserCamera(context, server, sn, { answerDelayMs = 0, copies = 1, unreachable = false } = {}) {
  // The page without a camera in its address: for its origin alone.
  const page = await openPage(context, server.url);
  const password = server.devicePassword(sn);
  await page.evaluate(camera, { sn, password, answerDelayMs, copies, unreachable });
  await until(() => page.evaluate(() => window.camera.link.online), Boolean, READY_WITHIN_MS, 'the camera is not online');
  return {
    page,
    heard: () => page.evaluate(() => window.camera.heard),
    /** Its connections end without a word, as when its power is cut. */
    loseConnections: () => page.evaluate(() => window.camera.sessions.forEach(({ pc }) => pc.close())),
    say: (type, payload) => page.evaluate(([t, p]) => window.camera.say(t, p), [type, payload]),
    stop: () => page.close(),
  };
}

/** Runs in the page. */
async function camera({ sn, password, answerDelayMs, copies, unreachable }) {
  const { MqttClient } = await import('/mqtt.js');
  const link = new MqttClient({ urls: [`ws://${location.host}/mqtt`] });
  const sessions = new Map();
  const heard = [];
  let viewer; // the last offer's
  const send = (to, type, payload) => {
    for (let i = 0; i < copies; i++) {
      link.publish(`p2p/signal/app/${to.from}`, JSON.stringify({
        type, sessionId: to.sessionId, from: sn, to: to.from, payload, timestamp: 0,
      }));
    }
  };
  window.camera = { link, sessions, heard, say: (type, payload) => send(viewer, type, payload) };

  // A green picture with a red square and something that moves.
  const canvas = Object.assign(document.createElement('canvas'), { width: 640, height: 360 });
  const draw = canvas.getContext('2d');
  let frame = 0;
  setInterval(() => {
    draw.fillStyle = '#00a040';
    draw.fillRect(0, 0, 640, 360);
    draw.fillStyle = '#d02020';
    draw.fillRect(20, 20, 120, 120);
    draw.fillStyle = '#ffffff';
    draw.fillRect((frame++ * 5) % 600, 250, 40, 40);
  }, 40);
  const [track] = canvas.captureStream(25).getVideoTracks();

  // A camera takes its relays from the token. (It would also check the signature; we are no lock.)
  const claims = (token) => JSON.parse(atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/')));

  async function onOffer(message) {
    viewer = message;
    const { sdp } = message.payload;
    let session = sessions.get(message.sessionId);
    if (session?.offer === sdp) return session.answer && send(message, 'answer', session.answer);
    if (!session) {
      const pc = new RTCPeerConnection({ iceServers: claims(message.payload.token).iceServers });
      pc.addTrack(track);
      pc.onicecandidate = ({ candidate }) => unreachable || send(message, 'candidate', {
        candidate: candidate?.candidate ?? '', sdpMid: '0', sdpMLineIndex: 0,
      });
      session = { pc, early: [] };
      sessions.set(message.sessionId, session);
    }
    session.offer = sdp;
    session.answer = null;
    await session.pc.setRemoteDescription({ type: 'offer', sdp });
    session.early.splice(0).forEach((candidate) => session.pc.addIceCandidate(candidate));
    const answer = await session.pc.createAnswer();
    await session.pc.setLocalDescription(answer); // its candidates leave from here on
    if (answerDelayMs > 0) await new Promise((resolve) => setTimeout(resolve, answerDelayMs));
    session.answer = { sdp: answer.sdp };
    send(message, 'answer', session.answer);
  }

  link.addEventListener('message', async ({ detail }) => {
    const message = JSON.parse(detail.text);
    heard.push(message);
    const session = sessions.get(message.sessionId);
    if (unreachable && message.type === 'candidate') return;
    if (message.type === 'offer') await onOffer(message).catch(() => {});
    else if (message.type === 'candidate' && session?.pc.remoteDescription) session.pc.addIceCandidate(message.payload).catch(() => {});
    else if (message.type === 'candidate') session?.early.push(message.payload);
    else if (message.type === 'bye') session?.pc.close();
  });
  link.connect({ clientId: sn, username: sn, password });
  await link.subscribe(`p2p/signal/device/${sn}`);
  await link.publish(`p2p/status/device/${sn}`, JSON.stringify({ online: true, timestamp: 0 }), { retain: true });
}
