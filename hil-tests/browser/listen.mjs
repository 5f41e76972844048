// A small viewer of its own in Chromium, apart from the page: it hears a camera, then makes its audio
// section sendrecv in the same session and talks. Reports, as one line of JSON, what getStats saw.
//
//     node listen.mjs --url URL [--seconds N]
//
// URL is the page's, with the device and the key. Ends with 0 if there was sound both ways.

import { parseArgs } from 'node:util';
import { FAKE_MICROPHONE, openBrowser, openPage } from './lib.mjs';

const { values } = parseArgs({ options: { url: { type: 'string' }, seconds: { type: 'string', default: '5' } } });
const url = new URL(values.url);
// Sound without a click.
const browser = await openBrowser({ args: [...FAKE_MICROPHONE, '--autoplay-policy=no-user-gesture-required'] });
let report;
try {
  // The page without a camera in its address: for its origin alone.
  const page = await openPage(browser.context, url.origin);
  report = await page.evaluate(listen, {
    device: url.searchParams.get('device'),
    key: new URLSearchParams(url.hash.slice(1)).get('key'),
    seconds: Number(values.seconds),
  });
  report.problems = page.problems;
} catch (error) {
  report = { ok: false, failure: error.message };
} finally {
  await browser.close();
}
console.log(JSON.stringify(report));
process.exitCode = report.ok ? 0 : 1;

/** Runs in the page. */
async function listen({ device, key, seconds }) {
  const WITHIN_MS = 20_000;
  const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const until = async (what, found) => {
    for (const end = Date.now() + WITHIN_MS; Date.now() < end; await sleep(50)) {
      const value = await found();
      if (value) return value;
    }
    throw new Error(`${what}: not within ${WITHIN_MS} ms`);
  };

  const appId = 'listener';
  const response = await fetch('/v1/sessions', {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ deviceId: device, appId }),
  });
  const session = await response.json();
  const { MqttClient } = await import('/mqtt.js');
  const link = new MqttClient({ urls: [`ws://${location.host}/mqtt`] });
  const send = (type, payload) => link.publish(`p2p/signal/device/${device}`, JSON.stringify({
    type, sessionId: session.sessionId, from: appId, to: device, payload, timestamp: Date.now(),
  }));

  const pc = new RTCPeerConnection({ iceServers: session.iceServers, bundlePolicy: 'max-bundle' });
  pc.addTransceiver('video', { direction: 'recvonly' });
  const audio = pc.addTransceiver('audio', { direction: 'recvonly' });
  // One stream for both: only then they are kept in sync.
  const element = document.createElement('video');
  pc.ontrack = ({ streams }) => {
    element.srcObject = streams[0];
    element.play();
  };
  document.body.append(element);
  pc.onicecandidate = ({ candidate }) => send('candidate', {
    candidate: candidate?.candidate ?? '', sdpMid: candidate?.sdpMid ?? '0', sdpMLineIndex: candidate?.sdpMLineIndex ?? 0,
  });

  const answers = [];
  const early = [];
  link.addEventListener('message', ({ detail }) => {
    const { type, payload, sessionId } = JSON.parse(detail.text);
    if (sessionId !== session.sessionId) return;
    if (type === 'answer') answers.push(payload.sdp);
    else if (type === 'candidate' && pc.remoteDescription) pc.addIceCandidate(payload).catch(() => {});
    else if (type === 'candidate') early.push(payload);
    else if (type === 'error') answers.push(new Error(`${payload.code} ${payload.message}`));
  });
  const { username, password } = session.mqtt;
  link.connect({ clientId: appId, username, password });
  await link.subscribe(`p2p/signal/app/${appId}`);

  const negotiate = async () => {
    answers.length = 0;
    await pc.setLocalDescription();
    await send('offer', { sdp: pc.localDescription.sdp, token: session.token });
    const sdp = await until('no answer', () => answers.at(-1));
    if (sdp instanceof Error) throw sdp;
    await pc.setRemoteDescription({ type: 'answer', sdp });
    early.splice(0).forEach((candidate) => pc.addIceCandidate(candidate).catch(() => {}));
  };
  const stats = async () => {
    const all = [...(await pc.getStats()).values()];
    const find = (type, kind) => all.find((s) => s.type === type && s.kind === kind) ?? {};
    const heard = find('inbound-rtp', 'audio');
    return {
      heard, seen: find('inbound-rtp', 'video'), said: find('outbound-rtp', 'audio'),
      told: find('remote-inbound-rtp', 'audio'), codec: all.find((s) => s.id === heard.codecId)?.mimeType,
    };
  };

  await negotiate();
  await until('no sound', async () => (await stats()).heard.packetsReceived > 0);
  // Until the players of both have settled, nothing is in sync.
  await sleep(3000);
  const begin = await stats();
  const skews = [];
  for (const end = Date.now() + seconds * 1000; Date.now() < end; await sleep(250)) {
    const { heard, seen } = await stats();
    // What is played now, by the wall clock of the sender reports (webrtc-stats).
    const skew = seen.estimatedPlayoutTimestamp - heard.estimatedPlayoutTimestamp;
    if (Number.isFinite(skew)) skews.push(skew);
  }
  const listened = await stats();

  // Press to talk.
  const [microphone] = (await navigator.mediaDevices.getUserMedia({ audio: true })).getAudioTracks();
  audio.direction = 'sendrecv';
  await audio.sender.replaceTrack(microphone);
  await negotiate();
  await sleep(seconds * 1000);
  const talked = await stats();

  // And let go: the camera hears no more, and is still heard.
  audio.direction = 'recvonly';
  await audio.sender.replaceTrack(null);
  microphone.stop();
  await negotiate();
  const before = (await stats()).heard.packetsReceived;
  await until('it was not heard any more', async () => (await stats()).heard.packetsReceived > before + 10);
  send('bye', { reason: 'done' });
  await sleep(200);
  pc.close();
  link.close();

  const samples = listened.heard.totalSamplesReceived - begin.heard.totalSamplesReceived;
  const concealed = listened.heard.concealedSamples - begin.heard.concealedSamples;
  skews.sort((a, b) => a - b);
  return {
    ok: true,
    packetsReceived: listened.heard.packetsReceived,
    packetsLost: listened.heard.packetsLost,
    totalAudioEnergy: listened.heard.totalAudioEnergy,
    concealedShare: concealed / samples,
    mimeType: listened.codec,
    framesDecoded: listened.seen.framesDecoded,
    skewMs: skews.length ? skews[Math.floor(skews.length / 2)] : null,
    skews: skews.map(Math.round),
    packetsSent: talked.said.packetsSent,
    reportedRoundTrips: talked.told.roundTripTimeMeasurements ?? 0,
    reportedLost: talked.told.packetsLost ?? null,
    reportedJitterMs: (talked.told.jitter ?? NaN) * 1000,
  };
}
