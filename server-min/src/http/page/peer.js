// The peer connection of a viewer: one video to receive, live.

import { Failure } from './words.js';

/** What a camera may send. Leaving out the rest halves the offer. */
const CODECS = ['video/h264', 'video/h265', 'video/rtx'];

/** Without ICE servers yet: see `useIceServers`. */
export function createPeer({ relayOnly }) {
  const pc = new RTCPeerConnection({
    iceTransportPolicy: relayOnly ? 'relay' : 'all', bundlePolicy: 'max-bundle',
  });
  const transceiver = pc.addTransceiver('video', { direction: 'recvonly' });
  preferCameraCodecs(transceiver);
  // A camera is watched live: show each frame as soon as it can be decoded.
  transceiver.receiver.jitterBufferTarget = 0;
  transceiver.receiver.playoutDelayHint = 0;
  return pc;
}

/** Before setLocalDescription. One entry that this browser does not take must not cost the others. */
export function useIceServers(pc, iceServers) {
  const taken = [];
  for (const server of iceServers) {
    try {
      pc.setConfiguration({ ...pc.getConfiguration(), iceServers: [...taken, server] });
      taken.push(server);
    } catch (error) {
      console.warn('p2pcam: ICE server not taken:', server.urls, error.message);
    }
  }
}

function preferCameraCodecs(transceiver) {
  const known = RTCRtpReceiver.getCapabilities?.('video')?.codecs;
  if (!known || !transceiver.setCodecPreferences) return;
  const codecs = known
    .filter((codec) => CODECS.includes(codec.mimeType.toLowerCase()))
    .sort((a, b) => CODECS.indexOf(a.mimeType.toLowerCase()) - CODECS.indexOf(b.mimeType.toLowerCase()));
  if (!codecs.some((codec) => codec.mimeType.toLowerCase() !== 'video/rtx')) {
    throw new Failure('codec', 'it has neither H.264 nor H.265');
  }
  transceiver.setCodecPreferences(codecs);
}
