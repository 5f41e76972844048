// A camera made of a browser page: another implementation of the device's side of the contract,
// which can be told to misbehave in ways a network does (late, repeated, out of order).

import { openPage, until } from './lib.mjs';

const READY_WITHIN_MS = 20_000;

/**
 * `answerDelayMs`: how long after its candidates the answer follows. `copies`: of each signal.
 * `unreachable`: it answers, but no packet will ever find a way. `audio`: `microphone`,
 * `loudspeaker`, both with a space between them, or nothing. `data`: it takes data channels, and answers
 * each text. `streams`: what it says it has; `main` is green, any other blue. `streamError`: its answer to
 * requests for another one.
 */
export async function startBrowserCamera(context, server, sn, {
  answerDelayMs = 0, copies = 1, unreachable = false, audio = '', data = false, streams = [], streamError = '',
} = {}) {
  // The page without a camera in its address: for its origin alone.
  const page = await openPage(context, server.url);
  const password = server.devicePassword(sn);
  await page.evaluate(camera, { sn, password, answerDelayMs, copies, unreachable, audio, data, streams, streamError });
  await until(() => page.evaluate(() => window.camera.link.online), Boolean, READY_WITHIN_MS, 'the camera is not online');
  return {
    page,
    heard: () => page.evaluate(() => window.camera.heard),
    /** What came through data channels, in order. */
    texts: () => page.evaluate(() => window.camera.texts),
    tell: (text) => page.evaluate((t) => window.camera.channels.forEach((channel) => channel.send(t)), text),
    /** What it hears of the last viewer: {packets, energy}. */
    listen: () => page.evaluate(async () => {
      const { pc } = [...window.camera.sessions.values()].at(-1);
      const report = [...(await pc.getStats()).values()];
      const { packetsReceived = 0, totalAudioEnergy = 0 } = report.find((s) => s.type === 'inbound-rtp' && s.kind === 'audio') ?? {};
      return { packets: packetsReceived, energy: totalAudioEnergy };
    }),
    /** Its connections end without a word, as when its power is cut. */
    loseConnections: () => page.evaluate(() => window.camera.sessions.forEach(({ pc }) => pc.close())),
    say: (type, payload) => page.evaluate(([t, p]) => window.camera.say(t, p), [type, payload]),
    stop: () => page.close(),
  };
}

/** Runs in the page. */
async function camera({ sn, password, answerDelayMs, copies, unreachable, audio, data, streams, streamError }) {
  const { MqttClient } = await import('/mqtt.js');
  const link = new MqttClient({ urls: [`ws://${location.host}/mqtt`] });
  const sessions = new Map();
  const heard = [], texts = [], channels = [];
  let viewer; // the last offer's
  let sending = 'main';
  const send = (to, type, payload) => {
    for (let i = 0; i < copies; i++) {
      link.publish(`p2p/signal/app/${to.from}`, JSON.stringify({
        type, sessionId: to.sessionId, from: sn, to: to.from, payload, timestamp: 0,
      }));
    }
  };
  window.camera = { link, sessions, heard, texts, channels, say: (type, payload) => send(viewer, type, payload) };

  // A green picture, or a blue one, with a red square and something that moves.
  const canvas = Object.assign(document.createElement('canvas'), { width: 640, height: 360 });
  const draw = canvas.getContext('2d');
  let frame = 0;
  setInterval(() => {
    draw.fillStyle = sending === 'main' ? '#00a040' : '#2040c0';
    draw.fillRect(0, 0, 640, 360);
    draw.fillStyle = '#d02020';
    draw.fillRect(20, 20, 120, 120);
    draw.fillStyle = '#ffffff';
    draw.fillRect((frame++ * 5) % 600, 250, 40, 40);
  }, 40);
  const [track] = canvas.captureStream(25).getVideoTracks();
  const tone = () => {
    const sound = new AudioContext(), oscillator = sound.createOscillator(), out = sound.createMediaStreamDestination();
    oscillator.connect(out);
    oscillator.start();
    return out.stream.getAudioTracks()[0];
  };
  const microphone = audio.includes('microphone') ? tone() : null;

  /** Takes of the offered audio what this camera has. */
  async function answerAudio(pc) {
    const section = pc.getTransceivers().find(({ receiver }) => receiver.track.kind === 'audio');
    if (!section || !audio) return;
    await section.sender.replaceTrack(microphone);
    section.direction = { 'microphone': 'sendonly', 'loudspeaker': 'recvonly' }[audio] ?? 'sendrecv';
  }

  /** The answer, with every section of this kind rejected. */
  const reject = (sdp, kind) => sdp.split(/^(?=m=)/m).filter((part) => part.startsWith(`m=${kind} `)).reduce((text, part) => text
    .replace(part, part.replace(/^m=(\S+) \d+/, 'm=$1 0'))
    .replace(new RegExp(`^(a=group:BUNDLE.*) ${part.match(/^a=mid:(\S+)/m)[1]}\\b`, 'm'), '$1'), sdp);

  function onChannel({ channel }) {
    channels.push(channel);
    channel.onmessage = ({ data: text }) => {
      texts.push(text);
      channel.send(`done: ${text}`);
    };
  }

  const tellStreams = (to, more = {}) => streams.length > 0 && send(to, 'keepalive', { stream: sending, streams, ...more });
  function onKeepalive(message) {
    const { stream } = message.payload;
    if (!stream || streams.length === 0) return;
    if (!streamError) sending = stream;
    tellStreams(message, streamError ? { streamError } : {});
  }

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
      pc.ondatachannel = onChannel;
      // What nobody plays is not decoded.
      pc.ontrack = ({ track: talk }) => talk.kind === 'audio'
        && Object.assign(document.createElement('audio'), { srcObject: new MediaStream([talk]) }).play();
      pc.onconnectionstatechange = () => pc.connectionState === 'connected' && tellStreams(message);
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
    await answerAudio(session.pc);
    const answer = await session.pc.createAnswer();
    await session.pc.setLocalDescription(answer); // its candidates leave from here on
    if (answerDelayMs > 0) await new Promise((resolve) => setTimeout(resolve, answerDelayMs));
    const rejected = [!audio && 'audio', !data && 'application'].filter(Boolean);
    session.answer = { sdp: rejected.reduce(reject, answer.sdp) };
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
    else if (message.type === 'keepalive') onKeepalive(message);
    else if (message.type === 'bye') session?.pc.close();
  });
  link.connect({ clientId: sn, username: sn, password });
  await link.subscribe(`p2p/signal/device/${sn}`);
  await link.publish(`p2p/status/device/${sn}`, JSON.stringify({ online: true, timestamp: 0 }), { retain: true });
}
